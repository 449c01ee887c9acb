/* awq.h - prepare of the awq method. */
#ifndef QDELTA_QUANTIZERS_AWQ_H
#define QDELTA_QUANTIZERS_AWQ_H

#include "job.h"

bool awq_prepare(struct job *j, struct error *err);

#endif
