// Products of rows with weights. Few rows share the weights' columns out among threads: each weight is read from memory
// once, ahead of its use. Many rows are shared out themselves, so that what a thread reads next is in its own cache.
//
// Axes: N rows, E numbers of each, F features of the result.

#include "tiles.h"

#ifdef HAS_TILES

#include <omp.h>

enum { AHEAD = 4 * 1024, MANY = 256, COLUMNS = 192 };  // numbers to fetch ahead; rows; columns of weights in the cache

// 32 rows, laid down by ``lay``, with 32 columns of weights, which lie in blocks of 32 x 32: 16 pairs, 32 columns, 2 numbers.
static inline void block(const number *x, const number *weight, float *out, long E, int fetches) {
    WRITTEN;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (long e = 0; e < E; e += 32) {
        const number *rows = x + e * 32, *columns = weight + e * 32;
        for (long l = 0; l < 1024 && fetches; l += 32) __builtin_prefetch(columns + AHEAD + l, 0, 2);
        _tile_loadd(4, rows, 64);
        _tile_loadd(5, rows + TILE, 64);
        _tile_loadd(6, columns, 128);
        _tile_loadd(7, columns + 32, 128);
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

typedef struct {
    const number *x, *weight, *gate, *bias, *other;
    number *out, *laid;
    long N, E, F;
} Product;

// Lays the 32 rows from n on in tiles, one behind the other. What is missing of 32 is 0.
static inline void lay(const Product *of, long n) {
    for (long e = 0; e < of->E; e += 32) {
        for (long row = n; row < n + 32; row++) {
            __m512i numbers = row < of->N ? _mm512_loadu_si512(of->x + row * of->E + e) : _mm512_setzero_si512();
            _mm512_store_si512(of->laid + n * of->E + e * 32 + (row - n) * 32, numbers);
        }
    }
}

// What is added to 16 sums or multiplied with them. gates are sums too, from their place on.
static inline __m512 finished(const Product *of, __m512 sum, const float *gates, long n, long f) {
    if (of->bias) sum = _mm512_add_ps(sum, widened(of->bias + f));
    if (of->other) sum = _mm512_add_ps(sum, widened(of->other + n * of->F + f));
    if (!of->gate) return sum;
    __m512i rounded = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(silu(_mm512_load_ps(gates))));
    return _mm512_mul_ps(sum, (__m512)_mm512_slli_epi32(rounded, 16));
}

// The 32 rows from n on with the 32 columns from f on.
static inline void compute(const Product *of, long n, long f, int fetches) {
    float made[32 * 32] __attribute__((aligned(64))), gates[32 * 32] __attribute__((aligned(64)));
    block(of->laid + n * of->E, of->weight + f * of->E, made, of->E, fetches);
    if (of->gate) block(of->laid + n * of->E, of->gate + f * of->E, gates, of->E, fetches);
    for (long row = 0; row < 32 && n + row < of->N; row++) {
        const float *sums = made + row * 32, *of_gate = gates + row * 32;
        __m512 one = finished(of, _mm512_load_ps(sums), of_gate, n + row, f);
        __m512 other = finished(of, _mm512_load_ps(sums + 16), of_gate + 16, n + row, f + 16);
        _mm512_storeu_si512(of->out + (n + row) * of->F + f, (__m512i)_mm512_cvtne2ps_pbh(other, one));
    }
}

static void share_out_columns(const Product *of) {
#pragma omp for schedule(static)
    for (long n = 0; n < of->N; n += 32) lay(of, n);
#pragma omp for schedule(static)
    for (long f = 0; f < of->F; f += 32) {
        for (long n = 0; n < of->N; n += 32) compute(of, n, f, n == 0);
    }
}

static void share_out_rows(const Product *of) {
    long blocks = (of->N + 31) / 32, threads = omp_get_num_threads(), thread = omp_get_thread_num();
    long begin = blocks * thread / threads * 32, end = blocks * (thread + 1) / threads * 32;
    for (long n = begin; n < end; n += 32) lay(of, n);
    for (long from = 0; from < of->F; from += COLUMNS) {
        for (long n = begin; n < end; n += 32) {
            for (long f = from; f < from + COLUMNS && f < of->F; f += 32) compute(of, n, f, 0);
        }
    }
}

// out (N, F) = x (N, E) times weight, plus bias (F) and other (N, F) where they are not NULL. If gate is not NULL this is
// multiplied by SiLU of x times gate. E and F are multiples of 32, weights as ``block`` takes them.
void product(const number *x, const number *weight, const number *gate, const number *bias, const number *other,
             number *out, long N, long E, long F) {
    Product of = {x, weight, gate, bias, other, out, .N = N, .E = E, .F = F};
    of.laid = aligned_alloc(64, (N + 31) / 32 * 32 * E * sizeof(number));
#pragma omp parallel
    {
        Tiles before = whole_tiles();
        if (N < MANY) share_out_columns(&of);
        else share_out_rows(&of);
        _tile_loadconfig(&before);
    }
    free(of.laid);
}

#endif
