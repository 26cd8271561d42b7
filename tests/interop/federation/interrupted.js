// SPDX-License-Identifier: GPL-3.0-or-later
//
// Servers that are stopped, killed and cut off while the others go on; afterwards all have the same
// events and the same state.

import { ApiError } from "../lib/api.js";
import { isMember, oneUserEach, sameState, sameTimeline } from "./common.js";

const ROUND = 8;

async function talk(roomId, users, word, said) {
    for (let i = 0; i < ROUND; i++) {
        for (const user of users) {
            said.push(await user.say(roomId, `${word} ${i} from ${user.name}`));
        }
    }
}

/** State that both sides of a cut change: resolution has to agree. */
async function quarrel(roomId, users, word) {
    for (const user of users) {
        await user.setState(roomId, "org.example.note", user.name, { note: word }).catch((error) => {
            if (!(error instanceof ApiError)) {
                throw error;
            }
        });
        await user.setState(roomId, "m.room.topic", "", { topic: `${word} by ${user.name}` });
    }
}

export async function interrupted(world, checks) {
    checks.section("interruptions");
    const { lab } = world;
    const users = await oneUserEach(world);
    const [host] = users;
    const said = [];
    const roomId = await checks.need("a room over all servers", async () => {
        const id = await host.createRoom({
            preset: "public_chat",
            power_level_content_override: { state_default: 0, events: { "m.room.topic": 0 } },
        });
        for (const user of users.slice(1)) {
            await user.join(id, host.server.name);
        }
        for (const user of users) {
            for (const other of users) {
                await isMember(user, id, other.id, "join");
            }
        }
        await talk(id, users, "together", said);
        return id;
    });
    for (const user of users) {
        const others = users.filter((other) => other !== user);
        const label = user.server.label;
        await checks.check(`${label} is stopped while the others talk`, async () => {
            await lab.stop(user.server);
            await talk(roomId, others, `without ${label}`, said);
            await lab.start(user.server);
            await talk(roomId, users, `with ${label} again`, said);
            await sameTimeline(roomId, users, said, 40000);
            await sameState(roomId, users);
        });
        await checks.check(`${label} is killed while all talk`, async () => {
            const talking = talk(roomId, others, `${label} killed`, said);
            said.push(await user.say(roomId, "my last words"));
            await lab.kill(user.server);
            await talking;
            await lab.start(user.server);
            await talk(roomId, users, `${label} risen`, said);
            await sameTimeline(roomId, users, said, 40000);
            await sameState(roomId, users);
        });
        if (!lab.canCut) {
            continue;
        }
        await checks.check(`${label} is cut off and all go on`, async () => {
            await lab.cut(user.server);
            await talk(roomId, users, `${label} alone`, said);
            await quarrel(roomId, users, `cut off ${label}`);
            await lab.mend(user.server);
            await talk(roomId, users, `${label} is back`, said);
            await sameTimeline(roomId, users, said, 45000);
            await sameState(roomId, users, 45000);
        });
    }
}
