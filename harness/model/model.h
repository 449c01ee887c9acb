/* model.h - the door of model/: one opened model: config, tokenizer, named tensors.
 *
 * Opens GGUF files and Hugging Face folders (or a lone .safetensors beside its config.json).  Files are
 * memory-mapped and tensors point into them where the bytes can be used as they are; tensors whose layout
 * had to be unpacked (GPTQ, AWQ, bitsandbytes, MLX, compressed-tensors ...) own their bytes, exactly the
 * same values, which a thread for each processor unpacks.  Everything dies with model_close().  Nothing
 * changes after model_open(), so threads may share a model.  Whatever the source, tensors carry GGUF names ("blk.0.attn_q.weight") and the config is
 * the same struct; the engine asks for a tensor by name and shape and gets exactly that or an error, so a
 * wrong file fails while loading, never halfway through a run. */
#ifndef QDELTA_MODEL_H
#define QDELTA_MODEL_H

#include "base/base.h"
#include "model/format.h"
#include "model/tokenizer.h"
#include "model/writer.h"

/* ---- tensors ---- */

struct tensor {
    const char *name;           /* GGUF spelling */
    enum format_id format;      /* row of formats[] */
    int64_t cols, rows, mats;   /* cols weights of a row are contiguous; rows of one matrix; matrices (experts), else 1 */
    const void *data;           /* mats * rows * format_row_bytes(format, cols) bytes; NULL: parts */
    const uint8_t *const *parts;        /* [mats]: each matrix where its file has it (experts kept apart) */
    uint64_t bytes;
    const int32_t *col_perm;    /* NULL, or [cols]: stored column j multiplies input element col_perm[j] (GPTQ act-order) */
    float add;                  /* added to each decoded element of a 1-D tensor: 1.0 for Gemma 2/3 norms of
                                   Hugging Face files (y = (1 + w) x), else 0 */
};

/* The bytes of matrix m from row r on. */
static inline const uint8_t *tensor_at(const struct tensor *t, int64_t m, int64_t r)
{
    int64_t bytes = format_row_bytes(t->format, t->cols);
    return t->data ? (const uint8_t *)t->data + (m * t->rows + r) * bytes : t->parts[m] + r * bytes;
}

/* Decode row r of matrix m into out[cols], in input order (col_perm and add applied). */
void tensor_row(const struct tensor *t, int64_t m, int64_t r, float *out);

/* Are the scales of rows [first_row, first_row + n_rows) finite?  Rows count through all matrices.  Opening a file
 * never reads the weights, so whoever reads them first (repacking, quantizing) asks. */
bool tensor_check_scales(const struct tensor *t, int64_t first_row, int64_t n_rows, struct error *err);

/* ---- config: the switch set that covers every architecture we run ---- */

enum activation { ACTIVATION_SILU, ACTIVATION_GELU_TANH };
enum moe_kind { MOE_NONE, MOE_QWEN, MOE_GEMMA4 };

struct rope_table {             /* one per distinct {theta, scaling, factors, head size} */
    int head_size;
    float *inv_freq;            /* [head_size / 2] radians per position; 0 = not rotated. Built in double. */
};

struct layer_config {
    bool sliding;               /* sees itself and window - 1 predecessors */
    int window;                 /* tokens; 0 on full layers */
    int head_size;              /* h */
    int n_kv_heads;             /* K */
    int kv_source;              /* layer whose K/V this one reads; own index when it has its own */
    bool v_from_k;              /* Gemma 4 full layers without v_proj: V = rms(raw k) */
    bool rope;                  /* false: SmolLM3's every fourth layer */
    int rope_table;             /* index into config.rope */
    int ffn_size;               /* dense F; 0 = none */
    enum moe_kind moe;
    int n_experts, n_experts_used, expert_ffn_size;
};

struct model_config {
    const char *arch;           /* GGUF spelling: "gemma4", "llama", "qwen3moe" */
    int n_layers, hidden, n_heads, vocab, context;
    float eps;
    float embed_scale;          /* 1, or sqrt(hidden) in float32 */
    float attn_scale, attn_softcap, final_softcap;      /* softcaps: 0 = none */
    enum activation activation;
    bool sandwich_norms, qk_norm, v_norm, qkv_bias;
    bool tied_output;           /* no output.weight: the embedding is the head */
    bool rope_pairs_adjacent;   /* q/k rows stored so that elements 2i, 2i+1 rotate (GGUF of the Llama family);
                                   else i, i + h/2 */
    int ple_size;               /* Gemma 4 E per-layer embeddings: 256, or 0 */
    bool layer_scale;           /* blk.i.layer_output_scale.weight present */
    bool norm_topk;             /* MoE: renormalise the chosen experts' probabilities */
    struct rope_table *rope;
    int n_rope;
    struct layer_config *layers;    /* [n_layers] */
    int bos, eos, pad;          /* -1 = none */
    int stop_ids[8], n_stop;    /* eos, eot ... that end generation */
};

/* ---- one opened model ---- */

enum model_source { MODEL_GGUF, MODEL_HF };

struct model {
    const char *path;           /* as given */
    const char *label;          /* NAME of NAME=PATH, else the file's stem */
    enum model_source source;
    struct model_config config;
    struct tensor *tensors;     /* in file order; look up by model_tensor */
    int n_tensors;
    struct tokenizer *tokenizer;        /* NULL: the file has none; needed only where text is */
    const char *tokenizer_error;        /* why tokenizer is NULL */
    const char *chat_template;          /* Jinja text or NULL */
    const char *recipe;                 /* "bf16", "q4_0 (token_embd q6_k)": from the tensor types */
    uint64_t file_bytes;                /* weights files on disk */
    double bits_per_weight;             /* over all tensors */
    struct model_files *files;          /* private: mappings, arenas, metadata */
};

/* Weights are opened, checked and indexed; the tokenizer is built when with_tokenizer.  Formats, shapes and
 * counts that do not fit are errors that name file, tensor, found and expected. */
bool model_open(struct model *m, const char *spec, bool with_tokenizer, struct error *err);
void model_close(struct model *m);          /* fine on a zeroed or half-open model */

/* Rows [first, first + n) of t, counted through all matrices, are done with for now: mapped pages leave memory until they
 * are touched again. */
void model_forget(const struct model *m, const struct tensor *t, int64_t first, int64_t n);
/* Is path one of the files that the model was read from: weights, config.json? */
bool model_uses_file(const struct model *m, const char *path);

/* Borrow the tensor called name; the error tells the found shape from the wanted one. */
bool model_tensor(const struct model *m, const char *name, int64_t rows, int64_t cols, int64_t mats,
                  const struct tensor **out, struct error *err);
const struct tensor *model_find(const struct model *m, const char *name);      /* NULL: not there */

/* The published recipe that the tensor types are those of ("llama-quantize Q4_K_M", "Google Q4_0"), or NULL. */
const char *model_published_recipe(const struct model *m);

/* Does any token reach a tensor through a quantized (integer or codebook) format?  (quantize refuses those.) */
bool model_is_quantized(const struct model *m);

/* SHA-256 of the weights file(s), hex; cached in ~/.cache/qdelta (or $XDG_CACHE_HOME) by path, size, mtime. */
bool model_sha256(const struct model *m, char hex[65], struct error *err);
/* SHA-256 over vocabulary, merges, scores, special ids, hex; "" without tokenizer. */
bool model_tokenizer_hash(const struct model *m, char hex[65], struct error *err);

/* The metadata of the source as GGUF key-values (converted for Hugging Face folders), for writers; borrowed. */
bool model_metadata(const struct model *m, struct gguf_kv **kv, int *n, struct error *err);

/* The tokenizer (not NULL) as tokenizer.json, tokenizer_config.json and generation_config.json in folder dir. */
bool model_write_tokenizer(const struct model *m, const char *dir, struct error *err);

/* Architecture number i that we run and the models that have it; false beyond the last. */
bool model_arch(size_t i, const char **name, const char **models);

/* Bytes needed to run with one sequence of context tokens: weights, a 16-bit K/V cache (whole on full layers, a ring of
 * the window and one prefill batch on sliding ones), half a GiB of work space. */
struct memory_need {
    uint64_t weight_bytes, kv_bytes, work_bytes, total_bytes;
};
struct memory_need model_memory(const struct model *m, int context);

/* Shape rows of published models without weights ("gemma4-e2b"): config and tensor list (data NULL, formats of
 * recipe: "bf16", "q4_0", "google-q4_0"), for `inspect --shape` and `bench --shape`. */
bool model_shape(struct model *m, const char *shape, const char *recipe, struct error *err);
const char *const *model_shapes(void);

#endif
