/* search.h - scale searches of the block formats (ggml's rules), for one block at a time.
 *
 * Formulas: quantization.md 1.4.  The arithmetic is float32 in ggml's order, so blocks come out byte for
 * byte as from ggml built without FMA. */
#ifndef QDELTA_QUANTIZERS_SEARCH_H
#define QDELTA_QUANTIZERS_SEARCH_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { SEARCH_MAX = 32, SEARCH_WIDE = 16 };     /* longest block; blocks searched side by side */

struct qkx_grid {
    float rmin, rdelta;
    int steps;
    bool absolute;              /* error |e| instead of e squared */
};

struct search_kernels {
    /* Sums over one block for many candidate inverse scales (lanes, a multiple of 16):
     * l = clamp(rint(inv x), -nmax, nmax - 1): sum w x l, sum w l l */
    void (*qx)(int n, int nmax, const float *x, const float *w, int lanes, const float *inv, float *sum_xl,
               float *sum_l2);
    /* The whole qkx search of SEARCH_WIDE blocks, x[n][SEARCH_WIDE]: scale and min, and how the codes were made,
     * clamp(rint(inv (x - base)), 0, nmax). */
    void (*qkx)(int n, int nmax, const float *x, const float *w, const struct qkx_grid *g, float *scales, float *mins,
                float *invs, float *bases);
    /* q = nearest iq4 value of inv x: sum w q x, sum w q q */
    void (*iq4)(int n, const float *x, const float *w, int lanes, const float *inv, float *sum_qx, float *sum_q2);
    /* Codes of the nearest iq4 value to inv x, 32 elements. */
    void (*iq4_codes)(const float *x, float inv, uint8_t *codes);
};
extern const struct search_kernels search_generic, search_avx2, search_avx512;
const struct search_kernels *search_best(void);     /* the widest that this CPU runs */

/* ggml's round-half-even of values below 2^22; beyond that the same wrapped integer. */
static inline int nearest_int(float x)
{
    float shifted = x + 12582912.0f;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return (bits & 0x007fffff) - 0x00400000;
}
static inline int clamp_int(int x, int lo, int hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

/* Best scale for codes in [-nmax, nmax); codes[i] = l + nmax.  w NULL: x squared. */
float search_qx(int n, int nmax, const float *x, const float *w, int8_t *codes);
/* Q3_K's greedy refinement with weights x squared. */
float search_q3(int n, int nmax, const float *x, int8_t *codes);
/* Best scale and min (given as -min >= 0) of count <= SEARCH_WIDE blocks that lie one after another, codes in
 * [0, nmax]. */
void search_qkx(int n, int nmax, int count, const float *x, const float *w, const struct qkx_grid *g, uint8_t *codes,
                float *scales, float *minus_mins);
/* Non-negative values (scales of sub-blocks) onto codes 0..nmax. */
float search_qp(int n, int nmax, const float *x, const float *w, uint8_t *codes);
/* Best scale of 32 elements on the iq4 code values, of 1 + 2 tries + 1 candidates (tries <= 7). */
float search_iq4(const float *x, const float *w, int tries);

#endif
