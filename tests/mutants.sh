#!/bin/sh
# mutants.sh [COUNT [SEED]]: breaks lemon.h in COUNT places (200), one at a time, and runs the tests of the chapter that was hit, then
# those that use it, until one check fails.  Every mutant is a line of mutants.log ($MUTANTS_LOG is another log); those that all tests pass
# have survived, and want a look: a test is missing, or nothing is broken.
# mutants.sh again [NAME...]: those of mutants.txt, or some of them, once more, wherever their lines stand by now.
# After `make coverage` it knows which programs reach a line, runs those, all of them if need be, and no others.
# The places are lines with code picked at random; the changes are those below.  One that does not compile does not count, nor does a
# line for other machines.  All mutants of functions are in one lemon.h, as copies of the function beside the unbroken one, so that each
# test is compiled once; $MUTANT says which copy a program runs.  Those of tables and macros are compiled one by one.
cd "$(dirname "$0")" || exit 1
count=${1:-200}
seed=${2:-1}
[ "$count" != again ] || { shift; again="$*" seed=again; }
work=build/mutants/$seed
rm -rf "$work"
mkdir -p "$work/scratch" "$work/all/tests/build" "$work/one"
log=${MUTANTS_LOG:-mutants.log}
lines=$(wc -l < ../lemon.h)
cc="${CC:-cc} -std=c99 -O1 -w"
isas="scalar $(grep -o -w -m 1 avx2 /proc/cpuinfo 2> /dev/null | head -n 1)"
coverage=build/coverage
[ $coverage/reach -nt ../lemon.h ] || coverage=/nowhere

# Which programs look at a chapter, the quickest first; what stands before the fourth is used everywhere.
tests_of_chapter() {
    case $1 in
    1) echo checkpoints faults platform tensors threads ;;
    2) echo numbers checkpoints tensors linear ;;
    3) echo checkpoints tensors formats inference ;;
    4) echo linear kernels gemm ;;
    5) echo kernels tape inference ;;
    6) echo tape training ;;
    7) echo model checkpoints inference hostile ;;
    8) echo corpus checkpoints formats faults hostile ;;
    9) echo corpus formats vocabularies tokenizers hostile ;;
    10) echo inference hostile ;;
    11) echo training faults hostile ;;
    12) echo fusion hostile faults ;;
    esac
}

# The same for a line, of those that reach it: its chapter's first, then the others, the quickest first.  Where compilers make no code
# for a line of its own, its function's first line says who reaches it; tables and macros may be used by all.
tests_of() {        # LINE CHAPTER START
    [ -e $coverage/reach ] || { tests_of_chapter "$2"; return; }
    every="$(tests_of_chapter "$2") numbers corpus tensors shapes linear platform threads tape inference checkpoints hostile kernels
        vocabularies tokenizers model faults formats training fusion gemm"
    reached=" $every "
    [ "$3" = 0 ] || reached=$(sed -n "s/^$1 \(.*\)/ \1 /p" $coverage/reach)
    [ -n "$reached" ] || grep -q "^[0-9]*:$1:" $coverage/missed || reached=$(sed -n "s/^$3 \(.*\)/ \1 /p" $coverage/reach)
    for test in $every; do
        case $reached in *" $test "*) echo "$test"; reached=$(echo "$reached" | sed "s/ $test / /g; s/ $test / /g") ;; esac
    done
}

# The chapter of a line of the implementation.
chapter_of() { awk -v at="$1" 'NR > at { exit } /^#ifdef LEMON_IMPLEMENTATION/ { on = 1 } on && /^   [0-9]+  [A-Z]/ { c = $1 } END { print c + 0 }' ../lemon.h; }

# One change of a line: the k-th of those that are possible in it; nothing where there are fewer.
mutate() {
    sed -n "$1p" ../lemon.h | awk -v k="$2" '
    function try(from, to,    rest, before, p) {        # each place where `from` stands
        rest = $0; before = ""
        while ((p = index(rest, from)) > 0) {
            if (n++ == k) { print before substr(rest, 1, p - 1) to substr(rest, p + length(from)); exit }
            before = before substr(rest, 1, p + length(from) - 1); rest = substr(rest, p + length(from))
        }
    }
    {
        count = split(" < ~ <= @ <= ~ < @ > ~ >= @ >= ~ > @ == ~ != @ != ~ == @ && ~ || @ || ~ && @ + ~ - @ - ~ + @ * ~ + @ / ~ * @ % ~ / @++~--@if (~if (!@ 0;~ 1;@ 1;~ 2;@[i]~[0]@ + 1~ + 2@ - 1~ - 2@if (status) return status;~@if (!status) ~", list, "@")
        for (j = 1; j <= count; j++) { split(list[j], two, "~"); try(two[1], two[2]) }
    }'
}

# lemon.h with one line replaced, and what a compiler sees of it: a change of comments is none, nor is one for other machines.
replaced() { printf '%s\n' "$2" > "$work/line"; sed -e "$1r $work/line" -e "$1d" ../lemon.h; }
bare() { $cc -E -P -x c -DLEMON_IMPLEMENTATION - 2> /dev/null; }

# A list of mutants: number, line, chapter, and behind a tab how the line reads then.
random=$seed
next() { random=$(awk -v r="$random" 'BEGIN { print (r * 48271) % 2147483647 }'); }
choose() {
    made=0 tried=0
    bare < ../lemon.h > "$work/original"
    next; next
    while [ $made -lt "$count" ] && [ $tried -lt $((20 * count)) ]; do
        tried=$((tried + 1))
        next; line=$((random % lines + 1))
        next; changed=$(mutate $line $((random % 4)))
        chapter=$(chapter_of $line)
        [ -n "$changed" ] && [ "$chapter" -gt 0 ] || continue
        replaced $line "$changed" > "$work/one/lemon.h"
        ! bare < "$work/one/lemon.h" | cmp -s - "$work/original" || continue
        made=$((made + 1))
        printf '%s %s %s\t%s\n' $made $line "$chapter" "$changed"
    done
}

# The same of mutants.txt, with the name that a mutant has there; of equal lines the nearest to where it stood.
choose_again() {
    bare < ../lemon.h > "$work/original"
    awk -v wanted=" $again " '
    FNR == 1 { file++ }
    { line = $0; sub(/^ */, "", line) }
    file == 1 { at[line] = at[line] " " FNR; indent[FNR] = substr($0, 1, length($0) - length(line)); next }
    /^[0-9]+\.[0-9]+ line / { name = $1; stood = $3 + 0 }
    /^    < / { old = substr($0, 7) }
    /^    > / && (wanted == "  " || index(wanted, " " name " ")) {
        best = 0
        for (i = split(at[old], all, " "); i > 0; i--)
            if (!best || (all[i] - stood) ^ 2 < (best - stood) ^ 2) best = all[i]
        if (best) print ++made, best, name "\t" indent[best] substr($0, 7)
        else print "# " name ": its line is gone" > "/dev/stderr"
    }' ../lemon.h mutants.txt | while IFS=$tab read -r where changed; do
        set -- $where
        printf '%s %s %s %s\t%s\n' "$1" "$2" "$(chapter_of "$2")" "$3" "$changed"
    done
}

# All of them in one: each function that is hit becomes name_0, as it is, name_N for each mutant in it, and one that calls the chosen.
# A compiler's messages name the copy.
# Leaves in `placed` which are there, and the first line of their functions.
join() {
    awk -v placed="$work/placed" '
    NR == FNR { ids[$2] = ids[$2] " " $1; text[$1] = substr($0, index($0, "\t") + 1); next }
    { source[FNR] = $0; last = FNR }
    function names(args,    n, part, i, depth, c, arg, all) {       # of the parameters
        for (i = 1; i <= length(args) + 1; i++) {
            c = substr(args, i, 1)
            if (c == "(") depth++
            if (c == ")") depth--
            if (i <= length(args) && (c != "," || depth)) { arg = arg c; continue }
            sub(/\)\(.*/, "", arg); sub(/\[.*/, "", arg); match(arg, /[A-Za-z0-9_]+ *$/)
            if (arg != "void") all = all (all ? ", " : "") substr(arg, RSTART)
            arg = ""
        }
        return all
    }
    function named(line, suffix) { return substr(line, 1, at + len - 1) suffix substr(line, at + len) }
    function broken(from, to,    i, all) { for (i = from; i <= to; i++) all = all ids[i]; return all }
    function copy(id, from, to,    i, line) {
        print "#line 1 \"mutant " id "\""
        for (i = from; i <= to; i++) {
            line = id && ids[i] " " ~ " " id " " ? text[id] : source[i]
            print i == from ? named(line, "_" id) : line
        }
    }
    function one_function(from,    head, body, to, args, hit, n, id, i, choice) {
        head = source[body = from]
        while (head ~ /,$/) head = head source[++body]
        if (head !~ /\) \{/ || head ~ /\.\.\./ || !match(head, /[a-z0-9_]+\(/)) return 0
        at = RSTART; len = RLENGTH - 1
        for (to = body; source[to] !~ /^}/ && source[from] !~ /}$/; ) to++
        n = split(broken(to > body ? body + 1 : from, to), hit, " ")
        if (!n) return 0
        head = substr(head, 1, index(head, ") {"))
        args = substr(head, at + len + 1, length(head) - at - len - 1)
        args = "(" names(args) ")"
        print head ";"
        copy(0, from, to)
        for (i = 1; i <= n; i++) {
            copy(hit[i], from, to)
            print hit[i], from > placed
            choice = choice " lemon__mutant == " hit[i] " ? " substr(head, at, len) "_" hit[i] args " :"
        }
        print head " { return" choice " " substr(head, at, len) "_0" args "; }"
        return to
    }
    END {
        printf "" > placed
        for (i = 1; i <= last; i++) {
            if (source[i] ~ /^[A-Za-z].*\(.*[{},]$/ && source[i - 1] !~ /\\$/ && (to = one_function(i))) { i = to; continue }
            print source[i]
            if (source[i] !~ /^#ifdef LEMON_IMPLEMENTATION/) continue
            print "#include <stdlib.h>\nstatic int lemon__mutant;\n__attribute__((constructor)) static void lemon__choose_mutant(void) {"
            print "    const char *which = getenv(\"MUTANT\");\n    lemon__mutant = which ? atoi(which) : 0;\n}"
        }
    }' "$work/list" ../lemon.h
}

# run_test PROGRAM MUTANT [ISA]: within $limit seconds of the processor, not of the clock, for the machine may be busy with other things.
run_test() {
    (ulimit -t "$limit"
    [ -z "$3" ] || export LEMON_ISA="$3"
    MUTANT=$2 CHECK_FIRST=1 CHECK_LIGHT=1 SHAPES=10 CHECK_SCRATCH=$work/scratch timeout 900 "$1" > "$work/output" 2>&1
    result=$?
    times > "$work/times"
    exit $result)
}
compile() { $cc "$1/tests/test_$2.c" -o "$1/$2" -lm -pthread > "$work/compile" 2>&1; }

# A test that fails as things are proves nothing: looked for once, before it is needed.  How long it took says how long a broken one may.
fit() {
    if [ ! -e "$work/all/$1.fit" ]; then
        limit=300
        compile "$work/all" "$1" || { echo "# test_$1.c does not compile with all mutants" >&2; cat "$work/compile" >&2; }
        if run_test "$work/all/$1" 0; then
            awk 'NR == 2 { gsub("[ms]", " "); print "yes", int(3 + 3 * (60 * $1 + $2 + 60 * $3 + $4)) }' "$work/times"
        else echo no 0; fi > "$work/all/$1.fit"
    fi
    read -r fits limit < "$work/all/$1.fit"
    [ "$fits" = yes ]
}

# Products and inner loops are run with the processor's best vectors, then with others and without.
run_mutant() {      # NUMBER LINE CHAPTER START
    which=all
    [ "$4" -gt 0 ] || which=one
    for test in $(tests_of "$2" "$3" "$4"); do
        fit "$test" || continue
        [ $which = all ] || compile "$work/one" "$test" || { echo no; return; }
        for isa in '' $(case $3 in [45]) echo "$isas" ;; esac); do
            run_test "$work/$which/$test" "$1" $isa ||
                { echo "caught by $test${isa:+ with $isa}: $(sed -n 's/^FAIL //p' "$work/output" | grep . || echo crashed)"; return; }
        done
    done
    echo survived
}

# Those that do not compile are found in one go.
leave_out_broken() {
    join > "$work/all/lemon.h"
    $cc -fsyntax-only -x c -DLEMON_IMPLEMENTATION "$work/all/lemon.h" 2>&1 | sed -n 's/^mutant \([0-9]*\):.* error: .*/\1/p' > "$work/broken"
    awk -v broken="$work/broken" 'BEGIN { while ((getline n < broken) > 0) no[n] = 1 } !($1 in no)' "$work/list" > "$work/sound"
    mv "$work/sound" "$work/list"
    join > "$work/all/lemon.h"
}

cp check.h reference.h vfs.h fuzz.h test_*.c "$work/all/tests"                # beside the broken lemon.h
cp build/hostile.inc "$work/all/tests/build"
cp -r "$work/all/tests" "$work/one"
tab=$(printf '\t')
if [ "$seed" = again ]; then choose_again; else choose; fi > "$work/list"
leave_out_broken
made=0 caught=0
while IFS=$tab read -r where changed; do
    set -- $where
    start=$(sed -n "s/^$1 //p" "$work/placed")
    replaced "$2" "$changed" > "$work/one/lemon.h"
    result=$(run_mutant "$1" "$2" "$3" "${start:-0}" < /dev/null)
    [ "$result" = no ] && continue
    made=$((made + 1))
    [ "$result" = survived ] || caught=$((caught + 1))
    { echo "${4:-$seed.$1} line $2, chapter $3: $result"
      diff ../lemon.h "$work/one/lemon.h" | sed -n 's/^\([<>]\) */    \1 /p'; } | tee -a "$log" | sed -n 's/^[0-9]/# &/p'
done < "$work/list"
echo "# seed $seed: $caught of $made mutants were caught, $((made - caught)) survived" >> "$log"
echo "$caught of $made mutants were caught, $((made - caught)) survived"
# Of a few, luck decides how many survive: those only show that the tests can catch one.
if [ "$made" -lt 50 ]; then [ $caught -gt 0 ]; else [ $((10 * caught)) -ge $((9 * made)) ]; fi
