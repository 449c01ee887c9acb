/* resample.c - permutation and bootstrap with counter-based random numbers.
 *
 * Replicate r draws from its own stream, so results do not depend on the order of work. */
#include "report/stats.h"

#include <math.h>
#include <stdlib.h>

static uint64_t stream_of(uint64_t seed, int replicate)
{
    return random_at(seed, (uint64_t)replicate);
}

static int draw_below(uint64_t stream, int i, int n)
{
    return (int)(random_unit_at(stream, (uint64_t)i) * n);
}

double sign_flip(const double *d, int n, int replicates, uint64_t seed, struct error *err)
{
    double *moved = mem_new((size_t)n + 1, sizeof *moved, err), observed = 0, size = 0;
    if (!moved)
        return NAN;
    int k = 0, hits = 0;
    for (int i = 0; i < n; i++)         /* zeros have no sign to flip */
        if (d[i] != 0)
            moved[k++] = d[i];
    for (int i = 0; i < k; i++) {
        observed += moved[i];
        size += fabs(moved[i]);
    }
    double least = fabs(observed) - 1e-12 * size;       /* ties count; rounding must not break them */
    for (int r = 0; r < replicates; r++) {
        uint64_t stream = stream_of(seed, r), bits = 0;
        double sum = 0;
        for (int i = 0; i < k; i++, bits >>= 1) {
            if (i % 64 == 0)
                bits = random_at(stream, (uint64_t)(i / 64));
            sum += bits & 1 ? moved[i] : -moved[i];
        }
        hits += fabs(sum) >= least;
    }
    free(moved);
    return (1.0 + hits) / (1.0 + replicates);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Percentiles by linear interpolation between order statistics. */
static struct interval percentile_interval(double *x, int n, double level)
{
    qsort(x, (size_t)n, sizeof *x, compare_doubles);
    double ends[2], tail = (1 - level) / 2;
    for (int e = 0; e < 2; e++) {
        double at = (e ? 1 - tail : tail) * (n - 1);
        int i = (int)at;
        bool inner = i + 1 < n && isfinite(x[i]);       /* infinities do not interpolate */
        ends[e] = inner ? x[i] + (at - i) * (x[i + 1] - x[i]) : x[i];
    }
    return (struct interval){ ends[0], ends[1] };
}

bool bootstrap_mean(const double *d, int n, int replicates, uint64_t seed, double level, struct interval *out,
                    struct error *err)
{
    *out = (struct interval){ NAN, NAN };
    if (n <= 0 || replicates <= 0)
        return true;
    double *means = mem_new((size_t)replicates, sizeof *means, err);
    if (!means)
        return false;
    for (int r = 0; r < replicates; r++) {
        uint64_t stream = stream_of(seed, r);
        double sum = 0;
        for (int i = 0; i < n; i++)
            sum += d[draw_below(stream, i, n)];
        means[r] = sum / n;
    }
    *out = percentile_interval(means, replicates, level);
    free(means);
    return true;
}

/* A replicate whose base does not beat ptq has no gap to close; counted as closed without end on the side that
 * the model is on, it widens the interval instead of vanishing from it. */
static double share_closed(double base, double ptq, double model)
{
    double gap = base - ptq, gain = model - ptq;
    if (gap > 0)
        return gain / gap;
    return gain > 0 ? INFINITY : gain < 0 ? -INFINITY : 0;
}

bool gap_closed(const double *base, const double *ptq, const double *model, int n, int replicates, uint64_t seed,
                double level, struct gap_closed *out, struct error *err)
{
    *out = (struct gap_closed){ NAN, { NAN, NAN } };
    double gap = mean_of(base, n) - mean_of(ptq, n);
    if (n <= 0 || replicates <= 0 || gap == 0)
        return true;
    out->share = (mean_of(model, n) - mean_of(ptq, n)) / gap;
    double *shares = mem_new((size_t)replicates, sizeof *shares, err);
    if (!shares)
        return false;
    for (int r = 0; r < replicates; r++) {
        uint64_t stream = stream_of(seed, r);
        double b = 0, p = 0, m = 0;
        for (int i = 0; i < n; i++) {
            int at = draw_below(stream, i, n);
            b += base[at];
            p += ptq[at];
            m += model[at];
        }
        shares[r] = share_closed(b, p, m);
    }
    out->interval = percentile_interval(shares, replicates, level);
    free(shares);
    return true;
}

/* Set bits of a fair coin thrown n times. */
static int coin_throws(uint64_t stream, uint64_t *counter, int n)
{
    int heads = 0;
    for (int left = n; left > 0; left -= 64) {
        uint64_t bits = random_at(stream, (*counter)++);
        if (left < 64)
            bits &= (UINT64_C(1) << left) - 1;
        for (; bits; bits &= bits - 1)
            heads++;
    }
    return heads;
}

double max_drop_worse(const struct discordant *t, int tasks, int replicates, uint64_t seed)
{
    double observed = -1;
    for (int i = 0; i < tasks; i++)
        observed = fmax(observed, ((double)t[i].lost - t[i].won) / t[i].n);
    int hits = 0;
    for (int r = 0; r < replicates; r++) {
        uint64_t stream = stream_of(seed, r), counter = 0;
        double largest = -1;
        for (int i = 0; i < tasks; i++) {
            int discordant = t[i].won + t[i].lost, lost = coin_throws(stream, &counter, discordant);
            largest = fmax(largest, (2.0 * lost - discordant) / t[i].n);
        }
        hits += largest >= observed - 1e-12;
    }
    return (1.0 + hits) / (1.0 + replicates);
}
