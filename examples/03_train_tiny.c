/*  03_train_tiny.c - a tiny language model from nothing: a vocabulary, random weights, and a text to learn from.

        make -C examples programs build/train.txt
        examples/build/03_train_tiny examples/build/train.txt examples/build/tiny.lemon 60

    A language model is trained to guess each token of a text from those before it.  The loss is the mean of -log of
    the probability that it gave to the token which really came: log of the vocabulary's size (here 6.2) for one that
    knows nothing, 0 for one that knows all.  The usual way there is AdamW: each weight has its own step size, from
    running means of its gradient and of the square of it.  The loss falls fast at first, while the model learns which
    tokens are common, and slowly later, when it has to learn what the text is about.  */
#ifndef LEMON_LINKED
#define LEMON_IMPLEMENTATION
#endif
#include "lemon.h"
#include <stdio.h>
#include <stdlib.h>

enum { VOCABULARY = 512, CONTEXT = 128 };

/*  The text as bytes, for the tokenizer to learn from; NULL where it cannot be read. */
static char *read_text(const char *path, size_t *bytes) {
    FILE *f = fopen(path, "rb");
    char *text = NULL;
    long size = -1;
    if (f && fseek(f, 0, SEEK_END) == 0) size = ftell(f);
    if (size > 0 && fseek(f, 0, SEEK_SET) == 0) text = (char *)malloc((size_t)size);
    *bytes = text ? fread(text, 1, (size_t)size, f) : 0;
    if (f) fclose(f);
    return text;
}

static void on_step(void *user, const lemon_step *step) {
    (void)user;
    if (step->step % 10 == 0)
        printf("step %4d  loss %.4f  rate %.1e  %5.1f s\n", (int)step->step, step->loss, step->lr, step->seconds);
    fflush(stdout);
}

/*  Random weights of a shape; the model takes a copy of the tokenizer along, so that its file is complete. */
static lemon_status make_model(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, lemon_model **model) {
    lemon_config shape;
    lemon_status status;
    lemon_config_defaults(&shape);
    shape.d_model = 64;
    shape.n_layers = 3;
    shape.n_heads = 4;
    shape.kv_heads = 2;          /* two query heads share the keys and values of one */
    shape.head_dim = 16;
    shape.d_ffn = 176;
    shape.vocab_size = lemon_tokenizer_size(tokenizer);
    shape.max_seq = CONTEXT;
    status = lemon_model_create(ctx, &shape, model);
    if (!status) status = lemon_model_init(ctx, *model, 1);
    if (!status) status = lemon_tokenizer_clone(ctx, tokenizer, &(*model)->tokenizer);
    if (!status) printf("%lld parameters\n", (long long)lemon_config_params(&shape));
    return status;
}

static lemon_status train(lemon_ctx *ctx, lemon_model *model, const lemon_tokens *tokens, int steps) {
    lemon_train_options options;
    lemon_train_result result;
    lemon_status status;
    lemon_train_defaults(&options);
    options.steps = steps;
    options.batch = 16;          /* 16 windows of 128 tokens: 2,048 tokens a step */
    options.seq = CONTEXT;
    options.lr = 5e-3;
    options.on_step = on_step;
    status = lemon_train(ctx, model, tokens, &options, &result);
    if (!status) printf("%lld tokens, loss of the last ten steps %.4f\n", (long long)result.tokens, result.train_loss);
    return status;
}

static lemon_status run(lemon_ctx *ctx, const char *text, size_t bytes, const char *out, int steps) {
    lemon_tokenizer *tokenizer = NULL;
    lemon_tokens tokens = {NULL, 0, 0};
    lemon_model *model = NULL;
    lemon_status status = lemon_tokenizer_train(ctx, text, bytes, VOCABULARY, &tokenizer);
    if (!status) status = lemon_tokens_from_text(ctx, tokenizer, text, bytes, &tokens);
    if (!status) status = make_model(ctx, tokenizer, &model);
    if (!status) status = train(ctx, model, &tokens, steps);
    if (!status) status = lemon_save(ctx, out, model, LEMON_F32);
    if (status) fprintf(stderr, "lemon: error: %s\n", lemon_error(ctx));
    lemon_model_free(ctx, model);
    lemon_tokens_free(ctx, &tokens);
    lemon_tokenizer_free(ctx, tokenizer);
    return status;
}

int main(int argc, char **argv) {
    lemon_ctx *ctx = lemon_open(NULL);
    int steps = argc > 3 ? atoi(argv[3]) : 200, code = 1;
    size_t bytes = 0;
    char *text = argc > 2 ? read_text(argv[1], &bytes) : NULL;
    if (argc < 3) fputs("usage: 03_train_tiny TEXT.txt OUT.lemon [STEPS]\n", stderr);
    else if (text == NULL) fprintf(stderr, "lemon: error: %s could not be read\n", argv[1]);
    else if (ctx == NULL) fputs("lemon: error: could not begin\n", stderr);
    else code = run(ctx, text, bytes, argv[2], steps) != LEMON_OK;
    free(text);
    lemon_close(ctx);
    return code;
}
