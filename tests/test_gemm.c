/*  Chapter 4: the product against a naive loop in double precision, between guard pages, for every ISA and thread count. */
#include <stddef.h>
static void *test_malloc(size_t bytes);
static void test_free(void *p);
#define LEMON_MALLOC(bytes) test_malloc(bytes)
#define LEMON_FREE(p) test_free(p)
#include "check.h"
#include <sys/mman.h>
#include <unistd.h>

/* An allocator that counts what is out, and that can be told to have no more after some calls. */
static int blocks_out, calls_left = -1;
static void *test_malloc(size_t bytes) {
    if (calls_left == 0) return NULL;
    if (calls_left > 0) calls_left--;
    blocks_out++;
    return malloc(bytes);
}
static void test_free(void *p) {
    blocks_out -= p != NULL;
    free(p);
}

static lemon_ctx *open_with(lemon_isa isa, int threads) {
    lemon_options options;
    lemon_ctx *ctx;
    memset(&options, 0, sizeof options);
    options.isa = isa;
    options.threads = threads;
    ctx = lemon_open(&options);
    if (!ctx) { printf("FAIL a context opens\n"); exit(1); }
    return ctx;
}

static unsigned random_state = 1;
static unsigned draw(void) { return (random_state = random_state * 1664525u + 1013904223u) >> 8; }
static float value(void) { return (float)draw() / (float)(1 << 24) - 0.5f; }
static int64_t pick(int64_t n) { return (int64_t)(draw() % (unsigned)n); }

/* ---- memory between guard pages ---- */

typedef struct guarded {
    char *map;
    size_t bytes;
    float *data;
} guarded;

/* `floats` floats that end (at_end) or begin at a page which must not be touched. */
static guarded guard(int64_t floats, int at_end) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), need = (size_t)floats * sizeof(float);
    const size_t body = (need + page - 1) / page * page;
    guarded g;
    g.bytes = body + 2 * page;
    g.map = (char *)mmap(NULL, g.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == (char *)MAP_FAILED) { perror("mmap"); exit(1); }
    mprotect(g.map, page, PROT_NONE);
    mprotect(g.map + page + body, page, PROT_NONE);
    g.data = (float *)(void *)(g.map + page + (at_end ? body - need : 0));
    return g;
}

static void unguard(guarded g) { munmap(g.map, g.bytes); }

/* ---- one product ---- */

typedef struct product {
    int trans_a, trans_b;
    int64_t m, n, k, lda, ldb, ldc;
    float alpha, beta;
} product;

static product shape(int trans_a, int trans_b, int64_t m, int64_t n, int64_t k, int64_t extra) {
    product p;
    p.trans_a = trans_a; p.trans_b = trans_b; p.m = m; p.n = n; p.k = k;
    p.lda = (trans_a ? m : k) + extra; p.ldb = (trans_b ? k : n) + extra; p.ldc = n + extra;
    p.alpha = 1; p.beta = 0;
    return p;
}

static int64_t floats_of(int64_t rows, int64_t cols, int64_t ld) { return rows && cols ? (rows - 1) * ld + cols : 0; }
static int64_t floats_a(const product *p) {
    return p->trans_a ? floats_of(p->k, p->m, p->lda) : floats_of(p->m, p->k, p->lda);
}
static int64_t floats_b(const product *p) {
    return p->trans_b ? floats_of(p->n, p->k, p->ldb) : floats_of(p->k, p->n, p->ldb);
}
static int64_t floats_c(const product *p) { return floats_of(p->m, p->n, p->ldc); }

static lemon_status run(lemon_ctx *ctx, const product *p, const float *a, const float *b, float *c) {
    return lemon_sgemm(ctx, p->trans_a, p->trans_b, p->m, p->n, p->k, p->alpha, a, p->lda, b, p->ldb, p->beta, c,
                       p->ldc);
}

/* 1 if `got` is the product within rounding: sums of k products, bounded by the sum of their magnitudes. Gaps between
   the rows of C must be as they were. */
static int is_product(const product *p, const float *a, const float *b, const float *before, const float *got) {
    int64_t i, j, q;
    for (i = 0; i < p->m; i++)
        for (j = 0; j < p->ldc && i * p->ldc + j < floats_c(p); j++) {
            const float old = before[i * p->ldc + j], x = got[i * p->ldc + j];
            double sum = 0, magnitude = 0, want;
            if (j >= p->n) {
                if (memcmp(&old, &x, sizeof x) != 0) return 0;
                continue;
            }
            for (q = 0; p->alpha != 0 && q < p->k; q++) {
                const double u = (double)(p->trans_a ? a[q * p->lda + i] : a[i * p->lda + q]);
                const double v = (double)(p->trans_b ? b[j * p->ldb + q] : b[q * p->ldb + j]);
                sum += u * v;
                magnitude += fabs(u * v);
            }
            want = (p->alpha != 0 ? (double)p->alpha * sum : 0) + (p->beta != 0 ? (double)p->beta * (double)old : 0);
            magnitude = fabs((double)p->alpha) * magnitude + fabs((double)p->beta * (p->beta != 0 ? (double)old : 0));
            if (isnan(want)) { if (!isnan(x)) return 0; }
            else if (isinf(want)) { if ((double)x != want) return 0; }
            else if (!(fabs((double)x - want) <= 1e-7 * (4 + sqrt((double)p->k)) * magnitude + 1e-30)) return 0;
        }
    return 1;
}

static void fill(float *x, int64_t n) { while (n-- > 0) *x++ = value(); }

/* Runs a product on guarded matrices that hold random numbers; `poison` puts NaN and Inf into A, B or C. */
static int try_product(lemon_ctx *ctx, const product *p, int at_end, int poison) {
    const int64_t na = floats_a(p), nb = floats_b(p), nc = floats_c(p);
    guarded a = guard(na, at_end), b = guard(nb, at_end), c = guard(nc, at_end);
    float *before = (float *)malloc((size_t)nc * sizeof(float) + 1);
    int ok;
    fill(a.data, na);
    fill(b.data, nb);
    fill(c.data, nc);
    if (poison == 1 && na) { a.data[pick(na)] = NAN; a.data[pick(na)] = INFINITY; }
    if (poison == 2 && nb) { b.data[pick(nb)] = NAN; b.data[pick(nb)] = -INFINITY; b.data[pick(nb)] = 0; }
    if (poison == 3 && nc) { c.data[pick(nc)] = NAN; c.data[pick(nc)] = INFINITY; }
    if (poison == 4 && na && nb) { memset(a.data, 0, (size_t)na * sizeof(float)); b.data[pick(nb)] = INFINITY; }
    memcpy(before, c.data, (size_t)nc * sizeof(float));
    ok = run(ctx, p, a.data, b.data, c.data) == LEMON_OK && is_product(p, a.data, b.data, before, c.data);
    if (!ok)
        detail("trans %d %d  m %d n %d k %d  ld %d %d %d  alpha %g beta %g  end %d poison %d", p->trans_a,
               p->trans_b, (int)p->m, (int)p->n, (int)p->k, (int)p->lda, (int)p->ldb, (int)p->ldc, (double)p->alpha,
               (double)p->beta, at_end, poison);
    free(before);
    unguard(a);
    unguard(b);
    unguard(c);
    return ok;
}

/* ---- the tests ---- */

static const float factors[] = {1, 0, -0.5f, 2.25f};

/* All transposes, and of sizes 1 to 40 a sample in which each tile height, width and tail occurs. */
static void test_small(lemon_ctx *ctx, const char *name) {
    int64_t m, n;
    int t, ok = 1;
    for (m = 1; m <= 40; m++)
        for (n = 1; n <= 40; n += light() ? 5 : 1)
            for (t = 0; t < 4; t++) {
                product p = shape(t & 1, t >> 1, m, n, 1 + pick(40), pick(2) * pick(9));
                p.alpha = factors[pick(4)];
                p.beta = factors[pick(4)];
                ok &= try_product(ctx, &p, (int)pick(2), 0);
            }
    check(ok, name);
}

/* Sizes about the borders of blocks (mc 168 and 144, kc 512, nc 1024) and of paths (m 8, k * n 65536). */
static void test_blocks(lemon_ctx *ctx, const char *name) {
    static const int64_t size[][3] = {
        {167, 33, 511}, {168, 32, 512}, {169, 31, 513}, {145, 1025, 9}, {13, 1023, 7}, {113, 129, 130}, {337, 70, 1025},
        {1, 1, 3000}, {1, 300, 1029}, {1, 3001, 67}, {1, 40, 7}, {2, 1500, 70}, {3, 1027, 65}, {5, 513, 129},
        {7, 2100, 63}, {12, 1100, 69}, {8, 1024, 64}, {8, 250, 301}, {9, 1024, 64}, {300, 1, 200}, {129, 1, 3},
        {64, 129, 8}, {29, 2049, 33}, {1, 1, 1}
    };
    size_t s;
    int t, ok = 1;
    for (s = 0; s < sizeof size / sizeof size[0]; s++)
        for (t = light() ? 12 : 0; t < 16; t++) {
            product p = shape(t & 1, t >> 1 & 1, size[s][0], size[s][1], size[s][2], t >> 2 & 1 ? 0 : 5);
            if (t >> 3) { p.alpha = -0.5f; p.beta = 2.25f; }
            if (p.n == 1 && t & 8) p.ldc = 1;
            ok &= try_product(ctx, &p, t >> 2 & 1, 0);
        }
    check(ok, name);
}

/* NaN and Inf reach the elements they reach in the naive loop, and no other; zeros are not skipped. */
static void test_poison(lemon_ctx *ctx, const char *name) {
    static const int64_t size[][3] = {{1, 50, 70}, {5, 7, 9}, {8, 400, 200}, {30, 65, 33}, {150, 140, 520}};
    size_t s;
    int t, poison, ok = 1;
    for (s = 0; s < sizeof size / sizeof size[0]; s++)
        for (poison = 1; poison <= 4; poison++)
            for (t = 0; t < 8; t++) {
                product p = shape(t & 1, t >> 1 & 1, size[s][0], size[s][1], size[s][2], 3);
                p.beta = t >> 2 ? 0.5f : 0.0f;
                ok &= try_product(ctx, &p, 1, poison);
            }
    check(ok, name);
}

/* alpha 0, k 0, m 0, n 0: A and B may be NULL, and NaN in C is cleared by beta 0 only. */
static void test_nothing(lemon_ctx *ctx, const char *name) {
    float c[6] = {1, 2, 3, NAN, 5, 6};
    int ok = lemon_sgemm(ctx, 0, 0, 2, 2, 5, 0, NULL, 5, NULL, 2, 2, c, 3) == LEMON_OK;
    ok &= c[0] == 2 && c[1] == 4 && c[2] == 3 && isnan(c[3]) && c[4] == 10 && c[5] == 6;
    ok &= lemon_sgemm(ctx, 0, 0, 2, 2, 0, 1, NULL, 0, NULL, 2, 1, c, 3) == LEMON_OK && c[0] == 2 && isnan(c[3]);
    ok &= lemon_sgemm(ctx, 1, 1, 2, 2, 0, 1, NULL, 2, NULL, 0, 0, c, 3) == LEMON_OK;
    ok &= c[0] == 0 && c[1] == 0 && c[2] == 3 && c[3] == 0 && c[4] == 0;
    ok &= lemon_sgemm(ctx, 0, 1, 1, 1, INT64_MAX, 0, NULL, INT64_MAX, NULL, INT64_MAX, 2, c, 3) == LEMON_OK;
    ok &= lemon_sgemm(ctx, 0, 0, 0, 2, 3, 1, NULL, 3, NULL, 2, 0, NULL, 2) == LEMON_OK;
    ok &= lemon_sgemm(ctx, 0, 0, 2, 0, 3, 1, NULL, 3, NULL, 0, 0, NULL, 0) == LEMON_OK;
    ok &= lemon_sgemm(ctx, 0, 0, 0, 0, 0, 1, NULL, 0, NULL, 0, 0, NULL, 0) == LEMON_OK;
    check(ok, name);
}

static int refused(lemon_ctx *ctx, lemon_status status, const char *what) {
    const int ok = status == LEMON_E_ARG && (!ctx || strstr(lemon_error(ctx), what));
    if (!ok) detail("expected \"%s\", got %d \"%s\"", what, (int)status, ctx ? lemon_error(ctx) : "");
    return ok;
}

static void test_arguments(lemon_ctx *ctx, const char *name) {
    float x[64] = {0};
    int ok = refused(ctx, lemon_sgemm(ctx, 0, 0, -1, 2, 3, 1, x, 3, x, 2, 0, x, 2), "m is -1");
    ok &= refused(ctx, lemon_sgemm(ctx, 0, 0, 1, -2, 3, 1, x, 3, x, 2, 0, x, 2), "n is -2");
    ok &= refused(ctx, lemon_sgemm(ctx, 0, 0, 1, 2, -3, 1, x, 3, x, 2, 0, x, 2), "k is -3");
    ok &= refused(ctx, lemon_sgemm(ctx, 0, 0, 4, 2, 3, 1, x, 2, x, 2, 0, x, 2), "lda is 2, expected at least 3");
    ok &= refused(ctx, lemon_sgemm(ctx, 1, 0, 4, 2, 3, 1, x, 3, x, 2, 0, x, 2), "lda is 3, expected at least 4");
    ok &= refused(ctx, lemon_sgemm(ctx, 0, 0, 4, 2, 3, 1, x, 3, x, 1, 0, x, 2), "ldb is 1, expected at least 2");
    ok &= refused(ctx, lemon_sgemm(ctx, 0, 1, 4, 2, 3, 1, x, 3, x, 2, 0, x, 2), "ldb is 2, expected at least 3");
    ok &= refused(ctx, lemon_sgemm(ctx, 0, 0, 4, 2, 3, 1, x, 3, x, 2, 0, x, 1), "ldc is 1, expected at least 2");
    ok &= refused(ctx, lemon_sgemm(ctx, 0, 0, 4, 2, 3, 1, NULL, 3, x, 2, 0, x, 2), "a is NULL");
    ok &= refused(ctx, lemon_sgemm(ctx, 0, 0, 4, 2, 3, 1, x, 3, NULL, 2, 0, x, 2), "b is NULL");
    ok &= refused(ctx, lemon_sgemm(ctx, 0, 0, 4, 2, 3, 1, x, 3, x, 2, 0, NULL, 2), "c is NULL");
    check(ok, name);
}

/* The same bits from 1, 2 and 3 threads, and from lemon__gemm. */
static void test_bits(lemon_isa isa, const char *name) {
    static const int64_t size[][3] = {
        {300, 310, 700}, {1, 2000, 601}, {6, 1500, 200}, {40, 2500, 90}, {700, 33, 600}, {257, 258, 259}, {2048, 1, 300},
        {5, 3000, 300}, {8, 2000, 300}, {13, 700, 1100}, {27, 3000, 200}, {64, 64, 64}, {3, 2050, 99}
    };
    lemon_ctx *ctx[3];
    size_t s;
    int i, t, ok = 1;
    for (i = 0; i < 3; i++) ctx[i] = open_with(isa, i + 1);
    for (s = 0; s < sizeof size / sizeof size[0]; s++)
        for (t = 0; t < 4; t++) {
            const product p = shape(t & 1, t >> 1, size[s][0], size[s][1], size[s][2], 0);
            const size_t bytes = (size_t)floats_c(&p) * sizeof(float);
            float *a = (float *)malloc((size_t)floats_a(&p) * sizeof(float));
            float *b = (float *)malloc((size_t)floats_b(&p) * sizeof(float));
            float *c = (float *)malloc(bytes), *d = (float *)malloc(bytes);
            float *workspace = (float *)lemon__malloc(NULL, (size_t)lemon__gemm_floats(isa) * sizeof(float));
            fill(a, floats_a(&p));
            fill(b, floats_b(&p));
            lemon__gemm(isa, workspace, p.trans_a, p.trans_b, p.m, p.n, p.k, 1, a, p.lda, b, p.ldb, 0, c, p.ldc);
            for (i = 0; i < 3; i++) {
                memset(d, 255, bytes);
                ok &= run(ctx[i], &p, a, b, d) == LEMON_OK && memcmp(c, d, bytes) == 0;
            }
            free(a);
            free(b);
            free(c);
            free(d);
            lemon__free(NULL, workspace, (size_t)lemon__gemm_floats(isa) * sizeof(float));
        }
    for (i = 0; i < 3; i++) lemon_close(ctx[i]);
    check(ok, name);
}

/* ---- the order of additions, to the bit ---- */

static float twin_a(const lemon__product *g, int64_t i, int64_t p) { return g->a[i * g->a_row + p * g->a_step]; }
static float twin_b(const lemon__product *g, int64_t p, int64_t j) { return g->b[p * g->b_step + j * g->b_col]; }

/* By tiles: one chain of FMAs in each block of k, each block added to C. */
static float twin_tiles(const lemon__product *g, int64_t i, int64_t j, float c) {
    float beta = g->beta;
    int64_t p, q;
    for (p = 0; p < g->k; p += g->block_k, beta = 1) {
        float sum = 0;
        for (q = p; q < g->k && q < p + g->block_k; q++) sum = fmaf(twin_a(g, i, q), twin_b(g, q, j), sum);
        c = beta != 0 ? fmaf(g->alpha, sum, beta * c) : g->alpha * sum;
    }
    return c;
}

/* By dots: a chain for each lane of a vector, halves of more than eight lanes added, then neighbours; what fills no
   vector is added last, unfused. */
static float twin_dots(const lemon__product *g, int64_t i, int64_t j, float c, int64_t lanes) {
    const int64_t whole = g->k / lanes * lanes;
    float sum[16] = {0};
    int64_t p, l;
    for (p = 0; p < whole; p++) sum[p % lanes] = fmaf(twin_a(g, i, p), twin_b(g, p, j), sum[p % lanes]);
    for (; lanes > 8; lanes /= 2)
        for (l = 0; l < lanes / 2; l++) sum[l] += sum[l + lanes / 2];
    for (; lanes > 1; lanes /= 2)
        for (l = 0; l < lanes / 2; l++) sum[l] = sum[2 * l] + sum[2 * l + 1];
    for (; p < g->k; p++) sum[0] += twin_a(g, i, p) * twin_b(g, p, j);
    return g->beta != 0 ? g->alpha * sum[0] + g->beta * c : g->alpha * sum[0];
}

/* By sums: beta first, then row after row of B; unfused in the columns and the steps that fill no vector. */
static float twin_sums(const lemon__product *g, int64_t i, int64_t j, float c, int64_t lanes) {
    const int64_t fused = j < g->n / lanes * lanes ? g->k / 8 * 8 : 0;
    int64_t p;
    c = g->beta != 0 ? g->beta * c : 0;
    for (p = 0; p < fused; p++) c = fmaf(g->alpha * twin_a(g, i, p), twin_b(g, p, j), c);
    for (; p < g->k; p++) c += g->alpha * twin_a(g, i, p) * twin_b(g, p, j);
    return c;
}

static int is_twin(lemon_isa isa, const lemon__product *g, const float *got) {
    const int64_t lanes = isa == LEMON_ISA_AVX512 ? 16 : isa == LEMON_ISA_AVX2 ? 8 : 4;
    int64_t i, j;
    for (i = 0; i < g->m; i++)
        for (j = 0; j < g->n; j++) {
            const float c = g->c[i * g->ldc + j], x = got[i * g->ldc + j];
            const float want = g->path == LEMON__BY_TILES ? twin_tiles(g, i, j, c)
                             : g->path == LEMON__BY_DOTS ? twin_dots(g, i, j, c, lanes) : twin_sums(g, i, j, c, lanes);
            if (memcmp(&want, &x, sizeof x) == 0) continue;
            detail("path %d, %d x %d x %d: element %d, %d is %.9g, expected %.9g", g->path, (int)g->m, (int)g->n,
                   (int)g->k, (int)i, (int)j, (double)x, (double)want);
            return 0;
        }
    return 1;
}

/* Kernels that fuse give the bits of a scalar loop that follows the rules above, on every path. */
static void test_order(lemon_ctx *ctx, const char *name) {
    static const int64_t size[][3] = {
        {1, 1, 1}, {5, 7, 9}, {8, 12, 40}, {13, 29, 31}, {33, 50, 70}, {61, 64, 600}, {150, 140, 1100}, {6, 1000, 300},
        {1, 300, 1029}, {2, 1500, 70}, {3, 1027, 65}, {4, 1001, 203}, {7, 1100, 69}, {200, 1, 77}
    };
    int paths[4] = {0}, ok = 1, t;
    size_t s;
    for (s = 0; s < sizeof size / sizeof size[0]; s++)
        for (t = 0; t < 8; t++) {
            product p = shape(t & 1, t >> 1 & 1, size[s][0], size[s][1], size[s][2], t >> 2 ? 3 : 0);
            float *a = (float *)malloc((size_t)floats_a(&p) * sizeof(float));
            float *b = (float *)malloc((size_t)floats_b(&p) * sizeof(float));
            float *c = (float *)malloc((size_t)floats_c(&p) * sizeof(float));
            float *got = (float *)malloc((size_t)floats_c(&p) * sizeof(float));
            lemon__product g;
            p.alpha = t & 4 ? 0.7f : 1;
            p.beta = t & 4 ? -0.3f : 0;
            fill(a, floats_a(&p));
            fill(b, floats_b(&p));
            fill(c, floats_c(&p));
            memcpy(got, c, (size_t)floats_c(&p) * sizeof(float));
            g = lemon__product_of(lemon_ctx_isa(ctx), p.trans_a, p.trans_b, p.m, p.n, p.k, p.alpha, a, p.lda, b, p.ldb,
                                  p.beta, c, p.ldc);
            lemon__plan(&g);
            paths[g.path]++;
            ok = ok && run(ctx, &p, a, b, got) == LEMON_OK && is_twin(lemon_ctx_isa(ctx), &g, got);
            free(a);
            free(b);
            free(c);
            free(got);
        }
    check(ok && paths[LEMON__BY_TILES] && paths[LEMON__BY_DOTS] && paths[LEMON__BY_SUMS], name);
}

/* Without a context: nothing is left allocated, and a failed allocation is reported before C is touched. */
static void test_alone(void) {
    static float a[150 * 150], c[150 * 150];
    const product p = shape(0, 1, 150, 150, 150, 0);
    int ok;
    test_small(NULL, "NULL context: small");
    test_arguments(NULL, "NULL context: arguments");
    test_nothing(NULL, "NULL context: nothing to do");
    c[0] = 7;
    calls_left = 0;
    ok = run(NULL, &p, a, a, c) == LEMON_E_MEMORY && c[0] == 7;
    calls_left = -1;
    check(ok, "NULL context: no memory");
}

/* Workspaces are made all or none: whatever allocation fails, the call says so, and the next one works. */
static void test_memory(void) {
    static float a[150 * 150], c[150 * 150];
    const product p = shape(0, 1, 150, 150, 150, 0);
    lemon_ctx *ctx = open_with(LEMON_ISA_AUTO, 3);
    int i, ok = 1;
    c[0] = 7;
    for (i = 0; i <= lemon_ctx_threads(ctx); i++) {     /* the list of them, and one for each thread */
        calls_left = i;
        ok &= run(ctx, &p, a, a, c) == LEMON_E_MEMORY && c[0] == 7;
    }
    calls_left = -1;
    ok &= run(ctx, &p, a, a, c) == LEMON_OK && c[0] == 0;
    lemon_close(ctx);
    check(ok, "no memory for workspaces");
    check(blocks_out == 0, "nothing left allocated");
}

static void test_isa(lemon_isa isa) {
    char name[64];
    int threads;
    for (threads = 1; threads <= 3; threads += 2) {
        lemon_ctx *ctx = open_with(isa, threads);
#define NAME(what) (snprintf(name, sizeof name, "%s, %d threads: %s", lemon_isa_name(isa), threads, what), name)
        if (threads == 1) test_small(ctx, NAME("sizes 1 to 40"));
        if (isa != LEMON_ISA_SCALAR) test_order(ctx, NAME("the bits of the scalar order of FMAs"));
        test_blocks(ctx, NAME("sizes about the blocks"));
        test_poison(ctx, NAME("NaN and Inf"));
        test_nothing(ctx, NAME("nothing to do"));
        test_arguments(ctx, NAME("arguments"));
        lemon_close(ctx);
    }
    snprintf(name, sizeof name, "%s: the same bits from 1, 2 and 3 threads", lemon_isa_name(isa));
    test_bits(isa, name);
}

int main(void) {
    lemon_isa only = lemon_ctx_isa(NULL);       /* LEMON_ISA of the environment, else the best */
    int isa;
    for (isa = LEMON_ISA_SCALAR; isa <= LEMON_ISA_NEON; isa++)
        if (lemon_isa_supported((lemon_isa)isa) && (!getenv("LEMON_ISA") || isa == (int)only)) test_isa((lemon_isa)isa);
    test_alone();
    test_memory();
    return check_done();
}
