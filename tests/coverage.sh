#!/bin/sh
# coverage.sh PROGRAM...: the share of lemon.h's lines and branches that the test programs reach, all of them together, in all and by
# chapter; then what the corpus alone reaches of the two chapters that read strangers' files.  A branch is a way out of a condition, each
# part of && and || counted; a line that no test reaches stands in build/coverage/missed, and which programs reach the others in reach.
# Why none does, uncovered.txt says by function; lines of others are shown.
cd "$(dirname "$0")/build/coverage" || exit 1

# From a list of gcov's annotated sources, one behind the other, each after its program's name; $1, if given, keeps to these chapters.
summary() {
    awk -v only="$1" -v missed="$2" -v reach="$3" '
    /^program / { program = $2; next }
    /^ *-: *0:Source:/ { ours = $0 ~ /lemon\.h/; next }
    !ours { next }
    /^branch/ {
        if (!line) next
        b = line " " n_branch++
        branches[b] = line
        if ($4 + 0 > 0) taken[b] = 1
        next
    }
    /^ *[-#=0-9*]+: *[0-9]+:/ {
        split($0, part, ":")
        line = part[2] + 0; n_branch = 0
        text[line] = substr($0, index($0, part[2] ":") + length(part[2]) + 1)
        if (part[1] ~ /-$/) { line_is_code = 0; next }
        seen[line] = 1
        if (part[1] !~ /[#=]/) {
            hit[line] = 1
            if (reach && by[line] !~ (" " program "$")) by[line] = by[line] " " program
        }
        if (line > last) last = line
    }
    END {
        for (i = 1; i <= last; i++) {
            if (text[i] ~ /^#ifdef LEMON_IMPLEMENTATION/) on = 1
            if (on && text[i] ~ /^   [0-9]+  [A-Z]/) { split(text[i], word, " "); c = word[1] }
            chapter[i] = c + 0
            if (only && only !~ (" " (c + 0) " ")) continue
            if (!(i in seen)) continue
            n[c]++; N++
            if (reach && i in by) print i by[i] > reach
            if (i in hit) { m[c]++; M++ } else if (missed) print c ":" i ":" text[i] > missed
        }
        for (b in branches) {
            i = branches[b]
            if (only && only !~ (" " chapter[i] " ")) continue
            p[chapter[i]]++; P++
            if (b in taken) { q[chapter[i]]++; Q++ }
        }
        for (i = 0; i <= 12; i++) if (n[i]) printf "# chapter %2d: %5.1f %% of %5d lines, %5.1f %% of %5d branches\n", i, 100 * m[i] / n[i], n[i], p[i] ? 100 * q[i] / p[i] : 100, p[i]
        printf "%d of %d lines of lemon.h reached: %.1f %%; %d of %d branches: %.1f %%\n", M, N, N ? 100 * M / N : 0, Q, P, P ? 100 * Q / P : 0
    }'
}

for program in "$@"; do echo "program $program"; gcov -b -c -t "$program.o" 2> /dev/null; done | summary "" missed reach
awk -F: '
    FNR == 1 { file++ }
    file == 1 && !/^#/ { n = split($NF, names, " "); for (i = 1; i <= n; i++) judged[names[i]] = 1 }
    file == 2 { missed[$2] = 1 }
    file < 3 { next }
    /^[A-Za-z].*[a-z0-9_]\(/ && !/;$/ && !/^LEMON__PRINTF/ { name = $0; sub(/\(.*/, "", name); sub(/.*[ *]/, "", name) }
    FNR in missed && !(name in judged) { print "# no verdict: line " FNR " in " name ": " $0; n_open++ }
    END { print "# " n_open + 0 " lines that no test reaches have no verdict in uncovered.txt" }' ../../uncovered.txt missed ../../../lemon.h
echo "# by the corpus alone:"
gcov -b -c -t corpus.o 2> /dev/null | summary " 8 9 " missed-by-corpus
