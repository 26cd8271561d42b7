// SPDX-License-Identifier: GPL-3.0-or-later
//
// A browser's subscription, played: keys as a user agent makes them, a push service that keeps what it
// is given, and http_ece, which knows nothing of this server, to decrypt it.

import { execSync } from "node:child_process";
import { createECDH, createPublicKey, randomBytes, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import ece from "http_ece";
import { User } from "./lib/api.js";
import { Checks, until } from "./lib/checks.js";

const KIND = "org.matrix.msc4174.webpush";
const ACK = "/_matrix/client/unstable/org.matrix.msc4174/pushers/ack";

function expect(truth, what) {
    if (!truth) {
        throw new Error(what);
    }
}

/** Keeps what is posted to it, and answers `status`. */
class PushService {
    posts = [];
    status = 201;

    async start(certificate, key) {
        const tls = { cert: readFileSync(certificate), key: readFileSync(key) };
        this.server = createServer(tls, (request, response) => {
            const pieces = [];
            request.on("data", (piece) => pieces.push(piece));
            request.on("end", () => {
                const post = { path: request.url, headers: request.headers, status: this.status };
                this.posts.push({ ...post, body: Buffer.concat(pieces) });
                response.writeHead(this.status).end();
            });
        });
        await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
        this.origin = `https://127.0.0.1:${this.server.address().port}`;
    }

    taken() {
        return this.posts.filter(({ status }) => status === 201);
    }
}

/** RFC 8291, 3.1 and 3.2: what a user agent makes for a subscription. */
class Subscription {
    constructor(service) {
        this.ecdh = createECDH("prime256v1");
        this.ecdh.generateKeys();
        this.auth = randomBytes(16);
        this.url = `${service.origin}/push/${randomBytes(8).toString("hex")}`;
        this.service = service;
    }

    pusher(more = {}) {
        return {
            kind: KIND,
            app_id: "org.example.browser",
            pushkey: this.ecdh.getPublicKey("base64url"),
            app_display_name: "Browser",
            device_display_name: "Desk",
            lang: "en",
            data: { url: this.url, auth: this.auth.toString("base64url"), ...more },
        };
    }

    read(post) {
        const keys = { version: "aes128gcm", privateKey: this.ecdh, authSecret: this.auth };
        return JSON.parse(ece.decrypt(post.body, keys).toString());
    }

    /** The first message that `fits`. */
    sees(what, fits, timeoutMs = 20000) {
        const own = () => this.service.taken().filter(({ path }) => this.url.endsWith(path));
        return until(
            what,
            () => own().map((post) => ({ post, message: this.read(post) })).find(fits),
            timeoutMs,
        );
    }
}

/** The status of a request; the caller's errors are what is looked at. */
async function statusOf(user, path, body) {
    const response = await fetch(user.server.url + path, {
        method: "POST",
        headers: { Authorization: `Bearer ${user.token}`, "Content-Type": "application/json" },
        body: JSON.stringify(body),
    });
    const answer = await response.json();
    return `${response.status} ${answer.errcode ?? ""}`.trim();
}

const setPusher = (user, pusher) => statusOf(user, "/_matrix/client/v3/pushers/set", pusher);

/** RFC 8292: the token is signed with the key that the capability names. */
function checkVapid(header, publicKey, origin) {
    const [, token, key] = /^vapid t=([^,]+), k=(\S+)$/.exec(header) ?? [];
    expect(key === publicKey, `signed with ${key}, not with ${publicKey}`);
    const [head, body, signature] = token.split(".");
    const point = Buffer.from(key, "base64url");
    const jwk = {
        kty: "EC",
        crv: "P-256",
        x: point.subarray(1, 33).toString("base64url"),
        y: point.subarray(33).toString("base64url"),
    };
    const signer = { key: createPublicKey({ key: jwk, format: "jwk" }), dsaEncoding: "ieee-p1363" };
    const signedBytes = Buffer.from(`${head}.${body}`);
    const isGood = verify("sha256", signedBytes, signer, Buffer.from(signature, "base64url"));
    expect(isGood, "the signature is wrong");
    const claims = JSON.parse(Buffer.from(body, "base64url"));
    const hours = (claims.exp - Date.now() / 1000) / 3600;
    expect(claims.aud === origin, `for ${claims.aud}, not for ${origin}`);
    expect(hours > 0 && hours <= 24, `counts for ${hours} hours`);
    expect(/^(mailto|https):/.test(claims.sub), `contact ${claims.sub}`);
}

async function activation(world, checks) {
    const { ben, ann, room, service, subscription } = world;
    checks.section("activation");
    await checks.check("the capability names the key to subscribe with", async () => {
        const { capabilities } = await ben.get("/v3/capabilities");
        expect(capabilities[KIND].enabled, "not enabled");
        world.vapid = capabilities[KIND].vapid;
        expect(Buffer.from(world.vapid, "base64url").length === 65, "no uncompressed point");
    });
    await checks.check("a new subscription has to be activated", async () => {
        const status = await setPusher(ben, subscription.pusher());
        expect(status === "201", status);
        const { pushers } = await ben.get("/v3/pushers");
        expect(pushers[0].activated === false, "it is active");
    });
    await checks.check("its token arrives, encrypted and signed", async () => {
        const { post, message } = await subscription.sees("a token", (m) => m.message.ack_token);
        const { headers } = post;
        expect(headers["content-encoding"] === "aes128gcm", headers["content-encoding"]);
        expect(Number(headers.ttl) > 0, `TTL ${headers.ttl}`);
        expect(headers.urgency === "high", `Urgency ${headers.urgency}`);
        expect(message.app_id === "org.example.browser", message.app_id);
        checkVapid(headers.authorization, world.vapid, service.origin);
        world.token = message.ack_token;
    });
    await checks.check("until then nothing else is pushed", async () => {
        await ann.say(room, "too early");
        await new Promise((resolve) => setTimeout(resolve, 500));
        expect(service.posts.length === 1, `${service.posts.length} posts`);
    });
    await checks.check("a wrong token does not activate it, the right one does", async () => {
        const app_id = "org.example.browser";
        const wrong = await statusOf(ben, ACK, { app_id, ack_token: "wrong" });
        expect(wrong === "400 M_UNKNOWN_ACTIVATION_TOKEN", wrong);
        const other = await statusOf(ben, ACK, { app_id: "other", ack_token: world.token });
        expect(other === "404 M_NOT_FOUND", other);
        const right = await statusOf(ben, ACK, { app_id, ack_token: world.token });
        expect(right === "200", right);
        const { pushers } = await ben.get("/v3/pushers");
        expect(pushers[0].activated === true, "it is not active");
    });
    await checks.check("setting it again changes nothing, with another URL everything", async () => {
        const same = await setPusher(ben, subscription.pusher());
        expect(same === "200", same);
        const moved = await setPusher(ann, new Subscription(service).pusher());
        expect(moved === "201", moved);
    });
}

async function messages(world, checks) {
    const { ben, ann, room, service, subscription } = world;
    const says = async (body) => {
        const id = await ann.say(room, body);
        return subscription.sees(body, ({ message }) => message.event_id === id);
    };
    checks.section("messages");
    await checks.check("a message says what a gateway would be told", async () => {
        const { message } = await says("hello");
        expect(message.content.body === "hello", JSON.stringify(message));
        expect(message.sender === ann.id && message.room_id === room, JSON.stringify(message));
        expect(message.unread === 2, `unread ${message.unread}`);
    });
    await checks.check("one that is too long leaves its content out", async () => {
        const { post, message } = await says("x".repeat(5000));
        expect(post.body.length <= 4096, `${post.body.length} bytes`);
        expect(message.content === undefined && message.sender === ann.id, "content");
    });
    await checks.check("reading pushes the count", async () => {
        const id = await ann.say(room, "read me");
        await subscription.sees("it", ({ message }) => message.event_id === id);
        await ben.post(`/v3/rooms/${encodeURIComponent(room)}/receipt/m.read/${encodeURIComponent(id)}`);
        const { post } = await subscription.sees("zero", ({ message }) => message.unread === 0);
        expect(post.headers.topic && post.headers.urgency === "low", JSON.stringify(post.headers));
    });
    await checks.check("what waits for the service outlives a killed server", async () => {
        service.status = 503;
        const id = await ann.say(room, "survivor");
        await until("an attempt", () => service.posts.at(-1).status === 503);
        execSync(process.env.RESTART_CMD);
        service.status = 201;
        await subscription.sees("it", ({ message }) => message.event_id === id);
    });
    await checks.check("a subscription that is gone is removed", async () => {
        service.status = 410;
        await ann.say(room, "gone");
        await until("no pusher", async () => (await ben.get("/v3/pushers")).pushers.length === 0);
    });
}

const { BASE_URL, TLS_CERTIFICATE, TLS_KEY } = process.env;
const checks = new Checks();
const server = { url: BASE_URL };
const service = new PushService();
await service.start(TLS_CERTIFICATE, TLS_KEY);
const world = { service, subscription: new Subscription(service) };
world.ann = await User.register(server, "ann");
world.ben = await User.register(server, "ben");
world.room = await world.ann.createRoom({ preset: "public_chat", name: "Den" });
await world.ben.join(world.room);
await activation(world, checks);
await messages(world, checks);
process.exit(checks.finish());
