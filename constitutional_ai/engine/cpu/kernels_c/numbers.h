// Numbers of a model: bfloat16, or float32 with -DFLOAT32. Sums and exponentials are in float32 either way.

#pragma once

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

// Rounds to the nearest, halves to even.
static inline number narrow(float x) {
    union { float value; uint32_t bits; } of = {x};
    return (of.bits + 0x7fff + (of.bits >> 16 & 1)) >> 16;
}

// Splits 32 numbers into those of even and of odd places.
static inline void halves(const number *from, v16 *even, v16 *odd) {
    u16 both;
    memcpy(&both, from, sizeof both);
    *even = (v16)(both << 16);
    *odd = (v16)(both & 0xffff0000);
}

#endif

// The factor that brings a row to a mean square of 1.
static inline float norm_scale(const number *row, float epsilon, long E) {
    float sum = 0;
    for (long e = 0; e < E; e++) sum += wide(row[e]) * wide(row[e]);
    return 1 / sqrtf(sum / E + epsilon);
}

// 2^x for x <= 0, within 5e-6: 2^n times a polynomial of the rest. 0 from -126 on.
static inline float power_of_2(float x) {
    float y = x > -126 ? x : -126, n = rintf(y), r = (y - n) * 0.693147181f;
    float power = 1 + r * (1 + r * (0.5f + r * (0.166666667f + r * (0.0416666667f + r * 0.00833333333f))));
    union { int32_t bits; float value; } scale = {((int32_t)n + 127) << 23};
    return x > -126 ? power * scale.value : 0;
}
