/* EDUs as other servers write them: parsing alone, nothing is looked up. What an EDU names need not
 * exist, nor belong to the server that sent it. Spec: server-server, "EDUs". */
#pragma once
#include "homeserver/base/json.h"
#include "homeserver/base/err.h"

enum {
    EDU_RECEIPTS_MAX = 1000, /* taken from one EDU */
    EDU_PRESENCES_MAX = 1000,
    EDU_MESSAGES_MAX = 2000,
    EDU_MESSAGE_ID_BYTES_MAX = 128, /* 32 code points */
};

struct edu_typing {
    struct slice room_id, user_id;
    bool is_typing;
};
struct err edu_parse_typing(const struct json *content, struct edu_typing *typing_out) MUST_USE;

enum edu_presence_word { EDU_OFFLINE, EDU_UNAVAILABLE, EDU_ONLINE };
struct edu_presence {
    struct slice user_id;
    enum edu_presence_word word;
    struct slice status_msg; /* ptr NULL = none */
    int64_t last_active_ago_ms;
    bool is_active;
};
/* Entries that are malformed are left out. */
struct err edu_parse_presence(struct arena *arena, const struct json *content,
                              struct edu_presence **items_out, size_t *count_out) MUST_USE;

struct edu_receipt {
    struct slice room_id, user_id, event_id;
    struct slice thread; /* ptr NULL = unthreaded */
    int64_t ts_ms;
};
/* Public receipts, by room; malformed ones are left out. */
struct err edu_parse_receipts(struct arena *arena, const struct json *content,
                              struct edu_receipt **items_out, size_t *count_out) MUST_USE;

struct edu_device_list {
    struct slice user_id, device_id;
    struct slice display_name; /* ptr NULL = none */
    int64_t stream_id;
    const struct json *prev_ids; /* array or NULL */
    const struct json *keys;     /* object or NULL */
    bool is_deleted;
};
struct err edu_parse_device_list(const struct json *content,
                                 struct edu_device_list *update_out) MUST_USE;

struct edu_signing_key {
    struct slice user_id;
    const struct json *master_key, *self_signing_key; /* objects or NULL */
};
struct err edu_parse_signing_key(const struct json *content,
                                 struct edu_signing_key *update_out) MUST_USE;

struct edu_message {
    struct slice user_id, device_id; /* "*" = all devices */
    const struct json *content;
};
struct edu_to_device {
    struct slice sender, type, message_id;
    struct edu_message *items;
    size_t count;
};
struct err edu_parse_to_device(struct arena *arena, const struct json *content,
                               struct edu_to_device *send_out) MUST_USE;
