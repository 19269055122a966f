/*  web.c - lemon.h for index.html and bindings/lemon.mjs: one teacher, one student and one text, driven by calls that take
    numbers and pointers into the module's memory.  No JavaScript of Emscripten's is needed: the module imports four functions,
        seconds() -> f64                  a clock
        progress(what, done, total, loss) where long work stands; `what` is a C string
        step(step, loss, rate)            a step of training is done
        token(text, bytes)                a piece of generated text
    and exports memory and the web_ functions below, which return 0, or a lemon_status: web_error() then says what was wrong.
    What they hand out besides is between web_data() and web_data() + web_bytes(), until the next call. */
#define IMPORT(name) __attribute__((import_module("env"), import_name(#name))) extern
#define EXPORT(name) __attribute__((export_name(#name)))

IMPORT(seconds) double web_seconds(void);
IMPORT(progress) void web_progress(const char *what, double done, double total, double loss);
IMPORT(step) void web_step(double step, double loss, double rate);
IMPORT(token) void web_token(const char *text, int bytes);

#define LEMON_IMPLEMENTATION
#define LEMON_NO_STDIO
#define LEMON_NO_THREADS
#define LEMON_SECONDS() web_seconds()
#include "../../lemon.h"
#include <stdio.h>

static lemon_ctx *ctx;
static lemon_model *models[2];                  /* teacher, student */
static lemon_tokens text;
static lemon_operators *operators;
static struct { char *data; size_t count, capacity; } out;

/* ---- bytes in and out ---- */

static lemon_status out_add(void *user, const void *bytes, size_t count) {
    (void)user;
    if (count > out.capacity - out.count) {
        size_t capacity = 2 * out.capacity + count;
        char *data = realloc(out.data, capacity);
        if (!data) return LEMON_E_IO;
        out.data = data, out.capacity = capacity;
    }
    memcpy(out.data + out.count, bytes, count);
    out.count += count;
    return LEMON_OK;
}
static lemon_status out_done(void *user) { (void)user; return LEMON_OK; }
static void out_abort(void *user) { (void)user; out.count = 0; }

static lemon_status file_read(void *user, uint64_t offset, void *buffer, size_t bytes) {
    memcpy(buffer, (const char *)user + offset, bytes);
    return LEMON_OK;
}

/*  A file that JavaScript has put into memory of web_alloc, which is freed with the reader. */
static lemon_reader file_of(void *bytes, size_t count) {
    lemon_reader reader = {bytes, "the file", count, bytes, file_read, free};
    return reader;
}

static int on_progress(void *user, const lemon_progress *p) {
    (void)user;
    web_progress(p->what, (double)p->done, (double)p->total, p->loss);
    return 0;
}

EXPORT(web_alloc) void *web_alloc(size_t bytes) { return malloc(bytes ? bytes : 1); }
EXPORT(web_free) void web_free(void *bytes) { free(bytes); }
EXPORT(web_data) const char *web_data(void) { return out.data; }
EXPORT(web_bytes) size_t web_bytes(void) { return out.count; }
EXPORT(web_error) const char *web_error(void) { return lemon_error(ctx); }
EXPORT(web_isa) const char *web_isa(void) { return lemon_isa_name(lemon_ctx_isa(ctx)); }
EXPORT(web_open) int web_open(void) {
    lemon_options options = {0};
    options.progress = on_progress;
    ctx = lemon_open(&options);
    return ctx ? LEMON_OK : LEMON_E_MEMORY;
}

/* ---- models ---- */

static void put_model(int which, lemon_model *model) {
    lemon_model_free(ctx, models[which]);
    models[which] = model;
}

static void drop_operators(void) {
    lemon_operators_free(ctx, operators);
    operators = NULL;
}

/*  A teacher (0) or a student (1) from a .lemon, GGUF or llama2.c file; takes the bytes over. */
EXPORT(web_load) int web_load(int which, void *bytes, size_t count) {
    lemon_reader reader = file_of(bytes, count);
    lemon_model *model = NULL, *own = NULL;
    lemon_status status = lemon_load_reader(ctx, &reader, &model);
    if (!status && which == 1) {                /* to be trained: with weights of its own */
        status = lemon_model_clone(ctx, model, &own);
        lemon_model_free(ctx, model);
        model = own;
    }
    if (status) return status;
    drop_operators();
    put_model(which, model);
    return LEMON_OK;
}

/*  A tokenizer for the teacher, where its file brings none. */
EXPORT(web_tokenizer) int web_tokenizer(void *bytes, size_t count) {
    lemon_reader reader = file_of(bytes, count);
    lemon_tokenizer *tokenizer;
    lemon_status status = lemon_tokenizer_load_reader(ctx, &reader, models[0]->config.vocab_size, &tokenizer);
    if (!status) lemon_model_set_tokenizer(ctx, models[0], tokenizer);
    return status;
}

/*  Shape and size as JSON. */
EXPORT(web_info) int web_info(int which) {
    const lemon_model *m = models[which];
    char json[512];
    int n = snprintf(json, sizeof json,
                     "{\"format\":\"%s\",\"dtype\":\"%s\",\"params\":%.0f,\"d_model\":%d,\"n_layers\":%d,\"n_heads\":%d,"
                     "\"kv_heads\":%d,\"head_dim\":%d,\"d_ffn\":%d,\"vocab_size\":%d,\"max_seq\":%d,\"tied\":%d,\"tokenizer\":%s}",
                     m->format[0] ? m->format : "lemon", lemon_dtype_name(m->dtype),
                     (double)lemon_config_params(&m->config), m->config.d_model, m->config.n_layers, m->config.n_heads,
                     m->config.kv_heads, m->config.head_dim, m->config.d_ffn, m->config.vocab_size, m->config.max_seq,
                     m->config.tied_embeddings, m->tokenizer ? "true" : "false");
    out.count = 0;
    return out_add(NULL, json, (size_t)n);
}

/*  The student's bytes as a .lemon file. */
EXPORT(web_save) int web_save(int dtype) {
    lemon_writer writer = {NULL, "the student", out_add, out_done, out_abort};
    out.count = 0;
    return lemon_save_writer(ctx, &writer, models[1], (lemon_dtype)dtype);
}

/* ---- work ---- */

/*  The text that students are fused and trained on; the number of its tokens comes out as text. */
EXPORT(web_text) int web_text(const char *bytes, size_t count) {
    char number[32];
    lemon_status status;
    text.count = 0;
    status = lemon_tokens_from_text(ctx, models[0]->tokenizer, bytes, count, &text);
    out.count = 0;
    out_add(NULL, number, (size_t)snprintf(number, sizeof number, "%.0f", (double)text.count));
    return status;
}

/*  tokens: how many of the text, or of what the teacher says by itself where there is no text, the operators are solved on.
    The student's first loss comes out as text. */
EXPORT(web_fuse) int web_fuse(const char *method, int dim, int layers, int heads, int kv_heads, int ffn, int tokens) {
    lemon_config shape = models[0]->config;
    lemon_fuse_options options;
    lemon_fuse_result result;
    lemon_model *student = NULL;
    lemon_status status;
    char number[32];
    shape.d_model = dim, shape.n_layers = layers, shape.n_heads = heads, shape.kv_heads = kv_heads, shape.d_ffn = ffn;
    lemon_fuse_defaults(&options);
    options.method = method;
    options.tokens = tokens;
    drop_operators();
    status = lemon_operators_fill(ctx, models[0], &shape, text.count ? &text : NULL, &options, &operators, &result);
    if (!status) status = lemon_operators_apply(ctx, operators, models[0], options.correction, &student);
    if (status) return status;
    put_model(1, student);
    out.count = 0;
    return out_add(NULL, number, (size_t)snprintf(number, sizeof number, "%.6f", result.init_loss));
}

/*  How much each teacher channel gives to each student channel at a place: rows, columns, then the numbers, all f32. */
EXPORT(web_map) int web_map(int place, int layer) {
    const lemon_map *map = lemon_operators_map(operators, (lemon_place)place, layer, 0);
    int64_t i, j;
    float head[2] = {0, 0}, *row;
    out.count = 0;
    if (!map || !map->value) return out_add(NULL, head, sizeof head);
    head[0] = (float)map->student, head[1] = (float)map->teacher;
    out_add(NULL, head, sizeof head);
    row = malloc((size_t)map->teacher * sizeof *row);
    for (i = 0; row && i < map->student; i++) {
        memset(row, 0, (size_t)map->teacher * sizeof *row);
        for (j = 0; j < map->field; j++)
            row[map->index ? map->index[i * map->field + j] : j] = map->value[i * map->field + j];
        out_add(NULL, row, (size_t)map->teacher * sizeof *row);
    }
    free(row);
    return row ? LEMON_OK : LEMON_E_MEMORY;
}
/*  Which places there are. */
EXPORT(web_place) const char *web_place(int place) {
    return place < LEMON_PLACE_COUNT ? lemon_place_name((lemon_place)place) : NULL;
}
/*  The same for the layer operator: student layers by teacher layers. */
EXPORT(web_layers) int web_layers(void) {
    float head[2] = {0, 0}, row[256];
    int64_t i, s;
    out.count = 0;
    if (!operators || operators->teacher.n_layers > 256) return out_add(NULL, head, sizeof head);
    head[0] = (float)operators->student.n_layers, head[1] = (float)operators->teacher.n_layers;
    out_add(NULL, head, sizeof head);
    for (i = 0; i < operators->student.n_layers; i++) {
        memset(row, 0, sizeof row);
        for (s = 0; s < operators->slots; s++)
            if (operators->layer[i * operators->slots + s] >= 0)
                row[operators->layer[i * operators->slots + s]] += operators->layer_weight[i * operators->slots + s];
        out_add(NULL, row, (size_t)operators->teacher.n_layers * sizeof *row);
    }
    return LEMON_OK;
}

static void on_step(void *user, const lemon_step *s) {
    (void)user;
    web_step((double)s->step, s->loss, s->lr);
}
/*  The mean loss of the last ten steps comes out as text. */
EXPORT(web_train) int web_train(int steps, int batch, int seq, double rate) {
    lemon_train_options options;
    lemon_train_result result;
    lemon_status status;
    char number[32];
    lemon_train_defaults(&options);
    options.steps = steps, options.batch = batch, options.seq = seq, options.lr = rate;
    options.on_step = on_step;
    status = lemon_train(ctx, models[1], &text, &options, &result);
    out.count = 0;
    out_add(NULL, number, (size_t)snprintf(number, sizeof number, "%.6f", result.train_loss));
    return status;
}

static int on_token(void *user, int32_t id, const char *bytes, size_t count) {
    (void)user, (void)id;
    web_token(bytes, (int)count);
    return 0;
}
EXPORT(web_generate) int web_generate(int which, const char *prompt, int n, double temperature, int seed) {
    lemon_sampling sampling;
    lemon_tokens ids = {NULL, 0, 0};
    lemon_status status;
    lemon_sampling_defaults(&sampling);
    sampling.temperature = (float)temperature;
    sampling.seed = (uint64_t)seed;
    status = lemon_generate(ctx, models[which], prompt, n, &sampling, on_token, NULL, &ids, NULL);
    lemon_tokens_free(ctx, &ids);
    return status;
}
