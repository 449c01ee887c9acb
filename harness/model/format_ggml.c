/* format_ggml.c - blocks of ggml's 4-, 5-, 6- and 8-bit formats, its K-quants and its ternary and float-4 ones. */
#include <math.h>

#include "format_private.h"

/* The 32-element formats: byte j holds element j in its low nibble and element j + 16 in its high one. */
static void split_nibbles(const uint8_t *qs, int half, int bias, int8_t *codes)
{
    for (int j = 0; j < half; j++) {
        codes[j] = (int8_t)((qs[j] & 15) - bias);
        codes[j + half] = (int8_t)((qs[j] >> 4) - bias);
    }
}

static void map_nibbles(const uint8_t *qs, int half, const int8_t values[16], int8_t *codes)
{
    for (int j = 0; j < half; j++) {
        codes[j] = values[qs[j] & 15];
        codes[j + half] = values[qs[j] >> 4];
    }
}

static void q4_0_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    (void)min;
    *scale = load_f16(b);
    split_nibbles(b + 2, 16, 8, codes);
}
INTEGER_FORMAT(q4_0, 32, 18, 32, 0)

static void q4_1_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    *scale = load_f16(b);
    *min = load_f16(b + 2);
    split_nibbles(b + 4, 16, 0, codes);
}
INTEGER_FORMAT(q4_1, 32, 20, 32, 1)

/* The fifth bits: element j has bit j of the 32-bit word. */
static void split_5bit(const uint8_t *qh, const uint8_t *qs, int bias, int8_t *codes)
{
    uint32_t high = load_u32(qh);
    split_nibbles(qs, 16, 0, codes);
    for (int j = 0; j < 32; j++)
        codes[j] = (int8_t)((codes[j] | (high >> j & 1) << 4) - (unsigned)bias);
}

static void q5_0_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    (void)min;
    *scale = load_f16(b);
    split_5bit(b + 2, b + 6, 16, codes);
}
INTEGER_FORMAT(q5_0, 32, 22, 32, 0)

static void q5_1_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    *scale = load_f16(b);
    *min = load_f16(b + 2);
    split_5bit(b + 4, b + 8, 0, codes);
}
INTEGER_FORMAT(q5_1, 32, 24, 32, 1)

static void q8_0_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    (void)min;
    *scale = load_f16(b);
    memcpy(codes, b + 2, 32);
}
INTEGER_FORMAT(q8_0, 32, 34, 32, 0)

/* ---- K-quants: 256 elements; Q2_K and Q3_K share the order of their 2-bit parts ---- */

static unsigned two_bits(const uint8_t *qs, int e)
{
    return qs[e / 128 * 32 + e % 32] >> 2 * (e % 128 / 32) & 3;
}

static void q2_k_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    const uint8_t *scales = b, *qs = b + 16;
    float d = load_f16(b + 80), dmin = load_f16(b + 82);
    for (int s = 0; s < 16; s++) {
        scale[s] = d * (float)(scales[s] & 15);
        min[s] = -(dmin * (float)(scales[s] >> 4));
    }
    for (int e = 0; e < 256; e++)
        codes[e] = (int8_t)two_bits(qs, e);
}
INTEGER_FORMAT(q2_k, 256, 84, 16, 1)

static void q3_k_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    const uint8_t *hmask = b, *qs = b + 32, *sc = b + 96;
    float d = load_f16(b + 108);
    (void)min;
    for (int s = 0; s < 16; s++) {
        int low = s < 8 ? sc[s] & 15 : sc[s - 8] >> 4, high = sc[8 + s % 4] >> 2 * (s / 4) & 3;
        scale[s] = d * (float)((low | high << 4) - 32);
    }
    for (int e = 0; e < 256; e++)
        codes[e] = (int8_t)((int)two_bits(qs, e) - (hmask[e % 32] >> e / 32 & 1 ? 0 : 4));
}
INTEGER_FORMAT(q3_k, 256, 110, 16, 0)

/* Eight 6-bit scales and eight 6-bit mins in 12 bytes. */
static void k_scales(const uint8_t *s, float d, float dmin, float *scale, float *min)
{
    for (int j = 0; j < 4; j++) {
        scale[j] = d * (float)(s[j] & 63);
        min[j] = -(dmin * (float)(s[j + 4] & 63));
        scale[j + 4] = d * (float)((s[j + 8] & 15) | (s[j] >> 6) << 4);
        min[j + 4] = -(dmin * (float)((s[j + 8] >> 4) | (s[j + 4] >> 6) << 4));
    }
}

static void q4_k_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    k_scales(b + 4, load_f16(b), load_f16(b + 2), scale, min);
    for (int g = 0; g < 4; g++)
        split_nibbles(b + 16 + 32 * g, 32, 0, codes + 64 * g);
}
INTEGER_FORMAT(q4_k, 256, 144, 32, 1)

static void q5_k_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    const uint8_t *qh = b + 16;
    k_scales(b + 4, load_f16(b), load_f16(b + 2), scale, min);
    for (int g = 0; g < 4; g++)
        split_nibbles(b + 48 + 32 * g, 32, 0, codes + 64 * g);
    for (int e = 0; e < 256; e++)
        codes[e] = (int8_t)(codes[e] | (qh[e % 32] >> e / 32 & 1) << 4);
}
INTEGER_FORMAT(q5_k, 256, 176, 32, 1)

static void q6_k_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    const int8_t *sc = (const int8_t *)(b + 192);
    float d = load_f16(b + 208);
    (void)min;
    for (int s = 0; s < 16; s++)
        scale[s] = d * (float)sc[s];
    for (int half = 0; half < 2; half++, codes += 128) {
        const uint8_t *ql = b + 64 * half, *qh = b + 128 + 32 * half;
        for (int l = 0; l < 32; l++) {
            codes[l] = (int8_t)(((ql[l] & 15) | (qh[l] & 3) << 4) - 32);
            codes[l + 32] = (int8_t)(((ql[l + 32] & 15) | (qh[l] >> 2 & 3) << 4) - 32);
            codes[l + 64] = (int8_t)((ql[l] >> 4 | (qh[l] >> 4 & 3) << 4) - 32);
            codes[l + 96] = (int8_t)((ql[l + 32] >> 4 | (qh[l] >> 6) << 4) - 32);
        }
    }
}
INTEGER_FORMAT(q6_k, 256, 210, 16, 0)

/* ---- codebooks of small integers ---- */

const int8_t iq4_nl_values[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
static const int8_t e2m1_doubled[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

static void iq4_nl_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    (void)min;
    *scale = load_f16(b);
    map_nibbles(b + 2, 16, iq4_nl_values, codes);
}
INTEGER_FORMAT(iq4_nl, 32, 18, 32, 0)

static void iq4_xs_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    float d = load_f16(b);
    unsigned high = load_u16(b + 2);
    (void)min;
    for (int s = 0; s < 8; s++) {
        int low = b[4 + s / 2] >> 4 * (s % 2) & 15;
        scale[s] = d * (float)((low | (int)(high >> 2 * s & 3) << 4) - 32);
        map_nibbles(b + 8 + 16 * s, 16, iq4_nl_values, codes + 32 * s);
    }
}
INTEGER_FORMAT(iq4_xs, 256, 136, 32, 0)

/* The scale byte is an exponent; 2^(e - 128) instead of -127 because the code values are doubled. */
static void mxfp4_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    (void)min;
    *scale = ldexpf(1.0f, b[0] - 128);
    map_nibbles(b + 1, 16, e2m1_doubled, codes);
}
INTEGER_FORMAT(mxfp4, 32, 17, 32, 0)

/* Unsigned E4M3 halved, for the doubled code values; 0x7F is its NaN, which ggml reads as zero. */
static float half_of_ue4m3(uint8_t x)
{
    int exponent = x >> 3 & 15, mantissa = x & 7;
    if (x == 0 || x == 0x7f)
        return 0;
    return exponent ? ldexpf((float)(8 + mantissa), exponent - 11) : ldexpf((float)mantissa, -10);
}

static void nvfp4_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    (void)min;
    for (int s = 0; s < 4; s++) {
        scale[s] = half_of_ue4m3(b[s]);
        map_nibbles(b + 4 + 8 * s, 8, e2m1_doubled, codes + 16 * s);
    }
}
INTEGER_FORMAT(nvfp4, 64, 36, 16, 0)

/* The same with ready-made scales in f32. */
static void f4_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    (void)min;
    for (int s = 0; s < 2; s++) {
        scale[s] = 0.5f * load_f32(b + 4 * s);
        map_nibbles(b + 8 + 8 * s, 8, e2m1_doubled, codes + 16 * s);
    }
}
INTEGER_FORMAT(f4, 32, 24, 16, 0)

/* ---- one and two bits, ternary ---- */

static void repeat_scale(float d, float *scale, int n)
{
    for (int i = 0; i < n; i++)
        scale[i] = d;
}

/* Five base-3 digits a byte, stored as a fraction of 256: digit n is the integer part of 3 * frac(b * 3^n / 256). */
static int8_t trit(uint8_t byte, int n)
{
    static const uint8_t power[5] = { 1, 3, 9, 27, 81 };
    uint8_t fraction = (uint8_t)(byte * power[n]);
    return (int8_t)((fraction * 3 >> 8) - 1);
}

static void tq1_0_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    (void)min;
    repeat_scale(load_f16(b + 52), scale, 8);
    for (int n = 0; n < 5; n++) {
        for (int m = 0; m < 32; m++)
            codes[32 * n + m] = trit(b[m], n);
        for (int m = 0; m < 16; m++)
            codes[160 + 16 * n + m] = trit(b[32 + m], n);
    }
    for (int n = 0; n < 4; n++)
        for (int j = 0; j < 4; j++)
            codes[240 + 4 * n + j] = trit(b[48 + j], n);
}
INTEGER_FORMAT(tq1_0, 256, 54, 32, 0)

static void tq2_0_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    (void)min;
    repeat_scale(load_f16(b + 64), scale, 8);
    for (int e = 0; e < 256; e++)
        codes[e] = (int8_t)((int)two_bits(b, e) - 1);
}
INTEGER_FORMAT(tq2_0, 256, 66, 32, 0)

static void q1_0_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    (void)min;
    repeat_scale(load_f16(b), scale, 4);
    for (int e = 0; e < 128; e++)
        codes[e] = b[2 + e / 8] >> e % 8 & 1 ? 1 : -1;
}
INTEGER_FORMAT(q1_0, 128, 18, 32, 0)

static void q2_0_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    (void)min;
    repeat_scale(load_f16(b), scale, 2);
    for (int e = 0; e < 64; e++)
        codes[e] = (int8_t)((b[2 + e / 4] >> 2 * (e % 4) & 3) - 1);
}
INTEGER_FORMAT(q2_0, 64, 18, 32, 0)

/* ---- unpacked forms of other checkpoint layouts ---- */

static void i4m_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    *scale = load_f32(b);
    *min = load_f32(b + 4);
    split_nibbles(b + 8, 16, 0, codes);
}
INTEGER_FORMAT(i4m, 32, 24, 32, 1)

static void i4z_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    *scale = load_f16(b);
    *min = -(*scale * (float)b[2]);
    split_nibbles(b + 3, 16, 0, codes);
}
INTEGER_FORMAT(i4z, 32, 19, 32, 1)
