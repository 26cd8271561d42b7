/* To-device messages: one ordered inbox per device, (STORE_INBOX, user number + device id), keyed
 * by position. A message stays until a later /sync acknowledges a position at or after it. The same
 * object holds the transaction ids of what the device has sent.
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
struct inbox_range {
    uint64_t since, upto;
    size_t limit;
};
struct err hs_inbox_read(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id,
                         struct inbox_range wanted,
                         struct to_device_messages *messages_out) MUST_USE;
/* Deletes what is at or below `upto` (the client has it). Cheap when there is nothing. */
struct err hs_inbox_acknowledge(struct hs *hs, struct ctx *ctx, uint64_t user,
                                struct slice device_id, uint64_t upto) MUST_USE;
/* Whether the inbox may hold anything above `since` (memory only, may say yes too often). */
bool hs_inbox_may_have(struct hs *hs, uint64_t user, struct slice device_id, uint64_t since);

/* --- sending --- */
struct to_device_item {
    struct slice user_id;
    struct slice device_id; /* "*" = all devices of the user */
    const struct json *content;
};
struct to_device_send {
    struct slice sender, type;
    struct to_device_item *items;
    size_t count;
    /* Of a local sender: a repeated transaction of a device sends nothing. device_id empty: not
     * remembered. The caller is in the sender's lane. */
    uint64_t user;
    struct slice device_id, txn_id;
};
/* Messages to unknown users and devices of this server vanish; those to other servers go to the
 * hook. All are stored, in one write, before the transaction id is. */
struct err hs_to_device_send(struct hs *hs, struct ctx *ctx,
                             const struct to_device_send *send) MUST_USE;

/* Takes the items for users of other servers. It is called before anything is stored here, so that
 * a failure leaves the transaction unsent. Without a hook they vanish. Register before requests
 * arrive. */
typedef struct err (*hs_inbox_remote_fn)(struct hs *hs, struct ctx *ctx,
                                         const struct to_device_send *send);
void hs_inbox_set_remote(struct hs *hs, hs_inbox_remote_fn fn);
