/* kernels_neon_dot.c - NEON with the dot products of four bytes (FEAT_DotProd: ARMv8.2, and every core since).
 *
 * sdot wants signed bytes.  A code c (0 .. 255) is kept as s = c - 128; an int16 activation a as high and low byte,
 * a = 256 h + l + 128 with l = low byte - 128.  Then, all exact in int32,
 *     sum c a = 256 sum s h + sum s l + 128 sum s + 128 sum a
 * where sum a comes with the panel and sum s is summed once for each chunk of a tile.  That is two instructions for 16
 * products, where smlal of the neon set needs four; with int8 activations (sum c a = sum s a + 128 sum a) it is one.
 *
 * Checked bit for bit against the generic set under qemu-aarch64; no speed is claimed, none was measured. */
#include "set.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD) && defined(__linux__)

#include <sys/auxv.h>

#include "kernels_neon.h"

/* ---- expanded chunk: codes [8 words][16 rows][4] of each block, then 128 sum s as int32 [sub-block][16 rows] ---- */

enum { CODE_BYTES = CHUNK_COLS * TILE_ROWS };

static uint8x16x4_t quad_at(const uint8_t *p)
{
    return (uint8x16x4_t){ { vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48) } };
}

/* The wide panel swaps the middle two of four elements, so the codes do. */
static void put_quad(uint8_t *codes, int q, uint8x16x4_t v, bool wide)
{
    static const uint8_t swapped[16] = { 0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15 };
    UNROLL
    for (int r = 0; r < 4; r++) {
        uint8x16_t s = veorq_u8(v.val[r], vdupq_n_u8(0x80));
        vst1q_u8(codes + 64 * q + 16 * r, wide ? vqtbl1q_u8(s, vld1q_u8(swapped)) : s);
    }
}

INLINE int8x16_t i8_at(const uint8_t *p)
{
    return vreinterpretq_s8_u8(vld1q_u8(p));
}

static void expand_neon_dot(enum format_id id, const uint8_t *chunk, int blocks, bool wide, struct expanded *out)
{
    int words = formats[id].int_block / 4;
    const uint8_t *codes = out->codes;
    expand_chunk(id, chunk, blocks, wide, out);
    for (uint8_t *to = out->codes + CODE_BYTES; codes < out->codes + 512 * blocks; codes += 64 * words, to += 64)
        for (int r = 0; r < 64; r += 16) {
            int32x4_t sum = vdupq_n_s32(0);
            for (int v = 0; v < words; v++)
                sum = vdotq_s32(sum, i8_at(codes + 64 * v + r), vdupq_n_s8(1));
            vst1q_u8(to + r, vreinterpretq_u8_s32(vshlq_n_s32(sum, 7)));
        }
}

/* ---- integer tiles: 16 rows x T ---- */

/* isum [T][4 rows a register] += word i of codes and activations x [T][4 words]; i is a literal. */
#define WORD(i)                                                                         \
    UNROLL                                                                              \
    for (int r = 0; r < 4; r++) {                                                       \
        int8x16_t c = i8_at(codes + 64 * (i) + 16 * r);                                 \
        UNROLL                                                                          \
        for (int t = 0; t < T; t++)                                                     \
            isum[t][r] = vdotq_laneq_s32(isum[t][r], c, x[t], i);                       \
    }

/* The words of a sub-block of 32 or 16 elements; the activations' bytes lie step apart for each row, n at a time. */
INLINE void dot_words(const uint8_t *codes, int8x16_t (*activations)[2], const int subs, const int T,
                      int32x4_t (*isum)[4])
{
    UNROLL
    for (int k = 0; k < 2 / subs; k++, codes += 4 * 64) {
        int8x16_t x[4];
        UNROLL
        for (int t = 0; t < T; t++)
            x[t] = activations[t][k];
        WORD(0) WORD(1) WORD(2) WORD(3)
    }
}

/* Start of the sums: the activations' parts, and the codes' where there are any. */
INLINE void add_start(const uint8_t *starts, const uint8_t *sums, size_t step, const uint8_t *of_codes, const int T,
                      int32x4_t (*isum)[4])
{
    UNROLL
    for (int t = 0; t < T; t++) {
        int32_t start = i32_at(starts + step * (size_t)t) + 128 * (int32_t)f32_at(sums + step * (size_t)t);
        UNROLL
        for (int r = 0; r < 4; r++) {
            isum[t][r] = vaddq_s32(isum[t][r], vdupq_n_s32(start));
            if (of_codes)
                isum[t][r] = vaddq_s32(isum[t][r], vreinterpretq_s32_u8(vld1q_u8(of_codes + 16 * r)));
        }
    }
}

/* Sums of sub-block s of a block: codes its words, panel the block's activations. */
INLINE void block_sums(const uint8_t *codes, const uint8_t *of_codes, const int subs, const bool wide, const uint8_t *panel,
                       int s, const int T, int32x4_t (*isum)[4])
{
    const int bytes = (wide ? 64 : 32) / subs;
    const uint8_t *starts = panel + T * (wide ? 68 : 36) + 4 * s, *sums = starts + T * subs * 4;
    int8x16_t low[4][2], high[4][2];
    UNROLL
    for (int t = 0; t < T; t++)
        UNROLL
        for (int k = 0; k < 2 / subs; k++) {
            const uint8_t *p = panel + t * bytes * subs + s * bytes + k * bytes * subs / 2;
            low[t][k] = i8_at(p);
            if (!wide)
                continue;
            high[t][k] = vuzp2q_s8(low[t][k], i8_at(p + 16));
            low[t][k] = veorq_s8(vuzp1q_s8(low[t][k], i8_at(p + 16)), vdupq_n_s8(-128));
        }
    UNROLL
    for (int t = 0; t < T; t++)
        isum[t][0] = isum[t][1] = isum[t][2] = isum[t][3] = vdupq_n_s32(0);
    if (wide) {
        dot_words(codes, high, subs, T, isum);
        UNROLL
        for (int t = 0; t < T; t++)
            UNROLL
            for (int r = 0; r < 4; r++)
                isum[t][r] = vshlq_n_s32(isum[t][r], 8);
    }
    add_start(starts, sums, 4 * (size_t)subs, wide ? of_codes : NULL, T, isum);
    dot_words(codes, low, subs, T, isum);
}

INLINE void tile(const struct expanded *w, const int subs, const bool wide, bool has_min, const uint8_t *panel, const int T,
                 int blocks, float *acc)
{
    const uint8_t *codes = w->codes, *of_codes = w->codes + CODE_BYTES;
    for (int b = 0; b < blocks; b++, panel += (size_t)T * panel_unit(wide, 32 / subs))
        for (int s = 0; s < subs; s++, codes += 512 / subs, of_codes += 64) {
            int32x4_t isum[4][4];
            const uint8_t *scales = panel + T * (wide ? 64 : 32);
            block_sums(codes, of_codes, subs, wide, panel, s, T, isum);
            add_block(w, b * subs + s, has_min, isum, scales, scales + 4 * T * (1 + subs) + 4 * s, 4 * (size_t)subs, T, acc);
        }
}

#define TILES_OF(T)                                                                                            \
    static void tile_##T(const struct expanded *w, bool wide, int sub, bool has_min, const uint8_t *panel,     \
                         int blocks, float *acc)                                                               \
    {                                                                                                          \
        if (wide && sub == 32)                                                                                 \
            tile(w, 1, true, has_min, panel, T, blocks, acc);                                                  \
        else if (wide)                                                                                         \
            tile(w, 2, true, has_min, panel, T, blocks, acc);                                                  \
        else if (sub == 32)                                                                                    \
            tile(w, 1, false, has_min, panel, T, blocks, acc);                                                 \
        else                                                                                                   \
            tile(w, 2, false, has_min, panel, T, blocks, acc);                                                 \
    }
TILES_OF(4)
TILES_OF(2)
TILES_OF(1)
static const int widths[] = { 4, 2, 1 };

static void multiply_neon_dot(const struct expanded *w, int tiles, bool wide, int sub, bool has_min, const uint8_t *panel,
                              int T, int blocks, float *acc, size_t step)
{
    for (int r = 0; r < tiles; r++)
        (T == 4 ? tile_4 : T == 2 ? tile_2 : tile_1)(&w[r], wide, sub, has_min, panel, blocks, acc + (size_t)r * step);
}

static const struct tile_ops tile_neon_dot = {
    .narrow = true,
    .group = 4,
    .widths = widths,
    .round = round_row_part,
    .expand = expand_neon_dot,
    .multiply = multiply_neon_dot,
    FLOAT_OPS,
};

PEAK_OF(peak_int8, int32x4_t, vdupq_n_s32(0), vdotq_s32(sum, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(x)), 32)

static const struct peak_ops peak_neon_dot = { peak_int8, peak_int16, peak_f32, peak_read };

static bool cpu_has_dot(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
}

const struct kernels kernels_neon_dot = {
    .name = "neon_dot",
    .supported = cpu_has_dot,
    VECTOR_OPS,
    .pack = tiles_pack,
    .apply = tiles_apply,
    .tile = &tile_neon_dot,
    .peak = &peak_neon_dot,
};

#else

static bool never(void)
{
    return false;
}
const struct kernels kernels_neon_dot = { .name = "neon_dot", .supported = never };

#endif
