#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""An application service for the plays, of the protocol "playnet": it takes every transaction and
ping, and knows one network, one user and one place.

usage: bridge.py PORT
"""
import http.server
import json
import sys
import urllib.parse

PROTOCOL = {
    "user_fields": ["nickname"],
    "location_fields": ["channel"],
    "icon": "mxc://example.org/aBcDeFgH",
    "field_types": {
        "nickname": {"regexp": "[^\\s]+", "placeholder": "ann"},
        "channel": {"regexp": "#[^\\s]+", "placeholder": "#talk"},
    },
    "instances": [{"network_id": "playnet", "desc": "Playnet", "icon": "mxc://example.org/aBcDeFgH",
                   "fields": {"network": "playnet"}}],
}
PREFIX = "/_matrix/app/v1/"


def answer(path, query):
    """Status and body."""
    if path.startswith("thirdparty/protocol/"):
        return (200, PROTOCOL) if path.endswith("/playnet") else (404, {"errcode": "M_NOT_FOUND", "error": "no"})
    if path.startswith("thirdparty/user"):
        user = {"userid": "@bridged-ann:example.org", "protocol": "playnet", "fields": {"nickname": "ann"}}
        wanted = query.get("nickname", ["ann"])[0] == "ann"
        return 200, [user] if wanted else []
    if path.startswith("thirdparty/location"):
        place = {"alias": "#bridged-talk:example.org", "protocol": "playnet", "fields": {"channel": "#talk"}}
        return 200, [place]
    if path == "ping" or path.startswith("transactions/"):
        return 200, {}
    return 404, {"errcode": "M_NOT_FOUND", "error": "There is none."}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self):
        url = urllib.parse.urlsplit(self.path)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, body = answer(url.path.removeprefix(PREFIX), urllib.parse.parse_qs(url.query))
        if self.headers.get("Authorization") != "Bearer bridge-other-secret":
            status, body = 403, {"errcode": "M_FORBIDDEN", "error": "Who are you?"}
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = reply

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
