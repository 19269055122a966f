#!/bin/sh
# matrix.sh [quick]: lemon.h by every compiler, for every language standard and machine that can be had here: does it
# compile with all warnings as errors, and do the tests run green?  Prints one line a test, the matrix, and the counts.
# What is not installed is a line that says so.  Debian has all of it: clang clang-19 tcc gcc-i686-linux-gnu
# gcc-aarch64-linux-gnu gcc-arm-linux-gnueabihf gcc-riscv64-linux-gnu gcc-s390x-linux-gnu (and g++-..., libc6-dev-...-cross)
# qemu-user musl-tools gcc-mingw-w64-x86-64 wine64 wine emscripten nodejs.  `quick` leaves out what is emulated, and one
# standard for each compiler.  MATRIX_PROGRAMS: what is run for each machine, "options" and, but for quick, some more.
# MATRIX_ONLY: only rows whose name has this in it.  Emulators do a fourth of the rounds that random tests have elsewhere.
cd "$(dirname "$0")" || exit 1
quick=$1
mkdir -p build/matrix/scratch
work=build/matrix
: > $work/table
passed=0 failed=0 skipped=0 quiet=
programs=${MATRIX_PROGRAMS:-options}
[ -n "$quick" ] || programs=${MATRIX_PROGRAMS:-options numbers tensors kernels checkpoints tokenizers inference}
warn="-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wcast-align -Wcast-qual -Wundef -Wdouble-promotion -Wvla"
printf '#include "../../../lemon.h"\n#define LEMON_IMPLEMENTATION\n#include "../../../lemon.h"\n' > $work/header.c

result() { # STATUS NAME MORE
    if [ "$1" -eq 0 ]; then echo "ok   $2"; passed=$((passed + 1)); else echo "FAIL $2: $3"; failed=$((failed + 1)); fi
}
row() { printf '| %s | %s | %s |\n' "$1" "$2" "$3" >> $work/table; }
wanted() { case $1 in *"$MATRIX_ONLY"*) ;; *) return 1 ;; esac; }
missing() { # ROW COMMAND...: notes the first that is not there
    name=$1
    shift
    for command in "$@"; do
        command -v "$command" > /dev/null && continue
        echo "skip $name: there is no $command"
        row "$name" "skipped: no $command" ""
        skipped=$((skipped + 1))
        return 0
    done
    return 1
}
run_in() {
    fewer=1
    case $1 in qemu*) fewer=4 ;; esac
    CHECK_LIGHT=${CHECK_LIGHT:-1} CHECK_FEWER=$fewer CHECK_SCRATCH=$work/scratch WINEDEBUG=-all timeout 1200 "$@" < /dev/null > $work/out 2> $work/err
}

# target NAME STANDARDS RUNNER COMPILER FLAGS...: RUNNER - runs as it is, "none" not at all.
target() {
    name=$1 standards=$2 runner=$3 compiler=$4
    shift 4
    wanted "$name" || return
    [ "$runner" = none ] || [ "$runner" = - ] || ! missing "$name" "${runner%% *}" || return
    ! missing "$name" "$compiler" || return
    clean= bad=
    for standard in $standards; do
        language=c more=-Wstrict-prototypes
        case $standard in *++*) language=c++ more= ;; esac
        # shellcheck disable=SC2086
        "$compiler" -x $language -std=$standard $warn $more -Werror "$@" $quiet -fsyntax-only $work/header.c > $work/log 2>&1
        status=$?
        result $status "$name, $standard: no warning" "$(grep -m 1 -E 'error|warning' $work/log | cut -c 1-200)"
        if [ $status -eq 0 ]; then clean="$clean $standard"; else bad="$bad $standard"; fi
        [ -z "$quick" ] || break
    done
    ran=
    for program in $programs; do
        [ "$runner" != none ] || break
        standard=${standards%% *} language=c
        case $standard in *++*) language=c++ ;; esac
        output=$work/$program
        case $compiler in *mingw*) output=$output.exe ;; emcc) output=$output.js ;; esac
        # shellcheck disable=SC2086
        if ! "$compiler" -x $language -std=$standard -O1 "$@" "test_$program.c" -o "$output" -lm $threads > $work/log 2>&1; then
            result 1 "$name: test_$program" "$(grep -m 1 -E 'error|undefined' $work/log | cut -c 1-200)"
            ran="$ran $program does not compile,"
            continue
        fi
        rm -rf $work/scratch
        mkdir -p $work/scratch
        start=$(date +%s)
        # shellcheck disable=SC2086
        if [ "$runner" = - ]; then run_in ./"$output"; else run_in $runner ./"$output"; fi
        result $? "$name: test_$program, $(grep -E '^[0-9]+ passed' $work/out | tr -d '\r'), $(($(date +%s) - start)) s" "$(grep -m 1 FAIL $work/out)$(head -n 1 $work/err)"
        ran="$ran $program $(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\1+\2/p' $work/out | sed 's/+0$//; s/+/ passed, failed /'),"
        rm -f "$output" "$work/$program.wasm"
    done
    row "$name" "${clean:+clean:$clean}${bad:+ WARNINGS:$bad}" "$(echo "$ran" | sed 's/,$//; s/^ //')"
}

threads=-pthread
cc="c99 c11 c17 c2x" cpp="c++11 c++14 c++17 c++20"
target "gcc $(gcc -dumpversion 2> /dev/null), x86-64" "$cc" - gcc
target "g++, x86-64" "$cpp" - g++
target "clang $(clang -dumpversion 2> /dev/null | cut -d. -f1), x86-64" "$cc" - clang
target "clang++, x86-64" "$cpp" - clang++
target "clang 19, x86-64" "$cc" - clang-19
target "clang++ 19, x86-64" "$cpp" - clang++-19
i386=-                                           # a kernel of 64 bits alone needs the emulator for this one
echo 'int main(void) { return 0; }' > $work/i386.c
if i686-linux-gnu-gcc -static $work/i386.c -o $work/i386 2> /dev/null && ! $work/i386 2> /dev/null; then i386=${quick:+none} i386=${i386:-qemu-i386}; fi
target "gcc, i386" "gnu99 gnu11" $i386 i686-linux-gnu-gcc -static
target "gcc, musl" "c99 c11" - musl-gcc -static

# tcc knows neither the warnings nor -fsyntax-only.
if wanted "tcc" && ! missing "tcc" tcc; then
    tcc -Wall -Werror -c $work/header.c -o $work/header.o > $work/log 2>&1
    result $? "tcc: no warning" "$(head -n 1 $work/log)"
    tcc test_options.c -o $work/options -lm > $work/log 2>&1 && run_in $work/options
    result $? "tcc: test_options, $(grep -E '^[0-9]+ passed' $work/out)" "$(grep -m 1 FAIL $work/out)"
    row "tcc, x86-64" "clean" "options $(sed -n 's/^\([0-9]*\) passed.*/\1/p' $work/out)"
fi

# C as Microsoft's compiler takes it, as far as clang can tell: parsed with MinGW's headers, which want a GNU compiler.  What
# is there for compilers that are not GNU's is tcc's part above.
if wanted "clang as MSVC" && ! missing "clang as MSVC" clang-19 x86_64-w64-mingw32-gcc; then
    clang-19 --target=x86_64-w64-mingw32 -fms-extensions -fms-compatibility -fgnuc-version=4.2.1 -Wall -Wextra \
        -Wno-pragma-pack -Werror -fsyntax-only $work/header.c > $work/log 2>&1
    result $? "clang with Microsoft's extensions: no warning" "$(grep -m 1 -E 'error|warning' $work/log | cut -c 1-200)"
    row "clang-19 -fms-compatibility, MinGW headers" "$(grep -cE 'error|warning' $work/log) warnings" "(not run)"
fi
# What it warns of and no other does: a minus in front of a number without sign.
if wanted "clang as MSVC" && ! missing "unsigned minus" clang-query; then
    clang-query -c "match unaryOperator(hasOperatorName('-'), unless(isExpansionInSystemHeader()), hasUnaryOperand(hasType(isUnsignedInteger())))" \
        $work/header.c -- -std=c99 > $work/log 2>&1
    grep -q '^0 matches' $work/log
    result $? "no minus in front of an unsigned number" "$(grep -m 1 -E 'error|lemon.h' $work/log)"
fi
# Its names in capitals aside, windows.h defines words like max and near.
if wanted "windows.h" && ! missing "windows.h" x86_64-w64-mingw32-gcc; then
    { echo "#include <windows.h>" && cat $work/header.c; } > $work/windows.c
    x86_64-w64-mingw32-gcc -std=c99 -Wall -Wextra -Werror -fsyntax-only $work/windows.c > $work/log 2>&1
    result $? "MinGW behind windows.h: no warning" "$(grep -m 1 -E 'error|warning' $work/log | cut -c 1-200)"
fi
threads=
target "MinGW-w64 gcc, Windows x86-64, wine" "c99 c11" "wine" x86_64-w64-mingw32-gcc -static

if [ -z "$quick" ]; then
    quiet=-Wno-error=unused-command-line-argument
    target "emscripten, wasm, node" "c99" "node --no-experimental-fetch" emcc -sALLOW_MEMORY_GROWTH -sNODERAWFS=1 -sEXIT_RUNTIME=1 -sTOTAL_STACK=1048576
    target "emscripten, wasm SIMD, node" "c99" "node --no-experimental-fetch" emcc -msimd128 -sALLOW_MEMORY_GROWTH -sNODERAWFS=1 -sEXIT_RUNTIME=1 -sTOTAL_STACK=1048576
    quiet=
    threads=-pthread
    target "gcc, aarch64 (NEON)" "c99 c11" qemu-aarch64 aarch64-linux-gnu-gcc -static
    target "gcc, armv7 hard-float" "c99 c11" qemu-arm arm-linux-gnueabihf-gcc -static
    target "gcc, armv7 hard-float (NEON)" "c99 c11" qemu-arm arm-linux-gnueabihf-gcc -mfpu=neon-vfpv4 -mfp16-format=ieee -static
    target "gcc, riscv64" "c99 c11" qemu-riscv64 riscv64-linux-gnu-gcc -static
    target "gcc, s390x (big-endian)" "gnu99 gnu11" qemu-s390x s390x-linux-gnu-gcc -static
    target "gcc, Cortex-M7, freestanding" "c99 c11" none arm-none-eabi-gcc -mcpu=cortex-m7 -mthumb -mfloat-abi=hard -mfpu=fpv5-sp-d16 -DLEMON_NO_STDIO
fi
echo
echo "| compiler and machine | warnings | tests run green |"
echo "|---|---|---|"
cat $work/table
echo
printf '%d passed, %d failed, %d skipped\n' $passed $failed $skipped
[ $failed -eq 0 ]
