#!/bin/sh
# run.sh SUMMARY PROGRAM...: runs test programs one after the other and closes with one line, "N passed, N failed[, N skipped]".
# A program may be written name@isa: it then runs with LEMON_ISA=isa.  One that ends without its count line has crashed,
# which is a failed test.  SUMMARY names the log that all output goes to as well.  $CHECK_WRAP runs before each program;
# $CHECK_JOBS programs run at once (1), and their output comes in order at the end.
log=$1
shift

run_program() {
    each=$1
    program=${each%@*}
    isa=${each#"$program"}
    isa=${isa#@}
    CHECK_SCRATCH=build/scratch/$(basename "$program")${isa:+-$isa}
    export CHECK_SCRATCH
    rm -rf "$CHECK_SCRATCH"
    mkdir -p "$CHECK_SCRATCH"
    echo "# $(basename "$program")${isa:+, LEMON_ISA=$isa}"
    if [ -n "$isa" ]; then LEMON_ISA=$isa; export LEMON_ISA; fi
    start=$(date +%s)
    $CHECK_WRAP "$program" < /dev/null 2>&1
    status=$?
    echo "# exit status $status, $(($(date +%s) - start)) s, $(basename "$program")"
}
if [ "$log" = --one ]; then
    echo "# $1"
    run_program "$2" > "$1"
    exit
fi

: > "$log"
show() { tee -a "$log" | sed '/^[0-9]* passed, [0-9]* failed/d'; }
if [ "${CHECK_JOBS:-1}" -gt 1 ]; then
    rm -f "$log".*
    n=100
    for each in "$@"; do n=$((n + 1)); echo "$log.$n $each"; done | xargs -P "$CHECK_JOBS" -n 2 sh "$0" --one
    cat "$log".* | show
else
    for each in "$@"; do (run_program "$each") | show; done
fi
awk '
    function close_program() {      # status 0 asks for a count line without failures; any other for one with some
        if (!counted || (status != 0 && !bad)) { crashed++; print "FAIL " program " ended early, with exit status " status }
    }
    /^# exit status / { status = $4 + 0; program = $7; close_program(); counted = bad = 0; next }
    /^[0-9]+ passed, [0-9]+ failed/ { counted = 1; bad = $3; passed += $1; failed += $3; skipped += $5 }
    END {
        failed += crashed
        printf "%d passed, %d failed", passed, failed
        if (skipped) printf ", %d skipped", skipped
        printf "\n"
        exit failed != 0
    }' "$log"
