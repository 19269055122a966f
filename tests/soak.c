/*  soak.c: $MINUTES (1) of what a long-lived program does, round after round in one process: a context opens; a teacher is loaded,
    fused, its student trained, saved, cancelled at random and gone on with; every format written and read; two sessions
    generate, are saved and restored; the context closes.  Each round must make the same bits as the first, however it was
    cut; nothing may stay allocated or open, and resident memory must not grow.  A line a minute: rounds, memory, files. */
#include "check.h"
#include <dirent.h>
#include <time.h>

enum { STEPS = 40, TOKENS = 40, WAYS = 8 };

static lemon_rng chance;                /* not the library's: when to cancel */
static int may_cancel;
static long rounds, cancelled, saves, loads;
static uint32_t trained, fused, spoken, read_back[WAYS];     /* hashes of the first round */
static const char *wrong = "";

static void expect(int ok, const char *what) {
    if (ok || *wrong) return;
    printf("# %s: %s\n", what, check_detail);
    wrong = what;
}

static int on_progress(void *user, const lemon_progress *progress) {
    (void)user;
    (void)progress;
    return may_cancel && lemon_rng_below(&chance, 3) == 0;
}

static uint32_t hash_of(const lemon_model *m) {
    float row[4096];
    uint32_t crc = 0;
    int64_t i, r;
    for (i = 0; i < m->n_params; i++)
        for (r = 0; r < m->params[i].rows; r++) {
            lemon_row_to_f32(&m->params[i], r, row);
            crc = lemon_crc32(crc, row, (size_t)m->params[i].cols * sizeof *row);
        }
    return crc;
}

/*  The same as in the first round. */
static void same(uint32_t *first, uint32_t hash, const char *what) {
    if (rounds == 0) *first = hash;
    expect(hash == *first, what);
}

static long open_files(void) {
    DIR *folder = opendir("/proc/self/fd");
    long n = 0;
    while (folder && readdir(folder)) n++;
    if (folder) closedir(folder);
    return n;
}

/*  The third attempt is left in peace: a fusion begins from its start each time. */
static lemon_model *fuse(lemon_ctx *ctx, const lemon_model *teacher, const lemon_tokens *text) {
    lemon_config c = teacher->config;
    lemon_fuse_options o;
    lemon_model *student = NULL;
    lemon_status status;
    int attempts = 0;
    c.d_model = 64; c.n_layers = 2; c.n_heads = 4; c.kv_heads = 2; c.d_ffn = 128;
    lemon_fuse_defaults(&o);
    o.tokens = 800;
    do {
        may_cancel = attempts++ < 2;
        status = lemon_fuse(ctx, teacher, &c, text, &o, &student, NULL);
        cancelled += status == LEMON_E_CANCELLED;
    } while (status == LEMON_E_CANCELLED);
    may_cancel = 0;
    expect(fine(ctx, status), "fuse");
    return student;
}

static lemon_model *load(lemon_ctx *ctx, const char *path) {
    lemon_model *m = NULL;
    expect(fine(ctx, lemon_load(ctx, path, &m)), "load");
    loads++;
    return m;
}

/*  A copy that can be trained, in the place of one whose weights are a file's. */
static lemon_model *owned(lemon_ctx *ctx, lemon_model *mapped) {
    lemon_model *m = NULL;
    if (mapped) expect(fine(ctx, lemon_model_clone(ctx, mapped, &m)), "clone");
    lemon_model_free(ctx, mapped);
    return m;
}

/*  Train a copy, or go on with what the last attempt saved, until all steps are done. */
static void train(lemon_ctx *ctx, const lemon_model *start, const lemon_model *teacher, const lemon_tokens *text, const char *path) {
    lemon_train_options o;
    lemon_model *m = NULL;
    lemon_status status;
    lemon_train_defaults(&o);
    o.steps = STEPS; o.batch = 4; o.seq = 64; o.save_path = path; o.save_every = 1 + lemon_rng_below(&chance, 9);
    o.teacher = teacher; o.distill = 0.5;
    expect(fine(ctx, lemon_model_clone(ctx, start, &m)), "clone");
    for (;;) {
        may_cancel = lemon_rng_below(&chance, 4) > 0;
        status = m ? lemon_train(ctx, m, text, &o, NULL) : LEMON_E_MEMORY;
        may_cancel = 0;
        saves++;
        if (status != LEMON_E_CANCELLED) break;
        cancelled++;
        lemon_model_free(ctx, m);
        m = owned(ctx, load(ctx, path));
        o.resume = 1;
    }
    expect(fine(ctx, status), "train");
    if (m) same(&trained, hash_of(m), "training, cut anywhere, makes the same bits");
    lemon_model_free(ctx, m);
}

static void formats(lemon_ctx *ctx, const lemon_model *m) {
    static const struct way { const char *name; lemon_dtype dtype; } ways[WAYS] = {
        {"soak.lemon", LEMON_F32}, {"soak.lemon", LEMON_BF16}, {"soak.lemon", LEMON_Q4}, {"soak.gguf", LEMON_Q8},
        {"soak.gguf", LEMON_F16}, {"soak.bin", LEMON_F32}, {"soak.bin", LEMON_Q8}, {"soak.hf", LEMON_BF16}};
    int i;
    for (i = 0; i < WAYS; i++) {
        const char *path = scratch(ways[i].name);
        lemon_model *again;
        expect(fine(ctx, lemon_save(ctx, path, m, ways[i].dtype)), "save");
        saves++;
        again = load(ctx, path);
        if (again) same(&read_back[i], hash_of(again), "what is saved is what is loaded");
        lemon_model_free(ctx, again);
    }
    expect(fine(ctx, lemon_save(ctx, scratch("soak.h"), m, LEMON_Q8)), "save as a C array");
}

static int on_token(void *user, int32_t id, const char *text, size_t bytes) {
    (void)user;
    (void)id;
    (void)text;
    (void)bytes;
    return lemon_rng_below(&chance, 30) == 0;
}

static void speak(lemon_ctx *ctx, const lemon_model *m) {
    lemon_sampling sampling;
    lemon_tokens tokens = {NULL, 0, 0};
    lemon_stop stop;
    lemon_sampling_defaults(&sampling);
    expect(fine(ctx, lemon_generate(ctx, m, "Once upon a time", TOKENS, &sampling, NULL, NULL, &tokens, &stop)), "generate");
    same(&spoken, lemon_crc32(0, tokens.ids, (size_t)tokens.count * sizeof *tokens.ids), "generation makes the same tokens");
    expect(fine(ctx, lemon_generate(ctx, m, "Lily", TOKENS, &sampling, on_token, NULL, &tokens, &stop)), "generate, stopped");
    lemon_tokens_free(ctx, &tokens);
}

/*  Two conversations with one model, one of which goes on from the other's file. */
static void converse(lemon_ctx *ctx, const lemon_model *m, const lemon_tokens *text) {
    const char *path = scratch("soak.session");
    const int64_t n = 20 + lemon_rng_below(&chance, 60);
    lemon_session *one = NULL, *two = NULL;
    lemon_writer w;
    lemon_reader r;
    float *a = NULL, *b = NULL;
    int ok = fine(ctx, lemon_session_open(ctx, m, &one)) && fine(ctx, lemon_session_open(ctx, m, &two)) &&
             fine(ctx, lemon_session_feed(one, text->ids, n, NULL)) && fine(ctx, lemon_file_writer(ctx, path, &w)) &&
             fine(ctx, lemon_session_save(one, &w)) && fine(ctx, lemon_file_reader(ctx, path, &r));
    ok = ok && fine(ctx, lemon_session_restore(two, &r)) && fine(ctx, lemon_session_feed(one, text->ids + n, 1, &a)) &&
         fine(ctx, lemon_session_feed(two, text->ids + n, 1, &b)) && memcmp(a, b, (size_t)m->config.vocab_size * sizeof *a) == 0;
    expect(ok, "a restored session goes on with the same bits");
    lemon_session_close(one);
    lemon_session_close(two);
}

static void one_round(void) {
    static const char *const readme = "../README.md";
    lemon_options options;
    lemon_ctx *ctx;
    lemon_model *teacher, *student;
    lemon_tokens text = {NULL, 0, 0};
    memset(&options, 0, sizeof options);
    options.threads = 1 + (int)(rounds % 3);
    options.resize = heap_resize;
    options.user = &heap;
    options.progress = on_progress;
    ctx = lemon_open(&options);
    teacher = load(ctx, "../examples/data/teacher.lemon");
    expect(teacher && fine(ctx, lemon_tokens_from_files(ctx, teacher->tokenizer, teacher->config.vocab_size, &readme, 1, &text)), "the text");
    student = fuse(ctx, teacher, &text);
    if (student) {
        same(&fused, hash_of(student), "fusion makes the same bits");
        train(ctx, student, teacher, &text, scratch("soak-run.lemon"));
        formats(ctx, student);
        speak(ctx, student);
        converse(ctx, student, &text);
    }
    lemon_tokens_free(ctx, &text);
    lemon_model_free(ctx, student);
    lemon_model_free(ctx, teacher);
    lemon_close(ctx);
    expect(heap.live == 0, "nothing is left allocated");
    rounds++;
}

int main(void) {
    const char *text = getenv("MINUTES");
    const double minutes = text ? strtod(text, NULL) : 1;
    const time_t begin = time(NULL);
    const long files = open_files();
    long early = 0, late = 0, kb;
    double said = 0, now = 0;
    lemon_rng_seed(&chance, (uint64_t)begin);
    while ((now < minutes || rounds < 8) && !*wrong) {
        one_round();
        now = (double)(time(NULL) - begin) / 60;
        kb = resident_kb();
        if (rounds < 4) continue;                                   /* the allocator finds its size */
        if (now < minutes / 2 || early == 0) early = kb > early ? kb : early;
        else late = kb > late ? kb : late;
        if (now - said >= 1) {
            said = now;
            printf("# %4.0f min, %ld rounds: %ld cancelled, %ld saves, %ld loads; %ld KB resident, %ld files open\n", now, rounds,
                   cancelled, saves, loads, kb, open_files());
            fflush(stdout);
        }
    }
    detail("%s, in round %ld", wrong, rounds);
    check(!*wrong, "every round makes the same bits, however it was cut, and leaves nothing");
    detail("%ld of %ld", cancelled, rounds);
    check(cancelled > 0, "some work was cancelled");
    detail("%ld KB at most in the first half, %ld in the second", early, late);
    printf("# %.0f minutes, %ld rounds, %ld cancelled, %ld saves, %ld loads; %s\n", now, rounds, cancelled, saves, loads, check_detail);
    check(late <= early + 1024, "resident memory does not grow");
    check(open_files() == files, "no file stays open");
    return check_done();
}
