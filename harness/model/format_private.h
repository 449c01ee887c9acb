/* format_private.h - shared by the files that make up formats[].
 *
 * An integer format is described once, by a function that unpacks one block into codes, scales and (where it
 * has them) mins; INTEGER_FORMAT makes both table entries from it, so to_f32 and to_codes cannot disagree. */
#ifndef QDELTA_MODEL_FORMAT_PRIVATE_H
#define QDELTA_MODEL_FORMAT_PRIVATE_H

#include <string.h>

#include "format.h"

/* NAME_block(block, codes, scale, min) must exist; SUB is int_block, MINS 1 when the format has mins.
 * Little-endian loads through memcpy: tensor bytes in a mapping need not be aligned. */
#define INTEGER_FORMAT(NAME, BLOCK, BYTES, SUB, MINS)                                                         \
    void format_##NAME##_to_codes(const void *row, int8_t *codes, float *scale, float *min, int64_t n)       \
    {                                                                                                         \
        const uint8_t *b = row;                                                                               \
        for (int64_t i = 0; i < n; i += BLOCK, b += BYTES)                                                    \
            NAME##_block(b, codes + i, scale + i / SUB, MINS ? min + i / SUB : NULL);                         \
    }                                                                                                         \
    void format_##NAME##_to_f32(const void *row, float *out, int64_t n)                                      \
    {                                                                                                         \
        const uint8_t *b = row;                                                                               \
        for (int64_t i = 0; i < n; i += BLOCK, b += BYTES) {                                                  \
            int8_t codes[BLOCK];                                                                              \
            float scale[BLOCK / SUB], min[BLOCK / SUB] = { 0 };                                               \
            NAME##_block(b, codes, scale, min);                                                               \
            for (int j = 0; j < BLOCK; j++)                                                                   \
                out[i + j] = MINS ? scale[j / SUB] * (float)codes[j] + min[j / SUB] : scale[j / SUB] * (float)codes[j]; \
        }                                                                                                     \
    }
#define DECLARE_INTEGER_FORMAT(NAME)                                                                          \
    void format_##NAME##_to_codes(const void *row, int8_t *codes, float *scale, float *min, int64_t n);      \
    void format_##NAME##_to_f32(const void *row, float *out, int64_t n);

DECLARE_INTEGER_FORMAT(q4_0)
DECLARE_INTEGER_FORMAT(q4_1)
DECLARE_INTEGER_FORMAT(q5_0)
DECLARE_INTEGER_FORMAT(q5_1)
DECLARE_INTEGER_FORMAT(q8_0)
DECLARE_INTEGER_FORMAT(q2_k)
DECLARE_INTEGER_FORMAT(q3_k)
DECLARE_INTEGER_FORMAT(q4_k)
DECLARE_INTEGER_FORMAT(q5_k)
DECLARE_INTEGER_FORMAT(q6_k)
DECLARE_INTEGER_FORMAT(iq4_nl)
DECLARE_INTEGER_FORMAT(iq4_xs)
DECLARE_INTEGER_FORMAT(iq2_xxs)
DECLARE_INTEGER_FORMAT(iq2_xs)
DECLARE_INTEGER_FORMAT(iq2_s)
DECLARE_INTEGER_FORMAT(iq3_xxs)
DECLARE_INTEGER_FORMAT(iq3_s)
DECLARE_INTEGER_FORMAT(iq1_s)
DECLARE_INTEGER_FORMAT(iq1_m)
DECLARE_INTEGER_FORMAT(tq1_0)
DECLARE_INTEGER_FORMAT(tq2_0)
DECLARE_INTEGER_FORMAT(mxfp4)
DECLARE_INTEGER_FORMAT(nvfp4)
DECLARE_INTEGER_FORMAT(f4)
DECLARE_INTEGER_FORMAT(q1_0)
DECLARE_INTEGER_FORMAT(q2_0)
DECLARE_INTEGER_FORMAT(i4m)
DECLARE_INTEGER_FORMAT(i4z)
DECLARE_INTEGER_FORMAT(i8m)

extern const uint16_t grid_iq2_xxs[256], grid_iq2_xs[512], grid_iq2_s[1024], grid_iq1[2048];
extern const uint16_t grid_iq3_xxs[256], grid_iq3_s[512];

static inline uint16_t load_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t load_u32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline float load_f16(const uint8_t *p)
{
    return f16_to_f32(load_u16(p));
}

static inline float load_f32(const uint8_t *p)
{
    uint32_t u = load_u32(p);
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

#endif
