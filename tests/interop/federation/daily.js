// SPDX-License-Identifier: GPL-3.0-or-later
//
// What goes along with messages: receipts, typing, presence, profiles, media, to-device messages.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { until } from "../lib/checks.js";
import { isMember, oneUserEach } from "./common.js";

const encode = encodeURIComponent;

function ephemeral(answer, roomId, type) {
    const events = answer.rooms?.join?.[roomId]?.ephemeral?.events ?? [];
    return events.filter((event) => event.type === type);
}

async function typing(from, to, roomId) {
    const path = `/v3/rooms/${encode(roomId)}/typing/${encode(from.id)}`;
    await to.sync();
    await from.put(path, { typing: true, timeout: 20000 });
    const types = (wanted) => (answer) =>
        ephemeral(answer, roomId, "m.typing").some((event) => event.content.user_ids.includes(from.id) === wanted);
    await to.syncUntil(`${from.id} types`, types(true));
    await from.put(path, { typing: false });
    await to.syncUntil(`${from.id} stops typing`, types(false));
}

async function receipt(from, to, roomId, threadId) {
    const eventId = await to.say(roomId, "read me");
    await from.sees(roomId, eventId);
    await to.sync();
    const body = threadId ? { thread_id: threadId } : {};
    await from.post(`/v3/rooms/${encode(roomId)}/receipt/m.read/${encode(eventId)}`, body);
    const found = await to.syncUntil(`the receipt of ${from.id}`, (answer) =>
        ephemeral(answer, roomId, "m.receipt").map((event) => event.content[eventId]?.["m.read"]?.[from.id]).find(Boolean),
    );
    assert.equal(found.thread_id, threadId);
}

async function presence(from, to) {
    await to.sync();
    const status = `busy ${randomBytes(3).toString("hex")}`;
    await from.put(`/v3/presence/${encode(from.id)}/status`, { presence: "online", status_msg: status });
    await to.syncUntil(`presence of ${from.id}`, (answer) =>
        (answer.presence?.events ?? []).some(
            (event) => event.sender === from.id && event.content.status_msg === status,
        ),
    );
}

async function profile(from, to, roomId) {
    const name = `New ${randomBytes(3).toString("hex")}`;
    await from.put(`/v3/profile/${encode(from.id)}/displayname`, { displayname: name });
    await until("the new name in the room", async () => {
        const member = await to.stateContent(roomId, "m.room.member", from.id);
        return member.displayname === name;
    });
}

async function media(from, to) {
    const bytes = randomBytes(300000);
    const answer = await from.ask("POST", "/_matrix/media/v3/upload?filename=random.bin", new Uint8Array(bytes), {
        headers: { "Content-Type": "application/octet-stream" },
    });
    const [server, id] = answer.content_uri.slice("mxc://".length).split("/");
    const got = await to.get(`/v1/media/download/${server}/${id}`, { raw: true });
    assert.deepEqual(Buffer.from(got), bytes);
    await assert.rejects(to.get(`/v1/media/download/${server}/nothingHere`), (error) => error.status === 404);
}

async function toDevice(from, to) {
    const secret = randomBytes(8).toString("hex");
    const messages = { [to.id]: { [to.deviceId]: { secret } } };
    await to.sync();
    await from.put(`/v3/sendToDevice/org.example.secret/${secret}`, { messages });
    const event = await to.syncUntil("the to-device message", (answer) =>
        (answer.to_device?.events ?? []).find((found) => found.content.secret === secret),
    );
    assert.equal(event.sender, from.id);
    const again = await to.sync();
    assert.equal((again.to_device?.events ?? []).length, 0, "delivered once");
}

export async function daily(world, checks) {
    checks.section("daily life");
    const users = await oneUserEach(world);
    const [host] = users;
    const roomId = await host.createRoom({ preset: "public_chat" });
    for (const user of users.slice(1)) {
        await user.join(roomId, host.server.name);
    }
    for (const user of users) {
        for (const other of users) {
            await isMember(user, roomId, other.id, "join");
        }
    }
    for (const from of users) {
        for (const to of users.filter((user) => user !== from)) {
            const pair = `${from.server.label} to ${to.server.label}`;
            await checks.check(`typing, ${pair}`, () => typing(from, to, roomId));
            await checks.check(`a receipt, ${pair}`, () => receipt(from, to, roomId));
            await checks.check(`a receipt of a thread, ${pair}`, () => receipt(from, to, roomId, "main"));
            await checks.check(`presence, ${pair}`, () => presence(from, to));
            await checks.check(`a new name, ${pair}`, () => profile(from, to, roomId));
            await checks.check(`media, ${pair}`, () => media(from, to));
            await checks.check(`a to-device message, ${pair}`, () => toDevice(from, to));
        }
    }
}
