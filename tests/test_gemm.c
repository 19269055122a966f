/*  Chapter 4: the product against a naive loop in double precision, between guard pages, for every ISA and thread count. */
#include <stddef.h>
static void *test_malloc(size_t bytes);
static void test_free(void *p);
#define LEMON_MALLOC(bytes) test_malloc(bytes)
#define LEMON_FREE(p) test_free(p)
#include "check.h"
#include <sys/mman.h>
#include <time.h>
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

/* Bytes that end (at_end) or begin at a page which must not be touched. */
static guarded guard_bytes(size_t need, int at_end) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
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

static guarded guard(int64_t floats, int at_end) { return guard_bytes((size_t)floats * sizeof(float), at_end); }
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

/* 1: run() packs B first, and so do all tests that use it. */
static int pack_first;

static lemon_status run_packed(lemon_ctx *ctx, const product *p, const float *a, const float *b, float *c) {
    lemon_packed *packed;
    lemon_status status = lemon_sgemm_pack(ctx, p->trans_b, p->n, p->k, b, p->ldb, &packed);
    if (!status) status = lemon_sgemm_packed(ctx, p->trans_a, p->m, p->alpha, a, p->lda, packed, p->beta, c, p->ldc);
    lemon_packed_free(ctx, packed);
    return status;
}

static lemon_status run(lemon_ctx *ctx, const product *p, const float *a, const float *b, float *c) {
    if (pack_first) return run_packed(ctx, p, a, b, c);
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
        for (n = 1; n <= 40; n += light() ? 9 : 1)
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
                if (light() && (t + poison) % 4) continue;
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
    ok &= refused(ctx, lemon_sgemm(ctx, 0, 0, 4, 2, 3, 1, x, INT64_MAX / 4, x, 2, 0, x, 2), "a is larger than all memory");
    ok &= refused(ctx, lemon_sgemm(ctx, 0, 0, 1, INT64_MAX, 3, 1, x, 3, x, INT64_MAX, 0, x, INT64_MAX), "c is larger");
    ok &= refused(ctx, lemon_sgemm(ctx, 0, 0, 4, 2, 3, 1, NULL, 3, x, 2, 0, x, 2), "a is NULL");
    ok &= refused(ctx, lemon_sgemm(ctx, 0, 0, 4, 2, 3, 1, x, 3, NULL, 2, 0, x, 2), "b is NULL");
    ok &= refused(ctx, lemon_sgemm(ctx, 0, 0, 4, 2, 3, 1, x, 3, x, 2, 0, NULL, 2), "c is NULL");
    check(ok, name);
}

/* 1 if a CBLAS may do this product, which promises no bits. */
static int by_cblas(const product *p) {
#ifdef LEMON_USE_BLIS
    return !pack_first && p->m >= 16 && p->n >= 16 && p->m * p->n * p->k >= 1000000;
#else
    (void)p;
    return 0;
#endif
}

/* The same bits from 1, 2 and 3 threads, and from lemon__gemm, which packs B itself. */
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
            if (pack_first) ok &= run(ctx[0], &p, a, b, c) == LEMON_OK;
            for (i = 0; i < 3; i++) {
                memset(d, 255, bytes);
                ok &= run(ctx[i], &p, a, b, d) == LEMON_OK && (memcmp(c, d, bytes) == 0 || by_cblas(&p));
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

/* WebAssembly has no fused operation: there it rounds twice. */
static float twin_fma(float a, float b, float c) {
#if LEMON__WASM
    const float ab = a * b;
    return ab + c;
#else
    return fmaf(a, b, c);
#endif
}

/* By tiles: one chain of FMAs in each block of k, each block added to C. */
static float twin_tiles(const lemon__product *g, int64_t i, int64_t j, float c) {
    float beta = g->beta;
    int64_t p, q;
    for (p = 0; p < g->k; p += g->block_k, beta = 1) {
        float sum = 0;
        for (q = p; q < g->k && q < p + g->block_k; q++) sum = twin_fma(twin_a(g, i, q), twin_b(g, q, j), sum);
        c = beta != 0 ? twin_fma(g->alpha, sum, beta * c) : g->alpha * sum;
    }
    return c;
}

/* By dots: a chain for each lane of a vector, halves of more than eight lanes added, then neighbours; what fills no
   vector is added last, unfused. */
static float twin_dots(const lemon__product *g, int64_t i, int64_t j, float c, int64_t lanes) {
    const int64_t whole = g->k / lanes * lanes;
    float sum[16] = {0};
    int64_t p, l;
    for (p = 0; p < whole; p++) sum[p % lanes] = twin_fma(twin_a(g, i, p), twin_b(g, p, j), sum[p % lanes]);
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
    for (p = 0; p < fused; p++) c = twin_fma(g->alpha * twin_a(g, i, p), twin_b(g, p, j), c);
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
        for (t = light() ? 4 : 0; t < 8; t++) {
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
            ok = ok && run(ctx, &p, a, b, got) == LEMON_OK && (by_cblas(&p) || is_twin(lemon_ctx_isa(ctx), &g, got));
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

/* ---- B packed once ---- */

/* B may go once it is packed, one packed B serves any number of rows and threads, and NULL is freed. */
static void test_packed_alone(lemon_ctx *ctx, const char *name) {
    enum { N = 70, K = 90, ROWS = 33 };
    static float a[ROWS * K], b[N * K], kept[N * K], c[ROWS * N], before[ROWS * N];
    lemon_packed *packed = NULL;
    int64_t m;
    int ok;
    fill(a, ROWS * K);
    fill(b, N * K);
    memcpy(kept, b, sizeof b);
    ok = lemon_sgemm_pack(ctx, 1, N, K, b, K, &packed) == LEMON_OK;
    memset(b, 255, sizeof b);
    for (m = 1; ok && m <= ROWS; m++) {
        const product p = shape(0, 1, m, N, K, 0);
        ok = lemon_sgemm_packed(ctx, 0, m, 1, a, K, packed, 0, c, N) == LEMON_OK && is_product(&p, a, kept, before, c);
    }
    lemon_packed_free(ctx, packed);
    lemon_packed_free(ctx, NULL);
    check(ok, name);
}

/* No columns, no steps, no rows; alpha 0; NaN in C is cleared by beta 0 only. */
static void test_packed_nothing(lemon_ctx *ctx, const char *name) {
    static const int64_t size[3][2] = {{0, 3}, {2, 0}, {0, 0}};
    float x[6] = {1, 2, 3, 4, 5, 6}, c[4] = {1, NAN, 3, 4};
    lemon_packed *packed;
    int i, ok = 1;
    for (i = 0; i < 3; i++) {
        const int64_t n = size[i][0], k = size[i][1];
        ok &= lemon_sgemm_pack(ctx, 0, n, k, NULL, n, &packed) == LEMON_OK && packed != NULL;
        ok &= lemon_sgemm_packed(ctx, 0, 2, 1, x, 3, packed, 2, c, 2) == LEMON_OK;
        lemon_packed_free(ctx, packed);
    }
    ok &= c[0] == 2 && isnan(c[1]) && c[2] == 6 && c[3] == 8;       /* k 0 once, n 0 twice */
    ok &= lemon_sgemm_pack(ctx, 0, 2, 3, x, 2, &packed) == LEMON_OK;
    ok &= lemon_sgemm_packed(ctx, 0, 0, 1, NULL, 3, packed, 0, NULL, 2) == LEMON_OK && c[0] == 2;
    ok &= lemon_sgemm_packed(ctx, 0, 2, 0, NULL, 3, packed, 0, c, 2) == LEMON_OK && c[0] == 0 && c[1] == 0;
    lemon_packed_free(ctx, packed);
    check(ok, name);
}

static void test_packed_arguments(lemon_ctx *ctx, const char *name) {
    float x[64] = {0};
    lemon_packed *packed = NULL, *none = (lemon_packed *)(void *)x;
    int ok = refused(ctx, lemon_sgemm_pack(ctx, 0, 2, 3, x, 2, NULL), "packed is NULL");
    ok &= refused(ctx, lemon_sgemm_pack(ctx, 0, -2, 3, x, 2, &none), "n is -2") && none == NULL;
    ok &= refused(ctx, lemon_sgemm_pack(ctx, 0, 2, -3, x, 2, &none), "k is -3");
    ok &= refused(ctx, lemon_sgemm_pack(ctx, 0, 2, 3, x, 1, &none), "ldb is 1, expected at least 2");
    ok &= refused(ctx, lemon_sgemm_pack(ctx, 1, 2, 3, x, 2, &none), "ldb is 2, expected at least 3");
    ok &= refused(ctx, lemon_sgemm_pack(ctx, 0, 2, 3, NULL, 2, &none), "b is NULL");
    ok &= lemon_sgemm_pack(ctx, 0, 2, 3, x, 2, &packed) == LEMON_OK;
    ok &= refused(ctx, lemon_sgemm_packed(ctx, 0, 4, 1, x, 3, NULL, 0, x, 2), "B is NULL");
    ok &= refused(ctx, lemon_sgemm_packed(ctx, 0, -4, 1, x, 3, packed, 0, x, 2), "m is -4");
    ok &= refused(ctx, lemon_sgemm_packed(ctx, 0, 4, 1, x, 2, packed, 0, x, 2), "lda is 2, expected at least 3");
    ok &= refused(ctx, lemon_sgemm_packed(ctx, 1, 4, 1, x, 3, packed, 0, x, 2), "lda is 3, expected at least 4");
    ok &= refused(ctx, lemon_sgemm_packed(ctx, 0, 4, 1, x, 3, packed, 0, x, 1), "ldc is 1, expected at least 2");
    ok &= refused(ctx, lemon_sgemm_packed(ctx, 0, 4, 1, NULL, 3, packed, 0, x, 2), "a is NULL");
    ok &= refused(ctx, lemon_sgemm_packed(ctx, 0, 4, 1, x, 3, packed, 0, NULL, 2), "c is NULL");
    lemon_packed_free(ctx, packed);
    check(ok, name);
}

/* Sizes that no address space or no memory holds are refused before anything is computed from them. */
static void test_packed_huge(void) {
    float x[4] = {0};
    const int64_t most = PTRDIFF_MAX / (int64_t)sizeof *x;
    lemon_packed *packed;
    int ok = lemon_sgemm_pack(NULL, 0, INT64_MAX, 1, x, INT64_MAX, &packed) == LEMON_E_ARG && !packed;
    ok &= lemon_sgemm_pack(NULL, 1, 1, INT64_MAX, x, INT64_MAX, &packed) == LEMON_E_ARG && !packed;
    ok &= lemon_sgemm_pack(NULL, 0, INT64_MAX / 16, INT64_MAX / 16, x, INT64_MAX, &packed) == LEMON_E_ARG && !packed;
    check(ok, "packing a matrix that cannot be");
    ok = lemon_sgemm_pack(NULL, 0, most, 1, x, most, &packed) == LEMON_E_MEMORY && !packed;
    ok &= lemon_sgemm_pack(NULL, 1, 1, most, x, most, &packed) == LEMON_E_MEMORY && !packed;
    ok &= lemon_sgemm_pack(NULL, 1, 2, most / 4, x, most / 4, &packed) == LEMON_E_MEMORY && !packed;
    check(ok, "packing more than memory holds");
}

static void test_packed_isa(lemon_isa isa) {
    lemon_ctx *ours = open_with(isa, 1), *plain = open_with(LEMON_ISA_SCALAR, 1);
    float x[16] = {0};
    lemon_packed *packed;
    char name[64], what[64];
    int ok = lemon_sgemm_pack(ours, 0, 2, 3, x, 2, &packed) == LEMON_OK;
    snprintf(name, sizeof name, "B packed for %s is refused by scalar", lemon_isa_name(isa));
    snprintf(what, sizeof what, "B is %s, expected one packed for scalar", lemon_isa_name(isa));
    ok &= refused(plain, lemon_sgemm_packed(plain, 0, 4, 1, x, 3, packed, 0, x, 2), what);
    lemon_packed_free(ours, packed);
    lemon_close(plain);
    lemon_close(ours);
    check(ok, name);
}

/* Whatever allocation fails, of packing and of the product, the call says so and C is as it was. */
static void test_packed_memory(void) {
    static float a[150 * 150], c[150 * 150];
    lemon_ctx *ctx = open_with(LEMON_ISA_AUTO, 3);
    lemon_packed *packed;
    int i, ok = 1;
    c[0] = 7;
    for (i = 0; i < 2; i++) {                           /* the struct, and its numbers */
        calls_left = i;
        ok &= lemon_sgemm_pack(ctx, 0, 150, 150, a, 150, &packed) == LEMON_E_MEMORY && packed == NULL;
        ok &= lemon_sgemm_pack(NULL, 0, 150, 150, a, 150, &packed) == LEMON_E_MEMORY && packed == NULL;
    }
    calls_left = -1;
    ok &= lemon_sgemm_pack(ctx, 0, 150, 150, a, 150, &packed) == LEMON_OK;
    for (i = 0; i <= lemon_ctx_threads(ctx); i++) {     /* the list of workspaces, and one for each thread */
        calls_left = i;
        ok &= lemon_sgemm_packed(ctx, 0, 150, 1, a, 150, packed, 0, c, 150) == LEMON_E_MEMORY && c[0] == 7;
    }
    calls_left = -1;
    ok &= lemon_sgemm_packed(ctx, 0, 150, 1, a, 150, packed, 0, c, 150) == LEMON_OK && c[0] == 0;
    lemon_packed_free(ctx, packed);
    lemon_close(ctx);
    check(ok, "no memory for a packed B");
}

static void test_packed(lemon_isa isa) {
    static const char *const about[] = {"no context", "one thread", "3 threads"};
    char name[80];
    int i;
    for (i = 0; i < 3; i++) {
        lemon_ctx *ctx = i == 0 ? NULL : open_with(isa, i == 1 ? 1 : 3);
#define PACKED(what) (snprintf(name, sizeof name, "%s, packed B, %s: %s", lemon_isa_name(isa), about[i], what), name)
        if (i == 0 && isa != lemon_ctx_isa(NULL)) continue;
        pack_first = 1;
        if (i < 2) test_small(ctx, PACKED("sizes 1 to 40"));
        test_blocks(ctx, PACKED("sizes about the blocks"));
        test_poison(ctx, PACKED("NaN and Inf"));
        pack_first = 0;
        test_packed_alone(ctx, PACKED("B may go"));
        test_packed_nothing(ctx, PACKED("nothing to do"));
        test_packed_arguments(ctx, PACKED("arguments"));
        lemon_close(ctx);
    }
    pack_first = 1;
    snprintf(name, sizeof name, "%s, packed B: the same bits from 1, 2 and 3 threads", lemon_isa_name(isa));
    test_bits(isa, name);
    pack_first = 0;
    if (isa != LEMON_ISA_SCALAR) test_packed_isa(isa);
}

/* ---- weights as they are stored ---- */

/* A stored matrix between guard pages, and what it decodes to. */
typedef struct stored {
    lemon_tensor w;
    guarded memory;
    float *decoded;
} stored;

static stored make_stored(lemon_dtype type, int64_t n, int64_t k, int at_end) {
    stored s;
    int64_t j;
    s.w.dtype = type;
    s.w.rows = n;
    s.w.cols = k;
    s.memory = guard_bytes(lemon_tensor_bytes(&s.w), at_end);
    s.w.data = s.memory.data;
    s.decoded = (float *)malloc((size_t)(n * k) * sizeof(float));
    fill(s.decoded, n * k);
    for (j = 0; j < n; j++) {
        lemon_row_from_f32(&s.w, j, s.decoded + j * k);
        lemon_row_to_f32(&s.w, j, s.decoded + j * k);
    }
    return s;
}

static void drop_stored(stored s) {
    unguard(s.memory);
    free(s.decoded);
}

/* y = x * W^T is within rounding of the exact product with the decoded weights, and so of decoding first. */
static int try_stored(lemon_ctx *ctx, lemon_dtype type, int64_t m, int64_t n, int64_t k, int at_end) {
    const product p = shape(0, 1, m, n, k, 0);
    stored s = make_stored(type, n, k, at_end);
    guarded x = guard(m * k, at_end), y = guard(m * n, at_end);
    float *first = (float *)malloc((size_t)(m * n) * sizeof(float));
    const int native = ctx->isa != LEMON_ISA_SCALAR && (type == LEMON_BF16 || type == LEMON_Q8);
    int ok;
    fill(x.data, m * k);
    memset(y.data, 255, (size_t)(m * n) * sizeof(float));
    ok = native ? lemon__gemm_stored(ctx, m, x.data, &s.w, y.data) : 1;
    if (!native) lemon__weight_product(ctx, m, x.data, &s.w, y.data);
    ok &= is_product(&p, x.data, s.decoded, y.data, y.data) && run(ctx, &p, x.data, s.decoded, first) == LEMON_OK;
    ok &= is_product(&p, x.data, s.decoded, first, first);
    if (!ok) detail("%s  m %d n %d k %d  end %d", lemon_dtype_name(type), (int)m, (int)n, (int)k, at_end);
    free(first);
    unguard(x);
    unguard(y);
    drop_stored(s);
    return ok;
}

/* Rows 1 to 8, columns 1 to 20, and steps that fill no block of 32 nor any vector. */
static void test_stored(lemon_isa isa, lemon_dtype type) {
    static const int64_t steps[] = {1, 7, 16, 31, 32, 33, 40, 63, 64, 95, 129, 300};
    lemon_ctx *ctx = open_with(isa, 1);
    char name[80];
    int64_t m, n;
    size_t i;
    int ok = lemon__workspaces(ctx) == LEMON_OK;
    for (m = 1; m <= 8; m++)
        for (n = 1; n <= 20; n += light() ? 3 : 1)
            for (i = 0; i < sizeof steps / sizeof steps[0]; i++)
                ok &= try_stored(ctx, type, m, n, steps[i], (int)(n + (int64_t)i) & 1);
    ok &= try_stored(ctx, type, 1, 700, 1030, 1) && try_stored(ctx, type, 8, 300, 2049, 1);
    snprintf(name, sizeof name, "%s: few rows times %s weights as stored", lemon_isa_name(isa), lemon_dtype_name(type));
    check(ok, name);
    lemon_close(ctx);
}

static void test_stored_bits(lemon_isa isa, lemon_dtype type) {
    enum { N = 701, K = 490, ROWS = 8 };
    static float x[ROWS * K], y[3][ROWS * N];
    stored s = make_stored(type, N, K, 1);
    char name[80];
    int64_t m;
    int i, ok = 1;
    fill(x, ROWS * K);
    for (m = 1; m <= ROWS; m++)
        for (i = 0; i < 3; i++) {
            lemon_ctx *ctx = open_with(isa, i + 1);
            memset(y[i], 255, sizeof y[i]);
            ok &= lemon__workspaces(ctx) == LEMON_OK;
            lemon__weight_product(ctx, m, x, &s.w, y[i]);
            ok &= memcmp(y[0], y[i], sizeof y[i]) == 0;
            lemon_close(ctx);
        }
    snprintf(name, sizeof name, "%s, %s weights: the same bits from 1, 2 and 3 threads", lemon_isa_name(isa),
             lemon_dtype_name(type));
    check(ok, name);
    drop_stored(s);
}

/* The public way there: a weight on a tape. */
static void test_stored_tape(lemon_isa isa, lemon_dtype type) {
    enum { M = 3, N = 50, K = 77 };
    static float x[M * K];
    const product p = shape(0, 1, M, N, K, 0);
    lemon_ctx *ctx = open_with(isa, 2);
    stored s = make_stored(type, N, K, 1);
    lemon_tape *tape = NULL;
    const float *y = NULL;
    lemon_var out;
    char name[80];
    int ok;
    fill(x, M * K);
    ok = lemon_tape_open(ctx, &tape) == LEMON_OK;
    out = lemon_tape_matmul(tape, lemon_tape_leaf(tape, x, NULL, M, K), 0, lemon_tape_weight(tape, &s.w), 1);
    lemon_tape_keep(tape, out);
    ok = ok && lemon_tape_plan(tape, 0, NULL) == LEMON_OK && lemon_tape_forward(tape) == LEMON_OK;
    if (ok) y = lemon_tape_value(tape, out);
    snprintf(name, sizeof name, "%s: a %s weight on a tape", lemon_isa_name(isa), lemon_dtype_name(type));
    check(y && is_product(&p, x, s.decoded, y, y), name);
    lemon_tape_close(tape);
    lemon_close(ctx);
    drop_stored(s);
}

/* ---- plain C, beside the loop that everybody writes first ---- */

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void naive(int64_t n, const float *a, const float *b, float *c) {
    int64_t i, j, p;
    for (i = 0; i < n; i++)
        for (j = 0; j < n; j++) {
            float sum = 0;
            for (p = 0; p < n; p++) sum += a[i * n + p] * b[p * n + j];
            c[i * n + j] = sum;
        }
}

static void test_scalar_speed(void) {
    enum { N = 256, TRIES = 20 };
    static float a[N * N], b[N * N], c[N * N];
    const char *name = "scalar kernels are 4 times as fast as the naive loop at 256^3";
    volatile int64_t n = N;                     /* a loop made for this one size would be another loop */
    lemon_ctx *ctx;
    double slow = 1e30, fast = 1e30;
    int i, j;
    if (light()) { skip(name); return; }
    ctx = open_with(LEMON_ISA_SCALAR, 1);
    fill(a, N * N);
    fill(b, N * N);
    for (i = 0; i < TRIES && (i < 5 || slow < 4 * fast); i++) {
        double t = seconds();
        naive(n, a, b, c);
        slow = fmin(slow, seconds() - t);
        for (j = 0; j < 4; j++) {
            t = seconds();
            lemon_sgemm(ctx, 0, 0, n, n, n, 1, a, n, b, n, 0, c, n);
            fast = fmin(fast, seconds() - t);
        }
    }
    detail("%.2f ms, naive %.2f ms: %.1f times", 1e3 * fast, 1e3 * slow, slow / fast);
    printf("#    %.1f times\n", slow / fast);
    check(slow >= 4 * fast, name);
    lemon_close(ctx);
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

static void test_stored_types(lemon_isa isa) {
    static const lemon_dtype types[] = {LEMON_BF16, LEMON_Q8, LEMON_F16, LEMON_Q4};
    int i;
    for (i = 0; i < 4; i++) {
        test_stored(isa, types[i]);
        test_stored_bits(isa, types[i]);
        test_stored_tape(isa, types[i]);
    }
}

/* An ISA by name in LEMON_ISA is the only one that is tested; one that the CPU lacks is told. */
static void test_isas(int only) {
    int isa;
    for (isa = LEMON_ISA_SCALAR; isa <= LEMON_ISA_WASM; isa++) {
        char name[64];
        snprintf(name, sizeof name, "%s kernels: this CPU has none", lemon_isa_name((lemon_isa)isa));
        if (getenv("LEMON_ISA") && isa != only) continue;
        if (!lemon_isa_supported((lemon_isa)isa)) { skip(name); continue; }
        if (light() > 1) {                              /* threads only, of one ISA */
            if (isa == only) test_bits((lemon_isa)isa, "the same bits from 1, 2 and 3 threads");
            if (isa == only) test_stored_bits((lemon_isa)isa, LEMON_BF16);
            continue;
        }
        test_isa((lemon_isa)isa);
        test_packed((lemon_isa)isa);
        test_stored_types((lemon_isa)isa);
    }
}

int main(void) {
    test_isas((int)lemon_ctx_isa(NULL));            /* LEMON_ISA of the environment, else the best */
    if (light() > 1) return check_done();
    test_packed_memory();
    test_packed_huge();
    test_scalar_speed();
    test_alone();
    test_memory();
    return check_done();
}
