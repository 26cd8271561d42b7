"""A small bridge on mautrix's AppService, and a person who uses mautrix's client: both encrypt.
usage: scenario.py path/to/myelin"""
import asyncio
import logging
import os
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../integration/appservice"))

from bridge import NAME, REGISTRATION, Server  # noqa: E402
from mautrix.appservice import AppService, ASStateStore  # noqa: E402
from mautrix.client import Client  # noqa: E402
from mautrix.client.state_store import MemoryStateStore  # noqa: E402
from mautrix.crypto import MemoryCryptoStore, OlmMachine, StateStore  # noqa: E402
from mautrix.errors import EncryptionError, SessionNotFound  # noqa: E402
from mautrix.types import (EventType, Membership, MessageType, PresenceState,  # noqa: E402
                           TextMessageEventContent, UserID)

ENCRYPTION = {"type": "m.room.encryption", "state_key": "",
              "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
PUPPETS = """
id: doublepuppet
url:
as_token: puppet-secret
hs_token: never-used
sender_localpart: doublepuppet
rate_limited: false
namespaces:
  users:
  - {exclusive: false, regex: '@.*:bridge\\.test'}
"""
passed, failed = [], []


def check(what, right, note=""):
    (passed if right else failed).append(what)
    print(f"{'ok  ' if right else 'FAIL'} {what}{'' if right else f': {note}'}", flush=True)


async def until(question, seconds=15):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = question()
        if answer:
            return answer
        await asyncio.sleep(0.05)
    return None


class Shared(StateStore):
    """Which rooms users share, from the members that the state store has seen."""

    async def find_shared_rooms(self, user_id):
        return [room for room, members in self.members.items()
                if user_id in members and members[user_id].membership == Membership.JOIN]


class ServiceState(MemoryStateStore, ASStateStore, Shared):
    def __init__(self):
        MemoryStateStore.__init__(self)
        ASStateStore.__init__(self)


class ClientState(MemoryStateStore, Shared):
    pass


async def encrypt_and_send(crypto, client, room, text):
    content = TextMessageEventContent(msgtype=MessageType.TEXT, body=text)
    try:
        sealed = await crypto.encrypt_megolm_event(room, EventType.ROOM_MESSAGE, content)
    except EncryptionError:
        members = await client.get_joined_members(room)
        await crypto.share_group_session(room, [m for m in members
                                                if not m.startswith("@_fax_g")])
        sealed = await crypto.encrypt_megolm_event(room, EventType.ROOM_MESSAGE, content)
    return await client.send_message_event(room, EventType.ROOM_ENCRYPTED, sealed)


async def decrypt(crypto, event):
    try:
        return await crypto.decrypt_megolm_event(event)
    except SessionNotFound as missing:
        await crypto.wait_for_session(event.room_id, missing.session_id, timeout=8)
        return await crypto.decrypt_megolm_event(event)


class Bridge:
    """The bot joins what it is invited to; everything that arrives is kept."""

    def __init__(self, server, port):
        self.base = f"http://127.0.0.1:{server.port}"
        self.state = ServiceState()
        self.events, self.texts, self.counts = [], [], []
        self.az = AppService(self.base, NAME, "as-secret", "hs-secret", "_fax_bot", "fax",
                             state_store=self.state, ephemeral_events=True,
                             encryption_events=True)
        self.az.matrix_event_handler(self.take)
        self.port = port

    async def start(self):
        await self.az.start("127.0.0.1", self.port)
        await self.az.intent.ensure_registered()
        self.client = Client(mxid=self.az.bot_mxid, base_url=self.base, token="as-secret",
                             state_store=self.state)
        self.crypto = OlmMachine(self.client, MemoryCryptoStore("bot", "pickle"), self.state)
        self.az.device_list_handler = self.crypto.handle_as_device_lists
        self.az.to_device_handler = self.crypto.handle_as_to_device_event
        self.az.otk_handler = self.take_counts
        await self.client.create_device_msc4190("BRIDGE", "The bridge")
        await self.crypto.crypto_store.put_device_id("BRIDGE")
        await self.crypto.load()
        await self.crypto.share_keys()

    async def take_counts(self, counts):
        self.counts.append(counts)
        await self.crypto.handle_as_otk_counts(counts)

    async def take(self, event):
        self.events.append(event)
        if event.type == EventType.ROOM_MEMBER:
            await self.crypto.handle_member_event(event)
            if (event.state_key == self.az.bot_mxid
                    and event.content.membership == Membership.INVITE):
                await self.az.intent.join_room(event.room_id)
        if event.type == EventType.ROOM_ENCRYPTED and not event.sender.startswith("@_fax_"):
            plain = await decrypt(self.crypto, event)
            self.texts.append(plain.content.body)

    def ghost(self, name):
        return self.az.intent.user(UserID(f"@_fax_g{name}:{NAME}"))

    def seen(self, kind, room=None):
        return [e for e in self.events if e.type == kind
                and (room is None or getattr(e, "room_id", None) == room)]


class Person:
    def __init__(self, server, name):
        user = server.user(name)
        self.id, self.texts, self.events = user.id, [], []
        self.state, self.store = ClientState(), MemoryCryptoStore(name, "pickle")
        self.client = Client(mxid=user.id, device_id=user.device, token=user.token,
                             base_url=f"http://127.0.0.1:{server.port}", sync_store=self.store,
                             state_store=self.state)
        self.crypto = OlmMachine(self.client, self.store, self.state)
        self.client.add_event_handler(EventType.ROOM_ENCRYPTED, self.take_sealed)
        self.client.add_event_handler(EventType.ROOM_MESSAGE, self.events.append)
        self.client.add_event_handler(EventType.ROOM_MEMBER, self.state.update_state)
        self.client.add_event_handler(EventType.ROOM_ENCRYPTION, self.state.update_state)

    async def start(self):
        await self.store.put_device_id(self.client.device_id)
        await self.crypto.load()
        await self.crypto.share_keys()
        self.client.start(None)

    async def take_sealed(self, event):
        if event.sender != self.id:
            plain = await decrypt(self.crypto, event)
            self.texts.append(plain.content.body)


async def ghosts(bridge, ann):
    room = await ann.client.create_room()
    await ann.client.invite_user(room, bridge.az.bot_mxid)
    check("the bot joins what it is invited to",
          await until(lambda: [e for e in bridge.seen(EventType.ROOM_MEMBER, room)
                               if e.content.membership == Membership.JOIN]))
    ghost = bridge.ghost("one")
    await ghost.set_displayname("One")
    await ann.client.invite_user(room, ghost.mxid)
    await ghost.join_room_by_id(room)
    past = int(time.time() * 1000) - 3600000
    await ghost.send_text(room, "an hour ago", timestamp=past)
    heard = await until(lambda: [e for e in ann.events if e.content.body == "an hour ago"])
    check("a ghost speaks, at the time it says", heard and heard[0].timestamp == past
          and heard[0].sender == ghost.mxid, heard)
    await ann.client.send_text(room, "hello ghost")
    check("the bridge hears a message",
          await until(lambda: [e for e in bridge.seen(EventType.ROOM_MESSAGE, room)
                               if e.content.body == "hello ghost"]))
    event_id = await ann.client.send_text(room, "read this")
    await until(lambda: [e for e in bridge.seen(EventType.ROOM_MESSAGE, room)
                         if e.event_id == event_id])
    await ghost.mark_read(room, event_id)
    await ann.client.set_typing(room, timeout=5000)
    check("the bridge hears typing", await until(
        lambda: [e for e in bridge.seen(EventType.TYPING, room) if ann.id in e.content.user_ids]))
    check("the bridge hears receipts", await until(
        lambda: [e for e in bridge.seen(EventType.RECEIPT, room) if event_id in e.content]))
    await ann.client.set_presence(PresenceState.ONLINE)
    profile = await ann.client.get_profile(ghost.mxid)
    check("a ghost has its name", profile.displayname == "One", profile)
    return room


async def puppets(server, bridge, ann, room):
    as_ann = Client(mxid=ann.id, base_url=bridge.base, token="puppet-secret")
    as_ann.api.as_user_id = ann.id
    event_id = await as_ann.send_text(room, "said elsewhere")
    event = await until(lambda: [e for e in ann.events if e.event_id == event_id])
    check("a double puppet speaks as the person", event and event[0].sender == ann.id, event)
    await as_ann.send_receipt(room, event_id)
    check("a double puppet reads for the person", await until(
        lambda: [e for e in bridge.seen(EventType.RECEIPT, room)
                 if event_id in e.content]))
    await as_ann.api.session.close()


async def encrypted(server, bridge, ann):
    room = await ann.client.create_room(
        invitees=[bridge.az.bot_mxid], initial_state=[ENCRYPTION])
    await until(lambda: [e for e in bridge.seen(EventType.ROOM_MEMBER, room)
                         if e.content.membership == Membership.JOIN])
    await until(lambda: bridge.az.bot_mxid in ann.state.members.get(room, {}))
    for i in range(3):
        await encrypt_and_send(ann.crypto, ann.client, room, f"secret {i}")
    check("the bridge reads encrypted messages",
          await until(lambda: sorted(bridge.texts) == [f"secret {i}" for i in range(3)]),
          bridge.texts)
    await encrypt_and_send(bridge.crypto, bridge.client, room, "a secret answer")
    check("the person reads the bridge's encrypted answer",
          await until(lambda: ann.texts == ["a secret answer"]), ann.texts)
    check("the bridge is told how many keys are left",
          await until(lambda: any(bridge.az.bot_mxid in c for c in bridge.counts)))
    bob = Person(server, "bob")
    await bob.start()
    await ann.client.invite_user(room, bob.id)
    await bob.client.join_room_by_id(room)
    await until(lambda: [e for e in bridge.seen(EventType.ROOM_MEMBER, room)
                         if e.state_key == bob.id and e.content.membership == Membership.JOIN])
    await encrypt_and_send(bridge.crypto, bridge.client, room, "to both")
    check("who joined later reads it, too", await until(lambda: "to both" in bob.texts), bob.texts)
    return room, bob


async def killed(server, bridge, ann, room):
    server.kill()
    await asyncio.get_event_loop().run_in_executor(None, server.start)

    async def try_until_sent(text):
        for _ in range(50):
            try:
                return await encrypt_and_send(ann.crypto, ann.client, room, text)
            except Exception:
                await asyncio.sleep(0.2)
    before = len(bridge.texts)
    await try_until_sent("after the crash")
    check("a killed server goes on where it was", await until(
        lambda: bridge.texts[before:] == ["after the crash"], 30), bridge.texts)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


async def live(program):
    port = free_port()
    fax = REGISTRATION.format(id="fax", url=f"http://127.0.0.1:{port}", as_token="as-secret",
                              sender="_fax_bot", prefix="_fax_", rate_limited="false")
    server = Server(program, [fax, PUPPETS])
    people = []
    try:
        bridge = Bridge(server, port)
        await bridge.start()
        check("the homeserver reaches the bridge", await bridge.az.ping_self() >= 0)
        ann = Person(server, "ann")
        people.append(ann)
        await ann.start()
        room = await ghosts(bridge, ann)
        await puppets(server, bridge, ann, room)
        room, bob = await encrypted(server, bridge, ann)
        people.append(bob)
        await killed(server, bridge, ann, room)
    finally:
        for person in people:
            person.client.stop()
        if failed or sys.exc_info()[0]:
            print(server.log()[-3000:])
        server.remove()


def main():
    logging.basicConfig(level=logging.CRITICAL if not os.environ.get("DEBUG") else logging.DEBUG)
    try:
        asyncio.run(live(sys.argv[1]))
    except Exception as error:
        import traceback
        traceback.print_exc()
        check("the scenario comes to its end", False, error)
    print(f"{len(passed)} passed, {len(failed)} failed")
    os._exit(1 if failed else 0)


main()
