/*  fuzz.h: every reader of strangers' bytes, fed from memory.  fuzz.c gives it to libFuzzer and AFL++, test_corpus.c what
    they found; both include vfs.h and the implementation of lemon.h first.

    What must hold for any input, else abort(): no crash; no byte of memory left; never more memory in use than
    fuzz_limit() allows an input of that size; what was loaded can be used, saved and loaded again. */
#ifndef FUZZ_H
#define FUZZ_H

#ifdef __GLIBC__
#include <malloc.h>
#endif

typedef struct fuzz_reader { const char *name; void (*run)(const uint8_t *bytes, size_t n); } fuzz_reader;

static lemon_ctx *fuzz_ctx;
static size_t fuzz_size;            /* of the input */
static size_t fuzz_peak;            /* the most memory that this input had at once */
static int fuzz_thorough;           /* 1: all that can be done with what was loaded is done, for each input */
static volatile unsigned long fuzz_runs;
static volatile int fuzz_busy;

/*  What an input of n bytes may make the library hold at once.  The fixed part is blocks of arenas, of 1 MB each (a model's,
    decoded strings', a pack's), Unicode's tables in a tokenizer, and packing buffers; the factor comes from short things with long records: a value of JSON takes 2 bytes there and 16
    here (twice that while the list grows), a layer of operators 8 bytes there and 528 here, a quarter byte of Q2 there
    a half-precision number here. */
static size_t fuzz_limit(size_t n) { return ((size_t)6 << 20) + 160 * n; }

static void fuzz_fail(const char *what) {
    fprintf(stderr, "fuzz: %s: %s\n", what, lemon_error(fuzz_ctx));
    abort();
}

static size_t fuzz_live;
static void *fuzz_resize(void *user, void *old, size_t old_bytes, size_t new_bytes) {
    (void)user;
    if (new_bytes == 0) {
        fuzz_live -= old_bytes;
        free(old);
        return NULL;
    }
    if (new_bytes > fuzz_limit(fuzz_size) || fuzz_live + new_bytes > fuzz_limit(fuzz_size)) {
        if (new_bytes > SIZE_MAX / 4) return NULL;
        fprintf(stderr, "fuzz: %lu bytes beside %lu were asked for by an input of %lu\n", (unsigned long)new_bytes,
                (unsigned long)fuzz_live, (unsigned long)fuzz_size);
        abort();
    }
    fuzz_live += new_bytes;
    if (fuzz_live > fuzz_peak) fuzz_peak = fuzz_live;
    return malloc(new_bytes);
}

/*  FNV-1a: decides what is done besides, and reads all bytes. */
static uint32_t fuzz_hash(const uint8_t *p, size_t n) { return (uint32_t)lemon__hash(p, n); }

/* ---- a reader and a writer of memory ---- */

static lemon_status fuzz_fetch(void *user, uint64_t offset, void *out, size_t n) {
    if (n > 0) memcpy(out, (const uint8_t *)user + offset, n);
    return LEMON_OK;
}

static lemon_reader fuzz_memory(const uint8_t *bytes, size_t n, int mapped) {
    lemon_reader r;
    memset(&r, 0, sizeof r);
    if (n == 0) bytes = (const uint8_t *)"";
    r.user = lemon__unconst(bytes);
    r.name = "input";
    r.size = n;
    r.map = mapped ? bytes : NULL;
    r.read = fuzz_fetch;
    return r;
}

/* ---- what is done with what was loaded ---- */

/*  Reads all the bytes, under the eyes of the sanitizer. */
static void fuzz_touch(const void *p, size_t n) {
    if (n && fuzz_hash((const uint8_t *)p, n) == 1) fuzz_runs = 0;
}

/*  Encodes; whole: what comes out has to decode to the same bytes.  A tokenizer from a file may refuse a text. */
static lemon_status fuzz_encode(const lemon_tokenizer *t, const char *text, size_t n, int whole) {
    lemon_tokens tokens;
    const char *piece;
    size_t bytes, at = 0;
    int64_t i;
    int32_t size = lemon_tokenizer_size(t);
    memset(&tokens, 0, sizeof tokens);
    lemon_status status = lemon_encode(fuzz_ctx, t, text, n, &tokens);
    if (status == LEMON_E_MEMORY) fuzz_fail("encode");
    for (i = 0; i < tokens.count; i++) {
        if (tokens.ids[i] < 0 || tokens.ids[i] >= size) fuzz_fail("an id out of range");
        if (!whole) continue;
        lemon_decode(fuzz_ctx, t, -1, tokens.ids[i], &piece, &bytes);
        if (bytes > n - at || memcmp(piece, text + at, bytes) != 0) fuzz_fail("a text does not come back");
        at += bytes;
    }
    if (whole && at != n) fuzz_fail("a text comes back cut short");
    lemon_tokens_free(fuzz_ctx, &tokens);
    return status;
}

/*  The same with special tokens, and back by both ways. */
static void fuzz_encode_special(const lemon_tokenizer *t, const char *text, size_t n) {
    lemon_tokens tokens;
    lemon_stream stream;
    const char *piece;
    size_t bytes;
    int64_t i;
    int32_t size = lemon_tokenizer_size(t);
    memset(&tokens, 0, sizeof tokens);
    memset(&stream, 0, sizeof stream);
    stream.previous = -1;
    if (lemon_encode_special(fuzz_ctx, t, text, n, &tokens) == LEMON_E_MEMORY) fuzz_fail("encode_special");
    for (i = 0; i < tokens.count; i++) {
        if (tokens.ids[i] < 0 || tokens.ids[i] >= size) fuzz_fail("an id out of range");
        if (lemon_decode(fuzz_ctx, t, i ? tokens.ids[i - 1] : -1, tokens.ids[i], &piece, &bytes))
            fuzz_fail("an id has no text");
        if (lemon_stream_next(fuzz_ctx, t, &stream, tokens.ids[i], &piece, &bytes)) fuzz_fail("stream");
        fuzz_touch(piece, bytes);
    }
    lemon_stream_next(fuzz_ctx, t, &stream, -1, &piece, &bytes);
    lemon_stream_free(fuzz_ctx, &stream);
    lemon_tokens_free(fuzz_ctx, &tokens);
}

static void fuzz_use_tokens(const lemon_tokenizer *t, const char *text, size_t n) {
    fuzz_encode(t, text, n, 0);
    fuzz_encode_special(t, text, n);
}

static const char fuzz_text[] = "Hello, w\xc3\xb6rld!  <s>\n\t12345 don't <|endoftext|> \xe6\x97\xa5\xe6\x9c\xac e\xcc\x81 "
                                "\xff\xf0\x9f\x99\x82 'LL \xe2\x96\x81x";

static void fuzz_use_tokenizer(const lemon_tokenizer *t, int thorough) {
    static const int32_t some[] = {0, 1, 2, 3, 40, 258, 300};
    lemon_tokenizer *copy = NULL;
    lemon_tokens kept, tokens;
    int64_t n = 0, i;
    lemon_tokenizer_adds_bos(t);
    lemon_tokenizer_special(t, lemon_tokenizer_bos(t));
    lemon_tokenizer_find(t, "<s>", 3);
    fuzz_use_tokens(t, fuzz_text, thorough ? sizeof fuzz_text - 1 : 12);
    if (!thorough) return;
    for (i = 0; i < 7; i++) n += some[i] < lemon_tokenizer_size(t);
    memset(&kept, 0, sizeof kept);
    memset(&tokens, 0, sizeof tokens);
    if (lemon_tokenizer_clone(fuzz_ctx, t, &copy) == LEMON_OK) fuzz_use_tokens(copy, "clone <s>", 9);
    else fuzz_fail("a tokenizer that was loaded cannot be copied");
    lemon_tokenizer_free(fuzz_ctx, copy);
    copy = NULL;
    if (lemon_tokenizer_trim(fuzz_ctx, t, some, n, &kept, &copy) == LEMON_OK) fuzz_use_tokens(copy, "trimmed 123", 11);
    lemon_tokenizer_free(fuzz_ctx, copy);
    lemon_tokens_from_text(fuzz_ctx, t, "one\n<|endoftext|>\r\n two \n", 25, &tokens);
    lemon_tokens_free(fuzz_ctx, &tokens);
    lemon_tokens_free(fuzz_ctx, &kept);
    if (lemon_tokenizer_save(fuzz_ctx, "out.bin", t) == LEMON_OK) {
        if (lemon_tokenizer_load(fuzz_ctx, "out.bin", 0, &copy)) fuzz_fail("a tokenizer that was saved cannot be loaded");
        lemon_tokenizer_free(fuzz_ctx, copy);
    }
}

/*  A smaller vocabulary for a model: its parts of other programs' making go along as far as they can. */
static void fuzz_trim_model(const lemon_model *m) {
    static const int32_t some[] = {0, 1, 2, 4};
    lemon_tokens kept;
    lemon_model *smaller = NULL;
    int64_t n = 0, i;
    for (i = 0; i < 4; i++) n += some[i] < lemon_tokenizer_size(m->tokenizer);
    memset(&kept, 0, sizeof kept);
    if (lemon_model_trim(fuzz_ctx, m, some, n, &kept, &smaller) == LEMON_OK) {
        if (smaller->config.vocab_size != kept.count) fuzz_fail("a trimmed model has another vocabulary than it kept");
        fuzz_use_tokens(smaller->tokenizer, "trimmed <s>", 11);
    }
    lemon_model_free(fuzz_ctx, smaller);
    lemon_tokens_free(fuzz_ctx, &kept);
}

/*  What only some formats and options do. */
static void fuzz_save_more(const lemon_model *m) {
    lemon_model *again = NULL;
    lemon_save_options o;
    lemon_save_defaults(&o);
    o.shard_bytes = 200;
    if (lemon_save_with(fuzz_ctx, "shards", m, &o) == LEMON_OK) lemon_load(fuzz_ctx, "shards", &again);
    lemon_model_free(fuzz_ctx, again);
    again = NULL;
    if ((int64_t)m->config.max_seq * m->config.head_dim > 65536) return;
    if (lemon_save(fuzz_ctx, "out8.bin", m, LEMON_Q8) == LEMON_OK && lemon_load(fuzz_ctx, "out8.bin", &again))
        fuzz_fail("a q8 model that was saved cannot be loaded");
    lemon_model_free(fuzz_ctx, again);
}

/*  By their values: text has no -0. */
static void fuzz_compare(const lemon_config *got, const lemon_config *want) {
    char text[160];
    int i;
    for (i = 0; i < LEMON__FIELDS; i++) {
        double a = lemon__field_get(got, &lemon__fields[i]), b = lemon__field_get(want, &lemon__fields[i]);
        if (a >= b && a <= b) continue;
        snprintf(text, sizeof text, "a saved model has another config: %s is %.9g, was %.9g", lemon__fields[i].name, a, b);
        fuzz_fail(text);
    }
}

/*  Every format that takes it must give it back. */
static void fuzz_use_model(const lemon_model *m, int thorough) {
    static const char *const paths[] = {"out.lemon", "out.gguf", "out.bin", "out", "out.h"};
    static float row[65536];
    lemon_model *again = NULL;
    int64_t i;
    const int curve = m->config.rope_scaling == LEMON_ROPE_LLAMA3;     /* GGUF has its factors, not what they came from */
    const int wide = m->config.window >= m->config.max_seq;            /* a window that others' files do not need */
    int k;
    if (lemon_config_check(fuzz_ctx, &m->config)) fuzz_fail("a config that cannot be");
    for (i = 0; i < m->n_params; i++) {
        lemon_row_to_f32(&m->params[i], 0, row);
        lemon_row_to_f32(&m->params[i], m->params[i].rows - 1, row);
    }
    if (m->tokenizer) fuzz_use_tokenizer(m->tokenizer, thorough);
    if (m->tokenizer && thorough) fuzz_trim_model(m);
    if (thorough) fuzz_save_more(m);
    for (k = 0; k < 5 && thorough; k++) {
        if (k == 2 && (int64_t)m->config.max_seq * m->config.head_dim > 65536) continue;    /* .bin has tables of that size */
        if (lemon_save(fuzz_ctx, paths[k], m, k == 0 ? m->dtype : LEMON_F32)) continue;
        if (k < 4 && lemon_load(fuzz_ctx, paths[k], &again) && !(k == 3 && m->tokenizer) && !(k == 1 && curve))
            fuzz_fail("a model that was saved cannot be loaded");       /* names are unique in JSON */
        if (again && !(k == 1 && curve) && !wide) fuzz_compare(&again->config, &m->config);
        lemon_model_free(fuzz_ctx, again);
        again = NULL;
    }
}

/*  A full use costs twenty times what loading does, so fuzzers do it for one input of many. */
static int fuzz_is_thorough(const uint8_t *bytes, size_t n) { return fuzz_thorough || fuzz_hash(bytes, n) % 32 == 0; }

static lemon_status fuzz_model(const uint8_t *bytes, size_t n, int mapped) {
    lemon_reader r = fuzz_memory(bytes, n, mapped);
    lemon_model *m = NULL;
    lemon_status status = lemon_load_reader(fuzz_ctx, &r, &m);
    if (status ? m != NULL : m == NULL) fuzz_fail("status and model disagree");
    if (m) fuzz_use_model(m, fuzz_is_thorough(bytes, n));
    lemon_model_free(fuzz_ctx, m);
    return status;
}

static void fuzz_any_model(const uint8_t *bytes, size_t n) { fuzz_model(bytes, n, fuzz_hash(bytes, n) % 4 != 1); }

/* ---- containers: checksums, and sizes that follow from others, would stop a fuzzer at the door, so they are put right;
        one input of four keeps its sizes, and all are tried as they stand as well ---- */

enum { FUZZ_TABLE_ROW = 40 };       /* bytes of a row of the table before its name */

static void fuzz_seal(uint8_t *p, size_t n) {
    uint64_t keys = lemon__get64(p + 24), table = lemon__get64(p + 32), data_at, meta;
    uint32_t left = lemon__get32(p + 20);
    size_t at;
    if (keys > n - 64 || table > n - 64 - keys) { lemon__put32(p + 60, lemon_crc32(0, p, 60)); return; }
    meta = keys + table;
    data_at = lemon__pad(64 + meta);
    for (at = (size_t)(64 + keys); left > 0 && at + FUZZ_TABLE_ROW <= 64 + meta && data_at <= n; left--) {
        uint64_t offset = lemon__get64(p + at + 20), bytes = lemon__get64(p + at + 28);
        if (offset <= n - data_at && bytes <= n - data_at - offset)
            lemon__put32(p + at + 36, lemon_crc32(0, p + data_at + offset, (size_t)bytes));
        at += FUZZ_TABLE_ROW + lemon__get16(p + at);
    }
    lemon__put32(p + 56, lemon_crc32(0, p + 64, (size_t)meta));
    lemon__put32(p + 60, lemon_crc32(0, p, 60));
}

/*  A copy whose keys_bytes, table_bytes, offsets and sizes agree with the keys, names, types and shapes in it. */
static uint8_t *fuzz_reshape(const uint8_t *in, size_t n, size_t *size) {
    const size_t most = 65536;
    uint32_t n_keys = lemon__get32(in + 16), n_tensors = lemon__get32(in + 20), i;
    uint64_t old_data = lemon__pad(64 + lemon__get64(in + 24) + lemon__get64(in + 32)), from, end = 0;
    size_t at = 64, keys_end, table_end;
    uint8_t *out = (uint8_t *)calloc(1, n + most + 64);
    memcpy(out, in, n);
    for (i = 0; i < n_keys && at + 8 <= n; i++) at += (size_t)8 + lemon__get16(in + at) + lemon__get32(in + at + 4);
    if (at > n) at = n;
    keys_end = at;
    for (i = 0; i < n_tensors && at + FUZZ_TABLE_ROW <= n; i++) at += (size_t)FUZZ_TABLE_ROW + lemon__get16(in + at);
    if (at > n) at = n;
    table_end = at;
    lemon__put64(out + 24, keys_end - 64);
    lemon__put64(out + 32, table_end - keys_end);
    *size = (size_t)lemon__pad(table_end);
    memset(out + table_end, 0, n + most - table_end);
    for (at = keys_end, i = 0; i < n_tensors && at + FUZZ_TABLE_ROW <= table_end; i++) {
        uint64_t rows = lemon__get64(out + at + 4), cols = lemon__get64(out + at + 12), bytes = lemon__get64(out + at + 28);
        unsigned dtype = lemon__get16(out + at + 2);
        lemon_tensor t;
        t.dtype = dtype < LEMON_DTYPE_COUNT ? (lemon_dtype)dtype : LEMON_F32;
        t.rows = rows < 65536 ? (int64_t)rows : 0;
        t.cols = cols < 65536 ? (int64_t)cols : 0;
        from = old_data + lemon__get64(in + at + 20);
        if (lemon_tensor_bytes(&t)) bytes = lemon_tensor_bytes(&t);
        lemon__put64(out + at + 20, end);
        lemon__put64(out + at + 28, bytes);
        if (bytes <= most && end + bytes <= most - 64 && *size + end + bytes <= n + most) {
            uint64_t have = from < n ? n - from : 0;
            if (have > 0 && from < n) memcpy(out + *size + end, in + from, (size_t)(have < bytes ? have : bytes));
            end = lemon__pad(end + bytes);
        }
        at += (size_t)FUZZ_TABLE_ROW + lemon__get16(out + at);
    }
    lemon__put64(out + 40, end);
    *size += (size_t)end;
    return out;
}

static void fuzz_container(const uint8_t *bytes, size_t n, lemon_status (*load)(const uint8_t *bytes, size_t n)) {
    uint8_t *copy, *exact;
    size_t size = n;
    if (load(bytes, n) == LEMON_OK || n < 64 || memcmp(bytes, lemon__magic, 8) != 0) return;
    if (fuzz_hash(bytes, n) % 4 == 0) {
        copy = (uint8_t *)malloc(n);
        memcpy(copy, bytes, n);
    } else copy = fuzz_reshape(bytes, n, &size);
    exact = (uint8_t *)malloc(size);
    memcpy(exact, copy, size);
    free(copy);
    fuzz_seal(exact, size);
    if (size > fuzz_size) fuzz_size = size;
    load(exact, size);
    free(exact);
}

static lemon_status fuzz_load_lemon(const uint8_t *bytes, size_t n) { return fuzz_model(bytes, n, n % 128 == 0); }
static void fuzz_lemon(const uint8_t *bytes, size_t n) { fuzz_container(bytes, n, fuzz_load_lemon); }

/*  The teacher of the operators in the corpus. */
static lemon_config fuzz_config(int32_t d, int32_t layers, int32_t heads, int32_t kv, int32_t ffn) {
    lemon_config c;
    lemon_config_defaults(&c);
    c.d_model = d; c.n_layers = layers; c.n_heads = heads; c.kv_heads = kv; c.head_dim = 2; c.d_ffn = ffn;
    c.vocab_size = 5; c.max_seq = 8;
    return c;
}

static lemon_model *fuzz_teacher;
static lemon_status fuzz_load_operators(const uint8_t *bytes, size_t n) {
    lemon_operators *ops = NULL;
    lemon_model *student = NULL;
    lemon_status status;
    vfs_put("f.lemon", bytes, n);
    status = lemon_operators_load(fuzz_ctx, "f.lemon", &ops);
    if (status ? ops != NULL : ops == NULL) fuzz_fail("status and operators disagree");
    if (status) return status;
    if (memcmp(&ops->teacher, &fuzz_teacher->config, sizeof ops->teacher) == 0 && lemon_config_params(&ops->student) < 4096)
        lemon_operators_apply(fuzz_ctx, ops, fuzz_teacher, 1, &student);
    lemon_model_free(fuzz_ctx, student);
    if (fuzz_is_thorough(bytes, n)) {
        if (lemon_operators_save(fuzz_ctx, "o.lemon", ops)) fuzz_fail("operators that were loaded cannot be saved");
        lemon_operators_free(fuzz_ctx, ops);
        if (lemon_operators_load(fuzz_ctx, "o.lemon", &ops)) fuzz_fail("operators that were saved cannot be loaded");
    }
    lemon_operators_free(fuzz_ctx, ops);
    return status;
}
static void fuzz_operators(const uint8_t *bytes, size_t n) { fuzz_container(bytes, n, fuzz_load_operators); }

/*  The state of the run that the corpus has files of. */
static lemon__trainer fuzz_trainer;
static int32_t fuzz_ids[128];
static lemon_train_options fuzz_train_options(void) {
    lemon_train_options o;
    lemon_train_defaults(&o);
    o.steps = 4; o.batch = 1; o.seq = 4; o.save_path = "t.lemon"; o.save_every = 2;
    return o;
}
static lemon_tokens fuzz_tokens(void) {
    lemon_tokens t;
    int i;
    for (i = 0; i < 128; i++) fuzz_ids[i] = i * i % 5;
    t.ids = fuzz_ids;
    t.count = t.capacity = 128;
    return t;
}

static lemon_status fuzz_load_resume(const uint8_t *bytes, size_t n) {
    vfs_put("t.lemon.resume", bytes, n);
    return lemon__trainer_resume(&fuzz_trainer);
}
static void fuzz_resume(const uint8_t *bytes, size_t n) { fuzz_container(bytes, n, fuzz_load_resume); }

/*  What a conversation knows so far, into a session of the same model with half-precision keys and values. */
static lemon_session *fuzz_session;
static lemon_status fuzz_load_session(const uint8_t *bytes, size_t n) {
    lemon_reader r = fuzz_memory(bytes, n, n % 4 != 1);
    lemon_status status = lemon_session_restore(fuzz_session, &r);
    float *logits;
    if (status && lemon_session_length(fuzz_session)) fuzz_fail("status and session disagree");
    if (lemon_session_length(fuzz_session) < 8 && lemon_session_feed(fuzz_session, fuzz_ids, 1, &logits)) fuzz_fail("feed");
    return status;
}
static void fuzz_saved_session(const uint8_t *bytes, size_t n) { fuzz_container(bytes, n, fuzz_load_session); }

/* ---- folders: files one behind the other, each after a line "@@name"; in "name#" the 8 bytes of a safetensors header's
        length are left out and the header ends with a 0 instead, so that it can grow and shrink ---- */

static void fuzz_unfold(const uint8_t *bytes, size_t n) {
    size_t at = 0, next, end;
    int files = 0;
    vfs_folder("m");
    while (at + 3 < n && memcmp(bytes + at, "@@", 2) == 0 && files++ < 12) {
        const uint8_t *line = (const uint8_t *)memchr(bytes + at, '\n', n - at), *zero;
        char name[64];
        size_t k;
        if (line == NULL || line - (bytes + at) > 50) return;
        k = (size_t)(line - (bytes + at)) - 2;
        snprintf(name, sizeof name, "m/%.*s", (int)k, (const char *)bytes + at + 2);
        at = (size_t)(line - bytes) + 1;
        for (next = at; next < n && (next + 2 > n || memcmp(bytes + next, "@@", 2) != 0); next++) {}
        end = next;
        zero = (const uint8_t *)memchr(bytes + at, 0, end - at);
        if (k > 0 && name[k + 1] == '#' && zero) {
            size_t head = (size_t)(zero - (bytes + at)), data = end - at - head - 1;
            uint8_t *whole = (uint8_t *)malloc(8 + head + data);
            name[k + 1] = 0;
            lemon__put64(whole, head);
            memcpy(whole + 8, bytes + at, head);
            memcpy(whole + 8 + head, zero + 1, data);
            vfs_put(name, whole, 8 + head + data);
            free(whole);
        } else if (end >= at) vfs_put(name, bytes + at, end - at);
        at = next;
    }
}

static void fuzz_folder(const uint8_t *bytes, size_t n) {
    lemon_model *m = NULL;
    lemon_status status;
    fuzz_unfold(bytes, n);
    if (fuzz_hash(bytes, n) % 8 == 1) vfs_break(VFS_NO_MAP, 0);
    status = lemon_load(fuzz_ctx, fuzz_hash(bytes, n) % 8 == 2 ? "m/config.json" : "m", &m);
    if (status ? m != NULL : m == NULL) fuzz_fail("status and model disagree");
    if (m) fuzz_use_model(m, fuzz_is_thorough(bytes, n));
    lemon_model_free(fuzz_ctx, m);
}

/* ---- tokenizer files.  A leading '+' stands for llama2.c's first 259 pieces, @BYTES@ for the 256 byte pieces of
        SentencePiece's family in JSON, @LETTERS@ for those of GPT-2's: all must be there, and mutating them is idle ---- */

static void fuzz_expand(const uint8_t *bytes, size_t n, lemon__bytes *out) {
    size_t i, k;
    int byte;
    for (i = 0; i < n; i++) {
        int letters = n - i >= 9 && memcmp(bytes + i, "@LETTERS@", 9) == 0;
        if (!letters && (n - i < 7 || memcmp(bytes + i, "@BYTES@", 7) != 0)) { lemon__put(out, bytes + i, 1); continue; }
        for (byte = 0; byte < 256; byte++) {
            uint8_t letter[4];
            k = letters ? lemon__utf8_put(letter, lemon__letter_of(byte)) : 0;
            if (letters) lemon__print_string(out, letter, k);
            else lemon__print(out, "\"<0x%02X>\"", (unsigned)byte);
            lemon__print(out, ":%d%s", letters ? byte : byte + 3, byte < 255 ? "," : "");
        }
        i += letters ? 8 : 6;
        if (out->count > 100000) return;
    }
}

static void fuzz_load_tokenizer(const uint8_t *bytes, size_t n, int32_t vocab_size, int thorough) {
    lemon_reader r = fuzz_memory(bytes, n, 1);
    lemon_tokenizer *t = NULL;
    lemon_status status = lemon_tokenizer_load_reader(fuzz_ctx, &r, vocab_size, &t);
    if (status ? t != NULL : t == NULL) fuzz_fail("status and tokenizer disagree");
    if (t) fuzz_use_tokenizer(t, thorough);
    if (t && thorough) {            /* all writers of tokenizers */
        lemon_config c = fuzz_config(4, 1, 2, 1, 4);
        lemon_model *m = NULL;
        c.vocab_size = lemon_tokenizer_size(t) ? lemon_tokenizer_size(t) : 1;
        if (lemon_model_create(fuzz_ctx, &c, &m)) fuzz_fail("no model");
        lemon_model_set_tokenizer(fuzz_ctx, m, t);
        fuzz_use_model(m, 1);
        lemon_model_free(fuzz_ctx, m);
    } else lemon_tokenizer_free(fuzz_ctx, t);
}

static void fuzz_tokenizer_bin(const uint8_t *bytes, size_t n) {
    int thorough = fuzz_is_thorough(bytes, n), byte;
    uint8_t *whole;
    size_t at = 4;
    if (n < 5 || *bytes != '+') { fuzz_load_tokenizer(bytes, n, fuzz_hash(bytes, n) % 4 == 1 ? 300 : 0, thorough); return; }
    whole = (uint8_t *)calloc(1, 259 * 14 + n);
    memcpy(whole, bytes + 1, 4);
    for (byte = -3; byte < 256; byte++) {
        lemon__put32(whole + at + 4, 6);
        snprintf((char *)whole + at + 8, 7, "<0x%02X>", (unsigned)byte & 255);
        at += 14;
    }
    memcpy(whole + at, bytes + 5, n - 5);
    fuzz_size = at + n - 5;
    fuzz_load_tokenizer(whole, at + n - 5, 0, thorough);
    free(whole);
}

static void fuzz_tokenizer_json(const uint8_t *bytes, size_t n) {
    lemon__bytes out = lemon__bytes_in(NULL);
    fuzz_expand(bytes, n, &out);
    fuzz_size = (size_t)out.count;
    fuzz_load_tokenizer(out.data, (size_t)out.count, fuzz_hash(bytes, n) % 4 == 1 ? 300 : 0, fuzz_is_thorough(bytes, n));
    lemon__bytes_free(&out);
}

/* ---- texts: the first byte picks one of some tokenizers; what byte-level ones encode, they give back ---- */

enum { FUZZ_TOKENIZERS = 8 };
static lemon_tokenizer *fuzz_tokenizers[FUZZ_TOKENIZERS];

static void fuzz_make_tokenizers(void) {
    static const char *const pre[] = {
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
        "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},"
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}]}"};
    static const char head[] = "{\"added_tokens\":[{\"id\":262,\"content\":\"<|endoftext|>\",\"special\":true},{\"id\":263,"
        "\"content\":\"<s>\",\"special\":false,\"lstrip\":true},{\"id\":264,\"content\":\"<s>x\",\"rstrip\":true}],\"normalizer\":%s,"
        "\"pre_tokenizer\":%s,\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{@LETTERS@,\"he\":256,"
        "\"\\u0120t\":257,\"\\u0120the\":258,\"ll\":259,\"12\":260,\"aa\":261},\"merges\":[\"h e\",\"\\u0120 t\",\"\\u0120t he\",\"l l\","
        "\"1 2\",\"a a\"]}}";
    static const char prose[] = "the cat the hat aaaa aaa 123 the the \xc3\xa9\xc3\xa9t\xc3\xa9 a cat";
    char text[2048];
    int i;
    lemon_tokenizer_bytes(fuzz_ctx, &fuzz_tokenizers[0]);
    lemon_tokenizer_train(fuzz_ctx, prose, sizeof prose - 1, 270, &fuzz_tokenizers[1]);
    for (i = 2; i < 6; i++) {
        lemon__bytes out = lemon__bytes_in(NULL);
        lemon_reader r;
        snprintf(text, sizeof text, head, i == 3 ? "{\"type\":\"NFC\"}" : "null", pre[i == 4]);
        fuzz_expand((const uint8_t *)text, strlen(text), &out);
        r = fuzz_memory(out.data, (size_t)out.count, 1);
        if (lemon_tokenizer_load_reader(fuzz_ctx, &r, 0, &fuzz_tokenizers[i])) fuzz_fail("a tokenizer of the harness");
        lemon__bytes_free(&out);
    }
    fuzz_tokenizers[4]->rules.split = LEMON__SPLIT_LLAMA3;       /* same pieces, another pattern */
    fuzz_tokenizers[5]->rules.split = LEMON__SPLIT_QWEN2;
    for (i = 6; i < 8; i++)
        if (lemon_tokenizer_clone(fuzz_ctx, fuzz_tokenizers[i - 5 == 1 ? 1 : 3], &fuzz_tokenizers[i])) fuzz_fail("clone");
    fuzz_tokenizers[6]->rules.prefix = LEMON__PREFIX_MISSING;
    fuzz_tokenizers[6]->rules.blank_mark = 1;
    fuzz_tokenizers[7]->rules.split = LEMON__SPLIT_QWEN35;
    fuzz_tokenizers[7]->rules.prefix = LEMON__PREFIX_FIRST;
}

static void fuzz_text_in(const uint8_t *bytes, size_t n) {
    const lemon_tokenizer *t;
    lemon_tokens tokens;
    lemon_tokenizer *learned = NULL;
    char *exact;
    int i, whole, thorough = fuzz_is_thorough(bytes, n);
    if (n < 1) return;
    t = fuzz_tokenizers[*bytes % FUZZ_TOKENIZERS];
    whole = t->rules.split && !t->rules.nfc && !t->rules.prefix && !memmem(bytes + 1, n - 1, "<s>", 3);  /* <s> strips */
    exact = (char *)malloc(n);
    memcpy(exact, bytes + 1, n - 1);
    memset(&tokens, 0, sizeof tokens);
    if (fuzz_encode(t, exact, n - 1, whole)) fuzz_fail("encode");
    fuzz_encode_special(t, exact, n - 1);
    if (lemon_tokens_from_text(fuzz_ctx, t, exact, n - 1, &tokens)) fuzz_fail("tokens_from_text");
    lemon_tokens_free(fuzz_ctx, &tokens);
    if (thorough && !lemon_tokenizer_train(fuzz_ctx, exact, n - 1, 280, &learned)) fuzz_use_tokens(learned, exact, n - 1);
    lemon_tokenizer_free(fuzz_ctx, learned);
    if (thorough) {
        const char *paths[] = {"in.txt", "in.u16", "in.u32"};
        for (i = 0; i < 3; i++) vfs_put(paths[i], exact, n - 1);
        for (i = 0; i < 3; i++) lemon_tokens_from_files(fuzz_ctx, t, 280, paths + i, 1, &tokens);
        lemon_tokens_free(fuzz_ctx, &tokens);
    }
    free(exact);
}

/* ---- all of them ---- */

static const fuzz_reader fuzz_readers[] = {
    {"lemon", fuzz_lemon}, {"folder", fuzz_folder}, {"gguf", fuzz_any_model}, {"llama2c", fuzz_any_model},
    {"tokenizer_bin", fuzz_tokenizer_bin}, {"tokenizer_json", fuzz_tokenizer_json}, {"operators", fuzz_operators},
    {"resume", fuzz_resume}, {"session", fuzz_saved_session}, {"text", fuzz_text_in}};
enum { FUZZ_READERS = sizeof fuzz_readers / sizeof fuzz_readers[0] };

static const fuzz_reader *fuzz_find(const char *name) {
    int i;
    for (i = 0; name && i < FUZZ_READERS; i++)
        if (strcmp(name, fuzz_readers[i].name) == 0) return &fuzz_readers[i];
    return NULL;
}

static size_t fuzz_before;
static void fuzz_open(void) {
    static lemon_train_options o;
    static lemon_tokens tokens;
    lemon_options options;
    lemon_session_options session;
    lemon_config teacher = fuzz_config(4, 2, 2, 1, 6), trained = fuzz_config(2, 1, 1, 1, 2);
    memset(&options, 0, sizeof options);
#ifdef M_MMAP_THRESHOLD
    mallopt(M_MMAP_THRESHOLD, 1 << 28);         /* arenas ask for 1 MB each time: not from the system, please */
    mallopt(M_TRIM_THRESHOLD, 1 << 29);
#endif
    options.threads = 1;
    options.resize = fuzz_resize;
    fuzz_size = (size_t)1 << 30;
    fuzz_ctx = lemon_open(&options);
    if (fuzz_ctx == NULL) abort();
    if (lemon_model_create(fuzz_ctx, &teacher, &fuzz_teacher) || lemon_model_init(fuzz_ctx, fuzz_teacher, 1)) abort();
    o = fuzz_train_options();
    tokens = fuzz_tokens();
    fuzz_trainer.ctx = fuzz_ctx;
    if (lemon_model_create(fuzz_ctx, &trained, &fuzz_trainer.model)) abort();
    fuzz_trainer.o = o;
    lemon__train_resolve(&trained, &fuzz_trainer.o);
    if (lemon__trainer_open(&fuzz_trainer, &tokens)) fuzz_fail("the trainer does not open");
    lemon_session_defaults(&session);
    session.cache = LEMON_F16;
    if (lemon_session_open_with(fuzz_ctx, fuzz_teacher, &session, &fuzz_session)) fuzz_fail("the session does not open");
    if (lemon__workspaces(fuzz_ctx)) abort();
    fuzz_make_tokenizers();
    fuzz_before = fuzz_live;
}

static void fuzz_one(const fuzz_reader *reader, const uint8_t *bytes, size_t n) {
    fuzz_size = n;
    fuzz_live = fuzz_peak = 0;
    fuzz_busy = 1;
    vfs_reset();
    reader->run(bytes, n);
    lemon__forms_free(fuzz_ctx);        /* tables of tokenizers that stay open are the context's, no leak */
    fuzz_busy = 0;
    if (vfs_opened()) fuzz_fail("a file stays open");
    if (fuzz_live != 0) fuzz_fail("memory is left");
    fuzz_runs++;
}

static void fuzz_close(void) {
    int i;
    vfs_reset();
    for (i = 0; i < FUZZ_TOKENIZERS; i++) lemon_tokenizer_free(fuzz_ctx, fuzz_tokenizers[i]);
    lemon_session_close(fuzz_session);
    lemon_tape_close(fuzz_trainer.q.tape);
    lemon_arena_free(fuzz_ctx, &fuzz_trainer.arena);
    lemon_model_free(fuzz_ctx, fuzz_trainer.model);
    lemon_model_free(fuzz_ctx, fuzz_teacher);
    lemon_close(fuzz_ctx);
}

#endif
