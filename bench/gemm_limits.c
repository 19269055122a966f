/*  gemm_limits.c - the limits of this machine for matrix products: what limits.c measures, in children, and which of it
    bounds a product.  */
#include "gemm_bench.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- sizes of caches, and the whole ---- */

/*  The size of the first core's data or unified cache of a level; 0: not known. */
static size_t sysfs_cache(int level) {
    char path[96], text[32];
    int i, found;
    for (i = 0; i < 8; i++) {
        FILE *f;
        unsigned long kib = 0;
        int is = 0;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/level", i);
        if ((f = fopen(path, "r")) == NULL) break;
        found = fscanf(f, "%d", &is) == 1 && is == level;
        fclose(f);
        if (!found) continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        if ((f = fopen(path, "r")) == NULL) break;
        if (fgets(text, sizeof text, f)) kib = strtoul(text, NULL, 10);
        fclose(f);
        if (kib) return (size_t)kib * 1024;
    }
    return 0;
}

/*  sysfs first: in virtual machines sysconf tells the L3 of the whole socket. */
static size_t cache_size(int level) {
    size_t bytes = sysfs_cache(level);
#ifdef _SC_LEVEL2_CACHE_SIZE
    if (bytes == 0) {
        long said = sysconf(level == 2 ? _SC_LEVEL2_CACHE_SIZE : _SC_LEVEL3_CACHE_SIZE);
        if (said > 0) bytes = (size_t)said;
    }
#endif
    return bytes ? bytes : level == 2 ? (size_t)512 << 10 : (size_t)8 << 20;
}

/*  Bytes that each thread reads: its own L2 is its own, L3 and DRAM are shared. */
static size_t read_size(const limits *x, int level, int threads) {
    size_t l3 = x->cache[1] / 2;
    if (level == LEVEL_L2) return x->cache[0] / 2;
    if (level == LEVEL_DRAM) return ((size_t)256 << 20) / (size_t)threads;
    return (l3 < (size_t)16 << 20 ? l3 : (size_t)16 << 20) / (size_t)threads;
}

static void keep_best(double *best, double rate) {
    if (rate > *best) *best = rate;
}

static int limits_threads(limits *x, child *c, lemon_isa isa, int threads) {
    request r;
    answer a;
    int i;
    memset(&r, 0, sizeof r);
    r.threads = threads, r.seconds = 0.2, r.what = DO_PEAK;
    for (i = LEMON_ISA_SCALAR; i < ISAS; i++) {
        if (!lemon_isa_supported((lemon_isa)i)) continue;
        r.isa = (lemon_isa)i;
        if (!child_ask(c, &r, &a)) return 0;
        keep_best(&x->peak[i][threads - 1], a.best);
    }
    r.what = DO_READ, r.isa = isa;
    for (i = 0; i < LEVELS; i++) {
        r.bytes = read_size(x, i, threads);
        if (!child_ask(c, &r, &a)) return 0;
        keep_best(&x->read[i][threads - 1], a.best);
    }
    return 1;
}

/*  In rounds that are seconds apart: nobody else can spoil them all in one burst. */
int limits_measure(limits *x, child *c, lemon_isa isa) {
    int round, threads, ok = 1;
    memset(x, 0, sizeof *x);
    x->cache[0] = cache_size(2), x->cache[1] = cache_size(3);
    for (round = 0; round < 3; round++)
        for (threads = 1; threads <= MAX_THREADS && ok; threads++) ok = limits_threads(x, c, isa, threads);
    return ok;
}

int limits_level(const limits *x, shape s) {
    const double b = (double)s.k * (double)s.n * 4;
    return b <= (double)x->cache[0] ? LEVEL_L2 : b <= (double)x->cache[1] ? LEVEL_L3 : LEVEL_DRAM;
}

/*  Products of few rows use each number of B only a few times: reading B is their limit. */
double limits_of(const limits *x, shape s, lemon_isa isa, int threads, double read) {
    const double peak = x->peak[isa][threads - 1], level = x->read[limits_level(x, s)][threads - 1];
    const double stream = 2.0 * (double)s.m * (read > level ? read : level) / 4;
    return s.m <= FEW_ROWS && stream > 0 && stream < peak ? stream : peak;
}
