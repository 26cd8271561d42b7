/* Device lists of users of other servers: fetching them whole, and answering queries from what is
 * kept. Spec: server-server, "Device Management", "End-to-End Encryption". */
#pragma once
#include "federation/fed.h"

struct device_lists;

struct device_lists *device_lists_new(void);
void device_lists_free(struct device_lists **lists);
/* Fetches the list of a user in the background; a second call while it runs has it run once more.
 * When the server is not reached it is tried again as soon as that shows a sign of life. */
void fed_device_list_resync(struct fed *fed, uint64_t user, struct slice user_id);
void fed_device_lists_alive(struct fed *fed, struct slice server);
/* Registers what asks other servers for keys, and what sends them to-device messages. */
void fed_keys_hook(struct hs *hs);
