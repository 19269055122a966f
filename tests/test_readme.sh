#!/bin/sh
# The README: every block marked ```sh run is run, and every ```c run compiled and run, in order, in a copy of the
# repository; blocks that show its two commands name targets that are there.  Its figures: test_figures.sh.
cd "$(dirname "$0")" || exit 1
. ./harness.sh
scratch=$PWD/${CHECK_SCRATCH:-build/scratch/readme}
copy=$scratch/copy
cc=${CC:-cc}
rm -rf "$copy"
mkdir -p "$copy"
if [ ! -f ../README.md ]; then
    fail "there is a README"
    done_checking
fi
cp -p ../lemon.h ../README.md "$copy"       # times are kept: what is built need not be built again
cp -Rp ../examples "$copy"
mkdir -p "$copy/bench"
for file in ../bench/*; do          # but not what it built, which can be large
    case $file in ../bench/build | '../bench/*') ;; *) cp -Rp "$file" "$copy/bench" ;; esac
done
cp -p Makefile "$copy" 2> /dev/null && mkdir -p "$copy/tests" && mv "$copy/Makefile" "$copy/tests"
cd "$copy" || exit 1

# Blocks become files block.N.sh and block.N.c, N with leading zeros.
awk '
    /^```(sh|c) run[ \t]*$/ { kind = $1; sub("```", "", kind); file = sprintf("block.%02d.%s", ++n, kind); printf "" > file; next }
    /^```/ { if (file) close(file); file = "" }
    file { print > file }' README.md

export CI=true
for block in block.*; do
    [ -f "$block" ] || continue
    what=$(grep -v '^#' "$block" | grep . | head -n 1 | cut -c 1-60)
    case $block in
    *.sh) sh -e "$block" > "$block.out" 2>&1 < /dev/null ;;
    *) $cc -O1 -I. -x c "$block" -o "$block.program" -lm -pthread > "$block.out" 2>&1 && "./$block.program" >> "$block.out" 2>&1 < /dev/null ;;
    esac
    if [ $? -eq 0 ]; then ok "README: $block ($what)"; else fail "README: $block ($what)" "$(tail -n 1 "$block.out")"; fi
done
if ls block.*.sh block.*.c > /dev/null 2>&1; then ok "the README has blocks to run"; else fail "the README has blocks to run"; fi

# Targets that it names are there.
grep -oE 'make -C (examples|tests|bench)( [a-z]+)?' README.md | sort -u > targets
while read -r _ _ folder target; do
    [ -d "$folder" ] || { fail "make -C $folder $target" "no such folder"; continue; }
    check "make -C $folder $target is there" sh -c "make -C $folder -pq : 2> /dev/null | grep -q '^${target:-all}:'"
done < targets
done_checking
