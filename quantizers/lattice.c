/* lattice.c - the Q4_0 lattice of QAT checkpoints: find it, keep it, report it.
 *
 * A fake-quantized weight is v = round(d c), rounded to the file's float type, with c in -8..7.  Given the
 * extremum m and the code k that it had, d is near m / k, the other codes follow, and every weight confines d to
 * the rounding cell of v divided by c.  If those intervals meet, the block is on the grid
 * (quantization.md 6.7, models.md 1.9). */
#include "lattice.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Codes that the extremum may have had, likeliest first. */
static const int extremum_codes[] = { -8, 7, -7, 6, -6, 5, -5, 4, -4, 3, -3, 2, -2, 1, -1 };

static float next_value(float v, enum format_id f, int step)
{
    if (f == FORMAT_BF16 || f == FORMAT_F16) {
        uint16_t h = f == FORMAT_BF16 ? f32_to_bf16(v) : f32_to_f16(v);
        h = (uint16_t)(h + step);
        return f == FORMAT_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
    }
    return nextafterf(v, step > 0 ? v * 2 : 0);
}

static float round_to(float v, enum format_id f)
{
    return f == FORMAT_BF16 ? bf16_to_f32(f32_to_bf16(v)) : f == FORMAT_F16 ? f16_to_f32(f32_to_f16(v)) : v;
}

/* Numbers that round to v (not 0): between the midpoints to its neighbours, by magnitude. */
static void cell(float v, enum format_id f, double *lo, double *hi)
{
    double below = ((double)v + (double)next_value(v, f, -1)) / 2, above = ((double)v + (double)next_value(v, f, 1)) / 2;
    *lo = v > 0 ? below : above;
    *hi = v > 0 ? above : below;
}

static bool codes_for(const float *x, double t, int8_t *codes)
{
    for (int i = 0; i < 32; i++) {
        double c = rint((double)x[i] / t);
        if (c < -8 || c > 7 || (c == 0) != (x[i] == 0))
            return false;
        codes[i] = (int8_t)c;
    }
    return true;
}

static bool interval_for(const float *x, enum format_id f, const int8_t *codes, double *lo, double *hi)
{
    *lo = -DBL_MAX;
    *hi = DBL_MAX;
    for (int i = 0; i < 32 && *lo <= *hi; i++) {
        if (!codes[i])
            continue;
        double a, b, c = codes[i];
        cell(x[i], f, &a, &b);
        double from = c > 0 ? a / c : b / c, to = c > 0 ? b / c : a / c;
        *lo = from > *lo ? from : *lo;
        *hi = to < *hi ? to : *hi;
    }
    return *lo <= *hi;
}

static bool gives_back(const float *x, enum format_id f, const int8_t *codes, float d)
{
    for (int i = 0; i < 32; i++)
        if (round_to(d * (float)codes[i], f) != x[i])
            return false;
    return true;
}

/* Values of a 16-bit float type around the interval's centre; a bf16 one is what QAT most likely used. */
static bool scale_of_type(const float *x, enum format_id f, const struct lattice_block *b, enum format_id type,
                          float *d)
{
    float centre = round_to((float)((b->lo + b->hi) / 2), type);
    for (int step = 0; step < 5; step++) {
        *d = centre;
        for (int s = 0; s < (step + 1) / 2; s++)
            *d = next_value(*d, type, step % 2 ? 1 : -1);
        if (*d != 0 && gives_back(x, f, b->codes, *d))
            return true;
    }
    return false;
}

static void choose_scale(const float *x, enum format_id f, struct lattice_block *b)
{
    float bf = 0, half = 0;
    b->scale_bf16 = scale_of_type(x, f, b, FORMAT_BF16, &bf);
    b->scale_f16 = scale_of_type(x, f, b, FORMAT_F16, &half);
    if (b->scale_bf16 && f16_to_f32(f32_to_f16(bf)) == bf)
        half = bf;
    else if (!b->scale_f16)
        half = (float)((b->lo + b->hi) / 2);
    b->d = f32_to_f16(half);
    b->exact = gives_back(x, f, b->codes, f16_to_f32(b->d));
}

static bool all_bf16(const float *x)
{
    for (int i = 0; i < 32; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        if (bits & 0xffff)
            return false;
    }
    return true;
}

void lattice_find(const float *x, enum format_id f, struct lattice_block *b)
{
    memset(b, 0, sizeof *b);
    float m = 0;
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > fabsf(m))
            m = x[i];
    if (m == 0) {
        b->zero = b->on_grid = b->exact = true;
        return;
    }
    if (f == FORMAT_F32 && all_bf16(x))
        f = FORMAT_BF16;
    for (size_t i = 0; i < ARRAY_LEN(extremum_codes); i++) {
        if (!codes_for(x, (double)m / extremum_codes[i], b->codes) || !interval_for(x, f, b->codes, &b->lo, &b->hi))
            continue;
        b->k = extremum_codes[i];
        b->on_grid = true;
        choose_scale(x, f, b);
        return;
    }
}

static void pack_q4_0(const struct lattice_block *b, struct block_q4_0 *out)
{
    out->d = b->d;
    for (int j = 0; j < 16; j++)
        out->qs[j] = (uint8_t)((b->codes[j] + 8) | (b->codes[j + 16] + 8) << 4);
}

void lattice_row_q4_0(const float *x, enum format_id f, void *out, int64_t n)
{
    struct block_q4_0 *o = out;
    for (int64_t i = 0; i < n; i += 32, o++) {
        struct lattice_block b;
        lattice_find(x + i, f, &b);
        if (b.on_grid && !b.zero)
            pack_q4_0(&b, o);
        else
            quantize_row(FORMAT_Q4_0, x + i, NULL, o, 32);
    }
}
