#!/bin/sh
# lemon.h without a warning, by every compiler that is there: as implementation and as declarations, alone and in two
# translation units, with each option, unoptimised and optimised.  $WARN holds the flags; each compilation is a test.
cd "$(dirname "$0")" || exit 1

# warnings.sh one COMPILER STANDARD MODE OPTIMISATION compiles one of them.
if [ "$1" = one ]; then
    compiler=$2 standard=$3 mode=$4 optimisation=$5
    name="$compiler -std=$standard $optimisation, $mode"
    work=build/warnings/$(echo "$name" | tr -c "A-Za-z0-9+\n" _)
    mkdir -p "$work"
    case $standard in c++*) language=c++ warn=$(echo "$WARN" | sed 's/-Wstrict-prototypes//') ;; *) language=c warn=$WARN ;; esac
    case $mode in
    declarations) defines= implementation= ;;
    implementation | "two units") defines= implementation='#define LEMON_IMPLEMENTATION' ;;
    *) defines=$(echo "$mode" | sed 's/[A-Z_]*/-D&/g; s/-D /-D/g') implementation='#define LEMON_IMPLEMENTATION' ;;
    esac
    printf '%s\n#include "../../../../lemon.h"\nint lemon_test_unit(void);\nint lemon_test_unit(void) { return (int)sizeof(lemon_config); }\n' "$implementation" > "$work/a"
    printf '#include "../../../../lemon.h"\nint lemon_test_unit(void);\nint main(void) { return lemon_status_name(LEMON_OK) == 0 || lemon_test_unit() == 0; }\n' > "$work/b"
    # shellcheck disable=SC2086
    if ! $compiler -x $language -std=$standard $warn -Werror $optimisation $defines -c "$work/a" -o "$work/a.o" > "$work/log" 2>&1; then :
    elif [ "$mode" != "two units" ]; then echo "ok   $name"; rm -rf "$work"; exit 0
    elif $compiler -x $language -std=$standard $warn -Werror $optimisation -c "$work/b" -o "$work/b.o" >> "$work/log" 2>&1 &&
        $compiler "$work/a.o" "$work/b.o" -o "$work/program" -lm -pthread >> "$work/log" 2>&1 && "$work/program" >> "$work/log" 2>&1; then
        echo "ok   $name"; rm -rf "$work"; exit 0
    fi
    echo "FAIL $name: $(grep -m 1 -E "(error|warning):|undefined" "$work/log" | cut -c 1-200)"
    exit 0
fi

rm -rf build/warnings
list() {
    for compiler in gcc clang g++ clang++; do
        command -v $compiler > /dev/null || continue
        case $compiler in *++) standards="c++11 c++17" ;; *) standards="c99 c11" ;; esac
        for standard in $standards; do
            printf '%s\n' "$compiler $standard implementation -O0" "$compiler $standard declarations -O0" "$compiler $standard 'two units' -O0" \
                "$compiler $standard LEMON_STATIC -O0" "$compiler $standard 'LEMON_STATIC LEMON_NO_THREADS LEMON_NO_SIMD' -O0"
        done
        first=${standards% *}
        printf '%s\n' "$compiler $first LEMON_NO_THREADS -O0" "$compiler $first LEMON_NO_SIMD -O0"
        # Only GCC has warnings that come of optimising, and it takes half a minute for them.
        case $compiler in g*) echo "$compiler $first implementation -O3" ;; esac
    done
}
list | xargs -P "${JOBS:-2}" -L 1 ./warnings.sh one | tee build/warnings.log
awk '/^ok/ { p++ } /^FAIL/ { f++ } END { printf "%d passed, %d failed\n", p, f; exit f != 0 || p == 0 }' build/warnings.log
