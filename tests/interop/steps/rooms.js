// SPDX-License-Identifier: GPL-3.0-or-later
//
// Room settings and membership.

import assert from "node:assert/strict";
import { EventType, Preset } from "matrix-js-sdk";
import { until } from "../lib/checks.js";

const FORBIDDEN = { errcode: "M_FORBIDDEN", httpStatus: 403 };

async function settings({ alice, bob, group }, checks) {
    await checks.check("a new name reaches the others", async () => {
        await alice.client.setRoomName(group, "Group with a new name");
        await bob.roomWhere("the name", group, (room) => room.name === "Group with a new name");
    });
    await checks.check("a new topic reaches the others", async () => {
        await alice.client.setRoomTopic(group, "What we talk about");
        const state = (await bob.room(group)).currentState;
        await until("the topic", () => {
            const topic = state.getStateEvents("m.room.topic", "")?.getContent().topic;
            return topic === "What we talk about";
        });
    });
    await checks.check("who lacks the power is refused", async () => {
        await assert.rejects(bob.client.setRoomName(group, "Bob's"), FORBIDDEN);
    });
    await checks.check("who is given the power may", async () => {
        await alice.client.setPowerLevel(group, bob.userId, 50);
        await bob.roomWhere("the power", group, (room) => {
            return room.getMember(bob.userId).powerLevel === 50;
        });
        await bob.client.setRoomName(group, "Bob's");
        await alice.roomWhere("the name", group, (room) => room.name === "Bob's");
    });
    await checks.check("nobody gives more power than they have", async () => {
        await assert.rejects(bob.client.setPowerLevel(group, bob.userId, 100), FORBIDDEN);
    });
    await checks.check("a changed display name reaches the rooms", async () => {
        await alice.client.setDisplayName("Alice B.");
        await bob.roomWhere("the name", group, (room) => {
            return room.getMember(alice.userId).rawDisplayName === "Alice B.";
        });
    });
}

function becomes(session, roomId, membership) {
    return session.roomWhere(`membership ${membership}`, roomId, (room) => {
        return room.getMyMembership() === membership;
    });
}

async function kick({ alice, carol, group }, checks) {
    await checks.check("who is kicked is out", async () => {
        await alice.client.kick(group, carol.userId, "a test");
        await becomes(carol, group, "leave");
        const content = { msgtype: "m.text", body: "still here?" };
        await assert.rejects(carol.sendPlain(group, "m.room.message", content), FORBIDDEN);
    });
    await checks.check("who is out receives nothing", async () => {
        const eventId = await alice.say(group, "not for carol");
        // A later event that she does see closes the window in which the first could come.
        await carol.client.setAccountData("io.myelin.interop.fence", { after: eventId });
        await until("the fence", () => {
            const fence = carol.client.getAccountData("io.myelin.interop.fence");
            return fence?.getContent().after === eventId;
        });
        assert.equal(carol.client.getRoom(group).findEventById(eventId), undefined);
        await assert.rejects(carol.client.fetchRoomEvent(group, eventId));
    });
    await checks.check("who is invited back reads on", async () => {
        await alice.client.invite(group, carol.userId);
        await carol.join(group);
        await alice.roomWhere("carol", group, (room) => {
            return room.getMember(carol.userId).membership === "join";
        });
        const eventId = await alice.say(group, "welcome back");
        await carol.hears(group, eventId, "welcome back");
    });
}

async function ban({ alice, carol, group }, checks) {
    await checks.check("who is banned stays out", async () => {
        await alice.client.ban(group, carol.userId, "a test");
        await becomes(carol, group, "ban");
        await assert.rejects(carol.client.joinRoom(group), { httpStatus: 403 });
        await assert.rejects(alice.client.invite(group, carol.userId), { httpStatus: 403 });
    });
    await checks.check("who is unbanned may come back", async () => {
        await alice.client.unban(group, carol.userId);
        await becomes(carol, group, "leave");
        await alice.client.invite(group, carol.userId);
        await carol.join(group);
    });
    await checks.check("who leaves is gone, and may forget", async () => {
        await carol.client.leave(group);
        await becomes(carol, group, "leave");
        await alice.roomWhere("her leave", group, (room) => {
            return room.getMember(carol.userId).membership === "leave";
        });
        await carol.client.forget(group);
        assert.equal(carol.client.getRoom(group), null);
    });
}

async function publicRoom({ alice, carol }, checks) {
    await checks.check("a public room is found by its alias and joined", async () => {
        const alias = `interop-${Date.now()}`;
        const { room_id: roomId } = await alice.client.createRoom({
            preset: Preset.PublicChat,
            room_alias_name: alias,
            topic: "open to all",
        });
        const name = `#${alias}:${alice.userId.replace(/^[^:]*:/, "")}`;
        const found = await carol.client.getRoomIdForAlias(name);
        assert.equal(found.room_id, roomId);
        const room = await carol.client.joinRoom(name);
        assert.equal(room.roomId, roomId);
        await becomes(carol, roomId, "join");
        const create = (await carol.room(roomId)).currentState.getStateEvents(
            EventType.RoomCreate,
            "",
        );
        assert.equal(create.getSender(), alice.userId);
    });
}

export async function rooms(world, checks) {
    checks.section("rooms and members");
    await settings(world, checks);
    await kick(world, checks);
    await ban(world, checks);
    await publicRoom(world, checks);
}
