/* A play: a text file of scenes, each a list of steps with the sentences of the specification that
 * they check. Parsing only; stage.h plays them. README.md in this folder describes the language. */
#pragma once
#include "tools/myelin-conform/term.h"

enum step_kind {
    STEP_ASK,     /* an HTTP request */
    STEP_SYNC,    /* GET /sync with the actor's token */
    STEP_LET,     /* a variable gets a value */
    STEP_KEY,     /* a variable gets a new Ed25519 public key */
    STEP_RANDOM,  /* a variable gets random base64 of a key's size */
    STEP_CHECK,   /* a variable's value matches a pattern */
    STEP_BECOMES, /* an actor takes over the session in a variable */
    STEP_LOGIN,   /* a device of a user logs in */
    STEP_WAIT,
};

enum step_mode {
    STEP_ONCE,
    STEP_UNTIL, /* repeated until all expectations hold */
    STEP_NEVER, /* repeated for a while; the expectations must not all hold once */
};

enum sync_from {
    SYNC_FROM_LAST,  /* since = the last next_batch */
    SYNC_FROM_START, /* no since */
    SYNC_FROM_SAME,  /* since = that of the last sync */
    SYNC_FROM_TOKEN, /* since = `value` */
};

enum expect_kind {
    EXPECT_STATUS, /* `text`: "200", "4xx", "400|403"; `errcodes` may name Matrix error codes */
    EXPECT_BODY,   /* `pattern` at `path` of the JSON body */
    EXPECT_HEADER, /* `pattern` against the header `text`; absent works */
    EXPECT_RAW,    /* the body's bytes are `text` */
};

struct expect {
    enum expect_kind kind;
    struct slice source;
    struct slice text;
    struct slice errcodes;
    struct term *path; /* TERM_TEXT or TERM_VAR */
    size_t path_count;
    struct term pattern;
};

struct field {
    struct slice name;
    struct slice value; /* with `$name` */
};

struct step {
    enum step_kind kind;
    enum step_mode mode;
    enum sync_from from;
    size_t line;
    struct slice source;
    struct slice actor; /* alice, alice/phone, nobody */
    struct slice method;
    struct slice path;
    bool has_body;
    struct term body;
    bool has_raw; /* body bytes as given, instead of JSON */
    struct slice raw;
    struct slice variable;
    struct term value;
    uint64_t wait_ms;
    struct field *headers;
    size_t header_count;
    struct field *queries;
    size_t query_count;
    struct expect *expects;
    size_t expect_count;
    struct slice *quotes; /* sentences of the specification above this step */
    size_t quote_count;
};

struct scene {
    struct slice name;
    struct slice heading; /* of the specification */
    size_t line;
    struct slice *users; /* registered before the first step */
    size_t user_count;
    struct step *steps;
    size_t step_count;
};

struct play {
    struct slice file;
    struct slice title;
    struct scene *scenes;
    size_t scene_count;
};

/* Parses a play; everything lives in `arena` and borrows from `text`. ERR_SYNTAX names the line. */
struct err play_parse(struct arena *arena, struct slice file, struct slice text,
                      struct play *play_out) MUST_USE;
