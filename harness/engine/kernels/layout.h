/* layout.h - integer weights in the order in which tiles of sixteen rows are multiplied.  Private.
 *
 * Rows are taken in tiles of 16 (lane = row; missing rows are zero), columns in chunks of 256 (the last may hold
 * fewer blocks of 32).  One chunk of one tile is: the code words, then the scales, then the mins.
 *
 * A code word is 16 lanes of 4 bytes: four bytes of the file's code bytes, row by row - so packing moves bytes and
 * changes none.  Which elements the bits of word i are depends on the plane:
 *     PLANE_4     blocks of 32 in 4 words; low nibbles elements 4i .., high nibbles 16 + 4i ..
 *     PLANE_4K    spans of 64 in 8 words; low nibbles elements 4i .., high nibbles 32 + 4i ..
 *     PLANE_6K    256 in 32 words of low four bits and 16 words of high two, as Q6_K has them
 *     PLANE_8     blocks of 32 in 8 words; bytes elements 4i ..
 * Every code is kept unsigned: code = value in the word (looked up in lut where there is one) - bias. */
#ifndef QDELTA_KERNEL_LAYOUT_H
#define QDELTA_KERNEL_LAYOUT_H

#include "set.h"

enum { TILE_ROWS = 16, CHUNK_COLS = 256, CHUNK_BLOCKS = CHUNK_COLS / 32 };

enum code_plane { PLANE_NONE, PLANE_4, PLANE_4K, PLANE_6K, PLANE_8 };

enum scale_plane {
    SCALES_F16,         /* [sub-block][16] f16 */
    SCALES_ZERO,        /* the same, but as mins [sub-block][16] bytes: min = -(scale * byte) */
    SCALES_F32,         /* [sub-block][16] f32 */
    SCALES_INDEX,       /* f16 [16] of the chunk, then [sub-block][16] bytes: scale = f16 * (byte - index_bias) */
};

struct layout {
    enum code_plane plane;
    enum scale_plane scales;
    int bias;
    bool raw;                   /* code bytes of the file are the words' bytes; else packed from to_codes */
    int code_at;                /* raw: where the code bytes of a file block begin */
    int scale_at, min_at;       /* f16 scale (and min; a byte with SCALES_ZERO) of a file block; mins are -(f16 * byte) with SCALES_INDEX */
    int index_bias;
    const uint8_t *lut;         /* [16] nibble -> code + bias, or NULL */
    int flip;                   /* raw: code bytes are xored with this */
};

/* NULL for formats without integer form. */
const struct layout *layout_of(enum format_id f);

size_t layout_code_bytes(const struct layout *l, int blocks);
size_t layout_scale_bytes(const struct layout *l, int blocks, int sub);     /* of the scales; mins, where there are any, stand behind them */
size_t layout_chunk_bytes(enum format_id f, int blocks);
size_t layout_tile_bytes(enum format_id f, int64_t cols);
int layout_blocks(int64_t cols, int chunk);     /* blocks of 32 in that chunk */

/* Pack one chunk of one tile of w's rows row .. row + 15 into out [layout_chunk_bytes]. */
void layout_pack_chunk(const struct matrix *w, int mat, int row, int chunk, uint8_t *out);

#endif
