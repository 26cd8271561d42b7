/* Servers that this program plays: many names, all with one signing key, which publish that key and
 * take transactions in. Processes of their own answer for them. Half of them can be made to die, a
 * third of those so that their connections are refused, so that nobody answers at their address any
 * more, and so that they hold their connections and never answer. They are named by the addresses
 * 127.1.0.1 and so on, or, as many as there may be, dI.made-up.test, which a DNS server of this
 * program's tells. */
#pragma once
#include "crypto/json_sign.h"

enum { MADE_UP_MAX = 10000, MADE_UP_PORTS = 5 };
enum made_up_naming { MADE_UP_BY_ADDRESS, MADE_UP_BY_NAME };

struct made_up;

struct made_up_config {
    struct slice certificate, key; /* PEM files, for all addresses */
    uint16_t port;                 /* the first of MADE_UP_PORTS; the last is for DNS */
    size_t count;                  /* at most MADE_UP_MAX */
    enum made_up_naming naming;
};

struct err made_up_new(const struct made_up_config *config, struct made_up **made_up_out) MUST_USE;
void made_up_free(struct made_up **made_up);
/* Lives as long as made_up. */
struct slice made_up_name(const struct made_up *made_up, size_t index);
bool made_up_is_mortal(size_t index);
size_t made_up_living(const struct made_up *made_up);
struct json_signer made_up_signer(const struct made_up *made_up, size_t index);
/* The X-Matrix header for a request of this server: `request` has method, uri, destination and
 * perhaps content. */
struct slice made_up_authorization(const struct made_up *made_up, struct arena *arena, size_t index,
                                   const struct json *request);
/* Ends all connections of the living, or of all; they go on at once, the dead too. */
enum made_up_part { MADE_UP_THE_LIVING, MADE_UP_ALL };
struct err made_up_restart(struct made_up *made_up, enum made_up_part part) MUST_USE;
struct err made_up_kill_half(struct made_up *made_up) MUST_USE;
/* From now on the arrivals of transactions with this text are noted. */
void made_up_expect(struct made_up *made_up, struct slice text);
/* How many servers have it. */
size_t made_up_arrived(const struct made_up *made_up);
/* When each got it (monotonic us), in order of arrival; copies up to `max` and returns how many. */
size_t made_up_arrivals(const struct made_up *made_up, int64_t *times_out, size_t max);
/* Transactions taken in so far. */
uint64_t made_up_transactions(const struct made_up *made_up);

/* The life of one of the processes, which made_up_new starts with the arguments MADE_UP_ARGUMENT
 * and what only it knows; its exit code. */
#define MADE_UP_ARGUMENT "--play-made-up"
int made_up_main(int argc, char **argv);
