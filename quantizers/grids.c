/* grids.c - the scalar grids that calibrated methods round onto: scales by importance, blocks in and out. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "blocks.h"
#include "search.h"
#include "solve.h"

static const struct grid grids[] = {
    { "q4_0", FORMAT_Q4_0, 32, -8, 7, false, true, false },
    { "q4_1", FORMAT_Q4_1, 32, 0, 15, false, false, true },
    { "q4_k", FORMAT_Q4_K, 32, 0, 15, false, false, true },
    { "iq4_nl", FORMAT_IQ4_NL, 32, 0, 15, true, true, false },
    { "int4-g128", FORMAT_I4M, 128, -8, 7, false, false, false },
    { "int4-g128-asym", FORMAT_I4M, 128, 0, 15, false, false, true },
    { "int4-g32", FORMAT_I4M, 32, -8, 7, false, false, false },
    { "int4-g32-asym", FORMAT_I4M, 32, 0, 15, false, false, true },
};

const struct grid *grid_find(enum format_id f, const char *format_name)
{
    for (size_t i = 0; i < ARRAY_LEN(grids); i++)
        if (grids[i].format == f && (f != FORMAT_I4M || strcmp(grids[i].name, format_name) == 0))
            return &grids[i];
    return NULL;
}

/* Both signs on Q4_0 (GPTQ's readers expect positive scales), so that the side with eight steps may serve the heavier tail; extremum / 6 .. extremum / 9, each with
 * one least-squares step (quantization.md 2.4). */
static float symmetric_scale(const float *w, const float *h, int n, bool both_signs)
{
    enum { STEPS = 51, LANES = 112 };
    float inv[LANES] = { 0 }, xl[LANES] = { 0 }, l2[LANES] = { 0 }, amax = 0;
    for (int i = 0; i < n; i++)
        amax = fabsf(w[i]) > amax ? fabsf(w[i]) : amax;
    if (amax < 1e-30f)
        return 0;
    for (int k = 0; k < STEPS; k++) {
        inv[2 * k] = (6 + 0.06f * (float)k) / amax;
        inv[2 * k + 1] = both_signs ? -inv[2 * k] : 0;
    }
    for (int i = 0; i < n; i += BLOCK) {
        float part_xl[LANES], part_l2[LANES];
        search_best()->qx(BLOCK, 8, w + i, h + i, LANES, inv, part_xl, part_l2);
        for (int c = 0; c < 2 * STEPS; c++) {
            xl[c] += part_xl[c];
            l2[c] += part_l2[c];
        }
    }
    float best = 0, scale = 0;
    for (int c = 0; c < 2 * STEPS; c++) {
        float d = l2[c] > 0 ? fp16_scale(xl[c] / l2[c]) : 0;
        float gain = d * (2 * xl[c] - d * l2[c]);       /* of the error against all zeros */
        if (gain > best) {
            best = gain;
            scale = d;
        }
    }
    return scale;
}

/* Range shrunk in steps, zero a whole code: scale and -scale * zero. */
static float asymmetric_scale(const float *w, const float *h, int n, float *min)
{
    float lo = 0, hi = 0, best = INFINITY, scale = 0;
    *min = 0;
    for (int i = 0; i < n; i++) {
        lo = w[i] < lo ? w[i] : lo;
        hi = w[i] > hi ? w[i] : hi;
    }
    if (hi - lo < 1e-30f)
        return 0;
    for (int k = 0; k < 45; k++) {
        float shrink = 1 - 0.01f * (float)k, d = fp16_scale((hi - lo) * shrink / 15), error = 0;
        if (d == 0)
            continue;
        float zero = (float)clamp_int(nearest_int(-lo * shrink / d), 0, 15);
        for (int i = 0; i < n; i++) {
            float c = rintf(w[i] / d) + zero;
            float e = d * ((c < 0 ? 0 : c > 15 ? 15 : c) - zero) - w[i];
            error += h[i] * e * e;
        }
        if (error < best) {
            best = error;
            scale = d;
            *min = -d * zero;
        }
    }
    return scale;
}

/* Formats with a search of their own: let it choose, then read what it stored. */
static void fit_by_format(const struct grid *g, const float *w, const float *h, int n, float *s, float *m, uint8_t *bytes)
{
    quantize_row(g->format, w, h, bytes, n);
    for (int b = 0; b < n / BLOCK; b++) {
        m[b] = 0;
        if (g->format == FORMAT_Q4_1) {
            const struct block_q4_1 *q = (const struct block_q4_1 *)bytes + b;
            s[b] = f16_to_f32(q->d);
            m[b] = f16_to_f32(q->m);
        } else if (g->format == FORMAT_IQ4_NL) {
            s[b] = f16_to_f32(((const struct block_iq4_nl *)bytes + b)->d);
        } else {
            const struct block_q4_k *q = (const struct block_q4_k *)bytes + b / 8;
            int scale, min;
            k4_scale_min(q->scales, b % 8, &scale, &min);
            s[b] = f16_to_f32(q->d) * (float)scale;
            m[b] = -(f16_to_f32(q->dmin) * (float)min);
        }
    }
}

void grid_fit(const struct grid *g, const float *w, const float *h, int n, float *s, float *m, uint8_t *bytes)
{
    if (g->format != FORMAT_Q4_0 && g->format != FORMAT_I4M) {
        fit_by_format(g, w, h, n, s, m, bytes);
        return;
    }
    for (int from = 0; from < n; from += g->group) {
        int width = n - from < g->group ? n - from : g->group;
        float min = 0, scale = g->asymmetric ? asymmetric_scale(w + from, h + from, width, &min) : symmetric_scale(w + from, h + from, width, g->format == FORMAT_Q4_0);
        for (int b = from / BLOCK; b < (from + width) / BLOCK; b++) {
            s[b] = scale;
            m[b] = min;
        }
    }
    for (int b = 0; b < n / BLOCK && g->format == FORMAT_I4M; b++)
        ((struct block_i4m *)bytes)[b].m = g->asymmetric ? m[b] : -8 * s[b];
}

static void put_nibbles(const int8_t *codes, int offset, uint8_t *qs)
{
    for (int j = 0; j < 16; j++)
        qs[j] = (uint8_t)((codes[j] + offset) | (codes[j + 16] + offset) << 4);
}

void grid_put(const struct grid *g, const int8_t *codes, const float *s, int n, uint8_t *bytes)
{
    for (int b = 0; b < n / BLOCK; b++, codes += BLOCK)
        switch (g->format) {
        case FORMAT_Q4_0: {
            struct block_q4_0 *q = (struct block_q4_0 *)bytes + b;
            q->d = f32_to_f16(s[b]);
            put_nibbles(codes, 8, q->qs);
            break;
        }
        case FORMAT_Q4_1: put_nibbles(codes, 0, ((struct block_q4_1 *)bytes)[b].qs); break;
        case FORMAT_IQ4_NL: {
            struct block_iq4_nl *q = (struct block_iq4_nl *)bytes + b;
            q->d = f32_to_f16(s[b]);
            put_nibbles(codes, 0, q->qs);
            break;
        }
        case FORMAT_Q4_K: {
            uint8_t *qs = ((struct block_q4_k *)bytes)[b / 8].qs + b % 8 / 2 * 32;
            for (int j = 0; j < 32; j++)
                qs[j] = (uint8_t)(b % 2 ? (qs[j] & 15) | codes[j] << 4 : (qs[j] & 0xf0) | codes[j]);
            break;
        }
        default: {
            struct block_i4m *q = (struct block_i4m *)bytes + b;
            q->d = s[b];
            put_nibbles(codes, g->lo < 0 ? 8 : 0, q->qs);
        }
        }
}

/* ---- nearest codes, no compensation ---- */

struct plain {
    const struct grid *grid;
    enum format_id format;
    const float *w, *importance;
    int cols;
    uint8_t *bytes;
};

int grid_code(const struct grid *g, float w, float s, float m)
{
    float x = s != 0 ? (w - m) / s : 0;
    if (!g->codebook)
        return (int)rintf(x < (float)g->lo ? (float)g->lo : x > (float)g->hi ? (float)g->hi : x);
    int best = 0;
    for (int c = 1; c < 16; c++)
        if (fabsf(x - (float)iq4_nl_values[c]) < fabsf(x - (float)iq4_nl_values[best]))
            best = c;
    return best;
}

float grid_value(const struct grid *g, int code, float s, float m)
{
    return g->codebook ? s * (float)iq4_nl_values[code] : s * (float)code + m;
}

static void plain_row(void *ctx, int r, int thread)
{
    (void)thread;
    struct plain *p = ctx;
    const float *w = p->w + (size_t)r * (size_t)p->cols;
    uint8_t *bytes = p->bytes + r * format_row_bytes(p->format, p->cols);
    float *s = p->grid ? malloc((size_t)(p->cols / BLOCK) * 2 * sizeof *s + (size_t)p->cols) : NULL;
    if (!s) {           /* without room for scales the format's own search still writes good blocks */
        if (p->format != FORMAT_I4M)
            quantize_row(p->format, w, p->importance, bytes, p->cols);
        return;
    }
    float *m = s + p->cols / BLOCK;
    int8_t *codes = (int8_t *)(m + p->cols / BLOCK);
    grid_fit(p->grid, w, p->importance, p->cols, s, m, bytes);
    for (int c = 0; c < p->cols; c++)
        codes[c] = (int8_t)grid_code(p->grid, w[c], s[c / BLOCK], m[c / BLOCK]);
    grid_put(p->grid, codes, s, p->cols, bytes);
    free(s);
}

void round_rows_plain(enum format_id f, const char *format_name, const float *w, int rows, int cols, const float *importance,
                      struct pool *pool, uint8_t *bytes)
{
    struct plain p = { grid_find(f, format_name), f, w, importance, cols, bytes };
    pool_run(pool, rows, plain_row, &p);
}
