#!/bin/sh
# contents.sh: puts the line numbers into the table of contents at the head of lemon.h; with `check`, prints those that are more
# than 100 lines away from their chapter.  The first number of a row is where the declarations begin, the second where the
# implementation does; - where there is none.
cd "$(dirname "$0")" || exit 1
header=${HEADER:-../lemon.h}
awk '
    /^#ifdef LEMON_IMPLEMENTATION/ { second = 1 }
    /^   [0-9]+  [A-Z]+/ && before ~ /^\/\* =====/ { line[second + 0, $1] = NR - 1 }
    { before = $0 }
    END { for (i = 1; i <= 12; i++) print i, (0, i) in line ? line[0, i] : "-", (1, i) in line ? line[1, i] : "-" }
' "$header" > build/contents
awk -v check="${1:-}" '
    NR == FNR { one[$1] = $2; two[$1] = $3; next }
    /^#ifndef LEMON_H/ { done = 1 }
    !done && /^       +[0-9]+  [A-Z][A-Za-z]+ +[0-9-]+ +[0-9-]+   / {
        if (check) {
            seen++
            if (far($3, one[$1]) || far($4, two[$1])) print "chapter " $1 " is at " one[$1] " and " two[$1] ", not " $3 " and " $4
        } else $0 = sprintf("%9d  %-12s %6s %6s   %s", $1, $2, one[$1], two[$1], rest($0))
    }
    !check { print }
    END { if (check && seen != 12) print "the table of contents has " seen + 0 " rows, expected 12" }
    function far(is, should) { return (is == "-") != (should == "-") || is - should > 100 || should - is > 100 }
    function rest(row) { sub(/^ +[0-9]+ +[A-Za-z]+ +[0-9-]+ +[0-9-]+ +/, "", row); return row }
' build/contents "$header" > build/contents.out
if [ "$1" = check ]; then cat build/contents.out; else cat build/contents.out > "$header"; fi
