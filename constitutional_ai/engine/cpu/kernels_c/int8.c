// Products of tokens with weights in 8 bits, each column of which has a scale. Tokens (the rows) are quantised to 16 bits, with
// a scale each, and multiplied as two planes of 8 bits: integers, so that sums are exact. Only rounding the weights loses.
// That takes AMX tiles or AVX-512 VNNI.
//
// Axes: N rows, E numbers of each (a multiple of 64, padded with 0), F features of the result (of 32).

#include "tiles.h"

#if !defined(HAS_TILES) && !defined(__AVX512VNNI__)

int supports_int8(void) { return 0; }

#else

#include <immintrin.h>

#define WEIGHTS_A_LINE 64

enum { PLANE = 16 * 64, ZERO = 1 << 15 };  // bytes of 64 numbers of 16 rows; 0 as an unsigned 16-bit number

// Weights in 8 bits: blocks of 32 columns by 64 numbers, each two tiles of 16 groups of 4 numbers, 16 columns, 4 numbers; and
// each column's scale, and the sum of its weights.
typedef struct { const int8_t *blocks; const float *scale; const int32_t *sum; } Weights;

typedef struct {
    const number *x, *norm;
    Weights weight, gate;
    const number *bias, *other;
    number *out;
    float *scales;  // of rows
    float epsilon;
    long N, given, E, F, width;  // given and width: numbers of each row and of the result in memory, without padding
    uint16_t *packed;  // room for rows as ``pack_rows`` packs them
} Product;

typedef struct { int32_t high[16 * 32], low[16 * 32]; } __attribute__((aligned(64))) Sums;  // two planes of 16 rows by 32 columns

#ifdef HAS_TILES

int has_tiles(void);

int supports_int8(void) { return has_tiles(); }

static inline void block(const uint8_t *rows, long count, const int8_t *weight, Sums *sums, long E, const int8_t *ahead,
                         long lines) {
    (void)count;
    COMPILER_BARRIER;
    ZERO_SUMS;
    for (long e = 0; e < E; e += 64, rows += 2 * PLANE, weight += 2 * PLANE) {
        for (long l = 0; l < lines; l++, ahead += 64) __builtin_prefetch(ahead, 0, 2);
        _tile_loadd(4, rows, 64);
        _tile_loadd(5, rows + PLANE, 64);
        _tile_loadd(6, weight, 64);
        _tile_loadd(7, weight + PLANE, 64);
        MULTIPLY(_tile_dpbusd);
    }
    _tile_stored(0, sums->high, 128);
    _tile_stored(1, sums->high + 16, 128);
    _tile_stored(2, sums->low, 128);
    _tile_stored(3, sums->low + 16, 128);
}

#else

int supports_int8(void) { return 1; }

enum { ROWS = 4 };  // so many rows' sums fit into registers
typedef struct { __m512i high[ROWS][2], low[ROWS][2]; } RowSums;

// Adds the products of 64 numbers of ROWS rows with 32 columns to the columns' sums.
static inline __attribute__((always_inline)) void add(RowSums *to, const uint8_t *rows, const int8_t *weight) {
#pragma GCC unroll 4  // else gcc 12 moves each sum from register to register, and some to memory
    for (long k = 0; k < 16; k++, rows += 4, weight += 64) {
        __m512i one = _mm512_loadu_si512(weight), other = _mm512_loadu_si512(weight + PLANE);
        for (int r = 0; r < ROWS; r++) {
            int32_t high, low;
            memcpy(&high, rows + r * 64, 4);
            memcpy(&low, rows + r * 64 + PLANE, 4);
            __m512i highs = _mm512_set1_epi32(high), lows = _mm512_set1_epi32(low);
            to->high[r][0] = _mm512_dpbusd_epi32(to->high[r][0], highs, one);
            to->high[r][1] = _mm512_dpbusd_epi32(to->high[r][1], highs, other);
            to->low[r][0] = _mm512_dpbusd_epi32(to->low[r][0], lows, one);
            to->low[r][1] = _mm512_dpbusd_epi32(to->low[r][1], lows, other);
        }
    }
}

static inline void block(const uint8_t *rows, long count, const int8_t *weight, Sums *sums, long E, const int8_t *ahead,
                         long lines) {
    for (long row = 0; row < count; row += ROWS) {
        RowSums row_sums = {};
        for (long e = 0; e < E; e += 64) {
            for (long l = 0; l < (row ? 0 : lines); l++, ahead += 64) __builtin_prefetch(ahead, 0, 2);
            add(&row_sums, rows + e * 32 + row * 64, weight + e * 32);
        }
        memcpy(sums->high + row * 32, row_sums.high, sizeof row_sums.high);
        memcpy(sums->low + row * 32, row_sums.low, sizeof row_sums.low);
    }
}

#endif

static inline float silu(float x) {
    float power = power_of_2(-fabsf(x) * LOG2_E);
    return x * (x < 0 ? power : 1) / (1 + power);
}

// Packs one of 16 rows, 64 numbers in each block: in 16 bits, upper and lower halves apart. Returns its scale.
static inline float pack_row(const Product *of, const number *row, float *numbers, uint8_t *to) {
    float by = of->norm ? norm_scale(row, of->epsilon, of->given) : 1, most = 0;
    for (long e = 0; e < of->given; e++) {
        numbers[e] = of->norm ? wide(row[e]) * by * wide(of->norm[e]) : wide(row[e]);
        most = fmaxf(most, fabsf(numbers[e]));
    }
    float steps = most > 0 ? 32767 / most : 0;
    for (long e = 0; e < of->E; e += 64, to += 2 * PLANE) {
        for (long i = 0; i < 64; i++) {
            uint32_t whole = (int32_t)rintf(numbers[e + i] * steps) + ZERO;
            to[i] = whole >> 8;
            to[PLANE + i] = whole;
        }
    }
    return most / 32767;
}

// Packs the 32 rows from n on into two blocks of 16.
static inline void pack_rows(const Product *of, long n, uint16_t *packed) {
    float numbers[of->E];
    for (long e = of->given; e < of->E; e++) numbers[e] = 0;
    for (long row = 0; row < 32 && n + row < of->N; row++) {
        uint8_t *to = (uint8_t *)(packed + row / 16 * 16 * of->E) + row % 16 * 64;
        of->scales[n + row] = pack_row(of, of->x + (n + row) * of->given, numbers, to);
    }
}

static inline float value(const Sums *sums, long i, const Weights *of, long column) {
    return (256.0f * (sums->high[i] - ZERO / 256 * of->sum[column]) + sums->low[i]) * of->scale[column];
}

// Computes 16 packed rows with the 32 columns from f on.
static inline void compute_half(const Product *of, const uint8_t *packed, long n, long f, long distance, long lines) {
    long rows = of->N - n < 16 ? of->N - n : 16, columns = of->width - f < 32 ? of->width - f : 32;
    const int8_t *weight = of->weight.blocks + f * of->E, *gate = of->gate.blocks + f * of->E;
    Sums sums, gates;
    block(packed, rows, weight, &sums, of->E, weight + distance, lines);
    if (of->gate.blocks) block(packed, rows, gate, &gates, of->E, gate + distance, lines);
    for (long row = 0; row < rows; row++) {
        float by = of->scales[n + row], sum[32];
        number *out = of->out + (n + row) * of->width + f;
        for (long c = 0; c < 32; c++) sum[c] = by * value(&sums, row * 32 + c, &of->weight, f + c);
        if (of->gate.blocks) {
            for (long c = 0; c < 32; c++) sum[c] *= silu(by * value(&gates, row * 32 + c, &of->gate, f + c));
        }
        if (of->bias) for (long c = 0; c < columns; c++) sum[c] += wide(of->bias[f + c]);
        if (of->other) for (long c = 0; c < columns; c++) sum[c] += wide(of->other[(n + row) * of->width + f + c]);
        for (long c = 0; c < columns; c++) out[c] = narrow(sum[c]);
    }
}

static inline void compute(const Product *of, const uint16_t *packed, long n, long f, long distance, long lines) {
    compute_half(of, (const uint8_t *)packed, n, f, distance, lines);
    if (n + 16 < of->N) compute_half(of, (const uint8_t *)(packed + 16 * of->E), n + 16, f, distance, 0);
}

#include "sharing.h"

// out (N, width) = x (N, given) times weight, plus bias (width) and other (N, width) where they are not NULL. If gate's blocks
// are not NULL they are, and it is multiplied by SiLU of x times gate. If norm (given) is not NULL, x goes through an
// RMS norm with these weights first.
void product_int8(const number *x, const number *norm, const int8_t *weight, const float *scale, const int32_t *sum,
                  const int8_t *gate, const float *gate_scale, const int32_t *gate_sum, const number *bias,
                  const number *other, number *out, float epsilon, long N, long given, long width) {
    float *scales = malloc(N * sizeof(float));
    share_out((Product){x, norm, {weight, scale, sum}, {gate, gate_scale, gate_sum}, bias, other, out, scales, epsilon, N,
                        given, (given + 63) / 64 * 64, (width + 31) / 32 * 32, width, NULL});
    free(scales);
}

#endif
