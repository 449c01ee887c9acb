/* writer.h - model files out: GGUF, and Hugging Face safetensors.
 *
 * Tensors are streamed one after another, so a model larger than memory can be written; the file appears
 * under its name only when whole. */
#ifndef QDELTA_MODEL_WRITER_H
#define QDELTA_MODEL_WRITER_H

#include "base/base.h"
#include "model/format.h"

enum gguf_type { GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING,
                 GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64 };

struct gguf_string {
    const char *data;
    uint64_t len;
};
struct gguf_kv {
    const char *key;
    enum gguf_type type;
    enum gguf_type element;     /* of arrays */
    uint64_t count;             /* of arrays */
    union {
        uint64_t u;             /* every unsigned width and bool */
        int64_t i;              /* every signed width */
        double f;
        struct gguf_string s;
        const void *array;      /* packed elements as on disk, or struct gguf_string[] */
    } value;
};

struct writer_tensor {          /* declared before the data */
    const char *name;
    enum format_id format;
    int n_dims;
    int64_t dims[4];            /* innermost first, as GGUF */
};

struct gguf_writer;
bool gguf_writer_open(struct gguf_writer **out, const char *path, const struct gguf_kv *kv, int n_kv,
                      const struct writer_tensor *tensors, int n_tensors, struct error *err);
/* Data of the next tensor in the declared order; may be called several times for one tensor. */
bool gguf_writer_data(struct gguf_writer *w, const void *data, uint64_t bytes, struct error *err);
/* Metadata as it stands at the end: replaces that of opening; what was written moves when the header's size changes. */
bool gguf_writer_metadata(struct gguf_writer *w, const struct gguf_kv *kv, int n_kv, struct error *err);
bool gguf_writer_commit(struct gguf_writer *w, struct error *err);     /* frees w */
void gguf_writer_discard(struct gguf_writer *w);                        /* frees w; fine on NULL */

/* safetensors: dtype is the file's spelling ("BF16", "F16", "F32", "I32", "U8"). */
struct safetensors_entry {
    const char *name, *dtype;
    int n_dims;
    int64_t dims[4];            /* outermost first, as the file */
};
struct safetensors_writer;
bool safetensors_writer_open(struct safetensors_writer **out, const char *path, const struct safetensors_entry *e,
                             int n, const char *const *metadata /* key, value, ..., NULL */, struct error *err);
bool safetensors_writer_data(struct safetensors_writer *w, const void *data, uint64_t bytes, struct error *err);
bool safetensors_writer_metadata(struct safetensors_writer *w, const char *const *metadata, struct error *err);
uint64_t safetensors_entry_bytes(const struct safetensors_entry *e);
bool safetensors_writer_commit(struct safetensors_writer *w, struct error *err);
void safetensors_writer_discard(struct safetensors_writer *w);

#endif
