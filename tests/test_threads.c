/*  Chapters 1 and 4: the pool and what runs on it.  Tasks run once whatever the order of jobs, a user's own threads take
    the place of ours, contexts do not disturb each other, sessions share a model, a fork does not hang, a neighbour costs
    its share and no more. */
#include "check.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/*  The thread sanitizer does not follow a fork of several threads, and makes times meaningless; so does helgrind (-DTSAN=1). */
#if defined(__SANITIZE_THREAD__)
#define TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TSAN 1
#endif
#endif
#ifndef TSAN
#define TSAN 0
#endif

/*  How much memory may come to stay; the address sanitizer holds back what is freed, to find who uses it still. */
#if defined(__SANITIZE_ADDRESS__)
enum { MAY_STAY_KB = 65536 };
#else
enum { MAY_STAY_KB = 256 };
#endif

static void nap(long microseconds) {
    struct timespec t;
    t.tv_sec = 0;
    t.tv_nsec = 1000 * microseconds;
    nanosleep(&t, NULL);
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static lemon_ctx *must_open(const lemon_options *options) {
    lemon_ctx *ctx = lemon_open(options);
    if (ctx == NULL) { printf("FAIL a context opens\n"); exit(1); }
    return ctx;
}

static lemon_ctx *open_threads(int threads) {
    lemon_options options;
    memset(&options, 0, sizeof options);
    options.threads = threads;
    return must_open(&options);
}

/* ---- some products, and the bits that one thread makes of them ---- */

enum { PRODUCTS = 6, SIDE = 400, FLOATS = 128 * 4096 };
static const int64_t sizes[PRODUCTS][3] = {
    {64, 64, 64}, {1, 1500, 300}, {300, 200, 400}, {5, 2000, 250}, {128, 129, 127}, {40, 1200, 90}
};
static float *operand_a, *operand_b, *expected[PRODUCTS];

static lemon_status product(lemon_ctx *ctx, int i, int trans_b, float *c) {
    const int64_t m = sizes[i][0], n = sizes[i][1], k = sizes[i][2];
    return lemon_sgemm(ctx, 0, trans_b, m, n, k, 1, operand_a, k, operand_b, trans_b ? k : n, 0, c, n);
}

static size_t product_bytes(int i) { return (size_t)(sizes[i][0] * sizes[i][1]) * sizeof(float); }
static float *new_floats(void) { return (float *)malloc(FLOATS * sizeof(float)); }

static void make_products(void) {
    lemon_ctx *one = open_threads(1);
    lemon_rng rng;
    int i;
    lemon_rng_seed(&rng, 1);
    fill_normal(&rng, operand_a = new_floats(), FLOATS, 1);
    fill_normal(&rng, operand_b = new_floats(), FLOATS, 1);
    for (i = 0; i < PRODUCTS; i++) product(one, i, i & 1, expected[i] = new_floats());
    lemon_close(one);
}

/*  1 if the context makes the same bits of all products, `rounds` times. */
static int same_bits(lemon_ctx *ctx, float *room, int rounds) {
    int i, ok = 1;
    while (rounds-- > 0)
        for (i = 0; i < PRODUCTS; i++) {
            memset(room, 255, product_bytes(i));
            ok &= product(ctx, i, i & 1, room) == LEMON_OK && memcmp(room, expected[i], product_bytes(i)) == 0;
        }
    return ok;
}

/* ---- the pool ---- */

/*  What tasks leave: how often each ran, and whether their workers were in range and each at one task at a time. */
typedef struct book {
    int threads, ran[1000], busy[LEMON__MAX_THREADS], bad;
} book;

static void book_task(void *arg, int64_t index, int worker) {
    book *b = (book *)arg;
    if (worker < 0 || worker >= b->threads || __atomic_exchange_n(&b->busy[worker], 1, __ATOMIC_ACQUIRE))
        __atomic_store_n(&b->bad, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&b->ran[index], 1, __ATOMIC_RELAXED);
    __atomic_store_n(&b->busy[worker], 0, __ATOMIC_RELEASE);
}

/*  Jobs of changing length follow each other at once, so that a thread which comes late to one meets the next. */
static void test_jobs(int threads) {
    static const int counts[] = {2, 3, 64, 2, 1000, 5, 4, 7};
    lemon_ctx *ctx = open_threads(threads);
    const int rounds = light() > 1 ? 60 : light() || TSAN ? 300 : 40000;
    int round, i, wrong = 0;
    char name[80];
    static book b;
    memset(&b, 0, sizeof b);
    b.threads = threads;
    for (round = 0; round < rounds; round++) {
        const int count = counts[round % 8];
        lemon__parallel(ctx, count, book_task, &b);
        for (i = 0; i < count; i++) wrong += __atomic_exchange_n(&b.ran[i], 0, __ATOMIC_RELAXED) != 1;
        for (; i < 1000; i += 97) wrong += b.ran[i] != 0;
    }
    detail("%d tasks did not run just once", wrong);
    snprintf(name, sizeof name, "jobs of changing length on %d threads: each task once", threads);
    check(wrong == 0, name);
    snprintf(name, sizeof name, "jobs of changing length on %d threads: no worker at two tasks", threads);
    check(!b.bad, name);
    lemon_close(ctx);
}

/* ---- a user's own threads ---- */

typedef void (*task_fn)(void *arg, int64_t index, int worker);
typedef struct own { int calls, threads; } own;

static void reversed(void *user, int64_t count, task_fn task, void *arg) {
    own *o = (own *)user;
    o->calls++;
    while (count-- > 0) task(arg, count, (int)(count % o->threads));
}

typedef struct share { task_fn task; void *arg; int64_t count; int worker, threads; pthread_t thread; } share;

static void *share_main(void *arg) {
    share *s = (share *)arg;
    int64_t i;
    for (i = s->worker; i < s->count; i += s->threads) s->task(s->arg, i, s->worker);
    return NULL;
}

static void by_pthreads(void *user, int64_t count, task_fn task, void *arg) {
    own *o = (own *)user;
    share s[8];
    int i;
    o->calls++;
    for (i = 0; i < o->threads; i++) {
        s[i].task = task; s[i].arg = arg; s[i].count = count; s[i].worker = i; s[i].threads = o->threads;
        if (i && pthread_create(&s[i].thread, NULL, share_main, &s[i])) { printf("FAIL a thread starts\n"); exit(1); }
    }
    share_main(&s[0]);
    for (i = 1; i < o->threads; i++) pthread_join(s[i].thread, NULL);
}

static void test_own(void (*parallel)(void *, int64_t, task_fn, void *), int threads, const char *name) {
    lemon_options options;
    lemon_ctx *ctx;
    own o;
    float *room = new_floats();
    memset(&options, 0, sizeof options);
    o.calls = 0;
    o.threads = threads;
    options.threads = threads;
    options.parallel = parallel;
    options.user = &o;
    ctx = must_open(&options);
    detail("%d threads, pool %p, %d calls", lemon_ctx_threads(ctx), (void *)ctx->pool, o.calls);
    check(same_bits(ctx, room, 3) && lemon_ctx_threads(ctx) == threads && ctx->pool == NULL &&
              (o.calls > 0) == (threads > 1),
          name);
    lemon_close(ctx);
    free(room);
}

/* ---- two contexts in two threads of the user ---- */

static void *user_main(void *ok) {
    lemon_ctx *ctx = open_threads(2);
    float *room = new_floats();
    *(int *)ok = same_bits(ctx, room, light() || TSAN ? 2 : 30) && same_bits(NULL, room, 1);
    free(room);
    lemon_close(ctx);
    return NULL;
}

static void test_users(void) {
    pthread_t thread[2];
    int ok[2] = {0, 0}, i;
    for (i = 0; i < 2; i++)
        if (pthread_create(&thread[i], NULL, user_main, &ok[i])) { printf("FAIL a thread starts\n"); exit(1); }
    for (i = 0; i < 2; i++) pthread_join(thread[i], NULL);
    check(ok[0] && ok[1], "two contexts in two user threads, and none, at once");
}

static void test_cycles(void) {
    const int cycles = light() > 1 ? 20 : light() || TSAN ? 100 : 10000;
    float *room = new_floats();
    long early = 0, late = 0;
    int i, ok = 1;
    for (i = 0; i < cycles && ok; i++) {
        lemon_ctx *ctx = open_threads(2 + i % 2);
        if (i % 3) ok = product(ctx, 0, 0, room) == LEMON_OK && memcmp(room, expected[0], product_bytes(0)) == 0;
        if (i % 7 == 0) nap(10);
        lemon_close(ctx);
        if (i == cycles / 4) early = resident_kb();
    }
    late = resident_kb();
    detail("cycle %d", i);
    check(ok, "contexts open, work and close 10,000 times");
    detail("%ld KB resident after a quarter, %ld at the end", early, late);
    check(late <= early + MAY_STAY_KB, "and memory does not grow");
    free(room);
}

/* ---- a model that is only read, by sessions in threads of the user, while another thread trains a copy ---- */

enum { READERS = 3, SESSIONS = 3, PROMPT = 12 };
static lemon_model *shared;
static int32_t prompt_ids[PROMPT + SESSIONS];
static uint32_t shared_scores, shared_weights;

/*  Sessions that take turns, each one token ahead of the one before it. */
static uint32_t scores_of_sessions(lemon_ctx *ctx) {
    lemon_session *session[SESSIONS];
    uint32_t crc = 0;
    float *logits = NULL;
    int i, turn;
    for (i = 0; i < SESSIONS; i++)
        if (lemon_session_open(ctx, shared, &session[i]) || lemon_session_feed(session[i], prompt_ids + i, PROMPT / 2, NULL)) return 0;
    for (turn = PROMPT / 2; turn < PROMPT; turn++)
        for (i = 0; i < SESSIONS; i++) {
            if (lemon_session_feed(session[i], prompt_ids + i + turn, 1, &logits)) return 0;
            crc = lemon_crc32(crc, logits, (size_t)shared->config.vocab_size * sizeof *logits);
        }
    for (i = 0; i < SESSIONS; i++) lemon_session_close(session[i]);
    return crc;
}

static uint32_t weights_after_training(lemon_ctx *ctx) {
    static int32_t ids[200];
    lemon_tokens text = {ids, 200, 200};
    lemon_train_options o;
    lemon_model *m = NULL;
    uint32_t crc;
    int i;
    for (i = 0; i < 200; i++) ids[i] = i * i % 30;
    lemon_train_defaults(&o);
    o.steps = 3; o.batch = 2; o.seq = 16; o.teacher = shared; o.distill = 0.5;
    if (lemon_model_clone(ctx, shared, &m) || lemon_train(ctx, m, &text, &o, NULL)) return 0;
    crc = lemon_crc32(0, m->block, (size_t)m->block_count * sizeof(float));
    lemon_model_free(ctx, m);
    return crc;
}

static void *reader_main(void *ok) {
    lemon_ctx *ctx = open_threads(2);
    *(int *)ok = scores_of_sessions(ctx) == shared_scores;
    lemon_close(ctx);
    return NULL;
}

static void *trainer_main(void *ok) {
    lemon_ctx *ctx = open_threads(2);
    *(int *)ok = weights_after_training(ctx) == shared_weights;
    lemon_close(ctx);
    return NULL;
}

static void test_shared_model(void) {
    lemon_config c = tiny_config(32, 2, 4, 2, 8, 48, 30, 1);
    lemon_ctx *ctx = open_threads(1);
    pthread_t thread[READERS + 1];
    int ok[READERS + 1] = {0}, i, all = 1;
    for (i = 0; i < PROMPT + SESSIONS; i++) prompt_ids[i] = (7 * i + 3) % 30;
    shared = lively_model(ctx, &c, 1);
    shared_scores = scores_of_sessions(ctx);
    shared_weights = weights_after_training(ctx);
    for (i = 0; i <= READERS; i++)
        if (pthread_create(&thread[i], NULL, i < READERS ? reader_main : trainer_main, &ok[i])) { printf("FAIL a thread starts\n"); exit(1); }
    for (i = 0; i <= READERS; i++) {
        pthread_join(thread[i], NULL);
        all &= ok[i];
    }
    check(shared_scores && shared_weights && all, "one model, nine sessions in three threads, and a fourth that learns from it: the same bits");
    lemon_model_free(ctx, shared);
    lemon_close(ctx);
}

/* ---- forks ---- */

static int exit_status(pid_t pid) {
    int status = -1;
    if (pid < 0 || waitpid(pid, &status, 0) != pid) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

/*  A child of a fork: the context of before, and one of its own.  What hangs is killed by the alarm. */
static int child_works(lemon_ctx *ctx, float *room) {
    lemon_ctx *fresh;
    int ok;
    alarm(30);
    ok = same_bits(ctx, room, 1);
    fresh = lemon_open(NULL);
    ok &= fresh != NULL && same_bits(fresh, room, 1);
    lemon_close(fresh);
    return ok;
}

/*  0: the child, and a child of it, computed and closed.  A child's copy of the context is closed last. */
static int fork_once(lemon_ctx *ctx, float *room) {
    pid_t pid;
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        int ok = child_works(ctx, room);
        pid = fork();
        ok &= pid == 0 ? child_works(ctx, room) : exit_status(pid) == 0;
        lemon_close(ctx);
        _exit(ok ? 0 : 3);
    }
    return exit_status(pid);
}

static int neighbour_stops;
static void *busy_main(void *unused) {
    lemon_ctx *ctx = open_threads(3);
    float *room = new_floats();
    while (!__atomic_load_n(&neighbour_stops, __ATOMIC_RELAXED)) same_bits(ctx, room, 1);
    free(room);
    lemon_close(ctx);
    return unused;
}

/*  The pool's threads spin right after a product and sleep later; another thread's pool may be at work. */
static void test_fork(int other_thread, const char *name) {
    const int rounds = light() ? 4 : 40;
    lemon_ctx *ctx = open_threads(3);
    float *room = new_floats();
    pthread_t thread;
    int i, status = 0, ok = 1;
    neighbour_stops = 0;
    if (other_thread && pthread_create(&thread, NULL, busy_main, NULL)) other_thread = 0;
    for (i = 0; i < rounds && status == 0; i++) {
        ok &= same_bits(ctx, room, 1);
        if (i % 4 == 1) nap(5000);
        if (i % 4 == 2) nap(700);
        status = fork_once(ctx, room);
    }
    __atomic_store_n(&neighbour_stops, 1, __ATOMIC_RELAXED);
    if (other_thread) pthread_join(thread, NULL);
    detail("round %d: the child ended with %d (256 and more: by a signal)", i, status);
    check(ok && status == 0 && same_bits(ctx, room, 1), name);
    lemon_close(ctx);
    free(room);
}

/* ---- a busy neighbour ---- */

/*  GFLOP/s of the better part of some calls: the mean of the fastest half, since one call alone may be one that the
    neighbour did not hit. */
static double rate(lemon_ctx *ctx, const float *a, const float *b, float *c, int64_t n) {
    enum { CALLS = 24 };
    double time[CALLS], sum = 0;
    int i, j;
    for (i = 0; i < CALLS; i++) {
        double t = seconds();
        lemon_sgemm(ctx, 0, 0, n, n, n, 1, a, n, b, n, 0, c, n);
        t = seconds() - t;
        for (j = i; j > 0 && time[j - 1] > t; j--) time[j] = time[j - 1];
        time[j] = t;
    }
    for (i = 0; i < CALLS / 2; i++) sum += time[i];
    return 2e-9 * (double)(n * n * n) * (CALLS / 2) / sum;
}

/*  A process that spins on the first core that we may use. */
static pid_t neighbour_start(void) {
    pid_t pid = fork();
    if (pid == 0) {
        volatile unsigned x = 0;
#ifdef __linux__
        cpu_set_t mine, one;
        int cpu = 0;
        CPU_ZERO(&one);
        if (sched_getaffinity(0, sizeof mine, &mine) == 0) {
            while (cpu < CPU_SETSIZE - 1 && !CPU_ISSET((size_t)cpu, &mine)) cpu++;
            CPU_SET((size_t)cpu, &one);
            sched_setaffinity(0, sizeof one, &one);
        }
#endif
        alarm(120);
        for (;;) x = x + 1;
    }
    return pid;
}

static void test_neighbour(void) {
    enum { N = 1024, TRIES = 5 };
    const char *name = "two threads at 1024^3 keep 45 % beside a busy neighbour";
    lemon_ctx *ctx;
    float *a, *b, *c;
    double best = 0;
    int i;
    if (light() || TSAN || sysconf(_SC_NPROCESSORS_ONLN) < 2) { skip(name); return; }
    ctx = open_threads(2);
    a = (float *)calloc(N * N, sizeof *a);
    b = (float *)calloc(N * N, sizeof *b);
    c = (float *)calloc(N * N, sizeof *c);
    for (i = 0; i < TRIES && best < 0.45; i++) {
        const double quiet = rate(ctx, a, b, c, N);
        const pid_t pid = neighbour_start();
        const double busy = rate(ctx, a, b, c, N);
        if (pid > 0) {
            kill(pid, SIGKILL);
            exit_status(pid);
        }
        if (pid > 0 && busy / quiet > best) best = busy / quiet;
        detail("%.1f GFLOP/s of %.1f are left, %.0f %% at best", busy, quiet, 100 * best);
    }
    printf("#    %.0f %% are left\n", 100 * best);
    check(best >= 0.45, name);
    lemon_close(ctx);
    free(a);
    free(b);
    free(c);
}

/* ---- threads that share a model, each with a context and a session of its own ---- */

enum { SPEAKERS = 4, SPOKEN = 24 };
typedef struct speaker { const lemon_model *model; int32_t first; float last[40]; } speaker;

static void *speak(void *arg) {
    speaker *who = (speaker *)arg;
    lemon_ctx *ctx = open_threads(1);
    lemon_session *s = NULL;
    float *logits = NULL;
    int32_t i;
    lemon_status status = lemon_session_open(ctx, who->model, &s);
    for (i = 0; !status && i < SPOKEN; i++) {
        const int32_t id = (who->first + 7 * i) % 40;
        status = lemon_session_feed(s, &id, 1, &logits);
    }
    if (!status) memcpy(who->last, logits, sizeof who->last);
    lemon_session_close(s);
    lemon_close(ctx);
    return NULL;
}

static void test_speakers(void) {
    lemon_config c = tiny_config(32, 2, 4, 2, 8, 64, 40, 0);
    lemon_ctx *ctx = open_threads(1);
    lemon_model *m;
    speaker alone[SPEAKERS], together[SPEAKERS];
    pthread_t threads[SPEAKERS];
    int i, started = 0, same = 1;
    c.max_seq = SPOKEN;
    m = lively_model(ctx, &c, 4);
    memset(alone, 0, sizeof alone);
    for (i = 0; i < SPEAKERS; i++) {
        alone[i].model = m;
        alone[i].first = i;
        together[i] = alone[i];
        speak(&alone[i]);
        same &= i == 0 || memcmp(alone[i].last, alone[0].last, sizeof alone[i].last) != 0;
    }
    while (started < SPEAKERS && !pthread_create(&threads[started], NULL, speak, &together[started])) started++;
    for (i = 0; i < started; i++) pthread_join(threads[i], NULL);
    for (i = 0; i < started; i++) same &= !memcmp(together[i].last, alone[i].last, sizeof alone[i].last);
    check(same && started == SPEAKERS, "sessions on threads of their own share a model, and have the bits of one alone");
    lemon_model_free(ctx, m);
    lemon_close(ctx);
}

int main(void) {
    int i;
    make_products();
    for (i = 2; i <= 4; i++) test_jobs(i);
    test_own(reversed, 1, "a parallel-for of the user's, one thread");
    test_own(reversed, 3, "a parallel-for that runs tasks in reverse order");
    test_own(by_pthreads, 3, "a parallel-for on threads of the user's");
    test_users();
    test_shared_model();
    test_cycles();
    test_speakers();
    if (TSAN) skip("forks");
    else {
        test_fork(0, "a fork while the pool is awake or asleep: the child computes and closes");
        test_fork(1, "a fork while another context is at work");
    }
    test_neighbour();
    for (i = 0; i < PRODUCTS; i++) free(expected[i]);
    free(operand_a);
    free(operand_b);
    return check_done();
}
