/*  gemm.c - how fast is lemon_sgemm, and how fast could it be?

        make -C bench gemm
        bench/build/gemm --quick             leaves out the products above 5 GFLOP

    For the shapes that transformers use, in the layouts NN, NT and TN, with one thread and with two: GFLOP/s of the
    best of several calls, and that as a share of the peak.  The peak is measured too, by a loop that does nothing but
    multiply-adds in registers, on as many threads at once as the product has; no product can be faster than that, and
    small ones, bound by memory, stay far below it.  Standard output is a Markdown table; the CSV file has the same
    numbers.  LEMON_ISA chooses the kernels.  */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#ifndef LEMON_LINKED             /* the Makefile compiles the library once, for all programs */
#define LEMON_IMPLEMENTATION
#endif
#include "../lemon.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LAYOUTS = 3, MAX_THREADS = 2 };
static const char *const layouts[LAYOUTS] = {"NN", "NT", "TN"};

static const int64_t shapes[][3] = {
    {64, 64, 64},      {128, 128, 128},    {256, 256, 256},     {512, 512, 512},    {1024, 1024, 1024},
    {2048, 2048, 2048}, {32, 288, 288},    {256, 768, 288},     {128, 2048, 2048},  {256, 32000, 288},
    {2560, 4096, 4096}, {8, 2048, 2048},   {4, 2048, 2048},     {2, 4096, 4096},    {1, 2048, 2048},
    {1, 4096, 11008}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- the peak: multiply-adds in registers ---------------------------------------------------------------------- */

#define PEAK_CHAINS 12           /* independent sums: x86 cores need 8 to 10 (latency 4 or 5, two a cycle) */
#define PEAK_ROUNDS 2000000

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
/*  12 chains of x = x * a + a, which tend to 1, so no number gets slow; returns their sum. */
#define PEAK_LOOP(NAME, TARGET, VECTOR, SET, FMA, ADD, STORE) \
    __attribute__((target(TARGET))) static float NAME(void) { \
        VECTOR a = SET(0.5f), x[PEAK_CHAINS]; \
        float out[16]; \
        int i, k; \
        for (k = 0; k < PEAK_CHAINS; k++) x[k] = SET((float)k); \
        for (i = 0; i < PEAK_ROUNDS; i++) { \
            x[0] = FMA(x[0], a, a), x[1] = FMA(x[1], a, a), x[2] = FMA(x[2], a, a), x[3] = FMA(x[3], a, a); \
            x[4] = FMA(x[4], a, a), x[5] = FMA(x[5], a, a), x[6] = FMA(x[6], a, a), x[7] = FMA(x[7], a, a); \
            x[8] = FMA(x[8], a, a), x[9] = FMA(x[9], a, a), x[10] = FMA(x[10], a, a), x[11] = FMA(x[11], a, a); \
        } \
        for (k = 0; k < PEAK_CHAINS; k++) a = ADD(a, x[k]); \
        STORE(out, a); \
        return out[0]; \
    }
PEAK_LOOP(peak_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_add_ps, _mm256_storeu_ps)
PEAK_LOOP(peak_avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_add_ps, _mm512_storeu_ps)
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
static float peak_neon(void) {
    float32x4_t a = vdupq_n_f32(0.5f), x[PEAK_CHAINS];
    int i, k;
    for (k = 0; k < PEAK_CHAINS; k++) x[k] = vdupq_n_f32((float)k);
    for (i = 0; i < PEAK_ROUNDS; i++)
        for (k = 0; k < PEAK_CHAINS; k++) x[k] = vfmaq_f32(a, x[k], a);
    for (k = 0; k < PEAK_CHAINS; k++) a = vaddq_f32(a, x[k]);
    return vgetq_lane_f32(a, 0);
}
#endif

/*  One run of the loop for an ISA; its number of lanes, 0 where there is no such loop. */
static int peak_run(lemon_isa isa) {
    volatile float sink = 0;
    int lanes = 0;
#if defined(__GNUC__) && defined(__x86_64__)
    if (isa == LEMON_ISA_AVX2) sink = peak_avx2(), lanes = 8;
    if (isa == LEMON_ISA_AVX512) sink = peak_avx512(), lanes = 16;
#elif defined(__ARM_NEON) && defined(__aarch64__)
    if (isa == LEMON_ISA_NEON) sink = peak_neon(), lanes = 4;
#endif
    (void)isa;
    (void)sink;
    return lanes;
}

typedef struct peak_job {
    lemon_isa isa;
    double gflops;               /* the best of ten runs */
} peak_job;

static void *peak_thread(void *user) {
    peak_job *job = (peak_job *)user;
    int i;
    for (i = 0; i < 10; i++) {
        double start = now(), rate;
        int lanes = peak_run(job->isa);
        rate = 2.0 * lanes * PEAK_CHAINS * (double)PEAK_ROUNDS / (now() - start) / 1e9;
        if (rate > job->gflops) job->gflops = rate;
    }
    return NULL;
}

/*  GFLOP/s of all threads together; 0 where it is not known. */
static double peak(lemon_isa isa, int threads) {
    pthread_t thread[MAX_THREADS];
    peak_job job[MAX_THREADS];
    double sum = 0;
    int i, started = 0;
    for (i = 0; i < threads; i++) job[i].isa = isa, job[i].gflops = 0;
    while (started < threads && pthread_create(&thread[started], NULL, peak_thread, &job[started]) == 0) started++;
    for (i = 0; i < started; i++) {
        pthread_join(thread[i], NULL);
        sum += job[i].gflops;
    }
    return started == threads ? sum : 0;
}

/* ---- the products ------------------------------------------------------------------------------------------------ */

typedef struct matrices { float *a, *b, *c; } matrices;

static int matrices_make(matrices *x) {
    int64_t s, i, a = 0, b = 0, c = 0;
    lemon_rng rng;
    for (s = 0; s < SHAPES; s++) {
        const int64_t *d = shapes[s];
        if (d[0] * d[2] > a) a = d[0] * d[2];
        if (d[1] * d[2] > b) b = d[1] * d[2];
        if (d[0] * d[1] > c) c = d[0] * d[1];
    }
    x->a = (float *)malloc((size_t)a * sizeof(float));
    x->b = (float *)malloc((size_t)b * sizeof(float));
    x->c = (float *)malloc((size_t)c * sizeof(float));
    if (x->a == NULL || x->b == NULL || x->c == NULL) return 0;
    lemon_rng_seed(&rng, 1);
    for (i = 0; i < a; i++) x->a[i] = (float)lemon_rng_uniform(&rng) - 0.5f;
    for (i = 0; i < b; i++) x->b[i] = (float)lemon_rng_uniform(&rng) - 0.5f;
    memset(x->c, 0, (size_t)c * sizeof(float));
    return 1;
}

/*  GFLOP/s of the best of at least three measurements, each of at least 0.04 GFLOP; negative: the call failed. */
static double speed(lemon_ctx *ctx, const int64_t *d, int layout, const matrices *x) {
    const int64_t m = d[0], n = d[1], k = d[2];
    const int ta = layout == 2, tb = layout == 1;
    const double flop = 2.0 * (double)m * (double)n * (double)k;
    const int calls = (int)(4e7 / flop) + 1;
    double best = 1e30, start = now();
    int r, i;
    for (r = 0; r < 3 || (now() - start < 0.2 && r < 1000); r++) {
        double t = now();
        for (i = 0; i < calls; i++)
            if (lemon_sgemm(ctx, ta, tb, m, n, k, 1, x->a, ta ? m : k, x->b, tb ? k : n, 0, x->c, n)) return -1;
        t = (now() - t) / calls;
        if (t < best) best = t;
    }
    return flop / best / 1e9;
}

/*  One row of the table: all layouts, all thread counts. */
static int row(lemon_ctx *const *ctx, const double *top, const int64_t *d, const matrices *x, FILE *csv) {
    int threads, layout;
    printf("| %dx%dx%d |", (int)d[0], (int)d[1], (int)d[2]);
    for (threads = 1; threads <= MAX_THREADS; threads++)
        for (layout = 0; layout < LAYOUTS; layout++) {
            const double rate = speed(ctx[threads - 1], d, layout, x), best = top[threads - 1];
            if (rate < 0) return fprintf(stderr, "gemm: error: %s\n", lemon_error(ctx[threads - 1])), 1;
            if (best > 0) printf(" %.1f (%.0f %%) |", rate, 100 * rate / best);
            else printf(" %.1f |", rate);
            fprintf(csv, "%d,%d,%d,%s,%d,%s,%.2f,%.2f\n", (int)d[0], (int)d[1], (int)d[2], layouts[layout], threads,
                    lemon_isa_name(lemon_ctx_isa(ctx[0])), rate, best);
        }
    putchar('\n');
    fflush(stdout);
    return 0;
}

static void print_head(lemon_isa isa, const double *top) {
    int threads, layout;
    printf("lemon_sgemm, %s: GFLOP/s (share of the peak).", lemon_isa_name(isa));
    if (top[0] > 0) printf("  Peak in registers: %.1f with 1 thread, %.1f with 2.", top[0], top[1]);
    printf("\n\n| m x n x k |");
    for (threads = 1; threads <= MAX_THREADS; threads++)
        for (layout = 0; layout < LAYOUTS; layout++)
            printf(" %s, %d thread%s |", layouts[layout], threads, threads > 1 ? "s" : "");
    printf("\n|---|---|---|---|---|---|---|\n");
    fflush(stdout);
}

static int bench(lemon_ctx *const *ctx, int quick, const char *path) {
    matrices x = {NULL, NULL, NULL};
    lemon_isa isa = lemon_ctx_isa(ctx[0]);
    double top[MAX_THREADS];
    FILE *csv = fopen(path, "w");
    int s, bad = csv == NULL || !matrices_make(&x);
    if (csv) fputs("m,n,k,layout,threads,isa,gflops,peak\n", csv);
    for (s = 0; s < MAX_THREADS; s++) top[s] = bad ? 0 : peak(isa, s + 1);
    if (!bad) print_head(isa, top);
    for (s = 0; s < SHAPES && !bad; s++) {
        const double flop = 2.0 * (double)shapes[s][0] * (double)shapes[s][1] * (double)shapes[s][2];
        if (!quick || flop < 5e9) bad = row(ctx, top, shapes[s], &x, csv);
    }
    if (csv) bad |= fclose(csv) != 0;
    free(x.a);
    free(x.b);
    free(x.c);
    if (bad) fprintf(stderr, "gemm: error: no memory, or %s could not be written\n", path);
    return bad;
}

int main(int argc, char **argv) {
    lemon_ctx *ctx[MAX_THREADS] = {NULL, NULL};
    lemon_options options;
    int i, code = 0, quick = argc == 2 && strcmp(argv[1], "--quick") == 0;
    if (argc > 1 && !quick) return fputs("usage: gemm [--quick]      writes bench/build/gemm.csv\n", stderr), 2;
    memset(&options, 0, sizeof options);
    for (i = 0; i < MAX_THREADS; i++) {
        options.threads = i + 1;
        ctx[i] = lemon_open(&options);
        if (ctx[i] == NULL) code = 2;
    }
    if (code) fputs("gemm: error: could not begin; does this CPU have what LEMON_ISA asks for?\n", stderr);
    else code = bench(ctx, quick, "bench/build/gemm.csv");
    for (i = 0; i < MAX_THREADS; i++) lemon_close(ctx[i]);
    return code;
}
