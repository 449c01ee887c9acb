/* recipes.h - whole-file layouts: which tensor gets which format (quantization.md 1.6). */
#ifndef QDELTA_QUANTIZERS_RECIPES_H
#define QDELTA_QUANTIZERS_RECIPES_H

#include "quantizers.h"

struct recipe {
    const char *name;           /* "q4_k_m" */
    enum format_id base;        /* most matrices */
    int file_type;              /* general.file_type */
    enum format_id embeddings;  /* token tables and head; FORMAT_COUNT: llama-quantize's rule */
    enum format_id ple_proj;    /* per_layer_model_proj; FORMAT_COUNT: as the source has it */
    const char *summary;
};
const struct recipe *recipe_find(const char *name);     /* NULL: no such recipe */
const struct recipe *recipe_list(int *n);

/* The layer number in "blk.N.", or -1. */
int tensor_layer(const char *name);

/* The format of every tensor of m in the output, formats[m->n_tensors].  Tensors that a recipe never touches keep
 * the source's format (1-D and routers become f32).  Rows that do not divide into blocks get the fallback format
 * and a warning through o. */
bool recipe_apply(const struct recipe *r, const struct model *m, bool importance, const struct quantize_options *o,
                  enum format_id *to, struct error *err);

#endif
