// SPDX-License-Identifier: GPL-3.0-or-later
//
// Searching the texts of a room that is not encrypted, and the user directory.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { Preset } from "matrix-js-sdk";
import { until } from "../lib/checks.js";

const bodies = (found) => found.results.map(({ context }) => context.getEvent().getContent().body);

async function texts({ alice, carol }, checks) {
    const word = `s${randomBytes(6).toString("hex")}`;
    const { room_id: roomId } = await alice.client.createRoom({ preset: Preset.PublicChat });
    await carol.client.joinRoom(roomId);
    const send = (body) => alice.sendPlain(roomId, "m.room.message", { msgtype: "m.text", body });
    const ids = [];
    for (let i = 1; i <= 12; i++) {
        ids.push((await send(`${word} number ${i}`)).event_id);
    }
    await checks.check("a text is found, with what stands around it", async () => {
        const found = await carol.client.searchRoomEvents({
            term: `${word} 7`,
            filter: { rooms: [roomId] },
        });
        assert.equal(found.count, 1);
        const context = found.results[0].context;
        assert.equal(context.getEvent().getId(), ids[6]);
        const around = context.getTimeline().map((event) => event.getId());
        assert.ok(around.includes(ids[5]) && around.includes(ids[7]));
    });
    await checks.check("older results come page by page", async () => {
        const found = await carol.client.searchRoomEvents({ term: word });
        assert.equal(found.count, 12);
        assert.ok(found.highlights.includes(word));
        await carol.client.backPaginateRoomEventsSearch(found);
        assert.equal(found.results.length, 12);
        assert.deepEqual(bodies(found)[0], `${word} number 12`);
        assert.deepEqual(bodies(found)[11], `${word} number 1`);
    });
    await checks.check("a redacted text is found no more", async () => {
        await alice.client.redactEvent(roomId, ids[0]);
        const found = await carol.client.searchRoomEvents({ term: word });
        assert.equal(found.count, 11);
    });
}

async function people({ alice, carol }, checks) {
    await checks.check("a user is found by name", async () => {
        const name = `Found ${randomBytes(6).toString("hex")}`;
        await alice.client.setDisplayName(name);
        await until("the user", async () => {
            const { results, limited } = await carol.client.searchUserDirectory({ term: name });
            return !limited && results.length === 1 && results[0].user_id === alice.userId;
        });
    });
    await checks.check("and by id", async () => {
        const { results } = await carol.client.searchUserDirectory({ term: alice.userId });
        assert.equal(results[0].user_id, alice.userId);
        assert.ok(!results.some(({ user_id: userId }) => userId === carol.userId));
    });
}

export async function search(world, checks) {
    await texts(world, checks);
    await people(world, checks);
}
