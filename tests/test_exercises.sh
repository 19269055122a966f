#!/bin/sh
# make -C examples exercise: with its function each exercise passes, without it fails; and the blanked copies compile.
cd "$(dirname "$0")" || exit 1
. ./harness.sh
scratch=$PWD/${CHECK_SCRATCH:-build/scratch/exercises}
mkdir -p "$scratch/blank"
cc=${CC:-cc}

# A copy in which a switch takes out any of the functions, so that one compilation shows all of them.
awk '
    { signature = $0 ~ /^(static|LEMON)/ ? $0 : signature; print }
    match($0, /\/\* exercise [0-9]+ \*\//) {
        n = substr($0, RSTART + 12, RLENGTH - 15)
        print "    if (exercise_blank == " n ") return" (signature ~ /lemon_status/ ? " LEMON_E_UNSUPPORTED" : signature ~ / void / ? "" : " 0") ";"
    }' ../lemon.h > "$scratch/lemon.h"
check "the grader compiles" $cc -std=c99 -O1 -w -DEXERCISE_SWITCH -I"$scratch" ../examples/exercise.c -o "$scratch/grade" -lm -pthread
for n in 1 2 3 4 5 6 7 8 9 10; do
    check "exercise $n passes with the function" "$scratch/grade" $n
    check "and fails without it" sh -c "! '$scratch/grade' $n blank > '$scratch/out' && grep -q 'not yet' '$scratch/out'"
done
# What the reader gets, by the command that the README tells.
rm -rf "$scratch/examples"
mkdir -p "$scratch/examples"
cp ../examples/exercise.sh ../examples/exercise.c "$scratch/examples"
cp ../lemon.h "$scratch/lemon.h"
for n in 1 2 3 4 5 6 7 8 9 10; do (cd "$scratch/examples" && ./exercise.sh $n > $n.out); done
check "each says where to write" sh -c "grep -l 'lemon.h, line [0-9]' '$scratch'/examples/*.out | wc -l | grep -qx 10"
check "and takes something out" sh -c "for i in 1 2 3 4 5 6 7 8 9 10; do grep -q 'Yours: ' '$scratch'/examples/build/exercise/\$i/lemon.h || exit 1; done"
check "the second call grades" sh -c "cd '$scratch/examples' && ! ./exercise.sh 9 > grade.out && grep -qx 'exercise 9: not yet' grade.out"
check "without a number it lists ten" sh -c "../examples/exercise.sh | grep -c '^ *[0-9]*  .*:' | grep -qx 10"
check "an eleventh is refused" sh -c "! ../examples/exercise.sh 11 > '$scratch/out'"
done_checking
