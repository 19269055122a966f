/*  04_generate.c - text from a model, one token a call, with a sampling loop of our own.

        make -C examples programs
        examples/build/04_generate examples/data/teacher.lemon "Once upon a time"

    A language model maps the tokens so far to one score for each token of the vocabulary.  Softmax makes them
    probabilities; one token is drawn, appended, and the model is asked again.  A session keeps the keys and values of
    all tokens so far, so that each call computes the new token only.  Dividing the scores by a temperature below 1
    makes the likely tokens likelier: less surprise, fewer mistakes.

    lemon_generate does all of this in one call; this program shows what is behind it, and what a game or a
    constrained decoder would do: the scores are ours to read and to change.  */
#ifndef LEMON_LINKED
#define LEMON_IMPLEMENTATION
#endif
#include "lemon.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { NEW_TOKENS = 100 };

/*  Draws an id with probability softmax(scores / temperature). */
static int32_t draw(const float *scores, int32_t n, double temperature, lemon_rng *rng) {
    double largest = (double)scores[0], sum = 0, target;
    int32_t i;
    for (i = 1; i < n; i++) largest = fmax(largest, (double)scores[i]);
    for (i = 0; i < n; i++) sum += exp(((double)scores[i] - largest) / temperature);
    target = lemon_rng_uniform(rng) * sum;
    for (i = 0; i < n - 1; i++) {
        target -= exp(((double)scores[i] - largest) / temperature);
        if (target < 0) break;
    }
    return i;
}

static lemon_status print_token(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, int32_t previous, int32_t id) {
    const char *text;
    size_t bytes;
    lemon_status status = lemon_decode(ctx, tokenizer, previous, id, &text, &bytes);
    if (!status) fwrite(text, 1, bytes, stdout), fflush(stdout);
    return status;
}

/*  The prompt goes in at once ("prefill"), then token by token. */
static lemon_status write_on(lemon_ctx *ctx, const lemon_model *model, lemon_session *session,
                             const lemon_tokens *prompt) {
    const lemon_tokenizer *tokenizer = model->tokenizer;
    int32_t previous = prompt->ids[prompt->count - 1], id;
    lemon_rng rng;
    float *scores;
    int i;
    lemon_status status = lemon_session_feed(session, prompt->ids, prompt->count, &scores);
    lemon_rng_seed(&rng, 1);
    for (i = 0; i < NEW_TOKENS && !status; i++) {
        id = draw(scores, model->config.vocab_size, 0.7, &rng);
        if (id == lemon_tokenizer_eos(tokenizer) || id == lemon_tokenizer_bos(tokenizer)) break;
        status = print_token(ctx, tokenizer, previous, id);
        if (lemon_session_length(session) == model->config.max_seq) break;      /* the context is full */
        if (!status) status = lemon_session_feed(session, &id, 1, &scores);
        previous = id;
    }
    putchar('\n');
    return status;
}

/*  BOS, "beginning of text", goes before the prompt, since the model has seen every text begin with it.  An empty text
    has no tokens at all; the model then begins as most stories do. */
static lemon_status make_prompt(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, const char *text,
                                lemon_tokens *prompt) {
    lemon_status status = lemon_tokens_from_text(ctx, tokenizer, text, strlen(text), prompt);
    if (!status && prompt->count == 0) status = lemon_tokens_from_text(ctx, tokenizer, "Once", 4, prompt);
    return status;
}

static lemon_status run(lemon_ctx *ctx, const char *path, const char *text) {
    lemon_model *model = NULL;
    lemon_session *session = NULL;
    lemon_tokens prompt = {NULL, 0, 0};
    lemon_status status = lemon_load(ctx, path, &model);
    if (!status && model->tokenizer == NULL) {
        fprintf(stderr, "lemon: error: %s brings no tokenizer\n", path);
        status = LEMON_E_UNSUPPORTED;
    } else {
        if (!status) status = make_prompt(ctx, model->tokenizer, text, &prompt);
        if (!status) status = lemon_session_open(ctx, model, &session);
        if (!status) printf("%s|", text);
        if (!status) status = write_on(ctx, model, session, &prompt);
        if (status) fprintf(stderr, "lemon: error: %s\n", lemon_error(ctx));
    }
    lemon_session_close(session);
    lemon_tokens_free(ctx, &prompt);
    lemon_model_free(ctx, model);
    return status;
}

int main(int argc, char **argv) {
    lemon_ctx *ctx = lemon_open(NULL);
    int code = 1;
    if (argc < 2) fputs("usage: 04_generate MODEL.lemon [PROMPT]\n", stderr);
    else if (ctx == NULL) fputs("lemon: error: could not begin\n", stderr);
    else code = run(ctx, argv[1], argc > 2 ? argv[2] : "Once upon a time") != LEMON_OK;
    lemon_close(ctx);
    return code;
}
