/* vocab_files.h - vocabularies of the shared test data -> struct tokenizer_spec, for the tokenizer tests.
 *
 * GGUF metadata is read with thirty lines of our own, so these tests do not lean on the file reader they
 * stand beside.  Rank files ("base64 rank" a line, tiktoken's form) hold no merges: a token of rank r can
 * come from any two tokens that add up to it, and all such pairs take its place in the order.  That is
 * exactly the rank rule: of all neighbours, join those whose sum has the lowest rank. */
#ifndef QDELTA_TEST_VOCAB_FILES_H
#define QDELTA_TEST_VOCAB_FILES_H

#include "check.h"
#include "model/tokenizer.h"

struct vocab {
    struct tokenizer_spec spec;
    struct arena arena;
    const char **tokens, **merges;
    uint32_t *lens;
    float *scores;
    int32_t *types;
    size_t n_merges, cap_merges;
    char pre[64], kind[64];
};

static inline void vocab_free(struct vocab *v)
{
    arena_free(&v->arena);
    free(v->tokens);
    free(v->merges);
    free(v->lens);
    free(v->scores);
    free(v->types);
}

/* ---- GGUF ---- */

struct gguf_cursor {
    const uint8_t *p, *end;
};

static inline uint64_t gguf_int(struct gguf_cursor *c, int bytes)
{
    uint64_t v = 0;
    CHECK(c->end - c->p >= bytes, "the GGUF ends early");
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)c->p[i] << 8 * i;
    c->p += bytes;
    return v;
}

static inline const char *gguf_string(struct gguf_cursor *c, uint64_t *len)
{
    *len = gguf_int(c, 8);
    CHECK((uint64_t)(c->end - c->p) >= *len, "a GGUF string ends early");
    c->p += *len;
    return (const char *)c->p - *len;
}

/* bytes of the scalar types 0..12; 0: string (8) or array (9) */
static const int gguf_width[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

static inline void gguf_array(struct vocab *v, struct gguf_cursor *c, const char *key)
{
    struct error err;
    uint64_t type = gguf_int(c, 4), n = gguf_int(c, 8), len;
    bool tokens = strcmp(key, "tokens") == 0, merges = strcmp(key, "merges") == 0;
    CHECK(type != 9 && type <= 12, "type %d of array %s", (int)type, key);
    if (tokens) {
        v->spec.n_tokens = (int)n;
        v->tokens = calloc(n, sizeof *v->tokens);
        v->lens = calloc(n, sizeof *v->lens);
    }
    if (merges) {
        v->spec.n_merges = (int64_t)n;
        v->merges = calloc(n, sizeof *v->merges);
    }
    if (strcmp(key, "scores") == 0)
        v->scores = calloc(n, sizeof *v->scores);
    if (strcmp(key, "token_type") == 0)
        v->types = calloc(n, sizeof *v->types);
    for (uint64_t i = 0; i < n; i++) {
        if (type == 8) {
            const char *s = gguf_string(c, &len);
            if (tokens || merges)
                *(tokens ? &v->tokens[i] : &v->merges[i]) = arena_str(&v->arena, s, len, &err);
            if (tokens)
                v->lens[i] = (uint32_t)len;
            continue;
        }
        uint32_t bits = (uint32_t)gguf_int(c, gguf_width[type]);
        if (v->scores && strcmp(key, "scores") == 0)
            memcpy(&v->scores[i], &bits, 4);
        if (v->types && strcmp(key, "token_type") == 0)
            v->types[i] = (int32_t)bits;
    }
}

static inline void gguf_value(struct vocab *v, struct gguf_cursor *c, const char *key)
{
    uint64_t type = gguf_int(c, 4), len;
    CHECK(type <= 12, "GGUF type %d", (int)type);
    if (type == 9) {
        gguf_array(v, c, key);
    } else if (type == 8) {
        const char *s = gguf_string(c, &len);
        if (strcmp(key, "model") == 0)
            snprintf(v->kind, sizeof v->kind, "%.*s", (int)len, s);
        if (strcmp(key, "pre") == 0)
            snprintf(v->pre, sizeof v->pre, "%.*s", (int)len, s);
    } else {
        uint64_t bits = gguf_int(c, gguf_width[type]);
        const struct { const char *key; int *field; } ids[] = {
            { "bos_token_id", &v->spec.bos }, { "eos_token_id", &v->spec.eos },
            { "unknown_token_id", &v->spec.unk }, { "padding_token_id", &v->spec.pad },
        };
        for (size_t i = 0; i < ARRAY_LEN(ids); i++)
            if (strcmp(key, ids[i].key) == 0)
                *ids[i].field = (int)bits;
        if (strcmp(key, "add_bos_token") == 0)
            v->spec.add_bos = bits != 0;
        if (strcmp(key, "add_space_prefix") == 0)
            v->spec.add_space_prefix = bits != 0;
    }
}

static inline void vocab_gguf(struct vocab *v, const char *path)
{
    struct error err;
    struct mapping file = { 0 };
    MUST(mapping_open(&file, path, &err));
    struct gguf_cursor c = { file.data, file.data + file.size };
    CHECK(gguf_int(&c, 4) == 0x46554747, "%s is no GGUF", path);
    gguf_int(&c, 4);
    gguf_int(&c, 8);
    *v = (struct vocab){ .spec = { .where = path, .bos = -1, .eos = -1, .unk = -1, .pad = -1 } };
    snprintf(v->kind, sizeof v->kind, "llama");
    v->spec.add_space_prefix = true;        /* the default for "llama" */
    for (uint64_t n = gguf_int(&c, 8), len; n--;) {
        const char *name = gguf_string(&c, &len), *prefix = "tokenizer.ggml.";
        char key[64] = "";
        if (len > strlen(prefix) && memcmp(name, prefix, strlen(prefix)) == 0)
            snprintf(key, sizeof key, "%.*s", (int)(len - strlen(prefix)), name + strlen(prefix));
        gguf_value(v, &c, key);
    }
    mapping_close(&file);
    v->spec.kind = v->kind, v->spec.pre = v->pre[0] ? v->pre : NULL;
    v->spec.tokens = v->tokens, v->spec.token_lens = v->lens, v->spec.merges = v->merges;
    v->spec.scores = v->scores, v->spec.types = v->types;
}

/* ---- rank files ---- */

static inline size_t base64_bytes(const char *s, size_t len, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0;
    size_t n = 0, have = 0;
    for (size_t i = 0; i < len && s[i] != '='; i++) {
        bits = bits << 6 | (uint32_t)(strchr(digits, s[i]) - digits);
        if ((have += 6) >= 8)
            out[n++] = (char)(bits >> (have -= 8));
    }
    return n;
}

/* GPT-2's printable stand-ins: printable Latin-1 is itself, the others follow from U+0100 on. */
static inline void add_stand_ins(struct text *out, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t b = (uint8_t)bytes[i];
        uint32_t code = b;
        if (b <= 32)
            code = 0x100u + b;
        else if (b >= 127 && b <= 160)
            code = 0x121u + (b - 127u);
        else if (b == 173)
            code = 0x143;
        char utf8[4];
        text_add(out, utf8, (size_t)utf8_encode(code, utf8));
    }
}

static inline void add_rank_merges(struct vocab *v, const struct map *ranks, const char *token, size_t len)
{
    struct error err;
    int64_t rank;
    for (size_t i = 1; i < len; i++) {
        if (!map_get(ranks, token, i, &rank) || !map_get(ranks, token + i, len - i, &rank))
            continue;
        struct text merge = { 0 };
        add_stand_ins(&merge, token, i);
        text_putc(&merge, ' ');
        add_stand_ins(&merge, token + i, len - i);
        MUST(mem_grow(&v->merges, &v->cap_merges, v->n_merges + 1, sizeof *v->merges, &err));
        v->merges[v->n_merges++] = arena_str(&v->arena, merge.data, merge.len, &err);
        text_free(&merge);
    }
}

/* Ranks 0..n-1 in order; n_extra special tokens follow. */
static inline void vocab_ranks(struct vocab *v, const char *path, const char *pre, const char *const *extra, int n_extra)
{
    struct error err;
    struct text file = { 0 };
    MUST(file_read(path, 0, &file, &err));
    *v = (struct vocab){ .spec = { .where = path, .bos = -1, .eos = -1, .unk = -1, .pad = -1 } };
    struct { const char *bytes; size_t len; } *raw = NULL;
    size_t cap = 0, n = 0;
    struct map ranks = { 0 };
    for (char *line = file.data; *line; n++) {
        char *blank = strchr(line, ' '), *end = strchr(line, '\n'), bytes[1024];
        size_t len = base64_bytes(line, (size_t)(blank - line), bytes);
        MUST(mem_grow(&raw, &cap, n + 1, sizeof *raw, &err));
        raw[n].bytes = arena_str(&v->arena, bytes, len, &err);
        raw[n].len = len;
        CHECK(strtoul(blank + 1, NULL, 10) == n, "%s: rank %zu is not in its place", path, n);
        MUST(map_put(&ranks, raw[n].bytes, len, (int64_t)n, &err));
        line = end + 1;
    }
    v->tokens = calloc(n + (size_t)n_extra, sizeof *v->tokens);
    v->lens = calloc(n + (size_t)n_extra, sizeof *v->lens);
    v->types = calloc(n + (size_t)n_extra, sizeof *v->types);
    for (size_t i = 0; i < n + (size_t)n_extra; i++) {
        struct text name = { 0 };
        if (i < n)
            add_stand_ins(&name, raw[i].bytes, raw[i].len);
        else
            text_puts(&name, extra[i - n]);
        v->tokens[i] = arena_str(&v->arena, name.data, name.len, &err);
        v->lens[i] = (uint32_t)name.len;
        v->types[i] = i < n ? TOKEN_NORMAL : TOKEN_CONTROL;
        text_free(&name);
        if (i < n)
            add_rank_merges(v, &ranks, raw[i].bytes, raw[i].len);
    }
    map_free(&ranks);
    free(raw);
    text_free(&file);
    v->spec.kind = "gpt2", v->spec.pre = pre;
    v->spec.n_tokens = (int)n + n_extra;
    v->spec.tokens = v->tokens, v->spec.token_lens = v->lens, v->spec.types = v->types;
    v->spec.merges = v->merges, v->spec.n_merges = (int64_t)v->n_merges;
}

/* ---- temporary files ---- */

/* `gzip -dc` into a temporary file named like tokenizer.json, alone in a new folder. */
static inline void unpacked(const char *gz, const char *name, char path[256])
{
    char folder[] = "/tmp/qdelta-vocab-XXXXXX", command[2048];
    CHECK(mkdtemp(folder), "no folder in /tmp");
    snprintf(path, 256, "%s/%s", folder, name);
    snprintf(command, sizeof command, "gzip -dc '%s' > '%s'", gz, path);
    CHECK(system(command) == 0, "%s", command);
}

static inline void remove_unpacked(char path[256])
{
    remove(path);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    remove(path);
}

#endif
