/*  07_distill.c - learning from what a teacher thinks, not only from what the text says.

        make -C examples programs build/train.txt build/valid.txt
        examples/build/07_distill examples/data/teacher.lemon examples/build/train.txt examples/build/valid.txt 60

    A text tells for each place which one token came.  A teacher tells how likely it held every token of the vocabulary:
    that after "the cat sat on the" a mat, a chair and a sofa would all have done.  So each token teaches more.  The loss is

        (1 - W) * cross-entropy with the text  +  W * KL(teacher's probabilities, student's)

    (Hinton et al. 2015; W is options.distill).  Both students here are the same fused start and see the same tokens in the
    same order; one learns from the text alone.  The teacher's passes are not free: for each token they take 2 operations
    for each of its weights, training takes 6 for each of the student's.  */
#ifndef LEMON_LINKED
#define LEMON_IMPLEMENTATION
#endif
#include "lemon.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct files { lemon_model *teacher; lemon_tokens text, held_out; } files;

static void on_step(void *user, const lemon_step *step) {
    (void)user;
    if (step->eval_loss == step->eval_loss)              /* not NaN: this step was evaluated */
        printf("  %5d tokens: loss on other text %.4f\n", (int)step->tokens, step->eval_loss), fflush(stdout);
}

static lemon_status fuse(lemon_ctx *ctx, const files *f, lemon_model **student) {
    lemon_fuse_options options;
    lemon_config shape = f->teacher->config;
    shape.d_model = 64, shape.n_layers = 3, shape.n_heads = 4, shape.kv_heads = 2, shape.d_ffn = 176;
    lemon_fuse_defaults(&options);
    options.tokens = 8192, options.learn_steps = 0;      /* solved only: all that is learned is learned below */
    return lemon_fuse(ctx, f->teacher, &shape, &f->text, &options, student, NULL);
}

static lemon_status train(lemon_ctx *ctx, const files *f, int steps, double distill, double *loss) {
    lemon_model *student = NULL;
    lemon_train_options options;
    lemon_train_result result;
    lemon_status status = fuse(ctx, f, &student);
    lemon_train_defaults(&options);
    options.steps = steps, options.batch = 4, options.lr = 4e-3;
    options.eval_tokens = &f->held_out, options.eval_every = (steps + 2) / 3, options.on_step = on_step;
    options.teacher = distill > 0 ? f->teacher : NULL, options.distill = distill;
    if (!status) status = lemon_train(ctx, student, &f->text, &options, &result);
    if (!status) printf("  %.1f s\n", result.seconds), *loss = result.eval_loss;
    lemon_model_free(ctx, student);
    return status;
}

static lemon_status run(lemon_ctx *ctx, char **argv, int steps, files *f) {
    const char *text = argv[2], *held_out = argv[3];
    const lemon_tokenizer *tokenizer;
    int32_t size;
    double alone = 0, taught = 0;
    lemon_status status = lemon_load(ctx, argv[1], &f->teacher);
    if (status) return status;
    tokenizer = f->teacher->tokenizer, size = f->teacher->config.vocab_size;
    status = lemon_tokens_from_files(ctx, tokenizer, size, &text, 1, &f->text);
    if (!status) status = lemon_tokens_from_files(ctx, tokenizer, size, &held_out, 1, &f->held_out);
    if (f->held_out.count > 8192) f->held_out.count = 8192;            /* enough to compare by, and quick */
    if (!status) puts("from the text alone:"), status = train(ctx, f, steps, 0.0, &alone);
    if (!status) puts("half from the teacher:"), status = train(ctx, f, steps, 0.5, &taught);
    if (!status) printf("the teacher is worth %.4f nats a token\n", alone - taught);
    return status;
}

int main(int argc, char **argv) {
    lemon_ctx *ctx;
    files f = {NULL, {NULL, 0, 0}, {NULL, 0, 0}};
    lemon_status status;
    if (argc < 4) return fputs("usage: 07_distill TEACHER TEXT.txt OTHER.txt [STEPS]\n", stderr), 2;
    ctx = lemon_open(NULL);
    if (ctx == NULL) return fputs("lemon: error: could not begin\n", stderr), 1;
    status = run(ctx, argv, argc > 4 ? atoi(argv[4]) : 60, &f);
    if (status) fprintf(stderr, "lemon: error: %s\n", lemon_error(ctx));
    lemon_tokens_free(ctx, &f.held_out);
    lemon_tokens_free(ctx, &f.text);
    lemon_model_free(ctx, f.teacher);
    lemon_close(ctx);
    return status != LEMON_OK;
}
