/*  The ids that lemon.h gives strings, for judges to compare with:  vocab_ids TOKENIZER STRINGS OUT [special]
    STRINGS and OUT: for each string a length and its bytes, a count and its ids; all numbers uint32.  Each string is decoded
    as well, and must come back byte for byte but for what the tokenizer itself changes, so only byte-level ones are held
    to that.  Says how many did not. */
#define LEMON_IMPLEMENTATION
#include "../lemon.h"
#include <stdio.h>

static int comes_back(lemon_ctx *ctx, const lemon_tokenizer *t, const lemon_tokens *ids, const char *text, size_t n) {
    lemon_stream stream;
    size_t at = 0, bytes;
    int64_t i;
    int ok = 1;
    const char *piece;
    memset(&stream, 0, sizeof stream);
    stream.previous = lemon_tokenizer_bos(t);
    for (i = 0; i <= ids->count && ok; i++) {
        ok = !lemon_stream_next(ctx, t, &stream, i < ids->count ? ids->ids[i] : -1, &piece, &bytes) && bytes <= n - at &&
             memcmp(text + at, piece, bytes) == 0;
        at += bytes;
    }
    lemon_stream_free(ctx, &stream);
    return ok && at == n;
}

int main(int argc, char **argv) {
    lemon_ctx *ctx = lemon_open(NULL);
    lemon_tokenizer *t = NULL;
    FILE *in = argc > 3 ? fopen(argv[2], "rb") : NULL, *out = argc > 3 ? fopen(argv[3], "wb") : NULL;
    uint32_t n, lost = 0, strings = 0;
    if (in == NULL || out == NULL || lemon_tokenizer_load(ctx, argv[1], 0, &t)) {
        fprintf(stderr, "vocab_ids: %s\n", in && out ? lemon_error(ctx) : "TOKENIZER STRINGS OUT [special]");
        return 1;
    }
    while (fread(&n, 4, 1, in) == 1) {
        lemon_tokens ids;
        char *text = (char *)malloc(n + 1);
        uint32_t count;
        memset(&ids, 0, sizeof ids);
        if (text == NULL || fread(text, 1, n, in) != n) return 1;
        if (argc > 4 ? lemon_encode_special(ctx, t, text, n, &ids) : lemon_encode(ctx, t, text, n, &ids)) return 1;
        count = (uint32_t)ids.count;
        fwrite(&count, 4, 1, out);
        fwrite(ids.ids, 4, count, out);
        lost += !comes_back(ctx, t, &ids, text, n);
        strings++;
        lemon_tokens_free(ctx, &ids);
        free(text);
    }
    printf("%s: %u strings, %u of them not the same when decoded\n", argv[1], (unsigned)strings, (unsigned)lost);
    lemon_tokenizer_free(ctx, t);
    lemon_close(ctx);
    return fclose(out) != 0;
}
