#!/bin/sh
# run.sh SUMMARY PROGRAM...: runs test programs one after the other and closes with one line, "N passed, N failed[, N skipped]".
# A program may be written name@isa: it then runs with LEMON_ISA=isa.  One that ends without its count line has crashed,
# which is a failed test.  SUMMARY names the log that all output goes to as well.  $CHECK_WRAP runs before each program.
log=$1
shift
: > "$log"
for each in "$@"; do
    program=${each%@*}
    isa=${each#"$program"}
    isa=${isa#@}
    CHECK_SCRATCH=build/scratch/$(basename "$program")${isa:+-$isa}
    export CHECK_SCRATCH
    rm -rf "$CHECK_SCRATCH"
    mkdir -p "$CHECK_SCRATCH"
    echo "# $(basename "$program")${isa:+, LEMON_ISA=$isa}"
    {
        if [ -n "$isa" ]; then LEMON_ISA=$isa; export LEMON_ISA; fi
        start=$(date +%s)
        $CHECK_WRAP "$program" < /dev/null 2>&1
        status=$?
        echo "# exit status $status, $(($(date +%s) - start)) s, $(basename "$program")"
    } | tee -a "$log" | sed '/^[0-9]* passed, [0-9]* failed/d'
done
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
