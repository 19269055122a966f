/*  fuzz.c: fuzz.h for libFuzzer and AFL++ (which runs libFuzzer's harnesses); $FUZZ_READER names the reader.  See fuzz.sh. */
#include "vfs.h"
#include <signal.h>
#define LEMON_IMPLEMENTATION
#include "../lemon.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static const fuzz_reader *chosen;

/*  Ends a run that is still at the same input after a second of the processor's time.  The fuzzers' own clocks run on
    while the machine does something else; and where it stands still, ticks come close together: two in a row say nothing. */
static void on_second(int sig) {
    static unsigned long last;
    static int still;
    (void)sig;
    still = fuzz_busy && fuzz_runs == last ? still + 1 : 0;
    if (still == 2) {
        fprintf(stderr, "fuzz: one input took a second\n");
        abort();
    }
    last = fuzz_runs;
}

static void start_clock(void) {
    struct itimerval second = {{1, 0}, {1, 0}};
    signal(SIGPROF, on_second);
    setitimer(ITIMER_PROF, &second, NULL);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    chosen = fuzz_find(getenv("FUZZ_READER"));
    if (chosen == NULL) {
        fprintf(stderr, "fuzz: FUZZ_READER is none of the readers in fuzz.h\n");
        exit(2);
    }
    fuzz_open();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    static int clock_runs;
    if (!clock_runs) {                  /* late, for AFL++ forks before this */
        clock_runs = 1;
        start_clock();
    }
    fuzz_one(chosen, bytes, n);
    return 0;
}
