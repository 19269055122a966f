/*  judge_tape.c: prints, for every operation of the tape, random inputs and the gradients of a loss behind it, for
    judge_tape.py to work out again in PyTorch.  A line each:  case NAME NUMBERS;  leaf ROWS COLS VALUES;  ids VALUES;
    loss CE KL;  grad VALUES, of each leaf in turn. */
#define LEMON_IMPLEMENTATION
#include "../lemon.h"
#include <stdio.h>

enum { ROWS = 24, WIDTH = 48, VOCAB = 40, LEAVES = 6 };
static lemon_ctx *ctx;
static lemon_tape *tape;
static lemon_rng rng;
static float values[LEAVES][4096], grads[LEAVES][4096];
static int64_t counts[LEAVES];
static int leaves;
static int32_t ids[2][ROWS];

static void numbers(const char *what, const float *x, int64_t n) {
    printf("%s", what);
    while (n-- > 0) printf(" %.9g", (double)*x++);
    printf("\n");
}

/*  `flows` 0: a constant, as a teacher is. */
static lemon_var leaf_of(int64_t rows, int64_t cols, int flows) {
    const int i = leaves++;
    int64_t k;
    char line[60];
    for (k = 0; k < rows * cols; k++) values[i][k] = (float)lemon_rng_normal(&rng) * 0.5f + (rows == 1 ? 1.0f : 0.0f);
    memset(grads[i], 0, sizeof grads[i]);
    snprintf(line, sizeof line, "leaf %d %d", (int)rows, (int)cols);
    numbers(line, values[i], counts[i] = rows * cols);
    return lemon_tape_leaf(tape, values[i], flows ? grads[i] : NULL, rows, cols);
}
static lemon_var leaf(int64_t rows, int64_t cols) { return leaf_of(rows, cols, 1); }

static const int32_t *some_ids(int which, int32_t below) {
    int i;
    printf("ids");
    for (i = 0; i < ROWS; i++) printf(" %d", (int)(ids[which][i] = (int32_t)lemon_rng_below(&rng, below)));
    printf("\n");
    return ids[which];
}

static lemon_var operation(const char *name) {
    lemon_var x[3];
    printf("case %s\n", name);
    if (strcmp(name, "matmul_nn") == 0) { x[0] = leaf(ROWS, 32); return lemon_tape_matmul(tape, x[0], 0, leaf(32, WIDTH), 0); }
    if (strcmp(name, "matmul_nt") == 0) { x[0] = leaf(ROWS, 32); return lemon_tape_matmul(tape, x[0], 0, leaf(WIDTH, 32), 1); }
    if (strcmp(name, "matmul_tn") == 0) { x[0] = leaf(32, ROWS); return lemon_tape_matmul(tape, x[0], 1, leaf(32, WIDTH), 0); }
    if (strcmp(name, "matmul_tt") == 0) { x[0] = leaf(32, ROWS); return lemon_tape_matmul(tape, x[0], 1, leaf(WIDTH, 32), 1); }
    if (strcmp(name, "embed") == 0) { x[0] = leaf(30, WIDTH); return lemon_tape_embed(tape, x[0], some_ids(1, 30), ROWS); }
    if (strcmp(name, "mix") == 0) {
        int i;
        for (i = 0; i < 3; i++) x[i] = leaf(ROWS, WIDTH);
        return lemon_tape_mix(tape, x, 3, leaf(1, 3));
    }
    x[0] = leaf(ROWS, WIDTH);
    if (strcmp(name, "add") == 0) return lemon_tape_add(tape, x[0], leaf(ROWS, WIDTH));
    if (strcmp(name, "bias") == 0) return lemon_tape_bias(tape, x[0], leaf(1, WIDTH));
    if (strcmp(name, "rms_norm") == 0) return lemon_tape_rms_norm(tape, x[0], leaf(1, WIDTH), 1e-5f);
    if (strcmp(name, "rms_norm_heads") == 0) return lemon_tape_rms_norm(tape, x[0], leaf(1, 12), 1e-5f);
    if (strcmp(name, "rope") == 0) return lemon_tape_rope(tape, x[0], 12, 8, 10000.0f);
    if (strcmp(name, "swiglu") == 0) return lemon_tape_swiglu(tape, x[0], leaf(ROWS, WIDTH));
    if (strncmp(name, "attention", 9) == 0) {
        x[1] = leaf(ROWS, 24);
        return lemon_tape_attention(tape, x[0], x[1], leaf(ROWS, 24), 4, 2, 12, 12, strcmp(name, "attention_window") == 0 ? 5 : 0);
    }
    return x[0];                                            /* the loss alone */
}

static int one_case(const char *name) {
    lemon_loss_options o = {0.0f, 1.0f, 1.0f};
    lemon_var hidden, output, loss, teacher = -1, teacher_output = -1;
    const float *value;
    int i;
    leaves = 0;
    if (lemon_tape_open(ctx, &tape)) return 1;
    hidden = operation(name);
    output = leaf(VOCAB, WIDTH);
    if (strcmp(name, "distill") == 0) {
        o.distill = 0.7f;
        o.temperature = 1.7f;
        teacher = leaf_of(ROWS, 20, 0);
        teacher_output = leaf_of(VOCAB, 20, 0);
    }
    loss = lemon_tape_loss(tape, hidden, output, some_ids(0, VOCAB), teacher, teacher_output, &o);
    if (lemon_tape_plan(tape, 1, NULL) || lemon_tape_forward(tape) || lemon_tape_backward(tape)) {
        fprintf(stderr, "%s: %s\n", name, lemon_error(ctx));
        return 1;
    }
    value = lemon_tape_value(tape, loss);
    numbers("loss", value, 2);
    for (i = 0; i < leaves; i++) numbers("grad", grads[i], counts[i]);
    lemon_tape_close(tape);
    return 0;
}

int main(void) {
    static const char *const names[] = {"matmul_nn", "matmul_nt", "matmul_tn", "matmul_tt", "add", "bias", "rms_norm", "rms_norm_heads", "rope",
                                        "attention", "attention_window", "swiglu", "mix", "embed", "loss", "distill"};
    size_t i;
    int failed = 0;
    ctx = lemon_open(NULL);
    if (ctx == NULL) return 1;
    lemon_rng_seed(&rng, 1);
    for (i = 0; i < sizeof names / sizeof names[0]; i++) failed |= one_case(names[i]);
    lemon_close(ctx);
    return failed;
}
