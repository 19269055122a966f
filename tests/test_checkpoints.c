/*  Chapter 8: the .lemon container, models in it, llama2.c's files, and what damaged or hostile ones do. */
#include "check.h"

/* ---- files in memory ---- */

typedef struct memory { uint8_t *bytes; size_t size, limit; int committed, aborted, closed; } memory;

static lemon_status memory_append(void *user, const void *bytes, size_t n) {
    memory *m = (memory *)user;
    if (m->limit && m->size + n > m->limit) return LEMON_E_IO;
    m->bytes = (uint8_t *)realloc(m->bytes, m->size + n + 1);
    memcpy(m->bytes + m->size, bytes, n);
    m->size += n;
    return LEMON_OK;
}
static lemon_status memory_commit(void *user) { ((memory *)user)->committed++; return LEMON_OK; }
static void memory_abort(void *user) { ((memory *)user)->aborted++; }
static void memory_close(void *user) { ((memory *)user)->closed++; }
static lemon_status memory_read(void *user, uint64_t offset, void *out, size_t n) {
    memory *m = (memory *)user;
    if (m->limit && offset + n > m->limit) return LEMON_E_IO;       /* a reader that promises more than it has */
    memcpy(out, m->bytes + offset, n);
    return LEMON_OK;
}

static lemon_writer memory_writer(memory *m) {
    lemon_writer w;
    memset(m, 0, sizeof *m);
    w.user = m; w.name = "out.lemon"; w.append = memory_append; w.commit = memory_commit; w.abort = memory_abort;
    return w;
}

static lemon_reader memory_reader(memory *m, int mapped) {
    lemon_reader r;
    r.user = m;
    r.name = "mem.bin";
    r.size = m->size;
    r.map = mapped ? m->bytes : NULL;
    r.read = memory_read;
    r.close = memory_close;
    return r;
}

static lemon_config small_config(int tied) {
    lemon_config c;
    lemon_config_defaults(&c);
    c.d_model = 8; c.n_layers = 2; c.n_heads = 2; c.kv_heads = 1; c.head_dim = 4; c.d_ffn = 12;
    c.vocab_size = 300; c.max_seq = 16; c.tied_embeddings = tied; c.rope_theta = 500000.0f; c.rms_norm_eps = 1e-6f;
    return c;
}

static lemon_model *small_model(lemon_ctx *ctx, int tied, int tokenizer) {
    lemon_config c = small_config(tied);
    lemon_model *m = NULL;
    lemon_model_create(ctx, &c, &m);
    lemon_model_init(ctx, m, 7);
    if (tokenizer) lemon_tokenizer_bytes(ctx, &m->tokenizer);
    return m;
}

static memory saved(lemon_ctx *ctx, const lemon_model *model, lemon_dtype dtype) {
    memory m;
    lemon_writer w = memory_writer(&m);
    if (lemon_save_writer(ctx, &w, model, dtype) != LEMON_OK) printf("# %s\n", lemon_error(ctx));
    return m;
}

/* ---- round trips ---- */

static void test_round_trips(lemon_ctx *ctx) {
    static const double limit[] = {0, 0.002, 0.0003, 0.002, 0.02};
    char name[80];
    int dtype, mapped, tied;
    for (tied = 0; tied < 2; tied++)
        for (dtype = 0; dtype <= LEMON_Q4; dtype++)
            for (mapped = 0; mapped < 2; mapped++) {
                lemon_model *a = small_model(ctx, tied, 1), *b = NULL;
                memory m = saved(ctx, a, (lemon_dtype)dtype);
                lemon_reader r = memory_reader(&m, mapped);
                lemon_status status = lemon_load_reader(ctx, &r, &b);
                int ok = m.committed == 1 && m.aborted == 0 && status == LEMON_OK && distance(a, b) >= 0 &&
                         distance(a, b) <= limit[dtype];
                ok = ok && (int)b->dtype == dtype && strcmp(b->format, "lemon") == 0 && b->params[1].dtype == LEMON_F32;
                ok = ok && lemon_tokenizer_size(b->tokenizer) == 259 && (mapped || m.closed == 1);
                if (status) detail("%s", lemon_error(ctx));
                lemon_model_free(ctx, b);
                snprintf(name, sizeof name, "round trip %s %s %s", lemon_dtype_name((lemon_dtype)dtype),
                         tied ? "tied" : "untied", mapped ? "mapped" : "read");
                check(ok && m.closed == 1, name);
                lemon_model_free(ctx, a);
                free(m.bytes);
            }
}

static void test_mapped_in_place(lemon_ctx *ctx) {
    lemon_model *a = small_model(ctx, 1, 0), *b = NULL;
    memory m = saved(ctx, a, LEMON_F32), odd;
    lemon_reader r = memory_reader(&m, 1);
    const uint8_t *p;
    lemon_load_reader(ctx, &r, &b);
    p = (const uint8_t *)b->params[3].data;
    if (!lemon__big_endian())
        check(p > m.bytes && p < m.bytes + m.size && (size_t)(p - m.bytes) % 64 == 0 && b->block == NULL,
              "mapped weights stay in the file, at multiples of 64");
    else
        check((p < m.bytes || p >= m.bytes + m.size) && distance(a, b) >= 0 && distance(a, b) <= 0,
              "mapped weights are copied where bytes lie the other way");
    lemon_model_free(ctx, b);
    memset(&odd, 0, sizeof odd);
    odd.bytes = (uint8_t *)malloc(m.size + 1);
    memcpy(odd.bytes + 1, m.bytes, m.size);
    r.user = &odd;
    r.map = odd.bytes + 1;
    check(lemon_load_reader(ctx, &r, &b) == LEMON_OK && distance(a, b) >= 0 && distance(a, b) <= 0,
          "a map at an odd address is copied");
    lemon_model_free(ctx, b);
    lemon_model_free(ctx, a);
    free(odd.bytes);
    free(m.bytes);
}

static void test_requantised(lemon_ctx *ctx) {
    lemon_model *a = small_model(ctx, 1, 0), *b = NULL, *c = NULL;
    memory first = saved(ctx, a, LEMON_Q8), second, third;
    lemon_reader r = memory_reader(&first, 1);
    lemon_load_reader(ctx, &r, &b);
    second = saved(ctx, b, LEMON_Q8);
    check(first.size == second.size && memcmp(first.bytes, second.bytes, first.size) == 0,
          "saved again in its own type, a file has the same bytes");
    third = saved(ctx, b, LEMON_F32);
    r = memory_reader(&third, 1);
    lemon_load_reader(ctx, &r, &c);
    check(distance(b, c) >= 0 && distance(b, c) <= 0, "q8 to f32 changes no number");
    lemon_model_free(ctx, a); lemon_model_free(ctx, b); lemon_model_free(ctx, c);
    free(first.bytes); free(second.bytes); free(third.bytes);
}

/* ---- damage ---- */

static int refused(lemon_ctx *ctx, const uint8_t *bytes, size_t size) {
    memory m;
    lemon_reader r;
    lemon_model *model = NULL;
    lemon_status status;
    memset(&m, 0, sizeof m);
    m.bytes = (uint8_t *)malloc(size + 1);      /* a block of its own, so that sanitizers see reads past the end */
    m.bytes = (uint8_t *)realloc(m.bytes, size ? size : 1);
    memcpy(m.bytes, bytes, size);
    m.size = size;
    r = memory_reader(&m, 1);
    ctx->message[0] = 0;
    status = lemon_load_reader(ctx, &r, &model);
    lemon_model_free(ctx, model);
    free(m.bytes);
    return status != LEMON_OK && model == NULL && m.closed == 1 && strncmp(lemon_error(ctx), "mem.bin: ", 9) == 0;
}

static void test_flips(lemon_ctx *ctx) {
    lemon_config c = small_config(1);
    lemon_model *a = NULL;
    memory m;
    size_t i;
    int bit, bad = 0, named = 0, in_data = 0;
    c.vocab_size = 260; c.d_model = 4; c.n_layers = 1; c.n_heads = 1; c.d_ffn = 4;
    lemon_model_create(ctx, &c, &a);
    lemon_model_init(ctx, a, 1);
    lemon_tokenizer_bytes(ctx, &a->tokenizer);
    m = saved(ctx, a, LEMON_BF16);
    for (i = 0; i < m.size; i++)
        for (bit = 0; bit < 8; bit += i < 2048 ? 1 : 5) {
            m.bytes[i] = (uint8_t)(m.bytes[i] ^ 1 << bit);
            bad += !refused(ctx, m.bytes, m.size);
            if (i > 4096) { in_data++; named += strstr(lemon_error(ctx), "tensor \"") != NULL; }
            m.bytes[i] = (uint8_t)(m.bytes[i] ^ 1 << bit);
        }
    check(bad == 0, "every flipped bit is refused, by a message that begins with the file");
    check(named == in_data && in_data > 0, "a flip in the data names the tensor");
    for (bad = 0, i = 0; i < m.size; i++) bad += !refused(ctx, m.bytes, i);
    check(bad == 0, "every truncation is refused");
    m.bytes = (uint8_t *)realloc(m.bytes, m.size + 64);
    memset(m.bytes + m.size, 0, 64);
    check(refused(ctx, m.bytes, m.size + 64) && refused(ctx, m.bytes, m.size + 1), "bytes behind the end are refused");
    lemon_model_free(ctx, a);
    free(m.bytes);
}

/*  Puts the two checksums of the header right after the keys or the table were changed. */
static void reseal(memory *m) {
    size_t meta = (size_t)(lemon__get64(m->bytes + 24) + lemon__get64(m->bytes + 32));
    if (meta < m->size - 64) lemon__put32(m->bytes + 56, lemon_crc32(0, m->bytes + 64, meta));
    lemon__put32(m->bytes + 60, lemon_crc32(0, m->bytes, 60));
}

/*  Random changes of header, keys and table under right checksums: nothing may crash, leak or be believed beyond the
    file. */
static void test_resealed(lemon_ctx *ctx) {
    lemon_model *a = small_model(ctx, 0, 1), *b = NULL;
    memory good = saved(ctx, a, LEMON_F32), m;
    size_t meta = (size_t)(lemon__get64(good.bytes + 24) + lemon__get64(good.bytes + 32)),
           before = lemon_memory(ctx, NULL);
    static const uint64_t nasty[] = {
        0, 1, 63, 0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff, 0xffffffffffffffc0, 0xffffffffffffffff};
    lemon_rng rng;
    int round, k, accepted = 0, bad = 0;
    lemon_rng_seed(&rng, 3);
    for (round = 0; round < rounds_of(40000); round++) {
        lemon_reader r;
        memset(&m, 0, sizeof m);
        m.size = good.size;
        m.bytes = (uint8_t *)malloc(m.size);
        memcpy(m.bytes, good.bytes, m.size);
        for (k = 0; k <= round % 3; k++) {
            size_t at = (size_t)lemon_rng_below(&rng, (int64_t)(56 + (round % 2 ? meta : 0)));
            if (at >= 56) at += 8;
            if (round % 5 == 0) lemon__put64(m.bytes + at, nasty[lemon_rng_below(&rng, 9)]);
            else m.bytes[at] = (uint8_t)lemon_rng_next(&rng);
        }
        reseal(&m);
        r = memory_reader(&m, 1);
        if (lemon_load_reader(ctx, &r, &b) == LEMON_OK) accepted++;
        else bad += b != NULL || strncmp(lemon_error(ctx), "mem.bin: ", 9) != 0;
        lemon_model_free(ctx, b);
        bad += m.closed != 1 || lemon_memory(ctx, NULL) != before;
        free(m.bytes);
    }
    printf("# %d of %d changes were harmless (constants, unknown keys)\n", accepted, round);
    check(bad == 0, "hostile containers under right checksums are refused without leaks");
    lemon_model_free(ctx, a);
    free(good.bytes);
}

static int find_bytes(const memory *m, const char *what) {
    size_t i, n = strlen(what);
    for (i = 0; i + n <= m->size; i++)
        if (memcmp(m->bytes + i, what, n) == 0) return (int)i;
    return -1;
}

/*  Changes one named thing and expects a message that has both pieces of text in it. */
static int message_has(lemon_ctx *ctx, memory *m, const char *a, const char *b) {
    int ok;
    reseal(m);
    ok = refused(ctx, m->bytes, m->size) && strstr(lemon_error(ctx), a) && strstr(lemon_error(ctx), b);
    if (!ok) detail("message: %s", lemon_error(ctx));
    return ok;
}

static void test_messages(lemon_ctx *ctx) {
    lemon_model *a = small_model(ctx, 1, 0);
    memory m = saved(ctx, a, LEMON_F32);
    int at = find_bytes(&m, "arch");
    uint8_t *p;
    m.bytes[at + 4] = 'm';
    check(message_has(ctx, &m, "arch is \"mlama\"", "\"llama\""), "another architecture is refused by name");
    m.bytes[at + 4] = 'l';
    p = m.bytes + find_bytes(&m, "requires") + 8;
    memcpy(p, "magic", 5);
    check(message_has(ctx, &m, "requires the part \"magic\"", "model"), "an unknown required part is refused by name");
    memcpy(p, "model", 5);
    p = m.bytes + find_bytes(&m, "d_ffn") + 5;
    lemon__put64(p, 13);
    check(message_has(ctx, &m, "tensor \"layers.0.w_gate\" is [12, 8], expected [13, 8] (d_ffn is 13)", ""),
          "a shape names tensor, both shapes and the reason");
    lemon__put64(p, (uint64_t)-7);
    check(message_has(ctx, &m, "d_ffn is -7", "expected"), "a negative size is refused by name");
    lemon__put64(p, 12);
    p = m.bytes + find_bytes(&m, "n_layers") + 8;
    lemon__put64(p, 4000);
    check(message_has(ctx, &m, "n_layers is 4000", "tensors"),
          "more layers than tensors are refused before memory is asked for");
    lemon__put64(p, 1);
    check(message_has(ctx, &m, "mem.bin: tensor \"layers.1.attn_norm\" has no place", ""),
          "a layer that the config leaves out is named");
    lemon__put64(p, 2);
    p = m.bytes + find_bytes(&m, "d_model") + 4;
    *p = 'x';
    check(message_has(ctx, &m, "key \"d_model\"", "missing"), "a missing key is named");
    *p = 'd';
    p = m.bytes + find_bytes(&m, "layers.0.ffn_norm") -
        20; /* where its offset stands; all gains are 1, so checksums agree */
    at = (int)lemon__get64(p);
    lemon__put64(p, lemon__get64(m.bytes + find_bytes(&m, "layers.0.attn_norm") - 20));
    check(message_has(ctx, &m, "tensor \"layers.0.ffn_norm\" begins at byte", "expected"),
          "tensors that overlap are refused");
    lemon__put64(p, (uint64_t)at);
    p = m.bytes + find_bytes(&m, "layers.1.wq");
    p[10] = 'k';
    check(message_has(ctx, &m, "tensor \"layers.1.wk\"", "twice"), "a tensor that is there twice is named");
    p[10] = '\n';
    check(message_has(ctx, &m, "printable", ""), "an unprintable name is refused");
    p[10] = 'x';
    check(message_has(ctx, &m, "tensor \"layers.1.wq\" is missing", ""), "a missing tensor is named");
    free(m.bytes);
    lemon_model_free(ctx, a);
}

/*  What a file has besides the parts that it requires is skipped. */
static void test_other_parts(lemon_ctx *ctx) {
    static const float numbers[3] = {1, 2, 3};
    const lemon_tensor other = lemon__view(lemon__unconst(numbers), LEMON_F32, 1, 3);
    lemon_model *a = small_model(ctx, 1, 1), *b = NULL;
    lemon__pack pack;
    memory m;
    lemon_writer w = memory_writer(&m);
    lemon_reader r;
    lemon__pack_open(ctx, &pack);
    lemon__pack_text(&pack, "requires", "model", 5);
    lemon__pack_model(&pack, a, LEMON_F32);
    lemon__pack_tensor(&pack, "layer", &other, LEMON_F32);
    lemon__pack_tensor(&pack, "vision.layers.0.wq", &other, LEMON_F32);
    lemon__pack_write(&pack, &w);
    lemon__pack_close(&pack);
    r = memory_reader(&m, 1);
    check(fine(ctx, lemon_load_reader(ctx, &r, &b)) && b->tokenizer && distance(a, b) >= 0 && distance(a, b) <= 0,
          "tensors of parts that a file does not require are skipped");
    lemon_model_free(ctx, b);
    lemon_model_free(ctx, a);
    free(m.bytes);
}

/*  The same of what a tokenizer is made of, of where the data end, and of more parts than there may be. */
static void test_tokenizer_messages(lemon_ctx *ctx) {
    lemon_model *a = small_model(ctx, 1, 1);
    memory m = saved(ctx, a, LEMON_F32);
    const uint64_t data = lemon__get64(m.bytes + 40), row_bytes = 40;      /* of the table, before a name */
    uint8_t *row = m.bytes + find_bytes(&m, "tokenizer.scores") - row_bytes, *last;
    char name[8];
    int i, status = 0;
    m.bytes[find_bytes(&m, "llama2c") + 6] = 'd';
    check(message_has(ctx, &m, "tokenizer.type is \"llama2d\", expected \"llama2c\"", ""),
          "a tokenizer of another type is refused by name");
    m.bytes[find_bytes(&m, "llama2d") + 6] = 'c';
    row[2] = LEMON_I32;
    check(message_has(ctx, &m, "tensor \"tokenizer.scores\" is i32, expected f32", ""), "another type than must be is named");
    row[2] = LEMON_F32;
    row = m.bytes + find_bytes(&m, "tokenizer.lengths") - row_bytes;
    last = m.bytes + (m.size - data) + lemon__get64(row + 20) + lemon__get64(row + 28) - 4;
    lemon__put32(last, lemon__get32(last) + 1);
    lemon__put32(row + 36, lemon_crc32(0, last + 4 - lemon__get64(row + 28), (size_t)lemon__get64(row + 28)));
    check(message_has(ctx, &m, "\"tokenizer.lengths\" does not add up", ""), "lengths of pieces must add up");
    m.size -= 64;
    lemon__put64(m.bytes + 40, data - 64);
    check(message_has(ctx, &m, "ends at byte", "the data, which have only"), "a tensor ends within the data");
    m.size += 128;
    m.bytes = (uint8_t *)realloc(m.bytes, m.size);
    memset(m.bytes + m.size - 64, 0, 64);
    lemon__put64(m.bytes + 40, data + 64);
    check(message_has(ctx, &m, "data_bytes is", "expected"), "data behind the last tensor are refused");
    for (i = 0; i < LEMON__PARTS; i++)
        status |= (int)lemon__part_add(ctx, a, name, (size_t)snprintf(name, sizeof name, "p%d", i), "x", 1);
    check(!status && fails_with(ctx, lemon__part_add(ctx, a, "more", 4, "x", 1), LEMON_E_FORMAT, "part \"more\" is one too many"),
          "so many parts and no more");
    free(m.bytes);
    lemon_model_free(ctx, a);
}

/* ---- the container by itself: operators and training states use it directly ---- */

static void test_container(lemon_ctx *ctx) {
    static const uint8_t bytes[5] = {1, 2, 3, 4, 5};
    static const double doubles[3] = {1.0 / 3, -2, 1e300};
    static const int32_t ints[4] = {-1, 0, 7, INT32_MAX};
    lemon_tensor t, got;
    lemon__pack pack;
    lemon__unpack u;
    memory m;
    lemon_writer w = memory_writer(&m);
    lemon_reader r;
    int64_t whole = 0;
    double real = 0;
    const char *text = NULL;
    size_t n = 0;
    int ok;
    lemon__pack_open(ctx, &pack);
    lemon__pack_text(&pack, "requires", "training", 8);
    lemon__pack_int(&pack, "step", -123456789012345);
    lemon__pack_real(&pack, "rate", 0.1);
    lemon__pack_text(&pack, "note", "", 0);
    t.rows = 1; t.cols = 5; t.dtype = LEMON_U8; t.data = lemon__unconst(bytes);
    lemon__pack_tensor(&pack, "u8", &t, LEMON_U8);
    t.cols = 3; t.dtype = LEMON_F64; t.data = lemon__unconst(doubles);
    lemon__pack_tensor(&pack, "f64", &t, LEMON_F64);
    t.rows = 2; t.cols = 2; t.dtype = LEMON_I32; t.data = lemon__unconst(ints);
    lemon__pack_tensor(&pack, "i32", &t, LEMON_I32);
    ok = lemon__pack_write(&pack, &w) == LEMON_OK;
    lemon__pack_close(&pack);
    r = memory_reader(&m, 0);
    ok = ok && lemon__unpack_open(ctx, &r, "training", "training", &u) == LEMON_OK;
    check(ok, "a container of other parts is written and read");
    if (!ok) { printf("# %s\n", lemon_error(ctx)); free(m.bytes); return; }
    lemon__unpack_int(&u, "step", &whole);
    lemon__unpack_real(&u, "rate", &real);
    lemon__unpack_text(&u, "note", &text, &n);
    check(whole == -123456789012345 && real >= 0.1 && real <= 0.1 && text && n == 0, "keys keep their values");
    ok = lemon__unpack_tensor(&u, "f64", &got) == LEMON_OK && got.cols == 3 &&
         memcmp(got.data, doubles, sizeof doubles) == 0;
    ok = ok && lemon__unpack_shaped(&u, "i32", LEMON_I32, 2, 2, "", &got) == LEMON_OK && memcmp(got.data, ints, sizeof ints) == 0;
    check(ok, "tensors keep theirs");
    check(lemon__unpack_int(&u, "rate", &whole) == LEMON_E_FORMAT && lemon__unpack_has(&u, "rate") &&
              !lemon__unpack_has(&u, "rates"),
          "a key of another type is refused");
    lemon__unpack_close(&u);
    r = memory_reader(&m, 1);
    check(lemon__unpack_open(ctx, &r, "model", "model", &u) == LEMON_E_UNSUPPORTED &&
              strstr(lemon_error(ctx), "training"),
          "a part that is not known is named");
    free(m.bytes);
    w = memory_writer(&m);
    lemon__pack_open(ctx, &pack);
    lemon__pack_tensor(&pack, "f64", &t, LEMON_F32);
    check(lemon__pack_write(&pack, &w) == LEMON_E_ARG && m.aborted == 1 &&
              strstr(lemon_error(ctx), "out.lemon: tensor \"f64\""),
          "a conversion that cannot be is refused");
    lemon__pack_close(&pack);
    free(m.bytes);
    w = memory_writer(&m);
    lemon__pack_open(ctx, &pack);
    lemon__pack_tensor(&pack, "i 32", &t, LEMON_I32);
    check(lemon__pack_write(&pack, &w) == LEMON_E_ARG && m.aborted == 1 && strstr(lemon_error(ctx), "tensor \"i 32\""),
          "so is a name with a blank");
    lemon__pack_close(&pack);
    free(m.bytes);
}

/*  Words are counted in 32 bits: a list that is full takes no more, and is not written to. */
static void test_words(lemon_ctx *ctx) {
    lemon__words words;
    lemon__span first = {5, 6};
    memset(&words, 0, sizeof words);
    words.spans = &first;
    words.capacity = INT32_MAX, words.count = INT32_MAX - 1;
    check(!lemon__words_push(ctx, &words, 0, 1, 0) && strstr(lemon_error(ctx), "more than 2^31 words") &&
              words.count == INT32_MAX - 1 && words.n_slots == 0,
          "2^31 words and no more");
}

/* ---- writers that fail; memory that runs out ---- */

static void test_writers(lemon_ctx *ctx) {
    lemon_model *a = small_model(ctx, 1, 0);
    memory m = saved(ctx, a, LEMON_F32), part;
    lemon_writer w;
    size_t limit;
    int bad = 0;
    for (limit = 1; limit < m.size; limit += 97) {
        w = memory_writer(&part);
        part.limit = limit;
        bad += lemon_save_writer(ctx, &w, a, LEMON_F32) != LEMON_E_IO || part.aborted != 1 || part.committed != 0;
        bad += strncmp(lemon_error(ctx), "out.lemon: ", 11) != 0;
        free(part.bytes);
    }
    check(bad == 0, "a writer that runs full is aborted, once, and named");
    w = memory_writer(&part);
    check(lemon_save_writer(ctx, &w, a, LEMON_I32) == LEMON_E_ARG && part.aborted == 1, "i32 is no type for weights");
    check(lemon_save(ctx, "/nonexistent/x.lemon", a, LEMON_F32) == LEMON_E_IO,
          "a folder that is not there is an I/O error");
    lemon_model_free(ctx, a);
    free(m.bytes);
}

static void test_short_readers(lemon_ctx *ctx) {
    lemon_model *a = small_model(ctx, 1, 0), *b = NULL;
    memory m = saved(ctx, a, LEMON_F32);
    size_t limit;
    int bad = 0;
    for (limit = 1; limit < m.size; limit += 61) {
        lemon_reader r = memory_reader(&m, 0);
        m.limit = limit;
        m.closed = 0;
        bad += lemon_load_reader(ctx, &r, &b) != LEMON_E_IO || b != NULL || m.closed != 1 ||
               strncmp(lemon_error(ctx), "mem.bin: ", 9) != 0;
    }
    check(bad == 0, "a reader that fails is closed and named");
    lemon_model_free(ctx, a);
    free(m.bytes);
}

static void test_memory(lemon_ctx *ctx) {
    lemon_model *a = small_model(ctx, 0, 1), *b = NULL;
    memory good = saved(ctx, a, LEMON_Q8), m;
    long n, live, saves = 0, loads = 0;
    int bad = 0;
    for (n = 1;; n++) {
        lemon_writer w = memory_writer(&m);
        lemon_status status;
        live = heap.live;
        heap.calls = 0;
        heap.fail_at = n;
        status = lemon_save_writer(ctx, &w, a, LEMON_Q4);
        heap.fail_at = 0;
        free(m.bytes);
        bad += heap.live != live || (status ? m.aborted != 1 || status != LEMON_E_MEMORY : m.committed != 1);
        if (!status) break;
        saves++;
    }
    check(bad == 0 && saves > 3, "saving survives every failed allocation");
    for (bad = 0, n = 1;; n++) {
        lemon_reader r;
        lemon_status status;
        good.closed = 0;
        r = memory_reader(&good, 0);
        live = heap.live;
        heap.calls = 0;
        heap.fail_at = n;
        status = lemon_load_reader(ctx, &r, &b);
        heap.fail_at = 0;
        bad += good.closed != 1 || (status && (status != LEMON_E_MEMORY || b != NULL || heap.live != live));
        lemon_model_free(ctx, b);
        bad += heap.live != live;
        if (!status) break;
        loads++;
    }
    check(bad == 0 && loads > 5, "loading survives every failed allocation");
    lemon_model_free(ctx, a);
    free(good.bytes);
}

/* ---- llama2.c ---- */

/*  Numbers of 32 bits, in the order of a file's bytes whatever this machine's is. */
static void append_words(memory *m, const void *words, size_t bytes) {
    size_t i;
    for (i = 0; i < bytes; i += 4) {
        uint32_t word;
        uint8_t out[4];
        memcpy(&word, (const uint8_t *)words + i, 4);
        lemon__put32(out, word);
        memory_append(m, out, 4);
    }
}

/*  Writes a model in llama2.c's versions, by the layout of its export.py, independently of the reader's table. */
static void put_param(memory *m, const lemon_model *a, lemon_role role, int group) {
    int64_t layer, i, layers = lemon_role_get(role)->per_layer ? a->config.n_layers : 1;
    for (layer = 0; layer < layers; layer++) {
        lemon_tensor *t = lemon_model_param(a, role, layer);
        const float *x = (const float *)t->data;
        int64_t n = t->rows * t->cols;
        if (group == 0) { append_words(m, x, (size_t)n * 4); continue; }
        for (i = 0; i < n; i++) { int8_t q = (int8_t)roundf(x[i] * 1000); memory_append(m, &q, 1); }
        for (i = 0; i < n / group; i++) { float s = 0.001f; append_words(m, &s, 4); }
    }
}

static memory llama2c(const lemon_model *a, int version, int group) {
    static const lemon_role order0[] = {LEMON_TOK_EMBED, LEMON_ATTN_NORM, LEMON_WQ,        LEMON_WK,
                                        LEMON_WV,        LEMON_WO,        LEMON_FFN_NORM,  LEMON_W_GATE,
                                        LEMON_W_DOWN,    LEMON_W_UP,      LEMON_FINAL_NORM};
    static const lemon_role order1[] = {LEMON_ATTN_NORM, LEMON_FFN_NORM, LEMON_FINAL_NORM, LEMON_TOK_EMBED,
                                        LEMON_WQ,        LEMON_WK,       LEMON_WV,         LEMON_WO,
                                        LEMON_W_GATE,    LEMON_W_DOWN,   LEMON_W_UP};
    const lemon_config *c = &a->config;
    int32_t head[9];
    uint8_t zeros[256] = {0};
    memory m;
    int i;
    memset(&m, 0, sizeof m);
    head[0] = 0x616b3432; head[1] = version; head[2] = c->d_model; head[3] = c->d_ffn; head[4] = c->n_layers;
    head[5] = c->n_heads;
    head[6] = c->kv_heads;
    head[7] = version == 0 && !c->tied_embeddings ? -c->vocab_size : c->vocab_size;
    head[8] = c->max_seq;
    if (version == 0) append_words(&m, head + 2, 28);
    else {
        append_words(&m, head, 36);
        zeros[0] = (uint8_t)c->tied_embeddings;
        memory_append(&m, zeros, 1);
        if (version == 2) append_words(&m, &group, 4);
        memory_append(&m, zeros + 1, 256 - m.size);
    }
    for (i = 0; i < 11; i++) {
        lemon_role role = version ? order1[i] : order0[i];
        put_param(&m, a, role, version == 2 && lemon_role_get(role)->matrix ? group : 0);
    }
    for (i = 0; version == 0 && i < c->max_seq * c->head_dim; i++) memory_append(&m, "rope", 4);
    if (!c->tied_embeddings) put_param(&m, a, LEMON_OUTPUT, version == 2 ? group : 0);
    return m;
}

static void test_llama2c(lemon_ctx *ctx) {
    char name[80];
    int version, tied, bad = 0;
    for (tied = 0; tied < 2; tied++)
        for (version = 0; version < 3; version++) {
            lemon_model *a = small_model(ctx, tied, 0), *b = NULL;
            memory m;
            lemon_reader r;
            size_t i;
            a->config.rope_theta = 10000.0f;
            a->config.rms_norm_eps = 1e-5f;
            m = llama2c(a, version, 16);
            r = memory_reader(&m, tied);
            fine(ctx, lemon_load_reader(ctx, &r, &b));
            snprintf(name, sizeof name, "llama2.c version %d %s", version, tied ? "tied" : "untied");
            check(b && distance(a, b) >= 0 && distance(a, b) <= (version == 2 ? 0.00051 : 0) &&
                      strcmp(b->format, "llama2c") == 0 && b->block,
                  name);
            lemon_model_free(ctx, b);
            for (i = 0; i < m.size; i += i < 300 ? 1 : 101) bad += !refused(ctx, m.bytes, i);
            bad += refused(ctx, m.bytes, m.size);
            lemon_model_free(ctx, a);
            free(m.bytes);
        }
    check(bad == 0, "every truncation of a llama2.c file is refused");
}

/*  A model that went wrong is saved as it is. */
static void test_llama2c_nan(lemon_ctx *ctx) {
    lemon_model *a = small_model(ctx, 1, 0), *b = NULL;
    float *w, *v;
    int i, nan = 0;
    a->config.rope_theta = 10000.0f;
    a->config.rms_norm_eps = 1e-5f;
    w = (float *)lemon_model_param(a, LEMON_TOK_EMBED, 0)->data;
    w[3] = NAN;
    w[20] = INFINITY;
    check(fine(ctx, lemon_save(ctx, scratch("nan.bin"), a, LEMON_Q8)) && fine(ctx, lemon_load(ctx, scratch("nan.bin"), &b)),
          "llama2.c version 2 takes a model with NaN");
    v = b ? (float *)lemon_model_param(b, LEMON_TOK_EMBED, 0)->data : w;
    for (i = 0; i < 2400; i++) nan += isnan(v[i]);
    detail("%d numbers are NaN", nan);
    check(isnan(v[3]) && isnan(v[20]) && nan > 1 && nan < 100, "and gives NaN back, in its group");
    lemon_model_free(ctx, a);
    lemon_model_free(ctx, b);
}

static void test_llama2c_hostile(lemon_ctx *ctx) {
    static const int32_t nasty[] = {0, 1, -1, 2, 3, 63, 65536, 1 << 24, INT32_MAX, -2147483647 - 1, -7};
    size_t peak, before;
    int version, field, k, two, bad = 0;
    lemon_rng rng;
    lemon_rng_seed(&rng, 5);
    before = lemon_memory(ctx, &peak);
    for (version = 0; version < 3; version++) {
        lemon_model *a = small_model(ctx, 0, 0);
        memory m = llama2c(a, version, 16);
        size_t base = version ? 8 : 0;
        for (field = 0; field < 7; field++)
            for (k = 0; k < 11; k++)
                for (two = 0; two < 20; two++) {
                    uint8_t keep[64];
                    memcpy(keep, m.bytes, 64);
                    lemon__put32(m.bytes + base + 4 * field, (uint32_t)nasty[k]);
                    if (two) {
                        uint8_t *other = m.bytes + base + 4 * lemon_rng_below(&rng, 7);
                        lemon__put32(other, (uint32_t)nasty[lemon_rng_below(&rng, 11)]);
                    }
                    if (version && two % 4 == 3) lemon__put32(m.bytes + 37, (uint32_t)nasty[lemon_rng_below(&rng, 11)]);
                    lemon__put32(m.bytes + base + 24,
                                 lemon__get32(keep + base + 24) ^
                                     (version == 0 && two == 7)); /* max_seq has no part in versions 1 and 2 */
                    if (memcmp(keep, m.bytes, 64) != 0)
                        bad += !refused(ctx, m.bytes, m.size) && !(version && two % 4 == 3);
                    memcpy(m.bytes, keep, 64);
                }
        free(m.bytes);
        lemon_model_free(ctx, a);
    }
    check(bad == 0, "hostile llama2.c headers are refused");
    check(lemon_memory(ctx, &peak) == before && peak < 4000000, "and make nobody allocate more than the file is worth");
}

static void expect_text(lemon_ctx *ctx, const void *bytes, size_t n, const char *text, const char *name) {
    int ok = refused(ctx, (const uint8_t *)bytes, n) && strstr(lemon_error(ctx), text) != NULL;
    if (!ok) detail("%s", lemon_error(ctx));
    check(ok, name);
}

static void test_strangers(lemon_ctx *ctx) {
    static const char prose[] = "Once upon a time there was a little model that nobody could read at all.";
    static const uint8_t safetensors[] = {60,  0,   0,   0,   0,   0,   0,   0,   '{', '"', 'a', '"', ':', 0,   200,
                                          200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200};
    static const uint8_t sizes[7] = {64, 172, 0, 8, 4, 255, 255};
    uint8_t v0[64] = {0};
    lemon_model *model = NULL;
    size_t i;
    for (i = 0; i < 7; i++) v0[4 * i] = sizes[i];
    expect_text(ctx, "", 0, "is empty", "an empty file says so");
    expect_text(ctx, "GGUF\003\0\0\0", 8, "GGUF", "GGUF is named");
    expect_text(ctx, safetensors, sizeof safetensors, "safetensors", "safetensors are named");
    expect_text(ctx, prose, sizeof prose - 1, "text", "a text is called one");
    expect_text(ctx, "LEMON\n\n\032", 8, "text mode", "a magic that lost its line ends is explained");
    expect_text(ctx, v0, sizeof v0, "n_layers is 0, expected at least 1", "a field of a version 0 header is named");
#ifdef _WIN32                                   /* which opens no folder as a file */
    check(lemon_load(ctx, ".", &model) == LEMON_E_IO && strstr(lemon_error(ctx), ".: "), "a folder is not opened");
#else
    check(lemon_load(ctx, ".", &model) == LEMON_E_UNSUPPORTED && strstr(lemon_error(ctx), ".: "),
          "a folder is not supported");
#endif
    check(lemon_load(ctx, scratch("there/is/none.lemon"), &model) == LEMON_E_IO && model == NULL,
          "a file that is not there is an I/O error");
}

/* ---- files on disk ---- */

static void test_files(lemon_ctx *ctx) {
    lemon_model *a = small_model(ctx, 1, 1), *b = NULL;
    const char *path = scratch("checkpoint.lemon"), *array = scratch("lemon-test 1.h");
    memory m = saved(ctx, a, LEMON_F32);
    FILE *f;
    char line[4096], word[64];
    size_t n = 0, same = 0;
    int ok = lemon_save(ctx, path, a, LEMON_F32) == LEMON_OK && lemon_load(ctx, path, &b) == LEMON_OK;
    check(ok && distance(a, b) >= 0 && distance(a, b) <= 0, "a file on disk, saved and loaded");
    check(lemon_save(ctx, path, b, LEMON_F32) == LEMON_OK, "a model can be saved over the file that it is mapped from");
    lemon_model_free(ctx, b);
    remove(path);
    ok = lemon_save(ctx, array, a, LEMON_F32) == LEMON_OK;
    f = fopen(array, "rb");
    word[0] = 0;
    while (f && fgets(line, sizeof line, f)) {
        char *p = line;
        if (strncmp(line, "static const unsigned char ", 27) == 0) sscanf(line + 27, "%60[^[]", word);
        if (line[0] < '0' || line[0] > '9') continue;
        while (*p >= '0' && *p <= '9') {
            long v = strtol(p, &p, 10);
            same += n < m.size && m.bytes[n] == v;
            n++;
            p += *p == ',';
        }
    }
    if (f) fclose(f);
    check(ok && n == m.size && same == n && strcmp(word, "lemon_test_1_lemon") == 0,
          "a C array has the bytes of the .lemon file and a name that C allows");
    remove(array);
    lemon_model_free(ctx, a);
    free(m.bytes);
}

/*  A program without standard input, whose first file is number 0. */
static void test_first_file(lemon_ctx *ctx) {
#if LEMON__POSIX
    lemon_model *a = small_model(ctx, 1, 0), *b = NULL;
    int input = dup(0), ok;
    close(0);
    ok = fine(ctx, lemon_save(ctx, scratch("first.lemon"), a, LEMON_F32)) && fine(ctx, lemon_load(ctx, scratch("first.lemon"), &b));
    if (input >= 0) dup2(input, 0);
    check(ok && distance(a, b) >= 0 && distance(a, b) <= 0, "a file may be number 0");
    if (input > 0) close(input);
    lemon_model_free(ctx, b);
    lemon_model_free(ctx, a);
    remove(scratch("first.lemon"));
#else
    (void)ctx;
#endif
}

static void test_real(lemon_ctx *ctx) {
    char path0[512], path1[512];
    lemon_model *a = NULL, *b = NULL;
    double sum = 0;
    int64_t i;
    if (!data_path("stories260K.bin", path0, sizeof path0) || !data_path("stories260K-v1.bin", path1, sizeof path1)) {
        skip("stories260K");
        return;
    }
    if (lemon_load(ctx, path0, &a) || lemon_load(ctx, path1, &b)) {
        detail("%s", lemon_error(ctx));
        check(0, "stories260K");
        return;
    }
    check(lemon_config_params(&a->config) == 260032 && a->config.d_model == 64 && a->config.d_ffn == 172 &&
              a->config.n_layers == 5 && a->config.n_heads == 8 && a->config.kv_heads == 4 &&
              a->config.vocab_size == 512 && a->config.max_seq == 512 && a->config.tied_embeddings == 1,
          "stories260K has its config");
    check(distance(a, b) >= 0 && distance(a, b) <= 0, "versions 0 and 1 hold the same weights");
    for (i = 0; i < 64; i++) sum += (double)((const float *)lemon_model_param(a, LEMON_FINAL_NORM, 0)->data)[i];
    detail("mean final gain %.3f", sum / 64);
    check(sum / 64 > 0.5, "the final norm is where gains are");
    lemon_model_free(ctx, a);
    lemon_model_free(ctx, b);
}

int main(void) {
    lemon_ctx *ctx = open_ctx(1);
    size_t bytes = lemon_memory(ctx, NULL);
    test_round_trips(ctx);
    test_mapped_in_place(ctx);
    test_requantised(ctx);
    test_flips(ctx);
    test_resealed(ctx);
    test_messages(ctx);
    test_other_parts(ctx);
    test_tokenizer_messages(ctx);
    test_container(ctx);
    test_words(ctx);
    test_writers(ctx);
    test_short_readers(ctx);
    test_memory(ctx);
    test_llama2c(ctx);
    test_llama2c_nan(ctx);
    test_llama2c_hostile(ctx);
    test_strangers(ctx);
    test_files(ctx);
    test_first_file(ctx);
    test_real(ctx);
    check(lemon_memory(ctx, NULL) == bytes, "no byte is counted as allocated that is not");
    return check_close(ctx);
}
