/*  00_whole_idea.c - all of lemon.h in one sitting: a transformer, its gradients, and its fusion, with nothing hidden.

        make -C examples programs && examples/build/00_whole_idea

    A teacher of 4 layers learns a toy language: "ann has a red cup . bob has a blue hat . the hat is blue ."  To guess the
    last colour it must look back to the thing and to what stood before it.  Students of 2 layers, half as wide, are made of
    its weights, and learn on beside one that begins at random numbers.  Lemon.h does so fast and for real models, which turn
    queries and keys instead of adding vectors for positions, and have two matrices for UP.  T tokens; D numbers that a token
    carries through the layers (its stream), A in attention, F neurons, V words; matrices are [out, in], y = x * W^T.  */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { T = 16, V = 17, A = 16, MOST_D = 32, MOST_F = 64, MOST_LAYERS = 4, MOST_WEIGHTS = 1 << 15, BATCH = 16 };

/* ---- the model is one table: a role is a matrix between two joints; at the joints, matrices meet ---- */

enum { WORDS, POSITIONS, STREAM, HEAD, NEURONS, JOINTS };
enum { EMBED, POSITION, OUTPUT, QUERY, KEY, VALUE, HEAD_OUT, UP, DOWN, ROLES };        /* from QUERY on one per layer */
static const struct { int out, in, normed; } table[ROLES] = {    /* normed: what it reads comes through a norm */
    {WORDS, STREAM, 0}, {POSITIONS, STREAM, 0}, {WORDS, STREAM, 1}, {HEAD, STREAM, 1}, {HEAD, STREAM, 1},
    {HEAD, STREAM, 1}, {STREAM, HEAD, 0}, {NEURONS, STREAM, 1}, {STREAM, NEURONS, 0}};

typedef struct model {
    int size[JOINTS], layers, count, at[MOST_LAYERS][ROLES];     /* where each matrix begins */
    float w[MOST_WEIGHTS], grad[MOST_WEIGHTS], mean[MOST_WEIGHTS], square[MOST_WEIGHTS];     /* the last two are Adam's */
} model;

static float noise(void) { return (float)rand() / (float)RAND_MAX * 2 - 1; }

static void make(model *m, int d, int f, int layers) {
    memset(m, 0, sizeof *m);
    m->size[WORDS] = V, m->size[POSITIONS] = T, m->size[STREAM] = d, m->size[HEAD] = A, m->size[NEURONS] = f, m->layers = layers;
    for (int l = 0; l < layers; l++) for (int r = l == 0 ? EMBED : QUERY; r < ROLES; r++) {
        m->at[l][r] = m->count;
        m->count += m->size[table[r].out] * m->size[table[r].in];
    }
    for (int i = 0; i < m->count; i++) m->w[i] = noise() * 0.3f;
}

/* ---- the parts, each forward and backward.  Backward gets dy = dLoss/dy and adds to dx and dw (the chain rule) ---- */

static float dot(const float *a, const float *b, int n) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static void add(float *to, float times, const float *x, int n) { for (int i = 0; i < n; i++) to[i] += times * x[i]; }

static void matmul(float *y, const float *x, const float *w, int out, int in) {
    for (int i = 0; i < T * out; i++) y[i] += dot(x + i / out * in, w + i % out * in, in);
}

static void matmul_back(float *dx, float *dw, const float *dy, const float *x, const float *w, int out, int in) {
    for (int i = 0; i < T * out; i++)
        add(dx + i / out * in, dy[i], w + i % out * in, in), add(dw + i % out * in, dy[i], x + i / out * in, in);
}

/*  y = x / r with r = sqrt(mean(x^2)), so that only the stream's direction counts; dx = (dy - y * mean(dy * y)) / r. */
static float rms(const float *x, int d) { return sqrtf(dot(x, x, d) / (float)d + 1e-5f); }

static void norm(float *y, const float *x, int d) {
    for (int i = 0; i < T * d; i++) y[i] = x[i] / rms(x + i / d * d, d);
}

static void norm_back(float *dx, const float *dy, const float *x, int d) {
    for (int t = 0; t < T; t++, dx += d, dy += d, x += d) {
        float r = rms(x, d), along = dot(dy, x, d) / r / (float)d;
        for (int i = 0; i < d; i++) dx[i] += (dy[i] - x[i] / r * along) / r;
    }
}

/*  What a layer computes, kept for the way back; and the gradients of all that. */
typedef struct layer {
    float x[T * MOST_D], y[T * MOST_D], q[T * A], k[T * A], v[T * A], p[T * T], z[T * A];
    float x2[T * MOST_D], y2[T * MOST_D], up[T * MOST_F], h[T * MOST_F];
} layer;
static layer kept[MOST_LAYERS + 1];
static const layer zero;

/*  A token takes a mean of the values of all up to itself, its weights p = softmax(q . k / sqrt(A)): e^score / sum e^score. */
static void attention(layer *f) {
    for (int t = 0; t < T; t++) {
        float sum = 0, *p = f->p + t * T;
        for (int s = 0; s <= t; s++) sum += p[s] = expf(dot(f->q + t * A, f->k + s * A, A) / 4);     /* 4 = sqrt(A) */
        for (int s = 0; s <= t; s++) add(f->z + t * A, p[s] /= sum, f->v + s * A, A);
    }
}

static void attention_back(layer *g, const layer *f) {
    for (int t = 0; t < T; t++) for (int s = 0; s <= t; s++) {
        const float *dz = g->z + t * A, *v = f->v + s * A;
        float p = f->p[t * T + s], dscore = p * (dot(dz, v, A) - dot(dz, f->z + t * A, A)) / 4;
        add(g->v + s * A, p, dz, A), add(g->q + t * A, dscore, f->k + s * A, A), add(g->k + s * A, dscore, f->q + t * A, A);
    }
}

#define FORWARD(role, y, x) matmul(y, x, m->w + m->at[l][role], m->size[table[role].out], m->size[table[role].in])
#define BACKWARD(role, dx, dy, x) matmul_back(dx, m->grad + m->at[l][role], dy, x, m->w + m->at[l][role], \
                                              m->size[table[role].out], m->size[table[role].in])

static void layer_forward(const model *m, int l, layer *s) {
    int d = m->size[STREAM];
    norm(s->y, s->x, d);
    FORWARD(QUERY, s->q, s->y), FORWARD(KEY, s->k, s->y), FORWARD(VALUE, s->v, s->y);
    attention(s);
    memcpy(s->x2, s->x, sizeof s->x);
    FORWARD(HEAD_OUT, s->x2, s->z);                /* what a part finds out is added to the stream */
    norm(s->y2, s->x2, d);
    FORWARD(UP, s->up, s->y2);
    for (int i = 0; i < T * m->size[NEURONS]; i++) s->h[i] = s->up[i] > 0 ? s->up[i] : 0;
    memcpy(s[1].x, s->x2, sizeof s->x);
    FORWARD(DOWN, s[1].x, s->h);
}

/*  dx: dLoss/dstream, behind the layer when it comes, before it when it goes. */
static void layer_backward(model *m, int l, const layer *s, float *dx) {
    layer g = zero;
    BACKWARD(DOWN, g.h, dx, s->h);
    for (int i = 0; i < T * m->size[NEURONS]; i++) g.up[i] = s->up[i] > 0 ? g.h[i] : 0;
    BACKWARD(UP, g.y2, g.up, s->y2);
    norm_back(dx, g.y2, s->x2, m->size[STREAM]);
    BACKWARD(HEAD_OUT, g.z, dx, s->z);
    attention_back(&g, s);
    BACKWARD(QUERY, g.y, g.q, s->y), BACKWARD(KEY, g.y, g.k, s->y), BACKWARD(VALUE, g.y, g.v, s->y);
    norm_back(dx, g.y, s->x, m->size[STREAM]);
}

/*  The mean of -log(probability of the next word) over a sentence [T + 1]; its gradient is added to m->grad. */
static double run(model *m, const int *words) {
    static float dy[T * MOST_D], dx[T * MOST_D], scores[T * V];
    layer *top = &kept[m->layers];
    int d = m->size[STREAM], l;
    double loss = 0;
    memset(kept, 0, sizeof kept), memset(dy, 0, sizeof dy), memset(dx, 0, sizeof dx), memset(scores, 0, sizeof scores);
    for (int i = 0; i < T * d; i++) kept[0].x[i] = m->w[words[i / d] * d + i % d] + m->w[m->at[0][POSITION] + i];
    for (l = 0; l < m->layers; l++) layer_forward(m, l, &kept[l]);
    norm(top->y, top->x, d);
    l = 0, FORWARD(OUTPUT, scores, top->y);
    for (int t = 0; t < T; t++) {
        float sum = 0, *p = scores + t * V;
        for (int i = 0; i < V; i++) sum += p[i] = expf(p[i]);
        loss -= log((double)(p[words[t + 1]] / sum)) / T;
        for (int i = 0; i < V; i++) p[i] = (p[i] / sum - (float)(i == words[t + 1])) / (T * BATCH);     /* dLoss/dscore */
    }
    BACKWARD(OUTPUT, dy, scores, top->y);
    norm_back(dx, dy, top->x, d);
    for (l = m->layers - 1; l >= 0; l--) layer_backward(m, l, &kept[l], dx);
    for (int i = 0; i < T * d; i++) m->grad[words[i / d] * d + i % d] += dx[i], m->grad[m->at[0][POSITION] + i] += dx[i];
    return loss;
}

/*  Words: 0 to 3 names, 4 to 7 colours, 8 to 11 things, then has, a, full stop, the, is. */
static void sentence(int *w) {
    int c1 = 4 + rand() % 4, c2 = 4 + rand() % 4, t1 = 8 + rand() % 4, t2 = 8 + (t1 - 7 + rand() % 3) % 4, one = rand() % 2;
    int all[T + 1] = {rand() % 4, 12, 13, c1, t1, 14, rand() % 4, 12, 13, c2, t2, 14, 15, one ? t1 : t2, 16, one ? c1 : c2, 14};
    memcpy(w, all, sizeof all);
}

/*  Each weight moves against the mean of its gradients, in units of their usual size (Adam).  The mean of all losses. */
static double train(model *m, int steps, float rate) {
    int words[T + 1];
    double loss = 0;
    for (int step = 0; step < steps; step++) {
        memset(m->grad, 0, sizeof m->grad);
        for (int i = 0; i < BATCH; i++) sentence(words), loss += run(m, words) / BATCH / steps;
        for (int i = 0; i < m->count; i++) {
            m->mean[i] += 0.1f * (m->grad[i] - m->mean[i]);
            m->square[i] += 0.05f * (m->grad[i] * m->grad[i] - m->square[i]);
            m->w[i] -= rate * m->mean[i] / (sqrtf(m->square[i]) + 1e-8f);
        }
    }
    return loss;
}

/* ---- fusion: at each joint a map from the teacher's space to the student's; student matrix = Out * W * In^T ---- */
static float map[JOINTS][MOST_F * MOST_F];       /* [student's size, teacher's size] */

static void pick(int joint, int to, int from, int stride) {        /* a selection: one 1 in each row */
    memset(map[joint], 0, sizeof map[joint]);
    for (int i = 0; i < to; i++) map[joint][i * from + i * stride] = 1;
}

/*  The directions in which normalised streams vary most (principal components), by power iteration: multiply by the
    covariance, make the rows perpendicular again, repeat. */
static void principal(model *m, int to) {
    static float cov[MOST_D * MOST_D];
    int words[T + 1], d = m->size[STREAM];
    float *p = map[STREAM], next[MOST_D];
    for (int n = 0; n < 50; n++) {
        sentence(words), run(m, words);
        for (int l = 0; l < m->layers; l++) for (int i = 0; i < T * d; i++)
            for (int j = 0; j < d; j++) cov[i % d * d + j] += kept[l].y[i] * kept[l].y[i / d * d + j];
    }
    for (int i = 0; i < to * d; i++) p[i] = noise();
    for (int n = 0; n < 100; n++) for (int a = 0; a < to; a++) {
        for (int i = 0; i < d; i++) next[i] = dot(cov + i * d, p + a * d, d);
        for (int b = 0; b < a; b++) add(next, -dot(next, p + b * d, d), p + b * d, d);
        for (int i = 0; i < d; i++) p[a * d + i] = next[i] / rms(next, d) / sqrtf((float)d);
    }
}

/*  One loop over the table.  A narrower stream is shorter by sqrt(to / from) at the same root mean square: reads make up. */
static void apply(const model *t, model *s, const int *from) {
    for (int l = 0; l < s->layers; l++) for (int r = l == 0 ? EMBED : QUERY; r < ROLES; r++) {
        int rows = t->size[table[r].out], cols = t->size[table[r].in], width = s->size[table[r].in];
        const float *out = map[table[r].out], *in = map[table[r].in], *w = t->w + t->at[r < QUERY ? 0 : from[l]][r];
        float *to = s->w + s->at[l][r], scale = table[r].normed ? sqrtf((float)cols / (float)width) : 1;
        memset(to, 0, sizeof(float) * (size_t)(s->size[table[r].out] * width));
        for (int a = 0; a < s->size[table[r].out]; a++) for (int i = 0; i < rows; i++)
            for (int b = 0; b < width; b++) to[a * width + b] += scale * out[a * rows + i] * dot(w + i * cols, in + b * cols, cols);
    }
}

/*  The gradient of some weights against what the loss really does when they change a little. */
static double wrong(model *m) {
    int words[T + 1];
    double worst = 0, up, down;
    memset(m->grad, 0, sizeof m->grad), sentence(words);
    for (int i = 0; i < m->count; i += m->count / 40) {
        float w = m->w[i];
        m->w[i] = w + 1e-3f, up = run(m, words), m->w[i] = w - 1e-3f, down = run(m, words);
        m->w[i] = w, m->grad[i] = 0, run(m, words);
        worst = fmax(worst, fabs((up - down) / 2e-3 - (double)(m->grad[i] * BATCH)));
    }
    return worst;
}

int main(void) {
    static const char *const starts[] = {"random numbers", "every second channel", "principal components"};
    static const int layers[] = {0, 3};          /* the layer operator: the ends, which are unlike all others */
    static model teacher, student;
    double error, loss = 0, random = 0;
    make(&teacher, 32, 64, 4);
    printf("gradients: wrong by at most %.0e\nteacher, %d weights: losses", error = wrong(&teacher), teacher.count);
    for (int step = 0; step < 6; step++) printf("  %.3f", train(&teacher, 100, 3e-3f));
    for (int start = 0; start < 3; start++) {
        make(&student, 16, 32, 2);
        for (int j = 0; j < JOINTS; j++) pick(j, student.size[j], teacher.size[j], teacher.size[j] / student.size[j]);
        if (start == 2) principal(&teacher, 16);
        if (start > 0) apply(&teacher, &student, layers);
        printf("\n%-20s, %d:", starts[start], student.count);
        for (int step = 0; step < 6; step++) printf("  %.3f", loss = train(&student, 25, 3e-3f));
        if (start == 0) random = loss;
    }
    puts("\nEach figure is the mean loss of 25 steps (of the teacher: 100); no model can do better than 0.458.");
    return error > 1e-3 || loss > random;
}
