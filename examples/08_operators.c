/*  08_operators.c - what fusion operators look like.

        make -C examples programs
        examples/build/08_operators examples/data/teacher.lemon

    All ways of making a small transformer from a large one fill the same operators; they differ in the numbers.  This
    program fills them in two ways for the same student and draws them, student channels downwards, teacher channels to
    the right, the darker the larger.  "subclone" selects: each student channel is one teacher channel, so a row has
    one mark.  "lemon" solves: a student channel is a mixture of all teacher channels, found by least squares, while
    whole heads are still selected.  The layer operator says from which teacher layers a student layer is made.  */
#ifndef LEMON_LINKED
#define LEMON_IMPLEMENTATION
#endif
#include "lemon.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ROWS = 16, COLUMNS = 64 };

/*  The largest coefficient, by magnitude, in each cell of a coarse grid. */
static double shrink(const lemon_map *map, double grid[ROWS][COLUMNS]) {
    double largest = 0;
    int64_t i, j;
    memset(grid, 0, sizeof(double) * ROWS * COLUMNS);
    for (i = 0; i < map->student; i++)
        for (j = 0; j < map->field; j++) {
            int64_t channel = map->index ? map->index[i * map->field + j] : j;
            double value = fabs((double)map->value[i * map->field + j]);
            double *cell = &grid[i * ROWS / map->student][channel * COLUMNS / map->teacher];
            if (value > *cell) *cell = value;
            if (value > largest) largest = value;
        }
    return largest;
}

static void draw(const lemon_operators *operators, lemon_place place, int64_t layer) {
    static const char shades[] = " .:-=+*#%@";
    static double grid[ROWS][COLUMNS];
    const lemon_map *map = lemon_operators_map(operators, place, layer, 0);
    double largest;
    int i, j;
    if (map == NULL || map->value == NULL) return;
    largest = shrink(map, grid);
    printf("\n%s, student layer %d: %d student channels from %d, field of %d\n", lemon_place_name(place), (int)layer,
           (int)map->student, (int)map->teacher, (int)map->field);
    for (i = 0; i < ROWS; i++) {
        putchar('|');
        for (j = 0; j < COLUMNS; j++) putchar(shades[largest > 0 ? (int)(grid[i][j] / largest * 9) : 0]);
        puts("|");
    }
}

static void draw_layers(const lemon_operators *operators) {
    int64_t i, k;
    for (i = 0; i < operators->student.n_layers; i++) {
        printf("student layer %d =", (int)i);
        for (k = 0; k < operators->slots; k++) {
            int64_t at = i * operators->slots + k;
            if (operators->layer[at] >= 0)
                printf(" %+.2f * teacher layer %d", (double)operators->layer_weight[at], (int)operators->layer[at]);
        }
        putchar('\n');
    }
}

static lemon_status show(lemon_ctx *ctx, const lemon_model *teacher, const char *method) {
    lemon_operators *operators = NULL;
    lemon_fuse_options options;
    lemon_config shape = teacher->config;
    lemon_status status;
    shape.d_model /= 2;
    shape.n_layers = shape.n_layers > 1 ? shape.n_layers / 2 : 1;
    shape.d_ffn /= 2;
    if (shape.n_heads % 2 == 0 && shape.kv_heads % 2 == 0) shape.n_heads /= 2, shape.kv_heads /= 2;
    lemon_fuse_defaults(&options);
    options.method = method;
    options.tokens = 4096;       /* without a text, the teacher samples its own */
    options.learn_steps = 0;     /* what is learned behind the operators is not drawn */
    status = lemon_operators_fill(ctx, teacher, &shape, NULL, &options, &operators, NULL);
    if (status) return status;
    printf("\n==== %s ====\n", method);
    draw_layers(operators);
    draw(operators, LEMON_AT_RESIDUAL, 0);
    draw(operators, LEMON_AT_READ_ATTN, 0);
    draw(operators, LEMON_AT_QUERY, 0);
    draw(operators, LEMON_AT_FFN, shape.n_layers - 1);
    lemon_operators_free(ctx, operators);
    return LEMON_OK;
}

int main(int argc, char **argv) {
    lemon_ctx *ctx;
    lemon_model *teacher = NULL;
    lemon_status status;
    if (argc != 2) return fputs("usage: 08_operators TEACHER.lemon\n", stderr), 2;
    ctx = lemon_open(NULL);
    if (ctx == NULL) return fputs("lemon: error: could not begin\n", stderr), 1;
    status = lemon_load(ctx, argv[1], &teacher);
    if (!status) status = show(ctx, teacher, "subclone");
    if (!status) status = show(ctx, teacher, "lemon");
    if (status) fprintf(stderr, "lemon: error: %s\n", lemon_error(ctx));
    lemon_model_free(ctx, teacher);
    lemon_close(ctx);
    return status != LEMON_OK;
}
