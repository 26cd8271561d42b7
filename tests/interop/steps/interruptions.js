// SPDX-License-Identifier: GPL-3.0-or-later
//
// Connections that break, clients and servers that restart.

import assert from "node:assert/strict";
import { exec } from "node:child_process";
import { promisify } from "node:util";
import { Direction, SyncState } from "matrix-js-sdk";
import { Session } from "../lib/session.js";
import { until } from "../lib/checks.js";

async function sendMany(roomId, senders, count, name) {
    const sent = [];
    for (let n = 1; n <= count; n++) {
        const body = `${name} ${n}`;
        sent.push({ body, eventId: await senders[n % senders.length].say(roomId, body) });
    }
    return sent;
}

/** The room's messages after `markerId`, paging back over a gap; each decrypted. */
async function messagesSince(session, roomId, markerId) {
    const room = await session.room(roomId);
    const isMarker = (event) => event.getId() === markerId;
    let timeline = room.getLiveTimeline();
    let events = [...timeline.getEvents()];
    while (!events.some(isMarker)) {
        const count = timeline.getEvents().length;
        const options = { backwards: true, limit: 10 };
        const more = await session.client.paginateEventTimeline(timeline, options);
        const page = timeline.getEvents();
        events = [...page.slice(0, page.length - count), ...events];
        // Once paging meets what was there before the gap, the SDK links the two.
        const older = timeline.getNeighbouringTimeline(Direction.Backward);
        assert.ok(more || older, "the marker is in the timeline");
        if (older) {
            timeline = older;
            events = [...older.getEvents(), ...events];
        }
    }
    events = events.slice(events.findIndex(isMarker) + 1);
    await until("decryption", () => events.every((event) => event.getClearContent()));
    return events.filter((event) => event.getType() === "m.room.message");
}

async function missesNothing(session, roomId, markerId, sent) {
    const last = sent.at(-1);
    await session.roomWhere("the last message", roomId, (room) => room.findEventById(last.eventId));
    const got = await messagesSince(session, roomId, markerId);
    assert.deepEqual(
        got.map((event) => event.getId()),
        sent.map(({ eventId }) => eventId),
    );
    assert.deepEqual(
        got.map((event) => event.getContent().body),
        sent.map(({ body }) => body),
    );
    assert.equal(new Set(session.liveIds).size, session.liveIds.length, "each event came once");
}

/** Runs `body` while the session has no connection. */
async function unplugged(session, body) {
    session.cable.cut();
    try {
        await until("the SDK's notice", () => session.client.getSyncState() !== SyncState.Syncing);
        return await body();
    } finally {
        await session.reconnect();
    }
}

async function lostConnections(world, checks) {
    const { alice, bob, carol, group } = world;
    await checks.check("who was cut off for 5 messages misses none", async () => {
        const marker = await carol.say(group, "before the short cut");
        await alice.hears(group, marker, "before the short cut");
        const sent = await unplugged(alice, () => sendMany(group, [bob, carol], 5, "short"));
        await missesNothing(alice, group, marker, sent);
    });
    await checks.check("who was cut off for 30 messages misses none, over a gap", async () => {
        const marker = await alice.say(group, "before the long cut");
        await bob.hears(group, marker, "before the long cut");
        const sent = await unplugged(bob, () => sendMany(group, [alice, carol], 30, "long"));
        await missesNothing(bob, group, marker, sent);
    });
    await checks.check("who is cut off again and again sees each message once", async () => {
        const marker = await alice.say(group, "before the flapping");
        await carol.hears(group, marker, "before the flapping");
        const sent = [];
        for (let n = 1; n <= 4; n++) {
            const half = sendMany(group, [alice, bob], 3, `flap ${n}`);
            carol.cable.cut();
            sent.push(...(await half));
            await carol.reconnect();
        }
        await missesNothing(carol, group, marker, sent);
    });
}

async function restartedClient(world, checks) {
    const { alice, direct } = world;
    await checks.check("a client that restarts with its key store reads on", async () => {
        await world.bob.stop();
        const body = "while bob was away";
        const eventId = await alice.say(direct, body);
        const { account } = world.bob;
        world.bob = new Session(world, account, { timelineLimit: 10 });
        await world.bob.start({ keepKeys: true });
        await world.bob.hears(direct, eventId, body);
        const answer = await world.bob.say(direct, "back again");
        await alice.hears(direct, answer, "back again");
    });
}

async function restartedServer(world, checks) {
    const { alice, bob, carol, group } = world;
    const live = [alice, world.alice2, bob, carol];
    const marker = await alice.say(group, "before the restart");
    await carol.hears(group, marker, "before the restart");
    const before = await alice.client.fetchRoomEvent(group, marker);
    await checks.need("the server restarts", async () => {
        await promisify(exec)(world.restartCommand, { timeout: 50000 });
        await until("the server", async () => {
            const response = await fetch(`${world.baseUrl}/_matrix/client/versions`).catch(
                () => {},
            );
            return response?.ok;
        });
    });
    await checks.check("all clients find it again with their old tokens", async () => {
        for (const session of live) {
            await session.reconnect();
        }
    });
    await checks.check("what was stored is unchanged", async () => {
        const after = await alice.client.fetchRoomEvent(group, marker);
        for (const field of ["event_id", "sender", "type", "content", "origin_server_ts"]) {
            assert.deepEqual(after[field], before[field]);
        }
    });
    await checks.check("after it messages go on, none missing, none twice", async () => {
        const sent = await sendMany(group, [alice, bob, carol], 6, "after the restart");
        for (const session of [alice, bob, carol]) {
            await missesNothing(session, group, marker, sent);
        }
    });
}

export async function interruptions(world, checks) {
    checks.section("interruptions");
    await lostConnections(world, checks);
    await restartedClient(world, checks);
    if (world.restartCommand) {
        await restartedServer(world, checks);
    }
}
