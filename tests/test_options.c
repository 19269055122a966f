/*  What must hold with any of the compile-time options: the same tokens come out, what was left out is refused by name, and
    what stayed works.  options.sh compiles this once for each set of options, matrix.sh once for each compiler and machine;
    it needs nothing but the C library and the shipped teacher. */

#ifdef TEST_HEAP
#include <stdlib.h>
static long test_live, test_calls;
static void *test_malloc(size_t n) { test_live++; test_calls++; return malloc(n); }
static void test_free(void *p) { test_live -= p != NULL; free(p); }
#define LEMON_MALLOC(bytes) test_malloc(bytes)
#define LEMON_FREE(p) test_free(p)
#endif
#ifdef TEST_ASSERT
static long test_asserted, test_broken;
#define LEMON_ASSERT(x) (test_asserted++, test_broken += !(x))
#endif
#ifdef TEST_CLOCK
static double test_now;
#define LEMON_SECONDS() (test_now += 1.0)
#endif
#ifdef TEST_NO_ATOMICS
#undef __GCC_ATOMIC_LLONG_LOCK_FREE
#endif

#include "check.h"

/* ---- memory in place of files ---- */

typedef struct memory { uint8_t *bytes; size_t n, room; int committed, refuse; } memory;

static lemon_status memory_append(void *user, const void *bytes, size_t count) {
    memory *m = (memory *)user;
    if (m->refuse) return LEMON_E_IO;
    if (m->n + count > m->room) {
        m->room = 2 * (m->n + count);
        m->bytes = (uint8_t *)realloc(m->bytes, m->room);
    }
    memcpy(m->bytes + m->n, bytes, count);
    m->n += count;
    return LEMON_OK;
}
static lemon_status memory_commit(void *user) { ((memory *)user)->committed = 1; return LEMON_OK; }
static void memory_abort(void *user) { ((memory *)user)->committed = -1; }

static lemon_status memory_read(void *user, uint64_t offset, void *buffer, size_t bytes) {
    memcpy(buffer, ((memory *)user)->bytes + offset, bytes);
    return LEMON_OK;
}

static lemon_reader reader_of(memory *m, int mapped) {
    lemon_reader r;
    memset(&r, 0, sizeof r);
    r.user = m;
    r.name = "memory";
    r.size = m->n;
    r.map = mapped ? m->bytes : NULL;
    r.read = memory_read;
    return r;
}

static lemon_writer writer_of(memory *m) {
    lemon_writer w;
    memset(m, 0, sizeof *m);
    memset(&w, 0, sizeof w);
    w.user = m;
    w.name = "memory";
    w.append = memory_append;
    w.commit = memory_commit;
    w.abort = memory_abort;
    return w;
}

/* ---- the teacher's greedy text; scores on the way are at least 0.0008 apart ---- */

static const char prompt[] = "Once upon a time there was a dog";
static const int32_t prompt_ids[] = {1, 259, 552, 783, 318, 746, 430, 346, 318, 1018};
static const int32_t text_ids[] = {533, 624, 271, 455, 397, 432, 320, 716, 400, 523, 330, 368, 318, 472, 572, 443,
                                   765, 271, 700, 656, 429, 346, 634, 281, 318, 446, 588, 537, 441, 368, 318, 492,
                                   549, 443, 765, 271, 286, 433, 795, 497, 281, 624, 330, 634, 590, 393, 320, 720};
enum { PROMPT = 10, TEXT = 48 };

static int32_t largest(const float *x, int32_t n) {
    int32_t best = 0, i;
    for (i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/*  How many of the ids come out one after the other. */
static int greedy(lemon_ctx *ctx, const lemon_model *m, const lemon_session_options *options, int n) {
    lemon_session *s = NULL;
    float *scores = NULL;
    int i = 0;
    lemon_status status = lemon_session_open_with(ctx, m, options, &s);
    if (!status) status = lemon_session_feed(s, prompt_ids, PROMPT, &scores);
    for (; !status && i < n; i++) {
        if (largest(scores, m->config.vocab_size) != text_ids[i]) break;
        if (i + 1 < n) status = lemon_session_feed(s, &text_ids[i], 1, &scores);
    }
    detail("%s, %d of %d tokens agree", lemon_error(ctx), i, n);
    lemon_session_close(s);
    return i;
}

static void test_generation(lemon_ctx *ctx, const lemon_model *m) {
    lemon_session_options o;
    lemon_sampling sampling = {0.0f, 0, 1.0f, 0.0f, 1, NULL, 0};
    lemon_tokens ids = {NULL, 0, 0};
    lemon_status status;
    const char *text;
    size_t n;
    int i, same;
    lemon_session_defaults(&o);
    check(greedy(ctx, m, &o, TEXT) == TEXT, "the teacher's greedy text, token for token");
    o.max_seq = PROMPT + TEXT;
    o.prefill = 4;
    o.cache = LEMON_F16;
    check(greedy(ctx, m, &o, TEXT) == TEXT, "the same in a small session with an f16 cache");
    status = lemon_generate(ctx, m, prompt, TEXT, &sampling, NULL, NULL, &ids, NULL);
#ifdef LEMON_NO_BPE
    check(fails_with(ctx, status, LEMON_E_UNSUPPORTED, "LEMON_NO_BPE"), "a prompt is refused by name");
    check(lemon_encode_special(ctx, m->tokenizer, "a", 1, &ids) == LEMON_E_UNSUPPORTED, "and so is any text");
#else
    for (i = 0, same = ids.count == PROMPT + TEXT; same && i < PROMPT + TEXT; i++)
        same = ids.ids[i] == (i < PROMPT ? prompt_ids[i] : text_ids[i - PROMPT]);
    detail("%s", lemon_error(ctx));
    check(status == LEMON_OK && same, "the same from a prompt in letters");
#endif
    same = lemon_decode(ctx, m->tokenizer, 1018, text_ids[0], &text, &n) == LEMON_OK && n == 7;
    check(same && memcmp(text, " called", 7) == 0, "ids become text");
    ids.count = 0;
    sampling.temperature = 1.0f;
    status = lemon_generate(ctx, m, "", 20, &sampling, NULL, NULL, &ids, NULL);
    for (i = 1, same = 0; i < ids.count; i++) same += ids.ids[i] >= 0 && ids.ids[i] < m->config.vocab_size;
    check(fine(ctx, status) && same == 20, "sampling without a prompt");
    lemon_tokens_free(ctx, &ids);
}

/* ---- checkpoints ---- */

static void test_memory(lemon_ctx *ctx, const lemon_model *m) {
    static const lemon_dtype types[] = {LEMON_F32, LEMON_BF16, LEMON_F16, LEMON_Q8, LEMON_Q4};
    static const int least[] = {TEXT, 20, TEXT, 2, 0};      /* tokens that the storage type leaves as they were */
    lemon_session_options o;
    int i, most = rounds_of(TEXT);
    lemon_session_defaults(&o);
    for (i = 0; i < 5; i++) {
        memory out;
        lemon_writer w = writer_of(&out);
        lemon_reader r;
        lemon_model *back = NULL;
        int agree = -1;
        lemon_status status = lemon_save_writer(ctx, &w, m, types[i]);
        r = reader_of(&out, i & 1);
        if (!status) status = lemon_load_reader(ctx, &r, &back);
        if (!status) agree = greedy(ctx, back, &o, most);
        check(status == LEMON_OK && out.committed == 1 && agree >= lemon__min(least[i], most), lemon_dtype_name(types[i]));
        lemon_model_free(ctx, back);
        if (i == 0) {
            out.bytes[out.n / 2] ^= 4;
            r = reader_of(&out, 1);
            check(lemon_load_reader(ctx, &r, &back) == LEMON_E_FORMAT && back == NULL, "a flipped bit is seen");
            out.refuse = 1;
            check(lemon_save_writer(ctx, &w, m, LEMON_F32) == LEMON_E_IO && out.committed == -1, "a writer that fails");
        }
        free(out.bytes);
    }
}

static void test_formats(lemon_ctx *ctx, const lemon_model *m) {
    static uint8_t other[64] = {'G', 'G', 'U', 'F', 3};
    memory in = {other, sizeof other, 0, 0, 0};
    lemon_reader r = reader_of(&in, 1);
    lemon_model *none = NULL;
    lemon_tokenizer *tokenizer = NULL;
    lemon_status status = lemon_load_reader(ctx, &r, &none);
#ifdef LEMON_NO_FORMATS
    check(fails_with(ctx, status, LEMON_E_UNSUPPORTED, "LEMON_NO_FORMATS"), "another format is refused by name");
    status = lemon_tokenizer_load_reader(ctx, &r, 512, &tokenizer);
    check(fails_with(ctx, status, LEMON_E_UNSUPPORTED, "LEMON_NO_FORMATS") && !tokenizer, "so is a tokenizer's file");
    status = lemon_save(ctx, scratch("x.gguf"), m, LEMON_F32);
    check(status == LEMON_E_UNSUPPORTED && !exists(scratch("x.gguf")), "and writing one");
#else
    check(status != LEMON_OK && strstr(lemon_error(ctx), "memory: ") && none == NULL, "a damaged GGUF file is refused");
    status = lemon_tokenizer_load_reader(ctx, &r, 512, &tokenizer);
    check(status == LEMON_E_FORMAT && !tokenizer, "so is a damaged tokenizer.bin");
    (void)m;
#endif
}

static void test_files(lemon_ctx *ctx, const lemon_model *m) {
    const char *path = scratch("m\xc3\xb6\x64\xe2\x82\xac\xf0\x9f\x8d\x8b.lemon");    /* two, three and four bytes of UTF-8 */
    lemon_model *back = NULL;
    lemon_status status = lemon_save(ctx, path, m, LEMON_Q8);
#ifdef LEMON_NO_STDIO
    check(fails_with(ctx, status, LEMON_E_UNSUPPORTED, "LEMON_NO_STDIO"), "a file is refused by name");
    status = lemon_load(ctx, path, &back);
    check(fails_with(ctx, status, LEMON_E_UNSUPPORTED, "LEMON_NO_STDIO") && back == NULL, "so is one to be read");
#else
    if (!status) status = lemon_save(ctx, path, m, LEMON_F32);
    check(fine(ctx, status), "a file of a name in UTF-8 is written, and replaced");
    status = lemon_load(ctx, path, &back);
    check(fine(ctx, status) && back->dtype == LEMON_F32, "and read");
    lemon_model_free(ctx, back);
    lemon__file_remove(path);
    status = lemon_load(ctx, path, &back);
    check(fails_with(ctx, status, LEMON_E_IO, path) && back == NULL, "when it is gone its name is told");
#endif
}

/* ---- products and texts ---- */

static void test_products(lemon_ctx *ctx) {
    enum { M = 7, N = 19, K = 33 };
    float a[M * K], b[K * N], c[M * N];
    int ta, tb, i, j, p, packed;
    double worst = 0.0;
    for (i = 0; i < M * K; i++) a[i] = (float)((i * 37) % 41 - 20) / 16;
    for (i = 0; i < K * N; i++) b[i] = (float)((i * 29) % 43 - 21) / 16;
    for (ta = 0; ta < 2; ta++)
        for (tb = 0; tb < 2; tb++)
            for (packed = 0; packed < 2; packed++) {
                lemon_packed *v = NULL;
                lemon_status status;
                for (i = 0; i < M * N; i++) c[i] = 1.0f;
                if (packed) {
                    status = lemon_sgemm_pack(ctx, tb, N, K, b, tb ? K : N, &v);
                    if (!status) status = lemon_sgemm_packed(ctx, ta, M, 2.0f, a, ta ? M : K, v, 0.5f, c, N);
                } else status = lemon_sgemm(ctx, ta, tb, M, N, K, 2.0f, a, ta ? M : K, b, tb ? K : N, 0.5f, c, N);
                lemon_packed_free(ctx, v);
                if (status) worst = 1e9;
                for (i = 0; i < M; i++)
                    for (j = 0; j < N; j++) {
                        double sum = 0.0;
                        for (p = 0; p < K; p++)
                            sum += (double)a[ta ? p * M + i : i * K + p] * (double)b[tb ? j * K + p : p * N + j];
                        worst = fmax(worst, fabs(2.0 * sum + 0.5 - (double)c[i * N + j]));
                    }
            }
    detail("off by %g", worst);
    check(worst < 1e-3, "products of all transposes, packed and not");
}

/*  With int8 and without, as far as this build has it; test_kernels.c has the exact figures. */
static void test_bytes(lemon_ctx *ctx) {
    enum { N = 5, K = 70 };
    float x[K], row[K], y[N], exact[N];
    uint8_t data[N * 3 * 34];
    lemon_tensor w;
    int i, j, int8;
    w.data = data, w.rows = N, w.cols = K;
    for (j = 0; j < K; j++) x[j] = (float)((j * 29) % 43 - 21) / 16;
    for (w.dtype = LEMON_Q8;; w.dtype = LEMON_Q4) {
        for (i = 0; i < N; i++) {
            for (j = 0; j < K; j++) row[j] = (float)((i * K + j) * 37 % 41 - 20) / 16;
            lemon_row_from_f32(&w, i, row);
            lemon_row_to_f32(&w, i, row);
            for (j = 0, exact[i] = 0; j < K; j++) exact[i] += row[j] * x[j];
        }
        for (int8 = 0; int8 < 2; int8++) {
            double worst = 0;
            ctx->options.int8 = int8;
            lemon__weight_product(ctx, 1, x, &w, y);
            for (i = 0; i < N; i++) worst = fmax(worst, fabs((double)y[i] - (double)exact[i]));
            detail("off by %g", worst);
            check(worst < (int8 ? 0.2 : 1e-4), int8 ? "a product of bytes, on request" : "a product with stored weights");
        }
        if (w.dtype == LEMON_Q4) break;
    }
    ctx->options.int8 = 0;
}

/*  Weights whose rows are too wide for the buffer that they are decoded into. */
static void test_wide(lemon_ctx *ctx) {
    lemon_model m;
    lemon_tensor w;
    memset(&m, 0, sizeof m);
    w.data = NULL, w.dtype = LEMON_Q8, w.rows = 1, w.cols = 65536;
    m.params = &w, m.n_params = 1;
    check((lemon__rows_fit(ctx, &m) == LEMON_E_UNSUPPORTED) == LEMON__SMALL, "rows that a small build cannot decode are refused");
}

LEMON__PRINTF(2, 3)
static void same_text(const char *want, const char *format, ...) {
    char text[64];
    va_list args;
    int n;
    va_start(args, format);
    n = lemon__vformat(text, sizeof text, format, args);
    va_end(args);
    detail("\"%s\"", text);
    check(strcmp(text, want) == 0 && n == (int)strlen(want), want);
}

/*  What vsnprintf of a hosted C library makes of the same (C99 7.19.6.1), but for more than 15 digits. */
static void test_texts(void) {
    char small[8];
    same_text("-9223372036854775808 18446744073709551615", "%lld %llu", (long long)INT64_MIN, (unsigned long long)UINT64_MAX);
    same_text("-2147483648 4294967295 007 7", "%d %u %03d %ld", (int)INT32_MIN, (unsigned)UINT32_MAX, 7, 7L);
    same_text("   42|ff|0A|100%", "%5d|%x|%02X|100%%", 42, 255u, 10u);
    same_text("abc|ab|ab|x||", "%s|%.2s|%.*s|%c|%s|", "abc", "abc", 2, "abc", 'x', "");
    same_text("0 1 -1.5 0.1 1e-05 0.0001", "%g %g %g %g %g %g", 0.0, 1.0, -1.5, 0.1, 1e-5, 1e-4);
    same_text("100000 1e+06 123457 1.23457e+06 1e+300", "%g %g %g %g %g", 1e5, 1e6, 123456.7, 1234567.0, 1e300);
    same_text("0.333333333 1e+01 10 3e-320 1e-250", "%.9g %.1g %.2g %.1g %.3g", 1.0 / 3.0, 9.96, 9.96, 3e-320, 1e-250);
    same_text("500000 4294967295 0.100000000000000", "%.9g %.19g 0.%015llu", 5e5, 4294967295.0, 100000000000000ull);
    same_text("nan inf -inf", "%g %g %g", (double)NAN, (double)INFINITY, -(double)INFINITY);
    check(lemon__format(small, sizeof small, "%s", "0123456789") == 10 && strcmp(small, "0123456") == 0,
          "a text that is too long is cut, and its length told");
}

/* ---- the parts ---- */

static void test_parts(lemon_ctx *ctx, const lemon_model *m) {
    lemon_config c = m->config;
    lemon_model *student = NULL;
    lemon_tokens ids = {NULL, 0, 0};
    lemon_session_options session;
    lemon_options o;
    lemon_ctx *other;
    int i;
    memset(&o, 0, sizeof o);
    o.threads = 3;
    other = lemon_open(&o);
    i = lemon_ctx_threads(other);
    detail("%d", i);
    check(other != NULL && i == (LEMON__THREADS ? 3 : 1), LEMON__THREADS ? "three threads" : "one thread");
#ifdef LEMON_NO_THREADS
    check(i == 1, "no threads with LEMON_NO_THREADS");
#endif
#ifdef TEST_NO_ATOMICS
    check(i == 1, "no threads where there are no 64-bit atomics");
#endif
#ifdef LEMON_NO_SIMD
    check(lemon_ctx_isa(other) == LEMON_ISA_SCALAR && !lemon_isa_supported(LEMON_ISA_AVX2) &&
              !lemon_isa_supported(LEMON_ISA_NEON), "plain C with LEMON_NO_SIMD");
#endif
    lemon_session_defaults(&session);
    check(greedy(other, m, &session, 8) == 8, "that context generates too");
    lemon_close(other);
    for (i = 0; i < 600; i++) lemon_tokens_push(ctx, &ids, i % 64 == 0 ? 1 : 259 + i * i % 700);
    c.d_model = 32; c.n_layers = 2; c.n_heads = 2; c.kv_heads = 1; c.head_dim = m->config.head_dim; c.d_ffn = 48;
#ifndef LEMON_NO_TRAIN
#ifndef LEMON_NO_FUSE
    {
        lemon_fuse_options f;
        lemon_fuse_result result;
        lemon_fuse_defaults(&f);
        memset(&result, 0, sizeof result);
        f.tokens = rounds_of(512);
        f.seq = 64;
        check(fine(ctx, lemon_fuse(ctx, m, &c, &ids, &f, &student, &result)) && result.init_loss < 30.0, "fusion");
    }
#else
    lemon_model_create(ctx, &c, &student);
    lemon_model_init(ctx, student, 1);
#endif
    {
        lemon_train_options t;
        lemon_train_result result;
        lemon_train_defaults(&t);
        memset(&result, 0, sizeof result);
        t.steps = 3; t.batch = 2; t.seq = 32; t.lr = 3e-3;
        check(fine(ctx, lemon_train(ctx, student, &ids, &t, &result)) && result.train_loss < 30.0, "training");
    }
#else
    (void)c;
#endif
    lemon_model_free(ctx, student);
    lemon_tokens_free(ctx, &ids);
}

int main(int argc, char **argv) {
    lemon_ctx *ctx = lemon_open(NULL);
    lemon_model *m = NULL;
    memory file;
    lemon_reader r;
    size_t before;
    memset(&file, 0, sizeof file);
    file.bytes = (uint8_t *)slurp(argc > 1 ? argv[1] : "../examples/data/teacher.lemon", &file.n);
    if (file.bytes == NULL || ctx == NULL) { printf("FAIL no teacher\n"); return 1; }
    lemon__workspaces(ctx);
    before = lemon_memory(ctx, NULL);
    r = reader_of(&file, 1);
    if (!check(fine(ctx, lemon_load_reader(ctx, &r, &m)), "the shipped teacher is read from memory")) return check_done();
    test_generation(ctx, m);
    test_memory(ctx, m);
    test_formats(ctx, m);
    test_files(ctx, m);
    test_products(ctx);
    test_bytes(ctx);
    test_wide(ctx);
    test_texts();
    test_parts(ctx, m);
    lemon_model_free(ctx, m);
    check(lemon_memory(ctx, NULL) == before, "nothing is left allocated");
    lemon_close(ctx);
    free(file.bytes);
#ifdef TEST_HEAP
    detail("%ld of %ld", test_live, test_calls);
    check(test_live == 0 && test_calls > 20, "LEMON_MALLOC and LEMON_FREE give and take all memory");
#endif
#ifdef TEST_ASSERT
    detail("%ld of %ld", test_broken, test_asserted);
    check(test_broken == 0 && test_asserted > 100, "LEMON_ASSERT sees the invariants hold");
#endif
#ifdef TEST_CLOCK
    check(test_now > 0.0, "LEMON_SECONDS is the clock");
#endif
    return check_done();
}
