#!/bin/sh
# mutants.sh [COUNT [SEED]]: breaks lemon.h in COUNT places (200), one at a time, and runs the tests of the chapter that was hit, then
# those that use it, until one fails.  A mutant that all of them pass has survived, and is listed in build/mutants/survivors.
# The places are lines with code picked at random; the changes are those below.  One that does not compile does not count.
cd "$(dirname "$0")" || exit 1
count=${1:-200}
seed=${2:-1}
work=build/mutants
mkdir -p $work
[ "$seed" = 1 ] && rm -f $work/survivors
lines=$(wc -l < ../lemon.h)

# Which programs look at a chapter, the quickest first; what stands before the fourth is used everywhere.
tests_of() {
    case $1 in
    1) echo platform tensors checkpoints faults ;;
    2) echo numbers checkpoints tensors ;;
    3) echo tensors checkpoints formats ;;
    4) echo gemm ;;
    5) echo kernels tape inference ;;
    6) echo tape training ;;
    7) echo model checkpoints inference hostile ;;
    8) echo checkpoints formats corpus faults hostile ;;
    9) echo tokenizers vocabularies formats corpus hostile ;;
    10) echo inference hostile ;;
    11) echo training faults hostile ;;
    12) echo fusion faults hostile ;;
    esac
}

# The chapter of a line of the implementation.
chapter_of() { awk -v at="$1" 'NR > at { exit } /^#ifdef LEMON_IMPLEMENTATION/ { on = 1 } on && /^   [0-9]+  [A-Z]/ { c = $1 } END { print c + 0 }' ../lemon.h; }

# One change of a line: the k-th of those that are possible in it; nothing where there are fewer.
mutate() {
    awk -v at="$1" -v k="$2" '
    function try(from, to,    rest, before, p) {        # each place where `from` stands
        rest = $0; before = ""
        while ((p = index(rest, from)) > 0) {
            if (n++ == k) { print before substr(rest, 1, p - 1) to substr(rest, p + length(from)); done = 1; return }
            before = before substr(rest, 1, p + length(from) - 1); rest = substr(rest, p + length(from))
        }
    }
    NR != at { print; next }
    {
        n = 0; done = 0
        count = split(" < ~ <= @ <= ~ < @ > ~ >= @ >= ~ > @ == ~ != @ != ~ == @ && ~ || @ || ~ && @ + ~ - @ - ~ + @ * ~ + @ / ~ * @ % ~ / @++~--@if (~if (!@ 0;~ 1;@ 1;~ 2;@[i]~[0]@ + 1~ + 2@ - 1~ - 2@if (status) return status;~@if (!status) ~", list, "@")
        for (j = 1; j <= count && !done; j++) { split(list[j], two, "~"); try(two[1], two[2]) }
        if (!done) print
    }' ../lemon.h
}

run_mutant() {
    line=$1
    chapter=$(chapter_of "$line")
    for test in $(tests_of "$chapter"); do
        cp test_"$test".c check.h reference.h vfs.h fuzz.h $work/tests    # beside the broken lemon.h
        ${CC:-cc} -std=c99 -O1 -w $work/tests/test_"$test".c -o $work/test -lm -pthread > $work/compile 2>&1 || { echo "no"; return; }
        CHECK_LIGHT=1 CHECK_SCRATCH=$work/scratch timeout 60 $work/test > $work/output 2>&1 || { echo "killed by $test"; return; }
    done
    echo survived
}

# Without comments: a change of those is none.
bare() { ${CC:-cc} -fpreprocessed -dD -E -P -x c "$1" 2> /dev/null; }
bare ../lemon.h > $work/original

random=$seed
next() { random=$(awk -v r="$random" 'BEGIN { print (r * 48271) % 2147483647 }'); }
made=0 killed=0 survived=0 tried=0
next; next
mkdir -p $work/scratch $work/tests/build
cp build/hostile.inc $work/tests/build
while [ $made -lt "$count" ] && [ $tried -lt $((20 * count)) ]; do
    tried=$((tried + 1))
    next; line=$((random % lines + 1))
    next; k=$((random % 4))
    [ "$(chapter_of $line)" -gt 0 ] || continue
    mutate $line $k > $work/lemon.h
    bare $work/lemon.h > $work/changed
    cmp -s $work/changed $work/original && continue
    result=$(run_mutant $line)
    [ "$result" = no ] && continue
    made=$((made + 1))
    if [ "$result" = survived ]; then
        survived=$((survived + 1))
        { echo "line $line:"; diff ../lemon.h $work/lemon.h | sed 1d; } >> $work/survivors
    else killed=$((killed + 1)); fi
    [ -t 1 ] || echo "# $made: line $line, chapter $(chapter_of $line): $result"
done
echo "$killed of $made mutants were caught, $survived survived"
[ $((10 * killed)) -ge $((9 * made)) ]
