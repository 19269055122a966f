/*  gemm.c - how fast is lemon_sgemm, how fast are the others, and how fast could it be?

        make -C bench peers                  installs OpenBLAS, BLIS and oneDNN (Debian; nothing else needs them)
        make -C bench gemm                   all; some four minutes
        make -C bench gemm ARGS=--quick      without the products above 5 GFLOP, fewer rounds; under one minute
        make -C bench gemm ARGS=--neighbour  what is left while another program keeps one of two cores busy
        bench/build/gemm --help              the other flags

    For the shapes m x n x k that transformers use, in the layouts NN, NT and TN (C = A * B; A or B transposed), with
    one thread and with two.  How to read it:

    GFLOP/s      2mnk / time of the best call.  All libraries take turns in short rounds, so that a burst of noise hits
                 all alike.  Matrices are page-aligned, and as warm as the caches let them be.
    % of limit   the limit is measured in the same run.  It is the peak of a loop of multiply-adds in registers, on as
                 many threads at once; for m <= 8 it is what the reading of B allows, if that is less: each number of B
                 is used m times only, and comes from the level of memory where B fits.  (That level's rate, or the
                 rate of reading exactly as many bytes as B has, taken in the same rounds, whichever is higher.)
    lemon/best   lemon beside the fastest peer of that row: above 1 lemon is faster.

    Each peer is at its best: all builds that Debian has and all kernels that may suit the CPU are tried first, and the
    fastest is kept.  LEMON_ISA chooses lemon's kernels; with LEMON_ISA=avx2 the peers are held to AVX2 too (nothing
    holds them back for scalar).  All numbers are in bench/build/gemm.csv, and bench/build/gemm.svg shows them as a
    roofline plot.  Samples of each result are compared with sums in double; a wrong one ends the run with an error.  */
#include "gemm_bench.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>

const char *const layout_names[LAYOUTS] = {"NN", "NT", "TN"};
const char *const library_names[LIBRARIES] = {"lemon", "OpenBLAS", "BLIS", "oneDNN"};
const char *const level_names[LEVELS] = {"L2", "L3", "DRAM"};

static const shape all_shapes[] = {
    {64, 64, 64},       {128, 128, 128},  {256, 256, 256},   {512, 512, 512},  {1024, 1024, 1024}, {2048, 2048, 2048},
    {32, 288, 288},     {256, 768, 288},  {128, 2048, 2048}, {256, 32000, 288}, {2560, 4096, 4096}, {8, 2048, 2048},
    {4, 2048, 2048},    {2, 4096, 4096},  {1, 2048, 2048},   {1, 4096, 11008}};
enum {
    SHAPES = sizeof all_shapes / sizeof all_shapes[0],
    MAX_SHAPES = 64,
    MAX_CELLS = MAX_SHAPES * LAYOUTS * MAX_THREADS
};

static const double WRONG = 1e-5;                  /* sums in float are within 1e-6 of the sum of magnitudes */

typedef struct options {
    shape shapes[MAX_SHAPES];
    int count;
    int quick, peers, neighbour;
    int layout[LAYOUTS], threads[MAX_THREADS];     /* 1: wanted */
} options;

double shape_flop(shape s) { return 2.0 * (double)s.m * (double)s.n * (double)s.k; }

double shape_bytes(shape s) {
    return 4.0 * ((double)s.m * (double)s.k + (double)s.k * (double)s.n + (double)s.m * (double)s.n);
}

/* ---- the command line ---- */

static int usage(int code) {
    fputs("usage: gemm [flags]             writes bench/build/gemm.csv and gemm.svg\n"
          "  --quick                       no products above 5 GFLOP, two rounds\n"
          "  --only MxNxK[,MxNxK...]       these shapes instead\n"
          "  --threads 1|2                 one thread count only\n"
          "  --layouts NN[,NT,TN]          these layouts only\n"
          "  --no-peers                    lemon alone\n"
          "  --neighbour                   instead of the table: two threads while another process keeps a core busy\n",
          code ? stderr : stdout);
    return code;
}

static int parse_shapes(options *o, const char *text) {
    for (o->count = 0; *text && o->count < MAX_SHAPES; o->count++) {
        long long m, n, k;
        int used = 0;
        if (sscanf(text, "%lldx%lldx%lld%n", &m, &n, &k, &used) != 3) return 0;
        if (m < 1 || n < 1 || k < 1 || m > 1 << 20 || n > 1 << 20 || k > 1 << 20) return 0;
        o->shapes[o->count].m = m, o->shapes[o->count].n = n, o->shapes[o->count].k = k;
        text += used;
        if (*text && *text++ != ',') return 0;
    }
    return o->count > 0 && *text == '\0';
}

static int parse_layouts(options *o, const char *text) {
    int i, any = 0;
    for (i = 0; i < LAYOUTS; i++) any |= o->layout[i] = strstr(text, layout_names[i]) != NULL;
    return any;
}

static int parse_threads(options *o, const char *text) {
    const int n = atoi(text);
    if (n < 1 || n > MAX_THREADS) return 0;
    memset(o->threads, 0, sizeof o->threads);
    return o->threads[n - 1] = 1;
}

static int parse(options *o, int argc, char **argv) {
    int i, ok = 1;
    memset(o, 0, sizeof *o);
    memcpy(o->shapes, all_shapes, sizeof all_shapes);
    o->count = SHAPES, o->peers = 1;
    for (i = 0; i < LAYOUTS; i++) o->layout[i] = 1;
    for (i = 0; i < MAX_THREADS; i++) o->threads[i] = 1;
    for (i = 1; i < argc && ok; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--quick") == 0) o->quick = 1;
        else if (strcmp(argv[i], "--no-peers") == 0) o->peers = 0;
        else if (strcmp(argv[i], "--neighbour") == 0) o->neighbour = 1;
        else if (strcmp(argv[i], "--only") == 0) ok = parse_shapes(o, value), i++;
        else if (strcmp(argv[i], "--layouts") == 0) ok = parse_layouts(o, value), i++;
        else if (strcmp(argv[i], "--threads") == 0) ok = parse_threads(o, value), i++;
        else ok = 0;
    }
    return ok;
}

/* ---- the run ---- */

typedef struct bench {
    options o;
    results r;
    child children[MAX_THREADS][LIBRARIES];
    child machine;
    cell cells[MAX_CELLS];
} bench;

static int open_lemon(bench *b, int threads) {
    child *c = &b->children[threads - 1][LEMON];
    candidate what;
    memset(&what, 0, sizeof what);
    what.library = LEMON;
    if (!child_open(c, &what, threads)) return fprintf(stderr, "gemm: error: %s\n", c->text), 0;
    b->r.isa = c->isa;
    b->r.present[LEMON] = 1;
    return 1;
}

static void open_peer(bench *b, int library, int threads) {
    child *c = &b->children[threads - 1][library];
    if (peer_open(c, library, threads, b->r.isa == LEMON_ISA_AVX2)) {
        printf("- %s, %d thread%s: %s\n", library_names[library], threads, threads > 1 ? "s" : "", c->text);
        b->r.present[library] = 1;
    } else printf("- %s is not here, or does not run: left out; `make -C bench peers` installs %s\n",
                  library_names[library], peer_packages(library));
    fflush(stdout);
}

static int open_children(bench *b) {
    int t, i;
    candidate none;
    memset(&none, 0, sizeof none);
    none.library = MACHINE;
    if (!child_open(&b->machine, &none, 1)) return fputs("gemm: error: no process\n", stderr), 0;
    for (t = 1; t <= MAX_THREADS; t++) {
        if (!b->o.threads[t - 1]) continue;
        if (!open_lemon(b, t)) return 0;
        b->r.max_threads = t;
        for (i = LEMON + 1; i < LIBRARIES && b->o.peers; i++)
            if (t == 1 || b->r.present[i] || !b->o.threads[0]) open_peer(b, i, t);
    }
    return 1;
}

static void close_children(bench *b) {
    int t, i;
    child_close(&b->machine);
    for (t = 0; t < MAX_THREADS; t++)
        for (i = 0; i < LIBRARIES; i++) child_close(&b->children[t][i]);
}

/*  One round of one cell: each library once. */
static int measure_round(bench *b, cell *c, double seconds) {
    request r;
    answer a;
    int i;
    memset(&r, 0, sizeof r);
    r.what = DO_PRODUCT, r.size = c->size, r.layout = c->layout, r.threads = c->threads, r.seconds = seconds;
    for (i = 0; i < LIBRARIES; i++) {
        child *who = &b->children[c->threads - 1][i];
        if (who->pid == 0) continue;
        if (!child_ask(who, &r, &a)) {
            fprintf(stderr, "gemm: error: %s: %s\n", library_names[i], a.text);
            return 0;
        }
        if (a.best > c->gflops[i]) c->gflops[i] = a.best;
        if (a.error > c->error[i]) c->error[i] = a.error;
        if (a.error < WRONG) continue;
        fprintf(stderr, "gemm: error: %s: %dx%dx%d %s, %d thread%s: the result is wrong (relative error %g)\n",
                library_names[i], (int)c->size.m, (int)c->size.n, (int)c->size.k, layout_names[c->layout], c->threads,
                c->threads > 1 ? "s" : "", a.error);
        return 0;
    }
    return 1;
}

/*  How fast as many bytes as B has are read now, in the same rounds as the libraries: a B somewhat larger than L3 is
    read faster than DRAM alone allows, and DRAM itself is shared with whoever else is on the machine. */
static double read_round(bench *b, const cell *c, double seconds) {
    request r;
    answer a;
    memset(&r, 0, sizeof r);
    r.what = DO_READ, r.isa = b->r.isa, r.threads = c->threads, r.seconds = seconds;
    r.bytes = (size_t)c->size.k * (size_t)c->size.n * sizeof(float) / (size_t)c->threads;
    return child_ask(&b->machine, &r, &a) ? a.best : 0;
}

/*  Short products need more rounds: a burst of noise can cover a whole round of theirs. */
static int measure_cell(bench *b, cell *c) {
    const int small = shape_flop(c->size) < 1e9, rounds = b->o.quick ? 2 : small ? 8 : 3;
    const double seconds = small || b->o.quick ? 0.05 : 0.1;
    double read = 0;
    int i;
    for (i = 0; i < rounds; i++) {
        if (!measure_round(b, c, seconds)) return 0;
        if (c->size.m <= FEW_ROWS) {
            const double rate = read_round(b, c, seconds);
            if (rate > read) read = rate;
        }
    }
    c->limit = limits_of(&b->r.machine, c->size, b->r.isa, c->threads, read);
    report_row(&b->r, c);
    return 1;
}

static int measure(bench *b) {
    int t, s, l;
    for (t = 1; t <= MAX_THREADS; t++) {
        if (!b->o.threads[t - 1]) continue;
        report_head(&b->r, t);
        for (s = 0; s < b->o.count; s++) {
            if (b->o.quick && shape_flop(b->o.shapes[s]) > 5e9) continue;
            for (l = 0; l < LAYOUTS; l++) {
                cell *c = &b->cells[b->r.count];
                if (!b->o.layout[l]) continue;
                c->size = b->o.shapes[s], c->layout = l, c->threads = t;
                if (!measure_cell(b, c)) return 0;
                b->r.count++;
            }
        }
    }
    return 1;
}

/* ---- a busy neighbour ---- */

/*  Mean GFLOP/s of a library in rounds that alternate between quiet and busy; the mean, since the best call would be
    one that the neighbour did not hit. */
static int neighbour_rates(child *who, int64_t n, pid_t spin, double *quiet, double *busy) {
    enum { ROUNDS = 4 };
    request r;
    answer a;
    int i;
    memset(&r, 0, sizeof r);
    r.what = DO_PRODUCT, r.size.m = r.size.n = r.size.k = n, r.threads = 2, r.seconds = 0.4;
    *quiet = *busy = 0;
    for (i = 0; i < 2 * ROUNDS; i++) {
        int ok;
        if (i & 1) spin_pause(spin, 0);
        ok = child_ask(who, &r, &a);
        if (i & 1) spin_pause(spin, 1);
        if (!ok || a.error >= WRONG) return 0;
        *(i & 1 ? busy : quiet) += a.mean / ROUNDS;
    }
    return 1;
}

static int neighbour_rows(bench *b, pid_t spin) {
    static const int64_t sizes[] = {512, 1024};
    double quiet, busy;
    size_t s;
    int i;
    printf("\n### 2 threads with a busy neighbour: mean GFLOP/s\n\n"
           "| m x n x k | library | quiet | busy | share left | at least 45 %% |\n|---|---|---:|---:|---:|---|\n");
    for (s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (i = 0; i < LIBRARIES; i++) {
            child *who = &b->children[1][i];
            if (who->pid == 0) continue;
            if (!neighbour_rates(who, sizes[s], spin, &quiet, &busy))
                return fprintf(stderr, "gemm: error: %s failed\n", library_names[i]), 0;
            printf("| %dx%dx%d | %s | %.1f | %.1f | %.0f %% | %s |\n", (int)sizes[s], (int)sizes[s], (int)sizes[s],
                   library_names[i], quiet, busy, 100 * busy / quiet, busy >= 0.45 * quiet ? "yes" : "no");
            fflush(stdout);
        }
    return 1;
}

static int neighbour(bench *b) {
    const pid_t spin = spin_start();
    int ok;
    if (spin < 0) return fputs("gemm: error: no process for the neighbour\n", stderr), 2;
    ok = neighbour_rows(b, spin);
    spin_end(spin);
    return ok ? 0 : 1;
}

/* ---- the whole ---- */

static int write_files(const bench *b) {
    if (!report_csv(&b->r, "bench/build/gemm.csv"))
        return fputs("gemm: error: bench/build/gemm.csv could not be written\n", stderr), 0;
    if (!report_svg(&b->r, "bench/build/gemm.svg"))
        return fputs("gemm: error: bench/build/gemm.svg could not be written\n", stderr), 0;
    return 1;
}

static int run(bench *b) {
    b->r.cells = b->cells;
    if (b->o.neighbour) b->o.threads[0] = 0, b->o.threads[1] = 1;
    if (!open_children(b)) return 2;
    if (b->o.neighbour) return neighbour(b);
    if (!limits_measure(&b->r.machine, &b->machine, b->r.isa))
        return fputs("gemm: error: the machine's limits could not be measured\n", stderr), 2;
    report_limits(&b->r);
    if (!measure(b)) return 1;
    report_summary(&b->r);
    return write_files(b) ? 0 : 1;
}

int main(int argc, char **argv) {
    bench *b = (bench *)calloc(1, sizeof *b);
    int code;
    if (b == NULL) return 2;
    signal(SIGPIPE, SIG_IGN);
    if (argc == 2 && strcmp(argv[1], "--help") == 0) code = usage(0);
    else if (!parse(&b->o, argc, argv)) code = usage(2);
    else code = run(b);
    close_children(b);
    free(b);
    return code;
}
