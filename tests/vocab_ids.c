/*  The ids that lemon.h gives strings, for judges to compare with:  vocab_ids TOKENIZER STRINGS OUT [special]
    STRINGS and OUT: for each string a length and its bytes, a count and its ids; all numbers uint32.  The ids of each string
    are decoded as well, into OUT.texts, laid out as STRINGS.  Says how many texts did not come back byte for byte: none of
    those that the tokenizer itself does not change. */
#define LEMON_IMPLEMENTATION
#include "../lemon.h"
#include <stdio.h>

static int comes_back(lemon_ctx *ctx, const lemon_tokenizer *t, const lemon_tokens *ids, const char *text, size_t n, FILE *out) {
    lemon_stream stream;
    size_t at = 0, bytes;
    int64_t i;
    uint32_t total = 0;
    int ok = 1;
    const char *piece;
    fwrite(&total, 4, 1, out);
    memset(&stream, 0, sizeof stream);
    stream.previous = lemon_tokenizer_bos(t);
    for (i = 0; i <= ids->count; i++) {
        if (lemon_stream_next(ctx, t, &stream, i < ids->count ? ids->ids[i] : -1, &piece, &bytes)) return 0;
        fwrite(piece, 1, bytes, out);
        total += (uint32_t)bytes;
        ok = ok && bytes <= n - at && memcmp(text + at, piece, bytes) == 0;
        at += ok ? bytes : 0;
    }
    lemon_stream_free(ctx, &stream);
    fseek(out, -(long)total - 4, SEEK_CUR);
    fwrite(&total, 4, 1, out);
    fseek(out, 0, SEEK_END);
    return ok && at == n;
}

int main(int argc, char **argv) {
    lemon_ctx *ctx = lemon_open(NULL);
    lemon_tokenizer *t = NULL;
    FILE *in = argc > 3 ? fopen(argv[2], "rb") : NULL, *out = argc > 3 ? fopen(argv[3], "wb") : NULL, *texts = NULL;
    char name[1024];
    uint32_t n, lost = 0, strings = 0;
    if (in == NULL || out == NULL || lemon_tokenizer_load(ctx, argv[1], 0, &t)) {
        fprintf(stderr, "vocab_ids: %s\n", in && out ? lemon_error(ctx) : "TOKENIZER STRINGS OUT [special]");
        return 1;
    }
    snprintf(name, sizeof name, "%s.texts", argv[3]);
    texts = fopen(name, "wb");
    while (texts && fread(&n, 4, 1, in) == 1) {
        lemon_tokens ids;
        char *text = (char *)malloc(n + 1);
        uint32_t count;
        memset(&ids, 0, sizeof ids);
        if (text == NULL || fread(text, 1, n, in) != n) return 1;
        if (argc > 4 ? lemon_encode_special(ctx, t, text, n, &ids) : lemon_encode(ctx, t, text, n, &ids)) return 1;
        count = (uint32_t)ids.count;
        fwrite(&count, 4, 1, out);
        fwrite(ids.ids, 4, count, out);
        lost += !comes_back(ctx, t, &ids, text, n, texts);
        strings++;
        lemon_tokens_free(ctx, &ids);
        free(text);
    }
    printf("%s: %u strings, %u of them not the same when decoded\n", argv[1], (unsigned)strings, (unsigned)lost);
    lemon_tokenizer_free(ctx, t);
    lemon_close(ctx);
    return texts == NULL || fclose(texts) != 0 || fclose(out) != 0;
}
