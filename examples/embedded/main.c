/*  A language model without an operating system: no files, no heap, no clock, and for a checkpoint a const array in flash.

    The array is made by `lemon convert IN model.h`; PROMPT and COUNT are what to say.  The same file is a program for a
    Cortex-M7 (see board.c) and, compiled natively, one for the host, which must print the same ids.  */
#include <stddef.h>

/* ---- memory: one static array, first fit; how much of it was ever needed is known in the end ---- */

#ifndef ARENA
#define ARENA (320 * 1024)
#endif
static union { double aligned; unsigned char bytes[ARENA]; } all_memory;
static size_t arena_top;                        /* the end of the highest piece so far */
typedef struct arena_part { size_t bytes, used; } arena_part;     /* in front of each; `bytes` with this struct */

static void *arena_malloc(size_t n) {
    size_t at, need = (n + sizeof(arena_part) + 15) / 16 * 16;
    arena_part *b = (arena_part *)(void *)all_memory.bytes;
    if (b->bytes == 0) b->bytes = ARENA;        /* the first call: all of it is free */
    for (at = 0; at < ARENA; at += b->bytes) {
        arena_part *next;
        b = (arena_part *)(void *)(all_memory.bytes + at);
        while (!b->used && at + b->bytes < ARENA && !(next = (arena_part *)(void *)(all_memory.bytes + at + b->bytes))->used)
            b->bytes += next->bytes;
        if (b->used || b->bytes < need) continue;
        if (b->bytes > need) {
            next = (arena_part *)(void *)(all_memory.bytes + at + need);
            next->bytes = b->bytes - need;
            next->used = 0;
            b->bytes = need;
        }
        b->used = 1;
        if (at + need > arena_top) arena_top = at + need;
        return b + 1;
    }
    return NULL;
}

static void arena_free(void *p) {
    if (p) ((arena_part *)p - 1)->used = 0;
}

#define LEMON_STATIC
#define LEMON_NO_TRAIN
#define LEMON_NO_FUSE
#define LEMON_NO_FORMATS
#define LEMON_NO_THREADS
#define LEMON_NO_STDIO
#define LEMON_MALLOC(bytes) arena_malloc(bytes)
#define LEMON_FREE(p) arena_free(p)
#define LEMON_IMPLEMENTATION
#include "../../lemon.h"
#include "model.h"

#ifndef PROMPT
#define PROMPT ""
#endif
#ifndef COUNT
#define COUNT 200
#endif
#ifndef CONTEXT
#define CONTEXT 256
#endif
#ifndef CACHE
#define CACHE LEMON_F16
#endif
#ifdef INT8
enum { int8_wanted = 1 };
#else
enum { int8_wanted = 0 };
#endif

#ifndef ISA
#define ISA LEMON_ISA_AUTO
#endif

/*  What the board, or the host, brings. */
void board_put(const char *text, size_t bytes);
unsigned board_instructions(void);              /* since some time in the past; it may run over */

static void say(const char *text) { board_put(text, strlen(text)); }

static void say_number(const char *name, size_t value) {
    char text[64];
    board_put(text, (size_t)lemon__format(text, sizeof text, "%s %llu\n", name, (unsigned long long)value));
}

static int32_t likeliest(const float *scores, int32_t n) {
    int32_t best = 0, i;
    for (i = 1; i < n; i++)
        if (scores[i] > scores[best]) best = i;
    return best;
}

/*  Feeds the prompt, then goes on with the likeliest token, COUNT times or to the end of the context. */
static lemon_status talk(lemon_ctx *ctx, const lemon_model *m, lemon_session *s, int64_t context, lemon_tokens *ids,
                         unsigned *each) {
    const lemon_tokenizer *t = m->tokenizer;
    lemon_status status = lemon_tokens_push(ctx, ids, lemon_tokenizer_bos(t));
    float *scores = NULL;
    int i;
    if (!status) status = lemon_encode(ctx, t, PROMPT, strlen(PROMPT), ids);
    if (!status) status = lemon_session_feed(s, ids->ids, ids->count, &scores);
    for (i = 0; i < COUNT && !status; i++) {
        const char *text = "";
        size_t bytes = 0;
        int32_t id = likeliest(scores, m->config.vocab_size);
        unsigned start = board_instructions();
        status = lemon_decode(ctx, t, ids->ids[ids->count - 1], id, &text, &bytes);
        if (status) break;
        board_put(text, bytes);
        status = lemon_tokens_push(ctx, ids, id);
        if (status || i + 1 == COUNT || lemon_session_length(s) == context) break;
        status = lemon_session_feed(s, &id, 1, &scores);
        *each = board_instructions() - start;   /* of the last token, which looks back the farthest */
    }
    return status;
}

int main(void) {
    lemon_options open;
    lemon_ctx *ctx;
    lemon_model *m = NULL;
    lemon_session *s = NULL;
    lemon_session_options options;
    lemon_tokens ids = {NULL, 0, 0};
    lemon_reader reader;
    lemon_status status;
    unsigned each = 0;
    size_t peak = 0;
    int64_t i;
    memset(&open, 0, sizeof open);
    open.int8 = int8_wanted;
    open.isa = ISA;
    ctx = lemon_open(&open);
    if (ctx == NULL) { say("the arena is too small\n"); return 1; }
    memset(&reader, 0, sizeof reader);
    reader.name = "model";
    reader.size = sizeof model_lemon;
    reader.map = model_lemon;
    lemon_session_defaults(&options);
    options.max_seq = CONTEXT;
    options.prefill = 8;
    options.cache = CACHE;
    status = lemon_load_reader(ctx, &reader, &m);
    if (!status) status = lemon_session_open_with(ctx, m, &options, &s);
    while (status == LEMON_E_MEMORY && m && options.max_seq > 16) {         /* keys and values are most of the memory */
        options.max_seq /= 2;
        status = lemon_session_open_with(ctx, m, &options, &s);
    }
    if (!status) status = talk(ctx, m, s, options.max_seq, &ids, &each);
    say("\nids");
    for (i = 0; i < ids.count; i++) {
        char text[16];
        board_put(text, (size_t)lemon__format(text, sizeof text, " %ld", (long)ids.ids[i]));
    }
    say("\n");
    if (status) say(lemon_error(ctx));
    if (status == LEMON_E_MEMORY) say("; the arena is too small: more RAM_KB, or a smaller model");
    if (status) say("\n");
    lemon_memory(ctx, &peak);
    say_number("tokens of context", (size_t)options.max_seq);
    say_number("bytes asked for at most", peak);
    say_number("bytes of the arena used", arena_top);
    say_number("instructions of a token", each);
    lemon_session_close(s);
    lemon_tokens_free(ctx, &ids);
    lemon_model_free(ctx, m);
    lemon_close(ctx);
    return status != LEMON_OK;
}
