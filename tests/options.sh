#!/bin/sh
# options.sh: test_options.c with each compile-time option of lemon.h alone (the others being its absence) and with sets of
# them, compiled with all warnings as errors and run; what a build without files, clock, environment and heap still asks
# the system for; and that no option leaves a name behind that does not begin with lemon_.  $CC, $CFLAGS and $LIBS as ever.
cd "$(dirname "$0")" || exit 1
mkdir -p build/options
CC=${CC:-cc}
sets="none|LEMON_STATIC|LEMON_NO_THREADS|LEMON_NO_SIMD|LEMON_NO_STDIO|LEMON_NO_TRAIN|LEMON_NO_FUSE|LEMON_NO_FORMATS|LEMON_NO_BPE"
sets="$sets|TEST_HEAP|TEST_ASSERT|TEST_CLOCK TEST_NO_ATOMICS|LEMON_STATIC LEMON_NO_FUSE TEST_ASSERT|LEMON_STATIC LEMON_NO_TRAIN"
sets="$sets|LEMON_NO_TRAIN LEMON_NO_SIMD LEMON_NO_THREADS TEST_ASSERT|LEMON_NO_STDIO LEMON_NO_FORMATS LEMON_NO_FUSE"
sets="$sets|LEMON_NO_TRAIN LEMON_NO_FUSE LEMON_NO_FORMATS LEMON_NO_SIMD LEMON_NO_THREADS LEMON_NO_STDIO TEST_HEAP TEST_CLOCK"
sets="$sets|LEMON_STATIC LEMON_NO_TRAIN LEMON_NO_FUSE LEMON_NO_FORMATS LEMON_NO_SIMD LEMON_NO_THREADS LEMON_NO_STDIO LEMON_NO_BPE"
[ -z "$1" ] || sets=$1
passed=0 failed=0
result() { # STATUS NAME MORE
    if [ "$1" -eq 0 ]; then echo "ok   $2"; passed=$((passed + 1)); else echo "FAIL $2: $3"; failed=$((failed + 1)); fi
}
IFS='|'
for set in $sets; do
    unset IFS
    name=$(echo "$set" | tr ' ' +)
    flags=$(echo " $set" | sed 's/ none//; s/ / -D/g')
    rm -rf build/options/scratch
    mkdir -p build/options/scratch
    # shellcheck disable=SC2086
    $CC -std=c99 -O0 ${CFLAGS:--Wall -Wextra -Wpedantic} -Werror $flags test_options.c -o build/options/test $LDFLAGS ${LIBS:--lm -pthread} > build/options/log 2>&1
    result $? "$name compiles" "$(grep -m 1 -E 'error|undefined' build/options/log | cut -c 1-200)"
    CHECK_SCRATCH=build/options/scratch ./build/options/test > build/options/out 2>&1
    result $? "$name: $(tail -n 1 build/options/out)" "$(grep -m 1 FAIL build/options/out)"
    rm -f build/options/test
done

# What the smallest build needs from outside, libm and compiler helpers apart.
small="-DLEMON_NO_TRAIN -DLEMON_NO_FUSE -DLEMON_NO_FORMATS -DLEMON_NO_SIMD -DLEMON_NO_THREADS -DLEMON_NO_STDIO"
printf '#define LEMON_IMPLEMENTATION\n#include "../../../lemon.h"\n' > build/options/all.c
allowed='memcpy|memset|memcmp|memmove|memchr|strlen|strcmp|strchr|strerror|strtod|strtoll|strtol|qsort|malloc|free|__errno_location|__stack_chk_fail|exp|expf|log|logf|log10|pow|powf|sin|cos|sqrt|sqrtf|floor|floorf|fabs|fmax|fmin|ceil|roundf|sincos|strstr|fmod|cosf|sinf|_GLOBAL_OFFSET_TABLE_'
more="a build without warnings"
# shellcheck disable=SC2086
$CC -std=c99 -O1 -Werror $small -c build/options/all.c -o build/options/all.o &&
    more=$(nm -u build/options/all.o | awk '{ print $NF }' | grep -vxE "$allowed")
[ -z "$more" ]
result $? "without files, clock and environment nothing is asked of the system" "$(echo "$more" | tr '\n' ' ')"

for flags in "" "-DLEMON_NO_THREADS -DLEMON_NO_SIMD" "$small"; do
    # shellcheck disable=SC2086
    $CC -std=c99 -O0 $flags -c build/options/all.c -o build/options/all.o &&
        more=$(nm -g --defined-only build/options/all.o | awk '{ print $NF }' | grep -v '^lemon_[a-z]')
    [ -z "$more" ]
    result $? "all names that are exported begin with lemon_ ${flags:-(no option)}" "$(echo "$more" | tr '\n' ' ')"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
