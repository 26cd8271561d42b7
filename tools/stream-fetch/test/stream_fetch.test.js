// SPDX-License-Identifier: GPL-3.0-or-later

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { WebSocket } from "ws";
import { createStreamFetch } from "../index.js";
import { FakeServer } from "./fake_server.js";

const cleanups = [];

afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) {
        await cleanup();
    }
});

async function setUp(serverOptions, fetchOptions) {
    const server = await new FakeServer(serverOptions).start();
    const seen = [];
    const onEvent = ({ kind }) => seen.push(kind);
    const fetchFn = createStreamFetch({ WebSocket, onEvent, ...fetchOptions });
    cleanups.push(
        () => server.stop(),
        () => fetchFn.close(),
    );
    const sync = async (query, init = {}) => {
        const url = new URL(`${server.base}/_matrix/client/v3/sync?${new URLSearchParams(query)}`);
        const headers = { Authorization: "Bearer good" };
        return fetchFn(url, { method: "GET", headers, ...init });
    };
    const syncJson = async (query, init) => (await sync(query, init)).json();
    return { server, fetchFn, sync, syncJson, seen };
}

function request(fetchFn, server, method, path, body) {
    const init = { method, headers: { Authorization: "Bearer good" }, body: JSON.stringify(body) };
    return fetchFn(`${server.base}/_matrix/client/v3/${path}`, init);
}

test("an initial sync comes over the stream", async () => {
    const { server, syncJson, seen } = await setUp();
    server.post("a", "b");
    assert.deepEqual(await syncJson({}), { next_batch: "s2", events: ["a", "b"] });
    assert.deepEqual(server.requests, []);
    assert.deepEqual(seen, ["open", "hello", "sync"]);
});

test("one socket serves all following syncs and acknowledges each", async () => {
    const { server, syncJson, seen } = await setUp();
    await syncJson({});
    for (let n = 1; n <= 5; n++) {
        const answer = syncJson({ since: `s${n - 1}`, timeout: 5000 });
        setTimeout(() => server.post(n), 5);
        assert.deepEqual(await answer, { next_batch: `s${n}`, events: [n] });
    }
    assert.deepEqual(server.acks, ["s0", "s1", "s2", "s3", "s4"]);
    assert.equal(seen.filter((kind) => kind === "open").length, 1);
});

test("what happens before the next request is merged and not lost", async () => {
    const { server, syncJson } = await setUp();
    await syncJson({});
    server.post("a");
    server.post("b");
    server.post("c");
    const answer = await syncJson({ since: "s0", timeout: 1000 });
    assert.deepEqual(answer, { next_batch: "s3", events: ["a", "b", "c"] });
});

test("a frame is acknowledged only by the request that follows it", async () => {
    const { server, syncJson } = await setUp();
    server.post("a");
    await syncJson({});
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(server.acks, []);
});

test("a sync with nothing new is answered after its timeout", async () => {
    const { server, syncJson } = await setUp();
    await syncJson({});
    assert.deepEqual(await syncJson({ since: "s0", timeout: 60 }), { next_batch: "s0" });
    server.post("late");
    const answer = await syncJson({ since: "s0", timeout: 1000 });
    assert.deepEqual(answer, { next_batch: "s1", events: ["late"] });
});

test("a timeout of zero does not wait", async () => {
    const { syncJson } = await setUp(undefined, { graceMs: 1 });
    await syncJson({});
    assert.deepEqual(await syncJson({ since: "s0", timeout: 0 }), { next_batch: "s0" });
});

test("the parameters of the request go into the auth frame", async () => {
    const { server, syncJson } = await setUp();
    await syncJson({
        since: "s0",
        filter: '{"room":{"timeline":{"limit":5}}}',
        set_presence: "offline",
        full_state: "true",
        use_state_after: "true",
    });
    assert.deepEqual(server.auths, [
        {
            type: "auth",
            access_token: "good",
            since: "s0",
            filter: { room: { timeline: { limit: 5 } } },
            set_presence: "offline",
            full_state: true,
            use_state_after: true,
        },
    ]);
});

test("a filter id stays a string", async () => {
    const { server, syncJson } = await setUp();
    await syncJson({ filter: "7" });
    assert.equal(server.auths[0].filter, "7");
});

for (const [what, query] of [
    ["an older position", { since: "s1" }],
    ["another filter", { since: "s2", filter: "8" }],
    ["full_state", { since: "s2", full_state: "true" }],
]) {
    test(`${what} opens another stream`, async () => {
        const { server, syncJson } = await setUp();
        server.post("a", "b");
        await syncJson({});
        const answer = await syncJson(query);
        assert.equal(answer.next_batch, "s2");
        assert.equal(server.auths.length, 2);
        assert.equal(server.auths[1].since, query.since);
    });
}

test("plain /sync is used where the upgrade is refused, and the stream left alone", async () => {
    const { server, syncJson, seen } = await setUp({ stream: false });
    server.post("a");
    assert.deepEqual(await syncJson({}), { next_batch: "s1", events: ["a"] });
    await syncJson({ since: "s1", timeout: 0 });
    assert.deepEqual(seen, ["open", "closed", "fallback", "fallback"]);
    assert.equal(server.requests.length, 2);
});

test("the stream is tried again after a while", async () => {
    const { server, syncJson, seen } = await setUp({ stream: false }, { retryMs: 10 });
    await syncJson({});
    server.stream = true;
    await new Promise((resolve) => setTimeout(resolve, 20));
    await syncJson({ since: "s0", timeout: 0 });
    assert.equal(seen.at(-1), "sync");
});

test("a socket that breaks while a request waits gives the answer of plain /sync", async () => {
    const { server, syncJson } = await setUp();
    await syncJson({});
    const answer = syncJson({ since: "s0", timeout: 5000 });
    setTimeout(() => {
        server.breakStreams();
        server.events.push("a");
    }, 10);
    assert.deepEqual(await answer, { next_batch: "s1", events: ["a"] });
    assert.equal(server.requests.length, 1);
});

test("a socket that broke between two requests loses nothing", async () => {
    const { server, syncJson } = await setUp();
    await syncJson({});
    server.post("a"); // sent, not asked for yet
    server.breakStreams();
    await new Promise((resolve) => setTimeout(resolve, 20));
    server.events.push("b");
    const answer = await syncJson({ since: "s0", timeout: 1000 });
    assert.deepEqual(answer, { next_batch: "s2", events: ["a", "b"] });
});

test("an unknown token is answered with the error of plain /sync", async () => {
    const { sync } = await setUp();
    const response = await sync({}, { headers: { Authorization: "Bearer bad" } });
    assert.equal(response.status, 401);
    assert.equal((await response.json()).errcode, "M_UNKNOWN_TOKEN");
});

test("a server that is away rejects as fetch does", async () => {
    const { server, sync } = await setUp();
    await server.stop();
    cleanups.shift();
    await assert.rejects(sync({}), TypeError);
});

test("aborting a request rejects it and closes the stream", async () => {
    const { server, sync, syncJson, seen } = await setUp();
    await syncJson({});
    const controller = new AbortController();
    const answer = sync({ since: "s0", timeout: 5000 }, { signal: controller.signal });
    setTimeout(() => controller.abort(), 10);
    await assert.rejects(answer, { name: "AbortError" });
    assert.equal(seen.at(-1), "closed");
    assert.deepEqual(server.requests, []);
    await assert.rejects(sync({}, { signal: controller.signal }), { name: "AbortError" });
});

test("a second reader beside the first goes through plain /sync", async () => {
    const { server, syncJson } = await setUp();
    await syncJson({});
    const first = syncJson({ since: "s0", timeout: 5000 });
    await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual(await syncJson({ since: "s0", timeout: 0 }), { next_batch: "s0", events: [] });
    server.post("a");
    assert.deepEqual(await first, { next_batch: "s1", events: ["a"] });
});

test("a stream that nobody reads is closed", async () => {
    const { syncJson, seen } = await setUp(undefined, { lingerMs: 10 });
    await syncJson({});
    await new Promise((resolve) => setTimeout(resolve, 30));
    assert.equal(seen.at(-1), "closed");
});

test("other requests pass through", async () => {
    const { server, fetchFn } = await setUp();
    const response = await request(fetchFn, server, "PUT", "rooms/!r/send/m.room.message/1", {});
    assert.deepEqual(await response.json(), { plain: true });
    assert.deepEqual(server.requests, ["PUT /_matrix/client/v3/rooms/!r/send/m.room.message/1"]);
});

test("messages, typing and receipts go over the stream when asked to", async () => {
    const { server, fetchFn, syncJson } = await setUp(undefined, { sendOverStream: true });
    server.onFrame = ({ id, type }, say) => {
        const event = type === "send" ? { event_id: "$e" } : {};
        say({ type: "result", id, status: 200, ok: true, ...event });
    };
    await syncJson({});
    const ask = (...args) => request(fetchFn, server, ...args).then((response) => response.json());
    const body = { msgtype: "m.text", body: "hi" };
    assert.deepEqual(await ask("PUT", "rooms/!r%3Ah/send/m.room.message/t%2F1", body), {
        event_id: "$e",
    });
    assert.deepEqual(
        await ask("PUT", "rooms/!r/typing/%40u%3Ah", { typing: true, timeout: 9 }),
        {},
    );
    assert.deepEqual(await ask("POST", "rooms/!r/receipt/m.read/%24e", { thread_id: "main" }), {});
    assert.deepEqual(server.requests, []);
    assert.deepEqual(server.frames, [
        {
            type: "send",
            id: "1",
            room_id: "!r:h",
            event_type: "m.room.message",
            content: body,
            txn_id: "t/1",
        },
        { type: "typing", id: "2", room_id: "!r", typing: true, timeout: 9 },
        {
            type: "receipt",
            id: "3",
            room_id: "!r",
            receipt_type: "m.read",
            event_id: "$e",
            thread_id: "main",
        },
    ]);
});

test("a refused message is a Matrix error", async () => {
    const { server, fetchFn, syncJson } = await setUp(undefined, { sendOverStream: true });
    const failure = { status: 429, errcode: "M_LIMIT_EXCEEDED", error: "slow", retry_after_ms: 5 };
    server.onFrame = ({ id }, say) => say({ type: "result", id, ok: false, ...failure });
    await syncJson({});
    const response = await request(fetchFn, server, "PUT", "rooms/!r/send/m.x/1", {});
    assert.equal(response.status, 429);
    assert.deepEqual(await response.json(), {
        errcode: "M_LIMIT_EXCEEDED",
        error: "slow",
        retry_after_ms: 5,
    });
});

test("a message whose stream breaks is sent by plain HTTP", async () => {
    const { server, fetchFn, syncJson } = await setUp(undefined, { sendOverStream: true });
    server.onFrame = (frame, say, peer) => peer.socket.terminate();
    await syncJson({});
    const response = await request(fetchFn, server, "PUT", "rooms/!r/send/m.x/1", {});
    assert.deepEqual(await response.json(), { plain: true });
});

test("what does not fit into a frame is sent by plain HTTP", async () => {
    const { server, fetchFn, syncJson } = await setUp(undefined, { sendOverStream: true });
    await syncJson({});
    await request(fetchFn, server, "PUT", "rooms/!r/send/m.x/1", { body: "x".repeat(40000) });
    await request(fetchFn, server, "PUT", "rooms/!r/redact/%24e/1", {});
    assert.equal(server.requests.length, 2);
    assert.deepEqual(server.frames, []);
});
