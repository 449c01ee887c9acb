/* files.h - inside of the model room: what the readers hand to one another.
 *
 * A reader (gguf.c, safetensors.c) maps files and lists raw tensors and metadata; arch.c turns metadata into the
 * config, whatever the source; layout.c knows which tensors such a config needs; bind.c matches the two. */
#ifndef QDELTA_MODEL_FILES_H
#define QDELTA_MODEL_FILES_H

#include <string.h>

#include "model/model.h"

enum raw_type { RAW_GGML, RAW_F32, RAW_F16, RAW_BF16, RAW_I8, RAW_U8, RAW_I16, RAW_I32, RAW_U32, RAW_I64, RAW_F8, RAW_OTHER };

struct raw_tensor {             /* as the file lists it; offsets and sizes are checked */
    const char *name;
    const char *file;
    enum raw_type type;
    enum format_id format;      /* of RAW_GGML */
    const char *type_name;
    int n_dims;
    int64_t dims[4];            /* outermost first, for both sources */
    const uint8_t *data;
    uint64_t bytes;
    bool used;
};

struct model_files {
    struct arena arena;         /* names, metadata, config: small things */
    struct mapping *maps;
    const char **paths;         /* of the maps */
    int n_maps;
    size_t maps_cap, paths_cap;
    struct raw_tensor *raw;
    size_t n_raw, raw_cap;
    struct map raw_index;
    struct gguf_kv *kv;
    size_t n_kv, kv_cap;
    struct map kv_index;
    struct map tensor_index;
    void **owned;               /* unpacked tensors */
    size_t n_owned, owned_cap;
    char *metadata_path;        /* where config errors point: the GGUF or config.json */
    /* Hugging Face folders only */
    const char *prefix;         /* "model.", "model.language_model." ...: before "embed_tokens.weight" */
    bool tied, k_eq_v;          /* as config.json has it */
    cJSON *config;              /* the whole config.json */
    const char *packed_method;  /* "gptq", "mlx" ...; NULL: not quantized */
    bool rounds_activations;    /* where it was meant to run activations are rounded too; here they are as in every other arm */
};

/* ---- files.c ---- */
bool files_add_map(struct model_files *f, const char *path, struct mapping **out, struct error *err);
bool files_add_raw(struct model_files *f, const struct raw_tensor *t, struct error *err);
struct raw_tensor *files_raw(const struct model_files *f, const char *name);
void *files_own(struct model_files *f, uint64_t bytes, struct error *err);     /* 64-byte aligned, to be filled */
void files_disown(struct model_files *f, size_t n);     /* free all but the first n owned */
/* No two raw tensors of one file share bytes; none has a zero dimension. */
bool files_check_overlap(struct model_files *f, struct error *err);
void files_free(struct model_files *f);

/* ---- metadata.c: GGUF key-values, also the common form of a config.json ---- */
bool kv_add(struct model_files *f, const struct gguf_kv *kv, struct error *err);       /* key copied; duplicates refused */
bool kv_add_int(struct model_files *f, const char *key, int64_t v, struct error *err); /* u32 */
bool kv_add_float(struct model_files *f, const char *key, double v, struct error *err);        /* f32 */
bool kv_add_bool(struct model_files *f, const char *key, bool v, struct error *err);
bool kv_add_str(struct model_files *f, const char *key, const char *v, struct error *err);
bool kv_add_ints(struct model_files *f, const char *key, enum gguf_type element, const int32_t *v, int n, struct error *err);
const struct gguf_kv *kv_find(const struct model_files *f, const char *key);
size_t gguf_type_size(enum gguf_type t);        /* 0: strings and arrays */
const char *gguf_type_name(enum gguf_type t);
/* Element i of an integer, bool or float array, or the scalar itself (any i). */
bool kv_int_at(const struct gguf_kv *kv, uint64_t i, int64_t *out);
bool kv_float(const struct gguf_kv *kv, double *out);
const char *kv_string(const struct model_files *f, const char *key);           /* NULL: absent or no string */

/* ---- readers ---- */
bool gguf_read(struct model_files *f, const char *path, struct error *err);
/* path: a folder, or one .safetensors file. */
bool safetensors_read(struct model_files *f, const char *path, struct error *err);

/* ---- foreign.c: what is no model that we read, said by name ---- */
/* dir lacks the file(s) missing; looks what else is there.  Always false. */
bool foreign_folder(const char *dir, const char *missing, struct error *err);
/* False: the file's first bytes are those of a known other kind. */
bool foreign_file(const struct mapping *map, const char *path, struct error *err);
/* False: metadata says adapter, projector, importance matrix .., or there are no tensors. */
bool foreign_gguf(const struct model_files *f, const char *path, struct error *err);

/* ---- arch.c ---- */
struct arch {
    const char *name;           /* GGUF spelling */
    const char *hf[4];          /* model_type of config.json */
    const char *models;         /* whose it is, for people */
    bool gemma;                 /* scaled embedding, GELU, sandwich norms, sliding layers */
    bool norm_add;              /* Hugging Face norms hold w - 1 */
    bool qk_norm, v_norm, qkv_bias, adjacent, moe;
    int sliding_period;         /* every so-manieth layer is full when the file does not say; 0 = no pattern */
};
const struct arch *arch_find(const char *name);
const struct arch *arch_of_hf(const char *model_type);
/* Fill m->config from f's metadata; which optional tensors exist decides the rest. */
bool config_from_metadata(struct model *m, struct model_files *f, const struct arch *a, bool (*has)(const struct model *m, const char *gguf_name),
                          struct error *err);

/* ---- layout.c ---- */
struct slot {                   /* one tensor that the config calls for */
    char name[64];
    char hf[96];                /* Hugging Face name without prefix, "" if generated; "%d" left for the expert number */
    bool per_expert;
    bool norm;
    bool any_scale;             /* unpacked blocks of 4 bits take the form that holds every scale, so that experts agree */
    int64_t rows, cols, mats;
};
enum { LAYOUT_SPLIT_EXPERTS = 1, LAYOUT_ROPE_FREQS = 2 };
bool layout_build(const struct model_config *c, int flags, struct slot **out, size_t *n, struct error *err);
/* Is name a tensor that files may carry though nothing reads it (K/V of layers that borrow theirs)? */
bool layout_tolerates(const struct model_config *c, const char *gguf_name);

/* ---- hf.c, hf_config.c ---- */
bool hf_open(struct model *m, const char *path, struct error *err);
/* config.json (in f->config) as GGUF key-values, and rope_freqs.weight as a raw tensor where the config calls for one. */
bool hf_metadata(struct model_files *f, const struct arch **a, struct error *err);

/* ---- packed.c: layouts of quantized Hugging Face checkpoints ---- */
struct packed;
/* *out NULL: the checkpoint is not quantized. dir: where companion files lie. */
bool packed_open(struct packed **out, struct model_files *f, const char *dir, struct error *err);
/* Unpack module base ("model.layers.0.self_attn.q_proj") into t; *found false when it has no packed tensors. */
bool packed_load(struct packed *p, struct model_files *f, const char *base, const struct slot *s, struct tensor *t, bool *found, struct error *err);
void packed_close(struct packed *p);

/* ---- vocabulary.c ---- */
void open_tokenizer(struct model *m);           /* on failure m->tokenizer_error says why */

/* ---- identity.c ---- */
bool describe_weights(struct model *m, struct error *err);     /* recipe, bits per weight */

#endif
