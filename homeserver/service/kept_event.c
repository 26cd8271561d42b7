#include "homeserver/service/kept_event.h"

#include "homeserver/base/mem.h"
#include "homeserver/room/client_event.h"

#include <string.h>

/* Where copies go: first only measured, then written. */
struct block {
    struct slice row;
    char *at; /* NULL while measuring */
    size_t len;
};

static void keep(struct block *block, struct slice *s)
{
    bool in_row = s->ptr >= block->row.ptr && s->ptr < block->row.ptr + block->row.len;
    if (s->ptr == NULL || in_row) {
        return;
    }
    if (block->at) {
        memcpy(block->at + block->len, s->ptr, s->len);
        s->ptr = block->at + block->len;
    }
    block->len += s->len ? s->len : 1; /* an empty slice is not an absent one */
}

static void keep_ids(struct block *block, struct event_id *ids, const struct event_id *from,
                     size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct event_id id = from[i];
        keep(block, &id.s);
        if (ids) {
            ids[i] = id;
        }
    }
}

/* The ids stand in the block before the text. */
static void keep_all(struct block *block, struct stored_event *event, struct event_id *ids)
{
    struct event *inner = &event->event;
    struct slice *texts[] = {
        &inner->json,      &inner->content_json, &inner->id.s,        &inner->room_id.s,
        &inner->sender.s,  &inner->type,         &inner->state_key,   &inner->redacts.s,
        &event->device_id, &event->txn_id,       &event->client_open,
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        keep(block, texts[i]);
    }
    keep_ids(block, ids, inner->prev_events, inner->prev_event_count);
    keep_ids(block, ids ? ids + inner->prev_event_count : NULL, inner->auth_events,
             inner->auth_event_count);
    if (ids) {
        inner->prev_events = ids;
        inner->auth_events = ids + inner->prev_event_count;
    }
}

static struct slice client_open(struct arena *arena, const struct event *event)
{
    struct buf buf;
    struct client_event_options options = {.room_id = CLIENT_EVENT_WITHOUT_ROOM_ID};
    buf_init_arena(&buf, arena, SIZE_MAX / 2);
    struct json_out out = json_out_to(&buf);
    client_event_write(arena, &out, event, &options);
    return slice_sub(buf_slice(&buf), 0, buf.len - 1); /* less the closing brace */
}

struct stored_event *kept_event_new(struct arena *arena, const struct stored_event *event,
                                    struct slice row, size_t *bytes_out)
{
    struct stored_event copy = *event;
    struct block block = {.row = row};
    copy.event.content = NULL;
    copy.event.tree = NULL;
    copy.client_open = client_open(arena, &event->event);
    struct stored_event measured = copy;
    keep_all(&block, &measured, NULL);
    size_t ids = copy.event.prev_event_count + copy.event.auth_event_count;
    size_t head = sizeof copy + ids * sizeof(struct event_id);
    *bytes_out = head + block.len;
    struct stored_event *kept = mem_alloc_raw(*bytes_out);
    *kept = copy;
    block = (struct block){.row = row, .at = (char *)kept + head};
    keep_all(&block, kept, (struct event_id *)(kept + 1));
    return kept;
}
