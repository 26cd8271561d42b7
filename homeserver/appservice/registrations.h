/* Registrations of application services: one YAML file each.
 * Spec: application-service, "Registration". */
#pragma once
#include "homeserver/service/appservices.h"

/* Reads one from text into `service_out`, whose values live in `arena`. Every problem is added to
 * `problems` as a line "file:line: what is wrong and what to do"; ERR_SYNTAX when there was any. */
struct as_registration_text {
    struct slice text, file, server_name;
};
struct err as_registration_parse(struct arena *arena, const struct as_registration_text *from,
                                 struct appservice *service_out, struct buf *problems) MUST_USE;
/* All files of the configuration as a table of the caller's. Ids, tokens and senders must differ.
 */
struct err as_registrations_load(const struct conf *conf, struct buf *problems,
                                 struct appservice_table **table_out) MUST_USE;
