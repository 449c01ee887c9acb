/* format.c - the table of formats, plain floats, and the codebooks that have no integer form. */
#include "format_private.h"

#include "base/base.h"

/* ---- 16-bit floats ---- */

float f16_to_f32(uint16_t h)
{
    /* Shift exponent and mantissa into place, then let one exact multiplication by 2^112 move the bias: it also
     * normalises subnormals.  Infinity and NaN need the f32 exponent instead. */
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    float f;
    if (rest >= 0x0f800000) {
        rest |= 0x7f800000;
        memcpy(&f, &rest, sizeof f);
    } else {
        memcpy(&f, &rest, sizeof f);
        f *= 0x1p112f;
    }
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    bits |= sign;
    memcpy(&f, &bits, sizeof f);
    return f;
}

uint16_t f32_to_f16(float f)
{
    uint32_t bits, sign, magnitude;
    memcpy(&bits, &f, sizeof bits);
    sign = bits >> 16 & 0x8000;
    magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x1ff));
    if (magnitude >= 0x477ff000)        /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000) {       /* below 2^-14: adding 0.5 leaves units of 2^-24 in the low mantissa */
        float a;
        memcpy(&a, &magnitude, sizeof a);
        a += 0.5f;
        memcpy(&magnitude, &a, sizeof magnitude);
        return (uint16_t)(sign | (magnitude - 0x3f000000));
    }
    magnitude += 0xfff + (magnitude >> 13 & 1);     /* to nearest, ties to even; a carry moves the exponent */
    return (uint16_t)(sign | ((magnitude - 0x38000000) >> 13));
}

float bf16_to_f32(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

uint16_t f32_to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void f32_to_f32(const void *row, float *out, int64_t n)
{
    memcpy(out, row, (size_t)n * sizeof *out);
}

static void f16_row(const void *row, float *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = load_f16((const uint8_t *)row + 2 * i);
}

static void bf16_row(const void *row, float *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = bf16_to_f32(load_u16((const uint8_t *)row + 2 * i));
}

/* ---- bitsandbytes' codebooks ---- */

/* Quantiles of a normal distribution, asymmetric so that 0 is a code (Dettmers et al. 2023, appendix E). */
const float nf4_values[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
    -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
    0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
    0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f,
};
const float fp4_values[16] = {
    0.0f, 0.005208333333f, 0.66666667f, 1.0f, 0.33333333f, 0.5f, 0.16666667f, 0.25f,
    -0.0f, -0.005208333333f, -0.66666667f, -1.0f, -0.33333333f, -0.5f, -0.16666667f, -0.25f,
};

static void codebook_row(const uint8_t *b, float *out, int64_t n, const float values[16])
{
    for (int64_t i = 0; i < n; i += 32, b += sizeof(struct block_nf4)) {
        float absmax = load_f32(b);
        for (int j = 0; j < 16; j++) {
            out[i + j] = values[b[4 + j] & 15] * absmax;
            out[i + j + 16] = values[b[4 + j] >> 4] * absmax;
        }
    }
}

static void nf4_row(const void *row, float *out, int64_t n)
{
    codebook_row(row, out, n, nf4_values);
}

static void fp4_row(const void *row, float *out, int64_t n)
{
    codebook_row(row, out, n, fp4_values);
}

/* ---- eight-bit floats ---- */

/* Sign, 4 bits of exponent (bias 7), 3 of mantissa.  As with f16 one exact multiplication moves the bias and normalises; there is
 * no infinity, and the code that is no number, which loaders refuse, gives zero. */
float e4m3_to_f32(uint8_t x)
{
    uint32_t bits = (uint32_t)(x & 0x7f) << 20;
    float f;
    if ((x & 0x7f) == 0x7f)
        return 0;
    memcpy(&f, &bits, sizeof f);
    f *= 0x1p120f;
    return x & 0x80 ? -f : f;
}

static void f8_row(const void *row, float *out, int64_t n)
{
    const uint8_t *b = row;
    for (int64_t i = 0; i < n; i += 32, b += sizeof(struct block_f8))
        for (int j = 0; j < 32; j++)
            out[i + j] = e4m3_to_f32(b[4 + j]) * load_f32(b);
}

/* ---- eight unsigned bits: codes are moved by 128 to fit int8, and the min with them ---- */

static void i8m_row(const void *row, float *out, int64_t n)
{
    const uint8_t *b = row;
    for (int64_t i = 0; i < n; i += 32, b += sizeof(struct block_i8m))
        for (int j = 0; j < 32; j++)
            out[i + j] = load_f32(b) * (float)b[8 + j] + load_f32(b + 4);
}

static void i8m_codes(const void *row, int8_t *codes, float *scale, float *min, int64_t n)
{
    const uint8_t *b = row;
    for (int64_t i = 0; i < n; i += 32, b += sizeof(struct block_i8m)) {
        scale[i / 32] = load_f32(b);
        min[i / 32] = load_f32(b + 4) + 128.0f * load_f32(b);
        for (int j = 0; j < 32; j++)
            codes[i + j] = (int8_t)(b[8 + j] - 128);
    }
}

/* ---- the table ---- */

#define INTEGER(NAME) format_##NAME##_to_f32, .to_codes = format_##NAME##_to_codes, .quantized = true
#define SUB(BLOCK, BITS) .int_block = BLOCK, .code_bits = BITS
#define MINS .has_min = true

const struct format formats[FORMAT_COUNT] = {
    /*                   name     type block bytes  to floats, codes    sub-blocks, bits of a code */
    [FORMAT_F32]     = { "f32",      0,   1,   4,  f32_to_f32, .quantized = false },
    [FORMAT_F16]     = { "f16",      1,   1,   2,  f16_row, .quantized = false },
    [FORMAT_BF16]    = { "bf16",    30,   1,   2,  bf16_row, .quantized = false },
    [FORMAT_Q4_0]    = { "q4_0",     2,  32,  18,  INTEGER(q4_0),    SUB(32, 4) },
    [FORMAT_Q4_1]    = { "q4_1",     3,  32,  20,  INTEGER(q4_1),    SUB(32, 4), MINS },
    [FORMAT_Q5_0]    = { "q5_0",     6,  32,  22,  INTEGER(q5_0),    SUB(32, 8) },
    [FORMAT_Q5_1]    = { "q5_1",     7,  32,  24,  INTEGER(q5_1),    SUB(32, 8), MINS },
    [FORMAT_Q8_0]    = { "q8_0",     8,  32,  34,  INTEGER(q8_0),    SUB(32, 8) },
    [FORMAT_Q2_K]    = { "q2_k",    10, 256,  84,  INTEGER(q2_k),    SUB(16, 4), MINS },
    [FORMAT_Q3_K]    = { "q3_k",    11, 256, 110,  INTEGER(q3_k),    SUB(16, 4) },
    [FORMAT_Q4_K]    = { "q4_k",    12, 256, 144,  INTEGER(q4_k),    SUB(32, 4), MINS },
    [FORMAT_Q5_K]    = { "q5_k",    13, 256, 176,  INTEGER(q5_k),    SUB(32, 8), MINS },
    [FORMAT_Q6_K]    = { "q6_k",    14, 256, 210,  INTEGER(q6_k),    SUB(16, 8) },
    [FORMAT_IQ4_NL]  = { "iq4_nl",  20,  32,  18,  INTEGER(iq4_nl),  SUB(32, 8) },
    [FORMAT_IQ4_XS]  = { "iq4_xs",  23, 256, 136,  INTEGER(iq4_xs),  SUB(32, 8) },
    [FORMAT_IQ2_XXS] = { "iq2_xxs", 16, 256,  66,  INTEGER(iq2_xxs), SUB(32, 8) },
    [FORMAT_IQ2_XS]  = { "iq2_xs",  17, 256,  74,  INTEGER(iq2_xs),  SUB(16, 8) },
    [FORMAT_IQ2_S]   = { "iq2_s",   22, 256,  82,  INTEGER(iq2_s),   SUB(16, 8) },
    [FORMAT_IQ3_XXS] = { "iq3_xxs", 18, 256,  98,  INTEGER(iq3_xxs), SUB(32, 8) },
    [FORMAT_IQ3_S]   = { "iq3_s",   21, 256, 110,  INTEGER(iq3_s),   SUB(32, 8) },
    [FORMAT_IQ1_S]   = { "iq1_s",   19, 256,  50,  INTEGER(iq1_s),   SUB(32, 8) },
    [FORMAT_IQ1_M]   = { "iq1_m",   29, 256,  56,  INTEGER(iq1_m),   SUB(16, 8) },
    [FORMAT_TQ1_0]   = { "tq1_0",   34, 256,  54,  INTEGER(tq1_0),   SUB(32, 4) },
    [FORMAT_TQ2_0]   = { "tq2_0",   35, 256,  66,  INTEGER(tq2_0),   SUB(32, 4) },
    [FORMAT_MXFP4]   = { "mxfp4",   39,  32,  17,  INTEGER(mxfp4),   SUB(32, 8) },
    [FORMAT_NVFP4]   = { "nvfp4",   40,  64,  36,  INTEGER(nvfp4),   SUB(16, 8) },
    [FORMAT_Q1_0]    = { "q1_0",    41, 128,  18,  INTEGER(q1_0),    SUB(32, 4) },
    [FORMAT_Q2_0]    = { "q2_0",    42,  64,  18,  INTEGER(q2_0),    SUB(32, 4) },
    [FORMAT_I4M]     = { "i4m",     -1,  32,  24,  INTEGER(i4m),     SUB(32, 4), MINS },
    [FORMAT_I4Z]     = { "i4z",     -1,  32,  19,  INTEGER(i4z),     SUB(32, 4), MINS },
    [FORMAT_I4H]     = { "i4h",     -1,  32,  20,  INTEGER(q4_1),    SUB(32, 4), MINS },
    [FORMAT_I8M]     = { "i8m",     -1,  32,  40,  i8m_row, .to_codes = i8m_codes, .quantized = true, SUB(32, 8), MINS },
    [FORMAT_NF4]     = { "nf4",     -1,  32,  20,  nf4_row, .quantized = true },
    [FORMAT_FP4]     = { "fp4",     -1,  32,  20,  fp4_row, .quantized = true },
    [FORMAT_F8]      = { "f8",      -1,  32,  36,  f8_row, .quantized = true },
    [FORMAT_F4]      = { "f4",      -1,  32,  24,  INTEGER(f4),      SUB(16, 8) },
};

int64_t format_row_bytes(enum format_id f, int64_t cols)
{
    return cols / formats[f].block * formats[f].block_bytes;
}

bool format_by_name(const char *name, enum format_id *out)
{
    for (int f = 0; f < FORMAT_COUNT; f++)
        if (!strcmp(formats[f].name, name)) {
            *out = (enum format_id)f;
            return true;
        }
    return false;
}

bool format_by_ggml_type(int ggml_type, enum format_id *out)
{
    for (int f = 0; f < FORMAT_COUNT; f++)
        if (ggml_type >= 0 && formats[f].ggml_type == ggml_type) {
            *out = (enum format_id)f;
            return true;
        }
    return false;
}

const char *format_refusal(int ggml_type)
{
    static const struct {
        int type;
        const char *text;
    } refused[] = {
        { 4, "q4_2 (retired in 2023: convert the original model again)" },
        { 5, "q4_3 (retired in 2023: convert the original model again)" },
        { 9, "q8_1 (a form of activations, not of weights)" },
        { 15, "q8_k (a form of activations, not of weights)" },
        { 24, "i8 (integers, not weights)" },
        { 25, "i16 (integers, not weights)" },
        { 26, "i32 (integers, not weights)" },
        { 27, "i64 (integers, not weights)" },
        { 28, "f64 (convert the model to f32)" },
        { 31, "q4_0_4_4 (retired: re-quantize from q4_0)" },
        { 32, "q4_0_4_8 (retired: re-quantize from q4_0)" },
        { 33, "q4_0_8_8 (retired: re-quantize from q4_0)" },
        { 36, "iq4_nl_4_4 (retired: re-quantize from iq4_nl)" },
        { 37, "iq4_nl_4_8 (retired: re-quantize from iq4_nl)" },
        { 38, "iq4_nl_8_8 (retired: re-quantize from iq4_nl)" },
    };
    for (size_t i = 0; i < ARRAY_LEN(refused); i++)
        if (refused[i].type == ggml_type)
            return refused[i].text;
    if ((ggml_type >= 97 && ggml_type <= 99) || (ggml_type >= 133 && ggml_type < 400))
        return "one of ik_llama.cpp's own (iq4_k, q6_0, q4_0_r8 ..), which ggml does not have: quantize the original with llama-quantize";
    return NULL;
}
