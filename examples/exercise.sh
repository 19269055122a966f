#!/bin/sh
# exercise.sh N: takes one function out of a copy of lemon.h, in build/exercise/N, for the reader to write anew; when it is
# called again it grades what stands there.  Without N: the ten exercises.  The function is the one marked "exercise N".
cd "$(dirname "$0")" || exit 1
n=$1
folder=build/exercise/$n
task() {
    case $1 in
    1) echo "10 Inference: the index of the largest number, the lowest one on ties" ;;
    2) echo " 2 Numbers: a float as bf16, its upper 16 bits, rounded to the nearest, ties to the even one; NaN stays NaN" ;;
    3) echo " 2 Numbers: a normal random number from two uniform ones (Box and Muller)" ;;
    4) echo " 3 Tensors: a block of q4, an f16 scale and 32 half-bytes, as n floats" ;;
    5) echo "11 Training: the learning rate of step s: warm-up, then constant, or a cosine down to min_lr" ;;
    6) echo " 5 Kernels: RMSNorm of rows from ... to-1; op->aux, where it is not NULL, keeps 1 / rms of each" ;;
    7) echo "10 Inference: how many of the ranked tokens are left by top_k, top_p and min_p, in that order" ;;
    8) echo " 5 Kernels: the gradient of RMSNorm with respect to its input; op->add[0]: it is added to what is there" ;;
    9) echo "12 Fusion: out += weight * Out * W * In^T for one slot; a slot without a layer or channels adds nothing" ;;
    10) echo " 6 Tape: the rows backward; segments marked \`again\` run forward once more before" ;;
    *) return 1 ;;
    esac
}

if ! task "$n" > /dev/null; then
    echo "make -C examples exercise N=...     easy ones first: N, its chapter, what it does"
    for i in 1 2 3 4 5 6 7 8 9 10; do printf '%4d  %s\n' $i "$(task $i)"; done
    [ -z "$n" ]
    exit
fi
if [ ! -f "$folder/lemon.h" ]; then
    mkdir -p "$folder"
    awk -v mark="/\\* exercise $n \\*/" -v task="$(task "$n" | sed 's/^ *[0-9]* [A-Za-z]*: //')" '
        blank && /^}/ { blank = 0 }
        blank { next }
        { signature = $0 ~ /^(static|LEMON)/ ? $0 : signature; print }
        $0 ~ mark {
            blank = 1
            print "    /*  Yours: " task ". */"
            if (signature ~ /lemon_status/) print "    return LEMON_E_UNSUPPORTED;"
            else if (signature !~ / void /) print "    return 0;"
        }' ../lemon.h > "$folder/lemon.h.tmp" && mv "$folder/lemon.h.tmp" "$folder/lemon.h"
    echo "Exercise $n, chapter $(task "$n" | sed 's/^ *//')."
    echo "Write it: examples/$folder/lemon.h, line $(grep -n "/\* exercise $n \*/" "$folder/lemon.h" | cut -d: -f1)."
    echo "The same command again grades it; to begin anew, remove examples/$folder."
    exit
fi
${CC:-cc} -std=c99 -O1 -w -I"$folder" exercise.c -o "$folder/grade" -lm -pthread && "$folder/grade" "$n"
