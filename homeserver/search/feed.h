/* From events, members and accounts to rows of the index. Each call looks at what is stored now, so
 * any of them may be made again, in any order, and the last one is right.
 * Spec: client-server, "Server Side Search", "User Directory". */
#pragma once
#include "homeserver/search/index.h"
#include "homeserver/service/rooms.h"

struct search_feed {
    struct hs *hs;
    struct search_index *index;
    bool takes_texts; /* search is enabled */
};

/* A timeline event that is new. room_changed_out: many members may have changed with it. */
struct err search_feed_event(const struct search_feed *feed, struct ctx *ctx, struct room *room,
                             const struct stored_event *event, bool *room_changed_out) MUST_USE;
/* The text of an event of the past; `edits`: an edit changes the text of its target. */
enum search_edits { SEARCH_WITH_EDITS, SEARCH_WITHOUT_EDITS };
struct err search_feed_text(const struct search_feed *feed, struct ctx *ctx, struct room *room,
                            struct stored_event *event, enum search_edits edits) MUST_USE;
/* Whether the texts of a room are looked for: it is not encrypted. */
struct err search_feed_takes_room(const struct search_feed *feed, struct ctx *ctx,
                                  struct room *room, bool *takes_out) MUST_USE;
/* Everything about a room but its events: who is in it, and who may know. */
struct err search_feed_room(const struct search_feed *feed, struct ctx *ctx,
                            struct room *room) MUST_USE;
/* A user of this server: account and profile. */
struct err search_feed_account(const struct search_feed *feed, struct ctx *ctx,
                               uint64_t user) MUST_USE;
