// SPDX-License-Identifier: GPL-3.0-or-later
//
// Serves Hydrogen: client.js in one bundle, its workers, pictures and crypto from its packages.

import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const packages = join(here, "node_modules");
const sdk = join(packages, "hydrogen-view-sdk");
const folders = { assets: join(sdk, "asset-build/assets"), olm: join(packages, "@matrix-org/olm") };
const types = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
};
const index = `<!doctype html><html><head><meta charset="utf-8"><title>Hydrogen</title>
<link rel="stylesheet" href="/assets/theme-element-light.css"></head>
<body class="hydrogen"><script type="module" src="/client.js"></script></body></html>`;

async function bundle() {
    const result = await build({
        entryPoints: [join(here, "client.js")],
        bundle: true,
        format: "esm",
        write: false,
        logLevel: "error",
        // What the crypto package loads when there is no browser.
        external: ["fs", "path", "crypto"],
    });
    return result.outputFiles[0].text;
}

function fileOf(path) {
    if (path === "/sw.js") {
        return join(sdk, "lib-build/sw.js");
    }
    const [, folder, ...rest] = normalize(path).split("/");
    return folders[folder] && join(folders[folder], ...rest);
}

/** Answers {url, close}. */
export async function servePage() {
    const script = await bundle();
    const server = createServer((request, response) => {
        const path = new URL(request.url, "http://page").pathname;
        const file = fileOf(path);
        if (path === "/client.js") {
            response.writeHead(200, { "Content-Type": types[".js"] }).end(script);
        } else if (file && existsSync(file) && statSync(file).isFile()) {
            response.writeHead(200, { "Content-Type": types[extname(file)] ?? "application/octet-stream" });
            createReadStream(file).pipe(response);
        } else if (path === "/" || path === "/index.html") {
            response.writeHead(200, { "Content-Type": types[".html"] }).end(index);
        } else {
            response.writeHead(404).end();
        }
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    return { url: `http://127.0.0.1:${server.address().port}/`, close: () => server.close() };
}
