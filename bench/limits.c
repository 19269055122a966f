/*  limits.c - what the machine can do at best: multiply-adds that stay in registers, and loads that do nothing
    with what they load.  Threads run at the same time, each on its own numbers.  */
#include "limits.h"
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define CHAINS 12                /* independent sums: x86 cores need 8 to 10 (latency 4 or 5, two a cycle) */
#define PEAK_ROUNDS 20000        /* some 30 microseconds: the clock is looked at between passes */

/* ---- loops: a pass multiplies and adds PEAK_ROUNDS times, or reads `bytes` (a multiple of 1024) ---- */

#define EACH_CHAIN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define EACH_LOAD(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)

/*  Chains of x = x * a + a, which tend to 1, so no number gets slow. */
#define PEAK_LOOP(NAME, TARGET, VECTOR, SET, FMA, ADD, STORE) \
    TARGET static float NAME(void) { \
        VECTOR a = SET(0.5f), x[CHAINS]; \
        float out[16]; \
        int i, k; \
        for (k = 0; k < CHAINS; k++) x[k] = SET((float)k); \
        for (i = 0; i < PEAK_ROUNDS; i++) { EACH_CHAIN(FMA) } \
        for (k = 0; k < CHAINS; k++) a = ADD(a, x[k]); \
        STORE(out, a); \
        return out[0]; \
    }

/*  Eight independent sums of whole numbers.  AHEAD is a statement that may ask for what comes later. */
#define READ_LOOP(NAME, TARGET, VECTOR, ZERO, LOAD, ADD, STORE, AHEAD) \
    TARGET static float NAME(const char *p, size_t bytes) { \
        VECTOR x[8] = {ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO}; \
        const char *const end = p + bytes; \
        int32_t out[16]; \
        int k; \
        for (; p < end; p += 8 * sizeof(VECTOR)) { EACH_LOAD(LOAD) AHEAD } \
        for (k = 1; k < 8; k++) x[0] = ADD(x[0], x[k]); \
        STORE(out, x[0]); \
        return (float)out[0]; \
    }

/*  A prefetch 2 KiB ahead helps where the hardware's own is too short (L3, DRAM), and hurts in L2: both are tried. */
#define LINE(i) __builtin_prefetch(p + 2048 + 64 * (i));
#define TWO_LINES LINE(0) LINE(1)
#define FOUR_LINES TWO_LINES LINE(2) LINE(3)
#define EIGHT_LINES FOUR_LINES LINE(4) LINE(5) LINE(6) LINE(7)

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
#define FMA256(i) x[i] = _mm256_fmadd_ps(x[i], a, a);
#define FMA512(i) x[i] = _mm512_fmadd_ps(x[i], a, a);
#define LOAD256(i) x[i] = _mm256_add_epi32(x[i], _mm256_load_si256((const __m256i *)(const void *)(p + 32 * (i))));
#define LOAD512(i) x[i] = _mm512_add_epi32(x[i], _mm512_load_si512((const void *)(p + 64 * (i))));
#define STORE256(out, v) _mm256_storeu_si256((__m256i *)(void *)(out), v)
#define STORE512(out, v) _mm512_storeu_si512((void *)(out), v)
#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f")))
PEAK_LOOP(peak_avx2, AVX2, __m256, _mm256_set1_ps, FMA256, _mm256_add_ps, _mm256_storeu_ps)
PEAK_LOOP(peak_avx512, AVX512, __m512, _mm512_set1_ps, FMA512, _mm512_add_ps, _mm512_storeu_ps)
READ_LOOP(read_avx2, AVX2, __m256i, _mm256_setzero_si256(), LOAD256, _mm256_add_epi32, STORE256, )
READ_LOOP(ahead_avx2, AVX2, __m256i, _mm256_setzero_si256(), LOAD256, _mm256_add_epi32, STORE256, FOUR_LINES)
READ_LOOP(read_avx512, AVX512, __m512i, _mm512_setzero_si512(), LOAD512, _mm512_add_epi32, STORE512, )
READ_LOOP(ahead_avx512, AVX512, __m512i, _mm512_setzero_si512(), LOAD512, _mm512_add_epi32, STORE512, EIGHT_LINES)
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#define FMA128(i) x[i] = vfmaq_f32(a, x[i], a);
#define LOAD128(i) x[i] = vaddq_s32(x[i], vld1q_s32((const int32_t *)(const void *)(p + 16 * (i))));
PEAK_LOOP(peak_neon, , float32x4_t, vdupq_n_f32, FMA128, vaddq_f32, vst1q_f32)
READ_LOOP(read_neon, , int32x4_t, vdupq_n_s32(0), LOAD128, vaddq_s32, vst1q_s32, )
READ_LOOP(ahead_neon, , int32x4_t, vdupq_n_s32(0), LOAD128, vaddq_s32, vst1q_s32, TWO_LINES)
#endif

/*  For every other CPU, and for LEMON_ISA=scalar: what the compiler makes of plain C.  Returns with PEAK_ROUNDS
    multiply-adds in each of 48 lanes. */
enum { PLAIN_LANES = 48 };
static float peak_plain(void) {
    float x[PLAIN_LANES], sum = 0;
    int i, k;
    for (k = 0; k < PLAIN_LANES; k++) x[k] = (float)k;
    for (i = 0; i < PEAK_ROUNDS; i++)
        for (k = 0; k < PLAIN_LANES; k++) x[k] = x[k] * 0.5f + 0.5f;
    for (k = 0; k < PLAIN_LANES; k++) sum += x[k];
    return sum;
}

static float read_plain(const char *bytes, size_t size) {
    const uint32_t *p = (const uint32_t *)(const void *)bytes;
    uint32_t sum = 0;
    size_t i, n = size / sizeof *p;
    for (i = 0; i < n; i++) sum += p[i];
    return (float)sum;
}

static volatile float sink;      /* keeps the loops from being left out */

/*  One pass; its multiply-adds. */
static double peak_pass(lemon_isa isa) {
    double lanes = PLAIN_LANES;
#if defined(__GNUC__) && defined(__x86_64__)
    if (isa == LEMON_ISA_AVX2) return sink = peak_avx2(), 8.0 * CHAINS * PEAK_ROUNDS;
    if (isa == LEMON_ISA_AVX512) return sink = peak_avx512(), 16.0 * CHAINS * PEAK_ROUNDS;
#elif defined(__ARM_NEON) && defined(__aarch64__)
    if (isa == LEMON_ISA_NEON) return sink = peak_neon(), 4.0 * CHAINS * PEAK_ROUNDS;
#endif
    (void)isa;
    sink = peak_plain();
    return lanes * PEAK_ROUNDS;
}

static void read_pass(lemon_isa isa, int ahead, const char *p, size_t bytes) {
#if defined(__GNUC__) && defined(__x86_64__)
    if (isa == LEMON_ISA_AVX2) { sink = (ahead ? ahead_avx2 : read_avx2)(p, bytes); return; }
    if (isa == LEMON_ISA_AVX512) { sink = (ahead ? ahead_avx512 : read_avx512)(p, bytes); return; }
#elif defined(__ARM_NEON) && defined(__aarch64__)
    if (isa == LEMON_ISA_NEON) { sink = (ahead ? ahead_neon : read_neon)(p, bytes); return; }
#endif
    (void)isa;
    (void)ahead;
    sink = read_plain(p, bytes);
}

/* ---- threads: all begin at one time and go on to another; together they have done `units` of work a second ---- */

typedef struct runner {
    pthread_t thread;
    lemon_isa isa;
    char *memory;                /* NULL: the peak */
    size_t bytes;
    int ahead;                   /* with prefetches */
    double start, seconds, rate;
} runner;

static void *run(void *user) {
    runner *r = (runner *)user;
    double units = 0, t;
    if (r->memory) read_pass(r->isa, r->ahead, r->memory, r->bytes);          /* warms the caches */
    while (now() < r->start) continue;
    do {
        if (r->memory) read_pass(r->isa, r->ahead, r->memory, r->bytes), units += (double)r->bytes;
        else units += 2 * peak_pass(r->isa);
        t = now() - r->start;
    } while (t < r->seconds);
    r->rate = units / t / 1e9;
    return NULL;
}

static double run_all(runner *r, int threads, double seconds) {
    double sum = 0, start = now() + (r->memory ? 0.03 : 0.001);     /* time to warm 256 MiB */
    int i, started = 0;
    for (i = 0; i < threads; i++) r[i].start = start, r[i].seconds = seconds;
    while (started < threads && pthread_create(&r[started].thread, NULL, run, &r[started]) == 0) started++;
    for (i = 0; i < started; i++) {
        pthread_join(r[i].thread, NULL);
        sum += r[i].rate;
    }
    return started == threads ? sum : 0;
}

/*  The best of eight windows of time: another program's burst spoils one, not all. */
static double run_best(runner *r, int threads, double seconds) {
    enum { WINDOWS = 8 };
    double best = 0;
    int i, t;
    for (i = 0; i < WINDOWS; i++) {
        double rate;
        for (t = 0; t < threads; t++) r[t].ahead = i & 1;
        rate = run_all(r, threads, seconds / WINDOWS);
        if (rate > best) best = rate;
    }
    return best;
}

double limits_peak(lemon_isa isa, int threads, double seconds) {
    runner r[MAX_THREADS];
    int i;
    for (i = 0; i < threads; i++) memset(&r[i], 0, sizeof r[i]), r[i].isa = isa;
    return run_best(r, threads, seconds);
}

/*  Memory to read; it is kept for the next time.  NULL: there is none. */
static char *read_memory(size_t bytes) {
    static void *memory = NULL;
    static size_t have = 0;
    if (bytes <= have) return (char *)memory;
    free(memory);
    memory = NULL, have = 0;
    if (posix_memalign(&memory, 4096, bytes)) return NULL;
    memset(memory, 1, bytes);
    have = bytes;
    return (char *)memory;
}

/*  GB/s of all threads together; each reads `bytes`.  0: no memory. */
double limits_read(lemon_isa isa, int threads, size_t bytes, double seconds) {
    runner r[MAX_THREADS];
    char *memory;
    int i;
    bytes = (bytes + 4095) & ~(size_t)4095;
    memory = read_memory(bytes * (size_t)threads);
    if (memory == NULL) return 0;
    for (i = 0; i < threads; i++) {
        memset(&r[i], 0, sizeof r[i]);
        r[i].isa = isa, r[i].memory = memory + (size_t)i * bytes, r[i].bytes = bytes;
    }
    return run_best(r, threads, seconds);
}
