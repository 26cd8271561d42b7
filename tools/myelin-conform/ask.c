#include "tools/myelin-conform/ask.h"
#include "homeserver/base/mem.h"

#include <curl/curl.h>

enum { BODY_BYTES_MAX = 64 << 20, ANSWER_TIMEOUT_S = 60 };

struct asker {
    CURL *curl;
    char *ca_file;
    struct arena *arena; /* holds ca_file */
};

struct receiver {
    struct arena *arena;
    struct buf body;
    struct answer *answer;
};

struct asker *ask_new(struct slice ca_file)
{
    struct asker *asker = mem_alloc(sizeof *asker);
    asker->curl = curl_easy_init();
    asker->arena = arena_new();
    asker->ca_file = ca_file.len > 0 ? arena_cstr(asker->arena, ca_file) : NULL;
    return asker;
}

void ask_free(struct asker **asker)
{
    curl_easy_cleanup((*asker)->curl);
    arena_free(&(*asker)->arena);
    mem_free(*asker);
    *asker = NULL;
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    struct receiver *receiver = arg;
    buf_add(&receiver->body, (struct slice){data, size * count});
    return receiver->body.overflow ? 0 : size * count;
}

static size_t on_header(char *data, size_t size, size_t count, void *arg)
{
    struct receiver *receiver = arg;
    struct answer *answer = receiver->answer;
    struct slice line = {data, size * count};
    struct ask_header header;
    struct slice value = slice_cut(line, ':', &header.name);
    if (slice_has_prefix(line, LIT("HTTP/"))) {
        answer->header_count = 0;
    } else if (value.ptr) {
        header.name = arena_copy(receiver->arena, header.name);
        header.value = arena_copy(receiver->arena, slice_trim(value));
        answer->headers =
            arena_grow(receiver->arena, answer->headers, answer->header_count * sizeof header,
                       (answer->header_count + 1) * sizeof header);
        answer->headers[answer->header_count++] = header;
    }
    return size * count;
}

static struct curl_slist *header_list(struct arena *arena, const struct ask *ask)
{
    struct curl_slist *list = curl_slist_append(NULL, "Expect:");
    bool has_type = false;
    for (size_t i = 0; i < ask->header_count; i++) {
        struct slice name = ask->headers[i].name;
        struct slice value = ask->headers[i].value;
        has_type = has_type || slice_eq_nocase(name, LIT("content-type"));
        struct slice line =
            arena_printf(arena, "%.*s: %.*s", (int)name.len, name.ptr, (int)value.len, value.ptr);
        list = curl_slist_append(list, arena_cstr(arena, line));
    }
    if (!has_type) {
        list = curl_slist_append(list, ask->has_body ? "Content-Type: application/json"
                                                     : "Content-Type:");
    }
    return list;
}

static void set_options(struct asker *asker, struct arena *arena, const struct ask *ask,
                        struct receiver *receiver)
{
    CURL *curl = asker->curl;
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_URL, arena_cstr(arena, ask->url));
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)ANSWER_TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, receiver);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, receiver);
    if (asker->ca_file) {
        curl_easy_setopt(curl, CURLOPT_CAINFO, asker->ca_file);
    }
    if (ask->has_body) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)ask->body.len);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, ask->body.len > 0 ? ask->body.ptr : "");
    }
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, arena_cstr(arena, ask->method));
}

struct err ask_send(struct asker *asker, struct arena *arena, const struct ask *ask,
                    struct answer *answer_out)
{
    *answer_out = (struct answer){0};
    struct receiver receiver = {.arena = arena, .answer = answer_out};
    buf_init_arena(&receiver.body, arena, BODY_BYTES_MAX);
    set_options(asker, arena, ask, &receiver);
    struct curl_slist *headers = header_list(arena, ask);
    curl_easy_setopt(asker->curl, CURLOPT_HTTPHEADER, headers);
    CURLcode code = curl_easy_perform(asker->curl);
    curl_slist_free_all(headers);
    if (code != CURLE_OK) {
        return err_publicf(arena, ERR_IO, "no answer: %s", curl_easy_strerror(code));
    }
    curl_easy_getinfo(asker->curl, CURLINFO_RESPONSE_CODE, &answer_out->status);
    answer_out->body = buf_slice(&receiver.body);
    struct err err = json_parse(arena, answer_out->body, &answer_out->json);
    answer_out->is_json = err.code == 0;
    return OK;
}

struct slice ask_header(const struct answer *answer, struct slice name)
{
    for (size_t i = 0; i < answer->header_count; i++) {
        if (slice_eq_nocase(answer->headers[i].name, name)) {
            return answer->headers[i].value;
        }
    }
    return (struct slice){0};
}
