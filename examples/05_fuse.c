/*  05_fuse.c - from a teacher to a student that talks, in nine calls.

        make -C examples programs build/train.txt
        examples/build/05_fuse examples/data/teacher.lemon examples/build/train.txt examples/build/small.lemon

    The student has a fifth of the teacher's parameters.  It does not begin at random numbers: each of its matrices
    is a sum of Out * W * In, teacher matrices W between two operators that carry the student's channels to the
    teacher's and back.  The operators are solved by least squares on a little text, so that the student's activations
    follow the teacher's; a short training then does the rest.  Look at the losses: the student starts far below the
    6.9 (the logarithm of a vocabulary of 1024) of one that knows nothing.  */
#ifndef LEMON_LINKED
#define LEMON_IMPLEMENTATION
#endif
#include "lemon.h"
#include <stdio.h>

static int print_token(void *user, int32_t id, const char *text, size_t bytes) {
    (void)user, (void)id;
    fwrite(text, 1, bytes, stdout);
    return 0;                    /* not 0 would end the text here */
}

/*  The student's shape: all that is not named stays as it is in the teacher. */
static lemon_config student_shape(const lemon_model *teacher) {
    lemon_config shape = teacher->config;
    shape.d_model = 64;
    shape.n_layers = 4;
    shape.n_heads = 4;
    shape.kv_heads = 2;
    shape.d_ffn = 176;
    return shape;
}

static lemon_status train(lemon_ctx *ctx, lemon_model *student, const lemon_model *teacher, const lemon_tokens *text) {
    lemon_train_options options;
    lemon_train_result result;
    lemon_status status;
    lemon_train_defaults(&options);
    options.steps = 30;
    options.batch = 4;
    options.lr = 2e-3;
    options.teacher = teacher;   /* learn from what the teacher thinks likely, not from the text alone */
    options.distill = 0.5;
    status = lemon_train(ctx, student, text, &options, &result);
    if (!status) printf("trained: loss %.4f after %d tokens\n", result.train_loss, (int)result.tokens);
    return status;
}

static lemon_status run(lemon_ctx *ctx, char **path, lemon_model **teacher, lemon_model **student, lemon_tokens *text,
                        lemon_tokens *said) {
    lemon_fuse_options options;
    lemon_sampling sampling;
    lemon_config shape;
    const char *data = path[2];
    double loss;
    lemon_status status = lemon_load(ctx, path[1], teacher);                                            /* call 2 */
    if (status) return status;
    shape = (*teacher)->config;
    status = lemon_tokens_from_files(ctx, (*teacher)->tokenizer, shape.vocab_size, &data, 1, text);     /* call 3 */
    if (status) return status;
    shape = student_shape(*teacher);
    lemon_fuse_defaults(&options);
    options.tokens = 8192;
    options.learn_steps = 0;     /* solved, no more: call 6 trains.  -1, the default, learns on these tokens too */
    status = lemon_fuse(ctx, *teacher, &shape, text, &options, student, NULL);                          /* call 4 */
    if (!status) status = lemon_eval(ctx, *student, text, 0, 8192, &loss, NULL);                        /* call 5 */
    if (!status) printf("fused: loss %.4f before training\n", loss);
    if (!status) status = train(ctx, *student, *teacher, text);                                         /* call 6 */
    if (!status) status = lemon_save(ctx, path[3], *student, LEMON_F32);                                /* call 7 */
    lemon_sampling_defaults(&sampling);
    sampling.temperature = 0.5f;
    if (!status)
        status = lemon_generate(ctx, *student, "One day", 60, &sampling, print_token, NULL, said, NULL); /* call 8 */
    putchar('\n');
    return status;
}

int main(int argc, char **argv) {
    lemon_ctx *ctx;
    lemon_model *teacher = NULL, *student = NULL;
    lemon_tokens text = {NULL, 0, 0}, said = {NULL, 0, 0};
    lemon_status status;
    if (argc != 4) return fputs("usage: 05_fuse TEACHER.lemon TEXT.txt OUT.lemon\n", stderr), 2;
    ctx = lemon_open(NULL);                                                                             /* call 1 */
    if (ctx == NULL) return fputs("lemon: error: could not begin\n", stderr), 1;
    status = run(ctx, argv, &teacher, &student, &text, &said);
    if (status) fprintf(stderr, "lemon: error: %s\n", lemon_error(ctx));
    lemon_tokens_free(ctx, &said);
    lemon_tokens_free(ctx, &text);
    lemon_model_free(ctx, student);
    lemon_model_free(ctx, teacher);
    lemon_close(ctx);                                                                                   /* call 9 */
    return status != LEMON_OK;
}
