#!/bin/sh
# mutants.sh [COUNT [SEED]]: breaks lemon.h in COUNT places (200), one at a time, and runs the tests of the chapter that was hit, then
# those that use it, until one check fails.  Every mutant is a line of mutants.log ($MUTANTS_LOG is another log); those that all tests pass
# have survived, and want a look: a test is missing, or nothing is broken.
# After `make coverage` it knows which programs reach a line, runs those, all of them if need be, and no others.
# The places are lines with code picked at random; the changes are those below.  One that does not compile does not count, nor does a
# line for other machines.  What tcc can compile (all but vectors and a few tests) it does, where it is: in a hundredth of the time; but
# the inner loops of products and exponentials, most of what such programs would do, come from the other compiler and from the unbroken
# header, unless the mutant is in a chapter that they may stand in or use (1 to 5).
cd "$(dirname "$0")" || exit 1
count=${1:-200}
seed=${2:-1}
work=build/mutants/$seed
rm -rf "$work"
mkdir -p "$work/scratch" "$work/tests/build"
log=${MUTANTS_LOG:-mutants.log}
lines=$(wc -l < ../lemon.h)
cc=${CC:-cc}
tcc=$(command -v tcc)
reach=build/coverage/reach
[ "$reach" -nt ../lemon.h ] || reach=

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

# The same for a line, of those that reach it: its chapter's first, then the others, the quickest first.
tests_of() {        # LINE CHAPTER
    reached=$([ -z "$reach" ] || sed -n "s/^$1 \(.*\)/ \1 /p" $reach)
    [ -n "$reached" ] || { tests_of_chapter "$2"; return; }
    for test in $(tests_of_chapter "$2") numbers corpus tensors linear shapes tape inference kernels training checkpoints formats tokenizers \
        model gemm hostile faults vocabularies platform threads fusion; do
        case $reached in *" $test "*) echo "$test"; reached=${reached%%" $test "*}" "${reached#*" $test "} ;; esac
    done
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

# The inner loops as an object of its own, with two names that others see.
make_loops() {
    { echo '#define LEMON_IMPLEMENTATION'; echo '#include <lemon.h>'
      echo 'void mutants_tile(const lemon__tile *t, int rows);'
      echo 'void mutants_tile(const lemon__tile *t, int rows) { lemon__tile_plain(t, rows); }'
      echo 'const lemon__loops *mutants_loops(void);'
      echo 'const lemon__loops *mutants_loops(void) { return &lemon__loops_one; }'; } > "$work/loops.c"
    $cc -DLEMON_NO_SIMD -DLEMON_NO_THREADS -I.. -std=c99 -O2 -w -c "$work/loops.c" -o "$work/all.o" &&
        objcopy --keep-global-symbol=mutants_tile --keep-global-symbol=mutants_loops "$work/all.o" "$work/loops.o"
}
use_loops='s/^LEMON__INLINE void lemon__tile_plain(const lemon__tile \*t, int rows) {$/void mutants_tile(const lemon__tile *t, int rows);\n&\n    mutants_tile(t, rows); return;/
s/^    return &lemon__loops_one;$/    { extern const lemon__loops *mutants_loops(void); return mutants_loops(); }/'

# compile COMPILER TEST CHAPTER: a program beside the lemon.h at hand; tests that tcc cannot read, or that compute for longer than the other
# compiler takes, go to that one.
compile() {
    case $1:$2:$3 in
    *:fusion:*) $cc -std=c99 -O1 -w "$work/tests/test_$2.c" -o "$work/test" -lm -pthread ;;
    "$tcc":platform:* | "$tcc":threads:* | "$cc":*) $cc -std=c99 -O0 -w "$work/tests/test_$2.c" -o "$work/test" -lm -pthread ;;
    *:[1-5]) $tcc -std=c99 -w "$work/tests/test_$2.c" -o "$work/test" -lm -pthread ;;
    *)
        mv "$work/lemon.h" "$work/whole"
        sed "$use_loops" "$work/whole" > "$work/lemon.h"
        [ -e "$work/loops.o" ] || make_loops
        $tcc -std=c99 -w "$work/tests/test_$2.c" "$work/loops.o" -o "$work/test" -lm -pthread
        compiled=$?
        mv "$work/whole" "$work/lemon.h"
        return $compiled ;;
    esac
}

# run_test SECONDS [ISA]: seconds of the processor, not of the clock, for the machine may be busy with other things.
run_test() {
    (ulimit -t "$1"
    [ -z "$2" ] || export LEMON_ISA="$2"
    CHECK_FIRST=1 CHECK_LIGHT=1 SHAPES=10 CHECK_SCRATCH=$work/scratch timeout 900 "$work/test" > "$work/output" 2>&1
    result=$?
    times > "$work/times"
    exit $result)
}

# A test that fails as things are proves nothing: looked for once, before it is needed; the other compiler takes it then.  How long it
# took then says how long a broken one may.
fit() {
    known=$work/fit-$(basename "$1")-$2-$(case $3 in [1-5]) echo own ;; esac)
    if [ ! -e "$known" ]; then
        mv "$work/lemon.h" "$work/mutant"
        cp ../lemon.h "$work/lemon.h"
        if compile "$1" "$2" "$3" > "$work/compile" 2>&1 && run_test 300; then
            awk 'NR == 2 { gsub("[ms]", " "); print "yes", int(10 + 4 * (60 * $1 + $2 + 60 * $3 + $4)) }' "$work/times"
        else echo no; fi > "$known"
        mv "$work/mutant" "$work/lemon.h"
    fi
    read -r fits limit < "$known"
    [ "$fits" = yes ]
}

run_mutant() {      # COMPILER LINE CHAPTER
    for test in $(tests_of "$2" "$3"); do
        with=$1
        fit "$with" "$test" "$3" || with=$cc
        fit "$with" "$test" "$3" || continue
        compile "$with" "$test" "$3" > "$work/compile" 2>&1 || { echo "no"; return; }
        for isa in '' $([ "$1" = "$cc" ] && echo "$narrow"); do
            run_test "$limit" $isa || { echo "caught by $test: $(sed -n 's/^FAIL //p' "$work/output" | grep . || echo crashed)"; return; }
        done
    done
    echo survived
}

# What a compiler sees of it: a change of comments is none, nor is one for other machines.
bare() { "$1" -E -P -x c -DLEMON_IMPLEMENTATION "$2" 2> /dev/null; }
bare_tcc() { "$tcc" -E -P -DLEMON_IMPLEMENTATION - < "$1" 2> /dev/null; }
cp check.h reference.h vfs.h fuzz.h test_*.c "$work/tests"                # beside the broken lemon.h
cp build/hostile.inc "$work/tests/build"
cp ../lemon.h "$work/lemon.h"
bare "$cc" "$work/lemon.h" > "$work/original"
[ -z "$tcc" ] || bare_tcc "$work/lemon.h" > "$work/original.tcc"

# Who must see it: tcc, else the other compiler, else nobody.  Vectors are tried with what the processor has, then with AVX2.
compiler_of() {
    if [ -n "$tcc" ] && bare_tcc "$work/lemon.h" > "$work/changed" && ! cmp -s "$work/changed" "$work/original.tcc"; then echo "$tcc"
    elif bare "$cc" "$work/lemon.h" > "$work/changed" && ! cmp -s "$work/changed" "$work/original"; then echo "$cc"; fi
}
narrow=$(grep -q avx2 /proc/cpuinfo 2> /dev/null && echo avx2)

random=$seed
next() { random=$(awk -v r="$random" 'BEGIN { print (r * 48271) % 2147483647 }'); }
made=0 caught=0 tried=0
next; next
while [ $made -lt "$count" ] && [ $tried -lt $((20 * count)) ]; do
    tried=$((tried + 1))
    next; line=$((random % lines + 1))
    next; k=$((random % 4))
    chapter=$(chapter_of $line)
    [ "$chapter" -gt 0 ] || continue
    mutate $line $k > "$work/lemon.h"
    ! cmp -s ../lemon.h "$work/lemon.h" || continue
    compiler=$(compiler_of)
    [ -n "$compiler" ] || continue
    result=$(run_mutant "$compiler" $line "$chapter")
    [ "$result" = no ] && continue
    made=$((made + 1))
    [ "$result" = survived ] || caught=$((caught + 1))
    { echo "seed $seed, mutant $made, line $line, chapter $chapter: $result"
      diff ../lemon.h "$work/lemon.h" | sed -n 's/^\([<>]\) */    \1 /p'; } | tee -a "$log" | sed -n 's/^seed/# seed/p'
done
echo "# seed $seed: $caught of $made mutants were caught, $((made - caught)) survived" >> "$log"
echo "$caught of $made mutants were caught, $((made - caught)) survived"
# Of a few, luck decides how many survive: those only show that the tests can catch one.
if [ $made -lt 50 ]; then [ $caught -gt 0 ]; else [ $((10 * caught)) -ge $((9 * made)) ]; fi
