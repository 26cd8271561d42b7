/* myelinctl: what its files share. */
#pragma once
#include "homeserver/app.h"
#include "homeserver/base/json.h"

enum ctl_exit { CTL_DONE = 0, CTL_FAILED = 1, CTL_USAGE = 2 };

struct ctl {
    struct arena *arena;
    struct log *log_owned; /* of the store's own complaints; made by ctl_open */
    const char *config_path;
    struct slice admin_url; /* of a running server; empty = found out */
    bool json;              /* print JSON, not text */
    bool deep;              /* check: also the events themselves */
    struct conf conf;
};

/* The settings; prints what is wrong with them. */
bool ctl_load(struct ctl *ctl);
/* Whether a server has the store open. */
bool ctl_server_runs(struct ctl *ctl);
void ctl_print(struct slice text);
void ctl_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Opens the store without listeners; prints why not. */
struct app *ctl_open(struct ctl *ctl, bool read_only);

/* check.c */
int ctl_check(struct ctl *ctl);
int ctl_rebuild(struct ctl *ctl);
/* online.c: asks the running server; the answer's JSON. False: printed why. */
bool ctl_ask(struct ctl *ctl, const char *op, struct slice args, struct json *answer_out);
/* print.c: an answer as text. */
void ctl_print_answer(const struct ctl *ctl, const struct json *answer);
