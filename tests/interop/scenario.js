// SPDX-License-Identifier: GPL-3.0-or-later
//
// Drives matrix-js-sdk with its Rust crypto against a running homeserver: see README.md.

import { appendFileSync } from "node:fs";
import { format, parseArgs } from "node:util";
import "./lib/globals.js";
import { Checks, Stop } from "./lib/checks.js";
import { account } from "./steps/account_data.js";
import { accounts } from "./steps/accounts.js";
import { daily, deactivation } from "./steps/daily.js";
import { devices, logOut } from "./steps/devices.js";
import { interruptions } from "./steps/interruptions.js";
import { messages } from "./steps/messages.js";
import { relations } from "./steps/relations.js";
import { rooms } from "./steps/rooms.js";
import { search } from "./steps/search.js";
import { sliding } from "./steps/sliding.js";

/** The SDK and its crypto write to the console; the checks alone belong on standard output. */
function divertConsole(file) {
    for (const level of ["debug", "log", "info", "warn", "error", "trace"]) {
        console[level] = (...args) => {
            if (file) {
                appendFileSync(file, `${new Date().toISOString()} ${level} ${format(...args)}\n`);
            }
        };
    }
}

function streamWasUsed({ sessions }) {
    const sum = { sync: 0, result: 0, fallback: 0 };
    for (const { cable } of sessions) {
        sum.sync += cable.streamCounts.sync;
        sum.result += cable.streamCounts.result;
        sum.fallback += cable.streamCounts.fallback;
    }
    // Broken connections fall back for an answer or two; the rest must have been pushed.
    if (sum.sync < 50 || sum.fallback > sum.sync / 2) {
        throw new Error(`${sum.sync} answers by stream, ${sum.fallback} by plain /sync`);
    }
    if (sum.result < 50) {
        throw new Error(`only ${sum.result} messages, typing and receipts by stream`);
    }
}

async function run(world, checks) {
    try {
        for (const steps of [accounts, messages, relations, devices, interruptions]) {
            await steps(world, checks);
        }
        await account(world, checks);
        await rooms(world, checks);
        await daily(world, checks);
        await search(world, checks);
        await sliding(world, checks);
        await logOut(world, checks);
        await deactivation(world, checks);
        if (world.stream) {
            await checks.check("syncs and messages went over the stream", async () =>
                streamWasUsed(world),
            );
        }
    } catch (error) {
        if (!(error instanceof Stop)) {
            await checks.check("the scenario runs to its end", () => Promise.reject(error));
        }
    }
}

const { values } = parseArgs({ options: { stream: { type: "boolean", default: false } } });
const { BASE_URL, RESTART_CMD, REGISTRATION_TOKEN, INTEROP_LOG } = process.env;
if (!BASE_URL) {
    process.stderr.write("scenario: set BASE_URL to the homeserver's address\n");
    process.exit(2);
}
divertConsole(INTEROP_LOG);
process.on("unhandledRejection", (reason) => console.error("unhandled rejection", reason));
const checks = new Checks();
const world = {
    baseUrl: BASE_URL.replace(/\/$/, ""),
    restartCommand: RESTART_CMD,
    registrationToken: REGISTRATION_TOKEN,
    stream: values.stream,
    sessions: [],
};
await run(world, checks);
for (const session of world.sessions) {
    session.client?.stopClient();
    session.cable.close();
}
process.exit(checks.finish());
