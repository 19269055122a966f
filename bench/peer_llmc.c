/*  peer_llmc.c - the training step of llm.c, at GPT-2's shape of the same size: as many products of matrices, since GPT-2's
    FFN has two matrices of 4 d neurons where LLaMA's has three of 8/3 d.

    peer_llmc D LAYERS HEADS VOCAB T B SECONDS                      prints best and mean tokens a second, and peak bytes */
#define TESTING
#include "train_gpt2.c"
#include <sys/resource.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/*  A checkpoint of random weights, as gpt2_build_from_checkpoint reads it. */
static void write_random(const char *path, GPT2Config c) {
    int header[256] = {20240326, 3, c.max_seq_len, c.vocab_size, c.num_layers, c.num_heads, c.channels, c.padded_vocab_size};
    size_t sizes[NUM_PARAMETER_TENSORS], i, count = 0;
    FILE *f = fopenCheck(path, "wb");
    unsigned seed = 1;
    fill_in_parameter_sizes(sizes, c);
    for (i = 0; i < NUM_PARAMETER_TENSORS; i++) count += sizes[i];
    fwrite(header, sizeof header, 1, f);
    for (i = 0; i < count; i++) {
        float w = 0.04f * ((float)(seed >> 8) / 16777216.0f - 0.5f);
        seed = seed * 1664525u + 1013904223u;
        fwrite(&w, sizeof w, 1, f);
    }
    fcloseCheck(f);
}

int main(int argc, char **argv) {
    const char *path = "bench/build/peer_llmc.bin";
    double best = 1e30, spent = 0;
    int n[7], i, steps;
    struct rusage usage;
    GPT2 model;
    if (argc != 8) return 2;
    for (i = 0; i < 7; i++) n[i] = atoi(argv[i + 1]);
    const int rows = n[4] * n[5];
    int *ids = (int *)mallocCheck(sizeof(int) * (size_t)(rows + 1));
    GPT2Config c = {.max_seq_len = n[4], .vocab_size = n[3], .padded_vocab_size = n[3], .num_layers = n[1], .num_heads = n[2],
                    .channels = n[0]};
    write_random(path, c);
    gpt2_build_from_checkpoint(&model, path);
    remove(path);
    for (i = 0; i <= rows; i++) ids[i] = (int)((unsigned)i * 2654435761u % (unsigned)n[3]);
    for (steps = 0; steps < 3 || spent < n[6]; steps++) {
        double start = now();
        gpt2_forward(&model, ids, ids + 1, (size_t)n[5], (size_t)n[4]);
        gpt2_zero_grad(&model);
        gpt2_backward(&model);
        gpt2_update(&model, 1e-4f, 0.9f, 0.95f, 1e-8f, 0.1f, steps + 1);
        start = now() - start;
        if (steps == 0) continue;               /* the first also allocates */
        spent += start;
        if (start < best) best = start;
    }
    getrusage(RUSAGE_SELF, &usage);
    printf("%f %f %f\n", rows / best, rows * (steps - 1) / spent, 1024.0 * (double)usage.ru_maxrss);
    return 0;
}
