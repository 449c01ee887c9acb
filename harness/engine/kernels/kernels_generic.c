/* kernels_generic.c - the definition: every operation of kernels.h in plain C.
 *
 * Nothing here is tuned; weights are used in place and decoded again for every few activation rows. */
#include "lanes_generic.h"
#include "vectors.h"

static bool always(void)
{
    return true;
}

/* ---- rounded activation rows: int16 codes [cols], then scales [cols / 32], then sums [cols / 16] ---- */

struct rounded_row {
    int16_t *codes;
    float *scale;       /* of each 32-block */
    int32_t *sum;       /* of the codes of each 16 */
};

static struct rounded_row rounded_row(const struct acts *a, int i)
{
    size_t cols = (size_t)a->cols;
    uint8_t *p = (uint8_t *)a->packed + (size_t)i * (cols * 2 + cols / 32 * 4 + cols / 16 * 4);
    return (struct rounded_row){ (int16_t *)p, (float *)(p + cols * 2), (int32_t *)(p + cols * 2 + cols / 32 * 4) };
}

/* Largest magnitude with NaN above everything, so that a NaN reaches the scale. */
static float largest(const float *x, int n)
{
    uint32_t most = 0;
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    float m;
    memcpy(&m, &most, sizeof m);
    return m;
}

static int clamp(float x, float limit)
{
    x = x > -limit ? x : -limit;        /* NaN: the scale carries it */
    return (int)(x < limit ? x : limit);
}

static float round_i16(const float *x, int16_t *codes)
{
    float amax = largest(x, 32), inv = amax < ACT_LEAST ? 0.0f : 32767.0f / amax;
    for (int i = 0; i < 32; i++)
        codes[i] = (int16_t)clamp(rintf(x[i] * inv), 32767);
    return amax < ACT_LEAST ? 0.0f : amax / 32767.0f;
}

static float round_q8_0(const float *x, int16_t *codes)
{
    float amax = largest(x, 32), s = amax / 127.0f, inv = amax < ACT_LEAST ? 0.0f : 1.0f / s;
    for (int i = 0; i < 32; i++)
        codes[i] = (int16_t)clamp(roundf(x[i] * inv), 127);
    return amax < ACT_LEAST ? 0.0f : f16_to_f32(f32_to_f16(s));
}

/* The element of largest magnitude, the first of equals, becomes -127. */
static float round_q8_k(const float *x, int16_t *codes)
{
    float amax = largest(x, 256), most = amax;
    for (int i = 255; i >= 0; i--)
        most = fabsf(x[i]) == amax ? x[i] : most;
    float inv = amax < ACT_LEAST ? 0.0f : -127.0f / most;
    for (int i = 0; i < 256; i++)
        codes[i] = (int16_t)clamp(rintf(x[i] * inv), 127);
    return amax < ACT_LEAST ? 0.0f : 1.0f / inv;
}

static void round_row(enum rounding kind, const float *x, int cols, struct rounded_row r)
{
    int step = kind == ROUND_Q8_K ? 256 : 32;
    for (int k = 0; k < cols; k += step) {
        float s = kind == ROUND_I16    ? round_i16(x + k, r.codes + k)
                  : kind == ROUND_Q8_0 ? round_q8_0(x + k, r.codes + k)
                                       : round_q8_k(x + k, r.codes + k);
        for (int b = 0; b < step / 32; b++)
            r.scale[k / 32 + b] = s;
    }
    for (int k = 0; k < cols; k += 16) {
        r.sum[k / 16] = 0;
        for (int i = 0; i < 16; i++)
            r.sum[k / 16] += r.codes[k + i];
    }
}

/* x in the order in which the tensor's columns are stored. */
static void permute_row(const float *x, const int32_t *perm, int cols, float *out)
{
    for (int k = 0; k < cols; k++)
        out[k] = x[perm ? perm[k] : k];
}

struct generic_job {
    const struct product *p;
    int step;           /* rows of W a job */
};

static void round_job(void *ctx, int i, int thread)
{
    const struct product *p = ((struct generic_job *)ctx)->p;
    const int32_t *perm = p->w->t->col_perm;
    const float *x = p->a->f32 + (size_t)i * p->a->ld;
    (void)thread;
    if (p->rounding == ROUND_NONE) {
        permute_row(x, perm, p->a->cols, (float *)p->a->packed + (size_t)i * (size_t)p->a->cols);
        return;
    }
    if (!perm) {
        round_row(p->rounding, x, p->a->cols, rounded_row(p->a, i));
        return;
    }
    /* 256 columns at a time is enough for every rounding. */
    struct rounded_row r = rounded_row(p->a, i);
    for (int k = 0; k < p->a->cols; k += 256) {
        float part[256];
        int n = p->a->cols - k < 256 ? p->a->cols - k : 256;
        permute_row(x, perm + k, n, part);
        round_row(p->rounding, part, n, (struct rounded_row){ r.codes + k, r.scale + k / 32, r.sum + k / 16 });
    }
}

/* ---- products ---- */

enum { CHUNK = 256 };       /* columns decoded at once */

static float dot_codes(const struct format *f, const int8_t *codes, const float *ws, const float *wm,
                       const struct rounded_row *r, int k0, int n, float acc)
{
    for (int k = 0; k < n; k += f->int_block) {
        int32_t isum = 0, asum = 0;
        for (int i = 0; i < f->int_block; i++)
            isum += codes[k + i] * r->codes[k0 + k + i];
        for (int i = 0; i < f->int_block; i += 16)
            asum += r->sum[(k0 + k + i) / 16];
        float s = r->scale[(k0 + k) / 32];
        acc = fmaf((float)isum, ws[k / f->int_block] * s, acc);
        if (f->has_min)
            acc = fmaf((float)asum, wm[k / f->int_block] * s, acc);
    }
    return acc;
}

static void integer_row(const struct product *p, int row)
{
    const struct format *f = &formats[p->w->t->format];
    const uint8_t *w = matrix_row(p->w, p->mat, row);
    int cols = p->a->cols;
    for (int i = 0; i < p->n; i++)
        p->y[(size_t)i * p->ldy + (size_t)row] = 0;
    for (int k = 0; k < cols; k += CHUNK) {
        int8_t codes[CHUNK];
        float ws[CHUNK / 16], wm[CHUNK / 16];
        int n = cols - k < CHUNK ? cols - k : CHUNK;
        f->to_codes(w + format_row_bytes(p->w->t->format, k), codes, ws, f->has_min ? wm : NULL, n);
        for (int i = 0; i < p->n; i++) {
            struct rounded_row r = rounded_row(p->a, acts_row(p, i));
            float *y = &p->y[(size_t)i * p->ldy + (size_t)row];
            *y = dot_codes(f, codes, ws, wm, &r, k, n, *y);
        }
    }
}

/* *y + the sum over one part, which begins at +0; the first part is the sum. */
static void add_part(const float *w, const float *x, int n, bool begins, float *y)
{
    float acc = 0;
    for (int k = 0; k < n; k++)
        acc = fmaf(w[k], x[k], acc);
    *y = begins ? acc : *y + acc;
}

static void float_row(const struct product *p, int row)
{
    bool permuted = p->w->t->col_perm != NULL;
    const float *x = permuted ? p->a->packed : p->a->f32;
    size_t ld = permuted ? (size_t)p->a->cols : p->a->ld;
    enum format_id f = p->w->t->format;
    for (int k = 0; k < p->a->cols; k += FLOAT_PART) {
        float w[FLOAT_PART];
        int n = p->a->cols - k < FLOAT_PART ? p->a->cols - k : FLOAT_PART;
        formats[f].to_f32(matrix_row(p->w, p->mat, row) + format_row_bytes(f, k), w, n);
        for (int i = 0; i < p->n; i++)
            add_part(w, x + (size_t)acts_row(p, i) * ld + k, n, k == 0, p->y + (size_t)i * p->ldy + row);
    }
}

static void rows_job(void *ctx, int i, int thread)
{
    const struct generic_job *job = ctx;
    int from = i * job->step, to = from + job->step, rows = (int)job->p->w->t->rows;
    (void)thread;
    for (int row = from; row < to && row < rows; row++)
        if (job->p->rounding == ROUND_NONE)
            float_row(job->p, row);
        else
            integer_row(job->p, row);
}

static void generic_apply(const struct product *p)
{
    struct generic_job job = { p, 16 };
    if (p->rounding != ROUND_NONE || p->w->t->col_perm)
        pool_run(p->pool, p->a->rows, round_job, &job);
    pool_run(p->pool, ((int)p->w->t->rows + job.step - 1) / job.step, rows_job, &job);
}

/* ---- peaks of plain C, as the compiler makes it ---- */

static double peak_int16(int rounds)
{
    int16_t x[64], y[64];
    int32_t sum = 0;
    for (int i = 0; i < 64; i++)
        x[i] = y[i] = (int16_t)i;
    for (int r = 0; r < rounds; r++) {
        for (int i = 0; i < 64; i++)
            sum += x[i] * y[i] & 0xff;
        __asm__ volatile("" : "+r"(sum) : : "memory");
    }
    return 128.0 * rounds;
}

static double peak_f32(int rounds)
{
    v16 a = v_set(0.0f), x = v_set(0.0f);
    for (int r = 0; r < rounds; r++) {
        a = v_fma(x, x, a);
        __asm__ volatile("" : : "r"(&a) : "memory");
    }
    return 32.0 * rounds;
}

static double peak_read(const void *p, size_t bytes)
{
    uint64_t sum = 0, x;
    for (size_t i = 0; i + 8 <= bytes; i += 8) {
        memcpy(&x, (const uint8_t *)p + i, sizeof x);
        sum ^= x;
    }
    __asm__ volatile("" : : "r"(sum));
    return (double)bytes;
}

static const struct peak_ops peak_generic = { peak_int16, peak_int16, peak_f32, peak_read };

const struct kernels kernels_generic = {
    .name = "generic",
    .supported = always,
    VECTOR_OPS,
    .apply = generic_apply,
    .peak = &peak_generic,
};
