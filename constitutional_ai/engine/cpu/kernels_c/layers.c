// What lies between the matrix products of a decoder, each in one pass over memory. Rounds where transformers rounds.
//
// Axes: B sequences, T new tokens of each, H = K x G query heads that share K key heads, D size of a head (32 or a
// multiple), E hidden size, V vocabulary, C columns of the KV cache.

#include "rotary.h"

// x, out (N, E); weight (E).
void rms_norm(const number *x, const number *weight, number *out, float epsilon, long N, long E) {
#pragma omp parallel for schedule(static)
    for (long n = 0; n < N; n++) {
        const number *row = x + n * E;
        float scale = norm_scale(row, epsilon, E);
        for (long e = 0; e < E; e++) out[n * E + e] = narrow(wide(narrow(wide(row[e]) * scale)) * wide(weight[e]));
    }
}

// Rotates queries and keys by their positions. heads (B, T, H + 2K, D); cosine, sine (B, T, D); queries (K, B, G, T, D);
// keys, values (B, K, C, D), of which T columns are written from ``column`` on. Strides are theirs over sequences, heads
// and columns.
void apply_rotary(const number *heads, const number *cosine, const number *sine, number *queries, number *keys,
                  number *values, const int64_t *stride, long column, long B, long T, long K, long G, long D) {
#pragma omp parallel for schedule(static)
    for (long n = 0; n < B * T; n++) {
        rotate_token(heads, cosine, sine, queries, keys, values, stride, column, n, B, T, K, G, D);
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

// Attention of one query to columns of keys and values: out (D). Returns the log of the sum of exponentials. scores has room
// for 15 columns more.
static inline __attribute__((always_inline)) float attend_one(const number *query, const number *keys, const number *values,
        int64_t stride, long columns, float scaling, float *scores, float *out, const long D) {
    v16 query_halves[D / 16], attended[D / 16], even, odd;
    for (long d = 0; d < D / 32; d++) halves(query + d * 32, &query_halves[2 * d], &query_halves[2 * d + 1]);
    for (long l = 0; l < columns; l += 16) {
        v16 score[16];
        for (int j = 0; j < 16; j++) {
            const number *key = keys + (l + j < columns ? l + j : columns - 1) * stride;
            const number *value = values + (l + j) * stride;
            score[j] = (v16){};
            for (long d = 0; d < D / 32; d++) {
                __builtin_prefetch(value + d * 32);
                halves(key + d * 32, &even, &odd);
                score[j] += query_halves[2 * d] * even + query_halves[2 * d + 1] * odd;
            }
        }
        v16 block = sums(score) * scaling;
        memcpy(scores + l, &block, sizeof block);
    }
    float most = scores[0], sum = 0;
    for (long l = 0; l < columns; l++) most = scores[l] > most ? scores[l] : most;
    for (long l = 0; l < columns; l++) scores[l] = power_of_2((scores[l] - most) * LOG2_E), sum += scores[l];
    for (long d = 0; d < D / 16; d++) attended[d] = (v16){};
    for (long l = 0; l < columns; l++) {
        for (long d = 0; d < D / 32; d++) {
            halves(values + l * stride + d * 32, &even, &odd);
            attended[2 * d] += scores[l] * even;
            attended[2 * d + 1] += scores[l] * odd;
        }
    }
    for (long d = 0; d < D; d++) out[d] = attended[d / 32 * 2 + d % 2][d % 32 / 2] / sum;
    return most + logf(sum);
}

// Attention of one new token of each sequence, in ``column``: to the known[b] columns before it and to its own, joined with that
// to the prefix. queries (K, B, G, D); keys, values as in ``apply_rotary``; prefix (K, B, G, D), which may be NULL, and the logs
// of its sums (K, B, G). out (B, H, D).
void attend_suffix(const number *queries, const number *keys, const number *values, const int64_t *known,
                   const int64_t *stride, const number *prefix, const float *prefix_sum, number *out, float scaling,
                   long column, long B, long K, long G, long D) {
#pragma omp parallel
    {
        float *scores = malloc((column + 1 + 15 + D) * sizeof(float)), *attended = scores + column + 1 + 15;
#pragma omp for schedule(dynamic)
        for (long task = 0; task < B * K; task++) {
            long b = task / K, k = task % K, begin = (k * B + b) * G, columns = known[b] + 1;
            int64_t at = b * stride[0] + k * stride[1] + (column - known[b]) * stride[2];
            for (long n = begin; n < begin + G; n++) {
#define ATTEND(D) attend_one(queries + n * D, keys + at, values + at, stride[2], columns, scaling, scores, attended, D)
                // A constant is what the loops over it are unrolled for.
                float sum = D == 64 ? ATTEND(64) : D == 128 ? ATTEND(128) : ATTEND(D);
                float share = prefix ? 1 / (1 + expf(fminf(sum - prefix_sum[n], 80))) : 0;
                number *to = out + (b * K * G + k * G + n - begin) * D;
                for (long d = 0; d < D; d++) {
                    float own = wide(narrow(attended[d])), other = prefix ? wide(prefix[n * D + d]) : own;
                    to[d] = narrow(own + share * (other - own));
                }
            }
        }
        free(scores);
    }
}

enum { TOGETHER = 512 };  // logits of which the mass is summed at once

static inline float mass(const number *logits, long from, long to, float most, float scale) {
    float sum = 0;
    for (long v = from; v < to; v++) sum += power_of_2((wide(logits[v]) - most) * scale);
    return sum;
}

// For each sequence's logits (B, V), the first token up to which the probabilities sum to more than uniform (B), in [0, 1).
void sample(const number *logits, const float *uniform, int64_t *token, float temperature, long B, long V) {
    long blocks = (V + TOGETHER - 1) / TOGETHER;
    float scale = LOG2_E / temperature;
#pragma omp parallel
    {
        double *up_to = malloc(blocks * sizeof(double));
#pragma omp for schedule(static)
        for (long b = 0; b < B; b++) {
            const number *row = logits + b * V;
            float most = wide(row[0]);
            for (long v = 0; v < V; v++) most = wide(row[v]) > most ? wide(row[v]) : most;
            double all = 0;
            for (long block = 0, v = 0; block < blocks; block++, v += TOGETHER) {
                up_to[block] = all += mass(row, v, v + TOGETHER < V ? v + TOGETHER : V, most, scale);
            }
            long block = 0;
            double target = uniform[b] * all;
            while (block < blocks - 1 && up_to[block] <= target) block++;
            long v = block * TOGETHER, end = v + TOGETHER < V ? v + TOGETHER : V;
            double sum = block ? up_to[block - 1] : 0;
            // The sum of a block rounds: the search may come to its end, and stays there.
            while (v < end - 1 && (sum += mass(row, v, v + 1, most, scale)) <= target) v++;
            token[b] = v;
        }
        free(up_to);
    }
}
