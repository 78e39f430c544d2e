// Tiles of 16 rows of 64 bytes that the processor multiplies (AMX), and attention of 32 queries in them.

#pragma once

#include "numbers.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__AVX512DQ__) && !defined(FLOAT32)

#define HAS_TILES

#include <immintrin.h>

enum { QUERIES = 32, KEYS = 64, TILE = 512 };

typedef struct { uint8_t palette, start, zeros[14]; uint16_t row_bytes[16]; uint8_t rows[16]; } Tiles;

// Makes all tiles of this thread whole. Returns what they were: oneDNN remembers what it set, and would take ours for it.
static inline Tiles whole_tiles(void) {
    Tiles whole = {.palette = 1}, before;
    for (int tile = 0; tile < 8; tile++) whole.row_bytes[tile] = 64, whole.rows[tile] = 16;
    _tile_storeconfig(&before);
    _tile_loadconfig(&whole);
    return before;
}

// gcc does not know that loading a tile reads memory, and might write it later.
#define WRITTEN __asm__ volatile("" ::: "memory")

// Four products of tiles: two of 16 rows each with two of 16 columns.
#define PRODUCTS(rows, row_bytes, columns)                                \
    _tile_loadd(4, rows, row_bytes);                                      \
    _tile_loadd(5, (const char *)(rows) + 16 * (row_bytes), row_bytes);   \
    _tile_loadd(6, columns, 64);                                          \
    _tile_loadd(7, (columns) + TILE, 64);                                 \
    _tile_dpbf16ps(0, 4, 6);                                              \
    _tile_dpbf16ps(1, 4, 7);                                              \
    _tile_dpbf16ps(2, 5, 6);                                              \
    _tile_dpbf16ps(3, 5, 7)
#define STORE(to, width)                                        \
    _tile_stored(0, to, (width) * sizeof(float));               \
    _tile_stored(1, (to) + 16, (width) * sizeof(float));        \
    _tile_stored(2, (to) + 16 * (width), (width) * sizeof(float)); \
    _tile_stored(3, (to) + 16 * (width) + 16, (width) * sizeof(float))

// 2^x, within 8e-5, where bfloat16 rounds to 2e-3: 2 to the whole part of x, times a polynomial of what is left.
static inline __m512 powers_of_2(__m512 x) {
    __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF), power = _mm512_set1_ps(0.0780252908f);
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0.226066053f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0.695833897f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0.999925238f));
    return _mm512_scalef_ps(power, x);
}

// Turns a query's scores of a block into its shares of it, relative to the highest so far, and what it found before into
// what counts beside them. lanes are 16 parts of the sum of shares.
static inline void weigh(const float *scores, number *shares, float scale, float *most, float *lanes, float *found, long D) {
    __m512 highest = _mm512_load_ps(scores), by = _mm512_set1_ps(scale);
    for (long l = 16; l < KEYS; l += 16) highest = _mm512_max_ps(highest, _mm512_load_ps(scores + l));
    highest = _mm512_mul_ps(highest, by);
    if (_mm512_cmp_ps_mask(highest, _mm512_set1_ps(*most), _CMP_GT_OQ)) {
        float now = _mm512_reduce_max_ps(highest), before = power_of_2(*most - now);
        for (long d = 0; d < D; d++) found[d] *= before;
        for (long i = 0; i < 16; i++) lanes[i] *= before;
        *most = now;
    }
    __m512 top = _mm512_set1_ps(*most), sum = _mm512_load_ps(lanes);
    for (long l = 0; l < KEYS; l += 32) {
        __m512 one = powers_of_2(_mm512_fmsub_ps(_mm512_load_ps(scores + l), by, top));
        __m512 other = powers_of_2(_mm512_fmsub_ps(_mm512_load_ps(scores + l + 16), by, top));
        sum = _mm512_add_ps(sum, _mm512_add_ps(one, other));
        _mm512_store_si512(shares + l, (__m512i)_mm512_cvtne2ps_pbh(other, one));
    }
    _mm512_store_ps(lanes, sum);
}

// Of a query's scores of the keys from begin on: what it may not see gets next to no share, and no NaN as -inf would.
static inline void hide(float *scores, long begin, long known, long width, long own, const number *mask) {
    long seen = own + 1 - begin < known ? (own + 1 - begin > 0 ? own + 1 - begin : 0) : known;
    if (mask) {
        for (long l = 0; l < seen; l++) {
            float masked = scores[l] + wide(mask[begin + l]);
            scores[l] = masked > -1e30f ? masked : -1e30f;
        }
    }
    for (long l = seen; l < width; l++) scores[l] = -1e30f;
}

// Up to 32 queries over P keys. If T > 0 the last of these are of T new tokens: query number i is of token (first + i) % T,
// and sees keys up to its own that are not hidden by the mask (T, P).
static inline __attribute__((always_inline)) void look_together(const number *queries, long rows, const number *keys,
        const number *values, const number *mask, number *out, float *sums, float scaling, long first, long T, long P,
        const long D) {
    float scores[QUERIES * KEYS] __attribute__((aligned(64))), found[QUERIES * D] __attribute__((aligned(64)));
    number shares[QUERIES * KEYS] __attribute__((aligned(64))), asked[QUERIES * D] __attribute__((aligned(64)));
    float lanes[QUERIES * 16] __attribute__((aligned(64))), most[QUERIES], scale = scaling * LOG2_E;
    memset(asked, 0, sizeof asked);
    memset(found, 0, sizeof found);
    memset(lanes, 0, sizeof lanes);
    memcpy(asked, queries, rows * D * sizeof(number));
    // Above scores that are hidden, whose shares then are 0, and below all others.
    for (long i = 0; i < QUERIES; i++) most[i] = -1e20f;
    WRITTEN;
    long seen = P;
    if (T && first % T + rows <= T) seen = P - T + first % T + rows;  // what comes later is hidden from all of them
    for (long begin = 0; begin < seen; begin += KEYS) {
        for (long l = 0; l < KEYS; l += 32) {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            for (long d = 0; d < D; d += 32) {
                PRODUCTS(asked + d, D * sizeof(number), keys + (begin + l) * D + d / 32 * 2 * TILE);
            }
            STORE(scores + l, KEYS);
        }
        long known = P - begin < KEYS ? P - begin : KEYS;
        int all = known == KEYS && !mask && (!T || begin + KEYS <= P - T + 1);
        for (long i = 0; i < QUERIES && !all; i++) {
            long t = T ? (first + i) % T : 0, own = T ? P - T + t : P;
            hide(scores + i * KEYS, begin, known, KEYS, own, mask && i < rows ? mask + t * P : NULL);
        }
        for (long i = 0; i < QUERIES; i++) {
            weigh(scores + i * KEYS, shares + i * KEYS, scale, most + i, lanes + i * 16, found + i * D, D);
        }
        WRITTEN;
        for (long d = 0; d < D; d += 32) {
            _tile_loadd(0, found + d, D * sizeof(float));
            _tile_loadd(1, found + d + 16, D * sizeof(float));
            _tile_loadd(2, found + 16 * D + d, D * sizeof(float));
            _tile_loadd(3, found + 16 * D + d + 16, D * sizeof(float));
            for (long l = 0; l < KEYS; l += 32) {
                PRODUCTS(shares + l, KEYS * sizeof(number), values + (begin + l) * D + d / 16 * TILE);
            }
            STORE(found + d, D);
        }
    }
    for (long i = 0; i < rows; i++) {
        float sum = _mm512_reduce_add_ps(_mm512_load_ps(lanes + i * 16));
        for (long d = 0; d < D; d++) out[i * D + d] = narrow(found[i * D + d] / sum);
        sums[i] = most[i] / LOG2_E + logf(sum);
    }
}

#endif
