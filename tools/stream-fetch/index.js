// SPDX-License-Identifier: GPL-3.0-or-later
//
// createStreamFetch() gives a function like fetch() that answers GET .../sync from Myelin's
// WebSocket stream and hands every other request on. The stream is described in spec/stream.md.

import { Stream, StreamBroken, STREAM_PATH, abortError } from "./stream.js";

const SYNC = /^(.*)\/_matrix\/client\/(?:v3|r0)\/sync$/;
const ROOM = new RegExp(
    "^(.*)/_matrix/client/(?:v3|r0)/rooms/([^/]+)/" + "(send|typing|receipt)/([^/]+)(?:/([^/]+))?$",
);
const RETRY_MS_MAX = 10 * 60 * 1000;
const STEADY_MS = 10 * 1000; // a stream that lived this long was no failure
const FRAME_CHARS_MAX = 32 * 1024; // well below the frame limit however the text encodes

/** A 200 whose body is parsed already; matrix-js-sdk asks for json() alone. */
class JsonResponse extends Response {
    #data;

    constructor(status, data) {
        super(null, { status, headers: { "Content-Type": "application/json" } });
        this.#data = data;
    }

    async json() {
        return this.#data;
    }

    async text() {
        return JSON.stringify(this.#data);
    }

    clone() {
        return new JsonResponse(this.status, structuredClone(this.#data));
    }
}

async function findWebSocket(given) {
    return given ?? globalThis.WebSocket ?? (await import("ws")).WebSocket;
}

function parseRequest(input, init) {
    const request = input instanceof Request ? input : undefined;
    const url = new URL(request?.url ?? String(input), globalThis.location?.href);
    const headers = new Headers(init?.headers ?? request?.headers);
    const bearer = /^Bearer +(.+)$/i.exec(headers.get("Authorization") ?? "");
    return {
        url,
        method: (init?.method ?? request?.method ?? "GET").toUpperCase(),
        token: bearer?.[1] ?? url.searchParams.get("access_token"),
        signal: init?.signal ?? request?.signal,
        body: init?.body,
    };
}

function inlineFilter(text) {
    return text.startsWith("{") ? JSON.parse(text) : text;
}

/** The auth frame for a /sync request. */
function authFrame({ url, token }) {
    const query = url.searchParams;
    const auth = { access_token: token };
    if (query.has("since")) {
        auth.since = query.get("since");
    }
    if (query.has("filter")) {
        auth.filter = inlineFilter(query.get("filter"));
    }
    if (query.has("set_presence")) {
        auth.set_presence = query.get("set_presence");
    }
    for (const flag of ["full_state", "use_state_after"]) {
        if (query.has(flag)) {
            auth[flag] = query.get(flag) === "true";
        }
    }
    return auth;
}

function streamUrl(url, prefix) {
    const scheme = url.protocol === "http:" ? "ws:" : "wss:";
    return `${scheme}//${url.host}${prefix}${STREAM_PATH}`;
}

/** The frame for a message, typing or receipt request, or undefined when it is none of these. */
function roomFrame(request, match) {
    const [, , room, what, third, fourth] = match;
    let body;
    try {
        body = JSON.parse(request.body ?? "{}");
    } catch {
        return undefined;
    }
    const room_id = decodeURIComponent(room);
    const name = decodeURIComponent(third);
    const last = fourth === undefined ? undefined : decodeURIComponent(fourth);
    if (what === "send" && request.method === "PUT" && last !== undefined) {
        return { type: "send", room_id, event_type: name, content: body, txn_id: last };
    }
    if (what === "typing" && request.method === "PUT" && last === undefined) {
        return { type: "typing", room_id, typing: body.typing, timeout: body.timeout };
    }
    if (what === "receipt" && request.method === "POST" && last !== undefined) {
        const thread_id = body.thread_id;
        return { type: "receipt", room_id, receipt_type: name, event_id: last, thread_id };
    }
    return undefined;
}

function resultResponse(result) {
    const { status, ok, event_id, errcode, error, retry_after_ms } = result;
    const failure = { errcode, error, ...(retry_after_ms === undefined ? {} : { retry_after_ms }) };
    const success = event_id === undefined ? {} : { event_id };
    return new JsonResponse(status, ok ? success : failure);
}

/** The streams, and where they are not worth trying for now. */
class Pool {
    #streams = new Map();
    #failures = new Map();
    #options;
    #stopped = false;

    constructor(options) {
        this.#options = options;
    }

    get(base, token) {
        return this.#streams.get(`${base} ${token}`);
    }

    /** Whether to use plain fetch because the stream of `base` failed a short time ago. */
    isBlocked(base) {
        return this.#stopped || (this.#failures.get(base)?.until ?? 0) > Date.now();
    }

    /** The answer came by plain HTTP although the stream did not: wait before the next try. */
    block(base) {
        const count = (this.#failures.get(base)?.count ?? 0) + 1;
        const wait = Math.min(this.#options.retryMs * 2 ** (count - 1), RETRY_MS_MAX);
        this.#failures.set(base, { count, until: Date.now() + wait });
    }

    open(WebSocket, base, request, params) {
        const key = `${base} ${request.token}`;
        const { onEvent, lingerMs } = this.#options;
        const openedAt = Date.now();
        const stream = new Stream({
            WebSocket,
            url: base,
            auth: authFrame(request),
            params,
            lingerMs,
            events: {
                hello: () => onEvent({ kind: "hello", url: base }),
                sync: () => onEvent({ kind: "sync", url: base }),
                closed: (code) => {
                    if (this.#streams.get(key) === stream) {
                        this.#streams.delete(key);
                    }
                    if (stream.ready && Date.now() - openedAt > STEADY_MS) {
                        this.#failures.delete(base);
                    }
                    onEvent({ kind: "closed", url: base, code });
                },
            },
        });
        stream.url = base;
        stream.openedAt = openedAt;
        this.#streams.set(key, stream);
        onEvent({ kind: "open", url: base });
        return stream;
    }

    close() {
        this.#stopped = true;
        for (const stream of this.#streams.values()) {
            stream.close();
        }
    }
}

/** Whether the open stream would answer this request as /sync would. */
function continues(stream, request, params) {
    const query = request.url.searchParams;
    return (
        !stream.closed &&
        stream.params === params &&
        query.get("full_state") !== "true" &&
        query.has("since") &&
        stream.cursor === query.get("since")
    );
}

/** Runs without a pause up to stream.next(), so that two requests cannot open two streams. */
async function syncOverStream({ pool, WebSocket, base, request, graceMs }) {
    const query = request.url.searchParams;
    const params = JSON.stringify(
        ["filter", "set_presence", "use_state_after"].map((name) => query.get(name)),
    );
    let stream = pool.get(base, request.token);
    if (stream?.busy) {
        throw new StreamBroken(1000); // a second reader beside the first: plain HTTP
    }
    if (stream && !continues(stream, request, params)) {
        stream.close();
        stream = undefined;
    }
    stream ??= pool.open(WebSocket, base, request, params);
    const timeoutMs = Math.max(Number(query.get("timeout") ?? 0), graceMs);
    try {
        const data = await stream.next(timeoutMs, request.signal);
        return new JsonResponse(200, data ?? { next_batch: stream.cursor });
    } catch (error) {
        stream.close();
        if (error instanceof StreamBroken) {
            error.early = !stream.ready || Date.now() - stream.openedAt < STEADY_MS;
        }
        throw error;
    }
}

export function createStreamFetch(options = {}) {
    const settings = { graceMs: 50, lingerMs: 30000, retryMs: 5000, onEvent: () => {}, ...options };
    const plainFetch = settings.fetch ?? ((...args) => globalThis.fetch(...args));
    const pool = new Pool(settings);

    async function sync(base, request, args) {
        let early = false;
        if (request.signal?.aborted) {
            throw abortError();
        }
        if (!pool.isBlocked(base)) {
            try {
                const WebSocket = await findWebSocket(settings.WebSocket);
                const graceMs = settings.graceMs;
                return await syncOverStream({ pool, WebSocket, base, request, graceMs });
            } catch (error) {
                if (!(error instanceof StreamBroken)) {
                    throw error;
                }
                early = error.early;
            }
        }
        settings.onEvent({ kind: "fallback", url: base });
        const response = await plainFetch(...args);
        if (early) {
            pool.block(base);
        }
        return response;
    }

    async function send(stream, frame, request, args) {
        try {
            const result = await stream.request(frame, request.signal);
            settings.onEvent({ kind: "result", url: stream.url });
            return resultResponse(result);
        } catch (error) {
            if (!(error instanceof StreamBroken)) {
                throw error;
            }
            return plainFetch(...args); // all three may be repeated
        }
    }

    async function streamFetch(...args) {
        const request = parseRequest(...args);
        const isSync = request.method === "GET" && SYNC.exec(request.url.pathname);
        if (isSync && request.token) {
            return sync(streamUrl(request.url, isSync[1]), request, args);
        }
        const room = settings.sendOverStream && request.token && ROOM.exec(request.url.pathname);
        if (room && typeof (request.body ?? "") === "string") {
            const stream = pool.get(streamUrl(request.url, room[1]), request.token);
            const frame = (request.body ?? "").length < FRAME_CHARS_MAX && roomFrame(request, room);
            if (stream?.ready && frame) {
                return send(stream, frame, request, args);
            }
        }
        return plainFetch(...args);
    }

    streamFetch.close = () => pool.close();
    return streamFetch;
}
