/*  Chapter 6: the gradient of every operation against finite differences of a naive double-precision twin, a whole model
    likewise, then what the tape promises: sticky errors, values used twice, leaves that add up, no allocation once planned,
    the same bits for any number of threads. */
#include "reference.h"

enum { ROWS = 12, VOCAB = 11, MOST = 4, SEQ = 6 };      /* every case has 12 rows: two sequences of 6 */

/*  One operation: leaves of some shapes to a value [ROWS, cols], on the tape and in double. */
typedef struct op_case {
    const char *name;
    int leaves;
    int64_t shape[MOST][2];
    int64_t cols;
    lemon_var (*record)(lemon_tape *tape, const lemon_var *x);
    void (*naive)(double *const *x, double *y);
} op_case;

static const int32_t tokens[ROWS] = {3, 0, 3, 8, 1, 9, 9, 2, 5, 3, 0, 7};
static const int32_t targets[ROWS] = {0, 5, 10, -1, 3, 3, 7, 1, -1, 2, 9, 4};

/* ---- the operations ---- */

static lemon_var record_embed(lemon_tape *t, const lemon_var *x) { return lemon_tape_embed(t, x[0], tokens, ROWS); }
static void naive_embed(double *const *x, double *y) {
    int i, c;
    for (i = 0; i < ROWS; i++)
        for (c = 0; c < 5; c++) y[i * 5 + c] = x[0][tokens[i] * 5 + c];
}

static lemon_var record_nn(lemon_tape *t, const lemon_var *x) { return lemon_tape_matmul(t, x[0], 0, x[1], 0); }
static lemon_var record_nt(lemon_tape *t, const lemon_var *x) { return lemon_tape_matmul(t, x[0], 0, x[1], 1); }
static lemon_var record_tn(lemon_tape *t, const lemon_var *x) { return lemon_tape_matmul(t, x[0], 1, x[1], 0); }
static lemon_var record_tt(lemon_tape *t, const lemon_var *x) { return lemon_tape_matmul(t, x[0], 1, x[1], 1); }
static void naive_nn(double *const *x, double *y) { ref_matmul(x[0], 0, x[1], 0, ROWS, 5, 7, y); }
static void naive_nt(double *const *x, double *y) { ref_matmul(x[0], 0, x[1], 1, ROWS, 5, 7, y); }
static void naive_tn(double *const *x, double *y) { ref_matmul(x[0], 1, x[1], 0, ROWS, 5, 7, y); }
static void naive_tt(double *const *x, double *y) { ref_matmul(x[0], 1, x[1], 1, ROWS, 5, 7, y); }

static lemon_var record_add(lemon_tape *t, const lemon_var *x) { return lemon_tape_add(t, x[0], x[1]); }
static void naive_add(double *const *x, double *y) {
    int i;
    for (i = 0; i < ROWS * 5; i++) y[i] = x[0][i] + x[1][i];
}

static lemon_var record_norm(lemon_tape *t, const lemon_var *x) { return lemon_tape_rms_norm(t, x[0], x[1], 0.1f); }
static void naive_norm(double *const *x, double *y) { ref_norm(x[0], x[1], ROWS, 19, (double)0.1f, y); }

static lemon_var record_rope(lemon_tape *t, const lemon_var *x) { return lemon_tape_rope(t, x[0], 4, SEQ, 100.0f); }
static void naive_rope(double *const *x, double *y) {
    memcpy(y, x[0], ROWS * 8 * sizeof *y);
    ref_rope(y, ROWS, 8, 4, SEQ, 100);
}

static lemon_var record_attention(lemon_tape *t, const lemon_var *x) {
    return lemon_tape_attention(t, x[0], x[1], x[2], 6, 2, 4, SEQ, 0);
}
static void naive_attention(double *const *x, double *y) { ref_attention(x[0], x[1], x[2], ROWS, 6, 2, 4, SEQ, 0, y); }

/*  Backward reads what attention gave; it must outlive the rows behind it. */
static lemon_var record_first(lemon_tape *t, const lemon_var *x) {
    lemon_var y = record_attention(t, x);
    int i;
    for (i = 0; i < 3; i++) y = lemon_tape_add(t, y, y);
    return y;
}
static void naive_first(double *const *x, double *y) {
    int i;
    naive_attention(x, y);
    for (i = 0; i < ROWS * 24; i++) y[i] *= 8;
}

static lemon_var record_window(lemon_tape *t, const lemon_var *x) {
    return lemon_tape_attention(t, x[0], x[1], x[2], 6, 2, 4, SEQ, 3);
}
static void naive_window(double *const *x, double *y) { ref_attention(x[0], x[1], x[2], ROWS, 6, 2, 4, SEQ, 3, y); }

static lemon_var record_bias(lemon_tape *t, const lemon_var *x) { return lemon_tape_bias(t, x[0], x[1]); }
static void naive_bias(double *const *x, double *y) {
    int i;
    for (i = 0; i < ROWS * 19; i++) y[i] = x[0][i] + x[1][i % 19];
}

/*  Heads of 4, each with its own norm; the value is used again. */
static lemon_var record_heads(lemon_tape *t, const lemon_var *x) {
    return lemon_tape_add(t, x[0], lemon_tape_rms_norm(t, lemon_tape_bias(t, x[0], x[2]), x[1], 0.1f));
}
static void naive_heads(double *const *x, double *y) {
    double a[ROWS * 12];
    int i;
    for (i = 0; i < ROWS * 12; i++) a[i] = x[0][i] + x[2][i % 12];
    ref_norm(a, x[1], ROWS * 3, 4, (double)0.1f, y);
    for (i = 0; i < ROWS * 12; i++) y[i] += x[0][i];
}

static lemon_var record_swiglu(lemon_tape *t, const lemon_var *x) { return lemon_tape_swiglu(t, x[0], x[1]); }
static void naive_swiglu(double *const *x, double *y) { ref_swiglu(x[0], x[1], ROWS * 5, y); }

static lemon_var record_mix(lemon_tape *t, const lemon_var *x) { return lemon_tape_mix(t, x, 3, x[3]); }
static void naive_mix(double *const *x, double *y) {
    int i;
    for (i = 0; i < ROWS * 5; i++) y[i] = x[3][0] * x[0][i] + x[3][1] * x[1][i] + x[3][2] * x[2][i];
}

/*  The weights of a mix may be computed: here [1, 3] = row * matrix. */
static lemon_var record_mix_computed(lemon_tape *t, const lemon_var *x) {
    lemon_var terms[3], weights = lemon_tape_matmul(t, x[1], 0, x[2], 0);
    terms[0] = terms[2] = x[0];
    terms[1] = lemon_tape_swiglu(t, x[0], x[0]);
    return lemon_tape_mix(t, terms, 3, weights);
}
static void naive_mix_computed(double *const *x, double *y) {
    double w[3], silu[ROWS * 5];
    int i;
    ref_matmul(x[1], 0, x[2], 0, 1, 3, 4, w);
    ref_swiglu(x[0], x[0], ROWS * 5, silu);
    for (i = 0; i < ROWS * 5; i++) y[i] = (w[0] + w[2]) * x[0][i] + w[1] * silu[i];
}

/*  One value into everything that takes two: each use must add its share. */
static lemon_var record_twice(lemon_tape *t, const lemon_var *x) {
    lemon_var y = lemon_tape_matmul(t, x[0], 0, x[1], 0), z = lemon_tape_add(t, y, y);
    z = lemon_tape_add(t, z, lemon_tape_swiglu(t, y, y));
    return lemon_tape_add(t, y, lemon_tape_add(t, x[0], z));
}
static void naive_twice(double *const *x, double *y) {
    double a[ROWS * 5], s[ROWS * 5];
    int i;
    ref_matmul(x[0], 0, x[1], 0, ROWS, 5, 5, a);
    ref_swiglu(a, a, ROWS * 5, s);
    for (i = 0; i < ROWS * 5; i++) y[i] = 3 * a[i] + s[i] + x[0][i];
}

/*  Queries, keys and values all the same value; a norm whose input is used again; rope behind it. */
static lemon_var record_self(lemon_tape *t, const lemon_var *x) {
    lemon_var y = lemon_tape_rms_norm(t, x[0], x[1], 1e-5f), z = lemon_tape_attention(t, y, y, y, 2, 2, 4, SEQ, 0);
    return lemon_tape_add(t, lemon_tape_rope(t, z, 4, SEQ, 10000.0f), lemon_tape_add(t, y, x[0]));
}
static void naive_self(double *const *x, double *y) {
    double a[ROWS * 8];
    int i;
    ref_norm(x[0], x[1], ROWS, 8, 1e-5, a);
    ref_attention(a, a, a, ROWS, 2, 2, 4, SEQ, 0, y);
    ref_rope(y, ROWS, 8, 4, SEQ, 10000);
    for (i = 0; i < ROWS * 8; i++) y[i] += a[i] + x[0][i];
}

/*  A matrix times itself, transposed: both sides of one product. */
static lemon_var record_square(lemon_tape *t, const lemon_var *x) { return lemon_tape_matmul(t, x[0], 0, x[0], 1); }
static void naive_square(double *const *x, double *y) { ref_matmul(x[0], 0, x[0], 1, ROWS, ROWS, 5, y); }

static const op_case cases[] = {
    {"embed", 1, {{10, 5}}, 5, record_embed, naive_embed},
    {"matmul a b", 2, {{ROWS, 7}, {7, 5}}, 5, record_nn, naive_nn},
    {"matmul a b'", 2, {{ROWS, 7}, {5, 7}}, 5, record_nt, naive_nt},
    {"matmul a' b", 2, {{7, ROWS}, {7, 5}}, 5, record_tn, naive_tn},
    {"matmul a' b'", 2, {{7, ROWS}, {5, 7}}, 5, record_tt, naive_tt},
    {"matmul x x'", 1, {{ROWS, 5}}, ROWS, record_square, naive_square},
    {"add", 2, {{ROWS, 5}, {ROWS, 5}}, 5, record_add, naive_add},
    {"rms_norm", 2, {{ROWS, 19}, {1, 19}}, 19, record_norm, naive_norm},
    {"rope", 1, {{ROWS, 8}}, 8, record_rope, naive_rope},
    {"attention, 6 heads on 2, two sequences",
     3,
     {{ROWS, 24}, {ROWS, 8}, {ROWS, 8}},
     24,
     record_attention,
     naive_attention},
    {"attention, whose memory others would take", 3, {{ROWS, 24}, {ROWS, 8}, {ROWS, 8}}, 24, record_first, naive_first},
    {"attention, a window of 3", 3, {{ROWS, 24}, {ROWS, 8}, {ROWS, 8}}, 24, record_window, naive_window},
    {"bias", 2, {{ROWS, 19}, {1, 19}}, 19, record_bias, naive_bias},
    {"norm of each head, behind a bias", 3, {{ROWS, 12}, {1, 4}, {1, 12}}, 12, record_heads, naive_heads},
    {"swiglu", 2, {{ROWS, 5}, {ROWS, 5}}, 5, record_swiglu, naive_swiglu},
    {"mix", 4, {{ROWS, 5}, {ROWS, 5}, {ROWS, 5}, {1, 3}}, 5, record_mix, naive_mix},
    {"mix with computed weights", 3, {{ROWS, 5}, {1, 4}, {4, 3}}, 5, record_mix_computed, naive_mix_computed},
    {"one value used many times", 2, {{ROWS, 5}, {5, 5}}, 5, record_twice, naive_twice},
    {"attention to itself", 2, {{ROWS, 8}, {1, 8}}, 8, record_self, naive_self}};

/* ---- gradients: of a loss behind the operation, by all leaves and by the loss's own matrix ---- */

enum { LEAF = 512 };
typedef struct bench {
    const op_case *op;
    float data[MOST + 2][LEAF], grad[MOST + 2][LEAF];
    double x[MOST + 2][LEAF];
    int64_t count[MOST + 2];
    lemon_loss_options loss;
    int taught;                 /* a teacher's hidden rows are there: leaf `leaves + 1` holds both it and its matrix */
} bench;

/*  The objective in double. */
static double naive_loss(bench *b) {
    const op_case *op = b->op;
    double *leaf[MOST], y[ROWS * 24], scores[ROWS * VOCAB], taught[ROWS * VOCAB];
    ref_losses loss;
    int i;
    for (i = 0; i < op->leaves; i++) leaf[i] = b->x[i];
    op->naive(leaf, y);
    ref_matmul(y, 0, b->x[op->leaves], 1, ROWS, VOCAB, op->cols, scores);
    if (b->taught) ref_matmul(b->x[op->leaves + 1], 0, b->x[op->leaves + 1] + ROWS * 3, 1, ROWS, VOCAB, 3, taught);
    loss = ref_loss(scores, b->taught ? taught : NULL, targets, ROWS, VOCAB, (double)b->loss.temperature);
    return (double)b->loss.scale *
           ((1 - (double)b->loss.distill) * loss.ce +
            (double)b->loss.distill * (double)b->loss.temperature * (double)b->loss.temperature * loss.kl);
}

static void bench_fill(bench *b, const op_case *op, uint64_t seed) {
    lemon_rng rng;
    int i;
    int64_t j;
    memset(b, 0, sizeof *b);
    b->op = op;
    b->loss.temperature = b->loss.scale = 1.0f;
    lemon_rng_seed(&rng, seed);
    for (i = 0; i < op->leaves; i++) b->count[i] = op->shape[i][0] * op->shape[i][1];
    b->count[op->leaves] = VOCAB * op->cols;
    b->count[op->leaves + 1] = (ROWS + VOCAB) * 3;
    for (i = 0; i < op->leaves + 2; i++) {
        fill_normal(&rng, b->data[i], b->count[i], 0.7);
        for (j = 0; j < b->count[i]; j++) b->x[i][j] = (double)b->data[i][j];
    }
}

/*  Records leaves, operation and loss.  Returns the loss's variable. */
static lemon_var bench_record(bench *b, lemon_tape *tape) {
    const op_case *op = b->op;
    lemon_var x[MOST], y, output, hidden = -1, matrix = -1;
    int i;
    for (i = 0; i < op->leaves; i++)
        x[i] = lemon_tape_leaf(tape, b->data[i], b->grad[i], op->shape[i][0], op->shape[i][1]);
    output = lemon_tape_leaf(tape, b->data[op->leaves], b->grad[op->leaves], VOCAB, op->cols);
    if (b->taught) {
        hidden = lemon_tape_leaf(tape, b->data[op->leaves + 1], NULL, ROWS, 3);
        matrix = lemon_tape_leaf(tape, b->data[op->leaves + 1] + ROWS * 3, NULL, VOCAB, 3);
    }
    y = op->record(tape, x);
    return lemon_tape_loss(tape, y, output, targets, hidden, matrix, &b->loss);
}

/*  Every gradient against central differences; `times` is how often backward ran. */
static int gradients_hold(bench *b, double times) {
    int i;
    int64_t j;
    for (i = 0; i <= b->op->leaves; i++) {
        double want[LEAF], top = 1e-3;
        for (j = 0; j < b->count[i]; j++) {
            const double keep = b->x[i][j], h = 1e-4;
            double up, down;
            b->x[i][j] = keep + h;
            up = naive_loss(b);
            b->x[i][j] = keep - h;
            down = naive_loss(b);
            b->x[i][j] = keep;
            want[j] = (up - down) / (2 * h);
            top = fabs(want[j]) > top ? fabs(want[j]) : top;
        }
        for (j = 0; j < b->count[i]; j++) {
            detail("leaf %d [%d]: %.8g, expected %.8g", i, (int)j, (double)b->grad[i][j], times * want[j]);
            if (!(fabs((double)b->grad[i][j] - times * want[j]) <= 2e-5 * times * top)) return 0;
        }
    }
    return 1;
}

static int bench_run(lemon_ctx *ctx, bench *b, int runs, double *value) {
    lemon_tape *tape = NULL;
    lemon_var loss;
    int i, ok = fine(ctx, lemon_tape_open(ctx, &tape));
    if (!ok) return 0;
    loss = bench_record(b, tape);
    ok = fine(ctx, lemon_tape_plan(tape, 1, NULL));
    for (i = 0; ok && i < runs; i++) ok = fine(ctx, lemon_tape_forward(tape)) && fine(ctx, lemon_tape_backward(tape));
    if (ok)
        *value = (1 - (double)b->loss.distill) * (double)lemon_tape_value(tape, loss)[0] +
                 (double)b->loss.distill * (double)b->loss.temperature * (double)b->loss.temperature *
                     (double)lemon_tape_value(tape, loss)[1];
    lemon_tape_close(tape);
    return ok;
}

static void test_operation(lemon_ctx *ctx, const op_case *op) {
    bench b;
    double value = 0, want;
    char name[112];
    int ok;
    bench_fill(&b, op, 17);
    want = naive_loss(&b);
    ok = bench_run(ctx, &b, 2, &value) && near_to(value, want, 1e-5);     /* the second run finds used memory */
    snprintf(name, sizeof name, "%s: value", op->name);
    check(ok, name);
    snprintf(name, sizeof name, "%s: gradient by finite differences", op->name);
    check(ok && gradients_hold(&b, 2), name);
}

/*  What the first row gave lives until its backward has read it, wherever the plan puts it. */
static void test_first_row(lemon_ctx *ctx) {
    const op_case *op = cases;
    bench b;
    lemon_tape *tape = NULL;
    while (op->record != record_first) op++;
    bench_fill(&b, op, 17);
    lemon_tape_open(ctx, &tape);
    bench_record(&b, tape);
    check(fine(ctx, lemon_tape_plan(tape, 1, NULL)) && tape->rows[0].code == LEMON__ATTENTION && tape->rows[0].back > tape->n_rows &&
              tape->values[tape->rows[0].out].dies == tape->rows[0].back,
          "what the first row gave lives until backward has read it");
    lemon_tape_close(tape);
}

static void test_losses(lemon_ctx *ctx) {
    static const struct { const char *name; int taught; float distill, temperature, scale;
    } losses[] = {{"cross-entropy, scaled", 0, 0.0f, 1.0f, 0.25f},
                  {"distillation alone", 1, 1.0f, 1.0f, 1.0f},
                  {"distillation at temperature 2.5", 1, 1.0f, 2.5f, 1.0f},
                  {"both, at temperature 0.7, scaled", 1, 0.4f, 0.7f, 3.0f}};
    size_t i;
    for (i = 0; i < sizeof losses / sizeof losses[0]; i++) {
        bench b;
        double value = 0, want;
        char name[96];
        int ok;
        bench_fill(&b, &cases[1], 5 + i);
        b.taught = losses[i].taught;
        b.loss.distill = losses[i].distill;
        b.loss.temperature = losses[i].temperature;
        b.loss.scale = losses[i].scale;
        want = naive_loss(&b) / (double)b.loss.scale;           /* the value is without scale */
        ok = bench_run(ctx, &b, 1, &value) && near_to(value, want, 1e-5);
        snprintf(name, sizeof name, "loss, %s: value", losses[i].name);
        check(ok, name);
        snprintf(name, sizeof name, "loss, %s: gradient by finite differences", losses[i].name);
        check(ok && gradients_hold(&b, 1), name);
    }
}

static void test_accumulation(lemon_ctx *ctx) {
    bench b;
    double value;
    bench_fill(&b, &cases[9], 3);
    check(bench_run(ctx, &b, 3, &value) && gradients_hold(&b, 3), "leaves add up over three runs");
}

/*  Rows of targets below 0 count neither in the value nor in the gradient; none at all is loss 0. */
static void test_ignored(lemon_ctx *ctx) {
    static const int32_t none[3] = {-1, -1, -1};
    float hidden[9], output[6], dh[9] = {0}, dw[6] = {0};
    lemon_rng rng;
    lemon_tape *tape = NULL;
    lemon_loss_options options = {0.0f, 1.0f, 1.0f};
    lemon_var loss;
    int i, bad = 0;
    lemon_rng_seed(&rng, 1);
    fill_normal(&rng, hidden, 9, 1);
    fill_normal(&rng, output, 6, 1);
    lemon_tape_open(ctx, &tape);
    loss = lemon_tape_loss(tape, lemon_tape_leaf(tape, hidden, dh, 3, 3), lemon_tape_leaf(tape, output, dw, 2, 3), none,
                           -1, -1, &options);
    lemon_tape_plan(tape, 1, NULL);
    lemon_tape_forward(tape);
    lemon_tape_backward(tape);
    for (i = 0; i < 9; i++) bad += dh[i] < 0 || dh[i] > 0 || (i < 6 && (dw[i] < 0 || dw[i] > 0));
    check(bad == 0 && !(lemon_tape_value(tape, loss)[0] > 0), "with every target ignored, loss and gradients are 0");
    lemon_tape_close(tape);
}

/* ---- a whole model ---- */

typedef struct model_run {
    lemon_model *model;
    float *grads;
    int32_t *ids, *targets;
    int64_t batch, seq;
    lemon_tape *tape;
    lemon_var loss;
} model_run;

static void model_open(lemon_ctx *ctx, const lemon_config *c, int64_t batch, int64_t seq, model_run *m) {
    lemon_loss_options options = {0.0f, 1.0f, 1.0f};
    lemon_var weights[128], hidden;
    lemon_rng rng;
    memset(m, 0, sizeof *m);
    m->model = lively_model(ctx, c, 21);
    m->grads = (float *)calloc((size_t)m->model->block_count, sizeof *m->grads);
    m->ids = (int32_t *)malloc((size_t)(batch * seq) * sizeof *m->ids);
    m->targets = (int32_t *)malloc((size_t)(batch * seq) * sizeof *m->targets);
    m->batch = batch;
    m->seq = seq;
    lemon_rng_seed(&rng, 8);
    fill_ids(&rng, m->ids, batch * seq, c->vocab_size);
    fill_ids(&rng, m->targets, batch * seq, c->vocab_size);
    lemon_tape_open(ctx, &m->tape);
    lemon__tape_weights(m->tape, m->model, m->grads, weights);
    hidden = lemon__tape_llama(m->tape, c, weights, m->ids, batch, seq, 0);
    m->loss =
        lemon_tape_loss(m->tape, hidden, weights[lemon__param_index(c, LEMON_OUTPUT, 0)], m->targets, -1, -1, &options);
}

static void model_close(lemon_ctx *ctx, model_run *m) {
    lemon_tape_close(m->tape);
    lemon_model_free(ctx, m->model);
    free(m->grads);
    free(m->ids);
    free(m->targets);
}

static double model_naive(const model_run *m, const double *w) {
    int64_t rows = m->batch * m->seq;
    double *scores = ref_room(rows * m->model->config.vocab_size), loss;
    ref_model(&m->model->config, w, m->ids, rows, m->seq, scores);
    loss = ref_loss(scores, NULL, m->targets, rows, m->model->config.vocab_size, 1).ce;
    free(scores);
    return loss;
}

/*  Every number of every parameter; one line a parameter would be many, so the first that is wrong is named. */
static void test_model(lemon_ctx *ctx, int tied) {
    lemon_config c = tiny_config(8, 2, 4, 2, 6, 10, 13, tied);
    model_run m;
    double *w;
    int64_t p, i;
    int ok;
    model_open(ctx, &c, 2, 5, &m);
    w = ref_weights(m.model);
    ok = fine(ctx, lemon_tape_plan(m.tape, 1, NULL)) && fine(ctx, lemon_tape_forward(m.tape)) &&
         fine(ctx, lemon_tape_backward(m.tape));
    check(ok && near_to((double)lemon_tape_value(m.tape, m.loss)[0], model_naive(&m, w), 1e-5),
          tied ? "whole tied model: loss" : "whole untied model: loss");
    for (p = 0; ok && p < m.model->n_params; p++) {
        int64_t at = (float *)m.model->params[p].data - m.model->block,
                n = m.model->params[p].rows * m.model->params[p].cols;
        double want[512], top = 1e-4;
        char name[64];
        lemon__param_name(m.model, p, LEMON__STYLE_LEMON, NULL, name, sizeof name);
        for (i = 0; i < n; i++) {
            const double keep = w[at + i], h = 1e-4;
            w[at + i] = keep + h;
            want[i] = model_naive(&m, w);
            w[at + i] = keep - h;
            want[i] = (want[i] - model_naive(&m, w)) / (2 * h);
            w[at + i] = keep;
            top = fabs(want[i]) > top ? fabs(want[i]) : top;
        }
        for (i = 0; ok && i < n; i++) {
            detail("%s [%d]: %.8g, expected %.8g", name, (int)i, (double)m.grads[at + i], want[i]);
            ok = fabs((double)m.grads[at + i] - want[i]) <= 1e-4 * top;
        }
    }
    check(ok,
          tied ? "whole tied model: gradient of every parameter" : "whole untied model: gradient of every parameter");
    free(w);
    model_close(ctx, &m);
}

/*  Large enough for several tiles and chunks everywhere. */
static lemon_config broad_config(void) { return tiny_config(48, 2, 6, 3, 8, 80, 300, 1); }

static void test_plan(lemon_ctx *ctx) {
    lemon_config c = broad_config();
    model_run m;
    size_t bytes = 0, before, after, peak_first, peak_second;
    long calls;
    float first;
    model_open(ctx, &c, 3, 40, &m);
    before = lemon_memory(ctx, NULL);
    check(fine(ctx, lemon_tape_plan(m.tape, 1, &bytes)), "a model is planned");
    after = lemon_memory(ctx, &peak_first);
    check(bytes > 0 && after - before == bytes, "the plan takes the bytes that it says");
    calls = heap.calls;
    lemon_tape_forward(m.tape);
    lemon_tape_backward(m.tape);
    first = lemon_tape_value(m.tape, m.loss)[0];
    lemon_tape_forward(m.tape);
    lemon_tape_backward(m.tape);
    lemon_memory(ctx, &peak_second);
    check(heap.calls == calls && peak_second == peak_first, "running a planned tape allocates nothing");
    check(memcmp(&first, lemon_tape_value(m.tape, m.loss), 4) == 0, "a second run gives the same loss");
    model_close(ctx, &m);
    model_open(ctx, &c, 3, 40, &m);
    before = bytes;
    lemon_tape_plan(m.tape, 0, &bytes);
    lemon_tape_forward(m.tape);
    check(near_to((double)lemon_tape_value(m.tape, m.loss)[0], (double)first, 1e-7) && bytes < before / 2,
          "planned for forward alone it gives the same loss in less than half the memory");
    check(lemon_tape_backward(m.tape) == LEMON_E_ARG, "and refuses to run backward");
    model_close(ctx, &m);
}

/*  A ladder of norms, products and gates over segments, with a value that skips two of them and one that is kept inside;
    gradients of gain and matrix, then the kept value. */
enum { RUNGS = 6, WIDTH = 16 };
static size_t ladder(lemon_ctx *ctx, int again, float *out) {
    static float w[WIDTH * WIDTH], x[ROWS * WIDTH], gain[WIDTH];
    static const lemon_loss_options plain = {0.0f, 1.0f, 1.0f};
    lemon_tape *tape = NULL;
    lemon_var h, skip = -1, inside = -1, vw, vg, loss;
    size_t bytes = 0;
    int i;
    for (i = 0; i < WIDTH * WIDTH; i++) w[i] = (float)sin(i * 1.7) * 0.3f;
    for (i = 0; i < ROWS * WIDTH; i++) x[i] = (float)cos(i * 0.9);
    for (i = 0; i < WIDTH; i++) gain[i] = 1.0f + 0.1f * (float)i;
    memset(out, 0, (WIDTH * WIDTH + WIDTH) * sizeof *out);
    lemon_tape_open(ctx, &tape);
    vw = lemon_tape_leaf(tape, w, out, WIDTH, WIDTH);
    vg = lemon_tape_leaf(tape, gain, out + WIDTH * WIDTH, 1, WIDTH);
    h = lemon_tape_leaf(tape, x, NULL, ROWS, WIDTH);
    for (i = 0; i < RUNGS; i++) {
        lemon_var up, norm;
        if (again) lemon_tape_segment(tape, i != 2 && i + 1 < RUNGS);
        norm = lemon_tape_rms_norm(tape, h, vg, 1e-3f);
        up = lemon_tape_matmul(tape, norm, 0, vw, 1);
        if (i == 1) skip = up;
        if (i == 3) lemon_tape_keep(tape, inside = up);
        up = lemon_tape_swiglu(tape, up, norm);
        h = lemon_tape_add(tape, h, i == 4 ? lemon_tape_add(tape, up, skip) : up);
    }
    loss = lemon_tape_loss(tape, h, vw, targets, -1, -1, &plain);
    check(fine(ctx, lemon_tape_plan(tape, 1, &bytes)) && fine(ctx, lemon_tape_forward(tape)) &&
              fine(ctx, lemon_tape_backward(tape)), again ? "a ladder of segments" : "a ladder");
    memcpy(out + WIDTH * WIDTH + WIDTH, lemon_tape_value(tape, inside), ROWS * WIDTH * sizeof *out);
    out[WIDTH * WIDTH + WIDTH + ROWS * WIDTH] = lemon_tape_value(tape, loss)[0];
    lemon_tape_close(tape);
    return bytes;
}

static void test_segments(lemon_ctx *ctx) {
    static float kept[WIDTH * WIDTH + WIDTH + ROWS * WIDTH + 1], again[WIDTH * WIDTH + WIDTH + ROWS * WIDTH + 1];
    size_t all = ladder(ctx, 0, kept), fewer = ladder(ctx, 1, again);
    check(memcmp(kept, again, sizeof kept) == 0, "segments that are made again give the same bits of gradients and values");
    detail("%lu and %lu bytes", (unsigned long)all, (unsigned long)fewer);
    check(fewer < all * 9 / 10, "in less memory");
}

static void test_threads(void) {
    lemon_config c = broad_config();
    float *first = NULL, loss[2][2];
    int threads, ok = 1;
    for (threads = 1; threads <= 3; threads++) {
        lemon_ctx *ctx = open_ctx(threads);
        model_run m;
        size_t n;
        model_open(ctx, &c, 3, 40, &m);
        n = (size_t)m.model->block_count * sizeof *m.grads;
        lemon_tape_plan(m.tape, 1, NULL);
        lemon_tape_forward(m.tape);
        lemon_tape_backward(m.tape);
        memcpy(loss[threads > 1], lemon_tape_value(m.tape, m.loss), 8);
        if (first == NULL) {
            first = (float *)malloc(n);
            memcpy(first, m.grads, n);
        } else ok &= memcmp(first, m.grads, n) == 0 && memcmp(loss[0], loss[1], 8) == 0;
        model_close(ctx, &m);
        lemon_close(ctx);
    }
    free(first);
    check(ok, "1, 2 and 3 threads give the same bits of loss and gradients");
}

/* ---- what else the tape promises ---- */

static void test_sticky(lemon_ctx *ctx) {
    float data[12] = {0}, grad[12] = {0};
    lemon_tape *tape = NULL;
    lemon_var a, b, bad;
    char message[LEMON__MESSAGE];
    lemon_tape_open(ctx, &tape);
    a = lemon_tape_leaf(tape, data, grad, 3, 4);
    b = lemon_tape_leaf(tape, data, NULL, 3, 4);
    bad = lemon_tape_matmul(tape, a, 0, b, 0);
    check(bad < 0 && strstr(lemon_error(ctx), "inner sizes are 4 and 3") != NULL, "a shape that does not fit is named");
    snprintf(message, sizeof message, "%s", lemon_error(ctx));
    check(lemon_tape_add(tape, bad, a) < 0 && lemon_tape_add(tape, a, b) < 0 &&
              lemon_tape_leaf(tape, data, NULL, 1, 1) < 0,
          "after an error nothing more is recorded");
    check(lemon_tape_plan(tape, 1, NULL) == LEMON_E_ARG && strcmp(message, lemon_error(ctx)) == 0,
          "planning returns the first error, with its message");
    check(lemon_tape_forward(tape) == LEMON_E_ARG && lemon_tape_backward(tape) == LEMON_E_ARG,
          "and such a tape does not run");
    lemon_tape_close(tape);
    lemon_tape_close(NULL);
}

typedef lemon_var (*wrong)(lemon_tape *t, lemon_var x, lemon_var row);
static lemon_var wrong_add(lemon_tape *t, lemon_var x, lemon_var row) { return lemon_tape_add(t, x, row); }
static lemon_var wrong_norm(lemon_tape *t, lemon_var x, lemon_var row) { return lemon_tape_rms_norm(t, row, x, 1e-5f); }
static lemon_var wrong_rope(lemon_tape *t, lemon_var x, lemon_var row) {
    (void)row;
    return lemon_tape_rope(t, x, 3, 3, 1e4f);
}
static lemon_var wrong_seq(lemon_tape *t, lemon_var x, lemon_var row) {
    (void)row;
    return lemon_tape_rope(t, x, 2, 2, 1e4f);
}
static lemon_var wrong_heads(lemon_tape *t, lemon_var x, lemon_var row) {
    (void)row;
    return lemon_tape_attention(t, x, x, x, 3, 2, 2, 3, 0);
}
static lemon_var wrong_keys(lemon_tape *t, lemon_var x, lemon_var row) {
    return lemon_tape_attention(t, x, row, row, 2, 2, 2, 3, 0);
}
static lemon_var wrong_mix(lemon_tape *t, lemon_var x, lemon_var row) { return lemon_tape_mix(t, &x, 1, row); }
static lemon_var wrong_term(lemon_tape *t, lemon_var x, lemon_var row) {
    static float weights[2];
    const lemon_var terms[2] = {x, row};
    return lemon_tape_mix(t, terms, 2, lemon_tape_leaf(t, weights, NULL, 1, 2));
}
static lemon_var wrong_embed(lemon_tape *t, lemon_var x, lemon_var row) {
    (void)row;
    return lemon_tape_embed(t, x, NULL, 3);
}
static lemon_var wrong_var(lemon_tape *t, lemon_var x, lemon_var row) {
    (void)row;
    return lemon_tape_swiglu(t, x, 1000);
}
static lemon_var wrong_loss(lemon_tape *t, lemon_var x, lemon_var row) {
    static const lemon_loss_options cold = {0.0f, 0.0f, 1.0f};
    (void)row;
    return lemon_tape_loss(t, x, x, targets, -1, -1, &cold);
}

static lemon_var wrong_teacher(lemon_tape *t, lemon_var x, lemon_var row) {
    static const lemon_loss_options options = {0.5f, 1.0f, 1.0f};
    static float data[4], grad[4];
    lemon_var leaf = lemon_tape_leaf(t, data, grad, 1, 4);
    return lemon_tape_loss(t, row, x, targets, leaf, x, &options);
}

static void test_refusals(lemon_ctx *ctx) {
    static const struct { const char *what, *message; wrong go;
    } wrongs[] = {{"unequal shapes", "lemon_tape_add: shapes are [3, 4] and [1, 4]", wrong_add},
                  {"a gain of another shape", "gain is [3, 4], expected [1, 4]", wrong_norm},
                  {"an odd head_dim", "lemon_tape_rope", wrong_rope},
                  {"rows that are no multiple of seq", "lemon_tape_rope", wrong_seq},
                  {"kv heads that do not divide", "lemon_tape_attention", wrong_heads},
                  {"keys of another length", "lemon_tape_attention", wrong_keys},
                  {"weights of another number", "expected [1, 1]", wrong_mix},
                  {"terms of two shapes", "term 1 is [1, 4], expected [3, 4]", wrong_term},
                  {"no tokens", "tokens is NULL", wrong_embed},
                  {"a variable from nowhere", "variable 1000 is not on this tape", wrong_var},
                  {"temperature 0", "temperature", wrong_loss},
                  {"a teacher that wants a gradient", "the teacher wants a gradient", wrong_teacher}};
    float data[12] = {0};
    size_t i;
    char name[96];
    for (i = 0; i < sizeof wrongs / sizeof wrongs[0]; i++) {
        lemon_tape *tape = NULL;
        lemon_var x, row, y;
        lemon_tape_open(ctx, &tape);
        x = lemon_tape_leaf(tape, data, NULL, 3, 4);
        row = lemon_tape_leaf(tape, data, NULL, 1, 4);
        y = wrongs[i].go(tape, x, row);
        snprintf(name, sizeof name, "refused: %s", wrongs[i].what);
        check(y < 0 && fails_with(ctx, lemon_tape_plan(tape, 1, NULL), LEMON_E_ARG, wrongs[i].message), name);
        lemon_tape_close(tape);
    }
}

static void test_order(lemon_ctx *ctx) {
    float data[4] = {1, 2, 3, 4};
    lemon_tape *tape = NULL;
    lemon_var a, b, c;
    lemon_tape_open(ctx, &tape);
    a = lemon_tape_leaf(tape, data, NULL, 2, 2);
    b = lemon_tape_add(tape, a, a);
    c = lemon_tape_add(tape, b, a);
    lemon_tape_keep(tape, b);
    check(lemon_tape_forward(tape) == LEMON_E_ARG, "a tape that is not planned does not run");
    check(fine(ctx, lemon_tape_plan(tape, 0, NULL)) && lemon_tape_plan(tape, 0, NULL) == LEMON_E_ARG,
          "a tape is planned once");
    lemon_tape_forward(tape);
    check(lemon_tape_value(tape, b) && near_to((double)lemon_tape_value(tape, b)[3], 8, 0) &&
              lemon_tape_value(tape, c) == NULL && lemon_tape_value(tape, a) == data &&
              lemon_tape_value(tape, 99) == NULL,
          "kept values and leaves can be read, others cannot");
    check(lemon_tape_add(tape, a, a) < 0 && strstr(lemon_error(ctx), "planned already") != NULL,
          "nothing is recorded after the plan");
    lemon_tape_close(tape);
}

/*  Constants of other storage types: in embed, matmul and loss, as their decoded twins; gradients do not flow into them. */
static void test_stored(lemon_ctx *ctx) {
    float rows[10 * 40], out[2], plain[40], grad[40] = {0};
    uint8_t bytes[10 * 68];
    lemon_tensor stored;
    lemon_rng rng;
    int kind;
    lemon_rng_seed(&rng, 3);
    fill_normal(&rng, rows, 400, 1);
    stored.data = bytes;
    stored.dtype = LEMON_Q8;
    stored.rows = 10;
    stored.cols = 40;
    for (kind = 0; kind < 10; kind++) {
        lemon_row_from_f32(&stored, kind, rows + 40 * kind);
        lemon_row_to_f32(&stored, kind, rows + 40 * kind);
    }
    for (kind = 0; kind < 2; kind++) {
        static const lemon_loss_options options = {0.0f, 1.0f, 1.0f};
        static const int32_t ids[4] = {1, 7, 9, 0}, next[4] = {0, 1, 2, 3};
        lemon_tape *tape = NULL;
        lemon_var w, h, loss;
        lemon_tape_open(ctx, &tape);
        w = kind ? lemon_tape_weight(tape, &stored) : lemon_tape_leaf(tape, rows, NULL, 10, 40);
        h = lemon_tape_matmul(tape, lemon_tape_matmul(tape, lemon_tape_embed(tape, w, ids, 4), 0, w, 1), 0,
                              lemon_tape_leaf(tape, rows, NULL, 10, 40), 0);
        loss = lemon_tape_loss(tape, h, w, next, -1, -1, &options);
        out[kind] = fine(ctx, lemon_tape_plan(tape, 0, NULL)) && lemon_tape_forward(tape) == LEMON_OK
                        ? lemon_tape_value(tape, loss)[0]
                        : -1;
        lemon_tape_close(tape);
    }
    check(near_to((double)out[1], (double)out[0], 1e-5), "q8 weights serve in embed, matmul and loss");
    fill_normal(&rng, plain, 40, 1);
    for (kind = 0; kind < 3; kind++) {
        static const char *const names[] = {"a gradient through a q8 weight is refused",
                                            "a gradient through a q8 output matrix is refused", "q8 on the left is refused"};
        static const lemon_loss_options options = {0.0f, 1.0f, 1.0f};
        static const int32_t next[1] = {0};
        lemon_tape *tape = NULL;
        lemon_var w, x;
        lemon_tape_open(ctx, &tape);
        w = lemon_tape_weight(tape, &stored);
        x = lemon_tape_leaf(tape, plain, grad, 1, 40);
        if (kind == 1) lemon_tape_loss(tape, x, w, next, -1, -1, &options);
        else lemon_tape_matmul(tape, kind ? w : x, 0, kind ? x : w, 1);
        check(fails_with(ctx, lemon_tape_plan(tape, 1, NULL), LEMON_E_ARG, "q8"), names[kind]);
        lemon_tape_close(tape);
    }
}

/*  Recording and planning with an allocator that fails at every call in turn. */
static void test_memory(lemon_ctx *ctx) {
    bench b;
    double value;
    long live = heap.live;
    int n, bad = 0, done = 0;
    bench_fill(&b, &cases[9], 3);
    for (n = 1; !done && n < 100; n++) {
        heap.calls = 0;
        heap.fail_at = n;
        done = bench_run(ctx, &b, 1, &value);
        heap.fail_at = 0;
        bad += heap.live != live;
    }
    check(done && bad == 0 && n > 4, "a tape survives every failed allocation");
}

int main(void) {
    lemon_ctx *ctx = open_ctx(2);
    size_t i;
    lemon__workspaces(ctx);
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) test_operation(ctx, &cases[i]);
    test_first_row(ctx);
    test_losses(ctx);
    test_accumulation(ctx);
    test_ignored(ctx);
    test_model(ctx, 1);
    test_model(ctx, 0);
    test_plan(ctx);
    test_segments(ctx);
    test_threads();
    test_sticky(ctx);
    test_refusals(ctx);
    test_order(ctx);
    test_stored(ctx);
    test_memory(ctx);
    lemon_close(ctx);
    check(heap.live == 0, "nothing is left allocated");
    return check_done();
}
