/*  What fuzzers began with and what they found, through every reader (chapters 8, 9, 11 and 12), see fuzz.h.  An input that
    breaks a promise ends the program. */
#include "vfs.h"
#include "check.h"
#include "fuzz.h"
#include <dirent.h>

static int one_file(const fuzz_reader *reader, const char *path, double *slowest) {
    size_t n;
    uint8_t *bytes = (uint8_t *)slurp(path, &n), *exact;
    clock_t begin = clock();
    double seconds;
    if (bytes == NULL) return 0;
    exact = at_edge(bytes, n);
    free(bytes);
    fuzz_one(reader, exact, n);
    edge_free(exact, n);
    seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    if (seconds > *slowest) *slowest = seconds;
    return 1;
}

static void test_reader(const fuzz_reader *reader) {
    char path[600], name[120];
    struct dirent *entry;
    double slowest = 0;
    long files = 0;
    DIR *folder;
    snprintf(path, sizeof path, "corpus/%s", reader->name);
    folder = opendir(path);
    while (folder && (entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "corpus/%s/%s", reader->name, entry->d_name);
        files += one_file(reader, path, &slowest);
    }
    if (folder) closedir(folder);
    snprintf(name, sizeof name, "%s: inputs of the corpus do no harm", reader->name);
    detail("%ld files, the slowest took %.3f s", files, slowest);
    check(files > 0 && slowest < (light() ? 20 : 1), name);
}

/*  The harness must be able to fail: inputs that are good are found good, and the hook sees what is asked for. */
static void test_harness(void) {
    const fuzz_reader *reader = fuzz_find("lemon");
    size_t n;
    uint8_t *bytes = (uint8_t *)slurp("corpus/lemon/seed-f32", &n);
    fuzz_size = n;
    fuzz_live = fuzz_peak = 0;
    vfs_reset();
    check(bytes && fuzz_load_lemon(bytes, n) == LEMON_OK && fuzz_peak > n, "the harness loads what is good, and counts its memory");
    if (bytes) bytes[lemon__pad(64 + lemon__get64(bytes + 24) + lemon__get64(bytes + 32))] ^= 1;
    check(bytes && fuzz_load_lemon(bytes, n) == LEMON_E_FORMAT, "and refuses what is damaged");
    if (bytes) fuzz_seal(bytes, n);
    check(bytes && fuzz_load_lemon(bytes, n) == LEMON_OK, "and lets damage through that it put a checksum on");
    check(fuzz_find("none") == NULL && reader != NULL, "and knows its readers");
    free(bytes);
}

int main(void) {
    int i;
    fuzz_thorough = 1;
    fuzz_open();
    test_harness();
    for (i = 0; i < FUZZ_READERS; i++) test_reader(&fuzz_readers[i]);
    fuzz_close();
    return check_done();
}
