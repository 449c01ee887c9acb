/* stats.h - the statistics of paired comparisons.  Pure functions.
 *
 * Two models answer the same n items.  Of 0/1 scores four counts say everything: both right, b (base right, model
 * wrong: lost), c (base wrong, model right: won), neither.  delta = (won - lost) / n is the model's gain; functions
 * that take (b, c) estimate (b - c) / n, so call them with b = won, c = lost.
 * Levels are confidence (.95), p values two-sided unless said.  Undefined results are NAN, never a guess.
 * Random numbers are counter-based: the same seed gives the same result everywhere. */
#ifndef QDELTA_STATS_H
#define QDELTA_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/base.h"

struct interval {
    double lo, hi;
};

/* ---- distributions ---- */
double normal_cdf(double z);
double normal_quantile(double p);
double beta_incomplete(double a, double b, double x);       /* regularized I_x(a, b) */
double student_cdf(double t, double df);
double student_quantile(double p, double df);
double gamma_upper(double a, double x);                     /* regularized Q(a, x) */
double chi2_upper(double x, double df);                     /* P(X > x) */
double binomial_half_lower(int64_t n, int64_t m);           /* P(X <= m), X ~ Binomial(n, 1/2) */

/* ---- one model ---- */
double mean_of(const double *x, int n);
double mean_se(const double *x, int n);                     /* sqrt(sum (x - mean)^2 / (n (n - 1))) */
struct interval wilson(int right, int n, double level);
struct interval mean_interval(const double *x, int n, double level);    /* mean +- t SE */

/* ---- paired: standard errors and intervals of delta ---- */
double paired_se_binary(int b, int c, int n);
/* cluster[i] in [0, clusters): SE of the mean of d with C / (C - 1); sandwich: without that factor. */
double clustered_se(const double *d, const int *cluster, int n, int clusters, bool sandwich, struct error *err);
struct interval wald(int b, int c, int n, double level);
struct interval bonett_price(int b, int c, int n, double level);
struct interval tango(int b, int c, int n, double level);

/* ---- paired: tests of delta = 0 ---- */
double mcnemar_exact(int64_t b, int64_t c);
double mcnemar_exact_less(int64_t b, int64_t c);            /* one-sided: P(as few b as this, or fewer) */
double mcnemar_midp(int64_t b, int64_t c);
double mcnemar_chi2(int64_t b, int64_t c, bool corrected);
double paired_t(const double *d, int n);
/* Sign-flip permutation of the mean of d (or of cluster sums): (1 + hits) / (1 + replicates). */
double sign_flip(const double *d, int n, int replicates, uint64_t seed, struct error *err);
/* Percentile interval of the mean of d under resampling of items. */
bool bootstrap_mean(const double *d, int n, int replicates, uint64_t seed, double level, struct interval *out,
                    struct error *err);

/* ---- margins and power ---- */
double min_detectable(double psi, double n, double alpha, double power);            /* psi = (b + c) / n */
double items_needed(double delta, double psi, double alpha, double power);
double items_for_margin(double margin, double psi, double alpha, double power);     /* non-inferiority, true delta 0 */
double items_for_equivalence(double margin, double psi, double alpha, double power);/* TOST, true delta 0 */
bool non_inferior(int b, int c, int n, double margin, double alpha);    /* lower end of the 1 - 2 alpha Tango > -margin */
bool equivalent(int b, int c, int n, double margin, double alpha);      /* TOST: that interval inside +-margin */
double no_event_upper(int n, double level);                 /* rate that 0 events in n items still allow */

/* ---- several tests ---- */
void holm(const double *p, int n, double *adjusted);                    /* NAN stays NAN and is not counted */
void benjamini_hochberg(const double *p, int n, double *adjusted);
/* One decision over tasks, one-sided (the model got worse): all discordant items together; and the largest
 * drop lost - won as a share of its task's items, against c_t ~ Binomial(b_t + c_t, 1/2). */
struct discordant {
    int won, lost, n;
};
double pooled_worse(const struct discordant *t, int tasks);
double max_drop_worse(const struct discordant *t, int tasks, int replicates, uint64_t seed);

/* ---- share of the loss won back: (model - ptq) / (base - ptq), all three resampled together ---- */
struct gap_closed {
    double share;               /* NAN where base == ptq */
    struct interval interval;
};
bool gap_closed(const double *base, const double *ptq, const double *model, int n, int replicates, uint64_t seed,
                double level, struct gap_closed *out, struct error *err);

#endif
