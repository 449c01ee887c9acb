/* tokenizer_json.c - a Hugging Face tokenizer.json.
 *
 * Gemma's is 33 MB, nearly all of it vocabulary and merges.  Those two are scanned here, straight into id
 * tables; the small rest (normalizer, pre_tokenizer, ...) goes through cJSON. */
#include "tokenizer_private.h"

#include <stdlib.h>
#include <string.h>

/* ---- scanner ---- */

struct scan {
    const char *p, *end;
    const char *begin, *where;
    char *room;                 /* where the next unescaped string goes; the file's size is enough for all */
    struct error *err;
};
struct slice {
    const char *p;
    size_t len;
};

static bool bad_json(const struct scan *s, const char *what)
{
    return fail(s->err, STATUS_FORMAT, "%s: offset %zu: %s", s->where, (size_t)(s->p - s->begin), what);
}

static void skip_blanks(struct scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
        s->p++;
}

static bool peek(struct scan *s, char c)
{
    skip_blanks(s);
    return s->p < s->end && *s->p == c;
}

static bool take(struct scan *s, char c)
{
    if (!peek(s, c))
        return false;
    s->p++;
    return true;
}

static bool expect(struct scan *s, char c)
{
    char what[] = "expected 'x'";
    what[10] = c;
    return take(s, c) || bad_json(s, what);
}

static bool hex4(struct scan *s, uint32_t *code)
{
    *code = 0;
    for (int i = 0; i < 4; i++, s->p++) {
        if (s->p == s->end)
            return false;
        char c = *s->p;
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                  : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0)
            return false;
        *code = *code << 4 | (uint32_t)digit;
    }
    return true;
}

/* After "\u": up to two groups of four, a surrogate pair being one character. */
static bool unescape_unicode(struct scan *s)
{
    uint32_t code, low;
    if (!hex4(s, &code))
        return false;
    if (code >= 0xD800 && code < 0xDC00) {
        if (s->end - s->p < 6 || s->p[0] != '\\' || s->p[1] != 'u')
            return false;
        s->p += 2;
        if (!hex4(s, &low) || low < 0xDC00 || low >= 0xE000)
            return false;
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    int n = utf8_encode(code, s->room);
    s->room += n;
    return n > 0;
}

static bool unescape(struct scan *s)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (s->p == s->end)
        return false;
    char c = *s->p++;
    if (c == 'u')
        return unescape_unicode(s);
    const char *at = c ? strchr(from, c) : NULL;
    if (!at)
        return false;
    *s->room++ = to[at - from];
    return true;
}

/* A string, unescaped and NUL-terminated in the room. */
static bool scan_string(struct scan *s, struct slice *out)
{
    if (!expect(s, '"'))
        return false;
    out->p = s->room;
    while (s->p < s->end && *s->p != '"') {
        if (*s->p == '\\') {
            s->p++;
            if (!unescape(s))
                return bad_json(s, "bad escape in a string");
        } else {
            *s->room++ = *s->p++;
        }
    }
    if (s->p == s->end)
        return bad_json(s, "a string does not end");
    s->p++;
    out->len = (size_t)(s->room - out->p);
    *s->room++ = '\0';
    return true;
}

static bool skip_string(struct scan *s)
{
    for (s->p++; s->p < s->end && *s->p != '"'; s->p++)
        s->p += *s->p == '\\' && s->p + 1 < s->end;
    if (s->p >= s->end)
        return bad_json(s, "a string does not end");
    s->p++;
    return true;
}

/* Any value, by its brackets; what stands between them is looked at by whoever reads it. */
static bool skip_value(struct scan *s, struct slice *out)
{
    enum { DEPTH_MAX = 64 };
    skip_blanks(s);
    out->p = s->p;
    int depth = 0;
    do {
        skip_blanks(s);
        if (s->p == s->end)
            return bad_json(s, "the file ends inside a value");
        char c = *s->p;
        if (c == '"') {
            if (!skip_string(s))
                return false;
            continue;
        }
        if ((c == '}' || c == ']' || c == ',' || c == ':') && !depth)
            return bad_json(s, "expected a value");
        depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        if (depth > DEPTH_MAX)
            return bad_json(s, "nested deeper than 64");
        s->p++;
        if (!strchr("{}[],:", c))
            while (s->p < s->end && !strchr("{}[],:\" \t\r\n", *s->p))
                s->p++;
    } while (depth);
    out->len = (size_t)(s->p - out->p);
    return true;
}

/* ---- what the file says ---- */

struct entry {
    struct slice text;
    int64_t id;
};
struct doc {
    struct scan scan;
    char *room;
    struct slice added, normalizer, pre, post, vocab, merges;
    cJSON *model;               /* the members but vocab and merges */
    struct entry *entries;
    size_t n_entries, cap_entries;
    struct map ids;
    int32_t (*pairs)[2];
    size_t n_pairs, cap_pairs;
    struct tokenizer_spec spec;
    struct tokenizer_extras extras;
    const char **tokens;
    uint32_t *lens;
    int32_t *types;
    uint8_t *flags;
    bool marked, byte_level;    /* blanks become U+2581; ByteLevel pre-tokenizer */
    char *stages[PRETOKENIZER_STAGES];  /* patterns of the pre-tokenizer, in order */
    int n_stages;
};

static cJSON *parse_slice(const struct doc *d, struct slice s, const char *key)
{
    struct error *err = d->scan.err;
    cJSON *v = json_parse(s.p, s.len, key, err);
    if (!v)
        fail_in(err, "%s", d->scan.where);
    return v;
}

struct member_row {
    const char *key;
    struct slice *value;
};

/* Members of an object: known ones as slices, others to extra (if any). */
static bool scan_object(struct doc *d, const struct member_row *rows, size_t n, cJSON *extra)
{
    struct scan *s = &d->scan;
    if (!expect(s, '{'))
        return false;
    if (take(s, '}'))
        return true;
    do {
        struct slice key, value;
        if (!scan_string(s, &key) || !expect(s, ':') || !skip_value(s, &value))
            return false;
        size_t i = 0;
        while (i < n && strcmp(rows[i].key, key.p) != 0)
            i++;
        if (i < n) {
            *rows[i].value = value;
        } else if (extra) {
            cJSON *v = parse_slice(d, value, key.p);
            if (!v || !cJSON_AddItemToObject(extra, key.p, v))
                return cJSON_Delete(v), false;
        }
    } while (take(s, ','));
    return expect(s, '}');
}

static bool scan_document(struct doc *d)
{
    struct slice model = { 0 };
    const struct member_row top[] = {
        { "added_tokens", &d->added }, { "normalizer", &d->normalizer }, { "pre_tokenizer", &d->pre },
        { "post_processor", &d->post }, { "model", &model },
    };
    if (!scan_object(d, top, ARRAY_LEN(top), NULL))
        return false;
    skip_blanks(&d->scan);
    if (d->scan.p != d->scan.end)
        return bad_json(&d->scan, "something follows the JSON value");
    if (!model.p)
        return fail(d->scan.err, STATUS_FORMAT, "%s: no \"model\"", d->scan.where);
    const struct member_row inner[] = { { "vocab", &d->vocab }, { "merges", &d->merges } };
    struct scan whole = d->scan;
    d->scan.p = model.p;
    d->scan.end = model.p + model.len;
    d->model = cJSON_CreateObject();
    if (!d->model || !scan_object(d, inner, ARRAY_LEN(inner), d->model))
        return false;
    whole.room = d->scan.room;
    d->scan = whole;
    if (!d->vocab.p)
        return fail(d->scan.err, STATUS_FORMAT, "%s: model has no \"vocab\"", d->scan.where);
    return true;
}

/* ---- vocabulary and merges ---- */

static bool add_entry(struct doc *d, struct slice text, int64_t id)
{
    struct error *err = d->scan.err;
    if (map_get(&d->ids, text.p, text.len, &(int64_t){ 0 }))
        return fail(err, STATUS_FORMAT, "%s: token \"%s\" stands twice in the vocabulary", d->scan.where, text.p);
    if (!mem_grow(&d->entries, &d->cap_entries, d->n_entries + 1, sizeof *d->entries, err))
        return false;
    d->entries[d->n_entries++] = (struct entry){ text, id };
    return map_put(&d->ids, text.p, text.len, id, err);
}

static bool scan_id(struct scan *s, int64_t *id)
{
    skip_blanks(s);
    const char *from = s->p;
    *id = 0;
    while (s->p < s->end && *s->p >= '0' && *s->p <= '9' && s->p - from < 10)
        *id = *id * 10 + (*s->p++ - '0');
    if (s->p == from || (s->p < s->end && strchr("0123456789.eE+-", *s->p)))
        return bad_json(s, "a token id is not a whole number below 10^10");
    return true;
}

static bool scan_vocab(struct doc *d)
{
    struct scan *s = &d->scan;
    s->p = d->vocab.p;
    if (!expect(s, '{'))
        return false;
    if (take(s, '}'))
        return true;
    do {
        struct slice text;
        int64_t id;
        if (!scan_string(s, &text) || !expect(s, ':') || !scan_id(s, &id) || !add_entry(d, text, id))
            return false;
    } while (take(s, ','));
    return expect(s, '}');
}

static bool token_id(struct doc *d, struct slice text, int32_t *id)
{
    int64_t found;
    if (!map_get(&d->ids, text.p, text.len, &found))
        return fail(d->scan.err, STATUS_FORMAT, "%s: merge %zu names an unknown token \"%.*s\"", d->scan.where,
                    d->n_pairs, (int)(text.len < 200 ? text.len : 200), text.p);
    *id = (int32_t)found;
    return true;
}

static bool scan_merge(struct doc *d)
{
    struct scan *s = &d->scan;
    struct slice left, right;
    char *room = s->room;       /* merges need no memory once they are ids */
    if (take(s, '[')) {
        if (!scan_string(s, &left) || !expect(s, ',') || !scan_string(s, &right) || !expect(s, ']'))
            return false;
    } else {
        if (!scan_string(s, &left))
            return false;
        const char *blank = left.len ? memchr(left.p + 1, ' ', left.len - 1) : NULL;
        if (!blank)
            return bad_json(s, "a merge is not two tokens with a blank between");
        right = (struct slice){ blank + 1, (size_t)(left.p + left.len - blank - 1) };
        left.len = (size_t)(blank - left.p);
    }
    if (!mem_grow(&d->pairs, &d->cap_pairs, d->n_pairs + 1, sizeof *d->pairs, s->err) ||
        !token_id(d, left, &d->pairs[d->n_pairs][0]) || !token_id(d, right, &d->pairs[d->n_pairs][1]))
        return false;
    d->n_pairs++;
    s->room = room;
    return true;
}

static bool scan_merges(struct doc *d)
{
    struct scan *s = &d->scan;
    if (!d->merges.p)
        return true;
    s->p = d->merges.p;
    if (!expect(s, '['))
        return false;
    if (take(s, ']'))
        return true;
    do
        if (!scan_merge(d))
            return false;
    while (take(s, ','));
    return expect(s, ']');
}

static bool add_added(struct doc *d, const cJSON *a)
{
    struct error *err = d->scan.err;
    const char *content;
    int64_t id, known;
    if (!json_str(a, "content", &content, "added_tokens", err) || !json_int(a, "id", &id, "added_tokens", err))
        return fail_in(err, "%s", d->scan.where);
    struct slice text = { content, strlen(content) };
    if (!map_get(&d->ids, text.p, text.len, &known))
        return add_entry(d, text, id);
    return known == id || fail(err, STATUS_FORMAT, "%s: added token \"%s\" has id %lld, the vocabulary says %lld",
                               d->scan.where, content, (long long)id, (long long)known);
}

/* Ids must be 0..n-1, each once: a hole or a repeat means that file and model disagree. */
static bool place_entries(struct doc *d)
{
    struct error *err = d->scan.err;
    size_t n = d->n_entries;
    d->tokens = mem_new(n, sizeof *d->tokens, err);
    d->lens = mem_new(n, sizeof *d->lens, err);
    d->types = mem_new(n, sizeof *d->types, err);
    d->flags = mem_new(n, 1, err);
    if (!d->tokens || !d->lens || !d->types || !d->flags)
        return false;
    for (size_t i = 0; i < n; i++) {
        const struct entry *e = &d->entries[i];
        if (e->id < 0 || (size_t)e->id >= n)
            return fail(err, STATUS_FORMAT, "%s: token \"%s\" has id %lld, but there are %zu tokens: ids are missing",
                        d->scan.where, e->text.p, (long long)e->id, n);
        if (d->tokens[e->id])
            return fail(err, STATUS_FORMAT, "%s: tokens \"%s\" and \"%s\" both have id %lld", d->scan.where,
                        d->tokens[e->id], e->text.p, (long long)e->id);
        if (e->text.len > TOKEN_BYTES_MAX)
            return fail(err, STATUS_FORMAT, "%s: token %lld is %zu bytes long, expected at most %d", d->scan.where,
                        (long long)e->id, e->text.len, TOKEN_BYTES_MAX);
        d->tokens[e->id] = e->text.p;
        d->lens[e->id] = (uint32_t)e->text.len;
        d->types[e->id] = TOKEN_NORMAL;
    }
    return true;
}

static void mark_added(struct doc *d, const cJSON *a)
{
    int32_t id = (int32_t)cJSON_GetNumberValue(json_get(a, "id"));
    d->types[id] = cJSON_IsTrue(json_get(a, "special")) ? TOKEN_CONTROL : TOKEN_USER_DEFINED;
    d->flags[id] = (uint8_t)((cJSON_IsTrue(json_get(a, "lstrip")) ? TOKEN_STRIP_LEFT : 0) |
                             (cJSON_IsTrue(json_get(a, "rstrip")) ? TOKEN_STRIP_RIGHT : 0) |
                             (cJSON_IsTrue(json_get(a, "single_word")) ? TOKEN_SINGLE_WORD : 0));
}

static bool read_tokens(struct doc *d, cJSON **added)
{
    const cJSON *a;
    if (d->added.p && !(*added = parse_slice(d, d->added, "added_tokens")))
        return false;
    if (!scan_vocab(d))
        return false;
    if (!d->n_entries)
        return fail(d->scan.err, STATUS_FORMAT, "%s: the vocabulary is empty", d->scan.where);
    cJSON_ArrayForEach(a, *added)
        if (!add_added(d, a))
            return false;
    if (!place_entries(d))
        return false;
    cJSON_ArrayForEach(a, *added)
        mark_added(d, a);
    return scan_merges(d);
}

/* ---- normalizer, pre_tokenizer, post_processor ---- */

static bool is_str(const cJSON *o, const char *key, const char *want)
{
    const char *v = cJSON_GetStringValue(json_get(o, key));
    return v && strcmp(v, want) == 0;
}

static bool unsupported(const struct doc *d, const char *what, const cJSON *o)
{
    char *text = cJSON_PrintUnformatted(o);
    fail(d->scan.err, STATUS_UNSUPPORTED, "%s: %s %.300s is not one that qdelta knows", d->scan.where, what,
         text ? text : "");
    cJSON_free(text);
    return false;
}

typedef bool component_fn(struct doc *d, const cJSON *o);

/* One component, or the members of a Sequence in order. */
static bool each(struct doc *d, const cJSON *o, const char *list, component_fn *fn)
{
    if (!o || cJSON_IsNull(o))
        return true;
    if (!is_str(o, "type", "Sequence"))
        return fn(d, o);
    const cJSON *c;
    cJSON_ArrayForEach(c, json_get(o, list))
        if (is_str(c, "type", "Sequence") ? !unsupported(d, list, c) : !fn(d, c))
            return false;
    return true;
}

static bool read_normalizer(struct doc *d, const cJSON *o)
{
    const cJSON *pattern = json_get(o, "pattern");
    if (is_str(o, "type", "Replace") && is_str(pattern, "String", " ") && is_str(o, "content", SPACE_MARK))
        d->marked = true;
    else if (is_str(o, "type", "Prepend") && is_str(o, "prepend", SPACE_MARK))
        d->extras.prefix = PREFIX_PIECES;
    else if (is_str(o, "type", "NFC"))
        d->spec.nfc = true;
    else
        return unsupported(d, "normalizer", o);
    return true;
}

static bool read_metaspace(struct doc *d, const cJSON *o)
{
    const cJSON *scheme = json_get(o, "prepend_scheme");
    bool always = scheme ? is_str(o, "prepend_scheme", "always") : !cJSON_IsFalse(json_get(o, "add_prefix_space"));
    bool first = is_str(o, "prepend_scheme", "first");
    if (!is_str(o, "replacement", SPACE_MARK) || (scheme && !always && !first && !is_str(o, "prepend_scheme", "never")))
        return unsupported(d, "pre_tokenizer", o);
    d->marked = true;
    d->extras.split_at_blank = !cJSON_IsFalse(json_get(o, "split"));
    d->extras.prefix = always ? PREFIX_PIECES_UNLESS_BLANK : first ? PREFIX_FIRST_UNLESS_BLANK : PREFIX_NONE;
    return true;
}

static bool add_stage(struct doc *d, const char *pattern)
{
    char *copy = d->n_stages < PRETOKENIZER_STAGES && !d->byte_level ? str_dup(pattern, d->scan.err) : NULL;
    if (copy)
        d->stages[d->n_stages++] = copy;
    return copy != NULL;
}

static bool read_split(struct doc *d, const cJSON *o)
{
    const cJSON *pattern = json_get(o, "pattern");
    const char *regex = cJSON_GetStringValue(json_get(pattern, "Regex"));
    if (cJSON_IsTrue(json_get(o, "invert")))
        return unsupported(d, "pre_tokenizer", o);
    if (regex && is_str(o, "behavior", "Isolated") && add_stage(d, regex))
        return true;
    /* After the normalizer no blank is left, so this one never cuts. */
    if (is_str(pattern, "String", " ") && is_str(o, "behavior", "MergedWithPrevious") && d->marked)
        return true;
    return unsupported(d, "pre_tokenizer", o);
}

static bool read_pre(struct doc *d, const cJSON *o)
{
    if (is_str(o, "type", "Split"))
        return read_split(d, o);
    if (is_str(o, "type", "Metaspace") && !d->byte_level)
        return read_metaspace(d, o);
    if (is_str(o, "type", "Digits") && cJSON_IsTrue(json_get(o, "individual_digits")) && add_stage(d, pretokenizer_digits))
        return true;
    if (!is_str(o, "type", "ByteLevel") || cJSON_IsTrue(json_get(o, "add_prefix_space")) || d->byte_level ||
        (!cJSON_IsFalse(json_get(o, "use_regex")) && !add_stage(d, pretokenizer_gpt2)))
        return unsupported(d, "pre_tokenizer", o);
    d->byte_level = true;
    return true;
}

/* The rule that all stages together are. */
static bool name_stages(struct doc *d)
{
    const struct pretokenizer *p = pretokenizer_by_stages((const char *const *)d->stages, d->n_stages, d->spec.nfc, d->spec.ignore_merges);
    if (d->byte_level ? !p : d->n_stages > 0)
        return fail(d->scan.err, STATUS_UNSUPPORTED, "%s: the %d patterns of its pre_tokenizer are not those of any that qdelta knows (the last is %.200s)",
                    d->scan.where, d->n_stages, d->n_stages ? d->stages[d->n_stages - 1] : "none");
    d->spec.pre = d->byte_level ? pretokenizer_name(p) : NULL;
    return true;
}

static int32_t id_of(const struct doc *d, const char *text)
{
    int64_t id;
    return text && map_get(&d->ids, text, strlen(text), &id) ? (int32_t)id : -1;
}

/* "single" of a template: [bos, text] or [text]. */
static bool read_post(struct doc *d, const cJSON *o)
{
    if (is_str(o, "type", "ByteLevel"))
        return true;
    const cJSON *single = json_get(o, "single");
    int n = cJSON_GetArraySize(single);
    if (!is_str(o, "type", "TemplateProcessing") || n < 1 || n > 2 ||
        !json_get(cJSON_GetArrayItem(single, n - 1), "Sequence"))
        return unsupported(d, "post_processor", o);
    if (n == 1)
        return true;
    const cJSON *first = json_get(cJSON_GetArrayItem(single, 0), "SpecialToken");
    d->spec.bos = id_of(d, cJSON_GetStringValue(json_get(first, "id")));
    d->spec.add_bos = true;
    return d->spec.bos >= 0 || unsupported(d, "post_processor", o);
}

static bool read_component(struct doc *d, struct slice s, const char *what, const char *list, component_fn *fn)
{
    cJSON *o = s.p ? parse_slice(d, s, what) : NULL;
    bool ok = (o || !s.p) && each(d, o, list, fn);
    cJSON_Delete(o);
    return ok;
}

static bool read_model(struct doc *d)
{
    const cJSON *m = d->model;
    if (json_get(m, "type") && !is_str(m, "type", "BPE"))
        return unsupported(d, "model type", json_get(m, "type"));
    static const char *const absent[] = { "continuing_subword_prefix", "end_of_word_suffix", "dropout" };
    for (size_t i = 0; i < ARRAY_LEN(absent); i++) {
        const cJSON *v = json_get(m, absent[i]);
        if (v && !(cJSON_IsString(v) && !v->valuestring[0]) && !(cJSON_IsNumber(v) && v->valuedouble == 0))
            return unsupported(d, absent[i], v);
    }
    bool fallback = cJSON_IsTrue(json_get(m, "byte_fallback"));
    d->spec.ignore_merges = cJSON_IsTrue(json_get(m, "ignore_merges"));
    d->spec.unk = id_of(d, cJSON_GetStringValue(json_get(m, "unk_token")));
    if (d->byte_level ? fallback || d->marked : !fallback || !d->marked || d->spec.ignore_merges || d->spec.nfc)
        return fail(d->scan.err, STATUS_UNSUPPORTED,
                    "%s: a BPE model is either ByteLevel, or has byte_fallback and blanks as U+2581; this one has %s, "
                    "byte_fallback %s, ignore_merges %s", d->scan.where, d->byte_level ? "ByteLevel" : "no ByteLevel",
                    fallback ? "true" : "false", d->spec.ignore_merges ? "true" : "false");
    return true;
}

/* ---- tokenizer_config.json ---- */

/* "<bos>" or {"content": "<bos>", ..} */
static int32_t config_token(const struct doc *d, const cJSON *config, const char *key)
{
    const cJSON *v = json_get(config, key);
    return id_of(d, cJSON_GetStringValue(cJSON_IsObject(v) ? json_get(v, "content") : v));
}

static bool read_config(struct doc *d, const char *path)
{
    struct text name = { 0 };
    text_add(&name, path, (size_t)(path_base(path) - path));
    text_puts(&name, "tokenizer_config.json");
    bool ok = text_ok(&name, d->scan.err);
    if (ok && file_exists(name.data)) {
        cJSON *c = json_parse_file(name.data, 1 << 26, d->scan.err);
        ok = c != NULL;
        if (d->spec.bos < 0)
            d->spec.bos = config_token(d, c, "bos_token");
        d->spec.add_bos |= cJSON_IsTrue(json_get(c, "add_bos_token")) && d->spec.bos >= 0;
        d->spec.eos = config_token(d, c, "eos_token");
        d->spec.pad = config_token(d, c, "pad_token");
        cJSON_Delete(c);
    }
    text_free(&name);
    return ok;
}

/* ---- the whole ---- */

static bool build(struct doc *d, struct tokenizer **out, const char *path)
{
    d->spec.where = path;
    d->spec.bos = d->spec.eos = d->spec.unk = d->spec.pad = -1;
    if (!read_component(d, d->normalizer, "normalizer", "normalizers", read_normalizer) ||
        !read_component(d, d->pre, "pre_tokenizer", "pretokenizers", read_pre) ||
        !read_component(d, d->post, "post_processor", "processors", read_post) || !read_model(d) || !name_stages(d) ||
        !read_config(d, path))
        return false;
    d->spec.kind = d->byte_level ? "gpt2" : "gemma4";
    d->spec.n_tokens = (int)d->n_entries;
    d->spec.tokens = d->tokens, d->spec.token_lens = d->lens, d->spec.types = d->types;
    d->spec.n_merges = (int64_t)d->n_pairs;
    d->extras.pairs = (const int32_t (*)[2])d->pairs;
    d->extras.flags = d->flags;
    d->extras.exact = true;
    d->extras.no_newline_runs = true;
    return tokenizer_build(out, &d->spec, &d->extras, d->scan.err);
}

bool tokenizer_from_json(struct tokenizer **out, const char *tokenizer_json_path, struct error *err)
{
    struct mapping file = { 0 };
    cJSON *added = NULL;
    *out = NULL;
    if (!mapping_open(&file, tokenizer_json_path, err))
        return false;
    const char *text = (const char *)file.data;
    struct doc d = { .room = mem_new(file.size + 1, 1, err) };
    d.scan = (struct scan){ text, text + file.size, text, tokenizer_json_path, d.room, err };
    bool ok = d.room && scan_document(&d) && read_tokens(&d, &added) && build(&d, out, tokenizer_json_path);
    cJSON_Delete(added);
    cJSON_Delete(d.model);
    free(d.entries);
    free(d.pairs);
    free(d.tokens);
    free(d.lens);
    free(d.types);
    free(d.flags);
    for (int i = 0; i < d.n_stages; i++)
        free(d.stages[i]);
    map_free(&d.ids);
    free(d.room);
    mapping_close(&file);
    return ok;
}
