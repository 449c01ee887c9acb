/* hqq.h - rows of the hqq method. */
#ifndef QDELTA_QUANTIZERS_HQQ_H
#define QDELTA_QUANTIZERS_HQQ_H

#include "job.h"

bool hqq_row(const struct part *p, const float *x, void *out);

#endif
