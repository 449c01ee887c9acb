/* vocabulary.c - the tokenizer of an opened model, from GGUF arrays or a tokenizer.json. */
#include "files.h"

#include "tokenizer_private.h"

#include <stdlib.h>

static int64_t special_id(const struct model_files *f, const char *key)
{
    const struct gguf_kv *kv = kv_find(f, key);
    int64_t v;
    return kv && kv_int_at(kv, 0, &v) && v >= 0 && v <= INT32_MAX ? v : -1;
}

static bool flag(const struct model_files *f, const char *key, bool absent)
{
    const struct gguf_kv *kv = kv_find(f, key);
    int64_t v;
    return kv && kv_int_at(kv, 0, &v) ? v != 0 : absent;
}

/* An array of strings as pointers; each string is copied to get its NUL. */
static bool string_array(struct model_files *f, struct arena *a, const char *key, const char *const **out, uint32_t **lens, uint64_t *n,
                         struct error *err)
{
    const struct gguf_kv *kv = kv_find(f, key);
    if (!kv || kv->type != GGUF_ARRAY || kv->element != GGUF_STRING || kv->count > INT32_MAX)
        return fail(err, STATUS_FORMAT, "%s: %s", key, kv ? "not an array of strings" : "missing");
    const struct gguf_string *s = kv->value.array;
    const char **p = arena_new(a, (size_t)kv->count * sizeof *p + 1, err);
    *lens = arena_new(a, (size_t)kv->count * sizeof **lens + 1, err);
    for (uint64_t i = 0; p && *lens && i < kv->count; i++) {
        if (s[i].len > UINT32_MAX)
            return fail(err, STATUS_FORMAT, "%s: string %llu has %llu bytes", key, (unsigned long long)i, (unsigned long long)s[i].len);
        (*lens)[i] = (uint32_t)s[i].len;
        p[i] = arena_str(a, s[i].data, (size_t)s[i].len, err);
        if (!p[i])
            return false;
    }
    *out = p;
    *n = kv->count;
    return p && *lens;
}

/* A numeric array of the right type and length, or NULL when the key is absent. */
static bool number_array(const struct model_files *f, const char *key, enum gguf_type a, enum gguf_type b, uint64_t n, const void **out,
                         struct error *err)
{
    const struct gguf_kv *kv = kv_find(f, key);
    *out = NULL;
    if (!kv)
        return true;
    if (kv->type != GGUF_ARRAY || (kv->element != a && kv->element != b) || kv->count != n)
        return fail(err, STATUS_FORMAT, "%s: %llu values of type %s, expected %llu of %s", key,
                    (unsigned long long)(kv->type == GGUF_ARRAY ? kv->count : 1), gguf_type_name(kv->type == GGUF_ARRAY ? kv->element : kv->type),
                    (unsigned long long)n, gguf_type_name(a));
    *out = kv->value.array;
    return true;
}

static bool tokenizer_from_gguf(struct model *m, struct error *err)
{
    struct model_files *f = m->files;
    struct arena a = { 0 };
    const char *kind = kv_string(f, "tokenizer.ggml.model");
    struct tokenizer_spec spec = { .where = m->path, .kind = kind, .pre = kv_string(f, "tokenizer.ggml.pre") };
    uint64_t n = 0, n_merges = 0;
    const void *scores, *types;
    uint32_t *merge_lens;
    if (!kind)
        return fail(err, STATUS_INPUT, "%s: the file has no tokenizer", m->path);
    bool spm = !strcmp(kind, "llama");
    bool ok = string_array(f, &a, "tokenizer.ggml.tokens", &spec.tokens, (uint32_t **)&spec.token_lens, &n, err) &&
              number_array(f, "tokenizer.ggml.scores", GGUF_F32, GGUF_F32, n, &scores, err) &&
              number_array(f, "tokenizer.ggml.token_type", GGUF_I32, GGUF_U32, n, &types, err) &&
              (spm || string_array(f, &a, "tokenizer.ggml.merges", &spec.merges, &merge_lens, &n_merges, err));
    if (ok) {
        spec.n_tokens = (int)n;
        spec.n_merges = (int64_t)n_merges;
        spec.scores = scores;
        spec.types = types;
        spec.bos = (int)special_id(f, "tokenizer.ggml.bos_token_id");
        spec.eos = (int)special_id(f, "tokenizer.ggml.eos_token_id");
        spec.unk = (int)special_id(f, "tokenizer.ggml.unknown_token_id");
        spec.pad = (int)special_id(f, "tokenizer.ggml.padding_token_id");
        spec.add_bos = flag(f, "tokenizer.ggml.add_bos_token", spm || pretokenizer_adds_bos(spec.pre));
        /* Gemma 4 cannot do without; some of its files say false. */
        spec.add_bos = spec.add_bos || !strcmp(kind, "gemma4");
        spec.add_space_prefix = flag(f, "tokenizer.ggml.add_space_prefix", spm);
        ok = tokenizer_new(&m->tokenizer, &spec, err);
    }
    arena_free(&a);
    return ok;
}

static bool tokenizer_from_folder(struct model *m, struct error *err)
{
    struct text path = { 0 };
    bool lone = str_ends(m->path, ".safetensors");
    size_t dir = lone ? (size_t)(path_base(m->path) - m->path) : strlen(m->path);
    text_add(&path, m->path, dir);
    text_puts(&path, lone && dir == 0 ? "tokenizer.json" : lone ? "tokenizer.json" : "/tokenizer.json");
    bool ok = text_ok(&path, err);
    if (ok && !file_exists(text_str(&path)))
        ok = fail(err, STATUS_INPUT, "%s: no tokenizer.json beside the weights", m->path);
    ok = ok && tokenizer_from_json(&m->tokenizer, text_str(&path), err);
    text_free(&path);
    return ok;
}

void open_tokenizer(struct model *m)
{
    struct error err;
    if (m->source == MODEL_GGUF ? tokenizer_from_gguf(m, &err) : tokenizer_from_folder(m, &err))
        return;
    m->tokenizer = NULL;
    m->tokenizer_error = arena_str(&m->files->arena, err.text, strlen(err.text), NULL);
    if (!m->tokenizer_error)
        m->tokenizer_error = "out of memory";
}

/* ---- a tokenizer.json's vocabulary as GGUF arrays, for writers ---- */

static int by_rank(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static struct pair *pairs_by_rank(const struct tokenizer *t, struct error *err)
{
    size_t n = 0;
    struct pair *sorted = mem_new(t->pairs.count + 1, sizeof *sorted, err);
    for (size_t i = 0; sorted && i <= t->pairs.mask; i++)
        if (t->pairs.slots[i].left >= 0)
            sorted[n++] = t->pairs.slots[i];
    if (sorted)
        qsort(sorted, n, sizeof *sorted, by_rank);
    return sorted;
}

/* Merges are kept as pairs of ids; files want "left right". */
static bool put_merges(struct model_files *f, const struct tokenizer *t, struct error *err)
{
    size_t n = t->pairs.count;
    struct pair *sorted = pairs_by_rank(t, err);
    struct gguf_string *s = sorted ? arena_new(&f->arena, (n + 1) * sizeof *s, err) : NULL;
    for (size_t i = 0; s && i < n; i++) {
        const struct token *l = &t->tokens[sorted[i].left], *r = &t->tokens[sorted[i].right];
        char *text = arena_new(&f->arena, (size_t)l->len + r->len + 2, err);
        if (!text) {
            s = NULL;
            break;
        }
        memcpy(text, l->text, l->len);
        text[l->len] = ' ';
        memcpy(text + l->len + 1, r->text, r->len);
        s[i] = (struct gguf_string){ text, (uint64_t)l->len + r->len + 1 };
    }
    free(sorted);
    return s && kv_add(f, &(struct gguf_kv){ .key = "tokenizer.ggml.merges", .type = GGUF_ARRAY, .element = GGUF_STRING, .count = n, .value.array = s }, err);
}

static bool put_tokens(struct model_files *f, const struct tokenizer *t, struct error *err)
{
    size_t n = (size_t)t->n_tokens;
    struct gguf_string *s = arena_new(&f->arena, n * sizeof *s + 1, err);
    int32_t *types = arena_new(&f->arena, n * sizeof *types + 1, err);
    if (!s || !types)
        return false;
    for (size_t i = 0; i < n; i++) {
        s[i] = (struct gguf_string){ t->tokens[i].text, t->tokens[i].len };
        types[i] = t->tokens[i].type;
    }
    return kv_add(f, &(struct gguf_kv){ .key = "tokenizer.ggml.tokens", .type = GGUF_ARRAY, .element = GGUF_STRING, .count = n, .value.array = s }, err) &&
           kv_add(f, &(struct gguf_kv){ .key = "tokenizer.ggml.token_type", .type = GGUF_ARRAY, .element = GGUF_I32, .count = n, .value.array = types }, err);
}

static bool put_id(struct model_files *f, const char *key, int id, struct error *err)
{
    return id < 0 || kv_find(f, key) || kv_add_int(f, key, id, err);
}

/* ---- merges as SPM scores ---- */

/* Tokens in the order of their merges get falling scores; those whose merges alternate (runs of blanks, which SPM
 * vocabularies give one score) get the same.  Tokens that no merge makes come last. */
static float *scores_of(const struct tokenizer *t, const struct pair *sorted, struct arena *a, struct error *err)
{
    size_t n = t->pairs.count, end = 0;
    float *scores = arena_new(a, (size_t)t->n_tokens * sizeof *scores, err), class = 0;
    size_t *last = arena_new(a, (size_t)t->n_tokens * sizeof *last, err);
    if (!scores || !last)
        return NULL;
    for (int i = 0; i < t->n_tokens; i++)
        scores[i] = -(float)t->n_tokens;
    for (size_t i = 0; i < n; i++)
        last[sorted[i].merged] = i;
    for (size_t i = 0; i < n; i++) {
        class += i > end;
        end = last[sorted[i].merged] > end || i == 0 ? last[sorted[i].merged] : end;
        scores[sorted[i].merged] = -class;
    }
    return scores;
}

/* One character over and over: how often, else 0. */
static uint32_t run_length(const struct token *k, uint32_t *code)
{
    uint32_t n = 0, next;
    for (uint32_t i = 0; i < k->len; n++) {
        int bytes = utf8_decode(k->text + i, k->len - i, &next);
        if (!bytes || (n && next != *code))
            return 0;
        *code = next;
        i += (uint32_t)bytes;
    }
    return n;
}

/* Do both cut runs of this character alike, up to three times the longest token? */
static bool same_runs(const struct tokenizer *t, const struct tokenizer *spm, uint32_t code, uint32_t longest)
{
    char utf8[4];
    struct text run = { 0 };
    bool same = true;
    for (uint32_t i = 0; same && i < 3 * longest; i++) {
        struct ids a = { 0 }, b = { 0 };
        text_add(&run, utf8, (size_t)utf8_encode(code == SPACE_MARK_CODE ? ' ' : code, utf8));
        same = text_ok(&run, NULL) && tokenizer_encode(t, run.data, run.len, false, false, &a, NULL) &&
               tokenizer_encode(spm, run.data, run.len, false, false, &b, NULL) && a.n == b.n && !memcmp(a.data, b.data, a.n * sizeof *a.data);
        ids_free(&a);
        ids_free(&b);
    }
    text_free(&run);
    return same;
}

/* Merges [from, to) are those of one score.  Where it is several tokens', the left-most goes first and merges go by rank:
 * told apart by trying, and only for runs of one character. */
static bool same_class(const struct tokenizer *t, const struct tokenizer *spm, const struct pair *sorted, size_t from, size_t to)
{
    bool several = false;
    uint32_t code = 0, first = 0, longest = 0;
    for (size_t i = from; i < to; i++)
        several |= sorted[i].merged != sorted[from].merged;
    for (size_t i = from; several && i < to; i++) {
        uint32_t n = run_length(&t->tokens[sorted[i].merged], &code);
        if (!n || (i > from && code != first))
            return false;
        first = code;
        longest = n > longest ? n : longest;
    }
    return !several || same_runs(t, spm, code, longest);
}

/* Do the scores of spm make the merges of t, each and no other, in their order? */
static bool same_merges(const struct tokenizer *t, const struct tokenizer *spm, const struct pair *sorted, const float *scores)
{
    size_t n = t->pairs.count;
    if (n != spm->pairs.count)
        return false;
    for (size_t i = 0; i < n; i++) {
        const struct pair *p = pair_get(&spm->pairs, sorted[i].left, sorted[i].right);
        if (!p || p->merged != sorted[i].merged)
            return false;
    }
    for (size_t from = 0, to; from < n; from = to) {
        for (to = from + 1; to < n && scores[sorted[to].merged] == scores[sorted[from].merged];)
            to++;
        if (!same_class(t, spm, sorted, from, to))
            return false;
    }
    return true;
}

/* scores NULL: the vocabulary has no SPM form. */
static bool find_scores(struct model_files *f, const struct tokenizer *t, const float **scores, struct error *err)
{
    size_t n = (size_t)t->n_tokens;
    struct tokenizer *spm = NULL;
    struct arena a = { 0 };
    struct error unfit;
    const char **texts = arena_new(&a, n * sizeof *texts, err);
    uint32_t *lens = arena_new(&a, n * sizeof *lens, err);
    int32_t *types = arena_new(&a, n * sizeof *types, err);
    struct pair *sorted = texts && lens && types ? pairs_by_rank(t, err) : NULL;
    float *found = sorted ? scores_of(t, sorted, &f->arena, err) : NULL;
    for (size_t i = 0; found && i < n; i++)
        texts[i] = t->tokens[i].text, lens[i] = t->tokens[i].len, types[i] = t->tokens[i].type;
    struct tokenizer_spec spec = { .kind = "llama", .n_tokens = t->n_tokens, .tokens = texts, .token_lens = lens, .scores = found, .types = types,
                                   .bos = t->bos, .eos = t->eos, .unk = t->unk, .pad = t->pad, .add_space_prefix = true };
    *scores = found && tokenizer_new(&spm, &spec, &unfit) && same_merges(t, spm, sorted, found) ? found : NULL;
    tokenizer_free(spm);
    free(sorted);
    arena_free(&a);
    return found != NULL;
}

static bool put_scores(struct model_files *f, const struct tokenizer *t, const float *scores, struct error *err)
{
    return kv_add(f, &(struct gguf_kv){ .key = "tokenizer.ggml.scores", .type = GGUF_ARRAY, .element = GGUF_F32,
                                        .count = (uint64_t)t->n_tokens, .value.array = scores }, err);
}

/* ---- the whole ---- */

/* GGUF has names for merges over raw text ("gemma4") and over bytes ("gpt2"), and for scores ("llama", with a blank put
 * before each piece of text); what none of them says stays in its folder. */
static bool put_vocabulary(struct model_files *f, const struct tokenizer *t, struct error *err)
{
    bool bytes = t->kind == KIND_BYTE_BPE, spm = t->kind == KIND_RAW_BPE && t->prefix == PREFIX_PIECES && !t->split_at_blank;
    const float *scores = NULL;
    if (spm && !find_scores(f, t, &scores, err))
        return false;
    if (!bytes && !scores && (t->kind != KIND_RAW_BPE || t->prefix != PREFIX_NONE))
        return true;
    return kv_add_str(f, "tokenizer.ggml.model", bytes ? "gpt2" : scores ? "llama" : "gemma4", err) &&
           (!bytes || !t->pre || kv_add_str(f, "tokenizer.ggml.pre", pretokenizer_name(t->pre), err)) && put_tokens(f, t, err) &&
           (scores ? put_scores(f, t, scores, err) : put_merges(f, t, err)) &&
           put_id(f, "tokenizer.ggml.bos_token_id", t->bos, err) && put_id(f, "tokenizer.ggml.eos_token_id", t->eos, err) &&
           put_id(f, "tokenizer.ggml.unknown_token_id", t->unk, err) && put_id(f, "tokenizer.ggml.padding_token_id", t->pad, err) &&
           kv_add_bool(f, "tokenizer.ggml.add_bos_token", t->add_bos, err) && kv_add_bool(f, "tokenizer.ggml.add_space_prefix", scores != NULL, err);
}

bool model_metadata(const struct model *m, struct gguf_kv **kv, int *n, struct error *err)
{
    struct model_files *f = m->files;
    bool fresh = m->source == MODEL_HF && m->tokenizer && !kv_find(f, "tokenizer.ggml.model");
    if (fresh && !put_vocabulary(f, m->tokenizer, err))
        return false;
    if (fresh && m->chat_template && !kv_find(f, "tokenizer.chat_template") && !kv_add_str(f, "tokenizer.chat_template", m->chat_template, err))
        return false;
    *kv = f->kv;
    *n = (int)f->n_kv;
    return true;
}
