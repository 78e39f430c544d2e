// Products of few rows with weights, which are read from memory once for all of them.
//
// oneDNN computes many rows as fast as the processor can, but for few it waits for weights: here they are fetched ahead.
// Axes: N rows, E numbers of each, F features of the result.

#include "tiles.h"

#ifdef HAS_TILES

enum { AHEAD = 4 * 1024 };  // numbers

// 32 rows with 32 columns of weights, which lie in blocks of 32 x 32: 16 pairs of numbers, 32 columns, 2 numbers.
static inline void block(const number *x, const number *weight, float *out, long E, int fetches) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (long e = 0; e < E; e += 32) {
        const number *of = weight + e * 32;
        for (long l = 0; l < 1024 && fetches; l += 32) __builtin_prefetch(of + AHEAD + l, 0, 2);
        _tile_loadd(4, x + e, E * sizeof(number));
        _tile_loadd(5, x + 16 * E + e, E * sizeof(number));
        _tile_loadd(6, of, 128);
        _tile_loadd(7, of + 32, 128);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    STORE(out, 32);
}

static inline __m512 widened(const number *from) {
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from)), 16);
}

static inline __m512 silu(__m512 x) {
    // No more than 2^126: gcc divides by way of a reciprocal, which is NaN of what has no end.
    __m512 power = _mm512_min_ps(_mm512_mul_ps(x, _mm512_set1_ps(-LOG2_E)), _mm512_set1_ps(126));
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1), powers_of_2(power)));
}

// out (N, F) = x (N, E) times weight, plus bias (F) and other (N, F) where they are not NULL. If gate is not NULL this is
// multiplied by SiLU of x times gate. E and F are multiples of 32, weights as ``block`` takes them.
void product(const number *x, const number *weight, const number *gate, const number *bias, const number *other,
             number *out, long N, long E, long F) {
    number *filled = NULL;
    if (N < QUERIES) {
        filled = aligned_alloc(64, QUERIES * E * sizeof(number));
        memset(filled, 0, QUERIES * E * sizeof(number));
        memcpy(filled, x, N * E * sizeof(number));
    }
#pragma omp parallel
    {
        Tiles before = whole_tiles();
        float made[32 * 32] __attribute__((aligned(64))), gates[32 * 32] __attribute__((aligned(64)));
#pragma omp for schedule(static)
        for (long f = 0; f < F; f += 32) {
            for (long begin = 0; begin < N; begin += QUERIES) {
                // The last rows are taken together with rows that were computed already.
                long n = begin + QUERIES <= N ? begin : N < QUERIES ? 0 : N - QUERIES;
                const number *rows = filled ? filled : x + n * E;
                block(rows, weight + f * E, made, E, begin == 0);
                if (gate) block(rows, gate + f * E, gates, E, begin == 0);
                for (long at = 0; at < 32 * (N < 32 ? N : 32); at += 16) {
                    long column = f + at % 32, to = (n + at / 32) * F + column;
                    __m512 sum = _mm512_load_ps(made + at);
                    if (bias) sum = _mm512_add_ps(sum, widened(bias + column));
                    if (other) sum = _mm512_add_ps(sum, widened(other + to));
                    if (gate) {
                        __m512i rounded = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(silu(_mm512_load_ps(gates + at))));
                        sum = _mm512_mul_ps(sum, (__m512)_mm512_slli_epi32(rounded, 16));
                    }
                    _mm256_storeu_si256((__m256i *)(out + to), (__m256i)_mm512_cvtneps_pbh(sum));
                }
            }
        }
        _tile_loadconfig(&before);
    }
    free(filled);
}

#endif
