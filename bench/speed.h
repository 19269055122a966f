/*  speed.h - what the benches of training, generation and fusion share: the machine's limits, children that measure one
    thing each, the rows of a table and of its CSV file.

    Each of them includes lemon.h with its implementation, so that it can also time the steps between the kernels. */
#ifndef SPEED_H
#define SPEED_H
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE                  /* wait4 */
#endif
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#define LEMON_STATIC
#define LEMON_IMPLEMENTATION
#include "../lemon.h"
#include "limits.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/*  The shape of a model, with a name for tables. */
typedef struct speed_shape {
    const char *name;
    int d, layers, heads, kv, ffn, vocab, seq, batch;
} speed_shape;

static inline lemon_config speed_config(const speed_shape *s) {
    lemon_config c;
    memset(&c, 0, sizeof c);
    c.d_model = s->d, c.n_layers = s->layers, c.n_heads = s->heads, c.kv_heads = s->kv, c.head_dim = s->d / s->heads;
    c.d_ffn = s->ffn, c.vocab_size = s->vocab, c.max_seq = s->seq, c.rope_theta = 10000.0f, c.rms_norm_eps = 1e-5f;
    c.tied_embeddings = 1;
    return c;
}

/*  Numbers in the matrices that a token is multiplied with: the output matrix counts, looking up an embedding does not */
static inline double speed_matmul_params(const speed_shape *s) {
    const double d = s->d, kv = d / s->heads * s->kv;
    return s->layers * (2 * d * d + 2 * d * kv + 3 * d * s->ffn) + d * s->vocab;
}

/*  What a child found out; zero where that has no meaning. */
typedef struct finding {
    double best, mean;               /* units of work a second */
    double bytes;                    /* peak of resident memory */
    double extra[8];
} finding;

/*  Runs `measure` in a process of its own, so that its memory is its own; 0: it failed. */
static int speed_child(void (*measure)(const void *arg, finding *out), const void *arg, finding *out) {
    int pipes[2], status = 0;
    struct rusage usage;
    pid_t pid;
    memset(out, 0, sizeof *out);
    if (pipe(pipes)) return 0;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        measure(arg, out);
        _exit(write(pipes[1], out, sizeof *out) != (ssize_t)sizeof *out);
    }
    close(pipes[1]);
    if (pid < 0 || read(pipes[0], out, sizeof *out) != (ssize_t)sizeof *out) memset(out, 0, sizeof *out);
    close(pipes[0]);
    if (pid > 0 && wait4(pid, &status, 0, &usage) == pid) out->bytes = 1024.0 * (double)usage.ru_maxrss;
    return pid > 0 && status == 0 && out->best > 0;
}

/*  Runs a command whose last line of output is "best mean bytes"; 0: it is not there, or failed. */
static int speed_command(finding *out, const char *format, ...) {
    char command[2048], line[512];
    va_list args;
    FILE *f;
    memset(out, 0, sizeof *out);
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    fflush(stdout);
    f = popen(command, "r");
    if (f == NULL) return 0;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "%lf %lf %lf", &out->best, &out->mean, &out->bytes) < 1) out->best = 0;
    return pclose(f) == 0 && out->best > 0;
}

/*  Keeps the better of two rounds. */
/*  A cell of a table, which stays empty where nothing was measured. */
static void speed_cell(const char *format, double x) {
    printf(" ");
    if (x > 0) printf(format, x);
    printf(" |");
}

static void speed_keep(finding *best, const finding *now_) {
    double bytes = best->bytes > now_->bytes ? best->bytes : now_->bytes;
    if (now_->best > best->best) *best = *now_;
    best->bytes = bytes;
}

/*  The CSV file that goes with a table: bench/build/NAME.csv. */
static FILE *speed_csv(const char *name, const char *head) {
    char path[256];
    FILE *f;
    snprintf(path, sizeof path, "bench/build/%s.csv", name);
    f = fopen(path, "w");
    if (f == NULL) fprintf(stderr, "bench: error: %s: cannot be written\n", path), exit(1);
    fprintf(f, "%s\n", head);
    return f;
}

/* ---- a table as bars: bench/build/NAME.svg ---- */

typedef struct speed_bar { char name[80]; double ours, peer, limit; } speed_bar;
typedef struct speed_chart { speed_bar bars[64]; int n; } speed_chart;

static void speed_chart_add(speed_chart *chart, double ours, double peer, double limit, const char *format, ...) {
    speed_bar *b = &chart->bars[chart->n];
    va_list args;
    if (chart->n == (int)(sizeof chart->bars / sizeof chart->bars[0])) return;
    chart->n++;
    va_start(args, format);
    vsnprintf(b->name, sizeof b->name, format, args);
    va_end(args);
    b->ours = ours, b->peer = peer, b->limit = limit;
}

static void speed_rect(FILE *f, const char *colour, int y, int height, double part, double value) {
    const double width = 420 * (part > 1 ? 1 : part);
    if (!(value > 0)) return;
    fprintf(f, "<rect x=\"300\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", y, width, height, colour);
    fprintf(f, "<text x=\"%.1f\" y=\"%d\" font-size=\"10\">%.0f</text>\n", 304 + width, y + height - 1, value);
}

/*  A row for each bar: ours and the best peer's as parts of what the machine's limit allows, which is the full width. */
static void speed_svg(const char *name, const char *title, const char *peer, const speed_chart *chart) {
    char path[256];
    int i;
    FILE *f;
    snprintf(path, sizeof path, "bench/build/%s.svg", name);
    f = fopen(path, "w");
    if (f == NULL) fprintf(stderr, "bench: error: %s: cannot be written\n", path), exit(1);
    fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"800\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n"
               "<title>%s</title>\n<rect width=\"800\" height=\"%d\" fill=\"#fff\"/>\n<text x=\"10\" y=\"20\" font-size=\"15\">%s</text>\n"
               "<text x=\"10\" y=\"38\"><tspan fill=\"#c2410c\">lemon.h</tspan>, <tspan fill=\"#1d4ed8\">%s</tspan>; "
               "the full width is what the machine allows</text>\n", 60 + 34 * chart->n, title, 60 + 34 * chart->n, title, peer);
    for (i = 0; i < chart->n; i++) {
        const speed_bar *b = &chart->bars[i];
        const int y = 50 + 34 * i;
        fprintf(f, "<text x=\"292\" y=\"%d\" text-anchor=\"end\">%s</text>\n"
                   "<rect x=\"300\" y=\"%d\" width=\"420\" height=\"26\" fill=\"#e7e5e4\"/>\n", y + 17, b->name, y);
        speed_rect(f, "#c2410c", y + 1, 12, b->ours / b->limit, b->ours);
        speed_rect(f, "#1d4ed8", y + 14, 11, b->peer / b->limit, b->peer);
    }
    fprintf(f, "</svg>\n");
    if (fclose(f)) fprintf(stderr, "bench: error: %s: cannot be written\n", path), exit(1);
}
#endif
