// SPDX-License-Identifier: GPL-3.0-or-later
//
// A second device: verified by comparing emoji, given the history from the key backup.

import assert from "node:assert/strict";
import {
    CryptoEvent,
    VerificationPhase,
    VerifierEvent,
} from "matrix-js-sdk/lib/crypto-api/index.js";
import { logIn, Session } from "../lib/session.js";
import { until } from "../lib/checks.js";

function nextRequest(session) {
    return new Promise((resolve) => {
        session.client.once(CryptoEvent.VerificationRequestReceived, resolve);
    });
}

/** Runs the verifier up to its emoji; `done` settles when the verification ends. */
async function showSas(verifier) {
    const sas = new Promise((resolve) => verifier.once(VerifierEvent.ShowSas, resolve));
    const done = verifier.verify();
    done.catch(() => {});
    return { sas: verifier.getShowSasCallbacks() ?? (await Promise.race([sas, done])), done };
}

async function verifyBySas(first, second) {
    const incoming = nextRequest(first);
    const outgoing = await second.crypto.requestOwnUserVerification();
    const request = await incoming;
    assert.equal(request.isSelfVerification, true);
    assert.equal(request.otherDeviceId, second.deviceId);
    await request.accept();
    await until("ready", () => outgoing.phase === VerificationPhase.Ready);
    const verifier = await outgoing.startVerification("m.sas.v1");
    const shown = showSas(verifier);
    const otherVerifier = await until("the start", () => request.verifier);
    const [mine, theirs] = await Promise.all([shown, showSas(otherVerifier)]);
    assert.equal(mine.sas.sas.emoji.length, 7);
    assert.deepEqual(mine.sas.sas.emoji, theirs.sas.sas.emoji);
    assert.deepEqual(mine.sas.sas.decimal, theirs.sas.sas.decimal);
    await Promise.all([mine.sas.confirm(), theirs.sas.confirm()]);
    await Promise.all([mine.done, theirs.done]);
    await until("done", () => outgoing.phase === VerificationPhase.Done);
}

/** Everything in the room that can be read, oldest first. */
async function readAll(session, roomId) {
    const room = await session.room(roomId);
    while (room.oldState.paginationToken) {
        await session.client.scrollback(room, 30);
    }
    const events = room.getLiveTimeline().getEvents();
    await Promise.all(events.map((event) => session.client.decryptEventIfNeeded(event)));
    return events;
}

async function logInAgain(world, checks) {
    const { alice } = world;
    await checks.need("alice logs in on a second device", async () => {
        const account = await logIn(world, alice.account, "alice 2");
        assert.equal(account.user_id, alice.userId);
        assert.notEqual(account.device_id, alice.deviceId);
        world.alice2 = new Session(world, account);
        await world.alice2.start();
    });
    await checks.check("the first device learns of the second", async () => {
        await until("the device list", async () => {
            const devices = await alice.crypto.getUserDeviceInfo([alice.userId]);
            return devices.get(alice.userId)?.has(world.alice2.deviceId);
        });
        const { devices } = await alice.client.getDevices();
        const names = devices.map((device) => device.display_name).sort();
        assert.deepEqual(names, ["alice 1", "alice 2"]);
    });
    await checks.check("before verification the history cannot be read", async () => {
        const events = await readAll(world.alice2, world.direct);
        const encrypted = events.filter((event) => event.getWireType() === "m.room.encrypted");
        assert.ok(encrypted.length >= 3);
        assert.ok(encrypted.every((event) => event.isDecryptionFailure()));
    });
}

async function verify(world, checks) {
    const { alice, alice2, bob } = world;
    await checks.check("the devices verify each other by emoji", () => verifyBySas(alice, alice2));
    await checks.check("the second device is signed by alice's identity", async () => {
        await until("the signature at bob", async () => {
            const { crypto } = bob;
            await crypto.getUserDeviceInfo([alice.userId], true);
            const status = await crypto.getDeviceVerificationStatus(alice.userId, alice2.deviceId);
            return status?.signedByOwner;
        });
    });
    await checks.check("the second device receives the secrets", async () => {
        await until("the private keys", async () => {
            const { privateKeysCachedLocally: have } = await alice2.crypto.getCrossSigningStatus();
            return have.masterKey && have.selfSigningKey && have.userSigningKey;
        });
        await until("the backup key", () => alice2.crypto.getSessionBackupPrivateKey());
    });
}

async function restore(world, checks) {
    const { alice, alice2, bob } = world;
    await checks.check("it restores the keys from the backup", async () => {
        await alice2.crypto.checkKeyBackupAndEnable();
        const { imported, total } = await alice2.crypto.restoreKeyBackup();
        assert.ok(total >= 2);
        assert.equal(imported, total);
    });
    await checks.check("it reads the history", async () => {
        const events = await readAll(alice2, world.direct);
        const bodies = events.map((event) => event.getContent().body);
        for (const body of ["hello bob", "hello alice"]) {
            assert.ok(bodies.includes(body), body);
        }
        assert.ok(events.every((event) => !event.isDecryptionFailure()));
    });
    await checks.check("the recovery key opens the secret storage too", async () => {
        alice2.recovery = { encoded: alice.recovery.encoded };
        await alice2.crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        const keys = await Promise.all(
            [alice, alice2].map(({ crypto }) => crypto.getSessionBackupPrivateKey()),
        );
        assert.deepEqual(keys[1], keys[0]);
    });
    await checks.check("new messages reach both devices", async () => {
        const body = "to both devices";
        const eventId = await bob.say(world.direct, body);
        await alice.hears(world.direct, eventId, body);
        await alice2.hears(world.direct, eventId, body);
        const answer = await alice2.say(world.direct, "from the second");
        await bob.hears(world.direct, answer, "from the second");
        await alice.hears(world.direct, answer, "from the second");
    });
}

export async function devices(world, checks) {
    checks.section("a second device");
    await logInAgain(world, checks);
    await verify(world, checks);
    await restore(world, checks);
}

/** Last of all: the second device goes. */
export async function logOut(world, checks) {
    checks.section("log out");
    const { alice, alice2, bob } = world;
    await checks.check("a device that logs out is gone", async () => {
        const { access_token: token } = alice2.account;
        await alice2.client.logout(true);
        alice2.cable.close();
        const response = await fetch(`${world.baseUrl}/_matrix/client/v3/account/whoami`, {
            headers: { Authorization: `Bearer ${token}` },
        });
        assert.equal(response.status, 401);
        assert.equal((await response.json()).errcode, "M_UNKNOWN_TOKEN");
    });
    await checks.check("the others learn that the device is gone", async () => {
        await until("the device list", async () => {
            const devicesOfAlice = await bob.crypto.getUserDeviceInfo([alice.userId]);
            return !devicesOfAlice.get(alice.userId).has(alice2.deviceId);
        });
    });
}
