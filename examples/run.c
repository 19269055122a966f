/*  run.c - the whole job on one screen: a teacher, three students of a fifth of its size, and training.

        make -C examples run

    The students have the same shape and see the same text in the same order.  They differ in where they begin: random
    weights; weights picked from the teacher (subclone); linear fusion of the teacher (lemon).  Told on stdout, drawn in
    OUT/report.html; the fused student stays in OUT/student.lemon.

    usage: run TEACHER TRAIN.txt VALID.txt OUT */
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE 1        /* signal() whose handlers stay, also under a strict -std=c99 */
#endif
#ifndef LEMON_LINKED             /* the Makefile compiles the library once, for all programs */
#define LEMON_IMPLEMENTATION
#endif
#include "../lemon.h"
#include "progress.h"
#include "report.h"

#define STEPS 150                /* of training, for each student */
#define BATCH 8                  /* windows a step */
#define SEQ 256                  /* tokens a window */
#define EVAL_EVERY 10            /* steps */
#define EVAL_TOKENS 16384        /* of the validation text, at most */
#define CALIBRATION_TOKENS 16384 /* that subclone and lemon may look at before they begin */
#define RATE 6e-3                /* does well for each of the starts; `make -C bench starts` searches rates */
#define PROMPT_TOKENS 24         /* of the validation text, for both to go on from */
#define NEW_TOKENS 120

enum { RANDOM, SUBCLONE, LEMON, N_STUDENTS };

/*  One student: how it begins, and what became of it. */
typedef struct student {
    const char *method, *label;
    lemon_model *model;
    lemon_operators *operators;
    lemon_fuse_result fused;
    lemon_train_result trained;
    double start_loss, end_loss;
    report_series curve;         /* validation loss against training tokens */
} student;

typedef struct job {
    progress bar;
    lemon_ctx *ctx;
    const char *out;
    lemon_model *teacher;
    lemon_tokens train, valid;
    double teacher_loss;
    student students[N_STUDENTS];
    buffer prompt, by_teacher, by_student;
} job;

/*  What a call came to, with its message. */
static int failed(job *j, lemon_status status) {
    if (status == LEMON_OK) return 0;
    progress_clear(&j->bar);
    fprintf(stderr, "lemon: error: %s\n", lemon_error(j->ctx));
    return status == LEMON_E_CANCELLED ? 3 : status == LEMON_E_DIVERGED ? 4 : status == LEMON_E_ARG ? 2 : 1;
}

/* ---- the three students ------------------------------------------------------------------------------------------ */

static lemon_config student_shape(const lemon_model *teacher) {
    lemon_config shape = teacher->config;
    shape.d_model = 64;
    shape.n_layers = 4;
    shape.n_heads = 4;
    shape.kv_heads = 2;
    shape.d_ffn = 176;
    return shape;
}

/*  Makes the student: from nothing, or by operators that are kept, to be drawn. */
static int make_student(job *j, student *s) {
    lemon_config shape = student_shape(j->teacher);
    lemon_fuse_options options;
    int code;
    lemon_fuse_defaults(&options);
    options.method = s->method;
    options.tokens = CALIBRATION_TOKENS;
    if (strcmp(s->method, "random") == 0)
        return failed(j, lemon_fuse(j->ctx, j->teacher, &shape, &j->train, &options, &s->model, &s->fused));
    code = failed(j, lemon_operators_fill(j->ctx, j->teacher, &shape, &j->train, &options, &s->operators, &s->fused));
    return code ? code : failed(j, lemon_operators_apply(j->ctx, s->operators, j->teacher, 1, &s->model));
}

static void on_step(void *user, const lemon_step *step) {
    student *s = (student *)user;
    report_point(&s->curve, (double)step->tokens, step->eval_loss);
}

static int train_student(job *j, student *s) {
    lemon_train_options options;
    lemon_train_defaults(&options);
    options.steps = STEPS;
    options.batch = BATCH;
    options.seq = SEQ;
    options.lr = RATE;
    options.eval_tokens = &j->valid;
    options.eval_every = EVAL_EVERY;
    options.on_step = on_step;
    options.user = s;
    return failed(j, lemon_train(j->ctx, s->model, &j->train, &options, &s->trained));
}

static int run_student(job *j, student *s) {
    int code;
    j->bar.label = s->label;
    code = make_student(j, s);
    if (code == 0) code = failed(j, lemon_eval(j->ctx, s->model, &j->valid, SEQ, 0, &s->start_loss, NULL));
    if (code) return code;
    report_point(&s->curve, 0, s->start_loss);
    code = train_student(j, s);
    s->end_loss = s->trained.eval_loss;
    progress_clear(&j->bar);
    if (code == 0) printf("%s: loss %.4f at its start, %.4f after training\n", s->label, s->start_loss, s->end_loss);
    fflush(stdout);
    return code;
}

/*  Training tokens until a curve is first down at `loss`, on straight lines between its points; -1: never. */
static double tokens_to_reach(const report_series *curve, double loss) {
    int64_t i;
    if (curve->count && curve->y[0] <= loss) return curve->x[0];
    for (i = 1; i < curve->count; i++)
        if (curve->y[i] <= loss) {
            double share = (curve->y[i - 1] - loss) / (curve->y[i - 1] - curve->y[i]);
            return curve->x[i - 1] + share * (curve->x[i] - curve->x[i - 1]);
        }
    return -1;
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

enum { COLUMNS = 6 };
static const char *const columns[COLUMNS] = {
    "start", "start loss", "end loss", "tokens to random's end", "calibration tokens", "seconds"};

typedef struct table {
    char text[N_STUDENTS][COLUMNS][32];
    const char *cells[N_STUDENTS * COLUMNS];
} table;

static void table_fill(const job *j, table *t) {
    int i, k;
    for (i = 0; i < N_STUDENTS; i++) {
        const student *s = &j->students[i];
        double reached = tokens_to_reach(&s->curve, j->students[RANDOM].end_loss);
        snprintf(t->text[i][0], sizeof t->text[i][0], "%s", s->method);
        snprintf(t->text[i][1], sizeof t->text[i][1], "%.4f", s->start_loss);
        snprintf(t->text[i][2], sizeof t->text[i][2], "%.4f", s->end_loss);
        if (reached < 0) snprintf(t->text[i][3], sizeof t->text[i][3], "not reached");
        else snprintf(t->text[i][3], sizeof t->text[i][3], "%.0f", reached);
        snprintf(t->text[i][4], sizeof t->text[i][4], "%lld", (long long)s->fused.calibration_tokens);
        snprintf(t->text[i][5], sizeof t->text[i][5], "%.1f", s->fused.seconds + s->trained.seconds);
        for (k = 0; k < COLUMNS; k++) t->cells[i * COLUMNS + k] = t->text[i][k];
    }
}

static void table_print(const table *t) {
    int i, k;
    for (i = -1; i < N_STUDENTS; i++)
        for (k = 0; k < COLUMNS; k++) {
            const char *cell = i < 0 ? columns[k] : t->text[i][k];
            if (k == 0) printf("  %-9s", cell);
            else printf("  %*s", (int)strlen(columns[k]), cell);
            if (k + 1 == COLUMNS) putchar('\n');
        }
}

/* ---- what they write --------------------------------------------------------------------------------------------- */

/*  The beginning of the validation text, as text again. */
static int make_prompt(job *j) {
    int64_t i, n = j->valid.count < PROMPT_TOKENS ? j->valid.count : PROMPT_TOKENS;
    for (i = 1; i < n; i++) {
        const char *text;
        size_t bytes;
        int code =
            failed(j, lemon_decode(j->ctx, j->teacher->tokenizer, j->valid.ids[i - 1], j->valid.ids[i], &text, &bytes));
        if (code) return code;
        buffer_add(&j->prompt, text, bytes);
    }
    return 0;
}

static int keep_text(void *user, int32_t id, const char *text, size_t bytes) {
    (void)id;
    buffer_add((buffer *)user, text, bytes);
    return 0;
}

static int write_on(job *j, const lemon_model *model, const char *who, buffer *text) {
    lemon_tokens tokens = {NULL, 0, 0};
    lemon_sampling sampling;
    const char *prompt = j->prompt.text ? j->prompt.text : "";
    int code;
    lemon_sampling_defaults(&sampling);
    sampling.temperature = 0.5f;
    code = failed(j, lemon_generate(j->ctx, model, prompt, NEW_TOKENS, &sampling, keep_text, text, &tokens, NULL));
    lemon_tokens_free(j->ctx, &tokens);
    progress_clear(&j->bar);
    if (code == 0) printf("\n%s: %s|%s\n", who, prompt, text->text ? text->text : "");
    return code;
}

/* ---- the report -------------------------------------------------------------------------------------------------- */

static int write_report(job *j, const table *t, int argc, char **argv) {
    report page;
    report_series series[N_STUDENTS + 1];
    buffer path = {NULL, 0, 0, 0};
    const char *message;
    int i;
    for (i = 0; i < N_STUDENTS; i++) series[i] = j->students[i].curve;
    memset(&series[N_STUDENTS], 0, sizeof series[N_STUDENTS]);
    series[N_STUDENTS].name = "the teacher";
    report_point(&series[N_STUDENTS], 0, j->teacher_loss);
    report_point(&series[N_STUDENTS], (double)STEPS * BATCH * SEQ, j->teacher_loss);
    report_begin(&page, "A fifth of the teacher, from three starts");
    report_text(&page,
                "The teacher has %lld parameters and a loss of %.4f nats a token on the validation text; the students "
                "have %lld. Each was trained for %d steps of %d tokens on the same text in the same order.",
                (long long)lemon_config_params(&j->teacher->config), j->teacher_loss,
                (long long)lemon_config_params(&j->students[LEMON].model->config), STEPS, BATCH * SEQ);
    report_table(&page,
                 "Validation loss in nats a token. Tokens to random's end: how many training tokens it takes to come "
                 "down to where the random start ends; the calibration tokens come on top.",
                 columns, COLUMNS, t->cells, N_STUDENTS);
    report_heading(&page, "Curves");
    report_curves(&page, "Validation loss against training tokens", "training tokens", "nats a token", series,
                  N_STUDENTS + 1);
    report_series_free(&series[N_STUDENTS]);
    report_heading(&page, "What they write");
    report_story(&page, "Teacher", j->prompt.text ? j->prompt.text : "", j->by_teacher.text ? j->by_teacher.text : "");
    report_story(&page, "Student", j->prompt.text ? j->prompt.text : "", j->by_student.text ? j->by_student.text : "");
    report_operators(&page, j->students[LEMON].operators);
    report_command(&page, j->ctx, argc, argv);
    buffer_print(&path, "%s/report.html", j->out);
    message = path.failed ? "no memory" : report_write(&page, j->ctx, path.text);
    if (message) fprintf(stderr, "lemon: error: %s\n", message);
    else printf("\nreport: %s\n", path.text);
    report_free(&page);
    buffer_free(&path);
    return message != NULL;
}

static int save_student(job *j) {
    buffer path = {NULL, 0, 0, 0};
    student *s = &j->students[LEMON];
    int code = 0;
    if (!s->model->tokenizer)
        code = failed(j, lemon_tokenizer_clone(j->ctx, j->teacher->tokenizer, &s->model->tokenizer));
    buffer_print(&path, "%s/student.lemon", j->out);
    if (code == 0 && !path.failed) code = failed(j, lemon_save(j->ctx, path.text, s->model, LEMON_F32));
    if (code == 0 && !path.failed) printf("\nstudent: %s; what it and the teacher write behind the | of a story:\n", path.text);
    code = code ? code : path.failed;
    buffer_free(&path);
    return code;
}

/* ---- the job ----------------------------------------------------------------------------------------------------- */

static int load_text(job *j, const char *path, lemon_tokens *tokens) {
    return failed(
        j, lemon_tokens_from_files(j->ctx, j->teacher->tokenizer, j->teacher->config.vocab_size, &path, 1, tokens));
}

static int job_open(job *j, char **argv) {
    static const char *const methods[N_STUDENTS] = {"random", "subclone", "lemon"};
    static const char *const labels[N_STUDENTS] = {"1/3 random", "2/3 subclone", "3/3 lemon"};
    lemon_options options;
    int i, code;
    memset(&options, 0, sizeof options);
    options.user = &j->bar;
    options.progress = progress_callback;
    progress_begin(&j->bar, 0);
    j->out = argv[4];
    for (i = 0; i < N_STUDENTS; i++) {
        j->students[i].method = j->students[i].curve.name = methods[i];
        j->students[i].label = labels[i];
    }
    j->ctx = lemon_open(&options);
    if (j->ctx == NULL) {
        fputs("lemon: error: could not begin; is LEMON_ISA or LEMON_THREADS set to what this machine lacks?\n", stderr);
        return 2;
    }
    code = failed(j, lemon_load(j->ctx, argv[1], &j->teacher));
    if (code == 0) code = load_text(j, argv[2], &j->train);
    if (code == 0) code = load_text(j, argv[3], &j->valid);
    if (j->valid.count > EVAL_TOKENS) j->valid.count = EVAL_TOKENS;
    return code;
}

static int job_run(job *j, int argc, char **argv) {
    table t;
    int i, code = failed(j, lemon_eval(j->ctx, j->teacher, &j->valid, SEQ, 0, &j->teacher_loss, NULL));
    lemon_config shape = student_shape(j->teacher);
    if (code) return code;
    progress_clear(&j->bar);
    printf("teacher %s: %lld parameters, validation loss %.4f; students: %lld parameters, %d steps of %d tokens\n",
           argv[1], (long long)lemon_config_params(&j->teacher->config), j->teacher_loss,
           (long long)lemon_config_params(&shape), STEPS, BATCH * SEQ);
    fflush(stdout);
    for (i = 0; i < N_STUDENTS && code == 0; i++) code = run_student(j, &j->students[i]);
    if (code) return code;
    table_fill(j, &t);
    putchar('\n');
    table_print(&t);
    code = save_student(j);
    if (code == 0) code = make_prompt(j);
    if (code == 0) code = write_on(j, j->teacher, "teacher", &j->by_teacher);
    if (code == 0) code = write_on(j, j->students[LEMON].model, "student", &j->by_student);
    return code ? code : write_report(j, &t, argc, argv);
}

static void job_close(job *j) {
    int i;
    for (i = 0; i < N_STUDENTS && j->ctx; i++) {
        lemon_model_free(j->ctx, j->students[i].model);
        lemon_operators_free(j->ctx, j->students[i].operators);
        report_series_free(&j->students[i].curve);
    }
    if (j->ctx) {
        lemon_tokens_free(j->ctx, &j->train);
        lemon_tokens_free(j->ctx, &j->valid);
        lemon_model_free(j->ctx, j->teacher);
    }
    lemon_close(j->ctx);
    buffer_free(&j->prompt);
    buffer_free(&j->by_teacher);
    buffer_free(&j->by_student);
}

int main(int argc, char **argv) {
    static job j;
    int code;
    if (argc != 5) {
        fputs("usage: run TEACHER TRAIN.txt VALID.txt OUT\n", stderr);
        return 2;
    }
    code = job_open(&j, argv);
    if (code == 0) code = job_run(&j, argc, argv);
    job_close(&j);
    return code;
}
