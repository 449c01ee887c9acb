/* tokenizer_build.c - spec -> tokenizer: checks the vocabulary, builds the pair table and the trie of specials. */
#include "tokenizer_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- pair table ---- */

static size_t pair_hash(int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    return (size_t)(h ^ h >> 32);
}

bool pair_table_new(struct pair_table *p, size_t pairs, struct error *err)
{
    size_t cap = 64;
    while (cap < pairs + pairs / 2)
        cap *= 2;
    *p = (struct pair_table){ mem_new(cap, sizeof *p->slots, err), cap - 1, 0 };
    if (!p->slots)
        return false;
    for (size_t i = 0; i < cap; i++)
        p->slots[i].left = -1;
    return true;
}

static struct pair *pair_slot(const struct pair_table *p, int32_t left, int32_t right)
{
    for (size_t i = pair_hash(left, right) & p->mask;; i = (i + 1) & p->mask) {
        struct pair *s = &p->slots[i];
        if (s->left < 0 || (s->left == left && s->right == right))
            return s;
    }
}

void pair_put(struct pair_table *p, int32_t left, int32_t right, uint32_t rank, int32_t merged)
{
    struct pair *s = pair_slot(p, left, right);
    if (s->left < 0) {
        *s = (struct pair){ left, right, merged, rank };
        p->count++;
    }
}

const struct pair *pair_get(const struct pair_table *p, int32_t left, int32_t right)
{
    if (left < 0 || right < 0)
        return NULL;
    const struct pair *s = pair_slot(p, left, right);
    return s->left < 0 ? NULL : s;
}

/* ---- tokens ---- */

/* Markers that separate turns are control tokens whatever the file says: several published GGUFs list them as
 * normal text, and then a chat prompt falls apart into "<", "start", ... */
static const char *const turn_markers[] = {
    "<start_of_turn>", "<end_of_turn>", "<|turn>", "<turn|>", "<|eot_id|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|im_start|>", "<|im_end|>",
};

/* Gemma 4 answers with these, and whoever reads the answer needs them: they are printed, and parsed wherever they
 * stand.  GGUF files say so, tokenizer.json calls them special; one model must not have two tokenizers. */
static const char *const answer_markers[] = {
    "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", "<|\"|>",
};

static bool is_one_of(const char *text, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(text, list[i]) == 0)
            return true;
    return false;
}

static bool check_spec(const struct tokenizer_spec *s, struct error *err)
{
    if (s->n_tokens < 1 || s->n_tokens > 1 << 24 || !s->tokens || !s->token_lens)
        return fail(err, STATUS_FORMAT, "a vocabulary of %d tokens, expected 1..%d", s->n_tokens, 1 << 24);
    if (s->n_merges < 0 || s->n_merges > 1 << 26)
        return fail(err, STATUS_FORMAT, "%lld merges, expected 0..%d", (long long)s->n_merges, 1 << 26);
    const struct { const char *name; int id; } ids[] = {
        { "bos", s->bos }, { "eos", s->eos }, { "unk", s->unk }, { "pad", s->pad },
    };
    for (size_t i = 0; i < ARRAY_LEN(ids); i++)
        if (ids[i].id < -1 || ids[i].id >= s->n_tokens)
            return fail(err, STATUS_FORMAT, "%s token id is %d, expected -1..%d", ids[i].name, ids[i].id,
                        s->n_tokens - 1);
    return true;
}

static bool add_token(struct tokenizer *t, int id, const struct tokenizer_spec *s,
                      const struct tokenizer_extras *x, struct error *err)
{
    uint32_t len = s->token_lens[id];
    int type = s->types ? s->types[id] : TOKEN_NORMAL;
    if (!s->tokens[id] || len > TOKEN_BYTES_MAX)
        return fail(err, STATUS_FORMAT, "token %d is %u bytes long, expected at most %d", id, len, TOKEN_BYTES_MAX);
    if (type < TOKEN_NORMAL || type > TOKEN_BYTE)
        return fail(err, STATUS_FORMAT, "token %d has type %d, expected %d..%d", id, type, TOKEN_NORMAL, TOKEN_BYTE);
    const char *text = arena_str(&t->arena, s->tokens[id], len, err);
    if (!text)
        return false;
    if (is_one_of(text, turn_markers, ARRAY_LEN(turn_markers)))
        type = TOKEN_CONTROL;
    else if (t->kind == KIND_RAW_BPE && is_one_of(text, answer_markers, ARRAY_LEN(answer_markers)))
        type = TOKEN_USER_DEFINED;
    t->tokens[id] = (struct token){ text, text, len, len, (uint8_t)type, x->flags ? x->flags[id] : 0 };
    int64_t first;
    if (len && map_get(&t->by_text, text, len, &first))
        return fail(err, STATUS_FORMAT, "tokens %d and %d are both \"%s\"", (int)first, id, text);
    return !len || map_put(&t->by_text, text, len, id, err);
}

/* "<0x0A>" -> 10, or -1. */
static int byte_token_value(const struct token *k)
{
    unsigned v;
    if (k->len != 6 || memcmp(k->text, "<0x", 3) != 0 || k->text[5] != '>' || sscanf(k->text + 3, "%2X", &v) != 1)
        return -1;
    char again[8];
    snprintf(again, sizeof again, "<0x%02X>", v);
    return memcmp(again, k->text, 6) == 0 ? (int)v : -1;
}

static int find(const struct tokenizer *t, const char *text, size_t len)
{
    int64_t id;
    return map_get(&t->by_text, text, len, &id) ? (int)id : -1;
}

/* Byte fallback: every byte needs its token, or text could vanish.  Their text alone tells them. */
static bool find_byte_tokens(struct tokenizer *t, struct error *err)
{
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        int id = find(t, name, 6);
        if (id < 0)
            return fail(err, STATUS_FORMAT, "no byte token %s among %d tokens", name, t->n_tokens);
        struct token *k = &t->tokens[id];
        k->type = TOKEN_BYTE;
        t->byte_ids[b] = id;
    }
    return true;
}

static bool set_piece(struct tokenizer *t, struct token *k, const struct text *piece, struct error *err)
{
    if (!text_ok(piece, err))
        return false;
    k->piece = arena_str(&t->arena, text_str(piece), piece->len, err);
    k->piece_len = (uint32_t)piece->len;
    return k->piece != NULL;
}

/* What decoding prints where U+2581 stands for a blank. */
static bool marked_piece(struct tokenizer *t, struct token *k, struct text *scratch, struct error *err)
{
    text_clear(scratch);
    int byte = k->type == TOKEN_BYTE ? byte_token_value(k) : -1;
    if (byte >= 0) {
        text_putc(scratch, (char)byte);
        return set_piece(t, k, scratch, err);
    }
    bool found = false;
    for (uint32_t i = 0; i < k->len;) {
        bool mark = k->len - i >= 3 && memcmp(k->text + i, SPACE_MARK, 3) == 0;
        text_putc(scratch, mark ? ' ' : k->text[i]);
        i += mark ? 3 : 1;
        found |= mark;
    }
    return !found || set_piece(t, k, scratch, err);
}

/* What decoding prints where each byte has a printable stand-in; a token with other characters is itself. */
static bool byte_level_piece(struct tokenizer *t, struct token *k, struct text *scratch, struct error *err)
{
    if (k->type != TOKEN_NORMAL && k->type != TOKEN_UNUSED)
        return true;
    text_clear(scratch);
    for (uint32_t i = 0; i < k->len;) {
        uint32_t code = 0;
        int n = utf8_decode(k->text + i, k->len - i, &code), byte = n ? byte_of_stand_in(code) : -1;
        if (byte < 0)
            return true;
        text_putc(scratch, (char)byte);
        i += (uint32_t)n;
    }
    return set_piece(t, k, scratch, err);
}

static bool make_pieces(struct tokenizer *t, struct error *err)
{
    struct text scratch = { 0 };
    bool ok = true;
    for (int id = 0; ok && id < t->n_tokens; id++)
        ok = t->kind == KIND_BYTE_BPE ? byte_level_piece(t, &t->tokens[id], &scratch, err)
                                      : marked_piece(t, &t->tokens[id], &scratch, err);
    text_free(&scratch);
    return ok;
}

/* Byte-level: one-byte tokens are the symbols; whole words are looked up by their bytes.  Some vocabularies
 * (SmolLM) leave out bytes their training text never had; those may be missing, ordinary text may not. */
static bool index_bytes(struct tokenizer *t, struct error *err)
{
    for (int b = 0; b < 256; b++)
        t->byte_ids[b] = -1;
    for (int id = 0; id < t->n_tokens; id++) {
        const struct token *k = &t->tokens[id];
        if (k->type == TOKEN_USER_DEFINED || !token_mergeable(k))
            continue;
        int64_t before;
        if (!map_get(&t->words, k->piece, k->piece_len, &before) &&
            !map_put(&t->words, k->piece, k->piece_len, id, err))
            return false;
        if (k->piece_len == 1)
            t->byte_ids[(uint8_t)k->piece[0]] = id;
    }
    for (int b = 0x20; b < 0x7F; b++)
        if (t->byte_ids[b] < 0)
            return fail(err, STATUS_FORMAT, "no token for byte 0x%02X ('%c') among %d tokens", b, b, t->n_tokens);
    return true;
}

/* ---- merges ---- */

static bool last_code(const char *s, size_t len, uint32_t *code)
{
    for (size_t n = 1; n <= 4 && n <= len; n++)
        if (utf8_decode(s + len - n, n, code) == (int)n)
            return true;
    return false;
}

static void mark_join(struct tokenizer *t, const char *left, size_t left_len, const char *right, size_t right_len)
{
    uint32_t a, b;
    if (t->joins && last_code(left, left_len, &a) && utf8_decode(right, right_len, &b)) {
        uint32_t bit = join_bit(a, b);
        t->joins[bit / 8] |= (uint8_t)(1u << bit % 8);
    }
}

static bool add_merge(struct tokenizer *t, int64_t rank, int32_t left, int32_t right, struct text *scratch,
                      struct error *err)
{
    const struct token *a = &t->tokens[left], *b = &t->tokens[right];
    text_clear(scratch);
    text_add(scratch, a->text, a->len);
    text_add(scratch, b->text, b->len);
    if (!text_ok(scratch, err))
        return false;
    int merged = find(t, text_str(scratch), scratch->len);
    if (merged < 0)
        return fail(err, STATUS_FORMAT, "merge %lld: \"%s\" + \"%s\" gives \"%s\", which is no token", (long long)rank,
                    a->text, b->text, text_str(scratch));
    if (!token_mergeable(a) || !token_mergeable(b) || !token_mergeable(&t->tokens[merged]))
        return true;            /* plain text must not turn into a control or byte token */
    pair_put(&t->pairs, left, right, (uint32_t)rank, merged);
    mark_join(t, a->text, a->len, b->text, b->len);
    return true;
}

/* "left right": split at the first blank that is not the first character. */
static bool split_merge(const struct tokenizer *t, const char *merge, int64_t rank, int32_t pair[2], struct error *err)
{
    const char *blank = merge && merge[0] ? strchr(merge + 1, ' ') : NULL;
    if (!blank)
        return fail(err, STATUS_FORMAT, "merge %lld is \"%s\", expected two tokens with a blank between",
                    (long long)rank, merge ? merge : "");
    const char *part[2] = { merge, blank + 1 };
    size_t len[2] = { (size_t)(blank - merge), strlen(blank + 1) };
    for (int i = 0; i < 2; i++) {
        pair[i] = find(t, part[i], len[i]);
        if (pair[i] < 0)
            return fail(err, STATUS_FORMAT, "merge %lld, \"%s\", names an unknown token \"%.*s\"", (long long)rank,
                        merge, (int)len[i], part[i]);
    }
    return true;
}

static bool build_merges(struct tokenizer *t, const struct tokenizer_spec *s, const struct tokenizer_extras *x,
                         struct error *err)
{
    if (s->n_merges < 1)
        return fail(err, STATUS_FORMAT, "no merges, which a BPE tokenizer needs");
    if (!pair_table_new(&t->pairs, (size_t)s->n_merges, err))
        return false;
    struct text scratch = { 0 };
    bool ok = true;
    for (int64_t i = 0; ok && i < s->n_merges; i++) {
        int32_t pair[2];
        if (x->pairs)
            memcpy(pair, x->pairs[i], sizeof pair);
        else
            ok = split_merge(t, s->merges[i], i, pair, err);
        ok = ok && add_merge(t, i, pair[0], pair[1], &scratch, err);
    }
    text_free(&scratch);
    return ok;
}

/* ---- SPM: scores -> pairs ---- */

struct scored {
    float score;
    int32_t id;
};

static int by_score(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* A character that is no token can still be half of one: it gets an id past the vocabulary. */
static int32_t char_symbol(struct tokenizer *t, uint32_t code, int32_t *next_virtual)
{
    if (!t->char_ids[code])
        t->char_ids[code] = ++*next_virtual;        /* id + 1 */
    return t->char_ids[code] - 1;
}

static int32_t part_symbol(struct tokenizer *t, const char *s, size_t len, int32_t *next_virtual)
{
    uint32_t code;
    if (utf8_decode(s, len, &code) == (int)len)
        return char_symbol(t, code, next_virtual);
    int id = find(t, s, len);
    return id >= 0 && token_mergeable(&t->tokens[id]) ? id : -1;
}

struct split_work {             /* pairs found so far: the table is sized once they are counted */
    struct pair *pairs;
    size_t n, cap;
    int32_t next_virtual;
};

static bool split_token(struct tokenizer *t, int32_t id, uint32_t rank, struct split_work *w, struct error *err)
{
    const struct token *k = &t->tokens[id];
    if (utf8_check(k->text, k->len) != k->len)
        return true;            /* cannot come out of UTF-8 characters */
    if (k->len > TOKEN_SPLIT_MAX)
        return fail(err, STATUS_FORMAT, "token %d is %u bytes long, expected at most %d", id, k->len, TOKEN_SPLIT_MAX);
    uint32_t code;
    for (size_t i = (size_t)utf8_decode(k->text, k->len, &code); i < k->len;
         i += (size_t)utf8_decode(k->text + i, k->len - i, &code)) {
        int32_t left = part_symbol(t, k->text, i, &w->next_virtual);
        int32_t right = left < 0 ? -1 : part_symbol(t, k->text + i, k->len - i, &w->next_virtual);
        if (right < 0)
            continue;
        if (!mem_grow(&w->pairs, &w->cap, w->n + 1, sizeof *w->pairs, err))
            return false;
        w->pairs[w->n++] = (struct pair){ left, right, id, rank };
        mark_join(t, k->text, i, k->text + i, k->len - i);
    }
    return true;
}

static bool build_splits(struct tokenizer *t, const struct scored *order, int n, struct split_work *w, struct error *err)
{
    uint32_t rank = 0;
    for (int i = 0; i < n; i++) {
        rank += i && order[i].score != order[i - 1].score;
        if (!split_token(t, order[i].id, rank, w, err))
            return false;
    }
    if (!pair_table_new(&t->pairs, w->n, err))
        return false;
    for (size_t i = 0; i < w->n; i++)
        pair_put(&t->pairs, w->pairs[i].left, w->pairs[i].right, w->pairs[i].rank, w->pairs[i].merged);
    return true;
}

static bool build_spm(struct tokenizer *t, const struct tokenizer_spec *s, struct error *err)
{
    if (!s->scores)
        return fail(err, STATUS_FORMAT, "no scores, which a \"llama\" tokenizer needs");
    struct scored *order = mem_new((size_t)t->n_tokens, sizeof *order, err);
    if (!order)
        return false;
    int n = 0;
    bool ok = true;
    for (int id = 0; ok && id < t->n_tokens; id++) {
        if (isnan(s->scores[id]))
            ok = fail(err, STATUS_FORMAT, "the score of token %d is not a number", id);
        else if (token_mergeable(&t->tokens[id]))
            order[n++] = (struct scored){ s->scores[id], id };
    }
    struct split_work w = { .next_virtual = t->n_tokens };
    qsort(order, (size_t)n, sizeof *order, by_score);
    ok = ok && build_splits(t, order, n, &w, err);
    free(w.pairs);
    free(order);
    return ok;
}

static bool index_chars(struct tokenizer *t, struct error *err)
{
    t->char_ids = mem_new(UNICODE_END, sizeof *t->char_ids, err);
    t->joins = mem_new(1u << (JOIN_BITS - 3), 1, err);
    if (!t->char_ids || !t->joins)
        return false;
    for (int id = 0; id < t->n_tokens; id++) {
        const struct token *k = &t->tokens[id];
        uint32_t code;
        if (token_mergeable(k) && utf8_decode(k->text, k->len, &code) == (int)k->len)
            t->char_ids[code] = id + 1;
    }
    return true;
}

/* ---- special tokens ---- */

static bool special_step(struct tokenizer *t, int32_t *node, uint8_t byte, struct error *err)
{
    int32_t *link = *node ? &t->specials[*node].child : &t->special_first[byte];
    while (*link && t->specials[*link].byte != byte)
        link = &t->specials[*link].sibling;
    if (*link) {
        *node = *link;
        return true;
    }
    int32_t fresh = (int32_t)t->n_specials;
    *link = fresh;              /* before growing: link may point into the array */
    if (!mem_grow(&t->specials, &t->cap_specials, t->n_specials + 1, sizeof *t->specials, err))
        return false;
    t->specials[t->n_specials++] = (struct special_node){ 0, 0, -1, byte };
    *node = fresh;
    return true;
}

static bool index_specials(struct tokenizer *t, struct error *err)
{
    t->n_specials = 1;          /* 0 means none */
    if (!mem_grow(&t->specials, &t->cap_specials, 1, sizeof *t->specials, err))
        return false;
    for (int id = 0; id < t->n_tokens; id++) {
        const struct token *k = &t->tokens[id];
        if (!k->len || (k->type != TOKEN_CONTROL && k->type != TOKEN_UNKNOWN && k->type != TOKEN_USER_DEFINED))
            continue;
        int32_t node = 0;
        for (uint32_t i = 0; i < k->len; i++)
            if (!special_step(t, &node, (uint8_t)k->text[i], err))
                return false;
        t->specials[node].token = id;
    }
    return true;
}

/* ---- the whole ---- */

static bool digest(struct tokenizer *t, const struct tokenizer_spec *s, const struct tokenizer_extras *x,
                   struct error *err)
{
    struct sha256 h;
    if (!sha256_init(&h, err))
        return false;
    int32_t head[] = { t->kind, t->n_tokens, t->bos, t->add_bos, t->ignore_merges, t->nfc, t->prefix,
                       t->split_at_blank };
    sha256_add(&h, head, sizeof head);
    const char *pre = t->pre ? pretokenizer_name(t->pre) : "";
    sha256_add(&h, pre, strlen(pre) + 1);
    for (int id = 0; id < t->n_tokens; id++) {
        const struct token *k = &t->tokens[id];
        uint32_t row[] = { k->len, k->type, k->flags };
        sha256_add(&h, row, sizeof row);
        sha256_add(&h, k->text, k->len);
    }
    if (t->kind == KIND_SPM)
        sha256_add(&h, s->scores, (size_t)t->n_tokens * sizeof *s->scores);
    for (int64_t i = 0; t->kind != KIND_SPM && i < s->n_merges; i++) {
        int32_t pair[2];
        if (x->pairs)
            memcpy(pair, x->pairs[i], sizeof pair);
        else if (!split_merge(t, s->merges[i], i, pair, err)) {
            uint8_t unused[32];
            sha256_end(&h, unused);
            return false;
        }
        sha256_add(&h, pair, sizeof pair);
    }
    uint8_t bytes[32];
    sha256_end(&h, bytes);
    hex_of(bytes, sizeof bytes, t->hash);
    return true;
}

static bool set_kind(struct tokenizer *t, const struct tokenizer_spec *s, struct error *err)
{
    static const char *const names[] = { [KIND_SPM] = "llama", [KIND_RAW_BPE] = "gemma4", [KIND_BYTE_BPE] = "gpt2" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (s->kind && strcmp(s->kind, names[i]) == 0) {
            t->kind = (enum tokenizer_kind)i;
            return true;
        }
    return fail(err, STATUS_UNSUPPORTED, "tokenizer kind \"%s\" is not one of llama, gemma4, gpt2",
                s->kind ? s->kind : "");
}

static bool set_pretokenizer(struct tokenizer *t, const struct tokenizer_spec *s, bool exact, struct error *err)
{
    t->pre = s->pre ? pretokenizer_find(s->pre) : NULL;
    if (!t->pre) {
        struct text names = { 0 };
        pretokenizer_names(&names);
        fail(err, STATUS_UNSUPPORTED, "pre-tokenizer \"%s\" is not one of %s", s->pre ? s->pre : "(none)",
             text_str(&names));
        text_free(&names);
        return false;
    }
    if (!exact) {               /* GGUF metadata does not tell: the name does */
        t->nfc |= pretokenizer_nfc(t->pre);
        t->ignore_merges |= pretokenizer_ignore_merges(t->pre);
    }
    return pretokenizer_compile(t, err);
}

/* Gemma 4 wants BOS in front of every sequence, although its files say otherwise. */
static bool set_bos(struct tokenizer *t, bool gemma4, struct error *err)
{
    static const char *const names[] = { [KIND_SPM] = "<s>", [KIND_RAW_BPE] = "<bos>", [KIND_BYTE_BPE] = "<|begin_of_text|>" };
    t->add_bos |= gemma4;
    if (t->add_bos && t->bos < 0)
        t->bos = find(t, names[t->kind], strlen(names[t->kind]));
    return !t->add_bos || t->bos >= 0 ||
           fail(err, STATUS_FORMAT, "a BOS token has to be added, but the vocabulary has no %s", names[t->kind]);
}

static bool fill(struct tokenizer *t, const struct tokenizer_spec *s, const struct tokenizer_extras *x,
                 struct error *err)
{
    if (!check_spec(s, err) || !set_kind(t, s, err))
        return false;
    t->n_tokens = s->n_tokens;
    t->bos = s->bos, t->eos = s->eos, t->unk = s->unk, t->pad = s->pad;
    t->add_bos = s->add_bos, t->ignore_merges = s->ignore_merges, t->nfc = s->nfc;
    t->prefix = x->exact ? x->prefix : s->add_space_prefix && t->kind == KIND_SPM ? PREFIX_PIECES : PREFIX_NONE;
    t->split_at_blank = x->split_at_blank;
    t->newline_runs = t->kind == KIND_RAW_BPE && !x->no_newline_runs;
    if (!(t->tokens = mem_new((size_t)t->n_tokens, sizeof *t->tokens, err)))
        return false;
    for (int id = 0; id < t->n_tokens; id++)
        if (!add_token(t, id, s, x, err))
            return false;
    bool bytes = t->kind == KIND_BYTE_BPE;
    bool gemma4 = t->kind == KIND_RAW_BPE && (!x->exact || find(t, "<|turn>", 7) >= 0);
    return (bytes ? set_pretokenizer(t, s, x->exact, err) : find_byte_tokens(t, err)) && set_bos(t, gemma4, err) &&
           make_pieces(t, err) && (bytes ? index_bytes(t, err) : index_chars(t, err)) &&
           (t->kind == KIND_SPM ? build_spm(t, s, err) : build_merges(t, s, x, err)) && index_specials(t, err) &&
           digest(t, s, x, err);
}

bool tokenizer_build(struct tokenizer **out, const struct tokenizer_spec *spec,
                     const struct tokenizer_extras *extras, struct error *err)
{
    const char *where = spec->where ? spec->where : "tokenizer";
    *out = NULL;
    struct tokenizer *t = mem_new(1, sizeof *t, err);
    if (t && fill(t, spec, extras, err)) {
        *out = t;
        return true;
    }
    tokenizer_free(t);
    return fail_in(err, "%s", where);
}

bool tokenizer_new(struct tokenizer **out, const struct tokenizer_spec *spec, struct error *err)
{
    return tokenizer_build(out, spec, &(struct tokenizer_extras){ 0 }, err);
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    pretokenizer_free(t);
    free(t->tokens);
    free(t->char_ids);
    free(t->pairs.slots);
    free(t->joins);
    free(t->specials);
    map_free(&t->by_text);
    map_free(&t->words);
    arena_free(&t->arena);
    free(t);
}
