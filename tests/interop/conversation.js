// SPDX-License-Identifier: GPL-3.0-or-later
//
// alice at one homeserver and bob at another meet in an encrypted room and talk; what tools/demo
// prints. URLs, names and the CA come from the environment, set by that script.

import { Preset, EventType } from "matrix-js-sdk";
import "./lib/globals.js";
import { register, Session } from "./lib/session.js";

const { NORTH_URL, SOUTH_URL } = process.env;
const SAYINGS = [
    ["alice", "Hello bob, do you read me over there?"],
    ["bob", "Loud and clear. What does your server know of this?"],
    ["alice", "Who writes to whom, and when. Not what."],
    ["bob", "And mine the same. Good evening to the north!"],
];

const print = (text) => process.stdout.write(`${text}\n`);
for (const level of ["debug", "log", "info", "warn", "error", "trace"]) {
    console[level] = () => {};
}

async function signUp(name, baseUrl, sessions) {
    const world = { baseUrl, stream: false, sessions };
    const session = new Session(world, await register(world, name));
    await session.start();
    print(`${session.userId} signed up at ${baseUrl} (password ${session.account.password})`);
    return session;
}

async function meet(alice, bob) {
    const { room_id: roomId } = await alice.client.createRoom({
        preset: Preset.TrustedPrivateChat,
        name: "Across",
        invite: [bob.userId],
        initial_state: [
            {
                type: EventType.RoomEncryption,
                state_key: "",
                content: { algorithm: "m.megolm.v1.aes-sha2" },
            },
        ],
    });
    print(`alice opened the encrypted room ${roomId} and invited bob`);
    await bob.join(roomId);
    for (const session of [alice, bob]) {
        await session.roomWhere("both members", roomId, (room) => {
            return [alice, bob].every(({ userId }) => room.getMember(userId)?.membership === "join");
        });
    }
    print("bob joined through his own server\n");
    return roomId;
}

const sessions = [];
const people = {
    alice: await signUp("alice", NORTH_URL, sessions),
    bob: await signUp("bob", SOUTH_URL, sessions),
};
const roomId = await meet(people.alice, people.bob);
for (const [name, text] of SAYINGS) {
    const eventId = await people[name].say(roomId, text);
    const reader = name === "alice" ? people.bob : people.alice;
    const event = await reader.hears(roomId, eventId, text);
    const how = event.isEncrypted() ? "decrypted" : "NOT ENCRYPTED";
    print(`  ${name}: ${text}   [${how} by ${reader.userId}]`);
}
for (const session of sessions) {
    await session.stop();
}
process.exit(0);
