#!/bin/sh
# report.sh: the pages of `lemon fuse --report` and `lemon train --report` in a headless Chromium (playwright-core from npm), at
# three sizes, light and dark, under the pointer, the finger and the keyboard, and on paper.  Screenshots and a PDF are left in
# build/report, to be looked at.  What is not installed (Debian: chromium; node, npm) is skipped.
cd "$(dirname "$0")" || exit 1
work=$PWD/build/report
mkdir -p "$work"
scratch=$work
. ./harness.sh
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
command -v node > /dev/null || { skip "the report: there is no node"; done_checking; }
[ -n "$chromium" ] || { skip "the report: there is no Chromium"; done_checking; }
if [ ! -d "$work/node_modules/playwright-core" ] && command -v npm > /dev/null; then
    npm install --ignore-scripts --no-audit --no-fund --prefix "$work" playwright-core > "$work/npm.log" 2>&1 ||
        echo "# npm install failed: $(tail -n 1 "$work/npm.log")"
fi
[ -d "$work/node_modules/playwright-core" ] || { skip "the report: there is no playwright-core"; done_checking; }
make -s -C ../examples lemon stories || exit 1
../examples/stories --seed 2 --count 120 > "$work/text.txt"
../examples/stories --seed 3 --count 8 > "$work/held.txt"
teacher=../examples/data/teacher.lemon
check "a page of a fusion" ../examples/lemon fuse $teacher "$work/student.lemon" --fraction 0.25 --data "$work/text.txt" \
    --tokens 8192 --report "$work/fuse.html" --quiet
check "a page of a training run" ../examples/lemon train "$work/student.lemon" "$work/trained.lemon" --data "$work/text.txt" \
    --steps 24 --batch 4 --seq 128 --lr 4e-3 --teacher $teacher --eval-data "$work/held.txt" --eval-every 6 \
    --report "$work/train.html" --quiet
CHROMIUM=$chromium node report.mjs "$work" > "$work/page.out" 2> "$work/log" || fail "the script ends" "$(tail -n 1 "$work/log")"
cat "$work/page.out"
passed=$((passed + $(grep -c '^ok ' "$work/page.out")))
failed=$((failed + $(grep -c '^FAIL' "$work/page.out")))
done_checking
