/*  Chapter 2: bf16 and f16 against values worked out in double, random numbers, CRC-32. */
#include "check.h"

/* ---- small floats, independently: the value of a pattern from its fields, and the nearest pattern by search ---- */

typedef struct small_float { int exponent_bits, fraction_bits; } small_float;
static const small_float bf16 = {8, 7}, f16 = {5, 10};

static double value_of(small_float f, uint16_t bits) {
    int exponent = bits >> f.fraction_bits & ((1 << f.exponent_bits) - 1), bias = (1 << (f.exponent_bits - 1)) - 1;
    int fraction = bits & ((1 << f.fraction_bits) - 1);
    double sign = bits & 0x8000 ? -1.0 : 1.0;
    if (exponent == (1 << f.exponent_bits) - 1) return fraction ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0) return sign * ldexp(fraction, 1 - bias - f.fraction_bits);
    return sign * ldexp((1 << f.fraction_bits) + fraction, exponent - bias - f.fraction_bits);
}

/*  Nearest pattern to x >= 0, ties to the even one; what lies half a step beyond the largest is Inf. */
static uint16_t nearest(small_float f, double x) {
    uint16_t inf = (uint16_t)(((1 << f.exponent_bits) - 1) << f.fraction_bits), low = 0, high = inf, middle;
    double step, largest = value_of(f, (uint16_t)(inf - 1));
    while (high - low > 1) {                            /* patterns rise with their values */
        middle = (uint16_t)((low + high) / 2);
        if (middle < inf && value_of(f, middle) <= x) low = middle;
        else high = middle;
    }
    step = high == inf ? 2 * (largest - value_of(f, (uint16_t)(inf - 2))) : 2 * (value_of(f, high) - value_of(f, low));
    if (x - value_of(f, low) > step / 4) return high;
    if (x - value_of(f, low) < step / 4) return low;
    return low & 1 ? high : low;
}

static uint16_t encode(small_float f, float x) {
    return f.fraction_bits == 7 ? lemon_bf16_from_f32(x) : lemon_f16_from_f32(x);
}
static float decode(small_float f, uint16_t bits) {
    return f.fraction_bits == 7 ? lemon_f32_from_bf16(bits) : lemon_f32_from_f16(bits);
}

static int same_number(float a, double b) {
    return isnan(b) ? isnan(a) : !((double)a < b) && !((double)a > b) && !isnan(a);
}

static int encodes_right(small_float f, float x) {
    uint16_t want = (uint16_t)(nearest(f, fabs((double)x)) | (signbit(x) ? 0x8000 : 0)), got = encode(f, x);
    if (got != want) detail("%.9g gives 0x%04x, expected 0x%04x", (double)x, got, want);
    return got == want;
}

static void test_small_float(small_float f, const char *name) {
    char line[96];
    lemon_rng rng;
    int i, values = 0, back = 0, ties = 0, bits = 0;
    for (i = 0; i < 65536; i++) {
        double v = value_of(f, (uint16_t)i);
        float x = decode(f, (uint16_t)i);
        values += !same_number(x, v) || (!isnan(v) && !signbit(x) != !(i & 0x8000));
        back += isnan(v) ? !isnan(decode(f, encode(f, x))) : encode(f, x) != i;
    }
    snprintf(line, sizeof line, "%s: all 65536 patterns have their values", name);
    check(values == 0, line);
    snprintf(line, sizeof line, "%s: and come back to themselves, NaN to NaN", name);
    check(back == 0, line);
    for (i = 0; i + 1 < nearest(f, 1e300); i++) {       /* between neighbours: the middle, and one float to each side */
        float middle = (float)((value_of(f, (uint16_t)i) + value_of(f, (uint16_t)(i + 1))) / 2);
        ties += !encodes_right(f, middle) || !encodes_right(f, nextafterf(middle, 0.0f)) ||
                !encodes_right(f, nextafterf(middle, INFINITY)) || !encodes_right(f, -middle);
    }
    snprintf(line, sizeof line, "%s: halves round to even, and what is beside them to its side", name);
    check(ties == 0, line);
    lemon_rng_seed(&rng, 3);
    for (i = 0; i < 200000; i++) {
        float x = lemon__float((uint32_t)lemon_rng_next(&rng));
        if (!isnan(x)) bits += !encodes_right(f, x);
        else bits += !isnan(decode(f, encode(f, x)));
    }
    snprintf(line, sizeof line, "%s: random floats go to the nearest", name);
    check(bits == 0, line);
    snprintf(line, sizeof line, "%s: overflow, infinities, zeros", name);
    check(encodes_right(f, FLT_MAX) && encodes_right(f, -FLT_MAX) && encodes_right(f, INFINITY) &&
              encodes_right(f, 0.0f) && encodes_right(f, -0.0f) && encodes_right(f, FLT_MIN) &&
              encodes_right(f, 1e-45f) && encodes_right(f, 65519.99f) && encodes_right(f, 65520.0f),
          line);
}

/* ---- CRC-32: the vectors of Ross Williams' guide and of RFC 3720-like patterns, then one bit at a time ---- */

static uint32_t naive_crc(const uint8_t *p, size_t n) {
    uint32_t c = 0xffffffffu;
    size_t bit;
    for (bit = 0; bit < 8 * n; bit++) {
        uint32_t in = (p[bit / 8] >> (bit % 8) & 1u) ^ (c & 1u);
        c = (c >> 1) ^ (in ? 0xedb88320u : 0u);
    }
    return ~c;
}

static void test_crc(void) {
    static uint8_t bytes[20000];
    lemon_rng rng;
    uint32_t c;
    size_t i, n, cut, bad = 0, split = 0;
    check(lemon_crc32(0, "123456789", 9) == 0xcbf43926u, "CRC-32 of 123456789 is cbf43926");
    check(lemon_crc32(0, "", 0) == 0 && lemon_crc32(0, "a", 1) == 0xe8b7be43u, "of nothing 0, of a e8b7be43");
    check(lemon_crc32(0, "The quick brown fox jumps over the lazy dog", 43) == 0x414fa339u,
          "of the quick brown fox 414fa339");
    lemon_rng_seed(&rng, 1);
    for (i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)lemon_rng_next(&rng);
    for (n = 4080; n < 4120; n++) bad += lemon_crc32(0, bytes + n % 7, n) != naive_crc(bytes + n % 7, n);
    bad += lemon_crc32(0, bytes, sizeof bytes) != naive_crc(bytes, sizeof bytes);
    check(bad == 0, "long ones agree with one bit at a time, at any alignment");
    for (i = 0; i < 50; i++) {
        cut = (size_t)lemon_rng_below(&rng, (int64_t)sizeof bytes);
        c = lemon_crc32(lemon_crc32(0, bytes, cut), bytes + cut, sizeof bytes - cut);
        split += c != lemon_crc32(0, bytes, sizeof bytes);
    }
    check(split == 0, "a checksum goes on from an earlier one");
}

/*  Pieces of 1 MB by threads, 64 at a time. */
static void test_checksum(void) {
    static const size_t sizes[] = {0, 1, 1 << 20, (1 << 20) + 1, (5 << 20) + 12345, (64 << 20) + 7};
    uint8_t *bytes = (uint8_t *)malloc(65 << 20);
    size_t i, bad = 0;
    for (i = 0; i < 65 << 20; i++) bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    for (int threads = 1; threads < 4; threads++) {
        lemon_ctx *ctx = open_ctx(threads);
        for (i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
            bad += lemon__checksum(ctx, (uint32_t)(i * 77777), bytes + i, sizes[i]) != lemon_crc32((uint32_t)(i * 77777), bytes + i, sizes[i]);
        lemon_close(ctx);
    }
    free(bytes);
    check(bad == 0, "by threads it is the same");
}

/* ---- random numbers ---- */

/*  SplitMix64 by its paper (Steele, Lea and Flood 2014, figure 17 with the constants of mix64 variant 13). */
static uint64_t splitmix(uint64_t *state) {
    uint64_t z;
    *state += UINT64_C(0x9e3779b97f4a7c15);
    z = *state;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static void test_sequence(void) {
    lemon_rng rng, other;
    uint64_t state;
    int i, bad = 0;
    rng.state = 1234567; /* Vigna's splitmix64.c with this seed, as Rosetta Code lists it */
    check(lemon_rng_next(&rng) == UINT64_C(6457827717110365317) &&
              lemon_rng_next(&rng) == UINT64_C(3203168211198807973) &&
              lemon_rng_next(&rng) == UINT64_C(9817491932198370423),
          "SplitMix64 from state 1234567 gives the published numbers");
    lemon_rng_seed(&rng, 42);
    state = rng.state;
    for (i = 0; i < 1000; i++) bad += lemon_rng_next(&rng) != splitmix(&state);
    check(bad == 0 && state == rng.state, "and goes on as in the paper; the state is one number");
    lemon_rng_seed(&rng, 5);
    lemon_rng_seed(&other, 6);
    check(lemon_rng_next(&rng) != lemon_rng_next(&other), "another seed gives other numbers");
    other = rng;
    check(lemon_rng_next(&rng) == lemon_rng_next(&other), "a copied state goes on alike");
}

static void test_below(void) {
    lemon_rng rng;
    int64_t count[7] = {0}, i, n = 700000, bad = 0;
    double chi = 0;
    lemon_rng_seed(&rng, 7);
    for (i = 0; i < n; i++) {
        int64_t k = lemon_rng_below(&rng, 7);
        if (k < 0 || k > 6) bad++;
        else count[k]++;
    }
    for (i = 0; i < 7; i++) chi += pow((double)count[i] - (double)n / 7, 2) / ((double)n / 7);
    detail("chi squared %.2f with 6 degrees of freedom", chi);
    check(bad == 0 && chi < 30, "seven sides fall alike");
    for (i = 0, bad = 0; i < 1000; i++) bad += lemon_rng_below(&rng, 1) != 0;
    for (i = 0; i < 1000; i++) bad += lemon_rng_below(&rng, INT64_MAX) < 0;
    check(bad == 0, "one side, and as many as there are numbers");
}

static void test_distributions(void) {
    lemon_rng rng;
    double sum = 0, square = 0, fourth = 0, lag = 0, last = 0, least = 1, most = 0;
    int64_t i, n = 400000, beyond = 0;
    lemon_rng_seed(&rng, 11);
    for (i = 0; i < n; i++) {
        double u = lemon_rng_uniform(&rng);
        sum += u;
        square += u * u;
        least = u < least ? u : least;
        most = u > most ? u : most;
    }
    check(least >= 0 && most < 1 && least < 1e-4 && most > 1 - 1e-4, "uniform numbers fill [0, 1)");
    check(near_to(sum / (double)n, 0.5, 0.003) && near_to(square / (double)n, 1.0 / 3, 0.003),
          "with the moments of a uniform");
    for (i = 0, sum = square = 0; i < n; i++) {
        double x = lemon_rng_normal(&rng);
        sum += x;
        square += x * x;
        fourth += x * x * x * x;
        lag += x * last;
        last = x;
        beyond += fabs(x) > 1.959964;
    }
    check(near_to(sum / (double)n, 0, 0.01) && near_to(square / (double)n, 1, 0.015),
          "normal numbers: mean 0, variance 1");
    check(near_to(fourth / (double)n, 3, 0.03) && near_to((double)beyond / (double)n, 0.05, 0.002),
          "their tails are normal too");
    check(near_to(lag / (double)n, 0, 0.01), "and neighbours know nothing of each other");
}

int main(void) {
    test_small_float(bf16, "bf16");
    test_small_float(f16, "f16");
    test_crc();
    test_checksum();
    test_sequence();
    test_below();
    test_distributions();
    return check_done();
}
