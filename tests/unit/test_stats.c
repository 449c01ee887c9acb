/* test_stats.c - every vector of the statistics that reports rest on; where a row says scipy, the number was
 * computed with scipy 1.17 or statsmodels 0.15 and is given to 12 digits. */
#include "check.h"

#include <csv.h>

#include "report/stats.h"

static void test_wilson(void **state)
{
    (void)state;
    static const struct { int k, n; double lo, hi, tol; } rows[] = {
        { 900, 1319, .65671, .70690, 5e-6 },
        { 198, 198, .98097, 1, 5e-6 },
        { 0, 50, 0, .0713475991334, 1e-12 },                                /* scipy from here */
        { 1, 7, .0256796243447, .513127829274, 1e-12 },
        { 7021, 14042, .491731167124, .508268832876, 1e-12 },
        { 133, 200, .59702191208, .726759130216, 1e-12 },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct interval w = wilson(rows[i].k, rows[i].n, .95);
        CHECK_NEAR(w.lo, rows[i].lo, rows[i].tol, "lower end of %d/%d", rows[i].k, rows[i].n);
        CHECK_NEAR(w.hi, rows[i].hi, rows[i].tol, "upper end of %d/%d", rows[i].k, rows[i].n);
    }
    CHECK(isnan(wilson(0, 0, .95).lo), "no items, no interval");
}

static void test_standard_errors(void **state)
{
    (void)state;
    double score[1319] = { 0 };
    for (int i = 0; i < 900; i++)
        score[i] = 1;
    CHECK_NEAR(mean_se(score, 1319), .0128241, 5e-8, "900/1319");
    static const double d[] = { 1, 0, -1, 1, 1, 0, 0, 0, -1, 1 };
    static const int cluster[] = { 0, 0, 0, 1, 1, 2, 2, 2, 3, 3 };
    struct error err;
    CHECK_NEAR(mean_of(d, 10), .2, 1e-15, "mean");
    CHECK_NEAR(mean_se(d, 10), .249443826, 5e-10, "independent items");
    CHECK_NEAR(clustered_se(d, cluster, 10, 4, true, &err), .185472370, 5e-10, "clusters");
    CHECK_NEAR(clustered_se(d, cluster, 10, 4, false, &err), .214165045, 5e-10, "clusters, C/(C-1)");
    CHECK_NEAR(paired_se_binary(4, 2, 10), .249443826, 5e-10, "binary form of the same d");
    CHECK(isnan(clustered_se(d, cluster, 3, 1, false, &err)), "one cluster has no spread");
}

static void test_mcnemar(void **state)
{
    (void)state;
    static const struct { int b, c; double exact, midp, chi2, corrected; } rows[] = {
        { 10, 20, .098737, .070756, .067889, .100348 }, { 3, 10, .092285, .057373, .052204, .096092 },
        { 30, 48, .053544, .042165, .041540, .054246 }, { 60, 40, .056888, .046044, .045500, .057433 },
        { 0, 6, .031250, .015625, NAN, NAN },           { 346, 412, .018172, .016535, .016520, .018230 },
        { 5, 5, 1, 1, 1, NAN },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int b = rows[i].b, c = rows[i].c;
        for (int swap = 0; swap < 2; swap++, b = rows[i].c, c = rows[i].b) {
            CHECK_NEAR(mcnemar_exact(b, c), rows[i].exact, 5e-7, "exact %d, %d", b, c);
            CHECK_NEAR(mcnemar_midp(b, c), rows[i].midp, 5e-7, "mid-p %d, %d", b, c);
            if (!isnan(rows[i].chi2))
                CHECK_NEAR(mcnemar_chi2(b, c, false), rows[i].chi2, 5e-7, "chi2 %d, %d", b, c);
            if (!isnan(rows[i].corrected))
                CHECK_NEAR(mcnemar_chi2(b, c, true), rows[i].corrected, 5e-7, "corrected chi2 %d, %d", b, c);
        }
    }
    static const struct { int b, c; double exact, midp; } large[] = {       /* scipy */
        { 9850, 10150, .0344913726098, .0338967118714 },
        { 1, 9, .021484375, .01171875 },
        { 700, 800, .0105592554667, .0098246293691 },
    };
    for (size_t i = 0; i < ARRAY_LEN(large); i++) {
        CHECK_NEAR(mcnemar_exact(large[i].b, large[i].c), large[i].exact, 1e-11, "exact %d, %d", large[i].b, large[i].c);
        CHECK_NEAR(mcnemar_midp(large[i].b, large[i].c), large[i].midp, 1e-11, "mid-p %d, %d", large[i].b, large[i].c);
    }
    CHECK_NEAR(mcnemar_midp(0, 0), 1, 0, "nothing discordant");
    CHECK_NEAR(mcnemar_exact(0, 0), 1, 0, "nothing discordant");
    CHECK_NEAR(mcnemar_chi2(0, 0, false), 1, 0, "nothing discordant");
    CHECK_NEAR(mcnemar_exact_less(3, 10), .092285 / 2, 5e-7, "one-sided");
}

static void test_intervals_of_delta(void **state)
{
    (void)state;
    static const struct { int b, c, n; double wald_lo, wald_hi, bonett_lo, bonett_hi, tango_lo, tango_hi; } rows[] = {
        { 48, 30, 1319, .00054, .02675, .00038, .02688, .00054, .02728 },
        { 412, 346, 14042, .00086, .00854, NAN, NAN, .00086, .00856 },
        { 12, 2, 100, NAN, NAN, NAN, NAN, .03100, .18188 },
        { 0, 0, 198, 0, 0, -.01386, .01386, -.01903, .01903 },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int b = rows[i].b, c = rows[i].c, n = rows[i].n;
        struct interval t = tango(b, c, n, .95), w = wald(b, c, n, .95), bp = bonett_price(b, c, n, .95);
        CHECK_NEAR(t.lo, rows[i].tango_lo, 5e-6, "Tango %d, %d of %d", b, c, n);
        CHECK_NEAR(t.hi, rows[i].tango_hi, 5e-6, "Tango %d, %d of %d", b, c, n);
        if (!isnan(rows[i].wald_lo)) {
            CHECK_NEAR(w.lo, rows[i].wald_lo, 5e-6, "Wald %d, %d of %d", b, c, n);
            CHECK_NEAR(w.hi, rows[i].wald_hi, 5e-6, "Wald %d, %d of %d", b, c, n);
        }
        if (!isnan(rows[i].bonett_lo)) {
            CHECK_NEAR(bp.lo, rows[i].bonett_lo, 5e-6, "Bonett-Price %d, %d of %d", b, c, n);
            CHECK_NEAR(bp.hi, rows[i].bonett_hi, 5e-6, "Bonett-Price %d, %d of %d", b, c, n);
        }
        struct interval mirrored = tango(c, b, n, .95);
        CHECK_NEAR(mirrored.lo, -t.hi, 1e-11, "Tango mirrored %d, %d of %d", b, c, n);
        CHECK_NEAR(mirrored.hi, -t.lo, 1e-11, "Tango mirrored %d, %d of %d", b, c, n);
    }
}

/* The closed form of q against maximizing the likelihood numerically (scipy: minimize_scalar, brentq). */
static void test_tango_against_likelihood(void **state)
{
    (void)state;
    static const struct { int b, c, n; double level, lo, hi; } rows[] = {
        { 48, 30, 1319, .95, .000535634987345, .0272824664067 }, { 12, 2, 100, .95, .0310005191682, .181881669183 },
        { 7, 9, 200, .90, -.0455824481409, .0245332184038 },     { 5, 1, 20, .95, -.0491285938252, .436908263765 },
        { 346, 412, 14042, .90, -.00793665273039, -.00147772490848 },
        { 1, 30, 57, .99, -.674410048794, -.306107743274 },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct interval t = tango(rows[i].b, rows[i].c, rows[i].n, rows[i].level);
        CHECK_NEAR(t.lo, rows[i].lo, 1e-8, "row %zu, lower", i);
        CHECK_NEAR(t.hi, rows[i].hi, 1e-8, "row %zu, upper", i);
    }
    CHECK_NEAR(tango(20, 0, 20, .95).hi, 1, 1e-10, "all won");
    CHECK_NEAR(tango(0, 20, 20, .95).lo, -1, 1e-10, "all lost");
}

static void test_holm_and_bh(void **state)
{
    (void)state;
    static const double p[] = { .001, .012, .02, .04, .3 }, want_holm[] = { .005, .048, .06, .08, .3 },
                        want_bh[] = { .005, .03, .0333333333, .05, .3 };
    static const double q[] = { .04, .001, .5, .012, NAN, .012, .9, .03 },      /* scipy, the NAN left out */
        q_holm[] = { .12, .007, 1, .072, NAN, .072, 1, .12 },
        q_bh[] = { .056, .007, .583333333333, .028, NAN, .028, .9, .0525 };
    double got[8];
    holm(p, 5, got);
    for (int i = 0; i < 5; i++)
        CHECK_NEAR(got[i], want_holm[i], 1e-9, "Holm %d", i);
    benjamini_hochberg(p, 5, got);
    for (int i = 0; i < 5; i++)
        CHECK_NEAR(got[i], want_bh[i], 1e-9, "BH %d", i);
    holm(q, 8, got);
    for (int i = 0; i < 8; i++)
        CHECK(isnan(q[i]) ? isnan(got[i]) : fabs(got[i] - q_holm[i]) < 1e-11, "Holm of unsorted p, %d: %g", i, got[i]);
    benjamini_hochberg(q, 8, got);
    for (int i = 0; i < 8; i++)
        CHECK(isnan(q[i]) ? isnan(got[i]) : fabs(got[i] - q_bh[i]) < 1e-11, "BH of unsorted p, %d: %g", i, got[i]);
}

/* The table of smallest visible differences in points, and sample sizes. */
static void test_power(void **state)
{
    (void)state;
    static const double psi[] = { .02, .05, .10, .20 };
    static const struct { int n; double points[4]; } rows[] = {
        { 14042, { .33, .53, .75, 1.06 } }, { 12032, { .36, .57, .81, 1.14 } }, { 10552, { .39, .61, .86, 1.22 } },
        { 10042, { .40, .63, .88, 1.25 } }, { 2376, { .81, 1.29, 1.82, 2.57 } }, { 1838, { .92, 1.46, 2.07, 2.92 } },
        { 1319, { 1.09, 1.72, 2.44, 3.45 } }, { 1267, { 1.11, 1.76, 2.49, 3.52 } }, { 1172, { 1.16, 1.83, 2.59, 3.66 } },
        { 817, { 1.39, 2.19, 3.10, 4.38 } }, { 541, { 1.70, 2.69, 3.81, 5.39 } }, { 198, { 2.82, 4.45, 6.30, 8.90 } },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (int k = 0; k < 4; k++)
            CHECK_NEAR(100 * min_detectable(psi[k], rows[i].n, .05, .8), rows[i].points[k], .0051, "n %d, psi %g",
                       rows[i].n, psi[k]);
    static const struct { double delta, psi, n; } sizes[] = {
        { .01, .05, 3923 }, { .02, .05, 979 }, { .01, .10, 7847 }, { .02, .10, 1960 },
    };
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        CHECK_NEAR(items_needed(sizes[i].delta, sizes[i].psi, .05, .8), sizes[i].n, 1, "row %zu", i);
    static const double margin_n[] = { 1237, 3091, 6183, 12365 }, tost_n[] = { 1713, 4282, 8564, 17128 };
    for (int k = 0; k < 4; k++) {
        CHECK_NEAR(items_for_margin(.01, psi[k], .05, .8), margin_n[k], 1, "non-inferiority, psi %g", psi[k]);
        CHECK_NEAR(items_for_equivalence(.01, psi[k], .05, .8), tost_n[k], 1, "TOST, psi %g", psi[k]);
    }
    CHECK_NEAR(100 * no_event_upper(1319, .95), .227, 5e-4, "GSM8K");
    CHECK_NEAR(100 * no_event_upper(14042, .95), .021, 5e-4, "MMLU");
    CHECK_NEAR(100 * no_event_upper(50, .95), 5.8, 5e-2, "50 items");
}

static void test_margins(void **state)
{
    (void)state;
    CHECK(non_inferior(30, 30, 14042, .01, .05), "30 each way of 14042 is within a point");
    CHECK(equivalent(30, 30, 14042, .01, .05), "both ways too");
    CHECK(!non_inferior(60, 60, 1319, .01, .05), "60 each way of 1319 leaves a point possible");
    CHECK(non_inferior(300, 30, 1319, .01, .05) && !equivalent(300, 30, 1319, .01, .05), "far better is not equivalent");
}

static void test_distributions(void **state)
{
    (void)state;                                                            /* all scipy */
    static const double zq[][2] = { { 1e-10, -6.3613409024 }, { .001, -3.09023230617 }, { .2, -.841621233573 },
                                    { .6, .253347103136 }, { .975, 1.95996398454 }, { .9999, 3.71901648546 } };
    for (size_t i = 0; i < ARRAY_LEN(zq); i++)
        CHECK_NEAR(normal_quantile(zq[i][0]), zq[i][1], 2e-11, "normal quantile %g", zq[i][0]);
    static const double tq[][3] = { { .975, 1, 12.7062047362 }, { .975, 3, 3.18244630528 }, { .9, 12.5, 1.35306687275 },
                                    { .995, 61, 2.65885712665 }, { .025, 1318, -1.96176551277 }, { .999, 2, 22.3271247701 } };
    for (size_t i = 0; i < ARRAY_LEN(tq); i++)
        CHECK_NEAR(student_quantile(tq[i][0], tq[i][1]), tq[i][2], 1e-10, "t quantile %g, %g", tq[i][0], tq[i][1]);
    static const double tc[][3] = { { -2.5, 3, .043853323504 }, { .3, 1, .592773579078 }, { 1.96, 1000, .974863407522 },
                                    { -40, 5, 9.20598108589e-08 } };
    for (size_t i = 0; i < ARRAY_LEN(tc); i++)
        CHECK_NEAR(student_cdf(tc[i][0], tc[i][1]), tc[i][2], 1e-11 * tc[i][2], "t cdf %g, %g", tc[i][0], tc[i][1]);
    static const double ib[][4] = { { .5, .5, .3, .369010119566 }, { 2, 3, .4, .5248 }, { 30, .5, .99, .439334368905 },
                                    { 659, .5, .9971, .0504541507242 }, { 5, 200, .01, .0554097303428 } };
    for (size_t i = 0; i < ARRAY_LEN(ib); i++)
        CHECK_NEAR(beta_incomplete(ib[i][0], ib[i][1], ib[i][2]), ib[i][3], 2e-12, "I_%g(%g, %g)", ib[i][2], ib[i][0], ib[i][1]);
    static const double ch[][3] = { { 3.841458820694124, 1, .05 }, { 30, 10, .000856641210775 }, { .02, 3, .999252244661 },
                                    { 700, 500, 7.72899211122e-09 }, { 120, 2, 8.7565107627e-27 } };
    for (size_t i = 0; i < ARRAY_LEN(ch); i++)
        CHECK_NEAR(chi2_upper(ch[i][0], ch[i][1]), ch[i][2], 2e-11 * ch[i][2], "chi2 %g, %g", ch[i][0], ch[i][1]);
    static const struct { int n, m; double p; } bi[] = { { 20000, 9800, .00239044472795 }, { 20000, 10200, .997712882017 },
        { 19999, 9999, .5 }, { 758, 346, .00908595876405 }, { 10, 4, .376953125 }, { 1500, 500, 5.56671520062e-39 } };
    for (size_t i = 0; i < ARRAY_LEN(bi); i++)
        CHECK_NEAR(binomial_half_lower(bi[i].n, bi[i].m), bi[i].p, 1e-10 * bi[i].p,
                   /* lgamma of 20001 has 11 digits after the point */ "binomial %d, %d", bi[i].n, bi[i].m);
}

static const double fractions[] = { .5, -.25, 1, 0, .125, .75, -1, .5, .25, .375 };

static void test_scores_of_any_kind(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct interval i;
    CHECK_NEAR(paired_t(fractions, 10), .236899104269, 1e-11, "paired t (scipy)");
    i = mean_interval(fractions, 10, .95);
    CHECK_NEAR(i.lo, -.176670053863, 1e-11, "t interval (scipy)");
    CHECK_NEAR(i.hi, .626670053863, 1e-11, "t interval (scipy)");
    /* All 512 sign patterns give .26171875; 20000 random ones have a standard error of .0031. */
    CHECK_NEAR(sign_flip(fractions, 10, 20000, 7, &err), .26171875, .012, "sign flips");
    MUST(bootstrap_mean(fractions, 10, 20000, 7, .95, &i, &err));
    CHECK_NEAR(i.lo, -.125, .0126, "bootstrap (numpy, 200000 replicates)");
    CHECK_NEAR(i.hi, .525, .0126, "bootstrap (numpy, 200000 replicates)");
    struct interval again;
    MUST(bootstrap_mean(fractions, 10, 20000, 7, .95, &again, &err));
    CHECK(i.lo == again.lo && i.hi == again.hi, "one seed, one interval");
    static const double none[5] = { 0 };
    CHECK_NEAR(sign_flip(none, 5, 100, 7, &err), 1, 0, "nothing moved");
    CHECK_NEAR(paired_t(none, 5), 1, 0, "nothing moved");
}

/* 0/1 differences: sign flips approach the exact test. */
static void test_sign_flip_is_mcnemar(void **state)
{
    (void)state;
    struct error err = { 0 };
    double d[1319] = { 0 };
    for (int i = 0; i < 78; i++)
        d[i * 3] = i < 48 ? 1 : -1;
    CHECK_NEAR(sign_flip(d, 1319, 40000, 1, &err), .053544, .005, "48 against 30");
}

static void test_gap_closed(void **state)
{
    (void)state;
    struct error err = { 0 };
    enum { N = 1000 };
    double base[N], ptq[N], model[N];
    for (int i = 0; i < N; i++) {       /* base .80, ptq .70, model .762: of 100 lost items 62 are won back */
        base[i] = i < 800;
        ptq[i] = i < 700;
        model[i] = i < 762;
    }
    struct gap_closed g;
    MUST(gap_closed(base, ptq, model, N, 4000, 3, .95, &g, &err));
    CHECK_NEAR(g.share, .62, 1e-12, "share");
    /* Given the 100 items of the gap, the share is binomial: .62 +- 1.96 * .0485. */
    CHECK_NEAR(g.interval.lo, .525, .02, "lower");
    CHECK_NEAR(g.interval.hi, .715, .02, "upper");
    MUST(gap_closed(base, base, model, N, 100, 3, .95, &g, &err));
    CHECK(isnan(g.share), "no gap, no share");
}

static void test_pooled_and_max_drop(void **state)
{
    (void)state;
    static const struct discordant calm[] = { { 30, 32, 1319 }, { 300, 310, 14042 }, { 50, 47, 2000 } };
    static const struct discordant one_hit[] = { { 30, 32, 1319 }, { 300, 280, 14042 }, { 20, 90, 2000 } };
    CHECK_NEAR(pooled_worse(calm, 3), binomial_half_lower(769, 380), 1e-15, "sums");
    CHECK(max_drop_worse(calm, 3, 4000, 1) > .2, "nothing happened: p %g", max_drop_worse(calm, 3, 4000, 1));
    CHECK(max_drop_worse(one_hit, 3, 4000, 1) < .001, "one task fell: p %g", max_drop_worse(one_hit, 3, 4000, 1));
    CHECK(pooled_worse(one_hit, 3) > .01, "where the pooled test sees less: p %g", pooled_worse(one_hit, 3));
    /* One task: the simulation approaches the one-sided exact test. */
    static const struct discordant single = { 30, 48, 1319 };
    CHECK_NEAR(max_drop_worse(&single, 1, 40000, 5), .053544 / 2, .003, "30 against 48");
}

/* ---- real paired answers: 14 models on 5700 questions ---- */

enum { FIRST_MODEL = 4, MODELS = 14, QUESTIONS = 5700 };
struct answers {
    int row, column, gold, n;
    char right[MODELS][QUESTIONS + 1];
};

static void cell(void *text, size_t len, void *ctx)
{
    struct answers *a = ctx;
    const char *s = text;
    if (a->row > 0 && a->row <= QUESTIONS) {
        if (a->column == 2)
            a->gold = len ? s[0] - '0' : -1;
        if (a->column >= FIRST_MODEL && a->column < FIRST_MODEL + MODELS)
            a->right[a->column - FIRST_MODEL][a->row - 1] = len == 1 && s[0] == 'A' + a->gold;
    }
    a->column++;
}

static void row_end(int c, void *ctx)
{
    (void)c;
    struct answers *a = ctx;
    a->row++;
    a->column = 0;
}

static void test_real_answers(void **state)
{
    (void)state;
    NEED_SHARED(path, "mmlu_redux/per_model_answers.csv.gz");
    static struct answers a;
    char command[1200], buffer[1 << 14];
    snprintf(command, sizeof command, "gzip -dc '%s'", path);
    FILE *in = popen(command, "r");
    struct csv_parser csv;
    assert_int_equal(csv_init(&csv, 0), 0);
    for (size_t n; in && (n = fread(buffer, 1, sizeof buffer, in)) > 0;)
        assert_int_equal(csv_parse(&csv, buffer, n, cell, row_end, &a), n);
    csv_fini(&csv, cell, row_end, &a);
    csv_free(&csv);
    assert_true(in && pclose(in) == 0);
    CHECK(a.row == QUESTIONS + 1, "%d rows", a.row);
    static const struct { int i, j, b, c; double exact, corrected, se; } pairs[] = {    /* statsmodels */
        { 0, 13, 574, 194, 2.07232488418e-44, 1.412820641e-42, .00478145650545 },
        { 0, 1, 316, 199, 2.85545715916e-07, 3.194911581e-07, .00397238996149 },
        { 3, 2, 318, 341, .391461842252, .391445809858, .00450376133293 },
        { 7, 8, 392, 348, .113883007766, .113944032007, .00477176902019 },
        { 5, 10, 372, 264, 2.11514720407e-05, 2.20722586221e-05, .00441765716056 },
    };
    for (size_t k = 0; k < ARRAY_LEN(pairs); k++) {
        int b = 0, c = 0;
        for (int q = 0; q < QUESTIONS; q++) {
            b += a.right[pairs[k].i][q] && !a.right[pairs[k].j][q];
            c += !a.right[pairs[k].i][q] && a.right[pairs[k].j][q];
        }
        CHECK(b == pairs[k].b && c == pairs[k].c, "pair %zu: %d, %d", k, b, c);
        CHECK_NEAR(mcnemar_exact(b, c) / pairs[k].exact, 1, 1e-10, "exact, pair %zu", k);
        CHECK_NEAR(mcnemar_chi2(b, c, true) / pairs[k].corrected, 1, 1e-9, "chi2, pair %zu", k);
        CHECK_NEAR(paired_se_binary(b, c, QUESTIONS), pairs[k].se, 1e-12, "paired SE, pair %zu", k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wilson),
        cmocka_unit_test(test_standard_errors),
        cmocka_unit_test(test_mcnemar),
        cmocka_unit_test(test_intervals_of_delta),
        cmocka_unit_test(test_tango_against_likelihood),
        cmocka_unit_test(test_holm_and_bh),
        cmocka_unit_test(test_power),
        cmocka_unit_test(test_margins),
        cmocka_unit_test(test_distributions),
        cmocka_unit_test(test_scores_of_any_kind),
        cmocka_unit_test(test_sign_flip_is_mcnemar),
        cmocka_unit_test(test_gap_closed),
        cmocka_unit_test(test_pooled_and_max_drop),
        cmocka_unit_test(test_real_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
