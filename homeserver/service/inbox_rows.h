/* Rows of an inbox: object (STORE_INBOX, be64 user, device id). */
#pragma once
#include "homeserver/service/hs.h"

enum inbox_row {
    INBOX_ROW_MESSAGE = 'm',     /* position: a message */
    INBOX_ROW_TXN = 't',         /* packed type, transaction id: be64 time at which it was sent */
    INBOX_ROW_TXN_BY_TIME = 'x', /* be64 time, hash of the key of a "t" row: that key */
};

struct store_object inbox_object(struct ctx *ctx, uint64_t user, struct slice device_id);
/* The key of the "x" row of a "t" row. */
struct slice inbox_txn_by_time(struct ctx *ctx, uint64_t time_ms, struct slice txn_key);
