#include "tools/myelin-conform/sugar.h"

#include <ctype.h>

enum { WORDS_MAX = 12, EXPANSION_BYTES_MAX = 1 << 20 };

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

static bool fits(struct slice form, const struct slice *words, size_t word_count,
                 struct slice holes[5])
{
    for (size_t i = 0; i < word_count; i++) {
        struct slice form_word;
        form = slice_cut(form, ' ', &form_word);
        if (form_word.len == 2 && form_word.ptr[0] == '%') {
            holes[hole_index(form_word.ptr[1])] = words[i];
        } else if (!slice_eq(form_word, words[i])) {
            return false;
        }
    }
    return form.ptr == NULL;
}

static struct slice fill(struct arena *arena, const char *form, const struct slice holes[5])
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

struct sugar_hit sugar_find(struct arena *arena, struct slice words)
{
    struct slice list[WORDS_MAX];
    size_t count = 0;
    while (words.len > 0 && count < WORDS_MAX) {
        list[count++] = next_word(words, &words);
    }
    for (size_t i = 0; i < COUNT_OF(rows) && words.len == 0; i++) {
        struct slice holes[5] = {{0}};
        if (count > 0 && fits(slice_of(rows[i].words), list, count, holes)) {
            return (struct sugar_hit){
                .row = &rows[i],
                .path = fill(arena, rows[i].path, holes),
                .body = fill(arena, rows[i].body, holes),
                .expect = fill(arena, rows[i].expect, holes),
                .user = holes[0],
            };
        }
    }
    return (struct sugar_hit){0};
}
