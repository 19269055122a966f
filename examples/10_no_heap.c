/*  10_no_heap.c - a .lemon file read where it lies, mapped from disk or as a const array in flash; nothing is allocated.

        make -C examples programs && examples/build/10_no_heap MODEL.lemon [TENSOR]
    Lists keys and tensors, or prints a tensor's numbers, a row on each line.  For devices without files:
    lemon convert MODEL model.h && cc -DMODEL_FILE='"model.h"' -DMODEL=model_lemon 10_no_heap.c -lm
    On a board: what comes before main is in examples/embedded; put a print of your own for printf, where that allocates.
    Nothing of lemon.h is used but the page at the head of its chapter 8.  Each size is checked before it is believed.  */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#ifdef MODEL_FILE
#include MODEL_FILE
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

enum { F32, BF16, F16, Q8, Q4, U8, I32, F64, TYPES };
static const char *const names[TYPES] = {"f32", "bf16", "f16", "q8", "q4", "u8", "i32", "f64"};
static const uint64_t block_bytes[] = {4, 2, 2, 34, 18, 1, 4, 8}, block_numbers[] = {1, 1, 1, 32, 32, 1, 1, 1};

/*  A little-endian number of so many bytes, on any machine. */
static uint64_t number(const uint8_t *p, uint64_t bytes) {
    uint64_t value = 0;
    while (bytes-- > 0) value = value << 8 | p[bytes];
    return value;
}

static double from_f32(uint64_t bits) { union { uint32_t i; float x; } u = {(uint32_t)bits}; return (double)u.x; }
static double from_f64(uint64_t bits) { union { uint64_t i; double x; } u = {bits}; return u.x; }
static double from_f16(uint64_t h) {
    double m = (double)(h & 1023), x = h & 0x7c00 ? ldexp(m + 1024, (int)(h >> 10 & 31) - 25) : ldexp(m, -24);
    if ((h & 0x7c00) == 0x7c00) x = m > 0 ? (double)NAN : (double)INFINITY;
    return h >> 15 ? -x : x;
}

/*  The checksum of zip and PNG. */
static uint32_t crc32(const uint8_t *p, uint64_t n) {
    uint32_t crc = ~0u, bit;
    for (; n > 0; n--)
        for (crc ^= *p++, bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1)));
    return ~crc;
}

/*  Number i of a row that begins at p. */
static double element(uint64_t type, const uint8_t *p, uint64_t i) {
    uint64_t k = i % block_numbers[type], bits;
    p += i / block_numbers[type] * block_bytes[type];
    bits = number(p, type == Q8 || type == Q4 ? 2 : block_bytes[type]);
    switch (type) {
    case F32: case BF16: return from_f32(type == BF16 ? bits << 16 : bits);
    case F16: return from_f16(bits);
    case Q8: return from_f16(bits) * (p[2 + k] < 128 ? p[2 + k] : p[2 + k] - 256);
    case Q4: return from_f16(bits) * ((k < 16 ? p[2 + k] & 15 : p[2 + k - 16] >> 4) - 8);
    default: return type == F64 ? from_f64(bits) : type == I32 ? (double)(int32_t)(uint32_t)bits : (double)bits;
    }
}

/*  Shows the key at p; returns where the next one begins, NULL where it cannot be. */
static const uint8_t *key(const uint8_t *p, const uint8_t *end) {
    uint64_t left = (uint64_t)(end - p), n = left < 8 ? 0 : number(p, 2), type = n ? number(p + 2, 2) : 0,
             size = n ? number(p + 4, 4) : 0;
    const uint8_t *value = p + 8 + n;
    if (n == 0 || n + size > left - 8 || (type != 3 && size != 8)) return NULL;
    printf("%.*s = ", (int)n, (const char *)p + 8);
    if (type == 3) printf("%d bytes\n", (int)size);
    else printf("%.15g\n", type == 1 ? (double)(int64_t)number(value, 8) : from_f64(number(value, 8)));
    return value + size;
}

/*  The same for a row of the table; the numbers are printed if it is the one that is wanted. */
static const uint8_t *entry(const uint8_t *p, const uint8_t *end, const uint8_t *at, uint64_t room, const char *name) {
    uint64_t left = (uint64_t)(end - p), n = left < 40 ? 0 : number(p, 2), type = n ? number(p + 2, 2) : TYPES,
             rows = n ? number(p + 4, 8) : 0, cols = n ? number(p + 12, 8) : 0, offset = n ? number(p + 20, 8) : 0,
             size = n ? number(p + 28, 8) : 0, i;
    if (n == 0 || n > left - 40 || type >= TYPES || offset > room || size > room - offset ||
        cols / 2 > size || rows == 0 || size % rows != 0 || crc32(at + offset, size) != number(p + 36, 4) ||
        (cols + block_numbers[type] - 1) / block_numbers[type] * block_bytes[type] != size / rows)
        return NULL;
    if (!name) printf("%.*s %s [%d, %d]\n", (int)n, (const char *)p + 40, names[type], (int)rows, (int)cols);
    if (name && strlen(name) == n && memcmp(name, p + 40, n) == 0)
        for (i = 0; i < rows * cols; i++)
            printf("%.9g%c", element(type, at + offset + size / rows * (i / cols), i % cols),
                   i % cols + 1 < cols ? ' ' : '\n');
    return p + 40 + n;
}

static int read_file(const uint8_t *file, uint64_t size, const char *wanted) {
    const uint8_t *p, *end;
    uint64_t keys, table, data, i;
    if (size < 64 || memcmp(file, "LEMON\r\n\x1a\1\0\0\0\0\0\0\0", 16) != 0) return 0;
    keys = number(file + 24, 8), table = number(file + 32, 8);
    data = (64 + keys + table + 63) / 64 * 64;      /* padded, so that numbers can be used where they lie */
    if (keys > size || table > size || data > size || crc32(file, 60) != number(file + 60, 4) ||
        crc32(file + 64, keys + table) != number(file + 56, 4)) return 0;
    p = file + 64, end = p + keys + table;
    for (i = number(file + 16, 4); p && i > 0 && !wanted; i--) p = key(p, end - table);
    for (i = number(file + 20, 4), p = p ? end - table : p; p && i > 0; i--)
        p = entry(p, end, file + data, size - data, wanted);
    return p == end;
}

int main(int argc, char **argv) {
    static char room[4096];         /* or the C library would allocate it */
    int ok = setvbuf(stdout, room, _IOFBF, sizeof room);
#ifdef MODEL_FILE
    ok = read_file(MODEL, sizeof MODEL, argc > 1 ? argv[1] : NULL);
#else
    int file = argc > 1 ? open(argv[1], O_RDONLY) : -1;
    off_t size = file < 0 ? 0 : lseek(file, 0, SEEK_END);
    void *map = size <= 0 ? MAP_FAILED : mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, file, 0);
    ok = map != MAP_FAILED && read_file((const uint8_t *)map, (uint64_t)size, argc > 2 ? argv[2] : NULL);
#endif
    if (!ok) puts("10_no_heap MODEL.lemon [TENSOR]: this is no .lemon file of version 1, or it is damaged");
    return fflush(stdout) || !ok;   /* a board has no exit that would do it */
}
