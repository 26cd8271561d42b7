// SPDX-License-Identifier: GPL-3.0-or-later
//
// What else a client does on an ordinary day.

import assert from "node:assert/strict";
import { createClient, JoinRule, Preset } from "matrix-js-sdk";
import { logIn } from "../lib/session.js";
import { until } from "../lib/checks.js";
import { withPassword } from "./accounts.js";

async function statusOf(world, token) {
    const response = await fetch(`${world.baseUrl}/_matrix/client/v3/account/whoami`, {
        headers: { Authorization: `Bearer ${token}` },
    });
    return response.status;
}

async function presence({ alice, bob }, checks) {
    await checks.check("presence and its message reach who shares a room", async () => {
        await alice.client.setPresence({ presence: "online", status_msg: "testing" });
        await until("alice's presence", () => {
            const user = bob.client.getUser(alice.userId);
            return user?.presence === "online" && user.presenceStatusMsg === "testing";
        });
    });
}

async function sessions(world, checks) {
    const { alice } = world;
    const third = await checks.check("a device can be renamed", async () => {
        const account = await logIn(world, alice.account, "alice 3");
        const changes = { display_name: "alice's third" };
        await alice.client.setDeviceDetails(account.device_id, changes);
        const device = await alice.client.getDevice(account.device_id);
        assert.equal(device.display_name, "alice's third");
        return account;
    });
    await checks.check("deleting a device asks for the password and ends its token", async () => {
        assert.equal(await statusOf(world, third.access_token), 200);
        await withPassword(alice)((auth) => {
            return alice.client.deleteDevice(third.device_id, auth ?? undefined);
        });
        assert.equal(await statusOf(world, third.access_token), 401);
    });
    await checks.check("an access token can be refreshed", async () => {
        const login = {
            type: "m.login.password",
            identifier: { type: "m.id.user", user: alice.account.username },
            password: alice.account.password,
            refresh_token: true,
        };
        const first = await alice.client.loginRequest(login);
        const unknown = createClient({ baseUrl: world.baseUrl });
        const refreshed = await unknown.refreshToken(first.refresh_token);
        assert.notEqual(refreshed.access_token, first.access_token);
        assert.equal(await statusOf(world, refreshed.access_token), 200);
        // Once the new token has been used, the old pair cannot be refreshed again.
        await assert.rejects(unknown.refreshToken(first.refresh_token));
    });
}

async function password(world, checks) {
    const { carol } = world;
    await checks.check("a new password replaces the old one", async () => {
        const { username, password: old } = carol.account;
        const changed = `${old}-new`;
        await withPassword(carol)((auth) => carol.client.setPassword(auth, changed, false));
        await assert.rejects(logIn(world, carol.account, "old"), { errcode: "M_FORBIDDEN" });
        carol.account.password = changed;
        await logIn(world, { username, password: changed }, "new");
        assert.equal(await statusOf(world, carol.account.access_token), 200);
    });
}

async function history({ alice, bob, group }, checks) {
    await checks.check("an old event is found with what was around it", async () => {
        const { chunk } = await alice.client.createMessagesRequest(group, null, 100, "b");
        const isMessage = ({ type, content }) =>
            type === "m.room.encrypted" && !content["m.relates_to"];
        const target = chunk.filter(isMessage).at(-1);
        const room = await bob.room(group);
        const set = room.getUnfilteredTimelineSet();
        const timeline = await bob.client.getEventTimeline(set, target.event_id);
        const ids = timeline.getEvents().map((event) => event.getId());
        assert.ok(ids.includes(target.event_id));
        assert.ok(ids.length > 1);
    });
    await checks.check("paging back reaches the creation of the room", async () => {
        const types = new Set();
        let token = null;
        let pages = 0;
        do {
            const page = await bob.client.createMessagesRequest(group, token, 40, "b");
            page.chunk.forEach((event) => types.add(event.type));
            token = page.end;
        } while (token && ++pages < 50);
        assert.ok(types.has("m.room.create"));
    });
}

async function directory({ alice, carol }, checks) {
    await checks.check("a published room is found in the list", async () => {
        const name = `Listed ${Date.now()}`;
        const options = { preset: Preset.PublicChat, visibility: "public", name };
        const { room_id: roomId } = await alice.client.createRoom(options);
        const filter = { generic_search_term: name };
        const { chunk } = await carol.client.publicRooms({ filter });
        assert.deepEqual(
            chunk.map((room) => room.room_id),
            [roomId],
        );
        assert.equal(chunk[0].num_joined_members, 1);
    });
}

async function knocking({ alice, carol }, checks) {
    await checks.check("who knocks is seen and let in", async () => {
        const { room_id: roomId } = await alice.client.createRoom({
            preset: Preset.PrivateChat,
            name: "Knock first",
            initial_state: [
                {
                    type: "m.room.join_rules",
                    state_key: "",
                    content: { join_rule: JoinRule.Knock },
                },
            ],
        });
        await carol.client.knockRoom(roomId, { reason: "please" });
        await carol.roomWhere("the knock", roomId, (room) => room.getMyMembership() === "knock");
        await alice.roomWhere("the knock", roomId, (room) => {
            return room.getMember(carol.userId)?.membership === "knock";
        });
        await alice.client.invite(roomId, carol.userId);
        await carol.join(roomId);
    });
}

async function uploads({ alice, bob, baseUrl }, checks) {
    const bytes = Buffer.from("a file that was announced first");
    const authorization = (session) => ({
        Authorization: `Bearer ${session.account.access_token}`,
    });
    await checks.check("an upload can be announced and sent later", async () => {
        const created = await alice.request("POST", "/create", undefined, {}, "/_matrix/media/v1");
        const id = created.content_uri.replace(/^mxc:\/\//, "");
        const upload = await fetch(`${baseUrl}/_matrix/media/v3/upload/${id}`, {
            method: "PUT",
            headers: { ...authorization(alice), "Content-Type": "text/plain" },
            body: bytes,
        });
        assert.equal(upload.status, 200);
        const response = await fetch(`${baseUrl}/_matrix/client/v1/media/download/${id}`, {
            headers: authorization(bob),
        });
        assert.match(response.headers.get("Content-Type"), /^text\/plain\b/);
        assert.deepEqual(Buffer.from(await response.arrayBuffer()), bytes);
    });
    await checks.check("the largest upload is told", async () => {
        const config = await alice.client.getMediaConfig(true);
        assert.ok(config["m.upload.size"] > 0);
    });
}

export async function daily(world, checks) {
    checks.section("a client's day");
    await presence(world, checks);
    await sessions(world, checks);
    await password(world, checks);
    await history(world, checks);
    await directory(world, checks);
    await knocking(world, checks);
    await uploads(world, checks);
}

/** Carol's account ends. */
export async function deactivation(world, checks) {
    const { carol, bob } = world;
    await checks.check("a deactivated account cannot log in and leaves its rooms", async () => {
        const joined = (await carol.client.getJoinedRooms()).joined_rooms;
        assert.ok(joined.length > 0);
        await withPassword(carol)((auth) =>
            carol.client.deactivateAccount(auth ?? undefined, true),
        );
        await assert.rejects(logIn(world, carol.account, "gone"), { httpStatus: 403 });
        assert.equal(await statusOf(world, carol.account.access_token), 401);
        await bob.roomWhere("carol's leave", world.plain, (room) => {
            return room.getMember(carol.userId)?.membership === "leave";
        });
    });
}
