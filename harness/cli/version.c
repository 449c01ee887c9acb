#include "cli/cli.h"

const char qdelta_version[] = QDELTA_VERSION;
const char qdelta_commit[] = QDELTA_COMMIT;
