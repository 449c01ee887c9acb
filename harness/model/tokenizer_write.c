/* tokenizer_write.c - a tokenizer as the files of a Hugging Face folder: tokenizer.json, tokenizer_config.json (special
 * tokens, chat template) and generation_config.json (the ids that end an answer).
 *
 * Whatever the source, tokenizer.json holds a BPE model.  SPM scores become merges: every way to cut a token in two, by
 * falling score, a longer left part first where scores are equal - what the reference converters do too. */
#include "files.h"
#include "tokenizer_private.h"

#include <stdlib.h>

static void put_token(struct text *out, const struct token *k)
{
    json_quote(out, k->text, k->len);
}

static bool special(const struct token *k)
{
    return k->type == TOKEN_CONTROL || k->type == TOKEN_UNKNOWN;
}

static const char *json_bool_text(bool v)
{
    return v ? "true" : "false";
}

static void put_added(struct text *out, const struct tokenizer *t)
{
    const char *comma = "";
    text_puts(out, "\"added_tokens\":[");
    for (int id = 0; id < t->n_tokens; id++) {
        const struct token *k = &t->tokens[id];
        if (!k->len || (!special(k) && k->type != TOKEN_USER_DEFINED))
            continue;
        text_printf(out, "%s\n{\"id\":%d,\"content\":", comma, id);
        put_token(out, k);
        text_printf(out, ",\"single_word\":%s,\"lstrip\":%s,\"rstrip\":%s,\"normalized\":false,\"special\":%s}",
                    json_bool_text(k->flags & TOKEN_SINGLE_WORD), json_bool_text(k->flags & TOKEN_STRIP_LEFT),
                    json_bool_text(k->flags & TOKEN_STRIP_RIGHT), json_bool_text(special(k)));
        comma = ",";
    }
    text_puts(out, "],\n");
}

/* ---- how text is cut before merging, by kind ---- */

#define REPLACE_BLANKS "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" SPACE_MARK "\"}"
#define BYTE_LEVEL(SPLITS) "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":false,\"use_regex\":" SPLITS "}"

static void put_marked_front(struct text *out, const struct tokenizer *t)
{
    if (t->prefix == PREFIX_PIECES)
        text_puts(out, "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"" SPACE_MARK "\"},"
                       REPLACE_BLANKS "]},\n\"pre_tokenizer\":null,\n");
    else
        text_puts(out, "\"normalizer\":" REPLACE_BLANKS ",\n\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},"
                       "\"behavior\":\"MergedWithPrevious\",\"invert\":false},\n");
}

static void put_split(struct text *out, const char *pattern)
{
    text_puts(out, "{\"type\":\"Split\",\"pattern\":{\"Regex\":");
    json_quote(out, pattern, strlen(pattern));
    text_puts(out, "},\"behavior\":\"Isolated\",\"invert\":false},");
}

/* GPT-2's pattern is ByteLevel's own, if it comes last; a digit at a time has a name. */
static void put_byte_front(struct text *out, const struct tokenizer *t)
{
    const char *stage, *next = pretokenizer_stage(t->pre, 0);
    text_printf(out, "\"normalizer\":%s,\n\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[", t->nfc ? "{\"type\":\"NFC\"}" : "null");
    bool own = false;
    for (int i = 0; (stage = next); i++) {
        next = pretokenizer_stage(t->pre, i + 1);
        own = !next && strcmp(stage, pretokenizer_gpt2) == 0;
        if (!next && own)
            break;
        if (strcmp(stage, pretokenizer_digits) == 0)
            text_puts(out, "{\"type\":\"Digits\",\"individual_digits\":true},");
        else
            put_split(out, stage);
    }
    text_puts(out, own ? BYTE_LEVEL("true") "]},\n" : BYTE_LEVEL("false") "]},\n");
}

static void put_post(struct text *out, const struct tokenizer *t)
{
    text_puts(out, "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[");
    if (t->add_bos) {
        text_puts(out, "{\"SpecialToken\":{\"id\":");
        put_token(out, &t->tokens[t->bos]);
        text_puts(out, ",\"type_id\":0}},");
    }
    text_puts(out, "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},"
                   "{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],\"special_tokens\":{");
    if (t->add_bos) {
        put_token(out, &t->tokens[t->bos]);
        text_puts(out, ":{\"id\":");
        put_token(out, &t->tokens[t->bos]);
        text_printf(out, ",\"ids\":[%d],\"tokens\":[", t->bos);
        put_token(out, &t->tokens[t->bos]);
        text_puts(out, "]}");
    }
    text_puts(out, "}},\n");
}

static void put_decoder(struct text *out, const struct tokenizer *t)
{
    if (t->kind == KIND_BYTE_BPE)
        text_puts(out, "\"decoder\":" BYTE_LEVEL("true") ",\n");
    else
        text_printf(out, "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"" SPACE_MARK "\"},"
                    "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}%s]},\n",
                    t->prefix == PREFIX_NONE ? "" : ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}");
}

/* ---- the model ---- */

struct merge {
    struct pair pair;
    size_t left_chars, right_chars;
};

static int merge_order(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;
    if (x->pair.rank != y->pair.rank)
        return x->pair.rank < y->pair.rank ? -1 : 1;
    if (x->left_chars != y->left_chars)
        return x->left_chars > y->left_chars ? -1 : 1;
    if (x->right_chars != y->right_chars)
        return x->right_chars > y->right_chars ? -1 : 1;
    return x->pair.left != y->pair.left ? (x->pair.left < y->pair.left ? -1 : 1) : (x->pair.right > y->pair.right) - (x->pair.right < y->pair.right);
}

/* A character that is no token by itself falls apart into bytes in BPE, so pairs with one are left out. */
static struct merge *merges_of(const struct tokenizer *t, size_t *n, struct error *err)
{
    struct merge *all = mem_new(t->pairs.count + 1, sizeof *all, err);
    *n = 0;
    for (size_t i = 0; all && i <= t->pairs.mask; i++) {
        const struct pair *p = &t->pairs.slots[i];
        if (p->left < 0 || p->left >= t->n_tokens || p->right >= t->n_tokens)
            continue;
        const struct token *l = &t->tokens[p->left], *r = &t->tokens[p->right];
        all[(*n)++] = (struct merge){ *p, utf8_count(l->text, l->len), utf8_count(r->text, r->len) };
    }
    if (all)
        qsort(all, *n, sizeof *all, merge_order);
    return all;
}

static bool put_merges(struct text *out, const struct tokenizer *t, struct error *err)
{
    size_t n;
    struct merge *merges = merges_of(t, &n, err);
    text_puts(out, "\"merges\":[");
    for (size_t i = 0; merges && i < n; i++) {
        text_puts(out, i ? ",\n[" : "\n[");
        put_token(out, &t->tokens[merges[i].pair.left]);
        text_putc(out, ',');
        put_token(out, &t->tokens[merges[i].pair.right]);
        text_putc(out, ']');
    }
    free(merges);
    text_puts(out, "]");
    return merges != NULL;
}

static bool put_model(struct text *out, const struct tokenizer *t, struct error *err)
{
    bool bytes = t->kind == KIND_BYTE_BPE;
    text_puts(out, "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":");
    if (t->unk >= 0)
        put_token(out, &t->tokens[t->unk]);
    else
        text_puts(out, "null");
    text_printf(out, ",\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":%s,\"byte_fallback\":%s,"
                "\"ignore_merges\":%s,\n\"vocab\":{", json_bool_text(!bytes), json_bool_text(!bytes), json_bool_text(t->ignore_merges));
    for (int id = 0; id < t->n_tokens; id++) {
        text_puts(out, id ? ",\n" : "\n");
        put_token(out, &t->tokens[id]);
        text_printf(out, ":%d", id);
    }
    text_puts(out, "},\n");
    return put_merges(out, t, err) && (text_puts(out, "}}\n"), true);
}

/* What JSON cannot hold, or no reader would read the same. */
static bool check_writable(const struct tokenizer *t, struct error *err)
{
    for (int id = 0; id < t->n_tokens; id++) {
        const struct token *k = &t->tokens[id];
        if (!k->len || utf8_check(k->text, k->len) != k->len || memchr(k->text, '\0', k->len))
            return fail(err, STATUS_UNSUPPORTED, "token %d is %s, which tokenizer.json cannot hold", id,
                        !k->len ? "empty" : memchr(k->text, '\0', k->len) ? "text with a NUL byte" : "not valid UTF-8");
    }
    return t->prefix == PREFIX_NONE || t->prefix == PREFIX_PIECES || fail(err, STATUS_UNSUPPORTED, "this rule for a leading blank is not written");
}

static bool put_tokenizer(struct text *out, const struct tokenizer *t, struct error *err)
{
    if (!check_writable(t, err))
        return false;
    text_puts(out, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\n");
    put_added(out, t);
    (t->kind == KIND_BYTE_BPE ? put_byte_front : put_marked_front)(out, t);
    put_post(out, t);
    put_decoder(out, t);
    return put_model(out, t, err);
}

/* ---- the small files ---- */

static void put_name(cJSON *o, const char *key, const struct tokenizer *t, int id)
{
    if (id >= 0)
        cJSON_AddStringToObject(o, key, t->tokens[id].text);
}

static cJSON *tokenizer_config(const struct model *m)
{
    const struct tokenizer *t = m->tokenizer;
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "tokenizer_class", "PreTrainedTokenizerFast");
    cJSON_AddBoolToObject(o, "add_bos_token", t->add_bos);
    cJSON_AddBoolToObject(o, "clean_up_tokenization_spaces", false);
    cJSON_AddNumberToObject(o, "model_max_length", m->config.context);
    put_name(o, "bos_token", t, t->bos);
    put_name(o, "eos_token", t, t->eos);
    put_name(o, "unk_token", t, t->unk);
    put_name(o, "pad_token", t, t->pad);
    if (m->chat_template)
        cJSON_AddStringToObject(o, "chat_template", m->chat_template);
    return o;
}

static cJSON *generation_config(const struct model *m)
{
    const struct model_config *c = &m->config;
    cJSON *o = cJSON_CreateObject();
    if (c->bos >= 0)
        cJSON_AddNumberToObject(o, "bos_token_id", c->bos);
    if (c->n_stop)
        cJSON_AddItemToObject(o, "eos_token_id", cJSON_CreateIntArray(c->stop_ids, c->n_stop));
    if (c->pad >= 0)
        cJSON_AddNumberToObject(o, "pad_token_id", c->pad);
    return o;
}

/* Frees o. */
static bool write_object(const char *dir, const char *name, cJSON *o, struct error *err)
{
    struct text path = { 0 };
    char *text = cJSON_Print(o);
    path_join(&path, dir, name);
    bool ok = text_ok(&path, err) && (text || fail(err, STATUS_MEMORY, "out of memory for %s", name)) &&
              file_write(text_str(&path), text, strlen(text), err);
    text_free(&path);
    cJSON_free(text);
    cJSON_Delete(o);
    return ok;
}

bool tokenizer_write_json(const struct tokenizer *t, const char *path, struct error *err)
{
    struct text json = { 0 };
    bool ok = put_tokenizer(&json, t, err) && text_ok(&json, err) && file_write(path, json.data, json.len, err);
    text_free(&json);
    return ok;
}

bool model_write_tokenizer(const struct model *m, const char *dir, struct error *err)
{
    struct text path = { 0 };
    path_join(&path, dir, "tokenizer.json");
    bool ok = text_ok(&path, err) && tokenizer_write_json(m->tokenizer, text_str(&path), err) &&
              write_object(dir, "tokenizer_config.json", tokenizer_config(m), err) &&
              write_object(dir, "generation_config.json", generation_config(m), err);
    text_free(&path);
    return ok || fail_in(err, "the tokenizer of %s", m->path);
}
