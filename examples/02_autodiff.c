/*  02_autodiff.c - automatic differentiation: a network of 64 weights learns "exclusive or" by plain gradient descent.

        make -C examples programs && examples/build/02_autodiff

    A tape is a list of operations.  It is recorded once; then it is run forward, which computes the loss, and
    backward, which walks the list from its end and adds up, by the chain rule, how the loss changes with each weight.
    A step of gradient descent moves each weight a little against its gradient.  That is all there is to training; a
    language model differs only in the length of its tape.

    The network:  hidden = silu(x * Gate^T) * (x * Up^T),  scores = hidden * Output^T,  one score for each class. No
    line can part the points where exclusive or is 1 from those where it is 0, so a linear network could not do it.  */
#ifndef LEMON_LINKED
#define LEMON_IMPLEMENTATION
#endif
#include "../lemon.h"
#include <stdio.h>
#include <string.h>

enum { POINTS = 4, INPUTS = 3, HIDDEN = 8, CLASSES = 2, STEPS = 300 };
enum { GATE = 0, UP = GATE + HIDDEN * INPUTS, OUTPUT = UP + HIDDEN * INPUTS, WEIGHTS = OUTPUT + CLASSES * HIDDEN };

/*  The two bits and a constant 1, which takes the place of a bias; and the class of each row. */
static const float points[POINTS * INPUTS] = {0, 0, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1};
static const int32_t classes[POINTS] = {0, 1, 1, 0};

/*  Records the network.  Errors are sticky, so that the recording needs no check but that of lemon_tape_plan. */
static void record(lemon_tape *tape, const float *w, float *grad, lemon_var *scores, lemon_var *loss) {
    const lemon_loss_options options = {0.0f, 1.0f, 1.0f};     /* no teacher; the loss is not scaled */
    lemon_var x = lemon_tape_leaf(tape, points, NULL, POINTS, INPUTS);        /* no gradient: a constant */
    lemon_var gate = lemon_tape_leaf(tape, w + GATE, grad + GATE, HIDDEN, INPUTS);
    lemon_var up = lemon_tape_leaf(tape, w + UP, grad + UP, HIDDEN, INPUTS);
    lemon_var output = lemon_tape_leaf(tape, w + OUTPUT, grad + OUTPUT, CLASSES, HIDDEN);
    lemon_var gated = lemon_tape_matmul(tape, x, 0, gate, 1), upped = lemon_tape_matmul(tape, x, 0, up, 1);
    lemon_var hidden = lemon_tape_swiglu(tape, gated, upped);
    *scores = lemon_tape_matmul(tape, hidden, 0, output, 1);
    lemon_tape_keep(tape, *scores);                            /* we want to read them after the run */
    *loss = lemon_tape_loss(tape, hidden, output, classes, -1, -1, &options);
}

/*  One step: forward, backward, and down the slope. */
static lemon_status descend(lemon_tape *tape, float *w, float *grad, float rate) {
    lemon_status status;
    int i;
    memset(grad, 0, sizeof(float) * WEIGHTS);                  /* backward adds to what is there */
    status = lemon_tape_forward(tape);
    if (!status) status = lemon_tape_backward(tape);
    for (i = 0; i < WEIGHTS && !status; i++) w[i] -= rate * grad[i];
    return status;
}

static int show(const float *scores) {
    int i, right = 0;
    for (i = 0; i < POINTS; i++) {
        int answer = scores[i * CLASSES + 1] > scores[i * CLASSES];
        printf("%g xor %g = %d\n", (double)points[i * INPUTS], (double)points[i * INPUTS + 1], answer);
        right += answer == classes[i];
    }
    return right == POINTS;
}

static lemon_status learn(lemon_tape *tape, int *learned) {
    float w[WEIGHTS], grad[WEIGHTS];
    lemon_var scores, loss;
    lemon_rng rng;
    lemon_status status;
    int i;
    lemon_rng_seed(&rng, 1);
    for (i = 0; i < WEIGHTS; i++) w[i] = 0.5f * (float)lemon_rng_normal(&rng);
    record(tape, w, grad, &scores, &loss);
    status = lemon_tape_plan(tape, 1, NULL);                   /* lays out all memory; the first error shows here */
    for (i = 0; i < STEPS && !status; i++) {
        status = descend(tape, w, grad, 0.5f);
        if (!status && (i % 50 == 0 || i == STEPS - 1))
            printf("step %3d  loss %.4f\n", i + 1, (double)lemon_tape_value(tape, loss)[0]);
    }
    if (!status) *learned = show(lemon_tape_value(tape, scores));
    return status;
}

int main(void) {
    lemon_ctx *ctx = lemon_open(NULL);
    lemon_tape *tape = NULL;
    lemon_status status;
    int learned = 0;
    if (ctx == NULL) return fputs("lemon: error: could not begin\n", stderr), 1;
    status = lemon_tape_open(ctx, &tape);
    if (!status) status = learn(tape, &learned);
    if (status) fprintf(stderr, "lemon: error: %s\n", lemon_error(ctx));
    lemon_tape_close(tape);
    lemon_close(ctx);
    return !learned;
}
