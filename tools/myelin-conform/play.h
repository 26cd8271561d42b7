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
    STEP_DEED, /* something that a played server does by itself: `deed` */
};

/* What a played server can do besides asking. deeds.h lists the words. */
enum deed {
    DEED_CREATE,     /* a room of its own: variable, options */
    DEED_JOIN,       /* make and send: room, user */
    DEED_LEAVE,      /* room, user */
    DEED_KNOCK,      /* room, user */
    DEED_INVITE,     /* user, room, sender */
    DEED_KNOW,       /* takes a room for known: room, version */
    DEED_MAKE,       /* an event: variable, draft, room */
    DEED_ASIDE,      /* an event that later ones do not follow */
    DEED_CHANGED,    /* the same with members changed after signing: ..., changes */
    DEED_FORGED,     /* the same signed by another played server: ..., its name */
    DEED_SEND,       /* makes and transmits: draft, room, variable for the event */
    DEED_SAY,        /* the same with a message: text, room, sender, variable */
    DEED_ANSWER,     /* answers so from now on: method, path glob, status, body */
    DEED_RECEIVE,    /* was asked: method, path glob */
    DEED_VERIFY,     /* the target's signature of an object: variable */
    DEED_VERIFY_PDU, /* hash and signatures of an event: variable, room */
};
enum { DEED_ARGS_MAX = 4 };

/* `text` is a variable's name or a word as written; otherwise the argument is `term`. */
struct deed_arg {
    struct slice text;
    struct term term;
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
    bool is_peer; /* the actor is a played server */
    enum deed deed;
    struct deed_arg args[DEED_ARGS_MAX];
    bool has_sign; /* changes of the X-Matrix header */
    struct term sign;
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
    struct slice *peers; /* played servers, started before that */
    size_t peer_count;
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
