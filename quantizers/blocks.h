/* blocks.h - writers of the block formats, for blocks.c's table.  importance may be NULL. */
#ifndef QDELTA_QUANTIZERS_BLOCKS_H
#define QDELTA_QUANTIZERS_BLOCKS_H

#include "quantizers.h"

void write_q2_k(const float *x, const float *importance, void *out, int64_t n);
void write_q3_k(const float *x, const float *importance, void *out, int64_t n);
void write_q4_k(const float *x, const float *importance, void *out, int64_t n);
void write_q5_k(const float *x, const float *importance, void *out, int64_t n);
void write_q6_k(const float *x, const float *importance, void *out, int64_t n);
void write_iq4_nl(const float *x, const float *importance, void *out, int64_t n);
void write_iq4_xs(const float *x, const float *importance, void *out, int64_t n);

/* w = importance * sqrt(mean_square + x^2) */
void importance_weights(int n, const float *x, const float *importance, float mean_square, float *w);
bool format_writable(enum format_id f);

/* Sub-block j's 6-bit scale and min of Q4_K and Q5_K. */
static inline void k4_scale_min(const uint8_t *s, int j, int *scale, int *min)
{
    *scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    *min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
}
void k4_pack_scales(const uint8_t *scales, const uint8_t *mins, uint8_t out[12]);

#endif
