// SPDX-License-Identifier: GPL-3.0-or-later
//
// Reactions, edits, threads, redactions; receipts and typing.

import assert from "node:assert/strict";
import { EventType, ReceiptType, RelationType } from "matrix-js-sdk";
import { until } from "../lib/checks.js";

function fetchEvent(session, roomId, eventId) {
    return session.client.fetchRoomEvent(roomId, eventId);
}

async function reactions(world, checks) {
    const { alice, bob, carol } = world;
    const target = await alice.say(world.group, "react to this");
    const key = "👍";
    await checks.check("reactions reach the others", async () => {
        const content = {
            "m.relates_to": { rel_type: RelationType.Annotation, event_id: target, key },
        };
        for (const sender of [bob, carol]) {
            await sender.hears(world.group, target, "react to this");
            await sender.client.sendEvent(world.group, null, EventType.Reaction, content);
        }
        const { relations } = await alice.room(world.group);
        await until("two reactions", () => {
            const found = relations.getChildEventsForEvent(target, "m.annotation", "m.reaction");
            return found?.getSortedAnnotationsByKey()?.[0]?.[1].size === 2;
        });
    });
    await checks.check("a second like reaction of one user is refused", async () => {
        const content = {
            "m.relates_to": { rel_type: RelationType.Annotation, event_id: target, key },
        };
        const again = bob.sendPlain(world.group, EventType.Reaction, content);
        await assert.rejects(again, { errcode: "M_DUPLICATE_ANNOTATION" });
    });
    await checks.check("the reactions are found as relations", async () => {
        const type = EventType.Reaction;
        const answer = await alice.client.relations(world.group, target, "m.annotation", type);
        const senders = answer.events.map((event) => event.getSender()).sort();
        assert.deepEqual(senders, [bob.userId, carol.userId].sort());
    });
}

async function edits(world, checks) {
    const { alice, bob } = world;
    const target = await alice.say(world.group, "frist");
    await checks.check("an edit replaces the text for the others", async () => {
        await bob.hears(world.group, target, "frist");
        await alice.client.sendEvent(world.group, null, EventType.RoomMessage, {
            msgtype: "m.text",
            body: "* first",
            "m.new_content": { msgtype: "m.text", body: "first" },
            "m.relates_to": { rel_type: RelationType.Replace, event_id: target },
        });
        const event = await bob.event(world.group, target);
        await until("the new text", () => event.getContent().body === "first");
        assert.ok(event.replacingEventId());
    });
    await checks.check("the server bundles the edit with the event", async () => {
        const event = await fetchEvent(bob, world.group, target);
        const edit = event.unsigned["m.relations"]["m.replace"];
        assert.equal(edit.sender, alice.userId);
        assert.equal(edit.content["m.relates_to"].event_id, target);
    });
}

async function threads(world, checks) {
    const { alice, bob, carol } = world;
    const root = await alice.say(world.group, "thread root");
    const replies = [];
    await checks.check("replies form a thread that all see", async () => {
        await bob.hears(world.group, root, "thread root");
        replies.push(await bob.say(world.group, "reply 1", root));
        replies.push(await carol.say(world.group, "reply 2", root));
        const room = await alice.room(world.group);
        const thread = await until("the thread", () => room.getThread(root));
        await until("two replies", () => thread.length === 2);
        await until("the last", () => thread.replyToEvent?.getId() === replies[1]);
        await alice.hears(world.group, replies[1], "reply 2");
    });
    await checks.check("thread replies stay out of the main timeline", async () => {
        const events = alice.client.getRoom(world.group).getLiveTimeline().getEvents();
        assert.ok(!events.some((event) => replies.includes(event.getId())));
    });
    await checks.check("the server bundles the thread's summary", async () => {
        const event = await fetchEvent(alice, world.group, root);
        const summary = event.unsigned["m.relations"]["m.thread"];
        assert.equal(summary.count, 2);
        assert.equal(summary.latest_event.event_id, replies[1]);
        assert.equal(summary.current_user_participated, true);
    });
    await checks.check("the list of threads has it", async () => {
        const answer = await alice.client.createThreadListMessagesRequest(world.group, null, 10);
        assert.deepEqual(
            answer.chunk.map((event) => event.event_id),
            [root],
        );
    });
    await threadReceipts(world, checks, root, replies);
}

async function threadReceipts({ alice, bob, group }, checks, root, replies) {
    await checks.check("a threaded receipt comes with its thread", async () => {
        const event = await bob.event(group, replies[1]);
        await bob.client.sendReadReceipt(event);
        const room = await alice.room(group);
        const thread = room.getThread(root);
        await until("the receipt", () => thread.getEventReadUpTo(bob.userId) === replies[1]);
        const data = thread.getReadReceiptForUserId(bob.userId, true)?.data;
        assert.equal(data?.thread_id, root);
    });
}

async function redactions(world, checks) {
    const { alice, bob } = world;
    await checks.check("a redaction removes the text for the others", async () => {
        const target = await bob.say(world.group, "regret");
        const event = await alice.hears(world.group, target, "regret");
        await bob.client.redactEvent(world.group, target, undefined, { reason: "typo" });
        await until("the redaction", () => event.isRedacted());
        const stored = await fetchEvent(alice, world.group, target);
        assert.deepEqual(stored.content, {});
        assert.equal(stored.unsigned.redacted_because.sender, bob.userId);
    });
}

async function receipts(world, checks) {
    const { alice, bob, carol } = world;
    const first = await alice.say(world.group, "read me");
    await checks.check("a public receipt is seen by the others", async () => {
        await bob.client.sendReadReceipt(await bob.event(world.group, first));
        const room = await alice.room(world.group);
        await until("bob's receipt", () => {
            return room.getReadReceiptForUserId(bob.userId, true)?.eventId === first;
        });
    });
    await checks.check("a private receipt is seen by its user alone", async () => {
        const second = await alice.say(world.group, "read me quietly");
        const event = await carol.event(world.group, second);
        await carol.client.sendReadReceipt(event, ReceiptType.ReadPrivate);
        const room = await carol.room(world.group);
        await until("carol's own receipt", () => {
            const type = ReceiptType.ReadPrivate;
            return room.getReadReceiptForUserId(carol.userId, true, type)?.eventId === second;
        });
        // What bob posts later arrives at alice; carol's receipt must not have come before.
        await bob.client.sendReadReceipt(await bob.event(world.group, second));
        const roomOfAlice = await alice.room(world.group);
        await until("bob's receipt", () => {
            return roomOfAlice.getReadReceiptForUserId(bob.userId, true)?.eventId === second;
        });
        const readers = roomOfAlice.getUsersReadUpTo(roomOfAlice.findEventById(second));
        assert.ok(!readers.includes(carol.userId));
    });
    await checks.check("a read marker is kept in the room's account data", async () => {
        await bob.client.setRoomReadMarkers(world.group, first);
        const room = await bob.room(world.group);
        await until("m.fully_read", () => {
            return room.getAccountData("m.fully_read")?.getContent().event_id === first;
        });
    });
}

async function typing({ alice, bob, direct }, checks) {
    await checks.check("typing is seen and ends", async () => {
        const room = await alice.room(direct);
        await bob.client.sendTyping(direct, true, 20000);
        await until("typing", () => room.getMember(bob.userId).typing);
        await bob.client.sendTyping(direct, false, 0);
        await until("the end of it", () => !room.getMember(bob.userId).typing);
    });
}

export async function relations(world, checks) {
    checks.section("relations, receipts, typing");
    await reactions(world, checks);
    await edits(world, checks);
    await threads(world, checks);
    await redactions(world, checks);
    await receipts(world, checks);
    await typing(world, checks);
}
