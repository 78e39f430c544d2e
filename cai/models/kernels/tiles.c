// Attention of many queries in tiles.
//
// Axes as in layers.c; N queries of a row, P keys.

#include "tiles.h"

#ifdef HAS_TILES

#include <sys/syscall.h>
#include <unistd.h>

// Whether the system lets this process use them.
int has_tiles(void) { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XTILEDATA */) == 0; }

// Keys (K, P, D) and values, with their strides over K and P, as the products read them: of 32 keys together, tiles of
// pairs of dimensions by keys, and tiles of pairs of keys by dimensions. Results (K, P up to a multiple of KEYS, D).
void pack(const number *keys, const number *values, const int64_t *stride, number *packed_keys, number *packed_values,
          long K, long P, long D) {
    long blocks = (P + KEYS - 1) / KEYS * (KEYS / 32);
#pragma omp parallel for schedule(static)
    for (long task = 0; task < K * blocks; task++) {
        long k = task / blocks, begin = task % blocks * 32;
        number *to_keys = packed_keys + task * 32 * D, *to_values = packed_values + task * 32 * D;
        const number *key = keys + k * stride[0] + begin * stride[1], *value = values + k * stride[0] + begin * stride[1];
        long known = P - begin < 32 ? (P - begin > 0 ? P - begin : 0) : 32;  // what is missing of 32 is 0
        for (long l = 0; l < 32; l += 16) {
            __mmask16 there = known - l >= 16 ? 0xffff : known > l ? (1 << (known - l)) - 1 : 0;
            __m512i each = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                              _mm512_set1_epi32(stride[1]));
            for (long d = 0; d < D; d += 2) {
                __m512i pairs = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), there, each, key + l * stride[1] + d, 2);
                _mm512_storeu_si512(to_keys + d / 32 * 2 * TILE + l / 16 * TILE + d % 32 / 2 * 32, pairs);
            }
        }
        for (long l = 0; l < 32; l += 2) {
            for (long d = 0; d < D; d += 16) {
                __m256i none = _mm256_setzero_si256();
                __m256i even = l < known ? _mm256_loadu_si256((const __m256i *)(value + l * stride[1] + d)) : none;
                __m256i odd = l + 1 < known ? _mm256_loadu_si256((const __m256i *)(value + (l + 1) * stride[1] + d)) : none;
                __m512i both = _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
                _mm512_storeu_si512(to_values + d / 16 * TILE + l / 2 * 32, both);
            }
        }
    }
}

// Attention of queries (K, B, N, D) to packed keys and values (B, K, P up to a multiple of KEYS, D): all of them if T is 0,
// else as above, with a mask (B, T, P) or NULL. out (K, B, N, D), and the log of its sums (K, B, N).
void attend_many(const number *queries, const number *keys, const number *values, const number *mask, number *out,
                 float *sums, float scaling, long K, long B, long N, long T, long P, long D) {
    long blocks = (N + QUERIES - 1) / QUERIES, packed = (P + KEYS - 1) / KEYS * KEYS * D;
#pragma omp parallel
    {
        Tiles before = whole_tiles();
#pragma omp for schedule(dynamic)
        for (long task = 0; task < K * B * blocks; task++) {
            long k = task / blocks / B, b = task / blocks % B, n = task % blocks * QUERIES, at = (k * B + b) * N + n;
#define LOOK_TOGETHER(D) look_together(queries + at * D, N - n < QUERIES ? N - n : QUERIES, keys + (b * K + k) * packed,     \
                                       values + (b * K + k) * packed, mask ? mask + b * T * P : NULL, out + at * D, sums + at, \
                                       scaling, n, T, P, D)
            if (D == 64) LOOK_TOGETHER(64);  // a constant is what the loops over it are unrolled for
            else if (D == 128) LOOK_TOGETHER(128);
            else LOOK_TOGETHER(D);
        }
        _tile_loadconfig(&before);
    }
}

#else

int has_tiles(void) { return 0; }

#endif
