/*  What the machine may do to the library: no memory at any allocation, a disk that fails, is full or loses its power at any
    call.  Each job below is run with each fault at its first, second, third ... chance, until none is left to go wrong. */
#include "vfs.h"
#include "check.h"

/* ---- the jobs: each leaves nothing behind but files ---- */

static lemon_model *teacher;            /* made with a context of its own */
static int32_t text_ids[400];
static lemon_tokens text = {text_ids, 400, 400};

static lemon_status save_as(lemon_ctx *ctx, const char *path) { return lemon_save(ctx, path, teacher, LEMON_F32); }
static lemon_status save_lemon(lemon_ctx *ctx) { return save_as(ctx, "out.lemon"); }
static lemon_status save_gguf(lemon_ctx *ctx) { return save_as(ctx, "out.gguf"); }
static lemon_status save_bin(lemon_ctx *ctx) { return save_as(ctx, "out.bin"); }
static lemon_status save_h(lemon_ctx *ctx) { return save_as(ctx, "out.h"); }
static lemon_status save_folder(lemon_ctx *ctx) { return save_as(ctx, "out"); }
static lemon_status save_tokenizer(lemon_ctx *ctx) { return lemon_tokenizer_save(ctx, "out.tok", teacher->tokenizer); }

static long silent;                     /* loads that brought less than there is, and did not say so */

static lemon_status load_from(lemon_ctx *ctx, const char *path, int tokenizer) {
    lemon_model *m = NULL;
    lemon_status status = lemon_load(ctx, path, &m);
    silent += !status && (m->tokenizer == NULL) == tokenizer;
    lemon_model_free(ctx, m);
    return status;
}
static lemon_status load_lemon(lemon_ctx *ctx) { return load_from(ctx, "in.lemon", 1); }
static lemon_status load_gguf(lemon_ctx *ctx) { return load_from(ctx, "in.gguf", 1); }
static lemon_status load_bin(lemon_ctx *ctx) { return load_from(ctx, "in.bin", 0); }
static lemon_status load_folder(lemon_ctx *ctx) { return load_from(ctx, "in", 1); }
static lemon_status load_shards(lemon_ctx *ctx) { return load_from(ctx, "shards", 1); }
static lemon_status load_tokenizer(lemon_ctx *ctx) {
    lemon_tokenizer *t = NULL;
    lemon_status status = lemon_tokenizer_load(ctx, "in/tokenizer.json", 0, &t);
    lemon_tokenizer_free(ctx, t);
    return status;
}
static lemon_status load_text(lemon_ctx *ctx) {
    const char *const paths[] = {"in.txt", "in.u16"};
    lemon_tokens t = {NULL, 0, 0};
    lemon_status status = lemon_tokens_from_files(ctx, teacher->tokenizer, 300, paths, 2, &t);
    lemon_tokens_free(ctx, &t);
    return status;
}

static lemon_status train_to(lemon_ctx *ctx, const char *path, int64_t steps, int resume) {
    lemon_model *m = NULL;
    lemon_train_options o;
    lemon_status status = lemon_model_clone(ctx, teacher, &m);
    lemon_train_defaults(&o);
    o.steps = steps;
    o.batch = 2;
    o.seq = 8;
    o.schedule = LEMON_CONSTANT;
    o.warmup = 0;
    o.save_path = path;
    o.save_every = 1;
    o.resume = resume;
    if (!status) status = lemon_train(ctx, m, &text, &o, NULL);
    lemon_model_free(ctx, m);
    return status;
}
static lemon_status train(lemon_ctx *ctx) { return train_to(ctx, "run.lemon", 3, 0); }
static lemon_status resume(lemon_ctx *ctx) { return train_to(ctx, "begun.lemon", 3, 1); }

static lemon_status fuse_by(lemon_ctx *ctx, const char *method, int64_t learn) {
    lemon_config c = teacher->config;
    lemon_model *student = NULL;
    lemon_fuse_options o;
    lemon_status status;
    c.d_model = 4; c.n_heads = 2; c.kv_heads = 1; c.d_ffn = 6; c.n_layers = 1;
    lemon_fuse_defaults(&o);
    o.method = method;
    o.tokens = 128;
    o.seq = 16;
    o.learn_steps = learn;
    status = lemon_fuse(ctx, teacher, &c, &text, &o, &student, NULL);
    lemon_model_free(ctx, student);
    return status;
}
static lemon_status fuse_lemon(lemon_ctx *ctx) { return fuse_by(ctx, "lemon", 1); }
static lemon_status fuse_ligo(lemon_ctx *ctx) { return fuse_by(ctx, "ligo", 2); }

static lemon_status operators(lemon_ctx *ctx) {
    lemon_operators *ops = NULL;
    lemon_status status = lemon_operators_load(ctx, "in.operators", &ops);
    if (!status) status = lemon_operators_save(ctx, "out.operators", ops);
    lemon_operators_free(ctx, ops);
    return status;
}

static lemon_status generate(lemon_ctx *ctx) {
    lemon_tokens t = {NULL, 0, 0};
    lemon_sampling s;
    lemon_status status;
    lemon_sampling_defaults(&s);
    status = lemon_generate(ctx, teacher, "a b", 6, &s, NULL, NULL, &t, NULL);
    lemon_tokens_free(ctx, &t);
    return status;
}

typedef struct job { const char *name; lemon_status (*run)(lemon_ctx *ctx); int files; } job;
static const job jobs[] = {
    {"load .lemon", load_lemon, 1}, {"load GGUF", load_gguf, 1}, {"load .bin", load_bin, 1}, {"load a folder", load_folder, 1},
    {"load shards", load_shards, 1}, {"load tokenizer.json", load_tokenizer, 1}, {"load text", load_text, 1},
    {"save .lemon", save_lemon, 1}, {"save GGUF", save_gguf, 1}, {"save .bin", save_bin, 1}, {"save .h", save_h, 1},
    {"save a folder", save_folder, 1}, {"save a tokenizer", save_tokenizer, 1}, {"train and save", train, 1},
    {"resume", resume, 1}, {"operators", operators, 1}, {"fuse, solved", fuse_lemon, 0}, {"fuse, learned", fuse_ligo, 0},
    {"generate", generate, 0}};
enum { JOBS = sizeof jobs / sizeof *jobs };

/* ---- the disk before each job, and a copy of it ---- */

static vfs_file kept[VFS_FILES];
static int n_kept;

static void keep_disk(void) {
    int i;
    for (i = 0; i < VFS_FILES; i++) {
        if (!vfs_files[i].name[0]) continue;
        kept[n_kept] = vfs_files[i];
        kept[n_kept].bytes = (uint8_t *)malloc(vfs_files[i].size + 1);
        if (vfs_files[i].size) memcpy(kept[n_kept].bytes, vfs_files[i].bytes, vfs_files[i].size);
        n_kept++;
    }
}
static void fresh_disk(void) {
    int i;
    vfs_reset();
    for (i = 0; i < n_kept; i++) {
        if (kept[i].folder) vfs_folder(kept[i].name);
        else vfs_put(kept[i].name, kept[i].bytes, kept[i].size);
    }
}

static void make_disk(lemon_ctx *ctx) {
    lemon_config c = tiny_config(8, 2, 4, 2, 2, 12, 262, 0), small;
    lemon_save_options o;
    lemon_operators *ops = NULL;
    lemon_fuse_options fo;
    int i;
    for (i = 0; i < 400; i++) text_ids[i] = 3 + (i * i + i / 7) % 200;
    teacher = lively_model(ctx, &c, 4);
    lemon_tokenizer_bytes(ctx, &teacher->tokenizer);
    teacher->config.rms_norm_eps = 1e-5f;
    vfs_reset();
    lemon_save(ctx, "in.lemon", teacher, LEMON_Q8);
    lemon_save(ctx, "in.gguf", teacher, LEMON_F16);
    lemon_save(ctx, "in.bin", teacher, LEMON_F32);
    lemon_save(ctx, "in", teacher, LEMON_BF16);
    lemon_save_defaults(&o);
    o.shard_bytes = 4000;
    lemon_save_with(ctx, "shards", teacher, &o);
    vfs_put("in.txt", "one\n<|endoftext|>\ntwo\n", 22);
    vfs_put("in.u16", "\1\0\2\0", 4);
    train_to(ctx, "begun.lemon", 1, 0);
    small = c;
    small.d_model = 4; small.n_heads = 2; small.kv_heads = 1; small.d_ffn = 6;
    lemon_fuse_defaults(&fo);
    fo.method = "select";
    lemon_operators_fill(ctx, teacher, &small, NULL, &fo, &ops, NULL);
    lemon_operators_save(ctx, "in.operators", ops);
    lemon_operators_free(ctx, ops);
    keep_disk();
}

/*  `make faults` leaves no chance out; other runs take the first ones, and then one of some. */
static long stride(long n, long all) { return getenv("FAULTS") || n < all ? 1 : light() ? 37 : 11; }

/* ---- no memory ---- */

static void test_no_memory(lemon_ctx *ctx, const job *j) {
    char name[100];
    long n, live = heap.live, bad = 0;
    size_t used = lemon_memory(ctx, NULL);
    for (n = 1; n < 100000 && bad == 0; n += stride(n, 100)) {
        lemon_status status;
        fresh_disk();
        heap.calls = 0;
        heap.fail_at = n;
        status = j->run(ctx);
        heap.fail_at = 0;
        if (heap.calls < n && status == LEMON_OK) break;        /* it did not come to the n-th */
        bad += silent;
        if (status != LEMON_E_MEMORY || !strstr(lemon_error(ctx), "out of memory") || heap.live != live ||
            lemon_memory(ctx, NULL) != used || vfs_opened()) {
            detail("allocation %ld: %s, \"%s\", %ld blocks and %d files more", n, lemon_status_name(status),
                   lemon_error(ctx), heap.live - live, vfs_opened());
            bad++;
        } else if (n % 11 == 1) {
            fresh_disk();
            bad += j->run(ctx) != LEMON_OK;
            detail("after allocation %ld: %s", n, lemon_error(ctx));
        }
    }
    snprintf(name, sizeof name, "%s: no memory at any of %ld allocations is a clean error", j->name, n - 1);
    check(bad == 0 && n > 1, name);
}

/* ---- the disk ---- */

/*  What a job leaves on a good disk. */
static void expected_disk(lemon_ctx *ctx, const job *j, vfs_file *out) {
    int i;
    fresh_disk();
    j->run(ctx);
    for (i = 0; i < VFS_FILES; i++) {
        out[i] = vfs_files[i];
        out[i].bytes = (uint8_t *)malloc(vfs_files[i].size + 1);
        if (vfs_files[i].size) memcpy(out[i].bytes, vfs_files[i].bytes, vfs_files[i].size);
    }
}
static void free_disk(vfs_file *disk) {
    int i;
    for (i = 0; i < VFS_FILES; i++) free(disk[i].bytes);
}
static int same_file(const vfs_file *a, const vfs_file *b) {
    return a && b && a->folder == b->folder && a->size == b->size && (a->size == 0 || memcmp(a->bytes, b->bytes, a->size) == 0);
}
static const vfs_file *find_in(const vfs_file *disk, int n, const char *name) {
    int i;
    for (i = 0; i < n; i++)
        if (strcmp(disk[i].name, name) == 0) return &disk[i];
    return NULL;
}

/*  Each file is as it was before or as it is in the end; tmp 0: and none is temporary. */
static int disk_whole(const vfs_file *end, int tmp) {
    int i;
    for (i = 0; i < VFS_FILES; i++) {
        const vfs_file *f = &vfs_files[i];
        if (!f->name[0] || (tmp && strstr(f->name, ".tmp"))) continue;
        if (same_file(f, find_in(kept, n_kept, f->name)) || same_file(f, find_in(end, VFS_FILES, f->name))) continue;
        if (strncmp(f->name, "run.lemon", 9) == 0 || strncmp(f->name, "begun.lemon", 11) == 0) continue;    /* see test_power */
        detail("%s is neither old nor new", f->name);
        return 0;
    }
    for (i = 0; i < n_kept; i++)
        if (!vfs_find(kept[i].name)) { detail("%s is gone", kept[i].name); return 0; }
    return 1;
}

static void test_disk(lemon_ctx *ctx, const job *j, vfs_fault kind, const char *what) {
    char name[120];
    int harmless = kind == VFS_EINTR || kind == VFS_SHORT || kind == VFS_NO_MAP;
    vfs_file end[VFS_FILES];
    long n, bad = 0, live = heap.live;
    expected_disk(ctx, j, end);
    for (n = 1; n < 100000 && bad == 0; n += stride(n, 150)) {
        lemon_status status;
        long calls;
        fresh_disk();
        vfs_break(kind, n);
        status = j->run(ctx);
        calls = vfs_calls;
        vfs_kind = VFS_NONE;
        if (silent) { detail("call %ld: the tokenizer is missing", n); bad++; silent = 0; }
        if (harmless && status) { detail("call %ld: %s", n, lemon_error(ctx)); bad++; }
        if (status && (lemon_error(ctx)[0] == 0 || status == LEMON_E_MEMORY)) { detail("call %ld: %s", n, lemon_error(ctx)); bad++; }
        if (!bad && !disk_whole(end, kind == VFS_EIO)) bad++;
        if (vfs_opened() || heap.live != live) { detail("call %ld: %d files are open, %ld blocks left", n, vfs_opened(), heap.live - live); bad++; }
        if (calls < n) break;
    }
    snprintf(name, sizeof name, "%s: %s at any of %ld calls", j->name, what, n - 1);
    check(bad == 0 && n > 1, name);
    free_disk(end);
}

/*  Training that is cut off at any call goes on from what it left, to the same bits. */
static void test_power(lemon_ctx *ctx, const job *j, const char *path) {
    char state[64], name[100];
    vfs_file end[VFS_FILES];
    const vfs_file *want;
    long n, bad = 0, resumed = 0;
    expected_disk(ctx, j, end);
    want = find_in(end, VFS_FILES, path);
    snprintf(state, sizeof state, "%s.resume", path);
    for (n = 1; n < 100000 && bad == 0; n++) {
        long calls;
        lemon_status status;
        fresh_disk();
        vfs_break(VFS_POWER, n);
        j->run(ctx);
        calls = vfs_calls;
        memset(vfs_handles, 0, sizeof vfs_handles);
        vfs_maps = 0;
        vfs_break(VFS_NONE, 0);
        if (calls < n) break;
        if (vfs_find(path)) bad += load_from(ctx, path, 1) != LEMON_OK;
        status = train_to(ctx, path, 3, vfs_find(state) != NULL);
        resumed += vfs_find(state) != NULL;
        if (status || !same_file(want, vfs_find(path))) {
            detail("call %ld: %s", n, status ? lemon_error(ctx) : "other bits");
            bad++;
        }
    }
    snprintf(name, sizeof name, "%s: the power goes at any of %ld calls, and it goes on to the same bits", j->name, n - 1);
    check(bad == 0 && resumed > 0, name);
    free_disk(end);
}

/*  Saving over a file: what stands there is the old model or the new one, whole. */
static void test_power_save(lemon_ctx *ctx, const job *j, const char *path) {
    vfs_file end[VFS_FILES];
    lemon_model *other = NULL;
    char name[100];
    long n, bad = 0, calls = 0;
    expected_disk(ctx, j, end);
    fresh_disk();
    lemon_model_clone(ctx, teacher, &other);
    lemon_model_init(ctx, other, 99);
    lemon_save(ctx, path, other, LEMON_F32);
    lemon_model_free(ctx, other);
    while (n_kept > 0) free(kept[--n_kept].bytes);
    keep_disk();
    for (n = 1; bad == 0 && (n == 1 || calls >= n - 1); n++) {
        fresh_disk();
        vfs_break(VFS_POWER, n);
        j->run(ctx);
        calls = vfs_calls;
        vfs_break(VFS_NONE, 0);
        memset(vfs_handles, 0, sizeof vfs_handles);
        vfs_maps = 0;
        bad += !disk_whole(end, 1) || load_from(ctx, path, strcmp(path, "out.bin") != 0) != LEMON_OK;
        if (bad) detail("call %ld: %s", n, lemon_error(ctx));
    }
    snprintf(name, sizeof name, "%s: the power goes at any of %ld calls, and a whole model is there", j->name, n - 1);
    check(bad == 0, name);
    free_disk(end);
}

/* ---- opening and closing ---- */

static long resident_pages(void) {
    long total = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f == NULL || fscanf(f, "%ld %ld", &total, &resident) != 2) resident = 0;
    if (f) fclose(f);
    return resident;
}

static void test_cycles(void) {
    long before = 0, after, i;
    for (i = 0; i < (light() ? 300 : 10000); i++) {
        lemon_options o;
        lemon_ctx *ctx;
        lemon_model *m = NULL;
        if (i == 100) before = resident_pages();
        memset(&o, 0, sizeof o);
        o.threads = i % 16 ? 1 : 3;           /* a pool that is not used spins before it sleeps */
        ctx = lemon_open(&o);
        fresh_disk();
        if (ctx == NULL || lemon_load(ctx, "in.lemon", &m)) break;
        lemon_model_free(ctx, m);
        lemon_close(ctx);
    }
    after = resident_pages();
    detail("%ld cycles, %ld pages before and %ld after", i, before, after);
    check(i == (light() ? 300 : 10000) && (light() || after <= before + 64), "opening, loading and closing again and again takes no memory");
}

int main(void) {
    lemon_ctx *own = open_ctx(1), *ctx;
    long live;
    int i;
    make_disk(own);
    ctx = open_ctx(1);
    lemon__workspaces(ctx);             /* what a context makes once, when first needed */
    live = heap.live;
    for (i = 0; i < JOBS; i++) {
        fresh_disk();
        if (!check(jobs[i].run(ctx) == LEMON_OK, jobs[i].name)) { printf("# %s\n", lemon_error(ctx)); continue; }
        test_no_memory(ctx, &jobs[i]);
        if (!jobs[i].files) continue;
        test_disk(ctx, &jobs[i], VFS_EIO, "an error of the disk");
        test_disk(ctx, &jobs[i], VFS_FULL, "a full disk");
        test_disk(ctx, &jobs[i], VFS_EINTR, "an interrupt");
        test_disk(ctx, &jobs[i], VFS_SHORT, "a single byte moved");
    }
    test_power(ctx, &jobs[13], "run.lemon");
    test_power_save(ctx, &jobs[7], "out.lemon");
    test_power_save(ctx, &jobs[8], "out.gguf");
    test_cycles();
    check(heap.live == live, "nothing is left allocated");
    lemon_close(ctx);
    lemon_model_free(own, teacher);
    lemon_close(own);
    vfs_reset();
    while (n_kept > 0) free(kept[--n_kept].bytes);
    return check_done();
}
