/*  gemm_bench.h - what the parts of the GEMM benchmark share; gemm.c explains how to read what it prints.

        gemm.c         the command line, the rounds, the order of things
        gemm_peers.c   finding the peers' libraries and their fastest setting
        gemm_child.c   a process for each library and thread count, and what is measured in it
        gemm_limits.c  the machine's limits (measured by limits.c), and which of them bounds a product
        gemm_report.c  table, summary, CSV
        gemm_svg.c     the roofline plot  */
#ifndef GEMM_BENCH_H
#define GEMM_BENCH_H
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include "limits.h"
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

enum { LAYOUTS = 3, ISAS = LEMON_ISA_NEON + 1, FILE_BYTES = 256, TEXT_BYTES = 512 };
enum { FEW_ROWS = 8 };           /* products of so few rows may be bound by the reading of B */
enum { LEVEL_L2, LEVEL_L3, LEVEL_DRAM, LEVELS };
enum { LEMON, OPENBLAS, BLIS, ONEDNN, LIBRARIES, MACHINE = LIBRARIES };    /* MACHINE: a child without a library */

extern const char *const layout_names[LAYOUTS], *const library_names[LIBRARIES], *const level_names[LEVELS];

typedef struct shape { int64_t m, n, k; } shape;

double shape_flop(shape s);
double shape_bytes(shape s);     /* A, B and C once each: what any product must at least move */

/* ---- children: what is asked of them through a pipe, and what they answer ---- */

typedef enum task { DO_PRODUCT, DO_PEAK, DO_READ } task;

typedef struct request {
    task what;
    shape size;
    int layout, threads;
    lemon_isa isa;               /* DO_PEAK, DO_READ: the loop */
    size_t bytes;                /* DO_READ */
    double seconds;              /* at least so long */
} request;

typedef struct answer {
    int ok;                      /* 0: text says why not */
    double best, mean;           /* GFLOP/s, or GB/s of DO_READ */
    double error;                /* of elements of C against a sum in double, as a share of the sum of magnitudes */
    lemon_isa isa;               /* the first answer of lemon's child: what it works with */
    char text[TEXT_BYTES];       /* the first answer: library, version, kernel */
} answer;

/*  A library file and one setting of its environment. */
typedef struct candidate {
    int library;
    char file[FILE_BYTES];
    const char *variable, *value;                  /* NULL: the library chooses its kernel */
} candidate;

typedef struct child {
    pid_t pid;                   /* 0: there is none */
    int to, from;
    lemon_isa isa;
    char text[TEXT_BYTES];
} child;

/*  Starts a process that loads the library and waits, stopped, for requests.  0: it could not be loaded. */
int child_open(child *c, const candidate *what, int threads);
int child_ask(child *c, const request *r, answer *a);      /* 0: a->text says why */
void child_close(child *c);
pid_t spin_start(void); /* a process that does nothing, as fast as it can; -1: there is none */
void spin_pause(pid_t pid, int pause);
void spin_end(pid_t pid);

/*  Child of the library's file and setting that is the fastest at 512^3; 0 where it is not installed. */
int peer_open(child *c, int library, int threads, int avx2_only);
const char *peer_packages(int library);                    /* what Debian calls it */

/* ---- limits ---- */

typedef struct limits {
    size_t cache[2];                               /* bytes of L2 (of a core) and L3 */
    double peak[ISAS][MAX_THREADS];                /* GFLOP/s; 0: this CPU has no such ISA */
    double read[LEVELS][MAX_THREADS];              /* GB/s */
} limits;

int limits_measure(limits *x, child *machine, lemon_isa isa);               /* the whole, through that child */
int limits_level(const limits *x, shape s);                                 /* where B lies */
/*  GFLOP/s that no product can exceed; read: GB/s that were measured with memory as large as B, 0: not measured. */
double limits_of(const limits *x, shape s, lemon_isa isa, int threads, double read);

/* ---- results ---- */

typedef struct cell {
    shape size;
    int layout, threads;
    double gflops[LIBRARIES], error[LIBRARIES];    /* 0: not measured */
    double limit;
} cell;

typedef struct results {
    lemon_isa isa;
    limits machine;
    const cell *cells;
    int count, max_threads;
    int present[LIBRARIES];
} results;

double cell_best_peer(const cell *c);              /* 0: no peer */
void report_limits(const results *r);
void report_head(const results *r, int threads);
void report_row(const results *r, const cell *c);
void report_summary(const results *r);
int report_csv(const results *r, const char *path);        /* 0: could not be written */
int report_svg(const results *r, const char *path);
#endif
