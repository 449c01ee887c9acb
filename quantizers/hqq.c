/* hqq.c - half-quadratic quantization (Badri and Shaji 2023): no data; the min of each block is chosen so that the
 * p-norm of the error (p = 0.7) is small, which lets a few weights be far off and serves the many.
 *
 * With scale s fixed, alternate: errors shrunk to E = shrink(W - W^), then the zero that fits W - E best. */
#include "hqq.h"

#include <math.h>

#include "search.h"

static float shrink(float x, float beta)
{
    float a = fabsf(x), left = a > 0 ? a - powf(a, 0.7f - 1) / beta : 0;
    return left > 0 ? copysignf(left, x) : 0;
}

/* Codes for inverse scale inv and zero; the mean absolute error they leave. */
static float round_block(const float *w, float inv, float zero, float *codes)
{
    float error = 0;
    for (int i = 0; i < 32; i++) {
        float c = rintf(w[i] * inv + zero);
        codes[i] = c < 0 ? 0 : c > 15 ? 15 : c;
        error += fabsf(w[i] - (codes[i] - zero) / inv);
    }
    return error / 32;
}

static float best_zero(const float *w, float inv, float zero)
{
    float codes[32], beta = 10, best = round_block(w, inv, zero, codes), kept = zero;
    for (int turn = 0; turn < 20; turn++, beta *= 1.01f) {
        float sum = 0;
        for (int i = 0; i < 32; i++) {
            float e = shrink(w[i] - (codes[i] - zero) / inv, beta * inv);       /* in units of a step */
            sum += codes[i] - (w[i] - e) * inv;
        }
        zero = sum / 32;
        float error = round_block(w, inv, zero, codes);
        if (!(error < best))
            break;
        best = error;
        kept = zero;
    }
    return kept;
}

static void write_block(const float *w, struct block_q4_1 *b)
{
    float lo = w[0], hi = w[0];
    for (int i = 1; i < 32; i++) {
        lo = w[i] < lo ? w[i] : lo;
        hi = w[i] > hi ? w[i] : hi;
    }
    float d = f16_to_f32(f32_to_f16((hi - lo) / 15)), inv = d > 0 ? 1 / d : 0;
    float m = f16_to_f32(f32_to_f16(d > 0 ? -best_zero(w, inv, -lo * inv) * d : lo));
    uint8_t codes[32];
    for (int i = 0; i < 32; i++) {
        float c = rintf((w[i] - m) * inv);
        codes[i] = (uint8_t)(c < 0 ? 0 : c > 15 ? 15 : c);
    }
    b->d = f32_to_f16(d);
    b->m = f32_to_f16(m);
    for (int j = 0; j < 16; j++)
        b->qs[j] = (uint8_t)(codes[j] | codes[j + 16] << 4);
}

bool hqq_row(const struct part *p, const float *x, void *out)
{
    if (p->to != FORMAT_Q4_1)
        return false;
    for (int64_t i = 0; i < p->source->cols; i += 32)
        write_block(x + i, (struct block_q4_1 *)out + i / 32);
    return true;
}
