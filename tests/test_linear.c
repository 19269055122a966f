/*  Chapters 4 and 12: products, factors and eigenvectors in float64, and covariances of half the work, each against a naive
    loop or against what defines it; the same bits for any number of threads; bf16 decoded as it is packed. */
#include "check.h"

static double *numbers(int64_t n, uint64_t seed) {
    double *x = (double *)malloc((size_t)n * sizeof *x);
    lemon_rng rng;
    int64_t i;
    lemon_rng_seed(&rng, seed);
    for (i = 0; i < n; i++) x[i] = lemon_rng_normal(&rng);
    return x;
}

static double largest(const double *x, int64_t n) {
    double most = 0.0;
    int64_t i;
    for (i = 0; i < n; i++) most = fabs(x[i]) > most || x[i] != x[i] ? fabs(x[i]) : most;
    return most;
}

static lemon_ctx *context(int threads, lemon_isa isa) {
    lemon_options o;
    lemon_ctx *ctx;
    memset(&o, 0, sizeof o);
    o.threads = threads;
    o.isa = isa;
    ctx = lemon_open(&o);
    if (ctx && lemon__workspaces(ctx)) printf("FAIL no workspace\n");
    return ctx;
}

/*  The largest difference to the naive product, of odd sizes that straddle tiles and steps. */
static double product_error(lemon_ctx *ctx, int64_t m, int64_t n, int64_t k, int trans_b, int lower) {
    double *a = numbers(m * k, 1), *b = numbers(k * n, 2), *c = numbers(m * n, 3), worst = 0.0;
    double *old = (double *)malloc((size_t)(m * n) * sizeof *old);
    int64_t i, j, p;
    memcpy(old, c, (size_t)(m * n) * sizeof *old);
    lemon__gemm64(ctx, trans_b, lower, m, n, k, -0.5, a, k, b, trans_b ? k : n, c, n);
    for (i = 0; i < m; i++)
        for (j = 0; j < n; j++) {
            double sum = old[i * n + j], all = 1.0;
            for (p = 0; p < k && !(lower && j > i); p++) {
                double part = 0.5 * a[i * k + p] * (trans_b ? b[j * k + p] : b[p * n + j]);
                sum -= part;
                all += fabs(part);
            }
            worst = fmax(worst, fabs(sum - c[i * n + j]) / all);
        }
    free(a); free(b); free(c); free(old);
    return worst;
}

static void test_product(lemon_ctx *ctx, const char *isa) {
    double worst = 0.0;
    char name[96];
    worst = fmax(worst, product_error(ctx, 1, 1, 1, 0, 0));
    worst = fmax(worst, product_error(ctx, 37, 301, 259, 0, 0));
    worst = fmax(worst, product_error(ctx, 263, 129, 300, 1, 0));
    worst = fmax(worst, product_error(ctx, 270, 270, 65, 1, 1));
    detail("off by %g", worst);
    snprintf(name, sizeof name, "float64 products are the naive ones (%s)", isa);
    check(worst < 1e-14, name);
}

/*  A symmetric matrix with given eigenvalues, from 1 to 1/condition: mirrored by random directions. */
static double *symmetric(int64_t n, double condition, uint64_t seed) {
    double *a = (double *)calloc((size_t)(n * n), sizeof *a), *v = numbers(3 * n, seed), *p = numbers(n, 9);
    int64_t i, j;
    int k;
    for (i = 0; i < n; i++) a[i * n + i] = pow(condition, -(double)i / (double)(n > 1 ? n - 1 : 1));
    for (k = 0; k < 3; k++) {
        double *w = v + k * n, size = 0.0, dot = 0.0;
        for (i = 0; i < n; i++) size += w[i] * w[i];
        for (i = 0; i < n; i++) w[i] /= sqrt(size);
        for (i = 0; i < n; i++)
            for (j = 0, p[i] = 0.0; j < n; j++) p[i] += a[i * n + j] * w[j];
        for (i = 0; i < n; i++) dot += p[i] * w[i];
        for (i = 0; i < n; i++) p[i] = 2.0 * (p[i] - dot * w[i]);
        for (i = 0; i < n; i++)
            for (j = 0; j < n; j++) a[i * n + j] -= w[i] * p[j] + p[i] * w[j];
    }
    free(v); free(p);
    return a;
}

/*  |x A - b| / (|x| |A|), the backward error of solving, for x = b A^-1; also fills *bits with a checksum. */
static double solve_error(lemon_ctx *ctx, int64_t n, double condition, uint32_t *bits) {
    enum { ROWS = 5 };
    double *a = symmetric(n, condition, 4), *b = numbers(ROWS * n, 5), *x = numbers(ROWS * n, 5), worst = 0.0, most;
    lemon_arena arena = {NULL};
    lemon__factor l;
    int64_t r, i, j;
    int ok = lemon__factor_make(ctx, &arena, n, ROWS, &l) == LEMON_OK;
    if (ok) memcpy(l.a, a, (size_t)(n * n) * sizeof *a);
    ok = ok && lemon__factor_run(&l);
    if (ok) lemon__factor_solve(&l, x, ROWS);
    most = largest(x, ROWS * n);
    for (r = 0; ok && r < ROWS; r++)
        for (i = 0; i < n; i++) {
            double sum = b[r * n + i];
            for (j = 0; j < n; j++) sum -= x[r * n + j] * a[j * n + i];
            worst = fmax(worst, fabs(sum) / most);
        }
    if (bits) *bits = lemon_crc32(0, x, (size_t)(ROWS * n) * sizeof *x);
    lemon_arena_free(ctx, &arena);
    free(a); free(b); free(x);
    return ok ? worst : 1e30;
}

static void test_factor(lemon_ctx *ctx) {
    static const int64_t sizes[] = {1, 2, 127, 128, 129, 300};
    double worst = 0.0;
    lemon__factor l;
    lemon_arena arena = {NULL};
    int i;
    for (i = 0; i < 6; i++) worst = fmax(worst, fmax(solve_error(ctx, sizes[i], 10, NULL), solve_error(ctx, sizes[i], 1e8, NULL)));
    detail("residual of %g", worst);
    check(worst < 1e-13, "blocked Cholesky and solves leave no residual, up to a condition of 1e8");
    if (lemon__factor_make(ctx, &arena, 200, 1, &l) == LEMON_OK) {
        for (i = 0; i < 200; i++) l.a[i * 201] = i == 150 ? -1.0 : 1.0;
        check(!lemon__factor_run(&l), "a matrix that is not positive definite has no factor");
    }
    lemon_arena_free(ctx, &arena);
}

/*  The largest of |A z - d z| and |z z^T - 1|. */
static double eigen_error(lemon_ctx *ctx, int64_t n, double condition, uint32_t *bits) {
    double *a = symmetric(n, condition, 6), *work = symmetric(n, condition, 6), *d = numbers(n, 7), worst = 0.0;
    double *z = (double *)malloc((size_t)(n * n) * sizeof *z);
    int64_t i, j, k;
    int ok = lemon__eigen(ctx, work, n, d, z) == LEMON_OK;
    for (i = 0; ok && i < n; i++)
        for (j = 0; j < n; j++) {
            double rest = -d[i] * z[i * n + j], dot = i == j ? -1.0 : 0.0;
            for (k = 0; k < n; k++) {
                rest += a[j * n + k] * z[i * n + k];
                dot += z[i * n + k] * z[j * n + k];
            }
            worst = fmax(worst, fmax(fabs(rest), fabs(dot)));
        }
    if (bits) *bits = lemon_crc32(0, z, (size_t)(n * n) * sizeof *z);
    free(a); free(work); free(d); free(z);
    return ok ? worst : 1e30;
}

static void test_eigen(lemon_ctx *ctx) {
    static const int64_t sizes[] = {1, 2, 3, 33, 70, 200};
    double worst = 0.0, *one = symmetric(40, 1.0, 1), d[40], *z = (double *)malloc(1600 * sizeof *z);
    int i;
    for (i = 0; i < 6; i++) worst = fmax(worst, eigen_error(ctx, sizes[i], 1e6, NULL));
    detail("off by %g", worst);
    check(worst < 1e-12, "eigenvectors: A z = d z, and z is orthogonal");
    check(!lemon__eigen(ctx, one, 40, d, z) && fabs(d[0] - 1) < 1e-13 && fabs(d[39] - 1) < 1e-13,
          "equal eigenvalues do no harm");
    free(one); free(z);
}

static void test_threads(void) {
    uint32_t solved[3], vectors[3];
    int t;
    for (t = 0; t < 3; t++) {
        lemon_ctx *ctx = context(t + 1, LEMON_ISA_AUTO);
        solve_error(ctx, 400, 1e4, &solved[t]);
        eigen_error(ctx, 150, 1e4, &vectors[t]);
        lemon_close(ctx);
    }
    check(solved[0] == solved[1] && solved[0] == solved[2], "solves have the same bits for 1, 2 and 3 threads");
    check(vectors[0] == vectors[1] && vectors[0] == vectors[2], "eigenvectors have the same bits for 1, 2 and 3 threads");
}

/*  S of the same rows by halves of the work, over two panels. */
static void test_covariance(lemon_ctx *ctx) {
    enum { N = 530, ROWS = 21 };
    double worst = 0.0, *numbers64 = numbers(N * ROWS, 8);
    float *x = (float *)malloc(N * ROWS * sizeof *x);
    lemon_arena arena = {NULL};
    lemon__cov cov;
    int64_t i, j, r;
    for (i = 0; i < N * ROWS; i++) x[i] = (float)numbers64[i];
    if (lemon__cov_make(ctx, &arena, N, N, NULL, &cov) == LEMON_OK) {
        lemon__cov_add(ctx, &cov, x, x, ROWS);
        lemon__cov_add(ctx, &cov, x, x, ROWS);
        lemon__mirror_up(ctx, cov.sum, cov.sum, N);
        for (i = 0; i < N; i++)
            for (j = 0; j < N; j++) {
                double sum = 0.0;
                for (r = 0; r < ROWS; r++) sum += 2.0 * (double)x[r * N + i] * (double)x[r * N + j];
                worst = fmax(worst, fabs(sum - cov.sum[i * N + j]));
            }
    } else worst = 1e30;
    detail("off by %g", worst);
    check(worst < 1e-4, "a covariance of half the work is the whole one");
    lemon_arena_free(ctx, &arena);
    free(x); free(numbers64);
}

/*  Many rows by a weight of each type: the product with its numbers written out, over several steps of k. */
static void test_stored(lemon_ctx *ctx) {
    enum { M = 67, N = 75, K = 2080 };
    static const lemon_dtype types[] = {LEMON_BF16, LEMON_F16, LEMON_Q8, LEMON_Q4};
    double *numbers64 = numbers(M * K + N * K, 10), worst = 0.0;
    float *x = (float *)malloc((M + N) * K * sizeof *x), *w = x + M * K, *y = (float *)malloc(M * N * sizeof *y);
    void *stored = malloc(N * K * 2 + 64 * N);
    int64_t i, j, p;
    int t;
    for (t = 0; t < 4; t++) {
        lemon_tensor tensor = lemon__view(stored, types[t], N, K);
        for (i = 0; i < (M + N) * K; i++) x[i] = (float)numbers64[i];
        for (i = 0; i < N; i++) lemon_row_from_f32(&tensor, i, w + i * K);
        for (i = 0; i < N; i++) lemon_row_to_f32(&tensor, i, w + i * K);
        lemon__weight_product(ctx, M, x, &tensor, y);
        for (i = 0; i < M; i++)
            for (j = 0; j < N; j++) {
                double sum = 0.0;
                for (p = 0; p < K; p++) sum += (double)x[i * K + p] * (double)w[j * K + p];
                worst = fmax(worst, fabs(sum - (double)y[i * N + j]));
            }
    }
    detail("off by %g", worst);
    check(worst < 1e-3, "weights of every type are decoded as they are packed");
    free(x); free(y); free(stored); free(numbers64);
}

int main(void) {
    static const lemon_isa isas[] = {LEMON_ISA_SCALAR, LEMON_ISA_AVX2, LEMON_ISA_AVX512, LEMON_ISA_NEON};
    lemon_ctx *ctx = context(2, LEMON_ISA_AUTO);
    int i;
    for (i = 0; i < 4; i++) {
        lemon_ctx *other = lemon_isa_supported(isas[i]) ? context(2, isas[i]) : NULL;
        if (other) test_product(other, lemon_isa_name(isas[i]));
        lemon_close(other);
    }
    test_factor(ctx);
    test_eigen(ctx);
    test_threads();
    test_covariance(ctx);
    test_stored(ctx);
    lemon_close(ctx);
    return check_done();
}
