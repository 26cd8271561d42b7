/* The route tables of the client-server modules, one per file, and what handlers share. A handler
 * gets the struct hs as its `app`. */
#pragma once
#include "homeserver/http/http.h"
#include "homeserver/service/hs.h"

extern const struct http_route_table cs_versions_routes;
extern const struct http_route_table cs_wellknown_routes;
extern const struct http_route_table cs_capabilities_routes;
extern const struct http_route_table cs_login_routes;
extern const struct http_route_table cs_register_routes;
extern const struct http_route_table cs_account_routes;
extern const struct http_route_table cs_auth_pages_routes;
extern const struct http_route_table cs_devices_routes;
extern const struct http_route_table cs_profile_routes;
extern const struct http_route_table cs_rooms_routes;
extern const struct http_route_table cs_membership_routes;
extern const struct http_route_table cs_send_routes;
extern const struct http_route_table cs_state_routes;
extern const struct http_route_table cs_messages_routes;
extern const struct http_route_table cs_relations_routes;
extern const struct http_route_table cs_directory_routes;
extern const struct http_route_table cs_public_rooms_routes;
extern const struct http_route_table cs_spaces_routes;
extern const struct http_route_table cs_room_upgrade_routes;
extern const struct http_route_table cs_reports_routes;
extern const struct http_route_table cs_moderation_routes;
extern const struct http_route_table cs_openid_routes;
extern const struct http_route_table cs_voip_routes;
extern const struct http_route_table cs_mutual_rooms_routes;
extern const struct http_route_table cs_timestamp_routes;
extern const struct http_route_table cs_thirdparty_routes;
extern const struct http_route_table cs_delayed_events_routes;
extern const struct http_route_table cs_dehydrated_routes;
extern const struct http_route_table cs_rendezvous_routes;
extern const struct http_route_table cs_notices_routes;
extern const struct http_route_table cs_thread_subs_routes;
extern const struct http_route_table cs_events_routes;
extern const struct http_route_table cs_initial_sync_routes;
extern const struct http_route_table cs_search_routes;
extern const struct http_route_table cs_user_directory_routes;
extern const struct http_route_table cs_sync_routes;
extern const struct http_route_table cs_sliding_routes;
extern const struct http_route_table cs_stream_routes;
extern const struct http_route_table cs_filter_routes;
extern const struct http_route_table cs_account_data_routes;
extern const struct http_route_table cs_receipts_routes;
extern const struct http_route_table cs_presence_routes;
extern const struct http_route_table cs_push_rules_routes;
extern const struct http_route_table cs_pushers_routes;
extern const struct http_route_table cs_keys_routes;
extern const struct http_route_table cs_key_backup_routes;
extern const struct http_route_table cs_to_device_routes;
extern const struct http_route_table cs_media_routes;
