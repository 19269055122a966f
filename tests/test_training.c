/*  Chapter 11: evaluation windows, schedules, orders, AdamW against a naive double-precision trainer, accumulation, resume
    to the last bit, divergence, cancelling, distillation. */
#include "reference.h"
#include <signal.h>
#include <sys/wait.h>

/* ---- a small world: a model, a text with something to learn, options ---- */

enum { TEXT = 1200 };
static int32_t text_ids[TEXT];
static lemon_tokens text = {text_ids, TEXT, TEXT};

static lemon_config world_config(void) {
    lemon_config c = tiny_config(16, 2, 2, 1, 8, 24, 30, 1);
    c.max_seq = 32;
    return c;
}

/*  A walk on a ring of 30 with few kinds of steps. */
static void world_text(void) {
    lemon_rng rng;
    int i;
    lemon_rng_seed(&rng, 4);
    for (i = 1; i < TEXT; i++) text_ids[i] = (int32_t)((text_ids[i - 1] + 1 + 3 * lemon_rng_below(&rng, 3)) % 30);
}

static lemon_model *world_model(lemon_ctx *ctx) {
    lemon_config c = world_config();
    lemon_model *m = NULL;
    lemon_model_create(ctx, &c, &m);
    lemon_model_init(ctx, m, 1);
    return m;
}

/*  What on_step saw. */
enum { LOG = 128 };
typedef struct record {
    lemon_step steps[LOG];
    int n;
    lemon_model *model;
    float *snapshot;            /* of the weights, taken after each step until `until` */
    int until, poison_at, exit_at;
    float poison;               /* all weights times that */
    long calls[LOG];
} record;

static void on_step(void *user, const lemon_step *step) {
    record *r = (record *)user;
    if (r->n < LOG) r->calls[r->n] = heap.calls;
    if (r->n < LOG) r->steps[r->n++] = *step;
    if (step->step == r->exit_at) kill(getpid(), SIGKILL);
    if (step->step == r->poison_at) {
        int64_t i;
        for (i = 0; i < r->model->block_count; i++) r->model->block[i] *= r->poison;
    }
    if (r->snapshot && step->step <= r->until) memcpy(r->snapshot, r->model->block, (size_t)r->model->block_count * sizeof(float));
}

static lemon_train_options world_options(record *r) {
    lemon_train_options o;
    lemon_train_defaults(&o);
    o.steps = 12;
    o.batch = 4;
    o.seq = 16;
    o.lr = 5e-3;
    o.on_step = on_step;
    o.user = r;
    memset(r, 0, sizeof *r);
    return o;
}

/*  Trains a fresh model; the result is checked by the caller through what it left. */
static lemon_status train_fresh(lemon_ctx *ctx, const lemon_train_options *o, lemon_train_result *result,
                                float **weights) {
    lemon_model *m = world_model(ctx);
    lemon_status status = lemon_train(ctx, m, &text, o, result);
    if (weights) {
        *weights = (float *)malloc((size_t)m->block_count * sizeof **weights);
        memcpy(*weights, m->block, (size_t)m->block_count * sizeof **weights);
    }
    lemon_model_free(ctx, m);
    return status;
}

static int64_t world_count(void) {
    lemon_config c = world_config();
    return lemon_config_params(&c);
}

/* ---- evaluation ---- */

static double naive_window(const lemon_model *m, const double *w, const int32_t *ids, int64_t n) {
    double *scores = ref_room(n * m->config.vocab_size), loss;
    ref_model(&m->config, w, ids, n, n, scores);
    loss = ref_loss(scores, NULL, ids + 1, n, m->config.vocab_size, 1).ce;
    free(scores);
    return loss;
}

static void test_eval(lemon_ctx *ctx) {
    static const int64_t cases[][2] = {{16, 0},  {7, 0},  {32, 0},  {1, 50}, {16, 33},
                                       {16, 34}, {16, 2}, {13, 27}, {0, 100}};
    lemon_config c = world_config();
    lemon_model *m = lively_model(ctx, &c, 3);
    double *w = ref_weights(m);
    size_t i;
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t n = cases[i][1] ? cases[i][1] : TEXT, seq = cases[i][0] ? cases[i][0] : 32, at, counted = 0;
        double want = 0, loss = 0;
        char name[96];
        for (at = 0; at < n - 1; at += seq) {
            int64_t rows = n - 1 - at < seq ? n - 1 - at : seq;
            want += naive_window(m, w, text_ids + at, rows) * (double)rows;
        }
        snprintf(name, sizeof name, "evaluation by windows of %d over %d tokens", (int)cases[i][0], (int)n);
        check(fine(ctx, lemon_eval(ctx, m, &text, cases[i][0], cases[i][1], &loss, &counted)) && counted == n - 1 &&
                  near_to(loss, want / (double)(n - 1), 1e-5),
              name);
    }
    free(w);
    lemon_model_free(ctx, m);
}

/*  More rows than one batch of evaluation holds: the last batch is ragged. */
static void test_eval_batches(lemon_ctx *ctx) {
    enum { N = 5000 };
    lemon_config c = tiny_config(4, 1, 1, 1, 4, 5, 12, 0);
    lemon_model *m = lively_model(ctx, &c, 3);
    double *w = ref_weights(m), want = 0, loss = 0;
    int32_t *ids = (int32_t *)malloc(N * sizeof *ids);
    lemon_tokens tokens;
    lemon_rng rng;
    int64_t at;
    lemon_rng_seed(&rng, 1);
    fill_ids(&rng, ids, N, 12);
    tokens.ids = ids;
    tokens.count = tokens.capacity = N;
    for (at = 0; at < N - 1; at += 9) {
        int64_t rows = N - 1 - at < 9 ? N - 1 - at : 9;
        want += naive_window(m, w, ids + at, rows) * (double)rows;
    }
    check(fine(ctx, lemon_eval(ctx, m, &tokens, 9, 0, &loss, NULL)) && near_to(loss, want / (N - 1), 1e-5),
          "evaluation over several batches of windows");
    free(w);
    free(ids);
    lemon_model_free(ctx, m);
}

static void test_eval_refusals(lemon_ctx *ctx) {
    lemon_model *m = world_model(ctx);
    lemon_tokens one = {text_ids, 1, 1};
    int32_t wrong[3] = {1, 30, 2};
    lemon_tokens beyond = {wrong, 3, 3};
    double loss;
    check(fails_with(ctx, lemon_eval(ctx, m, &text, 33, 0, &loss, NULL), LEMON_E_ARG, "seq is 33, expected 1 to 32"),
          "eval refuses seq beyond the context");
    check(fails_with(ctx, lemon_eval(ctx, m, &one, 16, 0, &loss, NULL), LEMON_E_ARG, "expected at least 2"),
          "eval refuses one token");
    check(fails_with(ctx, lemon_eval(ctx, m, &beyond, 16, 0, &loss, NULL), LEMON_E_ARG, "token 1 is 30"),
          "eval refuses ids beyond the vocabulary");
    lemon_model_free(ctx, m);
}

/* ---- the learning rate ---- */

static double naive_rate(const lemon_train_options *o, int64_t s) {
    double least = o->min_lr < 0 ? o->lr / 10 : o->min_lr, rate;
    int64_t warmup = o->warmup < 0 ? o->steps / 20 : o->warmup;
    if (warmup > 0 && s <= warmup) return o->lr * fmin(1, (double)s / (double)warmup);
    if (o->schedule == LEMON_CONSTANT) return o->lr;
    rate = (double)(s - warmup) / (double)(o->steps - warmup);
    return least + (o->lr - least) * (1 + cos(acos(-1.0) * rate)) / 2;
}

static void test_rates(lemon_ctx *ctx) {
    static const struct { const char *name; int64_t steps, warmup; lemon_schedule schedule; double least; } cases[] = {
        {"cosine, all by default", 40, -1, LEMON_COSINE, -1}, {"cosine to 0 without warm-up", 15, 0, LEMON_COSINE, 0},
        {"cosine to 1e-3, warm-up 7", 20, 7, LEMON_COSINE, 1e-3}, {"constant, warm-up 5", 12, 5, LEMON_CONSTANT, -1},
        {"warm-up longer than the run", 6, 10, LEMON_COSINE, -1}};
    record r;
    size_t i;
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lemon_train_options o = world_options(&r);
        char name[96];
        int s, ok;
        o.steps = cases[i].steps;
        o.warmup = cases[i].warmup;
        o.schedule = cases[i].schedule;
        o.min_lr = cases[i].least;
        o.batch = 1;
        o.seq = 4;
        ok = fine(ctx, train_fresh(ctx, &o, NULL, NULL)) && r.n == o.steps;
        for (s = 0; ok && s < r.n; s++)
            ok = near_to(r.steps[s].lr / o.lr, naive_rate(&o, s + 1) / o.lr, 1e-12) && r.steps[s].step == s + 1 &&
                 r.steps[s].tokens == 4 * (s + 1);
        snprintf(name, sizeof name, "learning rate: %s", cases[i].name);
        check(ok, name);
    }
}

/* ---- which windows a step takes: at rate 0 the loss of a step tells ---- */

static void test_sequential(lemon_ctx *ctx) {
    record r;
    lemon_train_options o = world_options(&r);
    lemon_model *m = world_model(ctx);
    double *w = ref_weights(m);
    int64_t windows = (TEXT - 1) / 16;                          /* 74: 12 steps of 10 wrap around */
    int s, b, ok;
    o.lr = 0;
    o.batch = 10;
    o.order = LEMON_SEQUENTIAL;
    ok = fine(ctx, lemon_train(ctx, m, &text, &o, NULL)) && r.n == 12;
    for (s = 0; ok && s < 12; s++) {
        double want = 0;
        for (b = 0; b < 10; b++) want += naive_window(m, w, text_ids + (s * 10 + b) % windows * 16, 16) / 10;
        ok = near_to(r.steps[s].loss, want, 1e-5);
    }
    check(ok, "sequential: windows s B ... s B + B - 1, modulo their number");
    free(w);
    lemon_model_free(ctx, m);
}

/*  One epoch at rate 0, a window a step: fills order with the window of each step, -1 where none has that loss. */
static void epoch_order(lemon_ctx *ctx, uint64_t seed, int windows, int epochs, int *order) {
    record r;
    lemon_train_options o = world_options(&r);
    lemon_config c = world_config();
    lemon_model *m = lively_model(ctx, &c, 9);
    double *w = ref_weights(m), loss[LOG];
    lemon_tokens some = text;
    int i, s;
    some.count = windows * 16 + 1 + 5;                          /* a last, short window is never taken */
    o.lr = 0;
    o.batch = 1;
    o.seed = seed;
    o.steps = windows * epochs;
    lemon_train(ctx, m, &some, &o, NULL);
    for (i = 0; i < windows; i++) loss[i] = naive_window(m, w, text_ids + i * 16, 16);
    for (s = 0; s < windows * epochs; s++)
        for (i = 0, order[s] = -1; i < windows; i++)
            if (s < r.n && fabs(r.steps[s].loss - loss[i]) < 1e-4) order[s] = i;
    free(w);
    lemon_model_free(ctx, m);
}

static void test_random_order(lemon_ctx *ctx) {
    enum { N = 20 };
    int a[2 * N], b[2 * N], i, times[2][N] = {{0}}, wrong = 0, sorted = 1;
    epoch_order(ctx, 1, N, 2, a);
    epoch_order(ctx, 2, N, 2, b);
    for (i = 0; i < 2 * N; i++) {
        if (a[i] >= 0) times[i / N][a[i]]++;
        if (i % N) sorted &= a[i] > a[i - 1];
    }
    for (i = 0; i < N; i++) wrong += times[0][i] != 1 || times[1][i] != 1;
    check(wrong == 0, "random: each window once an epoch, the short last one never");
    check(!sorted && memcmp(a, a + N, sizeof a / 2) != 0, "in another order each epoch");
    check(memcmp(a, b, sizeof a) != 0, "and for each seed");
    epoch_order(ctx, 1, N, 2, b);
    check(memcmp(a, b, sizeof a) == 0, "the same for the same seed");
}

/* ---- AdamW, naively: gradients by finite differences, all in double ---- */

typedef struct naive_adam { double *w, *m, *v, *g; int64_t n; } naive_adam;

static double naive_batch(const lemon_model *m, const double *w, int64_t step, int batch, int seq) {
    double sum = 0;
    int b;
    for (b = 0; b < batch; b++) sum += naive_window(m, w, text_ids + (step * batch + b) * seq, seq) / batch;
    return sum;
}

static int is_gain(const lemon_model *m, int64_t at) {
    int64_t p = 0, layer;
    while (at >= m->params[p].rows * m->params[p].cols) {
        at -= m->params[p].rows * m->params[p].cols;
        p++;
    }
    return !lemon_role_get(lemon__param_role(&m->config, p, &layer))->matrix;
}

/*  One step; returns the gradient's norm before clipping. */
static double naive_step(const lemon_model *model, naive_adam *a, int64_t step, const lemon_train_options *o) {
    double norm = 0, h = 1e-5, clip;
    int64_t i;
    for (i = 0; i < a->n; i++) {
        double keep = a->w[i];
        a->w[i] = keep + h;
        a->g[i] = naive_batch(model, a->w, step, (int)o->batch, (int)o->seq);
        a->w[i] = keep - h;
        a->g[i] = (a->g[i] - naive_batch(model, a->w, step, (int)o->batch, (int)o->seq)) / (2 * h);
        a->w[i] = keep;
        norm += a->g[i] * a->g[i];
    }
    norm = sqrt(norm);
    clip = o->clip > 0 && norm > o->clip ? o->clip / norm : 1;
    for (i = 0; i < a->n; i++) {
        double g = a->g[i] * clip, decay = is_gain(model, i) ? 0 : o->weight_decay, t = (double)step + 1;
        a->m[i] = 0.9 * a->m[i] + 0.1 * g;
        a->v[i] = 0.95 * a->v[i] + 0.05 * g * g;
        a->w[i] -= naive_rate(o, step + 1) *
                   (a->m[i] / (1 - pow(0.9, t)) / (sqrt(a->v[i] / (1 - pow(0.95, t))) + 1e-8) + decay * a->w[i]);
    }
    return norm;
}

static void test_adam(lemon_ctx *ctx, double clip, const char *name) {
    lemon_config c = tiny_config(6, 1, 2, 1, 4, 7, 30, 0);
    lemon_model *m = lively_model(ctx, &c, 2);
    record r;
    lemon_train_options o = world_options(&r);
    naive_adam a;
    double worst = 0, mean = 0, moved = 0, *start = ref_weights(m);
    int64_t i, s;
    int ok = 1;
    char line[96];
    o.steps = 4;
    o.warmup = 2;
    o.batch = 2;
    o.seq = 6;
    o.clip = clip;
    o.weight_decay = 0.3;
    o.order = LEMON_SEQUENTIAL;
    a.n = m->block_count;
    a.w = ref_weights(m);
    a.m = ref_room(a.n);
    a.v = ref_room(a.n);
    a.g = ref_room(a.n);
    ok = fine(ctx, lemon_train(ctx, m, &text, &o, NULL)) && r.n == 4;
    for (s = 0; ok && s < 4; s++) {
        ok = near_to(r.steps[s].loss, naive_batch(m, a.w, s, 2, 6), 1e-4);
        ok = ok && near_to(r.steps[s].grad_norm, naive_step(m, &a, s, &o), 1e-3);
    }
    snprintf(line, sizeof line, "AdamW, %s: losses and gradient norms of the naive trainer", name);
    check(ok, line);
    for (i = 0; i < a.n; i++) {
        double error = fabs((double)m->block[i] - a.w[i]) / o.lr;
        mean += error / (double)a.n;
        moved += fabs(a.w[i] - start[i]) / o.lr / (double)a.n;
        worst = error > worst ? error : worst;
    }
    detail("in units of the rate: mean error %.2g, worst %.2g, mean way %.2g", mean, worst, moved);
    snprintf(line, sizeof line, "AdamW, %s: weights of the naive trainer", name);
    check(mean < 3e-4 && worst < 0.1 && moved > 0.5, line);
    free(a.w); free(a.m); free(a.v); free(a.g); free(start);
    lemon_model_free(ctx, m);
}

/* ---- accumulation, threads, memory ---- */

static void test_accumulate(lemon_ctx *ctx) {
    record r[3];
    float *w[3];
    int i, s, ok = 1;
    int64_t k;
    double worst = 0;
    for (i = 0; i < 3; i++) {
        lemon_train_options o = world_options(&r[i]);
        o.accumulate = 1 << i;
        ok &= fine(ctx, train_fresh(ctx, &o, NULL, &w[i]));
        for (s = 0; ok && s < 12; s++)
            ok = near_to(r[i].steps[s].loss, r[0].steps[s].loss, 1e-5) &&
                 near_to(r[i].steps[s].grad_norm, r[0].steps[s].grad_norm, 1e-4);
        for (k = 0; ok && k < world_count(); k++) worst = fmax(worst, fabs((double)w[i][k] - (double)w[0][k]));
    }
    check(ok, "a batch in 2 or 4 parts has the losses and norms of one in one part");
    detail("weights differ by %g", worst);
    check(ok && worst < 1e-3, "and nearly its weights after 12 steps");
    for (i = 0; i < 3; i++) free(w[i]);
}

static void test_threads(void) {
    float *w[3];
    record r[3];
    int threads, ok = 1;
    size_t bytes = (size_t)world_count() * sizeof(float);
    for (threads = 1; threads <= 3; threads++) {
        lemon_ctx *ctx = open_ctx(threads);
        lemon_train_options o = world_options(&r[threads - 1]);
        ok &= fine(ctx, train_fresh(ctx, &o, NULL, &w[threads - 1]));
        lemon_close(ctx);
    }
    check(ok && memcmp(w[0], w[1], bytes) == 0 && memcmp(w[0], w[2], bytes) == 0,
          "1, 2 and 3 threads train the same bits");
    for (threads = 0; threads < 3; threads++) free(w[threads]);
}

static size_t planned, planned_scratch;
static long planned_calls;
static void on_plan(void *user, size_t bytes, size_t in_scratch) {
    (void)user;
    planned = bytes;
    planned_scratch = in_scratch;
    planned_calls = heap.calls;
}

static void test_allocations(void) {
    lemon_ctx *ctx = open_ctx(1);
    record r;
    lemon_train_options o = world_options(&r);
    lemon_train_result result;
    size_t before, peak;
    int s, same;
    train_fresh(ctx, &o, NULL, NULL);           /* whose buffers of the matrix products stay with the context */
    before = lemon_memory(ctx, NULL);
    memset(&r, 0, sizeof r);
    o.eval_tokens = &text;
    o.eval_every = 3;
    o.on_plan = on_plan;
    check(fine(ctx, train_fresh(ctx, &o, &result, NULL)), "training works");
    for (s = 0, same = 1; s < r.n; s++) same &= r.calls[s] == planned_calls;
    check(r.n == 12 && same, "nothing is allocated once the plan is told, by steps and evaluation");
    lemon_memory(ctx, &peak);
    check(planned == peak && planned == result.planned_bytes, "the plan is what is used in the end");
    check(planned > 16 * (size_t)world_count(), "it has weights, gradients and moments");
    check(lemon_memory(ctx, NULL) == before, "training leaves nothing allocated");
    lemon_close(ctx);
}

/*  Recomputation: the same bits from less memory.  Parts of a batch: no more memory than one of them alone takes. */
static void test_less_memory(void) {
    lemon_config c = tiny_config(16, 6, 2, 1, 8, 24, 30, 1);
    size_t bytes[4];
    float *w[4];
    int i;
    c.max_seq = 32;
    for (i = 0; i < 4; i++) {
        record r;
        lemon_train_options o = world_options(&r);
        lemon_ctx *ctx = open_ctx(2);
        lemon_model *m = NULL, *taught = lively_model(ctx, &c, 2);
        lemon_model_create(ctx, &c, &m);
        lemon_model_init(ctx, m, 1);
        o.steps = light() > 1 ? 1 : 3;
        o.seq = 32;
        o.batch = (i == 3 ? 32 : 128) / (light() > 1 ? 16 : 1);
        o.accumulate = i == 2 ? 4 : 1;
        o.recompute = i == 1;
        o.teacher = taught;
        o.distill = 0.5;
        o.on_plan = on_plan;
        check(fine(ctx, lemon_train(ctx, m, &text, &o, NULL)), i == 1 ? "training recomputes" : "training keeps all");
        bytes[i] = planned;
        w[i] = (float *)malloc((size_t)m->block_count * sizeof(float));
        memcpy(w[i], m->block, (size_t)m->block_count * sizeof(float));
        lemon_model_free(ctx, m);
        lemon_model_free(ctx, taught);
        lemon_close(ctx);
    }
    check(memcmp(w[0], w[1], (size_t)lemon_config_params(&c) * sizeof(float)) == 0, "with the same bits");
    detail("%lu and %lu bytes", (unsigned long)bytes[0], (unsigned long)bytes[1]);
    if (light() < 2) check(bytes[1] < bytes[0] * 6 / 10, "and less memory");
    check(bytes[2] == bytes[3], "a batch in four parts takes the memory of one part");
    for (i = 0; i < 4; i++) free(w[i]);
}

static void test_limit(void) {
    lemon_options options;
    lemon_ctx *ctx;
    record r;
    lemon_train_options o = world_options(&r);
    memset(&options, 0, sizeof options);
    options.threads = 1;
    options.memory = 24 << 20;
    ctx = lemon_open(&options);
    o.on_plan = on_plan;
    planned = 0;
    o.batch = 512;
    o.seq = 32;
    check(train_fresh(ctx, &o, NULL, NULL) == LEMON_E_MEMORY && planned == 0, "a batch that does not fit is refused before any step");
    check(strstr(lemon_error(ctx), "batch 512 / 1, seq 32") && strstr(lemon_error(ctx), "recompute"), "and the message says what helps");
    detail("%s", lemon_error(ctx));
    o.accumulate = 64;
    if (light()) o.steps = 1;
    check(fine(ctx, train_fresh(ctx, &o, NULL, NULL)), "in parts it fits");
    lemon_close(ctx);
}

#if LEMON__POSIX
static char said[512];
static lemon_dtype moments = LEMON_F32;

/*  Four steps of a model with so many bytes of memory, 0: enough; 1: with scratch.  Its weights are copied into w. */
static lemon_status train_within(const lemon_config *c, size_t memory, int with_scratch, int resume, lemon_train_result *result,
                                 float *w) {
    lemon_options options;
    lemon_model *m = NULL;
    record r;
    lemon_train_options o = world_options(&r);
    size_t peak;
    memset(&options, 0, sizeof options);
    options.threads = 2;
    options.memory = memory;
    options.scratch = with_scratch ? scratch("moments") : NULL;
    lemon_ctx *ctx = lemon_open(&options);
    lemon_model_create(ctx, c, &m);
    lemon_model_init(ctx, m, 1);
    o.steps = resume ? 4 : 2;
    o.schedule = LEMON_CONSTANT;
    o.save_path = scratch("moments.lemon");
    o.save_every = 2;
    o.resume = resume;
    o.moments = moments;
    o.on_plan = on_plan;
    planned = planned_scratch = 0;
    lemon_status status = lemon_train(ctx, m, &text, &o, result);
    snprintf(said, sizeof said, "%s", status ? lemon_error(ctx) : "");
    memcpy(w, m->block, (size_t)m->block_count * sizeof *w);
    lemon_memory(ctx, &peak);
    check(status || memory == 0 || (planned <= memory && peak <= memory), "what is used is within the limit");
    lemon_model_free(ctx, m);
    lemon_close(ctx);
    return status;
}

/*  Gradients and moments in a file: less memory by three quarters of 16 bytes a weight, the same bits, resumed or not. */
static void test_in_scratch(void) {
    lemon_config c = tiny_config(128, 4, 4, 2, 32, 256, 300, 0);
    c.max_seq = 32;
    const size_t count = (size_t)lemon_config_params(&c), bytes = count * sizeof(float);
    float *w[4];
    lemon_train_result all, less;
    for (int i = 0; i < 4; i++) w[i] = (float *)malloc(bytes);
    check(train_within(&c, 0, 0, 0, &all, w[0]) == LEMON_OK && train_within(&c, 0, 0, 1, &all, w[0]) == LEMON_OK &&
          all.planned_scratch == 0 && planned_scratch == 0, "with enough memory nothing lies in a file");
    check(train_within(&c, all.planned_bytes, 1, 0, &less, w[1]) == LEMON_OK && planned_scratch == 0,
          "what was planned is enough, to save in as well");
    const size_t limit = all.planned_bytes - bytes;
    check(train_within(&c, limit, 0, 0, &less, w[1]) == LEMON_E_MEMORY && strstr(said, "--max-memory"),
          "with less memory and no scratch training is refused, and told of scratch");
    check(train_within(&c, limit, 1, 0, &less, w[1]) == LEMON_OK, "with scratch it is not");
    detail("%s", said);
    check(planned_scratch >= 3 * bytes && less.planned_scratch == planned_scratch, "the plan tells what lies there");
    detail("%lu and %lu bytes", (unsigned long)less.planned_bytes, (unsigned long)all.planned_bytes);
    check(less.planned_bytes + 3 * bytes <= all.planned_bytes + (2 << 20) && less.planned_bytes < limit, "and what is saved");
    check(train_within(&c, limit, 1, 1, &less, w[2]) == LEMON_OK && memcmp(w[0], w[2], bytes) == 0,
          "it goes on from there, and ends with the same bits");
    check(train_within(&c, 0, 1, 0, &less, w[3]) == LEMON_OK && planned_scratch == 0 && memcmp(w[1], w[3], bytes) == 0,
          "where memory is enough scratch is not used, and the bits are the same");
    check(!exists(scratch("moments")) && !exists(scratch("moments.training")), "no file is left");
    check(train_within(&c, bytes + bytes / 2, 1, 0, &less, w[3]) == LEMON_E_MEMORY, "what is too little all the same is an error");
    if (limit_files(1000000)) {
        const lemon_status status = train_within(&c, limit, 1, 0, &less, w[3]);
        limit_files(0);
        detail("%s: %s", lemon_status_name(status), said);
        check(status == LEMON_E_IO && strstr(said, "moments.training: could not write"),
              "a disk too small for it is an I/O error");
    }

    train_within(&c, 0, 0, 0, &all, w[0]);
    less = all;
    moments = LEMON_BF16;
    check(train_within(&c, 0, 0, 0, &all, w[0]) == LEMON_OK && train_within(&c, 0, 0, 1, &all, w[0]) == LEMON_OK,
          "moments of bf16 go on too");
    detail("%lu and %lu bytes", (unsigned long)less.planned_bytes, (unsigned long)all.planned_bytes);
    check(less.planned_bytes >= all.planned_bytes + bytes - 4096 && less.planned_bytes <= all.planned_bytes + bytes + 4096,
          "for 4 bytes a weight less");
    const size_t tight = limit - bytes;
    check(train_within(&c, tight, 1, 0, &less, w[1]) == LEMON_OK && train_within(&c, tight, 1, 1, &less, w[1]) == LEMON_OK &&
          planned_scratch >= 2 * bytes && planned_scratch < 3 * bytes && memcmp(w[0], w[1], bytes) == 0,
          "in a file, with the same bits");
    moments = LEMON_F32;
    check(train_within(&c, 0, 0, 1, &all, w[1]) == LEMON_E_ARG && strstr(said, "--moments is"), "a run goes on with the type it began with");
    for (int i = 0; i < 4; i++) free(w[i]);
}
#endif

/*  AdamW's moments as bf16: a step rounds what plain C beside it rounds, and a run comes to about the same loss. */
static void test_short_moments(lemon_ctx *ctx) {
    lemon__trainer t;
    record r;
    lemon_train_result full, half;
    double worst = 0.0;
    float m = 0.0f, v = 0.0f;
    memset(&t, 0, sizeof t);
    t.ctx = ctx, t.model = world_model(ctx), t.o = world_options(&r);
    t.o.moments = LEMON_BF16;
    lemon__train_resolve(&t.model->config, &t.o);
    check(fine(ctx, lemon__trainer_open(&t, &text)) && t.adam.m.dtype == LEMON_BF16, "AdamW's moments may be bf16");
    const int64_t last = t.adam.count - 1;              /* of a piece that is not full */
    double w = (double)t.adam.w[last];
    for (int step = 1; step <= 5; step++) {
        for (int64_t i = 0; i <= last; i++) t.adam.g[i] = 0.3f + 0.1f * (float)step;
        const double g = (double)t.adam.g[last];
        m = (float)(0.9 * (double)m + 0.1 * g), v = (float)(0.95 * (double)v + 0.05 * g * g);
        w -= 1e-2 * (double)m / (1 - pow(0.9, step)) / (sqrt((double)v / (1 - pow(0.95, step))) + 1e-8);
        m = lemon_f32_from_bf16(lemon_bf16_from_f32(m)), v = lemon_f32_from_bf16(lemon_bf16_from_f32(v));
        lemon__adam_step(ctx, &t.adam, step, 1e-2, 1.0, 0.0);
        worst = fmax(worst, fabs(w - (double)t.adam.w[last]));
    }
    detail("%g", worst);
    check(t.adam.segments[t.adam.n_segments - 1].decay == 0.0f && worst < 1e-6, "they are rounded after each step");
    lemon_model_free(ctx, t.model);
    lemon__trainer_release(&t);
    lemon_train_options o = world_options(&r);
    o.steps = 60;
    check(fine(ctx, train_fresh(ctx, &o, &full, NULL)), "a run with moments of f32");
    o.moments = LEMON_BF16;
    check(fine(ctx, train_fresh(ctx, &o, &half, NULL)), "and one of bf16");
    detail("%g, %g", full.train_loss, half.train_loss);
    check(fabs(full.train_loss - half.train_loss) < 0.01 && fabs(full.train_loss - half.train_loss) > 0.0,
          "they come to about the same loss");
}

static void test_memory(lemon_ctx *ctx) {
    long live = heap.live;
    int n, bad = 0, done = 0;
    for (n = 1; !done && n < 200; n++) {
        record r;
        lemon_train_options o = world_options(&r);
        lemon_model *m = world_model(ctx);
        lemon_status status;
        o.steps = 1;
        o.eval_tokens = &text;
        heap.calls = 0;
        heap.fail_at = n;
        status = lemon_train(ctx, m, &text, &o, NULL);
        heap.fail_at = 0;
        done = status == LEMON_OK;
        bad += !done && status != LEMON_E_MEMORY;
        lemon_model_free(ctx, m);
        bad += heap.live != live;
    }
    check(done && bad == 0 && n > 5, "training survives every failed allocation");
}

/* ---- learning, results, saving ---- */

static void test_result(lemon_ctx *ctx) {
    record r;
    lemon_train_options o = world_options(&r);
    lemon_train_result result;
    lemon_model *m = world_model(ctx), *back = NULL;
    lemon_tokens held = {text_ids, 200, 200};
    double mean = 0, loss = 0;
    int s, marks = 1;
    o.steps = 40;
    o.eval_tokens = &held;
    o.eval_every = 15;
    o.save_path = scratch("out.lemon");
    check(fine(ctx, lemon_train(ctx, m, &text, &o, &result)), "a run with evaluation and saving");
    detail("%g to %g", r.steps[0].loss, r.steps[39].loss);
    check(r.steps[39].loss < 0.9 * r.steps[0].loss, "the loss falls");
    for (s = 30; s < 40; s++) mean += r.steps[s].loss / 10;
    check(near_to(result.train_loss, mean, 1e-12) && result.steps == 40 && result.tokens == 40 * 64,
          "train_loss is the mean of the last ten steps");
    lemon_eval(ctx, m, &held, 16, 0, &loss, NULL);
    check(near_to(result.eval_loss, loss, 1e-9), "eval_loss is that of the trained model");
    for (s = 0; s < 40; s++) marks &= isnan(r.steps[s].eval_loss) == ((s + 1) % 15 != 0);
    check(marks, "every 15 steps are evaluated, others are NaN");
    check(fine(ctx, lemon_load(ctx, o.save_path, &back)) &&
              memcmp(lemon_model_param(back, LEMON_WQ, 1)->data, lemon_model_param(m, LEMON_WQ, 1)->data,
                     16 * 16 * 4) == 0,
          "what is saved is what was trained");
    check(!exists(scratch("out.lemon.resume")), "without save_every there is no .resume");
    lemon_model_free(ctx, back);
    lemon_model_free(ctx, m);
}

static void test_refusals(lemon_ctx *ctx) {
    static const struct { size_t field; int whole; double value; const char *message;
    } wrongs[] = {{offsetof(lemon_train_options, steps), 1, 0, "steps is 0"},
                  {offsetof(lemon_train_options, batch), 1, 0, "batch is 0"},
                  {offsetof(lemon_train_options, seq), 1, 33, "seq is 33"},
                  {offsetof(lemon_train_options, accumulate), 1, 3, "accumulate is 3, expected a divisor of batch"},
                  {offsetof(lemon_train_options, accumulate), 1, 0, "accumulate is 0"},
                  {offsetof(lemon_train_options, lr), 0, -1, "lr is -1"},
                  {offsetof(lemon_train_options, lr), 0, (double)NAN, "lr is"},
                  {offsetof(lemon_train_options, clip), 0, -2, "clip is -2"},
                  {offsetof(lemon_train_options, weight_decay), 0, -0.5, "weight_decay is -0.5"},
                  {offsetof(lemon_train_options, temperature), 0, 0, "temperature is 0"},
                  {offsetof(lemon_train_options, save_every), 1, -1, "save_every is -1"}};
    record r;
    lemon_tokens few = {text_ids, 16, 16}, one = {text_ids, 1, 1};
    lemon_model *m = world_model(ctx), *mapped = NULL, *other = NULL;
    lemon_config c = world_config();
    lemon_train_options o;
    size_t i;
    char name[96], path[5000];
    for (i = 0; i < sizeof wrongs / sizeof wrongs[0]; i++) {
        int64_t whole = (int64_t)(wrongs[i].whole ? wrongs[i].value : 0);
        o = world_options(&r);
        memcpy((char *)&o + wrongs[i].field, wrongs[i].whole ? (const void *)&whole : (const void *)&wrongs[i].value,
               8);
        snprintf(name, sizeof name, "train refuses: %s", wrongs[i].message);
        check(fails_with(ctx, lemon_train(ctx, m, &text, &o, NULL), LEMON_E_ARG, wrongs[i].message) && r.n == 0, name);
    }
    o = world_options(&r);
    check(fails_with(ctx, lemon_train(ctx, m, &few, &o, NULL), LEMON_E_ARG,
                     "the text has 16 tokens, expected at least 17"),
          "train refuses a text without one window");
    o.eval_tokens = &one;
    check(fails_with(ctx, lemon_train(ctx, m, &text, &o, NULL), LEMON_E_ARG, "the evaluation text has 1 tokens, expected at least 2"),
          "train refuses an evaluation text of one token");
    o = world_options(&r);
    o.moments = LEMON_Q8;
    check(fails_with(ctx, lemon_train(ctx, m, &text, &o, NULL), LEMON_E_ARG, "moments is 3, expected LEMON_F32 or LEMON_BF16"),
          "train refuses moments of another type");
    o = world_options(&r);
    c.vocab_size = 31;
    other = lively_model(ctx, &c, 1);
    o.teacher = other;
    o.distill = 0.5;
    check(fails_with(ctx, lemon_train(ctx, m, &text, &o, NULL), LEMON_E_ARG, "vocab_size is 31, expected 30"),
          "train refuses a teacher of another vocabulary");
    o = world_options(&r);
    memset(path, 'a', sizeof path - 1);
    path[sizeof path - 1] = 0;
    o.save_path = path;
    o.resume = 1;
    check(fails_with(ctx, lemon_train(ctx, m, &text, &o, NULL), LEMON_E_ARG, "the path to save to has 4999 bytes"),
          "train refuses a path that is too long");
    o = world_options(&r);
    lemon_save(ctx, scratch("q8.lemon"), m, LEMON_Q8);
    lemon_load(ctx, scratch("q8.lemon"), &mapped);
    check(fails_with(ctx, lemon_train(ctx, mapped, &text, &o, NULL), LEMON_E_ARG, "does not own f32 weights"),
          "train refuses weights it cannot change");
    lemon_model_free(ctx, m);
    lemon_model_free(ctx, other);
    lemon_model_free(ctx, mapped);
}

static int nobody(void *user, void *numbers, int64_t count, size_t bytes) {
    (void)user, (void)numbers, (void)count, (void)bytes;
    return 1;
}

/*  One process of two, of which the other never answers. */
static void test_no_others(void) {
    record r;
    lemon_train_options o = world_options(&r);
    lemon_options options;
    lemon_ctx *ctx;
    lemon_model *m;
    memset(&options, 0, sizeof options);
    options.threads = 1;
    options.ranks = 2;
    options.all_reduce = nobody;
    ctx = lemon_open(&options);
    m = world_model(ctx);
    check(fails_with(ctx, lemon_train(ctx, m, &text, &o, NULL), LEMON_E_ARG, "expected a multiple of the number of processes, 2"),
          "two processes share an even number of parts");
    o.accumulate = 2;
    check(fails_with(ctx, lemon_train(ctx, m, &text, &o, NULL), LEMON_E_IO, "process 0 of 2 could not reach the others"),
          "a process that cannot reach the others says so");
    lemon_model_free(ctx, m);
    lemon_close(ctx);
}

/* ---- resume ---- */

static void test_killed(void) {
    record r;
    lemon_train_options o = world_options(&r);
    lemon_ctx *ctx;
    lemon_model *m;
    int status = 0;
    pid_t child;
    o.save_every = 4;
    o.save_path = scratch("whole.lemon");
    ctx = open_ctx(1);
    check(fine(ctx, train_fresh(ctx, &o, NULL, NULL)) && exists(scratch("whole.lemon.resume")),
          "a run that saves as it goes");
    lemon_close(ctx);
    fflush(stdout);
    o.save_path = scratch("killed.lemon");
    child = fork();
    if (child == 0) {                                           /* dies without a word two steps after it saved */
        r.exit_at = 6;
        ctx = open_ctx(1);
        train_fresh(ctx, &o, NULL, NULL);
        _exit(0);
    }
    waitpid(child, &status, 0);
    check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && exists(scratch("killed.lemon.resume")) &&
              !same_files(scratch("whole.lemon"), o.save_path),
          "the same run, killed at step 6");
    ctx = open_ctx(2);                                          /* goes on, with more threads */
    m = world_model(ctx);
    memset(&r, 0, sizeof r);
    o.resume = 1;
    check(fine(ctx, lemon_train(ctx, m, &text, &o, NULL)) && r.n == 8 && r.steps[0].step == 5,
          "resumed, it goes on behind step 4");
    check(same_files(scratch("whole.lemon"), scratch("killed.lemon")), "and ends with the same bits of weights");
    check(same_files(scratch("whole.lemon.resume"), scratch("killed.lemon.resume")), "and of optimiser and position");
    lemon_model_free(ctx, m);
    lemon_close(ctx);
}

static int stop_at_once(void *user, const lemon_progress *p) { (void)user; return strcmp(p->what, "train") == 0; }

static void test_cancelled(void) {
    record r;
    lemon_train_options o = world_options(&r);
    lemon_options options;
    lemon_ctx *stopping, *ctx = open_ctx(1);
    lemon_model *m, *saved = NULL;
    memset(&options, 0, sizeof options);
    options.threads = 1;
    options.progress = stop_at_once;
    stopping = lemon_open(&options);
    m = world_model(stopping);
    o.save_path = scratch("cancelled.lemon");
    check(fails_with(stopping, lemon_train(stopping, m, &text, &o, NULL), LEMON_E_CANCELLED,
                     "training was stopped after step 1 of 12"),
          "the progress callback stops training");
    check(fine(ctx, lemon_load(ctx, o.save_path, &saved)) &&
              memcmp(lemon_model_param(saved, LEMON_TOK_EMBED, 0)->data, m->block, 30 * 16 * 4) == 0 &&
              exists(scratch("cancelled.lemon.resume")),
          "and what it came to is saved");
    lemon_model_free(ctx, saved);
    lemon_model_free(stopping, m);
    lemon_close(stopping);
    m = world_model(ctx);
    o.resume = 1;
    o.save_every = 4;
    check(fine(ctx, lemon_train(ctx, m, &text, &o, NULL)) && same_files(scratch("whole.lemon"), o.save_path) &&
              same_files(scratch("whole.lemon.resume"), scratch("cancelled.lemon.resume")),
          "resumed, it ends with the bits of the run that was never stopped");
    lemon_model_free(ctx, m);
    lemon_close(ctx);
}

/*  Whatever would change the run is refused by the name of its flag. */
static void test_resume_refusals(lemon_ctx *ctx) {
    static const char *const names[] = {"batch",  "seq",      "accumulate",   "lr",      "min-lr",
                                        "warmup", "schedule", "weight-decay", "clip",    "temperature",
                                        "order",  "seed",     "data",         "teacher", "steps"};
    record r;
    lemon_model *m = world_model(ctx);
    lemon_tokens shorter = text;
    size_t i;
    char name[96], flag[32];
    for (i = 0; i < sizeof names / sizeof names[0]; i++) {
        lemon_train_options o = world_options(&r);
        lemon_status status;
        o.resume = 1;
        o.save_path = scratch("whole.lemon");
        switch (i) {
        case 0: o.batch = 8; break;
        case 1: o.seq = 8; break;
        case 2: o.accumulate = 2; break;
        case 3: o.lr = 4e-3; o.min_lr = 5e-4; break;
        case 4: o.min_lr = 1e-4; break;
        case 5: o.warmup = 3; break;
        case 6: o.schedule = LEMON_CONSTANT; o.min_lr = 5e-4; break;
        case 7: o.weight_decay = 0.2; break;
        case 8: o.clip = 2; break;
        case 9: o.temperature = 2; break;
        case 10: o.order = LEMON_SEQUENTIAL; break;
        case 11: o.seed = 2; break;
        case 12: shorter.count = TEXT - 1; break;
        case 13: o.teacher = m; break;
        default: o.steps = 24; break;           /* not the warm-up that follows from it */
        }
        status = lemon_train(ctx, m, i == 12 ? &shorter : &text, &o, NULL);
        snprintf(flag, sizeof flag, "--%s is", names[i]);
        snprintf(name, sizeof name, "resume refuses another %s", names[i]);
        check(fails_with(ctx, status, LEMON_E_ARG, flag) && r.n == 0, name);
    }
    lemon_model_free(ctx, m);
}

static void test_resume_damage(lemon_ctx *ctx) {
    record r;
    lemon_train_options o = world_options(&r);
    lemon_config c = world_config();
    lemon_model *m = world_model(ctx), *other;
    size_t n;
    char *bytes = slurp(scratch("whole.lemon.resume"), &n);
    o.resume = 1;
    o.save_path = scratch("none.lemon");
    check(fails_with(ctx, lemon_train(ctx, m, &text, &o, NULL), LEMON_E_IO, "none.lemon.resume"),
          "resume without a file names it");
    o.save_path = scratch("cut.lemon");
    spill(scratch("cut.lemon.resume"), bytes, n / 2);
    check(lemon_train(ctx, m, &text, &o, NULL) == LEMON_E_FORMAT && strstr(lemon_error(ctx), "cut.lemon.resume"),
          "a .resume that was cut is refused");
    bytes[n - 100] = (char)(bytes[n - 100] ^ 4);
    spill(scratch("cut.lemon.resume"), bytes, n);
    check(lemon_train(ctx, m, &text, &o, NULL) == LEMON_E_FORMAT, "one with a flipped bit is refused");
    spill(scratch("cut.lemon.resume"), "", 0);
    check(lemon_train(ctx, m, &text, &o, NULL) != LEMON_OK, "an empty one is refused");
    o.steps = 1;
    o.save_path = scratch("whole.lemon");
    check(lemon_train(ctx, m, &text, &o, NULL) == LEMON_E_ARG, "resume refuses fewer steps than are done");
    o = world_options(&r);
    o.schedule = LEMON_CONSTANT;
    o.steps = o.save_every = 4;
    o.save_path = scratch("constant.lemon");
    check(fine(ctx, lemon_train(ctx, m, &text, &o, NULL)), "a run whose rate does not fall");
    o.resume = 1;
    o.steps = 2;
    check(fails_with(ctx, lemon_train(ctx, m, &text, &o, NULL), LEMON_E_ARG, "4 steps are done, expected at most --steps, which is 2"),
          "resumed with fewer steps it says how many are done");
    o.steps = 24;                                               /* whose twentieth is a warm-up of 1, not 0 */
    check(fine(ctx, lemon_train(ctx, m, &text, &o, NULL)), "resumed with more, for which the warm-up is the same, it goes on");
    remove(o.save_path);
    check(fine(ctx, lemon_train(ctx, m, &text, &o, NULL)) && exists(o.save_path), "once more: a model that is gone is there again");
    o = world_options(&r);
    o.resume = 1;
    c.d_ffn = 25;
    other = lively_model(ctx, &c, 1);
    o.save_path = scratch("whole.lemon");
    check(fails_with(ctx, lemon_train(ctx, other, &text, &o, NULL), LEMON_E_ARG, "another shape"),
          "resume refuses a model of another shape");
    o.save_path = NULL;
    check(fails_with(ctx, lemon_train(ctx, m, &text, &o, NULL), LEMON_E_ARG, "save_path"),
          "resume without a path is refused");
    free(bytes);
    lemon_model_free(ctx, m);
    lemon_model_free(ctx, other);
}

/* ---- divergence ---- */

/*  After step 3 all weights are multiplied: by 1e25, which gives a loss and infinite gradients, or by NaN, which gives none.
    The weights at the end are those after step `after`. */
static void test_diverged(lemon_ctx *ctx, float poison, int after, const char *says) {
    record r;
    lemon_train_options o = world_options(&r);
    lemon_model *m = world_model(ctx), *saved = NULL;
    size_t bytes = (size_t)m->block_count * sizeof(float);
    float *last = (float *)malloc(bytes);
    double loss = 0;
    r.model = m;
    r.snapshot = last;
    r.until = after;
    r.poison_at = 3;
    r.poison = poison;
    o.save_path = scratch("diverged.lemon");
    check(fails_with(ctx, lemon_train(ctx, m, &text, &o, NULL), LEMON_E_DIVERGED, "step 4: the loss is") && r.n == 3 &&
              strstr(lemon_error(ctx), says) != NULL,
          "a loss or gradient that is not finite stops the run");
    check(memcmp(last, m->block, bytes) == 0, "with the last weights that gave a loss");
    check(fine(ctx, lemon_load(ctx, o.save_path, &saved)) &&
              memcmp(lemon_model_param(saved, LEMON_TOK_EMBED, 0)->data, last, 30 * 16 * 4) == 0 &&
              fine(ctx, lemon_eval(ctx, saved, &text, 0, 0, &loss, NULL)) && loss < 10,
          "which are saved");
    m->block[0] = (float)NAN;           /* a run that begins so has nothing to go back to */
    r.n = r.poison_at = 0;
    check(fails_with(ctx, lemon_train(ctx, m, &text, &o, NULL), LEMON_E_DIVERGED, "step 1: the loss is") && r.n == 0 &&
              strstr(lemon_error(ctx), "after step 0; look for NaN or Inf in the model") != NULL,
          "weights that are not numbers stop it at once");
    free(last);
    lemon_model_free(ctx, saved);
    lemon_model_free(ctx, m);
}

/* ---- distillation ---- */

/*  A teacher that reads the text once says the same as one that is asked at each step, in whatever order windows come. */
static void test_kept_teacher(lemon_ctx *ctx, const lemon_model *taught) {
    double worst = 0, from = lemon_flops(ctx), asked = 0;
    record r[2];
    int k, i;
    for (k = 0; k < 2; k++) {
        lemon_model *m = world_model(ctx);
        lemon_train_options o = world_options(&r[k]);
        o.steps = light() ? 12 : 60;
        o.teacher = taught;
        o.distill = 0.7;
        o.keep_teacher = k;
        if (!fine(ctx, lemon_train(ctx, m, &text, &o, NULL))) r[k].steps[0].kl = (double)NAN;
        lemon_model_free(ctx, m);
        if (k == 0) asked = lemon_flops(ctx) - from;
    }
    for (i = 0; i < (light() ? 12 : 60); i++) worst = fmax(worst, fabs(r[0].steps[i].kl - r[1].steps[i].kl));
    detail("largest difference of KL %g; %g and %g operations", worst, asked, lemon_flops(ctx) - from - asked);
    check(r[0].steps[0].kl > 0 && worst < 1e-4, "a kept teacher says what one asked at each step says");
    if (!light()) check(lemon_flops(ctx) - from - asked < 0.9 * asked, "and has less to do");
}

static void test_distillation(lemon_ctx *ctx) {
    lemon_config c = tiny_config(24, 2, 4, 2, 6, 30, 30, 0);
    lemon_model *teacher = lively_model(ctx, &c, 5), *m = world_model(ctx);
    double *w = ref_weights(teacher), *v = ref_weights(m), *scores = ref_room(16 * 30), *taught = ref_room(16 * 30),
           kl = 0;
    record r;
    lemon_train_options o = world_options(&r);
    int b;
    for (b = 0; b < 4; b++) {
        ref_model(&c, w, text_ids + b * 16, 16, 16, taught);
        ref_model(&m->config, v, text_ids + b * 16, 16, 16, scores);
        kl += ref_loss(scores, taught, text_ids + b * 16 + 1, 16, 30, 2).kl / 4;
    }
    o.steps = 60;
    o.order = LEMON_SEQUENTIAL;
    o.teacher = teacher;
    o.distill = 1;
    o.temperature = 2;
    check(fine(ctx, lemon_train(ctx, m, &text, &o, NULL)) && near_to(r.steps[0].kl, kl, 1e-5),
          "the KL of the first step is the naive one");
    detail("%g to %g", r.steps[0].kl, r.steps[59].kl);
    check(r.steps[59].kl < 0.7 * r.steps[0].kl, "learning from a teacher alone lowers the KL");
    test_kept_teacher(ctx, teacher);
    memset(&r, 0, sizeof r);
    o.distill = 0;
    o.steps = 2;
    check(fine(ctx, lemon_train(ctx, m, &text, &o, NULL)) && !(r.steps[1].kl > 0) && !(r.steps[1].kl < 0),
          "with weight 0 there is no KL");
    free(w); free(v); free(scores); free(taught);
    lemon_model_free(ctx, teacher);
    lemon_model_free(ctx, m);
}

int main(void) {
    lemon_ctx *ctx = open_ctx(2);
    lemon__workspaces(ctx);
    world_text();
    test_eval(ctx);
    test_eval_batches(ctx);
    test_eval_refusals(ctx);
    test_rates(ctx);
    test_sequential(ctx);
    test_random_order(ctx);
    test_adam(ctx, 1.0, "clipped");
    test_adam(ctx, 0.0, "not clipped");
    test_accumulate(ctx);
    test_threads();
    test_allocations();
    test_less_memory();
    test_limit();
#if LEMON__POSIX
    test_in_scratch();
#endif
    test_memory(ctx);
    test_short_moments(ctx);
    test_result(ctx);
    test_refusals(ctx);
    test_no_others();
    test_killed();
    test_cancelled();
    test_resume_refusals(ctx);
    test_resume_damage(ctx);
    test_diverged(ctx, 1e25f, 3, "after step 3");
    test_diverged(ctx, (float)NAN, 2, "after step 2");
    test_distillation(ctx);
    lemon_close(ctx);
    check(heap.live == 0, "nothing is left allocated");
    return check_done();
}
