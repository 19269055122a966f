/*  Chapter 8, the formats of others: JSON, Hugging Face folders, GGUF, llama2.c's files as they are written. */
#include "check.h"

/* ---- JSON ---- */

static lemon_status parse(lemon_ctx *ctx, const char *text, lemon__json *json) {
    return lemon__json_parse(ctx, "some.json", text, strlen(text), json);
}

static int string_is(lemon__json *json, int32_t node, const char *want) {
    size_t n;
    const uint8_t *p = lemon__json_string(json, node, &n);
    detail("\"%.*s\", expected \"%s\"", (int)n, p ? (const char *)p : "", want);
    return p && n == strlen(want) && memcmp(p, want, n) == 0;
}

static void test_json_values(lemon_ctx *ctx) {
    static const char text[] = " {\"a\": [1, -2.5e3, true, false, null, \"x\", {}], \"b\": {\"c\": \"d\\u00e9\\n\\\"\", "
                               "\"e\": []}, \"\\u0061\": 3, \"big\": 9223372036854775807, "
                               "\"low\": -9223372036854775808, \"over\": 9223372036854775808} \n";
    lemon__json json;
    int32_t a, i, items = 0;
    int64_t whole;
    double real;
    if (!check(fine(ctx, parse(ctx, text, &json)), "JSON is parsed")) return;
    a = lemon__json_get(&json, 0, "a");
    for (i = a + 1; i < json.nodes[a].next; i = json.nodes[i].next) items++;
    check(items == 7 && lemon__json_type_of(&json, a) == LEMON__JSON_ARRAY, "JSON array of seven items");
    check(lemon__json_int(&json, a + 1, &whole) && whole == 1, "JSON integer");
    check(lemon__json_real(&json, a + 2, &real) && real >= -2500 && real <= -2500, "JSON real");
    check(!lemon__json_int(&json, a + 2, &whole), "a real is no integer");
    check(lemon__json_type_of(&json, a + 3) == LEMON__JSON_TRUE &&
          lemon__json_type_of(&json, a + 4) == LEMON__JSON_FALSE &&
          lemon__json_type_of(&json, a + 5) == LEMON__JSON_NULL, "JSON true, false, null");
    check(string_is(&json, lemon__json_get(&json, lemon__json_get(&json, 0, "b"), "c"), "d\xc3\xa9\n\""),
          "JSON escapes are decoded");
    check(lemon__json_get(&json, lemon__json_get(&json, 0, "no"), "c") == -1, "what is not there has no members");
    check(lemon__json_int(&json, lemon__json_get(&json, 0, "big"), &whole) && whole == INT64_MAX, "largest int64");
    check(lemon__json_int(&json, lemon__json_get(&json, 0, "low"), &whole) && whole == INT64_MIN, "smallest int64");
    check(!lemon__json_int(&json, lemon__json_get(&json, 0, "over"), &whole), "one more than int64 is refused");
    lemon__json_close(&json);
    check(fine(ctx, parse(ctx, "\"\\ud83d\\ude42 \xe6\x97\xa5 \\u20ac\"", &json)) &&
          string_is(&json, 0, "\xf0\x9f\x99\x82 \xe6\x97\xa5 \xe2\x82\xac"), "surrogate pairs");
    lemon__json_close(&json);
    check(fine(ctx, parse(ctx, "0.1", &json)) && lemon__json_real(&json, 0, &real) && real >= 0.1 && real <= 0.1,
          "doubles are exact");
    lemon__json_close(&json);
    lemon__json_close(&json);
}

static void test_json_refused(lemon_ctx *ctx) {
    static const char *const bad[] = {
        "", " ", "{", "[", "]", "{\"a\"}", "{\"a\":}", "{a:1}", "[1,]", "{\"a\":1,}", "[1 2]", "{\"a\":1 \"b\":2}", "01",
        "1.", ".5", "+1", "-", "1e", "nul", "True", "\"", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\n\"",
        "\"\\ud83d\"", "\"\\ud83d\\u0041\"", "\"\\ude42\"", "[1]]", "{} {}", "NaN", "'a'", "[1}", "{\"a\":1]"};
    const char bang[8] = "!";           /* as much as is read of a text that ends so soon */
    char deep[400];
    lemon__json json;
    size_t i;
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char name[80];
        snprintf(name, sizeof name, "no JSON: %s", bad[i]);
        for (char *p = name; *p; p++)
            if (*p == '\n') *p = '~';
        check(fails_with(ctx, parse(ctx, bad[i], &json), LEMON_E_FORMAT, "some.json: line "), name);
    }
    check(fails_with(ctx, lemon__json_parse(ctx, "some.json", "[1]\0", 4, &json), LEMON_E_FORMAT, "the end"),
          "a zero byte is no white space");
    check(fails_with(ctx, lemon__json_parse(ctx, "some.json", bang, INT32_MAX, &json), LEMON_E_FORMAT, "line 1, column 1") &&
              fails_with(ctx, lemon__json_parse(ctx, "some.json", bang, (size_t)INT32_MAX + 1, &json), LEMON_E_UNSUPPORTED, "less than 2 GB"),
          "a text of 2 GB is not read, one that is a byte shorter is");
    memset(deep, '[', 200);
    memset(deep + 200, ']', 200);
    check(fails_with(ctx, lemon__json_parse(ctx, "some.json", deep, 400, &json), LEMON_E_FORMAT, "64 levels"),
          "JSON of 200 levels is refused");
    check(fine(ctx, lemon__json_parse(ctx, "some.json", deep + 136, 128, &json)), "JSON of 64 levels is read");
    lemon__json_close(&json);
}

/*  Cut anywhere and with any bit flipped, a text is parsed or refused, but never read beyond its end. */
static void test_json_hostile(lemon_ctx *ctx) {
    static const char text[] = "{\"a\":[1,-2.5e3,true,null,\"x\\ud83d\\ude42\",{\"b\":{}}],\"c\":\"\\n\\u00e9\"}";
    size_t n = sizeof text - 1, i, parsed = 0;
    int64_t tried = 0;
    for (i = 0; i < n; i++) {
        uint8_t *copy = (uint8_t *)malloc(i + 1);       /* of exact size, for the sanitizer */
        lemon__json json;
        memcpy(copy, text, i);
        parsed += lemon__json_parse(ctx, "cut.json", copy, i, &json) == LEMON_OK;
        free(copy);
    }
    check(parsed == 0, "JSON that was cut is refused");
    for (i = 0; i < 8 * n; i++, tried++) {
        uint8_t *copy = (uint8_t *)malloc(n);
        lemon__json json;
        int32_t k;
        memcpy(copy, text, n);
        copy[i / 8] ^= (uint8_t)(1u << i % 8);
        if (lemon__json_parse(ctx, "flipped.json", copy, n, &json) == LEMON_OK) {
            for (k = 0; k < json.count; k++) {
                size_t bytes;
                double real;
                int64_t whole;
                lemon__json_string(&json, k, &bytes);
                lemon__json_real(&json, k, &real);
                lemon__json_int(&json, k, &whole);
            }
            lemon__json_close(&json);
        }
        free(copy);
    }
    detail("%ld blocks are left", heap.live);
    check(tried == (int64_t)(8 * n), "JSON with flipped bits");
}

static void test_json_large(lemon_ctx *ctx) {
    size_t n = 0, room = 22u << 20;
    char *text = (char *)malloc(room);
    lemon__json json;
    double seconds;
    lemon_status status;
    n += (size_t)snprintf(text, room, "{\"vocab\": {");
    while (n < (20u << 20)) n += (size_t)snprintf(text + n, 64, "\"piece%lu\": %lu, ", (unsigned long)n, (unsigned long)n);
    n += (size_t)snprintf(text + n, 64, "\"\": 0}}");
    seconds = cpu_seconds();
    status = lemon__json_parse(ctx, "large.json", text, n, &json);
    seconds = cpu_seconds() - seconds;
    detail("%.2f s, %lld values, %s", seconds, (long long)json.count, lemon_error(ctx));
    check(status == LEMON_OK && (light() || seconds < 1), "20 MB of JSON in less than a second");
    lemon__json_close(&json);
    free(text);
}

/* ---- models ---- */

static lemon_config odd_config(int tied, int head_dim) {
    lemon_config c = tiny_config(32, 2, 4, 2, head_dim, 44, 300, tied);     /* 44 is no multiple of 32 */
    c.rope_theta = 500000.0f;
    c.rms_norm_eps = 1e-6f;
    return c;
}

static lemon_model *odd_model(lemon_ctx *ctx, int tied, int head_dim) {
    lemon_config c = odd_config(tied, head_dim);
    lemon_model *model = lively_model(ctx, &c, 5);
    lemon_tokenizer_bytes(ctx, &model->tokenizer);
    return model;
}

/*  Removes a folder that lemon_save wrote. */
static void remove_folder(const char *path) {
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s' '%s.tmp'", path, path);
    if (system(command) != 0) printf("# %s was not removed\n", path);
}

/* ---- round trips through every format ---- */

static void round_trip(lemon_ctx *ctx, const lemon_model *a, const char *path, lemon_dtype dtype, const char *format,
                       double limit) {
    lemon_model *b = NULL;
    char name[128];
    lemon_status status = lemon_save(ctx, path, a, dtype);
    int known = 0;
    if (!status) status = lemon_load(ctx, path, &b);
    snprintf(name, sizeof name, "round trip %s %s %s, %s, head_dim %d", format, lemon_dtype_name(dtype),
             a->config.tied_embeddings ? "tied" : "untied", lemon_config_family(&a->config), (int)a->config.head_dim);
    detail("%s, distance %g", lemon_error(ctx), distance(a, b));
    if (b) known = strcmp(b->format, format) == 0 && b->dtype == dtype &&
                   (strcmp(format, "llama2c") == 0) == (b->tokenizer == NULL) && b->params[1].dtype == LEMON_F32;
    check(!status && known && distance(a, b) >= 0 && distance(a, b) <= limit, name);
    lemon_model_free(ctx, b);
    remove(path);
    remove_folder(path);
}

static void test_round_trips(lemon_ctx *ctx) {
    static const double limit[] = {0, 0.01, 0.001, 0.01, 0.15};
    int tied, dtype, head_dim;
    for (tied = 0; tied < 2; tied++)
        for (head_dim = 6; head_dim <= 8; head_dim += 2) {
            lemon_model *a = odd_model(ctx, tied, head_dim);
            for (dtype = 0; dtype <= LEMON_Q4; dtype++) {
                round_trip(ctx, a, scratch("trip.gguf"), (lemon_dtype)dtype, "gguf", limit[dtype]);
                if (dtype <= LEMON_F16) round_trip(ctx, a, scratch("trip-hf"), (lemon_dtype)dtype, "hf", limit[dtype]);
            }
            if (head_dim == 8) {
                a->config.rope_theta = 10000.0f;
                a->config.rms_norm_eps = 1e-5f;
                round_trip(ctx, a, scratch("trip.bin"), LEMON_F32, "llama2c", 0);
                round_trip(ctx, a, scratch("trip.bin"), LEMON_Q8, "llama2c", 0.01);
            }
            lemon_model_free(ctx, a);
        }
}

/*  The smallest that there can be: one layer, one head, one neuron, so a matrix of one column. */
static void test_smallest(lemon_ctx *ctx) {
    lemon_config c = tiny_config(2, 1, 1, 1, 2, 1, 259, 0);
    lemon_model *a = lively_model(ctx, &c, 5);
    lemon_tokenizer_bytes(ctx, &a->tokenizer);
    round_trip(ctx, a, scratch("least.lemon"), LEMON_F32, "lemon", 0);
    round_trip(ctx, a, scratch("least.gguf"), LEMON_F32, "gguf", 0);
    round_trip(ctx, a, scratch("least.gguf"), LEMON_F16, "gguf", 0.001);
    round_trip(ctx, a, scratch("least-hf"), LEMON_F32, "hf", 0);
    lemon_model_free(ctx, a);
}

/*  Each of the family through each format that has it, and refused by name where a format has not. */
static void test_families(lemon_ctx *ctx) {
    static const char *const bin[FAMILIES] = {NULL, "qkv_bias is 1", "qk_norm is 1", "window is 5", "rope_scaling is 1",
                                              "rope_scaling is 2", "rope_scaling is 3", "qkv_bias is 1", "qk_norm is 1",
                                              "qkv_bias is 1"};
    int i, dtype;
    for (i = 0; i < FAMILIES; i++) {
        lemon_config c = family_config(tiny_config(32, 2, 4, 2, 8, 44, 300, i % 2), i);
        lemon_model *a = lively_model(ctx, &c, 5), *b = NULL;
        char name[128], family[96];
        int both = c.qkv_bias && c.qk_norm;
        lemon_tokenizer_bytes(ctx, &a->tokenizer);
        snprintf(family, sizeof family, "%s", families[i].name);
        for (dtype = 0; dtype <= LEMON_Q8; dtype++) {
            double limit = dtype == LEMON_F32 ? 0 : 0.01;
            round_trip(ctx, a, scratch("trip.lemon"), (lemon_dtype)dtype, "lemon", limit);
            if (both) continue;
            if (i != 5 || dtype == 0) round_trip(ctx, a, scratch("trip.gguf"), (lemon_dtype)dtype, "gguf", limit);
            if (dtype <= LEMON_F16) round_trip(ctx, a, scratch("trip-hf"), (lemon_dtype)dtype, "hf", limit);
        }
        snprintf(name, sizeof name, "a .bin cannot carry %s", family);
        if (bin[i]) check(fails_with(ctx, lemon_save(ctx, scratch("x.bin"), a, LEMON_F32), LEMON_E_ARG, bin[i]), name);
        if (both)
            check(fails_with(ctx, lemon_save(ctx, scratch("x.gguf"), a, LEMON_F32), LEMON_E_ARG, "qkv_bias and qk_norm") &&
                      fails_with(ctx, lemon_save(ctx, scratch("x-hf"), a, LEMON_F32), LEMON_E_ARG, "qkv_bias and qk_norm"),
                  "biases and norms of heads are nobody's");
        if (i == 1) {                               /* what GGUF's Qwen2 has not */
            a->config.head_dim = 6;
            check(fails_with(ctx, lemon_save(ctx, scratch("x.gguf"), a, LEMON_F32), LEMON_E_ARG, "is not d_model"),
                  "GGUF's Qwen2 has no head_dim of its own");
            a->config = family_config(a->config, 5);
            a->config.qkv_bias = 1;
            a->config.head_dim = 8;
            check(fails_with(ctx, lemon_save(ctx, scratch("x.gguf"), a, LEMON_F32), LEMON_E_ARG, "llama3"),
                  "nor LLaMA 3's scaling");
        }
        check(b == NULL && !exists(scratch("x.gguf")) && !exists(scratch("x.bin")), "what is refused leaves no file");
        lemon_model_free(ctx, a);
    }
}

/*  LLaMA 3's numbers come back out of GGUF's factors: as they were up to what changes no plane. */
static void test_rope_freqs(lemon_ctx *ctx) {
    static const struct { int32_t head_dim, original; float theta, factor, slow, fast; } c[] = {
        {128, 8192, 500000.0f, 8.0f, 1.0f, 4.0f}, {64, 8192, 500000.0f, 32.0f, 1.0f, 4.0f}, {16, 32, 500.0f, 8.0f, 1.0f, 4.0f},
        {64, 4096, 10000.0f, 3.5f, 2.0f, 5.0f}, {8, 64, 10000.0f, 8.0f, 1.0f, 1.5f}, {4, 64, 10000.0f, 8.0f, 1.0f, 4.0f}};
    size_t i;
    for (i = 0; i < sizeof c / sizeof c[0]; i++) {
        lemon_config shape = tiny_config(32, 1, 2, 2, c[i].head_dim, 44, 300, 1);
        lemon_model *a, *b = NULL;
        double worst = 0;
        int64_t k;
        char name[96];
        shape.rope_scaling = LEMON_ROPE_LLAMA3;
        shape.rope_theta = c[i].theta;
        shape.rope_original = c[i].original;
        shape.rope_factor = c[i].factor;
        shape.rope_slow = c[i].slow;
        shape.rope_fast = c[i].fast;
        a = lively_model(ctx, &shape, 6);
        snprintf(name, sizeof name, "LLaMA 3's scaling through GGUF: head_dim %d, %d, %g to %g", (int)c[i].head_dim,
                 (int)c[i].original, (double)c[i].slow, (double)c[i].fast);
        if (check(fine(ctx, lemon_save(ctx, scratch("freqs.gguf"), a, LEMON_F32)) &&
                      fine(ctx, lemon_load(ctx, scratch("freqs.gguf"), &b)) && b->config.rope_scaling == LEMON_ROPE_LLAMA3, name))
            for (k = 0; k < c[i].head_dim / 2; k++)
                worst = fmax(worst, fabs(lemon__rope_slower(&b->config, k) / lemon__rope_slower(&shape, k) - 1));
        detail("worst %g: %d, %g to %g", worst, b ? (int)b->config.rope_original : 0, b ? (double)b->config.rope_slow : 0,
               b ? (double)b->config.rope_fast : 0);
        check(worst < 1e-4, "planes turn as before");
        lemon_model_free(ctx, a);
        lemon_model_free(ctx, b);
    }
    remove(scratch("freqs.gguf"));
}

/*  A half-precision model keeps its bits on every way that keeps its type. */
static void test_chain(lemon_ctx *ctx) {
    static const char *const names[] = {"chain.lemon", "chain.gguf", "chain-hf", "chain-2.gguf", "chain-2.lemon"};
    lemon_model *a = odd_model(ctx, 0, 8), *b = NULL, *first = NULL;
    lemon_status status = LEMON_OK;
    size_t i;
    for (i = 0; i < 5 && !status; i++) {
        status = lemon_save(ctx, scratch(names[i]), b ? b : a, LEMON_BF16);
        if (b != first) lemon_model_free(ctx, b);
        b = NULL;
        if (!status) status = lemon_load(ctx, scratch(names[i]), &b);
        if (i == 0) first = b;
    }
    detail("%s, distance %g", lemon_error(ctx), distance(first, b));
    check(!status && distance(first, b) >= 0 && distance(first, b) <= 0.01 &&
          memcmp(first->params[3].data, b->params[3].data, 8 * 32 * 2) == 0, "bf16 through all formats keeps its bits");
    check(!status && lemon_tokenizer_size(b->tokenizer) == 259, "the vocabulary comes along");
    lemon_model_free(ctx, b);
    lemon_model_free(ctx, first);
    lemon_model_free(ctx, a);
    for (i = 0; i < 5; i++) { remove(scratch(names[i])); remove_folder(scratch(names[i])); }
}

/* ---- Hugging Face folders ---- */

static void test_shards(lemon_ctx *ctx) {
    lemon_model *a = odd_model(ctx, 0, 8), *b = NULL;
    lemon_save_options options;
    char path[300], file[400];
    size_t n;
    char *index;
    snprintf(path, sizeof path, "%s", scratch("shards"));
    lemon_save_defaults(&options);
    options.shard_bytes = 40000;
    check(fine(ctx, lemon_save_with(ctx, path, a, &options)), "a folder in shards is written");
    snprintf(file, sizeof file, "%s/model.safetensors.index.json", path);
    index = slurp(file, &n);
    check(index && strstr(index, "\"lm_head.weight\": \"model-0000") && strstr(index, "\"total_size\": "),
          "its index names files and sizes");
    free(index);
    check(fine(ctx, lemon_load(ctx, path, &b)) && distance(a, b) >= 0 && distance(a, b) <= 0, "shards are read");
    check(b && b->params[2].data != NULL && b->block == NULL, "shards stay mapped");
    options.shard_bytes = UINT64_MAX;
    check(fine(ctx, lemon_save_with(ctx, path, b, &options)), "over the folder that it is mapped from");
    lemon_model_free(ctx, b);
    b = NULL;
    check(!exists(file), "the index of the shards that were there is gone");
    snprintf(file, sizeof file, "%s/config.json", path);
    check(fine(ctx, lemon_load(ctx, file, &b)) && distance(a, b) >= 0 && distance(a, b) <= 0,
          "config.json stands for its folder");
    snprintf(file, sizeof file, "%s.tmp/config.json", path);
    check(!exists(file), "nothing is left beside it");
    spill(scratch("taken"), "mine", 4);
    check(fails_with(ctx, lemon_save(ctx, scratch("taken"), a, LEMON_F32), LEMON_E_IO, "taken") &&
          same_files(scratch("taken"), scratch("taken")) && !exists(scratch("taken.tmp")),
          "a file that stands where a folder should go is left alone");
    remove(scratch("taken"));
    lemon_model_free(ctx, b);
    lemon_model_free(ctx, a);
    remove_folder(path);
}

/*  Replaces the first `from` in a file by `to`. */
static int edit(const char *path, const char *from, const char *to) {
    size_t n;
    char *text = slurp(path, &n), *at = text ? strstr(text, from) : NULL, *all;
    if (at == NULL) { free(text); return 0; }
    all = (char *)malloc(n + strlen(to) + 1);
    snprintf(all, n + strlen(to) + 1, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    spill(path, all, strlen(all));
    free(all);
    free(text);
    return 1;
}

static void test_refusals(lemon_ctx *ctx) {
    static const struct { const char *from, *to, *text; lemon_status status; } cases[] = {
        {"\"llama\"", "\"gpt2\"", "model_type is gpt2", LEMON_E_UNSUPPORTED},
        {"\"attention_bias\": false", "\"attention_bias\": true", "attention_bias is true", LEMON_E_UNSUPPORTED},
        {"\"mlp_bias\": false", "\"mlp_bias\": true", "mlp_bias is true", LEMON_E_UNSUPPORTED},
        {"\"mlp_bias\": false", "\"rope_scaling\": {\"rope_type\": \"longrope\"}", "rope_scaling is", LEMON_E_UNSUPPORTED},
        {"\"mlp_bias\": false", "\"rope_scaling\": {\"rope_type\": \"llama3\"}", "rope_factor is 0", LEMON_E_FORMAT},
        {"\"mlp_bias\": false", "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2, \"beta_fast\": 1e300}",
         "beta_fast is 1e+300", LEMON_E_FORMAT},
        {"\"mlp_bias\": false", "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2, \"beta_slow\": 33}",
         "rope_slow is 33", LEMON_E_FORMAT},
        {"\"mlp_bias\": false", "\"partial_rotary_factor\": 0.5", "partial_rotary_factor is 0.5", LEMON_E_UNSUPPORTED},
        {"\"llama\"", "\"qwen3_moe\"", "model_type is qwen3_moe, expected llama, mistral, qwen2, qwen3 or phi3; its layers are "
         "mixtures of experts", LEMON_E_UNSUPPORTED},
        {"\"llama\"", "\"gemma2\"", "its norms and activations are others", LEMON_E_UNSUPPORTED},
        {"\"model_type\": \"llama\"", "\"type\": 1", "model_type is missing", LEMON_E_UNSUPPORTED},
        {"\"llama\"", "\"qwen2\"", "layers.0.self_attn.q_proj.bias\" is missing", LEMON_E_FORMAT},
        {"\"llama\"", "\"qwen3\"", "layers.0.self_attn.q_norm.weight\" is missing", LEMON_E_FORMAT},
        {"\"llama\"", "\"phi3\"", "layers.0.self_attn.qkv_proj.weight\" is missing", LEMON_E_FORMAT},
        {"\"mlp_bias\": false", "\"sliding_window\": 16", "sliding_window is 16", LEMON_E_UNSUPPORTED},
        {"\"model_type\": \"llama\"", "\"model_type\": \"qwen2\", \"use_sliding_window\": true, \"sliding_window\": 16, "
         "\"max_window_layers\": 1", "max_window_layers is 1, expected 0", LEMON_E_UNSUPPORTED},
        {"\"model_type\": \"llama\"", "\"model_type\": \"mistral\", \"sliding_window\": 16, \"layer_types\": [\"sliding_attention\", "
         "\"full_attention\"]", "expected a window for all layers", LEMON_E_UNSUPPORTED},
        {"\"mlp_bias\": false", "\"quantization_config\": {\"bits\": 4}", "quantization_config is", LEMON_E_UNSUPPORTED},
        {"\"silu\"", "\"gelu\"", "hidden_act is gelu", LEMON_E_UNSUPPORTED},
        {"\"hidden_size\": 32", "\"hidden_size\": 33", "\"model.embed_tokens.weight\" is [300, 32], expected [300, 33]",
         LEMON_E_FORMAT},
        {"\"hidden_size\": 32", "\"hidden_size\": -1", "hidden_size is -1", LEMON_E_FORMAT},
        {"\"hidden_size\": 32", "\"hidden_size\": 32.5", "hidden_size is 32.5", LEMON_E_FORMAT},
        {"\"hidden_size\": 32", "\"hidden_size\": \"32\"", "hidden_size is not a number", LEMON_E_FORMAT},
        {"\"hidden_size\": 32,", "", "hidden_size is missing", LEMON_E_FORMAT},
        {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1", "has no place in a LLaMA model", LEMON_E_UNSUPPORTED},
        {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "layers.2.input_layernorm.weight\" is missing",
         LEMON_E_FORMAT},
        {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 4096", "n_layers is 4096", LEMON_E_FORMAT},
        {"\"tie_word_embeddings\": false", "\"tie_word_embeddings\": 0.5", "tie_word_embeddings is 0.5", LEMON_E_FORMAT},
        {"{", "[", "config.json: line ", LEMON_E_FORMAT}};
    lemon_model *a = odd_model(ctx, 0, 8), *b = NULL;
    static const struct { const char *scaling; double fast; const char *name; } bounds[] = {
        {"\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2, \"original_max_position_embeddings\": 32}", 32,
         "YaRN's bounds where a config leaves them out"},
        {"\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"original_max_position_embeddings\": 32}", 4,
         "and LLaMA 3's"}};
    char path[300], file[400], copy[400];
    size_t i, n;
    char *config;
    snprintf(path, sizeof path, "%s", scratch("refused"));
    snprintf(file, sizeof file, "%s/config.json", path);
    lemon_save(ctx, path, a, LEMON_F32);
    config = slurp(file, &n);
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int edited = edit(file, cases[i].from, cases[i].to);
        check(edited && fails_with(ctx, lemon_load(ctx, path, &b), cases[i].status, cases[i].text) && b == NULL &&
              strstr(lemon_error(ctx), path), cases[i].text);
        spill(file, config, n);
    }
    edit(file, "\"mlp_bias\": false", "\"rope_scaling\": {\"rope_type\": \"default\"}, \"sliding_window\": 64");
    check(fine(ctx, lemon_load(ctx, path, &b)), "default scaling and a window as long as the context change nothing");
    lemon_model_free(ctx, b);
    spill(file, config, n);
    for (i = 0; i < 2; i++) {
        edit(file, "\"mlp_bias\": false", bounds[i].scaling);
        check(fine(ctx, lemon_load(ctx, path, &b)) && near_to((double)b->config.rope_fast, bounds[i].fast, 0) &&
                  near_to((double)b->config.rope_slow, 1, 0), bounds[i].name);
        lemon_model_free(ctx, b);
        spill(file, config, n);
    }
    edit(file, "\"rope_theta\": 500000", "\"rope_parameters\": {\"rope_theta\": 500000, \"rope_type\": \"default\"}");
    check(fine(ctx, lemon_load(ctx, path, &b)) && distance(a, b) >= 0, "rope_theta as newer configs have it");
    lemon_model_free(ctx, b);
    free(config);
    snprintf(copy, sizeof copy, "%s/model.safetensors", path);
    remove(copy);
    check(fails_with(ctx, lemon_load(ctx, path, &b), LEMON_E_FORMAT, "neither model.safetensors nor"),
          "a folder without weights says so");
    snprintf(copy, sizeof copy, "%s/model.safetensors.index.json", path);
    spill(copy, "{\"weight_map\": {\"a\": \"../model.safetensors\"}}", 45);
    check(fails_with(ctx, lemon_load(ctx, path, &b), LEMON_E_FORMAT, "no file name"), "an index leads out of no folder");
    check(fails_with(ctx, lemon_save(ctx, path, a, LEMON_Q8), LEMON_E_ARG, "dtype is q8"), "q8 is nothing for a folder");
    check(fails_with(ctx, lemon_save(ctx, scratch("x.bin"), a, LEMON_F16), LEMON_E_ARG, "dtype is f16"),
          "f16 is nothing for a .bin");
    check(fails_with(ctx, lemon_save(ctx, scratch("x.bin"), a, LEMON_F32), LEMON_E_ARG, "rope_theta is 500000"),
          "a .bin cannot carry rope_theta");
    a->config.rope_theta = 10000.0f;
    check(fails_with(ctx, lemon_save(ctx, scratch("x.bin"), a, LEMON_F32), LEMON_E_ARG, "rms_norm_eps is 1e-06"),
          "a .bin cannot carry eps");
    a->config.rms_norm_eps = 1e-5f;
    a->config.head_dim = 6;
    check(fails_with(ctx, lemon_save(ctx, scratch("x.bin"), a, LEMON_F32), LEMON_E_ARG, "head_dim is 6, expected 8"),
          "a .bin cannot carry head_dim");
    check(!exists(scratch("x.bin")), "what is refused leaves no file");
    lemon_model_free(ctx, a);
    remove_folder(path);
}

/*  Files that came in a folder go out again, byte for byte, on the way through .lemon too; GGUF's unknown keys likewise. */
static void test_carried(lemon_ctx *ctx) {
    static const char card[] = "---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n";
    lemon_model *a = odd_model(ctx, 1, 8), *b = NULL, *c = NULL;
    char path[300], file[400], other[300], file2[400];
    size_t n;
    char *text;
    snprintf(path, sizeof path, "%s", scratch("carried"));
    snprintf(other, sizeof other, "%s", scratch("carried2"));
    lemon_save(ctx, path, a, LEMON_F32);
    snprintf(file, sizeof file, "%s/special_tokens_map.json", path);
    spill(file, "{\"bos_token\":   \"<s>\"}", 22);
    snprintf(file, sizeof file, "%s/README.md", path);
    spill(file, card, sizeof card - 1);
    snprintf(file, sizeof file, "%s/config.json", path);
    edit(file, "\"eos_token_id\": 2", "\"eos_token_id\": [2, 5], \"initializer_range\": 0.02, \"x\": \"y\\\"\", "
                                      "\"layer_types\": [\"full\", \"full\"]");
    check(fine(ctx, lemon_load(ctx, path, &b)) && fine(ctx, lemon_save(ctx, scratch("carried.lemon"), b, LEMON_F16)) &&
          fine(ctx, lemon_load(ctx, scratch("carried.lemon"), &c)) && fine(ctx, lemon_save(ctx, other, c, LEMON_F32)),
          "a folder through .lemon");
    snprintf(file, sizeof file, "%s/special_tokens_map.json", path);
    snprintf(file2, sizeof file2, "%s/special_tokens_map.json", other);
    check(same_files(file, file2), "special_tokens_map.json keeps its bytes");
    snprintf(file, sizeof file, "%s/tokenizer.json", path);
    snprintf(file2, sizeof file2, "%s/tokenizer.json", other);
    check(same_files(file, file2), "tokenizer.json keeps its bytes");
    snprintf(file2, sizeof file2, "%s/config.json", other);
    text = slurp(file2, &n);
    check(text && strstr(text, "\"eos_token_id\": [2, 5]") && strstr(text, "\"initializer_range\": 0.02") &&
          strstr(text, "\"x\": \"y\\\"\"") && !strstr(text, "layer_types") && strstr(text, "\"torch_dtype\": \"float32\""),
          "config.json keeps what is true of any LLaMA, and says what is new");
    free(text);
    if (c) {
        lemon_tokenizer *bytes = NULL;
        lemon_model *student = NULL, *back = NULL;
        const lemon_part *part = NULL;
        lemon_model_create(ctx, &c->config, &student);
        check(fine(ctx, lemon_model_carry(ctx, c, student)) &&
              fine(ctx, lemon_save(ctx, scratch("carried.gguf"), student, LEMON_F16)) &&
              fine(ctx, lemon_load(ctx, scratch("carried.gguf"), &back)), "a student's GGUF");
        if (back) part = lemon__part_find(back, "gguf.metadata");
        check(part && part->bytes == 45 && memcmp((const char *)part->data + 35, "apache-2.0", 10) == 0,
              "a licence named in README.md is a student's, as GGUF's general.license");
        lemon_model_free(ctx, back);
        lemon_model_free(ctx, student);
        remove(scratch("carried.gguf"));
        lemon_tokenizer_bytes(ctx, &bytes);
        lemon_model_set_tokenizer(ctx, c, bytes);
        check(lemon__part_find(c, "tokenizer.json") == NULL && lemon__part_find(c, "config.json") != NULL,
              "another tokenizer drops the files of the old one");
    }
    lemon_model_free(ctx, c);
    lemon_model_free(ctx, b);
    remove(scratch("carried.lemon"));
    remove_folder(path);
    remove_folder(other);
    lemon_model_free(ctx, a);
}

/*  A key as GGUF has it; returns where the next one goes. */
static uint8_t *put_key(uint8_t *p, const char *name, uint32_t type, const char *value, size_t bytes) {
    lemon__put64(p, strlen(name));
    memcpy(p + 8, name, strlen(name));
    p += 8 + strlen(name);
    lemon__put32(p, type);
    p += 4;
    if (type == 8) { lemon__put64(p, bytes); p += 8; }
    memcpy(p, value, bytes);
    return p + bytes;
}

/*  Whether a model has these keys, on the way through a GGUF file. */
static int keys_through(lemon_ctx *ctx, const lemon_model *model, const uint8_t *keys, size_t bytes, lemon_model **back) {
    const char *path = scratch("tags.gguf");
    const lemon_part *part = NULL;
    *back = NULL;
    if (fine(ctx, lemon_save(ctx, path, model, LEMON_F16)) && fine(ctx, lemon_load(ctx, path, back)))
        part = lemon__part_find(*back, "gguf.tokenizer");
    detail("%d bytes of keys, expected %d", part ? (int)part->bytes : -1, (int)bytes);
    remove(path);
    return part && part->bytes == bytes && memcmp(part->data, keys, bytes) == 0;
}

/*  Whether a file of a folder has this in it. */
static int folder_has(const char *folder, const char *name, const char *text) {
    char path[400], *all;
    size_t n;
    int has;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    all = slurp(path, &n);
    has = all && strstr(all, text) != NULL;
    detail("%s has %s", path, all ? all : "nothing");
    free(all);
    return has;
}

static void spill_in(const char *folder, const char *name, const char *text) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    spill(path, text, strlen(text));
}

/*  What goes with a vocabulary in GGUF goes through a folder's tokenizer_config.json and back, and so does whose a model is. */
static void test_tags(lemon_ctx *ctx) {
    static const char card[] = "---\nlicense: mit\nbase_model:\n  - some/one\n  - another/one\ntags: x\n---\n";
    static const char template[] = "{{ \"a\\\n\" }}";
    uint8_t keys[400], *end = keys;
    lemon_model *a = odd_model(ctx, 1, 8), *b = NULL, *c = NULL;
    char folder[300];
    snprintf(folder, sizeof folder, "%s", scratch("tags"));
    end = put_key(end, "tokenizer.chat_template", 8, template, sizeof template - 1);
    end = put_key(end, "tokenizer.ggml.eot_token_id", 4, "\5\0\0\0", 4);
    end = put_key(end, "tokenizer.ggml.padding_token_id", 4, "\2\0\0\0", 4);
    end = put_key(end, "tokenizer.ggml.add_eos_token", 7, "\1", 1);
    end = put_key(end, "tokenizer.ggml.weight", 6, "\0\0\200\77", 4);
    lemon__part_add(ctx, a, "gguf.tokenizer", 14, keys, (size_t)(end - keys));
    lemon__part_add(ctx, a, "README.md", 9, card, sizeof card - 1);
    check(keys_through(ctx, a, keys, (size_t)(end - keys), &b), "GGUF keeps what goes with a vocabulary");
    check(b && fine(ctx, lemon_save(ctx, folder, b, LEMON_F16)) &&
              folder_has(folder, "tokenizer_config.json", "\"chat_template\": \"{{ \\\"a\\\\\\u000a\\\" }}\",") &&
              folder_has(folder, "tokenizer_config.json", "\"tokenizer.ggml.eot_token_id\": 5,") &&
              folder_has(folder, "tokenizer_config.json", "\"pad_token\": \"</s>\",") &&
              folder_has(folder, "tokenizer_config.json", "\"add_eos_token\": true") &&
              !folder_has(folder, "tokenizer_config.json", "tokenizer.ggml.weight"),
          "a folder has it where Hugging Face looks for it");
    check(folder_has(folder, "README.md", "---\nlicense: mit\nbase_model: some/one\n---\n"), "and names licence and source");
    lemon_model_free(ctx, b);
    b = NULL;
    end -= strlen("tokenizer.ggml.weight") + 16;        /* which has no place there */
    check(fine(ctx, lemon_load(ctx, folder, &b)) && keys_through(ctx, b, keys, (size_t)(end - keys), &c),
          "a folder gives back to GGUF what goes with a vocabulary");
    lemon_model_free(ctx, c);
    lemon_model_free(ctx, b);
    b = NULL;
    spill_in(folder, "chat_template.jinja", "{{ b }}");
    spill_in(folder, "tokenizer_config.json",
             "{\"pad_token\": {\"content\": \"<s>\"}, \"sep_token\": \"no such\", \"mask_token\": null, \"cls_token\": {},"
             "\"chat_template\": [{\"name\": \"default\", \"template\": \"old\"}], \"tokenizer.\": 1, \"tokenizer.x y\": 1,"
             "\"tokenizer.list\": [], \"tokenizer.large\": 4294967296, \"add_eos_token\": false}");
    end = put_key(keys, "tokenizer.chat_template", 8, "{{ b }}", 7);
    end = put_key(end, "tokenizer.ggml.padding_token_id", 4, "\1\0\0\0", 4);
    end = put_key(end, "tokenizer.ggml.add_eos_token", 7, "\0", 1);
    check(fine(ctx, lemon_load(ctx, folder, &b)) && keys_through(ctx, b, keys, (size_t)(end - keys), &c),
          "a template in a file of its own comes first, tokens may be objects, what is none is left out");
    lemon_model_free(ctx, a);
    lemon_model_free(ctx, b);
    lemon_model_free(ctx, c);
    remove_folder(folder);
}

static void test_gguf_keys(lemon_ctx *ctx) {
    static const uint8_t kept[] = "\x0f\0\0\0\0\0\0\0general.license\x08\0\0\0\x03\0\0\0\0\0\0\0mit";
    lemon_model *a = odd_model(ctx, 1, 8), *b = NULL;
    char folder[300], file[400], *text;
    const char *path = scratch("keys.gguf");
    const lemon_part *part;
    size_t n = 0;
    check(fine(ctx, lemon__part_add(ctx, a, "gguf.metadata", 13, kept, sizeof kept - 1)) &&
          fine(ctx, lemon_save(ctx, path, a, LEMON_Q8)) && fine(ctx, lemon_load(ctx, path, &b)), "GGUF with a licence");
    part = b ? lemon__part_find(b, "gguf.metadata") : NULL;
    check(part && part->bytes == sizeof kept - 1 && memcmp(part->data, kept, part->bytes) == 0,
          "keys that mean nothing here are kept");
    check(b && lemon_model_param(b, LEMON_W_DOWN, 0)->dtype == LEMON_F16 &&
          lemon_model_param(b, LEMON_WQ, 0)->dtype == LEMON_Q8 && b->dtype == LEMON_Q8,
          "rows that are no multiple of 32 stay f16 beside Q8_0");
    snprintf(folder, sizeof folder, "%s", scratch("keys"));
    snprintf(file, sizeof file, "%s/README.md", folder);
    text = b && fine(ctx, lemon_save(ctx, folder, b, LEMON_F16)) ? slurp(file, &n) : NULL;
    check(text && n == 21 && memcmp(text, "---\nlicense: mit\n---\n", n) == 0, "a folder's README.md names GGUF's licence");
    free(text);
    remove_folder(folder);
    lemon_model_free(ctx, b);
    lemon__part_add(ctx, a, "gguf.tokenizer", 14, kept, 20);
    check(fails_with(ctx, lemon_save(ctx, path, a, LEMON_Q8), LEMON_E_ARG, "no list of GGUF keys"),
          "a damaged list of keys is not written");
    lemon_model_free(ctx, a);
    remove(path);
}

/*  Scaling as older GGUF files tell it, and YaRN's own factor. */
static void test_gguf_scaling(lemon_ctx *ctx) {
    static const double magnitude = (0.1 * 1.3862943611198906 + 1) * 1.5;       /* 0.1 ln 4 + 1, as llama.cpp has it */
    const char *path = scratch("scaled.gguf");
    char two[4], four[4], half[4];
    int i;
    lemon__put32((uint8_t *)two, lemon__bits(2.0f));
    lemon__put32((uint8_t *)four, lemon__bits(4.0f));
    lemon__put32((uint8_t *)half, lemon__bits(1.5f));
    for (i = 0; i < 2; i++) {
        lemon_config c = odd_config(1, 8);
        lemon_model *a = lively_model(ctx, &c, 5), *b = NULL;
        uint8_t keys[400], *end = keys;
        if (i == 0) end = put_key(end, "llama.rope.scale_linear", 6, two, 4);
        else {
            end = put_key(end, "llama.rope.scaling.type", 8, "yarn", 4);
            end = put_key(end, "llama.rope.scaling.factor", 6, four, 4);
            end = put_key(end, "llama.rope.scaling.original_context_length", 4, "\30\0\0\0", 4);
            end = put_key(end, "llama.rope.scaling.attn_factor", 6, half, 4);
        }
        lemon__part_add(ctx, a, "gguf.metadata", 13, keys, (size_t)(end - keys));
        if (!fine(ctx, lemon_save(ctx, path, a, LEMON_F16)) || !fine(ctx, lemon_load(ctx, path, &b))) check(0, "a GGUF file with scaling");
        else if (i == 0)
            check(b->config.rope_scaling == LEMON_ROPE_LINEAR && near_to((double)b->config.rope_factor, 2, 0), "linear scaling as older GGUF files have it");
        else
            check(b->config.rope_scaling == LEMON_ROPE_YARN && near_to((double)b->config.rope_magnitude, magnitude, 1e-6),
                  "GGUF's attn_factor multiplies what YaRN multiplies by");
        lemon_model_free(ctx, a);
        lemon_model_free(ctx, b);
    }
    remove(path);
}

/*  More pieces than the matrix has rows: such a file is another model's, in part. */
static void test_gguf_vocabulary(lemon_ctx *ctx) {
    lemon_model *a = odd_model(ctx, 1, 8), *b = NULL;
    const char *path = scratch("pieces.gguf");
    size_t n = 0, i, changed = 0;
    char *bytes = fine(ctx, lemon_save(ctx, path, a, LEMON_F16)) ? slurp(path, &n) : NULL;
    for (i = 0; bytes && i + 40 < n; i++) {
        if (memcmp(bytes + i, "llama.vocab_size", 16) == 0) lemon__put32((uint8_t *)bytes + i + 20, 258), changed++;
        if (memcmp(bytes + i, "token_embd.weight", 17) == 0) lemon__put64((uint8_t *)bytes + i + 29, 258), changed++;
    }
    if (bytes) spill(path, bytes, n);
    check(changed == 2 && fails_with(ctx, lemon_load(ctx, path, &b), LEMON_E_FORMAT, "259 pieces, expected at most 258") && b == NULL,
          "a GGUF file with more pieces than rows is refused");
    free(bytes);
    lemon_model_free(ctx, a);
    remove(path);
}

/*  Keys of GGUF that change what is computed, and headers that are none. */
static void test_gguf_refusals(lemon_ctx *ctx) {
    static const struct { const char *name, *value, *text; uint32_t type; size_t bytes; } cases[] = {
        {"llama.expert_count", "\10\0\0\0", "llama.expert_count is 8, expected 0", 4, 4},
        {"split.count", "\2\0\0\0", "split.count is 2, expected 1", 4, 4},
        {"llama.rope.scaling.type", "longrope", "llama.rope.scaling.type is another than none, linear and yarn", 8, 8},
        {"tokenizer.ggml.model", "gpt2", "tokenizer.ggml.pre is one that lemon.h does not know", 8, 4},
        {"tokenizer.ggml.model", "bert", "tokenizer.ggml.model is one that lemon.h does not know", 8, 4}};
    char folder[300], file[400], path[4085], joined[LEMON__PATH];
    lemon_model *b = NULL;
    size_t i;
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lemon_config c = odd_config(1, 8);
        lemon_model *a = lively_model(ctx, &c, 5);
        uint8_t keys[100], *end = put_key(keys, cases[i].name, cases[i].type, cases[i].value, cases[i].bytes);
        lemon__part_add(ctx, a, "gguf.metadata", 13, keys, (size_t)(end - keys));
        check(fine(ctx, lemon_save(ctx, scratch("other.gguf"), a, LEMON_F16)) &&
              fails_with(ctx, lemon_load(ctx, scratch("other.gguf"), &b), LEMON_E_UNSUPPORTED, cases[i].text), cases[i].text);
        lemon_model_free(ctx, a);
    }
    remove(scratch("other.gguf"));
    b = odd_model(ctx, 1, 8);
    snprintf(folder, sizeof folder, "%s", scratch("headless"));
    snprintf(file, sizeof file, "%s/model.safetensors", folder);
    check(fine(ctx, lemon_save(ctx, folder, b, LEMON_F32)), "a folder to damage");
    memset(path, 'a', sizeof path - 1);
    path[sizeof path - 1] = 0;
    check(fails_with(ctx, lemon__join(ctx, path, "config.json", joined), LEMON_E_ARG, "is too long, expected less than 4096 bytes"),
          "a path that is too long is refused");
    lemon_model_free(ctx, b);
    spill(file, "\2\0\0\0\0\0\0\0[]", 10);
    check(fails_with(ctx, lemon_load(ctx, folder, &b), LEMON_E_FORMAT, "header is no JSON object"), "a header that is a list is refused");
    remove_folder(folder);
}

/*  Tables of angles of a megabyte, which go out before they are whole. */
static void test_long_context(lemon_ctx *ctx) {
    lemon_config c = tiny_config(32, 2, 4, 2, 8, 44, 300, 1);
    lemon_model *a;
    c.max_seq = 1 << 16;
    a = lively_model(ctx, &c, 5);
    round_trip(ctx, a, scratch("long.bin"), LEMON_F32, "llama2c", 0);
    lemon_model_free(ctx, a);
}

/* ---- vocabularies of GPT-2's family ---- */

/*  A byte-level tokenizer.json: 256 letters, five merges, two special tokens; `pattern` is a pre-tokenizer. */
static lemon_tokenizer *byte_level(lemon_ctx *ctx, const char *pre_tokenizer) {
    static const char *const merges[][2] = {{"h", "e"}, {"\xc4\xa0", "t"}, {"\xc4\xa0t", "he"}, {"l", "l"}, {"1", "2"}};
    lemon__bytes text = lemon__bytes_in(ctx);
    lemon_tokenizer *t = NULL;
    lemon_reader r;
    int i;
    lemon__print(&text, "{\"added_tokens\": [{\"id\": 261, \"content\": \"<|endoftext|>\", \"special\": true}, "
                        "{\"id\": 262, \"content\": \"<|im_start|>\", \"special\": true}], \"normalizer\": null, "
                        "\"pre_tokenizer\": %s, \"decoder\": {\"type\": \"ByteLevel\"}, \"post_processor\": null, "
                        "\"model\": {\"type\": \"BPE\", \"vocab\": {", pre_tokenizer);
    for (i = 0; i < 256; i++) {
        uint8_t letter[4];
        size_t n = lemon__utf8_put(letter, lemon__letter_of(i));
        lemon__print_string(&text, letter, n);
        lemon__print(&text, ": %d, ", i);
    }
    for (i = 0; i < 5; i++) lemon__print(&text, "\"%s%s\": %d%s", merges[i][0], merges[i][1], 256 + i, i < 4 ? ", " : "");
    lemon__print(&text, "}, \"merges\": [");
    for (i = 0; i < 5; i++) lemon__print(&text, "\"%s %s\"%s", merges[i][0], merges[i][1], i < 4 ? ", " : "");
    lemon__print(&text, "]}}");
    memset(&r, 0, sizeof r);
    r.name = "made.json";
    r.map = text.data;
    r.size = (uint64_t)text.count;
    if (lemon_tokenizer_load_reader(ctx, &r, 300, &t)) printf("# %s\n", lemon_error(ctx));
    lemon__bytes_free(&text);
    return t;
}

static int same_ids(lemon_ctx *ctx, const lemon_tokenizer *a, const lemon_tokenizer *b, const char *text) {
    lemon_tokens x, y;
    int same;
    memset(&x, 0, sizeof x);
    memset(&y, 0, sizeof y);
    same = a && b && !lemon_encode(ctx, a, text, strlen(text), &x) && !lemon_encode(ctx, b, text, strlen(text), &y) &&
           x.count == y.count && memcmp(x.ids, y.ids, (size_t)x.count * sizeof *x.ids) == 0;
    same = same && lemon_tokenizer_bos(a) == lemon_tokenizer_bos(b) && lemon_tokenizer_eos(a) == lemon_tokenizer_eos(b);
    lemon_tokens_free(ctx, &x);
    lemon_tokens_free(ctx, &y);
    return same;
}

static void test_byte_level(lemon_ctx *ctx) {
    static const char *const patterns[] = {
        "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true}",
        "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", \"individual_digits\": true}, "
        "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true}]}",
        "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": "
        "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+"
        "[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}, \"behavior\": \"Isolated\", \"invert\": false}, "
        "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}]}"};
    static const char text[] = "the the hell 12 1212  the\n\nHe'll \xe6\x97\xa5 the";
    static const char *const files[] = {"byte-level.gguf", "byte-level-hf", "byte-level.lemon"};
    size_t i, k;
    for (i = 0; i < 3; i++)
        for (k = 0; k < 3; k++) {
            lemon_model *a = odd_model(ctx, 1, 8), *b = NULL;
            char name[80];
            lemon_model_set_tokenizer(ctx, a, byte_level(ctx, patterns[i]));
            snprintf(name, sizeof name, "byte-level vocabulary %lu through %s", (unsigned long)i, files[k]);
            check(a->tokenizer && fine(ctx, lemon_save(ctx, scratch(files[k]), a, LEMON_F32)) &&
                  fine(ctx, lemon_load(ctx, scratch(files[k]), &b)) && same_ids(ctx, a->tokenizer, b->tokenizer, text), name);
            lemon_model_free(ctx, b);
            lemon_model_free(ctx, a);
            remove(scratch(files[k]));
            remove_folder(scratch(files[k]));
        }
}

/* ---- damaged files: every cut, every bit of the front, and many of the rest ---- */

static lemon_status load_bytes(lemon_ctx *ctx, const uint8_t *bytes, size_t n, lemon_model **model) {
    lemon_reader r;
    memset(&r, 0, sizeof r);
    r.name = "some.gguf";
    r.map = bytes;
    r.size = n;
    return lemon_load_reader(ctx, &r, model);
}

/*  What damage may do: be refused with the file's name, or leave a model of the same or another valid shape. */
static int survives(lemon_ctx *ctx, lemon_status status, lemon_model *model, const char *name) {
    int ok = status ? model == NULL && strstr(lemon_error(ctx), name) != NULL : model != NULL;
    if (!ok) detail("%s: %s", lemon_status_name(status), lemon_error(ctx));
    if (model) ok = ok && lemon_config_check(ctx, &model->config) == LEMON_OK;
    lemon_model_free(ctx, model);
    return ok;
}

static void test_gguf_hostile(lemon_ctx *ctx, int family, lemon_dtype dtype) {
    lemon_config c = family_config(odd_config(0, 8), family);
    lemon_model *a = lively_model(ctx, &c, 5), *b = NULL;
    const char *path = scratch("hostile.gguf");
    size_t n, i, front, bad = 0, refused = 0, tried = 0, peak;
    uint8_t *bytes, *copy;
    lemon_rng rng;
    lemon_tokenizer_bytes(ctx, &a->tokenizer);
    lemon_save(ctx, path, a, dtype);
    bytes = (uint8_t *)slurp(path, &n);
    copy = (uint8_t *)malloc(n);
    front = n < 20000 ? n : 20000;
    for (i = 0; i < n && bad == 0; i += i < 1000 ? 1 : light() ? 997 : 97) {
        uint8_t *cut = (uint8_t *)malloc(i + 1);
        memcpy(cut, bytes, i);
        b = NULL;
        bad += load_bytes(ctx, cut, i, &b) == LEMON_OK || (i >= 4 && !strstr(lemon_error(ctx), "some.gguf"));
        lemon_model_free(ctx, b);
        free(cut);
    }
    check(bad == 0, "GGUF cut anywhere is refused by name");
    lemon_memory(ctx, &peak);
    lemon_rng_seed(&rng, 3);
    for (tried = 0; tried < (light() ? 2000 : 20000) && bad == 0; tried++) {
        size_t at = (size_t)lemon_rng_below(&rng, (int64_t)front);
        lemon_status status;
        memcpy(copy, bytes, n);
        if (tried % 3 == 0) copy[at] ^= (uint8_t)(1u << lemon_rng_below(&rng, 8));
        else if (tried % 3 == 1) copy[at] = 0xff;
        else memset(copy + at, tried % 2 ? 0xff : 0, n - at < 8 ? n - at : 8);
        b = NULL;
        status = load_bytes(ctx, copy, n, &b);
        refused += status != LEMON_OK;
        bad += !survives(ctx, status, b, "some.gguf");
    }
    check(bad == 0, "GGUF with damaged bytes is refused or read, and nothing else");
    lemon_memory(ctx, &i);
    detail("peak %lu, file %lu", (unsigned long)i, (unsigned long)n);
    check(i < (64u << 20) + 16 * n, "a damaged file asks for no memory that its size does not justify");
    printf("# %lu of %lu damaged GGUF files were refused\n", (unsigned long)refused, (unsigned long)tried);
    free(copy);
    free(bytes);
    remove(path);
    lemon_model_free(ctx, a);
}

/*  The last tensor is moved to where the first stands, and its own data are cut off. */
static void test_shared_data(lemon_ctx *ctx) {
    lemon_model *a = odd_model(ctx, 1, 8), *b = NULL;
    char path[300], file[400], digits[64];
    uint8_t *bytes, *at;
    size_t n, own = (size_t)a->config.d_model * 4;
    snprintf(path, sizeof path, "%s", scratch("shared.gguf"));
    lemon_save(ctx, path, a, LEMON_F32);
    bytes = (uint8_t *)slurp(path, &n);
    at = (uint8_t *)memmem(bytes, n, "output_norm.weight", 18) + 18 + 4 + 8 + 4;
    lemon__put64(at, 0);
    check(load_bytes(ctx, bytes, n - (size_t)lemon__pad_to(own, 32), &b) == LEMON_E_FORMAT &&
              strstr(lemon_error(ctx), "output_norm.weight") && strstr(lemon_error(ctx), "another tensor's"),
          "GGUF whose tensors share data is refused");
    free(bytes);
    remove(path);
    snprintf(path, sizeof path, "%s", scratch("shared"));
    lemon_save(ctx, path, a, LEMON_F32);
    snprintf(file, sizeof file, "%s/model.safetensors", path);
    bytes = (uint8_t *)slurp(file, &n);
    at = (uint8_t *)strstr((char *)bytes + 8, "model.norm.weight");
    at = (uint8_t *)strstr((char *)at, "offsets\":[") + 10;
    snprintf(digits, sizeof digits, "%*d,%*lu", (int)strcspn((char *)at, ","), 0,
             (int)(strcspn((char *)at, "]") - strcspn((char *)at, ",") - 1), (unsigned long)own);
    memcpy(at, digits, strlen(digits));
    spill(file, bytes, n - own);
    check(lemon_load(ctx, path, &b) == LEMON_E_FORMAT && strstr(lemon_error(ctx), "model.norm.weight"),
          "safetensors whose tensors share data are refused");
    detail("%s", lemon_error(ctx));
    free(bytes);
    remove_folder(path);
    lemon_model_free(ctx, b);
    lemon_model_free(ctx, a);
}

static void test_folder_hostile(lemon_ctx *ctx) {
    static const char *const names[] = {"config.json", "model.safetensors", "model.safetensors.index.json",
                                        "tokenizer.json"};
    lemon_config c = family_config(odd_config(1, 8), 7);        /* biases, a window, YaRN */
    lemon_model *a = lively_model(ctx, &c, 5), *b = NULL;
    char path[300], file[400];
    size_t which, n, i, bad = 0, cuts = 0;
    lemon_save_options options;
    lemon_rng rng;
    snprintf(path, sizeof path, "%s", scratch("hostile"));
    lemon_tokenizer_bytes(ctx, &a->tokenizer);
    lemon_rng_seed(&rng, 9);
    for (which = 0; which < 4 && bad == 0; which++) {
        uint8_t *bytes, *copy;
        lemon_save_defaults(&options);
        options.shard_bytes = which == 2 ? 30000 : UINT64_MAX;
        remove_folder(path);
        lemon_save_with(ctx, path, a, &options);
        snprintf(file, sizeof file, "%s/%s", path, names[which]);
        bytes = (uint8_t *)slurp(file, &n);
        copy = (uint8_t *)malloc(n);
        for (i = 0; i < n && bad == 0; i += 1 + n / (light() ? 40 : 400)) {
            spill(file, bytes, i);
            b = NULL;
            if (lemon_load(ctx, path, &b) == LEMON_OK) cuts += which != 0 || i + 2 < n;
            else bad += b != NULL || !strstr(lemon_error(ctx), which == 3 ? "tokenizer.json" : path);
            lemon_model_free(ctx, b);
        }
        for (i = 0; i < (light() ? 100u : 1500u) && bad == 0; i++) {
            size_t at = (size_t)lemon_rng_below(&rng, (int64_t)(n < 3000 ? n : 3000));
            lemon_status status;
            memcpy(copy, bytes, n);
            copy[at] = (uint8_t)(i % 2 ? copy[at] ^ 1u << lemon_rng_below(&rng, 8) : '0' + lemon_rng_below(&rng, 10));
            spill(file, copy, n);
            b = NULL;
            status = lemon_load(ctx, path, &b);
            bad += !survives(ctx, status, b, which == 3 ? "" : path);
        }
        detail("%s: %s", names[which], lemon_error(ctx));
        free(bytes);
        free(copy);
    }
    check(bad == 0, "folders with damaged files are refused or read, and nothing else");
    detail("%lu cut files were read", (unsigned long)cuts);
    check(cuts == 0, "a cut file of a folder is always refused");
    remove_folder(path);
    lemon_model_free(ctx, a);
}

/* ---- no memory, at every allocation ---- */

static void test_memory(lemon_ctx *ctx) {
    static const char *const names[] = {"memory.gguf", "memory-hf", "memory.bin"};
    lemon_model *a, *b = NULL;
    size_t k;
    char path[300];
    int saved;
    long live, n, bad = 0;
    a = odd_model(ctx, 0, 8);
    a->config.rope_theta = 10000.0f;
    a->config.rms_norm_eps = 1e-5f;
    for (k = 0; k < 3; k++) {
        live = heap.live;
        saved = 0;
        for (n = 1; n < 10000 && bad == 0; n++) {
            lemon_status status;
            heap.calls = 0;
            heap.fail_at = n;
            status = lemon_save(ctx, scratch(names[k]), a, LEMON_F32);
            saved |= !status;
            snprintf(path, sizeof path, "%s.tmp", scratch(names[k]));
            bad += !saved && (access(scratch(names[k]), F_OK) == 0 || access(path, F_OK) == 0);
            if (!status) status = lemon_load(ctx, scratch(names[k]), &b);
            if (!status && heap.calls < n) break;
            bad += !status && b == NULL;
            lemon_model_free(ctx, b);
            b = NULL;
            bad += heap.live != live;
        }
        heap.fail_at = 0;
        lemon_model_free(ctx, b);
        b = NULL;
        detail("%s: call %ld, %ld blocks more", names[k], n, heap.live - live);
        check(bad == 0 && n < 10000 && heap.live == live, names[k]);
        remove(scratch(names[k]));
        remove_folder(scratch(names[k]));
    }
    lemon_model_free(ctx, a);
}

int main(void) {
    lemon_ctx *ctx = open_ctx(1);
    test_json_values(ctx);
    test_json_refused(ctx);
    test_json_hostile(ctx);
    if (light() < 2) test_json_large(ctx);
    test_round_trips(ctx);
    test_smallest(ctx);
    test_families(ctx);
    test_rope_freqs(ctx);
    test_chain(ctx);
    test_shards(ctx);
    test_refusals(ctx);
    test_carried(ctx);
    test_tags(ctx);
    test_gguf_keys(ctx);
    test_gguf_scaling(ctx);
    test_gguf_vocabulary(ctx);
    test_gguf_refusals(ctx);
    test_long_context(ctx);
    test_byte_level(ctx);
    test_gguf_hostile(ctx, 0, LEMON_Q4);
    test_gguf_hostile(ctx, 5, LEMON_F32);       /* LLaMA 3's factors */
    test_gguf_hostile(ctx, 7, LEMON_F16);       /* biases, a window, YaRN */
    test_shared_data(ctx);
    test_folder_hostile(ctx);
    test_memory(ctx);
    return check_close(ctx);
}
