/* Says what is wrong with the files of a certificate and its key, in words for the operator. */
#pragma once
#include "homeserver/base/err.h"

/* Whether PEM files can serve: both can be read, hold what they should, and belong together. A
 * certificate that has expired, will within two weeks, or is not valid yet can; *warning_out (in
 * the arena, else empty) says so. ERR_IO with a text, in the arena, that names the file. */
struct err http_certificate_check(struct arena *arena, struct slice certificate, struct slice key,
                                  int64_t wall_ms, struct slice *warning_out) MUST_USE;
