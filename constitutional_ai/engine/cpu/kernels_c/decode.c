// Attention in decode: one new token of each sequence attends to the prefix that all share and to its suffix, in one pass.
//
// Axes as in layers.c; P tokens of the prefix.

#include "tiles.h"
#include "rotary.h"

#ifdef HAS_TILES

enum { LANES = 16 };  // G at most

// Attention of G queries (G, D) to columns keys and values. scores has 16 columns before the first and behind the last: where
// fewer than 16 keys are left, earlier ones are multiplied again. first is the column that keys begin at, of C.
static inline __attribute__((always_inline)) void attend_own_suffix(const number *queries, const number *keys,
        const number *values, long stride, long first, long columns, long C, float scaling, float *scores, long G,
        float *attended, float *sums, const long D) {
    number packed[D * LANES] __attribute__((aligned(64)));  // as one tile for each 32 dimensions
    memset(packed, 0, sizeof packed);
    for (long g = 0; g < G; g++) {
        for (long d = 0; d < D; d++) packed[d / 2 * 2 * LANES + g * 2 + d % 2] = queries[g * D + d];
    }
    COMPILER_BARRIER;
    for (long l = 0; l < columns; l += 16) {
        long at = first + l + 16 <= C ? l : C - 16 - first;
        for (long j = 0; j < 16 * D; j += 32) __builtin_prefetch(values + at * stride + j);
        _tile_zero(0);
        for (long d = 0; d < D; d += 32) {
            _tile_loadd(4, keys + at * stride + d, stride * sizeof(number));
            _tile_loadd(6, packed + d * LANES, 64);
            _tile_dpbf16ps(0, 4, 6);
        }
        _tile_stored(0, scores + at * LANES, 64);
    }
    __m512 highest = _mm512_load_ps(scores), by = _mm512_set1_ps(scaling * LOG2_E), sum = _mm512_setzero_ps();
    for (long l = 1; l < columns; l++) highest = _mm512_max_ps(highest, _mm512_load_ps(scores + l * LANES));
    highest = _mm512_mul_ps(highest, by);
    for (long l = 0; l < columns; l++) {
        __m512 share = powers_of_2(_mm512_fmsub_ps(_mm512_load_ps(scores + l * LANES), by, highest));
        sum = _mm512_add_ps(sum, share);
        _mm512_store_ps(scores + l * LANES, share);
    }
    float total[LANES] __attribute__((aligned(64))), most[LANES] __attribute__((aligned(64)));
    _mm512_store_ps(total, sum);
    _mm512_store_ps(most, highest);
    for (long g = 0; g < G; g += 3) {  // as many as registers hold
        __m512 of[3][D / 16], even, odd;
        for (long i = 0; i < 3 * D / 16; i++) of[i / (D / 16)][i % (D / 16)] = _mm512_setzero_ps();
        for (long l = 0; l < columns; l++) {
            for (long d = 0; d < D / 32; d++) {
                halves(values + l * stride + d * 32, (v16 *)&even, (v16 *)&odd);
                for (long i = 0; i < 3; i++) {
                    __m512 share = _mm512_set1_ps(scores[l * LANES + g + i]);
                    of[i][2 * d] = _mm512_fmadd_ps(share, even, of[i][2 * d]);
                    of[i][2 * d + 1] = _mm512_fmadd_ps(share, odd, of[i][2 * d + 1]);
                }
            }
        }
        for (long i = 0; i < 3 && g + i < G; i++) {
            sums[g + i] = most[g + i] / LOG2_E + logf(total[g + i]);
            __m512 share = _mm512_set1_ps(1 / total[g + i]);
            for (long d = 0; d < D / 16; d++) _mm512_store_ps(attended + (g + i) * D + d * 16, _mm512_mul_ps(of[i][d], share));
        }
    }
}

// Joins a query's attention to its suffix, even places of each 32 before the odd ones, with that to the prefix, or NULL.
static inline void join_one(const float *own, float own_sum, const number *prefix, float prefix_sum, number *out, long D) {
    float share = prefix ? 1 / (1 + expf(fminf(own_sum - prefix_sum, 80))) : 0;
    for (long d = 0; d < D; d += 32) {
        for (long i = 0; i < 16; i++) {
            for (long odd = 0; odd < 2; odd++) {
                float one = own[d + 16 * odd + i], other = prefix ? wide(prefix[d + 2 * i + odd]) : one;
                out[d + 2 * i + odd] = narrow(one + share * (other - one));
            }
        }
    }
}

// heads (B, H + 2K, D); cosine, sine (B, D); keys, values (B, K, C, D) with strides over sequences, heads and columns:
// sequence b's suffix begins known[b] columns before ``column``, which is written; prefix keys and values as ``pack`` lays them, or
// NULL; queries has room for (K, B, G, D). out (B, H, D). C is at least 16, G at most 16.
void attend_decode(const number *heads, const number *cosine, const number *sine, number *keys, number *values,
                   const int64_t *known, const int64_t *stride, const number *prefix_keys, const number *prefix_values,
                   number *queries, number *out, float scaling, long column, long C, long B, long K, long G, long P,
                   long D) {
    long together = QUERIES / G, packed = (P + KEYS - 1) / KEYS * KEYS * D;
    long groups = (B + together - 1) / together;
    together = (B + groups - 1) / groups;
#pragma omp parallel
    {
        Tiles before = whole_tiles();
        float *room = aligned_alloc(64, ((C + 32) * LANES + LANES * D) * sizeof(float)), *attended = room + (C + 32) * LANES;
        float own_sum[LANES + 2], prefix_sum[QUERIES];
        number to_prefix[QUERIES * D] __attribute__((aligned(64)));
#pragma omp for schedule(static)
        for (long b = 0; b < B; b++) {
            rotate_token(heads, cosine, sine, queries, keys, values, stride, column, b, B, 1, K, G, D);
        }
#pragma omp for schedule(dynamic)
        for (long task = 0; task < K * groups; task++) {
            long k = task / groups, b = task % groups * together, some = B - b < together ? B - b : together;
            const number *query = queries + (k * B + b) * G * D;
#define ATTEND(D)                                                                                                         \
    if (P) {                                                                                                              \
        attend_all(query, some * G, prefix_keys + k * packed, prefix_values + k * packed, to_prefix, prefix_sum, scaling, \
                   P, D);                                                                                                 \
    }                                                                                                                     \
    for (long r = 0; r < some; r++) {                                                                                     \
        long first = column - known[b + r];                                                                               \
        int64_t at = (b + r) * stride[0] + k * stride[1] + first * stride[2];                                             \
        attend_own_suffix(query + r * G * D, keys + at, values + at, stride[2], first, known[b + r] + 1, C,               \
                     scaling, room + 16 * LANES, G, attended, own_sum, D);                                                   \
        for (long g = 0; g < G; g++) {                                                                                    \
            number *to = out + ((b + r) * K * G + k * G + g) * D;                                                         \
            join_one(attended + g * D, own_sum[g], P ? to_prefix + (r * G + g) * D : NULL, prefix_sum[r * G + g], to, D);    \
        }                                                                                                                 \
    }
            if (D == 64) {  // a constant is what the loops over it are unrolled for
                ATTEND(64)
            } else if (D == 128) {
                ATTEND(128)
            }
        }
        free(room);
        set_tiles(&before);
    }
}

#endif
