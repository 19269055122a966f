#!/bin/sh
# test_kills.sh: the tool killed at random times while it trains and saves, $KILLS times (6), thrice each: the last good checkpoint is whole
# each time, and goes on to the same bits.  Then a file system that is really full, where one can be mounted.
cd "$(dirname "$0")" || exit 1
. ./harness.sh
scratch=${CHECK_SCRATCH:-build/kills}
rm -rf "$scratch" && mkdir -p "$scratch"
lemon=../examples/lemon
kills=${KILLS:-6}
LEMON_THREADS=1
export LEMON_THREADS

../examples/stories --seed 5 --count 20 > "$scratch/text.txt"
$lemon init "$scratch/new.lemon" --dim 32 --layers 2 --heads 4 --kv-heads 2 --head-dim 8 --ffn 64 --seq 64 --bytes > /dev/null 2>&1 ||
    { fail "a model to train"; done_checking; }
# Never in this shell: the tool takes the place of a subshell, so that a kill hits it and not its parent.
train() {
    exec $lemon train "$scratch/new.lemon" "$1" --data "$scratch/text.txt" --steps 60 --batch 2 --seq 32 --lr 1e-3 --save-every 1 --quiet $2
}
whole_run() { (train "$scratch/whole.lemon"); }
check "a run that nobody kills" whole_run

# A number from 1 to $1.
random() { awk -v r="$(od -An -N4 -tu4 /dev/urandom)" -v n="$1" 'BEGIN { print r % n + 1 }'; }

start=$(date +%s%N)
(train "$scratch/time.lemon") > /dev/null 2>&1
length=$((($(date +%s%N) - start) / 1000000))

broken= others= done=0 resumed=0
while [ $done -lt "$kills" ]; do
    done=$((done + 1))
    rm -rf "$scratch"/run.lemon*
    resume=
    for again in 1 2 3; do                      # killed, gone on with, killed again
        train "$scratch/run.lemon" $resume > "$scratch/out" 2>&1 &
        child=$!
        sleep "$(awk -v ms="$(random $((length / 2 + 20)))" 'BEGIN { print ms / 1000 }')"
        kill -9 $child 2> /dev/null
        wait $child 2> /dev/null
        if [ -f "$scratch/run.lemon" ]; then $lemon info "$scratch/run.lemon" > "$scratch/out" 2>&1 || broken=$(tail -n 1 "$scratch/out"); fi
        resume=
        if [ -f "$scratch/run.lemon.resume" ]; then resume=--resume; resumed=$((resumed + 1)); fi
    done
    (train "$scratch/run.lemon" $resume) > "$scratch/out" 2>&1 || broken=$(tail -n 1 "$scratch/out")
    cmp -s "$scratch/run.lemon" "$scratch/whole.lemon" || others="$others $done"
    find "$scratch" -name 'run.lemon*.tmp' -delete
done
if [ -z "$broken" ]; then ok "killed $((3 * kills)) times at random, a checkpoint is whole or not there"
else fail "killed $((3 * kills)) times at random, a checkpoint is whole or not there" "$broken"; fi
if [ -z "$others" ] && [ $resumed -gt 0 ]; then ok "and goes on to the same bits ($resumed times)"
else fail "and goes on to the same bits" "other bits in rounds$others, resumed $resumed times"; fi

# A fusion: killed at any time, the same command goes on from the layer where it stood.
fusing() {
    exec $lemon fuse ../examples/data/teacher.lemon "$1" --dim 64 --layers 5 --heads 4 --kv-heads 2 --ffn 176 --data "$scratch/text.txt" \
        --tokens 3000 --learn 0 --quiet $2
}
whole_fusion() { (fusing "$scratch/fused.lemon"); }
check "a fusion that nobody kills" whole_fusion
start=$(date +%s%N)
(fusing "$scratch/time.lemon") > /dev/null 2>&1
length=$((($(date +%s%N) - start) / 1000000))
broken= others= done=0 resumed=0
while [ $done -lt "$kills" ]; do
    done=$((done + 1))
    rm -f "$scratch"/run.lemon*
    for again in 1 2 3; do
        fusing "$scratch/run.lemon" > "$scratch/out" 2>&1 &
        child=$!
        sleep "$(awk -v ms="$(random $((length * 2 / 3 + 5)))" 'BEGIN { print ms / 1000 }')"
        kill -9 $child 2> /dev/null
        wait $child 2> /dev/null
        step=$(od -An -j8 -N4 -tu4 "$scratch/run.lemon.part" 2> /dev/null)
        if [ "${step:-0}" -gt 0 ]; then resumed=$((resumed + 1)); fi
    done
    (fusing "$scratch/run.lemon") > "$scratch/out" 2>&1 || broken=$(tail -n 1 "$scratch/out")
    [ ! -e "$scratch/run.lemon.part" ] || broken="run.lemon.part is still there"
    cmp -s "$scratch/run.lemon" "$scratch/fused.lemon" || others="$others $done"
done
if [ -z "$broken$others" ] && [ $resumed -gt 0 ]; then ok "a fusion killed $((3 * kills)) times at random goes on to the same bits ($resumed times from a later layer)"
else fail "a fusion killed $((3 * kills)) times at random goes on to the same bits" "rounds$others, resumed $resumed times; $broken"; fi

# Two of the same OUT at once: the second is turned away, the first is not disturbed.
rm -f "$scratch"/run.lemon*
fusing "$scratch/run.lemon" > "$scratch/out" 2>&1 &
child=$!
while kill -0 $child 2> /dev/null && [ ! -s "$scratch/run.lemon.part" ]; do sleep 0.01; done
kill -STOP $child
(fusing "$scratch/run.lemon") > "$scratch/second" 2>&1
status=$?
kill -CONT $child
wait $child
if [ $status -eq 1 ] && grep -q "run.lemon.part is in use by another process" "$scratch/second" && cmp -s "$scratch/run.lemon" "$scratch/fused.lemon"; then
    ok "two fusions into one file: the second is turned away"
else fail "two fusions into one file: the second is turned away" "$status, $(tail -n 1 "$scratch/second")"; fi

much() { $lemon fuse ../examples/data/teacher.lemon "$1" --dim 64 --layers 4 --heads 4 --kv-heads 2 --ffn 176 --data ../README.md --learn 0 --quiet \
    --json $2 | sed -n 's/.*"peak_bytes": \([0-9]*\).*/\1/p'; }
little_memory() { [ "$(much "$scratch/little.lemon" "--max-memory 32M")" -lt 32000000 ] && [ "$(much "$scratch/much.lemon")" -gt 60000000 ] &&
    cmp "$scratch/little.lemon" "$scratch/much.lemon"; }
check "little memory gives the same bits" little_memory

# Training with gradients and moments, 12 bytes a weight, in a file.
taught() {
    $lemon train ../examples/data/teacher.lemon "$1" --data "$scratch/text.txt" --steps 2 --batch 1 --seq 64 --quiet --json $2 |
        sed -n 's/.*"peak_bytes": \([0-9]*\).*/\1/p'
}
all=$(taught "$scratch/taught.lemon")
moments_in_a_file() { [ "$(taught "$scratch/filed.lemon" "--max-memory $((all - 6000000))")" -lt $((all - 12000000)) ] &&
    cmp "$scratch/filed.lemon" "$scratch/taught.lemon" && [ "$(find "$scratch" -name 'filed.lemon*' | wc -l)" -eq 1 ]; }
check "training with gradients and moments in a file gives the same bits" moments_in_a_file

# A disk of 256 KB, and one that a fusion fills.
mkdir -p "$scratch/full"
if mount -t tmpfs -o size=256k none "$scratch/full" 2> /dev/null; then
    before=$(cksum < "$scratch/whole.lemon")
    cp "$scratch/whole.lemon" "$scratch/full/model.lemon"
    head -c 150000 /dev/zero > "$scratch/full/other" 2> /dev/null
    $lemon convert "$scratch/whole.lemon" "$scratch/full/model.lemon" > "$scratch/out" 2>&1
    status=$?
    if [ $status -eq 1 ] && grep -q 'full/model.lemon.*No space left' "$scratch/out" && [ "$(cksum < "$scratch/full/model.lemon")" = "$before" ] &&
        [ ! -e "$scratch/full/model.lemon.tmp" ]; then ok "on a full disk saving fails by name, and the old file stands"
    else fail "on a full disk saving fails by name, and the old file stands" "$status: $(tail -n 1 "$scratch/out")"; fi
    umount "$scratch/full"
    mount -t tmpfs -o size=4m none "$scratch/full"
    head -c 3000000 /dev/zero > "$scratch/full/other"
    (fusing "$scratch/full/fused.lemon") > "$scratch/out" 2>&1
    status=$?
    $lemon train ../examples/data/teacher.lemon "$scratch/full/taught.lemon" --data "$scratch/text.txt" --steps 2 --batch 1 --seq 64 --quiet \
        --max-memory $((all - 6000000)) > "$scratch/out3" 2>&1
    said="$? $(tail -n 1 "$scratch/out3")"
    case $said in "1 "*full/taught.lemon.part.training*'No space left'*) ok "moments on a full disk are an error by name" ;;
        *) fail "moments on a full disk are an error by name" "$said" ;; esac
    rm "$scratch/full/other"
    mount -o remount,size=64m "$scratch/full"
    if [ $status -eq 1 ] && grep -q 'No space left' "$scratch/out" && (fusing "$scratch/full/fused.lemon") > "$scratch/out2" 2>&1 &&
        cmp -s "$scratch/full/fused.lemon" "$scratch/fused.lemon"; then ok "a fusion on a full disk says so, and goes on where there is room"
    else fail "a fusion on a full disk says so, and goes on where there is room" "$status: $(tail -n 1 "$scratch/out") $(tail -n 1 "$scratch/out2")"; fi
    umount "$scratch/full"
else
    skip "a full disk (no right to mount one)"
fi

# An ISA that the CPU lacks is wrong usage.
for isa in scalar avx2 avx512 neon; do LEMON_ISA=$isa $lemon info "$scratch/new.lemon" > /dev/null 2>&1 || missing=$isa; done
if [ -n "$missing" ]; then
    LEMON_ISA=$missing $lemon info "$scratch/new.lemon" > "$scratch/out" 2>&1
    status=$?
    if [ $status -eq 2 ] && grep -q "$missing" "$scratch/out"; then ok "LEMON_ISA=$missing, which this CPU lacks, is exit status 2"
    else fail "LEMON_ISA=$missing, which this CPU lacks, is exit status 2" "$status: $(cat "$scratch/out")"; fi
    LEMON_ISA=pdp11 $lemon info "$scratch/new.lemon" > "$scratch/out" 2>&1
    status=$?
    if [ $status -eq 2 ]; then ok "so is one that nobody has"
    else fail "so is one that nobody has" "$status: $(tail -n 1 "$scratch/out")"; fi
fi
done_checking
