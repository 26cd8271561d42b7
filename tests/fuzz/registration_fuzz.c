/* A registration of an application service from any bytes, and what its patterns match. */
#include "homeserver/appservice/registrations.h"
#include "homeserver/base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct appservice_table *table = mem_alloc(sizeof *table);
    struct buf problems;
    struct as_registration_text from = {{(const char *)data, size}, LIT("a.yaml"), LIT("test")};
    table->arena = arena_new();
    table->items = arena_array(table->arena, 1, sizeof *table->items);
    table->count = 1;
    buf_init_arena(&problems, table->arena, 1 << 16);
    struct err err = as_registration_parse(table->arena, &from, &table->items[0], &problems);
    ASSERT((err.code == 0) == (problems.len == 0));
    if (err.code == 0) {
        const struct hs hs = {.server_name = LIT("test")};
        hs_appservice_has_user(&hs, &table->items[0], LIT("@fax_one:test"));
        hs_appservice_has_alias(&hs, &table->items[0], LIT("#fax_hall:test"));
        hs_appservice_has_room(&table->items[0], LIT("!room:test"));
    }
    hs_appservice_table_free(&table);
    return 0;
}
