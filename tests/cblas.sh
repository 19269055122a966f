#!/bin/sh
# cblas.sh NAME=SONAME...: the matrix product and the tape with LEMON_USE_BLIS, linked with one CBLAS after the other.
# A library that is not in $CBLAS_DIRS is skipped.  $CC, $CFLAGS and $LIBS are the Makefile's.
cd "$(dirname "$0")" || exit 1
unset OPENBLAS_CORETYPE BLIS_ARCH_TYPE          # the machine's presets may name another CPU
programs=
skipped=0

find_library() {
    # shellcheck disable=SC2086
    for folder in $CBLAS_DIRS; do
        for file in "$folder/$1" "$folder"/*/"$1"; do [ -e "$file" ] && echo "$file" && return; done
    done
}

for each in "$@"; do
    name=${each%%=*} soname=${each#*=}
    library=$(find_library "$soname")
    if [ -z "$library" ]; then echo "skip LEMON_USE_BLIS with $name: no $soname here"; skipped=$((skipped + 1)); continue; fi
    for test in gemm tape; do
        program=build/${name}_$test
        # shellcheck disable=SC2086
        $CC -std=c99 $CFLAGS -O2 -DLEMON_USE_BLIS test_$test.c -o "$program" "$library" "-Wl,-rpath,$(dirname "$library")" $LIBS || exit 1
        programs="$programs $program"
    done
    echo "# $name is $library"
done
[ -n "$programs" ] || { echo "0 passed, 0 failed, $skipped skipped"; exit 0; }
# shellcheck disable=SC2086
CHECK_LIGHT=1 exec ./run.sh build/cblas.log $programs
