/*  report.h - writes a report as one HTML file that needs nothing else: no script, no style sheet, no picture from
    elsewhere.  Figures are SVG; their values show under the pointer or finger, and stand in a table for those who have
    neither.  Light and dark by the reader's system, narrow and wide screens, and paper.
    For the programs in this folder; include it after lemon.h.

        report page;
        report_begin(&page, "What came of it");
        report_text(&page, "%d methods were tried.", 3);
        report_table(&page, "Losses", columns, 4, cells, 3);
        report_curves(&page, "Loss", "tokens", "nats", series, 3);
        report_grid(&page, "CKA", "after layer", 6, "after layer", 6, cka);
        report_operators(&page, operators);
        message = report_write(&page, ctx, "report.html");       (NULL: written; else what was wrong)
        report_free(&page);

    Nothing is checked on the way: when memory runs out the page remembers, and report_write says so.

    Contents:  1 growing text   2 escaping   3 the page   4 axes   5 curves   6 grids   7 heat maps
               8 operators */
#ifndef REPORT_H
#define REPORT_H

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#define REPORT_API static __attribute__((unused))    /* a program need not use all of it */
#else
#define REPORT_API static
#endif

/* ---- 1  growing text --------------------------------------------------------------------------------------------- */

typedef struct buffer {
    char *text;                  /* ends in a NUL; NULL while empty */
    size_t length, capacity;
    int failed;                  /* there was no memory: what came after is lost */
} buffer;

static void buffer_free(buffer *b) {
    free(b->text);
    memset(b, 0, sizeof *b);
}

static void buffer_add(buffer *b, const char *bytes, size_t count) {
    if (b->length + count + 1 > b->capacity) {
        size_t capacity = 2 * (b->length + count) + 256;
        char *grown = b->failed ? NULL : (char *)realloc(b->text, capacity);
        if (grown == NULL) {
            b->failed = 1;
            return;
        }
        b->text = grown;
        b->capacity = capacity;
    }
    if (count) memcpy(b->text + b->length, bytes, count);
    b->length += count;
    b->text[b->length] = 0;
}

static void buffer_put(buffer *b, const char *text) { buffer_add(b, text, strlen(text)); }

static void buffer_vprint(buffer *b, const char *format, va_list arguments) {
    char small[512];
    va_list again;
    int n;
    va_copy(again, arguments);
    n = vsnprintf(small, sizeof small, format, arguments);
    if (n >= 0 && (size_t)n < sizeof small) {
        buffer_add(b, small, (size_t)n);
    } else if (n >= 0) {
        char *large = (char *)malloc((size_t)n + 1);
        if (large) vsnprintf(large, (size_t)n + 1, format, again);
        if (large) buffer_add(b, large, (size_t)n);
        else b->failed = 1;
        free(large);
    }
    va_end(again);
}

static void buffer_print(buffer *b, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    buffer_vprint(b, format, arguments);
    va_end(arguments);
}

/* ---- 2  escaping ------------------------------------------------------------------------------------------------- */

/*  Bytes of the UTF-8 character at p; 0 where there is none (overlong, surrogate, cut off, out of range). */
static int utf8_length(const char *p, size_t left) {
    static const unsigned least[5] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char first = (unsigned char)p[0];
    int n = first < 0x80 ? 1 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2, i;
    unsigned code = first & (0xFFu >> (n + 1));
    if (n == 1) return 1;
    if (first < 0xC2 || first > 0xF4 || (size_t)n > left) return 0;
    for (i = 1; i < n; i++) {
        if (((unsigned char)p[i] & 0xC0) != 0x80) return 0;
        code = code << 6 | ((unsigned char)p[i] & 0x3Fu);
    }
    return code < least[n] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000) ? 0 : n;
}

/*  Text as HTML: markup characters as entities, control characters and broken UTF-8 as U+FFFD. */
static void report_escape(buffer *b, const char *text, size_t bytes) {
    size_t i = 0;
    while (i < bytes) {
        int n = utf8_length(text + i, bytes - i);
        char c = text[i];
        if (c == '&') buffer_put(b, "&amp;");
        else if (c == '<') buffer_put(b, "&lt;");
        else if (c == '>') buffer_put(b, "&gt;");
        else if (c == '"') buffer_put(b, "&quot;");
        else if (n == 0 || c == 0x7F || (n == 1 && (unsigned char)c < 0x20 && c != '\n' && c != '\t'))
            buffer_put(b, "&#xFFFD;");
        else buffer_add(b, text + i, (size_t)n);
        i += n ? (size_t)n : 1;
    }
}

static void report_escape_text(buffer *b, const char *text) { report_escape(b, text, strlen(text)); }

/* ---- 3  the page ------------------------------------------------------------------------------------------------- */

typedef struct report {
    buffer html;
} report;

#define REPORT_LIGHT                                                                                                   \
    "--paper:#fff;--ink:#1b1b1f;--soft:#5b5f66;--rule:#d5d8dd;--box:#f5f6f8;--heat:31 111 180;--s0:#1f6fb4;"           \
    "--s1:#c4501b;--s2:#2d8a4e;--s3:#8a4fb0;--s4:#8f6f00;--s5:#b03060;--plus:#b2182b;--minus:#2166ac"
static const char report_style[] =
    ":root{color-scheme:light dark;" REPORT_LIGHT "}\n"
    "@media(prefers-color-scheme:dark){:root{--paper:#15171a;--ink:#e6e7ea;--soft:#a3a8b0;--rule:#3a3f47;--box:#1e2126;"
    "--heat:108 178 240;--s0:#6cb2f0;--s1:#f39a63;--s2:#6fd08c;--s3:#c89aec;--s4:#e0c04d;--s5:#f086ac;--plus:#f4705c;"
    "--minus:#6db3f2}}\n"
    "body{margin:0 auto;padding:1.5rem 1rem 3rem;max-width:60rem;overflow-wrap:anywhere;background:var(--paper);color:var(--ink);"
    "font:16px/1.5 system-ui,sans-serif}h1{font-size:1.7rem;line-height:1.2}h2{font-size:1.2rem;margin-top:2.2rem}\n"
    ".scroll{overflow-x:auto;margin:.8rem 0}table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "caption,figcaption{color:var(--soft);font-size:.9rem;text-align:left;padding:.3rem 0}"
    "th,td{overflow-wrap:normal;padding:.3rem .9rem .3rem 0;text-align:right;border-bottom:1px solid var(--rule)}"
    "td{white-space:nowrap}.long{white-space:normal;min-width:12rem}"
    "th:first-child,td:first-child{text-align:left}thead th{vertical-align:bottom;font-weight:600}tbody th{font-weight:400}\n"
    "caption span{display:block;position:sticky;left:0;max-width:calc(100vw - 2rem)}"
    ".grid td{background:rgb(var(--heat)/calc(var(--v)*.5));padding:.3rem .45rem;text-align:center}"
    ".grid th{padding:.3rem .5rem;text-align:center}.grid th:first-child{white-space:nowrap}.grid.small{font-size:.62rem}"
    ".grid.small td,.grid.small th{padding:.1rem .15rem}\n"
    "pre,blockquote{background:var(--box);border:1px solid var(--rule);border-radius:6px;margin:.6rem 0;"
    "padding:.7rem .9rem;white-space:pre-wrap;overflow-wrap:anywhere}pre{font:14px/1.5 ui-monospace,monospace}\n"
    "pre span{white-space:nowrap}"
    "figure{margin:1rem 0}svg{display:block;max-width:100%;height:auto}svg text{fill:var(--ink);font:13px "
    "system-ui,sans-serif}.plot{width:44rem}.plot .rule{stroke:var(--rule)}.plot .line{fill:none;stroke-width:2;"
    "stroke-linejoin:round}.plot .hit{fill:transparent}.plot .tip{visibility:hidden}.plot .at{outline:none}"
    ".plot .at:hover .tip,.plot .at:focus .tip{visibility:visible}.plot .tip path{stroke:var(--soft)}\n"
    ".tip text{paint-order:stroke;stroke:var(--paper);stroke-width:4px}"
    "details{margin:.4rem 0}summary{cursor:pointer;padding:.4rem 0}"
    ".legend{margin:.2rem 0;display:flex;flex-wrap:wrap;gap:0 1.5rem}\n"
    ".maps{display:flex;flex-wrap:wrap;gap:1rem}.maps figure{margin:0;max-width:100%}"
    ".map{border:1px solid var(--rule);shape-rendering:crispEdges;fill:none}"
    ".map .plus{stroke:var(--plus)}.map .minus{stroke:var(--minus)}\n"
    "@media(max-width:30rem){svg text{font-size:19px}th,td{padding-right:.6rem}}\n"
    "@media print{:root{color-scheme:light;" REPORT_LIGHT "}body{max-width:none;padding:0;font-size:11pt}"
    "figure,table,pre,blockquote{break-inside:avoid}h2{break-after:avoid}.scroll{overflow:visible}td{white-space:normal}"
    ".fold::details-content{content-visibility:visible;display:block}body{-webkit-print-color-adjust:exact;print-color-adjust:exact}}\n";

REPORT_API void report_begin(report *page, const char *title) {
    buffer *b = &page->html;
    memset(page, 0, sizeof *page);
    buffer_put(b, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                  "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>");
    report_escape_text(b, title);
    buffer_put(b, "</title>\n<style>\n");
    buffer_put(b, report_style);
    buffer_put(b, "</style>\n</head>\n<body>\n<main>\n<h1>");
    report_escape_text(b, title);
    buffer_put(b, "</h1>\n");
}

static void report_element(report *page, const char *tag, const char *text) {
    buffer_print(&page->html, "<%s>", tag);
    report_escape_text(&page->html, text);
    buffer_print(&page->html, "</%s>\n", tag);
}

REPORT_API void report_heading(report *page, const char *text) { report_element(page, "h2", text); }

/*  A paragraph, as printf. */
REPORT_API void report_text(report *page, const char *format, ...) {
    buffer line;
    va_list arguments;
    memset(&line, 0, sizeof line);
    va_start(arguments, format);
    buffer_vprint(&line, format, arguments);
    va_end(arguments);
    report_element(page, "p", line.text ? line.text : "");
    page->html.failed |= line.failed;
    buffer_free(&line);
}

/*  What a model wrote; the prompt stands out. */
REPORT_API void report_story(report *page, const char *caption, const char *prompt, const char *text) {
    buffer *b = &page->html;
    buffer_put(b, "<figure>\n<figcaption>");
    report_escape_text(b, caption);
    buffer_put(b, "</figcaption>\n<blockquote><b>");
    report_escape_text(b, prompt);
    buffer_put(b, "</b>");
    report_escape_text(b, text);
    buffer_put(b, "</blockquote>\n</figure>\n");
}

/*  A table in a box that scrolls sideways where it is too wide, by the keyboard too. */
static void report_table_begin(report *page, const char *caption, const char *class_name) {
    buffer *b = &page->html;
    buffer_put(b, "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"");
    report_escape_text(b, caption);
    buffer_print(b, "\"><table class=\"%s\">\n<caption><span>", class_name);
    report_escape_text(b, caption);
    buffer_put(b, "</span></caption>\n<thead><tr>");
}

/*  cells[row * n_columns + column]; the first column is a heading of its row. */
REPORT_API void report_table(report *page, const char *caption, const char *const *columns, int n_columns,
                         const char *const *cells, int n_rows) {
    buffer *b = &page->html;
    int i, j;
    report_table_begin(page, caption, "");
    for (j = 0; j < n_columns; j++) {
        buffer_put(b, "<th scope=\"col\">");
        report_escape_text(b, columns[j]);
        buffer_put(b, "</th>");
    }
    buffer_put(b, "</tr></thead>\n<tbody>\n");
    for (i = 0; i < n_rows; i++) {
        buffer_put(b, "<tr>");
        for (j = 0; j < n_columns; j++) {
            buffer_put(b, j == 0 ? "<th scope=\"row\">" : strlen(cells[i * n_columns + j]) > 24 ? "<td class=\"long\">" : "<td>");
            report_escape_text(b, cells[i * n_columns + j]);
            buffer_put(b, j ? "</td>" : "</th>");
        }
        buffer_put(b, "</tr>\n");
    }
    buffer_put(b, "</tbody>\n</table></div>\n");
}

/*  A word as a shell reads it. */
static void report_add_word(buffer *b, const char *word) {
    const char *plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=:,+@%";
    if (*word && strspn(word, plain) == strlen(word)) {
        buffer_put(b, word);
        return;
    }
    buffer_put(b, "'");
    for (; *word; word++) {
        if (*word == '\'') buffer_put(b, "'\\''");
        else buffer_add(b, word, 1);
    }
    buffer_put(b, "'");
}

/*  The command that gave this report; a line may end between its words, but not within a flag. */
REPORT_API void report_command(report *page, const lemon_ctx *ctx, int argc, char **argv) {
    buffer word;
    int i;
    report_heading(page, "How to repeat it");
    buffer_put(&page->html, "<pre>");
    for (i = 0; i < argc; i++) {
        int flag = *argv[i] == '-' && !strchr(argv[i], '=');
        memset(&word, 0, sizeof word);
        report_add_word(&word, argv[i]);
        buffer_print(&page->html, "%s%s", i ? " " : "", flag ? "<span>" : "");
        report_escape_text(&page->html, word.text ? word.text : "");
        buffer_put(&page->html, flag ? "</span>" : "");
        page->html.failed |= word.failed;
        buffer_free(&word);
    }
    buffer_put(&page->html, "</pre>\n");
    report_text(page, "By lemon.h %s with the %s kernels.  The same seed gives the same bits for any number of threads; other "
                "kernels (LEMON_ISA) round differently.", LEMON_VERSION, lemon_isa_name(lemon_ctx_isa(ctx)));
}

REPORT_API void report_free(report *page) { buffer_free(&page->html); }

/*  Ends the page and writes it, whole or not at all.  NULL, or what was wrong. */
REPORT_API const char *report_write(report *page, lemon_ctx *ctx, const char *path) {
    lemon_writer writer;
    lemon_status status;
    buffer_put(&page->html, "</main>\n</body>\n</html>\n");
    if (page->html.failed) return "the report was not written: no memory";
    if (lemon_file_writer(ctx, path, &writer)) return lemon_error(ctx);
    status = writer.append(writer.user, page->html.text, page->html.length);
    if (status == LEMON_OK) status = writer.commit(writer.user);
    else writer.abort(writer.user);
    return status ? lemon_error(ctx) : NULL;
}

/* ---- 4  axes ----------------------------------------------------------------------------------------------------- */

enum { REPORT_WIDTH = 560, REPORT_HEIGHT = 340 };    /* of a figure, and its margins */
enum { REPORT_LEFT = 64, REPORT_RIGHT = 16, REPORT_TOP = 30, REPORT_BOTTOM = 52 };

typedef struct report_axis {
    double low, high;            /* values at its two ends */
    double from, to;             /* where these ends lie in the figure */
    double step;                 /* between ticks; of a logarithmic axis: none */
    int log;
} report_axis;

/*  1, 2 or 5 times a power of ten, so that about `count` ticks fit into `span`. */
static double report_nice_step(double span, int count) {
    double rough = span > 0 ? span / count : 1;
    double power = pow(10, floor(log10(rough)));
    double head = rough / power;
    return (head <= 1 ? 1 : head <= 2 ? 2 : head <= 5 ? 5 : 10) * power;
}

/*  Chooses scale and round ends for values in low ... high; logarithmic where they span more than a factor of 30. */
static void report_axis_fit(report_axis *axis, double low, double high, int ticks, int may_log) {
    if (!(high > low)) high = low + (low != 0 ? fabs(low) * 0.1 : 1);
    axis->log = may_log && low > 0 && high / low > 30;
    axis->step = report_nice_step(high - low, ticks);
    axis->low = axis->log ? pow(10, floor(log10(low))) : floor(low / axis->step) * axis->step;
    axis->high = axis->log ? pow(10, ceil(log10(high))) : ceil(high / axis->step) * axis->step;
}

static double report_axis_at(const report_axis *axis, double value) {
    double share = axis->log ? log(value / axis->low) / log(axis->high / axis->low)
                             : (value - axis->low) / (axis->high - axis->low);
    return axis->from + share * (axis->to - axis->from);
}

/*  The tick after value. */
static double report_axis_next(const report_axis *axis, double value) {
    if (axis->log) return value * 10;
    return (floor(value / axis->step + 0.5) + 1) * axis->step;
}

/*  A number in the unit, none, k or M, that suits numbers as large as `largest`. */
static void report_number(char *text, size_t size, double value, double largest) {
    if (fabs(value) < 1e-12) snprintf(text, size, "0");
    else if (largest >= 1e6) snprintf(text, size, "%.4gM", value / 1e6);
    else if (largest >= 1e4) snprintf(text, size, "%.4gk", value / 1e3);
    else snprintf(text, size, "%.4g", value);
}

/*  Grid lines and numbers of one axis. */
static void report_ticks(buffer *b, const report_axis *axis, int vertical) {
    double value, end = axis->high * (1 + 1e-9) + 1e-300;
    char text[32];
    for (value = axis->low; value <= end; value = report_axis_next(axis, value)) {
        double at = report_axis_at(axis, value);
        report_number(text, sizeof text, value, axis->log ? value : axis->high);
        if (vertical)
            buffer_print(
                b, "<path class=\"rule\" d=\"M%d %.1fH%d\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                REPORT_LEFT, at, REPORT_WIDTH - REPORT_RIGHT, REPORT_LEFT - 8, at + 4, text);
        else
            buffer_print(
                b,
                "<path class=\"rule\" d=\"M%.1f %dV%d\"/><text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
                at, REPORT_HEIGHT - REPORT_BOTTOM, REPORT_HEIGHT - REPORT_BOTTOM + 5, at,
                REPORT_HEIGHT - REPORT_BOTTOM + 20, text);
    }
}

/* ---- 5  curves --------------------------------------------------------------------------------------------------- */

typedef struct report_series {
    const char *name;
    double *x, *y;               /* grown by report_point; values that are not finite are left out */
    int64_t count, capacity;
    int failed;
} report_series;

REPORT_API void report_series_free(report_series *series) {
    free(series->x);
    free(series->y);
    series->x = series->y = NULL;
    series->count = series->capacity = 0;
}

REPORT_API void report_point(report_series *series, double x, double y) {
    if (!(x - x == 0) || !(y - y == 0)) return;
    if (series->count == series->capacity) {
        int64_t capacity = series->capacity ? 2 * series->capacity : 64;
        double *grown_x = (double *)realloc(series->x, (size_t)capacity * sizeof *grown_x), *grown_y;
        if (grown_x) series->x = grown_x;
        grown_y = (double *)realloc(series->y, (size_t)capacity * sizeof *grown_y);
        if (grown_y) series->y = grown_y;
        if (grown_x == NULL || grown_y == NULL) {
            series->failed = 1;
            return;
        }
        series->capacity = capacity;
    }
    series->x[series->count] = x;
    series->y[series->count++] = y;
}

/*  Fits both axes to all points; 0 where there is none. */
static int report_curves_fit(const report_series *series, int n, report_axis *x, report_axis *y) {
    double low_x = 0, high_x = 0, low_y = 0, high_y = 0;
    int64_t i, seen = 0;
    int s;
    for (s = 0; s < n; s++)
        for (i = 0; i < series[s].count; i++, seen++) {
            double px = series[s].x[i], py = series[s].y[i];
            if (!seen || px < low_x) low_x = px;
            if (!seen || px > high_x) high_x = px;
            if (!seen || py < low_y) low_y = py;
            if (!seen || py > high_y) high_y = py;
        }
    if (!seen) return 0;
    report_axis_fit(x, low_x > 0 ? 0 : low_x, high_x, 7, 0);
    report_axis_fit(y, low_y, high_y, 6, 1);
    x->from = REPORT_LEFT, x->to = REPORT_WIDTH - REPORT_RIGHT;
    y->from = REPORT_HEIGHT - REPORT_BOTTOM, y->to = REPORT_TOP;
    return 1;
}

/*  Means of runs of points, so that a long series stays a small figure. */
static void report_thin(const report_series *series, int64_t most, report_series *out) {
    int64_t run = (series->count + most - 1) / most, i = 0;
    memset(out, 0, sizeof *out);
    out->name = series->name;
    while (i < series->count) {
        double x = 0, y = 0;
        int64_t k, n = series->count - i < run ? series->count - i : run;
        for (k = 0; k < n; k++, i++) x += series->x[i], y += series->y[i];
        report_point(out, x / (double)n, y / (double)n);
    }
}

/*  A line; few points are drawn as dots too. */
static void report_curve(buffer *b, const report_series *series, int colour, const report_axis *x, const report_axis *y) {
    static const char *const dashes[3] = {"", "7 4", "2 3"};
    int64_t i;
    buffer_print(
        b, "<g style=\"color:var(--s%d)\"><path class=\"line\" stroke=\"currentColor\" stroke-dasharray=\"%s\" d=\"",
        colour % 6, dashes[colour % 3]);
    for (i = 0; i < series->count; i++)
        buffer_print(b, "%s%.1f %.1f", i ? "L" : "M", report_axis_at(x, series->x[i]), report_axis_at(y, series->y[i]));
    buffer_put(b, "\"/>\n");
    for (i = 0; i < series->count && series->count <= 40; i++)
        buffer_print(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"currentColor\"/>\n",
                     report_axis_at(x, series->x[i]), report_axis_at(y, series->y[i]));
    buffer_put(b, "</g>\n");
    b->failed |= series->failed;
}

/*  The point of a series that is nearest to x, not further than half of what lies between its points, or `within` where
    they are denser; -1: there is none. */
static int64_t report_nearest(const report_series *series, double x, double within) {
    int64_t i, best = -1, last = series->count - 1;
    if (last > 0 && (series->x[last] - series->x[0]) / (double)last * 0.51 > within)
        within = (series->x[last] - series->x[0]) / (double)last * 0.51;
    for (i = 0; i < series->count; i++) {
        double off = fabs(series->x[i] - x);
        if (off > within) continue;
        within = off;
        best = i;
    }
    return best;
}

/*  The values at a place, shown while the pointer is in its part of the figure: a line each, at the upper right. */
static void report_tip(buffer *b, const report_series *series, int n, double at, double within, const report_axis *x,
                       const report_axis *y) {
    char text[32];
    int s, line = 0;
    report_number(text, sizeof text, at, at);
    buffer_print(b, "<g class=\"tip\"><path d=\"M%.1f %dV%d\"/><text x=\"%d\" y=\"%d\" text-anchor=\"end\">at %s",
                 report_axis_at(x, at), REPORT_TOP, REPORT_HEIGHT - REPORT_BOTTOM, REPORT_WIDTH - REPORT_RIGHT - 4,
                 REPORT_TOP + 14, text);
    for (s = 0; s < n; s++) {
        int64_t i = report_nearest(&series[s], at, within);
        if (i < 0) continue;
        buffer_print(b, "<tspan x=\"%d\" dy=\"1.3em\">", REPORT_WIDTH - REPORT_RIGHT - 4);
        report_escape_text(b, series[s].name);
        buffer_print(b, " %.5g</tspan>", series[s].y[i]);
        line++;
    }
    buffer_put(b, "</text>");
    for (s = 0; s < n && line; s++) {
        int64_t i = report_nearest(&series[s], at, within);
        if (i >= 0)
            buffer_print(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" style=\"fill:var(--s%d)\"/>",
                         report_axis_at(x, series[s].x[i]), report_axis_at(y, series[s].y[i]), s % 6);
    }
    buffer_put(b, "</g>");
}

/*  The series with most points: it tells where values are shown. */
static const report_series *report_longest(const report_series *series, int n) {
    int s, best = 0;
    for (s = 1; s < n; s++)
        if (series[s].count > series[best].count) best = s;
    return &series[best];
}

/*  Parts of the figure, one for each point of the longest series, that show the values there. */
static void report_tips(buffer *b, const report_series *series, int n, const report_axis *x, const report_axis *y) {
    const report_series *longest = report_longest(series, n);
    double low = x->low, high;
    int64_t i;
    for (i = 0; i < longest->count; i++, low = high) {
        double at = longest->x[i];
        high = i + 1 < longest->count ? (at + longest->x[i + 1]) / 2 : x->high;
        if (i == 0) low = at - (high - at) < x->low ? x->low : at - (high - at);
        if (i + 1 == longest->count) high = at + (at - low) > x->high ? x->high : at + (at - low);
        if (longest->count == 1) low = x->low, high = x->high;
        buffer_print(b, "<g class=\"at\" tabindex=\"-1\"><rect class=\"hit\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\"/>",
                     report_axis_at(x, low), REPORT_TOP, report_axis_at(x, high) - report_axis_at(x, low),
                     REPORT_HEIGHT - REPORT_BOTTOM - REPORT_TOP);
        report_tip(b, series, n, at, high - low > 0 ? high - low : 1, x, y);
        buffer_put(b, "</g>\n");
    }
}

/*  The same values as a table in a fold: for screen readers, for paper, for copying. */
static void report_values(report *page, const char *title, const char *x_label, const report_series *series, int n) {
    enum { MOST = 25 };
    buffer *b = &page->html;
    const report_series *longest = report_longest(series, n);
    int64_t rows = longest->count < MOST ? longest->count : MOST, r, i;
    int s;
    buffer_put(b, "<details><summary>Values</summary>\n");
    report_table_begin(page, title, "");
    buffer_put(b, "<th scope=\"col\">");
    report_escape_text(b, x_label);
    buffer_put(b, "</th>");
    for (s = 0; s < n; s++) {
        buffer_put(b, "<th scope=\"col\">");
        report_escape_text(b, series[s].name);
        buffer_put(b, "</th>");
    }
    buffer_put(b, "</tr></thead>\n<tbody>\n");
    for (r = 0; r < rows; r++) {
        double at = longest->x[rows > 1 ? r * (longest->count - 1) / (rows - 1) : 0];
        buffer_print(b, "<tr><th scope=\"row\">%.6g</th>", at);
        for (s = 0; s < n; s++) {
            i = report_nearest(&series[s], at, longest->count > 1 ? longest->x[1] - longest->x[0] : 1);
            if (i >= 0) buffer_print(b, "<td>%.5g</td>", series[s].y[i]);
            else buffer_put(b, "<td></td>");
        }
        buffer_put(b, "</tr>\n");
    }
    buffer_put(b, "</tbody>\n</table></div></details>\n");
}

static void report_legend(buffer *b, const report_series *series, int n) {
    int s;
    buffer_put(b, "<p class=\"legend\">");
    for (s = 0; s < n; s++) {
        buffer_print(b, "<span><span aria-hidden=\"true\" style=\"color:var(--s%d)\">%s</span> ", s % 6,
                     s % 3 == 0 ? "&#9473;&#9473;" : s % 3 == 1 ? "&#9477;&#9477;" : "&#8943;");
        report_escape_text(b, series[s].name);
        buffer_put(b, "</span>");
    }
    buffer_put(b, "</p>\n");
}

static void report_plot(buffer *b, const char *title, const char *x_label, const char *y_label, const report_series *series,
                        int n, const report_axis *x, const report_axis *y) {
    int s;
    buffer_print(b, "<svg class=\"plot\" viewBox=\"0 0 %d %d\" role=\"group\" aria-label=\"", REPORT_WIDTH, REPORT_HEIGHT);
    report_escape_text(b, title);
    buffer_put(b, "; the values stand in the table below\">\n");
    report_ticks(b, x, 0);
    report_ticks(b, y, 1);
    buffer_print(b, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", (REPORT_LEFT + REPORT_WIDTH) / 2,
                 REPORT_HEIGHT - 8);
    report_escape_text(b, x_label);
    buffer_put(b, "</text><text x=\"4\" y=\"16\">");
    report_escape_text(b, y_label);
    buffer_put(b, y->log ? " (logarithmic)</text>\n" : "</text>\n");
    for (s = 0; s < n; s++) report_curve(b, &series[s], s, x, y);
    report_tips(b, series, n, x, y);
    buffer_put(b, "</svg>\n");
}

/*  Series against each other in one figure; at most REPORT_SERIES of them. */
enum { REPORT_SERIES = 8, REPORT_POINTS = 100 };
REPORT_API void report_curves(report *page, const char *title, const char *x_label, const char *y_label,
                          const report_series *all, int n) {
    buffer *b = &page->html;
    report_series series[REPORT_SERIES];
    report_axis x, y;
    int s;
    memset(&x, 0, sizeof x);
    memset(&y, 0, sizeof y);
    if (n > REPORT_SERIES || !report_curves_fit(all, n, &x, &y)) return;
    for (s = 0; s < n; s++) {
        report_thin(&all[s], REPORT_POINTS, &series[s]);
        series[s].failed |= all[s].failed;
    }
    buffer_put(b, "<figure>\n<figcaption>");
    report_escape_text(b, title);
    buffer_put(b, "</figcaption>\n");
    if (n > 1) report_legend(b, series, n);
    report_plot(b, title, x_label, y_label, series, n, &x, &y);
    report_values(page, title, x_label, series, n);
    buffer_put(b, "</figure>\n");
    for (s = 0; s < n; s++) report_series_free(&series[s]);
}

/* ---- 6  grids ---------------------------------------------------------------------------------------------------- */

/*  The name of a row or column: the embedding, then layers. */
static void report_stream_name(char *text, size_t size, const char *name, int i) {
    if (i == 0) snprintf(text, size, "embedding");
    else snprintf(text, size, "%s %d", name, i - 1);
}

/*  values[rows, columns] in 0 ... 1 as a table whose cells are the darker the larger they are; row and column 0 are the
    embedding. */
REPORT_API void report_grid(report *page, const char *caption, const char *row_name, int rows, const char *column_name,
                        int columns, const float *values) {
    buffer *b = &page->html;
    char name[64], across[64];
    int i, j;
    report_table_begin(page, caption, columns > 14 ? "grid small" : "grid");
    buffer_put(b, "<td></td>");
    for (j = 0; j < columns; j++)
        buffer_print(b, j ? "<th scope=\"col\" aria-label=\"%s %d\">%d</th>" : "<th scope=\"col\" aria-label=\"embedding\">e</th>",
                     column_name, j - 1, j - 1);
    buffer_put(b, "</tr></thead>\n<tbody>\n");
    for (i = 0; i < rows; i++) {
        report_stream_name(name, sizeof name, row_name, i);
        buffer_print(b, "<tr><th scope=\"row\">%s</th>", name);
        for (j = 0; j < columns; j++) {
            double v = (double)values[i * columns + j], shade = v < 0 ? 0 : v > 1 ? 1 : v;
            report_stream_name(across, sizeof across, column_name, j);
            buffer_print(b, "<td style=\"--v:%.2f\" title=\"%s, %s: %.3f\">%.2f</td>", shade, name, across, v, v);
        }
        buffer_put(b, "</tr>\n");
    }
    buffer_put(b, "</tbody>\n</table></div>\n");
}

/* ---- 7  heat maps ------------------------------------------------------------------------------------------------ */

#define REPORT_CELLS 96          /* a map is drawn with at most so many rows and columns */
#define REPORT_LEVELS 6          /* shades of each colour */

typedef struct report_cells {
    int64_t rows, cols;
    float most;                  /* largest absolute value */
    float value[REPORT_CELLS][REPORT_CELLS]; /* of each block of the map the entry that is largest in absolute value */
} report_cells;

static void report_cells_add(report_cells *cells, const lemon_map *map, int64_t row, int64_t col, float value) {
    float *cell;
    if (col < 0 || col >= map->teacher || !(value - value == 0)) return;
    cell = &cells->value[row * cells->rows / map->student][col * cells->cols / map->teacher];
    if (fabsf(value) > fabsf(*cell)) *cell = value;
    if (fabsf(value) > cells->most) cells->most = fabsf(value);
}

static void report_cells_from_map(report_cells *cells, const lemon_map *map) {
    int64_t i, j;
    memset(cells, 0, sizeof *cells);
    cells->rows = map->student < REPORT_CELLS ? map->student : REPORT_CELLS;
    cells->cols = map->teacher < REPORT_CELLS ? map->teacher : REPORT_CELLS;
    for (i = 0; i < map->student; i++)
        for (j = 0; j < map->field; j++)
            report_cells_add(cells, map, i, map->index ? map->index[i * map->field + j] : j,
                             map->value[i * map->field + j]);
}

/*  -REPORT_LEVELS ... REPORT_LEVELS; square roots, so that small values show. */
static int report_level(const report_cells *cells, int64_t row, int64_t col) {
    float value = cells->value[row][col];
    int level = cells->most > 0 ? (int)(sqrtf(fabsf(value) / cells->most) * REPORT_LEVELS + 0.5f) : 0;
    return value < 0 ? -level : level;
}

/*  All cells of one colour as one path: a horizontal stroke, one cell thick, for each run of them. */
static void report_cells_path(buffer *b, const report_cells *cells, int level) {
    int64_t row, col;
    int any = 0;
    for (row = 0; row < cells->rows; row++)
        for (col = 0; col < cells->cols; col++) {
            int64_t start = col;
            while (col < cells->cols && report_level(cells, row, col) == level) col++;
            if (col == start) continue;
            if (!any) buffer_print(b, "<path class=\"%s\" stroke-opacity=\"%.2f\" d=\"", level < 0 ? "minus" : "plus",
                                   fabs((double)level) / REPORT_LEVELS);
            buffer_print(b, "M%d %dh%d", (int)start, (int)row, (int)(col - start));
            any = 1;
        }
    if (any) buffer_put(b, "\"/>\n");
}

/*  One map: a row for each channel of the student, a column for each of the teacher. */
static void report_map(report *page, const lemon_map *map, const char *caption) {
    buffer *b = &page->html;
    report_cells *cells = (report_cells *)malloc(sizeof *cells);
    int64_t scale;
    int level;
    if (cells == NULL) {
        b->failed = 1;
        return;
    }
    report_cells_from_map(cells, map);
    scale = 288 / (cells->cols > cells->rows ? cells->cols : cells->rows);
    scale = scale < 1 ? 1 : scale > 20 ? 20 : scale;
    buffer_print(
        b, "<figure>\n<svg class=\"map\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\" aria-label=\"",
        (int)cells->cols, (int)cells->rows, (int)(cells->cols * scale), (int)(cells->rows * scale));
    report_escape_text(b, caption);
    buffer_put(b, "\"><title>");
    report_escape_text(b, caption);
    buffer_put(b, "</title>\n<g transform=\"translate(0 .5)\">\n");
    for (level = -REPORT_LEVELS; level <= REPORT_LEVELS; level++)
        if (level) report_cells_path(b, cells, level);
    buffer_put(b, "</g></svg>\n<figcaption>");
    report_escape_text(b, caption);
    buffer_print(b, "<br>student %lld &times; teacher %lld, ", (long long)map->student, (long long)map->teacher);
    if (map->index) buffer_print(b, "%lld in each field, ", (long long)map->field);
    buffer_print(b, "largest %.3g</figcaption>\n</figure>\n", (double)cells->most);
    free(cells);
}

/* ---- 8  operators ------------------------------------------------------------------------------------------------ */

/*  The layer operator as a map: which teacher layers each student layer draws on. */
static void report_layers(report *page, const lemon_operators *operators) {
    lemon_map map;
    memset(&map, 0, sizeof map);
    map.student = operators->student.n_layers;
    map.teacher = operators->teacher.n_layers;
    map.field = operators->slots;
    map.index = operators->layer;
    map.value = operators->layer_weight;
    if (map.index && map.value) report_map(page, &map, "layer operator: rows are layers of the student");
}

/*  A map of the set, if it is there and its slot has one of its own. */
static void report_place(report *page, const lemon_operators *operators, lemon_place place, int64_t layer,
                         int64_t slot) {
    const lemon_map *map = lemon_operators_map(operators, place, layer, slot);
    char caption[128];
    int64_t source = layer * operators->slots + slot;
    if (map == NULL || map->value == NULL || map->student < 1 || map->field < 1) return;
    if (slot > 0 && map == lemon_operators_map(operators, place, layer, 0)) return;
    if (place <= LEMON_AT_READ_OUTPUT) snprintf(caption, sizeof caption, "%s", lemon_place_name(place));
    else snprintf(caption, sizeof caption, "%s, layer %lld from teacher layer %lld", lemon_place_name(place),
                  (long long)layer, (long long)operators->layer[source]);
    report_map(page, map, caption);
}

static void report_operators_layer(report *page, const lemon_operators *operators, int64_t layer) {
    int64_t slot;
    int place;
    buffer_print(&page->html, "<details class=\"fold\"%s><summary>Layer %lld of the student</summary>\n<div class=\"maps\">\n",
                 layer == 0 ? " open" : "", (long long)layer);
    for (slot = 0; slot < operators->slots; slot++)
        for (place = LEMON_AT_READ_OUTPUT + 1; place < LEMON_PLACE_COUNT; place++)
            if (operators->layer[layer * operators->slots + slot] >= 0)
                report_place(page, operators, (lemon_place)place, layer, slot);
    buffer_put(&page->html, "</div></details>\n");
}

/*  How much a student head takes from each teacher head, by the squares of its map's coefficients: the heads that make up
    more than a tenth of it, the largest first, joined by "+"; at most four. */
static void report_add_head(buffer *b, const lemon_map *map, int64_t head, int64_t dim, int64_t teacher_dim) {
    double share[4096], all = 0;
    int64_t heads = map->teacher / teacher_dim, i, f, shown;
    if (heads > 4096 || heads < 1) return;
    memset(share, 0, (size_t)heads * sizeof *share);
    for (i = head * dim; i < (head + 1) * dim && i < map->student; i++)
        for (f = 0; f < map->field; f++) {
            int64_t from = (map->index ? map->index[i * map->field + f] : f) / teacher_dim;
            double value = (double)map->value[i * map->field + f];
            if (from < heads) share[from] += value * value, all += value * value;
        }
    for (shown = 0; shown < 4 && all > 0; shown++) {
        int64_t best = 0;
        for (i = 1; i < heads; i++)
            if (share[i] > share[best]) best = i;
        if (share[best] < 0.1 * all) break;
        buffer_print(b, "%s%d", shown ? "+" : head ? ", " : "", (int)best);
        share[best] = -1;
    }
}

static void report_add_heads(buffer *b, const lemon_operators *o, lemon_place place, int64_t layer, int64_t heads) {
    const lemon_map *map = lemon_operators_map(o, place, layer, 0);
    int64_t h;
    for (h = 0; map && map->value && h < heads; h++)
        report_add_head(b, map, h, o->student.head_dim, o->teacher.head_dim);
    buffer_add(b, "", 1);
}

/*  A row for each student layer: where it and its heads come from, how alike its stream is to that of the last teacher layer it
    answers for (cka [Ls + 1, Lt + 1], or NULL), what of that is lost (error [Ls + 1], or NULL). */
REPORT_API void report_layer_table(report *page, const lemon_operators *o, const float *cka, const float *error) {
    static const char *const columns[] = {"student layer", "teacher layers", "query heads", "key-value heads", "neurons",
                                          "CKA", "error"};
    enum { N = 7 };
    int64_t n = o->student.n_layers, i, k, at;
    buffer text;
    const char **cells = (const char **)malloc((size_t)(n * N) * sizeof *cells);
    memset(&text, 0, sizeof text);
    for (i = 0; i < n; i++) {
        int64_t end = i + 1 < n ? o->layer[(i + 1) * o->slots] : o->teacher.n_layers, any = 0;
        buffer_print(&text, "%d", (int)i);
        buffer_add(&text, "", 1);
        for (k = 0; k < o->slots; k++)
            if (o->layer[i * o->slots + k] >= 0 && fabsf(o->layer_weight[i * o->slots + k]) > 0)
                buffer_print(&text, "%s%d", any++ ? ", " : "", (int)o->layer[i * o->slots + k]);
        if (end - 1 > o->layer[i * o->slots] && any == 1) buffer_print(&text, " (for %d to %d)", (int)o->layer[i * o->slots], (int)end - 1);
        buffer_add(&text, "", 1);
        report_add_heads(&text, o, LEMON_AT_QUERY, i, o->student.n_heads);
        report_add_heads(&text, o, LEMON_AT_KEY, i, o->student.kv_heads);
        buffer_print(&text, "%d of %d", (int)o->student.d_ffn, (int)o->teacher.d_ffn);
        buffer_add(&text, "", 1);
        if (cka && end >= 0) buffer_print(&text, "%.3f", (double)cka[(i + 1) * (o->teacher.n_layers + 1) + end]);
        buffer_add(&text, "", 1);
        if (error) buffer_print(&text, "%.3f", (double)error[i + 1]);
        buffer_add(&text, "", 1);
    }
    for (i = at = 0; cells && !text.failed && i < n * N; i++) {
        cells[i] = text.text + at;
        at += (int64_t)strlen(cells[i]) + 1;
    }
    if (cells && !text.failed)
        report_table(page, "Where the layers and heads come from: the teacher's, counted from 0, in the order of the student's. "
                     "CKA and error compare what leaves the student's layer with what leaves the last teacher layer that it "
                     "answers for; error is the part of the teacher's stream, carried over, that is not there.",
                     columns, N, cells, (int)n);
    page->html.failed |= text.failed | (cells == NULL);
    free((void *)cells);
    buffer_free(&text);
}

/*  All operators of a set as heat maps, those of the layers in a fold for each. */
REPORT_API void report_operators(report *page, const lemon_operators *operators) {
    int64_t layer;
    int place;
    report_heading(page, "Operators");
    report_text(
        page,
        "Method %s. Every matrix of the student is the sum over teacher layers of weight %s Out %s W %s In; these "
        "are its Out (write) and In (read) maps: one row for each channel of the student, one column for each "
        "of the teacher, red positive, blue negative, strength by the square root of the value; a cell "
        "of a large map shows its block's largest value. The map called residual says what a channel of the stream "
        "becomes, gain the same of the norms' gains; query, key, value and ffn say which heads and neurons are there; "
        "those called read say what attention, the feed-forward block, the output matrix, heads and neurons are read by.",
        operators->method, "\xC3\x97", "\xC2\xB7", "\xC2\xB7");
    buffer_put(&page->html, "<div class=\"maps\">\n");
    report_layers(page, operators);
    for (place = 0; place <= LEMON_AT_READ_OUTPUT; place++) report_place(page, operators, (lemon_place)place, 0, 0);
    buffer_put(&page->html, "</div>\n");
    for (layer = 0; layer < operators->student.n_layers; layer++) report_operators_layer(page, operators, layer);
}

#endif /* REPORT_H */
