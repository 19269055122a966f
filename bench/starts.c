/*  starts.c - is a fused start worth its trouble?  One student shape, several starts, the same text, equally tuned.

        make -C bench starts
        bench/build/starts --methods random,drop,select,subclone,ligo,lemon --seeds 5

    Each method makes a student of the same shape.  On seed 1 it is trained with every learning rate of the grid, and
    the rate with the lowest validation loss at the last step is its rate; with that one it is trained on the other
    seeds too.  A seed decides the random numbers of the fusion, the piece of the training text that is calibrated on,
    and the order of the training windows.  The rate is constant, nothing is distilled, all methods get the same steps.

    Standard output is a Markdown table of validation losses, mean and standard deviation over the seeds; the CSV file
    holds every single run, the search too.  Progress goes to standard error.  */
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE 1        /* signal() whose handlers stay, also under a strict -std=c99 */
#endif
#ifndef LEMON_LINKED             /* the Makefile compiles the library once, for all programs */
#define LEMON_IMPLEMENTATION
#endif
#include "../lemon.h"
#include "../examples/progress.h"

enum { MAX_LIST = 64, MAX_METHODS = 8 };

/*  A list of numbers from the command line. */
typedef struct list {
    double value[MAX_LIST];
    int count;
} list;

/*  One training run: how a student began, and its validation loss at each evaluation point. */
typedef struct run {
    double rate, fuse_seconds, loss[MAX_LIST];
    int64_t seed, calibration_tokens;
} run;

typedef struct method {
    char name[16];
    run tried[MAX_LIST];         /* one for each rate, on seed 1 */
    run seeds[MAX_LIST];         /* one for each seed, with the chosen rate */
} method;

typedef struct bench {
    const char *teacher_path, *tokenizer_path, *train_path, *valid_path, *csv_path;
    char default_path[4][512];
    lemon_config shape;
    list rates, points;
    method methods[MAX_METHODS];
    int n_methods;
    int64_t seeds, steps, batch, seq, tokens, warmup, eval_tokens, threads;
    progress bar;
    char label[80];
    lemon_ctx *ctx, *eval_ctx;   /* the second one evaluates while the first one trains */
    lemon_tokenizer *tokenizer;
    lemon_model *teacher, *student;
    lemon_tokens train, valid;
    run *now;                    /* the run that on_step writes to */
    lemon_status eval_status;
} bench;

static int failed(bench *b, lemon_ctx *ctx, lemon_status status) {
    if (status == LEMON_OK) return 0;
    progress_clear(&b->bar);
    fprintf(stderr, "starts: error: %s\n", lemon_error(ctx));
    return 1;
}

/* ---- the command line -------------------------------------------------------------------------------------------- */

static void usage(FILE *f) {
    fputs("usage: starts [FLAG VALUE]...\n"
          "  --teacher FILE --tokenizer FILE --data FILE --valid FILE\n"
          "                    default: stories260K.bin, tok512.bin, tinystories_train.txt, tinystories_valid.txt\n"
          "                    in $LEMON_DATA, else in ../shared/data; --tokenizer none: the teacher's own\n"
          "  --dim 48 --layers 3 --heads 6 --kv-heads 3 --head-dim 8 --ffn 112      the student's shape\n"
          "  --methods LIST    random,subclone,lemon; also drop, select, ligo\n"
          "  --rates LIST      1e-3,2e-3,3e-3,5e-3\n"
          "  --evals LIST      0,10,20,30,50,100,150,200,250,300: steps at which the validation loss is taken\n"
          "  --steps N         default: the last of --evals\n"
          "  --seeds N         3\n"
          "  --batch N         8 windows a step\n"
          "  --seq N           256 tokens a window\n"
          "  --warmup N        0 steps\n"
          "  --tokens N        32768 for calibration\n"
          "  --eval-tokens N   0: the whole validation text\n"
          "  --threads N       0: all cores\n"
          "  --csv FILE        bench/build/starts.csv\n", f);
}

/*  "1,2.5,3" to numbers; 0 where it is none. */
static int list_parse(list *l, const char *text) {
    l->count = 0;
    while (l->count < MAX_LIST) {
        char *end;
        l->value[l->count++] = strtod(text, &end);
        if (end == text) return 0;
        if (*end == 0) return 1;
        if (*end != ',') return 0;
        text = end + 1;
    }
    return 0;
}

static int methods_parse(bench *b, const char *text) {
    b->n_methods = 0;
    while (b->n_methods < MAX_METHODS) {
        size_t length = strcspn(text, ",");
        method *m = &b->methods[b->n_methods++];
        if (length == 0 || length >= sizeof m->name) return 0;
        memcpy(m->name, text, length);
        m->name[length] = 0;
        if (text[length] == 0) return 1;
        text += length + 1;
    }
    return 0;
}

static int size_parse(int64_t *out, const char *text) {
    char *end;
    long value = strtol(text, &end, 10);
    *out = value;
    return end != text && *end == 0 && value >= 0 && value < 1000000000L;
}

static int shape_parse(bench *b, const char *flag, const char *text) {
    static const char *const names[6] = {"--dim", "--layers", "--heads", "--kv-heads", "--head-dim", "--ffn"};
    int32_t *const fields[6] = {&b->shape.d_model, &b->shape.n_layers, &b->shape.n_heads,
                                &b->shape.kv_heads, &b->shape.head_dim, &b->shape.d_ffn};
    int64_t value = 0;
    int i;
    for (i = 0; i < 6; i++)
        if (strcmp(flag, names[i]) == 0 && size_parse(&value, text)) {
            *fields[i] = (int32_t)value;
            return 1;
        }
    return 0;
}

static int flag_parse(bench *b, const char *flag, const char *text) {
    static const char *const paths[5] = {"--teacher", "--tokenizer", "--data", "--valid", "--csv"};
    static const char *const sizes[8] = {"--seeds", "--steps", "--batch", "--seq", "--tokens", "--warmup",
                                         "--eval-tokens", "--threads"};
    const char **const path[5] = {&b->teacher_path, &b->tokenizer_path, &b->train_path, &b->valid_path, &b->csv_path};
    int64_t *const size[8] = {&b->seeds, &b->steps, &b->batch, &b->seq, &b->tokens, &b->warmup, &b->eval_tokens,
                              &b->threads};
    int i;
    for (i = 0; i < 5; i++)
        if (strcmp(flag, paths[i]) == 0) return *path[i] = text, 1;
    for (i = 0; i < 8; i++)
        if (strcmp(flag, sizes[i]) == 0) return size_parse(size[i], text);
    if (strcmp(flag, "--methods") == 0) return methods_parse(b, text);
    if (strcmp(flag, "--rates") == 0) return list_parse(&b->rates, text);
    if (strcmp(flag, "--evals") == 0) return list_parse(&b->points, text);
    return shape_parse(b, flag, text);
}

/*  The evaluation points must rise and end at the last step. */
static int points_check(bench *b) {
    int i;
    for (i = 1; i < b->points.count; i++)
        if (b->points.value[i] <= b->points.value[i - 1]) return 0;
    if (b->steps == 0) b->steps = (int64_t)b->points.value[b->points.count - 1];
    while (b->points.count && b->points.value[b->points.count - 1] > (double)b->steps) b->points.count--;
    if (b->points.count == 0 || b->points.value[b->points.count - 1] < (double)b->steps) {
        if (b->points.count == MAX_LIST) return 0;
        b->points.value[b->points.count++] = (double)b->steps;
    }
    return b->points.value[0] >= 0 && b->steps > 0;
}

static void bench_defaults(bench *b) {
    static const char *const names[4] = {"stories260K.bin", "tok512.bin", "tinystories_train.txt",
                                         "tinystories_valid.txt"};
    const char *folder = getenv("LEMON_DATA");
    int i;
    memset(b, 0, sizeof *b);
    for (i = 0; i < 4; i++)
        snprintf(b->default_path[i], sizeof b->default_path[i], "%s/%s", folder ? folder : "../shared/data", names[i]);
    b->teacher_path = b->default_path[0];
    b->tokenizer_path = b->default_path[1];
    b->train_path = b->default_path[2];
    b->valid_path = b->default_path[3];
    b->csv_path = "bench/build/starts.csv";
    b->shape.d_model = 48;
    b->shape.n_layers = 3;
    b->shape.n_heads = 6;
    b->shape.kv_heads = 3;
    b->shape.head_dim = 8;
    b->shape.d_ffn = 112;
    b->seeds = 3;
    b->batch = 8;
    b->seq = 256;
    b->tokens = 32768;
    methods_parse(b, "random,subclone,lemon");
    list_parse(&b->rates, "1e-3,2e-3,3e-3,5e-3");
    list_parse(&b->points, "0,10,20,30,50,100,150,200,250,300");
}

static int bench_parse(bench *b, int argc, char **argv) {
    int i;
    for (i = 1; i < argc; i += 2) {
        if (i + 1 < argc && flag_parse(b, argv[i], argv[i + 1])) continue;
        fprintf(stderr, "starts: error: %s %s is not understood\n", argv[i], i + 1 < argc ? argv[i + 1] : "");
        return 0;
    }
    if (b->seeds >= 1 && b->seeds <= MAX_LIST && points_check(b)) return 1;
    fprintf(stderr, "starts: error: --seeds must be 1 to %d, --evals must rise, --steps be 1 or more\n", (int)MAX_LIST);
    return 0;
}

/* ---- one run ----------------------------------------------------------------------------------------------------- */

static int evaluate(bench *b, const lemon_model *model, double *loss) {
    b->eval_status = lemon_eval(b->eval_ctx, model, &b->valid, b->seq, b->eval_tokens, loss, NULL);
    return failed(b, b->eval_ctx, b->eval_status);
}

static void on_step(void *user, const lemon_step *step) {
    bench *b = (bench *)user;
    int i;
    for (i = 0; i < b->points.count; i++)
        if ((int64_t)b->points.value[i] == step->step && b->eval_status == LEMON_OK)
            evaluate(b, b->student, &b->now->loss[i]);
}

/*  The text that a seed calibrates on: so many tokens, from the first document at or behind a place of its own. */
static lemon_tokens calibration_text(const bench *b, int64_t seed) {
    lemon_tokens text = b->train;
    int64_t start = (seed - 1) * b->tokens, bos = text.ids[0];
    if (start + 2 * b->tokens > text.count) start = 0;
    while (start > 0 && start < text.count && text.ids[start] != bos) start++;
    text.ids += start;
    text.count -= start;
    return text;
}

static int make_student(bench *b, const char *name, int64_t seed, lemon_model **model, run *r) {
    lemon_tokens text = calibration_text(b, seed);
    lemon_fuse_options options;
    lemon_fuse_result result;
    int bare = strcmp(name, "random") == 0;
    lemon_fuse_defaults(&options);
    options.method = name;
    options.tokens = b->tokens;
    options.seed = (uint64_t)seed;
    if (failed(b, b->ctx, lemon_fuse(b->ctx, b->teacher, &b->shape, bare ? NULL : &text, &options, model, &result)))
        return 1;
    r->seed = seed;
    r->fuse_seconds = result.seconds;
    r->calibration_tokens = result.calibration_tokens;
    return 0;
}

/*  Trains a copy of `start` and fills in the losses; a run that diverges has the loss Inf from there on. */
static int train_run(bench *b, const lemon_model *start, double rate, run *r) {
    lemon_train_options options;
    lemon_train_result result;
    lemon_status status = lemon_model_clone(b->ctx, start, &b->student);
    int i, code = failed(b, b->ctx, status);
    for (i = 0; i < b->points.count; i++) r->loss[i] = (double)INFINITY;
    r->rate = rate;
    if (code == 0 && b->points.value[0] <= 0) code = evaluate(b, b->student, &r->loss[0]);
    if (code) return code;
    lemon_train_defaults(&options);
    options.steps = b->steps;
    options.batch = b->batch;
    options.seq = b->seq;
    options.lr = rate;
    options.schedule = LEMON_CONSTANT;
    options.warmup = b->warmup;
    options.seed = (uint64_t)r->seed;
    options.on_step = on_step;
    options.user = b;
    b->now = r;
    status = lemon_train(b->ctx, b->student, &b->train, &options, &result);
    if (status != LEMON_E_DIVERGED) code = failed(b, b->ctx, status);
    lemon_model_free(b->ctx, b->student);
    b->student = NULL;
    return code || b->eval_status != LEMON_OK;
}

static double last_loss(const bench *b, const run *r) { return r->loss[b->points.count - 1]; }

static void tell(bench *b, const method *m, const run *r) {
    progress_clear(&b->bar);
    fprintf(stderr, "%-9s rate %-7g seed %d: loss %.4f after %d steps\n", m->name, r->rate, (int)r->seed,
            last_loss(b, r), (int)b->steps);
}

static int one_run(bench *b, const method *m, const lemon_model *start, double rate, run *r) {
    snprintf(b->label, sizeof b->label, "%s rate %g seed %d", m->name, rate, (int)r->seed);
    b->bar.label = b->label;
    if (train_run(b, start, rate, r)) return 1;
    tell(b, m, r);
    return 0;
}

/*  Seed 1 with every rate; the best run is the first of the seeds. */
static int search_rates(bench *b, method *m) {
    lemon_model *start = NULL;
    run begun;
    int i, best = 0, code;
    memset(&begun, 0, sizeof begun);
    code = make_student(b, m->name, 1, &start, &begun);
    for (i = 0; i < b->rates.count && code == 0; i++) {
        m->tried[i] = begun;
        code = one_run(b, m, start, b->rates.value[i], &m->tried[i]);
        if (last_loss(b, &m->tried[i]) < last_loss(b, &m->tried[best])) best = i;
    }
    m->seeds[0] = m->tried[best];
    lemon_model_free(b->ctx, start);
    return code;
}

static int run_method(bench *b, method *m) {
    int64_t seed;
    int code;
    snprintf(b->label, sizeof b->label, "%s", m->name);
    b->bar.label = b->label;
    code = search_rates(b, m);
    for (seed = 2; seed <= b->seeds && code == 0; seed++) {
        lemon_model *start = NULL;
        code = make_student(b, m->name, seed, &start, &m->seeds[seed - 1]);
        if (code == 0) code = one_run(b, m, start, m->seeds[0].rate, &m->seeds[seed - 1]);
        lemon_model_free(b->ctx, start);
    }
    return code;
}

/* ---- what came of it --------------------------------------------------------------------------------------------- */

static double mean_loss(const bench *b, const method *m, int point) {
    double sum = 0;
    int64_t i;
    for (i = 0; i < b->seeds; i++) sum += m->seeds[i].loss[point];
    return sum / (double)b->seeds;
}

/*  Standard deviation over the seeds (with seeds - 1 below the line). */
static double loss_spread(const bench *b, const method *m, int point) {
    double mean = mean_loss(b, m, point), sum = 0;
    int64_t i;
    for (i = 0; i < b->seeds; i++) sum += (m->seeds[i].loss[point] - mean) * (m->seeds[i].loss[point] - mean);
    return b->seeds > 1 ? sqrt(sum / (double)(b->seeds - 1)) : 0;
}

/*  Steps until the mean curve is first down at `loss`, on straight lines between the points; -1: never. */
static double steps_to_reach(const bench *b, const method *m, double loss) {
    const double *step = b->points.value;
    int i;
    if (mean_loss(b, m, 0) <= loss) return step[0];
    for (i = 1; i < b->points.count; i++) {
        double before = mean_loss(b, m, i - 1), after = mean_loss(b, m, i);
        if (after <= loss) return step[i - 1] + (before - loss) / (before - after) * (step[i] - step[i - 1]);
    }
    return -1;
}

static void print_row(const bench *b, const method *m, const method *random) {
    int i;
    printf("| %s | %g |", m->name, m->seeds[0].rate);
    for (i = 0; i < b->points.count; i++)
        printf(b->seeds > 1 ? " %.3f ± %.3f |" : " %.3f |", mean_loss(b, m, i), loss_spread(b, m, i));
    if (random) {
        double steps = steps_to_reach(b, m, mean_loss(b, random, b->points.count - 1));
        if (steps < 0) printf(" not reached |");
        else printf(" %.0f |", steps);
    }
    printf(" %lld | %.1f |\n", (long long)m->seeds[0].calibration_tokens, m->seeds[0].fuse_seconds);
}

static void print_table(const bench *b) {
    const method *random = NULL;
    int i;
    for (i = 0; i < b->n_methods; i++)
        if (strcmp(b->methods[i].name, "random") == 0) random = &b->methods[i];
    printf("\n| start | rate |");
    for (i = 0; i < b->points.count; i++) printf(" %g |", b->points.value[i]);
    printf("%s calibration tokens | fusion, s |\n|---|---|", random ? " steps to random's end |" : "");
    for (i = 0; i < b->points.count + (random != NULL) + 2; i++) printf("---|");
    putchar('\n');
    for (i = 0; i < b->n_methods; i++) print_row(b, &b->methods[i], random);
}

static void print_runs(const bench *b, FILE *f, const method *m, const run *runs, int64_t count, const char *kind) {
    int64_t i;
    int k;
    for (i = 0; i < count; i++)
        for (k = 0; k < b->points.count; k++)
            fprintf(f, "%s,%s,%g,%lld,%g,%.0f,%.6f,%lld,%.3f\n", m->name, kind, runs[i].rate, (long long)runs[i].seed,
                    b->points.value[k], b->points.value[k] * (double)(b->batch * b->seq), runs[i].loss[k],
                    (long long)runs[i].calibration_tokens, runs[i].fuse_seconds);
}

static int write_csv(const bench *b) {
    FILE *f = fopen(b->csv_path, "w");
    int i, bad = f == NULL;
    if (f) {
        fputs("method,kind,rate,seed,step,tokens,loss,calibration_tokens,fuse_seconds\n", f);
        for (i = 0; i < b->n_methods; i++) {
            print_runs(b, f, &b->methods[i], b->methods[i].tried, b->rates.count, "search");
            print_runs(b, f, &b->methods[i], b->methods[i].seeds, b->seeds, "seed");
        }
        bad = ferror(f);
        bad |= fclose(f) != 0;
    }
    if (bad) fprintf(stderr, "starts: error: %s could not be written\n", b->csv_path);
    return bad != 0;
}

/* ---- the job ----------------------------------------------------------------------------------------------------- */

static int load_text(bench *b, const char *path, lemon_tokens *tokens) {
    const lemon_tokenizer *tokenizer = b->tokenizer ? b->tokenizer : b->teacher->tokenizer;
    return failed(b, b->ctx,
                  lemon_tokens_from_files(b->ctx, tokenizer, b->teacher->config.vocab_size, &path, 1, tokens));
}

static int bench_open(bench *b) {
    lemon_options options;
    const lemon_config *t;
    memset(&options, 0, sizeof options);
    options.threads = (int)b->threads;
    options.user = &b->bar;
    options.progress = progress_callback;
    progress_begin(&b->bar, 0);
    b->ctx = lemon_open(&options);
    b->eval_ctx = lemon_open(&options);
    if (b->ctx == NULL || b->eval_ctx == NULL) return fputs("starts: error: could not begin\n", stderr), 1;
    if (failed(b, b->ctx, lemon_load(b->ctx, b->teacher_path, &b->teacher))) return 1;
    t = &b->teacher->config;
    if (strcmp(b->tokenizer_path, "none") != 0 &&
        failed(b, b->ctx, lemon_tokenizer_load(b->ctx, b->tokenizer_path, t->vocab_size, &b->tokenizer))) return 1;
    b->shape.vocab_size = t->vocab_size;
    b->shape.max_seq = t->max_seq;
    b->shape.tied_embeddings = t->tied_embeddings;
    b->shape.rope_theta = t->rope_theta;
    b->shape.rms_norm_eps = t->rms_norm_eps;
    return load_text(b, b->train_path, &b->train) || load_text(b, b->valid_path, &b->valid);
}

static int print_setting(bench *b) {
    double loss;
    if (evaluate(b, b->teacher, &loss)) return 1;
    progress_clear(&b->bar);
    printf("Teacher: %s, %lld parameters, validation loss %.4f. Student: %lld parameters (%d wide, %d layers, "
           "%d heads, %d KV heads, head_dim %d, FFN %d).\n",
           b->teacher_path, (long long)lemon_config_params(&b->teacher->config), loss,
           (long long)lemon_config_params(&b->shape), b->shape.d_model, b->shape.n_layers, b->shape.n_heads,
           b->shape.kv_heads, b->shape.head_dim, b->shape.d_ffn);
    printf("%d tokens a step from a text of %lld, %d seeds, constant rate, warm-up %d steps; %s, %d threads.\n"
           "Validation loss in nats a token after so many steps:\n",
           (int)(b->batch * b->seq), (long long)b->train.count, (int)b->seeds, (int)b->warmup,
           lemon_isa_name(lemon_ctx_isa(b->ctx)), lemon_ctx_threads(b->ctx));
    fflush(stdout);
    return 0;
}

static void bench_close(bench *b) {
    if (b->ctx) {
        lemon_tokens_free(b->ctx, &b->train);
        lemon_tokens_free(b->ctx, &b->valid);
        lemon_tokenizer_free(b->ctx, b->tokenizer);
        lemon_model_free(b->ctx, b->student);
        lemon_model_free(b->ctx, b->teacher);
    }
    lemon_close(b->eval_ctx);
    lemon_close(b->ctx);
}

int main(int argc, char **argv) {
    static bench b;
    int i, code;
    bench_defaults(&b);
    if (argc > 1 && strcmp(argv[1], "--help") == 0) return usage(stdout), 0;
    if (!bench_parse(&b, argc, argv)) return usage(stderr), 2;
    code = bench_open(&b);
    if (code == 0) code = print_setting(&b);
    for (i = 0; i < b.n_methods && code == 0; i++) code = run_method(&b, &b.methods[i]);
    if (code == 0) {
        print_table(&b);
        code = write_csv(&b);
    }
    bench_close(&b);
    return code;
}
