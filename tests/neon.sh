#!/bin/sh
# neon.sh [PROGRAM...]: builds test programs for AArch64 (default: gemm, kernels, tape) and runs them under an emulator with
# the NEON kernels; then counts the instructions in the inner loop of the 8 x 12 micro-kernel.  Without the cross compiler
# and the emulator (Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user) it says "skip" and succeeds.
cd "$(dirname "$0")" || exit 1
for tool in aarch64-linux-gnu-gcc aarch64-linux-gnu-objdump qemu-aarch64; do
    command -v $tool > /dev/null || { echo "skip NEON: there is no $tool"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
done
[ $# -gt 0 ] || set -- gemm kernels tape
mkdir -p build
programs=
for name in "$@"; do
    # shellcheck disable=SC2086
    aarch64-linux-gnu-gcc -std=c99 -O2 -Werror $WARN -static "test_$name.c" -o "build/neon_$name" -lm -pthread || exit 1
    programs="$programs build/neon_$name@neon"
done
# shellcheck disable=SC2086
CHECK_WRAP=qemu-aarch64 CHECK_LIGHT=${CHECK_LIGHT:-1} ./run.sh build/neon.log $programs || exit 1

# The shortest loop with 24 FMAs is that of a packed A.
aarch64-linux-gnu-objdump -d --no-show-raw-insn "build/neon_$1" | awk '
    $2 == "<lemon__wide_neon_8>:" { on = 1; next }
    on && NF == 0 { exit }
    on { at[$1] = ++n; op[n] = $2; to = $2 ~ /^(b\.|cbn?z)/ ? at[($2 ~ /^cb/ ? $4 : $3) ":"] : 0 }
    on && to {
        fmla = 0
        for (i = to; i <= n; i++) fmla += op[i] == "fmla"
        if (fmla == 24 && (!best || n - to + 1 - 24 < best)) best = n - to + 1 - 24
    }
    END {
        if (best) print "8 x 12 tile, a step of k: 24 fmla, " best " other instructions"
        exit !(best && best <= 12)
    }' || { echo "FAIL the 8 x 12 tile has no loop of 24 fmla and at most 12 other instructions"; exit 1; }
