// SPDX-License-Identifier: GPL-3.0-or-later
//
// A server that keeps one list of events and serves it by /sync and by the stream alike.

import http from "node:http";
import { WebSocketServer } from "ws";

const STREAM = "/_matrix/client/unstable/io.myelin.stream/v1";

export class FakeServer {
    constructor({ stream = true } = {}) {
        this.stream = stream;
        this.events = [];
        this.auths = []; // auth frames seen
        this.acks = []; // positions acknowledged
        this.frames = []; // other frames seen
        this.requests = []; // "METHOD path?query" seen over plain HTTP
        this.peers = new Set();
        this.http = http.createServer((req, res) => this.#answer(req, res));
        this.http.on("upgrade", (req, socket, head) => this.#upgrade(req, socket, head));
        const handleProtocols = (offered) =>
            offered.has("io.myelin.stream.v1") && "io.myelin.stream.v1";
        this.ws = new WebSocketServer({ noServer: true, handleProtocols });
    }

    async start() {
        await new Promise((resolve) => this.http.listen(0, "127.0.0.1", resolve));
        this.base = `http://127.0.0.1:${this.http.address().port}`;
        return this;
    }

    async stop() {
        for (const { socket } of this.peers) {
            socket.terminate();
        }
        this.http.closeAllConnections();
        await new Promise((resolve) => this.http.close(resolve));
    }

    /** What /sync answers for `since`. */
    body(since) {
        const from = since === undefined ? 0 : Number(since.slice(1));
        return { next_batch: `s${this.events.length}`, events: this.events.slice(from) };
    }

    post(...events) {
        this.events.push(...events);
        for (const peer of this.peers) {
            this.#push(peer);
        }
    }

    breakStreams(code = 1001) {
        for (const { socket } of this.peers) {
            socket.close(code);
        }
    }

    #answer(req, res) {
        const url = new URL(req.url, "http://fake");
        this.requests.push(`${req.method} ${req.url}`);
        const known = req.headers.authorization === "Bearer good";
        const status = known ? 200 : 401;
        const failure = { errcode: "M_UNKNOWN_TOKEN", error: "Unknown token: log in again." };
        const since = url.searchParams.get("since") ?? undefined;
        const success = url.pathname.endsWith("/sync") ? this.body(since) : { plain: true };
        res.writeHead(status, { "Content-Type": "application/json" });
        res.end(JSON.stringify(known ? success : failure));
    }

    #upgrade(req, socket, head) {
        if (!this.stream || req.url !== STREAM) {
            socket.end("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            return;
        }
        this.ws.handleUpgrade(req, socket, head, (ws) => {
            const peer = { socket: ws, acked: undefined, outstanding: undefined, first: true };
            ws.on("message", (text) => this.#frame(peer, JSON.parse(text)));
            ws.on("close", () => this.peers.delete(peer));
            ws.on("error", () => {});
        });
    }

    #frame(peer, frame) {
        const say = (reply) => peer.socket.send(JSON.stringify(reply));
        if (frame.type === "auth") {
            this.auths.push(frame);
            if (frame.access_token !== "good") {
                say({ type: "error", status: 401, errcode: "M_UNKNOWN_TOKEN", error: "no" });
                return peer.socket.close(4001);
            }
            peer.acked = frame.since;
            this.peers.add(peer);
            say({ type: "hello", user_id: "@u:fake", device_id: "D" });
            this.#push(peer);
        } else if (frame.type === "ack") {
            this.acks.push(frame.pos);
            if (frame.pos === peer.outstanding) {
                peer.acked = frame.pos;
                peer.outstanding = undefined;
                this.#push(peer);
            }
        } else {
            this.frames.push(frame);
            this.onFrame?.(frame, say, peer);
        }
    }

    #push(peer) {
        const data = this.body(peer.acked);
        if (peer.outstanding !== undefined || (!peer.first && data.events.length === 0)) {
            return;
        }
        peer.first = false;
        peer.outstanding = data.next_batch;
        peer.socket.send(JSON.stringify({ type: "sync", pos: data.next_batch, data }));
    }
}
