/*  gemm_svg.c - the roofline plot, a panel for each thread count.  Both axes are logarithmic.  To the right, a product
    does more with each byte that it must move (A, B and C once each); the roofs are the peak of multiply-adds and,
    slanted, what each level of memory can deliver.  A point is the geometric mean of the layouts.  */
#include "gemm_bench.h"
#include <math.h>
#include <string.h>

enum { WIDTH = 620, HEIGHT = 560, LEFT = 62, RIGHT = 12, TOP = 190, BOTTOM = 56, STRIP = 12, MAX_POINTS = 64 };

static const char *const colours[LIBRARIES] = {"#c2410c", "#1d4ed8", "#15803d", "#7e22ce"};

/*  A panel and its scales: log10 of FLOP per byte, and of GFLOP/s. */
typedef struct panel {
    FILE *f;
    double x0, left, right, bottom, top;
} panel;

typedef struct point {
    shape size;
    double intensity, gflops[LIBRARIES], label;    /* label: where its name stands, in pixels */
} point;

static double px(const panel *p, double intensity) {
    return p->x0 + LEFT + (log10(intensity) - p->left) / (p->right - p->left) * (WIDTH - LEFT - RIGHT);
}

static double py(const panel *p, double gflops) {
    return HEIGHT - BOTTOM - (log10(gflops) - p->bottom) / (p->top - p->bottom) * (HEIGHT - TOP - BOTTOM);
}

/* ---- points ---- */

/*  Cells of one shape become one point; sorted by intensity.  Their number. */
static int points_collect(const results *r, int threads, point *points) {
    int count[MAX_POINTS] = {0}, n = 0, i, j, lib;
    for (i = 0; i < r->count; i++) {
        const cell *c = &r->cells[i];
        if (c->threads != threads) continue;
        for (j = 0; j < n && memcmp(&points[j].size, &c->size, sizeof c->size); j++) continue;
        if (j == MAX_POINTS) continue;
        if (j == n) {
            memset(&points[n], 0, sizeof *points);
            points[n].size = c->size;
            points[n++].intensity = shape_flop(c->size) / shape_bytes(c->size);
        }
        count[j]++;
        for (lib = 0; lib < LIBRARIES; lib++)
            if (c->gflops[lib] > 0) points[j].gflops[lib] += log(c->gflops[lib]);
    }
    for (j = 0; j < n; j++)
        for (lib = 0; lib < LIBRARIES; lib++)
            if (points[j].gflops[lib] != 0) points[j].gflops[lib] = exp(points[j].gflops[lib] / count[j]);
    for (i = 1; i < n; i++)
        for (j = i; j > 0 && points[j].intensity < points[j - 1].intensity; j--) {
            const point swap = points[j];
            points[j] = points[j - 1], points[j - 1] = swap;
        }
    return n;
}

/*  Names stand above the plot, side by side: pushed to the right where they would overlap, then back from the edge. */
static void labels_place(const panel *p, point *points, int n) {
    const double edge = p->x0 + WIDTH - RIGHT;
    int i;
    for (i = 0; i < n; i++) {
        points[i].label = px(p, points[i].intensity);
        if (i && points[i].label < points[i - 1].label + STRIP) points[i].label = points[i - 1].label + STRIP;
    }
    for (i = n - 1; i >= 0; i--) {
        const double limit = i == n - 1 ? edge : points[i + 1].label - STRIP;
        if (points[i].label > limit) points[i].label = limit;
    }
}

static void draw_labels(const panel *p, const point *points, int n) {
    int i;
    for (i = 0; i < n; i++) {
        const double x = px(p, points[i].intensity), at = points[i].label;
        fprintf(p->f, "<path d='M%.1f %d V%d L%.1f %d V%d' fill='none' stroke='#ddd'/>\n", x, HEIGHT - BOTTOM, TOP, at,
                TOP - 22, TOP - 26);
        fprintf(p->f, "<text transform='translate(%.1f %d) rotate(-90)' font-size='10'>%d×%d×%d</text>\n", at + 3.5,
                TOP - 30, (int)points[i].size.m, (int)points[i].size.n, (int)points[i].size.k);
    }
}

static void draw_mark(FILE *f, int library, double x, double y) {
    const char *c = colours[library];
    if (library == LEMON) fprintf(f, "<circle cx='%.1f' cy='%.1f' r='4.5' fill='%s'/>\n", x, y, c);
    if (library == OPENBLAS)
        fprintf(f, "<rect x='%.1f' y='%.1f' width='7' height='7' fill='none' stroke='%s' stroke-width='1.5'/>\n",
                x - 3.5, y - 3.5, c);
    if (library == BLIS)
        fprintf(f, "<path d='M%.1f %.1f l4.5 8 h-9 z' fill='none' stroke='%s' stroke-width='1.5'/>\n", x, y - 5, c);
    if (library == ONEDNN)
        fprintf(f, "<path d='M%.1f %.1f l5 5 l-5 5 l-5 -5 z' fill='none' stroke='%s' stroke-width='1.5'/>\n", x, y - 5,
                c);
}

static void draw_points(const panel *p, const point *points, int n) {
    int i, lib;
    for (lib = LIBRARIES - 1; lib >= 0; lib--)     /* lemon on top */
        for (i = 0; i < n; i++)
            if (points[i].gflops[lib] > 0)
                draw_mark(p->f, lib, px(p, points[i].intensity), py(p, points[i].gflops[lib]));
}

/* ---- axes and roofs ---- */

static void draw_axes(const panel *p) {
    double decade, step, v;
    int i;
    for (i = 0; i < 2; i++)                        /* across, then up */
        for (decade = floor(i ? p->bottom : p->left); decade <= (i ? p->top : p->right); decade++)
            for (step = 1; step < 10; step = step == 1 ? 2 : step == 2 ? 5 : 10) {
                v = step * pow(10, decade);
                if (log10(v) < (i ? p->bottom : p->left) - 1e-9 || log10(v) > (i ? p->top : p->right) + 1e-9) continue;
                if (i == 0)
                    fprintf(p->f, "<text x='%.1f' y='%d' text-anchor='middle'>%g</text>\n", px(p, v),
                            HEIGHT - BOTTOM + 16, v);
                else
                    fprintf(p->f,
                            "<path d='M%.1f %.1f H%.1f' stroke='#eee'/><text x='%.1f' y='%.1f' "
                            "text-anchor='end'>%g</text>\n",
                            p->x0 + LEFT, py(p, v), p->x0 + WIDTH - RIGHT, p->x0 + LEFT - 6, py(p, v) + 4, v);
            }
    fprintf(p->f, "<rect x='%.1f' y='%d' width='%d' height='%d' fill='none' stroke='#888'/>\n", p->x0 + LEFT, TOP,
            WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    fprintf(p->f, "<text x='%.1f' y='%d' text-anchor='middle'>FLOP per byte of A, B and C</text>\n",
            p->x0 + (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - BOTTOM + 36);
    fprintf(p->f, "<text transform='translate(%.1f %d) rotate(-90)' text-anchor='middle'>GFLOP/s</text>\n", p->x0 + 16,
            (TOP + HEIGHT - BOTTOM) / 2);
}

/*  A slanted roof from the plot's left or lower edge to the peak, its name along it near the lower end. */
static void draw_slope(const panel *p, const char *name, double bandwidth, double peak) {
    const double low = pow(10, p->bottom), first = pow(10, p->left);
    const double begin = bandwidth * first > low ? first : low / bandwidth, end = peak / bandwidth;
    const double x = px(p, begin), y = py(p, bandwidth * begin), x2 = px(p, end), y2 = py(p, peak);
    if (end <= begin) return;
    fprintf(p->f, "<path d='M%.1f %.1f L%.1f %.1f' stroke='#444' stroke-dasharray='5 3'/>\n", x, y, x2, y2);
    fprintf(
        p->f,
        "<text transform='translate(%.1f %.1f) rotate(%.1f)' dy='-5' class='halo' font-size='10'>%s %.0f GB/s</text>\n",
        x + 0.08 * (x2 - x), y + 0.08 * (y2 - y), atan2(y2 - y, x2 - x) * 57.29578, name, bandwidth);
}

static void draw_roofs(const panel *p, const results *r, int threads) {
    const double peak = r->machine.peak[r->isa][threads - 1];
    double corner = pow(10, p->left);
    int i;
    for (i = 0; i < LEVELS; i++)
        if (r->machine.read[i][threads - 1] > 0) draw_slope(p, level_names[i], r->machine.read[i][threads - 1], peak);
    if (r->machine.read[LEVEL_L2][threads - 1] > 0 && peak / r->machine.read[LEVEL_L2][threads - 1] > corner)
        corner = peak / r->machine.read[LEVEL_L2][threads - 1];
    fprintf(p->f, "<path d='M%.1f %.1f H%.1f' stroke='#444' stroke-width='1.5'/>\n", px(p, corner), py(p, peak),
            p->x0 + WIDTH - RIGHT);
    fprintf(p->f,
            "<text x='%.1f' y='%.1f' text-anchor='end' class='halo' font-size='10'>multiply-adds, %s: %.0f "
            "GFLOP/s</text>\n",
            p->x0 + WIDTH - RIGHT - 4, py(p, peak) - 6, lemon_isa_name(r->isa), peak);
}

/* ---- the picture ---- */

static void draw_legend(const panel *p, const results *r) {
    double x = p->x0 + LEFT;
    int i;
    for (i = 0; i < LIBRARIES; i++) {
        if (!r->present[i]) continue;
        draw_mark(p->f, i, x + 6, 62);
        fprintf(p->f, "<text x='%.1f' y='66'>%s</text>\n", x + 16, library_names[i]);
        x += 90;
    }
}

/*  Both panels have the same scales: they fit every point and roof. */
static void scales(panel *p, const results *r) {
    double least = 1e30, most = 1, left = 1e30, right = 1e-30;
    int i, lib;
    for (i = 0; i < r->count; i++) {
        const cell *c = &r->cells[i];
        const double x = shape_flop(c->size) / shape_bytes(c->size), peak = r->machine.peak[r->isa][c->threads - 1];
        left = fmin(left, x), right = fmax(right, x), most = fmax(most, peak);
        for (lib = 0; lib < LIBRARIES; lib++)
            if (c->gflops[lib] > 0) least = fmin(least, c->gflops[lib]), most = fmax(most, c->gflops[lib]);
    }
    p->left = log10(left) - 0.2, p->right = log10(right) + 0.15;
    p->bottom = log10(least) - 0.15, p->top = log10(most) + 0.15;
}

static void draw_panel(panel *p, const results *r, int threads) {
    static point points[MAX_POINTS];
    const int n = points_collect(r, threads, points);
    if (n == 0) return;
    labels_place(p, points, n);
    fprintf(p->f, "<text x='%.1f' y='40' font-size='15' font-weight='bold'>%d thread%s, %s</text>\n", p->x0 + LEFT,
            threads, threads > 1 ? "s" : "", lemon_isa_name(r->isa));
    draw_legend(p, r);
    draw_labels(p, points, n);
    draw_axes(p);
    draw_roofs(p, r, threads);
    draw_points(p, points, n);
    p->x0 += WIDTH;
}

int report_svg(const results *r, const char *path) {
    panel p;
    int t, panels = 0, seen[MAX_THREADS] = {0}, ok;
    if (r->count == 0) return 1;
    memset(&p, 0, sizeof p);
    p.f = fopen(path, "w");
    if (p.f == NULL) return 0;
    for (t = 0; t < r->count; t++) seen[r->cells[t].threads - 1] = 1;
    for (t = 0; t < MAX_THREADS; t++) panels += seen[t];
    scales(&p, r);
    fprintf(
        p.f,
        "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' viewBox='0 0 %d %d' font-family='sans-serif' "
        "font-size='11' fill='#222'>\n<style>.halo{paint-order:stroke;stroke:#fff;stroke-width:3px}</style>\n"
        "<rect width='100%%' height='100%%' fill='#fff'/>\n<text x='%d' y='18' font-size='12'>lemon_sgemm, m×n×k; "
        "geometric mean of the layouts</text>\n",
        WIDTH * panels, HEIGHT, WIDTH * panels, HEIGHT, LEFT);
    for (t = 1; t <= MAX_THREADS; t++) draw_panel(&p, r, t);
    fputs("</svg>\n", p.f);
    ok = !ferror(p.f);
    return (fclose(p.f) == 0) & ok;
}
