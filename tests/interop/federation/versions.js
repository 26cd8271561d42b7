// SPDX-License-Identifier: GPL-3.0-or-later
//
// Each room version, made at each server, with the others as joiners, and each as resident for a
// second user of a third server.

import assert from "node:assert/strict";
import { ApiError, User } from "../lib/api.js";
import { until } from "../lib/checks.js";
import { allTalk, isMember, oneUserEach, sameState } from "./common.js";

const VERSIONS = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];

export async function life(version, creator, joiners) {
    const all = [creator, ...joiners];
    const body = { room_version: version, preset: "public_chat", name: `Version ${version}` };
    const roomId = await creator.createRoom(body);
    const first = await creator.say(roomId, "before you came");
    // The first joins through the creator's server, the next through the server that came before
    // (or the creator's, while that one is still learning the room's state).
    for (let i = 0; i < joiners.length; i++) {
        await joiners[i].join(roomId, all[i].server.name, creator.server.name);
        await isMember(creator, roomId, joiners[i].id, "join");
    }
    await allTalk(roomId, all, version);
    await creator.setState(roomId, "m.room.topic", "", { topic: `all about ${version}` });
    for (const joiner of joiners) {
        assert.ok((await joiner.timeline(roomId)).includes(first), "history from before the join");
    }
    const said = await joiners[0].say(roomId, "regretted");
    await creator.sees(roomId, said);
    await creator.redact(roomId, said);
    for (const user of all) {
        await user.sees(roomId, said);
        await until(`the redaction at ${user.server.label}`, async () => {
            const { content } = await user.event(roomId, said);
            return !content.body;
        });
    }
    await joiners[0].leave(roomId);
    await isMember(creator, roomId, joiners[0].id, "leave");
    await joiners[0].join(roomId, creator.server.name);
    await isMember(creator, roomId, joiners[0].id, "join");
    await sameState(roomId, all);
}

export async function versions(world, checks) {
    checks.section("room versions");
    const users = await oneUserEach(world);
    for (const version of VERSIONS) {
        for (const creator of users) {
            const joiners = users.filter((user) => user !== creator);
            await checks.check(`version ${version} made at ${creator.server.label}`, async () => {
                try {
                    await life(version, creator, joiners);
                } catch (error) {
                    if (error instanceof ApiError && error.errcode === "M_UNSUPPORTED_ROOM_VERSION") {
                        throw new Error(`${creator.server.label} does not make version ${version}`);
                    }
                    throw error;
                }
            });
        }
    }
    await checks.check("a user of a server that is in the room already joins without asking", async () => {
        const [alice, bob] = users;
        const roomId = await alice.createRoom({ preset: "public_chat" });
        await bob.join(roomId, alice.server.name);
        const second = await User.register(bob.server, "second");
        await second.join(roomId);
        await isMember(alice, roomId, second.id, "join");
        await allTalk(roomId, [alice, bob, second], "second");
    });
}
