/*  gemm_report.c - the machine's limits, the table, the summary, and the CSV file.  */
#include "gemm_bench.h"
#include <math.h>

double cell_best_peer(const cell *c) {
    double best = 0;
    int i;
    for (i = LEMON + 1; i < LIBRARIES; i++)
        if (c->gflops[i] > best) best = c->gflops[i];
    return best;
}

void report_limits(const results *r) {
    const limits *m = &r->machine;
    int i;
    printf("\nLimits of this machine, 1 / 2 threads:");
    for (i = 0; i < ISAS; i++)
        if (m->peak[i][0] > 0)
            printf(" %s %.0f / %.0f GFLOP/s,", lemon_isa_name((lemon_isa)i), m->peak[i][0], m->peak[i][1]);
    printf(" reading");
    for (i = 0; i < LEVELS; i++)
        printf("%s %s %.0f / %.0f", i ? "," : "", level_names[i], m->read[i][0], m->read[i][1]);
    printf(" GB/s (L2 %d KiB, L3 %d MiB).\n", (int)(m->cache[0] >> 10), (int)(m->cache[1] >> 20));
    fflush(stdout);
}

void report_head(const results *r, int threads) {
    int i, columns = 5;
    printf("\n### %d thread%s, %s: GFLOP/s\n\n| m x n x k | layout | lemon | %% of limit |", threads,
           threads > 1 ? "s" : "", lemon_isa_name(r->isa));
    for (i = LEMON + 1; i < LIBRARIES; i++)
        if (r->present[i]) printf(" %s |", library_names[i]), columns++;
    printf(" lemon/best |\n|");
    for (i = 0; i < columns; i++) printf(i < 2 ? "---|" : "---:|");
    putchar('\n');
}

void report_row(const results *r, const cell *c) {
    const double best = cell_best_peer(c);
    int i;
    printf("| %dx%dx%d | %s | %.1f | %.0f |", (int)c->size.m, (int)c->size.n, (int)c->size.k, layout_names[c->layout],
           c->gflops[LEMON], c->limit > 0 ? 100 * c->gflops[LEMON] / c->limit : 0);
    for (i = LEMON + 1; i < LIBRARIES; i++)
        if (r->present[i]) printf(" %.1f |", c->gflops[i]);
    if (best > 0) printf(" %.2f |\n", c->gflops[LEMON] / best);
    else printf(" |\n");
    fflush(stdout);
}

/* ---- summary ---- */

/*  Geometric mean of lemon / best peer over the cells of a thread count and a layout (-1: all); 0: no such cell. */
static double mean_ratio(const results *r, int threads, int layout) {
    double sum = 0;
    int i, count = 0;
    for (i = 0; i < r->count; i++) {
        const cell *c = &r->cells[i];
        const double best = cell_best_peer(c);
        if (c->threads != threads || (layout >= 0 && c->layout != layout) || best <= 0) continue;
        sum += log(c->gflops[LEMON] / best);
        count++;
    }
    return count ? exp(sum / count) : 0;
}

static void summary_ratios(const results *r, int threads) {
    const cell *worst = NULL;
    double least = 1e30;
    int i, below = 0, count = 0;
    for (i = 0; i < r->count; i++) {
        const cell *c = &r->cells[i];
        const double best = cell_best_peer(c), ratio = best > 0 ? c->gflops[LEMON] / best : 0;
        if (c->threads != threads || best <= 0) continue;
        count++;
        below += ratio < 0.9;
        if (ratio < least) least = ratio, worst = c;
    }
    if (worst == NULL) return;
    printf("- %d thread%s: lemon / best peer %.3f (geometric mean of %d rows", threads, threads > 1 ? "s" : "",
           mean_ratio(r, threads, -1), count);
    for (i = 0; i < LAYOUTS; i++)
        if (mean_ratio(r, threads, i) > 0) printf("; %s %.3f", layout_names[i], mean_ratio(r, threads, i));
    printf("); worst %.2f at %dx%dx%d %s; %d below 0.9\n", least, (int)worst->size.m, (int)worst->size.n,
           (int)worst->size.k, layout_names[worst->layout], below);
}

static void summary_squares(const results *r, int threads) {
    int i, first = 1;
    for (i = 0; i < r->count; i++) {
        const cell *c = &r->cells[i];
        const double peak = r->machine.peak[r->isa][threads - 1];
        if (c->threads != threads || c->size.m < 512 || c->size.m != c->size.n || c->size.n != c->size.k || peak <= 0)
            continue;
        if (first) printf("- %d thread%s: large squares, %% of the peak:", threads, threads > 1 ? "s" : "");
        printf("%s %d %s %.0f", first ? "" : ",", (int)c->size.m, layout_names[c->layout],
               100 * c->gflops[LEMON] / peak);
        first = 0;
    }
    if (!first) putchar('\n');
}

void report_summary(const results *r) {
    int t;
    printf("\n### Summary\n\n");
    for (t = 1; t <= r->max_threads; t++) summary_ratios(r, t);
    for (t = 1; t <= r->max_threads; t++) summary_squares(r, t);
    fflush(stdout);
}

/* ---- CSV ---- */

static void csv_machine(const results *r, FILE *f) {
    int i, t;
    for (t = 1; t <= MAX_THREADS; t++) {
        for (i = 0; i < ISAS; i++)
            if (r->machine.peak[i][t - 1] > 0)
                fprintf(f, "peak,,,,,%d,%s,,%.2f,GFLOP/s,,,\n", t, lemon_isa_name((lemon_isa)i),
                        r->machine.peak[i][t - 1]);
        for (i = 0; i < LEVELS; i++)
            fprintf(f, "read %s,,,,,%d,%s,,%.2f,GB/s,,,\n", level_names[i], t, lemon_isa_name(r->isa),
                    r->machine.read[i][t - 1]);
    }
}

int report_csv(const results *r, const char *path) {
    FILE *f = fopen(path, "w");
    int i, lib;
    if (f == NULL) return 0;
    fputs("what,m,n,k,layout,threads,isa,library,value,unit,limit,flop_per_byte,error\n", f);
    csv_machine(r, f);
    for (i = 0; i < r->count; i++)
        for (lib = 0; lib < LIBRARIES; lib++) {
            const cell *c = &r->cells[i];
            if (c->gflops[lib] <= 0) continue;
            fprintf(f, "product,%d,%d,%d,%s,%d,%s,%s,%.2f,GFLOP/s,%.2f,%.3f,%.1e\n", (int)c->size.m, (int)c->size.n,
                    (int)c->size.k, layout_names[c->layout], c->threads, lemon_isa_name(r->isa), library_names[lib],
                    c->gflops[lib], c->limit, shape_flop(c->size) / shape_bytes(c->size), c->error[lib]);
        }
    i = !ferror(f);
    return (fclose(f) == 0) & i;
}
