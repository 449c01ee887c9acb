/* packed.h - private to the model room: how a packed matrix of some layout is read, element by element.
 *
 * A loader describes where codes, scales and zeros stand; unpack_matrix() does the rest, the same for all. */
#ifndef QDELTA_MODEL_PACKED_H
#define QDELTA_MODEL_PACKED_H

#include "files.h"

struct packed_rules {           /* what the quantization config says */
    const char *method;         /* "gptq", "awq", "bitsandbytes", "mlx", "compressed-tensors", "torchao", "hqq" */
    bool zeros_less_one;        /* GPTQ v1 stores zero points minus one */
    int64_t block[2];           /* rows and columns that share a scale of a byte layout; 0: the shapes tell */
};

struct module {                 /* one packed matrix while it is read */
    const struct packed_rules *rules;
    struct model_files *f;
    const char *base;           /* "model.layers.0.self_attn.q_proj" */
    const struct slot *slot;
    struct pool *pool;
    struct error *err;
    int64_t rows, cols;
    /* Filled by the loader. */
    int bits;                   /* 1 to 8; up to 4 become I4Z, I4H or I4M blocks, more I8M */
    int64_t group, groups;      /* columns that share a scale; how many such groups a row has */
    int64_t row_block;          /* rows that share it, in byte layouts */
    const struct raw_tensor *weight, *scale, *zero, *g_idx;
    float global;               /* of NVFP4 with a scale for the matrix, by which those of the blocks are multiplied or divided */
    bool divide;
    const void *more;           /* what else its functions need */
    bool run;                   /* columns stand in order: k[] is a run from a multiple of 32 on */
    /* codes of 32 columns k[] of row n; scale and min (value = scale * code + min) of group g of row n */
    void (*codes)(const struct module *m, int64_t n, const int32_t *k, uint8_t *out);
    void (*scales)(const struct module *m, int64_t n, int64_t g, float *scale, float *min);
};

/* Part "BASE.suffix" or NULL. */
struct raw_tensor *module_part(const struct module *m, const char *suffix);
/* The part must be there with this shape (d1 0: one dimension); marks it used. */
bool module_need(struct module *m, const char *suffix, int64_t d0, int64_t d1, const struct raw_tensor **out);
bool module_float(struct module *m, const char *suffix, int64_t d0, int64_t d1, const struct raw_tensor **out);
float raw_float(const struct raw_tensor *r, int64_t i);
/* Rows first .. last - 1 of t's blocks, which begin at data: on any thread, errors to m->err. */
typedef bool unpack_rows(const struct module *m, const struct tensor *t, uint8_t *data, int64_t first, int64_t last);
/* Memory for t, of t->format, filled by rows on all threads; the source's pages of the weights may leave memory again. */
bool unpack_tensor(struct module *m, struct tensor *t, unpack_rows *rows);
bool unpack_matrix(struct module *m, struct tensor *t);
bool unpack_f8(struct module *m, struct tensor *t);     /* weight: E4M3 bytes [rows x cols]; scales() gives their scales */
bool bad_dtype(const struct module *m, const struct raw_tensor *r, const char *expected);       /* fails */
/* Number of groups and their width from the rows of a [groups x rows] matrix of scales. */
bool groups_along_columns(struct module *m, const char *scales);
/* The same from its columns: [rows x groups]. */
bool groups_along_rows(struct module *m, const char *scales);

/* A signed byte a weight, [rows x cols], scales (and zero points, in I8 or floats) [rows / row_block x groups]. */
void byte_codes(const struct module *m, int64_t n, const int32_t *k, uint8_t *out);
void byte_scales(const struct module *m, int64_t n, int64_t g, float *scale, float *min);

/* Zero in the middle of the codes' range, or packed down the rows (m->zero). */
void middle_scales(const struct module *m, int64_t n, int64_t g, float *scale, float *min);

/* Floats of 4 and 8 bits (packed_floats.c): the scales of MLX modules are bytes; weight_packed of compressed-tensors is. */
bool load_mlx_floats(struct module *m, struct tensor *t);
bool load_compressed_fp4(struct module *m, struct tensor *t);
void use_input_scales(struct module *m);        /* those of activations and of the K/V cache: they do not count */

/* Loaders: *found false when the module has no parts of the layout. */
bool load_gptq(struct module *m, struct tensor *t, bool *found);
bool load_awq(struct module *m, struct tensor *t, bool *found);
bool load_bitsandbytes(struct module *m, struct tensor *t, bool *found);
bool load_mlx(struct module *m, struct tensor *t, bool *found);
bool load_compressed(struct module *m, struct tensor *t, bool *found);
bool load_torchao(struct module *m, struct tensor *t, bool *found);
bool load_hqq(struct module *m, struct tensor *t, bool *found);
bool load_bytes(struct module *m, struct tensor *t, bool *found);
bool load_gemma(struct module *m, struct tensor *t, bool *found);
bool load_modelopt(struct module *m, struct tensor *t, bool *found);

static inline uint32_t raw_word(const struct raw_tensor *r, int64_t i)
{
    uint32_t w;
    memcpy(&w, r->data + 4 * i, sizeof w);
    return w;
}

/* Bits at .. at + bits - 1 (bits at most 8) of a stream of 32-bit words, lowest bit first, whose words stand stride words
 * apart from word number first on; a field may lie across two words. */
static inline unsigned raw_bits(const struct raw_tensor *r, int64_t first, int64_t stride, int64_t at, int bits)
{
    int64_t i = first + at / 32 * stride;
    int shift = (int)(at % 32);
    uint32_t w = raw_word(r, i) >> shift;
    if (shift + bits > 32)
        w |= raw_word(r, i + stride) << (32 - shift);
    return w & ((1u << bits) - 1);
}

#endif
