/* format_iq.c - ggml's 1-, 2- and 3-bit formats whose codes are points of a list (format_grids.c). */
#include "format_private.h"

static const int8_t levels_2bit[4] = { 8, 25, 43, 0 };
static const int8_t levels_3bit_xxs[8] = { 4, 12, 20, 28, 36, 44, 52, 62 };

/* Eight codes of the 2-bit lists; bit i of signs turns element i negative. */
static void put_point_8(uint16_t point, unsigned signs, int8_t *codes)
{
    for (int i = 0; i < 8; i++) {
        int8_t v = levels_2bit[point >> 2 * i & 3];
        codes[i] = signs >> i & 1 ? (int8_t)-v : v;
    }
}

/* Seven sign bits are stored; the eighth makes their number even. */
static unsigned even_signs(uint32_t seven)
{
    unsigned parity = seven ^ seven >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    return seven | (parity & 1) << 7;
}

static void iq2_xxs_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    float d = load_f16(b);
    (void)min;
    for (int s = 0; s < 8; s++) {
        const uint8_t *index = b + 2 + 8 * s;
        uint32_t word = load_u32(index + 4);
        scale[s] = d * (0.5f + (float)(word >> 28)) * 0.25f;
        for (int l = 0; l < 4; l++)
            put_point_8(grid_iq2_xxs[index[l]], even_signs(word >> 7 * l & 127), codes + 32 * s + 8 * l);
    }
}
INTEGER_FORMAT(iq2_xxs, 256, 66, 32, 0)

static void iq2_scales(float d, const uint8_t *scales, float *scale)
{
    for (int s = 0; s < 16; s++)
        scale[s] = d * (0.5f + (float)(scales[s / 2] >> 4 * (s % 2) & 15)) * 0.25f;
}

static void iq2_xs_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    (void)min;
    iq2_scales(load_f16(b), b + 66, scale);
    for (int g = 0; g < 32; g++) {
        unsigned q = load_u16(b + 2 + 2 * g);
        put_point_8(grid_iq2_xs[q & 511], even_signs(q >> 9), codes + 8 * g);
    }
}
INTEGER_FORMAT(iq2_xs, 256, 74, 16, 0)

static void iq2_s_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    const uint8_t *index = b + 2, *signs = b + 34, *high = b + 66;
    (void)min;
    iq2_scales(load_f16(b), b + 74, scale);
    for (int g = 0; g < 32; g++)
        put_point_8(grid_iq2_s[index[g] | (high[g / 4] >> 2 * (g % 4) & 3) << 8], signs[g], codes + 8 * g);
}
INTEGER_FORMAT(iq2_s, 256, 82, 16, 0)

static void iq3_xxs_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    const uint8_t *index = b + 2, *words = b + 66;
    float d = load_f16(b);
    (void)min;
    for (int s = 0; s < 8; s++) {
        uint32_t word = load_u32(words + 4 * s);
        scale[s] = d * (0.5f + (float)(word >> 28)) * 0.5f;
        for (int e = 0; e < 32; e++) {
            unsigned signs = even_signs(word >> 7 * (e / 8) & 127);
            int8_t v = levels_3bit_xxs[grid_iq3_xxs[index[8 * s + e / 4]] >> 3 * (e % 4) & 7];
            codes[32 * s + e] = signs >> e % 8 & 1 ? (int8_t)-v : v;
        }
    }
}
INTEGER_FORMAT(iq3_xxs, 256, 98, 32, 0)

static void iq3_s_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    const uint8_t *index = b + 2, *high = b + 66, *signs = b + 74, *scales = b + 106;
    float d = load_f16(b);
    (void)min;
    for (int s = 0; s < 8; s++)
        scale[s] = d * (float)(1 + 2 * (scales[s / 2] >> 4 * (s % 2) & 15));
    for (int e = 0; e < 256; e++) {
        int g = e / 4;
        uint16_t point = grid_iq3_s[index[g] | (high[g / 8] >> g % 8 & 1) << 8];
        int v = 1 + 2 * (point >> 3 * (e % 4) & 7);
        codes[e] = (int8_t)(signs[e / 8] >> e % 8 & 1 ? -v : v);
    }
}
INTEGER_FORMAT(iq3_s, 256, 110, 32, 0)

/* Ternary points shifted by plus or minus 1/8: stored as eighths, so the codes stay integers and exact. */
static void put_shifted_trits(uint16_t point, bool down, int8_t *codes)
{
    for (int i = 0; i < 8; i++)
        codes[i] = (int8_t)(8 * ((point >> 2 * i & 3) - 1) + (down ? -1 : 1));
}

static void iq1_s_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    const uint8_t *index = b + 2;
    float d = load_f16(b);
    (void)min;
    for (int s = 0; s < 8; s++) {
        unsigned high = load_u16(b + 34 + 2 * s);
        scale[s] = d * (float)(2 * (high >> 12 & 7) + 1) * 0.125f;
        for (int l = 0; l < 4; l++)
            put_shifted_trits(grid_iq1[index[4 * s + l] | (high >> 3 * l & 7) << 8], high >> 15, codes + 32 * s + 8 * l);
    }
}
INTEGER_FORMAT(iq1_s, 256, 50, 32, 0)

/* The block's f16 scale is spread over the top nibbles of the four words that hold the 3-bit scales. */
static void iq1_m_block(const uint8_t *b, int8_t *codes, float *scale, float *min)
{
    const uint8_t *index = b, *high = b + 32;
    unsigned bits = 0;
    (void)min;
    for (int i = 0; i < 4; i++)
        bits |= (unsigned)(load_u16(b + 48 + 2 * i) >> 12) << 4 * i;
    float d = f16_to_f32((uint16_t)bits);
    for (int s = 0; s < 16; s++)
        scale[s] = d * (float)(2 * (load_u16(b + 48 + s / 4 * 2) >> 3 * (s % 4) & 7) + 1) * 0.125f;
    for (int g = 0; g < 32; g++) {
        unsigned h = high[g / 2] >> 4 * (g % 2) & 15;
        put_shifted_trits(grid_iq1[index[g] | (h & 7) << 8], h >> 3, codes + 8 * g);
    }
}
INTEGER_FORMAT(iq1_m, 256, 56, 16, 0)
