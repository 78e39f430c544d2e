// Attention of prefill in AMX tiles, and keys and values packed for it.
//
// Axes as in layers.c; N queries that share a key head, or tokens of all sequences; P keys.

#include "tiles.h"
#include "rotary.h"

#ifdef HAS_TILES

#include <sys/syscall.h>
#include <unistd.h>

// Whether the system lets this process use AMX tiles.
int has_tiles(void) { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XTILEDATA */) == 0; }

// Where keys and values (B, K, P, D) lie: strides over B, K and P.
typedef struct { number *keys, *values; const int64_t *stride; } KeysValues;

static inline int is_visible(Mask mask, long key) {
    return key >= mask.first && key < mask.P && (key < mask.gap || key >= mask.gap_end);
}

// Packs 32 keys and values from begin on: tiles of pairs of dimensions by keys, and of pairs of keys by dimensions. Masked
// ones are 0: they are multiplied all the same, and may hold anything.
static inline void pack_some(KeysValues of, long b, long k, long begin, Mask mask, number *packed_keys, number *packed_values,
                             long D) {
    long at = b * of.stride[0] + k * of.stride[1] + begin * of.stride[2], apart = of.stride[2];
    const number *key = of.keys + at, *value = of.values + at;
    __m512i each = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                      _mm512_set1_epi32(apart));
    for (long l = 0; l < 32; l += 16) {
        __mmask16 known = 0;
        for (long i = 0; i < 16; i++) known |= is_visible(mask, begin + l + i) << i;
        for (long d = 0; d < D; d += 2) {
            __m512i pairs = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), known, each, key + l * apart + d, 2);
            _mm512_storeu_si512(packed_keys + d / 32 * 2 * TILE + l / 16 * TILE + d % 32 / 2 * 32, pairs);
        }
    }
    for (long l = 0; l < 32; l += 2) {
        int one = is_visible(mask, begin + l), two = is_visible(mask, begin + l + 1);
        for (long d = 0; d < D; d += 16) {
            __m256i none = _mm256_setzero_si256();
            __m256i even = one ? _mm256_loadu_si256((const __m256i *)(value + l * apart + d)) : none;
            __m256i odd = two ? _mm256_loadu_si256((const __m256i *)(value + (l + 1) * apart + d)) : none;
            __m512i both = _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
            _mm512_storeu_si512(packed_values + d / 16 * TILE + l / 2 * 32, both);
        }
    }
}

static inline long whole(long keys) { return (keys + KEYS - 1) / KEYS * KEYS; }

// Packs all of keys and values (B, K, P, D). Results (B, K, P up to a multiple of KEYS, D).
void pack(number *keys, number *values, const int64_t *stride, number *packed_keys, number *packed_values, long B, long K,
          long P, long D) {
    long blocks = whole(P) / 32;
#pragma omp parallel for schedule(static)
    for (long task = 0; task < B * K * blocks; task++) {
        long b = task / blocks / K, k = task / blocks % K, at = task * 32 * D;
        pack_some((KeysValues){keys, values, stride}, b, k, task % blocks * 32, (Mask){.P = P}, packed_keys + at,
                  packed_values + at, D);
    }
}

// A prefill of B sequences in T columns, of which padding[b] are empty, after known[b] known tokens. New tokens lie one
// sequence's behind the other's: heads (N, H + 2K, D), cosine and sine (N, D). Results are wanted of the last tokens of each
// sequence, keep at most.
typedef struct {
    const number *heads, *cosine, *sine, *prefix_keys, *prefix_values;
    const int64_t *padding, *known, *segment;
    KeysValues own;
    number *packed_keys, *packed_values, *out;
    float scaling;
    long B, T, keep, K, G, P, prefix, D;
} Prefill;

static inline long least(long one, long other) { return one < other ? one : other; }

static inline Mask mask_of(const Prefill *of, long b) {
    long before = of->P - of->T;
    const int64_t *segment = of->segment ? of->segment + b * of->T : NULL;
    Mask mask = {before - of->known[b], before, before + of->padding[b], of->P, segment};
    if (!of->known[b]) mask.first = mask.gap_end;
    return mask;
}

// Writes the rotated keys, and the values, of token t of sequence b, whose new tokens begin at ``start``.
static inline void write_token(const Prefill *of, long b, long t, long start, long D) {
    long n = start + t - of->padding[b], H = of->K * of->G;
    const number *from = of->heads + (n * (H + 2 * of->K) + H) * D;
    int64_t to = b * of->own.stride[0] + (of->P - of->T + t) * of->own.stride[2];
    for (long k = 0; k < of->K; k++, to += of->own.stride[1], from += D) {
        rotate(from, of->cosine + n * D, of->sine + n * D, of->own.keys + to, D);
        memcpy(of->own.values + to, from + of->K * D, D * sizeof(number));
    }
}

// Attention of 32 queries of sequence b and key head k, from the n-th on, to the prefix and to the sequence's own tokens.
static inline __attribute__((always_inline)) void attend_both(const Prefill *of, long b, long k, long n, long start, long out,
                                                              const long D) {
    long new = of->T - of->padding[b], R = least(of->keep, new), rows = least(of->G * R - n, QUERIES), H = of->K * of->G;
    long last[QUERIES], at = (b * of->K + k) * whole(of->P) * D, prefix = k * whole(of->prefix) * D;
    number rotated[QUERIES * D] __attribute__((aligned(64)));
    EMPTY_SOFTMAX(softmax, D);
    Queries to_own = {rotated, last, rows, .least = of->P, .most = 0};
    for (long i = 0; i < rows; i++) {
        long t = of->T - R + (n + i) % R, token = start + t - of->padding[b], head = k * of->G + (n + i) / R;
        rotate(of->heads + (token * (H + 2 * of->K) + head) * D, of->cosine + token * D, of->sine + token * D, rotated + i * D,
               D);
        last[i] = of->P - of->T + t;
        to_own.in_segments |= of->segment && of->segment[b * of->T + t];
        to_own.least = least(to_own.least, last[i]);
        to_own.most = last[i] > to_own.most ? last[i] : to_own.most;
    }
    memset(rotated + rows * D, 0, (QUERIES - rows) * D * sizeof(number));
    Queries to_prefix = {rotated, .rows = rows, .least = of->prefix - 1, .most = of->prefix - 1};
    attend_blocks(softmax, &to_prefix, of->prefix_keys + prefix, of->prefix_values + prefix, of->scaling,
                  (Mask){.P = of->prefix}, D);
    attend_blocks(softmax, &to_own, of->packed_keys + at, of->packed_values + at, of->scaling, mask_of(of, b), D);
    for (long i = 0; i < rows; i++) {
        finish_softmax(softmax, i, of->out + ((out + (n + i) % R) * H + k * of->G + (n + i) / R) * D, D);
    }
}

static void attend_from(const Prefill *of, long b, long k, long n, long start, long out) {
    // A constant size is what the loops over it are unrolled for.
    if (of->D == 64) attend_both(of, b, k, n, start, out, 64);
    else if (of->D == 128) attend_both(of, b, k, n, start, out, 128);
    else attend_both(of, b, k, n, start, out, of->D);
}

// Attention of new tokens: to the prefix, keys and values as ``pack`` lays them, and to the sequence's own, keys and values
// (B, K, P, D) with strides over B, K and P, of which the last T are written. New tokens attend to known ones and to new ones
// up to themselves; if segment (B, T) is not NULL, those in segments 1, 2, … attend to no other segment but 0. room is for
// twice (B, K, P up to a multiple of KEYS, D). out (wanted tokens, H, D).
void attend_prefill(const number *heads, const number *cosine, const number *sine, number *keys, number *values,
                    const int64_t *stride, const int64_t *padding, const int64_t *known, const int64_t *segment,
                    const number *prefix_keys, const number *prefix_values, number *room, number *out, float scaling, long B,
                    long T, long keep, long K, long G, long P, long prefix, long D) {
    long blocks = (G * least(keep, T) + QUERIES - 1) / QUERIES, of_keys = whole(P) / 32, start[B], first[B], new = 0, wanted = 0;
    for (long b = 0; b < B; b++) {
        start[b] = new, first[b] = wanted;
        new += T - padding[b], wanted += least(keep, T - padding[b]);
    }
    Prefill of = {heads, cosine, sine, prefix_keys, prefix_values, padding, known, segment, {keys, values, stride}, room,
                  room + B * K * whole(P) * D, out, scaling, B, T, keep, K, G, P, prefix, D};
#pragma omp parallel
    {
        Tiles before = whole_tiles();
#pragma omp for schedule(static)
        for (long task = 0; task < B * T; task++) {
            long b = task / T, t = task % T;
            if (t >= padding[b]) write_token(&of, b, t, start[b], D);
        }
#pragma omp for schedule(static)
        for (long task = 0; task < (keep ? B * K * of_keys : 0); task++) {
            long b = task / of_keys / K, k = task / of_keys % K, at = task * 32 * D;
            pack_some(of.own, b, k, task % of_keys * 32, mask_of(&of, b), of.packed_keys + at, of.packed_values + at, D);
        }
#pragma omp for schedule(dynamic)
        for (long task = 0; task < B * K * blocks; task++) {
            long b = task / blocks / K, k = task / blocks % K, n = task % blocks * QUERIES;
            if (n < G * least(keep, T - padding[b])) attend_from(&of, b, k, n, start[b], first[b]);
        }
        set_tiles(&before);
    }
}

#else

int has_tiles(void) { return 0; }

#endif
