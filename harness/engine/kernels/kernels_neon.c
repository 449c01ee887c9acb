/* kernels_neon.c - sixteen lanes in four registers: base AArch64, which every 64-bit ARM has.  Integer products are
 * 16 x 16 bits in both rounded modes, smlal by a lane of the activations: 16 rows x T, four rows a register.
 *
 * Checked bit for bit against the generic set under qemu-aarch64; no speed is claimed, none was measured. */
#include "set.h"

#if defined(__aarch64__)

#include "kernels_neon.h"

/* ---- integer tiles; codes are kept [element][16 rows] u16, elements in the panel's order ---- */

static uint8x16x4_t quad_at(const uint8_t *p)
{
    return vld4q_u8(p);
}

static void put_quad(uint8_t *codes, int q, uint8x16x4_t v, bool wide)
{
    static const int from[4] = { 0, 2, 1, 3 };
    uint8_t *to = codes + 128 * q;
    (void)wide;
    UNROLL
    for (int e = 0; e < 4; e++, to += 32) {
        vst1q_u8(to, vreinterpretq_u8_u16(vmovl_u8(vget_low_u8(v.val[from[e]]))));
        vst1q_u8(to + 16, vreinterpretq_u8_u16(vmovl_high_u8(v.val[from[e]])));
    }
}

INLINE int16x8_t i16_at(const uint8_t *p)
{
    return vreinterpretq_s16_u8(vld1q_u8(p));
}

/* isum [T][4 rows a register] += element i of codes and activations; i is a literal. */
#define ELEMENT(i)                                                                      \
    do {                                                                                \
        int16x8_t c = i16_at(codes + 32 * (i)), d = i16_at(codes + 32 * (i) + 16);      \
        UNROLL                                                                          \
        for (int t = 0; t < T; t++) {                                                   \
            isum[t][0] = vmlal_laneq_s16(isum[t][0], vget_low_s16(c), x[t], i);         \
            isum[t][1] = vmlal_high_laneq_s16(isum[t][1], c, x[t], i);                  \
            isum[t][2] = vmlal_laneq_s16(isum[t][2], vget_low_s16(d), x[t], i);         \
            isum[t][3] = vmlal_high_laneq_s16(isum[t][3], d, x[t], i);                  \
        }                                                                               \
    } while (0)

INLINE void tile(const struct expanded *w, const int subs, bool has_min, const uint8_t *panel, const int T, int blocks,
                 float *acc)
{
    const int bytes = 64 / subs;        /* of a sub-block of one activation row */
    const uint8_t *codes = w->codes;
    for (int b = 0; b < blocks; b++, panel += (size_t)T * panel_unit(true, 32 / subs)) {
        const uint8_t *scales = panel + T * 64, *starts = scales + T * 4, *sums = starts + T * subs * 4;
        for (int s = 0; s < subs; s++) {
            int32x4_t isum[4][4];
            UNROLL
            for (int t = 0; t < T; t++)
                isum[t][0] = isum[t][1] = isum[t][2] = isum[t][3] = vdupq_n_s32(i32_at(starts + 4 * (t * subs + s)));
            for (int k = 0; k < bytes; k += 16, codes += 8 * 32) {
                int16x8_t x[4];
                UNROLL
                for (int t = 0; t < T; t++)
                    x[t] = i16_at(panel + t * 64 + s * bytes + k);
                ELEMENT(0); ELEMENT(1); ELEMENT(2); ELEMENT(3);
                ELEMENT(4); ELEMENT(5); ELEMENT(6); ELEMENT(7);
            }
            add_block(w, b * subs + s, has_min, isum, scales, sums + 4 * s, 4 * (size_t)subs, T, acc);
        }
    }
}

#define TILES_OF(T)                                                                                            \
    static void tile_##T(const struct expanded *w, int sub, bool has_min, const uint8_t *panel, int blocks,    \
                         float *acc)                                                                           \
    {                                                                                                          \
        if (sub == 32)                                                                                         \
            tile(w, 1, has_min, panel, T, blocks, acc);                                                        \
        else                                                                                                   \
            tile(w, 2, has_min, panel, T, blocks, acc);                                                        \
    }
TILES_OF(4)
TILES_OF(2)
TILES_OF(1)
static const int widths[] = { 4, 2, 1 };

static void multiply_neon(const struct expanded *w, int tiles, bool wide, int sub, bool has_min, const uint8_t *panel,
                          int T, int blocks, float *acc, size_t step)
{
    (void)wide;
    for (int r = 0; r < tiles; r++)
        (T == 4 ? tile_4 : T == 2 ? tile_2 : tile_1)(&w[r], sub, has_min, panel, blocks, acc + (size_t)r * step);
}

static const struct tile_ops tile_neon = {
    .group = 4,
    .widths = widths,
    .round = round_row_part,
    .expand = expand_chunk,
    .multiply = multiply_neon,
    FLOAT_OPS,
};

#define BYTES(X) vreinterpretq_s8_s32(X)
PEAK_OF(peak_int8, int32x4_t, vdupq_n_s32(0),
        vpadalq_s16(sum, vmlal_high_s8(vmull_s8(vget_low_s8(BYTES(x)), vget_low_s8(BYTES(x))), BYTES(x), BYTES(x))), 32)

static const struct peak_ops peak_neon = { peak_int8, peak_int16, peak_f32, peak_read };

static bool always(void)
{
    return true;
}

const struct kernels kernels_neon = {
    .name = "neon",
    .supported = always,
    VECTOR_OPS,
    .pack = tiles_pack,
    .apply = tiles_apply,
    .tile = &tile_neon,
    .peak = &peak_neon,
};

#else

static bool never(void)
{
    return false;
}
const struct kernels kernels_neon = { .name = "neon", .supported = never };

#endif
