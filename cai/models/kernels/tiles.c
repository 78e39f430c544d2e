// Attention of many queries, in tiles of 16 rows of 64 bytes that the processor multiplies (AMX).
//
// Axes as in layers.c; N queries of a row, P keys.

#include "numbers.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__AVX512DQ__) && !defined(FLOAT32)

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { QUERIES = 32, KEYS = 256, TILE = 512 };  // together; and numbers of a tile

// Whether the system lets this process use them.
int has_tiles(void) { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XTILEDATA */) == 0; }

// Keys (K, P, D) and values, with their strides over K and P, as the products read them: of 32 keys together, tiles of
// pairs of dimensions by keys, and tiles of pairs of keys by dimensions. Results (K, P up to a multiple of 32, D).
void pack(const number *keys, const number *values, const int64_t *stride, number *packed_keys, number *packed_values,
          long K, long P, long D) {
    long blocks = (P + 31) / 32;
#pragma omp parallel for schedule(static)
    for (long task = 0; task < K * blocks; task++) {
        long k = task / blocks, begin = task % blocks * 32;
        number *to_keys = packed_keys + task * 32 * D, *to_values = packed_values + task * 32 * D;
        memset(to_keys, 0, 32 * D * sizeof(number));
        memset(to_values, 0, 32 * D * sizeof(number));
        for (long l = 0; l < 32 && begin + l < P; l++) {
            const number *key = keys + k * stride[0] + (begin + l) * stride[1];
            const number *value = values + k * stride[0] + (begin + l) * stride[1];
            for (long d = 0; d < D; d++) {
                to_keys[d / 32 * 2 * TILE + l / 16 * TILE + d % 32 / 2 * 32 + l % 16 * 2 + d % 2] = key[d];
                to_values[d / 16 * TILE + l / 2 * 32 + d % 16 * 2 + l % 2] = value[d];
            }
        }
    }
}

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

// 2^x, within 3e-6: 2 to the whole part of x, times a polynomial of what is left.
static inline __m512 powers_of_2(__m512 x) {
    __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF), power = _mm512_set1_ps(0.0135339238f);
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0.0520112998f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0.241443362f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0.693003556f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(1.00000262f));
    return _mm512_scalef_ps(power, x);
}

// Turns scores of a row into its shares of the new keys, and what it found before into what counts beside them.
static inline void weigh(const float *scores, number *shares, long width, float scale, float *most, float *sum,
                         float *found, long D) {
    __m512 one = _mm512_loadu_ps(scores), other = _mm512_loadu_ps(scores + 16), by = _mm512_set1_ps(scale);
    for (long l = 32; l < width; l += 32) {
        one = _mm512_max_ps(one, _mm512_loadu_ps(scores + l));
        other = _mm512_max_ps(other, _mm512_loadu_ps(scores + l + 16));
    }
    float highest = _mm512_reduce_max_ps(_mm512_max_ps(one, other)) * scale;
    highest = *most > highest ? *most : highest;
    __m512 top = _mm512_set1_ps(highest), total = _mm512_setzero_ps();
    for (long l = 0; l < width; l += 32) {
        one = powers_of_2(_mm512_fmsub_ps(_mm512_loadu_ps(scores + l), by, top));
        other = powers_of_2(_mm512_fmsub_ps(_mm512_loadu_ps(scores + l + 16), by, top));
        total = _mm512_add_ps(total, _mm512_add_ps(one, other));
        _mm512_storeu_si512(shares + l, (__m512i)_mm512_cvtne2ps_pbh(other, one));
    }
    if (highest > *most) {
        float before = power_of_2(*most - highest);
        for (long d = 0; d < D; d++) found[d] *= before;
        *sum *= before;
        *most = highest;
    }
    *sum += _mm512_reduce_add_ps(total);
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
static void look_together(const number *queries, long rows, const number *keys, const number *values, const number *mask,
                          number *out, float *sums, float scaling, long first, long T, long P, long D) {
    float scores[QUERIES * KEYS] __attribute__((aligned(64))), found[QUERIES * D] __attribute__((aligned(64)));
    number shares[QUERIES * KEYS] __attribute__((aligned(64))), asked[QUERIES * D] __attribute__((aligned(64)));
    float most[QUERIES], sum[QUERIES], scale = scaling * LOG2_E;
    memset(asked, 0, sizeof asked);
    memset(found, 0, sizeof found);
    memcpy(asked, queries, rows * D * sizeof(number));
    for (long i = 0; i < QUERIES; i++) most[i] = -1e30f, sum[i] = 0;
    long seen = P;
    if (T && first % T + rows <= T) seen = P - T + first % T + rows;  // what comes later is hidden from all of them
    for (long begin = 0; begin < seen; begin += KEYS) {
        long known = seen - begin < KEYS ? seen - begin : KEYS, width = (known + 31) / 32 * 32;
        for (long l = 0; l < width; l += 32) {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            for (long d = 0; d < D; d += 32) {
                PRODUCTS(asked + d, D * sizeof(number), keys + (begin + l) * D + d / 32 * 2 * TILE);
            }
            STORE(scores + l, KEYS);
        }
        for (long i = 0; i < QUERIES; i++) {
            long t = T ? (first + i) % T : 0, own = T ? P - T + t : P;
            hide(scores + i * KEYS, begin, known, width, own, mask && i < rows ? mask + t * P : NULL);
            weigh(scores + i * KEYS, shares + i * KEYS, width, scale, most + i, sum + i, found + i * D, D);
        }
        for (long d = 0; d < D; d += 32) {
            _tile_loadd(0, found + d, D * sizeof(float));
            _tile_loadd(1, found + d + 16, D * sizeof(float));
            _tile_loadd(2, found + 16 * D + d, D * sizeof(float));
            _tile_loadd(3, found + 16 * D + d + 16, D * sizeof(float));
            for (long l = 0; l < width; l += 32) {
                PRODUCTS(shares + l, KEYS * sizeof(number), values + (begin + l) * D + d / 16 * TILE);
            }
            STORE(found + d, D);
        }
    }
    for (long i = 0; i < rows; i++) {
        for (long d = 0; d < D; d++) out[i * D + d] = narrow(found[i * D + d] / sum[i]);
        sums[i] = most[i] / LOG2_E + logf(sum[i]);
    }
}

// Attention of queries (K, B, N, D) to packed keys and values (B, K, P up to a multiple of 32, D): all of them if T is 0,
// else as above, with a mask (B, T, P) or NULL. out (K, B, N, D), and the log of its sums (K, B, N).
void attend_many(const number *queries, const number *keys, const number *values, const number *mask, number *out,
                 float *sums, float scaling, long K, long B, long N, long T, long P, long D) {
    struct { uint8_t palette, start, zeros[14]; uint16_t row_bytes[16]; uint8_t rows[16]; } ours = {.palette = 1}, before;
    for (int tile = 0; tile < 8; tile++) ours.row_bytes[tile] = 64, ours.rows[tile] = 16;
    long blocks = (N + QUERIES - 1) / QUERIES, packed = (P + 31) / 32 * 32 * D;
#pragma omp parallel private(before)
    {
        _tile_storeconfig(&before);  // oneDNN remembers what it set, and would take ours for it
        _tile_loadconfig(&ours);
#pragma omp for schedule(dynamic)
        for (long task = 0; task < K * B * blocks; task++) {
            long k = task / blocks / B, b = task / blocks % B, n = task % blocks * QUERIES, at = (k * B + b) * N + n;
            look_together(queries + at * D, N - n < QUERIES ? N - n : QUERIES, keys + (b * K + k) * packed,
                          values + (b * K + k) * packed, mask ? mask + b * T * P : NULL, out + at * D, sums + at, scaling, n,
                          T, P, D);
        }
        _tile_loadconfig(&before);
    }
}

#else

int has_tiles(void) { return 0; }

#endif
