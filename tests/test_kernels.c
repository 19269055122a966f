/*  Chapter 5: exp and its loops, each kernel's forward against naive loops in double, the AVX2 clones against their plain
    twins bit by bit, and weights of every storage type.  LEMON_ISA chooses the kernels. */
#include "check.h"

/* ---- exp: vectors of the ISA at hand, and plain C ---- */

/*  e^x of 32 numbers, by whole vectors or one by one. */
static void exps(const lemon__loops *loops, float *x) { loops->exp_sum(x, 32, 1.0f, 0.0f); }

static void test_exp(const lemon__loops *loops, const char *which) {
    uint32_t bits, step = light() ? 99991 : 997;
    double worst = 0, at = 0;
    float x[32], y[32];
    char name[112];
    int i;
    for (bits = 0; bits < 0x42ae0000u - 16 * step; bits += 16 * step) {       /* 0 ... 87, both signs */
        for (i = 0; i < 32; i++) y[i] = x[i] = lemon__float(bits + (uint32_t)(i / 2) * step) * (i % 2 ? -1.0f : 1.0f);
        exps(loops, y);
        for (i = 0; i < 32; i++) {
            double want = exp((double)x[i]), error = fabs((double)y[i] - want) / want;
            if (error > worst) { worst = error; at = (double)x[i]; }
        }
    }
    detail("relative error %.3g at %.9g", worst, at);
    snprintf(name, sizeof name, "exp is right to 2e-7 on -87 ... 87, %s", which);
    check(worst < 2e-7, name);
    for (i = 0; i < 32; i++) y[i] = 0;
    y[0] = 1000.0f, y[1] = 87.0f, y[2] = -INFINITY, y[3] = -87.0f, y[4] = INFINITY, y[5] = (float)NAN, y[6] = -(float)NAN;
    exps(loops, y);
    check(!(y[0] > y[1]) && !(y[2] > y[3]) && y[2] >= 0 && isfinite(y[4]), "beyond, it stays at the ends");
    check(isnan(y[5]) && isnan(y[6]), "NaN stays NaN");
    check(!(y[7] < 1) && !(y[7] > 1), "exp of 0 is 1");
}

/* ---- a bench of random buffers, filled anew for each test ---- */

enum { ROOM = 1 << 16 };
static float in[5][ROOM], out[ROOM], extra[ROOM];
static lemon_rng rng;

static void refill(void) {
    int i;
    for (i = 0; i < 5; i++) fill_normal(&rng, in[i], ROOM, 1.0);
    fill_normal(&rng, extra, ROOM, 1.0);
    memset(out, 0, sizeof out);
}

static lemon__op op_of(int64_t rows, int64_t cols) {
    lemon__op op;
    int i;
    memset(&op, 0, sizeof op);
    for (i = 0; i < 3; i++) op.in[i].data = in[i];
    op.rows = rows;
    op.cols = cols;
    op.y = out;
    op.dy = in[4];
    op.eps = 1e-5f;
    return op;
}

/*  The largest |got - want|, relative where want is above 1; leaves a detail.  Infinite for NaN. */
static double worst_of(const float *got, const double *want, int64_t n) {
    double worst = 0;
    int64_t i;
    for (i = 0; i < n; i++) {
        double scale = fabs(want[i]) > 1 ? fabs(want[i]) : 1, error = fabs((double)got[i] - want[i]) / scale;
        if (error <= worst) continue;
        worst = isnan(error) ? (double)INFINITY : error;
        detail("[%d] is %.9g, expected %.9g", (int)i, (double)got[i], want[i]);
    }
    return worst;
}

/* ---- forward against double ---- */

static void test_norm(lemon_ctx *ctx, int64_t rows, int64_t cols) {
    double *want = (double *)malloc((size_t)(rows * cols) * sizeof *want);
    lemon__op op = op_of(rows, cols);
    int64_t r, c;
    char name[80];
    refill();
    op.eps = 0.25f;                                     /* large, so that leaving it out would show */
    for (r = 0; r < rows; r++) {
        double sum = 0;
        for (c = 0; c < cols; c++) sum += (double)in[0][r * cols + c] * (double)in[0][r * cols + c];
        for (c = 0; c < cols; c++)
            want[r * cols + c] = (double)in[0][r * cols + c] / sqrt(sum / (double)cols + 0.25) * (double)in[1][c];
    }
    lemon__norm_forward(ctx, &op);
    snprintf(name, sizeof name, "rms_norm [%d, %d] is the naive loop", (int)rows, (int)cols);
    check(worst_of(out, want, rows * cols) < 1e-5, name);
    free(want);
}

static void test_rope(lemon_ctx *ctx, int64_t heads, int64_t head_dim, int64_t seq, int64_t pos, double theta) {
    int64_t rows = seq * 2, cols = heads * head_dim, r, h, i;
    double *want = (double *)malloc((size_t)(rows * cols) * sizeof *want);
    float *angles = (float *)malloc((size_t)((pos + seq) * head_dim) * sizeof *angles);
    lemon__op op = op_of(rows, cols);
    lemon_config c;
    char name[80];
    lemon_config_defaults(&c);
    c.head_dim = (int32_t)head_dim;
    c.rope_theta = (float)theta;
    refill();
    lemon__rope_angles(angles, pos + seq, &c);
    op.angles = angles;
    op.head_dim = head_dim;
    op.seq = seq;
    op.pos = pos;
    for (r = 0; r < rows; r++)
        for (h = 0; h < heads; h++)
            for (i = 0; i < head_dim; i += 2) {
                double turn = (double)(pos + r % seq) * pow(theta, -(double)i / (double)head_dim);
                double x = (double)in[0][r * cols + h * head_dim + i],
                       y = (double)in[0][r * cols + h * head_dim + i + 1];
                want[r * cols + h * head_dim + i] = x * cos(turn) - y * sin(turn);
                want[r * cols + h * head_dim + i + 1] = x * sin(turn) + y * cos(turn);
            }
    lemon__rope_forward(ctx, &op);
    snprintf(name, sizeof name, "rope of %d heads of %d from position %d is the naive turn", (int)heads, (int)head_dim,
             (int)pos);
    check(worst_of(out, want, rows * cols) < 1e-5, name);
    free(want);
    free(angles);
}

typedef struct attention_case { int64_t batch, seq, pos, heads, kv, dim, window; } attention_case;

/*  Attention of one query, by the definition. */
static void naive_attend(const attention_case *a, const float *q, const float *k, const float *v, int64_t keys,
                         double *y) {
    int64_t width = a->kv * a->dim, j, c;
    double *p = (double *)malloc((size_t)keys * sizeof *p), sum = 0, top = -1e300;
    for (j = 0; j < keys; j++) {
        p[j] = 0;
        for (c = 0; c < a->dim; c++) p[j] += (double)q[c] * (double)k[j * width + c] / sqrt((double)a->dim);
        top = p[j] > top ? p[j] : top;
    }
    for (j = 0; j < keys; j++) sum += p[j] = exp(p[j] - top);
    for (c = 0; c < a->dim; c++)
        for (j = 0, y[c] = 0; j < keys; j++) y[c] += p[j] / sum * (double)v[j * width + c];
    free(p);
}

static void test_attention(lemon_ctx *ctx, attention_case a) {
    int64_t rows = a.batch * a.seq, cols = a.heads * a.dim, kv_rows = a.pos + a.seq + 3, width = a.kv * a.dim, r, h;
    double *want = (double *)malloc((size_t)(rows * cols) * sizeof *want);
    float *room;
    lemon__op op = op_of(rows, cols);
    char name[112];
    refill();
    op.n_heads = a.heads;
    op.kv_heads = a.kv;
    op.head_dim = a.dim;
    op.seq = a.seq;
    op.pos = a.pos;
    op.kv_rows = kv_rows;
    op.window = a.window;
    op.scratch_each = lemon__attention_scratch(&op, 0);
    op.scratch = room = (float *)malloc((size_t)(op.scratch_each * ctx->threads) * sizeof *room);
    for (r = 0; r < rows; r++)
        for (h = 0; h < a.heads; h++) {
            int64_t keys = a.pos + r % a.seq + 1, hidden = a.window && keys > a.window ? keys - a.window : 0,
                    at = (r / a.seq * kv_rows + hidden) * width + h / (a.heads / a.kv) * a.dim;
            naive_attend(&a, in[0] + r * cols + h * a.dim, in[1] + at, in[2] + at, keys - hidden,
                         want + r * cols + h * a.dim);
        }
    lemon__attention_forward(ctx, &op);
    snprintf(name, sizeof name, "attention: %d x %d tokens after %d, %d heads on %d of %d, window %d", (int)a.batch,
             (int)a.seq, (int)a.pos, (int)a.heads, (int)a.kv, (int)a.dim, (int)a.window);
    check(worst_of(out, want, rows * cols) < 1e-5, name);
    free(want);
    free(room);
}

/*  What dy of one query makes of the gradients, by the definition; the keys are those from `hidden` on. */
static void naive_back(const attention_case *a, const float *q, const float *k, const float *v, const float *dy, int64_t keys, double *dq,
                       double *dk, double *dv) {
    int64_t width = a->kv * a->dim, j, c;
    double *p = (double *)malloc((size_t)keys * sizeof *p), sum = 0, mean = 0, scale = 1 / sqrt((double)a->dim);
    for (j = 0; j < keys; j++) {
        for (c = 0, p[j] = 0; c < a->dim; c++) p[j] += (double)q[c] * (double)k[j * width + c] * scale;
        sum += p[j] = exp(p[j]);
    }
    for (j = 0; j < keys; j++)
        for (c = 0, p[j] /= sum; c < a->dim; c++) mean += p[j] * (double)dy[c] * (double)v[j * width + c];
    for (j = 0; j < keys; j++) {
        double ds = -mean;
        for (c = 0; c < a->dim; c++) ds += (double)dy[c] * (double)v[j * width + c];
        for (c = 0, ds *= p[j] * scale; c < a->dim; c++) {
            dv[j * width + c] += p[j] * (double)dy[c];
            dq[c] += ds * (double)k[j * width + c];
            dk[j * width + c] += ds * (double)q[c];
        }
    }
    free(p);
}

/*  Few heads with many keys are shared out by tiles and blocks, many heads by heads: the same gradients. */
static void test_attention_back(lemon_ctx *ctx, attention_case a, const char *name) {
    int64_t rows = a.batch * a.seq, cols = a.heads * a.dim, width = a.kv * a.dim, most = rows * cols, r, h, i;
    double *want = (double *)calloc((size_t)(3 * most), sizeof *want), worst = 0;
    float *got = (float *)calloc((size_t)(3 * most), sizeof *got), *aux = (float *)malloc((size_t)(rows * a.heads) * sizeof *aux), *room;
    lemon__op op = op_of(rows, cols);
    refill();
    op.n_heads = a.heads, op.kv_heads = a.kv, op.head_dim = a.dim, op.seq = a.seq, op.kv_rows = a.seq, op.window = a.window;
    op.aux = aux;
    op.scratch_each = lemon__attention_scratch(&op, 1);
    op.scratch = room = (float *)malloc((size_t)(op.scratch_each * ctx->threads) * sizeof *room);
    for (i = 0; i < 3; i++) op.dx[i] = got + i * most;
    lemon__attention_forward(ctx, &op);
    op.gradient = 1;
    lemon__attention_backward(ctx, &op);
    for (r = 0; r < rows; r++)
        for (h = 0; h < a.heads; h++) {
            int64_t keys = r % a.seq + 1, hidden = a.window && keys > a.window ? keys - a.window : 0, q = r * cols + h * a.dim,
                    at = (r / a.seq * a.seq + hidden) * width + h / (a.heads / a.kv) * a.dim;
            naive_back(&a, in[0] + q, in[1] + at, in[2] + at, in[4] + q, keys - hidden, want + q, want + most + at, want + 2 * most + at);
        }
    for (i = 0; i < 3 && worst < 1e-4; i++) worst = worst_of(got + i * most, want + i * most, i ? rows * width : most);
    check(worst < 1e-4, name);
    free(want);
    free(got);
    free(aux);
    free(room);
}

/*  Scores of some hundreds: a softmax that did not take the maximum off would overflow. */
static void test_steep_attention(lemon_ctx *ctx) {
    attention_case a = {1, 40, 0, 1, 1, 4, 0};
    float room[LEMON__ROWS * (40 + 2 * 4) * 4];
    lemon__op op = op_of(40, 4);
    int64_t i, r;
    double worst = 0, y[4];
    refill();
    for (i = 0; i < 160; i++) in[0][i] *= 40.0f;
    op.n_heads = op.kv_heads = 1;
    op.head_dim = 4;
    op.seq = op.kv_rows = 40;
    op.scratch = room;
    op.scratch_each = lemon__attention_scratch(&op, 0);
    lemon__attention_forward(ctx, &op);
    for (r = 0; r < 40; r++) {
        naive_attend(&a, in[0] + r * 4, in[1], in[2], r + 1, y);
        for (i = 0; i < 4; i++)
            worst = fabs(y[i] - (double)out[r * 4 + i]) > worst ? fabs(y[i] - (double)out[r * 4 + i]) : worst;
    }
    detail("off by %g", worst);
    check(worst < 1e-3 && isfinite(out[159]), "attention with scores of hundreds neither overflows nor drifts");
}

static void test_swiglu(lemon_ctx *ctx, int64_t rows, int64_t cols) {
    double *want = (double *)malloc((size_t)(rows * cols) * sizeof *want);
    lemon__op op = op_of(rows, cols);
    int64_t i;
    char name[80];
    refill();
    for (i = 0; i < rows * cols; i++) {
        if (i % 5 == 0) in[0][i] *= 30.0f;
        want[i] = (double)in[0][i] / (1 + exp(-(double)in[0][i])) * (double)in[1][i];
    }
    lemon__swiglu_forward(ctx, &op);
    snprintf(name, sizeof name, "swiglu [%d, %d] is the naive loop", (int)rows, (int)cols);
    check(worst_of(out, want, rows * cols) < 1e-6, name);
    free(want);
}

/* ---- weights of every storage type ---- */

static void test_weights(lemon_ctx *ctx, lemon_dtype dtype, int64_t rows, int64_t n, int64_t k) {
    double *want = (double *)malloc((size_t)(rows * n) * sizeof *want);
    float *row = (float *)malloc((size_t)k * sizeof *row);
    lemon_tensor w;
    char name[80];
    int64_t r, i, c;
    refill();
    w.dtype = dtype;
    w.rows = n;
    w.cols = k;
    w.data = malloc(lemon_tensor_bytes(&w));
    for (i = 0; i < n; i++) {
        fill_normal(&rng, row, k, 1 / sqrt((double)k));
        lemon_row_from_f32(&w, i, row);
        lemon_row_to_f32(&w, i, row);
        for (r = 0; r < rows; r++)
            for (c = 0, want[r * n + i] = 0; c < k; c++) want[r * n + i] += (double)row[c] * (double)in[0][r * k + c];
    }
    lemon__workspaces(ctx);
    lemon__weight_product(ctx, rows, in[0], &w, out);
    snprintf(name, sizeof name, "%s weight [%d, %d] times %d rows", lemon_dtype_name(dtype), (int)n, (int)k, (int)rows);
    check(worst_of(out, want, rows * n) < 1e-5, name);
    free(w.data);
    free(row);
    free(want);
}

/*  The same with x rounded to 8 bits, each 32 numbers by their largest; bits do not depend on threads or rows. */
static void test_int8(lemon_ctx *ctx, lemon_dtype dtype, int64_t rows, int64_t n, int64_t k) {
    double *want = (double *)malloc((size_t)(rows * n) * sizeof *want);
    float *row = (float *)malloc((size_t)k * sizeof *row), *again = (float *)malloc((size_t)(rows * n) * sizeof *again);
    lemon_tensor w;
    char name[80];
    int64_t r, i, c, b;
    const int threads = ctx->threads;
    refill();
    w.dtype = dtype, w.rows = n, w.cols = k;
    w.data = calloc(1, lemon_tensor_bytes(&w));
    memset(want, 0, (size_t)(rows * n) * sizeof *want);
    for (i = 0; i < n; i++) {
        fill_normal(&rng, row, k, 1 / sqrt((double)k));
        lemon_row_from_f32(&w, i, row);
        lemon_row_to_f32(&w, i, row);
        for (r = 0; r < rows; r++)
            for (b = 0; b < k; b += 32) {
                const float *x = in[0] + r * k + b;
                const int64_t last = k - b < 32 ? k - b : 32;
                float top = 0;
                for (c = 0; c < last; c++) top = fmaxf(top, fabsf(x[c]));
                for (c = 0; c < last; c++) want[r * n + i] += (double)row[b + c] * rint((double)(x[c] * (127 / top))) * (double)(top / 127);
            }
    }
    lemon__workspaces(ctx);
    ctx->options.int8 = 1;
    lemon__weight_product(ctx, rows, in[0], &w, out);
    snprintf(name, sizeof name, "%s weight [%d, %d] times %d rows of bytes", lemon_dtype_name(dtype), (int)n, (int)k, (int)rows);
    check(worst_of(out, want, rows * n) < 1e-5, name);
    ctx->threads = 1;
    for (r = 0; r < rows; r++) lemon__weight_product(ctx, 1, in[0] + r * k, &w, again + r * n);
    ctx->threads = threads;
    snprintf(name, sizeof name, "and its bits depend on neither threads nor rows");
    check(memcmp(out, again, (size_t)(rows * n) * sizeof *again) == 0, name);
    in[0][k - 1] = (float)INFINITY;
    lemon__weight_product(ctx, 1, in[0], &w, out);
    for (i = 0, c = 0; i < n; i++) c += out[i] != out[i];
    check(c == n, "what is infinite comes out as NaN, not as a number");
    ctx->options.int8 = 0;
    free(w.data);
    free(row);
    free(again);
    free(want);
}

/*  A task has its own rows, for another thread has the next ones. */
static void test_int8_task(lemon_ctx *ctx) {
    float x[32], y[8];
    uint8_t bytes[8 * LEMON__Q8_BYTES];
    lemon_tensor w;
    lemon__octets_job job;
    int i, mine = 0;
    w.dtype = LEMON_Q8, w.rows = 8, w.cols = 32, w.data = bytes;
    for (i = 0; i < 32; i++) x[i] = 1;
    for (i = 0; i < 8; i++) lemon_row_from_f32(&w, i, x), y[i] = -1;
    job.ctx = ctx, job.w = &w, job.x = x, job.y = y, job.rows = 1, job.each = 4, job.blocks = 1;
    lemon__workspaces(ctx);
    lemon__octets *next = (lemon__octets *)(void *)(lemon__workspace(ctx, 0) + lemon__gemm_floats(ctx->isa)) + job.blocks;
    memset(next, 7, sizeof *next);
    lemon__octets_task(&job, 0, 0);
    for (i = 0; i < 8; i++) mine += i < 4 ? fabsf(y[i] - 32) < 0.1f : y[i] == -1;
    check(mine == 8, "a task of a product of bytes writes its own rows");
    for (i = mine = 0; i < (int)sizeof *next; i++) mine += ((const char *)next)[i] == 7;
    check(mine == (int)sizeof *next, "and rounds no row of x that is not there");
}

/* ---- loops of the ISA against those of plain C, their twins but for the rounding of fused operations ---- */

static double furthest(const float *a, const float *b, int64_t n) {
    double worst = 0;
    int64_t i;
    for (i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]) / (1e-3 + fabs((double)b[i]));
        if (!(d <= worst)) worst = isnan(d) ? 1e9 : d;
    }
    return worst;
}

static void test_loops(const lemon__loops *loops) {
    static const int64_t sizes[] = {1, 2, 7, 15, 16, 17, 31, 32, 33, 100, 1001};
    const lemon__loops *plain = lemon__loops_of(LEMON_ISA_SCALAR);
    static float a[2][2][2048];
    float sums[2][3], columns[2][2][LEMON__ROWS];
    double sum = 0, swiglu = 0, back = 0, distill = 0, softmax = 0;
    size_t w;
    int k;
    for (w = 0; w < sizeof sizes / sizeof sizes[0]; w++) {
        int64_t n = sizes[w], i, done;
        refill();
        for (k = 0; k < 2; k++) {
            const lemon__loops *l = k ? loops : plain;
            float x[1024];
            memcpy(x, in[0], sizeof x);
            sums[k][0] = l->exp_sum(x, n, 0.7f, l->largest(in[0], n));
            memcpy(a[k][0], x, sizeof x);
            for (i = n; i < 1024; i++) if (memcmp(&x[i], &in[0][i], 4)) sum = 1e9;       /* nothing beyond is written */
        }
        sum = fmax(sum, fmax(furthest(a[1][0], a[0][0], n), furthest(sums[1], sums[0], 1)));
        for (k = 0; k < 2; k++) {
            memcpy(a[k][0], in[3], sizeof a[k][0]);
            (k ? loops : plain)->swiglu(in[0], in[1], a[k][0], n);
        }
        swiglu = fmax(swiglu, furthest(a[1][0], a[0][0], 1024));
        for (k = 0; k < 2; k++) {
            memcpy(a[k][0], in[3], sizeof a[k][0]);
            memcpy(a[k][1], in[4], sizeof a[k][1]);
            done = (k ? loops : plain)->swiglu_back(in[0], in[1], in[2], a[k][0], a[k][1], 0, n);
            lemon__swiglu_back_one(in[0], in[1], in[2], a[k][0], a[k][1], done, n);
        }
        back = fmax(back, fmax(furthest(a[1][0], a[0][0], 1024), furthest(a[1][1], a[0][1], 1024)));
        for (k = 0; k < 2; k++) {
            memcpy(a[k][0], in[1], sizeof a[k][0]);
            (k ? loops : plain)->distill_sums(in[0], a[k][0], n, 0.5f, 1.0f, 1.1f, sums[k]);
            (k ? loops : plain)->distill_slope(in[0], a[k][0], n, 0.5f, 2.0f, 3.0f, 0.7f);
        }
        distill = fmax(distill, fmax(furthest(a[1][0], a[0][0], 1024), furthest(sums[1], sums[0], 3)));
        if (n > 33) continue;
        for (k = 0; k < 2; k++) {
            memcpy(a[k][0], in[0], sizeof a[k][0]);
            memcpy(a[k][1], in[1], sizeof a[k][1]);
            (k ? loops : plain)->softmax_back(a[k][0], a[k][1], n, in[2], in[3], 0.3f);
        }
        softmax = fmax(softmax, fmax(furthest(a[1][0], a[0][0], 2048), furthest(a[1][1], a[0][1], 2048)));
        for (k = 0; k < 2; k++) {
            memcpy(a[k][0], in[0], sizeof a[k][0]);
            (k ? loops : plain)->softmax_columns(a[k][0], n, columns[k][0], columns[k][1]);
        }
        softmax = fmax(softmax, fmax(furthest(a[1][0], a[0][0], 2048), furthest(columns[1][0], columns[0][0], 2 * LEMON__ROWS)));
    }
    detail("off by %g", sum);
    check(sum < 2e-6, "largest number and sum of exps: the ISA's loop is plain C's");
    detail("off by %g", swiglu);
    check(swiglu < 2e-6, "swiglu: the ISA's loop is plain C's");
    detail("off by %g", back);
    check(back < 1e-5, "swiglu back: the ISA's loop is plain C's");
    detail("off by %g", distill);
    check(distill < 1e-5, "distillation: the ISA's loops are plain C's");
    detail("off by %g", softmax);
    check(softmax < 1e-5, "softmax of columns and back: the ISA's loops are plain C's");
}

/* ---- clones: the plain one is the AVX2 one's twin ---- */

#if LEMON__X86
static float grad[3][ROOM];
typedef void (*band)(const lemon__op *op, int64_t from, int64_t to);

/*  Runs both on equal buffers; `add` chooses whether gradients are added to. */
static int bands_agree(band plain, band avx2, int64_t rows, int64_t cols, int add) {
    static float first[4][ROOM];
    lemon__op op = op_of(rows, cols);
    int k, i, ok = 1;
    refill();
    op.aux = extra;
    op.index = 1;
    for (k = 0; k < 2; k++) {
        for (i = 0; i < 3; i++) {
            memcpy(grad[i], in[3], sizeof in[3]);
            op.dx[i] = grad[i];
            op.add[i] = add;
        }
        memset(out, 0, sizeof out);
        (k ? avx2 : plain)(&op, 0, rows);
        for (i = 0; i < 4; i++) {
            const float *result = i < 3 ? grad[i] : out;
            if (k == 0) memcpy(first[i], result, sizeof first[i]);
            else ok &= memcmp(first[i], result, sizeof first[i]) == 0;
        }
    }
    return ok;
}

static void test_bands(void) {
    static const struct { const char *name; band plain, avx2;
    } pairs[] = {{"add", lemon__add_rows_plain, lemon__add_rows_avx2},
                 {"add back", lemon__pass_rows_plain, lemon__pass_rows_avx2},
                 {"bias", lemon__bias_rows_plain, lemon__bias_rows_avx2},
                 {"bias back", lemon__bias_back_cols_plain, lemon__bias_back_cols_avx2},
                 {"mix", lemon__mix_rows_plain, lemon__mix_rows_avx2},
                 {"mix back", lemon__mix_back_rows_plain, lemon__mix_back_rows_avx2},
                 {"rms_norm", lemon__norm_rows_plain, lemon__norm_rows_avx2},
                 {"rms_norm back", lemon__norm_back_rows_plain, lemon__norm_back_rows_avx2},
                 {"rms_norm gain back", lemon__norm_back_cols_plain, lemon__norm_back_cols_avx2}};
    static const int64_t shapes[][2] = {{1, 1}, {1, 15}, {3, 16}, {5, 17}, {7, 64}, {33, 172}, {4, 1000}};
    size_t p, s;
    char name[80];
    for (p = 0; p < sizeof pairs / sizeof pairs[0]; p++) {
        int ok = 1, columns = strstr(pairs[p].name, "gain back") || strcmp(pairs[p].name, "bias back") == 0;
        for (s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            int64_t rows = shapes[s][0],
                    cols = columns ? shapes[s][0] : shapes[s][1]; /* those bands are columns */
            ok &= bands_agree(pairs[p].plain, pairs[p].avx2, rows, cols, 0);
            ok &= bands_agree(pairs[p].plain, pairs[p].avx2, rows, cols, 1);
        }
        snprintf(name, sizeof name, "%s: AVX2 has the bits of plain C", pairs[p].name);
        check(ok, name);
    }
}

static void test_gradient_of_loss(void) {
    static const int64_t widths[] = {1, 2, 15, 16, 17, 512, 1001};
    size_t w;
    int same = 1;
    for (w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        int64_t n = widths[w];
        refill();
        memcpy(in[1], in[0], sizeof in[0]);
        lemon__loss_gradient_row_plain(in[0], in[2], n, n - 1, 0.3f, 0.4f);
        lemon__loss_gradient_row_avx2(in[1], in[2], n, n - 1, 0.3f, 0.4f);
        same &= memcmp(in[0], in[1], sizeof in[0]) == 0;
    }
    check(same, "gradient of the loss: AVX2 has the bits of plain C");
}

static void test_clones(void) {
    if (!lemon_isa_supported(LEMON_ISA_AVX2)) {
        skip("AVX2 has the bits of plain C");
        return;
    }
    test_bands();
    test_gradient_of_loss();
}
#else
static void test_clones(void) { skip("AVX2 has the bits of plain C"); }
#endif

static void test_adam(lemon_isa isa) {
    static float state[2][4][1000];
    lemon__adam a;
    lemon__segment s;
    char name[80];
    int k, i;
    refill();
    memset(&a, 0, sizeof a);
    s.at = 3;
    s.count = 990;
    s.param = 0;
    s.decay = 0.1f;
    a.rate = 1e-3f;
    a.scale = 0.7f;
    a.unbias_m = 2.0f;
    a.unbias_v = 5.0f;
    for (k = 0; k < 2; k++) {
        for (i = 0; i < 4; i++) memcpy(state[k][i], in[i], sizeof state[k][i]);
        for (i = 0; i < 1000; i++) state[k][3][i] = fabsf(state[k][3][i]);
        a.w = state[k][0];
        a.g = state[k][1];
        a.m = lemon__view(state[k][2], LEMON_F32, 1, 1000);
        a.v = lemon__view(state[k][3], LEMON_F32, 1, 1000);
        a.isa = k ? isa : LEMON_ISA_SCALAR;
        a.segments = &s;
        lemon__adam_task(&a, 0, 0);
    }
    snprintf(name, sizeof name, "AdamW: %s has the bits of plain C", lemon_isa_name(isa));
    if (isa != LEMON_ISA_SCALAR) check(memcmp(state[0], state[1], sizeof state[0]) == 0, name);
    check(memcmp(state[0][0], in[0], 12) == 0 && memcmp(state[0][0] + 993, in[0] + 993, 28) == 0,
          "AdamW leaves alone what is outside its segment");
}

int main(void) {
    static const attention_case cases[] = {
        {1, 1, 0, 1, 1, 2, 0}, {1, 5, 0, 2, 2, 4, 0}, {2, 31, 0, 4, 2, 8, 0}, {3, 33, 0, 6, 1, 6, 0},
        {1, 100, 0, 3, 3, 16, 0}, {1, 1, 70, 4, 2, 8, 0}, {1, 9, 64, 8, 4, 8, 0}, {1, 40, 17, 2, 1, 22, 0},
        {1, 9, 64, 8, 4, 8, 20}, {1, 100, 0, 4, 2, 8, 33}, {2, 70, 0, 2, 1, 6, 1}, {1, 1, 70, 4, 2, 8, 16},
        {1, 40, 17, 2, 1, 22, 200}};
    static const attention_case few = {2, 150, 0, 2, 1, 6, 0}, window = {1, 150, 0, 3, 3, 4, 40}, many = {1, 150, 0, 16, 16, 4, 0};
    lemon_ctx *ctx = open_ctx(2);
    size_t i;
    int dtype, isa;
    lemon_rng_seed(&rng, 1);
    lemon__workspaces(ctx);
    test_exp(lemon__loops_of(lemon_ctx_isa(NULL)), lemon_isa_name(lemon_ctx_isa(NULL)));
    test_exp(lemon__loops_of(LEMON_ISA_SCALAR), "plain C");
    test_loops(lemon__loops_of(lemon_ctx_isa(NULL)));
    test_norm(ctx, 1, 1);
    test_norm(ctx, 3, 15);
    test_norm(ctx, 70, 64);
    test_norm(ctx, 33, 177);
    test_rope(ctx, 1, 2, 5, 0, 10000);
    test_rope(ctx, 3, 8, 40, 0, 10000);
    test_rope(ctx, 2, 6, 7, 300, 500000);
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) test_attention(ctx, cases[i]);
    test_steep_attention(ctx);
    test_attention_back(ctx, few, "gradients of attention: 2 heads on 1, 150 keys");
    test_attention_back(ctx, window, "gradients of attention: a window over the edge of two blocks");
    test_attention_back(ctx, many, "gradients of attention: 16 heads, 150 keys");
    test_swiglu(ctx, 1, 1);
    test_swiglu(ctx, 40, 172);
    for (dtype = LEMON_F32; dtype <= LEMON_Q4; dtype++) {
        test_weights(ctx, (lemon_dtype)dtype, 1, 70, 64);
        test_weights(ctx, (lemon_dtype)dtype, 5, 131, 100);
        test_weights(ctx, (lemon_dtype)dtype, 3, 130, 1500);
    }
    for (dtype = LEMON_Q8; dtype <= LEMON_Q4; dtype++) {
        test_int8(ctx, (lemon_dtype)dtype, 1, 1, 1);
        test_int8(ctx, (lemon_dtype)dtype, 5, 131, 100);
        test_int8(ctx, (lemon_dtype)dtype, 3, 1402, 1504);
    }
    test_int8_task(ctx);
    for (isa = LEMON_ISA_SCALAR; isa <= LEMON_ISA_WASM; isa++) if (lemon_isa_supported((lemon_isa)isa)) test_adam((lemon_isa)isa);
    test_clones();
    lemon_close(ctx);
    check(heap.live == 0, "nothing is left allocated");
    return check_done();
}
