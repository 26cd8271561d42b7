#include "homeserver/client/routes.h"

#include "homeserver/client/routes_priv.h"

static const struct http_route_table *const tables[] = {
    &cs_versions_routes,     &cs_wellknown_routes,    &cs_capabilities_routes,
    &cs_login_routes,        &cs_register_routes,     &cs_account_routes,
    &cs_auth_pages_routes,   &cs_devices_routes,      &cs_profile_routes,
    &cs_rooms_routes,        &cs_membership_routes,   &cs_send_routes,
    &cs_state_routes,        &cs_messages_routes,     &cs_relations_routes,
    &cs_directory_routes,    &cs_sync_routes,         &cs_sliding_routes,
    &cs_filter_routes,       &cs_stream_routes,       &cs_keys_routes,
    &cs_to_device_routes,    &cs_key_backup_routes,   &cs_account_data_routes,
    &cs_receipts_routes,     &cs_presence_routes,     &cs_push_rules_routes,
    &cs_pushers_routes,      &cs_media_routes,        &cs_public_rooms_routes,
    &cs_spaces_routes,       &cs_room_upgrade_routes, &cs_reports_routes,
    &cs_moderation_routes,   &cs_openid_routes,       &cs_voip_routes,
    &cs_mutual_rooms_routes, &cs_timestamp_routes,    &cs_thirdparty_routes,
    &cs_events_routes,       &cs_initial_sync_routes, &cs_delayed_events_routes,
    &cs_dehydrated_routes,   &cs_search_routes,       &cs_user_directory_routes,
    &cs_rendezvous_routes,   &cs_notices_routes,      &cs_thread_subs_routes,
};

size_t cs_routes_collect(struct http_route_table tables_out[CS_TABLES_MAX])
{
    _Static_assert(COUNT_OF(tables) <= CS_TABLES_MAX, "more tables than callers have room for");
    for (size_t i = 0; i < COUNT_OF(tables); i++) {
        tables_out[i] = *tables[i];
    }
    return COUNT_OF(tables);
}
