// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the SDK expects of its surroundings; to be imported before it. Debian 12 has Node 18, which
// keeps its WebCrypto to a module, and no Node has IndexedDB.

import { webcrypto } from "node:crypto";
import "fake-indexeddb/auto";

globalThis.crypto ??= webcrypto;
