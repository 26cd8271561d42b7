/* Rooms that were joined with part of their state: the rest is fetched here, one room at a time, by
 * a thread of its own, and again after a restart until it is whole. Spec: server-server,
 * "Joining Rooms" (omit_members), GET /state_ids, GET /state.
 * Lock: fed_partial.mutex, a leaf. */
#pragma once
#include "federation/fed.h"

struct fed_partial;

struct fed_partial *fed_partial_new(struct fed *fed);
/* Takes up the rooms that are partial in the store. */
struct err fed_partial_start(struct fed_partial *partial) MUST_USE;
void fed_partial_stop(struct fed_partial *partial);
void fed_partial_free(struct fed_partial **partial);
/* A room was joined through `server` and is partial. */
void fed_partial_begin(struct fed *fed, uint64_t room, struct slice server);
/* Of hs->remote. */
struct err fed_partial_await(struct hs *hs, struct ctx *ctx, struct room *room) MUST_USE;
