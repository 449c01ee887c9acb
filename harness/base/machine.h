/* machine.h - what this machine has. */
#ifndef QDELTA_MACHINE_H
#define QDELTA_MACHINE_H

#include <stdint.h>

/* Bytes that may be allocated before others must give way, within the control group's limit; 0: not known. */
uint64_t memory_available(void);

#endif
