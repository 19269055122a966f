#!/bin/sh
# bits.sh [record]: test_bits.c by gcc and clang at -O2 and -O3 prints the same bits, those of bits.txt; `record` writes that file by the first of them.
cd "$(dirname "$0")" || exit 1
. ./harness.sh
scratch=build/bits
rm -rf $scratch && mkdir -p $scratch
CHECK_SCRATCH=$scratch
export CHECK_SCRATCH
[ "$1" = record ] && rm -f bits.txt
for cc in gcc clang; do
    command -v $cc > /dev/null || { skip "$cc"; continue; }
    for level in ${LEVELS:--O2 -O3}; do
        if ! $cc -std=c99 -w $level test_bits.c -o $scratch/test -lm -pthread; then fail "$cc $level"; continue; fi
        $scratch/test print > $scratch/printed
        [ -f bits.txt ] || cp $scratch/printed bits.txt
        if ! grep -qx "$(head -n 1 $scratch/printed)" bits.txt; then skip "$cc $level: another C library than bits.txt's"; continue; fi
        grep -vxF -f bits.txt $scratch/printed > $scratch/others
        if [ -s $scratch/others ]; then fail "$cc $level: the bits of bits.txt" "$(tr '\n' ' ' < $scratch/others)"
        else ok "$cc $level: the bits of bits.txt"; fi
    done
done
done_checking
