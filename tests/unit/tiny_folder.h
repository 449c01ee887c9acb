/* tiny_folder.h - a one-layer Llama as a Hugging Face folder, made in the test, whose parts a test may replace. */
#ifndef QDELTA_TEST_TINY_FOLDER_H
#define QDELTA_TEST_TINY_FOLDER_H

#include "scratch.h"

#include "model/model.h"

enum { TINY_HIDDEN = 64, TINY_VOCAB = 40, TINY_KV = 32, TINY_MAX = 32 };
#define TINY_CONFIG                                                                                                        \
    "\"model_type\":\"llama\",\"num_hidden_layers\":1,\"hidden_size\":64,\"num_attention_heads\":2,"                       \
    "\"num_key_value_heads\":1,\"head_dim\":32,\"intermediate_size\":64,\"vocab_size\":40,\"max_position_embeddings\":64," \
    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"tie_word_embeddings\":true"

struct tiny {
    char dir[64];
    struct safetensors_entry e[TINY_MAX];
    void *data[TINY_MAX];
    size_t bytes[TINY_MAX];
    int n;
};

static inline void tiny_add(struct tiny *t, const char *name, const char *dtype, int64_t d0, int64_t d1, const void *data, size_t bytes)
{
    CHECK(t->n < TINY_MAX, "too many tensors");
    t->e[t->n] = (struct safetensors_entry){ .name = name, .dtype = dtype, .n_dims = d1 ? 2 : 1, .dims = { d0, d1 } };
    t->data[t->n] = malloc(bytes);
    memcpy(t->data[t->n], data, bytes);
    t->bytes[t->n++] = bytes;
}

static inline void tiny_add_f32(struct tiny *t, const char *name, int64_t d0, int64_t d1)
{
    size_t n = (size_t)(d0 * (d1 ? d1 : 1));
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(random_unit_at((uint64_t)t->n, i) - 0.5);
    tiny_add(t, name, "F32", d0, d1, x, n * sizeof *x);
    free(x);
}

/* All tensors but the one called except ("" for all). */
static inline void tiny_start(struct tiny *t, const char *except)
{
    static const struct { const char *name; int64_t d0, d1; } all[] = {
        { "model.embed_tokens.weight", TINY_VOCAB, 64 }, { "model.norm.weight", 64, 0 }, { "model.layers.0.input_layernorm.weight", 64, 0 },
        { "model.layers.0.post_attention_layernorm.weight", 64, 0 }, { "model.layers.0.self_attn.q_proj.weight", 64, 64 },
        { "model.layers.0.self_attn.k_proj.weight", TINY_KV, 64 }, { "model.layers.0.self_attn.v_proj.weight", TINY_KV, 64 },
        { "model.layers.0.self_attn.o_proj.weight", 64, 64 }, { "model.layers.0.mlp.gate_proj.weight", 64, 64 },
        { "model.layers.0.mlp.up_proj.weight", 64, 64 }, { "model.layers.0.mlp.down_proj.weight", 64, 64 },
    };
    *t = (struct tiny){ .dir = "/tmp/qdelta-tiny-XXXXXX" };
    CHECK(mkdtemp(t->dir), "no temporary folder");
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (strcmp(all[i].name, except))
            tiny_add_f32(t, all[i].name, all[i].d0, all[i].d1);
}

static inline void tiny_path(const struct tiny *t, const char *name, char path[128])
{
    snprintf(path, 128, "%s/%s", t->dir, name);
}

static inline void tiny_put(const struct tiny *t, const char *name, const char *text)
{
    struct error err;
    char path[128];
    tiny_path(t, name, path);
    MUST(file_write(path, text, strlen(text), &err));
}

/* metadata: key, value, ..., NULL; extra: more of config.json, beginning with a comma, or "". */
static inline void tiny_write(struct tiny *t, const char *extra, const char *const *metadata)
{
    struct error err;
    struct safetensors_writer *w;
    char path[128], config[4096];
    snprintf(config, sizeof config, "{%s%s}", TINY_CONFIG, extra);
    tiny_put(t, "config.json", config);
    tiny_path(t, "model.safetensors", path);
    MUST(safetensors_writer_open(&w, path, t->e, t->n, metadata, &err));
    for (int i = 0; i < t->n; i++)
        MUST(safetensors_writer_data(w, t->data[i], t->bytes[i], &err));
    MUST(safetensors_writer_commit(w, &err));
}

static inline void tiny_remove(struct tiny *t)
{
    for (int i = 0; i < t->n; i++)
        free(t->data[i]);
    remove_tree(t->dir);
}

/* The folder must be refused, and the message must hold these words. */
static inline void tiny_refused(const char *path, const char *words, const char *what)
{
    struct error err = { 0 };
    struct model m;
    bool opened = model_open(&m, path, false, &err);
    if (opened)
        model_close(&m);
    CHECK(!opened, "%s was opened", what);
    CHECK(strstr(err.text, words), "%s: the message is \"%s\", expected \"%s\" in it", what, err.text, words);
}

#endif
