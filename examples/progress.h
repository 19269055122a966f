/*  progress.h - shows where long work stands, and lets Ctrl-C end it in good order.
    For the programs in this folder; include it after lemon.h.

    On a terminal one line is drawn again and again:

        lemon: train [##########..........]  52%  12.1/s  loss 3.2141  0:41 left

    elsewhere a plain line comes every few seconds.  All of it goes to stderr.

        progress bar;
        progress_begin(&bar, quiet);
        options.user = &bar;
        options.progress = progress_callback;      (the bar must live as long as the context)
        ...
        progress_clear(&bar);                      (before anything else is printed) */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef _WIN32
#include <io.h>
#else
#include <unistd.h>
#endif

#define PROGRESS_EVERY 2.0       /* seconds between plain lines */
#define PROGRESS_WIDTH 79        /* columns of the line on a terminal */
#define PROGRESS_BAR 20          /* columns of the bar in it */
#define PROGRESS_PIECES 8        /* kinds of work that are told apart */

/*  A piece of work: pieces may take turns (training and the evaluations in it), each with its own clock. */
typedef struct progress_piece {
    char what[24];
    int64_t first, done;         /* where it stood when first seen (resumed work does not begin at 0), and last */
    double clock, worked;        /* the library's seconds, last seen; seconds of work since it was first seen */
} progress_piece;

typedef struct progress {
    int quiet, terminal;
    int drawn;                   /* a line stands on the terminal that must be cleared */
    const char *label;           /* put before what is being done; NULL: nothing */
    progress_piece piece[PROGRESS_PIECES];
    int current, count;          /* the piece that works now; how many are known */
    double seconds;              /* the library's clock of the current piece */
    double waited, printed;      /* seconds of work in all; the same at the last plain line */
} progress;

/* ---- Ctrl-C ------------------------------------------------------------------------------------------------------ */

static volatile sig_atomic_t progress_interrupted = 0;

static time_t progress_since;    /* the first signal's time */

/*  The first Ctrl-C asks the library to stop at the next good place; another one, more than a second later, ends the
    program at once.  Those that come together are one: timeout(1) signals the program and then its group. */
static void progress_on_signal(int number) {
    time_t now = time(NULL);
    if (!progress_interrupted) progress_since = now;
    progress_interrupted = 1;
    if (now <= progress_since + 1) return;
    signal(number, SIG_DFL);
    raise(number);
}

/*  Is there a terminal behind a file descriptor, and one that can do more than print? */
static int progress_terminal(int descriptor) {
#ifdef _WIN32
    return _isatty(descriptor);
#else
    const char *kind = getenv("TERM");
    return isatty(descriptor) && kind && strcmp(kind, "dumb") != 0;
#endif
}

static void progress_begin(progress *bar, int quiet) {
    memset(bar, 0, sizeof *bar);
    bar->quiet = quiet;
    bar->terminal = progress_terminal(2);
    signal(SIGINT, progress_on_signal);
    signal(SIGTERM, progress_on_signal);
}

/* ---- one line of text -------------------------------------------------------------------------------------------- */

typedef struct progress_line { char text[160]; size_t length; } progress_line;

static void progress_add(progress_line *line, const char *text) {
    while (*text && line->length + 1 < sizeof line->text) line->text[line->length++] = *text++;
    line->text[line->length] = 0;
}

static void progress_add_bar(progress_line *line, double share) {
    int i;
    progress_add(line, " [");
    for (i = 0; i < PROGRESS_BAR; i++) progress_add(line, i < (int)(share * PROGRESS_BAR) ? "#" : ".");
    progress_add(line, "]");
}

static void progress_add_time(progress_line *line, double seconds) {
    char text[48];
    long whole = seconds < 1e8 ? (long)(seconds + 0.5) : 99999999;
    if (whole >= 3600) snprintf(text, sizeof text, "  %ld:%02ld:%02ld left", whole / 3600, whole / 60 % 60, whole % 60);
    else snprintf(text, sizeof text, "  %ld:%02ld left", whole / 60, whole % 60);
    progress_add(line, text);
}

/*  Units of work a second since this piece was first seen; 0 while that is not known. */
static double progress_rate(const progress_piece *piece) {
    int64_t done = piece->done - piece->first;
    return piece->worked > 0.05 && done > 0 ? (double)done / piece->worked : 0;
}

static void progress_compose(const progress *bar, const lemon_progress *now, progress_line *line) {
    char text[64];
    const progress_piece *piece = &bar->piece[bar->current];
    double rate = progress_rate(piece);
    int known = now->total > 0;
    double share = known ? (double)now->done / (double)now->total : 0;
    if (bar->label) progress_add(line, bar->label), progress_add(line, ": ");
    progress_add(line, piece->what);
    if (known && bar->terminal) progress_add_bar(line, share < 0 ? 0 : share > 1 ? 1 : share);
    if (known && bar->terminal) snprintf(text, sizeof text, " %3.0f%%", 100 * share);
    else if (known) snprintf(text, sizeof text, "  %lld of %lld", (long long)now->done, (long long)now->total);
    else snprintf(text, sizeof text, "  %lld", (long long)now->done);
    progress_add(line, text);
    if (rate > 0) snprintf(text, sizeof text, rate < 100 ? "  %.1f/s" : "  %.0f/s", rate), progress_add(line, text);
    if (now->loss == now->loss) snprintf(text, sizeof text, "  loss %.4f", now->loss), progress_add(line, text);
    if (known && rate > 0 && now->done < now->total) progress_add_time(line, (double)(now->total - now->done) / rate);
}

/* ---- showing it -------------------------------------------------------------------------------------------------- */

/*  The piece of that name; a new one where there is none, in place of the last when all places are taken. */
static progress_piece *progress_find(progress *bar, const char *what) {
    progress_piece *piece;
    for (bar->current = 0; bar->current < bar->count; bar->current++)
        if (strncmp(bar->piece[bar->current].what, what, sizeof bar->piece[0].what - 1) == 0)
            return &bar->piece[bar->current];
    if (bar->count < PROGRESS_PIECES) bar->count++;
    bar->current = bar->count - 1;
    piece = &bar->piece[bar->current];
    memset(piece, 0, sizeof *piece);
    snprintf(piece->what, sizeof piece->what, "%s", what);
    piece->done = INT64_MAX;
    return piece;
}

/*  Notes which piece of work this is and what time has gone by.  A piece that falls back has begun anew. */
static void progress_note(progress *bar, const lemon_progress *now) {
    int before = bar->current;
    progress_piece *piece = progress_find(bar, now->what ? now->what : "work");
    double more = now->seconds - (bar->current == before && now->seconds >= piece->clock ? piece->clock : 0);
    if (now->done < piece->done) {
        piece->first = now->done;
        piece->worked = 0;
    } else {
        piece->worked += more;
    }
    piece->done = now->done;
    piece->clock = bar->seconds = now->seconds;
    bar->waited += more;
}

/*  Takes the line off the terminal, so that something else can be printed. */
static void progress_clear(progress *bar) {
    if (bar->drawn) fputs("\r\033[K", stderr), fflush(stderr);
    bar->drawn = 0;
}

static void progress_show(progress *bar, const lemon_progress *now) {
    progress_line line;
    memset(&line, 0, sizeof line);
    progress_note(bar, now);
    if (bar->quiet || (!bar->terminal && bar->waited - bar->printed < PROGRESS_EVERY)) return;
    progress_compose(bar, now, &line);
    if (bar->terminal) {
        line.text[PROGRESS_WIDTH] = 0;
        fprintf(stderr, "\r%s\033[K", line.text);
        bar->drawn = 1;
    } else {
        fprintf(stderr, "%s\n", line.text);
        bar->printed = bar->waited;
    }
    fflush(stderr);
}

/*  For lemon_options: user is the progress. */
static int progress_callback(void *user, const lemon_progress *now) {
    progress_show((progress *)user, now);
    return progress_interrupted != 0;
}

#endif /* PROGRESS_H */
