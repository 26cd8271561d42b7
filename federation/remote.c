/* What the services may ask of other servers, by the files that do it. */
#include "federation/remote.h"

const struct hs_remote fed_remote = {
    .join = NULL,
};
