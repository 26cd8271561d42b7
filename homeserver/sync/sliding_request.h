/* The body of a sliding sync request, checked. Pure. Both spellings are read: that of the merged
 * proposal (`range`, `required_state` as an object, `is_invited`) and that of the clients that were
 * there before it (`ranges`, pairs with "*", "$ME" and "$LAZY", `is_invite`).
 * Spec: MSC4186, "Request Body". */
#pragma once
#include "homeserver/sync/filter.h"

enum {
    SLIDING_LISTS_MAX = 100,
    SLIDING_SUBSCRIPTIONS_MAX = 100,
    SLIDING_RANGES_MAX = 32,
    SLIDING_STATE_MAX = 500, /* elements of one required_state */
    SLIDING_CONN_ID_BYTES_MAX = 255,
};

/* One element of required_state; a member that was not given matches everything. */
struct sliding_element {
    struct slice type, state_key;
    bool any_type, any_key;
};
struct sliding_elements {
    struct sliding_element *items;
    size_t count;
};
struct sliding_state {
    struct sliding_elements include, exclude;
    bool lazy_members;
    struct slice text; /* as in the request: equal texts mean the same */
};

/* What to tell of a room. */
struct sliding_config {
    size_t timeline_limit;
    struct sliding_state state;
};

enum sliding_ask { SLIDING_EITHER, SLIDING_WITHOUT, SLIDING_WITH };
struct sliding_filters {
    enum sliding_ask is_dm, is_encrypted, is_invited;
    struct sync_names spaces, tags, not_tags;
    /* An empty name stands for rooms without a type. */
    struct sync_names room_types, not_room_types;
};

struct sliding_range {
    size_t first, last; /* both included */
};
struct sliding_list {
    struct slice name;
    struct sliding_config config;
    struct sliding_filters filters;
    struct sliding_range *ranges; /* none: all rooms that the filters take */
    size_t range_count;
};
struct sliding_subscription {
    struct slice room_id;
    struct sliding_config config;
};

/* Of which rooms an extension speaks. */
struct sliding_scope {
    bool enabled;
    bool all_lists, all_rooms;      /* of the request */
    struct sync_names lists, rooms; /* else these */
};

struct sliding_request {
    struct slice conn_id;
    struct slice pos;   /* of the body; ptr NULL = none */
    int64_t timeout_ms; /* of the body; -1 = none */
    struct slice set_presence;
    struct sliding_list *lists;
    size_t list_count;
    struct sliding_subscription *subscriptions;
    size_t subscription_count;
    struct {
        bool enabled;
        size_t limit;
        struct slice since; /* ptr NULL = none */
    } to_device;
    bool e2ee;
    struct sliding_scope account_data, receipts, typing;
    struct {
        bool enabled;
        size_t limit;
    } thread_subs; /* MSC4308 */
    bool presence;
    struct {
        struct sliding_scope scope;
        struct sync_names fields; /* not given: all */
        uint64_t fields_hash;     /* never 0 */
    } profiles;                   /* MSC4262 */
    uint64_t fingerprint;         /* of all that decides which rooms are told of, and how */
};

/* Result borrows from the tree and the arena. `me` stands for "$ME". M_BAD_JSON for wrong types,
 * M_INVALID_PARAM for too much of something. */
struct err sync_sliding_parse(struct arena *arena, const struct json *body, struct slice me,
                              struct sliding_request *request_out) MUST_USE;
/* required_state alone, from text that sync_sliding_parse has accepted. */
struct err sync_sliding_parse_state(struct arena *arena, const struct json *value, struct slice me,
                                    struct sliding_state *state_out) MUST_USE;
/* Whether state under this type and key is asked for by name or wildcard. Members that are there
 * for being needed (lazy_members) are not. */
bool sync_sliding_takes(const struct sliding_state *state, struct slice type, struct slice key);
/* Whether all members are asked for. */
bool sync_sliding_takes_members(const struct sliding_state *state);
