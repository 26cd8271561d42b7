// SPDX-License-Identifier: GPL-3.0-or-later
//
// Two new users, dora on sliding sync by matrix-js-sdk's own class, emil by /sync.

import assert from "node:assert/strict";
import { NotificationCountType, Preset } from "matrix-js-sdk";
import { SlidingSync } from "matrix-js-sdk/lib/sliding-sync.js";
import { until } from "../lib/checks.js";
import { register, Session } from "../lib/session.js";

const ENCRYPTION = {
    type: "m.room.encryption",
    state_key: "",
    content: { algorithm: "m.megolm.v1.aes-sha2" },
};
const STATE = [
    ["m.room.name", ""],
    ["m.room.encryption", ""],
    ["m.room.power_levels", ""],
    ["m.room.create", ""],
    ["m.room.member", "$LAZY"],
    ["m.room.member", "$ME"],
];

function slidingSync(world) {
    const lists = new Map([
        ["recent", { ranges: [[0, 1]], timeline_limit: 5, required_state: STATE, filters: {} }],
    ]);
    const subscription = { timeline_limit: 20, required_state: [["*", "*"]] };
    return (client) => new SlidingSync(world.baseUrl, lists, subscription, client, 10000);
}

async function signUp(world) {
    const withClass = { sliding: slidingSync(world) };
    const dora = new Session({ ...world, stream: false }, await register(world, "dora"), withClass);
    const emil = new Session(world, await register(world, "emil"));
    await dora.start();
    await emil.start();
    return { dora, emil, list: dora.client.clientOpts.slidingSync };
}

async function encryptedRoom({ dora, emil }) {
    const { room_id: roomId } = await emil.client.createRoom({
        preset: Preset.PrivateChat,
        name: "Terrace",
        invite: [dora.userId],
        initial_state: [ENCRYPTION],
    });
    await dora.join(roomId);
    await emil.roomWhere("dora", roomId, (room) => {
        return room.getMember(dora.userId)?.membership === "join";
    });
    return roomId;
}

async function otherRooms({ dora, list }) {
    const ids = [];
    for (const name of ["One", "Two", "Three"]) {
        ids.push((await dora.client.createRoom({ name })).room_id);
    }
    await until("the rooms", () => dora.client.getRoom(ids[2])?.name === "Three");
    await until("their number", () => list.getListData("recent")?.joinedCount === 4);
    return ids;
}

async function unreadFollows({ dora, emil }, roomId) {
    const eventId = await emil.say(roomId, `${dora.userId}, look`);
    const room = await dora.room(roomId);
    const total = () => room.getUnreadNotificationCount(NotificationCountType.Total);
    const event = await dora.hears(roomId, eventId, `${dora.userId}, look`);
    await until("unread", () => total() > 0);
    await dora.client.sendReadReceipt(event);
    await until("read", () => total() === 0);
}

export async function sliding(world, checks) {
    checks.section("sliding sync");
    const people = await checks.need("a client starts on sliding sync", () => signUp(world));
    const { dora, emil, list } = people;
    const roomId = await checks.need("an invite comes, and the join", () => encryptedRoom(people));
    await checks.check("the room has its name", async () => {
        await dora.roomWhere("the name", roomId, (room) => room.name === "Terrace");
    });
    await checks.check("encrypted messages go both ways", async () => {
        const hello = await emil.say(roomId, "hello dora");
        await dora.hears(roomId, hello, "hello dora");
        await emil.hears(roomId, await dora.say(roomId, "hello emil"), "hello emil");
    });
    await checks.check("the list counts all rooms", () => otherRooms(people));
    await checks.check("a message out of the window brings its room into it", async () => {
        await dora.hears(roomId, await emil.say(roomId, "still there?"), "still there?");
    });
    await checks.check("a subscription brings older events", async () => {
        const ids = [];
        for (let i = 0; i < 8; i++) {
            ids.push(await emil.say(roomId, `number ${i}`));
        }
        list.modifyRoomSubscriptions(new Set([roomId]));
        await dora.hears(roomId, ids[0], "number 0");
        await dora.hears(roomId, ids[7], "number 7");
    });
    await checks.check("unread counts follow receipts", () => unreadFollows(people, roomId));
    await checks.check("a new name is seen", async () => {
        await emil.client.setRoomName(roomId, "Balcony");
        await dora.roomWhere("the name", roomId, (room) => room.name === "Balcony");
    });
    await checks.check("who is kicked learns of it", async () => {
        await emil.client.kick(roomId, dora.userId);
        await dora.roomWhere("the kick", roomId, (room) => room.getMyMembership() === "leave");
        assert.equal(dora.client.getRoom(roomId).getMember(dora.userId).membership, "leave");
    });
    await dora.stop();
    await emil.stop();
    world.sessions.splice(world.sessions.indexOf(emil), 1);
}
