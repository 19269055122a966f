/*  Chapter 9: vocabularies, the encoder against a naive one, the learner against a naive one, text files to tokens. */
#include "check.h"

/* ---- the reference: llama2.c's rule by its own text, in quadratic time and without any index ---- */

static int naive_find(const lemon_tokenizer *t, const uint8_t *p, size_t n) {
    int i;
    size_t k;
    for (i = 259; i < lemon_tokenizer_size(t); i++) {
        const uint8_t *piece = lemon__piece(t, i, &k);
        if (k == n && memcmp(piece, p, n) == 0) return i;
    }
    return -1;
}

static size_t naive_char(const uint8_t *p, size_t n) {
    size_t k = (*p & 0xe0) == 0xc0 ? 2 : (*p & 0xf0) == 0xe0 ? 3 : (*p & 0xf8) == 0xf0 ? 4 : 1, i;
    for (i = 1; i < k; i++)
        if (i >= n || (p[i] & 0xc0) != 0x80) return 1;
    return k;
}

static int naive_encode(const lemon_tokenizer *t, const char *text, size_t n, int *ids) {
    uint8_t joined[8192], *copy = (uint8_t *)malloc(n + 1);
    int count = 0, i, best, best_id, id;
    size_t at, k, a, b;
    const uint8_t *p;
    copy[0] = ' ';
    if (n > 0) memcpy(copy + 1, text, n);
    if (n > 0) n++;
    for (at = 0; at < n; at += k) {
        k = naive_char(copy + at, n - at);
        id = naive_find(t, copy + at, k);
        if (id >= 0) ids[count++] = id;
        else for (a = 0; a < k; a++) ids[count++] = copy[at + a] + 3;
    }
    for (;;) {
        for (best = -1, best_id = 0, i = 0; i + 1 < count; i++) {
            if (ids[i] < 259 || ids[i + 1] < 259) continue;
            p = lemon__piece(t, ids[i], &a);
            memcpy(joined, p, a);
            p = lemon__piece(t, ids[i + 1], &b);
            memcpy(joined + a, p, b);
            id = naive_find(t, joined, a + b);
            if (id >= 0 && (best < 0 || t->scores[id] > t->scores[best_id])) { best = i; best_id = id; }
        }
        if (best < 0) break;
        ids[best] = best_id;
        for (i = best + 1; i + 1 < count; i++) ids[i] = ids[i + 1];
        count--;
    }
    free(copy);
    return count;
}

static int agrees(lemon_ctx *ctx, const lemon_tokenizer *t, const char *text, size_t n) {
    int ids[4096], count = naive_encode(t, text, n, ids), i, ok;
    lemon_tokens tokens;
    memset(&tokens, 0, sizeof tokens);
    ok = lemon_encode(ctx, t, text, n, &tokens) == LEMON_OK && tokens.count == count;
    for (i = 0; ok && i < count; i++) ok = tokens.ids[i] == ids[i];
    lemon_tokens_free(ctx, &tokens);
    return ok;
}

/*  Whether the pieces of all ids, one behind the other, are the text. */
static int decodes(lemon_ctx *ctx, const lemon_tokenizer *t, const char *text, size_t n) {
    lemon_tokens tokens;
    int32_t previous = lemon_tokenizer_bos(t);
    size_t at = 0, k;
    int64_t i;
    int ok;
    const char *piece;
    memset(&tokens, 0, sizeof tokens);
    ok = lemon_encode(ctx, t, text, n, &tokens) == LEMON_OK;
    for (i = 0; ok && i < tokens.count; i++) {
        ok = lemon_decode(ctx, t, previous, tokens.ids[i], &piece, &k) == LEMON_OK;
        if (ok && i == 0 && t->rules.prefix && tokens.ids[0] == ' ' + 3)
            k = 0; /* the blank before the text, as a byte */
        ok = ok && at + k <= n && memcmp(text + at, piece, k) == 0;
        at += k;
        previous = tokens.ids[i];
    }
    lemon_tokens_free(ctx, &tokens);
    return ok && at == n;
}

/* ---- tok512 ---- */

static void test_vector(lemon_ctx *ctx, const lemon_tokenizer *t) {
    static const char text[] = "Hello, w\xc3\xb6rld! \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x99\x82\n\ttabs  two";
    static const int want[] = {1,   346, 306, 414, 432, 263, 198, 185, 420, 341, 443, 410, 233, 154, 168, 233, 159,
                               175, 410, 243, 162, 156, 133, 13,  12,  413, 412, 430, 419, 410, 259, 424, 414};
    lemon_tokens tokens;
    int i, ok;
    memset(&tokens, 0, sizeof tokens);
    ok = lemon_tokens_from_text(ctx, t, text, sizeof text - 1, &tokens) == LEMON_OK &&
         tokens.count == (int)(sizeof want / sizeof want[0]);
    for (i = 0; ok && i < tokens.count; i++) ok = tokens.ids[i] == want[i];
    check(ok, "tok512 gives the known ids");
    check(decodes(ctx, t, text, sizeof text - 1), "and decodes to the text");
    check(agrees(ctx, t, text, sizeof text - 1), "and agrees with the naive encoder");
    lemon_tokens_free(ctx, &tokens);
}

static void test_random(lemon_ctx *ctx, const lemon_tokenizer *t, const char *sample, size_t sample_bytes,
                        const char *name) {
    static const char *const bits[] = {" ",     "  ",   "the",      "\xc3\xa9", "\xe2\x80\x9c", "\xf0\x9f\x99\x82",
                                       "\xc3",  "\xa9", "\xe2\x80", "<0x41>",   "<s>",          "\n<s>\n",
                                       "<unk>", "\n",   "a",        "aaa",      "\xff",         "\xf8",
                                       "."};
    lemon_rng rng;
    char text[800];
    int round, bad = 0, lost = 0;
    lemon_rng_seed(&rng, 11);
    for (round = 0; round < rounds_of(1500); round++) {
        size_t n = 0, want = (size_t)lemon_rng_below(&rng, round % 10 ? 60 : 300), k;
        while (n < want) {
            int64_t kind = lemon_rng_below(&rng, 4);
            if (kind == 0) text[n++] = (char)lemon_rng_below(&rng, 256);
            else if (kind == 1) {
                const char *b = bits[lemon_rng_below(&rng, 19)];
                memcpy(text + n, b, strlen(b));
                n += strlen(b);
            } else {
                k = (size_t)lemon_rng_below(&rng, 20);
                memcpy(text + n, sample + lemon_rng_below(&rng, (int64_t)(sample_bytes - k)), k);
                n += k;
            }
        }
        bad += !agrees(ctx, t, text, n);
        lost += !decodes(ctx, t, text, n);
    }
    check(bad == 0, name);
    check(lost == 0, "   and every byte comes back");
}

/*  Half a second for each megabyte. */
static void test_speed(lemon_ctx *ctx, const lemon_tokenizer *t, const char *text, size_t n, const char *name) {
    lemon_tokens tokens;
    double seconds = cpu_seconds();
    int ok;
    memset(&tokens, 0, sizeof tokens);
    ok = lemon_encode(ctx, t, text, n, &tokens) == LEMON_OK;
    seconds = cpu_seconds() - seconds;
    detail("%.0f ms", seconds * 1e3);
    check(ok && seconds < (light() ? 20 : 0.5) * (double)lemon__max((int64_t)n, 1 << 20) / (1 << 20), name);
    lemon_tokens_free(ctx, &tokens);
}

static int same_vocabulary(const lemon_tokenizer *a, const lemon_tokenizer *b) {
    int32_t i;
    size_t m, n;
    if (lemon_tokenizer_size(a) != lemon_tokenizer_size(b) || a->rules.prefix != b->rules.prefix) return 0;
    for (i = 0; i < lemon_tokenizer_size(a); i++) {
        const uint8_t *p = lemon__piece(a, i, &m), *q = lemon__piece(b, i, &n);
        if (m != n || memcmp(p, q, n) != 0 || memcmp(&a->scores[i], &b->scores[i], 4) != 0) return 0;
    }
    return 1;
}

static void test_tok512(lemon_ctx *ctx) {
    char path[512], text_path[512];
    lemon_tokenizer *t = NULL, *copy = NULL;
    size_t n, m;
    char *text, *a, *b;
    if (!data_path("tok512.bin", path, sizeof path) ||
        !data_path("tinystories_valid.txt", text_path, sizeof text_path)) {
        skip("tok512");
        return;
    }
    check(lemon_tokenizer_load(ctx, path, 512, &t) == LEMON_OK, "tok512 is loaded");
    text = slurp(text_path, &n);
    test_vector(ctx, t);
    test_random(ctx, t, text, n, "tok512 agrees with the naive encoder on random strings");
    test_speed(ctx, t, text, n, "stories take less than half a second a megabyte");
    text = (char *)realloc(text, 1 << 20);
    memset(text, 'a', 1 << 20);
    test_speed(ctx, t, text, 1 << 20, "a megabyte of one letter takes less than half a second");
    check(lemon_tokenizer_save(ctx, scratch("lemon_test_tok.bin"), t) == LEMON_OK, "it is saved");
    a = slurp(path, &n);
    b = slurp(scratch("lemon_test_tok.bin"), &m);
    check(n == m && memcmp(a, b, n) == 0, "with the bytes it came from");
    check(lemon_tokenizer_clone(ctx, t, &copy) == LEMON_OK && same_vocabulary(t, copy), "a clone is equal");
    remove(scratch("lemon_test_tok.bin"));
    free(text); free(a); free(b);
    lemon_tokenizer_free(ctx, t);
    lemon_tokenizer_free(ctx, copy);
}

static void test_files(lemon_ctx *ctx) {
    char tok[512], valid[512];
    const char *paths[3];
    static const uint8_t ids16[] = {1, 0, 255, 1, 7, 0}, ids32[] = {1, 0, 0, 0, 0, 2, 0, 0};
    lemon_tokenizer *t = NULL;
    lemon_tokens tokens;
    memset(&tokens, 0, sizeof tokens);
    if (!data_path("tok512.bin", tok, sizeof tok) || !data_path("tinystories_valid.txt", valid, sizeof valid)) {
        skip("token counts of files");
        return;
    }
    lemon_tokenizer_load(ctx, tok, 512, &t);
    paths[0] = valid;
    check(lemon_tokens_from_files(ctx, t, 512, paths, 1, &tokens) == LEMON_OK && tokens.count == 104971,
          "tinystories_valid.txt has 104,971 tokens");
    tokens.count = 0;
    spill(scratch("lemon_test.u16"), ids16, sizeof ids16);
    spill(scratch("lemon_test.u32"), ids32, 4);
    paths[0] = scratch("lemon_test.u16"); paths[1] = scratch("lemon_test.u32");
    check(lemon_tokens_from_files(ctx, NULL, 512, paths, 2, &tokens) == LEMON_OK && tokens.count == 4 &&
              tokens.ids[1] == 511 && tokens.ids[3] == 1,
          "raw ids are joined in order");
    check(lemon_tokens_from_files(ctx, NULL, 511, paths, 2, &tokens) == LEMON_E_FORMAT && tokens.count == 4 &&
              strstr(lemon_error(ctx), "token 1 is 511, expected 0 to 510"),
          "ids beyond the vocabulary are refused by place and value");
    spill(scratch("lemon_test.u32"), ids32, 6);
    check(lemon_tokens_from_files(ctx, NULL, 512, paths, 2, &tokens) == LEMON_E_FORMAT &&
              strstr(lemon_error(ctx), "lemon_test.u32"),
          "an odd size is refused by name");
    spill(scratch("lemon_test.u32"), ids32, 8);
    check(lemon_tokens_from_files(ctx, NULL, 512, paths, 2, &tokens) == LEMON_E_FORMAT, "id 512 of 512 is refused");
    paths[0] = valid;
    check(lemon_tokens_from_files(ctx, NULL, 512, paths, 1, &tokens) == LEMON_E_ARG &&
              strstr(lemon_error(ctx), "--tokenizer"),
          "text without a tokenizer says what to give");
    check(lemon_tokens_from_files(ctx, t, 300, paths, 1, &tokens) == LEMON_E_ARG &&
              strstr(lemon_error(ctx), "512 pieces"),
          "a tokenizer larger than the model is refused");
    remove(scratch("lemon_test.u16"));
    remove(scratch("lemon_test.u32"));
    lemon_tokens_free(ctx, &tokens);
    lemon_tokenizer_free(ctx, t);
}

/* ---- bytes and documents ---- */

static int documents(lemon_ctx *ctx, const lemon_tokenizer *t, const char *text, const char *want) {
    lemon_tokens tokens;
    char got[256];
    int64_t i;
    int ok;
    memset(&tokens, 0, sizeof tokens);
    ok = lemon_tokens_from_text(ctx, t, text, strlen(text), &tokens) == LEMON_OK;
    for (i = 0; i < tokens.count; i++) got[i] = tokens.ids[i] == 1 ? '|' : (char)(tokens.ids[i] - 3);
    got[tokens.count] = 0;
    lemon_tokens_free(ctx, &tokens);
    if (strcmp(got, want) != 0) detail("got %s", got);
    return ok && strcmp(got, want) == 0;
}

static void test_bytes(lemon_ctx *ctx) {
    lemon_tokenizer *t = NULL, *again = NULL;
    char all[256];
    const char *piece;
    size_t n;
    int i;
    for (i = 0; i < 256; i++) all[i] = (char)i;
    check(lemon_tokenizer_bytes(ctx, &t) == LEMON_OK && lemon_tokenizer_size(t) == 259 && lemon_tokenizer_bos(t) == 1 &&
              lemon_tokenizer_eos(t) == 2,
          "the byte tokenizer has 259 pieces");
    check(decodes(ctx, t, all, 256), "all bytes come back");
    check(lemon_decode(ctx, t, 1, ' ' + 3, &piece, &n) == LEMON_OK && n == 1 && *piece == ' ',
          "a blank after BOS stays where none is put");
    check(lemon_decode(ctx, t, 1, 259, &piece, &n) == LEMON_E_ARG &&
              lemon_decode(ctx, t, 1, -1, &piece, &n) == LEMON_E_ARG,
          "ids out of range are refused");
    check(documents(ctx, t, "one\n<|endoftext|>\ntwo\n", "|one|two"), "documents are split at the mark");
    check(documents(ctx, t, "  a b \t\r\n\v\f<|endoftext|>\n<|endoftext|>\r\n \n<|endoftext|>\r\nc\r\n<|endoftext|>",
                    "|a b \t\r\n\v\f<|endoftext|>|c"),
          "only a line of its own is a mark; CR, no last newline, empty documents");
    check(documents(ctx, t, "<|endoftext|>", "") && documents(ctx, t, "", "") && documents(ctx, t, " \n", ""),
          "nothing makes nothing");
    check(documents(ctx, t, "x\n <|endoftext|>\n<|endoftext|> \n<|endoftext|>\r\r\ny",
                    "|x\n <|endoftext|>\n<|endoftext|> \n<|endoftext|>\r\r\ny"),
          "a mark with anything beside it is text");
    lemon_tokenizer_save(ctx, scratch("lemon_test_bytes.bin"), t);
    check(lemon_tokenizer_load(ctx, scratch("lemon_test_bytes.bin"), 259, &again) == LEMON_OK &&
              same_vocabulary(t, again),
          "it survives a file");
    remove(scratch("lemon_test_bytes.bin"));
    lemon_tokenizer_free(ctx, t);
    lemon_tokenizer_free(ctx, again);
}

/* ---- learning, against a naive learner that counts everything anew for each piece ---- */

static int naive_class(uint8_t c) {
    return c >= 0x80 || (c >= 0x41 && c <= 0x5a) || (c >= 0x61 && c <= 0x7a) ? 1
           : c >= '0' && c <= '9'                                            ? 2
           : c <= ' ' || c == 127                                            ? 0
                                                                             : 3;
}

static int naive_bound(uint8_t a, uint8_t b) {      /* is there a word's end between these two? */
    int x = naive_class(a), y = naive_class(b);
    return !((x == y && x != 0) || (a == ' ' && y != 0));
}

static int naive_train(const lemon_tokenizer *t, const char *text, size_t n, int first, int32_t *ids, uint8_t *ends) {
    /* ids: the text as single pieces of t; ends: 1 where a word ends behind it; then replays the merges and compares */
    int count = 0, known, i, j;
    size_t at, k;
    for (at = 0; at < n; at += k) {
        k = naive_char((const uint8_t *)text + at, n - at);
        ids[count] = naive_find(t, (const uint8_t *)text + at, k);
        ends[count++] = (uint8_t)(at + k >= n || naive_bound((uint8_t)text[at + k - 1], (uint8_t)text[at + k]));
    }
    for (known = first; known < lemon_tokenizer_size(t);) {
        int best_left = -1, best_right = -1, best = 0, piece;
        uint8_t joined[512];
        size_t a, b;
        const uint8_t *p;
        static int table[700][700];
        memset(table, 0, sizeof table);
        for (i = 0; i + 1 < count; i++)
            if (!ends[i] && ids[i] >= 0 && ids[i + 1] >= 0) table[ids[i]][ids[i + 1]]++;
        for (i = 0; i < known; i++)
            for (j = 0; j < known; j++)
                if (table[i][j] > best) { best = table[i][j]; best_left = i; best_right = j; }
        if (best == 0) return 0;
        p = lemon__piece(t, best_left, &a);
        memcpy(joined, p, a);
        p = lemon__piece(t, best_right, &b);
        memcpy(joined + a, p, b);
        piece = naive_find(t, joined, a + b);
        if (piece < 0 || piece > known) return 0;
        if (piece == known) known++;
        for (i = j = 0; i < count; i++, j++) {
            if (i + 1 < count && !ends[i] && ids[i] == best_left && ids[i + 1] == best_right) {
                ids[j] = piece;
                ends[j] = ends[++i];
            } else {
                ids[j] = ids[i];
                ends[j] = ends[i];
            }
        }
        count = j;
    }
    return 1;
}

static void test_train(lemon_ctx *ctx) {
    char path[512];
    lemon_tokenizer *t = NULL, *again = NULL, *other = NULL;
    size_t n = 0;
    char *text = data_path("tinystories_train.txt", path, sizeof path) ? slurp(path, &n) : NULL;
    lemon_tokens tokens;
    int32_t *ids, first;
    uint8_t *ends;
    memset(&tokens, 0, sizeof tokens);
    if (text == NULL) { skip("a vocabulary learned from stories"); return; }
    check(lemon_tokenizer_train(ctx, text, n, 512, &t) == LEMON_OK && lemon_tokenizer_size(t) == 512,
          "a vocabulary of 512 is learned");
    if (t == NULL) { free(text); return; }
    lemon_tokenizer_train(ctx, text, n, 512, &other);
    check(other && same_vocabulary(t, other), "the same text gives the same vocabulary");
    lemon_encode(ctx, t, text, n, &tokens);
    check((double)n / (double)tokens.count > 2.0, "it shortens stories");
    lemon_tokens_free(ctx, &tokens);
    check(lemon_tokenizer_save(ctx, scratch("lemon_test_learned.bin"), t) == LEMON_OK &&
              lemon_tokenizer_load(ctx, scratch("lemon_test_learned.bin"), 512, &again) == LEMON_OK &&
              same_vocabulary(t, again),
          "it survives a file");
    remove(scratch("lemon_test_learned.bin"));
    test_random(ctx, t, text, n, "a learned vocabulary agrees with the naive encoder");
    lemon_tokenizer_free(ctx, other);
    lemon_tokenizer_free(ctx, t);
    lemon_tokenizer_train(ctx, text, 30000, 400, &t);
    for (first = 259;
         t && first < 400 &&
         (t->pieces.spans[first].bytes == naive_char(lemon__piece(t, first, &n), t->pieces.spans[first].bytes));
         first++) {}
    ids = (int32_t *)malloc(30000 * sizeof *ids);
    ends = (uint8_t *)malloc(30000);
    check(t && first > 280 && first < 400 && naive_train(t, text, 30000, first, ids, ends),
          "the naive learner finds the same pieces in the same order");
    free(ids);
    free(ends);
    lemon_tokenizer_free(ctx, other = NULL);
    check(lemon_tokenizer_train(ctx, text, 900000, 4096, &other) == LEMON_OK, "a vocabulary of 4096 is learned");
    free(text);
    lemon_tokenizer_free(ctx, t);
    lemon_tokenizer_free(ctx, again);
    lemon_tokenizer_free(ctx, other);
}

static void test_train_edges(lemon_ctx *ctx) {
    lemon_tokenizer *t = NULL;
    char *text = (char *)malloc(1 << 20);
    check(lemon_tokenizer_train(ctx, "", 0, 260, &t) == LEMON_OK && lemon_tokenizer_size(t) == 260 &&
              decodes(ctx, t, "hi there", 8),
          "no text and one piece: the blank");
    lemon_tokenizer_free(ctx, t);
    check(lemon_tokenizer_train(ctx, "ab", 2, 400, &t) == LEMON_E_ARG && t == NULL &&
              strstr(lemon_error(ctx), "size of the vocabulary is 400, expected at most 263"),
          "too little text says how much it is good for");
    check(lemon_tokenizer_train(ctx, "ab", 2, 259, &t) == LEMON_E_ARG &&
              lemon_tokenizer_train(ctx, "ab", 2, 65537, &t) == LEMON_E_ARG,
          "sizes out of range are refused");
    memset(text, 'a', 1 << 20);
    check(lemon_tokenizer_train(ctx, text, 1 << 20, 270, &t) == LEMON_OK && agrees(ctx, t, text, 2000),
          "a megabyte of one letter");
    test_speed(ctx, t, text, 1 << 20, "a megabyte that is one run takes less than half a second");
    lemon_tokenizer_free(ctx, t);
    check(lemon_tokenizer_train(ctx, "\xff\xfe\0\xc3\xa9\xc3\xa9 \xc3\xa9\xc3\xa9 ab ab", 18, 263, &t) == LEMON_OK &&
              decodes(ctx, t, "\xff\xc3\xa9\xc3\xa9", 5),
          "bytes that are no characters stay bytes");
    lemon_tokenizer_free(ctx, t);
    free(text);
}

/* ---- damage and want of memory ---- */

static lemon_reader reader_of(const uint8_t *bytes, size_t n) {
    lemon_reader r;
    memset(&r, 0, sizeof r);
    r.name = "tok.bin"; r.map = bytes; r.size = n;
    return r;
}

static size_t put_piece(uint8_t *p, float score, uint32_t n, const char *bytes, size_t real) {
    memcpy(p, &score, 4);
    lemon__put32(p + 4, n);
    memcpy(p + 8, bytes, real);
    return 8 + real;
}

static void test_hostile(lemon_ctx *ctx) {
    uint8_t file[8192], *exact;
    size_t n = 4, i, marks[300], before = lemon_memory(ctx, NULL);
    char text[8];
    lemon_tokenizer *t = NULL;
    lemon_reader r;
    lemon_rng rng;
    int k, bad = 0, round;
    lemon__put32(file, 7);
    for (k = 0; k < 262; k++) {
        marks[k] = n;
        if (k < 3) n += put_piece(file + n, 0, 3, "spc", 3);
        else if (k < 259) {
            snprintf(text, sizeof text, "<0x%02X>", (unsigned)(k - 3));
            n += put_piece(file + n, 0, 6, text, 6);
        } else n += put_piece(file + n, (float)-k, (uint32_t)(k - 258), "abc", (size_t)(k - 258));
    }
    r = reader_of(file, n);
    check(lemon_tokenizer_load_reader(ctx, &r, 262, &t) == LEMON_OK, "a hand-made vocabulary is loaded");
    lemon_tokenizer_free(ctx, t);
    for (i = 0; i < n; i++) {
        exact = (uint8_t *)malloc(i ? i : 1);
        memcpy(exact, file, i);
        r = reader_of(exact, i);
        bad += lemon_tokenizer_load_reader(ctx, &r, 262, &t) == LEMON_OK || t != NULL ||
               strncmp(lemon_error(ctx), "tok.bin: ", 9) != 0;
        free(exact);
    }
    check(bad == 0, "every truncation is refused");
    r = reader_of(file, n);
    check(lemon_tokenizer_load_reader(ctx, &r, 261, &t) == LEMON_E_FORMAT &&
              lemon_tokenizer_load_reader(ctx, &r, 263, &t) == LEMON_E_FORMAT &&
              lemon_tokenizer_load_reader(ctx, &r, 100, &t) == LEMON_E_ARG &&
              lemon_tokenizer_load_reader(ctx, &r, INT32_MAX, &t) == LEMON_E_ARG,
          "another vocabulary size is refused");
    lemon__put32(file + marks[260], 0x7fc00000);
    check(lemon_tokenizer_load_reader(ctx, &r, 262, &t) == LEMON_E_FORMAT &&
              strstr(lemon_error(ctx), "score of piece 260"),
          "a score that is no number is named");
    lemon__put32(file + marks[260], 0);
    lemon__put32(file + marks[260] + 4, 0xffffffff);
    check(lemon_tokenizer_load_reader(ctx, &r, 262, &t) == LEMON_E_FORMAT && strstr(lemon_error(ctx), "piece 260"),
          "a length beyond the file is named");
    lemon__put32(file + marks[260] + 4, 2);
    file[marks[68] + 8] = 'x';
    check(lemon_tokenizer_load_reader(ctx, &r, 262, &t) == LEMON_E_UNSUPPORTED && strstr(lemon_error(ctx), "piece 68"),
          "a vocabulary without bytes is refused by name");
    file[marks[68] + 8] = '<';
    lemon_rng_seed(&rng, 9);
    for (bad = 0, round = 0; round < rounds_of(20000); round++) {
        size_t at = (size_t)lemon_rng_below(&rng, (int64_t)n);
        uint8_t keep = file[at];
        file[at] = (uint8_t)lemon_rng_next(&rng);
        exact = (uint8_t *)malloc(n);
        memcpy(exact, file, n);
        r = reader_of(exact, n);
        if (lemon_tokenizer_load_reader(ctx, &r, 262, &t) == LEMON_OK) bad += !decodes(ctx, t, "abcabc a<0x41>b", 15);
        lemon_tokenizer_free(ctx, t);
        bad += lemon_memory(ctx, NULL) != before;
        file[at] = keep;
        free(exact);
    }
    check(bad == 0, "random changes are refused, or still give a vocabulary that loses nothing");
}

static void test_memory(lemon_ctx *ctx) {
    static const char text[] =
        "the cat and the hat and the bat sat on the mat and that was that, 1234 times over; the end of the cat";
    lemon_tokenizer *t = NULL;
    lemon_tokens tokens;
    long n, live = heap.live, steps = 0;
    int bad = 0, done = 0;
    for (n = 1; !done; n++, steps++) {
        lemon_status status;
        memset(&tokens, 0, sizeof tokens);
        heap.calls = 0;
        heap.fail_at = n;
        status = lemon_tokenizer_train(ctx, text, sizeof text - 1, 290, &t);
        bad += status && (status != LEMON_E_MEMORY || t != NULL);
        if (!status) {
            status = lemon_tokens_from_text(ctx, t, text, sizeof text - 1, &tokens);
            bad += status && (status != LEMON_E_MEMORY || tokens.count != 0);
            done = !status;
        }
        heap.fail_at = 0;
        lemon_tokens_free(ctx, &tokens);
        lemon_tokenizer_free(ctx, t);
        bad += heap.live != live;
    }
    check(bad == 0 && steps > 20, "learning and encoding survive every failed allocation");
}

int main(void) {
    lemon_ctx *ctx = open_ctx(1);
    test_bytes(ctx);
    test_tok512(ctx);
    test_files(ctx);
    test_train(ctx);
    test_train_edges(ctx);
    test_hostile(ctx);
    test_memory(ctx);
    return check_close(ctx);
}
