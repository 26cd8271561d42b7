#include "crypto/password.h"

#include "homeserver/base/mem.h"
#include "homeserver/base/workers.h"

#include <pthread.h>
#include <sodium/core.h>
#include <sodium/crypto_pwhash.h>
#include <string.h>

struct cost {
    unsigned long long ops;
    size_t memory_bytes;
};
static const struct cost costs[] = {
    [PASSWORD_COST_LOWEST] = {1, 64 * 1024},
    [PASSWORD_COST_INTERACTIVE] = {crypto_pwhash_OPSLIMIT_INTERACTIVE,
                                   crypto_pwhash_MEMLIMIT_INTERACTIVE},
    [PASSWORD_COST_MODERATE] = {crypto_pwhash_OPSLIMIT_MODERATE, crypto_pwhash_MEMLIMIT_MODERATE},
};

struct password_gate {
    pthread_mutex_t mutex; /* the counts; never held while hashing */
    pthread_cond_t free_place;
    size_t running, running_max;
    size_t waiting, waiting_max;
    struct cost cost;
    char decoy[crypto_pwhash_STRBYTES]; /* checked when there is no hash */
};

/* The worker pauses until it leaves: another one runs meanwhile. */
static struct err enter(struct password_gate *gate)
{
    struct err err = OK;
    workers_pause();
    pthread_mutex_lock(&gate->mutex);
    if (gate->running == gate->running_max && gate->waiting == gate->waiting_max) {
        err = err_make(ERR_UNAVAILABLE, "too many password checks at once");
    } else {
        gate->waiting++;
        while (gate->running == gate->running_max) {
            pthread_cond_wait(&gate->free_place, &gate->mutex);
        }
        gate->waiting--;
        gate->running++;
    }
    pthread_mutex_unlock(&gate->mutex);
    if (err.code != 0) {
        workers_resume();
    }
    return err;
}

static void leave(struct password_gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    gate->running--;
    pthread_cond_signal(&gate->free_place);
    pthread_mutex_unlock(&gate->mutex);
    workers_resume();
}

struct password_gate *password_gate_new(enum password_cost cost, size_t running_max,
                                        size_t waiting_max)
{
    struct password_gate *gate = mem_alloc(sizeof *gate);
    ASSERT(sodium_init() >= 0);
    pthread_mutex_init(&gate->mutex, NULL);
    pthread_cond_init(&gate->free_place, NULL);
    gate->running_max = running_max;
    gate->waiting_max = waiting_max;
    gate->cost = costs[cost];
    ASSERT(crypto_pwhash_str(gate->decoy, "", 0, gate->cost.ops, gate->cost.memory_bytes) == 0);
    return gate;
}

void password_gate_free(struct password_gate **gate)
{
    if (*gate) {
        pthread_cond_destroy(&(*gate)->free_place);
        pthread_mutex_destroy(&(*gate)->mutex);
        mem_free(*gate);
        *gate = NULL;
    }
}

struct err password_hash(struct password_gate *gate, struct arena *arena, struct slice password,
                         struct slice *hash_out)
{
    char *hash = arena_alloc(arena, crypto_pwhash_STRBYTES);
    const char *given = password.len ? password.ptr : "";
    TRY(enter(gate));
    int failed =
        crypto_pwhash_str(hash, given, password.len, gate->cost.ops, gate->cost.memory_bytes);
    leave(gate);
    *hash_out = slice_of(hash);
    return failed ? err_make(ERR_UNAVAILABLE, "no memory for a password hash") : OK;
}

struct err password_check(struct password_gate *gate, struct slice password, struct slice hash,
                          bool *right_out)
{
    char stored[crypto_pwhash_STRBYTES] = {0};
    bool known = hash.len > 0 && hash.len < sizeof stored;
    memcpy(stored, known ? hash.ptr : gate->decoy, known ? hash.len : sizeof stored);
    TRY(enter(gate));
    const char *given = password.len ? password.ptr : "";
    int wrong = crypto_pwhash_str_verify(stored, given, password.len);
    leave(gate);
    *right_out = known && wrong == 0;
    return OK;
}

bool password_is_stale(const struct password_gate *gate, struct slice hash)
{
    char stored[crypto_pwhash_STRBYTES] = {0};
    if (hash.len >= sizeof stored) {
        return true;
    }
    memcpy(stored, hash.ptr, hash.len);
    return crypto_pwhash_str_needs_rehash(stored, gate->cost.ops, gate->cost.memory_bytes) != 0;
}
