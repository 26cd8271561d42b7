// SPDX-License-Identifier: GPL-3.0-or-later
//
// The servers of a federation run, made and moved by the script `lab` beside this folder.

import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const SCRIPT = join(dirname(fileURLToPath(import.meta.url)), "..", "lab");
const HOSTS = { m1: 11, m2: 12, syn: 13 };

export class Lab {
    constructor(folder, names) {
        this.folder = folder;
        this.canCut = Boolean(process.env.LAB_CUT);
        this.servers = names.map((name) => {
            const host = `${process.env.LAB_NET}.${HOSTS[name]}`;
            return { label: name, name: host, url: `https://${host}:8448` };
        });
    }

    async #act(action, { label }) {
        await run(SCRIPT, [action, this.folder, label]);
    }

    start(server) {
        return this.#act("start", server);
    }

    stop(server) {
        return this.#act("stop", server);
    }

    kill(server) {
        return this.#act("kill", server);
    }

    cut(server) {
        return this.#act("cut", server);
    }

    mend(server) {
        return this.#act("mend", server);
    }
}
