/* tiles.h - products by tiles, for sets with registers: the loops are shared, a set brings the inner parts.  Private.
 *
 * Integer weights.  A tile is 16 rows (lane = row), packed as layout.h says; two tiles are multiplied at a time, so that
 * an activation is loaded once for 32 rows.  A set does it in one of two ways:
 *   - straight from the packed words (multiply_stripe), which are taken apart anew for each group of activation rows; such
 *     sets multiply several matrices in one round of the threads, and put gelu(gate) * up into the next panel;
 *   - from a scratch that stays in L1 (expand, multiply): each chunk of 256 columns is expanded once, then multiplied
 *     with one group of activation rows after another.  Codes there:
 *         wide (ACT_I16, or no int8 products): [32-block][16 words][16 lanes][2] u16; word 2 q + e holds elements 4 q + e and 4 q + e + 2
 *         narrow (ACT_Q8): [32-block][8 words][16 lanes][4] u8; word q holds elements 4 q ..
 * Accumulators wait in a buffer between stripes or chunks; there is one per output, so the sum keeps its order.
 * Codes are unsigned; the int32 sum starts at -bias * (sum of the activation codes).
 *
 * Activation panel, one per matrix_apply: [group][32-block], each block of a group of T rows being
 *     codes [T][64 bytes wide, 32 narrow; order of the words above], f32 scale [T],
 *     int32 start [T][subs], f32 sum [T][subs]            (subs = 32 / sub-block)
 *
 * Float weights.  FLOAT_ROWS rows x T activation rows, lane = row; a part (FLOAT_PART columns) of FLOAT_ROWS rows is
 * turned once to [column][FLOAT_ROWS] f32 and multiplied with one group of activation rows after another; few activation
 * rows are multiplied from the registers in which weights are turned.  Panel: [part][activation row][FLOAT_PART]. */
#ifndef QDELTA_KERNEL_TILES_H
#define QDELTA_KERNEL_TILES_H

#include "layout.h"

enum { FLOAT_ROWS = 32 };

/* Bytes of a packed chunk at most. */
enum { LARGEST_CHUNK = CHUNK_COLS * TILE_ROWS + 2 * 16 * TILE_ROWS * 4 };

struct expanded {           /* one chunk of one tile */
    uint8_t codes[CHUNK_BLOCKS * 16 * 64];
    float scale[16][16], min[16][16];       /* [sub-block][lane] */
};

/* Some chunks of two tiles.  All but a row's last hold CHUNK_BLOCKS blocks. */
enum { STRIPE_CHUNKS = 12 };
struct stripe {
    const uint8_t *chunk[STRIPE_CHUNKS][2];         /* as packed, or in expanded as PLANE_8 has them */
    float (*scale)[2][TILE_ROWS], (*min)[2][TILE_ROWS];     /* [sub-block][tile][lane]; scale NULL: as in the chunks */
    uint8_t *expanded;                              /* NULL, or room for [chunk][2][256 columns][16 lanes] */
    int blocks;                                     /* of 32 columns, in all chunks */
    size_t next_step;                               /* bytes that each block reads ahead */
};

/* Where a group's sums come from (NULL: they begin at +0) and go to: [T rows][2 tiles][16]; steps in floats. */
struct sums {
    const float *from;
    float *to;
    size_t row_step, tile_step;
};

struct tile_ops {
    bool narrow;            /* has u8 x s8 products; else ACT_Q8 is multiplied wide too */
    int group;              /* activation rows of the widest integer tile */
    const int *widths;      /* widths there are kernels for, falling, 1 last */
    int float_group;        /* activation rows of the widest float tile; of the widest direct product */
    int direct_group;
    /* Words (a multiple of 4) of 16 rows, row_bytes apart, to out [word][16], each byte xored with flip; or NULL. */
    void (*transpose)(const uint8_t *rows, size_t row_bytes, int words, int flip, uint8_t *out);
    /* Round n <= 256 columns of one row: codes and the scale of each 32-block. */
    void (*round)(enum rounding kind, const float *x, int n, int16_t *codes, float *scale);
    /* Codes of a block in the panel's order; sums of its first and second half. NULL: panel.c does it. */
    void (*place)(const int16_t *codes, bool wide, uint8_t *to, int32_t sums[2]);
    void (*expand)(enum format_id f, const uint8_t *chunk, int blocks, bool wide, struct expanded *out);
    /* acc [tiles][T][16], tiles lying step floats apart, += one chunk of one or two tiles w; panel at the group's
     * first block. */
    void (*multiply)(const struct expanded *w, int tiles, bool wide, int sub, bool has_min, const uint8_t *panel, int T,
                     int blocks, float *acc, size_t step);
    /* Instead of expand and multiply: fill scale, min and expanded of a stripe where there is room for them (it is not called
     * where there is none); add the stripe to sums, reading ahead from there on on the way (NULL: not). */
    void (*begin_stripe)(enum format_id f, struct stripe *s);
    void (*multiply_stripe)(enum format_id f, const struct stripe *s, bool wide, const uint8_t *panel, int T,
                            const uint8_t *ahead, const struct sums *sums);
    /* n columns of FLOAT_ROWS rows (f32, f16 or bf16), step bytes apart, to w [n][FLOAT_ROWS]; as much from next on is read ahead. */
    void (*expand_float)(enum format_id f, const uint8_t *rows, size_t step, int n, const uint8_t *next, float *w);
    /* The same of TILE_ROWS rows of integer weights, packed: w [32 * blocks][FLOAT_ROWS], the first TILE_ROWS of each; or NULL. */
    void (*expand_packed)(enum format_id f, const uint8_t *chunk, int blocks, float *w);
    /* acc [T][FLOAT_ROWS] += the sums of one part of n columns, which begin at +0; begins: acc = them.  x [T][FLOAT_PART]. */
    void (*multiply_float)(const float *w, const float *x, int T, int n, bool begins, float *acc);
    /* Both at once, T <= direct_group. */
    void (*multiply_direct)(enum format_id f, const uint8_t *rows, size_t step, int n, const uint8_t *next, const float *x, int T,
                            bool begins, float *acc);
};

bool tiles_pack(struct matrix *w, struct pool *pool, struct error *err);
void tiles_apply(const struct product *p);
/* Of sets with multiply_stripe: see set.h. */
void tiles_apply_each(const struct product *p, int n);
bool tiles_apply_glu(const struct product *p, enum activation activation, const struct product *next);
void float_tiles_apply(const struct product *p);       /* weights of ROUND_NONE */

/* Bytes of one activation row in one 32-block of a panel. */
static inline size_t panel_unit(bool wide, int sub)
{
    return (wide ? 64u : 32u) + 4u + (size_t)(32 / sub) * 8u;
}

#endif
