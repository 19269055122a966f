/*  large_plan TEACHER D LAYERS HEADS KV_HEADS FFN TOKENS METHOD

    What large.py needs to know before a run, as one JSON object: what lemon_fuse_plan says, and how many operations a second
    of CPU time one core does in a large product. */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#define LEMON_STATIC
#define LEMON_IMPLEMENTATION
#include "../lemon.h"
#include <time.h>

/*  By CPU time, so that other programs on the machine cost little. */
static double core(void) {
    const int64_t n = 1536;
    float *a = (float *)calloc((size_t)(3 * n * n), sizeof *a);
    double best = 1e30;
    int k;
    for (k = 0; a && k < 8; k++) {
        clock_t began = clock();
        lemon_sgemm(NULL, 0, 0, n, n, n, 1.0f, a, n, a + n * n, n, 0.0f, a + 2 * n * n, n);
        best = fmin(best, (double)(clock() - began) / CLOCKS_PER_SEC);
    }
    free(a);
    return 2.0 * (double)(n * n * n) / best;
}

int main(int argc, char **argv) {
    lemon_options options;
    lemon_fuse_options how;
    lemon_fuse_forecast f;
    lemon_model *teacher = NULL;
    lemon_config shape;
    lemon_ctx *ctx;
    memset(&options, 0, sizeof options);
    if (argc != 9) return 2;
    options.scratch = "bench/build/large/plan.part";
    ctx = lemon_open(&options);
    if (lemon_load(ctx, argv[1], &teacher)) { fprintf(stderr, "%s\n", lemon_error(ctx)); return 1; }
    shape = teacher->config;
    shape.d_model = atoi(argv[2]), shape.n_layers = atoi(argv[3]), shape.n_heads = atoi(argv[4]);
    shape.kv_heads = atoi(argv[5]), shape.d_ffn = atoi(argv[6]);
    lemon_fuse_defaults(&how);
    how.tokens = atoll(argv[7]) > 0 ? atoll(argv[7]) : 64;
    how.method = argv[8], how.learn_steps = 0;
    if (lemon_fuse_plan(ctx, teacher, &shape, strcmp(how.method, "lemon") ? 0 : how.tokens, &how, &f)) {
        fprintf(stderr, "%s\n", lemon_error(ctx));
        return 1;
    }
    printf("{\"flops\": %.0f, \"flops64\": %.0f, \"memory\": %.0f, \"scratch\": %.0f, \"core\": %.0f, \"cores\": %d}\n", f.flops,
           f.flops64, f.memory, f.scratch, core(), lemon_ctx_threads(ctx));
    lemon_model_free(ctx, teacher);
    lemon_close(ctx);
    return 0;
}
