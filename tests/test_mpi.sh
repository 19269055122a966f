#!/bin/sh
# test_mpi.sh: two processes, and four, train and calibrate as one does; a dead one ends the job, and the checkpoint goes on.
# Skipped where there is no Open MPI.
cd "$(dirname "$0")" || exit 1
. ./harness.sh
scratch=${CHECK_SCRATCH:-build/mpi}
rm -rf "$scratch" && mkdir -p "$scratch"
if ! command -v mpicc > /dev/null || ! command -v mpirun > /dev/null; then
    skip "several processes (no mpicc or no mpirun)"
    done_checking
fi
program=../examples/build/11_mpi
make -s -C ../examples mpi stories > "$scratch/make" 2>&1 || { fail "11_mpi builds" "$(tail -n 1 "$scratch/make")"; done_checking; }
../examples/stories --seed 5 --count 60 > "$scratch/text.txt"
teacher=../examples/data/teacher.lemon
OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM OMPI_MCA_rmaps_base_oversubscribe OMPI_MCA_btl_vader_single_copy_mechanism
several() { n=$1; shift; mpirun --oversubscribe -n "$n" $program "$@"; }
# Largest difference of the numbers at the ends of the lines of two files; 1 where they have not as many lines.
differ() {
    paste "$1" "$2" | awk '{ d = $(NF / 2) - $NF; d = d < 0 ? -d : d; if (NF % 2 || d > most) most = NF % 2 ? 1 : d } END { print NR ? most + 0 : 1 }'
}
below() { awk -v d="$1" -v most="$2" 'BEGIN { exit !(d <= most) }'; }

several 1 train $teacher "$scratch/one.lemon" "$scratch/text.txt" 20 4 > "$scratch/one" 2>&1 || fail "one process trains" "$(tail -n 1 "$scratch/one")"
several 1 fuse $teacher "$scratch/one_fused.lemon" "$scratch/text.txt" 64 4 4 2 176 > "$scratch/fused1" 2>&1 || fail "one process fuses" "$(tail -n 1 "$scratch/fused1")"
for n in 2 4; do
    several $n train $teacher "$scratch/n$n.lemon" "$scratch/text.txt" 20 4 > "$scratch/n$n" 2>&1
    d=$(differ "$scratch/one" "$scratch/n$n")
    if below "$d" 1e-6; then ok "$n processes train with the losses of one, to $d"
    else fail "$n processes train with the losses of one" "$d: $(tail -n 1 "$scratch/n$n")"; fi
    several $n fuse $teacher "$scratch/fused$n.lemon" "$scratch/text.txt" 64 4 4 2 176 > "$scratch/fused$n" 2>&1
    d=$(differ "$scratch/fused1" "$scratch/fused$n")
    if below "$d" 1e-6; then ok "$n processes calibrate as one, to $d of the loss"
    else fail "$n processes calibrate as one" "$d: $(tail -n 1 "$scratch/fused$n")"; fi
done

# One process of two is killed on its way; the job ends, and goes on from its checkpoint to the same loss.
several 2 train $teacher "$scratch/dead.lemon" "$scratch/text.txt" 400 4 > "$scratch/dead" 2>&1 &
job=$!
for i in $(seq 600); do
    grep -q '^step 12 ' "$scratch/dead" && break
    sleep 0.1
done
child=$(pgrep -f "11_mpi train .*$scratch/dead.lemon" | tail -n 1)
kill -9 "$child" 2> /dev/null
wait $job
status=$?
if [ $status -ne 0 ] && grep -qi 'signal 9\|killed' "$scratch/dead"; then ok "a dead process ends the job with an error (status $status)"
else fail "a dead process ends the job with an error" "$status: $(tail -n 1 "$scratch/dead")"; fi
steps=$(grep -c '^step' "$scratch/dead")
several 2 train $teacher "$scratch/dead.lemon" "$scratch/text.txt" $((steps / 10 * 10 + 10)) 4 > "$scratch/again" 2>&1
first=$(sed -n 's/^step \([0-9]*\) .*/\1/p' "$scratch/again" | head -n 1)
several 1 train $teacher "$scratch/whole.lemon" "$scratch/text.txt" $((steps / 10 * 10 + 10)) 4 > "$scratch/whole" 2>&1
tail -n 1 "$scratch/whole" > "$scratch/last1"; tail -n 1 "$scratch/again" > "$scratch/last2"
if [ "${first:-0}" -gt 10 ] && below "$(differ "$scratch/last1" "$scratch/last2")" 1e-5; then ok "and goes on from step $first to where an unbroken run comes"
else fail "and goes on from its checkpoint" "first step ${first:-none}; $(cat "$scratch/last1" "$scratch/last2" | tr '\n' ' ')"; fi
done_checking
