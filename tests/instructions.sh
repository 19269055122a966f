#!/bin/sh
# instructions.sh: how many instructions a token takes on a Cortex-M7, by NEON and SDOT, and by AVX2, with weights of 32, 8
# and 4 bits, and with lemon_options.int8 besides: the program of examples/embedded, its first 200 tokens and what comes before
# them, counted by a plugin of QEMU.  The ids must be the same on all three, but where activations are rounded to bytes: there
# another order of a float32 sum may round to another byte, so each machine is compared with another program that computes
# in its order: the M7 with plain C on the host, SDOT with NEON that has none, AVX2 with itself outside of the emulator.  There the
# products of bytes must be the same integers, whatever instruction makes them.  What is not there (Debian: gcc-arm-none-eabi
# libnewlib-arm-none-eabi gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user qemu-system-arm) is "-" in the table.
# UPDATE=1: that goes into bench/results and the README.
cd "$(dirname "$0")" || exit 1
work=$PWD/build/instructions
mkdir -p "$work"
passed=0 failed=0
model=$PWD/../examples/data/teacher.lemon tokenizer='' name="the shipped teacher"
for folder in "$LEMON_DATA" ../../shared/data ../shared/data; do
    [ -n "$folder" ] && [ -f "$folder/stories260K.bin" ] || continue
    folder=$(cd "$folder" && pwd)
    model=$folder/stories260K.bin tokenizer=$folder/tok512.bin name=stories260K
    break
done
have() { command -v "$1" > /dev/null; }
make -s -C ../examples lemon && ${CC:-cc} -shared -fPIC -O1 instructions.c -o "$work/count.so" || exit 1
for type in f32 q8 q4; do
    mkdir -p "$work/$type"
    ../examples/lemon convert "$model" "$work/$type/model.h" --dtype $type ${tokenizer:+--tokenizer "$tokenizer"} --quiet > /dev/null || exit 1
done

# build MACHINE TYPE COUNT FLAGS..., then run MACHINE: the ids are in $work/out, the instructions on the standard output.
build() {
    machine=$1 type=$2 count=$3
    shift 3
    case $machine in
    m7) have qemu-system-arm && make -s -C ../examples/embedded B="$work/$type" MODEL="$model" TOKENIZER="$tokenizer" DTYPE="$type" DEFINES="-DCOUNT=$count $*" "$work/$type/board.elf" &&
        mv "$work/$type/board.elf" "$work/program" ;;
    aarch64) have qemu-aarch64 && aarch64-linux-gnu-gcc -std=c99 -O3 -static -I"$work/$type" -DARENA=67108864 -DCOUNT="$count" "$@" \
        ../examples/embedded/main.c ../examples/embedded/host.c -o "$work/program" -lm ;;
    x86-64) have qemu-x86_64 && gcc -std=c99 -O3 -static -I"$work/$type" -DARENA=67108864 -DCOUNT="$count" "$@" \
        ../examples/embedded/main.c ../examples/embedded/host.c -o "$work/program" -lm ;;
    esac > "$work/log" 2>&1
}
run() {
    case $1 in
    m7) qemu-system-arm -M mps2-an500 -display none -monitor none -serial stdio -semihosting-config enable=on,target=native \
        -plugin "$work/count.so" -kernel "$work/program" ;;
    aarch64) qemu-aarch64 -cpu max -plugin "$work/count.so" "$work/program" ;;
    x86-64) qemu-x86_64 -cpu max -plugin "$work/count.so" "$work/program" ;;
    esac 2> "$work/err" | tr -d '\r' > "$work/out"
    sed -n 's/^instructions //p' "$work/err"
}
# host ISA TYPE: the ids of the same program with rounded activations, run natively in that instruction set.
host() {
    gcc -std=c99 -O2 -I"$work/$2" -DARENA=67108864 -DCOUNT=200 -DINT8 -DISA=LEMON_ISA_$1 \
        ../examples/embedded/main.c ../examples/embedded/host.c -o "$work/host" -lm && "$work/host" | grep '^ids'
}
# twin MACHINE TYPE: what the ids with rounded activations are compared with.
twin() {
    case $1 in
    m7) host SCALAR "$2" ;;
    aarch64) qemu-aarch64 -cpu cortex-a57 "$work/program" | grep '^ids' ;;
    x86-64) host AVX2 "$2" ;;
    esac
}
printf '| instructions a token, %s | Cortex-M7 | NEON, SDOT | AVX2 |\n|---|---|---|---|\n' "$name" > "$work/table"
for kind in f32 q8 "q8 -DINT8" q4 "q4 -DINT8"; do
    line="| $(echo "$kind" | sed 's/ -DINT8/, int8/') |" all=
    for machine in m7 aarch64 x86-64; do
        # shellcheck disable=SC2086
        if build $machine ${kind%% *} 200 $(echo "$kind" | sed -n "s/^[a-z0-9]* //p"); then
            line="$line $(($(run $machine) / 200)) |"
            grep '^ids' "$work/out" > "$work/ids"
            what="200 tokens, the same on each machine"
            case $kind in *INT8) what="200 tokens, those of its twin" all=$(twin $machine ${kind%% *}) ;; esac
            : "${all:=$(cat "$work/ids")}"
            if [ "$all" = "$(cat "$work/ids")" ] && [ "$(wc -w < "$work/ids")" -eq 202 ]; then echo "ok   $kind, $machine: $what"; passed=$((passed + 1));
            else echo "FAIL $kind, $machine: $what: $(tail -n 1 "$work/err")"; failed=$((failed + 1)); fi
        else line="$line - |"; echo "skip $kind, $machine: $(head -n 1 "$work/log")"; fi
    done
    echo "$line" >> "$work/table"
done
echo
cat "$work/table"
echo
[ -z "$UPDATE" ] || tee ../bench/results/instructions.md < "$work/table" | ./into_readme.sh instructions
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
