/* What signed-in clients say in bodies, paths and queries of routes without a target of their own.
 * The first byte chooses the table. */
#include "tests/support/asking.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct asking asking;
    static const struct http_route_table *const tables[] = {
        &cs_send_routes,         &cs_state_routes,        &cs_messages_routes,
        &cs_relations_routes,    &cs_account_data_routes, &cs_filter_routes,
        &cs_push_rules_routes,   &cs_pushers_routes,      &cs_keys_routes,
        &cs_key_backup_routes,   &cs_to_device_routes,    &cs_receipts_routes,
        &cs_presence_routes,     &cs_profile_routes,      &cs_devices_routes,
        &cs_membership_routes,   &cs_rooms_routes,        &cs_directory_routes,
        &cs_spaces_routes,       &cs_reports_routes,      &cs_timestamp_routes,
        &cs_room_upgrade_routes, &cs_mutual_rooms_routes, &cs_moderation_routes,
    };
    if (size > 0) {
        size_t table = (size_t)(unsigned char)(data[0] - 'a') % (sizeof tables / sizeof *tables);
        asking_run(&asking, tables[table], (struct slice){(const char *)data + 1, size - 1});
    }
    return 0;
}
