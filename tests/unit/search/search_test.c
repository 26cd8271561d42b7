#include "homeserver/search/search.h"

#include "homeserver/service/profiles.h"
#include "homeserver/service/purge.h"
#include "homeserver/service/users.h"
#include "tests/support/search_house.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static struct search_house h;
static struct guest ann, ben;
static struct room *room;

static int open_house(void **state)
{
    (void)state;
    search_house_open(&h, NULL);
    ann = house_guest(&h.house, "ann");
    ben = house_guest(&h.house, "ben");
    room = house_room(&h.house, &ann, "{\"preset\":\"public_chat\"}");
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    search_house_close(&h);
    return 0;
}

static void say(const char *text)
{
    house_say(&h.house, room, &ann, text);
}

/* --- texts --- */

static void words_of_messages_names_and_topics_are_found(void **state)
{
    (void)state;
    say("Grüße aus Köln");
    house_state(&h.house, room, &ann, "m.room.name", "{\"name\":\"Kölner Runde\"}");
    house_state(&h.house, room, &ann, "m.room.topic", "{\"topic\":\"Feste in Köln\"}");
    assert_int_equal(search_house_count(&h, room, "koln"), 3);
    assert_int_equal(search_house_count(&h, room, "KÖLN"), 3);
    assert_int_equal(search_house_count(&h, room, "runde"), 1);
    assert_int_equal(search_house_count(&h, room, "\"gruß aus\""), 0);
    assert_int_equal(search_house_count(&h, room, "grüße aus"), 1);
    assert_int_equal(search_house_count(&h, room, "nichts"), 0);
}

static void words_begin_with_what_was_asked_for(void **state)
{
    (void)state;
    say("messages of the day");
    say("a message");
    say("me");
    assert_int_equal(search_house_count(&h, room, "message"), 2);
    assert_int_equal(search_house_count(&h, room, "me"), 1); /* two letters: the word alone */
    assert_int_equal(search_house_count(&h, room, "\"message\""), 1);
}

static void phrases_and_exclusions(void **state)
{
    (void)state;
    say("red green blue");
    say("green red blue");
    assert_int_equal(search_house_count(&h, room, "\"red green\""), 1);
    assert_int_equal(search_house_count(&h, room, "red green"), 2);
    assert_int_equal(search_house_count(&h, room, "blue -\"red green\""), 1);
    assert_int_equal(search_house_count(&h, room, "blue -red"), 0);
    assert_int_equal(search_house_count(&h, room, "-red"), 0);
}

static void scripts_without_spaces_are_found_within(void **state)
{
    (void)state;
    say("今日は良い天気ですね");
    say("party 🎉🎉 tonight");
    assert_int_equal(search_house_count(&h, room, "天気"), 1);
    assert_int_equal(search_house_count(&h, room, "気天"), 0);
    assert_int_equal(search_house_count(&h, room, "🎉"), 1);
}

static void nothing_in_a_term_is_an_operator(void **state)
{
    static const char *const terms[] = {"\"",
                                        "text:fox",
                                        "fox OR wolf",
                                        "NEAR(fox wolf)",
                                        "fox*",
                                        "^fox",
                                        "(",
                                        "fox AND",
                                        "'; DROP TABLE docs; --",
                                        "{text} : fox",
                                        "fox + wolf",
                                        "\"fox\" \"",
                                        "*",
                                        "-"};
    (void)state;
    say("fox");
    for (size_t i = 0; i < COUNT_OF(terms); i++) {
        assert_true(search_house_count(&h, room, terms[i]) <= 1);
    }
    assert_int_equal(search_house_count(&h, room, "fox OR wolf"), 0); /* OR is a word */
}

static struct slice edit(struct slice target, const char *text)
{
    char content[512];
    snprintf(
        content, sizeof content,
        "{\"msgtype\":\"m.text\",\"body\":\"* %s\",\"m.new_content\":{\"msgtype\":\"m.text\","
        "\"body\":\"%s\"},\"m.relates_to\":{\"rel_type\":\"m.replace\",\"event_id\":\"%.*s\"}}",
        text, text, (int)target.len, target.ptr);
    h.house.wall_ms++;
    return house_send(&h.house, room, &ann, "m.room.message", content);
}

static void redact(struct slice event_id)
{
    char content[256];
    snprintf(content, sizeof content, "{\"redacts\":\"%.*s\"}", (int)event_id.len, event_id.ptr);
    house_send(&h.house, room, &ann, "m.room.redaction", content);
}

static void edits_replace_the_text_until_they_are_redacted(void **state)
{
    (void)state;
    struct slice said = house_say(&h.house, room, &ann, "first");
    struct slice second = edit(said, "second");
    assert_int_equal(search_house_count(&h, room, "second"), 1);
    assert_int_equal(search_house_count(&h, room, "first"), 0);
    struct slice third = edit(said, "third");
    assert_int_equal(search_house_count(&h, room, "third"), 1);
    assert_int_equal(search_house_count(&h, room, "second"), 0);
    redact(third);
    assert_int_equal(search_house_count(&h, room, "second"), 1);
    redact(second);
    assert_int_equal(search_house_count(&h, room, "first"), 1);
    redact(said);
    assert_int_equal(search_house_count(&h, room, "first"), 0);
}

static void an_encrypted_room_is_left_out(void **state)
{
    (void)state;
    say("open words");
    assert_int_equal(search_house_count(&h, room, "words"), 1);
    house_state(&h.house, room, &ann, "m.room.encryption",
                "{\"algorithm\":\"m.megolm.v1.aes-sha2\"}");
    say("more words");
    assert_int_equal(search_house_count(&h, room, "words"), 0);
}

static void a_purged_room_is_out(void **state)
{
    struct purge_result result;
    struct search_progress progress;
    (void)state;
    say("to be purged");
    assert_int_equal(search_house_count(&h, room, "purged"), 1);
    assert_int_equal(
        hs_room_purge(&h.house.hs, &h.house.ctx, hs_room_info(room).number, &result).code, 0);
    assert_int_equal(search_house_count(&h, room, "purged"), 0);
    search_get_progress(h.house.hs.search, &progress);
    assert_false(progress.is_walking);
}

static void results_come_in_the_order_that_was_asked_for(void **state)
{
    struct search_db *db = NULL;
    struct search_hits hits;
    struct search_room where = {hs_room_info(room).number, SEARCH_UPTO_ALL};
    struct search_query query = {
        .term = LIT("yak"), .keys = SEARCH_DOC_KEYS, .rooms = &where, .room_count = 1};
    int64_t score = 0;
    (void)state;
    say("yak yak yak");
    h.house.wall_ms++;
    say("a yak among many other words that have nothing to do with it at all");
    h.house.wall_ms++;
    say("a yak");
    search_house_settle(&h);
    assert_int_equal(search_reader(h.house.hs.search, &h.house.ctx, &db).code, 0);
    assert_int_equal(search_find(db, &h.house.ctx, &query, &hits).code, 0);
    assert_int_equal(hits.count, 3);
    assert_true(hits.items[0].score > hits.items[1].score);
    assert_true(hits.items[0].id < hits.items[1].id);
    assert_true(hits.items[1].id > hits.items[2].id);
    assert_int_equal(search_score(db, &hits, hits.items[0].id, &score).code, 0);
    assert_int_equal(score, hits.items[0].score);
    query.order = SEARCH_BY_TIME;
    query.after = (struct search_place){hits.items[1].id, h.house.wall_ms};
    assert_int_equal(search_find(db, &h.house.ctx, &query, &hits).code, 0);
    assert_int_equal(hits.count, 2);
    assert_true(hits.items[0].ts_ms > hits.items[1].ts_ms);
}

/* --- the file --- */

static void the_index_goes_on_where_it_was(void **state)
{
    (void)state;
    say("before the stop");
    search_house_stop(&h);
    search_house_start(&h);
    say("after the start");
    assert_int_equal(search_house_count(&h, room, "before"), 1);
    assert_int_equal(search_house_count(&h, room, "after"), 1);
}

static void what_came_while_it_was_away_is_taken_in(void **state)
{
    (void)state;
    say("one marmot");
    search_house_stop(&h);
    say("two marmots");
    house_settle(&h.house);
    search_remove(slice_of(h.folder)); /* an older file or none: everything again */
    search_house_start(&h);
    assert_int_equal(search_house_count(&h, room, "marmot"), 2);
    assert_non_null(search_house_person(&h, &ben, "ben"));
}

static void a_damaged_file_is_set_aside(void **state)
{
    char damaged[128];
    (void)state;
    say("a survivor");
    search_settle(h.house.hs.search);
    search_house_stop(&h);
    FILE *file = fopen(h.path, "w");
    fputs("this is no database, whatever its name says, and long enough to be looked at", file);
    fclose(file);
    search_house_start(&h);
    assert_int_equal(search_house_count(&h, room, "survivor"), 1);
    snprintf(damaged, sizeof damaged, "%s.damaged", h.path);
    assert_int_equal(access(damaged, F_OK), 0);
}

static void pages_that_are_damaged_are_met_while_it_runs(void **state)
{
    char zeros[4096] = {0};
    (void)state;
    for (int i = 0; i < 200; i++) {
        say("many words to fill some pages of the file with, number after number");
    }
    search_settle(h.house.hs.search);
    search_house_stop(&h);
    FILE *file = fopen(h.path, "r+");
    fseek(file, 0, SEEK_END);
    long end = ftell(file);
    for (long at = 4096 * 12; at < end; at += 4096) {
        fseek(file, at, SEEK_SET);
        memset(zeros, 0x5a, sizeof zeros);
        fwrite(zeros, 1, sizeof zeros, file);
    }
    fclose(file);
    search_house_start(&h);
    say("one more");
    say("and another");
    search_house_settle(&h);
    search_rebuild(h.house.hs.search); /* an operator's answer; a full look finds all damage */
    assert_int_equal(search_house_count(&h, room, "pages"), 200);
    assert_int_equal(search_house_count(&h, room, "another"), 1);
}

static void a_rebuild_gives_the_same(void **state)
{
    (void)state;
    struct slice said = house_say(&h.house, room, &ann, "weasel");
    edit(said, "ermine");
    redact(house_say(&h.house, room, &ann, "polecat"));
    search_house_settle(&h);
    search_rebuild(h.house.hs.search);
    assert_int_equal(search_house_count(&h, room, "ermine"), 1);
    assert_int_equal(search_house_count(&h, room, "weasel"), 0);
    assert_int_equal(search_house_count(&h, room, "polecat"), 0);
}

static void after_a_crash_people_are_looked_through_again(void **state)
{
    struct hs *hs = &h.house.hs;
    struct json name = json_string(LIT("Benedict"));
    (void)state;
    assert_non_null(search_house_person(&h, &ben, "ben"));
    say("said before the crash");
    assert_int_equal(search_house_count(&h, room, "crash"), 1);
    search_house_crash(&h);
    assert_int_equal(
        hs_profile_set(hs, &h.house.ctx, ben.actor.user, LIT("displayname"), &name).code, 0);
    say("said after the crash");
    search_house_start(&h);
    assert_string_equal(search_house_person(&h, &ben, "benedict"), "Benedict");
    assert_int_equal(search_house_count(&h, room, "crash"), 2);
}

static void without_search_no_text_is_kept(void **state)
{
    (void)state;
    say("kept for now");
    assert_int_equal(search_house_count(&h, room, "kept"), 1);
    search_house_stop(&h);
    h.house.conf.search_enabled = false;
    search_house_start(&h);
    say("not kept");
    assert_int_equal(search_house_count(&h, room, "kept"), 0);
    assert_non_null(search_house_person(&h, &ann, "ann"));
    search_house_stop(&h);
    h.house.conf.search_enabled = true;
    search_house_start(&h);
    assert_int_equal(search_house_count(&h, room, "kept"), 2);
}

/* --- people --- */

static void accounts_are_found_by_id_and_name(void **state)
{
    struct json name = json_string(LIT("Benjamin Bär"));
    (void)state;
    assert_string_equal(search_house_person(&h, &ben, "be"), "");
    assert_string_equal(search_house_person(&h, &ben, "@ben:test"), "");
    assert_null(search_house_person(&h, &ben, "enb"));
    assert_int_equal(
        hs_profile_set(&h.house.hs, &h.house.ctx, ben.actor.user, LIT("displayname"), &name).code,
        0);
    assert_string_equal(search_house_person(&h, &ben, "bar benj"), "Benjamin Bär");
    assert_string_equal(search_house_person(&h, &ben, "ben test"), "Benjamin Bär");
}

static void an_account_that_ends_is_out(void **state)
{
    (void)state;
    assert_non_null(search_house_person(&h, &ben, "ben"));
    assert_int_equal(
        hs_account_deactivate(&h.house.hs, &h.house.ctx, ben.actor.user, ACCOUNT_KEEP_CONTENT).code,
        0);
    assert_null(search_house_person(&h, &ben, "ben"));
}

static size_t open_rooms(void)
{
    struct search_db *db = NULL;
    uint64_t *rooms = NULL;
    size_t count = 0;
    search_house_settle(&h);
    assert_int_equal(search_reader(h.house.hs.search, &h.house.ctx, &db).code, 0);
    assert_int_equal(search_rooms_open(db, &h.house.ctx, &rooms, &count).code, 0);
    house_next_job(&h.house);
    return count;
}

static void rooms_are_open_while_their_rules_say_so(void **state)
{
    (void)state;
    assert_int_equal(open_rooms(), 1);
    house_state(&h.house, room, &ann, "m.room.join_rules", "{\"join_rule\":\"invite\"}");
    assert_int_equal(open_rooms(), 0);
    house_state(&h.house, room, &ann, "m.room.history_visibility",
                "{\"history_visibility\":\"world_readable\"}");
    assert_int_equal(open_rooms(), 1);
    house_member(&h.house, room, &ann, &ann, MEMBERSHIP_LEAVE); /* nobody here is in it */
    assert_int_equal(open_rooms(), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_house, close_house)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(words_of_messages_names_and_topics_are_found),
        TEST(words_begin_with_what_was_asked_for),
        TEST(phrases_and_exclusions),
        TEST(scripts_without_spaces_are_found_within),
        TEST(nothing_in_a_term_is_an_operator),
        TEST(edits_replace_the_text_until_they_are_redacted),
        TEST(an_encrypted_room_is_left_out),
        TEST(a_purged_room_is_out),
        TEST(results_come_in_the_order_that_was_asked_for),
        TEST(the_index_goes_on_where_it_was),
        TEST(what_came_while_it_was_away_is_taken_in),
        TEST(a_damaged_file_is_set_aside),
        TEST(pages_that_are_damaged_are_met_while_it_runs),
        TEST(a_rebuild_gives_the_same),
        TEST(after_a_crash_people_are_looked_through_again),
        TEST(without_search_no_text_is_kept),
        TEST(accounts_are_found_by_id_and_name),
        TEST(an_account_that_ends_is_out),
        TEST(rooms_are_open_while_their_rules_say_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
