#!/bin/sh
# coverage.sh CHAPTER...: the share of lemon.h's lines that the test programs reach, all of them together.
cd "$(dirname "$0")/build/coverage" || exit 1
for chapter in "$@"; do
    gcov -t "$chapter.o" 2> /dev/null
done | awk -F: '
    /^ *-: *0:Source:/ { ours = $0 ~ /lemon\.h/ }
    ours && $2 + 0 > 0 && $1 !~ /-$/ { line = $2 + 0; seen[line] = 1; if ($1 !~ /[#=]/) hit[line] = 1 }
    END {
        for (line in seen) { n++; if (line in hit) m++; else missed[++k] = line }
        printf "%d of %d lines of lemon.h reached: %.1f %%\n", m, n, n ? 100 * m / n : 0
    }'
