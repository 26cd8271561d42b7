/* Spec: client-server, "Server Discovery"; the versions that are promised. */
#include "homeserver/client/routes_priv.h"

static const char *const versions[] = {
    "r0.5.0", "r0.6.0", "r0.6.1", "v1.1",  "v1.2",  "v1.3",  "v1.4",  "v1.5",
    "v1.6",   "v1.7",   "v1.8",   "v1.9",  "v1.10", "v1.11", "v1.12", "v1.13",
    "v1.14",  "v1.15",  "v1.16",  "v1.17", "v1.18", "v1.19",
};
/* Names that clients look for although the feature is in the specification by now, and our own. */
static const char *const features[] = {
    "io.myelin.stream.v1", /* spec/stream.md */
    "org.matrix.e2e_cross_signing",
    "org.matrix.msc2285.stable",     /* private read receipts */
    "org.matrix.msc3440.stable",     /* threads */
    "org.matrix.msc3771",            /* threaded receipts */
    "org.matrix.msc3773",            /* counts per thread */
    "org.matrix.msc3827.stable",     /* room types in the directory */
    "org.matrix.msc3882",            /* login/get_token */
    "org.matrix.msc3391",            /* account data is removed */
    "org.matrix.msc3874",            /* filters by kind of relation */
    "org.matrix.msc3890",            /* settings of a device go with it */
    "org.matrix.msc3381.polls",      /* push rules for polls, MSC3930 */
    "org.matrix.msc4155",            /* whose invites are taken */
    "org.matrix.msc4262",            /* profiles in sliding sync */
    "org.matrix.msc4306",            /* spec/thread-subscriptions.md */
    "org.matrix.msc4380",            /* no invites at all */
    "org.matrix.msc4380.stable",     /* the same */
    "org.matrix.msc3881",            /* pushers switched remotely */
    "org.matrix.msc4174",            /* web push */
    "org.matrix.msc3916.stable",     /* media with authentication */
    "org.matrix.msc3814",            /* spec/dehydrated-devices.md */
    "org.matrix.msc4140",            /* spec/delayed-events.md */
    "org.matrix.simplified_msc3575", /* spec/sliding-sync.md */
    "uk.tcpip.msc4133.stable",       /* profile fields */
};

static struct err get_versions(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct json_out out = json_out_to(&reply->body);
    const struct conf *conf = ((struct hs *)app)->conf;
    (void)ctx;
    (void)request;
    json_out_object(&out);
    json_out_key_array(&out, LIT("versions"));
    for (size_t i = 0; i < COUNT_OF(versions); i++) {
        json_out_string(&out, slice_of(versions[i]));
    }
    json_out_array_end(&out);
    json_out_key_object(&out, LIT("unstable_features"));
    for (size_t i = 0; i < COUNT_OF(features); i++) {
        json_out_key_bool(&out, slice_of(features[i]), true);
    }
    /* spec/rendezvous.md */
    json_out_key_bool(&out, LIT("org.matrix.msc4108"), conf->rendezvous_enabled);
    json_out_key_bool(&out, LIT("io.element.msc4388"), conf->rendezvous_enabled);
    json_out_object_end(&out);
    json_out_object_end(&out);
    return OK;
}

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/client/versions", HTTP_AUTH_NONE, HTTP_RATE_READ, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, get_versions, "API Versions", NULL, 0},
};
const struct http_route_table cs_versions_routes = {routes, COUNT_OF(routes)};
