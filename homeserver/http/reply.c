#include "homeserver/http/priv.h"
#include "spec/errcodes.h"

/* Spec: client-server, "Web Browser Clients". */
const struct http_fixed_header http_cors[HTTP_CORS_COUNT] = {
    {"Access-Control-Allow-Origin", "*"},
    {"Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS"},
    {"Access-Control-Allow-Headers",
     "X-Requested-With, Content-Type, Authorization, Date, If-Match, If-None-Match"},
    {"Access-Control-Expose-Headers", "Retry-After, X-Request-Id, Content-Disposition, ETag"},
};

void http_reply_header(struct http_reply *reply, struct slice name, struct slice value)
{
    ASSERT(reply->header_count < HTTP_HEADERS_MAX);
    reply->headers[reply->header_count++] = (struct http_header){name, value};
}

void http_reply_error(struct http_reply *reply, struct err err, struct slice extra)
{
    const struct errcode_info *info = errcode_get(err.code);
    struct json_out out = json_out_to(&reply->body);
    buf_clear(&reply->body);
    reply->status = info->http_status;
    reply->content_type = (struct slice){0};
    json_out_object(&out);
    json_out_key_string(&out, LIT("errcode"), info->wire);
    json_out_key_string(&out, LIT("error"), err.is_public ? slice_of(err.text) : info->text);
    if (extra.len) {
        buf_add_byte(&reply->body, ',');
        buf_add(&reply->body, extra);
    }
    json_out_object_end(&out);
}

void http_reply_empty(struct http_reply *reply)
{
    buf_clear(&reply->body);
    buf_add(&reply->body, LIT("{}"));
}
