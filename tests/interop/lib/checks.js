// SPDX-License-Identifier: GPL-3.0-or-later
//
// Named checks: each prints a line, a failing one is counted, and the last line is the sum.

const CHECK_MS_MAX = 60000;

/** Thrown when what follows cannot be tried. */
export class Stop extends Error {}

export class Checks {
    passed = 0;
    failed = 0;

    section(name) {
        process.stdout.write(`# ${name}\n`);
    }

    /** Runs one check; answers its value, or undefined when it failed. */
    async check(name, body) {
        const startedAt = Date.now();
        let timer;
        try {
            const late = new Promise((_, reject) => {
                timer = setTimeout(() => reject(new Error("no end in sight")), CHECK_MS_MAX);
            });
            const value = await Promise.race([body(), late]);
            this.passed++;
            process.stdout.write(`ok    ${name} (${Date.now() - startedAt} ms)\n`);
            return value;
        } catch (error) {
            this.failed++;
            process.stdout.write(`FAIL  ${name}: ${error?.stack ?? error}\n`);
            return undefined;
        } finally {
            clearTimeout(timer);
        }
    }

    /** A check without which the rest makes no sense. */
    async need(name, body) {
        const failedBefore = this.failed;
        const value = await this.check(name, body);
        if (this.failed > failedBefore) {
            throw new Stop(name);
        }
        return value;
    }

    finish() {
        process.stdout.write(`${this.passed} passed, ${this.failed} failed\n`);
        return this.failed === 0 && this.passed > 0 ? 0 : 1;
    }
}

/** Waits until `condition` answers something true, and answers that. */
export async function until(what, condition, timeoutMs = 20000) {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
        const value = await condition();
        if (value) {
            return value;
        }
        if (Date.now() > deadline) {
            throw new Error(`waited ${timeoutMs} ms in vain for: ${what}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}
