// Attention of many queries in tiles.
//
// Axes as in layers.c; N queries of a row, P keys.

#include "tiles.h"

#ifdef HAS_TILES

#include <sys/syscall.h>
#include <unistd.h>

// Whether the system lets this process use them.
int has_tiles(void) { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XTILEDATA */) == 0; }

// Where keys and values (B, K, P, D) lie: strides over B, K and P.
typedef struct { const number *keys, *values; const int64_t *stride; long P, D; } KeysValues;

// 32 keys and values from begin on, as products read them: tiles of pairs of dimensions by keys, and of pairs of keys by
// dimensions. What is missing of 32 is 0.
static inline void pack_some(KeysValues of, long b, long k, long begin, number *packed_keys, number *packed_values) {
    long at = b * of.stride[0] + k * of.stride[1] + begin * of.stride[2], apart = of.stride[2];
    const number *key = of.keys + at, *value = of.values + at;
    long known = of.P - begin < 32 ? (of.P - begin > 0 ? of.P - begin : 0) : 32;
    __m512i each = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                      _mm512_set1_epi32(apart));
    for (long l = 0; l < 32; l += 16) {
        __mmask16 there = known - l >= 16 ? 0xffff : known > l ? (1 << (known - l)) - 1 : 0;
        for (long d = 0; d < of.D; d += 2) {
            __m512i pairs = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), there, each, key + l * apart + d, 2);
            _mm512_storeu_si512(packed_keys + d / 32 * 2 * TILE + l / 16 * TILE + d % 32 / 2 * 32, pairs);
        }
    }
    for (long l = 0; l < 32; l += 2) {
        for (long d = 0; d < of.D; d += 16) {
            __m256i none = _mm256_setzero_si256();
            __m256i even = l < known ? _mm256_loadu_si256((const __m256i *)(value + l * apart + d)) : none;
            __m256i odd = l + 1 < known ? _mm256_loadu_si256((const __m256i *)(value + (l + 1) * apart + d)) : none;
            __m512i both = _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
            _mm512_storeu_si512(packed_values + d / 16 * TILE + l / 2 * 32, both);
        }
    }
}

static inline long whole(long keys) { return (keys + KEYS - 1) / KEYS * KEYS; }

// For all threads of a team together. Results (B, K, P up to a multiple of KEYS, D).
static inline void share_out_packing(KeysValues of, number *packed_keys, number *packed_values, long B, long K) {
    long blocks = whole(of.P) / 32;
#pragma omp for schedule(static)
    for (long task = 0; task < B * K * blocks; task++) {
        long b = task / blocks / K, k = task / blocks % K, at = task * 32 * of.D;
        pack_some(of, b, k, task % blocks * 32, packed_keys + at, packed_values + at);
    }
}

void pack(const number *keys, const number *values, const int64_t *stride, number *packed_keys, number *packed_values,
          long B, long K, long P, long D) {
#pragma omp parallel
    share_out_packing((KeysValues){keys, values, stride, P, D}, packed_keys, packed_values, B, K);
}

// A constant size is what the loops over it are unrolled for.
#define OF_SIZE(D, look)           \
    if (D == 64) look(64);         \
    else if (D == 128) look(128);  \
    else look(D)

// Attention of queries (K, N, D) to all packed keys and values (K, P up to a multiple of KEYS, D). out (K, N, D), and the
// logs of its sums (K, N).
void attend_far(const number *queries, const number *keys, const number *values, number *out, float *sums, float scaling,
                long K, long N, long P, long D) {
    long blocks = (N + QUERIES - 1) / QUERIES;
#pragma omp parallel
    {
        Tiles before = whole_tiles();
#pragma omp for schedule(dynamic)
        for (long task = 0; task < K * blocks; task++) {
            long n = task % blocks * QUERIES, rows = N - n < QUERIES ? N - n : QUERIES, at = task / blocks * N + n;
            const number *key = keys + task / blocks * whole(P) * D, *value = values + task / blocks * whole(P) * D;
#define LOOK(D) look_far(queries + at * D, rows, key, value, out + at * D, sums + at, scaling, P, D)
            OF_SIZE(D, LOOK);
        }
        _tile_loadconfig(&before);
    }
}

typedef struct {
    const number *queries, *keys, *values, *far_keys, *far_values, *mask;
    number *out;
    float scaling;
    long B, T, K, G, P, far;
} Rows;

// What the queries from n on of row b and key head k find, in what all rows begin with and in the row's own.
static inline __attribute__((always_inline)) void look_at_both(const Rows *of, long b, long k, long n, const long D) {
    long N = of->G * of->T, rows = N - n < QUERIES ? N - n : QUERIES, own = (b * of->K + k) * whole(of->P) * D;
    long begun = k * whole(of->far) * D;
    number asked[QUERIES * D] __attribute__((aligned(64)));
    NOTHING_FOUND(found, D);
    ask(asked, of->queries + ((k * of->B + b) * N + n) * D, rows, D);
    Asked all = {asked, .rows = rows}, before_them = {asked, of->mask ? of->mask + b * of->T * of->P : NULL, rows, n, of->T};
    look_together(found, all, of->far_keys + begun, of->far_values + begun, of->scaling, of->far, D);
    look_together(found, before_them, of->keys + own, of->values + own, of->scaling, of->P, D);
    for (long i = 0; i < rows; i++) {
        long token = b * of->T + (n + i) % of->T, head = k * of->G + (n + i) / of->T;
        settle(found, i, of->out + (token * of->K * of->G + head) * D, D);
    }
}

// Attention of the T new tokens of each row, queries (K, B, G, T, D), to what all rows begin with, far keys and values as
// ``pack`` lays them, and to the row's own, keys and values (B, K, P, D) with strides over B, K and P: the last of these
// are the new tokens', which see up to themselves what the mask (B, T, P), or NULL, does not hide. room is for twice
// (B, K, P up to a multiple of KEYS, D). out (B, T, H, D).
void attend_rows(const number *queries, const number *keys, const number *values, const int64_t *stride,
                 const number *far_keys, const number *far_values, const number *mask, number *room, number *out,
                 float scaling, long B, long T, long K, long G, long P, long far, long D) {
    long blocks = (G * T + QUERIES - 1) / QUERIES;
    number *room_of_values = room + B * K * whole(P) * D;
    Rows of = {queries, room, room_of_values, far_keys, far_values, mask, out, scaling, B, T, K, G, P, far};
#pragma omp parallel
    {
        Tiles before = whole_tiles();
        share_out_packing((KeysValues){keys, values, stride, P, D}, room, room_of_values, B, K);
#pragma omp for schedule(dynamic)
        for (long task = 0; task < B * K * blocks; task++) {
            long b = task / blocks / K, k = task / blocks % K, n = task % blocks * QUERIES;
#undef LOOK
#define LOOK(D) look_at_both(&of, b, k, n, D)
            OF_SIZE(D, LOOK);
        }
        _tile_loadconfig(&before);
    }
}

#else

int has_tiles(void) { return 0; }

#endif
