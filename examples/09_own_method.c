/*  09_own_method.c - a fusion method of one's own: a filler of operators.

        make -C examples programs build/train.txt
        examples/build/09_own_method examples/data/teacher.lemon examples/build/train.txt own.operators

    A method says which teacher layers a student layer is made of, how much of each, and at each place which teacher channels
    a student channel is made of.  This one looks at weights alone: channels whose column of the embedding is longest; neurons
    whose row of w_up times column of w_down is longest; heads in whole groups; layers evenly spaced, with a little of the next
    one.  "select" takes all evenly spaced.  Yours?  Beside a copy of lemon.h:  cc -O2 09_own_method.c -o own -lm -pthread
    The file is for lemon fuse TEACHER OUT --operators own.operators --data TEXT.txt --report own.html, and may be left out.  */
#ifndef LEMON_LINKED
#define LEMON_IMPLEMENTATION
#endif
#include "lemon.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static struct score { double value; int32_t channel; } scores[65536];      /* no joint of a model is wider */
static float row[65536];

static int larger(const void *a, const void *b) {
    double x = ((const struct score *)a)->value, y = ((const struct score *)b)->value;
    return (x < y) - (x > y);
}

/*  Channels in order of the squared length of their column in one matrix, times that of their row in another. */
static void rank(const lemon_tensor *columns, const lemon_tensor *rows) {
    int64_t r, c;
    for (c = 0; c < columns->cols; c++) scores[c].value = 0, scores[c].channel = (int32_t)c;
    for (r = 0; r < columns->rows; r++)
        for (lemon_row_to_f32(columns, r, row), c = 0; c < columns->cols; c++) scores[c].value += (double)(row[c] * row[c]);
    for (r = 0; rows && r < rows->rows; r++) {
        double square = 0;
        for (lemon_row_to_f32(rows, r, row), c = 0; c < rows->cols; c++) square += (double)(row[c] * row[c]);
        scores[r].value *= square;
    }
    qsort(scores, (size_t)columns->cols, sizeof *scores, larger);
}

/*  Heads stay whole, and with those that share their keys: group g of ours is group g * (their groups / our groups). */
static void heads(const lemon_config *ours, const lemon_config *theirs, int queries) {
    int32_t each = queries ? ours->n_heads / ours->kv_heads : 1, of = queries ? theirs->n_heads / theirs->kv_heads : 1, i;
    for (i = 0; i < ours->kv_heads * each * ours->head_dim; i++) {
        int32_t head = i / ours->head_dim, group = head / each * (theirs->kv_heads / ours->kv_heads);
        scores[i].channel = (group * of + head % each) * theirs->head_dim + i % ours->head_dim;
    }
}

/*  A method as a table, in the order of lemon_place: whose channels (the stream's, query heads', key heads', neurons'), and
    whether behind a norm, which makes narrower streams as large as wider ones: reads make up by sqrt(teacher / student). */
static const struct { char joint; int reads; } places[] = {
    {'D', 0}, {'D', 0}, {'D', 1}, {'D', 1}, {'D', 1}, {'H', 0}, {'K', 0}, {'K', 0}, {'H', 0}, {'F', 0}, {'F', 0}};

/*  A selection: student channel i is the teacher's i-th best. */
static lemon_status put(lemon_ctx *ctx, const lemon_model *t, lemon_operators *ops, int place, int64_t layer) {
    int32_t from = ops->layer[layer * ops->slots], i;
    char joint = places[place].joint;
    lemon_map *map = NULL;
    lemon_status status = lemon_operators_set_map(ctx, ops, (lemon_place)place, layer, 0, 1, &map);
    if (status) return status;
    if (joint == 'D') rank(lemon_model_param(t, LEMON_TOK_EMBED, 0), NULL);
    else if (joint == 'F') rank(lemon_model_param(t, LEMON_W_DOWN, from), lemon_model_param(t, LEMON_W_UP, from));
    else heads(&ops->student, &t->config, joint == 'H');
    for (i = 0; i < map->student; i++) {
        map->index[i] = scores[i].channel;
        map->value[i] = places[place].reads ? sqrtf((float)map->teacher / (float)map->student) : 1.0f;
    }
    return LEMON_OK;
}

static lemon_status fill(lemon_ctx *ctx, const lemon_model *t, const lemon_config *shape, lemon_operators **ops) {
    lemon_status status = lemon_operators_create(ctx, &t->config, shape, 2, ops);
    int32_t i, layers = t->config.n_layers, place;
    for (i = 0; !status && i < shape->n_layers; i++) {
        int32_t from = i * layers / shape->n_layers;
        (*ops)->layer[2 * i] = from, (*ops)->layer_weight[2 * i] = 1.0f;
        (*ops)->layer[2 * i + 1] = from + 1 < layers ? from + 1 : -1, (*ops)->layer_weight[2 * i + 1] = 0.05f;
        for (place = i > 0 ? LEMON_AT_READ_ATTN : 0; !status && place <= LEMON_AT_READ_NEURONS; place++)
            status = put(ctx, t, *ops, place, i);
    }
    return status;
}

/*  The student of our operators, or of a method that lemon.h has: its loss at once, and after a little training. */
static lemon_status try_method(lemon_ctx *ctx, const lemon_model *t, const lemon_tokens *text, const char *method,
                               const char *file) {
    lemon_operators *ops = NULL;
    lemon_model *student = NULL;
    lemon_fuse_options o;
    lemon_train_options more;
    lemon_config shape = t->config;
    double before, after;
    shape.d_model /= 2, shape.n_layers = (shape.n_layers + 1) / 2, shape.d_ffn /= 2;
    if (shape.kv_heads % 2 == 0) shape.n_heads /= 2, shape.kv_heads /= 2;
    lemon_fuse_defaults(&o), lemon_train_defaults(&more), o.method = method, more.steps = 30, more.batch = 4, more.lr = 4e-3;
    lemon_status status = method ? lemon_operators_fill(ctx, t, &shape, text, &o, &ops, NULL) : fill(ctx, t, &shape, &ops);
    if (!status && file) status = lemon_operators_save(ctx, file, ops);
    if (!status) status = lemon_operators_apply(ctx, ops, t, 1, &student);
    if (!status) status = lemon_eval(ctx, student, text, 0, 8192, &before, NULL);
    if (!status) status = lemon_train(ctx, student, text, &more, NULL);
    if (!status) status = lemon_eval(ctx, student, text, 0, 8192, &after, NULL);
    if (!status) printf("%-10s loss %.4f, after 30 steps %.4f\n", method ? method : "own", before, after);
    return lemon_model_free(ctx, student), lemon_operators_free(ctx, ops), status;
}

int main(int argc, char **argv) {
    lemon_ctx *ctx = lemon_open(NULL);
    lemon_model *t = NULL;
    lemon_tokens text = {NULL, 0, 0};
    const char *data = argc == 3 || argc == 4 ? argv[2] : NULL;
    lemon_status status = ctx && data ? lemon_load(ctx, argv[1], &t) : LEMON_E_ARG;
    if (!status) status = lemon_tokens_from_files(ctx, t->tokenizer, t->config.vocab_size, &data, 1, &text);
    if (!status) status = try_method(ctx, t, &text, "select", NULL);
    if (!status) status = try_method(ctx, t, &text, NULL, argc == 4 ? argv[3] : NULL);
    if (status) fprintf(stderr, "lemon: error: %s\n", data ? lemon_error(ctx) : "usage: 09_own_method TEACHER TEXT [FILE]");
    lemon_tokens_free(ctx, &text), lemon_model_free(ctx, t), lemon_close(ctx);
    return status != LEMON_OK;
}
