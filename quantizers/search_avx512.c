#if defined(__x86_64__)
#define SEARCH_SET search_avx512
#include "search_lanes.h"
#else
typedef int search_avx512_is_for_x86;
#endif
