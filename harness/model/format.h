/* format.h - formats[]: how the bytes of a tensor row decode.  A format is not a method: who chose the
 * values (rtn, gptq, qat) is told elsewhere.
 *
 * To add a format: its id, its decoder, its row.  Loader, engine, quantizers, tests and
 * `qdelta list formats` all walk the table. */
#ifndef QDELTA_MODEL_FORMAT_H
#define QDELTA_MODEL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum format_id {
    FORMAT_F32, FORMAT_F16, FORMAT_BF16,
    FORMAT_Q4_0, FORMAT_Q4_1, FORMAT_Q5_0, FORMAT_Q5_1, FORMAT_Q8_0,
    FORMAT_Q2_K, FORMAT_Q3_K, FORMAT_Q4_K, FORMAT_Q5_K, FORMAT_Q6_K,
    FORMAT_IQ4_NL, FORMAT_IQ4_XS,
    FORMAT_IQ2_XXS, FORMAT_IQ2_XS, FORMAT_IQ2_S, FORMAT_IQ3_XXS, FORMAT_IQ3_S, FORMAT_IQ1_S, FORMAT_IQ1_M,
    FORMAT_TQ1_0, FORMAT_TQ2_0, FORMAT_MXFP4, FORMAT_NVFP4, FORMAT_Q1_0, FORMAT_Q2_0,
    /* Unpacked forms of other checkpoint layouts, lossless: value = scale * code + min, f32 scale and min. */
    FORMAT_I4M,         /* 32 elements: f32 scale, f32 min, 16 bytes (low nibble j, high nibble j + 16): layouts of up to 4 bits */
    FORMAT_I4Z,         /* the same where f16 holds every scale, and min = -scale * zero: f16 scale, u8 zero, 16 bytes */
    FORMAT_I4H,         /* the same where f16 holds every scale and min: f16 scale, f16 min, 16 bytes (the block of q4_1) */
    FORMAT_I8M,         /* 32 elements: f32 scale, f32 min, 32 x u8: 8-bit layouts */
    FORMAT_NF4,         /* 32 elements: f32 absmax, 16 bytes (nibbles as I4M): bitsandbytes nf4 */
    FORMAT_FP4,         /* likewise, bitsandbytes' fp4 values */
    FORMAT_F8,          /* 32 elements: f32 scale, 32 x E4M3: FP8 layouts, MLX mxfp8 */
    FORMAT_F4,          /* 32 elements: 2 f32 scales, 2 x 8 bytes of E2M1 (as nvfp4): NVFP4 with a scale for the matrix */
    FORMAT_COUNT
};

struct format {
    const char *name;           /* "q4_0" */
    int ggml_type;              /* id in GGUF; -1 = not a GGUF type */
    int block;                  /* elements */
    int block_bytes;
    /* Decode n elements (a multiple of block) from row. */
    void (*to_f32)(const void *row, float *out, int64_t n);
    /* Integer form for exact dot products: for each sub-block of int_block elements (16 or 32; 0 = the format
     * has none and is multiplied in f32) value = scale * code + min; codes fit int8.  scale and min are the
     * f32 numbers that to_f32 would use.  min may be NULL in formats without one (has_min false). */
    int int_block;
    int code_bits;              /* 4: codes fit a signed or unsigned nibble after code_bias is taken off; else 8 */
    bool has_min;
    void (*to_codes)(const void *row, int8_t *codes, float *scale, float *min, int64_t n);
    bool quantized;             /* loses information against f32/f16/bf16 */
};
extern const struct format formats[FORMAT_COUNT];

int64_t format_row_bytes(enum format_id f, int64_t cols);       /* cols must be a multiple of block */
bool format_by_name(const char *name, enum format_id *out);
bool format_by_ggml_type(int ggml_type, enum format_id *out);
/* "q4_0_4_4 (retired: re-quantize from q4_0)", or NULL if the id is unknown or supported. */
const char *format_refusal(int ggml_type);

/* An unpacked form of up to 4 bits: scale and min, then 16 bytes of nibbles. */
static inline bool format_unpacked_4(enum format_id f)
{
    return f == FORMAT_I4M || f == FORMAT_I4Z || f == FORMAT_I4H;
}

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);       /* round to nearest even */
float bf16_to_f32(uint16_t h);
float e4m3_to_f32(uint8_t x);       /* the code that is no number gives 0 */
uint16_t f32_to_bf16(float f);      /* round to nearest even, NaN kept quiet */

/* On-disk blocks that quantizers write (little-endian, as ggml). */
struct block_q4_0 { uint16_t d; uint8_t qs[16]; };
struct block_q4_1 { uint16_t d, m; uint8_t qs[16]; };
struct block_q5_0 { uint16_t d; uint8_t qh[4], qs[16]; };
struct block_q5_1 { uint16_t d, m; uint8_t qh[4], qs[16]; };
struct block_q8_0 { uint16_t d; int8_t qs[32]; };
struct block_q2_k { uint8_t scales[16], qs[64]; uint16_t d, dmin; };
struct block_q3_k { uint8_t hmask[32], qs[64], scales[12]; uint16_t d; };
struct block_q4_k { uint16_t d, dmin; uint8_t scales[12], qs[128]; };
struct block_q5_k { uint16_t d, dmin; uint8_t scales[12], qh[32], qs[128]; };
struct block_q6_k { uint8_t ql[128], qh[64]; int8_t scales[16]; uint16_t d; };
struct block_iq4_nl { uint16_t d; uint8_t qs[16]; };
struct block_iq4_xs { uint16_t d, scales_h; uint8_t scales_l[4], qs[128]; };
struct block_i4m { float d, m; uint8_t qs[16]; };
struct block_i4z { uint8_t d[2], zero, qs[16]; };
struct block_i8m { float d, m; uint8_t qs[32]; };
struct block_nf4 { float absmax; uint8_t qs[16]; };
struct block_f8 { float d; uint8_t qs[32]; };
_Static_assert(sizeof(struct block_q4_0) == 18, "on-disk layout");
_Static_assert(sizeof(struct block_q4_1) == 20, "on-disk layout");
_Static_assert(sizeof(struct block_q5_0) == 22, "on-disk layout");
_Static_assert(sizeof(struct block_q5_1) == 24, "on-disk layout");
_Static_assert(sizeof(struct block_q8_0) == 34, "on-disk layout");
_Static_assert(sizeof(struct block_q2_k) == 84, "on-disk layout");
_Static_assert(sizeof(struct block_q3_k) == 110, "on-disk layout");
_Static_assert(sizeof(struct block_q4_k) == 144, "on-disk layout");
_Static_assert(sizeof(struct block_q5_k) == 176, "on-disk layout");
_Static_assert(sizeof(struct block_q6_k) == 210, "on-disk layout");
_Static_assert(sizeof(struct block_iq4_xs) == 136, "on-disk layout");
_Static_assert(sizeof(struct block_i4m) == 24 && sizeof(struct block_i4z) == 19 && sizeof(struct block_i8m) == 40 && sizeof(struct block_nf4) == 20 &&
               sizeof(struct block_f8) == 36, "unpacked layouts");

/* Code values (index 0..15): bitsandbytes nf4 and fp4, ggml's iq4_nl. */
extern const float nf4_values[16], fp4_values[16];
extern const int8_t iq4_nl_values[16];

#endif
