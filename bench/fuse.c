/*  fuse.c - how fast operators are applied: Out [2560, 4096] * W [4096, 4096] * In^T [4096, 2560], a matrix of 7B becoming
    one of 2.7B, by lemon.h's own functions, beside numpy on OpenBLAS and beside the peak of multiply-adds.

    make -C bench fuse                 1 and 2 threads; bench/build/fuse.csv, fuse.svg
    ARGS="--lemon" ARGS="--quick"      without numpy; and in a second or two */
#include "speed.h"

enum { TEACHER = 4096, STUDENT = 2560, ROUNDS = 3 };

typedef struct job { int threads; double seconds; } job;

static const double flop = 2.0 * TEACHER * TEACHER * STUDENT + 2.0 * STUDENT * TEACHER * (double)STUDENT;

static float *random_matrix(lemon_ctx *ctx, int64_t n, uint64_t seed) {
    float *x = (float *)lemon__malloc(ctx, (size_t)n * sizeof *x);
    lemon_rng rng;
    int64_t i;
    if (x == NULL) _exit(1);
    lemon_rng_seed(&rng, seed);
    for (i = 0; i < n; i++) x[i] = (float)lemon_rng_uniform(&rng) - 0.5f;
    return x;
}

static lemon_map dense_map(lemon_ctx *ctx, uint64_t seed) {
    lemon_map map;
    memset(&map, 0, sizeof map);
    map.student = STUDENT, map.teacher = map.field = TEACHER;
    map.value = random_matrix(ctx, (int64_t)STUDENT * TEACHER, seed);
    return map;
}

/*  best, mean in GFLOP/s; extra: of the read map, and of the write map. */
static void measure_apply(const void *arg, finding *out) {
    const job *j = (const job *)arg;
    lemon_map read, write;
    float *w, *half, *y;
    double best = 1e30, sum = 0, first, all;
    lemon_options o;
    lemon_ctx *ctx;
    int runs = 0;
    memset(&o, 0, sizeof o);
    o.threads = j->threads;
    ctx = lemon_open(&o);
    if (ctx == NULL || lemon__workspaces(ctx)) _exit(1);
    read = dense_map(ctx, 1), write = dense_map(ctx, 2);
    w = random_matrix(ctx, (int64_t)TEACHER * TEACHER, 3);
    half = random_matrix(ctx, (int64_t)TEACHER * STUDENT, 4);
    y = random_matrix(ctx, (int64_t)STUDENT * STUDENT, 5);
    lemon__map_cols(ctx, &read, w, TEACHER, 0.0f, half);
    while (runs < 2 || sum < j->seconds) {
        double start = now();
        lemon__map_cols(ctx, &read, w, TEACHER, 0.0f, half);
        first = now() - start;
        lemon__gemm_threads(ctx, 0, 0, STUDENT, STUDENT, TEACHER, 1.0f, write.value, TEACHER, half, STUDENT, 1.0f, y, STUDENT);
        all = now() - start;
        if (all < best) {
            best = all;
            out->extra[0] = 2e-9 * TEACHER * TEACHER * STUDENT / first;
            out->extra[1] = 2e-9 * STUDENT * TEACHER * (double)STUDENT / (all - first);
        }
        sum += all;
        runs++;
    }
    out->best = 1e-9 * flop / best;
    out->mean = 1e-9 * flop * runs / sum;
}

static void measure_peak(const void *arg, finding *out) {
    out->best = limits_peak(lemon_ctx_isa(NULL), ((const job *)arg)->threads, 0.3);
}

static int numpy(const job *j, finding *out) {
    return speed_command(out,
        "env -u OPENBLAS_CORETYPE LD_LIBRARY_PATH=/usr/lib/$(uname -m)-linux-gnu/openblas-openmp OPENBLAS_NUM_THREADS=%d "
        "OMP_NUM_THREADS=%d /usr/bin/python3 -c \"\n"
        "import time, numpy as n\n"
        "o, w, i = (n.random.rand(a, b).astype(n.float32) for a, b in ((%d, %d), (%d, %d), (%d, %d)))\n"
        "best, start = 1e30, time.time()\n"
        "while time.time() < start + %g:\n"
        "    t = time.time(); y = o @ (w @ i.T); best = min(best, time.time() - t)\n"
        "print(%g / best, 0, 0)\n\" 2> /dev/null",
        j->threads, j->threads, STUDENT, TEACHER, TEACHER, TEACHER, STUDENT, TEACHER, j->seconds, 1e-9 * flop);
}

int main(int argc, char **argv) {
    int with_peer = 1, quick = 0, i, t;
    static speed_chart chart;
    FILE *csv;
    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--lemon")) with_peer = 0;
        else if (!strcmp(argv[i], "--quick")) quick = 1, with_peer = 0;
        else return fprintf(stderr, "fuse: error: unknown flag %s; see the head of bench/fuse.c\n", argv[i]), 2;
    }
    csv = speed_csv("fuse", "threads,lemon_gflops,lemon_mean_gflops,read_gflops,write_gflops,numpy_gflops,peak_gflops");
    printf("\n| fusion apply, 2560x4096 . 4096x4096 . 4096x2560 | threads | lemon, GFLOP/s | of peak | read map | write map | "
           "numpy | of peak | ratio |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n");
    for (t = 1; t <= MAX_THREADS; t++) {
        finding lemon, peer, peak, f;
        job j;
        j.threads = t, j.seconds = quick ? 0.5 : 3;
        memset(&lemon, 0, sizeof lemon), memset(&peer, 0, sizeof peer), memset(&peak, 0, sizeof peak);
        for (i = 0; i < (quick ? 1 : ROUNDS); i++) {
            if (speed_child(measure_peak, &j, &f)) speed_keep(&peak, &f);
            if (speed_child(measure_apply, &j, &f)) speed_keep(&lemon, &f);
            if (with_peer && numpy(&j, &f)) speed_keep(&peer, &f);
        }
        printf("| f32 | %d | %.0f | %.0f %% | %.0f | %.0f |", t, lemon.best, 100 * lemon.best / peak.best, lemon.extra[0],
               lemon.extra[1]);
        speed_cell("%.0f", peer.best), speed_cell("%.0f %%", 100 * peer.best / peak.best), speed_cell("%.2f", peer.best > 0 ? lemon.best / peer.best : 0);
        printf("\n");
        fflush(stdout);
        fprintf(csv, "%d,%.1f,%.1f,%.1f,%.1f,%.1f,%.1f\n", t, lemon.best, lemon.mean, lemon.extra[0], lemon.extra[1], peer.best,
                peak.best);
        speed_chart_add(&chart, lemon.best, peer.best, peak.best, "2560x4096 . 4096x4096 . 4096x2560, %d thr.", t);
    }
    speed_svg("fuse", "Applying operators, GFLOP/s", "numpy on OpenBLAS", &chart);
    return fclose(csv) != 0;
}
