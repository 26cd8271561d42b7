#include "homeserver/service/event_facts.h"

#include "homeserver/base/mem.h"
#include "homeserver/room/relates.h"

#include <string.h>

/* A word as glob_matches_word sees them: a run of ASCII letters, digits and underscores. A name
 * that stands between two boundaries begins with a run of the text, whole. */
static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static char small(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* The next word of the text from *at_io on: its hash; false at the end. */
static bool next_word(struct slice text, size_t *at_io, uint16_t *hash_out)
{
    size_t at = *at_io;
    uint32_t hash = UINT32_C(2166136261);
    while (at < text.len && !is_word(text.ptr[at])) {
        at++;
    }
    bool any = at < text.len;
    while (at < text.len && is_word(text.ptr[at])) {
        hash = (hash ^ (unsigned char)small(text.ptr[at])) * UINT32_C(16777619);
        at++;
    }
    *hash_out = (uint16_t)(hash ^ hash >> 16);
    *at_io = at;
    return any;
}

static size_t hash_words(struct slice text, uint16_t *hashes)
{
    size_t at = 0;
    size_t count = 0;
    uint16_t hash = 0;
    while (next_word(text, &at, &hash)) {
        if (hashes) {
            hashes[count] = hash;
        }
        count++;
    }
    return count;
}

static enum event_place place_of(const struct event *event, struct slice *thread_out)
{
    struct relation relation = relates_parse(event->content);
    *thread_out = relates_thread_root(event->content).s;
    if (thread_out->len) {
        return EVENT_IN_THREAD;
    }
    return relation.rel_type.len && relation.event_id.s.len ? EVENT_HANGS : EVENT_IN_MAIN;
}

struct event_facts *event_facts_new(const struct push_rules *everybody, const struct event *event,
                                    size_t *bytes_out)
{
    struct event_facts facts = {.outlook = push_rules_foresee(everybody, event)};
    struct slice body = {0};
    facts.place = place_of(event, &facts.thread);
    if (facts.outlook.unless_named) {
        body = json_get_string(event->content, LIT("body"));
        facts.word_count = hash_words(body, NULL);
    }
    size_t words = facts.word_count * sizeof *facts.words;
    *bytes_out = sizeof facts + words + facts.thread.len;
    struct event_facts *kept = mem_alloc_raw(*bytes_out);
    uint16_t *hashes = (uint16_t *)(kept + 1);
    char *thread = (char *)hashes + words;
    hash_words(body, hashes);
    if (facts.thread.len) {
        memcpy(thread, facts.thread.ptr, facts.thread.len);
        facts.thread.ptr = thread;
    }
    facts.words = hashes;
    *kept = facts;
    return kept;
}

/* Letters outside ASCII have case as well, and wildcards match anything. */
static bool is_plain(struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        if ((unsigned char)name.ptr[i] >= 0x80 || name.ptr[i] == '*' || name.ptr[i] == '?') {
            return false;
        }
    }
    return true;
}

struct facts_word event_facts_word_of(struct slice name)
{
    struct facts_word word = {0};
    size_t at = 0;
    word.is_known = is_plain(name) && next_word(name, &at, &word.hash);
    return word;
}

bool event_facts_may_name(const struct event_facts *facts, struct facts_word word)
{
    bool found = !word.is_known;
    for (size_t i = 0; i < facts->word_count; i++) {
        found |= facts->words[i] == word.hash;
    }
    return found;
}
