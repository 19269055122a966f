/*  gemm_peers.c - the libraries that lemon is compared with, each at its best: every build of it that Debian has and
    every kernel set that might suit this CPU is tried on 512^3, and the fastest is kept.  */
#include "gemm_bench.h"
#include <glob.h>
#include <stdlib.h>
#include <string.h>

enum { FILES = 4, SETTINGS = 5, MAX_CANDIDATES = 32, ROUNDS = 3 };

typedef struct peer {
    const char *packages, *files[FILES];           /* patterns; then what the loader finds by itself */
    const char *variable;                          /* of the environment, chooses the kernels */
    const char *any[SETTINGS], *avx2[SETTINGS];    /* "": not set, the library chooses */
} peer;

/*  Old releases know no newer CPU, so they are told what it can do; a setting that the CPU or the build can't do
    ends the child, and so itself. */
static const peer peers[LIBRARIES] = {
    {NULL, {NULL}, NULL, {NULL}, {NULL}},
    {"libopenblas0-pthread libopenblas0-openmp",
     {"/usr/lib/*/openblas-pthread/libopenblas.so.0", "/usr/lib/*/openblas-openmp/libopenblas.so.0",
      "libopenblas.so.0"},
     "OPENBLAS_CORETYPE",
     {"", "SkylakeX", "Cooperlake", "Zen", "Haswell"},
     {"Haswell", "Zen"}},
    {"libblis4-openmp libblis4-pthread",
     {"/usr/lib/*/blis-openmp/libblis.so.4", "/usr/lib/*/blis-pthread/libblis.so.4", "libblis.so.4"},
     "BLIS_ARCH_TYPE",
     {"", "skx", "zen3", "zen2", "haswell"},
     {"haswell", "zen", "zen2", "zen3"}},
    {"libdnnl3 (or libdnnl2)",
     {"/usr/lib/*/libdnnl.so.3", "/usr/lib/*/libdnnl.so.2", "libdnnl.so.3", "libdnnl.so.2"},
     "DNNL_MAX_CPU_ISA",
     {""},
     {"AVX2"}}};

const char *peer_packages(int library) { return peers[library].packages; }

/*  The files that are there; one of the loader's own only where no pattern fits. */
static int files_find(const peer *p, char found[FILES][FILE_BYTES]) {
    int i, count = 0;
    for (i = 0; i < FILES && p->files[i]; i++) {
        glob_t g;
        if (p->files[i][0] == '/') {
            if (glob(p->files[i], 0, NULL, &g) == 0) {
                snprintf(found[count++], FILE_BYTES, "%s", g.gl_pathv[0]);
                globfree(&g);
            }
        } else if (count == 0) snprintf(found[count++], FILE_BYTES, "%s", p->files[i]);
    }
    return count;
}

static int candidates_open(child *c, int library, int threads, int avx2_only) {
    const peer *p = &peers[library];
    const char *const *values = avx2_only ? p->avx2 : p->any;
    char files[FILES][FILE_BYTES];
    int f, v, count = 0, found = files_find(p, files);
    for (f = 0; f < found; f++)
        for (v = 0; v < SETTINGS && values[v] && count < MAX_CANDIDATES; v++) {
            candidate x;
            memset(&x, 0, sizeof x);
            x.library = library;
            memcpy(x.file, files[f], sizeof x.file);
            if (values[v][0]) x.variable = p->variable, x.value = values[v];
            count += child_open(&c[count], &x, threads);
        }
    return count;
}

/*  The best rate of each in rounds; the index of the fastest, -1: none works. */
static int candidates_race(child *c, int count) {
    double best = 0;
    int i, round, winner = -1;
    request r;
    answer a;
    memset(&r, 0, sizeof r);
    r.what = DO_PRODUCT, r.size.m = r.size.n = r.size.k = 512, r.seconds = 0.03;
    for (round = 0; round < ROUNDS; round++)
        for (i = 0; i < count; i++) {
            if (c[i].pid == 0) continue;
            if (!child_ask(&c[i], &r, &a)) child_close(&c[i]);
            else if (a.error < 1e-5 && a.best > best) best = a.best, winner = i;
        }
    return winner >= 0 && c[winner].pid ? winner : -1;
}

int peer_open(child *c, int library, int threads, int avx2_only) {
    child all[MAX_CANDIDATES];
    int i, count = candidates_open(all, library, threads, avx2_only), winner = candidates_race(all, count);
    memset(c, 0, sizeof *c);
    for (i = 0; i < count; i++) {
        if (i == winner) *c = all[i];
        else child_close(&all[i]);
    }
    return winner >= 0;
}
