#!/bin/sh
# web.sh: examples/web.  The wasm by Emscripten, the program for Node, and the page in a headless Chromium (playwright-core
# from npm) that is clicked through from a checkpoint to a text, beside the same job by the native tool.  Screenshots are left
# in build/web.  What is not installed (Debian: emscripten chromium; node, npm) is skipped.  UPDATE=1: the table of speeds goes
# into bench/results and the README.
cd "$(dirname "$0")" || exit 1
work=$PWD/build/web web=../examples/web
mkdir -p "$work"
passed=0 failed=0 skipped=0
result() { # STATUS NAME MORE
    if [ "$1" -eq 0 ]; then echo "ok   $2"; passed=$((passed + 1)); else echo "FAIL $2: $3"; failed=$((failed + 1)); fi
}
skip() { echo "skip $1"; skipped=$((skipped + 1)); }
finish() { echo "$passed passed, $failed failed, $skipped skipped"; [ "$failed" -eq 0 ]; exit; }
json() { tail -n 1 | sed 's/.*"'"$1"'": *"\{0,1\}\([^",}]*\).*/\1/'; }     # FIELD: its value, where it is plain

command -v node > /dev/null || { skip "the page: there is no node"; finish; }
if command -v emcc > /dev/null; then
    make -s -C $web > "$work/log" 2>&1
    result $? "web.c becomes a wasm" "$(tail -n 1 "$work/log")"
fi
[ -f $web/build/lemon.wasm ] || { skip "the page: there is no emcc"; finish; }
make -s -C ../examples lemon stories || exit 1
../examples/stories --seed 2 --count 60 > "$work/text.txt"
teacher=../examples/data/teacher.lemon

# The same shape, text and options everywhere; the kernels round differently, so losses agree to some digits.
tool() { LEMON_THREADS=1 ../examples/lemon "$@" --json --quiet; }
text=$(tool generate $teacher --prompt "Once upon a time" -n 20 --temp 0 | tail -n 1 | sed 's/.*"text": *"\([^"]*\)".*/\1/')
init=$(tool fuse $teacher "$work/student.lemon" --dim 64 --layers 3 --heads 4 --kv-heads 2 --ffn 176 --tokens 4096 --data "$work/text.txt" | json init_loss)
trained=$(tool train "$work/student.lemon" "$work/trained.lemon" --data "$work/text.txt" --steps 30 --batch 4 --seq 64 --lr 2e-3 | tail -n 1)
loss=$(echo "$trained" | json train_loss)

node ../examples/bindings/lemon.mjs $teacher "$work/node.lemon" > "$work/node.out" 2> "$work/log"
result $? "lemon.mjs runs" "$(tail -n 1 "$work/log")"
grep -qxF "text$text" "$work/node.out"
result $? "Node generates what the tool generates" "$(head -n 1 "$work/node.out"), expected $text"
params=$(tool info "$work/node.lemon" | json params)
grep -qxF "student $params" "$work/node.out"
result $? "Node fuses and saves what the tool reads" "$(grep student "$work/node.out"), expected $params"
grep -q '^error the file: ' "$work/node.out"
result $? "Node is told errors" "$(tail -n 1 "$work/node.out")"
[ "$(wc -l < ../examples/bindings/lemon.mjs)" -le 100 ]
result $? "lemon.mjs has at most 100 lines" "$(wc -l < ../examples/bindings/lemon.mjs)"

# Speed beside the native tool's on one thread, told, not judged: with UPDATE of each instruction set, the best of three runs,
# else of the fastest, once.
best() { for _ in 1 ${UPDATE:+2 3}; do tool "$@" | json tokens_per_second; done | sort -g | tail -n 1; }
sets=auto
[ -z "$UPDATE" ] || sets="scalar avx2 avx512 neon"
set --
for LEMON_ISA in $sets; do
    export LEMON_ISA
    tool info $teacher > "$work/log" 2>&1 || continue       # this CPU has it not
    set -- "$@" "$LEMON_ISA" "$(best generate $teacher --prompt "Once upon a time" -n 200 --temp 0)" \
        "$(best train "$work/student.lemon" "$work/fast.lemon" --data "$work/text.txt" --steps 30 --batch 4 --seq 64 --lr 2e-3)"
done
unset LEMON_ISA
node web.mjs speed $teacher "$work/text.txt" "$@" > "$work/speed"
result $? "the speeds of wasm and of native kernels" "$(tail -n 1 "$work/speed")"
sed 's/^/# /' "$work/speed"
[ -z "$UPDATE" ] || tee ../bench/results/web.md < "$work/speed" | ./into_readme.sh web

chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
if [ -n "$chromium" ] && [ ! -d "$work/node_modules/playwright-core" ] && command -v npm > /dev/null; then
    npm install --ignore-scripts --no-audit --no-fund --prefix "$work" playwright-core > "$work/npm.log" 2>&1 ||
        echo "# npm install failed: $(tail -n 1 "$work/npm.log")"
fi
if [ -n "$chromium" ] && [ -d "$work/node_modules/playwright-core" ]; then
    CHROMIUM=$chromium TEXT=$text INIT=$init LOSS=$loss node web.mjs page $teacher "$work/text.txt" > "$work/page.out" 2> "$work/log"
    [ -s "$work/page.out" ] || echo "FAIL the page: $(tail -n 1 "$work/log")" > "$work/page.out"
    cat "$work/page.out"
    passed=$((passed + $(grep -c '^ok ' "$work/page.out")))
    failed=$((failed + $(grep -c '^FAIL' "$work/page.out")))
else skip "the page: there is no Chromium, or no playwright-core"; fi
finish
