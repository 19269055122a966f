/*  Chapter 10: sessions, sampling against a naive implementation, greedy text against the ids of shared/data. */
#include "reference.h"

/* ---- sessions ---- */

static void test_context(lemon_ctx *ctx) {
    lemon_config c = tiny_config(8, 2, 4, 2, 6, 10, 13, 1);
    lemon_model *m;
    lemon_session *s = NULL;
    int32_t ids[20] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 1, 2, 3, 4, 5, 6, 7}, wrong[2] = {1, 13};
    float *logits = NULL, first[13], again[13];
    c.max_seq = 16;
    m = lively_model(ctx, &c, 4);
    lemon_session_open(ctx, m, &s);
    check(fails_with(ctx, lemon_session_feed(s, ids, 17, &logits), LEMON_E_ARG, "n is 17, expected 1 to 16") &&
              lemon_session_length(s) == 0,
          "more than the context holds is refused");
    check(fails_with(ctx, lemon_session_feed(s, wrong, 2, &logits), LEMON_E_ARG, "token 1 is 13") &&
              lemon_session_length(s) == 0,
          "an id beyond the vocabulary is refused");
    check(lemon_session_feed(s, ids, 0, &logits) == LEMON_E_ARG &&
              lemon_session_feed(s, NULL, 1, &logits) == LEMON_E_ARG,
          "no tokens are refused");
    check(fine(ctx, lemon_session_feed(s, ids, 16, &logits)) && lemon_session_length(s) == 16,
          "the context can be filled to the last token");
    memcpy(first, logits, sizeof first);
    check(lemon_session_feed(s, ids, 1, NULL) == LEMON_E_ARG, "then it is full");
    check(lemon_session_rewind(s, 17) == LEMON_E_ARG && lemon_session_rewind(s, -1) == LEMON_E_ARG,
          "a rewind goes back only");
    check(lemon_session_rewind(s, 9) == LEMON_OK && lemon_session_length(s) == 9, "it can be rewound");
    lemon_session_feed(s, ids + 5, 7, NULL);
    lemon_session_rewind(s, 9);
    lemon_session_feed(s, ids + 9, 7, &logits);
    memcpy(again, logits, sizeof again);
    check(memcmp(first, again, sizeof first) == 0, "after a rewind the same tokens give the same bits");
    lemon_session_close(s);
    lemon_session_close(NULL);
    check(lemon_session_length(NULL) == 0 && lemon_session_feed(NULL, ids, 1, NULL) == LEMON_E_ARG,
          "no session is no crash");
    lemon_model_free(ctx, m);
}

/*  The model as a file of another type brings it back; NULL: it does not. */
static lemon_model *as_stored(lemon_ctx *ctx, const lemon_model *m, lemon_dtype dtype) {
    lemon_model *stored = NULL;
    lemon_save(ctx, scratch("stored.lemon"), m, dtype);
    return fine(ctx, lemon_load(ctx, scratch("stored.lemon"), &stored)) ? stored : NULL;
}

/*  Storage types: scores stay near those of f32 weights, the nearer the more bits. */
static void test_dtypes(lemon_ctx *ctx) {
    static const double within[] = {1e-6, 0.2, 0.02, 0.25, 3.0};
    lemon_config c = tiny_config(32, 2, 4, 2, 8, 64, 40, 0);
    lemon_model *m = lively_model(ctx, &c, 4), *stored;
    int32_t ids[12] = {1, 5, 9, 30, 2, 2, 7, 39, 0, 11, 8, 4};
    float want[40], *logits;
    double worst[5];
    char name[64];
    int dtype, i;
    for (dtype = LEMON_F32; dtype <= LEMON_Q4; dtype++) {
        lemon_session *s = NULL;
        snprintf(name, sizeof name, "a session on %s weights", lemon_dtype_name((lemon_dtype)dtype));
        stored = as_stored(ctx, m, (lemon_dtype)dtype);
        if (stored == NULL || !fine(ctx, lemon_session_open(ctx, stored, &s)) || !fine(ctx, lemon_session_feed(s, ids, 12, &logits))) {
            check(0, name);
            return;
        }
        if (dtype == LEMON_F32) memcpy(want, logits, sizeof want);
        for (i = 0, worst[dtype] = 0; i < 40; i++)
            worst[dtype] = fmax(worst[dtype], fabs((double)logits[i] - (double)want[i]));
        detail("scores differ by %g", worst[dtype]);
        check(worst[dtype] < within[dtype] && (dtype == LEMON_F32 || worst[dtype] > 0), name);
        lemon_session_close(s);
        lemon_model_free(ctx, stored);
    }
    check(worst[LEMON_F16] < worst[LEMON_BF16] && worst[LEMON_Q8] < worst[LEMON_Q4], "more bits, less error");
    lemon_model_free(ctx, m);
}

/* ---- sampling ---- */

/*  The probabilities that lemon_sample should draw by, naively: sort, cut by k, by p, by min-p, renormalise. */
static void naive_distribution(const float *logits, int n, const lemon_sampling *s, double *p) {
    int order[64], i, j, keep = n;
    double sum = 0, top = -1e300, reached = 0;
    for (i = 0; i < n; i++) top = fmax(top, (double)logits[i]);
    for (i = 0; i < n; i++) sum += p[i] = exp(((double)logits[i] - top) / (double)s->temperature);
    for (i = 0; i < n; i++) {
        p[i] /= sum;
        for (j = i; j > 0 && p[order[j - 1]] < p[i]; j--) order[j] = order[j - 1];
        order[j] = i;
    }
    if (s->top_k > 0 && s->top_k < keep) keep = s->top_k;
    for (i = 0, sum = 0; i < keep; i++) sum += p[order[i]];
    for (i = 0; i < keep; i++) {
        reached += p[order[i]] / sum;
        if (s->top_p < 1 && reached >= (double)s->top_p) { keep = i + 1; break; }
    }
    while (keep > 1 && p[order[keep - 1]] < (double)s->min_p * p[order[0]]) keep--;
    for (i = 0, sum = 0; i < keep; i++) sum += p[order[i]];
    for (i = 0; i < n; i++) p[order[i]] = i < keep ? p[order[i]] / sum : 0;
}

static void test_sampling(lemon_ctx *ctx) {
    static const struct { const char *name; lemon_sampling s;
    } ways[] = {{"temperature 1", {1.0f, 0, 1.0f, 0.0f, 1, NULL, 0}},
                {"temperature 0.5", {0.5f, 0, 1.0f, 0.0f, 1, NULL, 0}},
                {"temperature 2", {2.0f, 0, 1.0f, 0.0f, 1, NULL, 0}},
                {"top-k 5", {1.0f, 5, 1.0f, 0.0f, 1, NULL, 0}},
                {"top-k 1", {1.0f, 1, 1.0f, 0.0f, 1, NULL, 0}},
                {"top-p 0.7", {1.0f, 0, 0.7f, 0.0f, 1, NULL, 0}},
                {"top-p 0", {1.0f, 0, 0.0f, 0.0f, 1, NULL, 0}},
                {"min-p 0.2", {1.0f, 0, 1.0f, 0.2f, 1, NULL, 0}},
                {"top-k 12, top-p 0.8, min-p 0.1", {1.3f, 12, 0.8f, 0.1f, 1, NULL, 0}},
                {"top-k beyond all", {1.0f, 1000, 1.0f, 0.0f, 1, NULL, 0}}};
    enum { N = 40, DRAWS = 40000 };
    lemon_rng rng;
    float logits[N], copy[N];
    int32_t room[2 * N];
    size_t w;
    (void)ctx;
    for (w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        double p[N], chi = 0, cells = 0;
        int count[N] = {0}, i, outside = 0;
        char name[96];
        lemon_rng_seed(&rng, 77 + w);
        fill_normal(&rng, logits, N, 2.0);
        naive_distribution(logits, N, &ways[w].s, p);
        for (i = 0; i < DRAWS; i++) {
            memcpy(copy, logits, sizeof copy);
            count[lemon_sample(copy, N, &ways[w].s, &rng, room)]++;
        }
        for (i = 0; i < N; i++) {
            outside += p[i] <= 0 && count[i] > 0;
            if (p[i] * DRAWS < 5) continue;
            chi += pow(count[i] - p[i] * DRAWS, 2) / (p[i] * DRAWS);
            cells++;
        }
        snprintf(name, sizeof name, "sampling draws by the naive distribution: %s", ways[w].name);
        detail("%d draws of what should fall away; chi squared %.1f over %.0f cells", outside, chi, cells);
        check(outside == 0 && chi < cells + 5 * sqrt(2 * cells) + 5, name);
    }
}

static void test_greedy_ties(void) {
    lemon_sampling s = {0.0f, 0, 1.0f, 0.0f, 1, NULL, 0};
    float x[6] = {-1, 3, 2, 3, 3, 0};
    lemon_rng rng;
    int32_t room[12], i;
    check(lemon_sample(x, 6, &s, NULL, NULL) == 1,
          "temperature 0 takes the best, the lowest id on ties, and needs no numbers");
    lemon_rng_seed(&rng, 1);
    s.temperature = 1.0f;
    s.top_k = 1;
    check(lemon_sample(x, 6, &s, &rng, room) == 1, "top-k 1 does so too");
    check(lemon_sample(NULL, 6, &s, &rng, room) == -1 && lemon_sample(x, 0, &s, &rng, room) == -1 &&
              lemon_sample(x, 6, &s, NULL, room) == -1,
          "what cannot be drawn is -1");
    for (i = 0; i < 6; i++) x[i] = (float)NAN;              /* a model that is no good: no id from elsewhere */
    check(lemon_sample(x, 6, &s, &rng, room) == 0, "of numbers that are none top-k 1 takes the first");
    lemon_sampling_defaults(&s);
    check(near_to((double)s.temperature, 1, 0) && near_to((double)s.top_p, 0.9, 1e-7) && s.top_k == 0 && s.seed == 1,
          "defaults are as documented");
}

/* ---- generation ---- */

typedef struct heard { int calls, stop_at; char text[4096]; size_t bytes; } heard;
static int hear(void *user, int32_t id, const char *text, size_t bytes) {
    heard *h = (heard *)user;
    (void)id;
    if (h->bytes + bytes < sizeof h->text) { memcpy(h->text + h->bytes, text, bytes); h->bytes += bytes; }
    return ++h->calls == h->stop_at;
}

static lemon_model *talker(lemon_ctx *ctx, int32_t max_seq) {
    lemon_config c = tiny_config(16, 2, 2, 1, 8, 24, 259, 1);
    lemon_model *m;
    c.max_seq = max_seq;
    m = lively_model(ctx, &c, 6);
    lemon_tokenizer_bytes(ctx, &m->tokenizer);
    return m;
}

static void test_generation(lemon_ctx *ctx) {
    lemon_model *m = talker(ctx, 64);
    lemon_tokens a = {NULL, 0, 0}, b = {NULL, 0, 0};
    lemon_sampling s;
    lemon_stop stop;
    heard h;
    lemon_sampling_defaults(&s);
    check(fine(ctx, lemon_generate(ctx, m, "ab", 20, &s, NULL, NULL, &a, &stop)) && a.count <= 24 && a.ids[0] == 1,
          "text begins with BOS");
    lemon_generate(ctx, m, "ab", 20, &s, NULL, NULL, &b, &stop);
    check(a.count == b.count && memcmp(a.ids, b.ids, (size_t)a.count * 4) == 0, "one seed, one text");
    s.seed = 2;
    lemon_generate(ctx, m, "ab", 20, &s, NULL, NULL, &b, &stop);
    check(a.count != b.count || memcmp(a.ids, b.ids, (size_t)a.count * 4) != 0, "another seed, another text");
    memset(&h, 0, sizeof h);
    h.stop_at = 3;
    s.temperature = 0;
    lemon_generate(ctx, m, "ab", 20, &s, hear, &h, &b, &stop);
    check(stop == LEMON_STOP_CALLER && h.calls == 3, "the callback can end it");
    s.temperature = 1;
    lemon_tokens_free(ctx, &a);
    lemon_tokens_free(ctx, &b);
    lemon_model_free(ctx, m);
}

static void test_stops(lemon_ctx *ctx) {
    lemon_model *m = talker(ctx, 12);
    lemon_tensor *embed = lemon_model_param(m, LEMON_TOK_EMBED, 0);
    lemon_tokens tokens = {NULL, 0, 0};
    lemon_sampling s = {0.0f, 0, 1.0f, 0.0f, 1, NULL, 0};
    lemon_stop stop;
    int i;
    for (i = 0; i < 32; i++) ((float *)embed->data)[16 + i] = 0;   /* BOS and EOS score 0: others are above */
    lemon_generate(ctx, m, "abc", 100, &s, NULL, NULL, &tokens, &stop);
    detail("stop %d after %d tokens", (int)stop, (int)tokens.count);
    check(stop == LEMON_STOP_CONTEXT && tokens.count == 13,
          "the end of the context stops it; its last token needs no room");
    lemon_generate(ctx, m, "abc", 4, &s, NULL, NULL, &tokens, &stop);
    check(stop == LEMON_STOP_COUNT && tokens.count == 1 + 4 + 4 - (tokens.ids[1] != ' ' + 3), "n tokens stop it");
    check(fails_with(ctx, lemon_generate(ctx, m, "this prompt is too long", 4, &s, NULL, NULL, &tokens, &stop),
                     LEMON_E_ARG, "the prompt has"),
          "a prompt longer than the context is refused");
    for (i = 0; i < m->config.d_model; i++)                     /* all scores become 0 */
        ((float *)lemon_model_param(m, LEMON_FINAL_NORM, 0)->data)[i] = 0;
    lemon_generate(ctx, m, "abc", 4, &s, NULL, NULL, &tokens, &stop);
    check(stop == LEMON_STOP_COUNT && tokens.ids[tokens.count - 1] == 0,
          "with all scores equal the lowest id is taken");
    m->config.vocab_size -= 200;
    check(fails_with(ctx, lemon_generate(ctx, m, "abc", 4, &s, NULL, NULL, &tokens, &stop), LEMON_E_ARG, "the tokenizer has 259") &&
          fails_with(ctx, lemon_save(ctx, scratch("small.lemon"), m, LEMON_F32), LEMON_E_ARG, "tokenizer has 259 pieces"),
          "a tokenizer larger than the vocabulary is refused");
    m->config.vocab_size += 200;
    lemon_tokenizer_free(ctx, m->tokenizer);
    m->tokenizer = NULL;
    check(
        fails_with(ctx, lemon_generate(ctx, m, "abc", 4, &s, NULL, NULL, &tokens, &stop), LEMON_E_ARG, "no tokenizer"),
        "a model without a tokenizer says so");
    lemon_tokens_free(ctx, &tokens);
    lemon_model_free(ctx, m);
}

/*  Texts that end a generation: for every piece of what a model says, it is what comes before the first place of that piece. */
static void test_stop_texts(lemon_ctx *ctx) {
    lemon_model *m = talker(ctx, 64);
    lemon_tokens tokens = {NULL, 0, 0};
    lemon_sampling s;
    lemon_stop stop;
    heard all, h;
    size_t at, n;
    int bad = 0;
    const char *stops[3] = {"never said", "", NULL};
    lemon_sampling_defaults(&s);
    s.top_p = 1;
    s.seed = 5;
    memset(&all, 0, sizeof all);
    lemon_generate(ctx, m, "ab", 30, &s, hear, &all, &tokens, &stop);
    check(stop == LEMON_STOP_COUNT && all.bytes > 20 && all.calls == 30, "a text to be stopped");
    s.stops = stops;
    s.n_stops = 3;
    memset(&h, 0, sizeof h);
    lemon_generate(ctx, m, "ab", 30, &s, hear, &h, &tokens, &stop);
    check(stop == LEMON_STOP_COUNT && h.bytes == all.bytes && memcmp(h.text, all.text, h.bytes) == 0,
          "what is never said, nothing and NULL stop nothing");
    for (at = 0; at < all.bytes; at++)
        for (n = 1; n <= 4 && at + n <= all.bytes; n++) {
            char piece[8] = "";
            const char *first;
            memcpy(piece, all.text + at, n);
            if (strlen(piece) != n) continue;                   /* a zero byte */
            stops[2] = piece;
            memset(&h, 0, sizeof h);
            lemon_generate(ctx, m, "ab", 30, &s, hear, &h, &tokens, &stop);
            for (first = all.text; memcmp(first, piece, n) != 0;) first++;      /* there is one: at `at` */
            bad += stop != LEMON_STOP_TEXT || h.bytes != (size_t)(first - all.text) || memcmp(h.text, all.text, h.bytes) != 0;
        }
    check(bad == 0, "each piece of it stops it there, and is not handed out");
    {
        char late[40] = "";                                     /* begins as the end does */
        memcpy(late, all.text + all.bytes - 2, 2);
        strcat(late, "and more");
        stops[2] = late;
        memset(&h, 0, sizeof h);
        lemon_generate(ctx, m, "ab", 30, &s, hear, &h, &tokens, &stop);
        check(h.bytes == all.bytes && h.calls == 31, "what was held back to the end is handed out then");
    }
    lemon_tokens_free(ctx, &tokens);
    lemon_model_free(ctx, m);
}

/* ---- sessions that are saved ---- */

static lemon_session *small_session(lemon_ctx *ctx, const lemon_model *m, int64_t prefill, lemon_dtype cache) {
    lemon_session_options o;
    lemon_session *s = NULL;
    lemon_session_defaults(&o);
    o.max_seq = 12;
    o.prefill = prefill;
    o.cache = cache;
    check(fine(ctx, lemon_session_open_with(ctx, m, &o, &s)), "a session with options opens");
    return s;
}

typedef struct store { uint8_t bytes[100000]; size_t n; int fails; } store;
static lemon_status store_append(void *user, const void *bytes, size_t n) {
    store *s = (store *)user;
    if (s->fails || s->n + n > sizeof s->bytes) return LEMON_E_IO;
    memcpy(s->bytes + s->n, bytes, n);
    s->n += n;
    return LEMON_OK;
}
static lemon_status store_commit(void *user) { (void)user; return LEMON_OK; }
static void store_abort(void *user) { (void)user; }

static lemon_reader store_reader(store *s, size_t n) {
    lemon_reader r;
    memset(&r, 0, sizeof r);
    r.name = "stored";
    r.size = n;
    r.map = s->bytes;
    return r;
}

static void test_saved_session(lemon_ctx *ctx, lemon_dtype cache) {
    static store kept;
    static const int32_t ids[9] = {1, 40, 50, 60, 70, 80, 90, 100, 110};
    lemon_model *m = talker(ctx, 20), *other = talker(ctx, 20);
    lemon_session *a = small_session(ctx, m, 12, cache), *b = small_session(ctx, m, 9, cache),
                  *odd = small_session(ctx, m, 9, cache == LEMON_F32 ? LEMON_F16 : LEMON_F32),
                  *theirs = small_session(ctx, other, 9, cache);
    lemon_session_options small;
    lemon_session *tiny = NULL;
    lemon_writer w;
    lemon_reader r;
    float want[259], *got;
    size_t i, bad = 0;
    memset(&w, 0, sizeof w);
    memset(&kept, 0, sizeof kept);
    w.name = "kept";
    w.user = &kept;
    w.append = store_append;
    w.commit = store_commit;
    w.abort = store_abort;
    ((float *)lemon_model_param(other, LEMON_FINAL_NORM, 0)->data)[3] += 0.5f;
    lemon_session_feed(a, ids, 7, NULL);
    check(fine(ctx, lemon_session_save(a, &w)), cache == LEMON_F32 ? "a session is saved" : "a session of halves is saved");
    lemon_session_feed(a, ids + 7, 2, &got);
    memcpy(want, got, sizeof want);
    r = store_reader(&kept, kept.n);
    lemon_session_feed(b, ids + 3, 5, NULL);
    check(fine(ctx, lemon_session_restore(b, &r)) && lemon_session_length(b) == 7 &&
              fine(ctx, lemon_session_feed(b, ids + 7, 2, &got)) && memcmp(want, got, sizeof want) == 0,
          "   and goes on elsewhere with the same bits");
    check(fails_with(ctx, lemon_session_restore(odd, &r), LEMON_E_ARG, "the cache is") && lemon_session_length(odd) == 0,
          "   another type of cache is refused");
    check(fails_with(ctx, lemon_session_restore(theirs, &r), LEMON_E_ARG, "another model"), "   and so is another model");
    lemon_session_defaults(&small);
    small.max_seq = 6;
    small.cache = cache;
    lemon_session_open_with(ctx, m, &small, &tiny);
    check(fails_with(ctx, lemon_session_restore(tiny, &r), LEMON_E_ARG, "length is 7, expected at most 6"), "   and a session too small");
    for (i = 0; i < kept.n; i += 1 + kept.n / 200) {
        r = store_reader(&kept, i);
        bad += lemon_session_restore(b, &r) == LEMON_OK;
        kept.bytes[i] ^= 16;
        r = store_reader(&kept, kept.n);
        bad += lemon_session_restore(b, &r) == LEMON_OK;
        kept.bytes[i] ^= 16;
    }
    check(bad == 0, "   every cut of it, and every flipped bit, is refused");
    kept.fails = 1;
    check(lemon_session_save(a, &w) == LEMON_E_IO, "   a writer that fails is told of");
    kept.fails = 0;
    kept.n = 0;
    lemon_session_rewind(a, 0);
    check(fine(ctx, lemon_session_save(a, &w)), "   an empty one can be saved,");
    r = store_reader(&kept, kept.n);
    check(fine(ctx, lemon_session_restore(b, &r)) && lemon_session_length(b) == 0, "   and restored");
    lemon_session_close(tiny);
    lemon_session_close(theirs);
    lemon_session_close(odd);
    lemon_session_close(b);
    lemon_session_close(a);
    lemon_model_free(ctx, other);
    lemon_model_free(ctx, m);
}

/*  A model that can only say EOS: its embedding is the one direction that all streams end in. */
static void test_end(lemon_ctx *ctx) {
    lemon_config c = tiny_config(2, 1, 1, 1, 2, 1, 259, 1);
    lemon_model *m = NULL;
    lemon_tokens tokens = {NULL, 0, 0};
    lemon_sampling s = {0.0f, 0, 1.0f, 0.0f, 1, NULL, 0};
    lemon_stop stop;
    int i;
    lemon_model_create(ctx, &c, &m);                            /* all zero but: */
    for (i = 0; i < 259; i++) ((float *)lemon_model_param(m, LEMON_TOK_EMBED, 0)->data)[2 * i] = i == 2 ? 2.0f : 1.0f;
    ((float *)lemon_model_param(m, LEMON_FINAL_NORM, 0)->data)[0] = 1.0f;
    lemon_tokenizer_bytes(ctx, &m->tokenizer);
    lemon_generate(ctx, m, NULL, 9, &s, NULL, NULL, &tokens, &stop);
    check(stop == LEMON_STOP_END && tokens.count == 1, "EOS ends the text and is not part of it");
    lemon_tokens_free(ctx, &tokens);
    lemon_model_free(ctx, m);
}

/* ---- sessions that are small ---- */

static void test_small_sessions(lemon_ctx *ctx) {
    lemon_model *m = talker(ctx, 20);
    lemon_session *plain = NULL, *piece = small_session(ctx, m, 3, LEMON_F32), *half = small_session(ctx, m, 12, LEMON_F16),
                  *halves = small_session(ctx, m, 5, LEMON_F16), *none = NULL;
    lemon_session_options bad;
    int32_t ids[13];
    float *a = NULL, *b = NULL, *c = NULL, *d = NULL;
    double far = 0.0, most = 0.0;
    size_t before = lemon_memory(ctx, NULL), full;
    int32_t i, v = m->config.vocab_size;
    for (i = 0; i < 13; i++) ids[i] = 1 + 17 * i;
    lemon_session_open(ctx, m, &plain);
    full = lemon_memory(ctx, NULL) - before;
    lemon_session_feed(plain, ids, 12, &a);
    lemon_session_feed(piece, ids, 12, &b);
    lemon_session_feed(half, ids, 12, &c);
    lemon_session_feed(halves, ids, 12, &d);
    for (i = 0; i < v; i++) {
        far = fmax(far, fabs((double)a[i] - (double)b[i]));
        most = fmax(most, fabs((double)a[i] - (double)c[i]));
    }
    detail("%g", far);
    check(far < 1e-5, "a prompt in small pieces gives the same scores");
    detail("%g", most);
    check(most < 2e-2 && most > 0.0, "keys and values kept as f16 change scores a little");
    for (i = 0, far = 0.0; i < v; i++) far = fmax(far, fabs((double)d[i] - (double)c[i]));
    detail("%g", far);
    check(far < 1e-5, "and by the same whatever the pieces");
    check(lemon_session_feed(half, ids + 12, 1, &c) == LEMON_E_ARG, "a session that holds 12 tokens refuses a 13th");
    check(lemon_session_rewind(half, 4) == LEMON_OK && lemon_session_feed(half, ids + 4, 8, &d) == LEMON_OK,
          "and goes on after a rewind");
    before = lemon_memory(ctx, NULL);
    lemon_session_defaults(&bad);
    bad.max_seq = 999999;
    bad.prefill = 1;
    bad.cache = LEMON_F16;
    lemon_session_close(half);
    check(fine(ctx, lemon_session_open_with(ctx, m, &bad, &half)), "more than the model's context is the model's context");
    check(lemon_memory(ctx, NULL) <= before + full, "a small session takes no more memory than a large one");
    bad.cache = LEMON_Q8;
    check(lemon_session_open_with(ctx, m, &bad, &none) == LEMON_E_ARG && none == NULL, "a cache of q8 is refused");
    lemon_session_close(plain);
    lemon_session_close(piece);
    lemon_session_close(half);
    lemon_session_close(halves);
    lemon_model_free(ctx, m);
}

/* ---- many sessions on one model: see test_threads.c, too ---- */

static void test_turns(lemon_ctx *ctx, lemon_dtype dtype) {
    enum { SESSIONS = 3, LONG = 20 };
    lemon_model *m = talker(ctx, LONG), *stored = as_stored(ctx, m, dtype);
    lemon_session *alone = NULL, *turns[SESSIONS];
    float *logits;
    int32_t i, at, id, same = 1;
    long calls;
    for (i = 0; i < SESSIONS; i++) lemon_session_open(ctx, stored, &turns[i]);
    lemon_session_open(ctx, stored, &alone);
    calls = heap.calls;
    for (at = 0; at < LONG; at++)
        for (i = 0; i < SESSIONS; i++) {
            id = 3 + 5 * at + i;
            same &= lemon_session_feed(turns[i], &id, 1, &logits) == LEMON_OK;
        }
    check(same && heap.calls == calls, "a token a call allocates nothing");
    for (at = 0; at < LONG; at++) {
        float *again;
        id = 3 + 5 * at + SESSIONS - 1;
        same &= lemon_session_feed(alone, &id, 1, &again) == LEMON_OK;
        if (at == LONG - 1) same &= !memcmp(logits, again, (size_t)m->config.vocab_size * sizeof *again);
    }
    check(same, "sessions that share a model do not disturb each other");
    for (i = 0; i < SESSIONS; i++) lemon_session_close(turns[i]);
    lemon_session_close(alone);
    lemon_model_free(ctx, stored);
    lemon_model_free(ctx, m);
}

/* ---- real data ---- */

static int64_t read_ids(const char *path, int32_t *ids, int64_t most) {
    FILE *f = fopen(path, "r");
    int64_t n = 0;
    int id;
    while (f && n < most && fscanf(f, "%d", &id) == 1) ids[n++] = id;
    if (f) fclose(f);
    return n;
}

static void expect_greedy(lemon_ctx *ctx, lemon_model *m, const char *file, const char *prompt, int64_t n_new) {
    int32_t want[512];
    char path[512], name[128];
    lemon_tokens got = {NULL, 0, 0};
    lemon_sampling s = {0.0f, 0, 1.0f, 0.0f, 1, NULL, 0};
    lemon_stop stop;
    int64_t n, i;
    snprintf(name, sizeof name, "greedy text of stories260K is %s, token for token", file);
    if (!data_path(file, path, sizeof path)) {
        skip(name);
        return;
    }
    n = read_ids(path, want, 512);
    lemon_generate(ctx, m, prompt, n_new, &s, NULL, NULL, &got, &stop);
    for (i = 0; i < n && i < got.count && want[i] == got.ids[i]; i++) {}
    detail("%d tokens, expected %d; token %d differs", (int)got.count, (int)n, (int)i);
    check(n > 100 && i == n && got.count == n, name);
    lemon_tokens_free(ctx, &got);
}

static void test_real(lemon_ctx *ctx) {
    char path[512], tok[512];
    lemon_model *m = NULL;
    if (!data_path("stories260K.bin", path, 512) || !data_path("tok512.bin", tok, 512)) {
        skip("greedy text of stories260K");
        return;
    }
    lemon_load(ctx, path, &m);
    lemon_tokenizer_load(ctx, tok, 512, &m->tokenizer);
    expect_greedy(ctx, m, "greedy_empty.ids", NULL, 200);
    expect_greedy(ctx, m, "greedy_dog.ids", "Once upon a time, there was a dog", 160);
    lemon_model_free(ctx, m);
}

static void test_memory(lemon_ctx *ctx) {
    lemon_model *m = talker(ctx, 20);
    lemon_sampling s = {0.0f, 0, 1.0f, 0.0f, 1, NULL, 0};
    long live = heap.live;
    int n, bad = 0, done = 0;
    for (n = 1; !done && n < 300; n++) {
        lemon_tokens tokens = {NULL, 0, 0};
        lemon_status status;
        heap.calls = 0;
        heap.fail_at = n;
        status = lemon_generate(ctx, m, "ab", 5, &s, NULL, NULL, &tokens, NULL);
        heap.fail_at = 0;
        lemon_tokens_free(ctx, &tokens);
        done = status == LEMON_OK;
        bad += heap.live != live || (!done && status != LEMON_E_MEMORY);
    }
    check(done && bad == 0 && n > 4, "generation survives every failed allocation");
    lemon_model_free(ctx, m);
}

int main(void) {
    lemon_ctx *ctx = open_ctx(2);
    lemon__workspaces(ctx);
    test_context(ctx);
    test_dtypes(ctx);
    test_sampling(ctx);
    test_greedy_ties();
    test_generation(ctx);
    test_stops(ctx);
    test_end(ctx);
    test_stop_texts(ctx);
    test_small_sessions(ctx);
    test_saved_session(ctx, LEMON_F32);
    test_saved_session(ctx, LEMON_F16);
    test_turns(ctx, LEMON_F32);
    test_turns(ctx, LEMON_Q8);
    test_real(ctx);
    test_memory(ctx);
    lemon_close(ctx);
    check(heap.live == 0, "nothing is left allocated");
    return check_done();
}
