// SPDX-License-Identifier: GPL-3.0-or-later
//
// Several homeservers in one room: see README.md.

import { appendFileSync } from "node:fs";
import { format, parseArgs } from "node:util";
import "./lib/globals.js";
import { Checks, Stop } from "./lib/checks.js";
import { Lab } from "./lib/lab.js";
import { daily } from "./federation/daily.js";
import { encrypted } from "./federation/encrypted.js";
import { interrupted } from "./federation/interrupted.js";
import { joining } from "./federation/joining.js";
import { versions } from "./federation/versions.js";

const PARTS = { versions, joining, daily, encrypted, interrupted };

const { values } = parseArgs({ options: { part: { type: "string", multiple: true } } });
const { LAB_DIR, LAB_SERVERS, INTEROP_LOG } = process.env;
if (!LAB_DIR || !LAB_SERVERS) {
    process.stderr.write("federation: run it by tests/interop/run-federation\n");
    process.exit(2);
}
for (const level of ["debug", "log", "info", "warn", "error", "trace"]) {
    console[level] = (...args) => {
        if (INTEROP_LOG) {
            appendFileSync(INTEROP_LOG, `${new Date().toISOString()} ${level} ${format(...args)}\n`);
        }
    };
}
process.on("unhandledRejection", (reason) => console.error("unhandled rejection", reason));

const checks = new Checks();
const lab = new Lab(LAB_DIR, LAB_SERVERS.split(" "));
const world = { lab, servers: lab.servers, sessions: [] };
for (const name of values.part ?? Object.keys(PARTS)) {
    try {
        await PARTS[name](world, checks);
    } catch (error) {
        if (!(error instanceof Stop)) {
            await checks.check(`${name} runs to its end`, () => Promise.reject(error));
        }
    }
}
for (const session of world.sessions) {
    session.client?.stopClient();
    session.cable.close();
}
process.exit(checks.finish());
