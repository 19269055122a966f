/*  Chapters 4 to 6, 10 and 11: every operation on shapes drawn at random, by the kernels of the ISA at hand and by their
    scalar twins.  $SHAPES says how many shapes of each (100; `make -C tests shapes`: 1,000).  Each case is drawn twice
    from the same seed, once on each context, and all numbers that come out of both are compared. */
#include "check.h"

enum { ROOM = 1 << 18, LEAVES = 16, PARTS = 64 };
static lemon_ctx *side[2];              /* of the ISA at hand, of plain C */
static float numbers[ROOM];             /* what all leaves are filled with */

/*  One case on one side. */
typedef struct world {
    lemon_ctx *ctx;
    lemon_rng rng;
    lemon_tape *tape;
    float *grad[LEAVES];
    int64_t count[LEAVES], rows, cols;  /* of the operation's result */
    int leaves;
    float *out;                         /* what came out, one number behind the other, */
    int64_t n_out, end[PARTS];             /* in parts that have scales of their own */
    int parts;
    lemon_arena arena;
} world;

/*  1 ... most; half of the time next to a multiple of 8, where vectors end. */
static int64_t pick(world *w, int64_t most) {
    int64_t n = 1 + lemon_rng_below(&w->rng, (int32_t)most);
    if (lemon_rng_below(&w->rng, 2) && n > 7) n = n / 8 * 8 + lemon_rng_below(&w->rng, 3) - 1;
    return n;
}
static int coin(world *w) { return (int)lemon_rng_below(&w->rng, 2); }

static float *some(world *w, int64_t n) {
    float *x = (float *)lemon_arena_alloc(w->ctx, &w->arena, (size_t)n * sizeof *x);
    memcpy(x, numbers + lemon_rng_below(&w->rng, (int32_t)(ROOM - n)), (size_t)n * sizeof *x);
    return x;
}

static lemon_var leaf(world *w, int64_t rows, int64_t cols) {
    int64_t n = rows * cols;
    float *g = (float *)lemon_arena_alloc(w->ctx, &w->arena, (size_t)n * sizeof *g);
    memset(g, 0, (size_t)n * sizeof *g);
    w->grad[w->leaves] = g;
    w->count[w->leaves++] = n;
    return lemon_tape_leaf(w->tape, some(w, n), g, rows, cols);
}

/*  A constant matrix of any storage type. */
static lemon_tensor stored(world *w, int64_t rows, int64_t cols) {
    lemon_tensor t;
    float *x = some(w, rows * cols);
    int64_t i;
    t.dtype = (lemon_dtype)lemon_rng_below(&w->rng, LEMON_Q4 + 1);
    t.rows = rows;
    t.cols = cols;
    t.data = lemon_arena_alloc(w->ctx, &w->arena, lemon_tensor_bytes(&t));
    for (i = 0; i < rows; i++) lemon_row_from_f32(&t, i, x + i * cols);
    return t;
}

static void put(world *w, const float *x, int64_t n) {
    if (x == NULL || w->n_out + n > ROOM || w->parts == PARTS) { printf("FAIL the harness has no room\n"); exit(1); }
    memcpy(w->out + w->n_out, x, (size_t)n * sizeof *x);
    w->end[w->parts++] = w->n_out += n;
}

/* ---- operations of the tape: the last value; rows and cols are its shape ---- */

static const int32_t *ids_of(world *w, int64_t n, int64_t below, int none) {
    int32_t *ids = (int32_t *)lemon_arena_alloc(w->ctx, &w->arena, (size_t)n * sizeof *ids);
    int64_t i;
    for (i = 0; i < n; i++) ids[i] = (int32_t)lemon_rng_below(&w->rng, (int32_t)below + none) - none;
    return ids;
}

static lemon_var shaped(world *w, int64_t rows, int64_t cols) {
    w->rows = rows;
    w->cols = cols;
    return leaf(w, rows, cols);
}
static lemon_var any(world *w) {
    int64_t rows = pick(w, 60);
    return shaped(w, rows, pick(w, 120));
}

static lemon_var do_matmul(world *w) {
    int64_t m = pick(w, 70), n = pick(w, 70), k = pick(w, 150);
    int ta = coin(w), tb = coin(w);
    lemon_var a = leaf(w, ta ? k : m, ta ? m : k), b = leaf(w, tb ? n : k, tb ? k : n);
    w->rows = m;
    w->cols = n;
    return lemon_tape_matmul(w->tape, a, ta, b, tb);
}
static lemon_var do_weight(world *w) {
    int64_t m = pick(w, 70), n = pick(w, 70), k = pick(w, 150);
    lemon_tensor t = stored(w, n, k);
    lemon_var a = t.dtype ? lemon_tape_leaf(w->tape, some(w, m * k), NULL, m, k) : leaf(w, m, k);
    w->rows = m;
    w->cols = n;                    /* a gradient passes matrices of f32 only */
    return lemon_tape_matmul(w->tape, a, 0, lemon_tape_weight(w->tape, &t), 1);
}
static lemon_var do_embed(world *w) {
    int64_t vocab = pick(w, 40);
    lemon_var table = shaped(w, vocab, pick(w, 120));
    w->rows = pick(w, 60);
    return lemon_tape_embed(w->tape, table, ids_of(w, w->rows, vocab, 0), w->rows);
}
static lemon_var do_embed_stored(world *w) {
    lemon_tensor t = stored(w, pick(w, 40), w->cols = pick(w, 120));
    w->rows = pick(w, 60);
    return lemon_tape_add(w->tape, leaf(w, w->rows, w->cols), lemon_tape_embed(w->tape, lemon_tape_weight(w->tape, &t),
                          ids_of(w, w->rows, t.rows, 0), w->rows));
}
static lemon_var do_add(world *w) {
    lemon_var a = any(w);
    return lemon_tape_add(w->tape, a, leaf(w, w->rows, w->cols));
}
static lemon_var do_bias(world *w) {
    lemon_var a = any(w);
    return lemon_tape_bias(w->tape, a, leaf(w, 1, w->cols));
}
static lemon_var do_norm(world *w) {
    int64_t heads = pick(w, 4), dim = pick(w, 40);
    lemon_var x = shaped(w, pick(w, 60), heads * dim);
    return lemon_tape_rms_norm(w->tape, x, leaf(w, 1, dim), 1e-5f);
}
static lemon_var do_rope(world *w) {
    int64_t dim = 2 * pick(w, 20), seq = pick(w, 40), heads = pick(w, 4);
    lemon_var x = shaped(w, seq * pick(w, 3), heads * dim);
    return lemon_tape_rope(w->tape, x, dim, seq, 10000.0f);
}
static lemon_var do_attention(world *w) {
    int64_t dim = pick(w, 24), kv = pick(w, 3), heads = kv * pick(w, 4), seq = pick(w, 80), n = seq * pick(w, 2);
    lemon_var q = shaped(w, n, heads * dim), k = leaf(w, n, kv * dim), v = leaf(w, n, kv * dim);
    return lemon_tape_attention(w->tape, q, k, v, heads, kv, dim, seq, coin(w) ? pick(w, seq + 3) : 0);
}
static lemon_var do_swiglu(world *w) {
    lemon_var a = any(w);
    return lemon_tape_swiglu(w->tape, a, leaf(w, w->rows, w->cols));
}
static lemon_var do_mix(world *w) {
    lemon_var x[5];
    int64_t n = pick(w, 5), i;
    n = n > 5 ? 5 : n < 1 ? 1 : n;
    x[0] = any(w);
    for (i = 1; i < n; i++) x[i] = leaf(w, w->rows, w->cols);
    return lemon_tape_mix(w->tape, x, n, leaf(w, 1, n));
}

/*  Behind each operation stands the loss, with a teacher half of the time: so all gradients flow. */
static lemon_status run_tape(world *w, lemon_var (*record)(world *w)) {
    lemon_loss_options o = {0.0f, 1.0f, 1.0f};
    lemon_var y, output, hidden = -1, matrix = -1, loss;
    lemon_status status = lemon_tape_open(w->ctx, &w->tape);
    int64_t vocab = 1 + pick(w, 90), width;      /* of a single piece, all gradients are rounding */
    lemon_tensor t;
    int i;
    if (status) return status;
    lemon_tape_segment(w->tape, coin(w));
    y = record ? record(w) : any(w);
    lemon_tape_segment(w->tape, 0);
    lemon_tape_keep(w->tape, y);
    output = leaf(w, vocab, w->cols);
    if (coin(w)) {
        width = pick(w, 30);
        t = stored(w, vocab, width);
        hidden = lemon_tape_leaf(w->tape, some(w, w->rows * width), NULL, w->rows, width);
        matrix = lemon_tape_weight(w->tape, &t);
        o.distill = 0.25f * (float)pick(w, 4);
        o.temperature = coin(w) ? 2.0f : 0.75f;
    }
    loss = lemon_tape_loss(w->tape, y, output, ids_of(w, w->rows, vocab, 1), hidden, matrix, &o);
    status = lemon_tape_plan(w->tape, 1, NULL);
    if (!status) status = lemon_tape_forward(w->tape);
    if (!status) status = lemon_tape_backward(w->tape);
    if (!status) {
        put(w, lemon_tape_value(w->tape, y), w->rows * w->cols);
        put(w, lemon_tape_value(w->tape, loss), 2);
        for (i = 0; i < w->leaves; i++) put(w, w->grad[i], w->count[i]);
    }
    lemon_tape_close(w->tape);
    return status;
}

/* ---- what stands outside of tapes ---- */

static lemon_status run_sgemm(world *w) {
    int64_t m = pick(w, 100), n = pick(w, 100), k = pick(w, 300), lda, ldb, ldc;
    int ta = coin(w), tb = coin(w);
    float alpha = coin(w) ? 1.0f : -0.5f, beta = coin(w) ? 0.0f : 0.75f, *a, *b, *c;
    lemon_status status;
    lda = (ta ? m : k) + lemon_rng_below(&w->rng, 4);
    ldb = (tb ? k : n) + lemon_rng_below(&w->rng, 4);
    ldc = n + lemon_rng_below(&w->rng, 4);
    a = some(w, (ta ? k : m) * lda);
    b = some(w, (tb ? n : k) * ldb);
    c = some(w, m * ldc);
    status = lemon_sgemm(w->ctx, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    put(w, c, m * ldc);
    return status;
}

static lemon_status run_packed(world *w) {
    int64_t m = pick(w, 100), n = pick(w, 100), k = pick(w, 300);
    int ta = coin(w), tb = coin(w);
    float *a = some(w, m * k), *b = some(w, n * k), *c = some(w, m * n);
    lemon_packed *packed = NULL;
    lemon_status status = lemon_sgemm_pack(w->ctx, tb, n, k, b, tb ? k : n, &packed);
    if (!status) status = lemon_sgemm_packed(w->ctx, ta, m, 0.5f, a, ta ? m : k, packed, 0.25f, c, n);
    lemon_packed_free(w->ctx, packed);
    put(w, c, m * n);
    return status;
}

/*  Few rows by a weight as it is stored, as in decoding. */
static lemon_status run_weight(world *w) {
    int64_t m = pick(w, 12), n = pick(w, 100), k = pick(w, 300);
    lemon_tensor t = stored(w, n, k);
    float *x = some(w, m * k), *y = some(w, m * n);
    lemon_status status = lemon__workspaces(w->ctx);
    if (!status) lemon__weight_product(w->ctx, m, x, &t, y);
    put(w, y, m * n);
    return status;
}

static void put_doubles(world *w, const double *x, int64_t n) {
    float *y = some(w, n);
    int64_t i;
    for (i = 0; i < n; i++) y[i] = (float)x[i];
    put(w, y, n);
}

static double *doubles(world *w, int64_t n) {
    double *x = (double *)lemon_arena_alloc(w->ctx, &w->arena, (size_t)n * sizeof *x);
    const float *from = some(w, n);
    int64_t i;
    for (i = 0; i < n; i++) x[i] = (double)from[i];
    return x;
}

static lemon_status run_gemm64(world *w) {
    int64_t m = pick(w, 70), n = pick(w, 70), k = pick(w, 150);
    int tb = coin(w);
    double *a = doubles(w, m * k), *b = doubles(w, n * k), *c = doubles(w, m * n);
    lemon_status status = lemon__workspaces(w->ctx);
    if (!status) lemon__gemm64(w->ctx, tb, 0, m, n, k, 0.5, a, k, b, tb ? k : n, c, n);
    put_doubles(w, c, m * n);
    return status;
}

/*  A positive definite matrix: its factor solves, and its eigenvalues. */
static lemon_status run_solve(world *w) {
    int64_t n = pick(w, 60), rows = pick(w, 10), i, j, p;
    double *a = doubles(w, n * n), *s = doubles(w, n * n), *x = doubles(w, rows * n), *d = doubles(w, n);
    double *z = doubles(w, n * n);
    lemon__factor l;
    lemon_status status = lemon__workspaces(w->ctx);
    for (i = 0; i < n; i++)
        for (j = 0; j < n; j++)
            for (s[i * n + j] = i == j ? (double)n : 0, p = 0; p < n; p++) s[i * n + j] += a[i * n + p] * a[j * n + p];
    if (!status) status = lemon__factor_make(w->ctx, &w->arena, n, rows, &l);
    if (status) return status;
    memcpy(l.a, s, (size_t)(n * n) * sizeof *s);
    if (!lemon__factor_run(&l)) return LEMON_E_DIVERGED;
    lemon__factor_solve(&l, x, rows);
    put_doubles(w, x, rows * n);
    status = lemon__eigen(w->ctx, s, n, d, z);
    put_doubles(w, d, n);
    return status;
}

static lemon_status run_adam(world *w) {
    const lemon_dtype moments = coin(w) ? LEMON_F32 : LEMON_BF16;
    lemon__adam a;
    memset(&a, 0, sizeof a);
    a.count = pick(w, 3000);
    lemon_status status = lemon__adam_make(w->ctx, &w->arena, 4, moments, &a);
    if (status) return status;
    float *m = some(w, a.count), *v = some(w, a.count);
    a.w = some(w, a.count);
    memcpy(a.g, some(w, a.count), (size_t)a.count * sizeof(float));
    for (int64_t i = 0; i < a.count; i++) v[i] = fabsf(v[i]);
    lemon_row_from_f32(&a.m, 0, m);
    lemon_row_from_f32(&a.v, 0, v);
    lemon__adam_segments(&a, 0, a.count, 0, coin(w) ? 0.1f : 0.0f);
    lemon__adam_step(w->ctx, &a, pick(w, 50), 1e-2, lemon__adam_norm(w->ctx, &a), coin(w) ? 1.0 : 0.0);
    lemon_row_to_f32(&a.m, 0, m);
    lemon_row_to_f32(&a.v, 0, v);
    put(w, a.w, a.count);
    put(w, m, a.count);
    put(w, v, a.count);
    return LEMON_OK;
}

/*  A whole model of any of the family, its weights of any type: a prompt, then token by token. */
static lemon_status feed_session(world *w, lemon_dtype cache) {
    int32_t kv = (int32_t)pick(w, 2), vocab = (int32_t)pick(w, 40), layers = (int32_t)pick(w, 2), ids[40];
    lemon_config c = tiny_config((int32_t)pick(w, 50), layers, kv * (int32_t)pick(w, 3), kv, 2 * (int32_t)pick(w, 8),
                                 (int32_t)pick(w, 60), vocab, coin(w));
    lemon_dtype dtype = (lemon_dtype)lemon_rng_below(&w->rng, LEMON_Q4 + 1);
    lemon_session_options o;
    lemon_session *s = NULL;
    lemon_model *made, *m = NULL;
    lemon_status status;
    float *logits;
    int64_t n = pick(w, 30), i;
    c = family_config(c, (int)lemon_rng_below(&w->rng, FAMILIES));
    made = lively_model(w->ctx, &c, (uint64_t)pick(w, 1000));
    status = lemon_save(w->ctx, scratch("shapes.lemon"), made, dtype);
    if (!status) status = lemon_load(w->ctx, scratch("shapes.lemon"), &m);
    lemon_model_free(w->ctx, made);
    fill_ids(&w->rng, ids, 40, vocab);
    lemon_session_defaults(&o);
    o.prefill = pick(w, 40);
    o.cache = cache;
    if (!status) status = lemon_session_open_with(w->ctx, m, &o, &s);
    if (!status) status = lemon_session_feed(s, ids, n, &logits);
    if (!status) put(w, logits, vocab);
    for (i = n; i < n + 3 && !status; i++) {
        status = lemon_session_feed(s, ids + i, 1, &logits);
        if (!status) put(w, logits, vocab);
    }
    lemon_session_close(s);
    lemon_model_free(w->ctx, m);
    return status;
}

static lemon_status run_session(world *w) { return feed_session(w, LEMON_F32); }
static lemon_status run_short_session(world *w) { return feed_session(w, LEMON_F16); }

/* ---- both sides ---- */

static const struct operation {
    const char *name;
    lemon_var (*record)(world *w);          /* on a tape */
    lemon_status (*run)(world *w);          /* or without */
    double limit;                           /* of |a - b|, beside the largest number of the case */
} operations[] = {
    {"matmul", do_matmul, NULL, 3e-5}, {"matmul by a stored weight", do_weight, NULL, 3e-5}, {"embed", do_embed, NULL, 3e-5},
    {"embed, stored", do_embed_stored, NULL, 3e-5}, {"add", do_add, NULL, 3e-5}, {"bias", do_bias, NULL, 3e-5},
    {"rms_norm", do_norm, NULL, 3e-5}, {"rope", do_rope, NULL, 3e-5}, {"attention", do_attention, NULL, 3e-5},
    {"swiglu", do_swiglu, NULL, 3e-5}, {"mix", do_mix, NULL, 3e-5}, {"loss", any, NULL, 3e-5},
    {"sgemm", NULL, run_sgemm, 1e-5}, {"sgemm with a packed matrix", NULL, run_packed, 1e-5},
    {"few rows by a stored weight", NULL, run_weight, 1e-5}, {"products in float64", NULL, run_gemm64, 1e-7},
    {"Cholesky solves and eigenvalues", NULL, run_solve, 1e-7}, {"AdamW", NULL, run_adam, 1e-6},
    {"sessions of the family", NULL, run_session, 1e-5}, {"sessions, keys and values in f16", NULL, run_short_session, 2e-3}};

static lemon_status run_side(const struct operation *op, int k, uint64_t seed, world *w) {
    lemon_status status;
    float *out = w->out;
    memset(w, 0, sizeof *w);
    w->out = out;
    w->ctx = side[k];
    lemon_rng_seed(&w->rng, seed);
    status = op->run ? op->run(w) : run_tape(w, op->record);
    lemon_arena_free(w->ctx, &w->arena);
    return status;
}

/*  How far two sides are apart, beside the largest number of each part; gradients that cancel out have 0.05 for it. */
static double apart(const world *a, const world *b) {
    double worst = 0;
    int64_t i = 0;
    int part;
    for (part = 0; part < a->parts; part++) {
        double top = 0.05, most = 0;
        for (; i < a->end[part]; i++) {
            double d = fabs((double)a->out[i] - (double)b->out[i]);
            if (!(fabs((double)b->out[i]) <= top)) top = fabs((double)b->out[i]);
            if (!(d <= most)) most = isnan(d) ? 1e30 : d;
        }
        if (!(most / top <= worst)) worst = most / top;
    }
    return worst;
}

static void test_operation(const struct operation *op, world *w, int shapes) {
    double worst = 0;
    char name[120];
    int i, at = 0, ok = 1, k;
    for (i = 0; i < shapes && ok; i++) {
        double d = 0;
        for (k = 0; k < 2 && ok; k++) ok = fine(side[k], run_side(op, k, (uint64_t)i + 1, &w[k]));
        if (ok && (w[0].parts == 0 || memcmp(w[0].end, w[1].end, sizeof w[0].end) != 0)) ok = 0;
        if (ok) d = apart(&w[0], &w[1]);
        if (d > worst) { worst = d; at = i; }
    }
    if (ok) detail("shape %d is off by %g", at, worst);
    snprintf(name, sizeof name, "%s: %d shapes as by plain C", op->name, shapes);
    check(ok && worst <= op->limit, name);
    if (getenv("SHAPES_VERBOSE")) printf("# %s: %g\n", op->name, worst);
}

int main(void) {
    static float out[2][ROOM];
    static world w[2];
    const char *text = getenv("SHAPES");
    int shapes = text ? (int)strtol(text, NULL, 10) : light() ? 10 : 100;
    lemon_options options;
    lemon_rng rng;
    size_t i;
    memset(&options, 0, sizeof options);
    options.threads = 1;
    options.isa = LEMON_ISA_SCALAR;
    options.resize = heap_resize;
    options.user = &heap;
    side[0] = open_ctx(2);
    side[1] = lemon_open(&options);
    if (side[1] == NULL) return 1;
    w[0].out = out[0];
    w[1].out = out[1];
    lemon_rng_seed(&rng, 5);
    fill_normal(&rng, numbers, ROOM, 0.7);
    for (i = 0; i < sizeof operations / sizeof operations[0]; i++) test_operation(&operations[i], w, shapes);
    lemon_close(side[1]);
    return check_close(side[0]);
}
