// SPDX-License-Identifier: GPL-3.0-or-later
//
// The connection of one client, which a test can cut and mend.

import { WebSocket } from "ws";
import { createStreamFetch } from "../../../tools/stream-fetch/index.js";

export class Cable {
    isCut = false;
    /** What went over the stream: events of stream-fetch, counted by kind. */
    streamCounts = { open: 0, hello: 0, sync: 0, result: 0, closed: 0, fallback: 0 };
    #cutter = new AbortController();
    #sockets = new Set();

    constructor({ stream }) {
        this.fetch = (input, init) => this.#plainFetch(input, init);
        if (stream) {
            this.fetch = createStreamFetch({
                fetch: this.fetch,
                WebSocket: this.#socketClass(),
                sendOverStream: true,
                retryMs: 200,
                onEvent: ({ kind }) => this.streamCounts[kind]++,
            });
        }
    }

    cut() {
        this.isCut = true;
        this.#cutter.abort();
        for (const socket of this.#sockets) {
            socket.terminate();
        }
    }

    mend() {
        this.isCut = false;
        this.#cutter = new AbortController();
    }

    close() {
        this.fetch.close?.();
    }

    async #plainFetch(input, init = {}) {
        const cutter = this.#cutter.signal;
        const either = new AbortController();
        const abort = () => either.abort();
        const signals = init.signal ? [init.signal, cutter] : [cutter];
        for (const signal of signals) {
            signal.addEventListener("abort", abort);
        }
        if (signals.some((signal) => signal.aborted)) {
            abort();
        }
        try {
            return await fetch(input, { ...init, signal: either.signal });
        } catch (error) {
            // What the SDK sees is a lost connection, not its own abort.
            throw cutter.aborted ? new TypeError("the cable is cut") : error;
        } finally {
            signals.forEach((signal) => signal.removeEventListener("abort", abort));
        }
    }

    #socketClass() {
        const cable = this;
        return class extends WebSocket {
            constructor(...args) {
                super(...args);
                cable.#sockets.add(this);
                this.on("close", () => cable.#sockets.delete(this));
                if (cable.isCut) {
                    queueMicrotask(() => this.terminate());
                }
            }
        };
    }
}
