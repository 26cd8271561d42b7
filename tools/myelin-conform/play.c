#include "tools/myelin-conform/play.h"
#include "tools/myelin-conform/deeds.h"
#include "tools/myelin-conform/sugar.h"

#include <ctype.h>

struct parser {
    struct arena *arena;
    struct slice rest;
    size_t line; /* of the statement at hand */
    size_t next_line;
    struct slice heading;
    struct slice *quotes; /* waiting for the next step */
    size_t quote_count;
    struct play *play;
    struct scene *scene;
    struct step *step; /* whose continuation lines may follow */
};

static struct err fault(struct parser *p, const char *what, struct slice at)
{
    at = slice_sub(at, 0, 60);
    return err_publicf(p->arena, ERR_SYNTAX, "line %zu: %s: `%.*s`", p->line, what, (int)at.len,
                       at.ptr);
}

static struct err term_fault(struct parser *p, struct err err)
{
    return err_publicf(p->arena, ERR_SYNTAX, "line %zu: %s", p->line, err.text);
}

static void *append(struct parser *p, void *list, size_t count, size_t size)
{
    return arena_grow(p->arena, list, count * size, (count + 1) * size);
}

/* Brackets that a line leaves open, strings left out. */
static int open_brackets(struct slice line)
{
    int open = 0;
    bool in_string = false;
    for (size_t i = 0; i < line.len; i++) {
        char c = line.ptr[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
            continue;
        }
        in_string = c == '"';
        open += c == '{' || c == '[' || c == '(';
        open -= c == '}' || c == ']' || c == ')';
    }
    return open;
}

static bool is_plain_line(struct slice line)
{
    return slice_has_prefix(line, LIT("raw ")) || slice_has_prefix(line, LIT("header ")) ||
           slice_has_prefix(line, LIT(">")) || slice_has_prefix(line, LIT("#")) ||
           slice_has_prefix(line, LIT("=> raw "));
}

/* The next statement: one line, or several while brackets are open. Empty at the end. */
static struct slice next_statement(struct parser *p)
{
    struct slice line = {0};
    while (p->rest.len > 0 && line.len == 0) {
        p->line = p->next_line++;
        p->rest = slice_cut(p->rest, '\n', &line);
        line = slice_trim(line);
        if (slice_has_prefix(line, LIT("#"))) {
            line.len = 0;
        }
    }
    if (line.len == 0 || is_plain_line(line)) {
        return line;
    }
    int open = open_brackets(line);
    while (open > 0 && p->rest.len > 0) {
        struct slice more;
        p->rest = slice_cut(p->rest, '\n', &more);
        p->next_line++;
        open += open_brackets(more);
        line.len = (size_t)(more.ptr + more.len - line.ptr);
    }
    return slice_trim(line);
}

static struct slice take_word(struct slice *text)
{
    size_t len = 0;
    while (len < text->len && !isspace((unsigned char)text->ptr[len])) {
        len++;
    }
    struct slice word = slice_sub(*text, 0, len);
    *text = slice_trim(slice_from(*text, len));
    return word;
}

static bool take_prefix(struct slice *text, struct slice word)
{
    struct slice rest = *text;
    if (!slice_eq(take_word(&rest), word)) {
        return false;
    }
    *text = rest;
    return true;
}

static struct err whole_term(struct parser *p, struct slice text, struct term *out)
{
    struct slice rest;
    struct err err = term_parse(p->arena, text, out, &rest);
    if (err.code != 0) {
        return term_fault(p, err);
    }
    return rest.len == 0 ? OK : fault(p, "nothing more expected", rest);
}

static struct err quoted_text(struct parser *p, struct slice text, struct slice *out)
{
    struct term term;
    TRY(whole_term(p, text, &term));
    *out = term.text;
    return term.kind == TERM_TEXT ? OK : fault(p, "expected a text in quotes", text);
}

static struct err parse_variable(struct parser *p, struct slice *text, struct slice *name_out)
{
    *name_out = term_var_name(*text, text);
    *text = slice_trim(*text);
    return name_out->len > 0 ? OK : fault(p, "expected a variable", *text);
}

static bool is_name(struct slice word)
{
    bool good = word.len > 0;
    for (size_t i = 0; i < word.len; i++) {
        char c = word.ptr[i];
        good = good &&
               (islower((unsigned char)c) || isdigit((unsigned char)c) || c == '/' || c == '_');
    }
    return good;
}

static bool is_peer(const struct parser *p, struct slice actor)
{
    for (size_t i = 0; i < p->scene->peer_count; i++) {
        if (slice_eq(p->scene->peers[i], actor)) {
            return true;
        }
    }
    return false;
}

static void add_user(struct parser *p, struct slice actor)
{
    struct slice user;
    slice_cut(actor, '/', &user);
    if (slice_eq(user, LIT("nobody")) || is_peer(p, user)) {
        return;
    }
    for (size_t i = 0; i < p->scene->user_count; i++) {
        if (slice_eq(p->scene->users[i], user)) {
            return;
        }
    }
    p->scene->users = append(p, p->scene->users, p->scene->user_count, sizeof user);
    p->scene->users[p->scene->user_count++] = user;
}

/* Registers those of the usual cast whom the text mentions as `$alice`, `$bob.device`, ... */
static void add_cast(struct parser *p, struct slice text)
{
    static const struct slice cast[] = {LIT("alice"), LIT("bob"),  LIT("carol"),
                                        LIT("dave"),  LIT("erin"), LIT("frank")};
    for (size_t at = slice_find(text, '$'); at < text.len; at = slice_find(text, '$')) {
        struct slice after = slice_from(text, at + 1);
        struct slice name = term_var_name(slice_from(text, at), &text);
        struct slice user;
        slice_cut(name, '.', &user);
        slice_cut(user, '/', &user);
        for (size_t i = 0; i < COUNT_OF(cast); i++) {
            if (slice_eq(user, cast[i])) {
                add_user(p, user);
            }
        }
        text = name.len > 0 ? text : after;
    }
}

/* One step of a path such as rooms.join.$room.timeline or "m.tag".0 */
static struct err parse_path_part(struct parser *p, struct slice *text, struct term *out)
{
    if (text->len > 0 && (text->ptr[0] == '"' || text->ptr[0] == '$')) {
        struct err err = term_parse(p->arena, *text, out, text);
        return err.code == 0 ? OK : term_fault(p, err);
    }
    size_t len = 0;
    while (len < text->len && (isalnum((unsigned char)text->ptr[len]) || text->ptr[len] == '_' ||
                               text->ptr[len] == '-')) {
        len++;
    }
    *out = (struct term){.kind = TERM_TEXT, .text = slice_sub(*text, 0, len)};
    *text = slice_from(*text, len);
    return len > 0 ? OK : fault(p, "expected a member name", *text);
}

/* Whether a path stands before the pattern: a name, a string or a variable with `.` or `:` behind.
 */
static bool begins_with_path(struct slice text)
{
    size_t len = 0;
    bool in_string = false;
    for (; len < text.len; len++) {
        char c = text.ptr[len];
        bool is_name = isalnum((unsigned char)c) || c == '_' || c == '-' || c == '$';
        in_string = in_string != (c == '"');
        if (!in_string && c != '"' && !is_name) {
            break;
        }
    }
    return len > 0 && len < text.len && (text.ptr[len] == '.' || text.ptr[len] == ':');
}

static struct err parse_body_expect(struct parser *p, struct slice text, struct expect *expect)
{
    expect->kind = EXPECT_BODY;
    bool has_path = begins_with_path(text);
    while (has_path) {
        expect->path = append(p, expect->path, expect->path_count, sizeof(struct term));
        TRY(parse_path_part(p, &text, &expect->path[expect->path_count++]));
        if (text.len == 0 || (text.ptr[0] != '.' && text.ptr[0] != ':')) {
            return fault(p, "expected `.` or `:` in the path", text);
        }
        has_path = text.ptr[0] == '.';
        text = slice_from(text, 1);
    }
    return whole_term(p, text, &expect->pattern);
}

static struct expect *add_expect(struct parser *p, struct slice source)
{
    struct step *step = p->step;
    step->expects = append(p, step->expects, step->expect_count, sizeof(struct expect));
    struct expect *expect = &step->expects[step->expect_count++];
    *expect = (struct expect){.source = source};
    return expect;
}

static struct err parse_status_expect(struct parser *p, struct slice text, struct slice source)
{
    struct expect *expect = add_expect(p, source);
    expect->kind = EXPECT_STATUS;
    expect->text = take_word(&text);
    if (slice_has_prefix(text, LIT("M_"))) {
        expect->errcodes = take_word(&text);
    }
    if (text.len == 0) {
        return OK;
    }
    struct expect *body = add_expect(p, source);
    body->kind = EXPECT_BODY;
    return whole_term(p, text, &body->pattern);
}

/* Bytes written with \xNN, \n and \\ escapes. */
static struct slice unescape(struct parser *p, struct slice text)
{
    struct buf buf;
    buf_init_arena(&buf, p->arena, 1 << 20);
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        bool is_hex = c == '\\' && i + 3 < text.len && text.ptr[i + 1] == 'x' &&
                      isxdigit((unsigned char)text.ptr[i + 2]) &&
                      isxdigit((unsigned char)text.ptr[i + 3]);
        if (is_hex) {
            int high = text.ptr[i + 2] | 0x20;
            int low = text.ptr[i + 3] | 0x20;
            high = high > '9' ? high - 'a' + 10 : high - '0';
            low = low > '9' ? low - 'a' + 10 : low - '0';
            c = (char)(high * 16 + low);
            i += 3;
        }
        buf_add_byte(&buf, c);
    }
    return buf_slice(&buf);
}

static struct err parse_expect(struct parser *p, struct slice text)
{
    struct slice source = text;
    if (text.len > 0 && isdigit((unsigned char)text.ptr[0])) {
        return parse_status_expect(p, text, source);
    }
    if (take_prefix(&text, LIT("header"))) {
        struct expect *expect = add_expect(p, source);
        expect->kind = EXPECT_HEADER;
        expect->text = take_word(&text);
        return whole_term(p, text, &expect->pattern);
    }
    if (take_prefix(&text, LIT("raw"))) {
        struct expect *expect = add_expect(p, source);
        expect->kind = EXPECT_RAW;
        expect->text = unescape(p, text);
        return OK;
    }
    return parse_body_expect(p, text, add_expect(p, source));
}

static struct err parse_header(struct parser *p, struct slice text)
{
    struct field field;
    field.value = slice_trim(slice_cut(text, ':', &field.name));
    p->step->headers = append(p, p->step->headers, p->step->header_count, sizeof(struct field));
    p->step->headers[p->step->header_count++] = field;
    return field.value.len > 0 ? OK : fault(p, "expected `header Name: value`", text);
}

static struct err parse_query(struct parser *p, struct slice text)
{
    struct field field = {.name = take_word(&text)};
    field.value = text;
    p->step->queries = append(p, p->step->queries, p->step->query_count, sizeof(struct field));
    p->step->queries[p->step->query_count++] = field;
    return field.name.len > 0 ? OK : fault(p, "expected `query name value`", text);
}

static struct err parse_raw(struct parser *p, struct slice text)
{
    p->step->has_raw = true;
    p->step->raw = unescape(p, text);
    return OK;
}

static struct err parse_sign(struct parser *p, struct slice text)
{
    p->step->has_sign = true;
    return whole_term(p, text, &p->step->sign);
}

struct continuation {
    struct slice word;
    struct err (*parse)(struct parser *p, struct slice text);
};

static const struct continuation continuations[] = {
    {LIT("=>"), parse_expect}, {LIT("header"), parse_header}, {LIT("query"), parse_query},
    {LIT("raw"), parse_raw},   {LIT("sign"), parse_sign},
};

/* A line that belongs to the step above; `mine_out` false when it is a statement of its own. */
static struct err parse_continuation(struct parser *p, struct slice line, bool *mine_out)
{
    struct slice text = line;
    *mine_out = true;
    for (size_t i = 0; i < COUNT_OF(continuations); i++) {
        if (take_prefix(&text, continuations[i].word)) {
            return p->step ? continuations[i].parse(p, text)
                           : fault(p, "no step above that this belongs to", line);
        }
    }
    *mine_out = false;
    return OK;
}

static struct err parse_sync(struct parser *p, struct slice text, struct step *step)
{
    step->kind = STEP_SYNC;
    if (text.len == 0) {
        return OK;
    }
    if (take_prefix(&text, LIT("afresh"))) {
        step->from = SYNC_FROM_START;
    } else if (take_prefix(&text, LIT("again"))) {
        step->from = SYNC_FROM_SAME;
    } else if (take_prefix(&text, LIT("since"))) {
        step->from = SYNC_FROM_TOKEN;
        return whole_term(p, text, &step->value);
    }
    return text.len == 0 ? OK : fault(p, "expected afresh, again or since $token", text);
}

static bool is_method(struct slice word)
{
    static const struct slice methods[] = {LIT("GET"),    LIT("PUT"),     LIT("POST"),
                                           LIT("DELETE"), LIT("OPTIONS"), LIT("PATCH")};
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        if (slice_eq(word, methods[i])) {
            return true;
        }
    }
    return false;
}

static struct err parse_request(struct parser *p, struct slice text, struct step *step)
{
    step->kind = STEP_ASK;
    step->method = take_word(&text);
    step->path = take_word(&text);
    if (step->path.len == 0 || step->path.ptr[0] != '/') {
        return fault(p, "expected a path", step->path);
    }
    if (text.len > 0) {
        step->has_body = true;
        return whole_term(p, text, &step->body);
    }
    return OK;
}

/* What a played server does by itself; `found_out` false when the words are no deed. */
static struct err parse_deed(struct parser *p, struct slice text, struct step *step,
                             bool *found_out)
{
    struct deed_hit hit = deeds_find(text);
    *found_out = hit.row != NULL;
    if (!hit.row) {
        return OK;
    }
    step->kind = STEP_DEED;
    step->deed = hit.row->deed;
    for (size_t i = 0; hit.row->types[i]; i++) {
        struct slice arg = hit.args[i];
        step->args[i].text = arg;
        if (hit.row->types[i] == 't') {
            TRY(whole_term(p, arg, &step->args[i].term));
        } else if (hit.row->types[i] == 'v') {
            TRY(parse_variable(p, &arg, &step->args[i].text));
        }
    }
    return OK;
}

static struct err parse_sugar(struct parser *p, struct slice text, struct step *step)
{
    struct sugar_hit hit =
        step->is_peer ? sugar_find_peer(p->arena, step->actor, text) : sugar_find(p->arena, text);
    if (!hit.row) {
        return fault(p, "no such step", text);
    }
    step->kind = STEP_ASK;
    step->method = slice_of(hit.row->method);
    step->path = hit.path;
    step->has_body = true;
    if (hit.user.len > 0) {
        add_user(p, hit.user);
    }
    TRY(whole_term(p, hit.body, &step->body));
    step->value.kind = TERM_ANY;
    return hit.expect.len > 0 ? whole_term(p, hit.expect, &step->value) : OK;
}

/* "alice GET /path", "until alice syncs", "bob joins $room", ... */
static struct err parse_actor_step(struct parser *p, struct slice text, struct step *step)
{
    if (take_prefix(&text, LIT("until"))) {
        step->mode = STEP_UNTIL;
    }
    step->actor = take_word(&text);
    if (!is_name(step->actor)) {
        return fault(p, "expected the name of an actor", step->actor);
    }
    if (take_prefix(&text, LIT("never"))) {
        step->mode = STEP_NEVER;
    }
    if (take_prefix(&text, LIT("becomes"))) {
        step->kind = STEP_BECOMES;
        return parse_variable(p, &text, &step->variable);
    }
    add_user(p, step->actor);
    if (take_prefix(&text, LIT("syncs"))) {
        return parse_sync(p, text, step);
    }
    if (slice_eq(text, LIT("logs in"))) {
        step->kind = STEP_LOGIN;
        return OK;
    }
    struct slice rest = text;
    bool is_deed = false;
    step->is_peer = is_peer(p, step->actor);
    if (is_method(take_word(&rest))) {
        return parse_request(p, text, step);
    }
    if (step->is_peer) {
        TRY(parse_deed(p, text, step, &is_deed));
    }
    return is_deed ? OK : parse_sugar(p, text, step);
}

static struct err parse_let(struct parser *p, struct slice text, struct step *step)
{
    TRY(parse_variable(p, &text, &step->variable));
    if (step->kind == STEP_KEY || step->kind == STEP_RANDOM) {
        return text.len == 0 ? OK : fault(p, "nothing more expected", text);
    }
    return whole_term(p, text, &step->value);
}

static struct err parse_step(struct parser *p, struct slice line)
{
    if (!p->scene) {
        return fault(p, "expected `scene \"...\"` before the first step", line);
    }
    struct step step = {
        .line = p->line, .source = line, .quotes = p->quotes, .quote_count = p->quote_count};
    p->quotes = NULL;
    p->quote_count = 0;
    struct slice text = line;
    struct err err;
    if (take_prefix(&text, LIT("wait"))) {
        step.kind = STEP_WAIT;
        struct slice number = take_word(&text);
        err = slice_parse_u64(number, &step.wait_ms) && slice_eq(text, LIT("ms"))
                  ? OK
                  : fault(p, "expected `wait 50 ms`", line);
    } else if (take_prefix(&text, LIT("let")) || take_prefix(&text, LIT("key")) ||
               take_prefix(&text, LIT("random")) || take_prefix(&text, LIT("check"))) {
        char first = line.ptr[0];
        step.kind = first == 'l'   ? STEP_LET
                    : first == 'k' ? STEP_KEY
                    : first == 'r' ? STEP_RANDOM
                                   : STEP_CHECK;
        err = parse_let(p, text, &step);
    } else {
        err = parse_actor_step(p, text, &step);
    }
    TRY(err);
    struct scene *scene = p->scene;
    scene->steps = append(p, scene->steps, scene->step_count, sizeof step);
    scene->steps[scene->step_count++] = step;
    p->step = &scene->steps[scene->step_count - 1];
    return OK;
}

static struct err end_scene(struct parser *p)
{
    if (!p->scene) {
        return OK;
    }
    size_t quotes = 0;
    for (size_t i = 0; i < p->scene->step_count; i++) {
        quotes += p->scene->steps[i].quote_count;
    }
    if (quotes == 0) {
        p->line = p->scene->line;
        return fault(p, "a scene quotes the sentence that it checks (`> ...`)", p->scene->name);
    }
    return OK;
}

static struct err parse_scene(struct parser *p, struct slice text)
{
    TRY(end_scene(p));
    struct play *play = p->play;
    play->scenes = append(p, play->scenes, play->scene_count, sizeof(struct scene));
    p->scene = &play->scenes[play->scene_count++];
    *p->scene = (struct scene){.heading = p->heading, .line = p->line};
    p->step = NULL;
    return quoted_text(p, text, &p->scene->name);
}

static struct err parse_users(struct parser *p, struct slice text)
{
    while (p->scene && text.len > 0) {
        struct slice name = take_word(&text);
        if (!is_name(name)) {
            return fault(p, "expected names of users", name);
        }
        add_user(p, name);
    }
    return p->scene ? OK : fault(p, "users belong to a scene", text);
}

static struct err parse_servers(struct parser *p, struct slice text)
{
    while (p->scene && text.len > 0) {
        struct slice name = take_word(&text);
        if (!is_name(name)) {
            return fault(p, "expected names of servers", name);
        }
        p->scene->peers = append(p, p->scene->peers, p->scene->peer_count, sizeof name);
        p->scene->peers[p->scene->peer_count++] = name;
    }
    return p->scene ? OK : fault(p, "servers belong to a scene", text);
}

static struct err parse_statement(struct parser *p, struct slice line)
{
    struct slice text = line;
    if (p->scene && !slice_has_prefix(line, LIT(">"))) {
        add_cast(p, line);
    }
    if (slice_has_prefix(line, LIT(">"))) {
        p->quotes = append(p, p->quotes, p->quote_count, sizeof(struct slice));
        p->quotes[p->quote_count++] = slice_trim(slice_from(line, 1));
        return OK;
    }
    if (take_prefix(&text, LIT("play"))) {
        return quoted_text(p, text, &p->play->title);
    }
    if (take_prefix(&text, LIT("spec"))) {
        return quoted_text(p, text, &p->heading);
    }
    if (take_prefix(&text, LIT("scene"))) {
        return parse_scene(p, text);
    }
    if (take_prefix(&text, LIT("users"))) {
        return parse_users(p, text);
    }
    if (take_prefix(&text, LIT("servers"))) {
        return parse_servers(p, text);
    }
    bool is_continuation;
    TRY(parse_continuation(p, line, &is_continuation));
    return is_continuation ? OK : parse_step(p, line);
}

struct err play_parse(struct arena *arena, struct slice file, struct slice text,
                      struct play *play_out)
{
    *play_out = (struct play){.file = file};
    struct parser p = {.arena = arena, .rest = text, .next_line = 1, .play = play_out};
    if (!slice_is_utf8(text)) {
        return err_public(ERR_SYNTAX, "a play is UTF-8 text");
    }
    for (struct slice line = next_statement(&p); line.len > 0; line = next_statement(&p)) {
        TRY(parse_statement(&p, line));
    }
    return end_scene(&p);
}
