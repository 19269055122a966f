/*  train.c - a training step (forward, backward, AdamW) of lemon.h beside PyTorch's, and beside the machine's peak.

    make -C bench train                     all shapes, 1 and 2 threads; bench/build/train.csv, train.svg
    ARGS="--shape N --threads N --rounds N --lemon --breakdown"    one shape (0, 1, 2), one thread count, so many rounds,
                                            without PyTorch, only the times by kernel, which otherwise follow the table
    ARGS="--quick"                          all but the second, without PyTorch, one short round

    FLOPs of a token: 6 x matmul parameters (output matrix counted, looking up embeddings not) + 6 x layers x T x d_model
    for causal attention.  A figure is the best step of several, in rounds that alternate with the peer's; memory is
    resident memory of the process at its peak.  PyTorch is Debian's, each time with the best of its BLAS builds.  llm.c
    is at GPT-2's shape of the same size (peer_llmc.c). */
#include "speed.h"

static const speed_shape shapes[] = {{"288 x 6, vocabulary 32000", 288, 6, 6, 6, 768, 32000, 256, 8},
                                     {"512 x 8, vocabulary 32000", 512, 8, 8, 8, 1376, 32000, 512, 4},
                                     {"64 x 5, vocabulary 512", 64, 5, 8, 4, 172, 512, 256, 16}};
enum { SHAPES = sizeof shapes / sizeof shapes[0], ROUNDS = 3 };

typedef struct job { const speed_shape *shape; int threads, recompute; lemon_dtype moments; double seconds; } job;

static double flop_of_token(const speed_shape *s) {
    return 6 * speed_matmul_params(s) + 6.0 * s->layers * s->seq * s->d;
}

/* ---- lemon.h ---- */

/*  A trainer of a random model on random text. */
static void open_trainer(const job *j, lemon__trainer *t) {
    static lemon_tokens tokens;
    lemon_options o;
    lemon_config c = speed_config(j->shape);
    lemon_rng rng;
    int64_t i;
    memset(&o, 0, sizeof o);
    memset(t, 0, sizeof *t);
    o.threads = j->threads;
    t->ctx = lemon_open(&o);
    lemon_rng_seed(&rng, 1);
    for (i = 0; i <= 4L * j->shape->batch * j->shape->seq; i++)
        if (lemon_tokens_push(t->ctx, &tokens, (int32_t)lemon_rng_below(&rng, c.vocab_size))) _exit(1);
    if (lemon_model_create(t->ctx, &c, &t->model) || lemon_model_init(t->ctx, t->model, 1)) _exit(1);
    lemon_train_defaults(&t->o);
    t->o.recompute = j->recompute;
    t->o.moments = j->moments;
    t->o.batch = j->shape->batch, t->o.seq = j->shape->seq, t->o.lr = 1e-4, t->o.steps = 1 << 20;
    lemon__train_resolve(&c, &t->o);
    if (lemon__trainer_open(t, &tokens)) _exit(1);
}

static void measure_steps(const void *arg, finding *out) {
    const job *j = (const job *)arg;
    lemon__trainer t;
    double least = 1e30, spent = 0, tokens = (double)j->shape->batch * j->shape->seq;
    int steps = 0;
    open_trainer(j, &t);
    if (lemon__trainer_step(&t)) _exit(1);
    while (steps < 3 || spent < j->seconds) {
        double start = now();
        if (lemon__trainer_step(&t)) _exit(1);
        start = now() - start;
        spent += start;
        steps++;
        least = start < least ? start : least;
    }
    out->best = tokens / least;
    out->mean = tokens * steps / spent;
    out->extra[0] = (double)t.planned;
}

/* ---- where the time goes: a step of its own, each row of the tape timed ---- */

enum { EMBED, ROPE, NORM, ATTENTION, SWIGLU, ADD, PRODUCTS, LOSS, ADAMW, KINDS };
static const char *const kind_names[KINDS] = {"embedding", "RoPE", "RMSNorm", "attention", "SwiGLU", "residual", "matrix products",
                                              "output matrix and loss", "AdamW, norm of the gradient"};

static int kind_of(lemon__code code) {
    switch (code) {
    case LEMON__EMBED: return EMBED;
    case LEMON__MATMUL: return PRODUCTS;
    case LEMON__NORM: return NORM;
    case LEMON__ROPE: return ROPE;
    case LEMON__ATTENTION: return ATTENTION;
    case LEMON__SWIGLU: return SWIGLU;
    case LEMON__LOSS: return LOSS;
    case LEMON__ADD:
    case LEMON__BIAS:
    case LEMON__MIX: break;
    }
    return ADD;
}

typedef struct times { double forward[KINDS], backward[KINDS], flop[KINDS], bytes[KINDS]; } times;

/*  Floating-point operations of products, bytes that all else must move: both passes together. */
static void count_row(const lemon__tape_row *row, times *t) {
    const lemon__op *op = &row->op;
    const double size = (double)(op->rows * op->cols);
    const int kind = kind_of(row->code);
    if (kind == PRODUCTS) t->flop[kind] += 6 * size * (double)op->in[0].cols;
    else if (kind == ATTENTION) t->flop[kind] += 6 * size * (double)op->seq;
    else if (kind == LOSS) t->flop[kind] += 6 * (double)op->in[0].rows * (double)op->in[1].rows * (double)op->in[1].cols;
    else t->bytes[kind] += 4 * size * (kind == NORM ? 5 : kind == SWIGLU ? 8 : kind == ADD ? 6 : 4);
}

static void time_rows(lemon__trainer *t, int backward, double *spent) {
    lemon_tape *tape = t->q.tape;
    int64_t i;
    for (i = 0; i < tape->n_rows; i++) {
        lemon__tape_row *row = &tape->rows[backward ? tape->n_rows - 1 - i : i];
        double start = now();
        if (!backward && row->code == LEMON__LOSS) continue;
        lemon__tape_run_row(tape, row, backward);
        spent[kind_of(row->code)] += now() - start;
    }
}

static void time_step(lemon__trainer *t, times *x) {
    double start, norm;
    memset(x, 0, sizeof *x);
    memset(t->adam.g, 0, (size_t)t->adam.count * sizeof(float));
    lemon__objective_fill(&t->q, &t->windows, 0);
    time_rows(t, 0, x->forward);
    time_rows(t, 1, x->backward);
    start = now();
    norm = lemon__adam_norm(t->ctx, &t->adam);
    lemon__adam_step(t->ctx, &t->adam, ++t->done, 1e-4, norm, 1.0);
    x->forward[ADAMW] += now() - start;
}

static double whole(const times *t) {
    double sum = 0;
    int k;
    for (k = 0; k < KINDS; k++) sum += t->forward[k] + t->backward[k];
    return sum;
}

static void measure_breakdown(const void *arg, finding *out) {
    const job *j = (const job *)arg;
    lemon__trainer t;
    times best, x;
    double peak = limits_peak(lemon_ctx_isa(NULL), j->threads, 0.3), started = now();
    int64_t i;
    int k;
    open_trainer(j, &t);
    time_step(&t, &x);
    time_step(&t, &best);
    while (now() - started < j->seconds) {
        time_step(&t, &x);
        if (whole(&x) < whole(&best)) best = x;
    }
    for (i = 0; i < t.q.tape->n_rows; i++) count_row(&t.q.tape->rows[i], &best);
    best.bytes[ADAMW] = 32.0 * (double)t.adam.count;
    printf("\n| %s, %d thread%s: kernel | forward, ms | backward, ms | share | GFLOP/s | of peak | GB/s |\n"
           "|---|---:|---:|---:|---:|---:|---:|\n", j->shape->name, j->threads, j->threads > 1 ? "s" : "");
    for (k = 0; k < KINDS; k++) {
        double spent = best.forward[k] + best.backward[k];
        printf("| %s | %.2f | %.2f | %.1f %% |", kind_names[k], 1e3 * best.forward[k], 1e3 * best.backward[k],
               100 * spent / whole(&best));
        if (best.flop[k] > 0) printf(" %.0f | %.0f %% | |\n", best.flop[k] / spent / 1e9, best.flop[k] / spent / 1e7 / peak);
        else printf(" | | %.0f |\n", best.bytes[k] / spent / 1e9);
    }
    printf("| all | %.1f | | | %.0f | %.0f %% | |\n", 1e3 * whole(&best),
           flop_of_token(j->shape) * j->shape->batch * j->shape->seq / whole(&best) / 1e9,
           flop_of_token(j->shape) * j->shape->batch * j->shape->seq / whole(&best) / 1e7 / peak);
    fflush(stdout);
    out->best = 1;
}

/* ---- the whole ---- */

static void measure_peak(const void *arg, finding *out) {
    out->best = limits_peak(lemon_ctx_isa(NULL), ((const job *)arg)->threads, 0.3);
}

static int peer(const job *j, const char *build, finding *out) {
    const speed_shape *s = j->shape;
    return speed_command(out, "env -u OPENBLAS_CORETYPE LD_LIBRARY_PATH=/usr/lib/$(uname -m)-linux-gnu/openblas-%s OPENBLAS_NUM_THREADS=%d "
                              "OMP_NUM_THREADS=%d OMP_WAIT_POLICY=passive MALLOC_MMAP_THRESHOLD_=4294967296 "
                              "MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_TOP_PAD_=268435456 "
                              "/usr/bin/python3 bench/peer_train.py %d %d %d %d %d %d %d %d %d %g 2> /dev/null",
                         build, j->threads, j->threads, s->d, s->layers, s->heads, s->kv, s->ffn, s->vocab, s->seq, s->batch,
                         j->threads, j->seconds);
}

/*  llm.c has as many key-value heads as heads, and takes long: the first shape, one round. */
static int peer_llmc(const job *j, finding *out) {
    const speed_shape *s = j->shape;
    if (s != shapes) return 0;
    return speed_command(out, "OMP_NUM_THREADS=%d bench/build/peer_llmc %d %d %d %d %d %d %.0f 2> /dev/null", j->threads,
                         s->d, s->layers, s->heads, s->vocab, s->seq, s->batch, j->seconds);
}

static void compare(job *j, int rounds, int with_peer, FILE *csv, speed_chart *chart) {
    finding lemon, torch, llmc, peak, f;
    int i;
    memset(&llmc, 0, sizeof llmc);
    memset(&lemon, 0, sizeof lemon);
    memset(&torch, 0, sizeof torch);
    memset(&peak, 0, sizeof peak);
    for (i = 0; i < rounds; i++) {
        if (speed_child(measure_peak, j, &f)) speed_keep(&peak, &f);
        if (speed_child(measure_steps, j, &f)) speed_keep(&lemon, &f);
        if (with_peer && peer(j, "openmp", &f)) speed_keep(&torch, &f);
        if (with_peer && peer(j, "pthread", &f)) speed_keep(&torch, &f);
    }
    if (with_peer) peer_llmc(j, &llmc);
    printf("| %s, T %d, B %d | %d | %.0f | %.0f | %.0f %% | %.0f MB |", j->shape->name, j->shape->seq, j->shape->batch,
           j->threads, lemon.best, lemon.mean, lemon.best * flop_of_token(j->shape) / 1e7 / peak.best, lemon.bytes / 1e6);
    speed_cell("%.0f", torch.best), speed_cell("%.0f %%", torch.best * flop_of_token(j->shape) / 1e7 / peak.best);
    speed_cell("%.0f MB", torch.bytes / 1e6), speed_cell("%.2f", torch.best > 0 ? lemon.best / torch.best : 0);
    speed_cell("1/%.1f", torch.bytes / lemon.bytes), speed_cell("%.0f", llmc.best);
    printf("\n");
    fflush(stdout);
    fprintf(csv, "%s,%d,%.1f,%.1f,%.0f,%.1f,%.0f,%.1f,%.4f,%.1f\n", j->shape->name, j->threads, lemon.best, lemon.mean,
            lemon.bytes, torch.best, torch.bytes, peak.best, lemon.best * flop_of_token(j->shape) / 1e9 / peak.best,
            llmc.best);
    speed_chart_add(chart, lemon.best, torch.best, 1e9 * peak.best / flop_of_token(j->shape), "%s, %d thr.", j->shape->name,
                    j->threads);
}

/*  What it costs to make activations again in backward, or to keep moments in bf16, and what it saves: bytes that were planned. */
static void compare_saving(job *j) {
    finding keeps, again, narrow;
    int done = speed_child(measure_steps, j, &keeps);
    j->recompute = 1;
    done = done && speed_child(measure_steps, j, &again);
    j->recompute = 0, j->moments = LEMON_BF16;
    done = done && speed_child(measure_steps, j, &narrow);
    j->moments = LEMON_F32;
    if (!done) return;
    printf("| %s | %d | %.0f | %.0f | %.0f | %.2f | %.0f | %.0f | %.2f | %.0f |\n", j->shape->name, j->threads, keeps.best,
           keeps.extra[0] / 1e6, again.best, keeps.best / again.best, again.extra[0] / 1e6, narrow.best, keeps.best / narrow.best,
           narrow.extra[0] / 1e6);
    fflush(stdout);
}

int main(int argc, char **argv) {
    int shape = -1, threads = 0, with_peer = 1, breakdown = 0, rounds = ROUNDS, quick = 0, i, t;
    static speed_chart chart;
    FILE *csv;
    job j;
    finding f;
    j.seconds = 4, j.recompute = 0, j.moments = LEMON_F32;
    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--lemon")) with_peer = 0;
        else if (!strcmp(argv[i], "--quick")) with_peer = 0, quick = rounds = 1, j.seconds = 1;
        else if (!strcmp(argv[i], "--breakdown")) breakdown = 1;
        else if (!strcmp(argv[i], "--shape") && i + 1 < argc) shape = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--threads") && i + 1 < argc) threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--rounds") && i + 1 < argc) rounds = atoi(argv[++i]);
        else return fprintf(stderr, "train: error: unknown flag %s; see the head of bench/train.c\n", argv[i]), 2;
    }
    if (!breakdown) {
        csv = speed_csv("train", "shape,threads,lemon_tok_s,lemon_mean_tok_s,lemon_bytes,torch_tok_s,torch_bytes,peak_gflops,"
                                 "lemon_of_peak,llmc_tok_s");
        printf("\n| shape | threads | lemon, tok/s | mean | of peak | memory | PyTorch | of peak | memory | ratio | memory | llm.c |\n"
               "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n");
        for (i = 0; i < SHAPES; i++)
            for (t = 1; t <= MAX_THREADS; t++) {
                j.shape = &shapes[i], j.threads = t;
                if (quick && i == 1) continue;
                if ((shape < 0 || shape == i) && (threads == 0 || threads == t)) compare(&j, rounds, with_peer, csv, &chart);
            }
        fclose(csv);
        speed_svg("train", "Training step, tokens a second", "PyTorch", &chart);
        if (quick) return 0;
        printf("\n| to save memory | threads | tok/s | MB planned | activations made again | times as long | MB | moments in bf16 | "
               "times as long | MB |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n");
        for (i = 0; i < SHAPES; i++) {
            j.shape = &shapes[i], j.threads = threads ? threads : MAX_THREADS;
            if (shape < 0 || shape == i) compare_saving(&j);
        }
    }
    for (i = 0; i < SHAPES; i++)
        for (t = 1; t <= MAX_THREADS; t++) {
            j.shape = &shapes[i], j.threads = t;
            if ((shape < 0 || shape == i) && (threads == 0 || threads == t)) speed_child(measure_breakdown, &j, &f);
        }
    return 0;
}
