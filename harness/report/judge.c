/* judge.c - counts, intervals, tests and the verdict of one comparison.
 *
 * Three verdicts and never "no significant difference, so equal":
 *   better / worse   the adjusted p is below alpha;
 *   equivalent       the 90 % interval of delta lies inside the margin (two one-sided tests at 5 %);
 *   cannot tell      anything else, with the smallest difference that could have been seen.
 * Two models that both score no better than a guesser are never told apart: whatever differs is noise or bias. */
#include "report/study.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const verdict_names[VERDICT_COUNT] = {
    [VERDICT_BETTER] = "better",
    [VERDICT_WORSE] = "worse",
    [VERDICT_EQUIVALENT] = "equivalent",
    [VERDICT_CANNOT_TELL] = "cannot tell",
};

static const double LEVEL = .95, POWER = .8;
/* Generated answers have no choices to guess among, yet a wrong chain of thought ends on the right small number
 * now and then: below this share a score says nothing about the model. */
static const double LUCKY_SHARE = .02;
static const double TIE_NATS = .1, SURE_NATS = 1;
/* Four discordant items, all one way, have mid-p .0625: with fewer than five nothing can ever be significant. */
enum { FEWEST_DISCORDANT = 5 };

static bool same_answer(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static void count_flip(struct comparison *c, const struct pair *p, bool lost)
{
    *(lost ? &c->lost : &c->won) += 1;
    if (p->base_margin < TIE_NATS)
        *(lost ? &c->lost_tie : &c->won_tie) += 1;
    if (p->base_margin > SURE_NATS)
        *(lost ? &c->lost_sure : &c->won_sure) += 1;
}

static void count_pairs(struct contrast *x)
{
    struct comparison *c = &x->c;
    double guess = 0;
    int with_choices = 0;
    c->binary = true;
    for (int i = 0; i < c->n; i++) {
        const struct pair *p = &x->pairs[i];
        bool base = p->base >= 1, model = p->model >= 1;
        c->binary &= (p->base == 0 || base) && (p->model == 0 || model) && p->base <= 1 && p->model <= 1;
        if (base != model)
            count_flip(c, p, base);
        else
            *(base ? &c->both : &c->neither) += 1;
        c->other += !base && !model && !same_answer(p->base_answer, p->answer);
        c->base_invalid += !p->base_answer;
        c->invalid += !p->answer;
        c->base_truncated += p->base_truncated;
        c->truncated += p->truncated;
        guess += p->choices > 1 ? 1.0 / p->choices : 0;     /* an item that could not be asked has no choices */
        with_choices += p->choices > 1;
    }
    c->generated = with_choices == 0;
    c->chance = c->generated ? LUCKY_SHARE : guess / c->n;
}

static void measure_binary(struct comparison *c, double alpha)
{
    int n = c->n, base = c->both + c->lost, model = c->both + c->won;
    struct interval b = wilson(base, n, LEVEL), m = wilson(model, n, LEVEL), d = tango(c->won, c->lost, n, LEVEL);
    c->base_score = (double)base / n, c->base_lo = b.lo, c->base_hi = b.hi;
    c->score = (double)model / n, c->score_lo = m.lo, c->score_hi = m.hi;
    c->delta = ((double)c->won - c->lost) / n, c->delta_lo = d.lo, c->delta_hi = d.hi;
    c->p = mcnemar_midp(c->won, c->lost);
    c->detectable = fmax(min_detectable((double)(c->won + c->lost) / n, n, alpha, POWER), (double)FEWEST_DISCORDANT / n);
    c->base_at_chance = c->base_lo <= c->chance;
    c->at_chance = c->score_lo <= c->chance;
}

static void measure_fractions(struct comparison *c, const double *base, const double *model, double *d, double alpha)
{
    int n = c->n;
    for (int i = 0; i < n; i++)
        d[i] = model[i] - base[i];
    struct interval b = mean_interval(base, n, LEVEL), m = mean_interval(model, n, LEVEL), i = mean_interval(d, n, LEVEL);
    c->base_score = mean_of(base, n), c->base_lo = b.lo, c->base_hi = b.hi;
    c->score = mean_of(model, n), c->score_lo = m.lo, c->score_hi = m.hi;
    c->delta = mean_of(d, n), c->delta_lo = i.lo, c->delta_hi = i.hi;
    c->p = paired_t(d, n);
    c->detectable = (normal_quantile(1 - alpha / 2) + normal_quantile(POWER)) * mean_se(d, n);
    c->lost = c->won = c->lost_tie = c->won_tie = c->lost_sure = c->won_sure = c->both = c->neither = 0;
    for (int k = 0; k < n; k++) {       /* of fractions: items that went down, up, and stayed */
        c->lost += d[k] < 0;
        c->won += d[k] > 0;
        c->both += d[k] == 0;
    }
}

bool contrast_measure(struct contrast *x, double alpha, struct error *err)
{
    struct comparison *c = &x->c;
    count_pairs(x);
    if (c->binary) {
        measure_binary(c, alpha);
        return true;
    }
    double *scores = mem_new(3 * (size_t)c->n, sizeof *scores, err);
    if (!scores)
        return false;
    for (int i = 0; i < c->n; i++) {
        scores[i] = x->pairs[i].base;
        scores[c->n + i] = x->pairs[i].model;
    }
    measure_fractions(c, scores, scores + c->n, scores + 2 * c->n, alpha);
    free(scores);
    return true;
}

/* ---- words ---- */

void put_p(struct text *t, double p)
{
    char digits[32];
    if (isnan(p)) {
        text_puts(t, "undefined");
    } else if (p < .0001) {
        text_puts(t, "< .0001");
    } else if (p > .9995) {
        text_puts(t, "1");
    } else {
        snprintf(digits, sizeof digits, p < .01 ? "%.4f" : "%.3f", p);
        text_puts(t, digits + (digits[0] == '0'));
    }
}

void put_points(struct text *t, double share, bool sign)
{
    double points = 100 * share;
    int decimals = fabs(points) < .095 ? 2 : 1;
    double unit = decimals == 2 ? .01 : .1;
    if (fabs(points) < unit / 2)
        points = 0;                     /* never "-0.0" */
    text_printf(t, sign && points > 0 ? "+%.*f" : "%.*f", points == 0 ? 1 : decimals, points);
}

static void put_interval(struct text *t, double lo, double hi)
{
    put_points(t, lo, true);
    text_puts(t, " to ");
    put_points(t, hi, true);
}

static void put_margin(struct text *t, double margin)
{
    text_printf(t, "%g point%s", 100 * margin, margin == .01 ? "" : "s");
}

static void put_evidence(struct text *t, const struct comparison *c)
{
    text_printf(t, c->binary ? "%d lost, %d won, " : "%d down, %d up, ", c->lost, c->won);
    bool below = c->p_holm < .0001;
    text_puts(t, below ? "Holm p " : "Holm p = ");
    put_p(t, c->p_holm);
}

static struct interval inner_interval(const struct contrast *x, double alpha)
{
    const struct comparison *c = &x->c;
    if (c->binary)
        return tango(c->won, c->lost, c->n, 1 - 2 * alpha);
    double half = (c->delta_hi - c->delta) / student_quantile(.5 + LEVEL / 2, c->n - 1) * student_quantile(1 - alpha, c->n - 1);
    return (struct interval){ c->delta - half, c->delta + half };
}

static void put_chance(struct text *t, const struct comparison *c)
{
    if (c->generated)
        text_printf(t, "hardly any answer is right (%.1f %% and %.1f %%)", 100 * c->base_score, 100 * c->score);
    else
        text_printf(t, "both score at chance level (%.1f %%)", 100 * c->chance);
    text_puts(t, ", so this task says nothing about these two; ");
}

/* How many items would show equality, if there is any, at the rate of discordant items seen here. */
static void put_needed(struct text *t, const struct comparison *c, double margin, double alpha)
{
    double psi = (double)(c->won + c->lost) / c->n, needed = items_for_equivalence(margin, psi, alpha, POWER);
    if (!c->binary || (c->base_at_chance && c->at_chance) || !(needed > c->n))
        return;
    double unit = pow(10, floor(log10(needed)) - 1);    /* two digits: it is an estimate */
    text_puts(t, "; to show equality within ");
    put_margin(t, margin);
    text_printf(t, " takes about %.0f items", ceil(needed / unit) * unit);
}

static void put_words(struct text *t, const struct contrast *x, double margin, double alpha)
{
    const struct comparison *c = &x->c;
    struct interval inner = inner_interval(x, alpha);
    bool inside = inner.lo > -margin && inner.hi < margin;
    switch (c->verdict) {
    case VERDICT_BETTER:
    case VERDICT_WORSE:
        text_printf(t, "%s by ", verdict_names[c->verdict]);
        put_points(t, fabs(c->delta), false);
        text_puts(t, " points (");
        put_interval(t, c->delta_lo, c->delta_hi);
        text_puts(t, "): ");
        put_evidence(t, c);
        if (inside) {
            text_puts(t, "; yet within ");
            put_margin(t, margin);
        }
        if (c->binary && c->at_chance)
            text_puts(t, "; the model is at chance level");
        break;
    case VERDICT_EQUIVALENT:
        text_puts(t, "equivalent within ");
        put_margin(t, margin);
        text_printf(t, ": delta ");
        put_points(t, c->delta, true);
        text_printf(t, ", %g %% interval ", 100 * (1 - 2 * alpha));
        put_interval(t, inner.lo, inner.hi);
        text_printf(t, c->binary ? ", %d lost, %d won" : ", %d down, %d up", c->lost, c->won);
        break;
    case VERDICT_CANNOT_TELL:
    case VERDICT_COUNT:
        text_puts(t, "cannot tell: ");
        if (c->binary && c->base_at_chance && c->at_chance)
            put_chance(t, c);
        text_puts(t, "delta ");
        put_points(t, c->delta, true);
        text_puts(t, " (");
        put_interval(t, c->delta_lo, c->delta_hi);
        text_puts(t, "), ");
        put_evidence(t, c);
        text_puts(t, " (smallest difference that could have been seen: ");
        put_points(t, c->detectable, false);
        text_puts(t, " points)");
        put_needed(t, c, margin, alpha);
        break;
    }
}

static enum verdict verdict_of(const struct contrast *x, double margin, double alpha)
{
    const struct comparison *c = &x->c;
    if (c->binary && c->base_at_chance && c->at_chance)
        return VERDICT_CANNOT_TELL;
    if (c->p_holm < alpha)
        return c->delta > 0 ? VERDICT_BETTER : VERDICT_WORSE;
    struct interval inner = inner_interval(x, alpha);
    return inner.lo > -margin && inner.hi < margin ? VERDICT_EQUIVALENT : VERDICT_CANNOT_TELL;
}

/* Two families: the primary rows behind the report's claims, and the exploratory ones. */
static bool adjust(struct study *st, bool exploratory, struct error *err)
{
    double *p = mem_new((size_t)st->n + 1, 2 * sizeof *p, err);
    if (!p)
        return false;
    for (int i = 0; i < st->n; i++)
        p[i] = st->contrasts[i].c.exploratory == exploratory && !st->contrasts[i].c.refused ? st->contrasts[i].c.p : NAN;
    holm(p, st->n, p + st->n);
    for (int i = 0; i < st->n; i++)
        if (st->contrasts[i].c.exploratory == exploratory)
            st->contrasts[i].c.p_holm = p[st->n + i];
    free(p);
    return true;
}

bool contrasts_judge(struct study *st, struct error *err)
{
    bool ok = adjust(st, false, err) && adjust(st, true, err);
    struct text words = { 0 };
    for (int i = 0; ok && i < st->n; i++) {
        struct contrast *x = &st->contrasts[i];
        if (x->c.refused)
            continue;
        x->c.verdict = verdict_of(x, st->margin, st->alpha);
        text_clear(&words);
        put_words(&words, x, st->margin, st->alpha);
        ok = text_ok(&words, err) && (x->c.words = arena_str(&st->arena, text_str(&words), words.len, err)) != NULL;
    }
    text_free(&words);
    return ok;
}
