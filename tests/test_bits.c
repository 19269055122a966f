/*  The same bits for any number of threads, and those that bits.txt has: products, training, fusion and generation by each
    instruction set that this CPU has, on 1, 2, 3 and 8 threads.  bits.sh does it for two compilers at two levels.
    Where a change of bits is meant (another order of summation), `make -C tests bits-record` writes bits.txt anew.
    A C library whose functions round otherwise cannot give these bits: that is looked at first. */
#include "check.h"

enum { PRODUCT, TRAIN, FUSE, GENERATE, PARTS, TEXT = 1600, ROOM = 200 * 300 };
static const char *const parts[PARTS] = {"product", "train", "fuse", "generate"};
static int32_t text_ids[TEXT];
static lemon_tokens text = {text_ids, TEXT, TEXT};

static void make_text(void) {
    lemon_rng rng;
    int i;
    lemon_rng_seed(&rng, 4);
    for (i = 2; i < TEXT; i++)
        text_ids[i] = (int32_t)((text_ids[i - 1] + 3 * (text_ids[i - 2] % 4) + 1 + 5 * lemon_rng_below(&rng, 3)) % 96);
}

/*  Of what lemon.h takes from the C library. */
static uint32_t libm_hash(void) {
    uint32_t crc = 0;
    int i;
    for (i = 1; i <= 4000; i++) {
        const double x = i * 0.00731;
        const double f[6] = {cos(x), sin(x), log(x), pow(10000.0, -x / 30), sqrt(x), pow(x, 0.37)};
        const float g[2] = {logf((float)x), sqrtf((float)x)};
        crc = lemon_crc32(lemon_crc32(crc, f, sizeof f), g, sizeof g);
    }
    return crc;
}

static uint32_t hash_of(const lemon_model *m) {
    return m && m->block ? lemon_crc32(0, m->block, (size_t)m->block_count * sizeof(float)) : 0;
}

/*  Tall, wide, thin, deep, and one with edges everywhere. */
static uint32_t products(lemon_ctx *ctx) {
    static const int64_t sizes[][3] = {{200, 300, 90}, {7, 300, 200}, {1, 300, 200}, {150, 40, 300}, {97, 101, 103}};
    static float a[ROOM], b[ROOM], c[ROOM];
    lemon_rng rng;
    uint32_t crc = 0;
    int i, t;
    lemon_rng_seed(&rng, 1);
    fill_normal(&rng, a, ROOM, 1);
    fill_normal(&rng, b, ROOM, 1);
    memset(c, 0, sizeof c);
    for (i = 0; i < 5; i++)
        for (t = 0; t < 3; t++) {
            const int64_t m = sizes[i][0], n = sizes[i][1], k = sizes[i][2];
            lemon_sgemm(ctx, t == 2, t == 1, m, n, k, 1.25f, a, t == 2 ? m : k, b, t == 1 ? k : n, 0.5f, c, n);
            crc = lemon_crc32(crc, c, (size_t)(m * n) * sizeof *c);
        }
    return crc;
}

/*  A model with biases and norms of heads: every kernel has something to do. */
static lemon_model *trained(lemon_ctx *ctx, lemon_model *start) {
    lemon_model *m = NULL;
    lemon_train_options o;
    lemon_train_defaults(&o);
    o.steps = 5; o.batch = 4; o.seq = 48; o.accumulate = 2; o.lr = 5e-3; o.teacher = start; o.distill = 0.3;
    if (lemon_model_clone(ctx, start, &m) || lemon_train(ctx, m, &text, &o, NULL)) printf("FAIL %s\n", lemon_error(ctx));
    return m;
}

static uint32_t fusions(lemon_ctx *ctx, const lemon_model *teacher) {
    static const char *const methods[] = {"lemon", "slicegpt", "modegpt", "subclone"};
    lemon_config c = teacher->config;
    uint32_t crc = 0, one;
    int i;
    c.d_model = 32; c.n_heads = 2; c.kv_heads = 1; c.d_ffn = 56; c.n_layers = 1;
    for (i = 0; i < 4; i++) {
        lemon_fuse_options o;
        lemon_model *student = NULL;
        lemon_fuse_defaults(&o);
        o.method = methods[i];
        o.tokens = 500;
        o.learn_steps = i == 0;
        if (lemon_fuse(ctx, teacher, &c, &text, &o, &student, NULL)) printf("FAIL %s\n", lemon_error(ctx));
        one = hash_of(student);
        crc = lemon_crc32(crc, &one, sizeof one);
        lemon_model_free(ctx, student);
    }
    return crc;
}

/*  Scores of a prompt and of single tokens, by weights of every type. */
static uint32_t scores(lemon_ctx *ctx, const lemon_model *m) {
    uint32_t crc = 0;
    int dtype, i;
    for (dtype = LEMON_F32; dtype <= LEMON_Q4; dtype++) {
        lemon_model *stored = NULL;
        lemon_session *session = NULL;
        float *logits = NULL;
        const char *path = scratch("bits.lemon");
        if (lemon_save(ctx, path, m, (lemon_dtype)dtype) || lemon_load(ctx, path, &stored) || lemon_session_open(ctx, stored, &session)) break;
        for (i = 0; i < 4; i++) {
            if (lemon_session_feed(session, text_ids + 40 * i, i ? 1 : 40, &logits)) break;
            crc = lemon_crc32(crc, logits, (size_t)m->config.vocab_size * sizeof *logits);
        }
        lemon_session_close(session);
        lemon_model_free(ctx, stored);
    }
    return dtype > LEMON_Q4 ? crc : 0;
}

static void all_parts(lemon_isa isa, int threads, uint32_t crc[PARTS]) {
    lemon_config c = family_config(tiny_config(64, 2, 4, 2, 16, 112, 96, 0), FAMILIES - 1);
    lemon_options options;
    lemon_model *start, *m;
    lemon_ctx *ctx;
    memset(&options, 0, sizeof options);
    options.isa = isa;
    options.threads = threads;
    ctx = lemon_open(&options);
    start = lively_model(ctx, &c, 1);
    m = trained(ctx, start);
    crc[PRODUCT] = products(ctx);
    crc[TRAIN] = hash_of(m);
    crc[FUSE] = fusions(ctx, m);
    crc[GENERATE] = scores(ctx, m);
    lemon_model_free(ctx, m);
    lemon_model_free(ctx, start);
    lemon_close(ctx);
}

/*  1 if bits.txt has a line of that name; its hash. */
static int recorded(const char *name, uint32_t *crc) {
    char line[80], known[40];
    unsigned long value;
    int found = 0;
    FILE *f = fopen("bits.txt", "r");
    while (f && !found && fgets(line, sizeof line, f))
        if (sscanf(line, "%39s %lx", known, &value) == 2 && strcmp(known, name) == 0) {
            *crc = (uint32_t)value;
            found = 1;
        }
    if (f) fclose(f);
    return found;
}

static void test_recorded(const char *isa, int part, uint32_t got, int comparable) {
    char name[40], line[120];
    uint32_t want = 0;
    snprintf(name, sizeof name, "%s-%s", isa, parts[part]);
    snprintf(line, sizeof line, "%s, %s: the bits of bits.txt", isa, parts[part]);
    if (!comparable || !recorded(name, &want)) { skip(line); return; }
    detail("%08lx, recorded %08lx; meant? make -C tests bits-record", (unsigned long)got, (unsigned long)want);
    check(got == want, line);
}

static void test_isa(lemon_isa isa, int print, int comparable) {
    static const int threads[] = {2, 3, 8};
    uint32_t one[PARTS], many[PARTS];
    char name[80];
    int i, part, same = 1;
    all_parts(isa, 1, one);
    for (i = 0; i < 3 && !print; i++) {
        all_parts(isa, threads[i], many);
        for (part = 0; part < PARTS; part++)
            if (one[part] != many[part]) {
                same = 0;
                detail("%s on %d threads: %08lx, on one %08lx", parts[part], threads[i], (unsigned long)many[part], (unsigned long)one[part]);
            }
    }
    for (part = 0; part < PARTS; part++)
        if (print) printf("%s-%s %08lx\n", lemon_isa_name(isa), parts[part], (unsigned long)one[part]);
    if (print) return;
    snprintf(name, sizeof name, "%s: 1, 2, 3 and 8 threads make the same bits", lemon_isa_name(isa));
    check(same, name);
    for (part = 0; part < PARTS; part++) test_recorded(lemon_isa_name(isa), part, one[part], comparable);
}

int main(int argc, char **argv) {
    const int print = argc > 1 && strcmp(argv[1], "print") == 0;
    uint32_t here = libm_hash(), there = 0;
    int isa, comparable = recorded("libm", &there) && here == there;
    make_text();
    if (print) printf("libm %08lx\n", (unsigned long)here);
    for (isa = LEMON_ISA_SCALAR; isa <= LEMON_ISA_WASM; isa++)
        if (lemon_isa_supported((lemon_isa)isa)) test_isa((lemon_isa)isa, print, comparable);
    return print ? 0 : check_done();
}
