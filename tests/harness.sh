# harness.sh: the harness of the test scripts, one line a test as in check.h.  Sourced, not run.

passed=0
failed=0
skipped=0

ok() { echo "ok   $1"; passed=$((passed + 1)); }
fail() { echo "FAIL $1${2:+: $2}"; failed=$((failed + 1)); }
skip() { echo "skip $1"; skipped=$((skipped + 1)); }

# check NAME COMMAND...: passes if the command does.
check() {
    name=$1
    shift
    if "$@" > "$scratch/check.out" 2>&1; then ok "$name"; else fail "$name" "$(tail -n 1 "$scratch/check.out")"; fi
}

done_checking() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
}

# The folder of the real data, or nothing.
data_folder() {
    for folder in "$LEMON_DATA" ../../shared/data ../shared/data; do
        [ -n "$folder" ] && [ -f "$folder/stories260K.bin" ] && (cd "$folder" && pwd) && return
    done
}
