// Attention of many queries in tiles.
//
// Axes as in layers.c; N queries that share a key head, or tokens of all rows; P keys.

#include "tiles.h"
#include "rotation.h"

#ifdef HAS_TILES

#include <sys/syscall.h>
#include <unistd.h>

// Whether the system lets this process use them.
int has_tiles(void) { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XTILEDATA */) == 0; }

// Where keys and values (B, K, P, D) lie: strides over B, K and P.
typedef struct { number *keys, *values; const int64_t *stride; } KeysValues;

static inline int there(Seen seen, long key) {
    return key >= seen.first && key < seen.P && (key < seen.gap || key >= seen.gap_end);
}

// 32 keys and values from begin on, as products read them: tiles of pairs of dimensions by keys, and of pairs of keys by
// dimensions. What is not seen is 0: it is multiplied all the same, and may be anything.
static inline void pack_some(KeysValues of, long b, long k, long begin, Seen seen, number *packed_keys, number *packed_values,
                             long D) {
    long at = b * of.stride[0] + k * of.stride[1] + begin * of.stride[2], apart = of.stride[2];
    const number *key = of.keys + at, *value = of.values + at;
    __m512i each = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                      _mm512_set1_epi32(apart));
    for (long l = 0; l < 32; l += 16) {
        __mmask16 known = 0;
        for (long i = 0; i < 16; i++) known |= there(seen, begin + l + i) << i;
        for (long d = 0; d < D; d += 2) {
            __m512i pairs = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), known, each, key + l * apart + d, 2);
            _mm512_storeu_si512(packed_keys + d / 32 * 2 * TILE + l / 16 * TILE + d % 32 / 2 * 32, pairs);
        }
    }
    for (long l = 0; l < 32; l += 2) {
        int one = there(seen, begin + l), two = there(seen, begin + l + 1);
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

// All of keys and values (B, K, P, D). Results (B, K, P up to a multiple of KEYS, D).
void pack(number *keys, number *values, const int64_t *stride, number *packed_keys, number *packed_values, long B, long K,
          long P, long D) {
    long blocks = whole(P) / 32;
#pragma omp parallel for schedule(static)
    for (long task = 0; task < B * K * blocks; task++) {
        long b = task / blocks / K, k = task / blocks % K, at = task * 32 * D;
        pack_some((KeysValues){keys, values, stride}, b, k, task % blocks * 32, (Seen){.P = P}, packed_keys + at,
                  packed_values + at, D);
    }
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
        set_tiles(&before);
    }
}

// B rows of which T tokens each are read, but for padding[b] of them, which are nowhere; before these lie known[b] others.
// Tokens are one row's behind the other's, heads (N, H + 2K, D), cosine and sine (N, D). Of each row the last ones, keep at
// most, are asked for.
typedef struct {
    const number *heads, *cosine, *sine, *far_keys, *far_values;
    const int64_t *padding, *known, *part;
    KeysValues own;
    number *packed_keys, *packed_values, *out;
    float scaling;
    long B, T, keep, K, G, P, far, D;
} Rows;

static inline long least(long one, long other) { return one < other ? one : other; }

// Which of its keys row b sees at all.
static inline Seen seen_of(const Rows *of, long b) {
    long before = of->P - of->T;
    Seen seen = {before - of->known[b], before, before + of->padding[b], of->P, of->part ? of->part + b * of->T : NULL};
    if (!of->known[b]) seen.first = seen.gap_end;
    return seen;
}

// Turns the keys of token t of row b, whose own begin at ``tokens``, by its position, and lays them and values down.
static inline void keep_token(const Rows *of, long b, long t, long tokens, long D) {
    long n = tokens + t - of->padding[b], H = of->K * of->G;
    const number *from = of->heads + (n * (H + 2 * of->K) + H) * D;
    int64_t to = b * of->own.stride[0] + (of->P - of->T + t) * of->own.stride[2];
    for (long k = 0; k < of->K; k++, to += of->own.stride[1], from += D) {
        rotate(from, of->cosine + n * D, of->sine + n * D, of->own.keys + to, D);
        memcpy(of->own.values + to, from + of->K * D, D * sizeof(number));
    }
}

// What 32 queries of row b and key head k find, from the n-th on, in what all rows begin with and in the row's own.
static inline __attribute__((always_inline)) void look_at_both(const Rows *of, long b, long k, long n, long tokens, long out,
                                                               const long D) {
    long real = of->T - of->padding[b], R = least(of->keep, real), rows = least(of->G * R - n, QUERIES), H = of->K * of->G;
    long own[QUERIES], at = (b * of->K + k) * whole(of->P) * D, begun = k * whole(of->far) * D;
    number asked[QUERIES * D] __attribute__((aligned(64)));
    NOTHING_FOUND(found, D);
    Asked of_row = {asked, own, rows, .least = of->P, .most = 0};
    for (long i = 0; i < rows; i++) {
        long t = of->T - R + (n + i) % R, token = tokens + t - of->padding[b], head = k * of->G + (n + i) / R;
        rotate(of->heads + (token * (H + 2 * of->K) + head) * D, of->cosine + token * D, of->sine + token * D, asked + i * D, D);
        own[i] = of->P - of->T + t;
        of_row.in_parts |= of->part && of->part[b * of->T + t];
        of_row.least = least(of_row.least, own[i]);
        of_row.most = own[i] > of_row.most ? own[i] : of_row.most;
    }
    memset(asked + rows * D, 0, (QUERIES - rows) * D * sizeof(number));
    Asked of_all = {asked, .rows = rows, .least = of->far - 1, .most = of->far - 1};
    look_together(found, &of_all, of->far_keys + begun, of->far_values + begun, of->scaling, (Seen){.P = of->far}, D);
    look_together(found, &of_row, of->packed_keys + at, of->packed_values + at, of->scaling, seen_of(of, b), D);
    for (long i = 0; i < rows; i++) {
        settle(found, i, of->out + ((out + (n + i) % R) * H + k * of->G + (n + i) / R) * D, D);
    }
}

static void look_from(const Rows *of, long b, long k, long n, long tokens, long out) {
#undef LOOK
#define LOOK(D) look_at_both(of, b, k, n, tokens, out, D)
    OF_SIZE(of->D, LOOK);
}

// Attention of new tokens of rows: to what all rows begin with, far keys and values as ``pack`` lays them, and to the row's
// own, keys and values (B, K, P, D) with strides over B, K and P, of which it writes those of the new tokens, the last T.
// They see what of these is known, and what is new up to themselves; if part (B, T) is not NULL, of what is in parts, 1, 2, …,
// only their own. room is for twice (B, K, P up to a multiple of KEYS, D). out (tokens asked for, H, D).
void attend_rows(const number *heads, const number *cosine, const number *sine, number *keys, number *values,
                 const int64_t *stride, const int64_t *padding, const int64_t *known, const int64_t *part,
                 const number *far_keys, const number *far_values, number *room, number *out, float scaling, long B, long T,
                 long keep, long K, long G, long P, long far, long D) {
    long blocks = (G * least(keep, T) + QUERIES - 1) / QUERIES, of_keys = whole(P) / 32, tokens[B], kept[B], read = 0, asked = 0;
    for (long b = 0; b < B; b++) {
        tokens[b] = read, kept[b] = asked;
        read += T - padding[b], asked += least(keep, T - padding[b]);
    }
    Rows of = {heads, cosine, sine, far_keys, far_values, padding, known, part, {keys, values, stride}, room,
               room + B * K * whole(P) * D, out, scaling, B, T, keep, K, G, P, far, D};
#pragma omp parallel
    {
        Tiles before = whole_tiles();
#pragma omp for schedule(static)
        for (long task = 0; task < B * T; task++) {
            long b = task / T, t = task % T;
            if (t >= padding[b]) keep_token(&of, b, t, tokens[b], D);
        }
#pragma omp for schedule(static)
        for (long task = 0; task < (keep ? B * K * of_keys : 0); task++) {
            long b = task / of_keys / K, k = task / of_keys % K, at = task * 32 * D;
            pack_some(of.own, b, k, task % of_keys * 32, seen_of(&of, b), of.packed_keys + at, of.packed_values + at, D);
        }
#pragma omp for schedule(dynamic)
        for (long task = 0; task < B * K * blocks; task++) {
            long b = task / blocks / K, k = task / blocks % K, n = task % blocks * QUERIES;
            if (n < G * least(keep, T - padding[b])) look_from(&of, b, k, n, tokens[b], kept[b]);
        }
        set_tiles(&before);
    }
}

#else

int has_tiles(void) { return 0; }

#endif
