// Rotary positions, rounded where transformers rounds.

#pragma once

#include "numbers.h"

static inline void rotate(const number *restrict head, const number *restrict cosine, const number *restrict sine,
                          number *restrict out, long D) {
    long half = D / 2;
    for (long d = 0; d < half; d++) {
        float a = wide(head[d]), b = wide(head[d + half]);
        out[d] = narrow(wide(narrow(a * wide(cosine[d]))) - wide(narrow(b * wide(sine[d]))));
        out[d + half] = narrow(wide(narrow(b * wide(cosine[d + half]))) + wide(narrow(a * wide(sine[d + half]))));
    }
}

// Rotates token n = b x T + t and writes its keys and values into the KV cache: arguments as of ``apply_rotary``.
static inline void rotate_token(const number *heads, const number *cosine, const number *sine, number *queries, number *keys,
                                number *values, const int64_t *stride, long column, long n, long B, long T, long K, long G,
                                long D) {
    long b = n / T, t = n % T;
    const number *from = heads + n * (G + 2) * K * D, *c = cosine + n * D, *s = sine + n * D;
    for (long k = 0; k < K; k++) {
        for (long g = 0; g < G; g++, from += D) rotate(from, c, s, queries + (((k * B + b) * G + g) * T + t) * D, D);
    }
    int64_t to = b * stride[0] + (column + t) * stride[2];
    for (long k = 0; k < K; k++, from += D) rotate(from, c, s, keys + to + k * stride[1], D);
    for (long k = 0; k < K; k++, from += D) memcpy(values + to + k * stride[1], from, D * sizeof(number));
}
