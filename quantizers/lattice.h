/* lattice.h - is a block of 32 weights already on a Q4_0 grid {-8..7} * d? */
#ifndef QDELTA_QUANTIZERS_LATTICE_H
#define QDELTA_QUANTIZERS_LATTICE_H

#include "quantizers.h"

struct lattice_block {
    bool zero;                  /* all weights are 0: trivially on the grid */
    bool on_grid;
    bool exact;                 /* an fp16 scale gives back every weight */
    bool scale_bf16, scale_f16; /* a scale of that type lies inside the interval */
    int k;                      /* code of the extremum */
    uint16_t d;                 /* fp16, the best scale */
    double lo, hi;              /* interval of the scale */
    int8_t codes[32];           /* -8..7 */
};
/* x are weights of source format f (f32, f16 or bf16; f32 values that are all bf16 count as bf16). */
void lattice_find(const float *x, enum format_id f, struct lattice_block *b);
/* Blocks on the grid keep their codes, the others are rounded by the reference rule. */
void lattice_row_q4_0(const float *x, enum format_id f, void *out, int64_t n);

#endif
