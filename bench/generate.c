/*  generate.c - reading a prompt and decoding token by token, lemon.h beside llama.cpp and beside the machine's limits.

    make -C bench generate             f32 and 8-bit, two shapes, 1 and 2 threads; bench/build/generate.csv, generate.svg
    ARGS="--shape N --threads N --rounds N --lemon --breakdown"    one shape (0, 1), one thread count, so many rounds, without
                                       peers, only the times by kernel, which otherwise follow the table
    ARGS="--quick"                     the smaller shape, without peers, one short round

    decode is 256 tokens one after another from an empty context; its limit is reading the weights once a token, at the
    rate at which this machine reads memory of that size.  prefill is a prompt of 256 tokens with the logits of the last one
    only; its limit is the peak of multiply-adds.  llama.cpp (npm's build, make peers) reads the same weights from a GGUF
    that lemon.h wrote, llama2.c's run its .bin, for f32 decoding. */
#include "speed.h"

static const speed_shape shapes[] = {{"288 x 6", 288, 6, 6, 6, 768, 32000, 512, 1},
                                     {"768 x 12", 768, 12, 12, 12, 2048, 32000, 512, 1}};
enum { SHAPES = sizeof shapes / sizeof shapes[0], TOKENS = 256, ROUNDS = 3 };

typedef struct job {
    const speed_shape *shape;
    int threads, prefill;
    lemon_dtype dtype;
    double seconds, bytes;           /* bytes: of all weights that a token needs */
} job;

static void path_of(const job *j, const char *end, char *path, size_t size) {
    snprintf(path, size, "bench/build/%d-%s.%s", j->shape->d, lemon_dtype_name(j->dtype), end);
}

/*  A random model, saved for lemon.h and for llama.cpp. */
static void write_model(job *j) {
    lemon_ctx *ctx = lemon_open(NULL);
    lemon_config c = speed_config(j->shape);
    lemon_model *model;
    static const speed_shape *written[2];      /* of each type the last one */
    char path[256];
    j->bytes = speed_matmul_params(j->shape) / 32 * (double)lemon_row_bytes(j->dtype, 32);
    if (written[j->dtype == LEMON_Q8] == j->shape) { lemon_close(ctx); return; }
    written[j->dtype == LEMON_Q8] = j->shape;
    if (lemon_model_create(ctx, &c, &model) || lemon_model_init(ctx, model, 1)) exit(1);
    path_of(j, "lemon", path, sizeof path);
    if (lemon_save(ctx, path, model, j->dtype)) fprintf(stderr, "generate: error: %s\n", lemon_error(ctx)), exit(1);
    path_of(j, "gguf", path, sizeof path);
    if (lemon_save(ctx, path, model, j->dtype)) fprintf(stderr, "generate: error: %s\n", lemon_error(ctx)), exit(1);
    path_of(j, "bin", path, sizeof path);
    if (j->dtype == LEMON_F32 && lemon_save(ctx, path, model, j->dtype)) exit(1);
    lemon_model_free(ctx, model);
    lemon_close(ctx);
}

static void open_session(const job *j, lemon_ctx **ctx, lemon_model **model, lemon_session **session) {
    lemon_options o;
    char path[256];
    memset(&o, 0, sizeof o);
    o.threads = j->threads;
    *ctx = lemon_open(&o);
    path_of(j, "lemon", path, sizeof path);
    if (*ctx == NULL || lemon_load(*ctx, path, model) || lemon_session_open(*ctx, *model, session)) _exit(1);
}

static void run_once(const job *j, lemon_session *session) {
    int32_t ids[TOKENS];
    float *logits;
    int i;
    lemon_session_rewind(session, 0);
    for (i = 0; i < TOKENS; i++) ids[i] = 3 + (i * 7919) % 500;
    if (j->prefill && lemon_session_feed(session, ids, TOKENS, &logits)) _exit(1);
    for (i = 0; !j->prefill && i < TOKENS; i++)
        if (lemon_session_feed(session, ids + i, 1, &logits)) _exit(1);
}

/*  Milliseconds of the token that takes longest, the last of the context: the median of some. */
static double last_token(const job *j, lemon_session *session) {
    enum { TRIES = 15 };
    double ms[TRIES], start;
    float *logits;
    int i, k;
    while (lemon_session_length(session) < j->shape->seq - 1) {
        const int32_t id = 3;
        if (lemon_session_feed(session, &id, 1, &logits)) _exit(1);
    }
    for (i = 0; i < TRIES; i++) {
        const int32_t id = 3;
        start = now();
        if (lemon_session_feed(session, &id, 1, &logits) || lemon_session_rewind(session, j->shape->seq - 1)) _exit(1);
        start = 1e3 * (now() - start);
        for (k = i; k > 0 && ms[k - 1] > start; k--) ms[k] = ms[k - 1];
        ms[k] = start;
    }
    return ms[TRIES / 2];
}

static void measure_tokens(const void *arg, finding *out) {
    const job *j = (const job *)arg;
    lemon_ctx *ctx;
    lemon_model *model;
    lemon_session *session;
    double least = 1e30, sum = 0;
    int runs = 0;
    open_session(j, &ctx, &model, &session);
    run_once(j, session);
    while (runs < 3 || sum < j->seconds) {
        double start = now();
        run_once(j, session);
        start = now() - start;
        least = start < least ? start : least;
        sum += start;
        runs++;
    }
    out->best = TOKENS / least;
    out->mean = TOKENS * runs / sum;
    if (!j->prefill) out->extra[0] = last_token(j, session);
}

static void measure_limit(const void *arg, finding *out) {
    const job *j = (const job *)arg;
    out->best = j->prefill ? limits_peak(lemon_ctx_isa(NULL), j->threads, 0.3)
                           : limits_read(lemon_ctx_isa(NULL), j->threads, (size_t)(j->bytes / j->threads), 0.4);
}

/*  Tokens a second that the limit allows. */
static double tokens_at(const job *j, double limit) {
    const speed_shape *s = j->shape;
    double flop = 2 * (speed_matmul_params(s) - (double)s->d * s->vocab) + 2.0 * s->layers * TOKENS * s->d;
    return j->prefill ? 1e9 * limit / (flop + 2.0 * s->d * s->vocab / TOKENS) : 1e9 * limit / j->bytes;
}

/* ---- where the time goes ---- */

enum { EMBED, NORM, QKV, ATTENTION, WRITE, NEURONS, LOGITS, KINDS };
static const char *const kind_names[KINDS] = {"embedding", "RMSNorm", "RMSNorm, q, k, v and RoPE", "attention", "wo, w_down and residual",
                                              "gate, up and SwiGLU", "last norm, output matrix"};

static double lap(double *clock, double *into) {
    double t = now();
    *into += t - *clock;
    return *clock = t;
}

/*  Weights that a token meets in a kernel; of attention, keys and values' numbers, half of TOKENS on the average. */
static double weights_of(const job *j, int kind) {
    const speed_shape *s = j->shape;
    const double d = s->d, kv = d / s->heads * s->kv, layers = s->layers;
    switch (kind) {
    case QKV: return layers * (d * d + 2 * d * kv);
    case ATTENTION: return layers * TOKENS * (j->prefill ? d : kv);
    case WRITE: return layers * (d * d + d * s->ffn);
    case NEURONS: return layers * 2 * d * s->ffn;
    case LOGITS: return d * s->vocab / (j->prefill ? TOKENS : 1);
    default: return 0;
    }
}

/*  Operations of a kernel for a token if prompts are read, bytes if one token is decoded. */
static double work_of(const job *j, int kind) {
    const lemon_dtype dtype = kind == ATTENTION ? LEMON_F32 : j->dtype;
    return weights_of(j, kind) * (j->prefill ? 2 : (double)lemon_row_bytes(dtype, 32) / 32);
}

/*  lemon__session_piece, and the scores that lemon_session_feed makes behind it, with a clock. */
static void timed_piece(lemon_session *s, const int32_t *ids, int64_t n, double *spent) {
    lemon__walk *w = &s->walk;
    double clock = now();
    int64_t layer;
    w->batch = 1, w->seq = n, w->pos = s->length, w->kv_rows = s->model->config.max_seq;
    lemon__walk_embed(w, ids), lap(&clock, &spent[EMBED]);
    for (layer = 0; layer < s->model->config.n_layers; layer++) {
        float *keys = (float *)s->cache[2 * layer].data, *values = (float *)s->cache[2 * layer + 1].data;
        lemon__walk_look(w, layer, keys, values), lap(&clock, &spent[QKV]);
        lemon__walk_attend(w, keys, values), lap(&clock, &spent[ATTENTION]);
        lemon__walk_write(w, LEMON_WO, layer, w->z), lap(&clock, &spent[WRITE]);
        lemon__walk_norm(w, LEMON_FFN_NORM, layer), lap(&clock, &spent[NORM]);
        lemon__walk_neurons(w, layer), lap(&clock, &spent[NEURONS]);
        lemon__walk_write(w, LEMON_W_DOWN, layer, w->gate), lap(&clock, &spent[WRITE]);
    }
    s->length += n;
}

/*  As lemon_session_feed makes them. */
static void make_logits(lemon_session *s) {
    lemon__walk_norm(&s->walk, LEMON_FINAL_NORM, 0);
    lemon__weight_product(s->ctx, 1, s->walk.y + (s->walk.seq - 1) * s->model->config.d_model,
                          lemon_model_param(s->model, LEMON_OUTPUT, 0), s->logits);
}

static void measure_breakdown(const void *arg, finding *out) {
    const job *j = (const job *)arg;
    lemon_ctx *ctx;
    lemon_model *model;
    lemon_session *session;
    double best[KINDS], best_sum = 1e30, started;
    finding limit;
    int32_t ids[TOKENS];
    int i, k, piece;
    measure_limit(arg, &limit);
    open_session(j, &ctx, &model, &session);
    started = now();
    piece = j->prefill ? (int)session->o.prefill : 1;
    for (i = 0; i < TOKENS; i++) ids[i] = 3 + (i * 7919) % 500;
    do {
        double spent[KINDS] = {0}, sum = 0, clock;
        session->length = 0;
        for (i = 0; i < TOKENS; i += piece) {
            timed_piece(session, ids + i, piece, spent);
            if (j->prefill && i + piece < TOKENS) continue;
            clock = now();
            make_logits(session), lap(&clock, &spent[LOGITS]);
        }
        for (k = 0; k < KINDS; k++) sum += spent[k];
        if (sum < best_sum) memcpy(best, spent, sizeof best), best_sum = sum;
    } while (now() - started < j->seconds);
    printf("\n| %s, %s, %s, %d thread%s | us a token | share | %s | of limit |\n|---|---:|---:|---:|---:|\n",
           j->prefill ? "prefill" : "decode", j->shape->name, lemon_dtype_name(j->dtype), j->threads,
           j->threads > 1 ? "s" : "", j->prefill ? "GFLOP/s" : "GB/s");
    for (k = 0; k < KINDS; k++) {
        const double rate = 1e-9 * work_of(j, k) * TOKENS / best[k];
        printf("| %s | %.2f | %.1f %% |", kind_names[k], 1e6 * best[k] / TOKENS, 100 * best[k] / best_sum);
        if (rate > 0) printf(" %.0f | %.0f %% |\n", rate, 100 * rate / limit.best);
        else printf(" | |\n");
    }
    printf("| all | %.2f | | | %.0f %% |\n", 1e6 * best_sum / TOKENS, 100 * TOKENS / best_sum / tokens_at(j, limit.best));
    fflush(stdout);
    out->best = 1;
}

/* ---- the whole ---- */

static int peer_llama(const job *j, finding *out) {
    char path[256];
    path_of(j, "gguf", path, sizeof path);
    return speed_command(out, "LLAMA_BACKENDS=bench/build/peers/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64 "
                              "bench/build/peer_llama %s %d %s %d %g 2> /dev/null",
                         path, j->threads, j->prefill ? "prefill" : "decode", TOKENS, j->seconds);
}

/*  llama2.c's run says its speed on stderr; it needs a vocabulary, whose pieces do not matter here.  It ends at token 1, which
    random weights may find the likeliest, so it draws. */
static int peer_llama2c(const job *j, finding *out) {
    const char *run = "bench/build/llama2c";
    char path[256];
    FILE *f;
    int i, most = 8;
    if (access(run, X_OK) || j->prefill || j->dtype != LEMON_F32) return 0;
    path_of(j, "bin", path, sizeof path);
    f = fopen("bench/build/pieces.bin", "wb");
    if (f == NULL) return 0;
    fwrite(&most, 4, 1, f);
    for (i = 0; i < j->shape->vocab; i++) {
        float score = (float)-i;
        char piece[16];
        int n = snprintf(piece, sizeof piece, "p%d", i);
        fwrite(&score, 4, 1, f), fwrite(&n, 4, 1, f), fwrite(piece, 1, (size_t)n, f);
    }
    fclose(f);
    return speed_command(out, "OMP_NUM_THREADS=%d %s %s -t 1 -p 0 -n %d -z bench/build/pieces.bin 2>&1 | "
                              "sed -n 's/.*achieved tok.s: //p'", j->threads, run, path, TOKENS);
}

static void compare(job *j, int rounds, int with_peer, FILE *csv, speed_chart *chart) {
    finding lemon, llama, llama2c, limit, f;
    double best, most;
    int i;
    memset(&lemon, 0, sizeof lemon);
    memset(&llama, 0, sizeof llama);
    memset(&llama2c, 0, sizeof llama2c);
    memset(&limit, 0, sizeof limit);
    for (i = 0; i < rounds; i++) {
        if (speed_child(measure_limit, j, &f)) speed_keep(&limit, &f);
        if (speed_child(measure_tokens, j, &f)) speed_keep(&lemon, &f);
        if (with_peer && peer_llama(j, &f)) speed_keep(&llama, &f);
        if (with_peer && peer_llama2c(j, &f)) speed_keep(&llama2c, &f);
    }
    best = llama.best > llama2c.best ? llama.best : llama2c.best;
    most = tokens_at(j, limit.best);
    printf("| %s | %s | %s | %d | %.0f | %.0f %% |", j->prefill ? "prefill" : "decode", j->shape->name, lemon_dtype_name(j->dtype),
           j->threads, lemon.best, 100 * lemon.best / most);
    speed_cell("%.0f", llama.best), speed_cell("%.0f", llama2c.best);
    speed_cell("%.2f", best > 0 ? lemon.best / best : 0), speed_cell("%.2f", lemon.extra[0]);
    printf("\n");
    fflush(stdout);
    fprintf(csv, "%s,%s,%s,%d,%.1f,%.1f,%.1f,%.1f,%.1f,%.0f,%.0f,%.3f\n", j->prefill ? "prefill" : "decode", j->shape->name,
            lemon_dtype_name(j->dtype), j->threads, lemon.best, lemon.mean, llama.best, llama2c.best, most, lemon.bytes,
            llama.bytes, lemon.extra[0]);
    speed_chart_add(chart, lemon.best, best, most, "%s, %s, %s, %d thr.", j->prefill ? "prompt" : "decoding", j->shape->name,
                    lemon_dtype_name(j->dtype), j->threads);
}

int main(int argc, char **argv) {
    int shape = -1, threads = 0, with_peer = 1, breakdown = 0, rounds = ROUNDS, quick = 0, i, t, d, p, pass;
    static speed_chart chart;
    FILE *csv;
    job j;
    finding f;
    j.seconds = 1.5;
    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--lemon")) with_peer = 0;
        else if (!strcmp(argv[i], "--quick")) with_peer = shape = 0, quick = rounds = 1, j.seconds = 0.4;
        else if (!strcmp(argv[i], "--breakdown")) breakdown = 1;
        else if (!strcmp(argv[i], "--shape") && i + 1 < argc) shape = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--threads") && i + 1 < argc) threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--rounds") && i + 1 < argc) rounds = atoi(argv[++i]);
        else return fprintf(stderr, "generate: error: unknown flag %s; see the head of bench/generate.c\n", argv[i]), 2;
    }
    csv = breakdown ? NULL : speed_csv("generate", "work,shape,dtype,threads,lemon_tok_s,lemon_mean_tok_s,llama_tok_s,"
                                                   "llama2c_tok_s,limit_tok_s,lemon_bytes,llama_bytes,last_token_ms");
    if (csv)
        printf("\n| work | shape | weights | threads | lemon, tok/s | of limit | llama.cpp | llama2.c | lemon / best | "
               "last token of 512, ms |\n|---|---|---|---:|---:|---:|---:|---:|---:|---:|\n");
    for (pass = csv == NULL; pass < (quick ? 1 : 2); pass++)         /* the table, then where the time goes */
        for (i = 0; i < SHAPES * 4 * MAX_THREADS; i++) {
            p = i / MAX_THREADS % 2, d = i / MAX_THREADS / 2 % 2, t = i % MAX_THREADS + 1;
            j.shape = &shapes[i / MAX_THREADS / 4], j.prefill = p, j.threads = t, j.dtype = d ? LEMON_Q8 : LEMON_F32;
            if ((shape >= 0 && j.shape != &shapes[shape]) || (threads > 0 && threads != t)) continue;
            write_model(&j);
            if (pass) speed_child(measure_breakdown, &j, &f);
            else compare(&j, rounds, with_peer, csv, &chart);
        }
    if (csv) speed_svg("generate", "Prompts and decoding, tokens a second", "the better of llama.cpp and llama2.c", &chart);
    return csv != NULL && fclose(csv) != 0;
}
