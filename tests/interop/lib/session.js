// SPDX-License-Identifier: GPL-3.0-or-later
//
// One logged-in device: a matrix-js-sdk client with its Rust crypto, and what tests ask of it.

import { randomBytes } from "node:crypto";
import { createClient, EventType, PendingEventOrdering, RoomEvent, SyncState } from "matrix-js-sdk";
import { decodeRecoveryKey } from "matrix-js-sdk/lib/crypto-api/index.js";
import { Cable } from "./cable.js";
import { until } from "./checks.js";

const SILENT = {
    trace() {},
    debug() {},
    info() {},
    warn() {},
    error() {},
    getChild() {
        return SILENT;
    },
};

/** Registers a user; answers what a Session needs. */
export async function register(world, name) {
    const cable = new Cable({ stream: false });
    const client = createClient({ baseUrl: world.baseUrl, fetchFn: cable.fetch, logger: SILENT });
    const username = `${name}-${randomBytes(4).toString("hex")}`;
    const password = `pw-${randomBytes(9).toString("hex")}`;
    const body = { username, password, initial_device_display_name: `${name} 1` };
    let auth;
    try {
        return { ...(await client.registerRequest(body)), username, password };
    } catch (error) {
        if (error.httpStatus !== 401 || !error.data.flows) {
            throw error;
        }
        const { session } = error.data;
        auth = world.registrationToken
            ? { type: "m.login.registration_token", token: world.registrationToken, session }
            : { type: "m.login.dummy", session };
    }
    return { ...(await client.registerRequest({ ...body, auth })), username, password };
}

/** Logs the same user in on another device. */
export async function logIn(world, { username, password }, displayName) {
    const cable = new Cable({ stream: false });
    const client = createClient({ baseUrl: world.baseUrl, fetchFn: cable.fetch, logger: SILENT });
    const answer = await client.loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: username },
        password,
        initial_device_display_name: displayName,
    });
    return { ...answer, username, password };
}

export class Session {
    /** The user's recovery key (private part and id of secret storage), once there is one. */
    recovery;

    constructor(world, account, { timelineLimit = 50, lazyMembers = false, sliding } = {}) {
        this.world = world;
        this.account = account;
        this.userId = account.user_id;
        this.deviceId = account.device_id;
        this.timelineLimit = timelineLimit;
        this.lazyMembers = lazyMembers;
        this.sliding = sliding; // makes a SlidingSync for the client
        this.cable = new Cable({ stream: world.stream });
        world.sessions.push(this);
    }

    async start({ keepKeys = false } = {}) {
        this.client = createClient({
            baseUrl: this.world.baseUrl,
            userId: this.userId,
            deviceId: this.deviceId,
            accessToken: this.account.access_token,
            fetchFn: this.cable.fetch,
            logger: SILENT,
            timelineSupport: true,
            cryptoCallbacks: {
                getSecretStorageKey: async ({ keys }) => this.#secretStorageKey(keys),
            },
        });
        this.liveIds = [];
        this.client.on(RoomEvent.Timeline, (event, room, toStart, removed, data) => {
            if (data.liveEvent && event.getId().startsWith("$")) {
                this.liveIds.push(event.getId());
            }
        });
        await this.client.initRustCrypto({ useIndexedDB: keepKeys });
        await this.client.startClient({
            initialSyncLimit: this.timelineLimit,
            lazyLoadMembers: this.lazyMembers,
            threadSupport: true,
            slidingSync: this.sliding?.(this.client),
            // The timeline holds what the server sent, in its order, without local echoes.
            pendingEventOrdering: PendingEventOrdering.Detached,
        });
        await until("the first sync", () => this.client.isInitialSyncComplete());
    }

    async stop() {
        this.client.stopClient();
        this.cable.close();
    }

    /** As the user who comes back to the application would: no waiting for the SDK's timers. */
    async reconnect() {
        this.cable.mend();
        await until("the connection", () => {
            this.client.retryImmediately();
            return this.client.getSyncState() === SyncState.Syncing;
        });
    }

    get crypto() {
        return this.client.getCrypto();
    }

    /** Any request, with the SDK's error handling; for what the SDK has no call for. */
    request(method, path, query, body, prefix = "/_matrix/client/v3") {
        return this.client.http.authedRequest(method, path, query, body, { prefix });
    }

    async room(roomId) {
        return until(`room ${roomId}`, () => this.client.getRoom(roomId));
    }

    async roomWhere(what, roomId, condition) {
        const room = await this.room(roomId);
        await until(what, () => condition(room));
        return room;
    }

    async join(roomId) {
        await this.roomWhere("the invite", roomId, (room) => room.getMyMembership() === "invite");
        await this.client.joinRoom(roomId);
        return this.roomWhere("the join", roomId, (room) => room.getMyMembership() === "join");
    }

    /** Waits for the event and its decryption. */
    async event(roomId, eventId) {
        const room = await this.room(roomId);
        const event = await until(`event ${eventId}`, () => room.findEventById(eventId));
        await until(`decryption of ${eventId}`, () => {
            return (
                !event.isEncrypted() || (event.getClearContent() && !event.isDecryptionFailure())
            );
        });
        return event;
    }

    /** Sends past the SDK's queue (which a refused event would block) and its encryption. */
    async sendPlain(roomId, type, content, txnId = randomBytes(8).toString("hex")) {
        const path = `/rooms/${encodeURIComponent(roomId)}/send/${type}/${txnId}`;
        return this.request("PUT", path, undefined, content);
    }

    /** Sends a text and answers the event's id. */
    async say(roomId, body, threadId = null) {
        const content = { msgtype: "m.text", body };
        const type = EventType.RoomMessage;
        const answer = await this.client.sendEvent(roomId, threadId, type, content);
        return answer.event_id;
    }

    async hears(roomId, eventId, body) {
        const event = await this.event(roomId, eventId);
        const got = event.getContent().body;
        if (got !== body) {
            throw new Error(`${this.userId} reads ${JSON.stringify(got)}, not ${body}`);
        }
        return event;
    }

    async accountData(type) {
        return until(`account data ${type}`, () => this.client.getAccountData(type)?.getContent());
    }

    #secretStorageKey(keys) {
        const { keyId, privateKey, encoded } = this.recovery ?? {};
        if (!encoded) {
            return null;
        }
        // The id is known once it is the account's default key.
        const id = keyId ?? Object.keys(keys)[0];
        return [id, privateKey ?? decodeRecoveryKey(encoded)];
    }
}
