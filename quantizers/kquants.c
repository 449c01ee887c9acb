/* kquants.c - the 256-wide formats: Q2_K .. Q6_K, IQ4_XS, and IQ4_NL, which shares IQ4_XS's search.
 *
 * A super-block: a scale (and min) for each sub-block by a search, those rounded to few bits against one fp16
 * scale, then codes rounded again with what was really stored (quantization.md 1.4). */
#include <math.h>

#include "blocks.h"
#include "search.h"

enum { SUPER = 256 };

static float mean_square(const float *x, int n)
{
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum / (float)n;
}
/* ggml doubles before it divides; with n a power of two that is the same number. */
static float twice_mean_square(const float *x, int n)
{
    return 2 * mean_square(x, n);
}

static float largest(const float *x, int n)
{
    float max = 0;
    for (int i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

/* ---- scale and min a sub-block: Q2_K, Q4_K, Q5_K ---- */

struct affine {             /* how one of the three is searched */
    int sub, limit, scale_limit;
    struct qkx_grid plain, weighted;
};
static const struct affine affine_q2 = { 16, 3, 15, { -0.5f, 0.1f, 15, true }, { -0.9f, 0.05f, 36, false } };
static const struct affine affine_q4 = { 32, 15, 63, { -1.0f, 0.1f, 20, false }, { -0.9f, 0.05f, 36, false } };
static const struct affine affine_q5 = { 32, 31, 63, { -0.5f, 0.1f, 15, false }, { -0.9f, 0.05f, 36, false } };

struct affine_super {
    uint8_t codes[SUPER], scales[16], mins[16];
    uint16_t d, dmin;
};

/* Without an importance large values weigh more: |x| (Q2_K), or that plus the sub-block's rms. */
static void plain_weights(const struct affine *a, const float *x, float *w)
{
    float rms = a->sub == 16 ? 0 : sqrtf(mean_square(x, a->sub));
    for (int i = 0; i < a->sub; i++)
        w[i] = rms + fabsf(x[i]);
}

static void round_scales(const float *x, int n, int limit, uint8_t *codes, uint16_t *d)
{
    float max = largest(x, n), inv = max > 0 ? (float)limit / max : 0;
    for (int j = 0; j < n; j++)
        codes[j] = (uint8_t)clamp_int((uint8_t)nearest_int(inv * x[j]), 0, limit);
    *d = f32_to_f16(max / (float)limit);
}

static void affine_requantize(const struct affine *a, const float *x, struct affine_super *s)
{
    for (int j = 0; j < SUPER / a->sub; j++) {
        float d = f16_to_f32(s->d) * s->scales[j], m = f16_to_f32(s->dmin) * s->mins[j];
        if (d == 0)
            continue;       /* the searched codes stay: they multiply zero */
        for (int i = j * a->sub; i < (j + 1) * a->sub; i++)
            s->codes[i] = (uint8_t)clamp_int(nearest_int((x[i] + m) / d), 0, a->limit);
    }
}

/* Up to count super-blocks, so many that their sub-blocks fill one wide search. */
static void affine_search(const struct affine *a, int count, const float *x, const float *importance,
                          struct affine_super *s)
{
    int subs = SUPER / a->sub;
    float scales[SEARCH_WIDE], mins[SEARCH_WIDE], w[2 * SUPER], sum_w[SEARCH_WIDE] = { 0 };
    uint8_t codes[2 * SUPER];
    for (int b = 0; b < count; b++) {
        const float *xb = x + SUPER * b;
        float ms = importance ? mean_square(xb, SUPER) * (a->sub == 16 ? 1 : 2) : 0;
        if (importance)
            importance_weights(SUPER, xb, importance + SUPER * b, ms, w + SUPER * b);
        for (int j = 0; j < subs && !importance; j++)
            plain_weights(a, xb + j * a->sub, w + SUPER * b + j * a->sub);
    }
    for (int i = 0; i < SUPER * count; i++)
        sum_w[i / a->sub] += w[i];
    search_qkx(a->sub, a->limit, subs * count, x, w, importance ? &a->weighted : &a->plain, codes, scales, mins);
    for (int b = 0; b < count; b++) {
        memcpy(s[b].codes, codes + SUPER * b, SUPER);
        const float *sc = scales + subs * b, *mn = mins + subs * b, *sw = sum_w + subs * b;
        if (importance) {
            s[b].d = f32_to_f16(search_qp(subs, a->scale_limit, sc, sw, s[b].scales));
            s[b].dmin = f32_to_f16(search_qp(subs, a->scale_limit, mn, sw, s[b].mins));
        } else {
            round_scales(sc, subs, a->scale_limit, s[b].scales, &s[b].d);
            round_scales(mn, subs, a->scale_limit, s[b].mins, &s[b].dmin);
        }
        affine_requantize(a, x + SUPER * b, &s[b]);
    }
}

/* Q4_K and Q5_K have 8 sub-blocks, so two super-blocks go side by side. */
static int affine_pair(const float *x, const float *importance, const struct affine *a, int64_t left,
                       struct affine_super s[2])
{
    int count = left >= 2 * SUPER ? 2 : 1;
    affine_search(a, count, x, importance, s);
    return count;
}

/* Two-bit codes of a super-block, as Q2_K and Q3_K lay them. */
static void pack_two_bits(const uint8_t *codes, uint8_t *qs)
{
    for (int half = 0; half < 2; half++)
        for (int l = 0; l < 32; l++) {
            const uint8_t *c = codes + 128 * half + l;
            qs[32 * half + l] = (uint8_t)(c[0] | c[32] << 2 | c[64] << 4 | c[96] << 6);
        }
}
static void pack_four_bits(const uint8_t *codes, uint8_t *qs)
{
    for (int g = 0; g < 4; g++)
        for (int l = 0; l < 32; l++)
            qs[32 * g + l] = (uint8_t)((codes[64 * g + l] & 15) | (codes[64 * g + 32 + l] & 15) << 4);
}

void k4_pack_scales(const uint8_t *scales, const uint8_t *mins, uint8_t out[12])
{
    for (int j = 0; j < 4; j++) {
        out[j] = (uint8_t)(scales[j] | scales[j + 4] >> 4 << 6);
        out[j + 4] = (uint8_t)(mins[j] | mins[j + 4] >> 4 << 6);
        out[j + 8] = (uint8_t)((scales[j + 4] & 15) | (mins[j + 4] & 15) << 4);
    }
}

void write_q2_k(const float *x, const float *importance, void *out, int64_t n)
{
    struct block_q2_k *b = out;
    for (int64_t i = 0; i < n; i += SUPER, b++) {
        struct affine_super s;
        affine_search(&affine_q2, 1, x + i, importance ? importance + i : NULL, &s);
        for (int j = 0; j < 16; j++)
            b->scales[j] = (uint8_t)(s.scales[j] | s.mins[j] << 4);
        b->d = s.d;
        b->dmin = s.dmin;
        pack_two_bits(s.codes, b->qs);
    }
}

void write_q4_k(const float *x, const float *importance, void *out, int64_t n)
{
    struct block_q4_k *b = out;
    struct affine_super s[2];
    for (int64_t i = 0; i < n;) {
        int count = affine_pair(x + i, importance ? importance + i : NULL, &affine_q4, n - i, s);
        for (int c = 0; c < count; c++, b++, i += SUPER) {
            k4_pack_scales(s[c].scales, s[c].mins, b->scales);
            b->d = s[c].d;
            b->dmin = s[c].dmin;
            pack_four_bits(s[c].codes, b->qs);
        }
    }
}

void write_q5_k(const float *x, const float *importance, void *out, int64_t n)
{
    struct block_q5_k *b = out;
    struct affine_super s[2];
    for (int64_t i = 0; i < n;) {
        int count = affine_pair(x + i, importance ? importance + i : NULL, &affine_q5, n - i, s);
        for (int c = 0; c < count; c++, b++, i += SUPER) {
            k4_pack_scales(s[c].scales, s[c].mins, b->scales);
            b->d = s[c].d;
            b->dmin = s[c].dmin;
            pack_four_bits(s[c].codes, b->qs);
            memset(b->qh, 0, sizeof b->qh);
            for (int e = 0; e < SUPER; e++)
                b->qh[e % 32] |= (uint8_t)((s[c].codes[e] >> 4) << e / 32);
        }
    }
}

/* ---- scale only: Q3_K, Q6_K ---- */

static void signed_requantize(const float *x, float d, const int8_t *scales, int nmax, uint8_t *codes)
{
    for (int j = 0; j < 16; j++) {
        float dj = d * scales[j];
        if (dj == 0)
            continue;
        for (int i = 16 * j; i < 16 * j + 16; i++)
            codes[i] = (uint8_t)(clamp_int(nearest_int(x[i] / dj), -nmax, nmax - 1) + nmax);
    }
}

/* Sub-block scales to codes in [-32, 31], the one of largest magnitude on -32. */
static uint16_t q3_plain_scales(const float *scales, int8_t *codes)
{
    float amax = 0, max = 0;
    for (int j = 0; j < 16; j++)
        if (fabsf(scales[j]) > amax) {
            amax = fabsf(scales[j]);
            max = scales[j];
        }
    if (max == 0) {
        memset(codes, -32, 16);
        return f32_to_f16(0);
    }
    float inv = -32 / max;
    for (int j = 0; j < 16; j++)
        codes[j] = (int8_t)clamp_int((int8_t)nearest_int(inv * scales[j]), -32, 31);
    return f32_to_f16(1 / inv);
}

static void q3_search(const float *x, const float *importance, uint8_t *codes, int8_t *sub, uint16_t *d)
{
    float scales[16], sum_w[16] = { 0 }, w[16];
    float ms = importance ? twice_mean_square(x, SUPER) : 0;
    for (int j = 0; j < 16; j++) {
        int8_t *cj = (int8_t *)codes + 16 * j;
        if (!importance) {
            scales[j] = search_q3(16, 4, x + 16 * j, cj);
            continue;
        }
        importance_weights(16, x + 16 * j, importance + 16 * j, ms, w);
        for (int i = 0; i < 16; i++)
            sum_w[j] += w[i];
        scales[j] = search_qx(16, 4, x + 16 * j, w, cj);
    }
    if (!importance) {
        *d = q3_plain_scales(scales, sub);
        return;
    }
    *d = f32_to_f16(search_qx(16, 32, scales, sum_w, sub));
    for (int j = 0; j < 16; j++)
        sub[j] = (int8_t)(sub[j] - 32);
}

static void q3_pack_scales(const int8_t *sub, uint8_t out[12])
{
    memset(out, 0, 12);
    for (int j = 0; j < 16; j++) {
        int s = sub[j] + 32;
        out[j % 8] |= (uint8_t)((s & 15) << 4 * (j / 8));
        out[8 + j % 4] |= (uint8_t)((s >> 4) << 2 * (j / 4));
    }
}

void write_q3_k(const float *x, const float *importance, void *out, int64_t n)
{
    struct block_q3_k *b = out;
    for (int64_t i = 0; i < n; i += SUPER, b++) {
        uint8_t codes[SUPER];
        int8_t sub[16];
        q3_search(x + i, importance ? importance + i : NULL, codes, sub, &b->d);
        q3_pack_scales(sub, b->scales);
        signed_requantize(x + i, f16_to_f32(b->d), sub, 4, codes);
        memset(b->hmask, 0, sizeof b->hmask);
        for (int e = 0; e < SUPER; e++) {
            b->hmask[e % 32] |= (uint8_t)((codes[e] >> 2) << e / 32);
            codes[e] &= 3;
        }
        pack_two_bits(codes, b->qs);
    }
}

static void q6_pack(const uint8_t *codes, struct block_q6_k *b)
{
    for (int half = 0; half < 2; half++)
        for (int l = 0; l < 32; l++) {
            const uint8_t *c = codes + 128 * half + l;
            b->ql[64 * half + l] = (uint8_t)((c[0] & 15) | (c[64] & 15) << 4);
            b->ql[64 * half + 32 + l] = (uint8_t)((c[32] & 15) | (c[96] & 15) << 4);
            b->qh[32 * half + l] = (uint8_t)(c[0] >> 4 | c[32] >> 4 << 2 | c[64] >> 4 << 4 | c[96] >> 4 << 6);
        }
}

void write_q6_k(const float *x, const float *importance, void *out, int64_t n)
{
    struct block_q6_k *b = out;
    for (int64_t i = 0; i < n; i += SUPER, b++) {
        uint8_t codes[SUPER];
        float scales[16], amax = 0, max = 0;
        for (int j = 0; j < 16; j++) {
            scales[j] = search_qx(16, 32, x + i + 16 * j, importance ? importance + i + 16 * j : NULL,
                                  (int8_t *)codes + 16 * j);
            if (fabsf(scales[j]) > amax) {
                amax = fabsf(scales[j]);
                max = scales[j];
            }
        }
        if (amax < 1e-15f) {
            memset(b, 0, sizeof *b);
            continue;
        }
        float inv = -128 / max;
        b->d = f32_to_f16(1 / inv);
        for (int j = 0; j < 16; j++) {
            int s = nearest_int(inv * scales[j]);
            b->scales[j] = (int8_t)(s > 127 ? 127 : s);
        }
        signed_requantize(x + i, f16_to_f32(b->d), b->scales, 32, codes);
        q6_pack(codes, b);
    }
}

/* ---- the iq4 code values ---- */

/* Without an importance the weights are x squared. */
static void iq4_weights(const float *x, const float *importance, float ms, float *w)
{
    if (importance) {
        importance_weights(32, x, importance, ms, w);
        return;
    }
    for (int i = 0; i < 32; i++)
        w[i] = x[i] * x[i];
}

static void iq4_pack(const uint8_t *codes, uint8_t *qs)
{
    for (int j = 0; j < 16; j++)
        qs[j] = (uint8_t)(codes[j] | codes[j + 16] << 4);
}

enum { IQ4_TRIES = 7 };

void write_iq4_nl(const float *x, const float *importance, void *out, int64_t n)
{
    struct block_iq4_nl *b = out;
    for (int64_t i = 0; i < n; i += 32, b++) {
        float w[32];
        uint8_t codes[32];
        iq4_weights(x + i, importance ? importance + i : NULL, importance ? twice_mean_square(x + i, 32) : 0, w);
        float d = search_iq4(x + i, w, IQ4_TRIES);
        b->d = f32_to_f16(d);
        search_best()->iq4_codes(x + i, d != 0 ? 1 / d : 0, codes);
        iq4_pack(codes, b->qs);
    }
}

void write_iq4_xs(const float *x, const float *importance, void *out, int64_t n)
{
    struct block_iq4_xs *b = out;
    for (int64_t i = 0; i < n; i += SUPER, b++) {
        float scales[8], amax = 0, max = 0, w[32], ms = importance ? twice_mean_square(x + i, SUPER) : 0;
        uint8_t codes[32];
        for (int s = 0; s < 8; s++) {
            iq4_weights(x + i + 32 * s, importance ? importance + i + 32 * s : NULL, ms, w);
            scales[s] = search_iq4(x + i + 32 * s, w, IQ4_TRIES);
            if (fabsf(scales[s]) > amax) {
                amax = fabsf(scales[s]);
                max = scales[s];
            }
        }
        float d = -max / 32, inv = d != 0 ? 1 / d : 0;
        b->d = f32_to_f16(d);
        b->scales_h = 0;
        memset(b->scales_l, 0, sizeof b->scales_l);
        for (int s = 0; s < 8; s++) {
            int l = clamp_int(nearest_int(inv * scales[s]), -32, 31);
            float dl = d * (float)l;
            search_best()->iq4_codes(x + i + 32 * s, dl != 0 ? 1 / dl : 0, codes);
            b->scales_l[s / 2] |= (uint8_t)(((l + 32) & 15) << 4 * (s % 2));
            b->scales_h = (uint16_t)(b->scales_h | (l + 32) >> 4 << 2 * s);
            iq4_pack(codes, b->qs + 16 * s);
        }
    }
}
