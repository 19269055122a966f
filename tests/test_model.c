/*  Chapter 7: configs that cannot be, the table of parameters, and the forward pass against a naive double-precision one,
    and against the figures of shared/data, which an independent float64 program worked out. */
#include "reference.h"

/* ---- configs ---- */

static void test_refusals(lemon_ctx *ctx) {
    static const struct { size_t field; int32_t value; const char *message;
    } wrongs[] = {{offsetof(lemon_config, d_model), 0, "d_model is 0"},
                  {offsetof(lemon_config, d_model), -5, "d_model is -5"},
                  {offsetof(lemon_config, d_model), 1 << 20, "d_model is 1048576"},
                  {offsetof(lemon_config, n_layers), 0, "n_layers is 0"},
                  {offsetof(lemon_config, n_heads), 0, "n_heads is 0"},
                  {offsetof(lemon_config, kv_heads), 0, "kv_heads is 0"},
                  {offsetof(lemon_config, kv_heads), 3, "kv_heads is 3, expected a divisor of n_heads, which is 4"},
                  {offsetof(lemon_config, kv_heads), 8, "kv_heads is 8"},
                  {offsetof(lemon_config, head_dim), 7, "head_dim is 7, expected an even"},
                  {offsetof(lemon_config, head_dim), 0, "head_dim is 0"},
                  {offsetof(lemon_config, d_ffn), 0, "d_ffn is 0"},
                  {offsetof(lemon_config, vocab_size), 0, "vocab_size is 0"},
                  {offsetof(lemon_config, max_seq), 0, "max_seq is 0"},
                  {offsetof(lemon_config, tied_embeddings), 2, "tied_embeddings is 2"}};
    lemon_config good = tiny_config(8, 2, 4, 2, 6, 10, 13, 1), c;
    lemon_model *model = NULL;
    size_t i;
    char name[96];
    check(fine(ctx, lemon_config_check(ctx, &good)), "a good config passes");
    for (i = 0; i < sizeof wrongs / sizeof wrongs[0]; i++) {
        c = good;
        memcpy((char *)&c + wrongs[i].field, &wrongs[i].value, sizeof(int32_t));
        snprintf(name, sizeof name, "refused: %s", wrongs[i].message);
        check(fails_with(ctx, lemon_model_create(ctx, &c, &model), LEMON_E_ARG, wrongs[i].message) && model == NULL,
              name);
    }
    c = good;
    c.rope_theta = 0;
    check(fails_with(ctx, lemon_config_check(ctx, &c), LEMON_E_ARG, "rope_theta"), "refused: rope_theta 0");
    c.rope_theta = (float)NAN;
    check(fails_with(ctx, lemon_config_check(ctx, &c), LEMON_E_ARG, "rope_theta"), "refused: rope_theta NaN");
    c = good;
    c.n_heads = 4096, c.head_dim = 18;
    check(fails_with(ctx, lemon_config_check(ctx, &c), LEMON_E_ARG, "n_heads times head_dim is 73728, expected at most 65536"),
          "refused: heads that are too wide together");
    c = good;
    c.rms_norm_eps = -1;
    check(fails_with(ctx, lemon_config_check(ctx, &c), LEMON_E_ARG, "rms_norm_eps"), "refused: rms_norm_eps -1");
    check(lemon_config_check(ctx, NULL) == LEMON_E_ARG, "refused: no config");
}

static void test_defaults(void) {
    lemon_config c;
    memset(&c, 0x55, sizeof c);
    lemon_config_defaults(&c);
    check(c.d_model == 0 && c.vocab_size == 0 && c.max_seq == 256 && c.tied_embeddings == 1 &&
              near_to((double)c.rope_theta, 1e4, 0) && near_to((double)c.rms_norm_eps, 1e-5, 1e-12),
          "defaults are as documented");
}

/* ---- the table of parameters ---- */

static void test_counts(lemon_ctx *ctx) {
    static const int32_t shapes[][7] = {
        {8, 2, 4, 2, 6, 10, 13}, {64, 5, 8, 4, 8, 172, 512}, {1, 1, 1, 1, 2, 1, 1}, {48, 3, 6, 1, 22, 7, 300}};
    size_t i;
    int tied, bad = 0, laid = 0;
    for (i = 0; i < 4; i++)
        for (tied = 0; tied < 2; tied++) {
            const int32_t *s = shapes[i];
            lemon_config c = tiny_config(s[0], s[1], s[2], s[3], s[4], s[5], s[6], tied);
            int64_t d = s[0], q = (int64_t)s[2] * s[4], k = (int64_t)s[3] * s[4];
            int64_t want = s[6] * d * (tied ? 1 : 2) + d + s[1] * (2 * d + 2 * q * d + 2 * k * d + 3 * s[5] * d),
                    sum = 0, p;
            lemon_model *m = NULL;
            lemon_model_create(ctx, &c, &m);
            bad += lemon_config_params(&c) != want || m->block_count != want;
            for (p = 0; p < m->n_params; p++) {
                laid += (float *)m->params[p].data != m->block + sum;
                sum += m->params[p].rows * m->params[p].cols;
            }
            laid += sum != want;
            lemon_model_free(ctx, m);
        }
    check(bad == 0, "lemon_config_params counts what the formula counts");
    check(laid == 0, "parameters lie one behind the other and fill the block");
}

static void test_table(lemon_ctx *ctx, int family, int64_t each) {
    lemon_config c = family_config(tiny_config(8, 3, 4, 2, 6, 10, 13, 0), family);
    lemon_model *m = NULL;
    int role, bad = 0, names = 0, other;
    int64_t i, layer;
    lemon_model_create(ctx, &c, &m);
    for (i = 0; i < m->n_params; i++) {
        lemon_role r = lemon__param_role(&c, i, &layer);
        const lemon_role_info *info = lemon_role_get(r);
        bad += lemon_model_param(m, r, layer) != &m->params[i] || lemon__param_index(&c, r, layer) != i;
        bad +=
            m->params[i].rows != lemon_joint_size(&c, info->out) || m->params[i].cols != lemon_joint_size(&c, info->in);
        bad += info->matrix != (m->params[i].rows > 1);
    }
    check(bad == 0, "role and layer give the parameter, and back; shapes are those of the joints");
    check(m->n_params == 2 + each * 3 + 1, "two, nine a layer and those of its family, and the output");
    check((lemon_model_param(m, LEMON_BK, 1) != NULL) == families[family].bias &&
              (lemon_model_param(m, LEMON_Q_NORM, 1) != NULL) == families[family].norm, "the family's own weights are there");
    for (role = 0; role < LEMON_ROLE_COUNT; role++)
        for (other = 0; other < role; other++)
            names += strcmp(lemon_role_get((lemon_role)role)->name, lemon_role_get((lemon_role)other)->name) == 0 ||
                     (lemon_role_get((lemon_role)role)->bias == lemon_role_get((lemon_role)other)->bias &&
                      (strcmp(lemon_role_get((lemon_role)role)->hf, lemon_role_get((lemon_role)other)->hf) == 0 ||
                       strcmp(lemon_role_get((lemon_role)role)->gguf, lemon_role_get((lemon_role)other)->gguf) == 0));
    check(names == 0, "no two roles share a name");
    check(lemon_role_get((lemon_role)-1) == NULL && lemon_role_get(LEMON_ROLE_COUNT) == NULL &&
              lemon_model_param(m, LEMON_WQ, 3) == NULL && lemon_model_param(m, LEMON_WQ, -1) == NULL &&
              lemon_model_param(m, LEMON_FINAL_NORM, 1) == NULL && lemon_model_param(NULL, LEMON_WQ, 0) == NULL,
          "what is not in the table is NULL");
    lemon_model_free(ctx, m);
    c.tied_embeddings = 1;
    lemon_model_create(ctx, &c, &m);
    check(lemon_model_param(m, LEMON_OUTPUT, 0) == lemon_model_param(m, LEMON_TOK_EMBED, 0),
          "a tied output is the embedding");
    lemon_model_free(ctx, m);
}

/* ---- fresh weights, clones ---- */

static double deviation_of(const lemon_tensor *t) {
    const float *w = (const float *)t->data;
    double square = 0;
    int64_t i, n = t->rows * t->cols;
    for (i = 0; i < n; i++) square += (double)w[i] * (double)w[i];
    return sqrt(square / (double)n);
}

static void test_init(lemon_ctx *ctx) {
    lemon_config c = tiny_config(64, 8, 4, 2, 16, 128, 400, 0);
    lemon_model *a = NULL, *b = NULL;
    int64_t i, layer;
    int bad = 0;
    lemon_model_create(ctx, &c, &a);
    lemon_model_create(ctx, &c, &b);
    lemon_model_init(ctx, a, 3);
    lemon_model_init(ctx, b, 3);
    check(memcmp(a->block, b->block, (size_t)a->block_count * 4) == 0, "one seed, one model");
    lemon_model_init(ctx, b, 4);
    check(memcmp(a->block, b->block, (size_t)a->block_count * 4) != 0, "another seed, another model");
    for (i = 0; i < a->n_params; i++) {
        lemon_role role = lemon__param_role(&c, i, &layer);
        int norm = role == LEMON_ATTN_NORM || role == LEMON_FFN_NORM || role == LEMON_FINAL_NORM;
        double want = norm ? 1 : role == LEMON_WO || role == LEMON_W_DOWN ? 0.02 / sqrt(2.0 * 8) : 0.02;
        bad += fabs(deviation_of(&a->params[i]) / want - 1) > 0.1;
    }
    check(bad == 0, "gains 1, deviation 0.02, and 0.02 / sqrt(2 L) where a matrix writes to the stream");
    lemon_model_free(ctx, a);
    lemon_model_free(ctx, b);
}

static void test_clone(lemon_ctx *ctx) {
    lemon_config c = tiny_config(8, 2, 4, 2, 6, 10, 259, 0);
    lemon_model *a = lively_model(ctx, &c, 1), *b = NULL, *d = NULL;
    lemon_tokenizer_bytes(ctx, &a->tokenizer);
    check(fine(ctx, lemon_model_clone(ctx, a, &b)) && b->block != a->block &&
              memcmp(a->block, b->block, (size_t)a->block_count * 4) == 0 && b->tokenizer &&
              b->tokenizer != a->tokenizer,
          "a clone has the weights and a tokenizer of its own");
    lemon_save(ctx, scratch("half.lemon"), a, LEMON_F16);
    check(fine(ctx, lemon_load(ctx, scratch("half.lemon"), &d)) && d->block == NULL &&
              lemon_model_init(ctx, d, 1) == LEMON_E_ARG,
          "a mapped f16 model has no block to write to");
    lemon_model_free(ctx, b);
    check(fine(ctx, lemon_model_clone(ctx, d, &b)) && b->block &&
              near_to((double)b->block[7], (double)a->block[7], 1e-3),
          "its clone has one");
    lemon_model_free(ctx, a);
    lemon_model_free(ctx, b);
    lemon_model_free(ctx, d);
    lemon_model_free(ctx, NULL);
}

/* ---- the forward pass ---- */

/*  Loss of windows of seq over ids, naively. */
static double naive_eval(const lemon_model *m, const int32_t *ids, int64_t n, int64_t seq) {
    double *w = ref_weights(m), *scores = ref_room(seq * m->config.vocab_size), sum = 0;
    int64_t at;
    for (at = 0; at < n - 1; at += seq) {
        int64_t rows = n - 1 - at < seq ? n - 1 - at : seq;
        ref_model(&m->config, w, ids + at, rows, rows, scores);
        sum += ref_loss(scores, NULL, ids + at + 1, rows, m->config.vocab_size, 1).ce * (double)rows;
    }
    free(scores);
    free(w);
    return sum / (double)(n - 1);
}

static void test_forward(lemon_ctx *ctx) {
    static const struct {
        const char *name;
        int32_t d, layers, heads, kv, dim, ffn, vocab;
        int tied;
        float theta, eps;
    } shapes[] = {{"tied", 16, 2, 4, 4, 4, 40, 50, 1, 10000.0f, 1e-5f},
                  {"untied", 16, 2, 4, 4, 4, 40, 50, 0, 10000.0f, 1e-5f},
                  {"grouped queries", 24, 3, 6, 2, 4, 33, 70, 1, 10000.0f, 1e-5f},
                  {"one kv head", 24, 2, 6, 1, 4, 33, 70, 0, 10000.0f, 1e-5f},
                  {"heads wider than the stream", 10, 2, 3, 3, 8, 20, 41, 1, 10000.0f, 1e-5f},
                  {"heads narrower than the stream", 40, 2, 2, 1, 6, 20, 41, 0, 10000.0f, 1e-5f},
                  {"theta 500000, eps 0.01", 16, 2, 2, 2, 8, 24, 50, 1, 500000.0f, 0.01f}};
    lemon_rng rng;
    int32_t ids[150];
    size_t i;
    lemon_rng_seed(&rng, 9);
    for (i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        lemon_config c = tiny_config(shapes[i].d, shapes[i].layers, shapes[i].heads, shapes[i].kv, shapes[i].dim,
                                     shapes[i].ffn, shapes[i].vocab, shapes[i].tied);
        lemon_tokens tokens;
        lemon_model *m;
        double loss = 0;
        int64_t counted = 0;
        char name[96];
        c.rope_theta = shapes[i].theta;
        c.rms_norm_eps = shapes[i].eps;
        m = lively_model(ctx, &c, 30 + i);
        fill_ids(&rng, ids, 150, c.vocab_size);
        tokens.ids = ids;
        tokens.count = tokens.capacity = 150;
        snprintf(name, sizeof name, "loss is the naive model's: %s", shapes[i].name);
        check(fine(ctx, lemon_eval(ctx, m, &tokens, 40, 0, &loss, &counted)) && counted == 149 &&
                  near_to(loss, naive_eval(m, ids, 150, 40), 1e-5),
              name);
        lemon_model_free(ctx, m);
    }
}

/*  The rest of the family, taped and in a session. */
static void test_families(lemon_ctx *ctx) {
    lemon_rng rng;
    int32_t ids[150];
    int i;
    lemon_rng_seed(&rng, 10);
    fill_ids(&rng, ids, 150, 70);
    for (i = 0; i < FAMILIES; i++) {
        lemon_config c = family_config(tiny_config(24, 2, 6, 2, 16, 33, 70, i % 2), i);
        lemon_model *m = lively_model(ctx, &c, 70 + (uint64_t)i);
        lemon_tokens tokens = {ids, 150, 150};
        double loss = 0;
        char name[96];
        snprintf(name, sizeof name, "loss is the naive model's: %s", families[i].name);
        check(fine(ctx, lemon_eval(ctx, m, &tokens, 40, 0, &loss, NULL)) &&
                  near_to(loss, naive_eval(m, ids, 150, 40), 1e-5), name);
        lemon_model_free(ctx, m);
    }
}

/*  After each token, the scores of a session are those of the naive model; so are they when fed in pieces. */
static void test_session(lemon_ctx *ctx, int family, int tied) {
    lemon_config c = family_config(tiny_config(24, 3, 6, 2, 16, 33, 70, tied), family);
    lemon_model *m = lively_model(ctx, &c, 12);
    lemon_session *one = NULL, *pieces = NULL;
    lemon_rng rng;
    int32_t ids[64];
    double *w = ref_weights(m), *scores = ref_room(64 * 70), worst = 0, apart = 0;
    float *logits = NULL, *other = NULL;
    int64_t i, v, at = 0;
    char name[96];
    lemon_rng_seed(&rng, 2);
    fill_ids(&rng, ids, 64, 70);
    ref_model(&c, w, ids, 64, 64, scores);
    lemon_session_open(ctx, m, &one);
    lemon_session_open(ctx, m, &pieces);
    for (i = 0; i < 64; i++) {
        if (!fine(ctx, lemon_session_feed(one, &ids[i], 1, &logits))) break;
        for (v = 0; v < 70; v++) worst = fmax(worst, fabs((double)logits[v] - scores[i * 70 + v]));
        if (i != 0 && i != 1 && i != 7 && i != 40 && i != 63) continue;
        lemon_session_feed(pieces, ids + at, i + 1 - at, &other);
        at = i + 1;
        for (v = 0; v < 70; v++) apart = fmax(apart, fabs((double)logits[v] - (double)other[v]));
    }
    snprintf(name, sizeof name, "a session's scores are the naive model's: %s%s", families[family].name, tied ? ", tied" : "");
    detail("scores differ by %g", worst);
    check(i == 64 && worst < 1e-4, name);
    detail("scores differ by %g", apart);
    check(apart < 1e-4, "a prompt in pieces is the prompt token by token");
    lemon_session_close(one);
    lemon_session_close(pieces);
    free(w);
    free(scores);
    lemon_model_free(ctx, m);
}

/* ---- real data ---- */

static void expect_loss(lemon_ctx *ctx, const lemon_model *m, const lemon_tokens *tokens, int64_t seq, int64_t most,
                        double want) {
    double loss = 0;
    int64_t counted = 0;
    char name[96];
    snprintf(name, sizeof name, "stories260K: %.7f at seq %d on %d tokens", want, (int)seq,
             (int)(most ? most : tokens->count));
    check(fine(ctx, lemon_eval(ctx, m, tokens, seq, most, &loss, &counted)) && near_to(loss, want, 1e-5) &&
              counted == (most ? most : tokens->count) - 1,
          name);
}

static void test_real(lemon_ctx *ctx) {
    char path[512], tok[512], valid[512], train[512];
    lemon_model *m = NULL;
    lemon_tokenizer *t = NULL;
    lemon_tokens tokens = {NULL, 0, 0}, more = {NULL, 0, 0};
    const char *files[1];
    if (!data_path("stories260K.bin", path, 512) || !data_path("tok512.bin", tok, 512) ||
        !data_path("tinystories_valid.txt", valid, 512) || !data_path("tinystories_train.txt", train, 512)) {
        skip("stories260K gives the figures of shared/data");
        return;
    }
    lemon_load(ctx, path, &m);
    lemon_tokenizer_load(ctx, tok, 512, &t);
    files[0] = valid;
    lemon_tokens_from_files(ctx, t, 512, files, 1, &tokens);
    files[0] = train;
    lemon_tokens_from_files(ctx, t, 512, files, 1, &more);
    check(tokens.count == 104971, "tinystories_valid.txt has 104,971 tokens");
    expect_loss(ctx, m, &tokens, 256, 20000, 1.3531445);
    if (!light()) {
        expect_loss(ctx, m, &tokens, 128, 0, 1.5004564);
        expect_loss(ctx, m, &tokens, 256, 0, 1.4447836);
        expect_loss(ctx, m, &tokens, 512, 0, 1.4130661);
        expect_loss(ctx, m, &more, 256, 100000, 1.7913115);
    }
    expect_loss(ctx, m, &tokens, 0, 20000, 1.3531445);      /* the default is 256 */
    lemon_tokens_free(ctx, &tokens);
    lemon_tokens_free(ctx, &more);
    lemon_tokenizer_free(ctx, t);
    lemon_model_free(ctx, m);
}

static void test_memory(lemon_ctx *ctx) {
    lemon_config c = tiny_config(8, 2, 4, 2, 6, 10, 13, 1);
    lemon_model *m = NULL;
    long live = heap.live;
    int n, bad = 0;
    for (n = 1; m == NULL && n < 50; n++) {
        heap.calls = 0;
        heap.fail_at = n;
        bad += lemon_model_create(ctx, &c, &m) != (m ? LEMON_OK : LEMON_E_MEMORY) || (m == NULL && heap.live != live);
    }
    heap.fail_at = 0;
    check(m && bad == 0 && n > 3, "a model that cannot be had leaves nothing behind");
    lemon_model_free(ctx, m);
}

int main(void) {
    lemon_ctx *ctx = open_ctx(2);
    int family;
    test_refusals(ctx);
    test_defaults();
    test_counts(ctx);
    test_table(ctx, 0, 9);
    test_table(ctx, 1, 12);
    test_table(ctx, 2, 11);
    test_table(ctx, 9, 14);
    test_init(ctx);
    test_clone(ctx);
    test_forward(ctx);
    test_families(ctx);
    for (family = 0; family < FAMILIES; family++) test_session(ctx, family, family % 2);
    test_session(ctx, 0, 1);
    test_real(ctx);
    test_memory(ctx);
    lemon_close(ctx);
    check(heap.live == 0, "nothing is left allocated");
    return check_done();
}
