/*  All public functions with NULL, zero, negative, huge and mismatched arguments: build/hostile.inc is made of lemon.h's own
    declarations by hostile.awk, so a new function is called here from its first day.  Nothing may crash; a call that fails
    says why; sizes of a caller's own buffers are the one thing that is believed (BUFFER below). */
#include "vfs.h"
#include "check.h"
#include <limits.h>

enum { GOOD = -1, VALUES = 7, BUFFER = 4096 };

/* ---- what arguments point to: made anew for each call, and freed by the allocator's own list ---- */

enum { BLOCKS = 100000 };
static void *blocks[BLOCKS];
static int n_blocks;

static void *list_resize(void *user, void *old, size_t old_bytes, size_t new_bytes) {
    int i;
    (void)user;
    (void)old_bytes;
    if (new_bytes == 0) {
        for (i = n_blocks - 1; i >= 0 && blocks[i] != old; i--) {}
        if (i >= 0) blocks[i] = blocks[--n_blocks];
        free(old);
        return NULL;
    }
    if (n_blocks == BLOCKS || new_bytes > 1 << 28) return NULL;
    return blocks[n_blocks++] = malloc(new_bytes);
}

/*  What calls without a context allocate is nobody's list. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "detect_leaks=0:allocator_may_return_null=1"; }

static const char *called;
static int called_arg, called_v, bad;
static lemon_ctx *ctx;
static float floats[BUFFER], more_floats[BUFFER], out_floats[BUFFER];
static int32_t ids[BUFFER], scratch_ids[BUFFER];
static int without_ctx;

static lemon_config good_config(int32_t d) {
    lemon_config c;
    lemon_config_defaults(&c);
    c.d_model = d; c.n_layers = 1; c.n_heads = d / 2; c.kv_heads = 1; c.head_dim = 2; c.d_ffn = 6;
    c.vocab_size = 260; c.max_seq = 16;
    return c;
}

static void begin(const char *name, int arg, int v) {
    static int prepared;
    static uint8_t *file;
    static size_t file_bytes;
    lemon_options options;
    int i;
    while (n_blocks > 0) free(blocks[--n_blocks]);
    called = name;
    called_arg = arg;
    called_v = v;
    without_ctx = 0;
    memset(&options, 0, sizeof options);
    options.threads = 1;
    options.resize = list_resize;
    ctx = lemon_open(&options);
    for (i = 0; i < BUFFER; i++) { floats[i] = more_floats[i] = (float)(i % 7) * 0.1f; ids[i] = i % 5; }
    vfs_reset();
    if (!prepared) {
        lemon_config c = good_config(4);
        lemon_model *m = NULL;
        lemon_model_create(ctx, &c, &m);
        lemon_model_init(ctx, m, 1);
        lemon_tokenizer_bytes(ctx, &m->tokenizer);
        lemon_save(ctx, "m.lemon", m, LEMON_F32);
        file_bytes = vfs_find("m.lemon")->size;
        file = (uint8_t *)malloc(file_bytes);
        memcpy(file, vfs_find("m.lemon")->bytes, file_bytes);
        prepared = 1;
    }
    vfs_put("m.lemon", file, file_bytes);
}

static void complain(const char *what) {
    printf("# %s, argument %d, value %d: %s\n", called, called_arg, called_v, what);
    bad++;
}

static void end_status(lemon_status status) {
    if ((int)status < 0 || status > LEMON_E_DIVERGED) complain("no status");
    else if (status && !without_ctx && lemon_error(ctx)[0] == 0) complain(lemon_status_name(status));
}
#define end_nothing(call) (call)
#define end_other(call) ((void)(call))

/* ---- numbers ---- */

static int is_one_of(const char *name, const char *list) {
    const char *p = strstr(list, name);
    size_t n = strlen(name);
    for (; p; p = strstr(p + 1, name))
        if ((p == list || p[-1] == ' ') && (p[n] == ' ' || p[n] == 0)) return 1;
    return 0;
}

/*  0, negative, huge; a number of things in a caller's buffer is never more than there are. */
static int64_t whole(const char *name, int v, int64_t good, int64_t most) {
    int64_t hostile[VALUES];
    hostile[0] = 0; hostile[1] = -1; hostile[2] = -most - 1; hostile[3] = most; hostile[4] = most / 2; hostile[5] = 1;
    hostile[6] = 1000003;
    if (v == GOOD || (hostile[v] > 1 && is_one_of(name, "m n k rows cols n_paths bytes count lda ldb ldc"))) return good;
    return hostile[v];
}

static int64_t any_int64_t(const char *name, int v) {
    return whole(name, v, is_one_of(name, "n m k lda ldb ldc rows cols seq n_new") ? 4 : is_one_of(name, "head_dim") ? 2
                          : is_one_of(name, "n_heads kv_heads n_paths") ? 1 : 0, INT64_MAX);
}
static int32_t any_int32_t(const char *name, int v) {
    return (int32_t)whole(name, v, is_one_of(name, "vocab_size size") ? 260 : is_one_of(name, "n") ? 4 : 1, INT32_MAX);
}
static int any_int(const char *name, int v) { return (int)whole(name, v, 1, INT_MAX); }
static uint16_t any_uint16_t(const char *name, int v) { return (uint16_t)whole(name, v, 1, INT64_MAX); }
static uint32_t any_uint32_t(const char *name, int v) { return (uint32_t)whole(name, v, 1, INT64_MAX); }
static uint64_t any_uint64_t(const char *name, int v) { return (uint64_t)whole(name, v, 1, INT64_MAX); }
static size_t any_size_t(const char *name, int v) {
    if (strcmp(called, "lemon_arena_alloc") == 0) return (size_t)whole("size", v, 8, INT64_MAX);
    return v == 0 || v == 5 ? (size_t)v / 5 : 8 + 0 * strlen(name);
}
static float any_float(const char *name, int v) {
    const float hostile[VALUES] = {0.0f, -1.0f, NAN, INFINITY, -INFINITY, FLT_MAX, 1e-45f};
    (void)name;
    return v == GOOD ? 0.5f : hostile[v];
}

/*  Numbers of an enumeration, and others. */
static int of_enum(int v) {
    static const int hostile[VALUES] = {0, -1, 100, INT_MAX, INT_MIN, 6, 11};
    return v == GOOD ? 0 : hostile[v];
}
static lemon_dtype any_lemon_dtype(const char *name, int v) { (void)name; return (lemon_dtype)of_enum(v); }
static lemon_isa any_lemon_isa(const char *name, int v) { (void)name; return (lemon_isa)of_enum(v); }
static lemon_joint any_lemon_joint(const char *name, int v) { (void)name; return (lemon_joint)of_enum(v); }
static lemon_place any_lemon_place(const char *name, int v) { (void)name; return (lemon_place)of_enum(v); }
static lemon_role any_lemon_role(const char *name, int v) { (void)name; return (lemon_role)of_enum(v); }
static lemon_status any_lemon_status(const char *name, int v) { (void)name; return (lemon_status)of_enum(v); }

/* ---- pointers: v 0 is NULL; the other values, where there are any, are things that do not fit ---- */

static lemon_ctx *any_lemon_ctx_p(const char *name, int v) {
    /* what a context made is freed with that context, or leaks: nobody could know its allocator */
    if (is_one_of(called, "lemon_model_free lemon_tokenizer_free lemon_tokens_free lemon_operators_free lemon_arena_free "
                          "lemon_stream_free lemon_packed_free lemon_model_set_tokenizer") && called_arg == 0) return ctx;
    (void)name;
    if (v == 0) without_ctx = 1;
    return v == 0 ? NULL : ctx;
}

/*  Storage for one result: a dangling pointer in it must not be used. */
#define ANY_OUT(type, id) \
    static type *any_##id(const char *name, int v) { \
        static type out; \
        (void)name; \
        memset(&out, 0, sizeof out); \
        return v == 0 ? NULL : &out; \
    }
ANY_OUT(double, double_p)
ANY_OUT(float *, float_out)
ANY_OUT(int64_t, int64_t_p)
ANY_OUT(lemon_arena, lemon_arena_p)
ANY_OUT(lemon_fuse_forecast, lemon_fuse_forecast_p)
ANY_OUT(lemon_fuse_result, lemon_fuse_result_p)
ANY_OUT(lemon_train_result, lemon_train_result_p)
ANY_OUT(lemon_rng, lemon_rng_p)
ANY_OUT(lemon_stop, lemon_stop_p)
ANY_OUT(lemon_stream, lemon_stream_p)
ANY_OUT(lemon_map *, lemon_map_out)
ANY_OUT(lemon_model *, lemon_model_out)
ANY_OUT(lemon_operators *, lemon_operators_out)
ANY_OUT(lemon_packed *, lemon_packed_out)
ANY_OUT(lemon_session *, lemon_session_out)
ANY_OUT(lemon_tape *, lemon_tape_out)
ANY_OUT(lemon_tokenizer *, lemon_tokenizer_out)
ANY_OUT(size_t, size_t_p)

static void *any_void_p(const char *name, int v) {
    if (strcmp(name, "user") == 0) return NULL;
    return v == 0 ? NULL : floats;
}
static const char *any_char_p(const char *name, int v) {
    if (strcmp(name, "path") == 0) return v == 0 ? NULL : v == 1 ? "" : v == 2 ? "no/such/file" : v == 3 ? "m.bin" : "m.lemon";
    return v == 0 ? NULL : v == 1 ? "\0\0\0\0\0\0\0\0" : v == 2 ? "\xff\xfe \xe6\x97\x80 \xf0\x9f" : "some text";
}
static const char *const texts[] = {"m.lemon", "no.u16", NULL};
static const char **any_char_out(const char *name, int v) {
    static const char *out;
    (void)name;
    return v == 0 ? NULL : &out;
}
static const char *const *any_char_list(const char *name, int v) { (void)name; return v == 0 ? NULL : texts; }
static float *any_float_p(const char *name, int v) {
    return v == 0 ? NULL : strcmp(name, "a") == 0 ? floats : strcmp(name, "b") == 0 ? more_floats : out_floats;
}
static int32_t *any_int32_t_p(const char *name, int v) {
    if (v == 1 && strcmp(name, "ids") == 0) ids[0] = -1;
    if (v == 2 && strcmp(name, "ids") == 0) ids[0] = INT32_MAX;
    return v == 0 ? NULL : strcmp(name, "scratch") == 0 ? scratch_ids : ids;
}

/*  Configs: each field wrong in turn. */
static lemon_config *any_lemon_config_p(const char *name, int v) {
    static lemon_config c;
    c = good_config(strcmp(name, "student") == 0 ? 2 : 4);
    if (v == 1) c.d_model = 0;
    if (v == 2) c.kv_heads = 0;
    if (v == 3) c.n_layers = INT32_MAX;
    if (v == 4) c.vocab_size = -1;
    if (v == 5) c.rope_theta = NAN;
    if (v == 6) memset(&c, 0xff, sizeof c);
    return v == 0 ? NULL : &c;
}

/*  1: of another shape; 2: without a tokenizer; 3: weights that are not its own. */
static lemon_model *any_lemon_model_p(const char *name, int v) {
    lemon_config c = good_config(v == 1 ? 8 : 4);
    lemon_model *m = NULL;
    (void)name;
    if (v == 0) return NULL;
    if (v == 3) { lemon_load(ctx, "m.lemon", &m); return m; }
    lemon_model_create(ctx, &c, &m);
    lemon_model_init(ctx, m, 1);
    if (v != 2 && !(strcmp(name, "to") == 0)) lemon_tokenizer_bytes(ctx, &m->tokenizer);
    return m;
}
static lemon_tokenizer *any_lemon_tokenizer_p(const char *name, int v) {
    lemon_tokenizer *t = NULL;
    (void)name;
    if (v != 0) lemon_tokenizer_bytes(ctx, &t);
    return t;
}

/*  1: none; 2: ids that no model has; 3: few; 4: a count without ids. */
static lemon_tokens *any_lemon_tokens_p(const char *name, int v) {
    static lemon_tokens all[2];
    lemon_tokens *t = &all[strcmp(name, "text") == 0];
    int32_t i;
    memset(t, 0, sizeof *t);
    if (called_v == 0 && v != 0 && strncmp(called, "lemon_t", 7) == 0) return t;         /* may go to a call without a context */
    for (i = 0; i < (v == 1 || v == 4 ? 0 : v == 3 ? 2 : 200); i++) lemon_tokens_push(ctx, t, v == 2 ? 1000000 - 2000000 * (i % 2) : i % 5);
    return v == 0 ? NULL : t;
}

static lemon_session *any_lemon_session_p(const char *name, int v) {
    lemon_session *s = NULL;
    if (v == 0) without_ctx = 1;
    if (v != 0) lemon_session_open(ctx, any_lemon_model_p(name, GOOD), &s);
    return s;
}
static lemon_packed *any_lemon_packed_p(const char *name, int v) {
    lemon_packed *p = NULL;
    (void)name;
    if (v != 0) lemon_sgemm_pack(ctx, 0, 4, 4, floats, 4, &p);
    return p;
}
static lemon_operators *any_lemon_operators_p(const char *name, int v) {
    lemon_config c = good_config(2);
    lemon_operators *ops = NULL;
    lemon_fuse_options o;
    lemon_fuse_defaults(&o);
    o.method = "select";
    if (v != 0) lemon_operators_fill(ctx, any_lemon_model_p(name, GOOD), &c, NULL, &o, &ops, NULL);
    return ops;
}

/*  A tape with leaves of all shapes that recording calls want, and a loss if it is to run. */
static lemon_tape *tape;
static lemon_var square, row, one, table;
static lemon_tape *any_lemon_tape_p(const char *name, int v) {
    static const lemon_loss_options options = {0.0f, 1.0f, 1.0f};
    lemon_tensor t;
    (void)name;
    tape = NULL;
    if (v == 0) without_ctx = 1;
    if (v == 0) return NULL;
    lemon_tape_open(ctx, &tape);
    t = lemon__view(more_floats, LEMON_F32, 8, 4);
    square = lemon_tape_leaf(tape, floats, out_floats, 4, 4);
    row = lemon_tape_leaf(tape, floats, NULL, 1, 4);
    one = lemon_tape_leaf(tape, floats, NULL, 1, 1);
    table = lemon_tape_weight(tape, &t);
    if (v == 1) lemon_tape_add(tape, square, row);          /* an error that sticks */
    if (strcmp(called, "lemon_tape_forward") == 0 || strcmp(called, "lemon_tape_backward") == 0 || strcmp(called, "lemon_tape_plan") == 0)
        lemon_tape_loss(tape, square, table, ids, -1, -1, &options);
    if (v != 2 && strcmp(called, "lemon_tape_plan") != 0 && strstr(called, "ward")) lemon_tape_plan(tape, 1, NULL);
    if (v == 4 && strcmp(called, "lemon_tape_backward") == 0) lemon_tape_forward(tape);
    return tape;
}
static lemon_var any_lemon_var(const char *name, int v) {
    if (v != GOOD && v < 5) return (lemon_var)of_enum(v == 0 ? 2 : v);
    if (v == 5) return table;
    if (v == 6) return one;
    if (strcmp(name, "gain") == 0) return row;
    if (strcmp(name, "weights") == 0) return one;
    if (strcmp(name, "table") == 0 || strstr(name, "output")) return table;
    return square;
}
static lemon_var *any_lemon_var_p(const char *name, int v) {
    static lemon_var all[BUFFER];
    int i;
    for (i = 0; i < BUFFER; i++) all[i] = any_lemon_var(name, v == 0 ? GOOD : v);
    return v == 0 ? NULL : all;
}

/*  1: no data; 2: a type that is none; 3: negative. */
static lemon_tensor *any_lemon_tensor_p(const char *name, int v) {
    static lemon_tensor t;
    (void)name;
    t = lemon__view(v == 1 ? NULL : more_floats, v == 2 ? (lemon_dtype)100 : LEMON_F32, v == 3 ? -1 : 8, v == 4 ? INT64_MAX : 4);
    if (v == 5) t.dtype = LEMON_U8;
    if (strstr(called, "row_")) t.cols = 4;             /* the caller's buffer */
    return v == 0 ? NULL : &t;
}

static lemon_status no_read(void *user, uint64_t offset, void *out, size_t n) {
    (void)user; (void)offset; (void)out; (void)n;
    return LEMON_E_IO;
}
static lemon_reader *any_lemon_reader_p(const char *name, int v) {
    static lemon_reader r;
    (void)name;
    memset(&r, 0, sizeof r);
    r.name = v == 1 ? NULL : "m.lemon";
    r.size = v == 2 ? UINT64_MAX : vfs_find("m.lemon")->size;
    r.map = v == 3 || v == 2 ? NULL : vfs_find("m.lemon")->bytes;
    r.read = v == 4 || v == 3 ? NULL : no_read;
    return v == 0 ? NULL : &r;
}
static lemon_writer *any_lemon_writer_p(const char *name, int v) {
    static lemon_writer w;
    (void)name;
    memset(&w, 0, sizeof w);
    lemon_file_writer(ctx, "out.lemon", &w);
    if (v == 1) w.append = NULL;
    if (v == 2) w.name = NULL;
    if (v == 3) w.commit = NULL;
    if (v == 4) w.abort = NULL;
    return v == 0 ? NULL : &w;
}

static lemon_options *any_lemon_options_p(const char *name, int v) {
    static lemon_options o;
    (void)name;
    memset(&o, 0, sizeof o);
    o.threads = v == 1 ? -1 : v == 2 ? INT_MAX : v == 3 ? 257 : 1;
    o.isa = (lemon_isa)(v == 4 ? -1 : v == 5 ? 100 : 0);
    o.resize = list_resize;
    return v == 0 ? NULL : &o;
}
static lemon_loss_options *any_lemon_loss_options_p(const char *name, int v) {
    static lemon_loss_options o;
    (void)name;
    o.distill = v == 1 ? NAN : v == 2 ? -1.0f : 0.0f;
    o.temperature = v == 3 ? 0.0f : v == 4 ? NAN : 1.0f;
    o.scale = v == 5 ? INFINITY : 1.0f;
    return v == 0 ? NULL : &o;
}
static lemon_sampling *any_lemon_sampling_p(const char *name, int v) {
    static lemon_sampling s;
    (void)name;
    lemon_sampling_defaults(&s);
    if (v == 1) s.temperature = NAN;
    if (v == 2) s.temperature = -1.0f;
    if (v == 3) s.top_k = -1;
    if (v == 4) s.top_p = NAN;
    if (v == 5) s.min_p = INFINITY;
    if (v == 6) s.top_k = INT32_MAX;
    return v == 0 ? NULL : &s;
}
static lemon_session_options *any_lemon_session_options_p(const char *name, int v) {
    static lemon_session_options o;
    (void)name;
    lemon_session_defaults(&o);
    if (v == 1) o.max_seq = -1;
    if (v == 2) o.max_seq = INT64_MAX;
    if (v == 3) o.prefill = 0;
    if (v == 4) o.prefill = INT64_MAX;
    if (v == 5) o.cache = LEMON_Q8;
    if (v == 6) o.cache = (lemon_dtype)100;
    return v == 0 ? NULL : &o;
}
static lemon_save_options *any_lemon_save_options_p(const char *name, int v) {
    static lemon_save_options o;
    (void)name;
    lemon_save_defaults(&o);
    if (v == 1) o.shard_bytes = 0;
    if (v == 2) o.dtype = (lemon_dtype)-1;
    if (v == 3) o.dtype = (lemon_dtype)100;
    if (v == 4) o.dtype = LEMON_U8;
    return v == 0 ? NULL : &o;
}

/*  All options of one kind have this shape in the header: here each field is wrong in turn, more often than VALUES. */
static void spoil_train(lemon_train_options *o, int v) {
    int64_t *const wholes[] = {&o->steps, &o->batch, &o->seq, &o->accumulate, &o->warmup, &o->eval_every, &o->save_every};
    double *const reals[] = {&o->lr, &o->min_lr, &o->weight_decay, &o->clip, &o->distill, &o->temperature};
    static const int64_t bad_wholes[] = {-1, INT64_MIN, INT64_MAX, 1000003};
    static const double bad_reals[] = {(double)NAN, -1.0, (double)INFINITY, 1e300};
    if (v < 28) *wholes[v / 4] = bad_wholes[v % 4];
    else if (v < 52) *reals[(v - 28) / 4] = bad_reals[v % 4];
    else if (v == 52) o->schedule = (lemon_schedule)7;
    else if (v == 53) o->order = (lemon_order)-1;
    else if (v == 54) o->resume = 1;
    else if (v == 55) o->distill = 0.5;
}
enum { TRAIN_SPOILS = 56 };
static lemon_train_options *any_lemon_train_options_p(const char *name, int v) {
    static lemon_train_options o;
    (void)name;
    lemon_train_defaults(&o);
    o.steps = 1; o.batch = 1; o.seq = 4;
    if (v > 0) spoil_train(&o, 4 * v);
    return v == 0 ? NULL : &o;
}

static void spoil_fuse(lemon_fuse_options *o, int v) {
    int64_t *const wholes[] = {&o->tokens, &o->seq, &o->field_layers, &o->field_dims, &o->learn_steps};
    static const int64_t bad_wholes[] = {-1, INT64_MIN, INT64_MAX, 1000003};
    static const double bad_reals[] = {(double)NAN, -1.0, (double)INFINITY, 1e300};
    if (v < 20) *wholes[v / 4] = bad_wholes[v % 4];
    else if (v < 24) { o->learn_lr = bad_reals[v % 4]; o->learn_steps = 1; }
    else if (v == 24) o->method = NULL;
    else if (v == 25) o->method = "";
    else if (v == 26) o->method = "no such method";
    else if (v == 27) o->solve = o->correction = -5;
}
enum { FUSE_SPOILS = 28 };
static lemon_fuse_options *any_lemon_fuse_options_p(const char *name, int v) {
    static lemon_fuse_options o;
    (void)name;
    lemon_fuse_defaults(&o);
    o.method = "select";
    o.tokens = 64;
    if (v > 0) spoil_fuse(&o, v);
    return v == 0 ? NULL : &o;
}

#include "build/hostile.inc"

/*  Options and configs, every field. */
static void test_fields(void) {
    int v;
    lemon_model *student = NULL;
    for (v = 0; v < TRAIN_SPOILS; v++) {
        lemon_train_options *o;
        begin("lemon_train, options", 3, v);
        o = any_lemon_train_options_p("options", GOOD);
        spoil_train(o, v);
        if (o->steps > 1000000) o->lr = (double)NAN;        /* as many as that are no mistake, but take long */
        end_status(lemon_train(ctx, any_lemon_model_p("", GOOD), any_lemon_tokens_p("", GOOD), o, NULL));
    }
    for (v = 0; v < 2 * FUSE_SPOILS; v++) {
        lemon_fuse_options *o;
        lemon_config c = good_config(2);
        begin("lemon_fuse, options", 4, v);
        o = any_lemon_fuse_options_p("options", GOOD);
        if (v % 2) o->method = "lemon";
        spoil_fuse(o, v / 2);
        if (o->learn_steps > 1000000) o->learn_lr = (double)NAN;
        end_status(lemon_fuse(ctx, any_lemon_model_p("", GOOD), &c, any_lemon_tokens_p("text", GOOD), o, &student, NULL));
    }
    check(bad == 0, "options with any field wrong are refused, or have a meaning");
}

int main(void) {
    size_t i;
    for (i = 0; i < sizeof hostile_all / sizeof *hostile_all; i++) {
        if (getenv("HOSTILE") && strcmp(getenv("HOSTILE"), hostile_names[i]) != 0) continue;
        bad = 0;
        if (getenv("HOSTILE_TRACE")) fprintf(stderr, "%s\n", hostile_names[i]);
        hostile_all[i]();
        check(bad == 0, hostile_names[i]);
    }
    bad = 0;
    test_fields();
    while (n_blocks > 0) free(blocks[--n_blocks]);
    return check_done();
}
