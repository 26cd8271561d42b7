#include "homeserver/http/ratelimit.h"

#include "homeserver/base/mem.h"
#include "spec/errcodes.h"

#include <pthread.h>
#include <sys/random.h>

enum { WAYS = 8, LOCKS = 64, MILLI = 1000, PASSED_MS_MAX = 1000000000 };

/* tokens in thousandths; a slot with hash 0 is empty. */
struct bucket {
    uint64_t hash;
    int64_t seen_ms;
    int64_t milli_tokens;
};

struct http_ratelimit {
    struct http_rate_rule rules[HTTP_RATES];
    pthread_mutex_t locks[LOCKS]; /* each protects every LOCKS-th set; leaf locks */
    struct bucket *buckets;
    size_t set_count;
    uint64_t secret; /* nobody outside can aim at a bucket */
};

struct http_ratelimit *http_ratelimit_new(const struct http_rate_rule rules[HTTP_RATES],
                                          size_t keys_max)
{
    struct http_ratelimit *limit = mem_alloc(sizeof *limit);
    for (size_t i = 0; i < HTTP_RATES; i++) {
        limit->rules[i] = rules[i];
    }
    for (size_t i = 0; i < LOCKS; i++) {
        pthread_mutex_init(&limit->locks[i], NULL);
    }
    limit->set_count = keys_max / WAYS + 1;
    limit->buckets = mem_alloc(limit->set_count * WAYS * sizeof *limit->buckets);
    ssize_t got = getrandom(&limit->secret, sizeof limit->secret, 0);
    (void)got; /* without randomness the limits still hold */
    return limit;
}

void http_ratelimit_free(struct http_ratelimit **limit)
{
    if (*limit) {
        for (size_t i = 0; i < LOCKS; i++) {
            pthread_mutex_destroy(&(*limit)->locks[i]);
        }
        mem_free((*limit)->buckets);
        mem_free(*limit);
        *limit = NULL;
    }
}

static uint64_t hash_of(const struct http_ratelimit *limit, enum http_rate rate, struct slice key)
{
    uint64_t hash = (slice_hash(key) ^ limit->secret) + (uint64_t)rate * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 32;
    hash *= UINT64_C(0xD6E8FEB86659FD93);
    hash ^= hash >> 32;
    return hash ? hash : 1;
}

static void refill(struct bucket *bucket, const struct http_rate_rule *rule, int64_t now_ms)
{
    int64_t full = (int64_t)rule->burst * MILLI;
    int64_t passed_ms = now_ms - bucket->seen_ms;
    int64_t speed = rule->per_1000_seconds ? rule->per_1000_seconds : 1;
    if (passed_ms <= 0) {
        return;
    }
    passed_ms = passed_ms > PASSED_MS_MAX ? PASSED_MS_MAX : passed_ms;
    int64_t come = passed_ms * speed / MILLI; /* thousandths of a token */
    if (bucket->milli_tokens + come >= full) {
        bucket->milli_tokens = full;
        bucket->seen_ms = now_ms;
        return;
    }
    bucket->milli_tokens += come;
    bucket->seen_ms += come * MILLI / speed; /* the rest of the time counts next time */
}

/* The bucket of the hash; a new one takes the place of the longest untouched. */
static struct bucket *find(struct bucket *set, uint64_t hash, const struct http_rate_rule *rule,
                           int64_t now_ms)
{
    struct bucket *victim = &set[0];
    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].hash == hash) {
            refill(&set[i], rule, now_ms);
            return &set[i];
        }
        if (victim->hash && (!set[i].hash || set[i].seen_ms < victim->seen_ms)) {
            victim = &set[i];
        }
    }
    *victim = (struct bucket){hash, now_ms, (int64_t)rule->burst * MILLI};
    return victim;
}

int64_t http_ratelimit_take(struct http_ratelimit *limit, enum http_rate rate, struct slice key,
                            int64_t now_mono_ms)
{
    const struct http_rate_rule *rule = &limit->rules[rate];
    if (!rule->burst) {
        return 0;
    }
    uint64_t hash = hash_of(limit, rate, key);
    size_t at = hash % limit->set_count;
    int64_t wait_ms = 0;
    pthread_mutex_lock(&limit->locks[at % LOCKS]);
    struct bucket *bucket = find(&limit->buckets[at * WAYS], hash, rule, now_mono_ms);
    if (bucket->milli_tokens >= MILLI) {
        bucket->milli_tokens -= MILLI;
    } else {
        int64_t missing = MILLI - bucket->milli_tokens;
        int64_t speed = rule->per_1000_seconds ? rule->per_1000_seconds : 1;
        wait_ms = (missing * MILLI + speed - 1) / speed;
    }
    pthread_mutex_unlock(&limit->locks[at % LOCKS]);
    return wait_ms;
}

struct err http_ratelimit_check(struct http_ratelimit *limit, struct ctx *ctx, enum http_rate rate,
                                struct slice key, struct http_reply *reply)
{
    int64_t wait_ms = http_ratelimit_take(limit, rate, key, now_mono_ms(ctx->now));
    if (!wait_ms) {
        return OK;
    }
    struct err err = err_make(ERR_M_LIMIT_EXCEEDED, "rate limit");
    http_reply_header(reply, LIT("Retry-After"),
                      arena_printf(ctx->arena, "%lld", (long long)(wait_ms + 999) / 1000));
    http_reply_error(reply, err,
                     arena_printf(ctx->arena, "\"retry_after_ms\":%lld", (long long)wait_ms));
    return err;
}
