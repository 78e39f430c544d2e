// What lies between the matrix products of a decoder, each in one pass over memory. For fused.py.
//
// Numbers are bfloat16, or float32 with -DFLOAT32. Rounds where transformers rounds; sums and exponentials are in float32.
//
// Axes: B rows, T new tokens of each, H = K x G query heads that share K key heads, D size of a head (32 or a multiple),
// E hidden size.

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LOG2_E 1.44269504f

typedef float v16 __attribute__((vector_size(64)));
typedef uint32_t u16 __attribute__((vector_size(64)));
typedef int32_t i16 __attribute__((vector_size(64)));

#ifdef FLOAT32

typedef float number;

static inline float wide(number x) { return x; }
static inline number narrow(float x) { return x; }

static inline void halves(const number *from, v16 *even, v16 *odd) {
    for (int i = 0; i < 16; i++) (*even)[i] = from[2 * i], (*odd)[i] = from[2 * i + 1];
}

#else

typedef uint16_t number;  // the upper half of a float

static inline float wide(number x) {
    union { uint32_t bits; float value; } of = {(uint32_t)x << 16};
    return of.value;
}

// To the nearest, of two equally near ones to the even one.
static inline number narrow(float x) {
    union { float value; uint32_t bits; } of = {x};
    return (of.bits + 0x7fff + (of.bits >> 16 & 1)) >> 16;
}

// Of 32 numbers those of even and of odd places.
static inline void halves(const number *from, v16 *even, v16 *odd) {
    u16 both;
    memcpy(&both, from, sizeof both);
    *even = (v16)(both << 16);
    *odd = (v16)(both & 0xffff0000);
}

#endif

// 2^x for x <= 0, within 5e-6: 2^n times a polynomial of what is left. 0 from -126 on.
static inline float power_of_2(float x) {
    float y = x > -126 ? x : -126, n = rintf(y), r = (y - n) * 0.693147181f;
    float power = 1 + r * (1 + r * (0.5f + r * (0.166666667f + r * (0.0416666667f + r * 0.00833333333f))));
    union { int32_t bits; float value; } scale = {((int32_t)n + 127) << 23};
    return x > -126 ? power * scale.value : 0;
}

// x, out (N, E); weight (E).
void norm(const number *x, const number *weight, number *out, float epsilon, long N, long E) {
#pragma omp parallel for schedule(static)
    for (long n = 0; n < N; n++) {
        const number *row = x + n * E;
        float sum = 0;
        for (long e = 0; e < E; e++) sum += wide(row[e]) * wide(row[e]);
        float scale = 1 / sqrtf(sum / E + epsilon);
        for (long e = 0; e < E; e++) out[n * E + e] = narrow(wide(narrow(wide(row[e]) * scale)) * wide(weight[e]));
    }
}

static inline void rotate(const number *restrict head, const number *restrict cosine, const number *restrict sine,
                          number *restrict out, long D) {
    long half = D / 2;
    for (long d = 0; d < half; d++) {
        float a = wide(head[d]), b = wide(head[d + half]);
        out[d] = narrow(wide(narrow(a * wide(cosine[d]))) - wide(narrow(b * wide(sine[d]))));
        out[d + half] = narrow(wide(narrow(b * wide(cosine[d + half]))) + wide(narrow(a * wide(sine[d + half]))));
    }
}

// Turns queries and keys by their positions, and lays all down where attention reads them.
// heads (B, T, H + 2K, D); cosine, sine (B, T, D); queries (K, B, G, T, D); keys, values (B, K, columns, D), of which
// row b writes T columns from column[b]. Strides are theirs over rows, heads and columns.
void turn(const number *heads, const number *cosine, const number *sine, number *queries, number *keys, number *values,
          const int64_t *column, const int64_t *stride, long B, long T, long K, long G, long D) {
#pragma omp parallel for schedule(static)
    for (long n = 0; n < B * T; n++) {
        long b = n / T, t = n % T;
        const number *from = heads + n * (G + 2) * K * D, *c = cosine + n * D, *s = sine + n * D;
        for (long k = 0; k < K; k++) {
            for (long g = 0; g < G; g++, from += D) rotate(from, c, s, queries + (((k * B + b) * G + g) * T + t) * D, D);
        }
        int64_t to = b * stride[0] + (column[b] + t) * stride[2];
        for (long k = 0; k < K; k++, from += D) rotate(from, c, s, keys + to + k * stride[1], D);
        for (long k = 0; k < K; k++, from += D) memcpy(values + to + k * stride[1], from, D * sizeof(number));
    }
}

// The sums of 16 vectors, each in its lane: in four rounds, lanes that differ by w in their number are added.
static inline v16 sums(v16 *of) {
#define ROUND(w) \
    for (int j = 0; j < w; j++) \
        of[j] = __builtin_shuffle(of[j], of[j + w], (KEEP(w))) + __builtin_shuffle(of[j], of[j + w], (SWAP(w)))
#define LANES(f, w) (i16){f(0, w), f(1, w), f(2, w), f(3, w), f(4, w), f(5, w), f(6, w), f(7, w), \
                          f(8, w), f(9, w), f(10, w), f(11, w), f(12, w), f(13, w), f(14, w), f(15, w)}
#define OTHERS(i, w) ((i) & (w) ? 16 : 0)
#define KEPT(i, w) (OTHERS(i, w) + (i))
#define SWAPPED(i, w) (OTHERS(i, w) + ((i) ^ (w)))
#define KEEP(w) LANES(KEPT, w)
#define SWAP(w) LANES(SWAPPED, w)
    ROUND(8);
    ROUND(4);
    ROUND(2);
    ROUND(1);
    return of[0];
}

// One query over columns of keys and values: out (D) is their mean, weighed. Returns the log of the sum of exponentials.
// scores has room for 15 columns more.
static inline __attribute__((always_inline)) float look(const number *query, const number *keys, const number *values,
        int64_t stride, long columns, float scaling, float *scores, float *out, const long D) {
    v16 asked[D / 16], found[D / 16], even, odd;
    for (long d = 0; d < D / 32; d++) halves(query + d * 32, &asked[2 * d], &asked[2 * d + 1]);
    for (long l = 0; l < columns; l += 16) {
        v16 score[16];
        for (int j = 0; j < 16; j++) {
            const number *key = keys + (l + j < columns ? l + j : columns - 1) * stride;
            const number *value = values + (l + j) * stride;
            score[j] = (v16){};
            for (long d = 0; d < D / 32; d++) {
                __builtin_prefetch(value + d * 32);
                halves(key + d * 32, &even, &odd);
                score[j] += asked[2 * d] * even + asked[2 * d + 1] * odd;
            }
        }
        v16 block = sums(score) * scaling;
        memcpy(scores + l, &block, sizeof block);
    }
    float most = scores[0], sum = 0;
    for (long l = 0; l < columns; l++) most = scores[l] > most ? scores[l] : most;
    for (long l = 0; l < columns; l++) scores[l] = power_of_2((scores[l] - most) * LOG2_E), sum += scores[l];
    for (long d = 0; d < D / 16; d++) found[d] = (v16){};
    for (long l = 0; l < columns; l++) {
        for (long d = 0; d < D / 32; d++) {
            halves(values + l * stride + d * 32, &even, &odd);
            found[2 * d] += scores[l] * even;
            found[2 * d + 1] += scores[l] * odd;
        }
    }
    for (long d = 0; d < D; d++) out[d] = found[d / 32 * 2 + d % 2][d % 32 / 2] / sum;
    return most + logf(sum);
}

// Attention of a few new tokens to each row's own, from column first[b] to its own one. queries as ``turn`` lays them;
// keys, values as there, of C columns. out (K, B, G, T, D), and the log of its sums (K, B, G, T).
void attend_few(const number *queries, const number *keys, const number *values, const int64_t *first,
                const int64_t *column, const int64_t *stride, number *out, float *sums, float scaling, long C, long B,
                long T, long K, long G, long D) {
#pragma omp parallel
    {
        float *scores = malloc((C + 15 + D) * sizeof(float)), *found = scores + C + 15;
#pragma omp for schedule(dynamic)
        for (long task = 0; task < B * K; task++) {
            long b = task / K, k = task % K, begin = (k * B + b) * G * T;
            int64_t at = b * stride[0] + k * stride[1] + first[b] * stride[2];
            for (long n = begin; n < begin + G * T; n++) {
                long columns = column[b] + n % T + 1 - first[b];
#define LOOK(D) look(queries + n * D, keys + at, values + at, stride[2], columns, scaling, scores, found, D)
                // A constant is what the loops over it are unrolled for.
                sums[n] = D == 64 ? LOOK(64) : D == 128 ? LOOK(128) : LOOK(D);
                for (long d = 0; d < D; d++) out[n * D + d] = narrow(found[d]);
            }
        }
        free(scores);
    }
}

// Attention to each row's own joined with that to what all rows begin with: own, far (K, B, G, T, D), the logs of their
// sums (K, B, G, T), out (B, T, H, D). far may be NULL.
void join(const number *own, const float *own_sum, const number *far, const float *far_sum, number *out, long B, long T,
          long K, long G, long D) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < B * T; row++) {
        long b = row / T, t = row % T;
        for (long h = 0; h < K * G; h++) {
            long n = ((h / G * B + b) * G + h % G) * T + t;
            const number *one = own + n * D, *other = far ? far + n * D : one;
            float share = far ? 1 / (1 + expf(own_sum[n] - far_sum[n])) : 0;
            number *to = out + (row * K * G + h) * D;
            for (long d = 0; d < D; d++) to[d] = narrow(wide(one[d]) + share * (wide(other[d]) - wide(one[d])));
        }
    }
}

enum { TOGETHER = 512 };

static inline float mass(const number *logits, long from, long to, float most, float scale) {
    float sum = 0;
    for (long v = from; v < to; v++) sum += power_of_2((wide(logits[v]) - most) * scale);
    return sum;
}

// Of each row of logits (R, V) the first token up to which the probabilities sum to more than uniform (R), in [0, 1).
void draw(const number *logits, const float *uniform, int64_t *token, float temperature, long R, long V) {
    long blocks = (V + TOGETHER - 1) / TOGETHER;
    float scale = LOG2_E / temperature;
#pragma omp parallel
    {
        double *up_to = malloc(blocks * sizeof(double));
#pragma omp for schedule(static)
        for (long r = 0; r < R; r++) {
            const number *row = logits + r * V;
            float most = wide(row[0]);
            for (long v = 0; v < V; v++) most = wide(row[v]) > most ? wide(row[v]) : most;
            double all = 0;
            for (long block = 0, v = 0; block < blocks; block++, v += TOGETHER) {
                up_to[block] = all += mass(row, v, v + TOGETHER < V ? v + TOGETHER : V, most, scale);
            }
            long block = 0;
            double wanted = uniform[r] * all;
            while (block < blocks - 1 && up_to[block] <= wanted) block++;
            long v = block * TOGETHER, end = v + TOGETHER < V ? v + TOGETHER : V;
            double sum = block ? up_to[block - 1] : 0;
            // The sum of a block rounds: the search may come to its end, and stays there.
            while (v < end - 1 && (sum += mass(row, v, v + 1, most, scale)) <= wanted) v++;
            token[r] = v;
        }
        free(up_to);
    }
}

// -- attention of many queries, in tiles of 16 rows of 64 bytes (AMX)

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
    float before = power_of_2(*most - highest);
    for (long d = 0; d < D; d++) found[d] *= before;
    *sum = *sum * before + _mm512_reduce_add_ps(total);
    *most = highest;
}

// Of a query's scores of the keys from begin on: what it may not see gets next to no share, and no NaN as -inf would.
static inline void hide(float *scores, long begin, long known, long width, long t, const number *mask) {
    long seen = t + 1 - begin < known ? (t + 1 - begin > 0 ? t + 1 - begin : 0) : known;
    if (mask) {
        for (long l = 0; l < seen; l++) {
            float masked = scores[l] + wide(mask[begin + l]);
            scores[l] = masked > -1e30f ? masked : -1e30f;
        }
    }
    for (long l = seen; l < width; l++) scores[l] = -1e30f;
}

// Up to 32 queries over P keys. If T > 0 these are T new tokens: query number i is of token (first + i) % T, and sees keys
// up to its own that are not hidden by the mask (T, P).
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
    if (T && first % T + rows <= T) seen = first % T + rows;  // what comes later is hidden from all of them
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
            long t = T ? (first + i) % T : P;
            hide(scores + i * KEYS, begin, known, width, t, mask && i < rows ? mask + t * P : NULL);
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
    for (int i = 0; i < 8; i++) ours.row_bytes[i] = 64, ours.rows[i] = 16;
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
