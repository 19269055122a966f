/*  02_autodiff.c - automatic differentiation: a small network learns to draw a curve.

        make -C examples programs && examples/build/02_autodiff

    A tape is a list of operations.  It is recorded once; then it is run forward, which computes the loss, and
    backward, which walks the list from its end and adds up, by the chain rule, how the loss changes with each weight.
    Then each weight moves a little against its gradient.  That is all there is to training; a language model differs
    only in the length of its tape.

    A language model says how likely each token of its vocabulary is.  Here the "tokens" are heights: the curve is cut
    into 16 levels, and the network learns which level belongs to which x.  h = silu(x * Gate^T) * (x * Up^T), twice,
    then a score for each level.  */
#ifndef LEMON_LINKED
#define LEMON_IMPLEMENTATION
#endif
#include "lemon.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { POINTS = 64, INPUTS = 2, HIDDEN = 24, LEVELS = 16, STEPS = 1500 };
enum { GATE = 0, UP = GATE + HIDDEN * INPUTS, GATE2 = UP + HIDDEN * INPUTS, UP2 = GATE2 + HIDDEN * HIDDEN,
       OUTPUT = UP2 + HIDDEN * HIDDEN, WEIGHTS = OUTPUT + LEVELS * HIDDEN };

/*  x and a constant 1, which takes the place of a bias; and the level of the curve at each x. */
static float points[POINTS * INPUTS];
static int32_t levels[POINTS];

static void make_curve(void) {
    int i;
    for (i = 0; i < POINTS; i++) {
        double x = 4.0 * i / (POINTS - 1) - 2.0, y = sin(3.0 * x) * exp(-0.3 * x * x);
        points[i * INPUTS] = (float)x;
        points[i * INPUTS + 1] = 1.0f;
        levels[i] = (int32_t)((y + 1.0) / 2.0 * (LEVELS - 1) + 0.5);
    }
}

/*  Records the network.  Errors are sticky, so that the recording needs no check but that of lemon_tape_plan. */
static void record(lemon_tape *tape, const float *w, float *grad, lemon_var *scores, lemon_var *loss) {
    const lemon_loss_options options = {0.0f, 1.0f, 1.0f};     /* no teacher; the loss is not scaled */
    lemon_var x = lemon_tape_leaf(tape, points, NULL, POINTS, INPUTS);        /* no gradient: a constant */
    lemon_var gate = lemon_tape_leaf(tape, w + GATE, grad + GATE, HIDDEN, INPUTS);
    lemon_var up = lemon_tape_leaf(tape, w + UP, grad + UP, HIDDEN, INPUTS);
    lemon_var gate2 = lemon_tape_leaf(tape, w + GATE2, grad + GATE2, HIDDEN, HIDDEN);
    lemon_var up2 = lemon_tape_leaf(tape, w + UP2, grad + UP2, HIDDEN, HIDDEN);
    lemon_var output = lemon_tape_leaf(tape, w + OUTPUT, grad + OUTPUT, LEVELS, HIDDEN), h;
    h = lemon_tape_swiglu(tape, lemon_tape_matmul(tape, x, 0, gate, 1), lemon_tape_matmul(tape, x, 0, up, 1));
    h = lemon_tape_swiglu(tape, lemon_tape_matmul(tape, h, 0, gate2, 1), lemon_tape_matmul(tape, h, 0, up2, 1));
    *scores = lemon_tape_matmul(tape, h, 0, output, 1);
    lemon_tape_keep(tape, *scores);                            /* we want to read them after the run */
    *loss = lemon_tape_loss(tape, h, output, levels, -1, -1, &options);
}

/*  One step: forward, backward, and down the slope, with some of the speed of the steps before (momentum). */
static lemon_status descend(lemon_tape *tape, float *w, float *grad, float *speed, float rate) {
    lemon_status status;
    int i;
    memset(grad, 0, sizeof(float) * WEIGHTS);                  /* backward adds to what is there */
    status = lemon_tape_forward(tape);
    if (!status) status = lemon_tape_backward(tape);
    for (i = 0; i < WEIGHTS && !status; i++) w[i] += speed[i] = 0.9f * speed[i] - rate * grad[i];
    return status;
}

/*  Draws the curve (.) and what the network makes of it (o; @ where they agree); returns how often they do. */
static int draw(const float *scores) {
    int i, k, level, right = 0, best[POINTS];
    for (i = 0; i < POINTS; i++) {
        for (best[i] = 0, k = 1; k < LEVELS; k++)
            if (scores[i * LEVELS + k] > scores[i * LEVELS + best[i]]) best[i] = k;
        right += best[i] == levels[i];
    }
    for (level = LEVELS - 1; level >= 0; level--) {
        for (i = 0; i < POINTS; i++)
            putchar(best[i] == level ? (levels[i] == level ? '@' : 'o') : (levels[i] == level ? '.' : ' '));
        putchar('\n');
    }
    return right;
}

static lemon_status learn(lemon_tape *tape, int *right) {
    static float w[WEIGHTS], grad[WEIGHTS], speed[WEIGHTS];
    lemon_var scores, loss;
    lemon_rng rng;
    lemon_status status;
    int i;
    lemon_rng_seed(&rng, 1);
    for (i = 0; i < WEIGHTS; i++) w[i] = (i < GATE2 ? 1.0f : 0.3f) * (float)lemon_rng_normal(&rng);
    record(tape, w, grad, &scores, &loss);
    status = lemon_tape_plan(tape, 1, NULL);                   /* lays out all memory; the first error shows here */
    for (i = 0; i < STEPS && !status; i++) {
        status = descend(tape, w, grad, speed, 0.02f * (float)(STEPS - i) / STEPS);
        if (!status && (i % 250 == 0 || i == STEPS - 1))
            printf("step %4d  loss %.4f\n", i + 1, (double)lemon_tape_value(tape, loss)[0]);
    }
    if (!status) *right = draw(lemon_tape_value(tape, scores));
    return status;
}

int main(void) {
    lemon_ctx *ctx = lemon_open(NULL);
    lemon_tape *tape = NULL;
    lemon_status status;
    int right = 0;
    if (ctx == NULL) return fputs("lemon: error: could not begin\n", stderr), 1;
    make_curve();
    status = lemon_tape_open(ctx, &tape);
    if (!status) status = learn(tape, &right);
    if (status) fprintf(stderr, "lemon: error: %s\n", lemon_error(ctx));
    lemon_tape_close(tape);
    lemon_close(ctx);
    return right < POINTS * 3 / 4;
}
