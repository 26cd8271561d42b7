// SPDX-License-Identifier: GPL-3.0-or-later

export interface StreamFetchOptions {
    /** For all other requests, and for /sync where there is no stream. Default: global fetch. */
    fetch?: typeof globalThis.fetch;
    /** The WebSocket constructor. Default: the global one, else that of the package `ws`. */
    WebSocket?: new (url: string, protocols: string) => WebSocket;
    /** Also send messages, typing and receipts over the stream while it is open. Default: false. */
    sendOverStream?: boolean;
    /** How long a /sync with timeout=0 waits on a stream that has nothing to say. Default: 50. */
    graceMs?: number;
    /** How long a stream is kept when no /sync is asked for. Default: 30000. */
    lingerMs?: number;
    /** How long to stay with fetch after the stream failed; doubles to 10 min. Default: 5000. */
    retryMs?: number;
    /** Told what happens to the streams, for logs and tests. */
    onEvent?: (event: StreamFetchEvent) => void;
}

export interface StreamFetchEvent {
    /**
     * `open`: a socket is being opened; `hello`: it was accepted; `sync`: a frame arrived;
     * `result`: a message, typing or receipt sent over it was answered; `closed`: it ended;
     * `fallback`: a /sync went through plain fetch.
     */
    kind: "open" | "hello" | "sync" | "result" | "closed" | "fallback";
    url: string;
    /** Close code, with `closed`. */
    code?: number;
}

export interface StreamFetch {
    (input: RequestInfo | URL, init?: RequestInit): Promise<Response>;
    /** Closes all streams; later requests go through plain fetch. */
    close(): void;
}

export function createStreamFetch(options?: StreamFetchOptions): StreamFetch;
