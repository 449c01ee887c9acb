/* distributions.c - normal, Student, beta, gamma and binomial tails, to about 1e-13.
 *
 * Continued fractions are evaluated by Lentz's method (Thompson and Barnett 1986); the beta and gamma ones are
 * DLMF 8.17.22 and 8.9.2.  Quantiles invert the distribution function by bisection: slow and certain. */
#include "report/stats.h"

#include <math.h>

static const double TINY = 1e-300;

static double away_from_zero(double x)
{
    return fabs(x) < TINY ? TINY : x;
}

double normal_cdf(double z)
{
    return .5 * erfc(-z / sqrt(2));
}

/* Smallest x in [lo, hi] with cdf(x) >= p, to the last bits of a double. */
static double invert(double (*cdf)(double x, double parameter), double parameter, double p, double lo, double hi)
{
    for (int i = 0; i < 200 && lo < hi; i++) {
        double mid = lo + (hi - lo) / 2;
        if (mid <= lo || mid >= hi)
            break;
        if (cdf(mid, parameter) < p)
            lo = mid;
        else
            hi = mid;
    }
    return lo + (hi - lo) / 2;
}

static double normal_cdf_of(double z, double unused)
{
    (void)unused;
    return normal_cdf(z);
}

/* The lower half is inverted, where the distribution function keeps its relative precision. */
double normal_quantile(double p)
{
    if (!(p > 0 && p < 1))
        return p == 0 ? -INFINITY : p == 1 ? INFINITY : NAN;
    if (p == .5)
        return 0;
    return p > .5 ? -invert(normal_cdf_of, 0, 1 - p, -40, 0) : invert(normal_cdf_of, 0, p, -40, 0);
}

static double beta_fraction(double a, double b, double x)
{
    double c = 1, d = 1 / away_from_zero(1 - (a + b) * x / (a + 1)), h = d;
    for (int m = 1; m < 10000; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        d = 1 / away_from_zero(1 + even * d);
        c = away_from_zero(1 + even / c);
        h *= d * c;
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        d = 1 / away_from_zero(1 + odd * d);
        c = away_from_zero(1 + odd / c);
        h *= d * c;
        if (fabs(d * c - 1) < 1e-16)
            break;
    }
    return h;
}

double beta_incomplete(double a, double b, double x)
{
    if (!(x > 0 && x < 1))
        return x <= 0 ? 0 : x >= 1 ? 1 : NAN;
    double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    return x < (a + 1) / (a + b + 2) ? front * beta_fraction(a, b, x) / a : 1 - front * beta_fraction(b, a, 1 - x) / b;
}

double student_cdf(double t, double df)
{
    double tail = .5 * beta_incomplete(df / 2, .5, df / (df + t * t));
    return t > 0 ? 1 - tail : tail;
}

double student_quantile(double p, double df)
{
    if (!(p > 0 && p < 1) || !(df > 0))
        return NAN;
    if (p == .5)
        return 0;
    double lo = -1, q = p > .5 ? 1 - p : p;
    while (student_cdf(lo, df) > q && lo > -1e300)
        lo *= 2;
    double t = invert(student_cdf, df, q, lo, 0);
    return p > .5 ? -t : t;
}

double gamma_upper(double a, double x)
{
    if (!(x > 0))
        return isnan(x) ? NAN : 1;
    double front = exp(a * log(x) - x - lgamma(a));
    if (x < a + 1) {
        double sum = 1 / a, term = sum;
        for (int n = 1; n < 100000 && term > sum * 1e-17; n++)
            sum += term *= x / (a + n);
        return 1 - sum * front;
    }
    double b = x + 1 - a, c = 1 / TINY, d = 1 / away_from_zero(b), h = d;
    for (int n = 1; n < 100000; n++) {
        double an = -n * (n - a);
        b += 2;
        d = 1 / away_from_zero(an * d + b);
        c = away_from_zero(b + an / c);
        h *= d * c;
        if (fabs(d * c - 1) < 1e-16)
            break;
    }
    return front * h;
}

double chi2_upper(double x, double df)
{
    return gamma_upper(df / 2, x / 2);
}

/* The largest term in logs, the others by their ratios: nothing under- or overflows at any n. */
double binomial_half_lower(int64_t n, int64_t m)
{
    if (m < 0)
        return 0;
    if (m >= n)
        return 1;
    if (2 * m >= n)                                     /* sum the shorter tail */
        return 1 - binomial_half_lower(n, n - m - 1);
    double first = exp(lgamma((double)n + 1) - lgamma((double)m + 1) - lgamma((double)(n - m) + 1) - (double)n * log(2));
    double sum = 0, term = 1;
    for (int64_t k = m; k >= 0 && term > 1e-18; k--) {
        sum += term;
        term *= (double)k / (double)(n - k + 1);
    }
    return first * sum;
}
