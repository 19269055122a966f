#!/bin/sh
# fuzz.sh SECONDS FUZZERS [READER...]: feeds readers (default: all) for so long each by each of FUZZERS, and adds a line a run to
# fuzz.log; $RUNS ends a run after so many inputs.  What is found new stays in build/fuzz; `fuzz.sh keep` puts the smallest inputs that reach the same lines into corpus/.
#   asan   libFuzzer, address and undefined-behaviour sanitizers
#   fast   libFuzzer, undefined behaviour traps, no more: several times as many inputs
#   afl    AFL++, the same
# $JOBS readers run at once (1).  $LENGTH is the most bytes of an input (16384).  $FUZZ_LOG is another log.  A fuzzer that is not installed is skipped, and counted so.  `fuzz.sh total` adds up the log.
cd "$(dirname "$0")" || exit 1
. ./harness.sh
scratch=build/fuzz
mkdir -p $scratch
readers="lemon folder gguf llama2c tokenizer_bin tokenizer_json operators resume session text"
flags="-std=c99 -g1 -w -DLEMON_NO_THREADS -DLEMON_NO_SIMD"
cover="-fsanitize-coverage-ignorelist=fuzz.ignore"

build() {
    [ build/fuzz_"$1" -nt fuzz.c ] && [ build/fuzz_"$1" -nt fuzz.h ] && [ build/fuzz_"$1" -nt vfs.h ] && [ build/fuzz_"$1" -nt ../lemon.h ] && return
    # shellcheck disable=SC2086
    case $1 in
    asan) clang $flags -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all $cover fuzz.c -o build/fuzz_asan -lm ;;
    fast) clang $flags -O2 -fsanitize=fuzzer,undefined -fsanitize-trap=undefined -fno-sanitize-coverage=trace-cmp $cover fuzz.c -o build/fuzz_fast -lm ;;
    afl) afl-clang-fast $flags -O2 -fsanitize=fuzzer fuzz.c -o build/fuzz_afl -lm ;;
    esac > $scratch/build.log 2>&1
}

# Sums by reader: executions, and findings of all runs.
total() {
    awk '!/^#/ { n[$1] += $3; f[$1] += $6; if (!($1 in seen)) { seen[$1] = 1; order[++k] = $1 } }
        END { for (i = 1; i <= k; i++) printf "%-15s %11d executions, %d findings\n", order[i], n[order[i]], f[order[i]] }' fuzz.log
}

# libFuzzer prints its counts on stderr; AFL++ keeps them in a file.
run_libfuzzer() {
    FUZZ_READER=$2 build/fuzz_"$1" -max_total_time="$3" -runs="${RUNS:--1}" -max_len="${LENGTH:-16384}" -timeout=6000 -report_slow_units=6000 -rss_limit_mb=2000 -print_final_stats=1 \
        -artifact_prefix="$scratch/$2-" "$scratch/$2" "corpus/$2" > "$log" 2>&1
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    coverage=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
}

run_afl() {
    rm -rf "$scratch/afl-$2" "$scratch/afl-in-$2"
    mkdir -p "$scratch/afl-in-$2"
    cp corpus/"$2"/* "$scratch/afl-in-$2"
    find "$scratch/$2" -type f -size -8k | head -n 2000 | xargs -I{} cp {} "$scratch/afl-in-$2"
    FUZZ_READER=$2 AFL_SKIP_CPUFREQ=1 AFL_NO_AFFINITY=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_NO_UI=1 AFL_FAST_CAL=1 \
        afl-fuzz ${RUNS:+-E "$RUNS"} -V "$3" -t 5000 -m none -i "$scratch/afl-in-$2" -o "$scratch/afl-$2" -- build/fuzz_afl > "$log" 2>&1
    executions=$(sed -n 's/^execs_done *: *//p' "$scratch/afl-$2/default/fuzzer_stats")
    coverage=$(sed -n 's/^edges_found *: *//p' "$scratch/afl-$2/default/fuzzer_stats")
    find "$scratch/afl-$2/default/crashes" -name 'id*' | while read -r found; do
        cp "$found" "$scratch/$2-crash-$(cksum < "$found" | cut -d ' ' -f 1)"
    done
    cp "$scratch/afl-$2"/default/queue/id* "$scratch/$2/" 2> /dev/null
}

case $1 in
total) total; exit ;;
keep)
    build fast || exit 1
    for reader in ${2:-$readers}; do
        rm -rf $scratch/kept && mkdir -p $scratch/kept
        FUZZ_READER=$reader build/fuzz_fast -merge=1 -max_len=16384 $scratch/kept "corpus/$reader" "$scratch/$reader" > $scratch/log 2>&1
        find $scratch/kept -type f -size -"${KEEP:-2}"k | while read -r found; do cp "$found" "corpus/$reader/"; done
    done
    exit ;;
esac

seconds=${1:-30}
fuzzers=${2:-asan}
[ $# -ge 2 ] && shift 2
[ $# -gt 0 ] || set -- $readers
for fuzzer in $fuzzers; do
    if ! build "$fuzzer"; then skip "$fuzzer: no such fuzzer here"; continue; fi
    if [ "${JOBS:-1}" -gt 1 ] && [ $# -gt 1 ]; then
        echo "$*" | tr ' ' '\n' | JOBS=1 xargs -P "$JOBS" -n 1 sh fuzz.sh "$seconds" "$fuzzer" > $scratch/together
        grep -v ' passed, ' $scratch/together
        passed=$((passed + $(grep -c '^ok' $scratch/together)))
        failed=$((failed + $# - $(grep -c '^ok' $scratch/together)))
        continue
    fi
    for reader in "$@"; do
        mkdir -p "$scratch/$reader"
        log=$scratch/log-$reader
        before=$(find $scratch -maxdepth 1 -name "$reader-*" | wc -l)
        executions= coverage=
        case $fuzzer in afl) run_afl afl "$reader" "$seconds" ;; *) run_libfuzzer "$fuzzer" "$reader" "$seconds" ;; esac
        findings=$(($(find $scratch -maxdepth 1 -name "$reader-*" | wc -l) - before))
        printf '%-15s %-5s %10d %6d %6d %3d\n' "$reader" "$fuzzer" "${executions:-0}" "$seconds" "${coverage:-0}" "$findings" >> "${FUZZ_LOG:-fuzz.log}"
        if [ "$findings" -eq 0 ] && [ "${executions:-0}" -gt 0 ]; then ok "$reader, $fuzzer: ${executions} inputs"
        else fail "$reader, $fuzzer" "$(grep -m 1 -E 'fuzz:|ERROR|runtime error' "$log") ($(find $scratch -maxdepth 1 -name "$reader-*" | tail -n 1))"; fi
    done
done
done_checking
