// SPDX-License-Identifier: GPL-3.0-or-later
//
// One WebSocket of io.myelin.stream.v1 (spec/stream.md), seen as a sequence of answers to /sync.

export const SUBPROTOCOL = "io.myelin.stream.v1";
export const STREAM_PATH = "/_matrix/client/unstable/io.myelin.stream/v1";

/** The stream cannot answer; the same request over plain HTTP can. */
export class StreamBroken extends Error {
    constructor(code) {
        super(`stream closed (${code})`);
        this.name = "StreamBroken";
        this.code = code;
    }
}

export function abortError() {
    return new DOMException("This operation was aborted", "AbortError");
}

/** Settles once: by `promise`, by the signal, or by `timeoutMs` (with undefined). */
function waitFor(promise, timeoutMs, signal) {
    return new Promise((resolve, reject) => {
        let timer;
        const settle = (act, value) => {
            clearTimeout(timer);
            signal?.removeEventListener("abort", onAbort);
            act(value);
        };
        const onAbort = () => settle(reject, abortError());
        signal?.addEventListener("abort", onAbort);
        if (Number.isFinite(timeoutMs)) {
            timer = setTimeout(() => settle(resolve, undefined), timeoutMs);
        }
        promise.then(
            (value) => settle(resolve, value),
            (error) => settle(reject, error),
        );
        if (signal?.aborted) {
            onAbort();
        }
    });
}

export class Stream {
    #socket;
    #auth;
    #events;
    #frame; // the sync that has arrived and was not asked for yet
    #unacked; // position handed out; acknowledged by the next request
    #wake; // resolvers of the request that waits
    #results = new Map();
    #lastId = 0;
    #first = true;
    #lingerTimer;
    #lingerMs;

    /**
     * @param WebSocket constructor
     * @param url ws(s) address of the stream
     * @param auth members of the auth frame, `since` among them
     * @param params text that tells /sync parameters apart; a stream serves only one set
     * @param events {hello(), sync(), closed(code)}
     */
    constructor({ WebSocket, url, auth, params, lingerMs, events }) {
        this.params = params;
        this.cursor = auth.since; // what the next request has to say as `since`
        this.ready = false;
        this.closed = false;
        this.busy = false;
        this.#auth = auth;
        this.#events = events;
        this.#lingerMs = lingerMs;
        this.#socket = new WebSocket(url, SUBPROTOCOL);
        this.#socket.onopen = () => this.#write({ type: "auth", ...this.#auth });
        this.#socket.onmessage = (message) => this.#read(message.data);
        this.#socket.onclose = (event) => this.#end(event.code);
        this.#socket.onerror = () => {}; // a close event follows
    }

    /** The body of the next answer to /sync, or undefined when there was nothing in time. */
    async next(timeoutMs, signal) {
        this.busy = true;
        clearTimeout(this.#lingerTimer);
        try {
            this.#ack();
            // The first frame comes at once by itself, however long it takes to compute.
            const data = await waitFor(this.#take(), this.#first ? Infinity : timeoutMs, signal);
            if (data !== undefined) {
                this.#first = false;
                this.cursor = data.next_batch;
                this.#unacked = data.next_batch;
            }
            return data;
        } finally {
            this.#wake = undefined;
            this.busy = false;
            this.#linger();
        }
    }

    /** Sends a frame that asks for a `result` and returns that. */
    async request(frame, signal) {
        if (this.closed) {
            throw new StreamBroken(1006);
        }
        const id = String(++this.#lastId);
        const answer = new Promise((resolve, reject) => this.#results.set(id, { resolve, reject }));
        this.#write({ ...frame, id });
        try {
            return await waitFor(answer, Infinity, signal);
        } finally {
            this.#results.delete(id);
        }
    }

    close() {
        if (!this.closed) {
            this.#socket.close(1000);
            this.#end(1000);
        }
    }

    #ack() {
        if (this.#unacked !== undefined && !this.closed) {
            this.#write({ type: "ack", pos: this.#unacked });
            this.#unacked = undefined;
        }
    }

    #take() {
        return new Promise((resolve, reject) => {
            if (this.#frame) {
                resolve(this.#frame);
                this.#frame = undefined;
            } else if (this.closed) {
                reject(new StreamBroken(1006));
            } else {
                this.#wake = { resolve, reject };
            }
        });
    }

    #linger() {
        clearTimeout(this.#lingerTimer);
        if (!this.closed) {
            this.#lingerTimer = setTimeout(() => this.close(), this.#lingerMs);
            this.#lingerTimer.unref?.();
        }
    }

    #write(frame) {
        if (this.#socket.readyState === 1) {
            this.#socket.send(JSON.stringify(frame));
        }
    }

    #read(text) {
        let frame;
        try {
            frame = JSON.parse(text);
        } catch {
            return this.close();
        }
        if (frame.type === "hello") {
            this.ready = true;
            this.#events.hello();
        } else if (frame.type === "sync") {
            this.#events.sync();
            this.#deliver(frame.data);
        } else if (frame.type === "result") {
            this.#results.get(frame.id)?.resolve(frame);
        }
        // `error` needs nothing here: a close follows, and the same request over HTTP says why.
    }

    #deliver(data) {
        if (this.#wake) {
            this.#wake.resolve(data);
            this.#wake = undefined;
        } else {
            this.#frame = data;
        }
    }

    #end(code) {
        if (this.closed) {
            return;
        }
        this.closed = true;
        clearTimeout(this.#lingerTimer);
        const broken = new StreamBroken(code);
        this.#wake?.reject(broken);
        for (const { reject } of this.#results.values()) {
            reject(broken);
        }
        this.#events.closed(code);
    }
}
