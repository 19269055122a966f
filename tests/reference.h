/*  reference.h: a LLaMA-type model once more, naively and in double precision, for the tests to compare with.  Written from
    the definitions (Touvron et al. 2023), without a look at lemon.h's kernels; all matrices are row-major. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include "check.h"

/*  y[m, n] = op(a) * op(b); k is the inner size. */
CHECK_UNUSED static void ref_matmul(const double *a, int trans_a, const double *b, int trans_b, int64_t m, int64_t n,
                                           int64_t k, double *y) {
    int64_t i, j, q;
    for (i = 0; i < m; i++)
        for (j = 0; j < n; j++)
            for (q = 0, y[i * n + j] = 0; q < k; q++)
                y[i * n + j] += (trans_a ? a[q * m + i] : a[i * k + q]) * (trans_b ? b[j * k + q] : b[q * n + j]);
}

CHECK_UNUSED static void ref_norm(const double *x, const double *gain, int64_t rows, int64_t cols, double eps,
                                  double *y) {
    int64_t r, c;
    for (r = 0; r < rows; r++, x += cols, y += cols) {
        double sum = 0;
        for (c = 0; c < cols; c++) sum += x[c] * x[c];
        for (c = 0; c < cols; c++) y[c] = x[c] / sqrt(sum / (double)cols + eps) * gain[c];
    }
}

CHECK_UNUSED static void ref_rope(double *x, int64_t rows, int64_t cols, int64_t head_dim, int64_t seq, double theta) {
    int64_t r, c;
    for (r = 0; r < rows; r++)
        for (c = 0; c < cols; c += 2) {
            double turn = (double)(r % seq) * pow(theta, -(double)(c % head_dim) / (double)head_dim);
            double a = x[r * cols + c], b = x[r * cols + c + 1];
            x[r * cols + c] = a * cos(turn) - b * sin(turn);
            x[r * cols + c + 1] = a * sin(turn) + b * cos(turn);
        }
}

CHECK_UNUSED static void ref_attention(const double *q, const double *k, const double *v, int64_t rows, int64_t heads,
                                              int64_t kv, int64_t dim, int64_t seq, int64_t window, double *y) {
    double *p = (double *)malloc((size_t)seq * sizeof *p);
    int64_t r, h, j, c;
    for (r = 0; r < rows; r++)
        for (h = 0; h < heads; h++) {
            int64_t first = r / seq * seq, at = h / (heads / kv) * dim;
            double sum = 0, *out = y + (r * heads + h) * dim;
            if (window && r - first >= window) memset(p, 0, (size_t)(r - first) * sizeof *p);
            for (j = window && r - first >= window ? r - window + 1 : first; j <= r; j++) {
                double s = 0;
                for (c = 0; c < dim; c++) s += q[(r * heads + h) * dim + c] * k[j * kv * dim + at + c];
                sum += p[j - first] = exp(s / sqrt((double)dim));
            }
            for (c = 0; c < dim; c++)
                for (j = first, out[c] = 0; j <= r; j++) out[c] += p[j - first] / sum * v[j * kv * dim + at + c];
        }
    free(p);
}

CHECK_UNUSED static void ref_swiglu(const double *gate, const double *up, int64_t n, double *y) {
    int64_t i;
    for (i = 0; i < n; i++) y[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
}

/*  log softmax of one row of scores at a temperature. */
CHECK_UNUSED static void ref_log_softmax(const double *z, int64_t n, double temperature, double *out) {
    double top = z[0], sum = 0;
    int64_t i;
    for (i = 1; i < n; i++) top = z[i] > top ? z[i] : top;
    for (i = 0; i < n; i++) sum += exp((z[i] - top) / temperature);
    for (i = 0; i < n; i++) out[i] = (z[i] - top) / temperature - log(sum);
}

/*  What lemon_tape_loss is said to be; taught NULL: no teacher's scores. */
typedef struct ref_losses { double ce, kl; } ref_losses;
CHECK_UNUSED static ref_losses ref_loss(const double *scores, const double *taught, const int32_t *targets,
                                        int64_t rows, int64_t vocab, double temperature) {
    double *p = (double *)malloc((size_t)vocab * sizeof *p), *q = (double *)malloc((size_t)vocab * sizeof *q);
    ref_losses sum = {0, 0};
    int64_t r, v, counted = 0;
    for (r = 0; r < rows; r++) {
        if (targets[r] < 0) continue;
        counted++;
        ref_log_softmax(scores + r * vocab, vocab, 1, p);
        sum.ce -= p[targets[r]];
        if (taught == NULL) continue;
        ref_log_softmax(scores + r * vocab, vocab, temperature, p);
        ref_log_softmax(taught + r * vocab, vocab, temperature, q);
        for (v = 0; v < vocab; v++) sum.kl += exp(q[v]) * (q[v] - p[v]);
    }
    free(p);
    free(q);
    if (counted) {
        sum.ce /= (double)counted;
        sum.kl /= (double)counted;
    }
    return sum;
}

/*  How fast a plane of RoPE turns, after Hugging Face's modeling_rope_utils: wave lengths for llama3, and YaRN's ramp. */
CHECK_UNUSED static double ref_speed(const lemon_config *c, int plane) {
    double base = (double)c->rope_theta, dim = c->head_dim, speed = 1 / pow(base, 2 * plane / dim), pi = acos(-1.0),
           factor = (double)c->rope_factor, length = c->rope_original, wave = 2 * pi / speed, low, high, ramp, smooth;
    double slow = (double)c->rope_slow, fast = (double)c->rope_fast;
    if (c->rope_scaling == LEMON_ROPE_LINEAR) return speed / factor;
    if (c->rope_scaling == LEMON_ROPE_LLAMA3) {
        if (wave < length / fast) return speed;
        if (wave > length / slow) return speed / factor;
        smooth = (length / wave - slow) / (fast - slow);
        return (1 - smooth) * speed / factor + smooth * speed;
    }
    if (c->rope_scaling != LEMON_ROPE_YARN) return speed;
    low = floor(dim * log(length / (fast * 2 * pi)) / (2 * log(base)));
    high = ceil(dim * log(length / (slow * 2 * pi)) / (2 * log(base)));
    if (low < 0) low = 0;
    if (high > dim - 1) high = dim - 1;
    if (high <= low) high = low + 0.001;
    ramp = (plane - low) / (high - low);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    return speed / factor * ramp + speed * (1 - ramp);
}

/*  Queries or keys to what attention takes: a norm of each head, turns. */
static void ref_heads(const lemon_config *c, double *x, const double *norm, int64_t rows, int64_t cols, int64_t seq) {
    double size = c->rope_scaling == LEMON_ROPE_YARN ? (double)c->rope_magnitude : 1;
    int64_t r, k;
    if (c->qk_norm) ref_norm(x, norm, rows * cols / c->head_dim, c->head_dim, (double)c->rms_norm_eps, x);
    for (r = 0; r < rows; r++)
        for (k = 0; k < cols; k += 2) {
            double turn = (double)(r % seq) * ref_speed(c, (int)(k % c->head_dim / 2)), *p = x + r * cols + k,
                   a = size * p[0], b = size * p[1];
            p[0] = a * cos(turn) - b * sin(turn);
            p[1] = a * sin(turn) + b * cos(turn);
        }
}

/* ---- the whole model, weights one behind the other in llama2.c's order by layer (as lemon_model's block) ---- */

typedef struct ref_buffers { double *x, *y, *q, *k, *v, *z, *gate, *up, *back; } ref_buffers;

CHECK_UNUSED static double *ref_room(int64_t n) { return (double *)calloc((size_t)n, sizeof(double)); }

/*  One layer; returns what lies behind its weights. */
static const double *ref_layer(const lemon_config *c, const double *w, int64_t rows, int64_t seq, ref_buffers *b) {
    int64_t d = c->d_model, hq = (int64_t)c->n_heads * c->head_dim, hk = (int64_t)c->kv_heads * c->head_dim,
            f = c->d_ffn, i;
    const double *norm = w, *wq = norm + d, *wk = wq + hq * d, *wv = wk + hk * d, *wo = wv + hk * d;
    const double *norm2 = wo + d * hq, *gate = norm2 + d, *up = gate + f * d, *down = up + f * d;
    const double *bias = down + d * f, *q_norm = bias + (c->qkv_bias ? hq + 2 * hk : 0);
    ref_norm(b->x, norm, rows, d, (double)c->rms_norm_eps, b->y);
    ref_matmul(b->y, 0, wq, 1, rows, hq, d, b->q);
    ref_matmul(b->y, 0, wk, 1, rows, hk, d, b->k);
    ref_matmul(b->y, 0, wv, 1, rows, hk, d, b->v);
    for (i = 0; c->qkv_bias && i < rows * hq; i++) b->q[i] += bias[i % hq];
    for (i = 0; c->qkv_bias && i < rows * hk; i++) b->k[i] += bias[hq + i % hk];
    for (i = 0; c->qkv_bias && i < rows * hk; i++) b->v[i] += bias[hq + hk + i % hk];
    ref_heads(c, b->q, q_norm, rows, hq, seq);
    ref_heads(c, b->k, q_norm + c->head_dim, rows, hk, seq);
    ref_attention(b->q, b->k, b->v, rows, c->n_heads, c->kv_heads, c->head_dim, seq, c->window, b->z);
    ref_matmul(b->z, 0, wo, 1, rows, d, hq, b->back);
    for (i = 0; i < rows * d; i++) b->x[i] += b->back[i];
    ref_norm(b->x, norm2, rows, d, (double)c->rms_norm_eps, b->y);
    ref_matmul(b->y, 0, gate, 1, rows, f, d, b->gate);
    ref_matmul(b->y, 0, up, 1, rows, f, d, b->up);
    ref_swiglu(b->gate, b->up, rows * f, b->gate);
    ref_matmul(b->gate, 0, down, 1, rows, d, f, b->back);
    for (i = 0; i < rows * d; i++) b->x[i] += b->back[i];
    return q_norm + (c->qk_norm ? 2 * c->head_dim : 0);
}

/*  Scores [rows, V] of rows = whole sequences of seq tokens. */
CHECK_UNUSED static void ref_model(const lemon_config *c, const double *w, const int32_t *ids, int64_t rows,
                                   int64_t seq, double *scores) {
    int64_t d = c->d_model, hq = (int64_t)c->n_heads * c->head_dim, i, layer;
    const double *embed = w;
    ref_buffers b;
    b.x = ref_room(rows * d);
    b.y = ref_room(rows * d);
    b.back = ref_room(rows * d);
    b.q = ref_room(rows * hq);
    b.k = ref_room(rows * hq);
    b.v = ref_room(rows * hq);
    b.z = ref_room(rows * hq);
    b.gate = ref_room(rows * c->d_ffn);
    b.up = ref_room(rows * c->d_ffn);
    for (i = 0; i < rows * d; i++) b.x[i] = embed[ids[i / d] * d + i % d];
    w += c->vocab_size * d;
    for (layer = 0; layer < c->n_layers; layer++) w = ref_layer(c, w, rows, seq, &b);
    ref_norm(b.x, w, rows, d, (double)c->rms_norm_eps, b.y);
    ref_matmul(b.y, 0, c->tied_embeddings ? embed : w + d, 1, rows, c->vocab_size, d, scores);
    free(b.x); free(b.y); free(b.back); free(b.q); free(b.k); free(b.v); free(b.z); free(b.gate); free(b.up);
}

/*  A model's weights in double. */
CHECK_UNUSED static double *ref_weights(const lemon_model *model) {
    double *w = ref_room(model->block_count);
    int64_t i;
    for (i = 0; i < model->block_count; i++) w[i] = (double)model->block[i];
    return w;
}

#endif
