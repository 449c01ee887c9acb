/* tokenizer.c - text -> ids -> text.
 *
 * encode: cut special tokens out, normalise what lies between, cut that into pieces that no merge can span,
 * merge each piece.  For SPM-like vocabularies the cuts fall between any two characters that no merge joins,
 * so pieces are about a word long although these models know no words; a cache of pieces seen earlier in the
 * same call then answers most of them. */
#include "tokenizer_private.h"

#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

bool ids_add(struct ids *ids, int32_t id, struct error *err)
{
    if (ids->n == ids->cap && !mem_grow(&ids->data, &ids->cap, ids->n + 1, sizeof *ids->data, err))
        return false;
    ids->data[ids->n++] = id;
    return true;
}

void ids_free(struct ids *ids)
{
    free(ids->data);
    *ids = (struct ids){ 0 };
}

/* ---- the merge loop ---- */

struct symbol {
    uint32_t offset, len;       /* in the normalised text; len 0: merged into the one before */
    int32_t id;                 /* -1: a character without a token; >= n_tokens: half of a token only */
    int32_t prev, next;
};
struct candidate {              /* heap entry: merge symbol at with its successor */
    uint32_t rank, at;
    int32_t left, right, merged;
};
struct seen {                   /* a piece of this call and where its ids stand in the output */
    uint64_t hash;
    uint32_t offset, len;
    size_t first, n;
};

struct encoder {
    const struct tokenizer *t;
    struct ids *out;
    struct text norm;           /* everything normalised so far; pieces are ranges of it */
    struct symbol *symbols;
    size_t n_symbols, cap_symbols;
    struct candidate *heap;
    size_t n_heap, cap_heap;
    struct seen *seen;          /* direct-mapped, seen_mask + 1 slots; NULL for short texts */
    size_t seen_mask;
    bool text_begun;            /* some text was encoded already */
};

static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->rank < b->rank || (a->rank == b->rank && a->at < b->at);
}

static bool heap_push(struct encoder *e, struct candidate c, struct error *err)
{
    if (e->n_heap == e->cap_heap && !mem_grow(&e->heap, &e->cap_heap, e->n_heap + 1, sizeof *e->heap, err))
        return false;
    size_t i = e->n_heap++;
    for (; i && before(&c, &e->heap[(i - 1) / 2]); i = (i - 1) / 2)
        e->heap[i] = e->heap[(i - 1) / 2];
    e->heap[i] = c;
    return true;
}

static struct candidate heap_pop(struct encoder *e)
{
    struct candidate top = e->heap[0], last = e->heap[--e->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < e->n_heap; i = child) {
        if (child + 1 < e->n_heap && before(&e->heap[child + 1], &e->heap[child]))
            child++;
        if (!before(&e->heap[child], &last))
            break;
        e->heap[i] = e->heap[child];
    }
    e->heap[i] = last;
    return top;
}

static bool offer(struct encoder *e, int32_t at, struct error *err)
{
    if (at < 0 || e->symbols[at].next < 0)
        return true;
    int32_t left = e->symbols[at].id, right = e->symbols[e->symbols[at].next].id;
    const struct pair *p = pair_get(&e->t->pairs, left, right);
    return !p || heap_push(e, (struct candidate){ p->rank, (uint32_t)at, left, right, p->merged }, err);
}

static bool apply(struct encoder *e, const struct candidate *c, struct error *err)
{
    struct symbol *s = &e->symbols[c->at];
    if (!s->len || s->id != c->left || s->next < 0 || e->symbols[s->next].id != c->right)
        return true;            /* one of the two was merged elsewhere since */
    struct symbol *gone = &e->symbols[s->next];
    s->len += gone->len;
    s->id = c->merged;
    s->next = gone->next;
    gone->len = 0;
    if (s->next >= 0)
        e->symbols[s->next].prev = (int32_t)c->at;
    return offer(e, s->prev, err) && offer(e, (int32_t)c->at, err);
}

static bool add_symbol(struct encoder *e, size_t offset, size_t len, int32_t id, struct error *err)
{
    if (e->n_symbols == e->cap_symbols &&
        !mem_grow(&e->symbols, &e->cap_symbols, e->n_symbols + 1, sizeof *e->symbols, err))
        return false;
    int32_t i = (int32_t)e->n_symbols++;
    e->symbols[i] = (struct symbol){ (uint32_t)offset, (uint32_t)len, id, i - 1, i + 1 };
    return true;
}

static bool split_symbols(struct encoder *e, size_t offset, size_t len, struct error *err)
{
    const char *s = e->norm.data;
    e->n_symbols = 0;
    for (size_t i = offset, end = offset + len, n; i < end; i += n) {
        uint32_t code;
        int32_t id;
        n = 1;
        if (e->t->kind == KIND_BYTE_BPE) {
            id = e->t->byte_ids[(uint8_t)s[i]];
        } else {
            int decoded = utf8_decode(s + i, end - i, &code);
            id = decoded ? e->t->char_ids[code] - 1 : -1;
            n = decoded ? (size_t)decoded : 1;
        }
        if (!add_symbol(e, i, n, id, err))
            return false;
    }
    e->symbols[e->n_symbols - 1].next = -1;
    return true;
}

/* A symbol that is no token falls apart into byte tokens.  A byte-level vocabulary without some byte drops it
 * (its unknown token, if it has one, stands in), as the reference implementations do. */
static bool emit(struct encoder *e, const struct symbol *s, struct error *err)
{
    if (s->id >= 0 && s->id < e->t->n_tokens)
        return ids_add(e->out, s->id, err);
    for (uint32_t i = 0; i < s->len; i++) {
        int32_t id = e->t->byte_ids[(uint8_t)e->norm.data[s->offset + i]];
        if (id < 0)
            id = e->t->unk;
        if (id >= 0 && !ids_add(e->out, id, err))
            return false;
    }
    return true;
}

static bool merge_piece(struct encoder *e, size_t offset, size_t len, struct error *err)
{
    if (!split_symbols(e, offset, len, err))
        return false;
    e->n_heap = 0;
    for (size_t i = 0; i + 1 < e->n_symbols; i++)
        if (!offer(e, (int32_t)i, err))
            return false;
    while (e->n_heap) {
        struct candidate c = heap_pop(e);
        if (!apply(e, &c, err))
            return false;
    }
    for (int32_t i = 0; i >= 0; i = e->symbols[i].next)
        if (!emit(e, &e->symbols[i], err))
            return false;
    return true;
}

/* ---- pieces ---- */

/* The id of a piece that is taken whole, before any merging; -1: none. */
static int32_t whole_piece(const struct encoder *e, const char *s, size_t len)
{
    const struct tokenizer *t = e->t;
    int64_t id = -1;
    if (t->kind == KIND_BYTE_BPE && t->ignore_merges)
        return map_get(&t->words, s, len, &id) ? (int32_t)id : -1;
    if (t->newline_runs && s[0] == '\n' && len <= TOKEN_BYTES_MAX && map_get(&t->by_text, s, len, &id) &&
        token_mergeable(&t->tokens[id]))
        return (int32_t)id;
    return -1;
}

static bool repeat_ids(struct encoder *e, const struct seen *c, struct error *err)
{
    struct ids *out = e->out;
    if (!mem_grow(&out->data, &out->cap, out->n + c->n, sizeof *out->data, err))
        return false;
    memcpy(out->data + out->n, out->data + c->first, c->n * sizeof *out->data);
    out->n += c->n;
    return true;
}

static bool encode_piece(void *ctx, size_t offset, size_t len, struct error *err)
{
    enum { CACHED_BYTES = 48 };
    struct encoder *e = ctx;
    const char *s = e->norm.data + offset;
    struct seen *c = NULL;
    uint64_t hash = 0;
    if (e->seen && len <= CACHED_BYTES) {
        hash = hash_bytes(s, len);
        c = &e->seen[hash & e->seen_mask];
        if (c->hash == hash && c->len == len && memcmp(e->norm.data + c->offset, s, len) == 0)
            return repeat_ids(e, c, err);
    }
    size_t first = e->out->n;
    int32_t whole = whole_piece(e, s, len);
    if (whole >= 0 ? !ids_add(e->out, whole, err) : !merge_piece(e, offset, len, err))
        return false;
    if (c)
        *c = (struct seen){ hash, (uint32_t)offset, (uint32_t)len, first, e->out->n - first };
    return true;
}

/* An invalid byte counts as a code point of its own, which nothing joins. */
static size_t next_code(const char *s, size_t len, uint32_t *code)
{
    uint8_t c = (uint8_t)s[0];
    if (c < 0x80)
        return *code = c, 1;
    int n = utf8_decode(s, len, code);
    if (n)
        return (size_t)n;
    *code = UNICODE_END + c;
    return 1;
}

static bool cut_between(const struct tokenizer *t, uint32_t a, uint32_t b)
{
    if (t->newline_runs && (a == '\n' || b == '\n'))
        return a != b;
    if (t->split_at_blank && b == SPACE_MARK_CODE)
        return true;
    uint32_t bit = join_bit(a, b);
    return !(t->joins[bit / 8] >> bit % 8 & 1);
}

static bool encode_marked(struct encoder *e, size_t from, size_t to, struct error *err)
{
    uint32_t a, b;
    for (size_t start = from, i; start < to; start = i) {
        i = start + next_code(e->norm.data + start, to - start, &a);
        for (; i < to; a = b) {
            size_t n = next_code(e->norm.data + i, to - i, &b);
            if (cut_between(e->t, a, b))
                break;
            i += n;
        }
        if (!encode_piece(e, start, i - start, err))
            return false;
    }
    return true;
}

/* ---- normalising ---- */

static void add_marked(struct text *norm, const char *s, size_t len)
{
    for (size_t i = 0, j; i < len; i = j) {
        for (j = i; j < len && s[j] != ' '; j++)
            ;
        text_add(norm, s + i, j - i);
        for (; j < len && s[j] == ' '; j++)
            text_add(norm, SPACE_MARK, 3);
    }
}

static bool starts_blank(const char *s, size_t len)
{
    return len && (s[0] == ' ' || (len >= 3 && memcmp(s, SPACE_MARK, 3) == 0));
}

static bool wants_prefix(const struct encoder *e, const char *s, size_t len)
{
    switch (e->t->prefix) {
    case PREFIX_PIECES:              return true;
    case PREFIX_PIECES_UNLESS_BLANK: return !starts_blank(s, len);
    case PREFIX_FIRST_UNLESS_BLANK:  return !e->text_begun && !starts_blank(s, len);
    case PREFIX_NONE:                break;
    }
    return false;
}

static bool is_ascii(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((uint8_t)s[i] >= 0x80)
            return false;
    return true;
}

/* Canonical composition of valid UTF-8. */
static bool add_nfc(struct text *norm, const char *s, size_t len, struct error *err)
{
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)len, &composed,
                                      UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (n < 0)
        return fail(err, STATUS_INPUT, "NFC of %zu bytes: %s", len, utf8proc_errmsg(n));
    text_add(norm, (const char *)composed, (size_t)n);
    free(composed);
    return true;
}

/* The regexes want valid UTF-8: bytes that are not become pieces of their own. */
static bool encode_byte_level(struct encoder *e, const char *s, size_t len, struct error *err)
{
    for (size_t i = 0, valid; i < len; i += valid) {
        valid = utf8_check(s + i, len - i);
        size_t from = e->norm.len;
        if (e->t->nfc && !is_ascii(s + i, valid)) {
            if (!add_nfc(&e->norm, s + i, valid, err))
                return false;
        } else {
            text_add(&e->norm, s + i, valid);
        }
        size_t to = e->norm.len, bad = i + valid;
        uint32_t code;
        for (; bad < len && !utf8_decode(s + bad, len - bad, &code); bad++)
            text_putc(&e->norm, s[bad]);
        if (!text_ok(&e->norm, err) ||
            !pretokenizer_split(e->t, e->norm.data, from, to, encode_piece, e, err) ||
            (e->norm.len > to && !encode_piece(e, to, e->norm.len - to, err)))
            return false;
        valid = bad - i;
    }
    return true;
}

static bool encode_text(struct encoder *e, const char *s, size_t len, struct error *err)
{
    if (!len)
        return true;
    size_t from = e->norm.len;
    bool prefix = wants_prefix(e, s, len);
    e->text_begun = true;
    if (e->t->kind == KIND_BYTE_BPE)
        return encode_byte_level(e, s, len, err);
    if (prefix)
        text_add(&e->norm, SPACE_MARK, 3);
    add_marked(&e->norm, s, len);
    return text_ok(&e->norm, err) && encode_marked(e, from, e->norm.len, err);
}

/* ---- special tokens ---- */

static bool is_word_byte(char c)
{
    return isalnum((unsigned char)c) || c == '_' || (uint8_t)c >= 0x80;
}

static bool allowed(const struct tokenizer *t, int32_t id, const char *text, size_t len, size_t at,
                    const struct span *span)
{
    const struct token *k = &t->tokens[id];
    size_t end = at + k->len;
    if (k->type != TOKEN_USER_DEFINED && (!span->parse_special || end > span->end))
        return false;
    if (k->flags & TOKEN_SINGLE_WORD)
        return !(at && is_word_byte(text[at - 1])) && !(end < len && is_word_byte(text[end]));
    return true;
}

/* The longest special token that stands at text[at], or -1. */
static int32_t special_at(const struct tokenizer *t, const char *text, size_t len, size_t at, const struct span *span)
{
    int32_t best = -1, node = t->special_first[(uint8_t)text[at]];
    for (size_t i = at; node;) {
        int32_t id = t->specials[node].token;
        if (id >= 0 && allowed(t, id, text, len, at, span))
            best = id;
        if (++i == len)
            break;
        node = t->specials[node].child;
        while (node && t->specials[node].byte != (uint8_t)text[i])
            node = t->specials[node].sibling;
    }
    return best;
}

static bool encode_all(struct encoder *e, const char *text, size_t len, const struct span *span, struct error *err)
{
    const struct tokenizer *t = e->t;
    size_t start = 0;
    for (size_t i = 0; i < len;) {
        if (!t->special_first[(uint8_t)text[i]]) {
            i++;
            continue;
        }
        while (i >= span->end)
            span++;
        int32_t id = special_at(t, text, len, i, span);
        if (id < 0) {
            i++;
            continue;
        }
        const struct token *k = &t->tokens[id];
        size_t stop = i;
        while (k->flags & TOKEN_STRIP_LEFT && stop > start && isspace((unsigned char)text[stop - 1]))
            stop--;
        if (!encode_text(e, text + start, stop - start, err) || !ids_add(e->out, id, err))
            return false;
        e->text_begun = true;
        i += k->len;
        while (k->flags & TOKEN_STRIP_RIGHT && i < len && isspace((unsigned char)text[i]))
            i++;
        start = i;
    }
    return encode_text(e, text + start, len - start, err);
}

static bool open_cache(struct encoder *e, size_t len, struct error *err)
{
    if (len < 256)
        return true;
    size_t slots = 64;
    while (slots < len / 16 && slots < 1 << 15)
        slots *= 2;
    e->seen = mem_new(slots, sizeof *e->seen, err);
    e->seen_mask = slots - 1;
    return e->seen != NULL;
}

bool tokenizer_encode_spans(const struct tokenizer *t, const char *text, size_t len, const struct span *spans, size_t n,
                            bool bos, struct ids *out, struct error *err)
{
    if (len > TEXT_BYTES_MAX)
        return fail(err, STATUS_INPUT, "a text of %zu bytes, expected at most %d", len, TEXT_BYTES_MAX);
    assert(n && spans[n - 1].end == len);
    struct encoder e = { .t = t, .out = out };
    bool ok = (!bos || !t->add_bos || ids_add(out, t->bos, err)) && open_cache(&e, len, err) &&
              encode_all(&e, text, len, spans, err);
    text_free(&e.norm);
    free(e.symbols);
    free(e.heap);
    free(e.seen);
    return ok;
}

bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool bos, bool parse_special,
                      struct ids *out, struct error *err)
{
    return tokenizer_encode_spans(t, text, len, &(struct span){ len, parse_special }, 1, bos, out, err);
}

/* ---- ids -> text ---- */

void tokenizer_decode(const struct tokenizer *t, int32_t id, bool special, struct text *out)
{
    if (id < 0 || id >= t->n_tokens)
        return;
    const struct token *k = &t->tokens[id];
    if (special || (k->type != TOKEN_CONTROL && k->type != TOKEN_UNKNOWN))
        text_add(out, k->piece, k->piece_len);
}

void tokenizer_decode_all(const struct tokenizer *t, const int32_t *ids, size_t n, struct text *out)
{
    size_t start = out->len;
    for (size_t i = 0; i < n; i++)
        tokenizer_decode(t, ids[i], false, out);
    if (t->prefix != PREFIX_NONE && out->len > start && out->data[start] == ' ') {
        memmove(out->data + start, out->data + start + 1, out->len - start);    /* with the NUL */
        out->len--;
    }
}

/* ---- what it is ---- */

int tokenizer_size(const struct tokenizer *t)
{
    return t->n_tokens;
}

int tokenizer_bos(const struct tokenizer *t)
{
    return t->add_bos ? t->bos : -1;
}

int tokenizer_find(const struct tokenizer *t, const char *token)
{
    int64_t id;
    return map_get(&t->by_text, token, strlen(token), &id) ? (int)id : -1;
}

const char *tokenizer_token(const struct tokenizer *t, int32_t id, size_t *len, enum token_type *type)
{
    if (id < 0 || id >= t->n_tokens)
        return NULL;
    if (len)
        *len = t->tokens[id].len;
    if (type)
        *type = (enum token_type)t->tokens[id].type;
    return t->tokens[id].text;
}

bool tokenizer_hash(const struct tokenizer *t, char hex[65], struct error *err)
{
    if (!t->hash[0])
        return fail(err, STATUS_FORMAT, "the tokenizer has no digest");
    memcpy(hex, t->hash, sizeof t->hash);
    return true;
}

const char *tokenizer_kind(const struct tokenizer *t)
{
    static const char *const names[] = { [KIND_SPM] = "llama", [KIND_RAW_BPE] = "gemma4", [KIND_BYTE_BPE] = "gpt2" };
    return names[t->kind];
}
