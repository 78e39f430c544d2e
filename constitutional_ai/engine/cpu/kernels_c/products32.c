// Products of few tokens with weights in float32, on processors with AVX2 or AVX-512: oneDNN's take up to twice as long.
//
// Axes: N tokens (the rows of a product), E numbers of each, F features of the result.

#include "numbers.h"

enum { PANEL = 64 };  // features that stand side by side where oneDNN packs weights

#if defined FLOAT32 && defined __AVX2__ && defined __FMA__

#include <omp.h>

#ifdef __AVX512F__
enum { LANES = 16, VECTORS = 4 };  // numbers of a vector; vectors of features that a tile of sums has
#else
enum { LANES = 8, VECTORS = 2 };
#endif

typedef float vector __attribute__((vector_size(LANES * sizeof(float)), aligned(4)));

enum {
    ROWS = 6,    // rows of a tile: its sums stay in registers
    DEPTH = 64,  // numbers multiplied before the next tile, so that a panel's weights stay in the first cache
    BLOCK = 96,  // rows of a part, whose numbers stay in the second cache
};

typedef struct {
    const float *x, *weight, *gate, *bias, *other;
    float *out;
    long N, E, F;
} Product;

int panel_features(void) { return PANEL; }

// Adds to sums (rows, PANEL) the products of rows of x with some features of a panel's weights (depth, PANEL). The panel's
// next weights are called for meanwhile.
static inline __attribute__((always_inline)) void tile(const float *x, long E, const float *weight, long depth, float *sums, int rows) {
    vector sum[ROWS][VECTORS];
    for (int r = 0; r < rows; r++) {
        for (int v = 0; v < VECTORS; v++) sum[r][v] = *(vector *)(sums + r * PANEL + v * LANES);
    }
    for (long e = 0; e < depth; e++, weight += PANEL) {
        vector features[VECTORS];
        for (int v = 0; v < VECTORS; v++) features[v] = *(const vector *)(weight + v * LANES);
        for (int f = 0; f < VECTORS * LANES; f += 16) __builtin_prefetch(weight + DEPTH * PANEL + f);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            for (int v = 0; v < VECTORS; v++) sum[r][v] += features[v] * x[r * E + e];
        }
    }
    for (int r = 0; r < rows; r++) {
        for (int v = 0; v < VECTORS; v++) *(vector *)(sums + r * PANEL + v * LANES) = sum[r][v];
    }
}

static void rows_times_features(const float *x, long E, const float *weight, long depth, float *sums, long rows) {
    for (; rows >= ROWS; rows -= ROWS, x += ROWS * E, sums += ROWS * PANEL) tile(x, E, weight, depth, sums, ROWS);
    switch (rows) {
        case 5: tile(x, E, weight, depth, sums, 5); break;
        case 4: tile(x, E, weight, depth, sums, 4); break;
        case 3: tile(x, E, weight, depth, sums, 3); break;
        case 2: tile(x, E, weight, depth, sums, 2); break;
        case 1: tile(x, E, weight, depth, sums, 1); break;
    }
}

// Writes to sums (rows, PANEL) the products of the rows from n on with one panel of weights.
static void multiply(const Product *of, const float *weights, long n, long panel, long rows, float *sums) {
    memset(sums, 0, rows * PANEL * sizeof(float));
    for (long e = 0; e < of->E; e += DEPTH) {
        long depth = of->E - e < DEPTH ? of->E - e : DEPTH;
        const float *x = of->x + n * of->E + e, *weight = weights + (panel * of->E + e) * PANEL;
        for (long f = 0; f < PANEL; f += VECTORS * LANES) {
            rows_times_features(x, of->E, weight + f, depth, sums + f, rows);
        }
    }
}

static inline float silu(float x) {
    // No more than 2^126: gcc divides by way of a reciprocal, which is NaN for infinity.
    return x / (1 + exp2f(x > -87 ? -x * LOG2_E : 126));
}

// Writes sums (rows, PANEL) of the rows from n on and the features from f on.
static void finish(const Product *of, const float *sums, const float *gates, long n, long f, long rows) {
    long columns = of->F - f < PANEL ? of->F - f : PANEL;
    for (long r = 0; r < rows; r++) {
        float *out = of->out + (n + r) * of->F + f;
        for (long c = 0; c < columns; c++) {
            float sum = sums[r * PANEL + c];
            if (of->bias) sum += of->bias[f + c];
            if (of->other) sum += of->other[(n + r) * of->F + f + c];
            out[c] = gates ? sum * silu(gates[r * PANEL + c]) : sum;
        }
    }
}

// out (N, F) = x (N, E) times weight, plus bias (F) and other (N, F) where they are not NULL. If gate is not NULL they are, and
// it is multiplied by SiLU of x times gate. Weights lie in panels, each (E, PANEL), the last one padded. Parts are handed out
// one by one, so that no thread waits long for one that other programs hold up.
void product32(const float *x, const float *weight, const float *gate, const float *bias, const float *other,
               float *out, long N, long E, long F) {
    Product of = {x, weight, gate, bias, other, out, N, E, F};
    long panels = (F + PANEL - 1) / PANEL, blocks = (N + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(dynamic)
    for (long i = 0; i < panels * blocks; i++) {
        float sums[BLOCK * PANEL] __attribute__((aligned(64))), gates[BLOCK * PANEL] __attribute__((aligned(64)));
        long panel = i % panels, n = i / panels * BLOCK, rows = N - n < BLOCK ? N - n : BLOCK;
        multiply(&of, weight, n, panel, rows, sums);
        if (gate) multiply(&of, gate, n, panel, rows, gates);
        finish(&of, sums, gate ? gates : NULL, n, panel * PANEL, rows);
    }
}

#else

int panel_features(void) { return 0; }

#endif
