/*  gemm_child.c - one process for each library and thread count.  A library's idle threads may spin for a while, and
    some would go on for minutes: so each library has a process of its own, which is stopped as a whole between two
    requests.  The parent never loads a library nor starts a thread, so it can fork at any time.  */
#include "gemm_bench.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

extern char **environ;

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112, SAMPLES = 8 };

typedef void cblas_sgemm_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda,
                            const float *b, int ldb, float beta, float *c, int ldc);
typedef int dnnl_sgemm_fn(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
                          const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

typedef struct buffer {
    float *x;
    size_t count;
} buffer;

/*  What a child works with. */
typedef struct worker {
    int library;
    void *file;                  /* of dlopen */
    lemon_ctx *ctx;
    cblas_sgemm_fn *cblas;
    dnnl_sgemm_fn *dnnl;
    buffer a, b, c;
} worker;

/* ---- loading ---- */

/*  ISO C has no way from void * to a function; POSIX says that the bytes are the same. */
static int symbol(void *file, const char *name, void *function) {
    void *p = file ? dlsym(file, name) : NULL;
    memcpy(function, &p, sizeof p);
    return p != NULL;
}

/*  Takes out what the user's shell may have set for the libraries, and sets threads.  Waiting threads spin: that is
    the fastest, and it can't hurt the others, because a child is stopped when its answer is there. */
static void environment(const candidate *what, int threads) {
    static const char *const presets[] = {"OPENBLAS_", "GOTO_", "OMP_",  "GOMP_",  "KMP_",
                                          "BLIS_",     "BLI_",  "DNNL_", "ONEDNN_"};
    static const char *const counts[] = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS"};
    char name[128], number[16];
    size_t i, p;
    for (i = 0; environ && environ[i];) {
        size_t length = strcspn(environ[i], "="), hit = 0;
        for (p = 0; p < sizeof presets / sizeof *presets; p++)
            hit |= strncmp(environ[i], presets[p], strlen(presets[p])) == 0;
        if (!hit || length >= sizeof name) { i++; continue; }
        memcpy(name, environ[i], length);
        name[length] = '\0';
        unsetenv(name);          /* moves the rest down */
    }
    snprintf(number, sizeof number, "%d", threads);
    for (i = 0; i < sizeof counts / sizeof *counts; i++) setenv(counts[i], number, 1);
    setenv("OMP_WAIT_POLICY", "ACTIVE", 1);
    setenv("OMP_DYNAMIC", "FALSE", 1);
    if (what->variable) setenv(what->variable, what->value, 1);
}

static int load_lemon(worker *w, int threads, answer *a) {
    lemon_options options;
    memset(&options, 0, sizeof options);
    options.threads = threads;
    w->ctx = lemon_open(&options);
    if (w->ctx == NULL)
        return snprintf(a->text, sizeof a->text, "lemon_open failed; has this CPU what LEMON_ISA asks for?"), 0;
    a->isa = lemon_ctx_isa(w->ctx);
    snprintf(a->text, sizeof a->text, "lemon.h, %s kernels", lemon_isa_name(a->isa));
    return 1;
}

static int load_openblas(worker *w, const candidate *what, answer *a) {
    char *(*config)(void), *(*core)(void);
    if (!symbol(w->file, "cblas_sgemm", &w->cblas)) return 0;
    snprintf(a->text, sizeof a->text, "%s, %s, core %s", what->file,
             symbol(w->file, "openblas_get_config", &config) ? config() : "version not told",
             symbol(w->file, "openblas_get_corename", &core) ? core() : "not told");
    return 1;
}

/*  BLIS 0.9 reads BLIS_ARCH_TYPE as a number, which differs between releases: takes the one that has this name. */
static int blis_choose(const candidate *what, const char *(*name)(int)) {
    char number[16];
    int i;
    for (i = 0; i < 64; i++) {
        const char *is = name(i);
        if (is == NULL || strcmp(is, "generic") == 0) return 0;     /* the last one */
        if (strcmp(is, what->value) == 0) break;
    }
    snprintf(number, sizeof number, "%d", i);
    return i < 64 && setenv(what->variable, number, 1) == 0;
}

static int load_blis(worker *w, const candidate *what, answer *a) {
    const char *(*version)(void), *(*name)(int);
    void (*init)(void);
    int (*id)(void);
    if (!symbol(w->file, "cblas_sgemm", &w->cblas)) return 0;
    if (what->variable && !(symbol(w->file, "bli_arch_string", &name) && blis_choose(what, name))) return 0;
    if (symbol(w->file, "bli_init", &init)) init();                 /* else it can't say what it chose */
    snprintf(a->text, sizeof a->text, "%s, BLIS %s, kernels %s", what->file,
             symbol(w->file, "bli_info_get_version_str", &version) ? version() : "version not told",
             symbol(w->file, "bli_arch_query_id", &id) && symbol(w->file, "bli_arch_string", &name) ? name(id())
                                                                                                    : "not told");
    return 1;
}

static const char *dnnl_isa_name(int isa) {
    static const struct { int id; const char *name; } known[] = {
        {0x1, "SSE4.1"}, {0x3, "AVX"}, {0x7, "AVX2"}, {0xf, "AVX2 + VNNI"}, {0x407, "AVX2 + VNNI"}, {0x27, "AVX-512"},
        {0x67, "AVX-512 + VNNI"}, {0xe7, "AVX-512 + BF16"}, {0x1ef, "AVX-512 + FP16"}, {0x3e7, "AVX-512 + AMX"}};
    size_t i;
    for (i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].id == isa) return known[i].name;
    return "not in our list";
}

static int load_onednn(worker *w, const candidate *what, answer *a) {
    const int *(*version)(void);                   /* a struct that begins with three ints */
    int (*isa)(void), id = -1;
    const int *v = NULL;
    if (!symbol(w->file, "dnnl_sgemm", &w->dnnl)) return 0;
    if (symbol(w->file, "dnnl_version", &version)) v = version();
    if (symbol(w->file, "dnnl_get_effective_cpu_isa", &isa)) id = isa();
    snprintf(a->text, sizeof a->text, "%s, oneDNN %d.%d.%d, ISA %s (0x%x)", what->file, v ? v[0] : 0, v ? v[1] : 0,
             v ? v[2] : 0, dnnl_isa_name(id), (unsigned)id);
    return 1;
}

static int load(worker *w, const candidate *what, int threads, answer *a) {
    memset(w, 0, sizeof *w);
    w->library = what->library;
    if (what->library == MACHINE) return 1;
    environment(what, threads);
    if (what->library == LEMON) return load_lemon(w, threads, a);
    w->file = dlopen(what->file, RTLD_NOW | RTLD_LOCAL);
    if (w->file == NULL) return 0;
    if (what->library == OPENBLAS) return load_openblas(w, what, a);
    if (what->library == BLIS) return load_blis(w, what, a);
    return load_onednn(w, what, a);
}

/* ---- products ---- */

static int product(worker *w, shape s, int layout) {
    const int ta = layout == 2, tb = layout == 1;
    const int64_t lda = ta ? s.m : s.k, ldb = tb ? s.k : s.n;
    if (w->ctx)
        return lemon_sgemm(w->ctx, ta, tb, s.m, s.n, s.k, 1, w->a.x, lda, w->b.x, ldb, 0, w->c.x, s.n) == LEMON_OK;
    if (w->dnnl)
        return w->dnnl(ta ? 'T' : 'N', tb ? 'T' : 'N', s.m, s.n, s.k, 1, w->a.x, lda, w->b.x, ldb, 0, w->c.x, s.n) == 0;
    w->cblas(ROW_MAJOR, ta ? TRANS : NO_TRANS, tb ? TRANS : NO_TRANS, (int)s.m, (int)s.n, (int)s.k, 1, w->a.x, (int)lda,
             w->b.x, (int)ldb, 0, w->c.x, (int)s.n);
    return 1;
}

/*  Makes a buffer large enough; random numbers in -0.5 ... 0.5, the same in every child. */
static int buffer_fit(buffer *b, int64_t rows, int64_t cols, uint64_t seed) {
    const size_t count = (size_t)rows * (size_t)cols;
    lemon_rng rng;
    void *p = NULL;
    size_t i;
    if (count <= b->count) return 1;
    free(b->x);
    b->x = NULL, b->count = 0;
    if (posix_memalign(&p, 4096, count * sizeof(float))) return 0;
    b->x = (float *)p, b->count = count;
    lemon_rng_seed(&rng, seed);
    for (i = 0; i < count; i++) b->x[i] = (float)lemon_rng_uniform(&rng) - 0.5f;
    return 1;
}

/*  Which elements of C are looked at: the last one, and others by chance. */
static void samples_choose(shape s, int64_t *at) {
    lemon_rng rng;
    int i;
    lemon_rng_seed(&rng, 7);
    at[0] = s.m * s.n - 1;
    for (i = 1; i < SAMPLES; i++) at[i] = (int64_t)(lemon_rng_uniform(&rng) * (double)(s.m * s.n - 1));
}

static double sample_error(const worker *w, shape s, int layout, int64_t at) {
    const int64_t row = at / s.n, col = at % s.n;
    double sum = 0, size = 1e-30, error;
    int64_t i;
    for (i = 0; i < s.k; i++) {
        const double a = (double)w->a.x[layout == 2 ? i * s.m + row : row * s.k + i];
        const double b = (double)w->b.x[layout == 1 ? col * s.k + i : i * s.n + col];
        sum += a * b;
        size += fabs(a * b);
    }
    error = fabs((double)w->c.x[at] - sum) / size;
    return error >= 0 ? error : 1e30;              /* not a number: never written, or wrong */
}

/*  Calls in batches of 20 microseconds or more, so that the clock does not count.  The first batch is slow (caches,
    threads that sleep): the best leaves it out by itself, the mean where there are others. */
static int product_time(worker *w, const request *r, answer *a) {
    const double flop = shape_flop(r->size), start = now();
    double best = 1e30, total = 0, t;
    int64_t calls = 1, counted = 0, i;
    int batches = 0;
    do {
        t = now();
        for (i = 0; i < calls; i++)
            if (!product(w, r->size, r->layout)) return 0;
        t = now() - t;
        if (batches++ == 1) total = 0, counted = 0;
        total += t, counted += calls;
        if (t / (double)calls < best) best = t / (double)calls;
        if (t < 2e-5) calls = (int64_t)(2e-5 / t * (double)calls) + 1;
    } while (now() - start < r->seconds);
    a->best = flop / best / 1e9;
    a->mean = flop * (double)counted / total / 1e9;
    return 1;
}

static int do_product(worker *w, const request *r, answer *a) {
    const shape s = r->size;
    int64_t at[SAMPLES];
    int i;
    if (!buffer_fit(&w->a, s.m, s.k, 1) || !buffer_fit(&w->b, s.k, s.n, 2) || !buffer_fit(&w->c, s.m, s.n, 3))
        return snprintf(a->text, sizeof a->text, "no memory"), 0;
    samples_choose(s, at);
    for (i = 0; i < SAMPLES; i++) w->c.x[at[i]] = (float)NAN;
    if (!product_time(w, r, a))
        return snprintf(a->text, sizeof a->text, "%s", w->ctx ? lemon_error(w->ctx) : "the call failed"), 0;
    for (i = 0; i < SAMPLES; i++) {
        const double error = sample_error(w, s, r->layout, at[i]);
        if (error > a->error) a->error = error;
    }
    return 1;
}

static int answer_request(worker *w, const request *r, answer *a) {
    if (r->what == DO_PRODUCT) return do_product(w, r, a);
    if (r->what == DO_PEAK) a->best = limits_peak(r->isa, r->threads, r->seconds);
    else a->best = limits_read(r->isa, r->threads, r->bytes, r->seconds);
    return a->best > 0;
}

/* ---- pipes ---- */

static int transfer(int fd, void *data, size_t size, int writing) {
    char *p = (char *)data;
    while (size > 0) {
        ssize_t n = writing ? write(fd, p, size) : read(fd, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return 0;
        p += n, size -= (size_t)n;
    }
    return 1;
}

/*  The child's life.  A candidate that can't run on this CPU may complain or crash: that is quiet,
    the parent sees it. */
static void serve(const candidate *what, int threads, int in, int out) {
    worker w;
    request r;
    answer a;
    int null = open("/dev/null", O_WRONLY);
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL);              /* a stopped child would not see that the pipe is closed */
#endif
    if (null >= 0) dup2(null, STDOUT_FILENO), dup2(null, STDERR_FILENO);
    memset(&a, 0, sizeof a);
    a.ok = load(&w, what, threads, &a);
    while (transfer(out, &a, sizeof a, 1) && a.ok && transfer(in, &r, sizeof r, 0)) {
        memset(&a, 0, sizeof a);
        a.ok = answer_request(&w, &r, &a);
    }
    _exit(0);
}

int child_open(child *c, const candidate *what, int threads) {
    int to[2], from[2];
    answer a;
    memset(c, 0, sizeof *c);
    if (pipe(to)) return 0;
    if (pipe(from)) return close(to[0]), close(to[1]), 0;
    fflush(NULL);
    c->pid = fork();
    if (c->pid == 0) close(to[1]), close(from[0]), serve(what, threads, to[0], from[1]);
    close(to[0]), close(from[1]);
    c->to = to[1], c->from = from[0];
    memset(&a, 0, sizeof a);
    if (c->pid < 0 || !transfer(c->from, &a, sizeof a, 0) || !a.ok) {
        memcpy(c->text, a.text, sizeof c->text);
        return child_close(c), 0;
    }
    c->isa = a.isa;
    memcpy(c->text, a.text, sizeof c->text);
    kill(c->pid, SIGSTOP);
    return 1;
}

int child_ask(child *c, const request *r, answer *a) {
    request copy = *r;
    int ok;
    memset(a, 0, sizeof *a);
    kill(c->pid, SIGCONT);
    ok = transfer(c->to, &copy, sizeof copy, 1) && transfer(c->from, a, sizeof *a, 0);
    if (!ok) snprintf(a->text, sizeof a->text, "its process ended");
    kill(c->pid, SIGSTOP);
    return ok && a->ok;
}

void child_close(child *c) {
    if (c->pid > 0) {
        kill(c->pid, SIGKILL);
        waitpid(c->pid, NULL, 0);
    }
    if (c->to) close(c->to), close(c->from);
    c->pid = 0, c->to = c->from = 0;
}

/* ---- a busy neighbour ---- */

pid_t spin_start(void) {
    pid_t pid = fork();
    if (pid == 0) {
        volatile unsigned x = 0;
#ifdef __linux__
        prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
        for (;;) x = x + 1;
    }
    if (pid > 0) kill(pid, SIGSTOP);
    return pid;
}

void spin_pause(pid_t pid, int pause) { kill(pid, pause ? SIGSTOP : SIGCONT); }

void spin_end(pid_t pid) {
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}
