// AMX tiles, of 16 rows of 64 bytes, and attention of 32 queries in them.

#pragma once

#include "numbers.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__AVX512DQ__) && !defined(FLOAT32) && !defined(NO_TILES)

#define HAS_TILES

#include <immintrin.h>

enum { QUERIES = 32, KEYS = 64, TILE = 512 };

typedef struct { uint8_t palette, start, zeros[14]; uint16_t row_bytes[16]; uint8_t rows[16]; } Tiles;

// gcc 12 believes that this reads 8 bytes of the 64, and may leave the others unwritten.
static inline void set_tiles(const Tiles *tiles) {
    __asm__ volatile("" ::"m"(*tiles));
    _tile_loadconfig(tiles);
}

// Makes all tiles of this thread whole. Returns their former setup, to be restored: oneDNN relies on the one that it made.
static inline Tiles whole_tiles(void) {
    Tiles whole = {.palette = 1}, before;
    for (int tile = 0; tile < 8; tile++) whole.row_bytes[tile] = 64, whole.rows[tile] = 16;
    _tile_storeconfig(&before);
    __asm__ volatile("" : "+m"(before));  // all of it was written
    set_tiles(&whole);
    return before;
}

// gcc does not know that loading a tile reads memory, and might write it later.
#define COMPILER_BARRIER __asm__ volatile("" ::: "memory")

// The sums of four products, in tiles 0 to 3.
#define ZERO_SUMS  \
    _tile_zero(0); \
    _tile_zero(1); \
    _tile_zero(2); \
    _tile_zero(3)

// Four products of tiles: those in 4 and 5, of 16 rows each, with those in 6 and 7, of 16 columns.
#define MULTIPLY(kind) \
    kind(0, 4, 6);     \
    kind(1, 4, 7);     \
    kind(2, 5, 6);     \
    kind(3, 5, 7)
#define PRODUCTS(rows, row_bytes, columns)                                \
    _tile_loadd(4, rows, row_bytes);                                      \
    _tile_loadd(5, (const char *)(rows) + 16 * (row_bytes), row_bytes);   \
    _tile_loadd(6, columns, 64);                                          \
    _tile_loadd(7, (columns) + TILE, 64);                                 \
    MULTIPLY(_tile_dpbf16ps)
#define STORE(to, width)                                        \
    _tile_stored(0, to, (width) * sizeof(float));               \
    _tile_stored(1, (to) + 16, (width) * sizeof(float));        \
    _tile_stored(2, (to) + 16 * (width), (width) * sizeof(float)); \
    _tile_stored(3, (to) + 16 * (width) + 16, (width) * sizeof(float))

// 2^x, within 8e-5, where bfloat16 rounds to 2e-3: 2 to the whole part of x, times a polynomial of the rest.
static inline __m512 powers_of_2(__m512 x) {
    __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF), power = _mm512_set1_ps(0.0780252908f);
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0.226066053f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0.695833897f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0.999925238f));
    return _mm512_scalef_ps(power, x);
}

// The running softmax of 32 queries: of each its highest score, 16 parts of its sum of exponentials, and the values (32, D)
// that these weigh.
typedef struct { float *most, *lanes, *values; } Softmax;

#define EMPTY_SOFTMAX(name, D)                                                                                    \
    float name##_values[QUERIES * D] __attribute__((aligned(64))), name##_lanes[QUERIES * 16] __attribute__((aligned(64))); \
    float name##_most[QUERIES];                                                                                   \
    Softmax name = {name##_most, name##_lanes, name##_values};                                                    \
    memset(name##_values, 0, sizeof name##_values);                                                               \
    memset(name##_lanes, 0, sizeof name##_lanes);                                                                 \
    /* Above masked scores, whose shares then are 0, and below all others. */                                     \
    for (long i = 0; i < QUERIES; i++) name##_most[i] = -1e20f

// Turns query i's scores of a block of keys into exponentials, relative to the highest score so far, and scales its earlier
// sums down to that.
static inline __attribute__((always_inline)) void weigh(Softmax of, long i, const float *scores, number *shares, float scale,
                                                        const long keys, const long D) {
    float *most = of.most + i, *lanes = of.lanes + i * 16, *values = of.values + i * D;
    __m512 highest = _mm512_load_ps(scores), by = _mm512_set1_ps(scale);
    for (long l = 16; l < keys; l += 16) highest = _mm512_max_ps(highest, _mm512_load_ps(scores + l));
    highest = _mm512_mul_ps(highest, by);
    if (_mm512_cmp_ps_mask(highest, _mm512_set1_ps(*most), _CMP_GT_OQ)) {
        float now = _mm512_reduce_max_ps(highest), before = power_of_2(*most - now);
        for (long d = 0; d < D; d++) values[d] *= before;
        for (long l = 0; l < 16; l++) lanes[l] *= before;
        *most = now;
    }
    __m512 top = _mm512_set1_ps(*most), sum = _mm512_load_ps(lanes);
    for (long l = 0; l < keys; l += 32) {
        __m512 one = powers_of_2(_mm512_fmsub_ps(_mm512_load_ps(scores + l), by, top));
        __m512 other = powers_of_2(_mm512_fmsub_ps(_mm512_load_ps(scores + l + 16), by, top));
        sum = _mm512_add_ps(sum, _mm512_add_ps(one, other));
        _mm512_store_si512(shares + l, (__m512i)_mm512_cvtne2ps_pbh(other, one));
    }
    _mm512_store_ps(lanes, sum);
}

// The mask of a sequence's P keys: from first on, but for a gap, behind which lie new tokens. segment, if not NULL, gives for
// each key from the gap's begin on 0, or the segment that it is in.
typedef struct { long first, gap, gap_end, P; const int64_t *segment; } Mask;

// Up to 32 queries (32, D). last, if not NULL, is the last key that each of them attends to: from least to most. Some may be
// in segments, and attend to their own only.
typedef struct { const number *queries; const long *last; long rows, least, most; int in_segments; } Queries;

static inline void fill(float *scores, long from, long to, long keys) {
    for (long l = from > 0 ? from : 0; l < to && l < keys; l++) scores[l] = -1e30f;
}

// Masks a query's scores of keys from begin on: these get next to no share, and no NaN as -inf would give.
static inline void apply_mask(float *scores, long begin, long keys, Mask mask, long last) {
    fill(scores, 0, mask.first - begin, keys);
    fill(scores, mask.gap - begin, mask.gap_end - begin, keys);
    fill(scores, last + 1 - begin, keys, keys);
    int64_t segment = mask.segment ? mask.segment[last - mask.gap] : 0;
    for (long key = begin > mask.gap_end ? begin : mask.gap_end; segment && key <= last && key < begin + keys; key++) {
        int64_t other = mask.segment[key - mask.gap];
        if (other && other != segment) scores[key - begin] = -1e30f;
    }
}

// Adds a block of 32 or 64 keys, from begin on, to the running softmax.
static inline __attribute__((always_inline)) void attend_block(Softmax of, const Queries *by, const number *keys, const number *values,
        float scaling, long begin, Mask mask, const long width, const long D) {
    float scores[QUERIES * KEYS] __attribute__((aligned(64)));
    number shares[QUERIES * KEYS] __attribute__((aligned(64)));
    for (long l = 0; l < width; l += 32) {
        ZERO_SUMS;
        for (long d = 0; d < D; d += 32) {
            PRODUCTS(by->queries + d, D * sizeof(number), keys + (begin + l) * D + d / 32 * 2 * TILE);
        }
        STORE(scores + l, KEYS);
    }
    int masked = begin + width > by->least + 1 || begin < mask.first || (begin < mask.gap_end && begin + width > mask.gap);
    for (long i = 0; i < by->rows && (masked || by->in_segments); i++) {
        apply_mask(scores + i * KEYS, begin, width, mask, by->last ? by->last[i] : mask.P - 1);
    }
    for (long i = 0; i < by->rows; i++) weigh(of, i, scores + i * KEYS, shares + i * KEYS, scaling * LOG2_E, width, D);
    COMPILER_BARRIER;
    for (long d = 0; d < D; d += 32) {
        float *sums = of.values + d;
        _tile_loadd(0, sums, D * sizeof(float));
        _tile_loadd(1, sums + 16, D * sizeof(float));
        _tile_loadd(2, sums + 16 * D, D * sizeof(float));
        _tile_loadd(3, sums + 16 * D + 16, D * sizeof(float));
        for (long l = 0; l < width; l += 32) {
            PRODUCTS(shares + l, KEYS * sizeof(number), values + (begin + l) * D + d / 16 * TILE);
        }
        STORE(sums, D);
    }
}

static inline __attribute__((always_inline)) void attend_blocks(Softmax of, const Queries *by, const number *keys,
        const number *values, float scaling, Mask mask, const long D) {
    COMPILER_BARRIER;
    for (long begin = mask.first / 32 * 32; begin <= by->most; begin += KEYS) {
        if (by->most + 1 - begin > 32) attend_block(of, by, keys, values, scaling, begin, mask, KEYS, D);
        else attend_block(of, by, keys, values, scaling, begin, mask, 32, D);
    }
}

// Writes query i's attention (D). Returns the log of its sum of exponentials.
static inline float finish_softmax(Softmax of, long i, number *out, const long D) {
    float sum = _mm512_reduce_add_ps(_mm512_load_ps(of.lanes + i * 16));
    for (long d = 0; d < D; d++) out[d] = narrow(of.values[i * D + d] / sum);
    return of.most[i] / LOG2_E + logf(sum);
}

// Attention of up to 32 queries (32, D) to all of P packed keys and values. Writes it, and the log of each one's sum.
static inline __attribute__((always_inline)) void attend_all(const number *queries, long rows, const number *keys,
        const number *values, number *out, float *sums, float scaling, long P, const long D) {
    number padded[QUERIES * D] __attribute__((aligned(64)));
    EMPTY_SOFTMAX(softmax, D);
    memcpy(padded, queries, rows * D * sizeof(number));
    memset(padded + rows * D, 0, (QUERIES - rows) * D * sizeof(number));
    attend_blocks(softmax, &(Queries){padded, .rows = rows, .least = P - 1, .most = P - 1}, keys, values, scaling, (Mask){.P = P}, D);
    for (long i = 0; i < rows; i++) sums[i] = finish_softmax(softmax, i, out + i * D, D);
}

#endif
