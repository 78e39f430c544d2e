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
