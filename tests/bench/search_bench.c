/* What the search index costs: bench_search [EVENTS] [USERS]. Rooms of 1,000 events each, texts of
 * words whose frequency falls as in speech; then searches of one room and of all, for words that
 * are rare and common; then a user directory. */
#include "homeserver/search/words.h"
#include "tests/support/search_house.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROOM_EVENTS = 1000, WORDS = 20000, ROUNDS = 20 };

static struct search_house h;
static struct guest ann;
static uint64_t seed = 1;

static double uniform(void)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(seed >> 11) / 9007199254740992.0;
}

/* The k-th word is said about 1/k as often as the first. */
static void add_word(char *text, size_t size)
{
    int k = (int)exp(uniform() * log(WORDS));
    size_t len = strlen(text);
    snprintf(text + len, size - len, "%sw%dx", len ? " " : "", k);
}

/* Of this thread: what others do on the machine does not count. */
static int64_t cpu_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void print_time(const char *what, int64_t us, int rounds, size_t results)
{
    printf("%-44s %8.2f ms CPU (%zu results)\n", what, (double)us / 1000 / rounds, results);
}

static void fill_rooms(int events, struct search_room *rooms, size_t *room_count)
{
    struct room *room = NULL;
    for (int i = 0; i < events; i++) {
        char text[512] = "";
        if (i % ROOM_EVENTS == 0) {
            house_next_job(&h.house);
            room = house_room(&h.house, &ann, "{}");
            rooms[(*room_count)++] =
                (struct search_room){hs_room_info(room).number, SEARCH_UPTO_ALL};
        }
        for (int words = 3 + (int)(uniform() * 15); words > 0; words--) {
            add_word(text, sizeof text);
        }
        house_say(&h.house, room, &ann, text);
    }
    house_settle(&h.house);
}

static enum search_order order;

static void time_search(const char *what, const char *term, struct search_room *rooms, size_t count)
{
    struct search_hits hits = {0};
    struct search_query query = {.term = slice_of(term),
                                 .order = order,
                                 .keys = SEARCH_DOC_KEYS,
                                 .rooms = rooms,
                                 .room_count = count};
    int64_t began = cpu_us();
    for (int i = 0; i < ROUNDS; i++) {
        struct search_db *db = NULL;
        house_next_job(&h.house);
        if (search_reader(h.house.hs.search, &h.house.ctx, &db).code != 0 ||
            search_find(db, &h.house.ctx, &query, &hits).code != 0) {
            abort();
        }
    }
    print_time(what, cpu_us() - began, ROUNDS, hits.count);
}

static void time_texts(int events)
{
    struct search_room *rooms = calloc((size_t)events / ROOM_EVENTS + 1, sizeof *rooms);
    size_t count = 0;
    struct search_progress progress;
    fill_rooms(events, rooms, &count);
    int64_t began = now_mono_us();
    search_rebuild(h.house.hs.search);
    search_settle(h.house.hs.search);
    int64_t took = now_mono_us() - began;
    search_house_stop(&h); /* the log is written back */
    search_house_start(&h);
    search_get_progress(h.house.hs.search, &progress);
    printf("%d events in %zu rooms: indexed in %.1f s, %.0f bytes each\n", events, count,
           (double)took / 1e6, (double)progress.bytes / events);
    time_search("one room, a rare word", "w9000x", rooms, 1);
    time_search("one room, the commonest word", "w1x", rooms, 1);
    time_search("all rooms, a rare word", "w9000x", rooms, count);
    time_search("all rooms, a word of each tenth event", "w10x", rooms, count);
    time_search("all rooms, the commonest word", "w1x", rooms, count);
    time_search("all rooms, two common words", "w1x w2x", rooms, count);
    time_search("all rooms, the beginning of many words", "w12", rooms, count);
    order = SEARCH_BY_TIME;
    time_search("all rooms, the commonest word, by time", "w1x", rooms, count);
    free(rooms);
}

static void time_people(int users)
{
    struct room *room = house_room(&h.house, &ann, "{\"preset\":\"public_chat\"}");
    uint64_t number = hs_room_info(room).number;
    for (int i = 0; i < users; i++) {
        char name[64];
        snprintf(name, sizeof name, "%c%c%d", 'a' + i % 26, 'a' + i / 26 % 26, i);
        struct guest guest = house_guest(&h.house, name);
        house_member(&h.house, room, &guest, &guest, MEMBERSHIP_JOIN);
        if (i % 100 == 0) {
            house_next_job(&h.house);
            if (hs_room_get(&h.house.hs, &h.house.ctx, number, &room).code != 0) {
                abort();
            }
        }
    }
    search_house_settle(&h);
    static const char *const terms[] = {"k", "kb", "kb1"};
    for (size_t i = 0; i < COUNT_OF(terms); i++) {
        struct search_candidates found = {0};
        char what[64];
        int64_t began = cpu_us();
        for (int round = 0; round < ROUNDS; round++) {
            struct search_db *db = NULL;
            house_next_job(&h.house);
            if (search_reader(h.house.hs.search, &h.house.ctx, &db).code != 0 ||
                search_people_find(db, &h.house.ctx, slice_of(terms[i]), 2000, &found).code != 0) {
                abort();
            }
        }
        snprintf(what, sizeof what, "%d users, candidates for \"%s\"", users, terms[i]);
        print_time(what, cpu_us() - began, ROUNDS, found.count);
    }
}

static int number_of(const char *text, int fallback)
{
    uint64_t number = 0;
    return text && slice_parse_u64(slice_of(text), &number) && number < 10000000 ? (int)number
                                                                                 : fallback;
}

int main(int argc, char **argv)
{
    int events = number_of(argc > 1 ? argv[1] : NULL, 100000);
    int users = number_of(argc > 2 ? argv[2] : NULL, 10000);
    search_house_open(&h, NULL);
    ann = house_guest(&h.house, "ann");
    time_texts(events);
    time_people(users);
    search_house_close(&h);
    return 0;
}
