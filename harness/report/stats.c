/* stats.c - intervals, tests and power of paired comparisons (sources beside each). */
#include "report/stats.h"

#include <math.h>
#include <stdlib.h>

static double z_two_sided(double level)
{
    return normal_quantile(.5 + level / 2);
}

/* ---- one model ---- */

double mean_of(const double *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i];
    return n > 0 ? sum / n : NAN;
}

double mean_se(const double *x, int n)
{
    if (n < 2)
        return NAN;
    double mean = mean_of(x, n), squares = 0;
    for (int i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    return sqrt(squares / ((double)n * (n - 1)));
}

/* Wilson 1927: the p for which the observed share is z standard errors away. */
struct interval wilson(int right, int n, double level)
{
    if (n <= 0)
        return (struct interval){ NAN, NAN };
    double z = z_two_sided(level), p = (double)right / n, shrink = 1 + z * z / n;
    double centre = (p + z * z / (2.0 * n)) / shrink;
    double half = z * sqrt(p * (1 - p) / n + z * z / (4.0 * n * n)) / shrink;
    return (struct interval){ right == 0 ? 0 : centre - half, right == n ? 1 : centre + half };
}

struct interval mean_interval(const double *x, int n, double level)
{
    double mean = mean_of(x, n), half = n < 2 ? NAN : student_quantile(.5 + level / 2, n - 1) * mean_se(x, n);
    return (struct interval){ mean - half, mean + half };
}

/* ---- paired: standard errors and intervals ---- */

double paired_se_binary(int b, int c, int n)
{
    double diff = (double)b - c;
    return n < 2 ? NAN : sqrt((b + c - diff * diff / n) / ((double)n * (n - 1)));
}

/* Liang and Zeger 1986: sums inside a cluster are the independent pieces. */
double clustered_se(const double *d, const int *cluster, int n, int clusters, bool sandwich, struct error *err)
{
    double *sums = mem_new((size_t)clusters, sizeof *sums, err), squares = 0;
    if (!sums)
        return NAN;
    double mean = mean_of(d, n);
    for (int i = 0; i < n; i++)
        sums[cluster[i]] += d[i] - mean;
    for (int i = 0; i < clusters; i++)
        squares += sums[i] * sums[i];
    free(sums);
    if (sandwich)
        return sqrt(squares) / n;
    return clusters < 2 ? NAN : sqrt(squares * clusters / (clusters - 1.0)) / n;
}

struct interval wald(int b, int c, int n, double level)
{
    double delta = ((double)b - c) / n, diff = (double)b - c;
    double half = z_two_sided(level) * sqrt((b + c - diff * diff / n)) / n;
    return (struct interval){ delta - half, delta + half };
}

/* Bonett and Price 2012: one pseudo-item in each discordant cell. */
struct interval bonett_price(int b, int c, int n, double level)
{
    double m = n + 2.0, diff = (double)b - c, delta = diff / m;
    double half = z_two_sided(level) * sqrt((b + c + 2 - diff * diff / m) / (m * m));
    return (struct interval){ fmax(-1, delta - half), fmin(1, delta + half) };
}

/* Tango 1998: standardized distance of the observed difference from a true difference D, with the discordant
 * probability q estimated under D. */
static double tango_score(int b, int c, int n, double D)
{
    double B = -(double)b - c + (2.0 * n - b + c) * D, C = -(double)c * D * (1 - D);
    double root = sqrt(fmax(0, B * B - 8.0 * n * C)), q = (root - B) / (4.0 * n);
    double top = (double)b - c - n * D, variance = n * (2 * q + D * (1 - D));
    if (!(variance > 0))
        return top > 0 ? INFINITY : top < 0 ? -INFINITY : 0;
    return top / sqrt(variance);
}

/* The score falls as D grows: between lo (score above wanted) and hi (below), find where it is wanted. */
static double tango_bound(int b, int c, int n, double lo, double hi, double wanted)
{
    while (hi - lo > 1e-12) {
        double mid = (lo + hi) / 2;
        if (tango_score(b, c, n, mid) > wanted)
            lo = mid;
        else
            hi = mid;
    }
    return (lo + hi) / 2;
}

struct interval tango(int b, int c, int n, double level)
{
    if (n <= 0)
        return (struct interval){ NAN, NAN };
    double z = z_two_sided(level), delta = ((double)b - c) / n;
    return (struct interval){ tango_bound(b, c, n, -1, delta, z), tango_bound(b, c, n, delta, 1, -z) };
}

/* ---- paired: tests ---- */

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

double mcnemar_exact(int64_t b, int64_t c)
{
    return fmin(1, 2 * binomial_half_lower(b + c, smaller(b, c)));
}

double mcnemar_exact_less(int64_t b, int64_t c)
{
    return binomial_half_lower(b + c, b);
}

/* Lancaster's mid-p: the observed outcome counts half (Fagerland, Lydersen, Laake 2013 on why). */
double mcnemar_midp(int64_t b, int64_t c)
{
    int64_t n = b + c, m = smaller(b, c);
    if (b == c)
        return 1;
    return fmin(1, binomial_half_lower(n, m) + binomial_half_lower(n, m - 1));
}

double mcnemar_chi2(int64_t b, int64_t c, bool corrected)
{
    double diff = fabs((double)b - (double)c) - corrected, n = (double)b + (double)c;
    return n > 0 ? chi2_upper(fmax(0, diff) * fmax(0, diff) / n, 1) : 1;
}

double paired_t(const double *d, int n)
{
    double se = mean_se(d, n);
    if (isnan(se))
        return NAN;
    if (se == 0)
        return mean_of(d, n) == 0 ? 1 : 0;
    return 2 * student_cdf(-fabs(mean_of(d, n) / se), n - 1);
}

/* ---- margins and power ---- */

static double z_upper(double tail)
{
    return -normal_quantile(tail);
}

/* Miller 2024 (arXiv 2411.00640) with the variance of 0/1 differences at delta near 0, psi. */
double min_detectable(double psi, double n, double alpha, double power)
{
    return (z_upper(alpha / 2) + z_upper(1 - power)) * sqrt(psi / n);
}

/* Connor 1987, McNemar's test. */
double items_needed(double delta, double psi, double alpha, double power)
{
    double root = z_upper(alpha / 2) * sqrt(psi) + z_upper(1 - power) * sqrt(psi - delta * delta);
    return ceil(root * root / (delta * delta));
}

double items_for_margin(double margin, double psi, double alpha, double power)
{
    double z = z_upper(alpha) + z_upper(1 - power);
    return ceil(z * z * psi / (margin * margin));
}

double items_for_equivalence(double margin, double psi, double alpha, double power)
{
    double z = z_upper(alpha) + z_upper((1 - power) / 2);
    return ceil(z * z * psi / (margin * margin));
}

bool non_inferior(int b, int c, int n, double margin, double alpha)
{
    return tango(b, c, n, 1 - 2 * alpha).lo > -margin;
}

bool equivalent(int b, int c, int n, double margin, double alpha)
{
    struct interval i = tango(b, c, n, 1 - 2 * alpha);
    return i.lo > -margin && i.hi < margin;
}

double no_event_upper(int n, double level)
{
    return n > 0 ? 1 - pow(1 - level, 1.0 / n) : 1;
}

/* ---- several tests ---- */

static int ascending(const void *a, const void *b)
{
    double x = **(const double *const *)a, y = **(const double *const *)b;
    return x < y ? -1 : x > y;
}

/* Pointers to the defined p values, smallest first; the caller frees. */
static const double **sorted_p(const double *p, int n, int *count, double *adjusted)
{
    const double **order = malloc(((size_t)n + 1) * sizeof *order);
    *count = 0;
    for (int i = 0; i < n; i++) {
        adjusted[i] = NAN;
        if (order && !isnan(p[i]))
            order[(*count)++] = &p[i];
    }
    if (order)
        qsort(order, (size_t)*count, sizeof *order, ascending);
    return order;
}

/* Holm 1979: no more than alpha that any true null of the family is rejected.  Out of memory leaves NAN. */
void holm(const double *p, int n, double *adjusted)
{
    int k;
    const double **order = sorted_p(p, n, &k, adjusted);
    double largest = 0;
    for (int i = 0; i < k; i++) {
        largest = fmax(largest, fmin(1, (k - i) * *order[i]));
        adjusted[order[i] - p] = largest;
    }
    free(order);
}

/* Benjamini and Hochberg 1995: share of false ones among the rejected. */
void benjamini_hochberg(const double *p, int n, double *adjusted)
{
    int k;
    const double **order = sorted_p(p, n, &k, adjusted);
    double smallest = 1;
    for (int i = k - 1; i >= 0; i--) {
        smallest = fmin(smallest, fmin(1, k * *order[i] / (i + 1)));
        adjusted[order[i] - p] = smallest;
    }
    free(order);
}

double pooled_worse(const struct discordant *t, int tasks)
{
    int64_t won = 0, lost = 0;
    for (int i = 0; i < tasks; i++) {
        won += t[i].won;
        lost += t[i].lost;
    }
    return mcnemar_exact_less(won, lost);
}
