/* round.h - rounding of activations for the sets with registers: the rules of kernels.h over two operations that
 * the including file defines first:
 *     float largest_of(const float *x, int n)      largest magnitude, NaN above all; n a multiple of 32
 *     void round_32(const float *x, float inv, float limit, bool away, int16_t *codes)
 *                                                  x * inv held in +-limit, to nearest: halves away from 0, or to even */
#ifndef QDELTA_KERNEL_ROUND_H
#define QDELTA_KERNEL_ROUND_H

#include "tiles.h"

static float round_block(enum rounding kind, const float *x, int16_t *codes)
{
    float amax = largest_of(x, 32), steps = kind == ROUND_I16 ? 32767.0f : 127.0f, s = amax / steps;
    if (amax < ACT_LEAST) {
        memset(codes, 0, 32 * sizeof *codes);
        return 0.0f;
    }
    float inv = kind == ROUND_I16 ? steps / amax : 1.0f / s;
    round_32(x, inv, steps, kind == ROUND_Q8_0, codes);
    return kind == ROUND_I16 ? s : f16_to_f32(f32_to_f16(s));
}

static float round_superblock(const float *x, int16_t *codes)
{
    float amax = largest_of(x, 256), most = amax;
    int at = 0;
    if (amax < ACT_LEAST) {
        memset(codes, 0, 256 * sizeof *codes);
        return 0.0f;
    }
    while (at < 256 && fabsf(x[at]) != amax)
        at++;
    if (at < 256)
        most = x[at];
    float inv = -127.0f / most;
    for (int k = 0; k < 256; k += 32)
        round_32(x + k, inv, 127.0f, false, codes + k);
    return 1.0f / inv;
}

static void round_row_part(enum rounding kind, const float *x, int n, int16_t *codes, float *scale)
{
    if (kind == ROUND_Q8_K) {
        float s = round_superblock(x, codes);
        for (int b = 0; b < n / 32; b++)
            scale[b] = s;
        return;
    }
    for (int b = 0; b < n / 32; b++)
        scale[b] = round_block(kind, x + 32 * b, codes + 32 * b);
}

#endif
