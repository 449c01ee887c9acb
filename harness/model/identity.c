/* identity.c - what a file is, told from its bytes and tensor types. */
#define _XOPEN_SOURCE 700       /* realpath */
#include "files.h"

#include <stdlib.h>
#include <sys/stat.h>

/* "attn_q" of "blk.3.attn_q.weight"; "token_embd" of "token_embd.weight". */
static void tensor_class(const char *name, char out[64])
{
    if (str_starts(name, "blk.") && strchr(name + 4, '.'))
        name = strchr(name + 4, '.') + 1;
    size_t len = strcspn(name, ".");
    snprintf(out, 64, "%.*s", (int)len, name);
}

static bool is_matrix(const struct tensor *t)
{
    return t->rows > 1 && t->cols > 1;
}

static bool is_embedding(const struct tensor *t)
{
    return !strcmp(t->name, "token_embd.weight") || !strcmp(t->name, "per_layer_token_embd.weight") || !strcmp(t->name, "output.weight");
}

/* The format that holds most weights of the layers' matrices. */
static enum format_id main_format(const struct model *m)
{
    int64_t weights[FORMAT_COUNT] = { 0 };
    int best = 0;
    for (int i = 0; i < m->n_tensors; i++)
        if (is_matrix(&m->tensors[i]) && !is_embedding(&m->tensors[i]))
            weights[m->tensors[i].format] += m->tensors[i].rows * m->tensors[i].cols * m->tensors[i].mats;
    for (int f = 1; f < FORMAT_COUNT; f++)
        if (weights[f] > weights[best])
            best = f;
    return (enum format_id)best;
}

/* "q4_0 (token_embd q6_k, ffn_down q4_1 x4)": the main format, then each class that differs. */
static void recipe_text(const struct model *m, struct text *out)
{
    enum format_id main = main_format(m);
    const char *open = " (";
    if (m->files->packed_method)
        text_printf(out, "%s ", m->files->packed_method);
    text_puts(out, formats[main].name);
    for (int i = 0; i < m->n_tensors; i++) {
        char class[64], other[64];
        const struct tensor *t = &m->tensors[i];
        bool seen = false;
        int count = 0;
        if (!is_matrix(t) || t->format == main)
            continue;
        tensor_class(t->name, class);
        for (int j = 0; j < m->n_tensors; j++) {
            tensor_class(m->tensors[j].name, other);
            bool same = is_matrix(&m->tensors[j]) && m->tensors[j].format == t->format && !strcmp(class, other);
            seen |= same && j < i;
            count += same;
        }
        if (seen)
            continue;
        text_printf(out, "%s%s %s", open, class, formats[t->format].name);
        if (count > 1)
            text_printf(out, " x%d", count);
        open = ", ";
    }
    if (*open == ',')
        text_putc(out, ')');
    if (m->files->rounds_activations)
        text_puts(out, "; weights alone, activations not rounded as it asks");
}

bool describe_weights(struct model *m, struct error *err)
{
    struct text recipe = { 0 };
    double weights = 0, bytes = 0, stored = 0;
    for (int i = 0; i < m->n_tensors; i++) {
        const struct tensor *t = &m->tensors[i];
        weights += (double)t->rows * (double)t->cols * (double)t->mats;
        bytes += (double)t->bytes;
    }
    /* Layouts that were unpacked are counted as they stand in the file. */
    for (size_t i = 0; i < m->files->n_raw; i++)
        stored += m->files->raw[i].used ? (double)m->files->raw[i].bytes : 0;
    m->bits_per_weight = weights > 0 ? 8 * (m->files->packed_method ? stored : bytes) / weights : 0;
    recipe_text(m, &recipe);
    bool ok = text_ok(&recipe, err);
    m->recipe = ok ? arena_str(&m->files->arena, text_str(&recipe), recipe.len, err) : NULL;
    text_free(&recipe);
    return m->recipe != NULL;
}

/* ---- published recipes ---- */

/* How many tensors of a class ("attn_v") hold a format; FORMAT_COUNT counts all. */
static int class_count(const struct model *m, const char *class, enum format_id f)
{
    int n = 0;
    for (int i = 0; i < m->n_tensors; i++) {
        char name[64];
        tensor_class(m->tensors[i].name, name);
        n += !strcmp(name, class) && is_matrix(&m->tensors[i]) && (f == FORMAT_COUNT || m->tensors[i].format == f);
    }
    return n;
}

/* Matrices of the layers that hold neither the main format nor one of two others. */
static int others(const struct model *m, enum format_id main, const char *class_a, const char *class_b, enum format_id f)
{
    int n = 0;
    for (int i = 0; i < m->n_tensors; i++) {
        const struct tensor *t = &m->tensors[i];
        char name[64];
        tensor_class(t->name, name);
        bool kept = is_embedding(t) || !strcmp(name, "ffn_gate_inp") || !strcmp(name, "per_layer_model_proj");
        bool allowed = t->format == f && (!strcmp(name, class_a) || !strcmp(name, class_b));
        n += is_matrix(t) && !kept && t->format != main && !allowed;
    }
    return n;
}

const char *model_published_recipe(const struct model *m)
{
    enum format_id main = main_format(m);
    const struct tensor *embedding = model_find(m, m->config.tied_output ? "token_embd.weight" : "output.weight");
    bool imatrix = kv_find(m->files, "quantize.imatrix.file") != NULL, q6_head = embedding && embedding->format == FORMAT_Q6_K;
    int layers = m->config.n_layers, early = class_count(m, "ffn_down", FORMAT_Q4_1);
    if (main == FORMAT_Q4_0 && q6_head && !others(m, main, "", "", main))
        return !strcmp(m->config.arch, "gemma4") && !imatrix ? "Google Q4_0, or llama-quantize Q4_0" : "llama-quantize Q4_0";
    if (main == FORMAT_Q4_0 && q6_head && early == layers / 8 && !others(m, main, "ffn_down", "", FORMAT_Q4_1))
        return "llama-quantize Q4_0 with imatrix";
    if (main == FORMAT_Q4_0 && !strcmp(m->config.arch, "gemma3") && embedding && embedding->format == FORMAT_F16)
        return "Google Q4_0 (Gemma 3)";
    int better = class_count(m, "attn_v", FORMAT_Q6_K) + class_count(m, "ffn_down", FORMAT_Q6_K);
    if ((main == FORMAT_Q4_K || main == FORMAT_Q5_K) && q6_head && better && !others(m, main, "attn_v", "ffn_down", FORMAT_Q6_K))
        return main == FORMAT_Q4_K ? imatrix ? "llama-quantize Q4_K_M with imatrix" : "llama-quantize Q4_K_M"
                                   : imatrix ? "llama-quantize Q5_K_M with imatrix" : "llama-quantize Q5_K_M";
    if (main == FORMAT_Q6_K && q6_head && !others(m, main, "", "", main))
        return "llama-quantize Q6_K";
    if (main == FORMAT_Q8_0 && embedding && embedding->format == FORMAT_Q8_0 && !others(m, main, "", "", main))
        return "llama-quantize Q8_0";
    return NULL;
}

/* ---- digests ---- */

static bool hash_maps(const struct model *m, char hex[65], struct error *err)
{
    struct sha256 s;
    uint8_t digest[32];
    if (!sha256_init(&s, err))
        return false;
    for (int i = 0; i < m->files->n_maps; i++)
        sha256_add(&s, m->files->maps[i].data, m->files->maps[i].size);
    sha256_end(&s, digest);
    hex_of(digest, 32, hex);
    return true;
}

/* One line a file: absolute path, size, mtime in nanoseconds; what the cached digest stands for. */
static bool cache_key(const struct model *m, struct text *key, struct error *err)
{
    for (int i = 0; i < m->files->n_maps; i++) {
        struct stat st;
        char *full = realpath(m->files->paths[i], NULL);
        if (!full || stat(full, &st)) {
            free(full);
            return fail_errno(err, m->files->paths[i], "stat");
        }
        text_printf(key, "%s %lld %lld.%09ld\n", full, (long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
        free(full);
    }
    return text_ok(key, err);
}

/* The cache file for these weights, named by the hash of its key; false when there is no home for it. */
static bool cache_path(const struct text *key, struct text *path)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache && *cache == '/')
        text_printf(path, "%s/qdelta", cache);
    else if (home && *home == '/')
        text_printf(path, "%s/.cache/qdelta", home);
    else
        return false;
    if (!text_ok(path, NULL) || !make_dirs(text_str(path), NULL))
        return false;
    text_printf(path, "/%016llx.sha256", (unsigned long long)hash_bytes(key->data, key->len));
    return text_ok(path, NULL);
}

/* The cache holds the digest, a newline, and the key it belongs to. */
static bool cache_lookup(const struct text *path, const struct text *key, char hex[65])
{
    struct text held = { 0 };
    bool hit = file_exists(text_str(path)) && file_read(text_str(path), 1 << 20, &held, NULL) && held.len == 65 + key->len &&
               held.data[64] == '\n' && !memcmp(held.data + 65, key->data, key->len);
    if (hit) {
        memcpy(hex, held.data, 64);
        hex[64] = 0;
    }
    text_free(&held);
    return hit;
}

bool model_sha256(const struct model *m, char hex[65], struct error *err)
{
    struct text key = { 0 }, path = { 0 }, entry = { 0 };
    bool ok = cache_key(m, &key, err), cached = ok && cache_path(&key, &path);
    if (ok && !(cached && cache_lookup(&path, &key, hex))) {
        ok = hash_maps(m, hex, err);
        if (ok && cached) {     /* a cache that cannot be written is no error */
            text_printf(&entry, "%s\n", hex);
            text_add(&entry, key.data, key.len);
            if (text_ok(&entry, NULL))
                file_write(text_str(&path), entry.data, entry.len, NULL);
        }
    }
    text_free(&key);
    text_free(&path);
    text_free(&entry);
    return ok;
}

bool model_tokenizer_hash(const struct model *m, char hex[65], struct error *err)
{
    hex[0] = 0;
    return !m->tokenizer || tokenizer_hash(m->tokenizer, hex, err);
}
