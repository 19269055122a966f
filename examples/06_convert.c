/*  06_convert.c - one model in other files and number types: what each costs in bytes, and in quality.

        make -C examples programs build/valid.txt
        examples/build/06_convert examples/data/teacher.lemon examples/build/valid.txt examples/build/converted

    A checkpoint is a config, some matrices and a vocabulary.  Each ecosystem has a file of its own for that, with other
    names, orders and number types; lemon_load knows them by their content, lemon_save by the name of the file.  16-bit
    numbers are half as long as floats, with fewer digits (f16) or with the same range (bf16).  q8 and q4 store blocks of 32
    numbers as one scale and 32 small integers.  Fewer bits are less to store and less to read for each token that is
    generated, which is what takes the time there; the loss on some text shows what they cost.  */
#ifndef LEMON_LINKED
#define LEMON_IMPLEMENTATION
#endif
#include "lemon.h"
#include <stdio.h>
#include <string.h>

static const struct { const char *ending; lemon_dtype dtype; } files[] = {
    {".lemon", LEMON_F32}, {".lemon", LEMON_BF16}, {".lemon", LEMON_F16}, {".lemon", LEMON_Q8}, {".lemon", LEMON_Q4},
    {".gguf", LEMON_F16},       /* for llama.cpp */
    {".gguf", LEMON_Q4},
    {".bin", LEMON_F32},        /* for llama2.c, which reads the vocabulary from a file beside it */
    {"", LEMON_BF16}};          /* a folder for Hugging Face's libraries */

/*  Bytes of the weights as they are stored. */
static double megabytes(const lemon_model *model) {
    double bytes = 0;
    int64_t i;
    for (i = 0; i < model->n_params; i++) bytes += (double)lemon_tensor_bytes(&model->params[i]);
    return bytes / 1e6;
}

/*  Saves the model, loads what was saved, and asks that for its loss. */
static lemon_status try_one(lemon_ctx *ctx, const lemon_model *model, const lemon_tokens *text, const char *path,
                            lemon_dtype dtype) {
    lemon_model *again = NULL;
    double loss;
    lemon_status status = lemon_save(ctx, path, model, dtype);
    if (!status) status = lemon_load(ctx, path, &again);
    if (!status) status = lemon_eval(ctx, again, text, 0, 16384, &loss, NULL);
    if (!status)
        printf("%-44s %-7s %-4s  %6.2f MB  loss %.4f\n", path, again->format, lemon_dtype_name(again->dtype),
               megabytes(again), loss);
    lemon_model_free(ctx, again);
    return status;
}

static lemon_status run(lemon_ctx *ctx, char **argv, lemon_model **model, lemon_tokens *text) {
    const char *data = argv[2];
    char path[512];
    size_t i;
    lemon_status status = lemon_load(ctx, argv[1], model);
    if (!status)
        status = lemon_tokens_from_files(ctx, (*model)->tokenizer, (*model)->config.vocab_size, &data, 1, text);
    for (i = 0; !status && i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s-%s%s", argv[3], lemon_dtype_name(files[i].dtype), files[i].ending);
        status = try_one(ctx, *model, text, path, files[i].dtype);
    }
    return status;
}

int main(int argc, char **argv) {
    lemon_ctx *ctx;
    lemon_model *model = NULL;
    lemon_tokens text = {NULL, 0, 0};
    lemon_status status;
    if (argc != 4) return fputs("usage: 06_convert MODEL TEXT.txt OUT\n", stderr), 2;
    ctx = lemon_open(NULL);
    if (ctx == NULL) return fputs("lemon: error: could not begin\n", stderr), 1;
    status = run(ctx, argv, &model, &text);
    if (status) fprintf(stderr, "lemon: error: %s\n", lemon_error(ctx));
    lemon_tokens_free(ctx, &text);
    lemon_model_free(ctx, model);
    lemon_close(ctx);
    return status != LEMON_OK;
}
