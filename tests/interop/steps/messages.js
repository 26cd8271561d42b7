// SPDX-License-Identifier: GPL-3.0-or-later
//
// Encrypted rooms, messages in them, encrypted attachments.

import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { EventType, Preset, Visibility } from "matrix-js-sdk";
import { until } from "../lib/checks.js";

const ENCRYPTION = {
    type: EventType.RoomEncryption,
    state_key: "",
    content: { algorithm: "m.megolm.v1.aes-sha2" },
};

async function directRoom({ alice, bob }) {
    const { room_id: roomId } = await alice.client.createRoom({
        preset: Preset.TrustedPrivateChat,
        visibility: Visibility.Private,
        is_direct: true,
        invite: [bob.userId],
        initial_state: [ENCRYPTION],
    });
    await bob.roomWhere("the invite", roomId, (room) => room.getMyMembership() === "invite");
    assert.equal(bob.client.getRoom(roomId).getDMInviter(), alice.userId);
    await bob.join(roomId);
    return roomId;
}

async function groupRoom({ alice, bob, carol }) {
    const { room_id: roomId } = await alice.client.createRoom({
        preset: Preset.PrivateChat,
        name: "Group",
        invite: [bob.userId, carol.userId],
        initial_state: [ENCRYPTION],
    });
    await Promise.all([bob.join(roomId), carol.join(roomId)]);
    return roomId;
}

/** All see all members joined, so that all are given the keys. */
async function everyoneIsIn(roomId, sessions) {
    for (const session of sessions) {
        await (await session.room(roomId)).loadMembersIfNeeded();
        await session.roomWhere("all members", roomId, (room) => {
            return sessions.every(({ userId }) => room.getMember(userId)?.membership === "join");
        });
        assert.equal(await session.crypto.isEncryptionEnabledInRoom(roomId), true);
    }
}

async function sayToAll(roomId, sender, readers, body) {
    const eventId = await sender.say(roomId, body);
    for (const reader of readers) {
        const event = await reader.hears(roomId, eventId, body);
        assert.equal(event.isEncrypted(), true);
        assert.equal(event.getSender(), sender.userId);
    }
    return eventId;
}

async function createRooms(world, checks) {
    const { alice, bob, carol } = world;
    await checks.need("alice invites bob to an encrypted direct room", async () => {
        world.direct = await directRoom(world);
        await everyoneIsIn(world.direct, [alice, bob]);
    });
    await checks.check("the direct room is listed in m.direct", async () => {
        const content = { [bob.userId]: [world.direct] };
        await alice.client.setAccountData(EventType.Direct, content);
        assert.deepEqual(await alice.accountData(EventType.Direct), content);
    });
    await checks.need("three users meet in an encrypted group", async () => {
        world.group = await groupRoom(world);
        await everyoneIsIn(world.group, [alice, bob, carol]);
    });
}

async function talk(world, checks) {
    const { alice, bob, carol } = world;
    await checks.check("alice writes, bob reads", () => {
        return sayToAll(world.direct, alice, [alice, bob], "hello bob");
    });
    await checks.check("bob answers, alice reads", () => {
        return sayToAll(world.direct, bob, [alice, bob], "hello alice");
    });
    await checks.check("each of three writes, the others read", async () => {
        const all = [alice, bob, carol];
        for (const sender of all) {
            await sayToAll(world.group, sender, all, `group hello from ${sender.account.username}`);
        }
    });
    await checks.check("the server never sees the text", async () => {
        const { chunk } = await alice.client.createMessagesRequest(world.group, null, 20, "b");
        const types = chunk.map(({ type }) => type);
        assert.ok(types.includes("m.room.encrypted"));
        assert.ok(!types.includes("m.room.message"));
    });
    await checks.check("all see the messages in one order", async () => {
        const orders = [alice, bob, carol].map(({ client }) => {
            const events = client.getRoom(world.group).getLiveTimeline().getEvents();
            return events.filter((event) => event.isEncrypted()).map((event) => event.getId());
        });
        assert.equal(orders[0].length, 3);
        assert.deepEqual(orders[1], orders[0]);
        assert.deepEqual(orders[2], orders[0]);
    });
    await checks.check("the same transaction id sends once", async () => {
        const content = { msgtype: "m.text", body: "once" };
        const send = () => alice.sendPlain(world.direct, "m.room.message", content, "once-1");
        const [first, second] = [await send(), await send()];
        assert.equal(second.event_id, first.event_id);
    });
}

async function encrypt(plain) {
    const iv = new Uint8Array(16);
    webcrypto.getRandomValues(iv.subarray(0, 8));
    const algorithm = { name: "AES-CTR", length: 256 };
    const key = await webcrypto.subtle.generateKey(algorithm, true, ["encrypt", "decrypt"]);
    const parameters = { name: "AES-CTR", counter: iv, length: 64 };
    const data = new Uint8Array(await webcrypto.subtle.encrypt(parameters, key, plain));
    const hash = await webcrypto.subtle.digest("SHA-256", data);
    const unpadded = (bytes) => Buffer.from(bytes).toString("base64").replace(/=+$/, "");
    const jwk = await webcrypto.subtle.exportKey("jwk", key);
    return {
        data,
        file: { v: "v2", key: jwk, iv: unpadded(iv), hashes: { sha256: unpadded(hash) } },
    };
}

async function decrypt(data, { key: jwk, iv, hashes }) {
    const hash = Buffer.from(await webcrypto.subtle.digest("SHA-256", data));
    assert.equal(hash.toString("base64").replace(/=+$/, ""), hashes.sha256);
    const key = await webcrypto.subtle.importKey("jwk", jwk, "AES-CTR", false, ["decrypt"]);
    const counter = Buffer.from(iv, "base64");
    return webcrypto.subtle.decrypt({ name: "AES-CTR", counter, length: 64 }, key, data);
}

async function attachments(world, checks) {
    const { alice, bob } = world;
    const plain = webcrypto.getRandomValues(new Uint8Array(60000));
    const sent = await checks.check("alice uploads and sends an encrypted file", async () => {
        const { data, file } = await encrypt(plain);
        const type = "application/octet-stream";
        const { content_uri: url } = await alice.client.uploadContent(Buffer.from(data), { type });
        assert.match(url, /^mxc:\/\//);
        const content = { msgtype: "m.file", body: "f", file: { ...file, url }, info: {} };
        const answer = await alice.client.sendEvent(world.direct, null, "m.room.message", content);
        return { eventId: answer.event_id, url };
    });
    const mediaUrl = () =>
        bob.client.mxcUrlToHttp(sent.url, undefined, undefined, undefined, false, true, true);
    await checks.check("bob downloads it with his token and decrypts it", async () => {
        const event = await bob.event(world.direct, sent.eventId);
        const headers = { Authorization: `Bearer ${bob.account.access_token}` };
        const response = await fetch(mediaUrl(), { headers });
        assert.equal(response.status, 200);
        const data = new Uint8Array(await response.arrayBuffer());
        const got = await decrypt(data, event.getContent().file);
        assert.deepEqual(Buffer.from(got), Buffer.from(plain));
    });
    await checks.check("without a token the download is refused", async () => {
        const response = await fetch(mediaUrl());
        assert.equal(response.status, 401);
        assert.equal((await response.json()).errcode, "M_MISSING_TOKEN");
    });
}

/** The rooms `direct` and `group`, and messages and files in them. */
export async function messages(world, checks) {
    checks.section("encrypted rooms");
    await createRooms(world, checks);
    await talk(world, checks);
    await attachments(world, checks);
    await checks.check("alice's keys reach the backup", async () => {
        await until("two sessions in the backup", async () => {
            // The SDK's own call answers from its cache.
            return (await world.alice.request("GET", "/room_keys/version")).count >= 2;
        });
    });
}
