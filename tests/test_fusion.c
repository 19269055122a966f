/*  Chapter 12: each method gives a teacher of its own shape back; what the fillers promise; apply against a naive product
    in double; gradients of learned operators against finite differences; saving, refusals, fields, threads. */
#include "reference.h"
#include <limits.h>
#if LEMON__LINUX
#include <signal.h>
#include <sys/wait.h>
#endif

/* ---- a small world: a teacher that has learned something, and its text ---- */

enum { TEXT = 6000 };
static int32_t text_ids[TEXT];
static lemon_tokens text = {text_ids, TEXT, TEXT};
static lemon_model *teacher, *untied_teacher;

static int family;
static lemon_config teacher_config(int tied) {
    return family_config(tiny_config(24, 4, 4, 2, 8, 40, 40, tied), family);
}

/*  Smaller in every way: the student that most tests make. */
static lemon_config student_config(void) {
    lemon_config c = teacher_config(1);
    c.d_model = 16;
    c.n_layers = 2;
    c.n_heads = 2;
    c.kv_heads = 1;
    c.d_ffn = 24;
    return c;
}

static void world_text(void) {
    lemon_rng rng;
    int i;
    lemon_rng_seed(&rng, 4);
    for (i = 2; i < TEXT; i++)
        text_ids[i] = (int32_t)((text_ids[i - 1] + 3 * (text_ids[i - 2] % 4) + 1 + 5 * lemon_rng_below(&rng, 3)) % 40);
}

static lemon_model *world_teacher(lemon_ctx *ctx, int tied) {
    lemon_config c = teacher_config(tied);
    lemon_model *m = NULL;
    lemon_train_options o;
    lemon_model_create(ctx, &c, &m);
    lemon_model_init(ctx, m, 2);
    lemon_train_defaults(&o);
    o.steps = family ? 60 : 150;
    o.batch = 8;
    o.seq = 32;
    o.lr = 1e-2;
    if (lemon_train(ctx, m, &text, &o, NULL)) printf("FAIL the teacher learns: %s\n", lemon_error(ctx));
    return m;
}

static lemon_fuse_options options_of(const char *method) {
    lemon_fuse_options o;
    lemon_fuse_defaults(&o);
    o.method = method;
    o.tokens = 3000;
    o.seq = 32;
    o.learn_steps = 0;
    return o;
}

static lemon_operators *filled(lemon_ctx *ctx, const lemon_model *from, const lemon_config *shape,
                               const lemon_fuse_options *o) {
    lemon_operators *ops = NULL;
    if (lemon_operators_fill(ctx, from, shape, &text, o, &ops, NULL)) detail("%s", lemon_error(ctx));
    return ops;
}

/*  Weights of two models of one shape. */
static int same_weights(const lemon_model *a, const lemon_model *b) {
    int64_t i, same = 1;
    for (i = 0; a && b && i < a->n_params; i++)
        same = same && memcmp(a->params[i].data, b->params[i].data, lemon_tensor_bytes(&a->params[i])) == 0;
    return a && b && same;
}

static double loss_of(lemon_ctx *ctx, const lemon_model *m, const lemon_tokens *tokens, int64_t most) {
    double loss = (double)NAN;
    if (lemon_eval(ctx, m, tokens, 0, most, &loss, NULL)) return (double)NAN;
    return loss;
}

static double fused_loss(lemon_ctx *ctx, const lemon_model *from, const lemon_config *shape, const lemon_tokens *tokens,
                         const lemon_fuse_options *o, int64_t most) {
    lemon_model *m = NULL;
    double loss = (double)NAN;
    if (fine(ctx, lemon_fuse(ctx, from, shape, tokens, o, &m, NULL))) loss = loss_of(ctx, m, tokens, most);
    lemon_model_free(ctx, m);
    return loss;
}

/* ---- the teacher's own shape ---- */

static void test_own_shape(lemon_ctx *ctx, const lemon_model *from, const lemon_tokens *tokens, int64_t most,
                           const char *what) {
    static const struct { const char *name, *method; int solve; double within;
    } ways[] = {{"select", "select", 1, 1e-6},           {"drop", "drop", 1, 1e-6},
                {"subclone", "subclone", 1, 1e-6},       {"ligo", "ligo", 1, 1e-6},
                {"slicegpt", "slicegpt", 1, 1e-4},       {"modegpt", "modegpt", 1, 1e-4},
                {"lemon, not solved", "lemon", 0, 1e-6}, {"lemon, solved", "lemon", 1, 1e-4}};
    double want = loss_of(ctx, from, tokens, most);
    size_t i;
    int untie;
    for (i = 0; i < sizeof ways / sizeof ways[0]; i++)
        for (untie = 0; untie <= from->config.tied_embeddings; untie++) {
            lemon_fuse_options o = options_of(ways[i].method);
            lemon_config shape = from->config;
            char name[128];
            double loss;
            o.solve = ways[i].solve;
            o.seq = 0;
            if (untie) shape.tied_embeddings = 0;
            loss = fused_loss(ctx, from, &shape, tokens, &o, most);
            snprintf(name, sizeof name, "own shape gives the teacher's loss: %s%s, %s", what, untie ? " untied" : "",
                     ways[i].name);
            if (isnan(loss)) check(0, name);
            else check(near_to(loss, want, ways[i].within), name);
        }
}

/* ---- the rest of the family: a student of each keeps it ---- */

/*  A student of every method knows more than a fresh one, is saved and loaded with its family, and speaks. */
static void test_family(lemon_ctx *ctx) {
    static const char *const methods[] = {"random", "drop", "subclone", "slicegpt", "modegpt", "lemon", "lemon"};
    lemon_config shape = student_config();
    lemon_fuse_options any = options_of("drop");
    double loss[7];
    int i;
    for (i = 0; i < 7; i++) {
        lemon_fuse_options o = options_of(methods[i]);
        lemon_model *m = NULL, *loaded = NULL;
        lemon_session *session = NULL;
        float *logits = NULL;
        char name[128];
        if (i == 6) shape.n_layers = 4, shape.d_model = 20;         /* and wider than deep: all layers stay */
        snprintf(name, sizeof name, "a student by %s keeps its family, saved and loaded: %s", methods[i], families[family].name);
        check(fine(ctx, lemon_fuse(ctx, teacher, &shape, &text, &o, &m, NULL)) &&
                  fine(ctx, lemon_save(ctx, scratch("family.lemon"), m, LEMON_F32)) &&
                  fine(ctx, lemon_load(ctx, scratch("family.lemon"), &loaded)) &&
                  memcmp(&loaded->config, &shape, sizeof shape) == 0 && shape.qkv_bias == families[family].bias &&
                  fine(ctx, lemon_session_open(ctx, loaded, &session)) &&
                  fine(ctx, lemon_session_feed(session, text_ids, 30, &logits)) && isfinite(logits[7]), name);
        loss[i] = loss_of(ctx, loaded ? loaded : m, &text, 2000);
        lemon_session_close(session);
        lemon_model_free(ctx, loaded);
        lemon_model_free(ctx, m);
    }
    detail("losses are %g, %g, %g, %g, %g, %g, %g", loss[0], loss[1], loss[2], loss[3], loss[4], loss[5], loss[6]);
    check(loss[5] < loss[0] - 0.1 && loss[5] < loss[1] && loss[5] < loss[2] && loss[6] < loss[5], "a solved start is the best one");
    shape.qkv_bias = !shape.qkv_bias;
    check(filled(ctx, teacher, &shape, &any) == NULL && strstr(lemon_error(ctx), "a student keeps its family"),
          "another family is refused");
    remove(scratch("family.lemon"));
}

/*  What a read map misses on average reaches the biases: with a teacher whose norms lean to one side, the intercept is
    worth having. */
static void test_intercept(lemon_ctx *ctx) {
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of("lemon");
    lemon_operators *ops = filled(ctx, teacher, &shape, &o);
    int64_t i, layer, n = 0;
    for (i = 0; ops && i < lemon__param_count(&shape); i++) {
        lemon_role role = lemon__param_role(&shape, i, &layer);
        const float *c = (const float *)ops->correction[i].data;
        n += role >= LEMON_BQ && role <= LEMON_BV && c && fabs((double)c[0]) > 0;
    }
    check(n == 6, "biases have their intercepts, as corrections");
    lemon_operators_free(ctx, ops);
}

/* ---- selections ---- */

/*  1 if a map takes just the named channels, each with the value. */
static int takes(const lemon_map *map, const int32_t *index, int64_t n, double value) {
    int64_t i;
    if (map == NULL || map->student != n || map->field != 1 || map->index == NULL) return 0;
    for (i = 0; i < n; i++) {
        detail("channel %d is %g of %d, expected %g of %d", (int)i, (double)map->value[i], (int)map->index[i], value,
               (int)index[i]);
        if (map->index[i] != index[i] || fabs((double)map->value[i] - value) > 1e-6) return 0;
    }
    return 1;
}

static void test_select(lemon_ctx *ctx) {
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of("select");
    lemon_operators *ops = filled(ctx, teacher, &shape, &o);
    int32_t residual[16], neurons[24], i;
    int ok = ops != NULL;
    for (i = 0; i < 16; i++) residual[i] = i * 24 / 16;
    for (i = 0; i < 24; i++) neurons[i] = i * 40 / 24;
    check(ok && takes(lemon_operators_map(ops, LEMON_AT_RESIDUAL, 0, 0), residual, 16, 1) &&
              takes(lemon_operators_map(ops, LEMON_AT_READ_FFN, 1, 0), residual, 16, 1) &&
              takes(lemon_operators_map(ops, LEMON_AT_GAIN, 0, 0), residual, 16, 1),
          "select takes evenly spaced channels, at both ends alike");
    check(ok && takes(lemon_operators_map(ops, LEMON_AT_FFN, 0, 0), neurons, 24, 1) &&
              takes(lemon_operators_map(ops, LEMON_AT_READ_NEURONS, 1, 0), neurons, 24, 1),
          "and evenly spaced neurons");
    check(ok && ops->slots == 1 && ops->layer[0] == 0 && ops->layer[1] == 1, "and the first layers");
    lemon_operators_free(ctx, ops);
}

static void test_spaced(lemon_ctx *ctx) {
    static const char *const methods[] = {"drop", "subclone", "lemon"};
    size_t i;
    int32_t n;
    for (i = 0; i < 3; i++) {
        int ok = 1;
        char name[64];
        for (n = 2; n <= 4; n++) {
            lemon_config shape = student_config();
            lemon_fuse_options o = options_of(methods[i]);
            lemon_operators *ops;
            int32_t k;
            shape.n_layers = n;
            ops = filled(ctx, teacher, &shape, &o);
            ok &= ops != NULL && ops->layer[0] == 0 && ops->layer[(n - 1) * ops->slots] == 3;
            for (k = 1; ok && k < n; k++) ok = ops->layer[k * ops->slots] > ops->layer[(k - 1) * ops->slots];
            lemon_operators_free(ctx, ops);
        }
        snprintf(name, sizeof name, "%s keeps the first and the last layer, in order", methods[i]);
        check(ok, name);
    }
}

/*  Reads grow by sqrt(teacher's width / student's), so that a product keeps its size; writes are copies. */
static void test_subclone(lemon_ctx *ctx) {
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of("subclone");
    lemon_operators *ops = filled(ctx, teacher, &shape, &o);
    const lemon_map *write, *read;
    int ok = ops != NULL, i;
    check(ok && (write = lemon_operators_map(ops, LEMON_AT_RESIDUAL, 0, 0)) != NULL &&
              takes(lemon_operators_map(ops, LEMON_AT_READ_ATTN, 0, 0), write->index, 16, sqrt(24.0 / 16)) &&
              takes(lemon_operators_map(ops, LEMON_AT_READ_NEURONS, 1, 0),
                    lemon_operators_map(ops, LEMON_AT_FFN, 1, 0)->index, 24, sqrt(40.0 / 24)),
          "subclone rescales what reads, by the channels that are written");
    read = ok ? lemon_operators_map(ops, LEMON_AT_RESIDUAL, 0, 0) : NULL;
    for (i = 1; read && i < 16; i++) ok &= read->index[i] > read->index[i - 1];
    check(ok && near_to((double)read->value[3], 1, 0), "in the teacher's order, copied as they are");
    lemon_operators_free(ctx, ops);
}

/*  Neurons that never fire and heads that write nothing are the last to be kept, by every method that looks. */
static void test_dead(lemon_ctx *ctx) {
    static const char *const methods[] = {"subclone", "lemon"};
    lemon_model *m = NULL;
    lemon_config shape = student_config();
    int64_t layer, i, j;
    size_t k;
    lemon_model_clone(ctx, teacher, &m);
    for (layer = 0; layer < 4; layer++) {
        float *up = (float *)lemon_model_param(m, LEMON_W_UP, layer)->data,
              *wv = (float *)lemon_model_param(m, LEMON_WV, layer)->data;
        for (i = 0; i < 40; i += 3)                             /* 14 of 40 neurons */
            for (j = 0; j < 24; j++) up[i * 24 + j] = 0;
        for (i = 0; i < 8 * 24; i++) wv[i] = 0;                 /* key-value head 0, so query heads 0 and 1 */
    }
    for (k = 0; k < 2; k++) {
        lemon_fuse_options o = options_of(methods[k]);
        lemon_operators *ops;
        char name[80];
        int ok;
        ops = filled(ctx, m, &shape, &o);
        ok = ops != NULL;
        for (layer = 0; ok && layer < 2; layer++) {
            const lemon_map *neurons = lemon_operators_map(ops, LEMON_AT_FFN, layer, 0),
                            *query = lemon_operators_map(ops, LEMON_AT_QUERY, layer, 0);
            for (i = 0; ok && neurons->field == 1 && i < neurons->student; i++) ok = neurons->index[i] % 3 != 0;
            for (i = 0; ok && i < query->student; i++) ok = query->index[i] >= 16;
        }
        snprintf(name, sizeof name, "%s keeps no dead neuron and no dead head", methods[k]);
        check(ok, name);
        lemon_operators_free(ctx, ops);
    }
    lemon_model_free(ctx, m);
}

/*  A layer of the field whose neurons do nothing gets none, and no map. */
static void test_empty_slot(lemon_ctx *ctx) {
    lemon_model *m = NULL;
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of("lemon");
    lemon_operators *ops;
    int ok;
    lemon_model_clone(ctx, teacher, &m);
    memset(lemon_model_param(m, LEMON_W_DOWN, 1)->data, 0, 24 * 40 * sizeof(float));
    o.field_layers = 2;
    ops = filled(ctx, m, &shape, &o);
    ok = ops && ops->slots == 2 && ops->layer[0] == 0 && ops->layer[1] == 1;
    check(ok && lemon_operators_map(ops, LEMON_AT_FFN, 0, 0)->field > 0 && lemon_operators_map(ops, LEMON_AT_FFN, 0, 1)->field == 0 &&
              lemon_operators_map(ops, LEMON_AT_READ_NEURONS, 0, 1)->field == 0,
          "a layer of dead neurons has no place in a student's");
    lemon_operators_free(ctx, ops);
    lemon_model_free(ctx, m);
}

/* ---- heads ---- */

static void test_groups(lemon_ctx *ctx) {
    static const char *const methods[] = {"select", "subclone", "lemon"};
    size_t k;
    int64_t layer, i;
    for (k = 0; k < 3; k++) {
        lemon_config shape = student_config();
        lemon_fuse_options o = options_of(methods[k]);
        lemon_operators *ops;
        char name[80];
        int together, sums;
        ops = filled(ctx, teacher, &shape, &o); /* 2 heads on 1, from 4 on 2: one group must be taken whole */
        together = ops != NULL;
        for (layer = 0; together && layer < 2; layer++) {
            const lemon_map *q = lemon_operators_map(ops, LEMON_AT_QUERY, layer, 0),
                            *key = lemon_operators_map(ops, LEMON_AT_KEY, layer, 0);
            together = q->index[0] / 16 == q->index[8] / 16 && q->index[0] / 8 != q->index[8] / 8;
            for (i = 0; together && i < 8; i++) together = key->index[i * key->field] / 8 == q->index[0] / 16;
        }
        snprintf(name, sizeof name, "%s keeps a group of heads together, with its own keys", methods[k]);
        check(together, name);
        lemon_operators_free(ctx, ops);
        shape.n_heads = 4;                                      /* 4 on 1: both key heads of the teacher merge */
        ops = filled(ctx, teacher, &shape, &o);
        sums = ops != NULL;
        for (layer = 0; sums && layer < 2; layer++)
            for (i = 0; sums && i < 16; i++) {
                const lemon_map *map = lemon_operators_map(ops, i < 8 ? LEMON_AT_KEY : LEMON_AT_VALUE, layer, 0);
                const float *value = map->value + i % 8 * map->field;
                detail("field %d: %g and %g", (int)map->field, (double)value[0],
                       map->field > 1 ? (double)value[1] : 0.0);
                sums = map->field == 2 && value[0] >= 0 && value[1] >= 0 &&
                       fabs((double)value[0] + (double)value[1] - 1) < 1e-5 &&
                       map->index[i % 8 * 2] != map->index[i % 8 * 2 + 1] && map->index[i % 8 * 2] % 8 == i % 8;
            }
        snprintf(name, sizeof name, "%s merges key-value heads by weights that sum to 1", methods[k]);
        check(sums, name);
        lemon_operators_free(ctx, ops);
    }
}

/*  1 if each channel of a map with room for more is a copy of the named one. */
static int takes_first(const lemon_map *map, const int32_t *index, int64_t n) {
    int64_t i, f;
    for (i = 0; i < n; i++)
        for (f = 0; f < map->field; f++) {
            double want = f == 0 ? 1 : 0;
            detail("channel %d is %g of %d", (int)i, (double)map->value[i * map->field + f],
                   (int)map->index[i * map->field + f]);
            if ((f == 0 && map->index[i * map->field] != index[i]) ||
                fabs((double)map->value[i * map->field + f] - want) > 1e-6)
                return 0;
        }
    return map->student == n;
}

static void test_head_dim(lemon_ctx *ctx) {
    lemon_config shape = teacher_config(1);
    lemon_fuse_options o = options_of("drop");
    lemon_operators *ops;
    int32_t turning[16];
    int i;
    shape.head_dim = 4;
    ops = filled(ctx, teacher, &shape, &o);
    for (i = 0; i < 16; i++) turning[i] = i / 4 * 8 + i % 4 / 2 * 4 + i % 2;    /* plane i is plane 2 i */
    check(ops && takes(lemon_operators_map(ops, LEMON_AT_QUERY, 0, 0), turning, 16, sqrt(0.5)),
          "at half the head_dim, queries take planes 2 i and shrink by sqrt(1/2)");
    check(ops && takes_first(lemon_operators_map(ops, LEMON_AT_KEY, 0, 0), turning, 8),
          "keys the same planes, unscaled");
    lemon_operators_free(ctx, ops);
}

/* ---- apply, naively: Out * W * In^T in double ---- */

static double *expanded(const lemon_map *map) {
    double *m = ref_room(map->student * map->teacher);
    int64_t i, f;
    for (i = 0; i < map->student; i++)
        for (f = 0; f < map->field; f++)
            m[i * map->teacher + (map->index ? map->index[i * map->field + f] : f)] +=
                (double)map->value[i * map->field + f];
    return m;
}

/*  The places of a role's maps, from the documentation of lemon_place. */
static int write_place(lemon_role role) {
    switch (role) {
    case LEMON_WQ: return LEMON_AT_QUERY;
    case LEMON_WK: return LEMON_AT_KEY;
    case LEMON_WV: return LEMON_AT_VALUE;
    case LEMON_WO: case LEMON_W_DOWN: return LEMON_AT_RESIDUAL;
    case LEMON_W_GATE: case LEMON_W_UP: return LEMON_AT_FFN;
    default: return -1;
    }
}
static int read_place(lemon_role role) {
    switch (role) {
    case LEMON_TOK_EMBED: return LEMON_AT_RESIDUAL;
    case LEMON_WQ: case LEMON_WK: case LEMON_WV: return LEMON_AT_READ_ATTN;
    case LEMON_WO: return LEMON_AT_READ_HEADS;
    case LEMON_BQ: return LEMON_AT_QUERY;
    case LEMON_BK: return LEMON_AT_KEY;
    case LEMON_BV: return LEMON_AT_VALUE;
    case LEMON_Q_NORM: return LEMON_AT_QUERY_NORM;
    case LEMON_K_NORM: return LEMON_AT_KEY_NORM;
    case LEMON_W_GATE: case LEMON_W_UP: return LEMON_AT_READ_FFN;
    case LEMON_W_DOWN: return LEMON_AT_READ_NEURONS;
    case LEMON_OUTPUT: return LEMON_AT_READ_OUTPUT;
    default: return LEMON_AT_GAIN;
    }
}
static int gain_role(lemon_role role) {
    if (role == LEMON_WQ || role == LEMON_WK || role == LEMON_WV) return LEMON_ATTN_NORM;
    if (role == LEMON_W_GATE || role == LEMON_W_UP) return LEMON_FFN_NORM;
    return role == LEMON_OUTPUT ? LEMON_FINAL_NORM : -1;
}

/*  Adds one slot's share of a student's weight to out [rows, cols]. */
static void naive_slot(const lemon_operators *ops, const lemon_model *from, lemon_role role, int64_t layer,
                       int64_t slot, double *out) {
    int per_layer = lemon_role_get(role)->per_layer;
    int64_t source = per_layer ? ops->layer[layer * ops->slots + slot] : 0, i, j, n;
    double weight = per_layer ? (double)ops->layer_weight[layer * ops->slots + slot] : 1;
    const lemon_map *in = lemon_operators_map(ops, (lemon_place)read_place(role), per_layer ? layer : 0, slot);
    const lemon_map *to =
        write_place(role) < 0 ? NULL : lemon_operators_map(ops, (lemon_place)write_place(role), layer, slot);
    const lemon_tensor *t;
    double *w, *read, *half;
    if (source < 0 || in->field == 0 || (to && to->field == 0)) return;
    t = lemon_model_param(from, role, source);
    w = ref_room(t->rows * t->cols);
    for (i = 0; i < t->rows * t->cols; i++) {
        double gain =
            ops->fold_gains && gain_role(role) >= 0
                ? (double)((float *)lemon_model_param(from, (lemon_role)gain_role(role), source)->data)[i % t->cols]
                : 1;
        w[i] = weight * gain * (double)((float *)t->data)[i];
    }
    read = expanded(in);
    half = ref_room(t->rows * in->student);
    ref_matmul(w, 0, read, 1, t->rows, in->student, t->cols, half);
    n = to ? to->student : t->rows;
    if (to) {
        double *write = expanded(to), *all = ref_room(n * in->student);
        ref_matmul(write, 0, half, 0, n, in->student, t->rows, all);
        free(write);
        free(half);
        half = all;
    }
    for (j = 0; j < n * in->student; j++) out[j] += half[j];
    free(w);
    free(read);
    free(half);
}

/*  All weights of the student, one behind the other. */
static double *naive_apply(const lemon_operators *ops, const lemon_model *from, int correction) {
    double *all = ref_room(lemon_config_params(&ops->student)), *w = all;
    int64_t p, layer, i, slot, rows, cols;
    for (p = 0; p < lemon__param_count(&ops->student); p++) {
        lemon_role role = lemon__param_role(&ops->student, p, &layer);
        const lemon_role_info *info = lemon_role_get(role);
        rows = lemon_joint_size(&ops->student, info->out);
        cols = lemon_joint_size(&ops->student, info->in);
        if (!info->matrix && (role < LEMON_BQ || role > LEMON_K_NORM) && ops->fold_gains && (role != LEMON_FINAL_NORM || !ops->student.tied_embeddings))
            for (i = 0; i < cols; i++) w[i] = 1;
        else
            for (slot = 0; slot < (info->per_layer ? ops->slots : 1); slot++)
                naive_slot(ops, from, role, layer, slot, w);
        for (i = 0; correction && ops->correction[p].data && i < rows * cols; i++)
            w[i] += (double)((float *)ops->correction[p].data)[i];
        w += rows * cols;
    }
    return all;
}

static double map_at(const lemon_map *map, int64_t student, int64_t channel) {
    double sum = 0;
    for (int64_t j = 0; j < map->field; j++)
        if ((map->index ? map->index[student * map->field + j] : j) == channel) sum += (double)map->value[student * map->field + j];
    return sum;
}

/*  By MoDeGPT narrower heads keep those directions of their values that weigh most, written by L^-T u and read by L u: what a channel
    writes it reads whole, and of the others it reads nothing. */
static void test_narrow_values(lemon_ctx *ctx) {
    lemon_config shape = teacher_config(1);
    lemon_fuse_options o = options_of("modegpt");
    const lemon_map *write = NULL, *read = NULL;
    lemon_operators *ops;
    double worst = 1, loss;
    shape.head_dim = 4;
    ops = filled(ctx, teacher, &shape, &o);
    if (ops) write = lemon_operators_map(ops, LEMON_AT_VALUE, 0, 0), read = lemon_operators_map(ops, LEMON_AT_READ_HEADS, 0, 0);
    if (write && read && write->student == 8 && read->student == 16 && write->teacher == 16 && read->teacher == 32) {
        worst = 0;
        for (int64_t q = 0; q < 16; q++)                    /* a channel of a query's head, and all of its key-value head's */
            for (int64_t c = 0; c < 4; c++) {
                double sum = 0;
                for (int64_t t = 0; t < 32; t++) sum += map_at(read, q, t) * map_at(write, q / 8 * 4 + c, t / 16 * 8 + t % 8);
                worst = fmax(worst, fabs(sum - (q % 4 == c)));
            }
    }
    detail("off by %g", worst);
    check(worst < 1e-3, "by modegpt, narrower heads read whole what their values write");
    lemon_operators_free(ctx, ops);
    loss = fused_loss(ctx, teacher, &shape, &text, &o, 2000);
    o = options_of("random");
    check(loss < fused_loss(ctx, teacher, &shape, &text, &o, 2000), "and such a student is better than one by chance");
}

/*  Where heads write from four of their eight channels alone, four channels of a student lose nothing of it. */
static void test_kept_values(lemon_ctx *ctx) {
    lemon_config shape = teacher_config(1);
    lemon_fuse_options o = options_of("modegpt");
    lemon_model *m = NULL;
    lemon_operators *ops;
    double worst = 0;
    int64_t layer, i, q, a, b, c;
    shape.head_dim = 4;
    lemon_model_clone(ctx, teacher, &m);
    for (layer = 0; layer < 4; layer++)
        for (i = 0; i < 24 * 32; i++)
            if (i % 2 == 0) ((float *)lemon_model_param(m, LEMON_WO, layer)->data)[i] = 0;
    ops = filled(ctx, m, &shape, &o);
    for (layer = 0; ops && layer < 4; layer++) {
        const lemon_map *write = lemon_operators_map(ops, LEMON_AT_VALUE, layer, 0);
        const lemon_map *read = lemon_operators_map(ops, LEMON_AT_READ_HEADS, layer, 0);
        for (q = 0; q < 4; q++)
            for (a = 1; a < 8; a += 2)
                for (b = 0; b < 8; b++) {
                    double sum = 0;
                    for (c = 0; c < 4; c++) {               /* of a teacher's head or another, of one only */
                        double from = 0, to = 0;
                        for (i = 0; i < 4; i++) to += map_at(read, q * 4 + c, i * 8 + a);
                        for (i = 0; i < 2; i++) from += map_at(write, q / 2 * 4 + c, i * 8 + b);
                        sum += to * from;
                    }
                    worst = fmax(worst, fabs(sum - (a == b)));
                }
    }
    detail("off by %g", worst);
    check(ops && worst < 1e-3, "and keep the directions that are written");
    lemon_operators_free(ctx, ops);
    lemon_model_free(ctx, m);
}

/*  A selection writes its own rows. */
static void test_selected_rows(lemon_ctx *ctx) {
    const float w[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    float value[2] = {1, 10}, y[6] = {0, 0, 0, 0, -1, -1};
    int32_t index[2] = {2, 0};
    lemon_map map;
    map.student = 2, map.teacher = 3, map.field = 1, map.index = index, map.value = value;
    lemon__map_cols(ctx, &map, w, 2, 0.0f, y);
    check(y[0] == 3 && y[1] == 10 && y[2] == 6 && y[3] == 40 && y[4] == -1 && y[5] == -1,
          "a selection of columns writes its rows and no more");
}

static void test_apply(lemon_ctx *ctx) {
    static const struct { const char *name, *method; int solve; int64_t field_layers, field_dims; } ways[] = {
        {"select", "select", 1, 0, 0}, {"subclone", "subclone", 1, 0, 0}, {"lemon, not solved", "lemon", 0, 3, 0},
        {"lemon, solved", "lemon", 1, 0, 0}, {"lemon, solved in small fields", "lemon", 1, 2, 5}};
    size_t k;
    int tied, correction;
    int64_t i;
    for (k = 0; k < sizeof ways / sizeof ways[0]; k++)
        for (tied = 0; tied < 2; tied++) {
            lemon_config shape = student_config();
            lemon_fuse_options o = options_of(ways[k].method);
            lemon_operators *ops;
            char name[96];
            int ok;
            o.solve = ways[k].solve;
            o.field_layers = ways[k].field_layers;
            o.field_dims = ways[k].field_dims;
            shape.tied_embeddings = tied;
            ops = filled(ctx, tied ? teacher : untied_teacher, &shape, &o);
            ok = ops != NULL;
            for (correction = 0; ok && correction < 2; correction++) {
                lemon_model *m = NULL;
                double *want = naive_apply(ops, tied ? teacher : untied_teacher, correction);
                ok = fine(ctx, lemon_operators_apply(ctx, ops, tied ? teacher : untied_teacher, correction, &m));
                for (i = 0; ok && i < m->block_count; i++) ok = near_to((double)m->block[i], want[i], 2e-5);
                lemon_model_free(ctx, m);
                free(want);
            }
            snprintf(name, sizeof name, "apply is Out W In', naively: %s, %s", ways[k].name, tied ? "tied" : "untied");
            check(ok, name);
            lemon_operators_free(ctx, ops);
        }
}

static void test_correction(lemon_ctx *ctx) {
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of("lemon");
    lemon_operators *ops = filled(ctx, teacher, &shape, &o);
    lemon_model *with = NULL, *without = NULL, *fused = NULL;
    int64_t i, layer, parts = 0, elsewhere = 0;
    for (i = 0; ops && i < lemon__param_count(&shape); i++) {
        lemon_role role = lemon__param_role(&shape, i, &layer);
        if (ops->correction[i].data == NULL) continue;
        if (role == LEMON_WO || role == LEMON_W_DOWN) parts++;
        else elsewhere += role != LEMON_FINAL_NORM && role != LEMON_OUTPUT;
    }
    check(parts == 4 && elsewhere == 0, "corrections stand at the matrices that write to the stream");
    lemon_operators_apply(ctx, ops, teacher, 1, &with);
    lemon_operators_apply(ctx, ops, teacher, 0, &without);
    check(with && without && memcmp(with->block, without->block, (size_t)with->block_count * 4) != 0,
          "a correction can be left out");
    check(with && without && loss_of(ctx, with, &text, 2000) < loss_of(ctx, without, &text, 2000),
          "and is worth having");
    lemon_model_free(ctx, without);
    without = NULL;
    o.correction = 0;
    check(fine(ctx, lemon_fuse(ctx, teacher, &shape, &text, &o, &fused, NULL)), "a fusion without corrections");
    lemon_operators_free(ctx, ops);
    ops = filled(ctx, teacher, &shape, &o);
    lemon_operators_apply(ctx, ops, teacher, 0, &without);
    check(fused && without && memcmp(fused->block, without->block, (size_t)fused->block_count * 4) == 0,
          "is that of its operators alone");
    lemon_operators_free(ctx, ops);
    lemon_model_free(ctx, with);
    lemon_model_free(ctx, without);
    lemon_model_free(ctx, fused);
}

/* ---- saved operators ---- */

static void test_saved(lemon_ctx *ctx, const char *method, int solve, int64_t field_dims, const char *name) {
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of(method);
    lemon_operators *ops, *back = NULL;
    lemon_model *a = NULL, *b = NULL;
    char line[96];
    o.solve = solve;
    o.field_dims = field_dims;
    ops = filled(ctx, teacher, &shape, &o);
    snprintf(line, sizeof line, "operators saved and loaded apply to the same bits: %s", name);
    check(ops && fine(ctx, lemon_operators_save(ctx, scratch("ops.lemon"), ops)) &&
              fine(ctx, lemon_operators_load(ctx, scratch("ops.lemon"), &back)) && strcmp(back->method, method) == 0 &&
              fine(ctx, lemon_operators_apply(ctx, ops, teacher, 1, &a)) &&
              fine(ctx, lemon_operators_apply(ctx, back, teacher, 1, &b)) &&
              memcmp(a->block, b->block, (size_t)a->block_count * 4) == 0,
          line);
    check(back && back->source.map && (const uint8_t *)back->maps[0].value >= back->source.map &&
              (const uint8_t *)back->maps[0].value < back->source.map + back->source.size, "what was loaded stays in the file");
    lemon_model_free(ctx, a);
    lemon_model_free(ctx, b);
    lemon_operators_free(ctx, ops);
    lemon_operators_free(ctx, back);
}

static void test_saved_wrong(lemon_ctx *ctx) {
    lemon_config shape = student_config(), other = teacher_config(1);
    lemon_fuse_options o = options_of("lemon");
    lemon_operators *ops = filled(ctx, teacher, &shape, &o), *back = NULL;
    lemon_model *m = NULL, *wide;
    lemon_rng rng;
    size_t n, i;
    char *bytes;
    int bad = 0;
    other.d_ffn = 41;
    wide = lively_model(ctx, &other, 1);
    check(
        fails_with(ctx, lemon_operators_apply(ctx, ops, wide, 1, &m), LEMON_E_ARG, "that of the operators' teacher") &&
            m == NULL,
        "operators refuse a teacher of another shape");
    lemon_operators_save(ctx, scratch("ops.lemon"), ops);
    lemon_operators_free(ctx, ops);
    lemon_model_free(ctx, wide);
    check(lemon_load(ctx, scratch("ops.lemon"), &m) != LEMON_OK && m == NULL, "operators are not a model");
    lemon_save(ctx, scratch("model.lemon"), teacher, LEMON_F32);
    check(lemon_operators_load(ctx, scratch("model.lemon"), &back) != LEMON_OK && back == NULL,
          "a model is not operators");
    bytes = slurp(scratch("ops.lemon"), &n);
    lemon_rng_seed(&rng, 1);
    for (i = 0; bytes && i < 60; i++) { /* a flipped bit is refused; so is a file that was cut */
        size_t at = (size_t)lemon_rng_below(&rng, (int64_t)n);
        bytes[at] = (char)(bytes[at] ^ 16);
        spill(scratch("bent.lemon"), bytes, i % 3 ? n : at);
        bytes[at] = (char)(bytes[at] ^ 16);
        if (lemon_operators_load(ctx, scratch("bent.lemon"), &back) == LEMON_OK) {
            lemon_operators_free(ctx, back);
            bad += i % 3 == 0;
        } else bad += back != NULL;
    }
    check(bytes && bad == 0, "damaged operator files are refused");
    free(bytes);
    shape = student_config();
    ops = filled(ctx, teacher, &shape, &o);
    lemon__own_map(ops, LEMON_AT_FFN, 0, 0)->student--;         /* a file that is whole, with a map that is too small */
    check(fine(ctx, lemon_operators_save(ctx, scratch("bent.lemon"), ops)) &&
              fails_with(ctx, lemon_operators_load(ctx, scratch("bent.lemon"), &back), LEMON_E_FORMAT,
                         "the student's shape and the map's field") && back == NULL,
          "a map of another size than its student's is refused");
    lemon__own_map(ops, LEMON_AT_FFN, 0, 0)->student++;
    lemon_operators_free(ctx, ops);
}

/* ---- a method of one's own ---- */

/*  A set filled through the public calls with what another one holds. */
static lemon_operators *copied(lemon_ctx *ctx, const lemon_operators *from) {
    lemon_operators *ops = NULL;
    int64_t layer;
    int place, ok = fine(ctx, lemon_operators_create(ctx, &from->teacher, &from->student, from->slots, &ops));
    for (layer = 0; ok && layer < from->student.n_layers; layer++) {
        ops->layer[layer] = from->layer[layer];
        ops->layer_weight[layer] = from->layer_weight[layer];
        for (place = 0; place < LEMON_AT_QUERY_NORM; place++) {
            const lemon_map *theirs = lemon_operators_map(from, (lemon_place)place, layer, 0);
            lemon_map *ours;
            if (place < LEMON_AT_READ_ATTN && layer > 0) continue;
            ok = ok && fine(ctx, lemon_operators_set_map(ctx, ops, (lemon_place)place, layer, 0, theirs->field, &ours));
            if (!ok) break;
            memcpy(ours->value, theirs->value, (size_t)(ours->student * ours->field) * sizeof(float));
            if (ours->index) memcpy(ours->index, theirs->index, (size_t)(ours->student * ours->field) * sizeof(int32_t));
        }
    }
    return ops;
}

static void test_own_method(lemon_ctx *ctx) {
    lemon_config shape = student_config(), other;
    lemon_fuse_options o = options_of("select");
    lemon_operators *theirs = filled(ctx, teacher, &shape, &o), *ours = copied(ctx, theirs), *back = NULL;
    lemon_model *a = NULL, *b = NULL, *c = NULL;
    lemon_map *map;
    check(fine(ctx, lemon_operators_apply(ctx, theirs, teacher, 1, &a)) &&
              fine(ctx, lemon_operators_apply(ctx, ours, teacher, 1, &b)) &&
              memcmp(a->block, b->block, (size_t)a->block_count * sizeof(float)) == 0,
          "operators filled by hand apply to the same bits as a method's");
    check(fine(ctx, lemon_operators_save(ctx, scratch("own.lemon"), ours)) &&
              fine(ctx, lemon_operators_load(ctx, scratch("own.lemon"), &back)) &&
              fine(ctx, lemon_operators_apply(ctx, back, teacher, 1, &c)) &&
              memcmp(a->block, c->block, (size_t)a->block_count * sizeof(float)) == 0,
          "and are saved and loaded");
    lemon_model_free(ctx, c);
    ours->layer[1] = 4;
    check(fails_with(ctx, lemon_operators_apply(ctx, ours, teacher, 1, &c), LEMON_E_ARG, "layer is 4, expected -1 to 3"),
          "a layer that the teacher has not is refused");
    ours->layer[1] = -1;
    check(fails_with(ctx, lemon_operators_apply(ctx, ours, teacher, 1, &c), LEMON_E_ARG,
                     "student layer 1 has no teacher layer"),
          "a student layer with an empty field is refused");
    ours->layer[1] = 1;
    ours->layer_weight[1] = 0;
    check(fine(ctx, lemon_operators_apply(ctx, ours, teacher, 1, &c)), "one whose weight is 0 is not");
    lemon_model_free(ctx, c);
    lemon_operators_set_map(ctx, ours, LEMON_AT_FFN, 1, 0, 1, &map);
    map->index[3] = 40;
    check(fails_with(ctx, lemon_operators_apply(ctx, ours, teacher, 1, &c), LEMON_E_ARG, "index 40, expected 0 to 39"),
          "and a channel");
    lemon_operators_save(ctx, scratch("own.lemon"), ours);
    lemon_operators_free(ctx, back);
    check(fails_with(ctx, lemon_operators_load(ctx, scratch("own.lemon"), &back), LEMON_E_FORMAT, "index 40") && !back,
          "in a file too");
    lemon_operators_free(ctx, ours);
    check(fine(ctx, lemon_operators_create(ctx, &teacher->config, &shape, 1, &ours)) &&
              fails_with(ctx, lemon_operators_apply(ctx, ours, teacher, 1, &c), LEMON_E_ARG, "is missing"),
          "and a map that is missing");
    check(fails_with(ctx, lemon_operators_set_map(ctx, ours, LEMON_AT_RESIDUAL, 1, 0, 1, &map), LEMON_E_ARG, "layer is 1") &&
              fails_with(ctx, lemon_operators_set_map(ctx, ours, LEMON_AT_FFN, 0, 0, 41, &map), LEMON_E_ARG, "field is 41"),
          "a map that is nowhere, or wider than the teacher, is refused");
    lemon_operators_free(ctx, ours);
    other = shape;
    other.vocab_size--;
    check(fails_with(ctx, lemon_operators_create(ctx, &teacher->config, &other, 1, &ours), LEMON_E_ARG, "vocab_size is 39"),
          "operators keep the vocabulary");
    other = shape;
    other.qk_norm = 1;
    check(fails_with(ctx, lemon_operators_create(ctx, &teacher->config, &other, 1, &ours), LEMON_E_ARG, "keeps its family"),
          "and the family");
    theirs->student.vocab_size--;           /* a file in which they differ, all checksums right */
    lemon_operators_save(ctx, scratch("own.lemon"), theirs);
    theirs->student.vocab_size++;
    check(fails_with(ctx, lemon_operators_load(ctx, scratch("own.lemon"), &back), LEMON_E_FORMAT, "vocab_size is 39") && !back,
          "in a file too");
    lemon_operators_free(ctx, theirs);
    lemon_model_free(ctx, a);
    lemon_model_free(ctx, b);
}

/* ---- refusals ---- */

static void test_refusals(lemon_ctx *ctx) {
    static const struct { size_t field; int32_t value; const char *message;
    } wrongs[] = {
        {offsetof(lemon_config, d_model), 25, "d_model is 25, expected at most 24, the teacher's; 24 is the nearest"},
        {offsetof(lemon_config, n_layers), 5, "n_layers is 5, expected at most 4, the teacher's; 4 is the nearest"},
        {offsetof(lemon_config, n_heads), 6, "n_heads is 6, expected at most 4"},
        {offsetof(lemon_config, d_ffn), 41, "d_ffn is 41, expected at most 40"},
        {offsetof(lemon_config, head_dim), 6,
         "head_dim is 6, expected a divisor of the teacher's 8, so that RoPE's speeds agree; 8 is the nearest"},
        {offsetof(lemon_config, vocab_size), 39, "vocab_size is 39, expected 40"},
        {offsetof(lemon_config, d_model), 0, "d_model is 0"}};
    lemon_tokens few = {text_ids, 20, 20};
    int32_t wrong_ids[100] = {0};
    lemon_tokens beyond = {wrong_ids, 100, 100};
    lemon_model *m = NULL;
    lemon_fuse_options o;
    lemon_config shape;
    size_t i;
    char name[128];
    for (i = 0; i < sizeof wrongs / sizeof wrongs[0]; i++) {
        shape = student_config();
        o = options_of("lemon");
        memcpy((char *)&shape + wrongs[i].field, &wrongs[i].value, 4);
        snprintf(name, sizeof name, "refused: %s", wrongs[i].message);
        check(fails_with(ctx, lemon_fuse(ctx, teacher, &shape, &text, &o, &m, NULL), LEMON_E_ARG, wrongs[i].message) &&
                  m == NULL,
              name);
    }
    shape = student_config();
    o = options_of("lemons");
    check(fails_with(ctx, lemon_fuse(ctx, teacher, &shape, &text, &o, &m, NULL), LEMON_E_ARG,
                     "method is \"lemons\", expected"),
          "refused: an unknown method");
    o.method = NULL;
    check(fails_with(ctx, lemon_fuse(ctx, teacher, &shape, &text, &o, &m, NULL), LEMON_E_ARG, "method is"),
          "refused: no method");
    o = options_of("lemon");
    check(lemon_fuse(ctx, teacher, &shape, &few, &o, &m, NULL) == LEMON_E_ARG && m == NULL,
          "refused: a text too short");
    wrong_ids[50] = 40;
    check(fails_with(ctx, lemon_fuse(ctx, teacher, &shape, &beyond, &o, &m, NULL), LEMON_E_ARG, "token 50 is 40"),
          "refused: ids beyond the vocabulary");
    o.tokens = 63;
    check(fails_with(ctx, lemon_fuse(ctx, teacher, &shape, &text, &o, &m, NULL), LEMON_E_ARG, "tokens is 63"),
          "refused: 63 tokens");
    o = options_of("random");
    {
        lemon_operators *ops = NULL;
        check(fails_with(ctx, lemon_operators_fill(ctx, teacher, &shape, &text, &o, &ops, NULL), LEMON_E_ARG,
                         "has no operators") &&
                  ops == NULL,
              "refused: operators of the random method");
    }
    o = options_of("ligo");
    o.learn_steps = 5;
    few.count = 40;                     /* a window to learn from and one to hold out, of 16 tokens each */
    check(fails_with(ctx, lemon_fuse(ctx, teacher, &shape, &few, &o, &m, NULL), LEMON_E_ARG,
                     "the text has 40 tokens, too few to fuse by, expected at least 48") && m == NULL,
          "a text that leaves nothing to learn from is refused");
}

/* ---- shapes for a budget ---- */

/*  d, L, H, K, C, F, V, tied: the shipped teacher, stories260K, SmolLM2-135M, Qwen3-0.6B, LLaMA 3.2 1B, LLaMA 2 7B. */
static const int budget_teachers[6][8] = {
    {128, 6, 8, 4, 16, 352, 1024, 1},       {64, 5, 8, 4, 8, 172, 512, 1},           {576, 30, 9, 3, 64, 1536, 49152, 1},
    {1024, 28, 16, 8, 128, 3072, 151936, 1}, {2048, 16, 32, 8, 64, 8192, 128256, 1}, {4096, 32, 32, 32, 128, 11008, 32000, 0}};

static lemon_config budget_teacher(int i) {
    const int *t = budget_teachers[i];
    lemon_config c = tiny_config(t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]);
    c.qk_norm = i == 3;
    return c;
}

/*  What a family's smaller member must have, besides what fusing checks. */
static int member_of(const lemon_config *s, const lemon_config *t) {
    double wide = (double)s->d_model / t->d_model, deep = (double)s->n_layers / t->n_layers,
           neurons = (double)s->d_ffn / t->d_ffn;
    if (t->d_model == t->n_heads * t->head_dim && s->d_model != s->n_heads * s->head_dim) return 0;
    return s->n_heads % s->kv_heads == 0 && wide / deep < 2.1 && deep / wide < 2.1 &&
           neurons / wide < 2.1 && wide / neurons < 2.1;
}

static void test_budgets(lemon_ctx *ctx) {
    static const double fractions[5] = {0.75, 0.5, 0.25, 0.125, 0.06};
    lemon_fuse_options o = options_of("lemon");
    double worst = 1;
    int i, k, bad = 0;
    for (i = 0; i < 30; i++) {
        lemon_config t = budget_teacher(i / 5), s;
        int64_t budget = (int64_t)(fractions[i % 5] * (double)lemon_config_params(&t));
        double share;
        memset(&s, 0, sizeof s);
        if (!fine(ctx, lemon_fuse_shape(ctx, &t, budget, &s)) || lemon__fuse_check_shape(ctx, &t, &s, &o)) { bad++; continue; }
        share = (double)lemon_config_params(&s) / (double)budget;
        if (share < worst) worst = share;
        if (share > 1 || !member_of(&s, &t) || s.max_seq != t.max_seq) bad++;
    }
    check(bad == 0, "30 budgets of six teachers give shapes in proportion that can be fused");
    detail("%.3f", worst);
    check(worst > 0.96, "and use at least 96 % of the budget");
    for (i = k = 0; i < 6; i++) {
        lemon_config t = budget_teacher(i), s;
        memset(&s, 0, sizeof s);
        k += lemon_fuse_shape(ctx, &t, lemon_config_params(&t), &s) == LEMON_OK && memcmp(&s, &t, sizeof s) == 0;
    }
    check(k == 6, "the teacher's size gives the teacher's shape");
}

static void test_budget_wishes(lemon_ctx *ctx) {
    lemon_config t = budget_teacher(0), s, least;
    long long named = 0;
    memset(&s, 0, sizeof s);
    s.n_layers = 6, s.kv_heads = 1;
    check(fine(ctx, lemon_fuse_shape(ctx, &t, 300000, &s)) && s.n_layers == 6 && s.kv_heads == 1 && s.d_model == 16 * s.n_heads,
          "sizes that are given are kept");
    memset(&s, 0, sizeof s);
    s.n_layers = 2;
    check(fine(ctx, lemon_fuse_shape(ctx, &t, 300000, &s)) && s.n_layers == 2, "so is a depth that others would suit better");
    memset(&s, 0, sizeof s);
    s.d_model = 72;
    check(fails_with(ctx, lemon_fuse_shape(ctx, &t, 300000, &s), LEMON_E_ARG, "leave one of them out"),
          "sizes that go with no shape are refused");
    memset(&s, 0, sizeof s);
    check(fails_with(ctx, lemon_fuse_shape(ctx, &t, 2000000, &s), LEMON_E_ARG, "at most 1238656, the teacher's"),
          "a budget above the teacher is refused");
    memset(&least, 0, sizeof least);
    check(fails_with(ctx, lemon_fuse_shape(ctx, &t, 100, &least), LEMON_E_ARG, "expected at least "), "and one too small");
    named = strtoll(strstr(lemon_error(ctx), "at least ") + 9, NULL, 10);
    check(fine(ctx, lemon_fuse_shape(ctx, &t, named, &s)) && lemon_config_params(&s) == named,
          "the smallest that the message names can be had");
    memset(&s, 0, sizeof s);
    check(lemon_fuse_shape(ctx, &t, named - 1, &s) == LEMON_E_ARG, "one less cannot");
    check(lemon__shape_step(256) == 16 && lemon__shape_step(255) == 1 && lemon__shape_step(4096) == 64, "sizes leave sixteen to choose from");
}

/* ---- what came of it ---- */

/*  HSIC without bias by its definition (Song et al. 2012), K and L with diagonals 0; in double. */
static double hsic(const double *k, const double *l, int n) {
    double trace = 0, k_all = 0, l_all = 0, both = 0;
    int i, j;
    for (i = 0; i < n; i++) {
        double k_row = 0, l_row = 0;
        for (j = 0; j < n; j++) trace += k[i * n + j] * l[j * n + i], k_row += k[i * n + j], l_row += l[i * n + j];
        k_all += k_row, l_all += l_row, both += k_row * l_row;
    }
    return (trace + k_all * l_all / ((n - 1.0) * (n - 2.0)) - 2 * both / (n - 2.0)) / (n * (n - 3.0));
}

/*  Gram matrix of the normalised stream before a layer, on the first window of the text. */
static void naive_gram(lemon_ctx *ctx, const lemon_model *m, int layers, int n, double *gram) {
    lemon_arena arena = {NULL};
    lemon__walk w;
    float *k = lemon__floats(ctx, &arena, n, m->config.d_model), *v = lemon__floats(ctx, &arena, n, m->config.d_model);
    int i, j, c, d = m->config.d_model;
    if (lemon__walk_open(ctx, &arena, m, n, n, &w)) return;
    w.batch = 1, w.seq = w.kv_rows = n;
    lemon__walk_embed(&w, text_ids);
    for (i = 0; i < layers; i++) lemon__walk_layer(&w, i, k, v);
    for (i = 0; i < n; i++)
        for (j = 0; j < n; j++) {
            double dot = 0, a = 0, b = 0;
            for (c = 0; c < d; c++) {
                dot += (double)w.x[i * d + c] * (double)w.x[j * d + c];
                a += (double)w.x[i * d + c] * (double)w.x[i * d + c];
                b += (double)w.x[j * d + c] * (double)w.x[j * d + c];
            }
            a = a / d + (double)m->config.rms_norm_eps, b = b / d + (double)m->config.rms_norm_eps;
            gram[i * n + j] = i == j ? 0 : dot / sqrt(a * b);
        }
    lemon_arena_free(ctx, &arena);
}

static void test_cka(lemon_ctx *ctx) {
    enum { N = 40 };
    static double a[N * N], b[N * N];
    lemon_tokens few = {text_ids, N, N};
    float map[25], own[25], other[15];
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of("lemon");
    lemon_model *same = NULL, *small = NULL;
    int i, bad = 0;
    check(fine(ctx, lemon_cka(ctx, teacher, teacher, &few, map)), "CKA of a teacher's layers");
    naive_gram(ctx, teacher, 1, N, a);
    naive_gram(ctx, teacher, 4, N, b);
    check(near_to(map[1 * 5 + 4], hsic(a, b, N) / sqrt(hsic(a, a, N) * hsic(b, b, N)), 1e-4),
          "is the unbiased HSIC, normalised, as its definition has it");
    for (i = 0; i < 25; i++)
        if (!(map[i] <= 1.0001f) || !(map[i] > -0.2f) || fabsf(map[i] - map[i % 5 * 5 + i / 5]) > 1e-5f) bad++;
    for (i = 0; i < 5; i++) bad += !near_to((double)map[6 * i], 1, 1e-4);
    check(bad == 0, "is symmetric, 1 on the diagonal, and nowhere above");
    lemon_fuse(ctx, teacher, &teacher->config, &text, &o, &same, NULL);
    lemon_fuse(ctx, teacher, &shape, &text, &o, &small, NULL);
    check(same && fine(ctx, lemon_cka(ctx, same, teacher, NULL, own)) && near_to((double)own[24], 1, 1e-3),
          "a student of the teacher's shape is the teacher, on text of its own too");
    check(small && fine(ctx, lemon_cka(ctx, small, teacher, &text, other)) && other[4] > 0.3f && other[14] > 0.3f,
          "a student is like its teacher");
    few.count = 3;
    check(fails_with(ctx, lemon_cka(ctx, teacher, teacher, &few, map), LEMON_E_ARG, "too few"), "three tokens are refused");
    lemon_model_free(ctx, same);
    lemon_model_free(ctx, small);
}

static lemon_model *applied(lemon_ctx *ctx, const lemon_operators *ops) {
    lemon_model *m = NULL;
    if (lemon_operators_apply(ctx, ops, teacher, 1, &m)) detail("%s", lemon_error(ctx));
    return m;
}

static void test_errors(lemon_ctx *ctx) {
    lemon_fuse_options o = options_of("lemon");
    lemon_config shape = student_config();
    lemon_operators *own = filled(ctx, teacher, &teacher->config, &o), *solved = filled(ctx, teacher, &shape, &o), *cut;
    lemon_model *same = applied(ctx, own), *small = applied(ctx, solved), *selected;
    float error[5] = {1, 1, 1, 1, 1}, by_solving[3], by_selecting[3], *w;
    int64_t i;
    check(same && fine(ctx, lemon_operators_error(ctx, own, teacher, same, &text, error)) && error[0] < 1e-6f &&
              error[2] < 1e-6f && error[4] < 1e-6f, "a student of the teacher's shape has no error in any layer");
    w = (float *)lemon_model_param(same, LEMON_W_DOWN, 2)->data;
    for (i = 0; i < (int64_t)shape.d_ffn; i++) w[i] += 1.0f;
    check(fine(ctx, lemon_operators_error(ctx, own, teacher, same, &text, error)) && error[2] < 1e-6f && error[3] > 1e-4f,
          "a broken matrix shows from its own layer on");
    o = options_of("subclone");
    cut = filled(ctx, teacher, &shape, &o);
    selected = applied(ctx, cut);
    check(small && selected && fine(ctx, lemon_operators_error(ctx, solved, teacher, small, NULL, by_solving)) &&
              fine(ctx, lemon_operators_error(ctx, cut, teacher, selected, NULL, by_selecting)), "errors of two methods");
    detail("%g against %g", (double)by_solving[2], (double)by_selecting[2]);
    check(by_solving[2] > 1e-4f && by_solving[2] < by_selecting[2], "solving follows the teacher better than selecting");
    check(lemon_operators_error(ctx, solved, teacher, same, &text, error) == LEMON_E_ARG, "another student is refused");
    lemon_model_free(ctx, same);
    lemon_model_free(ctx, small);
    lemon_model_free(ctx, selected);
    lemon_operators_free(ctx, own);
    lemon_operators_free(ctx, solved);
    lemon_operators_free(ctx, cut);
}

/* ---- methods compared, learning ---- */

static void test_ranking(lemon_ctx *ctx) {
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of("lemon");
    double solved = fused_loss(ctx, teacher, &shape, &text, &o, 0), cloned, dropped, random,
           none = loss_of(ctx, teacher, &text, 0);
    lemon_model *m = NULL, *fresh = NULL;
    o = options_of("subclone");
    cloned = fused_loss(ctx, teacher, &shape, &text, &o, 0);
    o = options_of("drop");
    dropped = fused_loss(ctx, teacher, &shape, &text, &o, 0);
    o = options_of("random");
    o.seed = 5;
    random = fused_loss(ctx, teacher, &shape, &text, &o, 0);
    detail("teacher %.3f, solved %.3f, subclone %.3f, drop %.3f, random %.3f", none, solved, cloned, dropped, random);
    check(none < solved && solved < cloned && solved < dropped && solved < random,
          "solved LEMON starts below subclone, drop and random");
    lemon_fuse(ctx, teacher, &shape, NULL, &o, &m, NULL);
    lemon_model_create(ctx, &shape, &fresh);
    lemon_model_init(ctx, fresh, 5);
    check(m && memcmp(m->block, fresh->block, (size_t)m->block_count * 4) == 0, "random is the usual init by its seed");
    lemon_model_free(ctx, m);
    lemon_model_free(ctx, fresh);
}

static void test_learning(lemon_ctx *ctx, const char *method, int solve, int64_t steps, int must, const char *name) {
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of(method);
    lemon_fuse_result r, plain;
    lemon_model *m = NULL, *before = NULL;
    char line[112];
    o.solve = solve;
    o.learn_steps = steps;
    o.learn_lr = 0; /* learns nothing, so nothing is kept; but solves on the same rows */
    lemon_fuse(ctx, teacher, &shape, &text, &o, &before, &plain);
    o.learn_lr = 1e-2;
    snprintf(line, sizeof line, "learning improves held-out text or is not kept: %s", name);
    check(fine(ctx, lemon_fuse(ctx, teacher, &shape, &text, &o, &m, &r)) && r.init_loss <= r.learned_from &&
              near_to(r.learned_from, plain.init_loss, 1e-9),
          line);
    detail("%g to %g", r.learned_from, r.init_loss);
    snprintf(line, sizeof line, "learning lowers the loss: %s", name);
    if (must) check(r.init_loss < r.learned_from - 0.02, line);
    lemon_model_free(ctx, m);
    m = NULL;
    if (must) lemon_model_free(ctx, before);
    if (must) return; /* from a start that bad, even ruin may be an improvement */
    o.learn_lr = 30;
    snprintf(line, sizeof line, "ruinous learning is thrown away: %s", name);
    check(fine(ctx, lemon_fuse(ctx, teacher, &shape, &text, &o, &m, &r)) && !(r.init_loss < r.learned_from) &&
              memcmp(m->block, before->block, (size_t)m->block_count * 4) == 0,
          line);
    lemon_model_free(ctx, m);
    lemon_model_free(ctx, before);
}

/*  slicegpt turns the stream, and so reads all of it. */
static void test_turned(lemon_ctx *ctx) {
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of("slicegpt");
    lemon_operators *ops = filled(ctx, teacher, &shape, &o);
    check(ops && lemon_operators_map(ops, LEMON_AT_RESIDUAL, 0, 0)->field == teacher->config.d_model, "slicegpt turns the stream");
    lemon_operators_free(ctx, ops);
}

/*  ligo's operators are what learns, not corrections beside them. */
static void test_learned_maps(lemon_ctx *ctx) {
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of("ligo");
    lemon_operators *begun = filled(ctx, teacher, &shape, &o), *ops;
    o.learn_steps = 10;
    ops = filled(ctx, teacher, &shape, &o);
    check(begun && ops && lemon_operators_map(begun, LEMON_AT_FFN, 0, 0)->field == 1 &&
          lemon_operators_map(ops, LEMON_AT_FFN, 0, 0)->field == teacher->config.d_ffn, "ligo learns its operators");
    lemon_operators_free(ctx, begun);
    lemon_operators_free(ctx, ops);
}

/*  A student that learned beyond its maps comes out of its operators with the same bits, also when they were a file. */
static void test_settled(lemon_ctx *ctx) {
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of("select");
    lemon_fuse_result r;
    lemon_model *fused = NULL, *applied = NULL, *loaded = NULL;
    lemon_operators *ops, *again = NULL;
    o.learn_steps = 20;
    o.learn_lr = 3e-3;
    ops = filled(ctx, teacher, &shape, &o);
    check(fine(ctx, lemon_fuse(ctx, teacher, &shape, &text, &o, &fused, &r)) && r.init_loss < r.learned_from && ops &&
          ops->correction[0].dtype == LEMON_F64, "a student learns beyond its maps");
    check(ops && fine(ctx, lemon_operators_apply(ctx, ops, teacher, 1, &applied)) && same_weights(fused, applied),
          "its operators give the bits that fusing gave");
    check(ops && fine(ctx, lemon_operators_save(ctx, "build/settled.ops", ops)) &&
          fine(ctx, lemon_operators_load(ctx, "build/settled.ops", &again)) &&
          fine(ctx, lemon_operators_apply(ctx, again, teacher, 1, &loaded)) && same_weights(fused, loaded),
          "and so they do out of a file");
    remove("build/settled.ops");
    lemon_operators_free(ctx, ops);
    lemon_operators_free(ctx, again);
    lemon_model_free(ctx, fused);
    lemon_model_free(ctx, applied);
    lemon_model_free(ctx, loaded);
}

/*  Where learning follows, solving takes as many of the last windows as it needs, 9 of 18 here: as if the text began there.
    Learning at a rate of 0 then leaves what was solved. */
static void test_spared(lemon_ctx *ctx) {
    lemon_config from = tiny_config(16, 3, 2, 2, 8, 20, 40, 1), shape;
    lemon_fuse_options o = options_of("lemon");
    lemon_tokens whole = {text_ids, 19 * 32, 19 * 32}, tail = {text_ids + 9 * 32, 10 * 32, 10 * 32};
    lemon_model *m, *a = NULL, *b = NULL;
    for (int bias = 0; bias < 2; bias++) {
        from.max_seq = 32;
        from.qkv_bias = bias;
        shape = from;
        shape.d_model = 8, shape.n_layers = 2, shape.n_heads = shape.kv_heads = 1, shape.d_ffn = 9;
        m = lively_model(ctx, &from, 5);
        o.learn_steps = 1;
        o.learn_lr = 0.0;
        o.tokens = whole.count;
        int ok = fine(ctx, lemon_fuse(ctx, m, &shape, &whole, &o, &a, NULL));
        o.learn_steps = 0;
        ok = ok && fine(ctx, lemon_fuse(ctx, m, &shape, &tail, &o, &b, NULL));
        check(ok && same_weights(a, b), bias ? "windows that solving spares change nothing, nor with biases"
                                             : "windows that solving spares change nothing");
        lemon_model_free(ctx, m), lemon_model_free(ctx, a), lemon_model_free(ctx, b);
        a = b = NULL;
    }
}

/*  What the tape of learning makes of the operators, against finite differences of the naive apply and the naive model.
    A filled set is opened for learning as lemon__learn_operators does, and run once. */
typedef struct learn_bench {
    lemon__fill f;
    lemon__learn l;
    lemon_model *student;
    lemon_operators *ops;
} learn_bench;

static double learn_naive(learn_bench *b) {
    lemon__fill *f = &b->f;
    double *w, *scores, loss;
    int64_t rows = b->l.q.batch * f->seq;
    w = naive_apply(b->ops, f->teacher, 1);
    scores = ref_room(rows * f->sc->vocab_size);
    ref_model(f->sc, w, b->l.q.inputs, rows, f->seq, scores);
    loss = ref_loss(scores, NULL, b->l.q.targets, rows, f->sc->vocab_size, 1).ce;
    free(w);
    free(scores);
    return loss;
}

static int learn_open(lemon_ctx *ctx, learn_bench *b, const lemon_config *shape, const lemon_fuse_options *o) {
    memset(b, 0, sizeof *b);
    b->ops = filled(ctx, teacher, shape, o);
    if (b->ops == NULL) return 0;
    lemon__fill_begin(&b->f, ctx, teacher, shape, o);
    b->f.ops = b->ops;
    b->l.f = &b->f;
    if (!fine(ctx, lemon__fill_text(&b->f, &text)) ||
        !fine(ctx, lemon_operators_apply(ctx, b->ops, teacher, o->correction, &b->student)) ||
        !fine(ctx, lemon__learn_open(&b->l, b->student)))
        return 0;
    lemon__objective_fill(&b->l.q, &b->l.windows, 0);
    return fine(ctx, lemon_tape_forward(b->l.q.tape)) && fine(ctx, lemon_tape_backward(b->l.q.tape));
}

static void learn_close(lemon_ctx *ctx, learn_bench *b) {
    lemon_tape_close(b->l.q.tape);
    lemon_arena_free(ctx, &b->l.arena);
    lemon_model_free(ctx, b->student);
    lemon_operators_free(ctx, b->ops);
}

/*  Moves one coefficient by h; floats, so the step that was taken is what counts. */
static double nudge(learn_bench *b, float *x, double h) {
    const float keep = *x;
    double up, down, step;
    *x = (float)((double)keep + h);
    step = (double)*x;
    up = learn_naive(b);
    *x = (float)((double)keep - h);
    step -= (double)*x;
    down = learn_naive(b);
    *x = keep;
    return (up - down) / step;
}

static void test_learned_gradients(lemon_ctx *ctx, const char *method, int solve, int64_t layers, const char *name) {
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of(method);
    learn_bench b;
    lemon_rng rng;
    int place, ok, tried = 0;
    int64_t layer, slot, k;
    char line[112];
    o.solve = solve;
    o.field_layers = layers;
    o.tokens = 400;
    lemon_rng_seed(&rng, 6);
    ok = learn_open(ctx, &b, &shape, &o);
    snprintf(line, sizeof line, "the tape of learning has the loss of the applied operators: %s", name);
    ok = ok && near_to((double)lemon_tape_value(b.l.q.tape, b.l.q.loss)[0], learn_naive(&b), 2e-5);
    check(ok, line);
    for (place = 0; ok && place < LEMON_PLACE_COUNT; place++)
        for (layer = 0; layer < (lemon__places[place].per_layer ? shape.n_layers : 1); layer++)
            for (slot = 0; slot < (lemon__places[place].per_layer ? b.ops->slots : 1); slot++) {
                lemon_map *map = lemon__own_map(b.ops, place, layer, slot);
                int64_t at = b.l.at[map - b.ops->maps];
                for (k = 0; ok && at >= 0 && k < (light() ? 1 : 2); k++) {      /* two coefficients of each map */
                    int64_t i = lemon_rng_below(&rng, map->student), f = lemon_rng_below(&rng, map->field);
                    int64_t column = map->index ? map->index[i * map->field + f] : f;
                    double got = (double)b.l.adam.g[at + i * map->teacher + column],
                           want = nudge(&b, map->value + i * map->field + f, 1e-3);
                    detail("%s %d.%d [%d, %d]: %.7g, expected %.7g", lemon_place_name((lemon_place)place), (int)layer,
                           (int)slot, (int)i, (int)column, got, want);
                    ok = fabs(got - want) <= 1e-3 * fabs(want) + 2e-5;
                    tried++;
                }
            }
    for (k = 0; ok && layers > 1 && k < shape.n_layers * b.ops->slots; k++) {
        double got = (double)b.l.adam.g[b.l.adam.count - shape.n_layers * b.ops->slots + k],
               want = nudge(&b, b.ops->layer_weight + k, 1e-3);
        detail("layer weight %d: %.7g, expected %.7g", (int)k, got, want);
        ok = fabs(got - want) <= 1e-3 * fabs(want) + 2e-5;
    }
    snprintf(line, sizeof line, "gradients of learned operators by finite differences: %s", name);
    check(ok && tried > (light() ? 10 : 20), line);
    learn_close(ctx, &b);
}

/* ---- text of the teacher's own, fields, threads, memory ---- */

static void test_own_text(lemon_ctx *ctx) {
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of("lemon");
    lemon_fuse_result r;
    lemon_model *a = NULL, *b = NULL;
    double with_text = fused_loss(ctx, teacher, &shape, &text, &o, 0), loss;
    check(fine(ctx, lemon_fuse(ctx, teacher, &shape, NULL, &o, &a, &r)) && r.calibration_tokens > 2000 &&
              isfinite(r.init_loss),
          "without text the teacher samples its own");
    loss = loss_of(ctx, a, &text, 0);
    detail("%g, with real text %g", loss, with_text);
    check(loss < with_text + 0.3, "which is nearly as good as real text");
    lemon_fuse(ctx, teacher, &shape, NULL, &o, &b, NULL);
    check(a && b && memcmp(a->block, b->block, (size_t)a->block_count * 4) == 0, "and the same for the same seed");
    lemon_model_free(ctx, a);
    lemon_model_free(ctx, b);
    a = NULL;
    o = options_of("select");
    check(fine(ctx, lemon_fuse(ctx, teacher, &shape, NULL, &o, &a, &r)) && r.calibration_tokens == 0 &&
              isnan(r.init_loss),
          "a selection needs no text and takes none");
    lemon_model_free(ctx, a);
}

static int within_field(const lemon_operators *ops, int64_t limit) {
    static const lemon_place places[] = {LEMON_AT_RESIDUAL, LEMON_AT_GAIN, LEMON_AT_READ_OUTPUT, LEMON_AT_READ_ATTN,
                                         LEMON_AT_READ_FFN};
    size_t k;
    int64_t layer, i, f;
    for (k = 0; k < 5; k++)
        for (layer = 0; layer < (lemon__places[places[k]].per_layer ? ops->student.n_layers : 1); layer++) {
            const lemon_map *map = lemon_operators_map(ops, places[k], layer, 0);
            detail("%s has a field of %d, expected at most %d", lemon_place_name(places[k]), (int)map->field,
                   (int)limit);
            if (map->field > limit || (map->field > 0 && map->index == NULL)) return 0;
            for (i = 0; i < map->student; i++) {                /* a student channel's channels are different ones */
                int64_t used = 0;
                for (f = 0; f < map->field; f++)
                    used += map->value[i * map->field + f] < 0 || map->value[i * map->field + f] > 0;
                if (used > limit) return 0;
            }
        }
    return 1;
}

/*  Least squares in fields: each target's weights solve the rows of S that it may read, and no other weight moves. */
static void test_masked(lemon_ctx *ctx) {
    enum { DS = 6, DT = 5, MORE = 40 };
    lemon__fill f;
    lemon__squares q;
    lemon_rng rng;
    double x[MORE][DS], s[DS * DS], diagonal[DS], r[DT * DS], room[DS * (DS + 1)], mean, left;
    float p[DS * DT], w[DT * DS];
    int32_t ids[DT] = {3, 0, 4, 1, 2}, allowed[DS];
    int i, j, k, n, ok = 1;
    memset(&f, 0, sizeof f);
    memset(&q, 0, sizeof q);
    lemon_rng_seed(&rng, 5);
    for (k = 0; k < MORE; k++)
        for (i = 0; i < DS; i++) x[k][i] = lemon_rng_normal(&rng);
    for (i = 0; i < DS; i++)
        for (j = 0; j < DS; j++) {                              /* S stands above the diagonal only */
            s[i * DS + j] = j > i ? 0.0 : 1e30;
            for (k = 0; j > i && k < MORE; k++) s[i * DS + j] += x[k][i] * x[k][j];
        }
    for (i = 0; i < DS; i++)
        for (k = 0, diagonal[i] = 0.0; k < MORE; k++) diagonal[i] += x[k][i] * x[k][i];
    for (i = 0; i < DT * DS; i++) r[i] = lemon_rng_normal(&rng), w[i] = 0.5f;
    for (i = 0; i < DS * DT; i++) p[i] = i % DT != 1 && i % 4 == 2 ? 0.0f : i % 3 ? -0.5f : 2.0f;
    f.ctx = ctx, f.ds = DS, f.dt = DT, f.p = p;
    q.f = &f, q.ids = ids, q.diagonal = diagonal, q.s = s, q.cov.sum = r, q.room = room, q.allowed = allowed, q.w = w;
    for (k = 0; k < DT; k++) lemon__masked_task(&q, k, 0);
    for (k = 0; k < DT; k++)
        for (i = 0; i < DS; i++) {
            if (p[i * DT + ids[k]] == 0.0f) { ok = ok && w[k * DS + i] == 0.5f; continue; }
            for (j = n = 0, mean = 0.0, left = r[k * DS + i]; j < DS; j++) {
                if (p[j * DT + ids[k]] == 0.0f) continue;
                left -= (j == i ? diagonal[i] : s[lemon__min(i, j) * DS + lemon__max(i, j)]) * ((double)w[k * DS + j] - 0.5);
                mean += diagonal[j], n++;
            }
            left -= 1e-3 * mean / n * ((double)w[k * DS + i] - 0.5);
            if (ok) detail("target %d, channel %d: %g is left of %g", k, i, left, r[k * DS + i]);
            ok = ok && fabs(left) < 1e-5;
        }
    check(ok, "least squares in fields: the equations of what may be read hold, nothing else moves");
}

/*  What the gain at the end is solved from: sums over the rows to learn from, and over those held out. */
static void test_gain(lemon_ctx *ctx) {
    enum { DS = 3, DT = 5, SEQ = 2, WINDOWS = 4, KEPT = 3 };
    lemon__fill f;
    lemon__rows store[LEMON__TARGET + 1];
    lemon__gain g;
    lemon_rng rng;
    double worst = 0, s, t;
    int64_t k, i, j, r;
    memset(&f, 0, sizeof f);
    memset(store, 0, sizeof store);
    f.ctx = ctx, f.store = store, f.what = "gain";
    f.ds = DS, f.dt = DT, f.seq = SEQ, f.windows = WINDOWS, f.kept = KEPT, f.batch = 2;
    lemon__workspaces(ctx);
    lemon__rows_make(&f, LEMON__XT, DT);
    lemon__rows_make(&f, LEMON__SOURCE, DS);
    lemon__rows_make(&f, LEMON__TARGET, DT);
    lemon_rng_seed(&rng, 8);
    fill_normal(&rng, store[LEMON__SOURCE].data, WINDOWS * SEQ * DS, 1);
    fill_normal(&rng, store[LEMON__TARGET].data, WINDOWS * SEQ * DT, 1);
    lemon__gain_make(&f, &g);
    for (k = 0; !f.status && k < 2; k++)
        for (j = 0; j < DS; j++)
            for (i = 0; i < DT; i++) {
                for (r = k ? KEPT * SEQ : 0, s = t = 0; r < (k ? WINDOWS : KEPT) * SEQ; r++) {
                    const double source = (double)store[LEMON__SOURCE].data[r * DS + j];
                    if (i < DS) s += source * (double)store[LEMON__SOURCE].data[r * DS + i];
                    t += source * (double)store[LEMON__TARGET].data[r * DT + i];
                }
                if (i < DS) worst = fmax(worst, fabs(g.s[k].sum[i * DS + j] - s));
                worst = fmax(worst, fabs(g.t[k].sum[i * DS + j] - t));
            }
    detail("off by %g", worst);
    check(!f.status && worst < 1e-5, "the final gain is solved from sums over all rows, each on its side");
    lemon_arena_free(ctx, &f.work);
    lemon_arena_free(ctx, &f.solve);
}

static void test_fields(lemon_ctx *ctx) {
    static const struct {
        const char *name;
        int solve;
        int64_t learn;
    } ways[] = {{"solved", 1, 0}, {"learned alone", 0, 8}, {"solved and learned", 1, 8}};
    size_t k;
    for (k = 0; k < 3; k++) {
        lemon_config shape = student_config();
        lemon_fuse_options o = options_of("lemon");
        lemon_operators *ops;
        char name[80];
        int64_t i;
        int near = 1;
        o.solve = ways[k].solve;
        o.learn_steps = ways[k].learn;
        o.learn_lr = 1e-2;
        o.field_dims = 4;
        o.field_layers = 2;
        ops = filled(ctx, teacher, &shape, &o);
        snprintf(name, sizeof name, "no student channel reads more than 4 teacher channels: %s", ways[k].name);
        check(ops && within_field(ops, 4), name);
        for (i = 0; ops && i < 2 * ops->slots; i++) near &= ops->slots <= 2 && ops->layer[i] < 4;
        snprintf(name, sizeof name, "nor a student layer more than 2: %s", ways[k].name);
        check(ops && near, name);
        lemon_operators_free(ctx, ops);
    }
}

static void test_threads(void) {
    static const struct {
        const char *name, *method;
        int64_t learn;
    } ways[] = {{"solved", "lemon", 0}, {"subclone", "subclone", 0}, {"ligo", "ligo", 6}};
    size_t k;
    int threads;
    for (k = 0; k < 3; k++) {
        lemon_config shape = student_config();
        float *first = NULL;
        int same = 1;
        char name[80];
        for (threads = 1; threads <= 2; threads++) {
            lemon_ctx *ctx = open_ctx(threads);
            lemon_fuse_options o = options_of(ways[k].method);
            lemon_model *m = NULL;
            o.learn_steps = ways[k].learn;
            if (fine(ctx, lemon_fuse(ctx, teacher, &shape, &text, &o, &m, NULL))) {
                size_t bytes = (size_t)m->block_count * sizeof(float);
                if (first == NULL) memcpy(first = (float *)malloc(bytes), m->block, bytes);
                else same = memcmp(first, m->block, bytes) == 0;
            } else same = 0;
            lemon_model_free(ctx, m);
            lemon_close(ctx);
        }
        free(first);
        snprintf(name, sizeof name, "1 and 2 threads fuse the same bits: %s", ways[k].name);
        check(same, name);
    }
}

/*  What was just enough is enough again: factors of least squares are then made anew, not kept.  Half of it is not. */
static void test_less_memory(void) {
    size_t peak = 0, bytes = 0;
    float *first = NULL;
    for (int k = 0; k < 3; k++) {
        lemon_options options;
        lemon_config shape = student_config();
        lemon_fuse_options o = options_of("lemon");
        lemon_model *m = NULL;
        memset(&options, 0, sizeof options);
        options.threads = 1;
        options.memory = k < 2 ? peak : peak / 2;
        lemon_ctx *ctx = lemon_open(&options);
        lemon_status status = lemon_fuse(ctx, teacher, &shape, &text, &o, &m, NULL);
        if (k == 2) check(status == LEMON_E_MEMORY && m == NULL && strstr(lemon_error(ctx), "lemon_options.memory") != NULL,
                          "half of that is too little, and the message says of what");
        if (k == 1) check(!status && first && memcmp(first, m->block, bytes) == 0,
                          "a fusion within the memory that it took before has the same bits");
        if (k == 0 && !status) {
            bytes = (size_t)m->block_count * sizeof(float);
            memcpy(first = (float *)malloc(bytes), m->block, bytes);
            lemon_memory(ctx, &peak);
        }
        lemon_model_free(ctx, m);
        lemon_close(ctx);
    }
    free(first);
}

/*  Each allocation in turn, of heads so wide that matrices between them have memory of their own. */
static void test_memory_wide(lemon_ctx *ctx) {
    lemon_config wide = tiny_config(16, 1, 32, 2, 16, 8, 40, 1), shape = wide;
    lemon_model *from = lively_model(ctx, &wide, 3);
    lemon_fuse_options o = options_of("modegpt");
    long live = heap.live, n;
    int bad = 0, done = 0;
    shape.head_dim = 8;
    o.tokens = 160;
    o.seq = 16;
    for (n = 1; !done && n < 1000; n++) {
        lemon_model *m = NULL;
        lemon_status status;
        heap.calls = 0;
        heap.fail_at = n;
        status = lemon_fuse(ctx, from, &shape, &text, &o, &m, NULL);
        heap.fail_at = 0;
        done = status == LEMON_OK;
        bad += !done && (status != LEMON_E_MEMORY || m != NULL);
        lemon_model_free(ctx, m);
        bad += heap.live != live;
    }
    detail("%ld allocations", n);
    check(done && bad == 0 && n > 10, "fusion by modegpt survives each failed allocation");
    lemon_model_free(ctx, from);
}

static void test_memory(lemon_ctx *ctx, const char *method, int64_t learn) {
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of(method);
    long live = heap.live, n, step = 1;
    int bad = 0, done = 0;
    char name[80];
    o.tokens = 320;
    o.learn_steps = learn;
    for (n = 1; !done && n < 100000; n += step, step += n > 40) {
        lemon_model *m = NULL;
        lemon_status status;
        heap.calls = 0;
        heap.fail_at = n;
        status = lemon_fuse(ctx, teacher, &shape, NULL, &o, &m, NULL);
        heap.fail_at = 0;
        done = status == LEMON_OK;
        bad += !done && (status != LEMON_E_MEMORY || m != NULL);
        lemon_model_free(ctx, m);
        bad += heap.live != live;
    }
    snprintf(name, sizeof name, "fusion survives failed allocations: %s%s", method, learn ? ", learning" : "");
    check(done && bad == 0 && n > 10, name);
}

/* ---- real data ---- */

static void test_real(lemon_ctx *ctx) {
    char path[512], tok[512], train[512], valid[512];
    const char *file = train;
    lemon_model *m = NULL, *student = NULL;
    lemon_tokenizer *t = NULL;
    lemon_tokens tokens = {NULL, 0, 0}, held = {NULL, 0, 0};
    lemon_config shape;
    lemon_fuse_options o;
    lemon_fuse_result r;
    double solved = (double)NAN, cloned = (double)NAN;
    if (light() || !data_path("stories260K.bin", path, 512) || !data_path("tok512.bin", tok, 512) ||
        !data_path("tinystories_train.txt", train, 512) || !data_path("tinystories_valid.txt", valid, 512)) {
        skip("stories260K fused");
        return;
    }
    lemon_load(ctx, path, &m);
    lemon_tokenizer_load(ctx, tok, 512, &t);
    lemon_tokens_from_files(ctx, t, 512, &file, 1, &tokens);
    file = valid;
    lemon_tokens_from_files(ctx, t, 512, &file, 1, &held);
    test_own_shape(ctx, m, &tokens, 3000, "stories260K");
    shape = m->config;
    shape.d_model = 48;
    shape.n_layers = 3;
    shape.n_heads = 6;
    shape.kv_heads = 3;
    shape.d_ffn = 112;
    o = options_of("lemon");
    o.tokens = 12000;
    o.seq = 0;
    if (fine(ctx, lemon_fuse(ctx, m, &shape, &tokens, &o, &student, &r))) solved = loss_of(ctx, student, &held, 10000);
    lemon_model_free(ctx, student);
    student = NULL;
    o.method = "subclone";
    if (fine(ctx, lemon_fuse(ctx, m, &shape, &tokens, &o, &student, &r))) cloned = loss_of(ctx, student, &held, 10000);
    detail("solved %g, subclone %g", solved, cloned);
    check(solved < 3.6 && solved < cloned - 1, "stories260K at a third: solved starts below 3.6, far below subclone");
    lemon_model_free(ctx, student);
    shape.n_layers = m->config.n_layers;    /* as many rows to learn from as W_down has unknowns, as 8,192 tokens for 6,912 */
    o.tokens = 136;
    o.method = "lemon";
    solved = fused_loss(ctx, m, &shape, &tokens, &o, 10000);
    o.method = "select";
    cloned = fused_loss(ctx, m, &shape, &held, &o, 10000);
    detail("solved %g, select %g", solved, cloned);
    check(solved < cloned, "with one row for each unknown, solving is still far below selection");
    student = NULL;
    lemon_tokens_free(ctx, &tokens);
    lemon_tokens_free(ctx, &held);
    lemon_tokenizer_free(ctx, t);
    lemon_model_free(ctx, m);
}

/*  Applied, filled and read from a folder: the bits are those without scratch. */
static void test_all_in_scratch(lemon_ctx *ctx) {
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of("lemon");
    lemon_operators *ops = filled(ctx, teacher, &shape, &o), *again = NULL;
    lemon_model *plain = NULL, *filed = NULL, *other = NULL;
    lemon_options with;
    lemon_ctx *other_ctx;
    memset(&with, 0, sizeof with);
    with.threads = 2;
    with.scratch = "build/fused.part";
    other_ctx = lemon_open(&with);
    fine(ctx, lemon_operators_apply(ctx, ops, teacher, 1, &plain));
    check(fine(other_ctx, lemon_operators_apply(other_ctx, ops, teacher, 1, &filed)) && same_weights(plain, filed),
          "operators applied in scratch make the same bits");
    lemon_model_free(other_ctx, filed);
    check(fine(other_ctx, lemon_operators_fill(other_ctx, teacher, &shape, &text, &o, &again, NULL)) &&
          fine(ctx, lemon_operators_apply(ctx, again, teacher, 1, &other)) && same_weights(plain, other),
          "operators filled with scratch make the same bits");
    lemon_operators_free(other_ctx, again);
    filed = NULL;
    check(fine(ctx, lemon_save(ctx, scratch("folder"), teacher, LEMON_F32)) &&
          fine(other_ctx, lemon_load(other_ctx, scratch("folder"), &filed)) && distance(filed, teacher) >= 0 && distance(filed, teacher) <= 0,
          "a folder is read into scratch");
    lemon_model_free(other_ctx, filed);
    lemon_close(other_ctx);
    lemon_model_free(ctx, plain);
    lemon_model_free(ctx, other);
    lemon_operators_free(ctx, ops);
}

/*  A disk that is full before activations are there, or before queries and keys of a folder are in order. */
static void test_full_scratch(lemon_ctx *ctx) {
    lemon_config shape = student_config(), wide = tiny_config(128, 2, 4, 2, 32, 16, 40, 1);
    lemon_fuse_options o = options_of("lemon");
    lemon_operators *ops = NULL;
    lemon_model *m = lively_model(ctx, &wide, 3), *back = NULL;
    lemon_options with;
    lemon_status status[2];
    char said[2][512];
    memset(&with, 0, sizeof with);
    with.scratch = "build/fused.part", with.memory = 7 << 20, with.threads = 1;
    lemon_ctx *other = lemon_open(&with);
    fine(ctx, lemon_save(ctx, scratch("folder"), m, LEMON_F32));
    if (limit_files(40000)) {
        status[0] = lemon_operators_fill(other, teacher, &shape, &text, &o, &ops, NULL);
        snprintf(said[0], sizeof said[0], "%s", lemon_error(other));
        status[1] = lemon_load(other, scratch("folder"), &back);
        snprintf(said[1], sizeof said[1], "%s", lemon_error(other));
        limit_files(0);
        for (int i = 0; i < 2; i++) {
            detail("%s: %s", lemon_status_name(status[i]), said[i]);
            check(status[i] == LEMON_E_IO &&
                      strstr(said[i], i ? "part.teacher: could not write" : "part.rows: could not write"),
                  i ? "and where a folder is read" : "a full disk is an I/O error where activations lie in scratch");
        }
    }
    lemon_model_free(ctx, m);
    lemon_close(other);
}

/*  As few tokens as a fusion of 7B has, 8,192 for the 6,912 unknowns of a row of W_down: what is solved is nearer to the real
    teacher on text of its own than a selection, at each layer. */
static void test_few_tokens(lemon_ctx *ctx) {
    lemon_model *real = NULL, *student[2] = {NULL, NULL};
    lemon_operators *ops[2] = {NULL, NULL};
    lemon_fuse_options o;
    lemon_config shape;
    float error[2][5];
    int i, ok;
    if (!fine(ctx, lemon_load(ctx, "../examples/data/teacher.lemon", &real))) return;
    shape = real->config;
    shape.d_model = 72, shape.n_layers = 4, shape.n_heads = 4, shape.kv_heads = 2, shape.d_ffn = 208;
    lemon_fuse_defaults(&o);
    o.seq = 64, o.tokens = shape.d_ffn * 8192 / 6912, o.learn_steps = 0;
    for (i = 0, ok = 1; i < 2; i++) {
        o.method = i ? "select" : "lemon";
        ok = ok && fine(ctx, lemon_operators_fill(ctx, real, &shape, NULL, &o, &ops[i], NULL)) &&
             fine(ctx, lemon_operators_apply(ctx, ops[i], real, 1, &student[i])) &&
             fine(ctx, lemon_operators_error(ctx, ops[i], real, student[i], NULL, error[i]));
    }
    for (i = 1; ok && i <= shape.n_layers; i++) {
        detail("layer %d: %g of the stream is missed, by a selection %g", i, (double)error[0][i], (double)error[1][i]);
        ok = error[0][i] < 0.8f * error[1][i];
    }
    check(ok, "solving on hardly more tokens than unknowns is better than selecting");
    for (i = 0; i < 2; i++) lemon_operators_free(ctx, ops[i]), lemon_model_free(ctx, student[i]);
    lemon_model_free(ctx, real);
}

/*  Of a layer pages are let go, and of no other tensor. */
static void test_layer_pages(lemon_ctx *ctx) {
#if LEMON__LINUX
    lemon_config c = tiny_config(16, 3, 2, 2, 8, 16, 40, 0);
    lemon_model *m = lively_model(ctx, &c, 1);
    const int64_t each = lemon__per_layer(&c), n = m->n_params;
    const size_t bytes = (size_t)n * CHECK_PAGE;
    uint8_t *p = (uint8_t *)mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    lemon__file file;
    lemon__fill f;
    int64_t layer, i, bad = 0;
    memset(&file, 0, sizeof file);
    memset(&f, 0, sizeof f);
    f.ctx = ctx;
    file.map = p, file.map_bytes = bytes, file.next = ctx->mapped;
    ctx->mapped = &file;
    for (i = 0; i < n; i++) m->params[i].data = p + i * CHECK_PAGE;     /* a page each, of no file: what is let go is 0 */
    for (layer = 0; layer <= c.n_layers; layer++) {
        for (i = 0; i < n; i++) p[i * CHECK_PAGE] = 7;
        lemon__layer_pages(&f, m, layer, LEMON__GONE);
        for (i = 0; i < n; i++) {
            const int its = layer < c.n_layers && i > layer * each && i <= (layer + 1) * each;
            bad += p[i * CHECK_PAGE] != (its ? 0 : 7);
        }
    }
    detail("%d wrong", (int)bad);
    check(bad == 0 && n > 1 + c.n_layers * each, "a layer's pages are let go, and no other's");
    ctx->mapped = file.next;
    munmap(p, bytes);
    lemon_model_free(ctx, m);
#else
    (void)ctx;
#endif
}

#if LEMON__LINUX
/*  An allocator that kills the program when its turn comes. */
static void *dying_resize(void *user, void *old, size_t old_bytes, size_t new_bytes) {
    if (new_bytes && --*(long *)user == 0) kill(getpid(), SIGKILL);
    return heap_resize(&heap, old, old_bytes, new_bytes);
}

static lemon_status fuse_in(const char *path, long lives, long *left, lemon_model **m, lemon_ctx **ctx) {
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of("lemon");
    lemon_options with;
    memset(&with, 0, sizeof with);
    *left = lives;
    with.threads = 1, with.scratch = path, with.resize = dying_resize, with.user = left;
    *ctx = lemon_open(&with);
    return lemon_fuse(*ctx, teacher, &shape, &text, &o, m, NULL);
}

/*  How far scratch says that the work came. */
static int64_t step_in(const char *path) {
    lemon__stage stage;
    FILE *f = fopen(path, "rb");
    size_t got = f ? fread(&stage, sizeof stage, 1, f) : 0;
    if (f) fclose(f);
    return got == 1 ? stage.step : 0;
}
#endif

/*  Killed at any time, a fusion goes on from the step where scratch says it was, to the same bits. */
static void test_killed(void) {
#if LEMON__LINUX
    const long kills = light() ? 4 : 8;
    char path[300];
    lemon_model *whole = NULL, *m = NULL;
    lemon_ctx *ctx, *other;
    long left, lives, k;
    int64_t most = 0;
    int same;
    snprintf(path, sizeof path, "%s", scratch("killed.part"));
    remove(path);
    same = fuse_in(path, LONG_MAX, &left, &whole, &ctx) == LEMON_OK;
    lives = LONG_MAX - left;
    if (same) {                                             /* what a fusion of 7B needs of it is more than the reserve */
        const lemon__file *file = ((lemon__arena_block *)whole->arena.blocks)->file;
        detail("%g KB of %g", (double)file->used / 1024, ((double)file->map_bytes - LEMON__SCRATCH_MORE) / 1024);
        check(file->used + LEMON__SCRATCH_MORE <= file->map_bytes + 2 * LEMON__STAGE, "scratch has room for all that goes there");
    }
    for (k = 1; same && k < kills; k++) {
        pid_t child;
        int status = 0;
        remove(path);
        child = fork();
        if (child == 0) {
            fuse_in(path, lives * k / kills, &left, &m, &other);
            _exit(0);
        }
        same = child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        most = lemon__max(most, step_in(path));
        same = same && fuse_in(path, LONG_MAX, &left, &m, &other) == LEMON_OK && same_weights(whole, m);
        detail("killed at %ld of %ld allocations, in step %d", lives * k / kills, lives, (int)most);
        lemon_model_free(other, m);
        lemon_close(other);
        m = NULL;
    }
    printf("# the last kill came after step %d\n", (int)most);
    check(same && most >= 4 + 2, "a fusion killed at any time goes on to the same bits, from a later layer too");
    lemon_model_free(ctx, whole);
    lemon_close(ctx);
    remove(path);
#endif
}

/*  What another process writes into is left to it. */
static void test_in_use(void) {
#if LEMON__LINUX
    char path[300], byte = 0;
    lemon_model *m = NULL;
    lemon_ctx *ctx = NULL;
    lemon_status status;
    long left;
    int ready[2], done[2];
    pid_t child;
    snprintf(path, sizeof path, "%s", scratch("used.part"));
    if (pipe(ready) || pipe(done)) { check(0, "pipes"); return; }
    child = fork();
    if (child == 0) {
        struct flock all;
        int fd = open(path, O_RDWR | O_CREAT, 0666);
        memset(&all, 0, sizeof all);
        all.l_type = F_WRLCK;
        close(done[1]);
        if (fd < 0 || fcntl(fd, F_SETLK, &all) != 0 || write(ready[1], "x", 1) != 1) _exit(1);
        _exit(read(done[0], &byte, 1) != 0);                /* 0 once the parent closes its end */
    }
    close(ready[1]);
    status = read(ready[0], &byte, 1) == 1 ? fuse_in(path, LONG_MAX, &left, &m, &ctx) : LEMON_OK;
    check(child > 0 && byte == 'x' && fails_with(ctx, status, LEMON_E_IO, "is in use by another process") && m == NULL,
          "scratch that another process has is refused by name");
    close(done[1]);
    waitpid(child, NULL, 0);
    lemon_close(ctx);
    close(ready[0]);
    close(done[0]);
    remove(path);
#endif
}

/*  Twice the text is twice the work of looking at it: all windows that are kept are counted. */
static void test_plan_counts(lemon_ctx *ctx) {
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of("subclone");
    lemon_fuse_forecast once, twice;
    check(fine(ctx, lemon_fuse_plan(ctx, teacher, &shape, 640, &o, &once)) &&
              fine(ctx, lemon_fuse_plan(ctx, teacher, &shape, 1280, &o, &twice)) && once.flops > 0 && near_to(twice.flops / once.flops, 2, 1e-9),
          "twice the text is foretold to be twice the work");
}

/*  Scratch changes no bit; and the forecast holds. */
static void test_scratch(lemon_ctx *ctx, const char *method) {
    lemon_config shape = student_config();
    lemon_fuse_options o = options_of(method);
    lemon_model *plain = NULL, *filed = NULL;
    lemon_fuse_forecast f;
    lemon_fuse_result r;
    lemon_options with;
    lemon_ctx *other;
    memset(&with, 0, sizeof with);
    with.threads = 2;
    with.scratch = "build/fused.part";
    other = lemon_open(&with);
    fine(ctx, lemon_fuse_plan(ctx, teacher, &shape, TEXT, &o, &f));
    fine(ctx, lemon_fuse(ctx, teacher, &shape, &text, &o, &plain, &r));
    detail("%s: %g operations, %g were foretold", method, r.flops, f.flops);
    check(f.flops < 1.2 * r.flops && f.flops > r.flops / 1.2, "the operations of a fusion are foretold");
    o.learn_steps = 10;
    fine(ctx, lemon_fuse_plan(ctx, teacher, &shape, TEXT, &o, &f));
    fine(ctx, lemon_fuse(ctx, teacher, &shape, &text, &o, &filed, &r));
    detail("%s: %g operations, %g were foretold", method, r.flops, f.flops);
    check(f.flops < 1.2 * r.flops && f.flops > r.flops / 1.2, "and those of one that learns");
    lemon_model_free(ctx, filed);
    filed = NULL;
    o.learn_steps = 0;
    remove(with.scratch);
    fine(other, lemon_fuse(other, teacher, &shape, &text, &o, &filed, NULL));
    check(same_weights(plain, filed), "a student in scratch has the same bits");
    lemon_model_free(other, filed);
    lemon_close(other);
    remove(with.scratch);
    lemon_model_free(ctx, plain);
}

int main(void) {
    lemon_ctx *ctx = open_ctx(2);
    world_text();
    teacher = world_teacher(ctx, 1);
    untied_teacher = world_teacher(ctx, 0);
    test_own_shape(ctx, teacher, &text, 0, "tied");
    test_own_shape(ctx, untied_teacher, &text, 0, "untied");
    test_select(ctx);
    test_spaced(ctx);
    test_subclone(ctx);
    test_dead(ctx);
    test_empty_slot(ctx);
    test_groups(ctx);
    test_head_dim(ctx);
    test_narrow_values(ctx);
    test_kept_values(ctx);
    test_selected_rows(ctx);
    test_apply(ctx);
    test_correction(ctx);
    test_saved(ctx, "lemon", 1, 0, "solved");
    test_saved(ctx, "lemon", 1, 5, "solved, sparse");
    test_saved(ctx, "lemon", 0, 0, "not solved");
    test_saved(ctx, "subclone", 1, 0, "subclone");
    test_saved_wrong(ctx);
    test_spared(ctx);
    test_own_method(ctx);
    test_refusals(ctx);
    test_budgets(ctx);
    test_budget_wishes(ctx);
    test_cka(ctx);
    test_errors(ctx);
    test_ranking(ctx);
    test_learning(ctx, "ligo", 1, 30, 1, "ligo");
    test_learning(ctx, "lemon", 0, 30, 1, "lemon, not solved");
    test_learning(ctx, "lemon", 1, 20, 0, "lemon, solved");
    test_turned(ctx);
    test_learned_maps(ctx);
    test_settled(ctx);
    test_learned_gradients(ctx, "ligo", 1, 2, "ligo");
    test_learned_gradients(ctx, "lemon", 0, 3, "lemon, not solved");
    test_learned_gradients(ctx, "lemon", 1, 0, "lemon, solved");
    test_learned_gradients(ctx, "subclone", 1, 0, "subclone");
    test_own_text(ctx);
    test_masked(ctx);
    test_gain(ctx);
    test_fields(ctx);
    test_threads();
    test_less_memory();
    test_memory(ctx, "select", 0);
    test_memory(ctx, "lemon", 0);
    test_memory(ctx, "ligo", 1);
    test_memory_wide(ctx);
    test_few_tokens(ctx);
    test_scratch(ctx, "lemon");
    test_scratch(ctx, "subclone");
    test_all_in_scratch(ctx);
    test_full_scratch(ctx);
    test_layer_pages(ctx);
    test_killed();
    test_in_use();
    test_plan_counts(ctx);
    test_real(ctx);
    lemon_model_free(ctx, teacher);
    lemon_model_free(ctx, untied_teacher);
    for (family = light() ? FAMILIES - 1 : 1; family < FAMILIES; family++) {
        teacher = world_teacher(ctx, 1);
        test_own_shape(ctx, teacher, &text, 1500, families[family].name);
        test_family(ctx);
        if (families[family].bias) test_intercept(ctx);
        if (family == FAMILIES - 1) {               /* biases and norms of heads */
            untied_teacher = world_teacher(ctx, 0);
            test_head_dim(ctx);
            test_apply(ctx);
            test_saved(ctx, "lemon", 1, 0, "solved");
            test_saved(ctx, "ligo", 1, 0, "ligo");
            test_learned_gradients(ctx, "ligo", 1, 2, "ligo");
            test_learned_gradients(ctx, "lemon", 1, 0, "lemon, solved");
            test_learned_gradients(ctx, "subclone", 1, 0, "subclone");
            lemon_model_free(ctx, untied_teacher);
        }
        lemon_model_free(ctx, teacher);
    }
    lemon_close(ctx);
    check(heap.live == 0, "nothing is left allocated");
    return check_done();
}
