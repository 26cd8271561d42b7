// SPDX-License-Identifier: GPL-3.0-or-later
//
// matrix-js-sdk with its Rust crypto at each server: one encrypted room over all of them.

import assert from "node:assert/strict";
import { EventType, Preset } from "matrix-js-sdk";
import { until } from "../lib/checks.js";
import { register, logIn, Session } from "../lib/session.js";

const ENCRYPTION = {
    type: EventType.RoomEncryption,
    state_key: "",
    content: { algorithm: "m.megolm.v1.aes-sha2" },
};

async function signUp(world, server, name) {
    const place = { ...world, baseUrl: server.url, stream: false };
    const session = new Session(place, await register(place, name));
    session.place = place;
    await session.start();
    return session;
}

async function everyoneIsIn(roomId, sessions) {
    for (const session of sessions) {
        await (await session.room(roomId)).loadMembersIfNeeded();
        await session.roomWhere("all members", roomId, (room) =>
            sessions.every(({ userId }) => room.getMember(userId)?.membership === "join"),
        );
    }
}

async function sayToAll(roomId, sender, readers, body) {
    const eventId = await sender.say(roomId, body);
    for (const reader of readers) {
        const event = await reader.hears(roomId, eventId, body);
        assert.equal(event.isEncrypted(), true);
    }
}

export async function encrypted(world, checks) {
    checks.section("encryption");
    const names = ["alice", "bob", "carol"];
    const sessions = await checks.need("a device at each server", () =>
        Promise.all(world.servers.map((server, i) => signUp(world, server, names[i]))),
    );
    const [host, ...guests] = sessions;
    const roomId = await checks.need("an encrypted room over all servers", async () => {
        const { room_id: id } = await host.client.createRoom({
            preset: Preset.PrivateChat,
            name: "Secret",
            invite: guests.map(({ userId }) => userId),
            initial_state: [ENCRYPTION],
        });
        await Promise.all(guests.map((guest) => guest.join(id)));
        await everyoneIsIn(id, sessions);
        return id;
    });
    for (const sender of sessions) {
        await checks.check(`all read what ${sender.account.username} writes`, () =>
            sayToAll(roomId, sender, sessions, `hello from ${sender.userId}`),
        );
    }
    await checks.check("a new device at each server is given the keys", async () => {
        const seconds = [];
        for (const [i, session] of sessions.entries()) {
            const place = session.place;
            const second = new Session(place, await logIn(place, session.account, `${names[i]} 2`));
            await second.start();
            seconds.push(second);
        }
        for (const sender of sessions) {
            for (const second of seconds) {
                await until(`${sender.userId} knows ${second.deviceId}`, async () => {
                    const known = await sender.crypto.getUserDeviceInfo([second.userId], true);
                    return known.get(second.userId)?.has(second.deviceId);
                });
                const text = `also for ${second.deviceId}, ${sender.userId}`;
                await sayToAll(roomId, sender, [second], text).catch((error) => {
                    throw new Error(`${sender.userId} to ${second.userId} ${second.deviceId}: ${error}`);
                });
            }
        }
    });
}
