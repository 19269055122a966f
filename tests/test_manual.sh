#!/bin/sh
# The manual at the head of lemon.h: its programs are compiled and run, in order; its table of contents is right; every public
# function has a comment; functions are short; the lessons in examples/ are as long as they may be, and complete.
cd "$(dirname "$0")" || exit 1
. ./harness.sh
scratch=$PWD/${CHECK_SCRATCH:-build/scratch/manual}
here=$PWD
mkdir -p "$scratch"
cc=${CC:-cc}
wrong=$(./contents.sh check)
if [ -z "$wrong" ]; then ok "the table of contents points to the chapters"
else fail "the table of contents points to the chapters" "$(echo "$wrong" | head -n 1); make -C tests contents"; fi

# A program stands eight blanks in, from its first define to the brace that ends main.
cd "$scratch" || exit 1
awk '
    /^#ifndef LEMON_H/ { exit }
    /^        #define LEMON_IMPLEMENTATION/ { file = "program." ++n ".c"; printf "" > file }
    file { print substr($0, 9) > file }
    file && /^        }/ && main { close(file); file = ""; main = 0 }
    file && /int main/ { main = 1 }' ../../../../lemon.h
cp "$here/../examples/data/teacher.lemon" .
make -s -C "$here/../examples" stories && "$here/../examples/stories" --count 100 > text.txt
# The first is compiled as it stands; the others are linked with the library that is there already, which is quicker.
make -s -C "$here/../examples" build/lemon.o
linked=
for program in program.*.c; do
    # shellcheck disable=SC2086
    check "the manual's $program compiles without a warning" $cc -std=c99 -O1 -Wall -Wextra -Werror -I"$here/.." $linked "$program" -o program -lm -pthread
    linked="-DLEMON_IMPLEMENTED -include stdio.h -include string.h $here/../examples/build/lemon.o"
    check "and runs" sh -c "./program > $program.out"
    check "and prints, or saves, something" test -s "$program.out" -o -s student.lemon
done
programs=$(ls program.*.c | wc -l)
check "the manual has five programs" test "$programs" -eq 5
check "the game's text has no full stop" sh -c 'test -s program.4.c.out && ! grep -q "[.]" program.4.c.out'
cd "$here" || exit 1

# Declarations: a comment before them, at their end, or before the group that they stand in without a gap.
undocumented=$(awk '
    /^#ifdef LEMON_IMPLEMENTATION/ { exit }
    /^ *$/ { told = 0 }
    /\*\// { told = 1 }
    /^LEMON_API/ && !told && !/\/\*/ { print $0 }' ../lemon.h | head -n 3)
if [ -z "$undocumented" ]; then ok "every public function has a comment"; else fail "every public function has a comment" "$undocumented"; fi

# Lines of each function of the implementation; micro-kernels are written by macros, which do not count.
awk '
    /^#ifdef LEMON_IMPLEMENTATION/ { on = 1 }
    on && /^(static|LEMON_API|LEMON__INLINE|LEMON__TARGET).*\(/ && !/;$/ && !/= \{/ { from = NR; name = $0 }
    on && from && /(^}|^(static|LEMON_API|LEMON__INLINE|LEMON__TARGET).*}$)/ { print NR - from + 1, name; from = 0 }' ../lemon.h | sort -n > "$scratch/functions"
count=$(wc -l < "$scratch/functions")
median=$(sed -n "$((count / 2 + 1))p" "$scratch/functions")
longest=$(tail -n 1 "$scratch/functions")
check "the median of $count functions is at most 15 lines: ${median%% *}" test "${median%% *}" -le 15
check "the longest has at most 90 lines: $longest" test "${longest%% *}" -le 90

for lesson in ../examples/[01][0-9]_*.c; do
    most=119
    [ "$(basename "$lesson")" = 00_whole_idea.c ] && most=250
    check "$(basename "$lesson") has at most $most lines" test "$(wc -l < "$lesson")" -le $most
    check "and is in the README" grep -q "$(basename "$lesson")" ../README.md
done
check "lessons 00 to 10 are there" sh -c 'test "$(ls ../examples/[01][0-9]_*.c | wc -l)" -ge 11'
done_checking
