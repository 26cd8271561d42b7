"""What both servers begin each turn with, and what goes on in a turn while servers are killed."""
import asyncio
import random

from client import Connection, quote, register
from load import device_keys
from twins import Client

PASSWORD = "fault-suite-password-7"
HISTORY = 240       # messages of the small room
CONNECTIONS = 6
MEDIA_BYTES = 24 << 20


class Stage:
    def __init__(self, resident, joiner, members):
        self.resident, self.joiner, self.member_count = resident, joiner, members
        self.people = []       # of the resident, all in the large room
        self.large = self.small = self.file = self.file_bytes = None
        self.keeper = None     # of the resident, whose devices change
        self.keys = {}         # device id -> keys of the keeper
        self.guests = []       # of the joiner
        self.whole_seconds = 1  # that a join takes until all is there, undisturbed


async def in_parallel(port, items, work):
    """work(connection, item) for each, in any order; what it gave, in theirs."""
    results, left = [None] * len(items), list(enumerate(items))

    async def serve():
        connection = Connection(port)
        while left:
            place, item = left.pop()
            results[place] = await work(connection, item)
        connection.close()
    await asyncio.gather(*[serve() for _ in range(CONNECTIONS)])
    return results


async def expect(connection, device, method, path, body=None):
    status, answer = await device.call(connection, method, path, body)
    if status != 200:
        raise SystemExit(f"{method} {path}: {status} {answer}")
    return answer


async def make_large(stage, connection):
    """A room that all people of the resident are in."""
    port = stage.resident.port
    stage.people = await in_parallel(
        port, range(stage.member_count),
        lambda at, number: register(at, f"member{number}", PASSWORD))
    owner = stage.people[0]
    body = await expect(connection, owner, "POST", "/createRoom",
                        {"preset": "public_chat", "name": "large"})
    stage.large = body["room_id"]
    await in_parallel(port, stage.people[1:], lambda at, who: expect(
        at, who, "POST", f"/join/{quote(stage.large)}", {}))


async def make_small(stage, connection):
    """A room with much to read back, each message numbered."""
    owner = stage.people[0]
    body = await expect(connection, owner, "POST", "/createRoom", {"preset": "public_chat"})
    stage.small = body["room_id"]
    await expect(connection, stage.people[1], "POST", f"/join/{quote(stage.small)}", {})
    for number in range(HISTORY):
        await expect(connection, stage.people[number % 2], "PUT",
                     f"/rooms/{quote(stage.small)}/send/m.room.message/h{number}",
                     {"msgtype": "m.text", "body": f"history {number}", "number": number})


async def make_file(stage, connection):
    stage.file_bytes = random.randbytes(MEDIA_BYTES)
    status, body = await connection.request("POST", "/_matrix/media/v3/upload",
                                            stage.people[0].token, stage.file_bytes)
    if status != 200:
        raise SystemExit(f"upload: {status} {body}")
    stage.file = body["content_uri"].removeprefix("mxc://")


async def add_device(stage, keys_io, call):
    """One more device of the keeper, with keys."""
    status, body = await call("POST", "/login", {
        "type": "m.login.password", "password": PASSWORD,
        "identifier": {"type": "m.id.user", "user": stage.keeper.user_id}})
    if status != 200:
        return
    fresh = type(stage.keeper)(body["user_id"], body["device_id"], body["access_token"])
    client, keys = Client(stage.resident, fresh), device_keys(fresh, len(keys_io))
    status, _ = await client.call("POST", "/keys/upload", {"device_keys": keys})
    client.close()
    if status == 200:
        keys_io[fresh.device_id] = keys["keys"]


async def set_stage(stage):
    at_home, at_joiner = Connection(stage.resident.port), Connection(stage.joiner.port)
    await make_large(stage, at_home)
    await make_small(stage, at_home)
    await make_file(stage, at_home)
    stage.keeper = stage.people[-1]
    await add_device(stage, stage.keys, lambda *call: stage.people[0].call(at_home, *call))
    stage.guests = [await register(at_joiner, f"guest{i}", PASSWORD) for i in range(2)]
    at_home.close()
    at_joiner.close()
    for twin in (stage.resident, stage.joiner):
        twin.kill()
        twin.keep()


class Talker:
    """Sends numbered messages until it is told to stop. Each is asked for until it is answered."""

    def __init__(self, client, room, name, ledger):
        self.client, self.room, self.name, self.ledger = client, room, name, ledger
        self.stopped = False

    async def run(self, pause):
        number = 0
        while not self.stopped:
            number += 1
            status, body = await self.client.call(
                "PUT", f"/rooms/{quote(self.room)}/send/m.room.message/{self.name}{number}",
                {"msgtype": "m.text", "body": f"needle {self.name} {number}", "by": self.name,
                 "number": number})
            if status == 200:
                self.ledger[body["event_id"]] = (self.name, number)
            elif status != 403:  # who is not in the room at the moment
                raise SystemExit(f"send by {self.name}: {status} {body}")
            await asyncio.sleep(pause)
        self.client.close()


FILTERS = {
    "full": '{"room":{"timeline":{"limit":1000}}}',
    "lazy": '{"room":{"timeline":{"limit":1000},"state":{"lazy_load_members":true}}}',
}


class Follower:
    """A client that syncs all the while: what it knows of a room in the end. Where the room's graph
    forks, only `state_after` tells the state; the order of a timeline does not."""

    def __init__(self, client, kind, room):
        self.client, self.kind, self.room = client, kind, room
        self.since, self.state, self.seen, self.count = None, {}, {}, None
        self.changed, self.problems, self.stopped, self.is_in = set(), [], False, False

    def take_state(self, event):
        self.state[(event["type"], event["state_key"])] = event["event_id"]

    def take(self, body):
        self.since = body["next_batch"]
        self.changed |= set(body.get("device_lists", {}).get("changed", []))
        rooms = body.get("rooms", {})
        if self.room in rooms.get("leave", {}):
            self.is_in = False
        room = rooms.get("join", {}).get(self.room)
        if room is None:
            return
        if not self.is_in:  # it comes whole
            self.state, self.seen, self.is_in, self.count = {}, {}, True, None
        for event in room.get("state_after", {}).get("events", []):
            self.take_state(event)
        for event in room.get("timeline", {}).get("events", []):
            self.take_shown(event)
        self.count = room.get("summary", {}).get("m.joined_member_count", self.count)

    def take_shown(self, event):
        self.seen[event["event_id"]] = self.seen.get(event["event_id"], 0) + 1
        if self.kind == "lazy" and ("m.room.member", event["sender"]) not in self.state:
            self.problems.append(f"the member event of {event['sender']} did not come")
        if self.seen[event["event_id"]] == 2:
            self.problems.append(f"{event['event_id']} came twice")

    async def poll(self, timeout):
        path = f"/sync?timeout={timeout}&use_state_after=true&filter={quote(FILTERS[self.kind])}"
        status, body = await self.client.call(
            "GET", path + (f"&since={quote(self.since)}" if self.since else ""))
        if status != 200:
            raise SystemExit(f"sync: {status} {body}")
        done = body["next_batch"] == self.since
        self.take(body)
        return done

    async def run(self):
        while not self.stopped:
            await self.poll(1000)

    async def finish(self):
        """Reads what is left."""
        while not await self.poll(0):
            pass
