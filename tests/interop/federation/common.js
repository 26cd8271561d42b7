// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the parts of the federation run share.

import assert from "node:assert/strict";
import { User } from "../lib/api.js";
import { until } from "../lib/checks.js";

/** One user at each server, in the order of the servers. */
export async function oneUserEach({ servers }, names = ["alice", "bob", "carol"]) {
    return Promise.all(servers.map((server, i) => User.register(server, names[i])));
}

/** Every user in the room says something that every other one sees. */
export async function allTalk(roomId, users, word) {
    for (const speaker of users) {
        const eventId = await speaker.say(roomId, `${word} from ${speaker.name}`);
        for (const reader of users) {
            const event = await reader.sees(roomId, eventId);
            assert.equal(event.content.body, `${word} from ${speaker.name}`);
            assert.equal(event.sender, speaker.id);
        }
    }
}

/** All servers come to the same state, event by event. */
export async function sameState(roomId, users, timeoutMs = 20000) {
    let states;
    await until(
        "equal state",
        async () => {
            states = await Promise.all(users.map((user) => user.state(roomId)));
            return states.every((state) => state.join() === states[0].join());
        },
        timeoutMs,
    ).catch(() => {
        states.forEach((state) => assert.deepEqual(state, states[0]));
    });
}

/** All have the same events in their timelines (their order is each server's own). */
export async function sameTimeline(roomId, users, eventIds, timeoutMs = 20000) {
    for (const user of users) {
        let missing;
        await until(
            `the whole timeline at ${user.server.label}`,
            async () => {
                const ids = await user.timeline(roomId);
                assert.equal(new Set(ids).size, ids.length, "an event twice in the timeline");
                missing = eventIds.filter((id) => !ids.includes(id));
                return missing.length === 0;
            },
            timeoutMs,
        ).catch((error) => {
            throw new Error(`${user.server.label} misses ${missing.length}: ${missing}: ${error}`);
        });
    }
}

/** Settles when a user's membership, as another user's server sees it, is this. */
export function isMember(observer, roomId, userId, membership) {
    return until(
        `${userId} is ${membership} at ${observer.server.label}`,
        async () => (await observer.membership(roomId, userId)) === membership,
    );
}
