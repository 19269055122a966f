/*  01_gemm.c - the matrix product, the one operation that a transformer spends nearly all of its time in.

        make -C examples programs && examples/build/01_gemm

    Every linear layer is y = x * W^T: x holds one row for each token, W one row for each output.  The textbook way is
    three loops.  It does 2 * m * n * k floating-point operations, one after another, and fetches a number from memory
    for nearly each of them.  lemon_sgemm does the same sums on blocks that stay in the caches and in the registers,
    eight or sixteen numbers at once.  This program does both, shows that the results agree, and how long they took.  */
#ifndef LEMON_LINKED
#define LEMON_IMPLEMENTATION
#endif
#include "lemon.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TOKENS = 256, OUTPUTS = 768, INPUTS = 288 };

/*  y [tokens, outputs] = x [tokens, inputs] * W^T, with W [outputs, inputs], as the definition says. */
static void naive(const float *x, const float *w, float *y) {
    int t, o, i;
    for (t = 0; t < TOKENS; t++)
        for (o = 0; o < OUTPUTS; o++) {
            double sum = 0;
            for (i = 0; i < INPUTS; i++) sum += (double)x[t * INPUTS + i] * (double)w[o * INPUTS + i];
            y[t * OUTPUTS + o] = (float)sum;
        }
}

/*  The same by the library: the second matrix is transposed, alpha is 1, beta is 0 (y is overwritten).  Each "ld" is
    the distance between two rows as they lie in memory.  NULL instead of a context: one thread. */
static lemon_status fast(const float *x, const float *w, float *y) {
    return lemon_sgemm(NULL, 0, 1, TOKENS, OUTPUTS, INPUTS, 1.0f, x, INPUTS, w, INPUTS, 0.0f, y, OUTPUTS);
}

static double seconds(void) { return (double)clock() / CLOCKS_PER_SEC; }

static void fill(float *x, int64_t count, lemon_rng *rng) {
    while (count-- > 0) *x++ = (float)lemon_rng_normal(rng);
}

static double largest_difference(const float *a, const float *b, int count) {
    double largest = 0;
    int i;
    for (i = 0; i < count; i++) largest = fmax(largest, fabs((double)a[i] - (double)b[i]));
    return largest;
}

static int compare(const float *x, const float *w, float *expected, float *y) {
    const double gflop = 2.0 * (double)(TOKENS * OUTPUTS * INPUTS) / 1e9;
    double start = seconds(), slow_time, fast_time, difference;
    int i, calls = 200;
    naive(x, w, expected);
    slow_time = seconds() - start;
    start = seconds();
    for (i = 0; i < calls; i++)
        if (fast(x, w, y)) return fputs("lemon_sgemm failed\n", stderr), 1;
    fast_time = (seconds() - start) / calls;
    difference = largest_difference(expected, y, TOKENS * OUTPUTS);
    printf("[%d, %d] * [%d, %d]^T, one thread, kernels: %s\n", TOKENS, INPUTS, OUTPUTS, INPUTS,
           lemon_isa_name(lemon_ctx_isa(NULL)));
    printf("three loops  %8.3f ms  %7.2f GFLOP/s\n", slow_time * 1e3, gflop / slow_time);
    printf("lemon_sgemm  %8.3f ms  %7.2f GFLOP/s\n", fast_time * 1e3, gflop / fast_time);
    printf("largest difference %.1e, where numbers are about %.0f\n", difference, sqrt((double)INPUTS));
    return difference > 1e-3;    /* float32 sums of 288 products of about 1: rounding errors stay near 1e-5 */
}

int main(void) {
    float *x = (float *)malloc(sizeof(float) * TOKENS * INPUTS), *w = (float *)malloc(sizeof(float) * OUTPUTS * INPUTS);
    float *expected = (float *)malloc(sizeof(float) * TOKENS * OUTPUTS);
    float *y = (float *)malloc(sizeof(float) * TOKENS * OUTPUTS);
    lemon_rng rng;
    int code = 1;
    if (x && w && expected && y) {
        lemon_rng_seed(&rng, 1);
        fill(x, TOKENS * INPUTS, &rng);
        fill(w, OUTPUTS * INPUTS, &rng);
        code = compare(x, w, expected, y);
    }
    free(x);
    free(w);
    free(expected);
    free(y);
    return code;
}
