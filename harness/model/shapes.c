/* shapes.c - published models as rows of sizes: config and tensor list without weights; and the memory a model needs. */
#include "files.h"

#include <stdlib.h>

struct shape {
    const char *name, *arch;
    int layers, hidden, heads, kv, kv_full, head, head_full, ffn, period, window, shared, ple, experts, experts_used, expert_ffn, vocab, context;
    int metadata_bytes;         /* of the published file beside its tensors: mostly the vocabulary */
    bool double_ffn, k_eq_v, untied;
    double theta;
};

/* Two published sizes give it: 5154939136 (E4B) and 14439361440 (26B-A4B), less their tensors. */
enum { GEMMA4_METADATA = 15822000 };

static const struct shape shapes[] = {
    /* models.md 1.1: period p means p - 1 sliding layers, then a full one; zeros are what the family has not */
    { .name = "gemma4-e2b", .arch = "gemma4", .layers = 35, .hidden = 1536, .heads = 8, .kv = 1, .kv_full = 1, .head = 256, .head_full = 512,
      .ffn = 6144, .double_ffn = true, .period = 5, .window = 512, .shared = 20, .ple = 256, .vocab = 262144, .context = 131072, .metadata_bytes = GEMMA4_METADATA, .theta = 1e6 },
    { .name = "gemma4-e4b", .arch = "gemma4", .layers = 42, .hidden = 2560, .heads = 8, .kv = 2, .kv_full = 2, .head = 256, .head_full = 512,
      .ffn = 10240, .period = 6, .window = 512, .shared = 18, .ple = 256, .vocab = 262144, .context = 131072, .metadata_bytes = GEMMA4_METADATA, .theta = 1e6 },
    { .name = "gemma4-12b", .arch = "gemma4", .layers = 48, .hidden = 3840, .heads = 16, .kv = 8, .kv_full = 1, .head = 256, .head_full = 512,
      .ffn = 15360, .period = 6, .window = 1024, .k_eq_v = true, .vocab = 262144, .context = 262144, .metadata_bytes = GEMMA4_METADATA, .theta = 1e6 },
    { .name = "gemma4-26b-a4b", .arch = "gemma4", .layers = 30, .hidden = 2816, .heads = 16, .kv = 8, .kv_full = 2, .head = 256, .head_full = 512,
      .ffn = 2112, .period = 6, .window = 1024, .k_eq_v = true, .experts = 128, .experts_used = 8, .expert_ffn = 704, .vocab = 262144,
      .context = 262144, .metadata_bytes = GEMMA4_METADATA, .theta = 1e6 },
    { .name = "gemma4-31b", .arch = "gemma4", .layers = 60, .hidden = 5376, .heads = 32, .kv = 16, .kv_full = 4, .head = 256, .head_full = 512,
      .ffn = 21504, .period = 6, .window = 1024, .k_eq_v = true, .vocab = 262144, .context = 262144, .metadata_bytes = GEMMA4_METADATA, .theta = 1e6 },
    { .name = "gemma3-270m", .arch = "gemma3", .layers = 18, .hidden = 640, .heads = 4, .kv = 1, .head = 256, .ffn = 2048, .period = 6,
      .window = 512, .vocab = 262144, .context = 32768, .theta = 1e6 },
    { .name = "gemma3-1b", .arch = "gemma3", .layers = 26, .hidden = 1152, .heads = 4, .kv = 1, .head = 256, .ffn = 6912, .period = 6,
      .window = 512, .vocab = 262144, .context = 32768, .theta = 1e6 },
    { .name = "gemma3-4b", .arch = "gemma3", .layers = 34, .hidden = 2560, .heads = 8, .kv = 4, .head = 256, .ffn = 10240, .period = 6,
      .window = 1024, .vocab = 262144, .context = 131072, .theta = 1e6 },
    { .name = "gemma2-2b", .arch = "gemma2", .layers = 26, .hidden = 2304, .heads = 8, .kv = 4, .head = 256, .ffn = 9216, .period = 2,
      .window = 4096, .vocab = 256000, .context = 8192, .theta = 1e4 },
    { .name = "llama3.2-1b", .arch = "llama", .layers = 16, .hidden = 2048, .heads = 32, .kv = 8, .head = 64, .ffn = 8192, .vocab = 128256,
      .context = 131072, .theta = 5e5 },
    { .name = "llama3.2-3b", .arch = "llama", .layers = 28, .hidden = 3072, .heads = 24, .kv = 8, .head = 128, .ffn = 8192, .vocab = 128256,
      .context = 131072, .theta = 5e5 },
    { .name = "llama3.1-8b", .arch = "llama", .layers = 32, .hidden = 4096, .heads = 32, .kv = 8, .head = 128, .ffn = 14336, .vocab = 128256,
      .context = 131072, .untied = true, .theta = 5e5 },
    { .name = "qwen2.5-0.5b", .arch = "qwen2", .layers = 24, .hidden = 896, .heads = 14, .kv = 2, .head = 64, .ffn = 4864, .vocab = 151936,
      .context = 32768, .theta = 1e6 },
    { .name = "qwen3-0.6b", .arch = "qwen3", .layers = 28, .hidden = 1024, .heads = 16, .kv = 8, .head = 128, .ffn = 3072, .vocab = 151936,
      .context = 40960, .theta = 1e6 },
    { .name = "qwen3-4b", .arch = "qwen3", .layers = 36, .hidden = 2560, .heads = 32, .kv = 8, .head = 128, .ffn = 9728, .vocab = 151936,
      .context = 40960, .theta = 1e6 },
    { .name = "qwen3-30b-a3b", .arch = "qwen3moe", .layers = 48, .hidden = 2048, .heads = 32, .kv = 4, .head = 128, .experts = 128,
      .experts_used = 8, .expert_ffn = 768, .vocab = 151936, .context = 40960, .untied = true, .theta = 1e6 },
    { .name = "smollm2-135m", .arch = "llama", .layers = 30, .hidden = 576, .heads = 9, .kv = 3, .head = 64, .ffn = 1536, .vocab = 49152,
      .context = 8192, .theta = 1e5 },
    { .name = "smollm3-3b", .arch = "smollm3", .layers = 36, .hidden = 2048, .heads = 16, .kv = 4, .head = 128, .ffn = 11008, .vocab = 128256,
      .context = 65536, .theta = 5e6 },
};

const char *const *model_shapes(void)
{
    static const char *const names[] = { "gemma4-e2b", "gemma4-e4b", "gemma4-12b", "gemma4-26b-a4b", "gemma4-31b", "gemma3-270m", "gemma3-1b", "gemma3-4b",
                                         "gemma2-2b", "llama3.2-1b", "llama3.2-3b", "llama3.1-8b", "qwen2.5-0.5b", "qwen3-0.6b", "qwen3-4b",
                                         "qwen3-30b-a3b", "smollm2-135m", "smollm3-3b", NULL };
    _Static_assert(ARRAY_LEN(names) == ARRAY_LEN(shapes) + 1, "one name a row of shapes[]");
    return names;
}

/* ---- a row as metadata: what the file of such a model would say ---- */

static bool put(struct model_files *f, const struct shape *s, const char *key, int64_t v, struct error *err)
{
    char full[96];
    snprintf(full, sizeof full, "%s.%s", s->arch, key);
    return !v || kv_add_int(f, full, v, err);
}

static bool put_layers(struct model_files *f, const struct shape *s, struct error *err)
{
    int32_t sliding[128], kv[128], ffn[128];
    char key[96];
    for (int i = 0; i < s->layers; i++) {
        sliding[i] = s->period && (i + 1) % s->period != 0;
        kv[i] = !sliding[i] && s->kv_full ? s->kv_full : s->kv;
        ffn[i] = s->double_ffn && i >= s->layers - s->shared ? 2 * s->ffn : s->ffn;
    }
    snprintf(key, sizeof key, "%s.attention.head_count_kv", s->arch);
    bool ok = kv_add_ints(f, key, GGUF_I32, kv, s->layers, err);
    snprintf(key, sizeof key, "%s.feed_forward_length", s->arch);
    ok = ok && (!s->ffn || kv_add_ints(f, key, GGUF_I32, ffn, s->layers, err));
    snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", s->arch);
    return ok && (!s->period || kv_add_ints(f, key, GGUF_BOOL, sliding, s->layers, err));
}

static bool shape_metadata(struct model_files *f, const struct shape *s, struct error *err)
{
    char eps[96], theta[96];
    int full = s->head_full ? s->head_full : s->head;
    snprintf(eps, sizeof eps, "%s.attention.layer_norm_rms_epsilon", s->arch);
    snprintf(theta, sizeof theta, "%s.rope.freq_base", s->arch);
    bool g4 = !strcmp(s->arch, "gemma4");
    return kv_add_str(f, "general.architecture", s->arch, err) && kv_add_str(f, "general.name", s->name, err) &&
           put(f, s, "block_count", s->layers, err) && put(f, s, "embedding_length", s->hidden, err) &&
           put(f, s, "attention.head_count", s->heads, err) && put(f, s, "attention.key_length", full, err) &&
           put(f, s, "attention.value_length", full, err) && put(f, s, "context_length", s->context, err) && put(f, s, "vocab_size", s->vocab, err) &&
           put(f, s, "attention.sliding_window", s->window, err) && put(f, s, "attention.shared_kv_layers", s->shared, err) &&
           put(f, s, "embedding_length_per_layer_input", s->ple, err) && put(f, s, "expert_count", s->experts, err) &&
           put(f, s, "expert_used_count", s->experts_used, err) && put(f, s, "expert_feed_forward_length", s->expert_ffn, err) &&
           put(f, s, "attention.key_length_swa", g4 ? s->head : 0, err) && put(f, s, "attention.value_length_swa", g4 ? s->head : 0, err) &&
           put(f, s, "final_logit_softcapping", g4 ? 30 : 0, err) && kv_add_float(f, eps, !strcmp(s->arch, "llama") ? 1e-5 : 1e-6, err) &&
           kv_add_float(f, theta, s->theta, err) && put_layers(f, s, err);
}

/* ---- recipes: which format each tensor class gets ---- */

enum class_kind { CLASS_VECTOR, CLASS_EMBEDDING, CLASS_ROUTER, CLASS_PLE_PROJ, CLASS_MATRIX, CLASS_COUNT };
static const struct {
    const char *name;
    enum format_id formats[CLASS_COUNT];
} recipes[] = {
    { "f32", { FORMAT_F32, FORMAT_F32, FORMAT_F32, FORMAT_F32, FORMAT_F32 } },
    { "f16", { FORMAT_F32, FORMAT_F16, FORMAT_F32, FORMAT_F16, FORMAT_F16 } },
    { "bf16", { FORMAT_F32, FORMAT_BF16, FORMAT_F32, FORMAT_BF16, FORMAT_BF16 } },
    { "q8_0", { FORMAT_F32, FORMAT_Q8_0, FORMAT_F32, FORMAT_BF16, FORMAT_Q8_0 } },
    /* every matrix and the embeddings */
    { "q4_0", { FORMAT_F32, FORMAT_Q4_0, FORMAT_F32, FORMAT_F16, FORMAT_Q4_0 } },
    /* the official QAT files; llama-quantize's own rule for Q4_0 without imatrix */
    { "google-q4_0", { FORMAT_F32, FORMAT_Q6_K, FORMAT_F32, FORMAT_F16, FORMAT_Q4_0 } },
};

static enum class_kind classify(const struct slot *s)
{
    if (s->rows == 1 || s->cols == 1)
        return CLASS_VECTOR;
    if (!strcmp(s->name, "token_embd.weight") || !strcmp(s->name, "per_layer_token_embd.weight") || !strcmp(s->name, "output.weight"))
        return CLASS_EMBEDDING;
    if (!strcmp(s->name, "per_layer_model_proj.weight"))
        return CLASS_PLE_PROJ;
    return str_ends(s->name, ".ffn_gate_inp.weight") ? CLASS_ROUTER : CLASS_MATRIX;
}

static bool shape_tensors(struct model *m, int recipe, struct error *err)
{
    struct slot *slots;
    size_t n;
    int flags = !strcmp(m->config.arch, "gemma4") ? LAYOUT_ROPE_FREQS : 0;
    if (!layout_build(&m->config, flags, &slots, &n, err))
        return false;
    m->tensors = arena_new(&m->files->arena, n * sizeof *m->tensors, err);
    bool ok = m->tensors != NULL;
    for (size_t i = 0; ok && i < n; i++) {
        const struct slot *s = &slots[i];
        enum format_id f = recipes[recipe].formats[classify(s)];
        /* Rows that the block does not divide stay in 16 bits, as quantizers do it. */
        f = s->cols % formats[f].block ? s->cols % 32 ? FORMAT_BF16 : FORMAT_Q8_0 : f;
        struct tensor t = { .format = f, .cols = s->cols, .rows = s->rows, .mats = s->mats };
        t.bytes = (uint64_t)(s->mats * s->rows * format_row_bytes(f, s->cols));
        t.name = arena_str(&m->files->arena, s->name, strlen(s->name), err);
        ok = t.name && map_put(&m->files->tensor_index, t.name, strlen(t.name), (int64_t)i, err);
        m->tensors[m->n_tensors++] = t;
        m->file_bytes += t.bytes;
    }
    free(slots);
    return ok;
}

/* Tensors that a shape has not although presence decides elsewhere. */
static bool shape_has(const struct model *m, const char *name)
{
    bool g4 = !strcmp(kv_string(m->files, "general.architecture"), "gemma4");
    if (!strcmp(name, "output.weight"))
        return kv_find(m->files, "qdelta.untied") != NULL;
    if (str_ends(name, ".attn_v.weight"))
        return kv_find(m->files, "qdelta.k_eq_v") == NULL;
    return g4 && !strcmp(name, "blk.0.layer_output_scale.weight");
}

static int find_name(const char *name, const char *const *names)
{
    for (int i = 0; names[i]; i++)
        if (!strcmp(names[i], name))
            return i;
    return -1;
}

static bool find_shape(const char *shape, const char *recipe, int *s, int *r, struct error *err)
{
    const char *names[ARRAY_LEN(recipes) + 1] = { 0 };
    for (size_t i = 0; i < ARRAY_LEN(recipes); i++)
        names[i] = recipes[i].name;
    *s = find_name(shape, model_shapes());
    *r = find_name(recipe, names);
    if (*s >= 0 && *r >= 0)
        return true;
    const char *given = *s < 0 ? shape : recipe, *near = *s < 0 ? nearest_word(given, model_shapes(), ARRAY_LEN(shapes))
                                                                : nearest_word(given, names, ARRAY_LEN(recipes));
    return fail(err, STATUS_USAGE, "no %s \"%s\"%s%s%s", *s < 0 ? "shape" : "recipe", given, near ? "; did you mean \"" : "", near ? near : "",
                near ? "\"?" : *s < 0 ? "; `qdelta list models` names them" : "");
}

bool model_shape(struct model *m, const char *shape, const char *recipe, struct error *err)
{
    int s, r;
    *m = (struct model){ .path = "", .label = "", .tokenizer_error = "a shape has no tokenizer" };
    if (!find_shape(shape, recipe, &s, &r, err) || !(m->files = mem_new(1, sizeof *m->files, err)))
        return false;
    m->path = m->label = shapes[s].name;
    m->source = MODEL_GGUF;
    m->files->metadata_path = arena_str(&m->files->arena, shape, strlen(shape), err);
    m->file_bytes = (uint64_t)shapes[s].metadata_bytes;
    bool ok = m->files->metadata_path && shape_metadata(m->files, &shapes[s], err) &&
              (!shapes[s].untied || kv_add_bool(m->files, "qdelta.untied", true, err)) &&
              (!shapes[s].k_eq_v || kv_add_bool(m->files, "qdelta.k_eq_v", true, err)) &&
              config_from_metadata(m, m->files, arch_find(shapes[s].arch), shape_has, err) && shape_tensors(m, r, err) && describe_weights(m, err);
    if (!ok)
        model_close(m);
    return ok;
}

/* ---- memory ---- */

/* Cells of a sliding layer's ring: the window and a prefill batch of 512, in steps of 256. */
static int64_t ring_cells(int window)
{
    return ((int64_t)window + 512 + 255) / 256 * 256;
}

struct memory_need model_memory(const struct model *m, int context)
{
    struct memory_need need = { .weight_bytes = m->file_bytes, .work_bytes = UINT64_C(1) << 29 };
    for (int i = 0; i < m->config.n_layers; i++) {
        const struct layer_config *l = &m->config.layers[i];
        int64_t cells = l->sliding && ring_cells(l->window) < context ? ring_cells(l->window) : context;
        if (l->kv_source == i)
            need.kv_bytes += (uint64_t)cells * 2 * (uint64_t)l->n_kv_heads * (uint64_t)l->head_size * 2;
    }
    need.total_bytes = need.weight_bytes + need.kv_bytes + need.work_bytes;
    return need;
}
