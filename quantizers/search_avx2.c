#if defined(__x86_64__)
#define SEARCH_SET search_avx2
#include "search_lanes.h"
#else
typedef int search_avx2_is_for_x86;
#endif
