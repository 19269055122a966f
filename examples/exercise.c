/*  exercise.c - grades the exercises: exercise.sh compiles it with a copy of lemon.h in which a reader wrote one function anew.

        exercise N          says what is right or wrong of exercise N; the exit status is 0 when all is right

    Each function here compares with something that is computed in another way.  */
#ifdef EXERCISE_SWITCH
static int exercise_blank;              /* for the tests: the function with this number does nothing */
#endif
#define LEMON_IMPLEMENTATION
#include "lemon.h"

static int wrong;
static lemon_ctx *ctx;

static void expect(int right, const char *what) {
    if (!right && wrong++ < 3) printf("not yet: %s\n", what);
}

static int near(double a, double b) { return fabs(a - b) <= 1e-4 * (1 + fabs(b)); }

static void grade_argmax(void) {
    static const float x[] = {-3, -1, -2, -1}, y[] = {-5, 0, 7};
    expect(lemon__argmax(x, 4) == 1, "of -3 -1 -2 -1 it is the second, index 1");
    expect(lemon__argmax(y, 3) == 2, "the last one counts as well");
    expect(lemon__argmax(y, 1) == 0, "a single one is the largest");
}

static void grade_bf16(void) {
    static const float x[] = {1.0f, -2.5f, 3.140625f, 1.00390625f, 1.01171875f, 1e38f, 3.4e38f};
    static const unsigned bits[] = {0x3f80, 0xc020, 0x4049, 0x3f80, 0x3f82, 0x7e96, 0x7f80};
    int i;
    for (i = 0; i < 7; i++) expect(lemon_bf16_from_f32(x[i]) == bits[i], "1 is 3f80, -2.5 c020, 1.00390625 (a tie) 3f80 and "
                                                                      "1.01171875 3f82, the largest floats infinite");
    expect((lemon_bf16_from_f32((float)NAN) & 0x7fff) > 0x7f80, "NaN stays NaN");
}

static void grade_normal(void) {
    double sum = 0, square = 0, fourth = 0;
    lemon_rng rng;
    int i;
    lemon_rng_seed(&rng, 1);
    for (i = 0; i < 50000; i++) {
        double x = lemon_rng_normal(&rng);
        sum += x / 50000, square += x * x / 50000, fourth += x * x * x * x / 50000;
    }
    expect(fabs(sum) < 0.03, "the mean is 0");
    expect(fabs(square - 1) < 0.05, "the variance is 1");
    expect(fabs(fourth - 3) < 0.3, "the mean of x^4 is 3: other distributions have another");
}

static void grade_q4(void) {
    uint8_t block[18] = {0, 0x38};                       /* the scale is 0.5 */
    float out[33];
    int i;
    for (i = 0; i < 16; i++) block[2 + i] = (uint8_t)(i | (15 - i) << 4);
    out[20] = 99;
    lemon__q4_decode(block, out, 20);
    expect(out[20] == 99, "no more than n numbers are written");
    for (i = 0; i < 20; i++) expect(out[i] == 0.5f * (float)((i < 16 ? i : 31 - i) - 8), "low half-bytes are numbers 0 to 15, 8 too large");
}

static void grade_rate(void) {
    lemon_train_options o;
    lemon_train_defaults(&o);
    o.lr = 1, o.min_lr = 0.1, o.warmup = 10, o.steps = 110;
    expect(near(lemon__rate(&o, 1), 0.1) && near(lemon__rate(&o, 10), 1), "a tenth at the first of ten steps of warm-up, all at the last");
    expect(near(lemon__rate(&o, 60), 0.55) && near(lemon__rate(&o, 110), 0.1), "halfway down at half of the rest, min_lr at the end");
    expect(near(lemon__rate(&o, 35), 0.1 + 0.45 * (1 + cos(0.25 * acos(-1.0)))), "a cosine");
    o.schedule = LEMON_CONSTANT;
    expect(near(lemon__rate(&o, 110), 1), "constant is constant");
}

enum { ROWS = 5, COLS = 23 };
static float xs[ROWS * COLS], gains[COLS], dxs[ROWS * COLS], dgains[COLS];

/*  A tape whose loss depends on the norm of xs; gradients too if `back`. */
static double normed_loss(int back, float *values) {
    static float output[3 * COLS];
    static const int32_t targets[ROWS] = {0, 2, 1, 1, 0};
    const lemon_loss_options options = {0.0f, 1.0f, 1.0f};
    lemon_tape *tape = NULL;
    lemon_var x, y, loss;
    double value = 0;
    int i;
    for (i = 0; i < 3 * COLS; i++) output[i] = (float)sin(i * i);
    memset(dxs, 0, sizeof dxs);
    if (lemon_tape_open(ctx, &tape)) return 0;
    x = lemon_tape_leaf(tape, xs, dxs, ROWS, COLS);
    y = lemon_tape_rms_norm(tape, x, lemon_tape_leaf(tape, gains, dgains, 1, COLS), 1e-5f);
    y = lemon_tape_add(tape, y, x);                      /* x is used twice: gradients add up */
    lemon_tape_keep(tape, y);
    loss = lemon_tape_loss(tape, y, lemon_tape_leaf(tape, output, NULL, 3, COLS), targets, -1, -1, &options);
    if (!lemon_tape_plan(tape, 1, NULL) && !lemon_tape_forward(tape) && !lemon_tape_backward(tape)) {
        value = (double)lemon_tape_value(tape, loss)[0];
        if (values) memcpy(values, lemon_tape_value(tape, y), sizeof xs);
    }
    (void)back;
    lemon_tape_close(tape);
    return value;
}

static void make_rows(void) {
    int i;
    for (i = 0; i < ROWS * COLS; i++) xs[i] = (float)cos(i * i);
    for (i = 0; i < COLS; i++) gains[i] = 1 + 0.5f * (float)sin(i);
}

static void grade_norm(void) {
    float y[ROWS * COLS];
    int r, i;
    make_rows();
    memset(y, 0, sizeof y);
    normed_loss(0, y);
    for (r = 0; r < ROWS; r++) {
        double square = 0;
        for (i = 0; i < COLS; i++) square += (double)xs[r * COLS + i] * (double)xs[r * COLS + i] / COLS;
        for (i = 0; i < COLS; i++)
            expect(near((double)y[r * COLS + i], (double)xs[r * COLS + i] * (1 + (double)gains[i] / sqrt(square + 1e-5))), "y = gain * x / sqrt(mean(x^2) + eps)");
    }
}

static void grade_candidates(void) {
    static const float p[] = {0.1f, 0.4f, 0.3f, 0.2f};
    static const int32_t ranked[] = {1, 2, 3, 0};
    lemon_sampling s;
    lemon_sampling_defaults(&s);
    s.top_p = 1;
    expect(lemon__candidates(p, ranked, 4, &s, 1.0) == 4, "without limits all stay");
    s.top_k = 3;
    expect(lemon__candidates(p, ranked, 4, &s, 1.0) == 3, "top_k 3 leaves three");
    s.top_p = 0.6f;
    expect(lemon__candidates(p, ranked, 4, &s, 1.0) == 2, "then top_p 0.6 leaves those that reach 0.6 of what is left: two");
    s.top_k = 0, s.top_p = 0;
    expect(lemon__candidates(p, ranked, 4, &s, 1.0) == 1, "one always stays");
    s.top_p = 1, s.min_p = 0.6f;
    expect(lemon__candidates(p, ranked, 4, &s, 1.0) == 2, "min_p 0.6 leaves those with 0.6 times the best one's probability");
}

static void grade_gradient(void) {
    float slope[ROWS * COLS];
    int i;
    make_rows();
    normed_loss(1, NULL);
    memcpy(slope, dxs, sizeof slope);
    for (i = 0; i < ROWS * COLS; i += 7) {
        float x = xs[i];
        double up, down;
        xs[i] = x + 1e-2f, up = normed_loss(0, NULL);
        xs[i] = x - 1e-2f, down = normed_loss(0, NULL);
        xs[i] = x;
        expect(up != 0 && fabs((up - down) / 2e-2 - (double)slope[i]) < 2e-3, "the gradient is how the loss changes when a number does");
    }
}

/*  A student of one layer from a teacher of two, by a dense read map and a sparse write map, against four loops. */
static void grade_fusion(void) {
    lemon_config tc, sc;
    lemon_model *teacher = NULL, *student = NULL;
    lemon_operators *ops = NULL;
    lemon_map *map, *in = NULL, *out = NULL;
    int64_t place, i, k;
    lemon_config_defaults(&tc);
    tc.d_model = 6, tc.n_layers = 2, tc.n_heads = tc.kv_heads = 1, tc.head_dim = 4, tc.d_ffn = 5, tc.vocab_size = 7, tc.max_seq = 8;
    sc = tc, sc.d_model = 4, sc.n_layers = 1, sc.d_ffn = 3;
    if (lemon_model_create(ctx, &tc, &teacher) || lemon_model_init(ctx, teacher, 1) || lemon_operators_create(ctx, &tc, &sc, 2, &ops)) return;
    for (place = 0; place <= LEMON_AT_READ_NEURONS; place++) {
        lemon_operators_set_map(ctx, ops, (lemon_place)place, 0, 0, place == LEMON_AT_READ_FFN ? tc.d_model : 2, &map);
        for (i = 0; i < map->student * map->field; i++) {
            map->value[i] = (float)sin((double)(i + place));
            if (map->index) map->index[i] = (int32_t)(i % map->teacher);
        }
        if (place == LEMON_AT_READ_FFN) in = map;
        if (place == LEMON_AT_FFN) out = map;
    }
    ops->layer[0] = 1, ops->layer_weight[0] = 0.7f;             /* slot 1 stays empty */
    expect(lemon_operators_apply(ctx, ops, teacher, 1, &student) == LEMON_OK, "it succeeds");
    for (i = 0; student && i < 3 * 4; i++) {
        const float *w = (const float *)lemon_model_param(teacher, LEMON_W_UP, 1)->data;
        double sum = 0;
        int64_t f;
        for (f = 0; f < 2; f++) for (k = 0; k < 6; k++)
            sum += 0.7 * (double)out->value[i / 4 * 2 + f] * (double)w[out->index[i / 4 * 2 + f] * 6 + k] * (double)in->value[i % 4 * 6 + k];
        expect(near((double)((float *)lemon_model_param(student, LEMON_W_UP, 0)->data)[i], sum), "weight * Out * W * In^T");
    }
    lemon_model_free(ctx, student), lemon_model_free(ctx, teacher), lemon_operators_free(ctx, ops);
}

static void (*const grades[])(void) = {grade_argmax, grade_bf16, grade_normal, grade_q4, grade_rate, grade_norm, grade_candidates,
                                       grade_gradient, grade_fusion, grade_gradient};

int main(int argc, char **argv) {
    int n = argc > 1 ? atoi(argv[1]) : 0;
    if (n < 1 || n > 10) return fputs("usage: exercise 1...10\n", stderr), 2;
#ifdef EXERCISE_SWITCH
    exercise_blank = argc > 2 ? n : 0;
#endif
    ctx = lemon_open(NULL);
    if (ctx == NULL) return fputs("lemon: error: could not begin\n", stderr), 1;
    grades[n - 1]();
    lemon_close(ctx);
    printf("exercise %d: %s\n", n, wrong ? "not yet" : "all is right");
    return wrong != 0;
}
