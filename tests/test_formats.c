/*  Chapter 8, the formats of others: JSON, Hugging Face folders, GGUF, llama2.c's files as they are written. */
#include "check.h"

/* ---- JSON ---- */

static lemon_status parse(lemon_ctx *ctx, const char *text, lemon__json *json) {
    return lemon__json_parse(ctx, "some.json", text, strlen(text), json);
}

static int string_is(lemon__json *json, int32_t node, const char *want) {
    size_t n;
    const uint8_t *p = lemon__json_string(json, node, &n);
    detail("\"%.*s\", expected \"%s\"", (int)n, p ? (const char *)p : "", want);
    return p && n == strlen(want) && memcmp(p, want, n) == 0;
}

static void test_json_values(lemon_ctx *ctx) {
    static const char text[] = " {\"a\": [1, -2.5e3, true, false, null, \"x\", {}], \"b\": {\"c\": \"d\\u00e9\\n\\\"\", "
                               "\"e\": []}, \"\\u0061\": 3, \"big\": 9223372036854775807, "
                               "\"low\": -9223372036854775808, \"over\": 9223372036854775808} \n";
    lemon__json json;
    int32_t a, i, items = 0;
    int64_t whole;
    double real;
    if (!check(fine(ctx, parse(ctx, text, &json)), "JSON is parsed")) return;
    a = lemon__json_get(&json, 0, "a");
    for (i = a + 1; i < json.nodes[a].next; i = json.nodes[i].next) items++;
    check(items == 7 && lemon__json_type_of(&json, a) == LEMON__JSON_ARRAY, "JSON array of seven items");
    check(lemon__json_int(&json, a + 1, &whole) && whole == 1, "JSON integer");
    check(lemon__json_real(&json, a + 2, &real) && real >= -2500 && real <= -2500, "JSON real");
    check(!lemon__json_int(&json, a + 2, &whole), "a real is no integer");
    check(lemon__json_type_of(&json, a + 3) == LEMON__JSON_TRUE &&
          lemon__json_type_of(&json, a + 4) == LEMON__JSON_FALSE &&
          lemon__json_type_of(&json, a + 5) == LEMON__JSON_NULL, "JSON true, false, null");
    check(string_is(&json, lemon__json_get(&json, lemon__json_get(&json, 0, "b"), "c"), "d\xc3\xa9\n\""),
          "JSON escapes are decoded");
    check(lemon__json_get(&json, lemon__json_get(&json, 0, "no"), "c") == -1, "what is not there has no members");
    check(lemon__json_int(&json, lemon__json_get(&json, 0, "big"), &whole) && whole == INT64_MAX, "largest int64");
    check(lemon__json_int(&json, lemon__json_get(&json, 0, "low"), &whole) && whole == INT64_MIN, "smallest int64");
    check(!lemon__json_int(&json, lemon__json_get(&json, 0, "over"), &whole), "one more than int64 is refused");
    lemon__json_close(&json);
    check(fine(ctx, parse(ctx, "\"\\ud83d\\ude42 \xe6\x97\xa5 \\u20ac\"", &json)) &&
          string_is(&json, 0, "\xf0\x9f\x99\x82 \xe6\x97\xa5 \xe2\x82\xac"), "surrogate pairs");
    lemon__json_close(&json);
    check(fine(ctx, parse(ctx, "0.1", &json)) && lemon__json_real(&json, 0, &real) && real >= 0.1 && real <= 0.1,
          "doubles are exact");
    lemon__json_close(&json);
    lemon__json_close(&json);
}

static void test_json_refused(lemon_ctx *ctx) {
    static const char *const bad[] = {
        "", " ", "{", "[", "]", "{\"a\"}", "{\"a\":}", "{a:1}", "[1,]", "{\"a\":1,}", "[1 2]", "{\"a\":1 \"b\":2}", "01",
        "1.", ".5", "+1", "-", "1e", "nul", "True", "\"", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\n\"",
        "\"\\ud83d\"", "\"\\ud83d\\u0041\"", "\"\\ude42\"", "[1]]", "{} {}", "NaN", "'a'", "[1}", "{\"a\":1]"};
    char deep[400];
    lemon__json json;
    size_t i;
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char name[80];
        snprintf(name, sizeof name, "no JSON: %s", bad[i]);
        for (char *p = name; *p; p++)
            if (*p == '\n') *p = '~';
        check(fails_with(ctx, parse(ctx, bad[i], &json), LEMON_E_FORMAT, "some.json: line "), name);
    }
    check(fails_with(ctx, lemon__json_parse(ctx, "some.json", "[1]\0", 4, &json), LEMON_E_FORMAT, "the end"),
          "a zero byte is no white space");
    memset(deep, '[', 200);
    memset(deep + 200, ']', 200);
    check(fails_with(ctx, lemon__json_parse(ctx, "some.json", deep, 400, &json), LEMON_E_FORMAT, "64 levels"),
          "JSON of 200 levels is refused");
    check(fine(ctx, lemon__json_parse(ctx, "some.json", deep + 136, 128, &json)), "JSON of 64 levels is read");
    lemon__json_close(&json);
}

/*  Cut anywhere and with any bit flipped, a text is parsed or refused, but never read beyond its end. */
static void test_json_hostile(lemon_ctx *ctx) {
    static const char text[] = "{\"a\":[1,-2.5e3,true,null,\"x\\ud83d\\ude42\",{\"b\":{}}],\"c\":\"\\n\\u00e9\"}";
    size_t n = sizeof text - 1, i, parsed = 0;
    int64_t tried = 0;
    for (i = 0; i < n; i++) {
        uint8_t *copy = (uint8_t *)malloc(i + 1);       /* of exact size, for the sanitizer */
        lemon__json json;
        memcpy(copy, text, i);
        parsed += lemon__json_parse(ctx, "cut.json", copy, i, &json) == LEMON_OK;
        free(copy);
    }
    check(parsed == 0, "JSON that was cut is refused");
    for (i = 0; i < 8 * n; i++, tried++) {
        uint8_t *copy = (uint8_t *)malloc(n);
        lemon__json json;
        int32_t k;
        memcpy(copy, text, n);
        copy[i / 8] ^= (uint8_t)(1u << i % 8);
        if (lemon__json_parse(ctx, "flipped.json", copy, n, &json) == LEMON_OK) {
            for (k = 0; k < json.count; k++) {
                size_t bytes;
                double real;
                int64_t whole;
                lemon__json_string(&json, k, &bytes);
                lemon__json_real(&json, k, &real);
                lemon__json_int(&json, k, &whole);
            }
            lemon__json_close(&json);
        }
        free(copy);
    }
    detail("%ld blocks are left", heap.live);
    check(tried == (int64_t)(8 * n), "JSON with flipped bits");
}

static void test_json_large(lemon_ctx *ctx) {
    size_t n = 0, room = 22u << 20;
    char *text = (char *)malloc(room);
    lemon__json json;
    double start;
    lemon_status status;
    n += (size_t)snprintf(text, room, "{\"vocab\": {");
    while (n < (20u << 20)) n += (size_t)snprintf(text + n, 64, "\"piece%lu\": %lu, ", (unsigned long)n, (unsigned long)n);
    n += (size_t)snprintf(text + n, 64, "\"\": 0}}");
    start = lemon__seconds();
    status = lemon__json_parse(ctx, "large.json", text, n, &json);
    detail("%.2f s, %lld values, %s", lemon__seconds() - start, (long long)json.count, lemon_error(ctx));
    check(status == LEMON_OK && (light() || lemon__seconds() - start < 1), "20 MB of JSON in less than a second");
    printf("# 20 MB of JSON: %.3f s, %lld values\n", lemon__seconds() - start, (long long)json.count);
    lemon__json_close(&json);
    free(text);
}

int main(void) {
    lemon_ctx *ctx = open_ctx(1);
    test_json_values(ctx);
    test_json_refused(ctx);
    test_json_hostile(ctx);
    if (light() < 2) test_json_large(ctx);
    lemon_close(ctx);
    detail("%ld blocks are left", heap.live);
    check(heap.live == 0, "nothing is left allocated");
    return check_done();
}
