#include "tools/myelin-conform/record.h"

#include "homeserver/base/json_out.h"
#include "homeserver/base/mem.h"

#include <pthread.h>
#include <stdio.h>

enum { LINE_BYTES_MAX = 64 << 20 };

struct recorder {
    pthread_mutex_t lock;
    FILE *file;
    bool has_failed;
};

struct err recorder_open(struct arena *arena, const char *path, struct recorder **recorder_out)
{
    FILE *file = fopen(path, "wb");
    if (!file) {
        return err_publicf(arena, ERR_IO, "cannot write %s", path);
    }
    *recorder_out = mem_alloc(sizeof **recorder_out);
    **recorder_out = (struct recorder){.file = file};
    pthread_mutex_init(&(*recorder_out)->lock, NULL);
    return OK;
}

static void write_request(struct json_out *out, struct arena *arena, const struct ask *ask)
{
    struct json body;
    bool authorized = false;
    bool is_json = ask->has_body && json_parse(arena, ask->body, &body).code == 0;
    for (size_t i = 0; i < ask->header_count; i++) {
        authorized = authorized || slice_eq_nocase(ask->headers[i].name, LIT("authorization"));
    }
    json_out_key_string(out, LIT("method"), ask->method);
    json_out_key_string(out, LIT("path"), ask->url);
    json_out_key_bool(out, LIT("authorized"), authorized);
    json_out_key_bool(out, LIT("request_raw"), ask->has_body && !is_json);
    if (is_json) {
        json_out_key(out, LIT("request"));
        json_out_value(out, &body);
    }
}

static void write_answer(struct json_out *out, const struct answer *answer)
{
    struct slice type = ask_header(answer, LIT("content-type"));
    json_out_key_int(out, LIT("status"), answer->status);
    if (type.ptr) {
        json_out_key_string(out, LIT("content_type"), type);
    }
    if (answer->is_json) {
        json_out_key(out, LIT("answer"));
        json_out_value(out, &answer->json);
    }
}

void recorder_write(struct recorder *recorder, struct arena *arena, const struct ask *ask,
                    const struct answer *answer)
{
    struct buf line;
    if (!recorder) {
        return;
    }
    buf_init_arena(&line, arena, LINE_BYTES_MAX);
    struct json_out out = json_out_to(&line);
    json_out_object(&out);
    write_request(&out, arena, ask);
    write_answer(&out, answer);
    json_out_object_end(&out);
    buf_add(&line, LIT("\n"));
    pthread_mutex_lock(&recorder->lock);
    bool is_written = !line.overflow && fwrite(line.ptr, 1, line.len, recorder->file) == line.len;
    recorder->has_failed = recorder->has_failed || !is_written;
    pthread_mutex_unlock(&recorder->lock);
}

struct err recorder_close(struct recorder **pointer)
{
    struct recorder *recorder = *pointer;
    if (!recorder) {
        return OK;
    }
    bool has_failed = fclose(recorder->file) != 0 || recorder->has_failed;
    pthread_mutex_destroy(&recorder->lock);
    mem_free(recorder);
    *pointer = NULL;
    return has_failed ? err_public(ERR_IO, "the record could not be written") : OK;
}
