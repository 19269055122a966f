/*  llama.cpp, through its C API, as peer of generation:

        peer_llama MODEL.gguf THREADS prefill|decode N SECONDS

    Prints tokens a second of the best and of the mean run, and the peak of resident memory: prefill is one batch of N
    tokens with the logits of the last one only; decode is N tokens one after another from an empty context.  Its own
    defaults for the rest: flash attention where it likes, a cache of f16. */
#define _POSIX_C_SOURCE 200809L
#include "llama.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void on_log(enum ggml_log_level level, const char *text, void *user) {
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static int run(struct llama_context *ctx, int prefill, int n) {
    llama_token ids[4096];
    int i;
    llama_memory_clear(llama_get_memory(ctx), 1);
    for (i = 0; i < n; i++) ids[i] = 3 + (i * 7919) % 500;
    if (prefill) return llama_decode(ctx, llama_batch_get_one(ids, n));
    for (i = 0; i < n; i++)
        if (llama_decode(ctx, llama_batch_get_one(ids + i, 1))) return 1;
    return 0;
}

int main(int argc, char **argv) {
    struct llama_model_params mp = llama_model_default_params();
    struct llama_context_params cp = llama_context_default_params();
    struct llama_model *model;
    struct llama_context *ctx;
    struct rusage usage;
    double best = 1e30, sum = 0;
    int n, runs = 0, prefill;
    if (argc != 6) return 2;
    llama_log_set(on_log, NULL);
    ggml_backend_load_all_from_path(getenv("LLAMA_BACKENDS"));
    n = atoi(argv[4]);
    prefill = strcmp(argv[3], "prefill") == 0;
    cp.n_ctx = cp.n_batch = cp.n_ubatch = (uint32_t)n;
    cp.n_threads = cp.n_threads_batch = atoi(argv[2]);
    model = llama_model_load_from_file(argv[1], mp);
    ctx = model ? llama_init_from_model(model, cp) : NULL;
    if (ctx == NULL || run(ctx, prefill, n)) return 1;
    while (runs < 3 || sum < atof(argv[5])) {
        double start = now();
        if (run(ctx, prefill, n)) return 1;
        llama_synchronize(ctx);
        start = now() - start;
        best = start < best ? start : best;
        sum += start;
        runs++;
    }
    getrusage(RUSAGE_SELF, &usage);
    printf("%.2f %.2f %.0f\n", n / best, n * runs / sum, 1024.0 * (double)usage.ru_maxrss);
    return 0;
}
