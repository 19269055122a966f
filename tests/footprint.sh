#!/bin/bash
# footprint.sh: how large what lemon.h becomes is, and how long it takes to compile; the table of the README.  Code is the
# section .text of one translation unit in which everything is static, so that what the program does not use is not there;
# libm and libc are not counted.  Without an ARM compiler (Debian: gcc-arm-none-eabi libnewlib-arm-none-eabi) that column is "-".
# UPDATE=1: the table goes into bench/results and the README.  TIMES=0: without the times, where others keep the processor busy.
cd "$(dirname "$0")" || exit 1
work=build/footprint
mkdir -p $work
passed=0 failed=0
small="-DLEMON_NO_TRAIN -DLEMON_NO_FUSE -DLEMON_NO_FORMATS -DLEMON_NO_SIMD -DLEMON_NO_THREADS -DLEMON_NO_STDIO"
m7="-mcpu=cortex-m7 -mthumb -mfloat-abi=hard -mfpu=fpv5-sp-d16"
have() { command -v "$1" > /dev/null; }
bound() { # VALUE MOST NAME; "-": not measured
    [ "$1" != - ] || return
    if [ "$1" -le "$2" ]; then echo "ok   $3: $1, at most $2"; passed=$((passed + 1)); else echo "FAIL $3: $1, expected at most $2"; failed=$((failed + 1)); fi
}

# Reads a checkpoint from memory, feeds ids, hands out the text of the likeliest tokens.
cat > $work/ids.c << 'C'
#define LEMON_STATIC
#define LEMON_IMPLEMENTATION
#include "../../../lemon.h"
lemon_status go(lemon_ctx *ctx, const lemon_reader *reader, const int32_t *ids, int64_t n, int (*out)(const char *, size_t));
lemon_status go(lemon_ctx *ctx, const lemon_reader *reader, const int32_t *ids, int64_t n, int (*out)(const char *, size_t)) {
    lemon_model *m;
    lemon_session *s;
    lemon_session_options o;
    float *scores;
    int32_t i, best;
    const char *text;
    size_t bytes;
    lemon_status status = lemon_load_reader(ctx, reader, &m);
    if (status) return status;
    lemon_session_defaults(&o);
    status = lemon_session_open_with(ctx, m, &o, &s);
    if (!status) status = lemon_session_feed(s, ids, n, &scores);
    while (!status) {
        for (i = best = 0; i < m->config.vocab_size; i++)
            if (scores[i] > scores[best]) best = i;
        status = lemon_decode(ctx, m->tokenizer, -1, best, &text, &bytes);
        if (status || out(text, bytes)) break;
        status = lemon_session_feed(s, &best, 1, &scores);
    }
    return status;
}
C
# The same by lemon_generate: a prompt in letters, and the sampler.
cat > $work/text.c << 'C'
#define LEMON_STATIC
#define LEMON_IMPLEMENTATION
#include "../../../lemon.h"
typedef int (*callback)(void *user, int32_t id, const char *text, size_t bytes);
lemon_status go(lemon_ctx *ctx, const lemon_reader *reader, const char *prompt, callback out, lemon_tokens *tokens);
lemon_status go(lemon_ctx *ctx, const lemon_reader *reader, const char *prompt, callback out, lemon_tokens *tokens) {
    lemon_model *m;
    lemon_sampling sampling;
    lemon_status status = lemon_load_reader(ctx, reader, &m);
    lemon_sampling_defaults(&sampling);
    return status ? status : lemon_generate(ctx, m, prompt, 100, &sampling, out, NULL, tokens, NULL);
}
C
printf '#define LEMON_IMPLEMENTATION\n#include "../../../lemon.h"\n' > $work/all.c
printf '#include "../../../lemon.h"\n' > $work/declarations.c
printf '\n' > $work/empty.c

section() { # FILE PATTERN
    size -A "$1" | awk -v p="$2" '$1 ~ p { n += $2 } END { print n + 0 }'
}
sizes() { # NAME FILE FLAGS...: one row
    name=$1 file=$2
    shift 2
    gcc -Os "$@" -c "$file" -o $work/x.o || exit 1
    x86=$(section $work/x.o '^\.text') data=$(section $work/x.o '^\.(rodata|data)') arm=- arm_data=-
    # shellcheck disable=SC2086
    if have arm-none-eabi-gcc && arm-none-eabi-gcc -Os $m7 "$@" -c "$file" -o $work/m.o; then
        arm=$(section $work/m.o '^\.text') arm_data=$(section $work/m.o '^\.(rodata|data)')
    fi
    echo "| $name | $x86 | $data | $arm | $arm_data |"
}
{
echo "| only to generate, -Os: bytes of | code, x86-64 | constants | code, Cortex-M7 | constants |"
echo "|---|---|---|---|---|"
# shellcheck disable=SC2086
{
    sizes "ids in, text out, LEMON_NO_BPE" $work/ids.c $small -DLEMON_NO_BPE -fno-pie
    sizes "ids in, text out" $work/ids.c $small -fno-pie
    ids=$x86 ids_arm=$arm
    sizes "text in, text out, sampling" $work/text.c $small -fno-pie
}
seconds() { # COMMAND...: time of the processor, the best of three, in milliseconds
    local TIMEFORMAT=%U+%S best= took
    [ "$TIMES" != 0 ] || { echo -; return; }
    for _ in 1 2 3; do
        took=$({ time "$@" > /dev/null 2>&1; } 2>&1) || return 1
        took=$(echo "$took" | awk -F + '{ printf "%.0f", 1000 * ($1 + $2) }')
        [ -n "$best" ] && [ "$best" -le "$took" ] || best=$took
    done
    echo "$best"
}
timed() { [ "$2" = - ] || echo "| $1 | $2 ms |"; }
gcc -O2 -c $work/all.c -o $work/all.o
whole=$(section $work/all.o '^\.text') constants=$(section $work/all.o '^\.(rodata|data)')
gcc=$(seconds gcc -O2 -c $work/all.c -o $work/all.o)
plain=$(seconds gcc -O2 -DLEMON_NO_SIMD -c $work/all.c -o $work/all.o)
part=$(seconds gcc -O2 -DLEMON_NO_TRAIN -c $work/all.c -o $work/all.o)
with=$(seconds gcc -fsyntax-only $work/declarations.c) without=$(seconds gcc -fsyntax-only $work/empty.c)
include=$([ "$with" = - ] && echo - || echo $((with - without)))
tcc=$(have tcc && seconds tcc -c $work/all.c -o $work/all.o || echo -)
includes=$(gcc -H -fsyntax-only $work/declarations.c 2>&1 | sed -n 's/^\.\. .*\///p' | sort -u | tr '\n' ' ')
echo
echo "| the whole library | |"
echo "|---|---|"
echo "| code at -O2, x86-64, all instruction sets | $whole bytes |"
echo "| constants | $constants bytes |"
timed "gcc -O2" "$gcc"
timed "the same with LEMON_NO_SIMD" "$plain"
timed "the same with LEMON_NO_TRAIN" "$part"
timed "tcc" "$tcc"
timed "#include without the implementation" "$include"
echo "| an #include without the implementation includes | $includes|"
} > $work/tables
echo
cat $work/tables
echo
[ -z "$UPDATE" ] || tee ../bench/results/footprint.md < $work/tables | ./into_readme.sh footprint
bound "$ids" 24576 "code to generate, x86-64"
bound "$ids_arm" 24576 "code to generate, Cortex-M7"
bound $((whole + constants)) 512000 "code and constants of all"
bound "$gcc" 8000 "ms of gcc -O2"
bound "$tcc" 1000 "ms of tcc"
bound "$include" 20 "ms of an include"
[ "$includes" = "stddef.h stdint.h " ]
bound $? 0 "other headers than stddef.h and stdint.h"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
