/* hf.h - Hugging Face folders out: names, config.json, packed layouts of quantized matrices. */
#ifndef QDELTA_QUANTIZERS_HF_H
#define QDELTA_QUANTIZERS_HF_H

#include "job.h"

/* "blk.0.attn_q.weight" -> "model.layers.0.self_attn.q_proj.weight"; expert >= 0 for one of a stack that the folder
 * keeps apart.  False: the folder has no such tensor (rope_freqs). */
bool hf_name(const struct model *m, const char *gguf, int expert, char *out, size_t size);
/* Does the folder keep each expert of this stack apart? */
bool hf_expert_apart(const struct model *m, const char *gguf);

/* The source's config.json, or one made from the model's config; belongs to the caller. */
cJSON *hf_config(const struct model *m, const char *dtype, struct error *err);

struct blob {                   /* one tensor of the folder */
    const char *suffix;         /* after the module's name: ".qweight" */
    const char *dtype;
    int n_dims;
    int64_t dims[4];            /* outermost first */
    uint8_t *bytes;             /* owned; NULL while only declared */
};
enum { MOST_BLOBS = 8 };

struct layout {                 /* how quantized matrices lie in the folder */
    const char *name;           /* FORMAT of METHOD:FORMAT */
    enum format_id to;
    int group;
    bool symmetric, nested;
    /* Shapes of matrix mat of p, then (bytes true) their contents. */
    bool (*pack)(const struct job *j, const struct part *p, int64_t mat, bool bytes, struct blob *b, int *n, struct error *err);
    /* quantization_config */
    cJSON *(*config)(const struct job *j);
};
const struct layout *layout_find(const char *method, const char *format);
/* Can matrix t be written in layout l? */
bool layout_takes(const struct layout *l, const struct model *m, const struct tensor *t);

/* NF4 and FP4 codes of n weights that lie one after another, blocks of 64: two codes a byte, high nibble first. */
void bnb_codes(enum format_id f, const float *w, int64_t n, uint8_t *codes, float *absmax);

#endif
