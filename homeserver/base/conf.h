/* The configuration: one YAML file (JSON is YAML too), all settings of which stand in conf.def.
 * Whatever is wrong with a file is reported at once, each with file and line. Nothing else of the
 * program reads files of settings or the environment. */
#pragma once
#include "homeserver/base/buf.h"

enum conf_password_cost {
    CONF_PASSWORD_COST_LOWEST,
    CONF_PASSWORD_COST_INTERACTIVE,
    CONF_PASSWORD_COST_MODERATE,
};

struct conf_texts {
    struct slice *items;
    size_t count;
};

struct conf_listener {
    struct slice host;
    uint16_t port; /* 0 = any free port */
    bool tls;
};

struct conf_listeners {
    struct conf_listener *items;
    size_t count;
};

#define CONF_TYPE_TEXT struct slice
#define CONF_TYPE_PATH struct slice /* absolute when the file was loaded by path */
#define CONF_TYPE_BOOL bool
#define CONF_TYPE_INT int64_t
#define CONF_TYPE_BYTES int64_t
#define CONF_TYPE_TIME int64_t   /* milliseconds */
#define CONF_TYPE_CHOICE int64_t /* the choice's enum value */
#define CONF_TYPE_TEXTS struct conf_texts
#define CONF_TYPE_PATHS struct conf_texts
#define CONF_TYPE_JSON struct slice /* JSON text of one object; empty = not set */
#define CONF_TYPE_LISTEN struct conf_listeners

/* One member for each row of conf.def: `server_name`, `registration_open`, ... */
struct conf {
#define SECTION(path, doc)
#define CONF(kind, field, ...) CONF_TYPE_##kind field;
#include "homeserver/base/conf.def"
#undef CONF
#undef SECTION
};

/* Reads settings from text. `file` names the text in reports. Every problem is added to `problems`
 * as a line "file:line: what is wrong and what to do"; ERR_SYNTAX when there was any. Values live
 * in `arena`. */
struct err conf_parse(struct arena *arena, struct slice text, struct slice file,
                      struct conf *conf_out, struct buf *problems) MUST_USE;
/* The same from a file; relative paths in it start at its folder. */
struct err conf_load(struct arena *arena, struct slice path, struct conf *conf_out,
                     struct buf *problems) MUST_USE;
/* Only defaults, for this server name (tests, tools). */
void conf_defaults(struct arena *arena, struct slice server_name, struct conf *conf_out);
/* The annotated example: every setting with its default, range and meaning. Parses back to the
 * defaults once `server_name` is filled in. */
void conf_write_example(struct buf *out, struct slice server_name);
