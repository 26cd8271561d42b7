#include "tools/myelin-conform/sugar.h"

#include <ctype.h>

enum { EXPANSION_BYTES_MAX = 1 << 20 };

#define EVENT_ID "{\"event_id\": string}"

/* %u is a user's name: it becomes a variable and the user is registered. */
static const struct sugar_row rows[] = {
    {"creates %1", "POST", "/v3/createRoom", "{}", "{\"room_id\": %1}"},
    {"creates %1 %2", "POST", "/v3/createRoom", "%2", "{\"room_id\": %1}"},
    {"joins %1", "POST", "/v3/join/%1", "{}", ""},
    {"leaves %1", "POST", "/v3/rooms/%1/leave", "{}", ""},
    {"leaves %1 because %2", "POST", "/v3/rooms/%1/leave", "{\"reason\": %2}", ""},
    {"forgets %1", "POST", "/v3/rooms/%1/forget", "{}", ""},
    {"knocks on %1", "POST", "/v3/knock/%1", "{}", ""},
    {"knocks on %1 because %2", "POST", "/v3/knock/%1", "{\"reason\": %2}", ""},
    {"invites %u to %1", "POST", "/v3/rooms/%1/invite", "{\"user_id\": $%u}", ""},
    {"kicks %u from %1", "POST", "/v3/rooms/%1/kick", "{\"user_id\": $%u}", ""},
    {"bans %u from %1", "POST", "/v3/rooms/%1/ban", "{\"user_id\": $%u}", ""},
    {"unbans %u from %1", "POST", "/v3/rooms/%1/unban", "{\"user_id\": $%u}", ""},
    {"kicks %u from %1 because %2", "POST", "/v3/rooms/%1/kick",
     "{\"user_id\": $%u, \"reason\": %2}", ""},
    {"bans %u from %1 because %2", "POST", "/v3/rooms/%1/ban", "{\"user_id\": $%u, \"reason\": %2}",
     ""},
    {"says %1 in %2", "PUT", "/v3/rooms/%2/send/m.room.message/$txn",
     "{\"msgtype\": \"m.text\", \"body\": %1}", EVENT_ID},
    {"says %1 in %2 as %3", "PUT", "/v3/rooms/%2/send/m.room.message/$txn",
     "{\"msgtype\": \"m.text\", \"body\": %1}", "{\"event_id\": %3}"},
    {"sends %1 %2 in %3", "PUT", "/v3/rooms/%3/send/%1/$txn", "%2", EVENT_ID},
    {"sends %1 %2 in %3 as %4", "PUT", "/v3/rooms/%3/send/%1/$txn", "%2", "{\"event_id\": %4}"},
    {"sets %1 %2 in %3", "PUT", "/v3/rooms/%3/state/%1", "%2", EVENT_ID},
    {"sets %1 %2 in %3 as %4", "PUT", "/v3/rooms/%3/state/%1", "%2", "{\"event_id\": %4}"},
    {"redacts %1 in %2", "PUT", "/v3/rooms/%2/redact/%1/$txn", "{}", EVENT_ID},
    {"redacts %1 in %2 as %3", "PUT", "/v3/rooms/%2/redact/%1/$txn", "{}", "{\"event_id\": %3}"},
    {"reads %1 in %2", "POST", "/v3/rooms/%2/receipt/m.read/%1", "{}", ""},
};

#define TRANSACTION "{\"origin\": $%u, \"origin_server_ts\": $time_ms, \"pdus\": ["

/* What a played server asks; %u is its name. */
static const struct sugar_row peer_rows[] = {
    {"transmits edu %1 %2", "PUT", "/v1/send/$txn",
     TRANSACTION "], \"edus\": [{\"edu_type\": %1, \"content\": %2}]}", ""},
    {"transmits %1", "PUT", "/v1/send/$txn", TRANSACTION "%1]}", ""},
    {"transmits %1 %2", "PUT", "/v1/send/$txn", TRANSACTION "%1, %2]}", ""},
    {"transmits %1 %2 %3", "PUT", "/v1/send/$txn", TRANSACTION "%1, %2, %3]}", ""},
};

/* One word, string or bracketed value; the rest in `rest_out`. */
static struct slice next_word(struct slice text, struct slice *rest_out)
{
    text = slice_trim(text);
    size_t depth = 0;
    bool in_string = false;
    size_t i = 0;
    for (; i < text.len; i++) {
        char c = text.ptr[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
            continue;
        }
        if (depth == 0 && isspace((unsigned char)c)) {
            break;
        }
        in_string = c == '"';
        depth += c == '{' || c == '[' || c == '(';
        depth -= depth > 0 && (c == '}' || c == ']' || c == ')');
    }
    i = i < text.len ? i : text.len;
    *rest_out = slice_trim(slice_from(text, i));
    return slice_sub(text, 0, i);
}

static size_t hole_index(char name)
{
    return name == 'u' ? 0 : (size_t)(name - '0');
}

bool sugar_words_fit(struct slice form, struct slice words, struct slice holes[SUGAR_HOLES])
{
    while (form.ptr && words.len > 0) {
        struct slice form_word;
        form = slice_cut(form, ' ', &form_word);
        if (slice_eq(form_word, LIT("..."))) { /* the fourth hole takes the rest */
            holes[hole_index('4')] = words;
            return true;
        }
        struct slice word = next_word(words, &words);
        if (form_word.len == 2 && form_word.ptr[0] == '%') {
            holes[hole_index(form_word.ptr[1])] = word;
        } else if (!slice_eq(form_word, word)) {
            return false;
        }
    }
    return form.ptr == NULL && words.len == 0;
}

static struct slice fill(struct arena *arena, const char *form,
                         const struct slice holes[SUGAR_HOLES])
{
    struct buf buf;
    buf_init_arena(&buf, arena, EXPANSION_BYTES_MAX);
    for (const char *at = form; *at; at++) {
        bool is_hole = at[0] == '%' && (at[1] == 'u' || (at[1] >= '1' && at[1] <= '4'));
        if (is_hole) {
            buf_add(&buf, holes[hole_index(*++at)]);
        } else {
            buf_add_byte(&buf, *at);
        }
    }
    return buf_slice(&buf);
}

static struct sugar_hit find(struct arena *arena, const struct sugar_row *table, size_t count,
                             struct slice actor, struct slice words)
{
    for (size_t i = 0; i < count; i++) {
        struct slice holes[SUGAR_HOLES] = {actor};
        if (sugar_words_fit(slice_of(table[i].words), words, holes)) {
            return (struct sugar_hit){
                .row = &table[i],
                .path = fill(arena, table[i].path, holes),
                .body = fill(arena, table[i].body, holes),
                .expect = fill(arena, table[i].expect, holes),
                .user = holes[0],
            };
        }
    }
    return (struct sugar_hit){0};
}

struct sugar_hit sugar_find(struct arena *arena, struct slice words)
{
    return find(arena, rows, COUNT_OF(rows), (struct slice){0}, words);
}

struct sugar_hit sugar_find_peer(struct arena *arena, struct slice actor, struct slice words)
{
    struct sugar_hit hit = find(arena, peer_rows, COUNT_OF(peer_rows), actor, words);
    hit.user = (struct slice){0};
    return hit;
}
