// SPDX-License-Identifier: GPL-3.0-or-later
//
// Two people use Hydrogen in Chromium. BASE_URL names the server; SHOTS, when set, a folder for
// pictures of what they see. Prints checks and "N passed, N failed".

import { mkdirSync } from "node:fs";
import { chromium } from "playwright-core";
import { User } from "../lib/api.js";
import { Checks, Stop, until } from "../lib/checks.js";
import { servePage } from "./page.js";

const url = process.env.BASE_URL;
const server = { name: new URL(url).host, url };
const shots = process.env.SHOTS;
const checks = new Checks();
const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"];

class Person {
    static async arrive(browser, page, name) {
        const person = new Person();
        person.user = await User.register(server, name);
        const context = await browser.newContext({ viewport: { width: 1100, height: 700 } });
        person.page = await context.newPage();
        person.page.setDefaultTimeout(30000);
        await person.page.goto(`${page.url}?homeserver=${encodeURIComponent(url)}`);
        return person;
    }

    async signIn() {
        await this.page.fill("#username", this.user.name);
        await this.page.fill("#password", this.user.password);
        await this.page.click("button[type=submit]");
        await this.page.waitForSelector(".LeftPanel");
    }

    async createRoom(name) {
        await this.page.click(".LeftPanel .create");
        await this.page.click(".menu >> text=/create room/i");
        await this.page.fill(".CreateRoomView input[name=name]", name);
        await this.page.click(".CreateRoomView button[type=submit]");
        await this.enter(name);
    }

    async enter(name) {
        await this.page.click(`.RoomList >> text=${name}`);
    }

    async say(text) {
        await this.page.fill(".MessageComposer textarea", text);
        await this.page.press(".MessageComposer textarea", "Enter");
    }

    sees(text) {
        return this.page.waitForSelector(`.Timeline .Timeline_messageBody >> text=${text}`);
    }

    async sendPicture(file) {
        const chooser = this.page.waitForEvent("filechooser");
        await this.page.click(".MessageComposer .sendFile");
        await this.page.click(".menu >> text=/picture/i");
        await (await chooser).setFiles(file);
    }

    async show(name) {
        if (shots) {
            await this.page.screenshot({ path: `${shots}/${name}.png` });
        }
    }
}

async function roomOf(user, name) {
    const { joined_rooms: rooms } = await user.get("/v3/joined_rooms");
    for (const room of rooms) {
        const content = await user.get(`/v3/rooms/${encodeURIComponent(room)}/state/m.room.name/`).catch(() => ({}));
        if (content.name === name) {
            return room;
        }
    }
    return undefined;
}

async function talk(alice, bob) {
    await checks.need("both sign in", () => Promise.all([alice.signIn(), bob.signIn()]));
    await checks.need("alice creates an encrypted room", () => alice.createRoom("Kitchen"));
    const room = await until("the room", () => roomOf(alice.user, "Kitchen"));
    await checks.need("bob accepts an invite", async () => {
        await alice.user.invite(room, bob.user.id);
        await bob.enter("Kitchen");
        await bob.page.click(".InviteView button >> text=/accept/i");
        await bob.page.waitForSelector(".MessageComposer textarea");
    });
    await checks.need("what alice says reaches bob, decrypted", async () => {
        await alice.page.waitForSelector(".AnnouncementView >> text=/joined/");
        await alice.say("there is soup");
        await bob.sees("there is soup");
    });
    await checks.check("and back", async () => {
        await bob.say("on my way");
        await alice.sees("on my way");
    });
    await checks.check("the server has but ciphertext of it", async () => {
        const page = await alice.user.get(`/v3/rooms/${encodeURIComponent(room)}/messages?dir=b&limit=20`);
        const sent = page.chunk.filter((event) => event.type.startsWith("m.room.message"));
        const sealed = page.chunk.filter((event) => event.type === "m.room.encrypted");
        if (sent.length > 0 || sealed.length < 2) {
            throw new Error(`${sent.length} in the clear, ${sealed.length} encrypted`);
        }
    });
    await checks.check("a picture is uploaded and seen", async () => {
        const file = "picture.png";
        const buffer = await alice.page.screenshot();
        await alice.sendPicture({ name: file, mimeType: "image/png", buffer });
        await bob.page.waitForSelector(".Timeline .media img[src^=blob]");
    });
    await Promise.all([alice.show("alice"), bob.show("bob")]);
    await checks.check("bob reloads and is still there", async () => {
        await bob.page.reload();
        await bob.sees("there is soup");
        await bob.say("here I am");
        await alice.sees("here I am");
    });
    await checks.check("the settings open", async () => {
        await bob.page.click(".LeftPanel .settings");
        await bob.page.waitForSelector(".Settings");
        await bob.show("settings");
    });
    await checks.check("alice leaves the session", async () => {
        await alice.page.click(".LeftPanel .settings");
        alice.page.once("dialog", (dialog) => dialog.accept());
        await alice.page.click(".Settings >> text=/log out/i");
        await alice.page.click(".LogoutScreen button >> text=/log out/i").catch(() => {});
        const { devices } = await alice.user.get("/v3/devices");
        await until("the device is gone", async () =>
            (await alice.user.get("/v3/devices")).devices.length < devices.length || devices.length === 1);
    });
}

async function main() {
    if (shots) {
        mkdirSync(shots, { recursive: true });
    }
    const page = await servePage();
    const browser = await chromium.launch({
        executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
        args: ["--no-sandbox", "--disable-gpu", "--no-first-run", ...quiet],
    });
    try {
        const alice = await Person.arrive(browser, page, "alice");
        const bob = await Person.arrive(browser, page, "bob");
        await talk(alice, bob);
    } catch (error) {
        if (!(error instanceof Stop)) {
            checks.failed++;
            process.stdout.write(`FAIL  ${error.stack}\n`);
        }
    }
    await browser.close();
    page.close();
    process.exit(checks.finish());
}

await main();
