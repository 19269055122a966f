/*  Chapter 9, vocabularies of other programs: the patterns against splits that a regular expression engine gave, byte-level
    tokenizers from tokenizer.json against a naive encoder, special tokens, streams, smaller vocabularies, .lemon files,
    damage, speed.  Real vocabularies are compared with other programs' ids by `make judges-vocab`. */
#include "check.h"

/* ---- the patterns ---- */

/*  Each text with the bytes of its words under GPT-2's pattern, that between digits, LLaMA 3's, Qwen 2's and Qwen 3.5's, as
    Node's regular expressions (Unicode 17) cut it. */
static const struct { const char *text, *words[5]; } splits[] = {
    {"Hello world",
     {"5 6", "5 6", "5 6", "5 6", "5 6"}},
    {"I'm don't WE'LL it'S 'sample y'all 'RE",
     {"1 2 4 2 3 1 2 3 1 1 2 6 2 1 3 2 2",
      "1 2 4 2 3 1 2 3 1 1 2 6 2 1 3 2 2",
      "1 2 4 2 3 3 3 2 2 6 2 4 2 2",
      "1 2 4 2 3 3 3 2 2 6 2 4 2 2",
      "1 2 4 2 3 3 3 2 2 6 2 4 2 2"}},
    {"a  b   c    \012\012  d \012 e  ",
     {"1 1 2 2 2 7 2 2 2 2",
      "1 1 2 2 2 7 2 2 2 2",
      "1 1 2 2 2 6 1 2 2 2 2",
      "1 1 2 2 2 6 1 2 2 2 2",
      "1 1 2 2 2 6 1 2 2 2 2"}},
    {"1 12 123 1234 12345 x9y",
     {"1 3 4 5 6 2 1 1",
      "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 2 1 1",
      "1 1 2 1 3 1 3 1 1 3 2 2 1 1",
      "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 2 1 1",
      "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 2 1 1"}},
    {"\011\011int x;\015\012\015\012}\012  \012",
     {"1 1 3 2 1 3 1 1 4", "1 1 3 2 1 3 1 1 4", "1 4 2 5 2 3", "1 4 2 5 2 3", "1 4 2 5 2 3"}},
    {"... !!! ?\012\012!\015\012x",
     {"3 4 2 1 1 1 1 1 1", "3 4 2 1 1 1 1 1 1", "3 4 4 3 1", "3 4 4 3 1", "3 4 4 3 1"}},
    {"\303\251\314\201a\314\200 e\314\201x",
     {"2 2 1 2 2 2 1", "2 2 1 2 2 2 1", "2 3 2 2 3", "2 3 2 2 3", "7 5"}},
    {"\346\227\245\346\234\254\350\252\236\343\201\247\343\201\231\343\200\202 \344\270\255\346\226"
     "\207 \355\225\234\352\265\255\354\226\264",
     {"15 3 7 10", "15 3 7 10", "15 3 7 10", "15 3 7 10", "15 3 7 10"}},
    {"\302\275 \302\262 \342\205\243 \331\243\331\244 \344\270\211",
     {"2 3 4 5 4", "2 1 2 1 3 1 2 2 4", "2 1 2 1 3 1 4 4", "2 1 2 1 3 1 2 2 4", "2 1 2 1 3 1 2 2 4"}},
    {"\360\237\231\202\360\237\221\215\360\237\217\275 a\360\237\231\202b",
     {"12 2 4 1", "12 2 4 1", "12 2 5", "12 2 5", "12 2 5"}},
    {"\302\240x \343\200\200 y\342\200\203z",
     {"2 1 4 2 3 1", "2 1 4 2 3 1", "3 4 2 4", "3 4 2 4", "3 4 2 4"}},
    {"''s '' 'd've",
     {"2 1 3 2 1 3", "2 1 3 2 1 3", "2 1 3 2 1 3", "2 1 3 2 1 3", "2 1 3 2 1 3"}},
    {"  '  ''re",
     {"1 2 1 3 2", "1 2 1 3 2", "1 2 1 3 2", "1 2 1 3 2", "1 2 1 3 2"}},
    {"\340\244\271\340\244\277\340\244\250\340\245\215\340\244\246\340\245\200",
     {"3 3 3 3 3 3", "3 3 3 3 3 3", "3 6 6 3", "3 6 6 3", "18"}},
    {"_a -b $5.00 #x",
     {"1 1 2 1 2 1 1 2 2 1",
      "1 1 2 1 2 1 1 1 1 2 1",
      "2 2 1 2 1 1 2 2 1",
      "2 2 1 2 1 1 1 1 2 1",
      "2 2 1 2 1 1 1 1 2 1"}},
    {"tab\011x \011x",
     {"3 1 1 1 1 1", "3 1 1 1 1 1", "3 2 1 2", "3 2 1 2", "3 2 1 2"}},
    {"end   ",
     {"3 3", "3 3", "3 3", "3 3", "3 3"}},
    {"\012 \012",
     {"3", "3", "3", "3", "3"}},
    {"a\342\200\215b",
     {"1 3 1", "1 3 1", "1 4", "1 4", "1 4"}},
    {"\305\277'\305\277 x'\305\277y",
     {"2 1 2 2 1 3", "2 1 2 2 1 3", "2 3 2 3 1", "2 3 2 3 1", "2 3 2 3 1"}},
};

static int cuts(lemon_ctx *ctx, int split, const char *text, const char *want) {
    lemon_tokenizer *t = NULL;
    char got[512] = "";
    size_t at = 0, end, n = strlen(text), k = 0;
    lemon__tokenizer_new(ctx, &t);
    t->rules.split = split;
    lemon__tokenizer_classes(ctx, t);
    for (; at < n; at = end) {
        end = lemon__word(t, (const uint8_t *)text, n, at);
        if (end <= at || end > n) break;
        k += (size_t)snprintf(got + k, sizeof got - k, at ? " %d" : "%d", (int)(end - at));
    }
    lemon_tokenizer_free(ctx, t);
    detail("pattern %d cuts \"%s\" at %s, expected %s", split, text, got, want);
    return strcmp(got, want) == 0;
}

static void test_patterns(lemon_ctx *ctx) {
    size_t i;
    int k, bad = 0;
    for (i = 0; i < sizeof splits / sizeof *splits; i++)
        for (k = 0; k < 5 && !bad; k++) bad = !cuts(ctx, k + 1, splits[i].text, splits[i].words[k]);
    check(!bad, "the patterns cut words as regular expressions do");
    check(cuts(ctx, LEMON__SPLIT_GPT2, "a\xc2\x85\xef\xbb\xbf", "1 2 3"),
          "white space is Unicode's: U+0085 is, U+FEFF is not");
    check(cuts(ctx, LEMON__SPLIT_LLAMA3, "a\xffz \xc3 \xe2\x82", "1 2 2 3") ||
              cuts(ctx, LEMON__SPLIT_LLAMA3, "a\xffz \xc3 \xe2\x82", "1 2 2 1 2"),
          "bytes that are no characters are cut somewhere");
}

/* ---- a byte-level tokenizer of our own ---- */

/*  Merges in GPT-2's spelling: G stands for the blank (U+0120), N for the line's end (U+010A). */
static const char *const merges[] = {"h e", "G t", "Gt he", "l l", "e r", "1 2", "12 3", "N N", "a a", "aa aa", "G G",
                                     "GG GG", "a b", "aab ab", "aa b", "b c", "ab c", "\xc3\x83 \xc2\xa9", "a aa"};
enum { MERGES = sizeof merges / sizeof *merges, IDS = 256 + MERGES + 3 };

static const char gpt2[] = "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}";
static const char qwen[] =
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve"
    "|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|"
    "\\\\s+\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":"
    "false}]}";

static char *put(char *p, const char *text) {
    size_t n = strlen(text);
    memcpy(p, text, n + 1);
    return p + n;
}

/*  A piece as tokenizer.json spells it, with `between` in place of the blank. */
static char *put_piece(char *p, const char *text, const char *between) {
    for (; *text; text++) {
        if (*text == 'G') p = put(p, "\xc4\xa0");
        else if (*text == 'N') p = put(p, "\\u010a");       /* an escape, for once */
        else if (*text == ' ') p = put(p, between);
        else *p++ = *text;
    }
    *p = 0;
    return p;
}

/*  pairs: merges as lists of two, as newer files have them. */
static size_t make_json(char *out, const char *pre, const char *model, int pairs) {
    char *p = put(out, "{\"added_tokens\":[{\"id\":275,\"content\":\"<|endoftext|>\",\"special\":true},{\"id\":276,"
                       "\"content\":\"<|x\",\"special\":false,\"lstrip\":true},{\"id\":277,\"content\":\"<|xy|>\","
                       "\"special\":true,\"rstrip\":true}],\n\"normalizer\":null,");
    int i;
    p = put(put(p, pre), ",\"post_processor\":{\"type\":\"ByteLevel\"},\"decoder\":{\"type\":\"ByteLevel\"},\n\"model\":"
                         "{\"type\":\"BPE\",\"unk_token\":null,");
    p = put(put(p, model), "\"vocab\":{");
    for (i = 0; i < 256; i++) {
        uint8_t letter[8];
        letter[lemon__utf8_put(letter, lemon__letter_of(i))] = 0;
        p += sprintf(p, "\"%s%s\":%d,", i == '"' || i == '\\' ? "\\" : "", (char *)letter, i);
    }
    for (i = 0; i < MERGES; i++) {
        p = put_piece(put(p, "\""), merges[i], "");
        p += sprintf(p, "\":%d,", 256 + i);
    }
    p = put(p - 1, "},\"merges\":[");
    for (i = 0; i < MERGES; i++) {
        p = put_piece(put(p, pairs ? "[\"" : "\""), merges[i], pairs ? "\",\"" : " ");
        p = put(p, pairs ? "\"]," : "\",");
    }
    return (size_t)(put(p - 1, "]}}") - out);
}

static lemon_status load_json(lemon_ctx *ctx, const char *text, size_t n, lemon_tokenizer **t) {
    lemon_reader r;
    memset(&r, 0, sizeof r);
    r.name = "tokenizer.json"; r.map = (const uint8_t *)text; r.size = n;
    return lemon_tokenizer_load_reader(ctx, &r, 0, t);
}

/*  Every merge in turn is looked for everywhere, in each word by itself. */
static int naive_encode(const lemon_tokenizer *t, const char *text, size_t n, int32_t *ids) {
    const uint8_t *p = (const uint8_t *)text;
    size_t at, end;
    int count = 0, from, i, k, best;
    for (at = 0; at < n; at = end) {
        end = lemon__word(t, p, n, at);
        for (from = count; at < end; at++) ids[count++] = p[at];
        for (;;) {
            for (best = -1, k = 0; k < MERGES && best < 0; k++)
                for (i = from; i + 1 < count && best < 0; i++)
                    if (ids[i] == t->merges[k].left && ids[i + 1] == t->merges[k].right) best = i;
            if (best < 0) break;
            ids[best] = t->merges[k - 1].id;
            for (i = best + 1; i + 1 < count; i++) ids[i] = ids[i + 1];
            count--;
        }
    }
    return count;
}

static int gives(lemon_ctx *ctx, const lemon_tokenizer *t, int special, const char *text, size_t n, const int32_t *want,
                 int count) {
    lemon_tokens ids;
    int ok, i;
    memset(&ids, 0, sizeof ids);
    ok = (special ? lemon_encode_special(ctx, t, text, n, &ids) : lemon_encode(ctx, t, text, n, &ids)) == LEMON_OK &&
         ids.count == count;
    for (i = 0; ok && i < count; i++) ok = ids.ids[i] == want[i];
    lemon_tokens_free(ctx, &ids);
    return ok;
}

/*  Whether the ids of a text come back as its bytes, and never in parts of a character. */
static int streams(lemon_ctx *ctx, const lemon_tokenizer *t, const char *text, size_t n, int valid) {
    lemon_tokens ids;
    lemon_stream stream;
    const char *piece;
    size_t at = 0, k;
    int64_t i;
    int ok;
    memset(&ids, 0, sizeof ids);
    memset(&stream, 0, sizeof stream);
    stream.previous = lemon_tokenizer_bos(t);
    ok = lemon_encode(ctx, t, text, n, &ids) == LEMON_OK;
    for (i = 0; ok && i <= ids.count; i++) {
        ok = lemon_stream_next(ctx, t, &stream, i < ids.count ? ids.ids[i] : -1, &piece, &k) == LEMON_OK && k <= n - at &&
             memcmp(text + at, piece, k) == 0;
        at += k;
        if (ok && valid && at < n) ok = ((uint8_t)text[at] & 0xc0) != 0x80;
    }
    lemon_stream_free(ctx, &stream);
    lemon_tokens_free(ctx, &ids);
    return ok && at == n;
}

static void test_random(lemon_ctx *ctx, const lemon_tokenizer *t, const char *name) {
    static const char *const bits[] = {"aa", "aabab", "the ", " the", "123", "\n", "  ", "\xc3\xa9", "\xe2\x82\xac", "'s",
                                       "\xf0\x9f\x99\x82", "abc", "aaaaaaa", "her ", "\xe2\x96\x81", "<|"};
    lemon_rng rng;
    char text[800];
    int32_t ids[800];
    int round, differ = 0, lost = 0;
    lemon_rng_seed(&rng, 5);
    for (round = 0; round < 3000; round++) {
        size_t n = 0, at, want = (size_t)lemon_rng_below(&rng, round % 10 ? 60 : 700);
        int valid = 1, narrow = (int)lemon_rng_below(&rng, 3);
        while (n < want) {
            const char *b = bits[lemon_rng_below(&rng, 16)];
            if (narrow == 1) text[n++] = "abc"[lemon_rng_below(&rng, 3)];   /* long words, so that queues are used */
            else if (lemon_rng_below(&rng, 4) > 0) { memcpy(text + n, b, strlen(b)); n += strlen(b); }
            else { text[n++] = (char)lemon_rng_below(&rng, narrow ? 256 : 128); valid &= !narrow; }
        }
        for (at = 0; at < n; at++) if (text[at] == 'x') text[at] = 'y';       /* no "<|x" */
        differ += !gives(ctx, t, 0, text, n, ids, naive_encode(t, text, n, ids));
        lost += !streams(ctx, t, text, n, valid);
    }
    check(differ == 0, name);
    check(lost == 0, "   and streams give every byte back, in whole characters");
}

static void test_bytes(lemon_ctx *ctx) {
    static char json[65536], other[65536];
    lemon_tokenizer *t = NULL, *pairs = NULL;
    static const int32_t the[] = {258, ' ', 258}, words[] = {258}, nines[] = {'1', '2'};
    size_t n = make_json(json, gpt2, "", 0);
    check(fine(ctx, load_json(ctx, json, n, &t)) && lemon_tokenizer_size(t) == IDS, "a byte-level tokenizer is loaded");
    check(lemon_tokenizer_bos(t) == 275 && lemon_tokenizer_eos(t) == 275 && !lemon_tokenizer_adds_bos(t),
          "its end of text is known by name, and stands for a BOS that it has not");
    check(lemon_tokenizer_find(t, "<|xy|>", 6) == 277 && lemon_tokenizer_find(t, " the", 4) == 258 &&
              lemon_tokenizer_find(t, "thx", 3) == -1 && lemon_tokenizer_special(t, 277) && !lemon_tokenizer_special(t, 276),
          "tokens are found by their text");
    check(gives(ctx, t, 0, " the  the", 9, the, 3), "merges go by rank");
    test_random(ctx, t, "GPT-2's way agrees with a naive encoder on random strings");
    n = make_json(other, gpt2, "\"ignore_merges\":true,", 1);
    check(fine(ctx, load_json(ctx, other, n, &pairs)) && gives(ctx, pairs, 0, " the", 4, words, 1) &&
              pairs->pairs.count == MERGES,
          "merges may be lists of two; whole words may go first");
    lemon_tokenizer_free(ctx, pairs);
    n = make_json(other, qwen, "", 0);
    check(fine(ctx, load_json(ctx, other, n, &pairs)) && gives(ctx, pairs, 0, "12", 2, nines, 2), "Qwen 2's pattern is known");
    test_random(ctx, pairs, "Qwen 2's way agrees with a naive encoder on random strings");
    lemon_tokenizer_free(ctx, pairs);
    lemon_tokenizer_free(ctx, t);
}

/* ---- Unicode's form C ---- */

static size_t with_form_c(char *json, size_t n) {
    char *at = strstr(json, "null");                    /* the normalizer */
    memmove(at + 14, at + 4, n + 1 - (size_t)(at + 4 - json));
    memcpy(at, "{\"type\":\"NFC\"}", 14);
    return n + 10;
}

static void test_forms(lemon_ctx *ctx) {
    static const struct { const char *text, *want; } cases[] = {    /* as Node's String.normalize (Unicode 17) has them */
        {"abc", "abc"},
        {"e\314\201", "\303\251"},
        {"A\314\212\314\243", "\341\272\240\314\212"},
        {"d\314\243\314\207\341\270\213\314\243", "\341\270\215\314\207\341\270\215\314\207"},
        {"\342\204\253\342\204\246\341\275\261", "\303\205\316\251\316\254"},
        {"\340\245\230", "\340\244\225\340\244\274"},
        {"\341\204\200\341\205\241\341\206\250 \352\260\200\341\206\250 \341\204\200\341\205\241\341\205\241", "\352\260\201 \352\260\201 \352\260\200\341\205\241"},
        {"a\314\225\314\200\326\256\314\201b", "\303\240\326\256\314\201\314\225b"},
        {"\315\204", "\314\210\314\201"},
        {"\357\254\254 \357\250\220", "\327\251\326\274\327\201 \345\241\232"},
        {"\360\235\205\236", "\360\235\205\227\360\235\205\245"},
        {"\340\247\207\340\246\276\340\247\227", "\340\247\213\340\247\227"},
        {"\314\200\314\201a", "\314\200\314\201a"},
        {"a\377\314 e\314\201", "a\377\314 \303\251"},
    };
    static char json[65536];
    static const int32_t joined[] = {273};
    lemon_tokenizer *t = NULL;
    lemon__bytes out = lemon__bytes_in(ctx);
    size_t i, n;
    int bad = 0;
    double seconds;
    lemon_status status;
    uint8_t *text = (uint8_t *)malloc(1 << 20);
    n = make_json(json, gpt2, "", 0);
    n = with_form_c(json, n);
    check(fine(ctx, load_json(ctx, json, n, &t)) && gives(ctx, t, 0, "e\xcc\x81", 3, joined, 1),
          "texts are put into form C where a vocabulary asks for it");
    for (i = 0; t && i < sizeof cases / sizeof *cases; i++) {
        status = lemon__form_c((const uint8_t *)cases[i].text, strlen(cases[i].text), &out);
        n = strlen(cases[i].want);
        if (status || (size_t)out.count != n || memcmp(out.data, cases[i].want, n) != 0) bad++;
        lemon__bytes_free(&out);
    }
    check(bad == 0, "form C is that of Unicode: order, letters, Korean, what is never joined, broken bytes");
    for (i = 0; i < 1 << 20; i += 2) memcpy(text + i, i % 4 ? "\xcc\xa3" : "\xcc\x81", 2);
    seconds = cpu_seconds();
    status = lemon__form_c(text, 1 << 20, &out);
    seconds = cpu_seconds() - seconds;
    detail("%.2f s", seconds);
    check(!status && out.count == 1 << 20 && seconds < (light() ? 20 : 0.5), "a megabyte of marks on one letter is not quadratic");
    lemon__bytes_free(&out);
    lemon_tokenizer_free(ctx, t);
    free(text);
}

/* ---- special tokens ---- */

static void test_specials(lemon_ctx *ctx) {
    static char json[65536];
    lemon_tokenizer *t = NULL;
    static const int32_t all[] = {'a', 276, 275, '<', '|', 277, 'b', '<'}, some[] = {'a', 276, 'y', '|', '>', 'b'};
    load_json(ctx, json, make_json(json, gpt2, "", 0), &t);
    check(gives(ctx, t, 1, "a \n<|x<|endoftext|><|<|xy|> \tb<", 31, all, 8),
          "special tokens are found, the longest first, with the white space that they take");
    check(gives(ctx, t, 0, "a <|xy|>b", 9, some, 6), "but not where a text may not spell them; added ones are");
    lemon_tokenizer_free(ctx, t);
}

/* ---- SentencePiece's family in tokenizer.json ---- */

static size_t make_llama(char *out, const char *normalizer, const char *pre) {
    char *p = put(out, " {\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true},{\"id\":1,\"content\":\"<s>\","
                       "\"special\":true},{\"id\":2,\"content\":\"</s>\",\"special\":true}],");
    int i;
    p += sprintf(p, "\"normalizer\":%s,\"pre_tokenizer\":%s,", normalizer, pre);
    p = put(p, "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\"},{\"type\":\"ByteFallback\"},{\"type\":"
               "\"Fuse\"}]},\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}}"
               ",{\"Sequence\":{\"id\":\"A\"}}]},\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"unk_token\":\"<unk>\","
               "\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</s>\":2,");
    for (i = 0; i < 256; i++) p += sprintf(p, "\"<0x%02X>\":%d,", (unsigned)i, i + 3);
    p = put(p, "\"\xe2\x96\x81\":259,\"a\":260,\"b\":261,\"\xe2\x96\x81" "a\":262,\"ab\":263,\"\xc3\xa9\":264},\"merges\":["
               "\"\xe2\x96\x81 a\",\"a b\"]}}");
    return (size_t)(p - out);
}

static void test_llama(lemon_ctx *ctx) {
    static const char normalizer[] =
        "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"},{\"type\":\"Replace\","
        "\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}]}";
    static const char first[] = "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"first\",\"split\":"
                                "false}";
    static const int32_t plain[] = {262, 261, 259, 262, 261, 13, 264, 198, 187},
                         prefixed[] = {259, 262, 2, 262}, once[] = {262, 2, 260};
    static char json[16384];
    lemon_tokenizer *t = NULL, *back = NULL;
    check(fine(ctx, load_json(ctx, json, make_llama(json, normalizer, "null"), &t)) && lemon_tokenizer_bos(t) == 1 &&
              lemon_tokenizer_eos(t) == 2 && lemon_tokenizer_adds_bos(t),
          "LLaMA's kind of tokenizer.json is loaded");
    check(gives(ctx, t, 0, "ab \xe2\x96\x81" "ab\n\xc3\xa9\xc3\xb8", 13, plain, 9) &&
              gives(ctx, t, 1, " a</s>a", 7, prefixed, 4),
          "merges, bytes for what has no piece, and a blank before each part");
    check(streams(ctx, t, "ab \xc3\xb8 \xe6\x97\xa5", 10, 1), "bytes become whole characters in a stream");
    check(fine(ctx, lemon_tokenizer_save(ctx, scratch("vocabulary.bin"), t)) &&
              fine(ctx, lemon_tokenizer_load(ctx, scratch("vocabulary.bin"), 0, &back)) &&
              gives(ctx, back, 0, "ab  ab\n\xc3\xa9\xc3\xb8", 11, plain, 9) && lemon_tokenizer_size(back) == 265,
          "llama2.c's file of it gives the same ids, and its size need not be known");
    lemon_tokenizer_free(ctx, t);
    lemon_tokenizer_free(ctx, back);
    check(fine(ctx, load_json(ctx, json, make_llama(json, "null", first), &t)) &&
              gives(ctx, t, 1, "a</s>a", 6, once, 3) && gives(ctx, t, 1, " a</s>a", 7, once, 3),
          "Metaspace puts a blank before the text, once, if there is none");
    lemon_tokenizer_free(ctx, t);
    check(fails_with(ctx, load_json(ctx, json, make_llama(json, "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"_\"}",
                                                          "null"), &t), LEMON_E_UNSUPPORTED, "normalizer is Replace") &&
              fails_with(ctx, load_json(ctx, json, make_llama(json, "null", "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"split\":false}"),
                                        &t), LEMON_E_UNSUPPORTED, "U+2581 for blanks") && t == NULL,
          "another mark than U+2581 for blanks is refused");
}

/* ---- SentencePiece's tokenizer.model ---- */

/*  Fields of a protocol buffer, written by their definition. */
static uint8_t *put_varint(uint8_t *p, uint64_t value) {
    for (; value > 127; value >>= 7) *p++ = (uint8_t)(value | 128);
    *p++ = (uint8_t)value;
    return p;
}

static uint8_t *put_number(uint8_t *p, unsigned field, uint64_t value) { return put_varint(put_varint(p, field << 3), value); }

static uint8_t *put_field(uint8_t *p, unsigned field, const void *bytes, size_t n) {
    p = put_varint(put_varint(p, field << 3 | 2), n);
    if (n > 0) memcpy(p, bytes, n);
    return p + n;
}

static uint8_t *put_sp(uint8_t *p, const char *text, float score, int type) {
    uint8_t piece[64], *q = put_field(piece, 1, text, strlen(text));
    *q++ = 2 << 3 | 5;
    lemon__put32(q, lemon__bits(score));
    q += 4;
    if (type != 1) q = put_number(q, 3, (uint64_t)type);        /* as SentencePiece does: what is the default is left out */
    return put_field(p, 1, piece, (size_t)(q - piece));
}

/*  What a file may say otherwise than LLaMA's; -1: not at all. */
typedef struct sp_file { int model, fallback, charsmap, prefix, extra, escape, bos; } sp_file;
static const sp_file sp_llama = {2, 1, 0, 1, 0, -1, 1};

/*  The vocabulary of make_llama. */
static size_t make_sp(uint8_t *out, sp_file o) {
    static const char *const pieces[] = {"\xe2\x96\x81", "a", "b", "\xe2\x96\x81" "a", "ab", "\xc3\xa9"};
    static const float scores[] = {-3, -4, -5, 0, -1, -6};
    uint8_t *p = put_sp(put_sp(put_sp(out, "<unk>", 0, 2), "<s>", 0, 3), "</s>", 0, 3), spec[256], *q = spec;
    char name[8];
    int i;
    for (i = 0; i < 256 && o.fallback; i++) {
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)i & 255);
        p = put_sp(p, name, 0, 6);
    }
    for (i = 0; i < 6; i++) p = put_sp(p, pieces[i], scores[i], 1);
    q = put_field(q, 1, "text.txt", 8);
    if (o.model >= 0) q = put_number(q, 3, (uint64_t)o.model);
    q = put_number(q, 35, (uint64_t)o.fallback);
    q = put_number(q, 41, o.bos < 0 ? ~(uint64_t)0 : (uint64_t)o.bos);
    q = put_number(q, 43, ~(uint64_t)0);            /* no padding: -1 has ten bytes */
    p = put_field(p, 2, spec, (size_t)(q - spec));
    q = put_field(spec, 1, o.charsmap ? "nmt_nfkc" : "identity", 8);
    if (o.charsmap >= 0) q = put_field(q, 2, "\1\2\3\4", (size_t)o.charsmap);
    if (o.prefix >= 0) q = put_number(q, 3, (uint64_t)o.prefix);
    if (o.extra >= 0) q = put_number(q, 4, (uint64_t)o.extra);
    if (o.escape >= 0) q = put_number(q, 5, (uint64_t)o.escape);
    p = put_field(p, 3, spec, (size_t)(q - spec));
    *p++ = 9 << 3 | 1;                              /* what newer versions may add */
    memcpy(p, "12345678", 8);
    p = put_field(p + 8, 5, "\12\377", 2);
    return (size_t)(p - out);
}

static lemon_status load_sp(lemon_ctx *ctx, const uint8_t *bytes, size_t n, lemon_tokenizer **t) {
    lemon_reader r;
    memset(&r, 0, sizeof r);
    r.name = "tokenizer.model"; r.map = bytes; r.size = n;
    return lemon_tokenizer_load_reader(ctx, &r, 0, t);
}

/*  The same with a better score for "ab" than for a blank and "a"; and more pieces than there may be. */
static void test_scores(lemon_ctx *ctx, const uint8_t *file, size_t n) {
    static const int32_t want[] = {259, 263};
    static uint8_t turned[16384], one[64];
    lemon_tokenizer *t = NULL;
    lemon__proto piece;
    size_t at = 0;
    memcpy(turned, file, n);
    while (at + 7 < n && memcmp(turned + at, "\2ab\25", 4) != 0) at++;
    lemon__put32(turned + at + 4, lemon__bits(1.0f));
    check(at + 7 < n && fine(ctx, load_sp(ctx, turned, n, &t)) && gives(ctx, t, 0, "ab", 2, want, 2), "   and pieces go by their scores, not their order");
    lemon_tokenizer_free(ctx, t);
    t = NULL;
    memset(&piece, 0, sizeof piece);
    piece.bytes = lemon__cursor_at(one, (size_t)(put_field(one, 1, "z", 1) - one));
    if (!fine(ctx, lemon__tokenizer_new(ctx, &t))) { check(0, "   a tokenizer to fill"); return; }
    t->pieces.count = LEMON__MAX_PIECES;
    check(fails_with(ctx, lemon__sp_piece(ctx, "large.model", piece, t), LEMON_E_FORMAT, "large.model: piece 16777216 is none, or one too many"),
          "   2^24 pieces and no more");
    t->pieces.count = 0;
    lemon_tokenizer_free(ctx, t);
}

static void test_sentencepiece(lemon_ctx *ctx) {
    static const int32_t plain[] = {262, 261, 259, 262, 261, 13, 264, 198, 187}, bare[] = {263, 262, 261};
    static const struct { sp_file file; const char *text; } refused[] = {
        {{1, 1, 0, 1, 0, -1, 1}, "model_type (1 is unigram, 2 BPE, 3 words, 4 characters) is 1, expected 2"},
        {{-1, 1, 0, 1, 0, -1, 1}, "model_type"},
        {{2, 0, 0, 1, 0, -1, 1}, "vocabularies without byte pieces"},
        {{2, 1, 4, 1, 0, -1, 1}, "precompiled_charsmap (normalizers like nmt_nfkc have one, identity has not) is 4"},
        {{2, 1, 0, 1, 1, -1, 1}, "remove_extra_whitespaces is 1, expected 0"},
        {{2, 1, 0, 1, -1, -1, 1}, "remove_extra_whitespaces"},
        {{2, 1, 0, 1, 0, 0, 1}, "escape_whitespaces is 0, expected 1"},
    };
    static uint8_t file[16384], bent[16384];
    sp_file o = sp_llama;
    lemon_tokenizer *t = NULL, *json = NULL;
    static char text[16384];
    size_t n = make_sp(file, sp_llama), i, bad = 0, whole_pieces = 0;
    lemon_rng rng;
    check(fine(ctx, load_sp(ctx, file, n, &t)) && lemon_tokenizer_size(t) == 265 && lemon_tokenizer_bos(t) == 1 &&
              lemon_tokenizer_eos(t) == 2 && lemon_tokenizer_adds_bos(t) && t->rules.unknown == 0,
          "SentencePiece's tokenizer.model is loaded");
    check(gives(ctx, t, 0, "ab \xe2\x96\x81" "ab\n\xc3\xa9\xc3\xb8", 13, plain, 9), "   pieces of better scores come first");
    load_json(ctx, text, make_llama(text, "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
                                          "\"\\u2581\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":"
                                          "\"\xe2\x96\x81\"}]}", "null"), &json);
    lemon_rng_seed(&rng, 3);
    for (i = 0; i < 2000; i++) {
        static const char *const bits[] = {"a", "b", " ", "ab", "\xc3\xa9", "\xe2\x96\x81", "x", "\xff", "<s>"};
        char some[64] = "";
        lemon_tokens ids;
        int k;
        for (k = (int)lemon_rng_below(&rng, 12); k > 0; k--) strcat(some, bits[lemon_rng_below(&rng, 9)]);
        memset(&ids, 0, sizeof ids);
        lemon_encode_special(ctx, json, some, strlen(some), &ids);
        bad += !gives(ctx, t, 1, some, strlen(some), ids.ids, (int)ids.count);
        lemon_tokens_free(ctx, &ids);
    }
    check(bad == 0, "   its ids are those of the same vocabulary in tokenizer.json");
    test_scores(ctx, file, n);
    lemon_tokenizer_free(ctx, json);
    lemon_tokenizer_free(ctx, t);
    o.prefix = 0;
    o.bos = -1;
    check(fine(ctx, load_sp(ctx, bent, make_sp(bent, o), &t)) && gives(ctx, t, 0, "ab ab", 5, bare, 3) &&
              t->rules.prefix == LEMON__PREFIX_NEVER && lemon_tokenizer_bos(t) == 2 && !lemon_tokenizer_adds_bos(t),
          "   no blank and no BOS where it says so");
    lemon_tokenizer_free(ctx, t);
    for (i = 0; i < sizeof refused / sizeof *refused; i++)
        check(fails_with(ctx, load_sp(ctx, bent, make_sp(bent, refused[i].file), &t), LEMON_E_UNSUPPORTED, refused[i].text) && !t,
              "   what is not computed here is refused by name");
    for (i = 0, bad = 0; i < n; i++) {              /* ends of whole fields alone are files: of fewer pieces, without specs */
        uint8_t *exact = (uint8_t *)malloc(i + 1);
        lemon_status status;
        memcpy(exact, file, i);
        status = load_sp(ctx, exact, i, &t);
        whole_pieces += status == LEMON_OK;
        bad += status != LEMON_OK && status != LEMON_E_FORMAT && status != LEMON_E_UNSUPPORTED && status != LEMON_E_ARG;
        lemon_tokenizer_free(ctx, t);
        free(exact);
    }
    detail("%d other errors, %d loaded", (int)bad, (int)whole_pieces);
    check(bad == 0 && whole_pieces <= 3, "   cut off anywhere it is refused, but behind all that counts");
    for (i = 0, bad = 0; i < 20000; i++) {
        lemon_tokens ids;
        int k;
        memset(&ids, 0, sizeof ids);
        memcpy(bent, file, n);
        for (k = 0; k < 3; k++) bent[lemon_rng_below(&rng, (int64_t)n)] = (uint8_t)lemon_rng_below(&rng, 256);
        if (load_sp(ctx, bent, n, &t) == LEMON_OK) bad += lemon_encode(ctx, t, "ab \xc3\xa9x", 6, &ids) != LEMON_OK;
        lemon_tokens_free(ctx, &ids);
        lemon_tokenizer_free(ctx, t);
    }
    check(bad == 0, "   20,000 bent files are refused, or encode text");
}

/*  A folder as LLaMA's first ones were: tokenizer.model, and tokens that were added later. */
static void test_sentencepiece_folder(lemon_ctx *ctx) {
    static const char added[] = "{\"<|b|>\": 266, \"<|far|>\": 300, \"<|a|>\": 265}";
    static const int32_t want[] = {262, 265, 262, 266};
    static uint8_t file[16384];
    lemon_config c = tiny_config(16, 1, 1, 1, 16, 16, 270, 1);
    lemon_model *m = lively_model(ctx, &c, 2), *back = NULL;
    lemon_tokenizer *t = NULL;
    char path[300];
    size_t n = make_sp(file, sp_llama);
    long live, step;
    int bad = 0;
    lemon_status status = LEMON_E_MEMORY;
    snprintf(path, sizeof path, "%s", scratch("spm"));
    lemon__part_add(ctx, m, "tokenizer.model", 15, file, n);
    lemon__part_add(ctx, m, "added_tokens.json", 17, added, sizeof added - 1);
    lemon__part_add(ctx, m, "tokenizer_config.json", 21, "{\"add_bos_token\": false}", 24);
    check(fine(ctx, lemon_save(ctx, path, m, LEMON_F32)) && fine(ctx, lemon_load(ctx, path, &back)) && back->tokenizer &&
              lemon_tokenizer_size(back->tokenizer) == 267 && !lemon_tokenizer_adds_bos(back->tokenizer),
          "a folder without tokenizer.json is read by its tokenizer.model");
    check(back && gives(ctx, back->tokenizer, 1, "a<|a|>a<|b|>", 12, want, 4) &&
              lemon_tokenizer_special(back->tokenizer, 266) && lemon_tokenizer_find(back->tokenizer, "<|far|>", 7) < 0,
          "   and has the tokens that were added to it");
    lemon_model_free(ctx, m);
    check(fine(ctx, lemon_save(ctx, scratch("spm-again"), back, LEMON_F32)) &&
              fine(ctx, lemon_load(ctx, scratch("spm-again"), &m)) && lemon__part_find(m, "tokenizer.json") &&
              gives(ctx, m->tokenizer, 1, "a<|a|>a<|b|>", 12, want, 4),
          "   which go with it into another folder's tokenizer.json");
    lemon_model_free(ctx, m);
    lemon_model_free(ctx, back);
    back = NULL;
    snprintf(path, sizeof path, "%s/tokenizer_config.json", scratch("spm"));
    spill(path, "{}", 2);
    check(fine(ctx, lemon_load(ctx, scratch("spm"), &back)) && lemon_tokenizer_adds_bos(back->tokenizer),
          "   a text begins with BOS unless the folder says no");
    lemon_model_free(ctx, back);
    snprintf(path, sizeof path, "%s", scratch("vocabulary.model"));
    spill(path, file, n);
    check(fine(ctx, lemon_tokenizer_load(ctx, path, 265, &t)), "   and the file may be given by itself");
    lemon_tokenizer_free(ctx, t);
    check(fails_with(ctx, lemon_tokenizer_load(ctx, path, 264, &t), LEMON_E_FORMAT, "belongs to another model") && !t,
          "   but not to a model with fewer tokens");
    for (step = 1; status && step < 3000; step++) {
        live = heap.live;
        heap.fail_at = heap.calls + step;
        status = lemon_load(ctx, scratch("spm"), &m);
        heap.fail_at = 0;
        lemon_model_free(ctx, m);
        bad += heap.live != live || (status && m);
    }
    detail("%ld steps, %s", step, lemon_error(ctx));
    check(status == LEMON_OK && !bad && step > 30, "   loading it survives every failed allocation");
}

/* ---- .lemon files, copies, smaller ones ---- */

static int same(const lemon_tokenizer *a, const lemon_tokenizer *b) {
    return a->pieces.count == b->pieces.count && a->blob_bytes == b->blob_bytes && a->pairs.count == b->pairs.count &&
           memcmp(a->blob, b->blob, (size_t)a->blob_bytes) == 0 &&
           memcmp(a->kinds, b->kinds, (size_t)a->pieces.count) == 0 &&
           memcmp(a->merges, b->merges, (size_t)a->pairs.count * sizeof *a->merges) == 0 &&
           memcmp(&a->rules, &b->rules, sizeof a->rules) == 0;
}

static void test_keeping(lemon_ctx *ctx) {
    static char json[65536];
    lemon_config c = tiny_config(16, 1, 1, 1, 16, 16, IDS, 1);
    lemon_model *m = NULL, *again = NULL;
    lemon_tokenizer *t = NULL, *copy = NULL;
    load_json(ctx, json, make_json(json, qwen, "\"ignore_merges\":true,", 0), &t);
    check(fine(ctx, lemon_tokenizer_clone(ctx, t, &copy)) && same(t, copy), "a clone is equal");
    lemon_tokenizer_free(ctx, copy);
    lemon_model_create(ctx, &c, &m);
    m->tokenizer = t;
    check(fine(ctx, lemon_save(ctx, scratch("vocabulary.lemon"), m, LEMON_F32)) &&
              fine(ctx, lemon_load(ctx, scratch("vocabulary.lemon"), &again)) && again->tokenizer && same(t, again->tokenizer),
          "a .lemon file keeps all of it");
    check(fails_with(ctx, lemon_tokenizer_save(ctx, scratch("vocabulary.bin"), t), LEMON_E_UNSUPPORTED, "llama2.c's format"),
          "llama2.c's format refuses it");
    lemon_model_free(ctx, again);
    lemon_model_free(ctx, m);
}

static void test_trim(lemon_ctx *ctx) {
    static const char text[] = " the aabab her\n\n123";
    static char json[65536];
    lemon_tokenizer *t = NULL, *small = NULL;
    lemon_tokens ids, now, kept;
    int64_t i;
    int ok;
    memset(&ids, 0, sizeof ids);
    memset(&now, 0, sizeof now);
    memset(&kept, 0, sizeof kept);
    load_json(ctx, json, make_json(json, gpt2, "", 0), &t);
    lemon_encode(ctx, t, text, sizeof text - 1, &ids);
    ok = fine(ctx, lemon_tokenizer_trim(ctx, t, ids.ids, ids.count, &kept, &small)) &&
         lemon_encode(ctx, small, text, sizeof text - 1, &now) == LEMON_OK && now.count == ids.count;
    for (i = 0; ok && i < now.count; i++) ok = kept.ids[now.ids[i]] == ids.ids[i];
    check(ok && kept.count == lemon_tokenizer_size(small) && kept.count > 259 && kept.count < IDS - 4,
          "a smaller tokenizer encodes the text that it was made for with the same pieces");
    check(small && lemon_tokenizer_find(small, "<|xy|>", 6) >= 0 && lemon_tokenizer_find(small, "he", 2) >= 0 &&
              lemon_tokenizer_find(small, "abc", 3) < 0 && kept.ids[lemon_tokenizer_eos(small)] == 275,
          "it has the special tokens, and what the pieces are made of, but nothing else");
    check(streams(ctx, small, "all else \xc3\xa9\xff 456", 16, 0), "and still writes any text");
    ids.ids[0] = IDS;
    lemon_tokenizer_free(ctx, small);
    check(fails_with(ctx, lemon_tokenizer_trim(ctx, t, ids.ids, 1, &kept, &small), LEMON_E_ARG, "token id is 278") && !small,
          "ids that are none are refused");
    lemon_tokens_free(ctx, &ids);
    lemon_tokens_free(ctx, &now);
    lemon_tokens_free(ctx, &kept);
    lemon_tokenizer_free(ctx, t);
}

/* ---- smaller models ---- */

static const char trimmed_text[] = "the aab her\n\n123";

static void add_part(lemon_ctx *ctx, lemon_model *m, const char *name, const char *text) {
    lemon__part_add(ctx, m, name, strlen(name), text, strlen(text));
}

/*  A model with a vocabulary of either kind and all that a folder or a GGUF file brings along. */
static lemon_model *whole_model(lemon_ctx *ctx, int kind, int tied) {
    static const char normalizer[] =
        "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"},{\"type\":\"Replace\","
        "\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}]}";
    static const char learned[] = "the aab her 123 and other things that he said to her, there and then: 321 of them, another 123";
    static char json[65536];
    lemon_tokenizer *t = NULL;
    lemon_config c;
    lemon_model *m;
    if (kind == 2) lemon_tokenizer_train(ctx, learned, sizeof learned - 1, 290, &t);
    else load_json(ctx, json, kind ? make_llama(json, normalizer, "null") : make_json(json, gpt2, "", 0), &t);
    c = tiny_config(16, 2, 2, 1, 8, 24, lemon_tokenizer_size(t) + (kind != 2), tied);       /* one id has no piece */
    m = lively_model(ctx, &c, 3);
    m->tokenizer = t;
    return m;
}

/*  Trims a model to what the text needs. */
static lemon_status trim(lemon_ctx *ctx, const lemon_model *m, lemon_tokens *kept, lemon_model **small) {
    lemon_tokens ids;
    lemon_status status;
    memset(&ids, 0, sizeof ids);
    status = lemon_tokens_from_text(ctx, m->tokenizer, trimmed_text, sizeof trimmed_text - 1, &ids);
    if (!status) status = lemon_model_trim(ctx, m, ids.ids, ids.count, kept, small);
    lemon_tokens_free(ctx, &ids);
    return status;
}

/*  The largest difference between the logits of kept tokens, and between the losses once the share of the probability that
    other tokens had is taken off. */
static double loss_differs(lemon_ctx *ctx, const lemon_model *m, const lemon_model *small, const lemon_tokens *kept) {
    lemon_session *a = NULL, *b = NULL;
    lemon_tokens old, now;
    double removed = 0, worst = 0, loss[2] = {0, 0}, all, some;
    int64_t i;
    int32_t k;
    float *x, *y;
    memset(&old, 0, sizeof old);
    memset(&now, 0, sizeof now);
    lemon_tokens_from_text(ctx, m->tokenizer, trimmed_text, sizeof trimmed_text - 1, &old);
    lemon_tokens_from_text(ctx, small->tokenizer, trimmed_text, sizeof trimmed_text - 1, &now);
    for (i = 0; i < old.count && worst < 1; i++)
        if (now.count != old.count || kept->ids[now.ids[i]] != old.ids[i]) worst = 1e9;
    lemon_session_open(ctx, m, &a);
    lemon_session_open(ctx, small, &b);
    for (i = 0; i + 1 < old.count && worst < 1; i++) {
        lemon_session_feed(a, &old.ids[i], 1, &x);
        lemon_session_feed(b, &now.ids[i], 1, &y);
        for (all = some = 0, k = 0; k < m->config.vocab_size; k++) all += exp((double)x[k]);
        for (k = 0; k < small->config.vocab_size; k++) {
            some += exp((double)y[k]);
            worst = fmax(worst, fabs((double)(y[k] - x[kept->ids[k]])));
        }
        removed += log(all / some) / (double)(old.count - 1);
    }
    lemon_eval(ctx, m, &old, 0, 0, &loss[0], NULL);
    lemon_eval(ctx, small, &now, 0, 0, &loss[1], NULL);
    lemon_session_close(a);
    lemon_session_close(b);
    lemon_tokens_free(ctx, &old);
    lemon_tokens_free(ctx, &now);
    if (!(removed > 0.001)) return 1e9;
    return fmax(worst, fabs(loss[0] - loss[1] - removed));
}

/*  Whether a file of it, read again, is the same model that reads text alike. */
static int trimmed_file(lemon_ctx *ctx, const char *path, const lemon_model *m, lemon_model **back) {
    lemon_tokens a, b;
    int ok = fine(ctx, lemon_save(ctx, path, m, LEMON_F32)) && fine(ctx, lemon_load(ctx, path, back)) &&
             distance(m, *back) <= 0;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    if (ok && (*back)->tokenizer == NULL)           /* llama2.c keeps it elsewhere */
        ok = fine(ctx, lemon_tokenizer_save(ctx, scratch("trimmed.tokenizer"), m->tokenizer)) &&
             fine(ctx, lemon_tokenizer_load(ctx, scratch("trimmed.tokenizer"), m->config.vocab_size, &(*back)->tokenizer));
    ok = ok && lemon_tokens_from_text(ctx, m->tokenizer, trimmed_text, sizeof trimmed_text - 1, &a) == LEMON_OK &&
         lemon_tokens_from_text(ctx, (*back)->tokenizer, trimmed_text, sizeof trimmed_text - 1, &b) == LEMON_OK &&
         a.count > 1 && a.count == b.count && memcmp(a.ids, b.ids, (size_t)a.count * 4) == 0 &&
         lemon_tokenizer_eos((*back)->tokenizer) == lemon_tokenizer_eos(m->tokenizer);
    lemon_tokens_free(ctx, &a);
    lemon_tokens_free(ctx, &b);
    return ok;
}

static void test_trim_model(lemon_ctx *ctx) {
    static const char *const kinds[] = {"byte-level", "LLaMA's", "llama2.c's"},
                      *const files[] = {"trimmed.lemon", "trimmed.gguf", "trimmed", "trimmed.bin"};
    char name[128];
    int kind, tied, f;
    for (kind = 0; kind < 3; kind++)
        for (tied = 0; tied < 2; tied++) {
            lemon_model *m = whole_model(ctx, kind, tied), *small = NULL, *back = NULL;
            lemon_tokens kept;
            memset(&kept, 0, sizeof kept);
            lemon_tokens_push(ctx, &kept, 7);       /* the list may hold something already */
            snprintf(name, sizeof name, "a model with %s vocabulary%s is trimmed", kinds[kind], tied ? ", tied," : "");
            if (check(fine(ctx, trim(ctx, m, &kept, &small)) && kept.ids[0] == 7 && kept.count - 1 == small->config.vocab_size &&
                          lemon_tokenizer_size(small->tokenizer) == small->config.vocab_size &&
                          small->config.vocab_size < m->config.vocab_size, name)) {
                double worst;
                memmove(kept.ids, kept.ids + 1, (size_t)--kept.count * sizeof *kept.ids);
                worst = loss_differs(ctx, m, small, &kept);
                detail("by %g", worst);
                check(worst < 2e-6, "   its logits are the same, and its loss but for the share of what was removed");
                for (f = 0; f < (kind == 2 ? 4 : 3); f++) {
                    int ok = trimmed_file(ctx, scratch(files[f]), small, &back);
                    snprintf(name, sizeof name, "   it comes back from %s and reads text alike", files[f]);
                    check(ok, name);
                    lemon_model_free(ctx, back);
                    back = NULL;
                }
            }
            lemon_tokens_free(ctx, &kept);
            lemon_model_free(ctx, small);
            lemon_model_free(ctx, m);
        }
}

static int part_is(const lemon_model *m, const char *name, const char *text) {
    const lemon_part *p = lemon__part_find(m, name);
    detail("%s is %.*s", name, p ? (int)p->bytes : 7, p ? (const char *)p->data : "missing");
    return p && p->bytes == strlen(text) && memcmp(p->data, text, p->bytes) == 0;
}

/*  What a folder or a GGUF file brought along: licences stay, ids change, lists of the old vocabulary go. */
static void test_trim_parts(lemon_ctx *ctx) {
    lemon_model *m = whole_model(ctx, 0, 1), *small = NULL, *back = NULL;
    lemon_tokens kept;
    char keys[400];
    size_t n = 0;
    const lemon_part *p;
    memset(&kept, 0, sizeof kept);
    add_part(ctx, m, "config.json", "{\"x\":[275],\"eos_token_id\": [275, 277],\"bos_token_id\":275,\"pad_token_id\":null,"
                                    "\"sep_token_id\":272}");
    add_part(ctx, m, "generation_config.json", "{ \"eos_token_id\" : 277, \"temperature\":0.6}\n");
    add_part(ctx, m, "tokenizer_config.json", "{\"added_tokens_decoder\":{\"275\":{\"content\":\"<|endoftext|>\"}},"
                                              "\"chat_template\":\"{{ a }}\",\"eos_token\":\"<|endoftext|>\"}");
    add_part(ctx, m, "tokenizer.json", "{\"old\":1}");
    add_part(ctx, m, "LICENSE", "do as you like");
    add_part(ctx, m, "README.md", "---\nlicense: mit\n---\n");
    #define KEY(text, type, value) do { lemon__put64((uint8_t *)keys + n, strlen(text)); n += 8; \
        memcpy(keys + n, text, strlen(text)); n += strlen(text); lemon__put32((uint8_t *)keys + n, type); n += 4; \
        if ((type) == 9) { lemon__put32((uint8_t *)keys + n, 4); lemon__put64((uint8_t *)keys + n + 4, 1); n += 12; } \
        lemon__put32((uint8_t *)keys + n, value); n += 4; } while (0)
    KEY("tokenizer.ggml.eot_token_id", 4, 277);
    KEY("tokenizer.ggml.list", 9, 277);
    KEY("tokenizer.ggml.gone_token_id", 4, 272);
    KEY("tokenizer.ggml.other", 4, 277);
    lemon__part_add(ctx, m, "gguf.tokenizer", 14, keys, n);
    check(fine(ctx, trim(ctx, m, &kept, &small)), "a model that carries much is trimmed");
    n = 0;
    KEY("tokenizer.ggml.eot_token_id", 4, (uint32_t)small->config.vocab_size - 1);
    KEY("tokenizer.ggml.other", 4, 277);
    p = lemon__part_find(small, "gguf.tokenizer");
    check(p && p->bytes == n && memcmp(p->data, keys, n) == 0, "   keys of GGUF have new ids, or are gone");
    check(part_is(small, "LICENSE", "do as you like") && part_is(small, "README.md", "---\nlicense: mit\n---\n") &&
              !lemon__part_find(small, "tokenizer.json"),
          "   licence and card stay, the old vocabulary goes");
    {
        char config[300], generation[100];
        int last = (int)small->config.vocab_size - 1;       /* 277; 275 is the last but two */
        snprintf(config, sizeof config, "{\"x\":[275],\"eos_token_id\": [%d, %d],\"bos_token_id\":%d,\"pad_token_id\":null,"
                                        "\"sep_token_id\":null}", last - 2, last, last - 2);
        snprintf(generation, sizeof generation, "{ \"eos_token_id\" : %d, \"temperature\":0.6}\n", last);
        check(part_is(small, "config.json", config) && part_is(small, "generation_config.json", generation) &&
                  part_is(small, "tokenizer_config.json", "{\"added_tokens_decoder\":{},\"chat_template\":\"{{ a }}\","
                                                          "\"eos_token\":\"<|endoftext|>\"}"),
              "   ids in configs are new ones");
    }
    check(fine(ctx, lemon_save(ctx, scratch("trimmed"), small, LEMON_F32)) &&
              fine(ctx, lemon_load(ctx, scratch("trimmed"), &back)) && part_is(back, "LICENSE", "do as you like") &&
              lemon__part_find(back, "tokenizer_config.json") && lemon__part_find(back, "tokenizer.json") &&
              lemon_tokenizer_eos(back->tokenizer) == (int)small->config.vocab_size - 3,
          "   and a folder has all of it, with a new tokenizer.json");
    lemon_model_free(ctx, back);
    back = NULL;
    check(fine(ctx, lemon_save(ctx, scratch("trimmed.gguf"), small, LEMON_F32)) &&
              fine(ctx, lemon_load(ctx, scratch("trimmed.gguf"), &back)) && (p = lemon__part_find(back, "gguf.metadata")) &&
              p->bytes > 20 && memcmp((const char *)p->data + 8, "general.license", 15) == 0,
          "   and GGUF has the licence");
    lemon_model_free(ctx, back);
    lemon_model_free(ctx, small);
    small = NULL;
    add_part(ctx, m, "special_tokens_map.json", "{");
    check(fails_with(ctx, trim(ctx, m, &kept, &small), LEMON_E_FORMAT, "special_tokens_map.json") && !small,
          "what is no JSON is refused");
    lemon_tokens_free(ctx, &kept);
    lemon_model_free(ctx, m);
}

static void test_trim_memory(lemon_ctx *ctx) {
    lemon_model *m = whole_model(ctx, 0, 0), *small;
    lemon_status status = LEMON_E_MEMORY;
    lemon_tokens kept;
    long step, live;
    int bad = 0;
    memset(&kept, 0, sizeof kept);
    add_part(ctx, m, "config.json", "{\"eos_token_id\":275}");
    for (step = 1; status == LEMON_E_MEMORY && step < 1000; step++) {
        small = NULL;                   /* for it may fail before the trimming */
        live = heap.live;
        heap.fail_at = heap.calls + step;
        status = trim(ctx, m, &kept, &small);
        heap.fail_at = 0;
        lemon_model_free(ctx, small);
        lemon_tokens_free(ctx, &kept);
        bad += heap.live != live || (status && small);
    }
    check(status == LEMON_OK && !bad && step > 30, "trimming a model survives every failed allocation");
    lemon_model_free(ctx, m);
}

/* ---- damage, want of memory, speed ---- */

/*  Digits one by one and GPT-2's pattern go together, as in SmolLM; digits alone do not. */
static void test_digits(lemon_ctx *ctx) {
    static const char digits[] = "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":"
                                 "true},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":%s}]}";
    static char json[65536];
    char pre[300];
    lemon_tokenizer *t = NULL;
    snprintf(pre, sizeof pre, digits, "false");
    check(fails_with(ctx, load_json(ctx, json, make_json(json, pre, "", 0), &t), LEMON_E_UNSUPPORTED, "one pattern, not none or two") &&
              t == NULL, "digits without a pattern are refused");
    snprintf(pre, sizeof pre, digits, "true");
    check(fine(ctx, load_json(ctx, json, make_json(json, pre, "", 0), &t)) && t->rules.split == LEMON__SPLIT_DIGITS, "with one they are SmolLM's");
    lemon_tokenizer_free(ctx, t);
}

static void test_refused(lemon_ctx *ctx) {
    static const struct { const char *from, *to, *message; } cases[] = {
        {"\"type\":\"BPE\"", "\"type\":\"WordPiece\"", "model is WordPiece, expected \"BPE\""},
        {"\"normalizer\":null", "\"normalizer\":{\"type\":\"NFKC\"}", "normalizer is NFKC, expected"},
        {"{\"type\":\"ByteLevel\",\"add", "{\"type\":\"Whitespace\",\"add", "pre_tokenizer is Whitespace, expected"},
        {"\"decoder\":{\"type\":\"ByteLevel\"", "\"decoder\":{\"type\":\"WordPiece\"", "decoder is WordPiece, expected"},
        {"\"post_processor\":{\"type\":\"ByteLevel\"", "\"post_processor\":{\"type\":\"RobertaProcessing\"", "RobertaProcessing"},
        {"\"unk_token\":null", "\"dropout\":0.1", "dropout is 0.1, expected null"},
        {"\"vocab\":{", "\"vocab\":[{", "tokenizer.json: line"},
        {"\"vocab\":{", "\"wocab\":{", "model.vocab is missing"},
        {"\"merges\":[", "\"marges\":[", "model.merges is missing"},
        {"\"type\":\"BPE\",\"unk_token\":null,\"vocab\":{", "\"vocab\":[],\"wocab\":{", "model.vocab is "},
        {"\"h e\"", "\"h z\"", "merge 0 is \"h z\", expected two pieces"},
        {"\"h e\"", "\"he\"", "merge 0 is no pair"},
        {"\"h e\"", "7", "merge 0 is no pair"},
        {"\":200,", "\":\"x\",", "an id in model.vocab is not a number"},
        {"\":200,", "\":-1,", "an id in model.vocab is not a number"},
        {"\":200,", "\":99999999,", "an id in model.vocab is not a number"},
        {"\"id\":275", "\"id\":3e9", "an id in added_tokens is not a number"},
        {"\"<|x\"", "[]", "the name of token 276 is no text"},
        {"\"lstrip\":true", "\"single_word\":true", "single_word"},
    };
    static char json[65536], bad[65536];
    lemon_tokenizer *t = NULL;
    size_t i;
    make_json(json, gpt2, "", 0);
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *at = strstr(json, cases[i].from);
        char *p = bad;
        if (at == NULL) { check(0, cases[i].from); continue; }
        memcpy(p, json, (size_t)(at - json));
        p = put(put(p + (at - json), cases[i].to), at + strlen(cases[i].from));
        check(load_json(ctx, bad, (size_t)(p - bad), &t) != LEMON_OK && t == NULL && strstr(lemon_error(ctx), cases[i].message),
              cases[i].message);
        if (t) lemon_tokenizer_free(ctx, t);
        else if (!strstr(lemon_error(ctx), cases[i].message)) printf("     %s\n", lemon_error(ctx));
        t = NULL;
    }
}

static lemon_status no_read(void *user, uint64_t offset, void *out, size_t n) {
    (void)user, (void)offset, (void)out, (void)n;
    return LEMON_E_IO;
}
static lemon_status some_read(void *user, uint64_t offset, void *out, size_t n) {
    memcpy(out, (const char *)user + offset, n);
    return LEMON_OK;
}

/*  A reader that says to have nearly as many bytes as there are addresses, and one whose name ends where memory does. */
static void test_strange_reader(lemon_ctx *ctx) {
    static char llama[16384];
    lemon_tokenizer *t = NULL;
    lemon_reader r;
    uint8_t *name = at_edge("edge.json", 10);
    memset(&r, 0, sizeof r);
    r.name = "endless.json", r.read = no_read, r.size = SIZE_MAX - 40;
    check(fails_with(ctx, lemon_tokenizer_load_reader(ctx, &r, 0, &t), LEMON_E_MEMORY, "endless.json: size is ") &&
              strstr(lemon_error(ctx), "too much for this machine") && t == NULL,
          "a file as large as the address space is refused before it is read");
    r.name = (const char *)name, r.read = some_read, r.user = llama;
    r.size = make_llama(llama, "null", "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"split\":false}");
    check(fine(ctx, lemon_tokenizer_load_reader(ctx, &r, 0, &t)) && t, "of a name nothing is read behind its end");
    lemon_tokenizer_free(ctx, t);
    edge_free(name, 10);
}

static void test_hostile(lemon_ctx *ctx) {
    static char json[65536], llama[16384];
    const char *files[2];
    size_t sizes[2], i, before = lemon_memory(ctx, NULL);
    int f, round, bad = 0, loaded = 0;
    lemon_rng rng;
    lemon_tokenizer *t = NULL;
    files[0] = json; sizes[0] = make_json(json, qwen, "", 0);
    files[1] = llama; sizes[1] = make_llama(llama, "null", "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"split\":false}");
    for (f = 0; f < 2; f++)
        for (i = 0; i < sizes[f]; i += light() ? 13 : 3) {
            uint8_t *exact = at_edge(files[f], i);
            bad += load_json(ctx, (const char *)exact, i, &t) == LEMON_OK || t != NULL;
            edge_free(exact, i);
        }
    check(bad == 0, "every truncation is refused, and nothing behind it is read");
    test_strange_reader(ctx);
    lemon_rng_seed(&rng, 3);
    for (round = 0; round < (light() ? 500 : 6000); round++) {
        char *exact;
        f = round % 2;
        exact = (char *)malloc(sizes[f]);
        memcpy(exact, files[f], sizes[f]);
        for (i = 0; i < 1 + (size_t)lemon_rng_below(&rng, 3); i++) {
            size_t at = (size_t)lemon_rng_below(&rng, (int64_t)sizes[f]);
            if (lemon_rng_below(&rng, 2)) exact[at] = (char)lemon_rng_next(&rng);
            else exact[at] = files[f][lemon_rng_below(&rng, (int64_t)sizes[f])];
        }
        if (load_json(ctx, exact, sizes[f], &t) == LEMON_OK) {
            lemon_tokens ids;
            memset(&ids, 0, sizeof ids);
            bad += lemon_encode_special(ctx, t, " aabab <s> 12<|xy|> \xc3\xa9\xff the", 27, &ids) != LEMON_OK;
            lemon_tokens_free(ctx, &ids);
            loaded++;
        } else bad += t != NULL;
        lemon_tokenizer_free(ctx, t);
        free(exact);
        bad += lemon_memory(ctx, NULL) != before;
    }
    check(bad == 0 && loaded > 0, "random changes are refused, or give a tokenizer that works");
}

static void test_memory(void) {
    static char json[65536];
    size_t n = with_form_c(json, make_json(json, gpt2, "", 0));
    lemon_tokenizer *t = NULL, *small = NULL;
    lemon_tokens ids, kept;
    long at, live = heap.live, steps = 0;
    int bad = 0, done = 0;
    char *text = (char *)malloc(1000);
    memset(text, 'a', 1000);
    memcpy(text, "e\xcc\x81", 3);
    for (at = 1; !done; at++, steps++) {
        lemon_ctx *ctx = open_ctx(1);       /* one that has no tables yet */
        lemon_status status;
        memset(&ids, 0, sizeof ids);
        memset(&kept, 0, sizeof kept);
        heap.calls = 0;
        heap.fail_at = at;
        status = load_json(ctx, json, n, &t);
        if (!status) status = lemon_encode(ctx, t, text, 1000, &ids);
        if (!status) status = lemon_tokenizer_trim(ctx, t, ids.ids, ids.count, &kept, &small);
        bad += status && (status != LEMON_E_MEMORY || small != NULL);
        done = !status;
        heap.fail_at = 0;
        lemon_tokens_free(ctx, &ids);
        lemon_tokens_free(ctx, &kept);
        lemon_tokenizer_free(ctx, small);
        lemon_tokenizer_free(ctx, t);
        lemon_close(ctx);
        small = t = NULL;
        bad += heap.live != live;
    }
    check(bad == 0 && steps > 40, "loading, encoding and trimming survive every failed allocation");
    free(text);
}

/*  Bytes, all pairs of small letters, and 40,000 merges of such pairs with letters and pairs, as large as real ones. */
static lemon_tokenizer *wide_vocabulary(lemon_ctx *ctx) {
    lemon_tokenizer *t = NULL;
    lemon_rng rng;
    int64_t i, j;
    int k;
    lemon_rng_seed(&rng, 9);
    lemon__tokenizer_new(ctx, &t);
    memset(&t->rules, 0, sizeof t->rules);
    t->rules.split = LEMON__SPLIT_GPT2;
    t->rules.by_merges = 1;
    t->rules.bos = t->rules.eos = t->rules.unknown = -1;
    for (k = 0; k < 256; k++) lemon__tokenizer_add(ctx, t, LEMON__NORMAL, 0, &t->bytes[k], 1);
    for (k = 0; k < 676 + 40000; k++) {
        const uint8_t *left, *right;
        lemon__merge m;
        size_t a, b;
        uint8_t piece[8];
        i = k < 676 ? 'a' + (k * 185 % 676) / 26 : 256 + lemon_rng_below(&rng, 676);      /* 185 has no divisor of 676 */
        j = k < 676 ? 'a' + (k * 185 % 676) % 26 : lemon_rng_below(&rng, 2) ? 'a' + lemon_rng_below(&rng, 26)
                                                                            : 256 + lemon_rng_below(&rng, 676);
        m.left = (int32_t)i;
        m.right = (int32_t)j;
        m.id = lemon_tokenizer_size(t);
        left = lemon__piece(t, m.left, &a);
        right = lemon__piece(t, m.right, &b);
        memcpy(piece, left, a);
        memcpy(piece + a, right, b);
        if (lemon__words_find(&t->pieces, piece, a + b) >= 0) continue;
        lemon__tokenizer_add(ctx, t, LEMON__NORMAL, 0, piece, a + b);
        lemon__merge_push(ctx, t, &m);
    }
    check(fine(ctx, lemon__tokenizer_finish(ctx, "wide", t)) && t->pairs.count > 20000, "a wide vocabulary is made");
    return t;
}

static void test_speed(lemon_ctx *ctx) {
    static const char *const kinds[] = {"one letter", "two letters at random", "one blank", "half of a special token",
                                        "26 letters at random"};
    static char json[65536];
    char *text = (char *)malloc(1 << 20), name[96];
    lemon_tokenizer *t = NULL;
    lemon_rng rng;
    int k, i;
    lemon_rng_seed(&rng, 8);
    load_json(ctx, json, make_json(json, gpt2, "", 0), &t);
    for (k = 0; k < 5; k++) {
        lemon_tokens ids;
        double seconds;
        for (i = 0; i < 1 << 20; i++)
            text[i] = k == 0 ? 'a' : k == 1 ? "ab"[lemon_rng_below(&rng, 2)] : k == 2 ? ' ' : k == 3 ? "<|"[i % 2]
                                                                             : (char)('a' + lemon_rng_below(&rng, 26));
        if (k == 4) {
            lemon_tokenizer_free(ctx, t);
            t = wide_vocabulary(ctx);
        }
        memset(&ids, 0, sizeof ids);
        seconds = cpu_seconds();
        check(fine(ctx, lemon_encode_special(ctx, t, text, 1 << 20, &ids)), "a megabyte is encoded");
        seconds = cpu_seconds() - seconds;
        lemon_tokens_free(ctx, &ids);
        snprintf(name, sizeof name, "a megabyte of %s takes less than half a second", kinds[k]);
        detail("%.2f s", seconds);
        check(seconds < (light() ? 20 : 0.5), name);
    }
    lemon_tokenizer_free(ctx, t);
    free(text);
}

int main(void) {
    lemon_ctx *ctx = open_ctx(1);
    test_patterns(ctx);
    test_bytes(ctx);
    test_forms(ctx);
    test_specials(ctx);
    test_llama(ctx);
    test_sentencepiece(ctx);
    test_sentencepiece_folder(ctx);
    test_keeping(ctx);
    test_trim(ctx);
    test_trim_model(ctx);
    test_trim_parts(ctx);
    test_trim_memory(ctx);
    test_digits(ctx);
    test_refused(ctx);
    test_hostile(ctx);
    test_memory();
    test_speed(ctx);
    return check_close(ctx);
}
