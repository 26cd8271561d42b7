// SPDX-License-Identifier: GPL-3.0-or-later
//
// A user of one server, by plain requests: for checks that compare servers event by event.

import { randomBytes } from "node:crypto";
import { until } from "./checks.js";

const encode = encodeURIComponent;

export class ApiError extends Error {
    constructor(status, body, what) {
        super(`${what}: ${status} ${JSON.stringify(body)}`);
        this.status = status;
        this.errcode = body?.errcode;
    }
}

export class User {
    /** Registers a user at a server given as {name, url}. */
    static async register(server, name) {
        const user = new User();
        user.server = server;
        user.name = `${name}-${randomBytes(3).toString("hex")}`;
        user.password = `pw-${user.name}`;
        const body = { username: user.name, password: user.password, auth: { type: "m.login.dummy" } };
        const answer = await user.post("/v3/register", body);
        user.id = answer.user_id;
        user.token = answer.access_token;
        user.deviceId = answer.device_id;
        return user;
    }

    /** Path below /_matrix/client unless it begins with /_matrix. Answers the parsed body. */
    async ask(method, path, body, { raw = false, timeoutMs = 60000, headers = {} } = {}) {
        const url = this.server.url + (path.startsWith("/_matrix") ? path : `/_matrix/client${path}`);
        const isBytes = body instanceof Uint8Array;
        const response = await fetch(url, {
            method,
            headers: {
                ...(this.token ? { Authorization: `Bearer ${this.token}` } : {}),
                ...(body && !isBytes ? { "Content-Type": "application/json" } : {}),
                ...headers,
            },
            body: body && (isBytes ? body : JSON.stringify(body)),
            signal: AbortSignal.timeout(timeoutMs),
        });
        if (raw && response.ok) {
            return new Uint8Array(await response.arrayBuffer());
        }
        const text = await response.text();
        let parsed;
        try {
            parsed = JSON.parse(text);
        } catch {
            parsed = text;
        }
        if (!response.ok) {
            throw new ApiError(response.status, parsed, `${this.name} ${method} ${path}`);
        }
        return parsed;
    }

    get(path, options) {
        return this.ask("GET", path, undefined, options);
    }

    post(path, body = {}, options) {
        return this.ask("POST", path, body, options);
    }

    put(path, body = {}, options) {
        return this.ask("PUT", path, body, options);
    }

    async createRoom(body) {
        return (await this.post("/v3/createRoom", body)).room_id;
    }

    join(roomIdOrAlias, ...servers) {
        const via = servers.map((server) => `server_name=${encode(server)}&via=${encode(server)}`);
        return this.post(`/v3/join/${encode(roomIdOrAlias)}?${via.join("&")}`);
    }

    leave(roomId) {
        return this.post(`/v3/rooms/${encode(roomId)}/leave`);
    }

    invite(roomId, userId) {
        return this.post(`/v3/rooms/${encode(roomId)}/invite`, { user_id: userId });
    }

    async send(roomId, type, content) {
        const path = `/v3/rooms/${encode(roomId)}/send/${type}/${randomBytes(8).toString("hex")}`;
        return (await this.put(path, content)).event_id;
    }

    say(roomId, body) {
        return this.send(roomId, "m.room.message", { msgtype: "m.text", body });
    }

    async setState(roomId, type, stateKey, content) {
        const path = `/v3/rooms/${encode(roomId)}/state/${type}/${encode(stateKey)}`;
        return (await this.put(path, content)).event_id;
    }

    async redact(roomId, eventId) {
        const txn = randomBytes(8).toString("hex");
        const path = `/v3/rooms/${encode(roomId)}/redact/${encode(eventId)}/${txn}`;
        return (await this.put(path, { reason: "a test" })).event_id;
    }

    event(roomId, eventId) {
        return this.get(`/v3/rooms/${encode(roomId)}/event/${encode(eventId)}`);
    }

    /** The event, as soon as it is here. */
    sees(roomId, eventId, timeoutMs) {
        return until(
            `${this.id} sees ${eventId}`,
            () => this.event(roomId, eventId).catch((error) => this.#unlessGone(error)),
            timeoutMs,
        );
    }

    /** type, state key -> event id, sorted. */
    async state(roomId) {
        const events = await this.get(`/v3/rooms/${encode(roomId)}/state`);
        return events.map((event) => `${event.type} ${event.state_key} ${event.event_id}`).sort();
    }

    async stateContent(roomId, type, stateKey = "") {
        return this.get(`/v3/rooms/${encode(roomId)}/state/${type}/${encode(stateKey)}`);
    }

    async membership(roomId, userId = this.id) {
        try {
            return (await this.stateContent(roomId, "m.room.member", userId)).membership;
        } catch (error) {
            return this.#unlessGone(error);
        }
    }

    /** Ids of the whole timeline that this user can page to, newest first. */
    async timeline(roomId, max = 1000) {
        const ids = [];
        let from = "";
        while (ids.length < max) {
            const path = `/v3/rooms/${encode(roomId)}/messages?dir=b&limit=50${from}`;
            const { chunk, end } = await this.get(path);
            ids.push(...chunk.map((event) => event.event_id));
            if (!end) {
                break;
            }
            from = `&from=${encode(end)}`;
        }
        return ids;
    }

    /** One sync; remembers where it ended. */
    async sync(timeoutMs = 0) {
        const since = this.since ? `&since=${encode(this.since)}` : "";
        const answer = await this.get(`/v3/sync?timeout=${timeoutMs}${since}`);
        this.since = answer.next_batch;
        return answer;
    }

    /** Syncs until `pick` gives something true, and answers that. */
    async syncUntil(what, pick, timeoutMs = 20000) {
        const deadline = Date.now() + timeoutMs;
        for (;;) {
            const value = pick(await this.sync(500));
            if (value) {
                return value;
            }
            if (Date.now() > deadline) {
                throw new Error(`${this.id} synced ${timeoutMs} ms in vain for: ${what}`);
            }
        }
    }

    #unlessGone(error) {
        if (error instanceof ApiError && (error.status === 404 || error.status === 403)) {
            return undefined;
        }
        throw error;
    }
}
