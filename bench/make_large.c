/*  make_large FOLDER --dim D --layers L --heads H --kv-heads K --ffn F --vocab V [--seed S] [--shard-size BYTES]

    Writes a Hugging Face folder of LLaMA's shape with random weights, bf16, in shards: a stand-in of any size for models
    that cannot be had, to measure time and memory on.  A row at a time, so that memory does not grow with the size.
    Matrices have a spectrum that falls as a power of the rank, over a floor of noise; a few channels of the residual
    stream are outliers, as they are in trained models.  The same seed writes the same bytes. */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#define LEMON_STATIC
#define LEMON_IMPLEMENTATION
#include "../lemon.h"
#include <stdio.h>
#include <sys/stat.h>

enum { RANK = 32, OUTLIERS = 6 };

typedef struct large {
    lemon_config config;
    const char *folder;
    uint64_t seed, shard;
    int64_t outlier[OUTLIERS];
} large;

/*  A normal-like number in a few operations: the sum of four uniform ones. */
static float noise(lemon_rng *rng) {
    uint64_t x = lemon_rng_next(rng);
    int64_t sum = (int64_t)(x & 0xffff) + (int64_t)(x >> 16 & 0xffff) + (int64_t)(x >> 32 & 0xffff) + (int64_t)(x >> 48);
    return (float)((double)(sum - 131070) / 37837.0);
}

static int is_outlier(const large *g, int64_t channel) {
    int i;
    for (i = 0; i < OUTLIERS; i++)
        if (g->outlier[i] == channel) return 1;
    return 0;
}

static int64_t shape_of(const large *g, int64_t param, lemon_role *role, int64_t *layer, int64_t *cols) {
    int64_t rows;
    *role = lemon__param_role(&g->config, param, layer);
    lemon__param_shape(&g->config, *role, &rows, cols);
    return rows;
}

/*  All rows of a weight, encoded, to the file; 0 where it could not be written. */
static int put_weight(const large *g, int64_t param, FILE *file) {
    lemon_role role;
    int64_t layer, cols, rows = shape_of(g, param, &role, &layer, &cols), r, c, k;
    const lemon_role_info *info = lemon_role_get(role);
    float *v = (float *)malloc((size_t)((RANK + 1) * cols) * sizeof *v), *row = v + RANK * cols;
    uint16_t *out = (uint16_t *)malloc((size_t)cols * sizeof *out);
    float size = (float)(0.7 / sqrt((double)cols));
    lemon_rng rng;
    int ok = v && out;
    lemon_rng_seed(&rng, g->seed * 1000003u + (uint64_t)param);
    for (c = 0; ok && c < RANK * cols; c++) v[c] = noise(&rng);
    for (r = 0; ok && r < rows; r++) {
        for (c = 0; c < cols; c++) row[c] = info->matrix ? noise(&rng) : 1.0f + 0.1f * noise(&rng);
        for (k = 0; k < RANK && info->matrix; k++) {
            float u = noise(&rng) * (float)(2.0 / pow((double)(k + 1), 0.7));
            for (c = 0; c < cols; c++) row[c] += u * v[k * cols + c];
        }
        if (info->matrix && info->out == LEMON_JOINT_RESIDUAL)
            for (c = 0; c < cols; c++) row[c] *= is_outlier(g, r) ? 8.0f : 1.0f;
        for (c = 0; c < cols; c++) out[c] = lemon_bf16_from_f32(info->matrix ? size * row[c] : row[c]);
        ok = fwrite(out, sizeof *out, (size_t)cols, file) == (size_t)cols;
    }
    free(out);
    free(v);
    return ok;
}

static void name_of(const large *g, int64_t param, char *name, size_t size) {
    lemon_role role;
    int64_t layer, cols;
    (void)shape_of(g, param, &role, &layer, &cols);
    if (lemon_role_get(role)->per_layer)
        snprintf(name, size, "model.layers.%d.%s.weight", (int)layer, lemon_role_get(role)->hf);
    else snprintf(name, size, "%s.weight", lemon_role_get(role)->hf);
}

static uint64_t bytes_of(const large *g, int64_t param) {
    lemon_role role;
    int64_t layer, cols, rows = shape_of(g, param, &role, &layer, &cols);
    return 2 * (uint64_t)(rows * cols);
}

/*  Weights first ... last-1 as a safetensors file. */
static int put_shard(const large *g, int64_t first, int64_t last, const char *path) {
    size_t size = 256 * (size_t)(last - first) + 64, n = 1;
    char *head = (char *)calloc(1, size), name[128];
    FILE *file = fopen(path, "wb");
    uint64_t at = 0;
    uint8_t length[8];
    int64_t i;
    int ok = head && file;
    if (ok) head[0] = '{';
    for (i = first; ok && i < last; i++) {
        lemon_role role;
        int64_t layer, cols, rows = shape_of(g, i, &role, &layer, &cols);
        char shape[64];
        snprintf(shape, sizeof shape, lemon_role_get(role)->matrix ? "[%lld,%lld]" : "[%lld]",
                 (long long)(lemon_role_get(role)->matrix ? rows : cols), (long long)cols);
        name_of(g, i, name, sizeof name);
        n += (size_t)snprintf(head + n, size - n, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":%s,\"data_offsets\":[%llu,%llu]}",
                              i > first ? "," : "", name, shape, (unsigned long long)at,
                              (unsigned long long)(at + bytes_of(g, i)));
        at += bytes_of(g, i);
    }
    if (ok) head[n++] = '}';
    while (n % 8) head[n++] = ' ';
    lemon__put64(length, (uint64_t)n);
    ok = ok && fwrite(length, 1, 8, file) == 8 && fwrite(head, 1, n, file) == n;
    for (i = first; ok && i < last; i++) ok = put_weight(g, i, file);
    if (file && fclose(file) != 0) ok = 0;
    free(head);
    if (!ok) fprintf(stderr, "make_large: %s: could not be written\n", path);
    return ok;
}

static int put_config(const large *g) {
    const lemon_config *c = &g->config;
    char path[1024];
    FILE *file;
    snprintf(path, sizeof path, "%s/config.json", g->folder);
    file = fopen(path, "wb");
    if (file == NULL) return 0;
    fprintf(file, "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":%d,"
            "\"num_hidden_layers\":%d,\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"intermediate_size\":%d,"
            "\"vocab_size\":%d,\"max_position_embeddings\":%d,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"
            "\"tie_word_embeddings\":false,\"hidden_act\":\"silu\",\"torch_dtype\":\"bfloat16\"}\n",
            c->d_model, c->n_layers, c->n_heads, c->kv_heads, c->d_ffn, c->vocab_size, c->max_seq);
    return fclose(file) == 0;
}

/*  The shards, then the index that says which weight is in which. */
static int put_all(const large *g) {
    int64_t params = lemon__param_count(&g->config), first, last, shards = 0, k = 0;
    char path[1024], name[128];
    FILE *index;
    int ok = 1;
    for (first = 0; first < params; first = last, shards++) {
        uint64_t bytes = 0;
        for (last = first; last < params && (last == first || bytes + bytes_of(g, last) <= g->shard); last++)
            bytes += bytes_of(g, last);
    }
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", g->folder);
    index = fopen(path, "wb");
    if (index == NULL) return 0;
    fprintf(index, "{\"weight_map\":{");
    for (first = 0; ok && first < params; first = last, k++) {
        uint64_t bytes = 0;
        for (last = first; last < params && (last == first || bytes + bytes_of(g, last) <= g->shard); last++) {
            bytes += bytes_of(g, last);
            name_of(g, last, name, sizeof name);
            fprintf(index, "%s\"%s\":\"model-%05d-of-%05d.safetensors\"", last ? "," : "", name, (int)k + 1, (int)shards);
        }
        snprintf(path, sizeof path, "%s/model-%05d-of-%05d.safetensors", g->folder, (int)k + 1, (int)shards);
        ok = put_shard(g, first, last, path);
    }
    fprintf(index, "}}\n");
    return (fclose(index) == 0) & ok && put_config(g);
}

int main(int argc, char **argv) {
    large g;
    lemon_rng rng;
    int i;
    memset(&g, 0, sizeof g);
    lemon_config_defaults(&g.config);
    g.config.tied_embeddings = 0;
    g.config.max_seq = 4096;
    g.seed = 1;
    g.shard = 5000000000u;
    for (i = 2; i + 1 < argc; i += 2) {
        long long value = strtoll(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "--dim")) g.config.d_model = (int32_t)value;
        else if (!strcmp(argv[i], "--layers")) g.config.n_layers = (int32_t)value;
        else if (!strcmp(argv[i], "--heads")) g.config.n_heads = (int32_t)value;
        else if (!strcmp(argv[i], "--kv-heads")) g.config.kv_heads = (int32_t)value;
        else if (!strcmp(argv[i], "--ffn")) g.config.d_ffn = (int32_t)value;
        else if (!strcmp(argv[i], "--vocab")) g.config.vocab_size = (int32_t)value;
        else if (!strcmp(argv[i], "--seed")) g.seed = (uint64_t)value;
        else if (!strcmp(argv[i], "--shard-size")) g.shard = (uint64_t)value;
        else break;
    }
    if (g.config.n_heads > 0) g.config.head_dim = g.config.d_model / g.config.n_heads;
    if (argc < 2 || i < argc || lemon_config_check(NULL, &g.config)) {
        fprintf(stderr, "usage: make_large FOLDER --dim D --layers L --heads H --kv-heads K --ffn F --vocab V [--seed S] "
                "[--shard-size BYTES]\n");
        return 2;
    }
    g.folder = argv[1];
    lemon_rng_seed(&rng, g.seed);
    for (i = 0; i < OUTLIERS; i++) g.outlier[i] = lemon_rng_below(&rng, g.config.d_model);
    mkdir(g.folder, 0777);
    if (put_all(&g)) return 0;
    fprintf(stderr, "make_large: %s: could not be written\n", g.folder);
    return 1;
}
