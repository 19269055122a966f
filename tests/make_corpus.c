/*  make_corpus.c FOLDER [TEACHER]: writes the seeds of the fuzzers, FOLDER/READER/seed-*
    (the folders are there already), by lemon.h's own writers; the
    shipped teacher lends words of its vocabulary.  What the fuzzers added since stands beside them. */
#include "vfs.h"
#define LEMON_IMPLEMENTATION
#include "../lemon.h"
#include "fuzz.h"

static char folder[200];

static void seed(const char *reader, const char *name, const void *bytes, size_t n) {
    char path[400];
    FILE *f;
    snprintf(path, sizeof path, "%s/%s/seed-%s", folder, reader, name);
    f = fopen(path, "wb");
    if (f == NULL || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) { perror(path); exit(1); }
}

static void seed_file(const char *reader, const char *name, const char *path) {
    const vfs_file *f = vfs_find(path);
    if (f == NULL) { fprintf(stderr, "%s was not written: %s\n", path, lemon_error(fuzz_ctx)); exit(1); }
    seed(reader, name, f->bytes, f->size);
}

/*  All files of a folder behind one another, see fuzz_unfold. */
static void seed_folder(const char *name, const char *path) {
    lemon__bytes out = lemon__bytes_in(NULL);
    size_t n = strlen(path), header;
    int i;
    for (i = 0; i < VFS_FILES; i++) {
        const vfs_file *f = &vfs_files[i];
        int weights = strstr(f->name, ".safetensors") && !strstr(f->name, "index");
        if (strncmp(f->name, path, n) != 0 || f->name[n] != '/') continue;
        lemon__print(&out, "@@%s%s\n", f->name + n + 1, weights ? "#" : "");
        if (weights) {
            header = (size_t)lemon__get64(f->bytes);
            lemon__put(&out, f->bytes + 8, header);
            lemon__put(&out, "", 1);
            lemon__put(&out, f->bytes + 8 + header, f->size - 8 - header);
        } else lemon__put(&out, f->bytes, f->size);
    }
    seed("folder", name, out.data, (size_t)out.count);
    lemon__bytes_free(&out);
}

/*  How LLaMA 3 and those after it say that a text is split: by a pattern. */
static void split_by_pattern(char *out, size_t size) {
    lemon__bytes text = lemon__bytes_in(NULL);
    lemon__print_string(&text, (const uint8_t *)lemon__patterns[0].regex, strlen(lemon__patterns[0].regex));
    snprintf(out, size, "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":%.*s},\"behavior\":\"Isolated\","
             "\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}", (int)text.count, (const char *)text.data);
    lemon__bytes_free(&text);
}

/*  A byte-level vocabulary with few letters: pieces are short, so files stay small. */
static lemon_tokenizer *few_letters(const char *split, const char *normalizer) {
    static const char text[] =
        "{\"added_tokens\":[{\"id\":8,\"content\":\"<|endoftext|>\",\"special\":true},{\"id\":9,\"content\":\"<s>\","
        "\"special\":false,\"lstrip\":true,\"rstrip\":true}],\"normalizer\":%s,\"pre_tokenizer\":%s,\"post_processor\":{\"type\":"
        "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<|endoftext|>\"}},{\"Sequence\":{\"id\":\"A\"}}]},"
        "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"unk_token\":\"a\",\"ignore_merges\":true,\"vocab\":{"
        "\"a\":0,\"b\":1,\"\\u0120\":2,\"ab\":3,\"\\u0120ab\":4,\"1\":5,\"\\u00e2\":6},\"merges\":[\"a b\",[\"\\u0120\",\"ab\"]]}}";
    char whole[2048];
    lemon_reader r;
    lemon_tokenizer *t = NULL;
    snprintf(whole, sizeof whole, text, normalizer, split);
    r = fuzz_memory((const uint8_t *)whole, strlen(whole), 1);
    if (lemon_tokenizer_load_reader(fuzz_ctx, &r, 0, &t)) fuzz_fail("few letters");
    seed("tokenizer_json", normalizer[0] != 'n' ? "nfc" : strstr(split, "Regex") ? "byte-pattern" : strstr(split, "Sequence") ? "byte-split" : "byte-level",
         whole, strlen(whole));
    return t;
}

static lemon_model *model_of(int32_t d, int32_t ffn, int32_t vocab, int tied, lemon_tokenizer *tokenizer) {
    lemon_config c = fuzz_config(d, 1, 2, 1, ffn);
    lemon_model *m = NULL;
    c.vocab_size = vocab;
    c.tied_embeddings = tied;
    if (lemon_model_create(fuzz_ctx, &c, &m) || lemon_model_init(fuzz_ctx, m, 3)) fuzz_fail("a model");
    if (tokenizer) lemon_model_set_tokenizer(fuzz_ctx, m, tokenizer);
    return m;
}

static void make_models(void) {
    static const char split[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}";
    static const char qwen[] =
        "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"ByteLevel\","
        "\"add_prefix_space\":false,\"use_regex\":true}]}";
    lemon_model *m = model_of(4, 6, 12, 0, few_letters(split, "null")), *wide = model_of(32, 32, 6, 1, NULL), *bytes;
    lemon_tokenizer *t = NULL;
    lemon_save_options options;
    char name[40], path[60], pattern[1000];
    int dtype, k;
    split_by_pattern(pattern, sizeof pattern);
    lemon_tokenizer_free(fuzz_ctx, few_letters(pattern, "null"));
    lemon_tokenizer_free(fuzz_ctx, few_letters(qwen, "null"));
    lemon_tokenizer_free(fuzz_ctx, few_letters(split, "{\"type\":\"NFC\"}"));
    lemon_tokenizer_bytes(fuzz_ctx, &t);
    bytes = model_of(2, 2, 259, 1, t);
    lemon__part_add(fuzz_ctx, m, "LICENSE", 7, "free", 4);
    lemon__part_add(fuzz_ctx, m, "README.md", 9, "---\nlicense: mit\n---\n", 21);
    for (dtype = 0; dtype <= LEMON_Q4; dtype++) {
        snprintf(name, sizeof name, "%s", lemon_dtype_name((lemon_dtype)dtype));
        for (k = 0; k < 2; k++) {
            const lemon_model *which = dtype < LEMON_Q8 ? m : wide;
            snprintf(path, sizeof path, "%s.%s", name, k ? "gguf" : "lemon");
            if (lemon_save(fuzz_ctx, path, which, (lemon_dtype)dtype)) fuzz_fail(path);
            seed_file(k ? "gguf" : "lemon", name, path);
        }
    }
    lemon_save(fuzz_ctx, "bytes.lemon", bytes, LEMON_BF16);
    seed_file("lemon", "bytes", "bytes.lemon");
    lemon_save(fuzz_ctx, "bytes.gguf", bytes, LEMON_F16);
    seed_file("gguf", "bytes", "bytes.gguf");
    for (dtype = 0; dtype < 3; dtype++) {
        snprintf(name, sizeof name, "h%d", dtype);
        lemon_save_defaults(&options);
        options.dtype = (lemon_dtype)dtype;
        options.shard_bytes = dtype == 1 ? 200 : 1000000;
        if (lemon_save_with(fuzz_ctx, name, m, &options)) fuzz_fail(name);
        seed_folder(lemon_dtype_name((lemon_dtype)dtype), name);
    }
    m->config.rms_norm_eps = wide->config.rms_norm_eps = 1e-5f;
    if (lemon_save(fuzz_ctx, "v0.bin", m, LEMON_F32) || lemon_save(fuzz_ctx, "v2.bin", m, LEMON_Q8)) fuzz_fail("bin");
    seed_file("llama2c", "v0", "v0.bin");
    seed_file("llama2c", "v2", "v2.bin");
    lemon_model_free(fuzz_ctx, m);
    lemon_model_free(fuzz_ctx, wide);
    lemon_model_free(fuzz_ctx, bytes);
    m = model_of(4, 4, 3, 1, NULL);
    if (lemon_save(fuzz_ctx, "tied.bin", m, LEMON_F32)) fuzz_fail("bin");
    seed_file("llama2c", "tied", "tied.bin");
    {       /* version 1 is version 0 with another header and order; lemon.h does not write it */
        const vfs_file *f = vfs_find("tied.bin");
        uint8_t *v1 = (uint8_t *)calloc(1, 256 + f->size);
        lemon__put32(v1, LEMON__L2C_MAGIC);
        lemon__put32(v1 + 4, 1);
        memcpy(v1 + 8, f->bytes, 28);
        v1[36] = 1;
        memcpy(v1 + 256, f->bytes + 28, f->size - 28 - 8 * 2 * 4);
        seed("llama2c", "v1", v1, 256 + f->size - 28 - 8 * 2 * 4);
        free(v1);
    }
    lemon_model_free(fuzz_ctx, m);
}

/*  The family, in each format that has it. */
static void make_families(void) {
    static const struct { const char *name; int32_t bias, norm, window, scaling; } of[] = {
        {"qwen2", 1, 0, 5, LEMON_ROPE_PLAIN}, {"qwen3", 0, 1, 0, LEMON_ROPE_YARN}, {"mistral", 0, 0, 3, LEMON_ROPE_LINEAR},
        {"llama3", 0, 0, 0, LEMON_ROPE_LLAMA3}};
    char path[40];
    int i, k;
    for (i = 0; i < 4; i++) {
        lemon_config c = fuzz_config(4, 1, 2, 1, 4);
        lemon_model *m = NULL;
        c.qkv_bias = of[i].bias;
        c.qk_norm = of[i].norm;
        c.window = of[i].window;
        c.rope_scaling = of[i].scaling;
        if (c.rope_scaling) c.rope_factor = 4;
        if (c.rope_scaling >= LEMON_ROPE_LLAMA3) { c.rope_slow = 1; c.rope_fast = 4; c.rope_original = 4; }
        if (c.rope_scaling == LEMON_ROPE_YARN) c.rope_magnitude = 1.125f;
        if (lemon_model_create(fuzz_ctx, &c, &m) || lemon_model_init(fuzz_ctx, m, 3)) fuzz_fail(of[i].name);
        if (i == 2)             /* from GGUF, it says: a key that we write ourselves, and one that we do not */
            lemon__part_add(fuzz_ctx, m, "gguf.metadata", 13, "\24\0\0\0\0\0\0\0llama.context_length\4\0\0\0\7\0\0\0"
                            "\1\0\0\0\0\0\0\0x\7\0\0\0\1", 50);
        for (k = 0; k < 3; k++) {
            snprintf(path, sizeof path, "%s%s", of[i].name, k == 0 ? ".lemon" : k == 1 ? ".gguf" : "");
            if (lemon_save(fuzz_ctx, path, m, k == 1 ? LEMON_F32 : LEMON_F16)) fuzz_fail(path);
            if (k == 2) seed_folder(of[i].name, path);
            else seed_file(k ? "gguf" : "lemon", of[i].name, path);
        }
        lemon_model_free(fuzz_ctx, m);
    }
}

/*  Phi-3, whose fused matrices lemon.h only reads: a folder and a GGUF, written by hand.  4 wide, 1 layer, 2 heads of 2, one
    for keys and values, 6 neurons, 5 pieces. */
static void make_phi3(void) {
    static const struct { const char *hf, *gguf; int32_t rows, cols; } tensors[] = {
        {"model.embed_tokens", "token_embd", 5, 4}, {"model.norm", "output_norm", 1, 4}, {"lm_head", "output", 5, 4},
        {"model.layers.0.input_layernorm", "blk.0.attn_norm", 1, 4},
        {"model.layers.0.self_attn.qkv_proj", "blk.0.attn_qkv", 8, 4},
        {"model.layers.0.self_attn.o_proj", "blk.0.attn_output", 4, 4},
        {"model.layers.0.post_attention_layernorm", "blk.0.ffn_norm", 1, 4},
        {"model.layers.0.mlp.gate_up_proj", "blk.0.ffn_up", 12, 4}, {"model.layers.0.mlp.down_proj", "blk.0.ffn_down", 4, 6}};
    static const struct { const char *key; uint32_t value; } keys[] = {
        {"embedding_length", 4}, {"block_count", 1}, {"attention.head_count", 2}, {"attention.head_count_kv", 1},
        {"attention.key_length", 2}, {"feed_forward_length", 6}, {"vocab_size", 5}, {"context_length", 8},
        {"attention.sliding_window", 4}, {"attention.layer_norm_rms_epsilon", 0x3727c5ac}};
    static const char config[] =
        "@@config.json\n{\"model_type\":\"phi3\",\"hidden_act\":\"silu\",\"hidden_size\":4,\"num_hidden_layers\":1,"
        "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":2,\"intermediate_size\":6,\"vocab_size\":5,"
        "\"max_position_embeddings\":8,\"sliding_window\":4,\"layer_types\":[\"sliding_attention\"],\"rms_norm_eps\":1e-5,"
        "\"partial_rotary_factor\":1.0,\"rope_parameters\":{\"rope_theta\":500.0,\"type\":\"linear\",\"factor\":2}}"
        "@@model.safetensors#\n{";
    lemon__bytes folder = lemon__bytes_in(NULL), gguf = lemon__bytes_in(NULL), table = lemon__bytes_in(NULL);
    int64_t at = 0, number;
    size_t i, n;
    lemon__print(&folder, "%s", config);
    lemon__print(&gguf, "GGUF");
    lemon__put_number(&gguf, 3, 4);
    lemon__put_number(&gguf, 9, 8);
    lemon__put_number(&gguf, 11, 8);
    lemon__put_number(&gguf, 20, 8);
    lemon__print(&gguf, "general.architecture");
    lemon__put_number(&gguf, 8, 4);
    lemon__put_number(&gguf, 4, 8);
    lemon__print(&gguf, "phi3");
    for (i = 0; i < 10; i++) {
        lemon__put_number(&gguf, strlen(keys[i].key) + 5, 8);
        lemon__print(&gguf, "phi3.%s", keys[i].key);
        lemon__put_number(&gguf, i == 9 ? 6 : 4, 4);            /* a float, a u32 */
        lemon__put_number(&gguf, keys[i].value, 4);
    }
    for (i = 0; i < 9; i++) {
        int64_t end = at + 4 * tensors[i].rows * tensors[i].cols;
        lemon__print(&folder, "%s\"%s.weight\":{\"dtype\":\"F32\",\"shape\":[", i ? "," : "", tensors[i].hf);
        if (tensors[i].rows > 1) lemon__print(&folder, "%ld,", (long)tensors[i].rows);
        lemon__print(&folder, "%ld],\"data_offsets\":[%ld,%ld]}", (long)tensors[i].cols, (long)at, (long)end);
        n = strlen(tensors[i].gguf) + 7;
        lemon__put_number(&table, n, 8);
        lemon__print(&table, "%s.weight", tensors[i].gguf);
        lemon__put_number(&table, tensors[i].rows > 1 ? 2 : 1, 4);
        lemon__put_number(&table, (uint64_t)tensors[i].cols, 8);
        if (tensors[i].rows > 1) lemon__put_number(&table, (uint64_t)tensors[i].rows, 8);
        lemon__put_number(&table, 0, 4);
        lemon__put_number(&table, (uint64_t)lemon__pad_to((uint64_t)at, 32), 8);
        at = (int64_t)lemon__pad_to((uint64_t)end, 32);
    }
    lemon__print(&folder, "}");
    lemon__put(&folder, "", 1);
    lemon__put(&gguf, table.data, (size_t)table.count);
    while (gguf.count % 32) lemon__put(&gguf, "", 1);
    for (number = 0; 4 * number < at; number++) {
        lemon__put_number(&folder, lemon__bits((float)(number % 7 - 3) / 8), 4);
        lemon__put_number(&gguf, lemon__bits((float)(number % 7 - 3) / 8), 4);
    }
    seed("folder", "phi3", folder.data, (size_t)folder.count);
    seed("gguf", "phi3", gguf.data, (size_t)gguf.count);
    lemon__bytes_free(&folder);
    lemon__bytes_free(&gguf);
    lemon__bytes_free(&table);
}

/*  GGUF whose matrices are of the types that are only read, one each. */
static void make_codings(void) {
    size_t k;
    for (k = 5; k < sizeof lemon__codings / sizeof *lemon__codings; k++) {
        const lemon__coding *coding = &lemon__codings[k];
        lemon_model *m = model_of(coding->numbers, 2, 2, 1, NULL);
        lemon__pack pack;
        lemon__bytes front = lemon__bytes_in(fuzz_ctx);
        uint64_t size = 0;
        int64_t i;
        size_t at;
        lemon__pack_open(fuzz_ctx, &pack);
        pack.align = 32;
        lemon__gguf_keys(&pack, m, LEMON_F32);
        lemon__pack_params(&pack, m, 0, m->n_params, LEMON__STYLE_GGUF, LEMON_F32);
        for (i = 0; i < pack.n_tensors; i++) {      /* all matrices stand on the same bytes */
            lemon_tensor *t = &pack.tensors[i].stored;
            uint64_t bytes = (uint64_t)(t->rows * t->cols);
            pack.tensors[i].offset = size;
            size += lemon__pad_to(t->rows == 1 || t->cols % coding->numbers ? 4 * bytes : bytes / (uint64_t)coding->numbers * (uint64_t)coding->bytes, 32);
        }
        lemon__gguf_front(&pack, &front);
        for (at = 0, i = 0; i < pack.n_tensors; i++) {
            const lemon_tensor *t = &pack.tensors[i].stored;
            size_t n = strlen(pack.tensors[i].name);
            if (t->rows == 1 || t->cols % coding->numbers) continue;
            while (memcmp(front.data + at, pack.tensors[i].name, n) != 0) at++;
            lemon__put32(front.data + at + n + 4 + 16, coding->id);
        }
        for (at = 0; at < size; at++) lemon__put_number(&front, at % 29, 1);
        seed("gguf", coding->name, front.data, (size_t)front.count);
        lemon__bytes_free(&front);
        lemon__pack_close(&pack);
        lemon_model_free(fuzz_ctx, m);
    }
}

static void make_tokenizers(const char *teacher) {
    static const char json[] =
        "{\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true},{\"id\":1,\"content\":\"<s>\",\"special\":true},"
        "{\"id\":2,\"content\":\"</s>\",\"special\":true}],\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\","
        "\"prepend\":\"\xe2\x96\x81\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}]},"
        "\"pre_tokenizer\":null,\"decoder\":null,\"post_processor\":null,\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\","
        "\"byte_fallback\":true,\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</s>\":2,@BYTES@,\"\xe2\x96\x81\":259,\"a\":260,\"b\":261,"
        "\"ab\":262},\"merges\":[\"a b\"]}}";
    static const char metaspace[] =
        "{\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\","
        "\"prepend_scheme\":\"first\",\"split\":false},\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"},"
        "{\"type\":\"Fuse\"}]},\"model\":{\"byte_fallback\":true,\"vocab\":{@BYTES@,\"x\":0},\"merges\":[]}}";
    lemon_tokenizer *t = NULL;
    lemon_model *m = NULL;
    lemon__bytes out = lemon__bytes_in(NULL);
    int32_t id;
    FILE *f = teacher ? fopen(teacher, "rb") : NULL;
    seed("tokenizer_json", "llama", json, sizeof json - 1);
    seed("tokenizer_json", "metaspace", metaspace, sizeof metaspace - 1);
    lemon_tokenizer_bytes(fuzz_ctx, &t);
    lemon_tokenizer_save(fuzz_ctx, "bytes.bin", t);
    seed_file("tokenizer_bin", "bytes", "bytes.bin");
    lemon_tokenizer_free(fuzz_ctx, t);
    if (f) {        /* a few pieces of the teacher's, behind the '+' that stands for the bytes */
        static uint8_t bytes[1 << 22];
        size_t n = fread(bytes, 1, sizeof bytes, f);
        lemon_reader r = fuzz_memory(bytes, n, 1);
        if (lemon_load_reader(fuzz_ctx, &r, &m)) fuzz_fail("the teacher");
        fclose(f);
        lemon__put(&out, "+", 1);
        lemon__put_number(&out, 20, 4);
        for (id = 259; id < 1024; id += 31) {
            const uint8_t *piece = lemon__piece(m->tokenizer, id, &n);
            lemon__put_number(&out, lemon__bits(m->tokenizer->scores[id]), 4);
            lemon__put_number(&out, n, 4);
            lemon__put(&out, piece, n);
        }
        seed("tokenizer_bin", "teacher", out.data, (size_t)out.count);
        lemon__bytes_free(&out);
        lemon_model_free(fuzz_ctx, m);
    }
}

static void make_operators(void) {
    static const char *const methods[] = {"lemon", "select", "drop"};
    lemon_config student = fuzz_config(2, 1, 1, 1, 4);
    lemon_operators *ops = NULL;
    lemon_fuse_options o;
    int i;
    for (i = 0; i < 3; i++) {
        lemon_tokens text = fuzz_tokens();
        lemon_fuse_defaults(&o);
        o.method = methods[i];
        o.tokens = 128;
        o.seq = 8;
        if (i == 0) o.field_layers = 2;
        if (lemon_operators_fill(fuzz_ctx, fuzz_teacher, &student, &text, &o, &ops, NULL) ||
            lemon_operators_save(fuzz_ctx, methods[i], ops)) fuzz_fail("operators");
        seed_file("operators", methods[i], methods[i]);
        lemon_operators_free(fuzz_ctx, ops);
    }
}

static void make_resume(void) {
    lemon_config c = fuzz_config(2, 1, 1, 1, 2);
    lemon_train_options o = fuzz_train_options();
    lemon_tokens tokens = fuzz_tokens();
    lemon_model *m = NULL;
    if (lemon_model_create(fuzz_ctx, &c, &m) || lemon_model_init(fuzz_ctx, m, 1) || lemon_train(fuzz_ctx, m, &tokens, &o, NULL))
        fuzz_fail("train");
    seed_file("resume", "state", "t.lemon.resume");
    lemon_model_free(fuzz_ctx, m);
}

static lemon_status append(void *user, const void *bytes, size_t n) {
    lemon__put((lemon__bytes *)user, bytes, n);
    return LEMON_OK;
}
static lemon_status commit(void *user) { (void)user; return LEMON_OK; }
static void nothing(void *user) { (void)user; }

static void make_sessions(void) {
    lemon__bytes out = lemon__bytes_in(NULL);
    lemon_writer w = {NULL, "session", append, commit, nothing};
    w.user = &out;
    if (lemon_session_feed(fuzz_session, fuzz_ids, 3, NULL) || lemon_session_save(fuzz_session, &w)) fuzz_fail("a session");
    seed("session", "three", out.data, (size_t)out.count);
    out.count = 0;
    if (lemon_session_rewind(fuzz_session, 0) || lemon_session_save(fuzz_session, &w)) fuzz_fail("an empty session");
    seed("session", "empty", out.data, (size_t)out.count);
    lemon__bytes_free(&out);
}

int main(int argc, char **argv) {
    char name[20], text[80], word[600];
    int i;
    if (argc < 2) return 2;
    snprintf(folder, sizeof folder, "%s", argv[1]);
    fuzz_open();
    make_models();
    make_families();
    make_phi3();
    make_codings();
    make_tokenizers(argc > 2 ? argv[2] : NULL);
    make_operators();
    make_resume();
    make_sessions();
    for (i = 0; i < FUZZ_TOKENIZERS; i++) {
        snprintf(name, sizeof name, "%d", i);
        snprintf(text, sizeof text, "%c%s", i, fuzz_text);
        text[0] = (char)i;
        seed("text", name, text, strlen(text + 1) + 1);
    }
    for (i = 1; i < 600; i++) word[i] = "aaaab"[i * i % 5];
    word[0] = 2;
    seed("text", "long", word, sizeof word);
    fuzz_close();
    return 0;
}
