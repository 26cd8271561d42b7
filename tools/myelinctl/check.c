/* check and rebuild: on the store of a server that does not run. */
#include "homeserver/base/json_out.h"
#include "homeserver/service/rebuild.h"
#include "tools/myelinctl/ctl.h"

#include <inttypes.h>
#include <stdio.h>

struct printing {
    const struct ctl *ctl;
    struct buf line;
};

/* Bytes of a key: letters as they are, others as \xNN. */
static void add_key(struct buf *out, struct slice key)
{
    for (size_t i = 0; i < key.len; i++) {
        unsigned char byte = (unsigned char)key.ptr[i];
        if (byte >= ' ' && byte < 127 && byte != '\\') {
            buf_add_byte(out, (char)byte);
        } else {
            buf_printf(out, "\\x%02x", byte);
        }
    }
}

static void print_difference(void *arg, const struct check_difference *d)
{
    struct printing *printing = arg;
    struct buf *line = &printing->line;
    buf_clear(line);
    buf_printf(line, "%s:", check_index_name(d->index));
    if (d->room_id.len) {
        buf_add(line, LIT(" room "));
        buf_add(line, d->room_id);
    }
    if (d->number) {
        buf_printf(line, " event %" PRId64 " ", d->number);
        buf_add(line, d->event_id);
    }
    if (d->key.len) {
        buf_add(line, LIT(" row "));
        add_key(line, d->key);
    }
    buf_printf(line, " %s%s\n", d->what, d->healed ? "; healed" : "");
    /* Differences go apart from the JSON of the result. */
    fwrite(line->ptr, 1, line->len, printing->ctl->json ? stderr : stdout);
}

static void print_text(const struct check_result *result, bool rebuilt)
{
    printf("%-16s %12s %12s %12s\n", "index", "compared", "differences", rebuilt ? "healed" : "");
    for (size_t i = 0; i < CHECK_COUNT; i++) {
        const struct check_tally *tally = &result->of[i];
        printf("%-16s %12" PRIu64 " %12" PRIu64, check_index_name((enum check_index)i), tally->rows,
               tally->differences);
        if (rebuilt) {
            printf(" %12" PRIu64, tally->healed);
        }
        printf("\n");
    }
    printf("%" PRIu64 " rooms, %" PRIu64 " events, %" PRIu64 " users: ", result->rooms,
           result->events, result->users);
    if (!result->differences) {
        printf("no differences\n");
    } else if (rebuilt) {
        printf("%" PRIu64 " differences, %" PRIu64 " healed\n", result->differences,
               result->healed);
    } else {
        printf("%" PRIu64 " differences\n", result->differences);
    }
}

static void print_json(const struct ctl *ctl, const struct check_result *result)
{
    struct buf text;
    buf_init_arena(&text, ctl->arena, SIZE_MAX / 2);
    struct json_out out = json_out_to(&text);
    json_out_object(&out);
    json_out_key_int(&out, LIT("rooms"), (int64_t)result->rooms);
    json_out_key_int(&out, LIT("events"), (int64_t)result->events);
    json_out_key_int(&out, LIT("users"), (int64_t)result->users);
    json_out_key_int(&out, LIT("differences"), (int64_t)result->differences);
    json_out_key_int(&out, LIT("healed"), (int64_t)result->healed);
    json_out_key_object(&out, LIT("indexes"));
    for (size_t i = 0; i < CHECK_COUNT; i++) {
        json_out_key_object(&out, slice_of(check_index_name((enum check_index)i)));
        json_out_key_int(&out, LIT("compared"), (int64_t)result->of[i].rows);
        json_out_key_int(&out, LIT("differences"), (int64_t)result->of[i].differences);
        json_out_key_int(&out, LIT("healed"), (int64_t)result->of[i].healed);
        json_out_object_end(&out);
    }
    json_out_object_end(&out);
    json_out_object_end(&out);
    ctl_print(buf_slice(&text));
    ctl_print(LIT("\n"));
}

typedef struct err (*run_fn)(struct hs *hs, struct ctx *ctx, const struct check_options *options,
                             struct check_result *result_out);

static int run(struct ctl *ctl, run_fn fn, bool rebuilds)
{
    struct now now = now_system();
    struct ctx ctx = {.arena = ctl->arena, .now = &now};
    struct check_result result = {0};
    struct printing printing = {.ctl = ctl};
    struct check_options options = {
        .deep = ctl->deep, .report = print_difference, .arg = &printing};
    if (ctl_server_runs(ctl)) {
        ctl_error("the server is running: stop it first");
        return CTL_FAILED;
    }
    struct app *app = ctl_open(ctl, !rebuilds);
    if (!app) {
        return CTL_FAILED;
    }
    buf_init(&printing.line, 1 << 16);
    struct err err = fn(app_hs(app), &ctx, &options, &result);
    buf_deinit(&printing.line);
    if (err.code != 0) {
        ctl_error("%s", err.text);
    } else if (ctl->json) {
        print_json(ctl, &result);
    } else {
        print_text(&result, rebuilds);
    }
    ctx_finish(&ctx);
    app_free(&app);
    uint64_t left = rebuilds ? result.differences - result.healed : result.differences;
    return err.code != 0 || left ? CTL_FAILED : CTL_DONE;
}

int ctl_check(struct ctl *ctl)
{
    return run(ctl, hs_check, false);
}

int ctl_rebuild(struct ctl *ctl)
{
    return run(ctl, hs_rebuild, true);
}
