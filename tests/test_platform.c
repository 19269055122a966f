/*  Chapter 1: contexts and their options, the allocator hook, the thread pool, progress, files in and out. */
#include "check.h"
#include <time.h>

/* ---- contexts ---- */

static int opens(const lemon_options *options) {
    lemon_ctx *ctx = lemon_open(options);
    lemon_close(ctx);
    return ctx != NULL;
}

static void test_options(void) {
    lemon_options o;
    lemon_ctx *ctx;
    memset(&o, 0, sizeof o);
    check(opens(NULL) && opens(&o), "NULL and a zeroed struct are the defaults");
    o.threads = -1;
    check(!opens(&o), "fewer than no threads are refused");
    o.threads = 257;
    check(!opens(&o), "257 threads are refused");
    o.threads = 3;
    o.isa = LEMON_ISA_SCALAR;
    ctx = lemon_open(&o);
    check(ctx && lemon_ctx_threads(ctx) == 3 && lemon_ctx_isa(ctx) == LEMON_ISA_SCALAR,
          "a context has what was asked for");
    check(ctx && strcmp(lemon_error(ctx), "") == 0, "a new context has no error");
    lemon_close(ctx);
    lemon_close(NULL);
    check(lemon_ctx_threads(NULL) == 1, "no context is one thread");
    check(strstr(lemon_error(NULL), "no context") != NULL, "and its message says that there is none");
}

static void test_isas(void) {
    lemon_options o;
    int isa, bad = 0, refused = 0;
    memset(&o, 0, sizeof o);
    for (isa = 0; isa <= LEMON_ISA_WASM; isa++) {
        bad += lemon_isa_parse(lemon_isa_name((lemon_isa)isa)) != isa;
        o.isa = (lemon_isa)isa;
        refused += opens(&o) != lemon_isa_supported((lemon_isa)isa);
    }
    check(bad == 0, "names of ISAs are read back");
    check(refused == 0, "a context opens with just the ISAs that this CPU has");
    check(lemon_isa_parse("sse9") == -1 && lemon_isa_parse(NULL) == -1 && lemon_isa_parse("") == -1,
          "unknown names of ISAs are -1");
    check(lemon_isa_supported((lemon_isa)77) == 0 && lemon_isa_supported((lemon_isa)-1) == 0,
          "ISAs out of range are not supported");
    check(lemon_isa_supported(LEMON_ISA_SCALAR) == 1, "scalar kernels run everywhere");
}

/* LEMON_THREADS stands for 0 threads asked. */
static void test_environment(void) {
    lemon_ctx *ctx;
    const char *old = getenv("LEMON_THREADS");
    char keep[32] = "";
    if (old) snprintf(keep, sizeof keep, "%s", old);
    setenv("LEMON_THREADS", "4", 1);
    ctx = lemon_open(NULL);
    check(ctx && lemon_ctx_threads(ctx) == 4, "LEMON_THREADS=4 is four threads");
    lemon_close(ctx);
    setenv("LEMON_THREADS", "100000", 1);
    ctx = lemon_open(NULL);
    check(ctx && lemon_ctx_threads(ctx) <= 256 && lemon_ctx_threads(ctx) >= 1,
          "LEMON_THREADS=100000 is held within 256");
    lemon_close(ctx);
    if (old) setenv("LEMON_THREADS", keep, 1);
    else unsetenv("LEMON_THREADS");
}

static void test_statuses(void) {
    int i, j, bad = 0;
    for (i = LEMON_OK; i <= LEMON_E_DIVERGED; i++)
        for (j = LEMON_OK; j < i; j++)
            bad += strcmp(lemon_status_name((lemon_status)i), lemon_status_name((lemon_status)j)) == 0;
    check(bad == 0 && strcmp(lemon_status_name(LEMON_OK), "ok") == 0, "each status has a name of its own");
    check(strcmp(lemon_status_name((lemon_status)99), lemon_status_name((lemon_status)-1)) == 0,
          "statuses out of range have a name too");
}

/* A message longer than its buffer is cut, never overrun. */
static void test_messages(void) {
    lemon_ctx *ctx = open_ctx(1);
    char longest[3 * LEMON__MESSAGE];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    check(lemon__fail(ctx, LEMON_E_IO, "%s", longest) == LEMON_E_IO && strlen(lemon_error(ctx)) == LEMON__MESSAGE - 1,
          "a long message is cut");
    check(lemon__fail(NULL, LEMON_E_ARG, "%d", 1) == LEMON_E_ARG, "a failure without a context is its code");
    memset(longest, 'x', 8);
    check(lemon__format(longest, 4, "%s%d", "ab", 3456) == 6 && memcmp(longest, "ab3\0xxxx", 8) == 0,
          "nothing is written behind the room for a text");
    lemon_close(ctx);
}

/* ---- memory ---- */

static void test_allocations(void) {
    lemon_ctx *ctx = open_ctx(1);
    size_t before = lemon_memory(ctx, NULL), peak = 0, i;
    char *block[8];
    int bad = 0;
    for (i = 0; i < 8; i++) {
        block[i] = (char *)lemon__malloc(ctx, 1 + i * 37);
        bad += block[i] == NULL || (uintptr_t)block[i] % 64 != 0;
        if (block[i]) memset(block[i], 1, 1 + i * 37);
    }
    check(bad == 0, "blocks are aligned to 64 bytes");
    check(lemon_memory(ctx, &peak) == before + 8 + 37 * 28, "bytes in use are counted");
    for (i = 0; i < 8; i++) lemon__free(ctx, block[i], 1 + i * 37);
    lemon_memory(ctx, &i);
    check(lemon_memory(ctx, NULL) == before && i == peak && peak == before + 8 + 37 * 28,
          "the peak stays when they go");
    check(lemon_memory(NULL, &i) == 0 && i == 0, "no context has no bytes, nor had it any");
    check(lemon__malloc(ctx, SIZE_MAX - 10) == NULL && strstr(lemon_error(ctx), "out of memory"),
          "a size that would overflow is no memory");
    lemon_close(ctx);
}

static void test_grow(void) {
    lemon_ctx *ctx = open_ctx(1);
    uint8_t *p = (uint8_t *)lemon__calloc(ctx, 10), *old = p;
    int64_t room = 10;
    int i, bad = 0;
    for (i = 0; i < 10; i++) bad += p[i] != 0;
    check(bad == 0, "calloc zeroes");
    memset(p, 7, 10);
    heap.calls = 0;
    heap.fail_at = 1;
    check(!lemon__room(ctx, &p, &room, 1000, 1) && p == old && p[9] == 7 && room == 10,
          "when an array cannot grow the old one stays");
    heap.fail_at = 0;
    check(lemon__room(ctx, &p, &room, 1000, 1) && p != old && p[0] == 7 && p[9] == 7 && room == 1000,
          "an array that grows keeps its contents");
    lemon__free(ctx, p, (size_t)room);
    lemon_close(ctx);
    check(heap.live == 0, "what was allocated was freed");
}

/* Opening fails cleanly at whichever allocation fails. */
static void test_open_without_memory(void) {
    lemon_options o;
    lemon_ctx *ctx = NULL;
    int n, bad = 0;
    memset(&o, 0, sizeof o);
    o.threads = 3;
    o.resize = heap_resize;
    o.user = &heap;
    for (n = 1; ctx == NULL && n < 100; n++) {
        heap.calls = 0;
        heap.fail_at = n;
        ctx = lemon_open(&o);
        bad += ctx == NULL && heap.live != 0;
    }
    heap.fail_at = 0;
    check(ctx && bad == 0 && n > 2, "a context that cannot be had leaves nothing behind");
    lemon_close(ctx);
    check(heap.live == 0, "and one that was had is freed to the last block");
}

static void test_products(void) {
    size_t out = 5;
    check(lemon__mul(3, 4, &out) && out == 12 && lemon__mul(0, SIZE_MAX, &out) && out == 0 &&
              lemon__mul(SIZE_MAX, 1, &out) && out == SIZE_MAX,
          "products of sizes that fit");
    check(!lemon__mul(SIZE_MAX, 2, &out) && !lemon__mul(SIZE_MAX / 2 + 1, 2, &out),
          "products that overflow are refused");
}

static void test_bytes(void) {
    uint8_t b[9] = {0xff, 0x01, 0x02, 0x03, 0x84, 0x05, 0x06, 0x07, 0x88};
    const float x = -3.25f;
    check(lemon__get16(b + 1) == 0x0201 && lemon__get32(b + 1) == 0x84030201u &&
              lemon__get64(b + 1) == 0x8807060584030201u,
          "numbers are read little-endian, at any alignment");
    lemon__put64(b + 1, 0x1122334455667788u);
    check(b[1] == 0x88 && b[8] == 0x11 && b[0] == 0xff && lemon__get64(b + 1) == 0x1122334455667788u,
          "and written so");
    lemon__put32(b + 1, 0xc0500000u);
    check(!(lemon__getf32(b + 1) < x) && !(lemon__getf32(b + 1) > x), "floats too");
}

/* ---- threads ---- */

typedef struct tally { int64_t done[1000]; int worst_worker; int workers[8]; } tally;

static void tally_task(void *arg, int64_t index, int worker) {
    tally *t = (tally *)arg;
    t->done[index] += index + 1;                    /* each task writes to its own place */
    __atomic_fetch_add(&t->workers[worker], 1, __ATOMIC_RELAXED);
}

static int tally_holds(const tally *t, int64_t count, int rounds) {
    int64_t i, bad = 0;
    for (i = 0; i < 1000; i++) bad += t->done[i] != (i < count ? rounds * (i + 1) : 0);
    return bad == 0;
}

static void test_pool(int threads) {
    lemon_ctx *ctx = open_ctx(threads);
    static const int64_t counts[] = {0, 1, 2, 3, 7, 64, 1000};
    char name[80];
    size_t c;
    int r, ok = 1, rounds = light() ? 20 : 300, i, sum = 0;
    for (c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        tally t;
        memset(&t, 0, sizeof t);
        for (r = 0; r < rounds; r++) lemon__parallel(ctx, counts[c], tally_task, &t);
        ok &= tally_holds(&t, counts[c], rounds);
        for (i = 0, sum = 0; i < 8; i++) sum += t.workers[i];
        ok &= sum == rounds * (int)counts[c] && t.workers[threads] == 0;
    }
    snprintf(name, sizeof name, "each task runs once, %d thread%s", threads, threads == 1 ? "" : "s");
    check(ok, name);
    lemon_close(ctx);
}

static void nap_task(void *arg, int64_t index, int worker) {
    const struct timespec nap = {0, 10000000};
    (void)index;
    nanosleep(&nap, NULL);                          /* so that one core is enough for three threads */
    __atomic_fetch_or((int *)arg, 1 << worker, __ATOMIC_RELAXED);
}

static void test_all_work(void) {
    lemon_ctx *ctx = open_ctx(3);
    int mask = 0, tries;
    for (tries = 0; tries < 20 && mask != 7; tries++) lemon__parallel(ctx, 9, nap_task, &mask);
    check(mask == 7, "every thread of a pool gets work");
    lemon_close(ctx);
}

/* ---- progress ---- */

typedef struct watch { int calls, stop_at; lemon_progress last; } watch;
static int watch_progress(void *user, const lemon_progress *p) {
    watch *w = (watch *)user;
    w->last = *p;
    return ++w->calls == w->stop_at;
}

static void test_progress(void) {
    lemon_options o;
    lemon_ctx *ctx;
    watch w;
    int i, bad = 0;
    memset(&o, 0, sizeof o);
    memset(&w, 0, sizeof w);
    o.progress = watch_progress;
    o.user = &w;
    ctx = lemon_open(&o);
    lemon__tick_begin(ctx, "work");
    for (i = 1; i <= 1000; i++) bad += lemon__tick(ctx, "work", i, 1000, 2.5) != LEMON_OK;
    check(bad == 0 && w.calls >= 1 && w.calls < 100, "progress is not told a thousand times a second");
    check(w.last.done == 1000 && w.last.total == 1000 && strcmp(w.last.what, "work") == 0 &&
              near_to(w.last.loss, 2.5, 0),
          "the end of the work is always told");
    w.stop_at = w.calls + 1;
    check(fails_with(ctx, lemon__tick(ctx, "work", 5, 5, 0), LEMON_E_CANCELLED, "work was stopped after 5 of 5"),
          "a callback that is not 0 cancels");
    check(lemon__tick(NULL, "work", 1, 1, 0) == LEMON_OK, "no context, no callback");
    lemon_close(ctx);
}

/* ---- files ---- */

static void test_writer(lemon_ctx *ctx) {
    lemon_writer w;
    char temporary[300];
    const char *path = scratch("out.bin");
    size_t n = 0;
    char *bytes;
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    spill(path, "before", 6);
    check(fine(ctx, lemon_file_writer(ctx, path, &w)), "a writer opens");
    w.append(w.user, "hello ", 6);
    w.append(w.user, "", 0);
    w.append(w.user, "world", 5);
    bytes = slurp(path, &n);
    check(n == 6 && memcmp(bytes, "before", 6) == 0 && exists(temporary), "until commit the old file stands");
    free(bytes);
    check(fine(ctx, w.commit(w.user)), "it commits");
    bytes = slurp(path, &n);
    check(n == 11 && bytes && memcmp(bytes, "hello world", 11) == 0 && !exists(temporary),
          "then the new one stands there, and nothing beside it");
    free(bytes);
    lemon_file_writer(ctx, path, &w);
    w.append(w.user, "half", 4);
    w.abort(w.user);
    bytes = slurp(path, &n);
    check(n == 11 && bytes && memcmp(bytes, "hello world", 11) == 0 && !exists(temporary),
          "an abort leaves all as it was");
    free(bytes);
}

static void test_writer_errors(lemon_ctx *ctx) {
    lemon_writer w;
    check(fails_with(ctx, lemon_file_writer(ctx, scratch("none/there.bin"), &w), LEMON_E_IO, "none/there.bin"),
          "a folder that is not there is named");
    check(fails_with(ctx, lemon_file_writer(ctx, "/dev/null", &w), LEMON_E_IO, "/dev/null: is a pipe or a device") &&
              !exists("/dev/null.tmp"), "a device is not replaced by a file");
    check(lemon_file_writer(ctx, NULL, &w) == LEMON_E_ARG && lemon_file_writer(NULL, "x", &w) == LEMON_E_ARG &&
              lemon_file_writer(ctx, "x", NULL) == LEMON_E_ARG,
          "arguments that are NULL are refused");
    if (!exists("/dev/full")) {
        skip("a full disk is an I/O error");
        return;
    }
    lemon_file_writer(ctx, scratch("full.bin"), &w);
    {
        lemon__file *file = (lemon__file *)w.user;      /* the descriptor is put on a device that is always full */
        close(file->fd);
        file->fd = open("/dev/full", O_WRONLY);
    }
    check(fails_with(ctx, w.append(w.user, "12345", 5), LEMON_E_IO, "could not write"), "a full disk is an I/O error");
    w.abort(w.user);
    check(!exists(scratch("full.bin")) && !exists(scratch("full.bin.tmp")), "and leaves nothing");
}

static void test_rename_error(lemon_ctx *ctx) {
    lemon_writer w;
    char temporary[300];
    const char *path = scratch("a folder");
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    mkdir(path, 0777);
    lemon_file_writer(ctx, path, &w);
    w.append(w.user, "x", 1);
    check(fails_with(ctx, w.commit(w.user), LEMON_E_IO, "a folder: could not rename") && !exists(temporary),
          "a commit over a folder fails, and takes its new file away");
}

static void test_reader(lemon_ctx *ctx) {
    lemon_reader r;
    char got[8] = "";
    const char *path = scratch("in.bin");
    spill(path, "0123456789", 10);
    check(fine(ctx, lemon_file_reader(ctx, path, &r)) && r.size == 10 && strcmp(r.name, path) == 0,
          "a reader knows its size and name");
    check(r.map == NULL || memcmp(r.map, "0123456789", 10) == 0, "its map is the file");
    check(r.read(r.user, 3, got, 4) == LEMON_OK && memcmp(got, "3456", 4) == 0, "it reads at an offset");
    check(r.read(r.user, 0, got, 2) == LEMON_OK && memcmp(got, "01", 2) == 0, "and back again");
    check(fails_with(ctx, r.read(r.user, 8, got, 4), LEMON_E_IO, "became shorter"),
          "reading beyond the end is an error");
    r.close(r.user);
    check(fails_with(ctx, lemon_file_reader(ctx, scratch("none.bin"), &r), LEMON_E_IO, "none.bin: could not open"),
          "a file that is not there is named");
    check(fails_with(ctx, lemon_file_reader(ctx, ".", &r), LEMON_E_UNSUPPORTED, "folder"), "a folder is not a file");
    check(fails_with(ctx, lemon_file_reader(ctx, "/dev/null", &r), LEMON_E_UNSUPPORTED, "is a pipe or a device"),
          "nor is a device, which has no size");
    spill(path, "", 0);
    check(fine(ctx, lemon_file_reader(ctx, path, &r)) && r.size == 0, "an empty file opens");
    r.close(r.user);
}

/*  Of a mapped file pages are let go, of what lies behind it none. */
static void test_pages(lemon_ctx *ctx) {
#if LEMON__LINUX
    lemon__file file;
    uint8_t *p = (uint8_t *)mmap(NULL, 2 * CHECK_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int kept;
    memset(&file, 0, sizeof file);
    file.map = p, file.map_bytes = CHECK_PAGE, file.next = ctx->mapped;
    ctx->mapped = &file;
    p[CHECK_PAGE - 1] = p[CHECK_PAGE] = 7;
    lemon__pages(ctx, p + CHECK_PAGE, CHECK_PAGE, LEMON__GONE);
    kept = p[CHECK_PAGE - 1] == 7 && p[CHECK_PAGE] == 7;
    lemon__pages(ctx, p, CHECK_PAGE, LEMON__GONE);          /* without a file behind it such a page is zeros then */
    check(kept && p[CHECK_PAGE - 1] == 0 && p[CHECK_PAGE] == 7, "a file's pages are let go, not those of its neighbour");
    ctx->mapped = file.next;
    munmap(p, 2 * CHECK_PAGE);
#else
    (void)ctx;
#endif
}

/*  Where a file cannot be locked, as on some disks in a network, none is: here for want of the right to write. */
static void test_no_locks(void) {
#if LEMON__POSIX
    int fd = open("/dev/null", O_RDONLY);
    check(fd >= 0 && lemon__scratch_lock(fd), "scratch that cannot be locked is used without");
    close(fd);
#endif
}

/*  Processes of one run, that were given the same path, write into files of their own; one alone has the path itself. */
static int add_nothing(void *user, void *buffer, int64_t count, size_t bytes) {
    (void)user, (void)buffer, (void)count, (void)bytes;
    return 0;
}
static void test_scratch_names(void) {
#if LEMON__POSIX
    static const char *const names[] = {"", ".0", ".1"};
    char path[256], named[280];
    lemon_options options;
    struct lemon__file *file;
    int ok = 1;
    snprintf(path, sizeof path, "%s", scratch("ours.part"));
    memset(&options, 0, sizeof options);
    options.threads = 1, options.scratch = path, options.all_reduce = add_nothing;
    for (int i = 0; i < 3; i++) {
        options.rank = i == 2, options.ranks = i ? 2 : 1;
        lemon_ctx *ctx = lemon_open(&options);
        snprintf(named, sizeof named, "%s%s", path, names[i]);
        remove(named);
        ok &= fine(ctx, lemon__scratch_open(ctx, "", 4096, 0, &file)) && exists(named);
        lemon__scratch_close(file);
        remove(named);
        ok &= fine(ctx, lemon__scratch_open(ctx, ".rows", 4096, 1, &file)) && strstr(file->path, names[i]) != NULL;
        lemon__scratch_close(file);
        lemon_close(ctx);
    }
    check(ok, "each of several processes has scratch of its own");
#endif
}

static void test_file_memory(lemon_ctx *ctx) {
    lemon_reader r;
    lemon_writer w;
    long live = heap.live;
    heap.calls = 0;
    heap.fail_at = 1;
    check(lemon_file_reader(ctx, scratch("in.bin"), &r) == LEMON_E_MEMORY, "a reader without memory");
    heap.calls = 0;
    check(lemon_file_writer(ctx, scratch("new.bin"), &w) == LEMON_E_MEMORY && !exists(scratch("new.bin.tmp")),
          "a writer without memory");
    heap.fail_at = 0;
    check(heap.live == live, "files leave no block behind");
}

int main(void) {
    lemon_ctx *ctx;
    test_options();
    test_isas();
    test_environment();
    test_statuses();
    test_messages();
    test_allocations();
    test_grow();
    test_open_without_memory();
    test_products();
    test_bytes();
    test_pool(1);
    test_pool(2);
    test_pool(3);
    test_all_work();
    test_progress();
    ctx = open_ctx(1);
    test_writer(ctx);
    test_writer_errors(ctx);
    test_rename_error(ctx);
    test_reader(ctx);
    test_file_memory(ctx);
    test_pages(ctx);
    test_no_locks();
    test_scratch_names();
    lemon_close(ctx);
    check(heap.live == 0, "nothing is left allocated");
    return check_done();
}
