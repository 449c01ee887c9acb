/* layout.c - packing of integer weights into tiles; plain C, it runs at load time or, in place, once for each
 * chunk and call.  See layout.h for the order. */
#include "layout.h"
#include "tiles.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* iq4_nl_values and the doubled E2M1 values, plus 128. */
static const uint8_t iq4_lut[16] = { 1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241 };
static const uint8_t e2m1_lut[16] = { 128, 129, 130, 131, 132, 134, 136, 140, 128, 127, 126, 125, 124, 122, 120, 116 };

/* Formats in wide use keep their bytes and so their size; the others are packed from their codes. */
static const struct layout layouts[FORMAT_COUNT] = {
    [FORMAT_Q4_0]    = { PLANE_4,  SCALES_F16,   8, true, .code_at = 2 },
    [FORMAT_Q4_1]    = { PLANE_4,  SCALES_F16,   0, true, .code_at = 4, .min_at = 2 },
    [FORMAT_IQ4_NL]  = { PLANE_4,  SCALES_F16, 128, true, .code_at = 2, .lut = iq4_lut },
    [FORMAT_IQ4_XS]  = { PLANE_4,  SCALES_INDEX, 128, true, .code_at = 8, .index_bias = 32, .lut = iq4_lut },
    [FORMAT_MXFP4]   = { PLANE_4,  SCALES_F32, 128, true, .code_at = 1, .lut = e2m1_lut },
    [FORMAT_I4M]     = { PLANE_4,  SCALES_F32,   0, true, .code_at = 8 },
    [FORMAT_I4Z]     = { PLANE_4,  SCALES_ZERO,  0, true, .code_at = 3, .min_at = 2 },
    [FORMAT_I4H]     = { PLANE_4,  SCALES_F16,   0, true, .code_at = 4, .min_at = 2 },
    [FORMAT_Q4_K]    = { PLANE_4K, SCALES_INDEX, 0, true, .code_at = 16, .min_at = 2 },
    [FORMAT_Q6_K]    = { PLANE_6K, SCALES_INDEX, 32, true, .scale_at = 208, .index_bias = 128 },
    [FORMAT_Q8_0]    = { PLANE_8,  SCALES_F16, 128, true, .code_at = 2, .flip = 0x80 },
    [FORMAT_I8M]     = { PLANE_8,  SCALES_F32, 128, true, .code_at = 8 },
    [FORMAT_Q2_K]    = { PLANE_4,  SCALES_INDEX, 0, .scale_at = 80, .min_at = 82 },
    [FORMAT_Q3_K]    = { PLANE_4,  SCALES_INDEX, 8, .scale_at = 108, .index_bias = 32 },
    [FORMAT_Q5_K]    = { PLANE_8,  SCALES_INDEX, 128, .min_at = 2 },
    [FORMAT_Q5_0]    = { PLANE_8,  SCALES_F16, 128, .scale_at = 0 },
    [FORMAT_Q5_1]    = { PLANE_8,  SCALES_F16, 128, .min_at = 2 },
    [FORMAT_TQ1_0]   = { PLANE_4,  SCALES_F32, 8, .scale_at = 0 },
    [FORMAT_TQ2_0]   = { PLANE_4,  SCALES_F32, 8, .scale_at = 0 },
    [FORMAT_Q1_0]    = { PLANE_4,  SCALES_F32, 8, .scale_at = 0 },
    [FORMAT_Q2_0]    = { PLANE_4,  SCALES_F32, 8, .scale_at = 0 },
};
static const struct layout any_codes = { PLANE_8, SCALES_F32, 128, .scale_at = 0 };

const struct layout *layout_of(enum format_id f)
{
    if (!formats[f].int_block)
        return NULL;
    return layouts[f].plane ? &layouts[f] : &any_codes;
}

size_t layout_code_bytes(const struct layout *l, int blocks)
{
    static const int block_bytes[] = { 0, 256, 256, 384, 512 };
    return (size_t)blocks * (size_t)block_bytes[l->plane];
}

size_t layout_scale_bytes(const struct layout *l, int blocks, int sub)
{
    size_t subs = (size_t)blocks * (size_t)(32 / sub);
    static const size_t bytes[] = { [SCALES_F16] = 32, [SCALES_ZERO] = 32, [SCALES_F32] = 64, [SCALES_INDEX] = 16 };
    return (l->scales == SCALES_INDEX ? 32 : 0) + subs * bytes[l->scales];
}

size_t layout_chunk_bytes(enum format_id f, int blocks)
{
    const struct layout *l = layout_of(f);
    size_t scales = layout_scale_bytes(l, blocks, formats[f].int_block);
    return layout_code_bytes(l, blocks) + scales + (!formats[f].has_min ? 0 : l->scales == SCALES_ZERO ? scales / 2 : scales);
}

int layout_blocks(int64_t cols, int chunk)
{
    int64_t left = cols / 32 - (int64_t)chunk * CHUNK_BLOCKS;
    return left < CHUNK_BLOCKS ? (int)left : CHUNK_BLOCKS;
}

size_t layout_tile_bytes(enum format_id f, int64_t cols)
{
    int64_t blocks = cols / 32, full = blocks / CHUNK_BLOCKS, rest = blocks % CHUNK_BLOCKS;
    return (size_t)full * layout_chunk_bytes(f, CHUNK_BLOCKS) + (rest ? layout_chunk_bytes(f, (int)rest) : 0);
}

/* ---- code words ---- */

/* Words word .. word + n - 1 of lane r are the bytes at p. */
static void put_words(uint8_t *out, int word, int r, const uint8_t *p, int n, int flip)
{
    uint32_t mask = (uint32_t)flip * 0x01010101u;
    for (int i = 0; i < n; i++) {
        uint32_t w;
        memcpy(&w, p + 4 * i, sizeof w);
        w ^= mask;
        memcpy(out + (size_t)(word + i) * 64 + (size_t)r * 4, &w, sizeof w);
    }
}

/* Code bytes of rows rows, from on, as they are in the file. */
static void put_raw(const struct matrix *w, const struct layout *l, const uint8_t *from, int blocks, int rows, uint8_t *out)
{
    const struct format *f = &formats[w->t->format];
    size_t row_bytes = (size_t)format_row_bytes(w->t->format, w->t->cols);
    int bytes = l->plane == PLANE_8 ? f->block : l->plane == PLANE_6K ? f->block * 3 / 4 : f->block / 2;
    from += l->code_at;
    for (int b = 0; b < blocks * 32 / f->block; b++, from += f->block_bytes)
        if (rows == TILE_ROWS && w->k->tile->transpose)
            w->k->tile->transpose(from, row_bytes, bytes / 4, l->flip, out + (size_t)b * (size_t)bytes * TILE_ROWS);
        else
            for (int r = 0; r < rows; r++)
                put_words(out, b * bytes / 4, r, from + (size_t)r * row_bytes, bytes / 4, l->flip);
}

static void put_codes(const struct layout *l, const int8_t *codes, int blocks, int r, uint8_t *out)
{
    for (int b = 0; b < blocks; b++, codes += 32) {
        uint8_t bytes[32];
        for (int i = 0; i < 32; i++)
            bytes[i] = (uint8_t)(codes[i] + l->bias);
        if (l->plane == PLANE_8) {
            put_words(out, b * 8, r, bytes, 8, 0);
            continue;
        }
        for (int i = 0; i < 16; i++) {
            assert(bytes[i] < 16 && bytes[i + 16] < 16);
            bytes[i] = (uint8_t)(bytes[i] | bytes[i + 16] << 4);
        }
        put_words(out, b * 4, r, bytes, 4, 0);
    }
}

/* ---- scales ---- */

static void copy_f16(uint8_t *out, int index, const uint8_t *from)
{
    memcpy(out + 2 * index, from, 2);
}

/* The byte that gave value = d * (byte - bias); exact because d has 11 bits and the factor 8. */
static uint8_t index_of(float value, float d, int bias)
{
    float q = d != 0 && isfinite(d) ? value / d : 0;
    return (uint8_t)((int)q + bias);
}

/* Eight 6-bit scales and mins of Q4_K and Q5_K. */
static void unpack_k(const uint8_t *s, int j, uint8_t *scale, uint8_t *min)
{
    *scale = j < 4 ? s[j] & 63 : (uint8_t)((s[j + 4] & 15) | (s[j - 4] >> 6) << 4);
    *min = j < 4 ? s[j + 4] & 63 : (uint8_t)(s[j + 4] >> 4 | (s[j] >> 6) << 4);
}

static void put_index_scales(const struct layout *l, enum format_id id, const uint8_t *block, const float *ws,
                             const float *wm, int r, uint8_t *scales, uint8_t *mins)
{
    uint16_t h[2];
    int subs = 256 / formats[id].int_block;
    memcpy(&h[0], block + l->scale_at, 2);
    memcpy(&h[1], block + l->min_at, 2);
    copy_f16(scales, r, block + l->scale_at);
    if (mins)
        copy_f16(mins, r, block + l->min_at);
    float d = f16_to_f32(h[0]), dmin = f16_to_f32(h[1]);
    for (int s = 0; s < subs; s++) {
        uint8_t *index = scales + 32 + s * 16 + r, *min = mins ? mins + 32 + s * 16 + r : NULL;
        if (id == FORMAT_Q6_K)
            *index = (uint8_t)(block[192 + s] ^ 0x80);
        else if (id == FORMAT_Q4_K || id == FORMAT_Q5_K)
            unpack_k(block + 4, s, index, min);
        else {
            *index = index_of(ws[s], d, l->index_bias);
            if (min)
                *min = index_of(-wm[s], dmin, 0);
        }
    }
}

/* f16 scales (size 2) or zeros (size 1) of every block and row. */
static void put_scales(const uint8_t *from, size_t row_bytes, int block_bytes, int rows, int n, size_t size, uint8_t *out)
{
    for (int s = 0; s < n; s++, from += block_bytes, out += TILE_ROWS * size)
        for (int r = 0; r < rows; r++)
            memcpy(out + (size_t)r * size, from + (size_t)r * row_bytes, size);
}

static void put_f32_scales(const float *ws, int n, int r, uint8_t *out)
{
    for (int s = 0; s < n; s++)
        memcpy(out + (size_t)(s * 16 + r) * 4, &ws[s], 4);
}

/* What cannot be copied from the bytes of many rows at once: codes, and scales of all but the f16 kind. */
static void put_row(const struct layout *l, enum format_id id, const uint8_t *from, int blocks, int r, uint8_t *out,
                    uint8_t *scales, uint8_t *mins)
{
    const struct format *f = &formats[id];
    bool own_scales = l->scales == SCALES_F16 || id == FORMAT_Q4_K || id == FORMAT_Q6_K;
    int8_t codes[CHUNK_COLS];
    float ws[16], wm[16];
    if (!l->raw || !own_scales)
        f->to_codes(from, codes, ws, f->has_min ? wm : NULL, blocks * 32);
    if (!l->raw)
        put_codes(l, codes, blocks, r, out);
    if (l->scales == SCALES_INDEX)
        put_index_scales(l, id, from, ws, wm, r, scales, mins);
    if (l->scales == SCALES_F32)
        put_f32_scales(ws, blocks * 32 / f->int_block, r, scales);
    if (l->scales == SCALES_F32 && mins)
        put_f32_scales(wm, blocks * 32 / f->int_block, r, mins);
}

/* Sixteen streams at once are more than hardware follows: further on in long rows, the next tile's of short ones. */
static void read_ahead(const uint8_t *from, size_t row_bytes, size_t bytes, int rows)
{
    size_t ahead = row_bytes > 2048 ? 1024 : TILE_ROWS * row_bytes;
    for (int r = 0; r < rows; r++)
        for (size_t i = 0; i < bytes; i += 64)
            __builtin_prefetch(from + (size_t)r * row_bytes + ahead + i);
}

void layout_pack_chunk(const struct matrix *w, int mat, int row, int chunk, uint8_t *out)
{
    enum format_id id = w->t->format;
    const struct layout *l = layout_of(id);
    const struct format *f = &formats[id];
    int blocks = layout_blocks(w->t->cols, chunk), left = (int)w->t->rows - row, rows = left < TILE_ROWS ? left : TILE_ROWS;
    size_t row_bytes = (size_t)format_row_bytes(id, w->t->cols);
    const uint8_t *from = matrix_row(w, mat, row) + format_row_bytes(id, (int64_t)chunk * CHUNK_COLS);
    uint8_t *scales = out + layout_code_bytes(l, blocks);
    uint8_t *mins = f->has_min ? scales + layout_scale_bytes(l, blocks, f->int_block) : NULL;
    if (rows < TILE_ROWS)
        memset(out, 0, layout_chunk_bytes(id, blocks));
    read_ahead(from, row_bytes, (size_t)format_row_bytes(id, blocks * 32), rows);
    if (l->raw)
        put_raw(w, l, from, blocks, rows, out);
    bool halves = l->scales == SCALES_F16 || l->scales == SCALES_ZERO;
    if (halves)
        put_scales(from + l->scale_at, row_bytes, f->block_bytes, rows, blocks, 2, scales);
    if (halves && mins)
        put_scales(from + l->min_at, row_bytes, f->block_bytes, rows, blocks, l->scales == SCALES_F16 ? 2 : 1, mins);
    if (l->raw && halves)
        return;
    for (int r = 0; r < rows; r++)
        put_row(l, id, from + (size_t)r * row_bytes, blocks, r, out, scales, mins);
}
