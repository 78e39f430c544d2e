// Products of tokens with weights, both in bfloat16, in AMX tiles.
//
// Axes: N tokens (the rows of a product), E numbers of each, F features of the result.

#include "tiles.h"

#ifdef HAS_TILES

#define WEIGHTS_A_LINE 32

// Multiplies 32 rows, packed by ``pack_rows``, with 32 columns of weights, which lie in blocks of 32 x 32: 16 pairs, 32 columns, 2
// numbers. With each block some lines of memory are fetched ``ahead``.
static inline void block(const number *x, const number *weight, float *out, long E, const number *ahead, long lines) {
    COMPILER_BARRIER;
    ZERO_SUMS;
    for (long e = 0; e < E; e += 32) {
        const number *rows = x + e * 32, *columns = weight + e * 32;
        for (long l = 0; l < lines; l++, ahead += WEIGHTS_A_LINE) __builtin_prefetch(ahead, 0, 2);
        _tile_loadd(4, rows, 64);
        _tile_loadd(5, rows + TILE, 64);
        _tile_loadd(6, columns, 128);
        _tile_loadd(7, columns + 32, 128);
        MULTIPLY(_tile_dpbf16ps);
    }
    STORE(out, 32);
}

static inline __m512 wider(__m256i numbers) { return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(numbers), 16); }

static inline __m512 widened(const number *from) { return wider(_mm256_loadu_si256((const __m256i *)from)); }

static inline __m512 silu(__m512 x) {
    // No more than 2^126: gcc divides by way of a reciprocal, which is NaN for infinity.
    __m512 power = _mm512_min_ps(_mm512_mul_ps(x, _mm512_set1_ps(-LOG2_E)), _mm512_set1_ps(126));
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1), powers_of_2(power)));
}

typedef struct {
    const number *x, *norm, *weight, *gate, *bias, *other;
    number *out, *packed;  // room for rows as ``pack_rows`` packs them
    float epsilon;
    long N, E, F;
} Product;

// The factor that brings a row to a mean square of 1.
static inline float scale(const number *row, float epsilon, long E) {
    __m512 sum = _mm512_setzero_ps();
    for (long e = 0; e < E; e += 16) sum = _mm512_fmadd_ps(widened(row + e), widened(row + e), sum);
    return 1 / sqrtf(_mm512_reduce_add_ps(sum) / E + epsilon);
}

static inline __m512i normed(__m512i row, const number *weight, float scale) {
    __m512 by = _mm512_set1_ps(scale), one = _mm512_mul_ps(wider(_mm512_castsi512_si256(row)), by);
    __m512 two = _mm512_mul_ps(wider(_mm512_extracti64x4_epi64(row, 1)), by);
    __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(two, one);
    one = _mm512_mul_ps(wider(_mm512_castsi512_si256(rounded)), widened(weight));
    two = _mm512_mul_ps(wider(_mm512_extracti64x4_epi64(rounded, 1)), widened(weight + 16));
    return (__m512i)_mm512_cvtne2ps_pbh(two, one);
}

// Packs the 32 rows from n on into tiles, one behind the other, normed if there are weights for it. Missing rows are 0.
static inline void pack_rows(const Product *of, long n, number *packed) {
    for (long row = n; row < n + 32; row++) {
        const number *from = of->x + row * of->E;
        number *to = packed + (row - n) * 32;
        int exists = row < of->N;
        float by = exists && of->norm ? scale(from, of->epsilon, of->E) : 0;
        for (long e = 0; e < of->E; e += 32) {
            __m512i numbers = exists ? _mm512_loadu_si512(from + e) : _mm512_setzero_si512();
            _mm512_store_si512(to + e * 32, exists && of->norm ? normed(numbers, of->norm + e, by) : numbers);
        }
    }
}

// Adds bias and other to sums (32, 32) and writes them. gcc makes a loop for each case, as neither pointer changes.
static inline void finish(const float *sums, const number *bias, const number *other, number *out,
                          long rows, long F) {
    for (long row = 0; row < rows; row++, sums += 32, out += F) {
        __m512 one = _mm512_load_ps(sums), two = _mm512_load_ps(sums + 16);
        if (bias) one = _mm512_add_ps(one, widened(bias)), two = _mm512_add_ps(two, widened(bias + 16));
        if (other) {
            one = _mm512_add_ps(one, widened(other + row * F)), two = _mm512_add_ps(two, widened(other + row * F + 16));
        }
        _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(two, one));
    }
}

// Multiplies sums (32, 32) by SiLU of the gates.
static inline void finish_gated(const float *sums, const float *gates, number *out, long rows, long F) {
    for (long row = 0; row < rows; row++, sums += 32, gates += 32, out += F) {
        __m512 one = silu(_mm512_load_ps(gates)), two = silu(_mm512_load_ps(gates + 16));
        __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(two, one);
        one = _mm512_mul_ps(_mm512_load_ps(sums), wider(_mm512_castsi512_si256(rounded)));
        two = _mm512_mul_ps(_mm512_load_ps(sums + 16), wider(_mm512_extracti64x4_epi64(rounded, 1)));
        _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(two, one));
    }
}

// Computes rows from n on, packed, with the 32 columns from f on. ``distance``: the distance from a weight to those that are
// fetched with it.
static inline void compute(const Product *of, const number *packed, long n, long f, long distance, long lines) {
    float sums[32 * 32] __attribute__((aligned(64))), gates[32 * 32] __attribute__((aligned(64)));
    const number *weight = of->weight + f * of->E;
    const number *bias = of->bias ? of->bias + f : NULL, *other = of->other ? of->other + n * of->F + f : NULL;
    number *out = of->out + n * of->F + f;
    long rows = of->N - n < 32 ? of->N - n : 32;
    block(packed, weight, sums, of->E, weight + distance, lines);
    if (of->gate) {
        const number *gate = of->gate + f * of->E;
        block(packed, gate, gates, of->E, gate + distance, lines);
        finish_gated(sums, gates, out, rows, of->F);
    } else finish(sums, bias, other, out, rows, of->F);
}

#include "sharing.h"

// out (N, F) = x (N, E) times weight, plus bias (F) and other (N, F) where they are not NULL. If gate is not NULL they are, and
// it is multiplied by SiLU of x times gate. E and F are multiples of 32, weights as ``block`` takes them. If norm (E) is not
// NULL, x goes through an RMS norm with these weights first.
void product(const number *x, const number *norm, const number *weight, const number *gate, const number *bias,
             const number *other, number *out, float epsilon, long N, long E, long F) {
    share_out((Product){x, norm, weight, gate, bias, other, out, .epsilon = epsilon, .N = N, .E = E, .F = F});
}

#endif
