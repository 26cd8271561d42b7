/* What the services may ask of other servers, by the files that do it. */
#include "federation/remote.h"

#include "federation/backfill.h"
#include "federation/out_media.h"
#include "federation/out_member.h"
#include "federation/out_query.h"
#include "federation/partial.h"
#include "federation/policy.h"

const struct hs_remote fed_remote = {
    .join = fed_join,
    .knock = fed_knock,
    .leave = fed_leave,
    .invite = fed_invite,
    .await_complete = fed_partial_await,
    .alias = fed_alias,
    .public_rooms = fed_public_rooms,
    .timestamp_to_event = fed_timestamp,
    .hierarchy = fed_hierarchy,
    .media = fed_media,
    .policy_sign = fed_policy_sign,
    .backfill = fed_backfill,
};
