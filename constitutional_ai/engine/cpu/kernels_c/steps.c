// Attention of the few new tokens of each row: to what all rows begin with and to the row's own, in one pass.
//
// Axes as in layers.c; C columns of the cache, P keys that all rows begin with, W = G x T queries that share a key head.

#include "tiles.h"
#include "rotation.h"

#ifdef HAS_TILES

enum { LANES = 16 };  // W at most

// What W queries (W, D) find in columns keys and values; with more than one new token each sees one less than the next.
// Of scores there are 16 rows before the first and behind the last: where fewer than 16 keys are left, ones that were
// seen already are looked at again. first is the column that keys begin at, of C.
static inline __attribute__((always_inline)) void look_alone(const number *queries, const number *keys,
        const number *values, long stride, long first, long columns, long C, float scaling, float *scores, long W, long T,
        float *found, float *sums, const long D) {
    number asked[D * LANES] __attribute__((aligned(64)));
    memset(asked, 0, sizeof asked);
    for (long w = 0; w < W; w++) {
        for (long d = 0; d < D; d++) asked[d / 2 * 2 * LANES + w * 2 + d % 2] = queries[w * D + d];
    }
    WRITTEN;
    for (long l = 0; l < columns; l += 16) {
        long at = first + l + 16 <= C ? l : C - 16 - first;
        for (long j = 0; j < 16 * D; j += 32) __builtin_prefetch(values + at * stride + j);
        _tile_zero(0);
        for (long d = 0; d < D; d += 32) {
            _tile_loadd(4, keys + at * stride + d, stride * sizeof(number));
            _tile_loadd(6, asked + d * LANES, 64);
            _tile_dpbf16ps(0, 4, 6);
        }
        _tile_stored(0, scores + at * LANES, 64);
    }
    for (long l = columns - T + 1; l < columns; l++) {
        for (long w = 0; w < W; w++) if (l > columns - T + w % T) scores[l * LANES + w] = -1e30f;
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
    for (long w = 0; w < W; w += 3) {  // as many as registers hold
        __m512 of[3][D / 16], even, odd;
        for (long i = 0; i < 3 * D / 16; i++) of[i / (D / 16)][i % (D / 16)] = _mm512_setzero_ps();
        for (long l = 0; l < columns; l++) {
            for (long d = 0; d < D / 32; d++) {
                halves(values + l * stride + d * 32, (v16 *)&even, (v16 *)&odd);
                for (long i = 0; i < 3; i++) {
                    __m512 share = _mm512_set1_ps(scores[l * LANES + w + i]);
                    of[i][2 * d] = _mm512_fmadd_ps(share, even, of[i][2 * d]);
                    of[i][2 * d + 1] = _mm512_fmadd_ps(share, odd, of[i][2 * d + 1]);
                }
            }
        }
        for (long i = 0; i < 3 && w + i < W; i++) {
            sums[w + i] = most[w + i] / LOG2_E + logf(total[w + i]);
            __m512 share = _mm512_set1_ps(1 / total[w + i]);
            for (long d = 0; d < D / 16; d++) _mm512_store_ps(found + (w + i) * D + d * 16, _mm512_mul_ps(of[i][d], share));
        }
    }
}

// Joins what a query found in its own, even places of each 32 before the odd ones, with what it found far away, or NULL.
static inline void join_one(const float *own, float own_sum, const number *far, float far_sum, number *out, long D) {
    float share = far ? 1 / (1 + expf(fminf(own_sum - far_sum, 80))) : 0;
    for (long d = 0; d < D; d += 32) {
        for (long i = 0; i < 16; i++) {
            for (long odd = 0; odd < 2; odd++) {
                float one = own[d + 16 * odd + i], other = far ? wide(far[d + 2 * i + odd]) : one;
                out[d + 2 * i + odd] = narrow(one + share * (other - one));
            }
        }
    }
}

// heads (B, T, H + 2K, D); cosine, sine (B, T, D); keys, values (B, K, C, D) with strides over rows, heads and columns, of
// which row b has its own from column first[b] on and writes T from column[b] on; far keys and values as ``pack`` lays
// them, or NULL; queries has room for (K, B, G, T, D). out (B, T, H, D). C is at least 16, W at most 16.
void attend_step(const number *heads, const number *cosine, const number *sine, number *keys, number *values,
                 const int64_t *first, const int64_t *column, const int64_t *stride, const number *far_keys,
                 const number *far_values, number *queries, number *out, float scaling, long C, long B, long T, long K,
                 long G, long P, long D) {
    long W = G * T, together = QUERIES / W, packed = (P + KEYS - 1) / KEYS * KEYS * D;
    long groups = (B + together - 1) / together;
    together = (B + groups - 1) / groups;
#pragma omp parallel
    {
        Tiles before = whole_tiles();
        float *room = aligned_alloc(64, ((C + 32) * LANES + LANES * D) * sizeof(float)), *found = room + (C + 32) * LANES;
        float own_sum[LANES + 2], far_sum[QUERIES];
        number far[QUERIES * D] __attribute__((aligned(64)));
#pragma omp for schedule(static)
        for (long n = 0; n < B * T; n++) {
            turn_one(heads, cosine, sine, queries, keys, values, column, stride, n, B, T, K, G, D);
        }
#pragma omp for schedule(dynamic)
        for (long task = 0; task < K * groups; task++) {
            long k = task / groups, b = task % groups * together, rows = B - b < together ? B - b : together;
            const number *asked = queries + (k * B + b) * W * D;
#define LOOK(D)                                                                                                             \
    if (P) look_far(asked, rows * W, far_keys + k * packed, far_values + k * packed, far, far_sum, scaling, P, D);          \
    for (long r = 0; r < rows; r++) {                                                                                       \
        int64_t at = (b + r) * stride[0] + k * stride[1] + first[b + r] * stride[2], end = column[b + r] + T;               \
        look_alone(asked + r * W * D, keys + at, values + at, stride[2], first[b + r], end - first[b + r], C, scaling,      \
                   room + 16 * LANES, W, T, found, own_sum, D);                                                             \
        for (long w = 0; w < W; w++) {                                                                                      \
            number *to = out + (((b + r) * T + w % T) * K * G + k * G + w / T) * D;                                         \
            join_one(found + w * D, own_sum[w], P ? far + (r * W + w) * D : NULL, far_sum[r * W + w], to, D);               \
        }                                                                                                                   \
    }
            if (D == 64) {  // a constant is what the loops over it are unrolled for
                LOOK(64)
            } else if (D == 128) {
                LOOK(128)
            }
        }
        free(room);
        set_tiles(&before);
    }
}

#endif
