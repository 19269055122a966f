#!/bin/sh
# embedded.sh: examples/embedded on a Cortex-M7 in qemu, with weights of 32, 8 and 4 bits, the latter two also multiplied by
# bytes (lemon_options.int8, by SMLAD).  The board's tokens are those of the same program on the host and of the tool: with its
# fastest kernels, but where bytes are multiplied with plain C, which computes as the board does, bit for bit (another order of
# sums, or another type of the cache, makes another last bit, which may round to another byte).  With float32 weights they are the reference continuation
# of a real checkpoint; no heap; at most 400 KB of RAM, which the linker's script enforces.  Without the cross compiler and
# the emulator (Debian: gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm) it says "skip" and succeeds.
# UPDATE=1: the tables go into bench/results and the README.
cd "$(dirname "$0")" || exit 1
for tool in arm-none-eabi-gcc qemu-system-arm python3; do
    command -v $tool > /dev/null || { echo "skip embedded: there is no $tool"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
done
passed=0 failed=0 skipped=0
result() { # STATUS NAME MORE
    if [ "$1" -eq 0 ]; then echo "ok   $2"; passed=$((passed + 1)); else echo "FAIL $2: $3"; failed=$((failed + 1)); fi
}
make -s -C ../examples lemon || exit 1
lemon=../examples/lemon work=$PWD/build/embedded
mkdir -p "$work"
: > "$work/table"
measure() { # NAME MODEL TOKENIZER REFERENCE COUNT TYPE...: each type is a row of the table; TOKENIZER, REFERENCE: '' for none
    name=$1 model=$2 tokenizer=$3 reference=$4 count=$5
    shift 5
    for type in "$@"; do one_type; done
}
one_type() {
    dtype=${type%-int8} defines="-DCOUNT=$count" flags='' isa=''
    [ "$type" = "$dtype" ] || { defines="$defines -DINT8 -DISA=LEMON_ISA_SCALAR" flags=--int8 isa=scalar; }
    board() { make -s -C ../examples/embedded B="$work/$type" MODEL="$model" TOKENIZER="$tokenizer" DTYPE="$dtype" DEFINES="$defines" "$@"; }
    rm -rf "$work/$type"
    board > "$work/log" 2>&1
    result $? "$name, $type: it compiles, without a heap, into 4 MB of flash and 400 KB of RAM" "$(grep -m 1 -E 'error|overflow|undefined' "$work/log")"
    board run > "$work/board.out" 2> "$work/board.err"
    result $? "$name, $type: it runs on the board" "$(tail -n 2 "$work/board.err")"
    "$work/$type/host" > "$work/host.out"
    ids=$(grep '^ids' "$work/board.out" | tr -d '\r')
    [ "$(echo "$ids" | wc -w)" -eq $((count + 2)) ]
    result $? "$name, $type: it says $count tokens" "$ids"
    [ "$ids" = "$(grep '^ids' "$work/host.out")" ]
    result $? "$name, $type: the board's tokens are the host's" "$ids"
    # shellcheck disable=SC2086
    $lemon convert "$model" "$work/$type.lemon" --dtype "$dtype" ${tokenizer:+--tokenizer "$tokenizer"} --quiet > /dev/null &&
        LEMON_ISA=$isa $lemon generate "$work/$type.lemon" $flags -n "$count" --temp 0 --json --quiet 2> "$work/err" | tail -n 1 > "$work/tool.json"
    tool=$(python3 -c 'import json, sys; print(*json.load(open(sys.argv[1]))["tokens"])' "$work/tool.json")
    theirs=$ids
    [ -z "$isa" ] || theirs=$(cd ../examples/embedded && ${CC:-cc} -std=c99 -O2 -I"$work/$type" -DARENA=67108864 $defines -DCACHE=LEMON_F32 \
        main.c host.c -o "$work/$type/host32" -lm && "$work/$type/host32" | grep '^ids')    # the tool's cache is f32
    [ "$theirs" = "ids $tool" ]
    result $? "$name, $type: and the tool's${isa:+, the cache being f32}" "$theirs; the tool: $tool"
    if [ -n "$reference" ] && [ "$type" = f32 ]; then
        [ "$ids" = "ids $(tr -s ' \n' ' ' < "$reference" | sed 's/^ //; s/ $//')" ]
        result $? "$name, $type: and the reference continuation" "$ids"
    fi
    [ "$(arm-none-eabi-nm "$work/$type/board.elf" | grep -cE ' [TtWw] (_?malloc|_?free|_?sbrk|_malloc_r|fopen|printf)$')" -eq 0 ]
    result $? "$name, $type: neither malloc nor a file is linked" "$(arm-none-eabi-nm "$work/$type/board.elf" | grep -E ' (malloc|fopen|printf)$')"
    arm-none-eabi-size "$work/$type/board.elf" | awk -v t="$name, $type" -v arena="$(sed -n 's/^bytes of the arena used //p' "$work/board.out" | tr -d '\r')" \
        -v each="$(sed -n 's/^instructions of a token //p' "$work/board.out" | tr -d '\r')" \
        -v context="$(sed -n 's/^tokens of context //p' "$work/board.out" | tr -d '\r')" \
        'NR == 2 { printf "| %s | %d | %d | %d | %d |\n", t, $1 + $2, arena, each, context }' >> "$work/table"
}
teacher=$PWD/../examples/data/teacher.lemon
for folder in "$LEMON_DATA" ../../shared/data ../shared/data; do
    [ -n "$folder" ] && [ -f "$folder/stories260K.bin" ] || continue
    folder=$(cd "$folder" && pwd)
    measure stories260K "$folder/stories260K.bin" "$folder/tok512.bin" "$folder/greedy_empty.ids" 200 f32 q8 q8-int8 q4 q4-int8
    break
done
[ -s "$work/table" ] || { echo "skip the reference continuation: there is no stories260K.bin"; skipped=1; }
measure "the teacher" "$teacher" '' '' 60 q8 q8-int8 q4 q4-int8
make -s -C ../examples/embedded B="$work/little" RAM_KB=16 2>&1 | grep -q '^RAM_KB is 16, expected more than 26'
result $? "a board without room for the stack is told" "another message"

# Which board has room for what, and an estimate of its speed: an instruction a cycle.  Flash and contiguous RAM in KB, by the
# makers' data sheets; of the RAM 24 KB are the stack.
boards() {
    awk -F '|' 'NR == FNR { name[++n] = $2; flash[n] = $3; ram[n] = $4 + 25 * 1024; each[n] = $5; next }
        FNR == 1 { printf "| board, flash and RAM in KB |"; for (i = 1; i <= n; i++) printf "%s|", name[i]; print ""
                   printf "|---|"; for (i = 1; i <= n; i++) printf "---|"; print "" }
        { printf "| %s, %d MHz: %d, %d |", $1, $2, $3, $4
          for (i = 1; i <= n; i++) printf(flash[i] <= $3 * 1024 && ram[i] <= $4 * 1024 ? " %.0f |" : " - |", $2 * 1e6 / each[i])
          print "" }' "$work/table" - << 'LIST'
STM32F411 (M4)|100|512|128
nRF5340 (M33)|128|1024|512
RP2350 with 4 MB (M33)|150|4096|520
STM32F769 (M7)|216|2048|512
STM32H743 (M7)|480|2048|512
i.MX RT1062 of a Teensy 4.1 (M7)|600|7936|512
LIST
}
{
    echo "| f16 cache | bytes of flash, program included | bytes of the arena | instructions of the last token | tokens of context |"
    echo "|---|---|---|---|---|"
    cat "$work/table"
    printf '\nTokens a second, an estimate that was measured on none of them: clock / instructions.\n\n'
    boards
} > "$work/tables"
echo
cat "$work/tables"
[ -z "$UPDATE" ] || tee ../bench/results/boards.md < "$work/tables" | ./into_readme.sh boards
echo
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
