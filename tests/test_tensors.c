/*  Chapter 3: rows of every storage type, sizes, arenas. */
#include "check.h"

/* ---- names and sizes ---- */

static void test_names(void) {
    int i, bad = 0;
    for (i = 0; i < LEMON_DTYPE_COUNT; i++) bad += lemon_dtype_parse(lemon_dtype_name((lemon_dtype)i)) != i;
    check(bad == 0, "names of types are read back");
    check(lemon_dtype_parse("f8") == -1 && lemon_dtype_parse(NULL) == -1, "unknown names are -1");
    check(strcmp(lemon_dtype_name((lemon_dtype)99), "unknown") == 0 && strcmp(lemon_dtype_name(LEMON_DTYPE_COUNT), "unknown") == 0,
          "types out of range have no name");
}

static void test_sizes(void) {
    static const struct { lemon_dtype dtype; int64_t cols; size_t bytes;
    } rows[] = {{LEMON_F32, 5, 20}, {LEMON_BF16, 5, 10}, {LEMON_F16, 7, 14}, {LEMON_Q8, 32, 34},
                {LEMON_Q8, 33, 68}, {LEMON_Q8, 1, 34},   {LEMON_Q4, 32, 18}, {LEMON_Q4, 65, 54},
                {LEMON_U8, 9, 9},   {LEMON_I32, 3, 12},  {LEMON_F64, 3, 24}, {LEMON_F32, 0, 0}};
    lemon_tensor t;
    size_t i, bad = 0;
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++)
        bad += lemon_row_bytes(rows[i].dtype, rows[i].cols) != rows[i].bytes;
    check(bad == 0, "bytes of a row, the last block padded");
    check(lemon_row_bytes(LEMON_F32, -1) == 0 && lemon_row_bytes((lemon_dtype)42, 4) == 0 &&
              lemon_row_bytes(LEMON_F32, INT64_MAX) == 0 && lemon_row_bytes((lemon_dtype)-1, 4) == 0,
          "what cannot be has no bytes");
    memset(&t, 0, sizeof t);
    t.dtype = LEMON_Q4;
    t.rows = 3;
    t.cols = 40;
    check(lemon_tensor_bytes(&t) == 3 * 36, "bytes of a tensor");
    t.rows = INT64_MAX / 4;
    t.cols = INT64_MAX / 256;
    check(lemon_tensor_bytes(&t) == 0, "a tensor that overflows has none");
    t.rows = -2;
    check(lemon_tensor_bytes(&t) == 0, "nor one with fewer than no rows");
}

/* ---- rows: encoded and decoded, against the largest error that the format allows ---- */

/*  Half a step of the format around x, in a block whose largest magnitude is top. */
static double allowed(lemon_dtype dtype, double x, double top) {
    switch (dtype) {
    case LEMON_F32: return 0;
    case LEMON_BF16: return fabs(x) / 256 + 1e-38;
    case LEMON_F16: return fabs(x) / 2048 + ldexp(1, -25);
    case LEMON_Q8:
        return top / 127 * 0.5 + top / 2048 + ldexp(127, -25); /* half a step, and the scale's rounding to f16 */
    default: return top / 8 + top / 2048 + ldexp(8, -25);      /* q4: the side without -8 may lie a whole step off */
    }
}

static double block_top(const float *x, int64_t cols, int64_t at) {
    double top = 0;
    int64_t i;
    for (i = at / 32 * 32; i < cols && i < at / 32 * 32 + 32; i++)
        top = fabs((double)x[i]) > top ? fabs((double)x[i]) : top;
    return top;
}

/*  Writes `rows` random rows, reads them back; no byte beyond the rows may change. */
static int round_trip(lemon_dtype dtype, int64_t cols, double deviation, lemon_rng *rng, double *mean) {
    enum { ROWS = 3, ROOM = 2000 };
    static uint8_t bytes[ROWS * 4 * ROOM + 64];
    static float in[ROWS][ROOM], out[ROOM + 1];
    lemon_tensor t;
    int64_t r, c;
    size_t size, i;
    double worst = 0;
    t.data = bytes;
    t.dtype = dtype;
    t.rows = ROWS;
    t.cols = cols;
    size = lemon_tensor_bytes(&t);
    memset(bytes, 0xa5, sizeof bytes);
    for (r = 0; r < ROWS; r++) {
        fill_normal(rng, in[r], cols, deviation);
        lemon_row_from_f32(&t, r, in[r]);
    }
    for (i = size; i < sizeof bytes; i++)
        if (bytes[i] != 0xa5) { detail("a byte behind the rows was written"); return 0; }
    for (r = 0; r < ROWS; r++) {
        out[cols] = 77;
        lemon_row_to_f32(&t, r, out);
        if (out[cols] < 77 || out[cols] > 77) { detail("a float behind the row was written"); return 0; }
        for (c = 0; c < cols; c++) {
            double error = fabs((double)out[c] - (double)in[r][c]);
            *mean += (double)out[c] - (double)in[r][c];
            worst = error / (allowed(dtype, (double)in[r][c], block_top(in[r], cols, c)) + 1e-300);
            if (worst > 1) {
                detail("%s [%d] %.9g came back as %.9g", lemon_dtype_name(dtype), (int)c, (double)in[r][c],
                       (double)out[c]);
                return 0;
            }
        }
    }
    return 1;
}

static void test_rows(lemon_dtype dtype) {
    static const int64_t widths[] = {1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 172, 1000};
    static const double deviations[] = {1e-3, 1, 300};
    char name[80];
    lemon_rng rng;
    double mean = 0;
    size_t w, d;
    int ok = 1;
    lemon_rng_seed(&rng, 5);
    for (w = 0; ok && w < sizeof widths / sizeof widths[0]; w++)
        for (d = 0; ok && d < 3; d++) ok = round_trip(dtype, widths[w], deviations[d], &rng, &mean);
    snprintf(name, sizeof name, "%s: rows come back within the format's error, ragged blocks too",
             lemon_dtype_name(dtype));
    check(ok, name);
}

static void test_blocks(void) {
    float x[40], y[40];
    uint8_t bytes[80];
    lemon_tensor t;
    int i, bad = 0;
    t.data = bytes;
    t.rows = 1;
    t.cols = 40;
    for (i = 0; i < 40; i++) x[i] = 0;
    for (t.dtype = LEMON_Q8; t.dtype <= LEMON_Q4; t.dtype = (lemon_dtype)(t.dtype + 1)) {
        lemon_row_from_f32(&t, 0, x);
        lemon_row_to_f32(&t, 0, y);
        for (i = 0; i < 40; i++) bad += y[i] < 0 || y[i] > 0;
    }
    check(bad == 0, "a block of zeros stays zeros");
    t.dtype = LEMON_Q8;
    for (i = 0; i < 40; i++) x[i] = (float)(i - 20) * 0.5f;         /* scale 10 / 127: written out by hand below */
    lemon_row_from_f32(&t, 0, x);
    check(lemon__get16(bytes) == lemon_f16_from_f32(10.0f / 127) && (int8_t)bytes[2] == -127 &&
              (int8_t)bytes[2 + 20] == 0 && (int8_t)bytes[2 + 21] == 6 &&
              lemon__get16(bytes + 34) == lemon_f16_from_f32(9.5f / 127),
          "q8 has GGUF's Q8_0 layout");
    check(bytes[34 + 2 + 8] == 0 && bytes[34 + 2 + 31] == 0, "the last block is padded with zeros");
    t.dtype = LEMON_Q4;
    t.cols = 20;
    for (i = 0; i < 20; i++) x[i] = (float)(i - 8);                 /* 11 is the largest: scale -11/8 */
    lemon_row_from_f32(&t, 0, x);
    check(lemon__get16(bytes) == lemon_f16_from_f32(-11.0f / 8) && (bytes[2] & 15) == 14 && bytes[2] >> 4 == 2 &&
              (bytes[2 + 3] >> 4) == 0 && (bytes[2 + 15] & 15) == 3 && bytes[2 + 15] >> 4 == 8,
          "q4 has GGUF's Q4_0 layout: low nibbles first, the largest at -8, padding 8");
    x[4] = -11;
    lemon_row_from_f32(&t, 0, x);
    check(lemon__get16(bytes) == lemon_f16_from_f32(11.0f / 8) && (bytes[2 + 4] & 15) == 0, "of two as large the first is at -8, as there");
}

/*  Types that are no weights decode to zeros and are not encoded. */
/*  Files of strangers bring any bits; that blocks hold no NaN is no reason for an undefined conversion. */
static void test_not_finite(void) {
    const float odd[] = {NAN, -INFINITY, 1e-45f, 1e-39f, 3e38f};
    float x[64], y[64];
    uint8_t bytes[80];
    lemon_tensor t;
    int dtype, k, i, bad = 0;
    t.data = bytes;
    t.rows = 1;
    t.cols = 64;
    for (dtype = LEMON_Q8; dtype <= LEMON_Q4; dtype++)
        for (k = 0; k < 5; k++) {
            t.dtype = (lemon_dtype)dtype;
            for (i = 0; i < 64; i++) x[i] = k == 2 || k == 3 ? 0.0f : 1.0f;
            x[40] = odd[k];
            lemon_row_from_f32(&t, 0, x);
            lemon_row_to_f32(&t, 0, y);
            for (i = 0; i < 32; i++) bad += !(fabsf(y[i] - x[i]) < 0.01f);
            for (i = 32; i < 64; i++) bad += k < 2 ? !isnan(y[i]) : k < 4 && !(fabsf(y[i]) < 1e-30f);
        }
    check(bad == 0, "q8, q4: a block with NaN or Inf is NaN, one of tiny numbers is zero, its neighbour unharmed");
}

static void test_no_weights(void) {
    uint8_t bytes[16];
    float out[2] = {5, 5};
    lemon_tensor t;
    memset(bytes, 0x41, sizeof bytes);
    t.data = bytes;
    t.dtype = LEMON_F64;
    t.rows = 1;
    t.cols = 2;
    lemon_row_to_f32(&t, 0, out);
    lemon_row_from_f32(&t, 0, out);
    check(!(out[0] > 0) && !(out[1] > 0) && bytes[0] == 0x41 && bytes[15] == 0x41, "u8, i32 and f64 are no weights");
}

/* ---- arenas ---- */

static void test_arena(lemon_ctx *ctx) {
    lemon_arena arena = {NULL};
    uint8_t *p[200];
    size_t before = lemon_memory(ctx, NULL), n[200], i, j;
    int bad = 0, zero = 0, overlap = 0;
    lemon_rng rng;
    lemon_rng_seed(&rng, 2);
    for (i = 0; i < 200; i++) {
        n[i] = (size_t)lemon_rng_below(&rng, i % 20 == 0 ? 300000 : 500);
        p[i] = (uint8_t *)lemon_arena_alloc(ctx, &arena, n[i]);
        bad += p[i] == NULL || (uintptr_t)p[i] % 64 != 0;
        for (j = 0; p[i] && j < n[i]; j++) zero += p[i][j] != 0;
        if (p[i]) memset(p[i], (int)i, n[i]);
    }
    for (i = 0; i < 200; i++)
        for (j = 0; j < n[i]; j++) overlap += p[i][j] != (uint8_t)i;
    check(bad == 0, "pieces of an arena are aligned to 64 bytes");
    check(zero == 0, "and zeroed");
    check(overlap == 0, "and do not overlap");
    lemon_arena_free(ctx, &arena);
    lemon_arena_free(ctx, &arena);                      /* of an empty one: nothing */
    check(lemon_memory(ctx, NULL) == before && arena.blocks == NULL, "one free takes them all, and may be repeated");
}

static void test_arena_memory(lemon_ctx *ctx) {
    lemon_arena arena = {NULL};
    size_t before = lemon_memory(ctx, NULL);
    check(lemon_arena_alloc(ctx, &arena, SIZE_MAX) == NULL && strstr(lemon_error(ctx), "out of memory") != NULL,
          "a piece that cannot be is no memory");
    check(lemon_arena_alloc(ctx, &arena, SIZE_MAX / 2) == NULL &&
              (sizeof(size_t) < 8 || strstr(lemon_error(ctx), "9007199254740992 KB were asked for")),
          "nor is half the address space, and the message says how much it was");
    check(lemon__floats(ctx, &arena, INT64_MAX / 2, 8) == NULL && lemon__floats(ctx, &arena, -1, 8) == NULL,
          "nor are sizes that overflow or are negative");
    heap.calls = 0;
    heap.fail_at = 1;
    check(lemon_arena_alloc(ctx, &arena, 100) == NULL, "no memory is NULL");
    heap.fail_at = 0;
    check(lemon_arena_alloc(ctx, &arena, 100) != NULL, "and the arena works on after that");
    lemon_arena_free(ctx, &arena);
    check(lemon_memory(ctx, NULL) == before, "nothing is left of it");
}

/*  Large blocks that an arena gave back serve those who ask for as much; for others they go, before the peak would rise. */
static void test_arena_kept(lemon_ctx *ctx) {
    const size_t size = LEMON__HUGE + 4096, before = lemon_memory(ctx, NULL);
    lemon_arena arena = {NULL};
    size_t peak, zero = 0;
    int64_t live = heap.live;
    uint8_t *first = (uint8_t *)lemon_arena_alloc(ctx, &arena, size), *second;
    lemon_memory(ctx, &peak);
    if (first) memset(first, 1, size);
    lemon__arena_release(ctx, &arena, NULL);
    check(lemon_memory(ctx, NULL) == before && heap.live > live, "a large block that is released is kept, and does not count");
    heap.calls = 0;
    second = (uint8_t *)lemon_arena_alloc(ctx, &arena, size);
    for (size_t i = 0; second && i < size; i++) zero += second[i] != 0;
    check(second == first && heap.calls == 0 && zero == 0, "and is the next of that size, zeroed");
    check(lemon_memory(ctx, &zero) > before + size && zero == peak, "counted again, without a higher peak");
    lemon__arena_release(ctx, &arena, NULL);
    first = (uint8_t *)lemon_arena_alloc(ctx, &arena, size - 1024);
    lemon_memory(ctx, &zero);
    check(first != NULL && zero == peak && ctx->spared == 0, "for one of another size it goes first");
    lemon__arena_release(ctx, &arena, NULL);
    lemon__spare_free(ctx, 0);
    check(heap.live == live && ctx->spared == 0, "and what is kept can be let go");
}

int main(void) {
    lemon_ctx *ctx = open_ctx(1);
    int dtype;
    test_names();
    test_sizes();
    for (dtype = LEMON_F32; dtype <= LEMON_Q4; dtype++) test_rows((lemon_dtype)dtype);
    test_blocks();
    test_not_finite();
    test_no_weights();
    test_arena(ctx);
    test_arena_memory(ctx);
    test_arena_kept(ctx);
    lemon_close(ctx);
    check(heap.live == 0, "nothing is left allocated");
    return check_done();
}
