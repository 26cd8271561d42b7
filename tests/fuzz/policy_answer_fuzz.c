/* What a policy server answers when it is asked to sign a message of this server: what is no
 * signature that holds does not get it sent. The world is made once. */
#include "homeserver/service/sending.h"
#include "tests/support/inbound_world.h"

static struct slice given;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool answers(struct inbound_world *w, struct arena *arena, struct slice path,
                    struct slice *body)
{
    (void)w;
    *body = arena_copy(arena, given);
    return slice_contains(path, LIT("/policy/v1/sign"));
}

static struct inbound_world *new_world(void)
{
    struct inbound_world *w = inbound_new("11");
    size_t policy = inbound_make(w, "m.room.policy", "",
                                 "{\"via\":\"remote:8448\",\"public_keys\":{\"ed25519\":"
                                 "\"6yhHGKhCiXTSEN2ksjV7kX/N6rBQZ3Xb+M7LlC6NS+s\"}}");
    inbound_send(w, &policy, 1);
    w->lie = answers;
    return w;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct inbound_world *w;
    struct hs_sent sent;
    struct json content = json_object();
    w = w ? w : new_world();
    w->asked_count = 0;
    given = (struct slice){(const char *)data, size};
    house_next_job(&w->house);
    w->house.ctx.may_wait = true;
    struct err err = hs_room_get_by_id(&w->house.hs, &w->house.ctx, w->theirs.room_id, &w->room);
    ASSERT(err.code == 0);
    struct send_request request = {
        .actor = &w->alice.actor, .type = LIT("m.room.message"), .content = &content};
    err = hs_send_message(&w->house.hs, &w->house.ctx, w->room, &request, &sent);
    ASSERT(w->asked_count == 1 && err.code != 0);
    ASSERT(err.code == ERR_UNAVAILABLE || err.code >= ERR_MATRIX_FIRST);
    return 0;
}
