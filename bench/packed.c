/*  packed.c - what it is worth to pack B once

        make -C bench packed

    A matrix B that many products share, such as a weight, can be rearranged once by lemon_sgemm_pack.  For shapes of
    weights, B as it is (NN) and transposed (NT), a few and many rows of A, one thread and two: GFLOP/s of lemon_sgemm,
    of lemon_sgemm_packed, the gain, and after how many products the packing has paid for itself.  Best of several calls,
    both in turns.  Standard output is a Markdown table; bench/build/packed.csv has the same numbers.  */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#ifndef LEMON_LINKED             /* the Makefile compiles the library once, for all programs */
#define LEMON_IMPLEMENTATION
#endif
#include "limits.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t shapes[][2] = {{288, 288}, {2048, 2048}, {4096, 11008}};      /* n x k */
static const int64_t rows[] = {1, 4, 8, 32, 128};
enum { SHAPES = sizeof shapes / sizeof shapes[0], ROWS = sizeof rows / sizeof rows[0], MOST_ROWS = 128, ROUNDS = 12 };

typedef struct job {
    lemon_ctx *ctx;
    int64_t m, n, k;
    int trans_b;
    const float *a, *b;
    float *c;
    const lemon_packed *packed;      /* NULL: lemon_sgemm */
} job;

/*  Seconds of a product, of as many as take a few milliseconds; negative: it failed. */
static double seconds(const job *j) {
    const int calls = (int)(2e7 / (2.0 * (double)j->m * (double)j->n * (double)j->k)) + 1;
    const double start = now();
    lemon_status status = LEMON_OK;
    int i;
    for (i = 0; i < calls && !status; i++)
        status = j->packed ? lemon_sgemm_packed(j->ctx, 0, j->m, 1, j->a, j->k, j->packed, 0, j->c, j->n)
                           : lemon_sgemm(j->ctx, 0, j->trans_b, j->m, j->n, j->k, 1, j->a, j->k, j->b,
                                         j->trans_b ? j->k : j->n, 0, j->c, j->n);
    return status ? -1 : (now() - start) / calls;
}

static int row(job j, const lemon_packed *packed, double packing, FILE *csv) {
    const double gflop = 2e-9 * (double)j.m * (double)j.n * (double)j.k;
    const char *layout = j.trans_b ? "NT" : "NN";
    const int threads = lemon_ctx_threads(j.ctx);
    double plain = 1e30, ready = 1e30;
    int r;
    for (r = 0; r < ROUNDS; r++) {
        double t;
        j.packed = NULL;
        t = seconds(&j);
        if (t < plain) plain = t;
        j.packed = packed;
        t = seconds(&j);
        if (t < ready) ready = t;
    }
    if (plain < 0 || ready < 0) return fprintf(stderr, "packed: error: %s\n", lemon_error(j.ctx)), 1;
    printf("| %dx%dx%d | %s | %d | %.1f | %.1f | %.2f | ", (int)j.m, (int)j.n, (int)j.k, layout, threads, gflop / plain,
           gflop / ready, plain / ready);
    if (plain > ready) printf("%.0f |\n", packing / (plain - ready) + 0.5);
    else printf("never |\n");
    fprintf(csv, "%d,%d,%d,%s,%d,%.2f,%.2f,%.6f\n", (int)j.m, (int)j.n, (int)j.k, layout, threads, gflop / plain,
            gflop / ready, packing);
    fflush(stdout);
    return 0;
}

/*  All rows of one B. */
static int matrix(job j, FILE *csv) {
    double packing = now();
    lemon_packed *packed = NULL;
    int i, bad = lemon_sgemm_pack(j.ctx, j.trans_b, j.n, j.k, j.b, j.trans_b ? j.k : j.n, &packed) != LEMON_OK;
    packing = now() - packing;
    if (bad) fprintf(stderr, "packed: error: %s\n", lemon_error(j.ctx));
    for (i = 0; i < ROWS && !bad; i++) {
        j.m = rows[i];
        bad = row(j, packed, packing, csv);
    }
    lemon_packed_free(j.ctx, packed);
    return bad;
}

static int bench(lemon_ctx *ctx, FILE *csv) {
    const size_t most_b = (size_t)shapes[SHAPES - 1][0] * (size_t)shapes[SHAPES - 1][1];
    const size_t most_a = MOST_ROWS * (size_t)shapes[SHAPES - 1][1];
    float *a = (float *)malloc(most_a * sizeof *a), *b = (float *)malloc(most_b * sizeof *b);
    float *c = (float *)malloc(most_a * sizeof *c);
    int s, t, bad = a == NULL || b == NULL || c == NULL;
    size_t i;
    for (i = 0; !bad && i < most_a; i++) a[i] = (float)(i % 17) / 17 - 0.5f;
    for (i = 0; !bad && i < most_b; i++) b[i] = (float)(i % 19) / 19 - 0.5f;
    for (s = 0; s < SHAPES; s++)
        for (t = 0; t < 2 && !bad; t++) {
            job j = {NULL, 0, 0, 0, 0, NULL, NULL, NULL, NULL};
            j.ctx = ctx; j.n = shapes[s][0]; j.k = shapes[s][1]; j.trans_b = t; j.a = a; j.b = b; j.c = c;
            bad = matrix(j, csv);
        }
    free(a);
    free(b);
    free(c);
    return bad;
}

int main(void) {
    FILE *csv = fopen("bench/build/packed.csv", "w");
    int threads, bad = csv == NULL;
    printf("| m x n x k | layout | threads | lemon_sgemm | packed | gain | pays after products |\n");
    printf("|---|---|---|---:|---:|---:|---:|\n");
    if (csv) fputs("m,n,k,layout,threads,sgemm,packed,packing_seconds\n", csv);
    for (threads = 1; threads <= 2 && !bad; threads++) {
        lemon_options options;
        lemon_ctx *ctx;
        memset(&options, 0, sizeof options);
        options.threads = threads;
        ctx = lemon_open(&options);
        bad = ctx == NULL || bench(ctx, csv);
        lemon_close(ctx);
    }
    if (csv) bad |= fclose(csv) != 0;
    if (bad) fputs("packed: error: no memory, or bench/build/packed.csv could not be written\n", stderr);
    return bad;
}
