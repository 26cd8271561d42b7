/* To-device messages: one ordered inbox per device, (STORE_INBOX, user number + device id), keyed by
 * position. A message stays until a later /sync acknowledges a position at or after it.
 * Spec: client-server, "Send-to-Device messaging". */
#pragma once
#include "homeserver/service/hs.h"

struct hs_inbox *hs_inbox_new(struct hs *hs);
void hs_inbox_free(struct hs_inbox **inbox);

struct to_device_message {
    uint64_t pos;
    struct slice json; /* {"content":...,"sender":...,"type":...}, canonical */
};
struct to_device_messages {
    struct to_device_message *items;
    size_t count;
};
/* Messages with since < pos <= upto, oldest first, at most `limit` (100 a sync). */
struct err hs_inbox_read(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id,
                         uint64_t since, uint64_t upto, size_t limit,
                         struct to_device_messages *messages_out) MUST_USE;
/* Deletes what is at or below `upto` (the client has it). Cheap when there is nothing. */
struct err hs_inbox_acknowledge(struct hs *hs, struct ctx *ctx, uint64_t user,
                                struct slice device_id, uint64_t upto) MUST_USE;
/* Whether the inbox may hold anything above `since` (memory only, may say yes too often). */
bool hs_inbox_may_have(struct hs *hs, uint64_t user, struct slice device_id, uint64_t since);
