// Products of tokens with weights in float32, on processors with AVX2 and without AVX-512, where oneDNN's reach 0.7 of what
// the processor multiplies.
//
// Axes: N tokens (the rows of a product), E numbers of each, F features of the result.

#include "numbers.h"

#if defined FLOAT32 && defined __AVX2__ && defined __FMA__ && !defined __AVX512F__

#include <omp.h>

typedef float v8 __attribute__((vector_size(32), aligned(4)));

enum {
    PANEL = 16,   // features that a tile of sums has: two vectors
    ROWS = 6,     // rows of a tile, whose 12 vectors of sums stay in registers
    DEPTH = 256,  // numbers multiplied before the next tile, so that a panel's weights stay in the first cache
    BLOCK = 96,   // rows of a part, whose numbers stay in the second cache
    GROUP = 4,    // panels of a part, if it has many rows
};

typedef struct {
    const float *x, *weight, *gate, *bias, *other;
    float *out;
    long N, E, F;
} Product;

int has_products(void) { return 1; }

// Adds to sums (rows, 16) the products of rows of x with a panel's weights (depth, 16).
static inline __attribute__((always_inline)) void tile(const float *x, long E, const float *weight, long depth, float *sums, int rows) {
    v8 left[ROWS], right[ROWS];
    for (int r = 0; r < rows; r++) left[r] = *(v8 *)(sums + r * PANEL), right[r] = *(v8 *)(sums + r * PANEL + 8);
    for (long e = 0; e < depth; e++, weight += PANEL) {
        v8 one = *(const v8 *)weight, two = *(const v8 *)(weight + 8);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) left[r] += one * x[r * E + e], right[r] += two * x[r * E + e];
    }
    for (int r = 0; r < rows; r++) *(v8 *)(sums + r * PANEL) = left[r], *(v8 *)(sums + r * PANEL + 8) = right[r];
}

static void rows_times_panel(const float *x, long E, const float *weight, long depth, float *sums, long rows) {
    for (; rows >= ROWS; rows -= ROWS, x += ROWS * E, sums += ROWS * PANEL) tile(x, E, weight, depth, sums, ROWS);
    switch (rows) {
        case 5: tile(x, E, weight, depth, sums, 5); break;
        case 4: tile(x, E, weight, depth, sums, 4); break;
        case 3: tile(x, E, weight, depth, sums, 3); break;
        case 2: tile(x, E, weight, depth, sums, 2); break;
        case 1: tile(x, E, weight, depth, sums, 1); break;
    }
}

static inline float silu(float x) {
    // No more than 2^126: gcc divides by way of a reciprocal, which is NaN for infinity.
    return x / (1 + exp2f(x > -87 ? -x * LOG2_E : 126));
}

// Writes sums (rows, 16) of the rows from n on and the features from f on.
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

// Computes the rows from n on with the panels from ``first`` on.
static void part(const Product *of, long n, long first, long panels) {
    float sums[GROUP][BLOCK * PANEL] __attribute__((aligned(64))), gates[GROUP][BLOCK * PANEL] __attribute__((aligned(64)));
    long rows = of->N - n < BLOCK ? of->N - n : BLOCK;
    for (long p = 0; p < panels; p++) {
        memset(sums[p], 0, rows * PANEL * sizeof(float));
        if (of->gate) memset(gates[p], 0, rows * PANEL * sizeof(float));
    }
    for (long e = 0; e < of->E; e += DEPTH) {
        long depth = of->E - e < DEPTH ? of->E - e : DEPTH;
        for (long p = 0; p < panels; p++) {
            long from = (first + p) * of->E * PANEL + e * PANEL;
            rows_times_panel(of->x + n * of->E + e, of->E, of->weight + from, depth, sums[p], rows);
            if (of->gate) rows_times_panel(of->x + n * of->E + e, of->E, of->gate + from, depth, gates[p], rows);
        }
    }
    for (long p = 0; p < panels; p++) finish(of, sums[p], of->gate ? gates[p] : NULL, n, (first + p) * PANEL, rows);
}

// out (N, F) = x (N, E) times weight, plus bias (F) and other (N, F) where they are not NULL. If gate is not NULL they are, and
// it is multiplied by SiLU of x times gate. Weights lie in panels of 16 features, each (E, 16), the last one padded. Parts are
// handed out one by one, so that no thread waits long for one that other programs hold up.
void product32(const float *x, const float *weight, const float *gate, const float *bias, const float *other,
               float *out, long N, long E, long F) {
    Product of = {x, weight, gate, bias, other, out, N, E, F};
    long all = (F + PANEL - 1) / PANEL, group = N > BLOCK ? GROUP : 1;
    long groups = (all + group - 1) / group, blocks = (N + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(dynamic)
    for (long i = 0; i < groups * blocks; i++) {
        long first = i % groups * group;
        part(&of, i / groups * BLOCK, first, all - first < group ? all - first : group);
    }
}

#else

int has_products(void) { return 0; }

#endif
