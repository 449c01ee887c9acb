/* gptq.h - prepare of methods that round layer by layer against calibration inputs. */
#ifndef QDELTA_QUANTIZERS_GPTQ_H
#define QDELTA_QUANTIZERS_GPTQ_H

#include "job.h"

bool gptq_prepare(struct job *j, struct error *err);

#endif
