/* Meetings of two devices: bodies, headers and tokens of strangers. */
#include "tests/support/asking.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct asking asking;
    asking_run(&asking, &cs_rendezvous_routes, (struct slice){(const char *)data, size});
    return 0;
}
