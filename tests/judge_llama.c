/*  llama.cpp, through its C API, as judge of the GGUF files that lemon.h writes, and as maker of those that it reads.

    judge_llama loss MODEL IDS SEQ plain|default      mean negative log-likelihood of the ids (.u16) in windows of SEQ
    judge_llama tokens MODEL TEXT                     the ids of a text file
    judge_llama greedy MODEL N ID...                  N more ids by greedy choice
    judge_llama quantize IN OUT FTYPE                 another number type, by its number in llama_ftype

    The last line of stdout is the result; every line that llama.cpp logs as a warning or an error is printed before it as
    "warning: ...", and makes the exit status 3. */
#include "llama.h"
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int warnings;

static void on_log(enum ggml_log_level level, const char *text, void *user) {
    (void)user;
    if (level != GGML_LOG_LEVEL_WARN && level != GGML_LOG_LEVEL_ERROR) return;
    warnings++;
    printf("warning: %s", text);
}

static int fail(const char *what) {
    printf("error: %s\n", what);
    return 1;
}

static char *slurp(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    char *p = (char *)malloc(1 << 24);
    *n = f ? fread(p, 1, (1 << 24) - 1, f) : 0;
    p[*n] = 0;
    if (f) fclose(f);
    return p;
}

static struct llama_context *open_context(struct llama_model *model, int n, int plain) {
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)n;
    params.n_batch = params.n_ubatch = (uint32_t)n;
    params.n_threads = params.n_threads_batch = 1;
    if (plain) {
        params.type_k = params.type_v = GGML_TYPE_F32;
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    return llama_init_from_model(model, params);
}

/*  Feeds n ids from position 0; logits of all of them. */
static int feed(struct llama_context *ctx, const llama_token *ids, int n) {
    struct llama_batch batch = llama_batch_init(n, 0, 1);
    int i, status;
    llama_memory_clear(llama_get_memory(ctx), 1);
    for (i = 0; i < n; i++) {
        batch.token[i] = ids[i];
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    batch.n_tokens = n;
    status = llama_decode(ctx, batch);
    llama_batch_free(batch);
    return status;
}

static double surprise(const float *logits, int vocab, int id) {
    double top = -1e30, sum = 0;
    int i;
    for (i = 0; i < vocab; i++) top = logits[i] > top ? (double)logits[i] : top;
    for (i = 0; i < vocab; i++) sum += exp((double)logits[i] - top);
    return top + log(sum) - (double)logits[id];
}

static int loss(struct llama_model *model, const char *path, int seq, int plain) {
    int vocab = llama_vocab_n_tokens(llama_model_get_vocab(model)), i, at, count = 0, total;
    size_t n;
    const uint8_t *bytes = (const uint8_t *)slurp(path, &n);
    llama_token *ids = (llama_token *)malloc(n * 2 + 4);
    struct llama_context *ctx = open_context(model, seq, plain);
    double sum = 0;
    total = (int)(n / 2);
    if (ctx == NULL || total < 2) return fail("no context, or no ids");
    for (i = 0; i < total; i++) ids[i] = bytes[2 * i] | bytes[2 * i + 1] << 8;
    for (at = 0; at + 1 < total; at += seq) {
        int rows = total - 1 - at < seq ? total - 1 - at : seq;
        if (feed(ctx, ids + at, rows)) return fail("llama_decode failed");
        for (i = 0; i < rows; i++, count++) sum += surprise(llama_get_logits_ith(ctx, i), vocab, ids[at + i + 1]);
    }
    printf("%.7f\n", sum / count);
    llama_free(ctx);
    return 0;
}

static int tokens(struct llama_model *model, const char *path) {
    size_t n;
    char *text = slurp(path, &n);
    llama_token *ids = (llama_token *)malloc((n + 16) * sizeof *ids);
    int count = llama_tokenize(llama_model_get_vocab(model), text, (int)n, ids, (int)n + 16, 1, 0), i;
    for (i = 0; i < count; i++) printf("%s%d", i ? " " : "", (int)ids[i]);
    printf("\n");
    return count < 0;
}

static int greedy(struct llama_model *model, int more, int n, char **given) {
    int vocab = llama_vocab_n_tokens(llama_model_get_vocab(model)), i, k;
    llama_token ids[4096];
    struct llama_context *ctx = open_context(model, n + more, 0);
    for (i = 0; i < n; i++) ids[i] = atoi(given[i]);
    for (; more-- > 0 && ctx; n++) {
        const float *logits;
        if (feed(ctx, ids, n)) return fail("llama_decode failed");
        logits = llama_get_logits_ith(ctx, n - 1);
        for (ids[n] = 0, k = 1; k < vocab; k++)
            if (logits[k] > logits[ids[n]]) ids[n] = k;
    }
    for (i = 0; i < n; i++) printf("%s%d", i ? " " : "", (int)ids[i]);
    printf("\n");
    llama_free(ctx);
    return 0;
}

int main(int argc, char **argv) {
    struct llama_model *model;
    int status = 2;
    if (argc < 4) return 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    llama_log_set(on_log, NULL);
    ggml_backend_load_all_from_path(getenv("LLAMA_BACKENDS"));
    if (strcmp(argv[1], "quantize") == 0) {
        struct llama_model_quantize_params params = llama_model_quantize_default_params();
        params.nthread = 1;
        params.ftype = (enum llama_ftype)atoi(argv[4]);
        params.allow_requantize = 1;
        return (int)llama_model_quantize(argv[2], argv[3], &params);
    }
    {
        struct llama_model_params params = llama_model_default_params();
        params.n_gpu_layers = 0;
        model = llama_model_load_from_file(argv[2], params);
    }
    if (model == NULL) return fail("the model was not loaded");
    if (strcmp(argv[1], "loss") == 0) status = loss(model, argv[3], atoi(argv[4]), strcmp(argv[5], "plain") == 0);
    else if (strcmp(argv[1], "tokens") == 0) status = tokens(model, argv[3]);
    else if (strcmp(argv[1], "greedy") == 0) status = greedy(model, atoi(argv[3]), argc - 4, argv + 4);
    llama_model_free(model);
    return status ? status : warnings ? 3 : 0;
}
