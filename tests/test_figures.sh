#!/bin/sh
# Every figure in the README is either a measurement, which a script put there from a file in bench/results, or a constant,
# which is compared here with the code that it is of.  A figure with a unit that is neither fails.
cd "$(dirname "$0")" || exit 1
. ./harness.sh
scratch=$PWD/${CHECK_SCRATCH:-build/scratch/figures}
tests=$PWD root=$PWD/..
rm -rf "$scratch"
mkdir -p "$scratch/bench" "$scratch/measured"
for file in ../bench/*; do          # but not what it built, which can be large
    case $file in ../bench/build) ;; *) cp -Rp "$file" "$scratch/bench" ;; esac
done
cp ../README.md "$scratch"
cd "$scratch" || exit 1
lemon=$root/examples/lemon teacher=$root/examples/data/teacher.lemon

# ---- tables: what stands between marks is the file of that name, or what a script makes of others ----

cp bench/results/*.md measured
rm measured/effectiveness.md measured/speed.md
if command -v python3 > /dev/null; then
    cp -R bench/results kept
    python3 bench/effectiveness.py --table readme | sed '$d' > measured/effectiveness.md
    python3 bench/speed.py --table > measured/speed.md
    python3 bench/effectiveness.py --table | sed '$d' > bench/results/effectiveness.md
    python3 bench/large.py --table
    python3 bench/pairs.py --table > bench/results/pairs.md
    python3 bench/readme.py --picture
    for file in kept/*.md kept/*.svg; do
        name=bench/results/$(basename "$file")
        check "$name is what was measured" cmp -s "$file" "$name"
    done
else
    skip "tables and pictures of bench/results: no python3 to make them"
fi
sed -n 's/^<!-- \([a-z]*\):begin -->$/\1/p' README.md > marks
check "there are tables that scripts fill" test "$(wc -l < marks)" -ge 10
while read -r mark; do
    sed -n "/^<!-- $mark:begin -->\$/,/^<!-- $mark:end -->\$/p" README.md | sed '1,2d' | sed '$d' | sed '$d' > filled
    check "README: $mark is filled" test "$(wc -l < filled)" -ge 3
    [ -f "measured/$mark.md" ] || { [ -d kept ] || continue; }      # without python3 two of them cannot be made
    check "README: $mark is what was measured" cmp -s filled "measured/$mark.md"
done < marks

# ---- phrases: made of what the code says, and then looked for in the README's prose ----

awk '/^```/ { code = !code; next }
    /^<!-- [a-z]*:begin -->$/ { filled = 1 }
    /^<!-- [a-z]*:end -->$/ { filled = 0; next }
    !code && !filled { printf "%s ", $0 }' README.md | tr -s ' ' > prose
: > said
says() {
    if grep -qF -- "$1" prose; then ok "README: $1"; else fail "README: $1" "this is what the code says"; fi
    echo "$1" >> said
}
# of FILE PATTERN: its first group, in the first line that matches; "?" where there is none.
of() {
    case $2 in ^*) from=$2 ;; *) from=".*$2" ;; esac
    case $2 in *\$) to= ;; *) to='.*' ;; esac
    sed -n "s/$from$to/\1/p" "$root/$1" | head -n 1 | grep . || echo "?"
}
enum() { of lemon.h "[ {]$1 = \([0-9]*\)[ ,}]"; }
commas() { echo "$1" | awk '{ for (; length($1) > 3; $1 = substr($1, 1, length($1) - 3)) tail = "," substr($1, length($1) - 2) tail; print $1 tail }'; }
word() { echo zero one two three four five six seven eight nine ten eleven twelve | cut -d ' ' -f $(($1 + 1)); }
millions() { echo "$2" | awk '{ printf "%.'"$1"'f", $1 / 1e6 }'; }

# The default job and its teacher.
define() { of examples/run.c "^#define $1 \([0-9]*\) "; }
stories() { commas "$(of examples/Makefile "stories --seed $1 --count \([0-9]*\) ")"; }
says "writes $(stories 2) training stories and $(stories 3) others for validation"
says "trains each for $(define STEPS) steps of $(commas $(($(define BATCH) * $(define SEQ)))) tokens"
says "the first $(commas "$(define EVAL_TOKENS)") tokens of \`valid.txt\`"
size() { of "examples/$program" "shape\.$1 = \([0-9]*\);"; }
for program in 05_fuse.c run.c; do
    $lemon fuse "$teacher" some.lemon --method select --dim "$(size d_model)" --layers "$(size n_layers)" --heads "$(size n_heads)" \
        --kv-heads "$(size kv_heads)" --ffn "$(size d_ffn)" --json --quiet | tail -n 1 > some.json
    large=$(sed 's/.*"teacher_params": \([0-9]*\).*/\1/' some.json) small=$(sed 's/.*"student_params": \([0-9]*\).*/\1/' some.json)
    check "$program: its student has a fifth of the teacher's parameters" test $(((large + small / 2) / small)) = 5
    check "   and it says so" grep -q "a fifth of" "$root/examples/$program"
done
says "the teacher in \`examples/data/\` ($(millions 1 "$large") M parameters)"
says "three students of a fifth of its size"
$lemon info "$teacher" --json --quiet | tail -n 1 > info.json
info() { sed "s/.*\"$1\": \"*\([0-9a-z]*\).*/\1/" info.json; }
check "README: the teacher's table is of the teacher that is shipped" grep -qF "| $(info params) | $(info d_model) | $(info n_layers) |\
 $(info n_heads), $(info kv_heads) | $(info d_ffn) | $(info vocab_size) | $(info max_seq) | $(info dtype) |" README.md
check "README: the picture of fusion is of both" grep -qE "^ +$(info n_layers) layers, $(info d_model) wide .* $(size n_layers) layers, $(size d_model) wide$" README.md
check "   and has their sizes" grep -qE "^ +$(millions 1 "$large") M parameters .* $(millions 2 "$small") M parameters, " README.md

# one_a_line: commands without what breaks a line, and without folders.
one_a_line() { awk '{ sub(/^ +/, ""); more = sub(/ *\\$/, " "); printf "%s%s", $0, more ? "" : "\n" }' | sed 's/[a-z.]*\/\([a-z]*\/\)*//g; s/ *$//' | sort; }
make -s -n -B -C "$root/examples" teacher 2> /dev/null | sed 's/\.tmp$//; s/ --resume$//' | awk '/^\.\/|^ /' | one_a_line > made
sed -n '/^examples\/stories --seed 1 /,/^```/p' README.md | sed '/^```/d' | one_a_line > told
check "README: what made the teacher is what makes it" cmp told made

# Lessons, exercises, chapters.
says "a transformer, its gradients and its fusion in $(of tests/test_manual.sh '00_whole_idea.c . && most=\([0-9]*\)$') lines"
says "the others have at most $(of tests/test_manual.sh '^    most=\([0-9]*\)$') lines"
says "in $(word "$(grep -c '/\* call [0-9]* \*/$' "$root/examples/05_fuse.c")") calls"
says "lists $(word "$(grep -c '/\* exercise [0-9]* \*/$' "$root/lemon.h")") functions of lemon.h"
says "a book of $(word "$(sed -n 's/^   \([0-9]*\)  [A-Z][A-Z].*/\1/p' "$root/lemon.h" | sort -n | tail -n 1)") chapters"

version=$(of lemon.h '^#define LEMON_VERSION "\([0-9.]*\)"')
says "## Changelog **$version** "
check "README: builds fetch v$version" test "$(grep -cE "(GIT_TAG|revision =) v$version" README.md)" = 2

# Flags: the default that --help tells stands in the tables, at the place of its flag; and each flag is told somewhere.
for command in $($lemon --help | sed -n 's/^  \([a-z]*\)  *[A-Z].*/\1/p'); do
    $lemon "$command" --help | awk -v command="$command" '
        function close_flag() { if (flag) { sub(/.* \[/, "", text) && sub(/\]$/, "", text) || text = ""; print command, flag, text } flag = "" }
        /^  -/ { close_flag(); flag = $1; text = $0; next }
        /^    / { text = text $0; next }
        { close_flag() }'
done > flags
awk '
    NR == FNR { fallback[$1, $2] = $3; names[$2] = 1; next }
    { all = all " " $0 }
    / \| meaning \| default \|$/ { split($0, part, "`"); only = part[3] ~ /^ \| meaning/ ? part[2] : ""; table = 1; next }
    !/^\|/ { table = 0 }
    table && !/^\|---/ {
        split($0, column, / *\| */); values = split(column[4], value, ", "); codes = split(column[2], code, "`"); flags = 0
        if (only) command = only
        for (i = 2; i <= codes; i += 2) {
            words = split(code[i], each, " ")
            for (j = 1; j <= words; j++) {
                if (!only && each[j] ~ /^[a-z]+$/) command = each[j]
                if (each[j] !~ /^-/) continue
                flags++
                told = flags > values || value[flags] ~ /^(none|off)$/ ? "" : value[flags]
                if (told != fallback[command, each[j]]) print command, each[j] ": [" told "], --help has [" fallback[command, each[j]] "]"
            }
        }
    }
    END { for (name in names) if (!index(all, name)) print name " is not told" }' flags README.md > wrong
check "README: flags and their defaults are those of --help" sh -c 'head -n 1 wrong; test ! -s wrong && test "$(wc -l < flags)" -ge 100'
says "\`--shard-size BYTES\` (default $(sed -n 's/^convert --shard-size //p' flags))"
says "a byte-level tokenizer of $(of examples/lemon.c '"a byte-level tokenizer of \([0-9]*\) tokens"') tokens"

# Fusion's own numbers.
says "0: $(commas "$(of lemon.h 'learn < 0 ? \([0-9]*\) : [0-9]*;')") for \`lemon\` where it learns, else $(commas "$(of lemon.h 'learn < 0 ? [0-9]* : \([0-9]*\);')")"
ligo=$(of lemon.h '{"ligo", [^}]*, \([0-9]*\), LEMON__ALL_LAYERS}')
says "\`ligo\` $ligo, others 0"
says "gradients of the language model's loss for $ligo steps"
says "($(of lemon.h 'learn_lr < 0.0 ? \([0-9.]*\) . (double)f->ds') / \`--dim\`; $(of lemon.h 'learn_lr < 0.0 ? \([0-9]e-[0-9]\) :') for maps)"
says "$(word "$(of lemon.h '<= LEMON__MUCH_TO_LEARN ? -\([0-9]*\) : 0;')") times through"
says "$(enum LEMON__ROWS_AN_UNKNOWN) rows for each unknown"
says "more than 10^$(enum LEMON__MUCH_TO_LEARN | awk '{ print length($1) - 1 }') parameters"
bytes=$(of lemon.h 'scratch_path(f->ctx) ? (size_t)\([0-9]*\)000000000u')
says "memory to keep to, 0: $bytes GB"
says "(by default $bytes GB)"
says "keeps $((4 * 4)) bytes for each weight: itself, its gradient, two moments"
says "is saved every $(word "$(enum LEMON__STAGE_SECONDS)") seconds"
says "normal with deviation $(of lemon.h ' : \(0\.[0-9]*\);$')"

# Limits, and how they are looked for.
field() { sed -n "s/^    {\"$1\", offsetof([^)]*), 0, [0-9]*, \([^,]*\),.*/\1/p" "$root/lemon.h" | sed 's/1 << /2^/'; }
says "widths up to $(commas "$(field d_model)"), $(commas "$(field n_layers)") layers and heads, $(field vocab_size) pieces, a context of $(field max_seq))"
says "may claim a context of $(field max_seq) tokens"
says "JSON to $(enum LEMON__JSON_DEPTH) levels and $(of lemon.h 'expected less than \([0-9]*\) GB of JSON') GB"
says "names of tensors to $(of lemon.h 'is not 1 to \([0-9]*\) printable characters') characters"
says "more than $(of tests/fuzz.h '((size_t)\([0-9]*\) << 20) + [0-9]* \* n;') MB and $(of tests/fuzz.h '<< 20) + \([0-9]*\) \* n;') bytes for each byte read"
least=$(awk '!/^#/ { n[$1] += $3 } END { for (i in n) if (!least || n[i] < least) least = n[i]; print int(least / 1e6) }' "$tests/fuzz.log")
told=$(sed -n 's/.* more than \([0-9]*\) million inputs for each reader.*/\1/p' prose)
says "more than $told million inputs for each reader"
check "   of which there were $least million" test "$told" -le "$least"
says "the tool killed $(($(of tests/Makefile 'FAULTS=all KILLS=\([0-9]*\) ') * 3)) times"
says "($(word $(($(of tests/Makefile '^MINUTES = \([0-9]*\)') / 60))) hours of loading"

# Judges.
in_loop() { of "tests/$1" "for $2 in \([^;\$]*\); do" | wc -w; }
says "$(word "$(in_loop judges_vocab.sh name)") vocabularies by \`make -C tests judges-vocab\`, with $(commas "$(of tests/Makefile 'STRINGS=\([0-9]*\) .*judges_vocab.sh')") strings each"
says "in float64, $(in_loop judges.sh family | tr -d ' ') models"
says "ids of $(($(of tests/judges.sh '^head -c \([0-9]*\) .* > prose$') / 1000)) kB of text"
others=$(of tests/judges.sh 'for family in \([^;]*\); do echo \$family back-' | wc -w)
says "$(of tests/judges.sh 'echo llama hf \([0-9]*\) ') losses, $(of tests/judges.sh 'back-\$family \([0-9]*\) ') of each of $(word "$others") others"
says "$(of tests/judges.sh '"$llama" greedy f32.gguf \([0-9]*\) 1)"') greedy tokens"
says "(node-llama-cpp $(of tests/judges_install.sh 'node-llama-cpp@\([0-9]*\.[0-9]*\)\.'))"

# Benches.
says "budgets from $(of bench/effectiveness.py '^BUDGETS = .\([0-9]*\),') steps of $(commas "$(of bench/effectiveness.py '^TOKENS_A_STEP, CALIBRATION = \([0-9]*\),')") tokens up"
says "with $(word "$(of bench/effectiveness.py '"--seeds", type=int, default=\([0-9]*\)')") seeds"
says "in one grid ($(of bench/effectiveness.py '^RATES = .\([0-9.e-]*\),') to $(of bench/effectiveness.py '^RATES = .* \([0-9.e-]*\)\]'), factors of 2)"
says "\`paper\` is \`lemon $(of bench/effectiveness.py '^    "paper": ."--method", "lemon", \(.*\)\],' | tr -d '",')\`"
says "fusion of $(awk -F , 'NR == 2 { first = $1 } { last = $1 } END { sub(/ .*/, "", last); print first " to " last }' bench/results/large.csv) parameters"
says "Last token of $(of bench/generate.c '"288 x 6", .*, \([0-9]*\), 1}')"
says "the first $(of tests/instructions.sh '-DCOUNT=\([0-9]*\) ') tokens and what comes before them"
check "README: in seconds to hours" awk -F , 'NR > 1 && $6 < 60 { seconds = 1 } NR > 1 && $6 > 3600 { hours = 1 } END { exit !(seconds && hours) }' bench/results/large.csv
of bench/Makefile 'new.lemon \(--dim .*\) --seq' > shape
says "a teacher of $(awk '{ d = $2; print int((1024 * d + $4 * (d * (2 * d + 2 * d * $8 / $6 + 3 * $10 + 2)) + d) / 1e6) }' shape) M parameters"

# ---- what is left of the prose ----

awk 'NR == FNR { phrase[++n] = $0; next }
    { for (i = 1; i <= n; i++) while (k = index($0, phrase[i])) $0 = substr($0, 1, k - 1) "..." substr($0, k + length(phrase[i])); print }' said prose > rest
unit='%|m?s|seconds?|minutes?|hours?|tok/s|T?G?FLOPS?|[kKMG]B|bytes|M parameters|million|times|cycles'
part='third|quarter|fifth|tenth|half|twice|times|per cent|%'
grep -oE "[^ ]+ [^ ]+ [^ ]*[0-9]\.?,? ?($unit)([^a-zA-Z]|\$)|($part) (as |of the )?(fast|slow|long|much|less|more|time)[a-z]*" rest > unproved
check "README: no other figure has a unit" sh -c 'cat unproved; test ! -s unproved'
done_checking
