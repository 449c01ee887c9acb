/* encode.c - rendered items -> token ids, by the rules of lm-evaluation-harness (eval-semantics 2.1):
 * white space at the end of the context moves to the continuation; both are encoded as one text and divided
 * where the context alone ends. */
#include <stdlib.h>
#include <string.h>

#include "run.h"

static bool keep_ids(const struct ids *ids, struct arena *a, struct token_seq *out, struct error *err)
{
    out->n = (int)ids->n;
    out->ids = arena_new(a, ids->n * sizeof *out->ids, err);
    if (out->ids && ids->n)
        memcpy(out->ids, ids->data, ids->n * sizeof *out->ids);
    return out->ids != NULL;
}

static bool encode_text(const struct encoder *c, const struct text *t, bool bos, struct ids *out, struct error *err)
{
    return tokenizer_encode(c->model->tokenizer, text_str(t), t->len, bos, false, out, err);
}

/* ---- plain text ---- */

/* An empty context: the BOS (else EOS) token alone, and a continuation without one. */
static bool pair_empty(const struct encoder *c, const struct text *continuation, struct ids *whole, int *n_context, struct error *err)
{
    int first = tokenizer_bos(c->model->tokenizer);
    if (first < 0)
        first = c->model->config.bos >= 0 ? c->model->config.bos : c->model->config.eos;
    *n_context = 1;
    return ids_add(whole, first, err) && encode_text(c, continuation, false, whole, err);
}

/* context + continuation -> whole, of which the first n_context ids are context. */
static bool encode_pair(const struct encoder *c, const char *context, size_t len, const char *delimiter, const char *choice,
                        const struct ids *context_ids, struct ids *whole, int *n_context, bool *crossed, struct error *err)
{
    size_t space = trailing_space(context, len);
    struct text both = { 0 };
    text_add(&both, context + len - space, space);
    text_puts(&both, delimiter);
    text_puts(&both, choice);
    bool ok;
    if (len == space || !context_ids->n) {
        ok = text_ok(&both, err) && pair_empty(c, &both, whole, n_context, err);
    } else {
        text_clear(&both);
        text_add(&both, context, len);
        text_puts(&both, delimiter);
        text_puts(&both, choice);
        *n_context = (int)context_ids->n;
        ok = text_ok(&both, err) && encode_text(c, &both, true, whole, err);
        *crossed |= ok && (whole->n < context_ids->n ||
                           memcmp(whole->data, context_ids->data, context_ids->n * sizeof *whole->data) != 0);
    }
    text_free(&both);
    return ok;
}

/* Ids of the context as the continuation's border counts them: without its trailing white space. */
static bool encode_context(const struct encoder *c, const struct text *context, bool strip, struct ids *out, struct error *err)
{
    size_t len = context->len - (strip ? trailing_space(text_str(context), context->len) : 0);
    return tokenizer_encode(c->model->tokenizer, text_str(context), len, true, false, out, err);
}

static bool encode_plain(const struct encoder *c, const struct item_text *x, const char *query, int first, int n, struct arena *a,
                         struct request *out, struct error *err)
{
    const struct task *t = c->task;
    struct text context = { 0 };
    struct ids context_ids = { 0 }, whole = { 0 };
    size_t prefix;
    bool generates = t->spec.kind->generates;
    item_prompt(t, x, query, &context, &prefix);
    bool ok = text_ok(&context, err) && encode_context(c, &context, !generates, &context_ids, err);
    if (ok && generates)
        ok = (context_ids.n || ids_add(&context_ids, c->model->config.bos >= 0 ? c->model->config.bos : c->model->config.eos, err)) &&
             keep_ids(&context_ids, a, &out->seqs[0], err);
    if (ok && generates)
        out->seqs[0].n_context = out->seqs[0].n;
    for (int i = first; ok && !generates && i < first + n; i++) {
        whole.n = 0;
        ok = encode_pair(c, text_str(&context), context.len, t->spec.target_delimiter, x->choices[i], &context_ids, &whole,
                         &out->seqs[i].n_context, &out->crossed, err) &&
             keep_ids(&whole, a, &out->seqs[i], err);
    }
    text_free(&context);
    ids_free(&context_ids);
    ids_free(&whole);
    return ok;
}

/* ---- chat: shots as turns, description as system message, no delimiters ---- */

static bool encode_turns(const struct encoder *c, const struct item_text *x, const char *query, struct ids *out, struct error *err)
{
    struct chat_turn *turns = mem_new(2 * (size_t)x->n_shots + 2, sizeof *turns, err);
    int n = 0;
    if (!turns)
        return false;
    if (*x->description)
        turns[n++] = (struct chat_turn){ "system", x->description };
    for (int s = 0; s < x->n_shots; s++) {
        turns[n++] = (struct chat_turn){ "user", x->shot_query[s] };
        turns[n++] = (struct chat_turn){ "assistant", x->shot_answer[s] };
    }
    turns[n++] = (struct chat_turn){ "user", query };
    bool ok = chat_encode(c->model->tokenizer, c->chat, turns, n, false, out, err);
    free(turns);
    return ok;
}

static bool encode_chat(const struct encoder *c, const struct item_text *x, const char *query, int first, int n, struct arena *a,
                        struct request *out, struct error *err)
{
    struct ids whole = { 0 };
    bool ok = encode_turns(c, x, query, &whole, err);
    size_t n_context = whole.n;
    for (int i = first; ok && i < first + n; i++) {
        whole.n = n_context;
        out->seqs[i].n_context = (int)n_context;
        ok = (c->task->spec.kind->generates ||
              tokenizer_encode(c->model->tokenizer, x->choices[i], strlen(x->choices[i]), false, false, &whole, err)) &&
             keep_ids(&whole, a, &out->seqs[i], err);
    }
    ids_free(&whole);
    return ok;
}

/* ---- the request ---- */

/* Digest of the context's ids; where each choice has a context of its own, of all of them. */
static bool hash_prompt(struct request *q, bool own_contexts, struct error *err)
{
    struct sha256 s;
    uint8_t digest[32];
    if (!sha256_init(&s, err))
        return false;
    for (int i = 0; i < (own_contexts ? q->n_seqs : 1); i++)
        for (int k = 0; k < q->seqs[i].n_context; k++) {
            uint32_t id = (uint32_t)q->seqs[i].ids[k];
            uint8_t bytes[4] = { (uint8_t)id, (uint8_t)(id >> 8), (uint8_t)(id >> 16), (uint8_t)(id >> 24) };
            sha256_add(&s, bytes, sizeof bytes);
        }
    sha256_end(&s, digest);
    hex_of(digest, sizeof digest, q->prompt_hash);
    return true;
}

/* A choice of which nothing is left to score (the border was crossed) is an error: there is no number to give. */
static bool check_request(const struct encoder *c, struct request *q, struct error *err)
{
    bool generates = c->task->spec.kind->generates;
    int context = c->model->config.context;
    for (int i = 0; i < q->n_seqs; i++) {
        const struct token_seq *s = &q->seqs[i];
        if (!generates && s->n <= s->n_context)
            return fail(err, STATUS_INPUT, "task %s, item %s: choice %d (\"%.40s\") has no token of its own after the prompt",
                        c->task->spec.name, q->text.id, i + 1, q->text.choices[i]);
        if (context > 0 && s->n - (generates ? 0 : 1) > context)
            q->too_long = true;
    }
    return true;
}

bool request_encode(const struct encoder *c, int item, struct arena *a, struct request *out, struct error *err)
{
    *out = (struct request){ 0 };
    struct item_text *x = &out->text;
    if (!item_render(c->task, item, a, x, err))
        return false;
    bool (*encode)(const struct encoder *, const struct item_text *, const char *, int, int, struct arena *, struct request *,
                   struct error *) = c->chat == CHAT_NONE ? encode_plain : encode_chat;
    out->n_seqs = x->n_choices ? x->n_choices : 1;
    if (!(out->seqs = arena_new(a, (size_t)out->n_seqs * sizeof *out->seqs, err)))
        return false;
    bool ok = true;
    if (x->query)
        ok = encode(c, x, x->query, 0, out->n_seqs, a, out, err);
    for (int i = 0; ok && !x->query && i < out->n_seqs; i++)
        ok = encode(c, x, x->queries[i], i, 1, a, out, err);
    if (!ok)
        return fail_in(err, "task %s, item %s", c->task->spec.name, x->id);
    return hash_prompt(out, x->query == NULL, err) && check_request(c, out, err);
}
