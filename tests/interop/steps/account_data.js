// SPDX-License-Identifier: GPL-3.0-or-later
//
// Account data, tags, push rules and unread counts, as seen on two devices of alice.

import assert from "node:assert/strict";
import { NotificationCountType, Preset, PushRuleKind } from "matrix-js-sdk";
import { until } from "../lib/checks.js";

async function accountData({ alice, alice2, direct }, checks) {
    await checks.check("account data reaches the other device", async () => {
        const content = { colour: "green", list: [1, 2, { deep: true }] };
        await alice.client.setAccountData("io.myelin.interop", content);
        assert.deepEqual(await alice2.accountData("io.myelin.interop"), content);
    });
    await checks.check("room account data reaches the other device", async () => {
        const content = { draft: "unsent" };
        await alice.client.setRoomAccountData(direct, "io.myelin.interop", content);
        const room = await alice2.room(direct);
        await until("the data", () => {
            return room.getAccountData("io.myelin.interop")?.getContent().draft === "unsent";
        });
    });
    await checks.check("tags reach the other device and go", async () => {
        await alice.client.setRoomTag(direct, "m.favourite", { order: 0.25 });
        const room = await alice2.room(direct);
        await until("the tag", () => room.tags["m.favourite"]?.order === 0.25);
        await alice2.client.deleteRoomTag(direct, "m.favourite");
        await until("its end", () => !room.tags["m.favourite"]);
    });
    await checks.check("an ignored user is not heard", async () => {
        await alice.client.setIgnoredUsers(["@nobody:example.org"]);
        await until("the list", () => alice2.client.isUserIgnored("@nobody:example.org"));
        await alice.client.setIgnoredUsers([]);
        await until("its end", () => !alice2.client.isUserIgnored("@nobody:example.org"));
    });
}

/** An unencrypted room: there the counts are the server's own. */
async function plainRoom({ alice, bob, carol }) {
    const { room_id: roomId } = await alice.client.createRoom({
        preset: Preset.PrivateChat,
        name: "Plain",
        invite: [bob.userId, carol.userId],
    });
    await bob.join(roomId);
    await carol.join(roomId);
    return roomId;
}

function counts(session, roomId) {
    const room = session.client.getRoom(roomId);
    const total = room?.getUnreadNotificationCount(NotificationCountType.Total);
    const highlight = room?.getUnreadNotificationCount(NotificationCountType.Highlight);
    return `${total}/${highlight}`;
}

function counted(session, roomId, expected) {
    return until(`unread ${expected}, not ${counts(session, roomId)}`, () => {
        return counts(session, roomId) === expected;
    });
}

async function unread(world, checks, roomId) {
    const { alice, alice2, bob } = world;
    let last;
    await checks.check("messages count as unread on both devices", async () => {
        for (const body of ["one", "two", "three"]) {
            last = await bob.say(roomId, body);
        }
        await counted(alice, roomId, "3/0");
        await counted(alice2, roomId, "3/0");
    });
    await checks.check("a mention counts as highlight", async () => {
        const answer = await bob.client.sendEvent(roomId, null, "m.room.message", {
            msgtype: "m.text",
            body: "you there",
            "m.mentions": { user_ids: [alice.userId] },
        });
        last = answer.event_id;
        await counted(alice, roomId, "4/1");
    });
    await checks.check("reading resets the counts on both devices", async () => {
        await alice.client.sendReadReceipt(await alice.event(roomId, last));
        await counted(alice, roomId, "0/0");
        await counted(alice2, roomId, "0/0");
    });
    await checks.check("one's own messages do not count", async () => {
        await alice.say(roomId, "my own");
        const eventId = await bob.say(roomId, "one more");
        await alice2.event(roomId, eventId);
        await counted(alice2, roomId, "1/0");
        await alice.event(roomId, eventId); // she reads it next
    });
    await checks.check("a private receipt resets the counts too", async () => {
        const room = await alice.room(roomId);
        const event = room.getLiveTimeline().getEvents().at(-1);
        await alice.client.sendReadReceipt(event, "m.read.private");
        await counted(alice2, roomId, "0/0");
    });
}

async function pushRules(world, checks, roomId) {
    const { alice, alice2, bob } = world;
    await checks.check("a push rule reaches the other device", async () => {
        const rule = { actions: [] };
        await alice.client.addPushRule("global", PushRuleKind.RoomSpecific, roomId, rule);
        await until("the rule", () => {
            return alice2.client.getRoomPushRule("global", roomId)?.rule_id === roomId;
        });
    });
    await checks.check("a muted room counts nothing but mentions", async () => {
        await bob.say(roomId, "muted");
        const { event_id: eventId } = await bob.client.sendEvent(roomId, null, "m.room.message", {
            msgtype: "m.text",
            body: "not muted",
            "m.mentions": { user_ids: [alice.userId] },
        });
        await alice.event(roomId, eventId);
        await counted(alice, roomId, "1/1");
    });
    await checks.check("without the rule messages count again", async () => {
        await alice.client.deletePushRule("global", PushRuleKind.RoomSpecific, roomId);
        await until("its end", () => !alice2.client.getRoomPushRule("global", roomId));
        await bob.say(roomId, "loud");
        await counted(alice, roomId, "2/1");
    });
    await checks.check("a default rule can be switched off and on", async () => {
        const kind = PushRuleKind.Underride;
        const enabled = async () => {
            const rules = await alice.client.getPushRules();
            return rules.global[kind].find((rule) => rule.rule_id === ".m.rule.message").enabled;
        };
        await alice.client.setPushRuleEnabled("global", kind, ".m.rule.message", false);
        assert.equal(await enabled(), false);
        await alice.client.setPushRuleEnabled("global", kind, ".m.rule.message", true);
        assert.equal(await enabled(), true);
    });
}

export async function account(world, checks) {
    checks.section("account data, push rules, unread counts");
    await accountData(world, checks);
    const roomId = await checks.check("three users meet in a plain room", () => plainRoom(world));
    world.plain = roomId;
    await unread(world, checks, roomId);
    await pushRules(world, checks, roomId);
}
