// SPDX-License-Identifier: GPL-3.0-or-later
//
// Invites, knocks, restricted rooms, kicks, bans, power, aliases, spaces, upgrades across servers.

import assert from "node:assert/strict";
import { ApiError, User } from "../lib/api.js";
import { until } from "../lib/checks.js";
import { allTalk, isMember, oneUserEach, sameState } from "./common.js";

const encode = encodeURIComponent;

function joinRule(rule, allow = []) {
    const conditions = allow.map((room_id) => ({ type: "m.room_membership", room_id }));
    const content = { join_rule: rule, ...(allow.length ? { allow: conditions } : {}) };
    return { type: "m.room.join_rules", state_key: "", content };
}

async function refused(promise, errcode) {
    const error = await promise.then(
        () => assert.fail("was allowed"),
        (reason) => reason,
    );
    assert.ok(error instanceof ApiError, String(error));
    assert.equal(error.errcode, errcode);
}

async function invite(host, guest) {
    const roomId = await host.createRoom({ preset: "private_chat", name: "Come in" });
    await host.invite(roomId, guest.id);
    const room = await guest.syncUntil("the invite", ({ rooms }) => rooms?.invite?.[roomId]);
    const types = room.invite_state.events.map((event) => event.type);
    assert.ok(types.includes("m.room.create"), "the create event is in the invite's state");
    assert.ok(types.includes("m.room.name"), "the name is in the invite's state");
    await guest.join(roomId, host.server.name);
    await isMember(host, roomId, guest.id, "join");
    await allTalk(roomId, [host, guest], "invited");
}

async function rejectedInvite(host, guest) {
    const roomId = await host.createRoom({ preset: "private_chat" });
    await host.invite(roomId, guest.id);
    await guest.syncUntil("the invite", ({ rooms }) => rooms?.invite?.[roomId]);
    await guest.leave(roomId);
    await isMember(host, roomId, guest.id, "leave");
    await guest.syncUntil("the end of the invite", ({ rooms }) => rooms?.leave?.[roomId]);
}

async function withdrawnInvite(host, guest) {
    const roomId = await host.createRoom({ preset: "private_chat" });
    await host.invite(roomId, guest.id);
    await guest.syncUntil("the invite", ({ rooms }) => rooms?.invite?.[roomId]);
    await host.post(`/v3/rooms/${encode(roomId)}/kick`, { user_id: guest.id });
    await guest.syncUntil("the withdrawal", ({ rooms }) => rooms?.leave?.[roomId]);
    await refused(guest.join(roomId, host.server.name), "M_FORBIDDEN");
}

async function knock(host, guest) {
    const roomId = await host.createRoom({
        room_version: "10",
        preset: "private_chat",
        initial_state: [joinRule("knock")],
    });
    await refused(guest.join(roomId, host.server.name), "M_FORBIDDEN");
    await guest.post(`/v3/knock/${encode(roomId)}?server_name=${host.server.name}&via=${host.server.name}`, {
        reason: "let me in",
    });
    await isMember(host, roomId, guest.id, "knock");
    await guest.syncUntil("the knock", ({ rooms }) => rooms?.knock?.[roomId]);
    await host.invite(roomId, guest.id);
    await guest.syncUntil("the answer", ({ rooms }) => rooms?.invite?.[roomId]);
    await guest.join(roomId, host.server.name);
    await isMember(host, roomId, guest.id, "join");
}

async function restricted(host, guest, version) {
    const gate = await host.createRoom({ preset: "public_chat" });
    const roomId = await host.createRoom({
        room_version: version,
        preset: "private_chat",
        initial_state: [joinRule("restricted", [gate])],
    });
    await refused(guest.join(roomId, host.server.name), "M_FORBIDDEN");
    await guest.join(gate, host.server.name);
    await isMember(host, gate, guest.id, "join");
    await guest.join(roomId, host.server.name);
    await isMember(host, roomId, guest.id, "join");
    const member = await guest.stateContent(roomId, "m.room.member", guest.id);
    assert.equal(member.join_authorised_via_users_server, host.id);
    await sameState(roomId, [host, guest]);
}

async function moderation(host, guest, third) {
    const roomId = await host.createRoom({ preset: "public_chat" });
    await guest.join(roomId, host.server.name);
    await third.join(roomId, host.server.name);
    await isMember(guest, roomId, third.id, "join");
    const path = (action) => `/v3/rooms/${encode(roomId)}/${action}`;
    await host.post(path("kick"), { user_id: third.id, reason: "out" });
    await isMember(third, roomId, third.id, "leave");
    await third.join(roomId, guest.server.name);
    await isMember(guest, roomId, third.id, "join");
    await isMember(host, roomId, third.id, "join");
    await host.post(path("ban"), { user_id: third.id });
    await isMember(guest, roomId, third.id, "ban");
    await until("the ban is known to the banned", async () => {
        const error = await third.say(roomId, "still here?").catch((reason) => reason);
        return error instanceof ApiError && error.errcode === "M_FORBIDDEN";
    });
    await refused(third.join(roomId, guest.server.name), "M_FORBIDDEN");
    await host.post(path("unban"), { user_id: third.id });
    await isMember(guest, roomId, third.id, "leave");
    await third.join(roomId, host.server.name);
    await isMember(guest, roomId, third.id, "join");
    const levels = await host.stateContent(roomId, "m.room.power_levels");
    levels.users = { ...levels.users, [guest.id]: 50 };
    await host.setState(roomId, "m.room.power_levels", "", levels);
    await until("the power arrives", async () => {
        const content = await guest.stateContent(roomId, "m.room.power_levels");
        return content.users?.[guest.id] === 50;
    });
    await guest.setState(roomId, "m.room.name", "", { name: "by the moderator" });
    await until("the name arrives", async () => {
        const content = await third.stateContent(roomId, "m.room.name").catch(() => ({}));
        return content.name === "by the moderator";
    });
    await sameState(roomId, [host, guest, third]);
}

async function aliases(host, guest) {
    const name = `room-${host.name}-${guest.name}`;
    const roomId = await host.createRoom({ preset: "public_chat", room_alias_name: name, visibility: "public" });
    const alias = `#${name}:${host.server.name}`;
    const found = await guest.get(`/v3/directory/room/${encode(alias)}`);
    assert.equal(found.room_id, roomId);
    assert.ok(found.servers.includes(host.server.name));
    await guest.post(`/v3/join/${encode(alias)}`);
    await isMember(host, roomId, guest.id, "join");
    const list = await guest.post(`/v3/publicRooms?server=${host.server.name}`, {
        filter: { generic_search_term: name },
    });
    assert.ok(list.chunk.some((room) => room.room_id === roomId), "the room is in the other's list");
}

async function spaces(host, guest) {
    const leaf = await host.createRoom({ preset: "public_chat", name: "Leaf" });
    const hidden = await host.createRoom({ preset: "private_chat", name: "Hidden" });
    const space = await host.createRoom({ preset: "public_chat", creation_content: { type: "m.space" } });
    const via = [host.server.name];
    await host.setState(space, "m.space.child", leaf, { via });
    await host.setState(space, "m.space.child", hidden, { via });
    const own = await guest.createRoom({ preset: "public_chat", creation_content: { type: "m.space" } });
    await guest.setState(own, "m.space.child", space, { via });
    const { rooms } = await guest.get(`/v1/rooms/${encode(own)}/hierarchy`);
    assert.deepEqual(
        rooms.map((room) => room.room_id),
        [own, space, leaf],
    );
    const summary = await guest.get(`/v1/room_summary/${encode(leaf)}?via=${host.server.name}`).catch((error) => error);
    if (!(summary instanceof Error)) {
        assert.equal(summary.name, "Leaf");
    }
}

async function upgrade(host, guest) {
    const old = await host.createRoom({ preset: "public_chat", room_version: "9", name: "Old" });
    await guest.join(old, host.server.name);
    const { replacement_room: fresh } = await host.post(`/v3/rooms/${encode(old)}/upgrade`, { new_version: "11" });
    const stone = await until("the tombstone", () => {
        return guest.stateContent(old, "m.room.tombstone").catch(() => undefined);
    });
    assert.equal(stone.replacement_room, fresh);
    await guest.join(fresh, host.server.name);
    await isMember(host, fresh, guest.id, "join");
    await allTalk(fresh, [host, guest], "upgraded");
}

async function accessList(host, guest) {
    const roomId = await host.createRoom({ preset: "public_chat" });
    await guest.join(roomId, host.server.name);
    await isMember(host, roomId, guest.id, "join");
    const acl = { allow: ["*"], deny: [guest.server.name], allow_ip_literals: true };
    const aclId = await host.setState(roomId, "m.room.server_acl", "", acl);
    const late = await User.register(guest.server, "late");
    await refused(late.join(roomId, host.server.name), "M_FORBIDDEN").catch(async () => {
        // A server in the room may let its own users in; what they do never reaches the others.
        await until("the list", () => guest.event(roomId, aclId).catch(() => undefined));
    });
    const unheard = await guest.say(roomId, "nobody hears this").catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, 500));
    if (unheard) {
        await assert.rejects(host.event(roomId, unheard));
    }
}

export async function joining(world, checks) {
    checks.section("memberships");
    const users = await oneUserEach(world);
    for (const host of users) {
        for (const guest of users) {
            if (host === guest) {
                continue;
            }
            const pair = `${host.server.label} to ${guest.server.label}`;
            const third = users.find((user) => user !== host && user !== guest);
            await checks.check(`an invite, ${pair}`, () => invite(host, guest));
            await checks.check(`a rejected invite, ${pair}`, () => rejectedInvite(host, guest));
            await checks.check(`a withdrawn invite, ${pair}`, () => withdrawnInvite(host, guest));
            await checks.check(`a knock, ${pair}`, () => knock(host, guest));
            await checks.check(`a restricted room, ${pair}`, () => restricted(host, guest, "10"));
            await checks.check(`an alias and the room list, ${pair}`, () => aliases(host, guest));
            await checks.check(`spaces, ${pair}`, () => spaces(host, guest));
            await checks.check(`an upgrade, ${pair}`, () => upgrade(host, guest));
            await checks.check(`an access list, ${pair}`, () => accessList(host, guest));
            if (third) {
                await checks.check(`kick, ban and power, ${pair}`, () => moderation(host, guest, third));
            }
        }
    }
}
