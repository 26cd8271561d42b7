#include "homeserver/http/wheel.h"

void http_wheel_init(struct http_wheel *wheel, int64_t now_ms)
{
    *wheel = (struct http_wheel){.tick = now_ms / HTTP_WHEEL_TICK_MS};
    for (size_t i = 0; i < HTTP_WHEEL_SLOTS; i++) {
        wheel->slots[i].next = &wheel->slots[i];
        wheel->slots[i].prev = &wheel->slots[i];
    }
}

void http_wheel_cancel(struct http_wheel *wheel, struct http_wheel_entry *entry)
{
    if (entry->next) {
        entry->prev->next = entry->next;
        entry->next->prev = entry->prev;
        entry->next = NULL;
        entry->prev = NULL;
        wheel->count--;
    }
}

static void insert(struct http_wheel_entry *head, struct http_wheel_entry *entry)
{
    entry->next = head;
    entry->prev = head->prev;
    head->prev->next = entry;
    head->prev = entry;
}

void http_wheel_set(struct http_wheel *wheel, struct http_wheel_entry *entry, int64_t due_ms)
{
    http_wheel_cancel(wheel, entry);
    int64_t tick = due_ms / HTTP_WHEEL_TICK_MS + 1;
    tick = tick <= wheel->tick ? wheel->tick + 1 : tick;
    entry->due_ms = due_ms;
    insert(&wheel->slots[(size_t)tick % HTTP_WHEEL_SLOTS], entry);
    wheel->count++;
}

/* The bucket is emptied into a list first: what fn sets or cancels cannot disturb the walk. */
static void visit(struct http_wheel *wheel, struct http_wheel_entry *head, int64_t now_ms)
{
    struct http_wheel_entry due = {.next = &due, .prev = &due};
    struct http_wheel_entry *entry = head->next;
    while (entry != head) {
        struct http_wheel_entry *next = entry->next;
        if (entry->due_ms <= now_ms) {
            entry->prev->next = next;
            next->prev = entry->prev;
            insert(&due, entry);
        }
        entry = next;
    }
    while (due.next != &due) {
        entry = due.next;
        http_wheel_cancel(wheel, entry);
        entry->fn(entry->arg);
    }
}

void http_wheel_advance(struct http_wheel *wheel, int64_t now_ms)
{
    int64_t now_tick = now_ms / HTTP_WHEEL_TICK_MS;
    if (now_tick - wheel->tick > HTTP_WHEEL_SLOTS) { /* slept long: one full turn sees all */
        wheel->tick = now_tick - HTTP_WHEEL_SLOTS;
    }
    while (wheel->tick < now_tick) {
        wheel->tick++;
        visit(wheel, &wheel->slots[(size_t)wheel->tick % HTTP_WHEEL_SLOTS], now_ms);
    }
}
