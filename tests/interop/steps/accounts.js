// SPDX-License-Identifier: GPL-3.0-or-later
//
// Users, their keys, their rooms.

import assert from "node:assert/strict";
import { register, Session } from "../lib/session.js";
import { until } from "../lib/checks.js";

/** The user-interactive stage that uploads of cross-signing keys may ask for. */
export function withPassword(session) {
    return async (makeRequest) => {
        try {
            return await makeRequest(null);
        } catch (error) {
            if (error.httpStatus !== 401 || !error.data.session) {
                throw error;
            }
            return makeRequest({
                type: "m.login.password",
                identifier: { type: "m.id.user", user: session.account.username },
                password: session.account.password,
                session: error.data.session,
            });
        }
    };
}

async function setUpUser(world, checks, name, options) {
    const account = await checks.need(`${name} registers`, () => register(world, name));
    const session = new Session(world, account, options);
    world[name] = session;
    await checks.need(`${name} starts with Rust crypto and syncs`, () => session.start(options));
    await checks.check(`${name} is who the server says`, async () => {
        const me = await session.client.whoami();
        assert.equal(me.user_id, session.userId);
        assert.equal(me.device_id, session.deviceId);
    });
}

async function setUpKeys(checks, session) {
    const { crypto } = session;
    await checks.check("alice sets up cross-signing", async () => {
        await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: withPassword(session) });
        assert.equal(await crypto.isCrossSigningReady(), true);
    });
    await checks.check("alice sets up secret storage and a key backup", async () => {
        const key = await crypto.createRecoveryKeyFromPassphrase();
        session.recovery = { encoded: key.encodedPrivateKey, privateKey: key.privateKey };
        await crypto.bootstrapSecretStorage({
            createSecretStorageKey: async () => key,
            setupNewSecretStorage: true,
            setupNewKeyBackup: true,
        });
        assert.equal(await crypto.isSecretStorageReady(), true);
    });
    await checks.check("alice's secrets are in her account data", async () => {
        const status = await crypto.getCrossSigningStatus();
        assert.equal(status.privateKeysInSecretStorage, true);
        await session.accountData("m.megolm_backup.v1");
        await session.accountData("m.secret_storage.default_key");
    });
    await checks.check("the key backup is active and trusted", async () => {
        await until("the backup", () => crypto.getActiveSessionBackupVersion());
        const info = await crypto.getKeyBackupInfo();
        const trust = await crypto.isKeyBackupTrusted(info);
        assert.equal(trust.trusted, true);
        assert.equal(trust.matchesDecryptionKey, true);
    });
}

/** Three users; alice has cross-signing, secret storage and a key backup. */
export async function accounts(world, checks) {
    checks.section("accounts and keys");
    await setUpUser(world, checks, "alice");
    // A short timeline, so that bob meets gaps; and a key store that outlives his client.
    await setUpUser(world, checks, "bob", { timelineLimit: 10, keepKeys: true });
    // As Element does it: members come when they are needed.
    await setUpUser(world, checks, "carol", { lazyMembers: true });
    await setUpKeys(checks, world.alice);
    await checks.check("bob sets up cross-signing", async () => {
        const authUploadDeviceSigningKeys = withPassword(world.bob);
        await world.bob.crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys });
        assert.equal(await world.bob.crypto.isCrossSigningReady(), true);
    });
    await checks.check("alice finds bob's devices and cross-signing keys", async () => {
        const { crypto } = world.alice;
        const devices = await crypto.getUserDeviceInfo([world.bob.userId], true);
        assert.deepEqual([...devices.get(world.bob.userId).keys()], [world.bob.deviceId]);
        assert.equal(await crypto.userHasCrossSigningKeys(world.bob.userId, true), true);
    });
    await checks.check("a name that is taken is refused", async () => {
        const { username } = world.alice.account;
        await assert.rejects(world.bob.client.isUsernameAvailable(username).then(assert.ok));
    });
    await checks.check("a display name can be set and read", async () => {
        await world.alice.client.setDisplayName("Alice A.");
        const profile = await world.bob.client.getProfileInfo(world.alice.userId);
        assert.equal(profile.displayname, "Alice A.");
    });
}
