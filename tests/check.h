/*  check.h: what all test programs share.  Each of them includes this file first, which includes the implementation of
    lemon.h, private functions and all.

    check(condition, "what is protected")   prints one line, "ok   name" or "FAIL name: detail"
    detail("format", ...)                   says more, should the next check fail
    skip("name")                            for tests whose data are not there
    return check_done();                    closes main: the counts, and the exit status                              */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define LEMON_IMPLEMENTATION
#include "../lemon.h"
#include <float.h>
#include <stdio.h>
#include <time.h>
#if LEMON__POSIX && !defined(__EMSCRIPTEN__)
#include <signal.h>
#include <sys/resource.h>
#endif

/*  Not every program uses all of this. */
#if defined(__GNUC__) || defined(__clang__)
#define CHECK_UNUSED __attribute__((unused))
#else
#define CHECK_UNUSED
#endif

static int check_passed, check_failed, check_skipped;
static char check_detail[2048];

/*  CHECK_LIGHT, for smaller loads where a full one would take minutes: 1 in `make sanitize`, 2 in `make valgrind`, which
    leaves out the real data too. */
CHECK_UNUSED static int light(void) {
#ifdef __EMSCRIPTEN__
    return 1;                                       /* which shows a program no environment */
#else
    const char *text = getenv("CHECK_LIGHT");
    return text ? (int)strtol(text, NULL, 10) : 0;
#endif
}

/*  n rounds, or a CHECK_FEWERth of them: matrix.sh asks for that where an emulator repeats what other machines do in full. */
CHECK_UNUSED static int rounds_of(int n) {
    const char *text = getenv("CHECK_FEWER");
    const long fewer = text ? strtol(text, NULL, 10) : 1;
    return fewer > 1 ? (int)(n / fewer) : n;
}

LEMON__PRINTF(1, 2)
CHECK_UNUSED static void detail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(check_detail, sizeof check_detail, format, args);
    va_end(args);
}

static void check_line(const char *result, const char *name, const char *more) {
    printf("%s %s%s%s\n", result, name, *more ? ": " : "", more);
    fflush(stdout);
    check_detail[0] = 0;
}

CHECK_UNUSED static int check(int ok, const char *name) {
    check_line(ok ? "ok  " : "FAIL", name, ok ? "" : check_detail);
    if (ok) check_passed++;
    else check_failed++;
    if (!ok && getenv("CHECK_FIRST")) exit(1);      /* of a mutant no more is asked */
    return ok;
}

CHECK_UNUSED static void skip(const char *name) {
    check_line("skip", name, "");
    check_skipped++;
}

/*  1 if a is b within `tolerance`, absolute below 1 and relative above; NaN is near nothing.  Leaves a detail. */
CHECK_UNUSED static int near_to(double a, double b, double tolerance) {
    detail("%.9g, expected %.9g within %g", a, b, tolerance);
    return fabs(a - b) <= tolerance * (fabs(b) > 1.0 ? fabs(b) : 1.0);
}

/*  1 if a call failed with this status and a message that contains the text. */
CHECK_UNUSED static int fails_with(lemon_ctx *ctx, lemon_status got, lemon_status want, const char *text) {
    detail("%s, \"%s\"; expected %s, \"...%s...\"", lemon_status_name(got), lemon_error(ctx), lemon_status_name(want),
           text);
    return got == want && strstr(lemon_error(ctx), text) != NULL;
}

/*  1 if a call succeeded; else the message becomes the detail. */
CHECK_UNUSED static int fine(lemon_ctx *ctx, lemon_status status) {
    if (status) detail("%s: %s", lemon_status_name(status), lemon_error(ctx));
    return status == LEMON_OK;
}

CHECK_UNUSED static int check_done(void) {
    printf("%d passed, %d failed, %d skipped\n", check_passed, check_failed, check_skipped);
    return check_failed != 0;
}

/* ---- an allocator that counts, and that has no more at the n-th call ---- */

typedef struct check_heap { long calls, fail_at, live; } check_heap;
static check_heap heap;

CHECK_UNUSED static void *heap_resize(void *user, void *old, size_t old_bytes, size_t new_bytes) {
    check_heap *h = (check_heap *)user;
    (void)old_bytes;
    if (new_bytes == 0) {
        free(old);
        h->live--;
        return NULL;
    }
    if (++h->calls == h->fail_at) return NULL;
    h->live++;
    return malloc(new_bytes);
}

/*  A context on that allocator; the ISA is LEMON_ISA's or the best. */
CHECK_UNUSED static lemon_ctx *open_ctx(int threads) {
    lemon_options options;
    lemon_ctx *ctx;
    memset(&options, 0, sizeof options);
    options.threads = threads;
    options.resize = heap_resize;
    options.user = &heap;
    heap.fail_at = 0;
    ctx = lemon_open(&options);
    if (ctx == NULL) {
        printf("FAIL a context opens\n");
        exit(1);
    }
    return ctx;
}

/*  How main ends where all was done in one context:  return check_close(ctx);  */
CHECK_UNUSED static int check_close(lemon_ctx *ctx) {
    lemon_close(ctx);
    detail("%ld blocks are left", heap.live);
    check(heap.live == 0, "nothing is left allocated");
    return check_done();
}

/*  Kilobytes of memory that the process really has; 0 where the system does not say. */
CHECK_UNUSED static long resident_kb(void) {
    char line[128];
    long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmRSS: %ld", &kb) == 1) break;
    if (f) fclose(f);
    return kb;
}

/* ---- numbers that are the same in every run ---- */

CHECK_UNUSED static void fill_normal(lemon_rng *rng, float *x, int64_t n, double deviation) {
    while (n-- > 0) *x++ = (float)(deviation * lemon_rng_normal(rng));
}

CHECK_UNUSED static void fill_ids(lemon_rng *rng, int32_t *ids, int64_t n, int32_t vocab) {
    while (n-- > 0) *ids++ = (int32_t)lemon_rng_below(rng, vocab);
}

/* ---- files ---- */

/*  No file may grow beyond so many bytes, as on a full disk, until it is said again with 0; 0: that cannot be had here. */
CHECK_UNUSED static int limit_files(size_t bytes) {
#if LEMON__POSIX && !defined(__EMSCRIPTEN__)
    struct rlimit limit;
    signal(SIGXFSZ, bytes ? SIG_IGN : SIG_DFL);
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0) return 0;
    limit.rlim_cur = bytes ? (rlim_t)bytes : limit.rlim_max;
    return setrlimit(RLIMIT_FSIZE, &limit) == 0;
#else
    return bytes == 0;
#endif
}

/*  The path of a file of real data in $LEMON_DATA, ../../shared/data or ../shared/data; NULL where it is not. */
CHECK_UNUSED static const char *data_path(const char *name, char *out, size_t size) {
    const char *folders[3];
    int i;
    if (light() > 1) return NULL;
    folders[0] = getenv("LEMON_DATA");
    folders[1] = "../../shared/data";
    folders[2] = "../shared/data";
    for (i = 0; i < 3; i++) {
        FILE *f;
        if (folders[i] == NULL) continue;
        snprintf(out, size, "%s/%s", folders[i], name);
        f = fopen(out, "rb");
        if (f == NULL) continue;
        fclose(f);
        return out;
    }
    return NULL;
}

/*  Seconds of the processor so far, for speeds that must hold whatever else the machine does. */
CHECK_UNUSED static double cpu_seconds(void) { return (double)clock() / CLOCKS_PER_SEC; }

/*  A file's bytes, to be freed, with a 0 behind them; NULL where it is not. */
CHECK_UNUSED static char *slurp(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    size_t room = 1 << 16, got;
    char *p;
    *n = 0;
    if (f == NULL) return NULL;
    p = (char *)malloc(room + 1);
    while ((got = fread(p + *n, 1, room - *n, f)) > 0) {
        *n += got;
        if (*n == room) p = (char *)realloc(p, (room *= 2) + 1);
    }
    p[*n] = 0;
    fclose(f);
    return p;
}

/*  A copy whose last byte is the last before a page that nobody may read: what reads behind it ends the program. */
#if LEMON__LINUX
enum { CHECK_PAGE = 65536 };                            /* no page is larger */
CHECK_UNUSED static size_t edge_room(size_t n) { return (n + CHECK_PAGE - 1) / CHECK_PAGE * CHECK_PAGE; }
CHECK_UNUSED static uint8_t *at_edge(const void *bytes, size_t n) {
    const size_t room = edge_room(n);
    void *p;
    if (posix_memalign(&p, CHECK_PAGE, room + CHECK_PAGE) != 0 || mprotect((uint8_t *)p + room, CHECK_PAGE, PROT_NONE) != 0) {
        printf("FAIL a page behind a copy\n");
        exit(1);
    }
    if (n) memcpy((uint8_t *)p + room - n, bytes, n);
    return (uint8_t *)p + room - n;
}
CHECK_UNUSED static void edge_free(uint8_t *p, size_t n) {
    mprotect(p + n, CHECK_PAGE, PROT_READ | PROT_WRITE);
    free(p + n - edge_room(n));
}
#else
CHECK_UNUSED static uint8_t *at_edge(const void *bytes, size_t n) {
    uint8_t *p = (uint8_t *)malloc(n ? n : 1);
    if (n) memcpy(p, bytes, n);
    return p;
}
CHECK_UNUSED static void edge_free(uint8_t *p, size_t n) {
    (void)n;
    free(p);
}
#endif

CHECK_UNUSED static void spill(const char *path, const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    if (f == NULL) return;
    fwrite(bytes, 1, n, f);
    fclose(f);
}

CHECK_UNUSED static int same_files(const char *a, const char *b) {
    size_t n, m;
    char *x = slurp(a, &n), *y = slurp(b, &m);
    int same = x && y && n == m && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

CHECK_UNUSED static int exists(const char *path) {
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f != NULL;
}

/*  Where test programs put files: a folder of this program's own below build/. */
CHECK_UNUSED static const char *scratch(const char *name) {
    static char paths[8][256];
    static int next;
    char *path = paths[next++ % 8];
    const char *folder = getenv("CHECK_SCRATCH");
    snprintf(path, sizeof paths[0], "%s/%s", folder ? folder : "build", name);
    return path;
}

/* ---- small models ---- */

CHECK_UNUSED static lemon_config tiny_config(int32_t d, int32_t layers, int32_t heads, int32_t kv,
                                                    int32_t head_dim, int32_t ffn, int32_t vocab, int tied) {
    lemon_config c;
    lemon_config_defaults(&c);
    c.d_model = d;
    c.n_layers = layers;
    c.n_heads = heads;
    c.kv_heads = kv;
    c.head_dim = head_dim;
    c.d_ffn = ffn;
    c.vocab_size = vocab;
    c.max_seq = 64;
    c.tied_embeddings = tied;
    return c;
}

/*  The family: what its members add to LLaMA, in numbers that matter at lengths of some dozen tokens. */
enum { FAMILIES = 10 };
static const struct family {
    const char *name;
    int32_t bias, norm, window, scaling, original;
    float factor, slow, fast, magnitude;
} families[FAMILIES] = {
    {"LLaMA", 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {"biases, as Qwen2", 1, 0, 0, 0, 0, 0, 0, 0, 0},
    {"norms of heads, as Qwen3", 0, 1, 0, 0, 0, 0, 0, 0, 0},
    {"a window, as Mistral", 0, 0, 5, 0, 0, 0, 0, 0, 0},
    {"linear RoPE", 0, 0, 0, LEMON_ROPE_LINEAR, 0, 2.5f, 0, 0, 0},
    {"LLaMA 3's RoPE", 0, 0, 0, LEMON_ROPE_LLAMA3, 32, 8.0f, 1.0f, 4.0f, 0},
    {"YaRN", 0, 0, 0, LEMON_ROPE_YARN, 24, 4.0f, 0.1f, 2.0f, 1.1386294f},
    {"biases, a window, YaRN", 1, 0, 11, LEMON_ROPE_YARN, 24, 4.0f, 1.0f, 32.0f, 0.9f},
    {"norms of heads, a window, linear RoPE", 0, 1, 39, LEMON_ROPE_LINEAR, 0, 2.5f, 0, 0, 0},
    {"biases and norms of heads", 1, 1, 0, 0, 0, 0, 0, 0, 0}};

CHECK_UNUSED static lemon_config family_config(lemon_config c, int which) {
    const struct family *f = &families[which];
    if (f->scaling) c.rope_theta = 500.0f;
    c.qkv_bias = f->bias;
    c.qk_norm = f->norm;
    c.window = f->window;
    c.rope_scaling = f->scaling;
    c.rope_original = f->original;
    c.rope_factor = f->factor;
    c.rope_slow = f->slow;
    c.rope_fast = f->fast;
    c.rope_magnitude = f->magnitude;
    return c;
}

/*  A model with weights large enough that every part of it matters, and gains that are not all 1. */
CHECK_UNUSED static lemon_model *lively_model(lemon_ctx *ctx, const lemon_config *c, uint64_t seed) {
    lemon_model *model = NULL;
    lemon_rng rng;
    int64_t i, j, layer;
    if (lemon_model_create(ctx, c, &model)) {
        printf("FAIL a model is made: %s\n", lemon_error(ctx));
        exit(1);
    }
    lemon_rng_seed(&rng, seed);
    for (i = 0; i < model->n_params; i++) {
        const lemon_role_info *info = lemon_role_get(lemon__param_role(c, i, &layer));
        float *w = (float *)model->params[i].data;
        for (j = 0; j < model->params[i].rows * model->params[i].cols; j++)
            w[j] = (float)(info->matrix ? 1.2 / sqrt((double)model->params[i].cols) * lemon_rng_normal(&rng)
                                        : (info->bias ? 0.0 : 1.0) + 0.3 * lemon_rng_normal(&rng));
    }
    return model;
}

/*  Largest difference between two models' weights; -1 where they differ in shape. */
CHECK_UNUSED static double distance(const lemon_model *a, const lemon_model *b) {
    double worst = 0;
    int64_t i, r, c;
    float *x, *y;
    if (a == NULL || b == NULL || memcmp(&a->config, &b->config, sizeof a->config) != 0 || a->n_params != b->n_params)
        return -1;
    x = (float *)malloc(65536 * sizeof *x);
    y = (float *)malloc(65536 * sizeof *y);
    for (i = 0; i < a->n_params; i++)
        for (r = 0; r < a->params[i].rows; r++) {
            lemon_row_to_f32(&a->params[i], r, x);
            lemon_row_to_f32(&b->params[i], r, y);
            for (c = 0; c < a->params[i].cols; c++)
                if (!(fabs((double)(x[c] - y[c])) <= worst)) worst = fabs((double)(x[c] - y[c]));
        }
    free(x);
    free(y);
    return worst;
}

#endif
