"""The turns: each is long work over federation with servers killed in the middle of it, and what
must be true when it is done."""
import asyncio
import random
import time

from client import quote
from fed_stage import Follower, Talker, add_device
from fed_verify import (Problems, check_followers, check_history, check_keys, check_room,
                        check_search, check_stores)
from twins import Client

WHOLE_SECONDS = 60


class Turn:
    """One start of both servers from the files that were kept."""

    def __init__(self, stage, what):
        self.stage, self.what, self.problems = stage, what, Problems(what)
        self.resident, self.joiner = stage.resident, stage.joiner
        self.kills, self.keys = 0, dict(stage.keys)
        self.ledger = {}  # event id -> (by, number), of all that was acknowledged
        self.clients = []

    def client(self, twin, device):
        client = Client(twin, device)
        self.clients.append(client)
        return client

    async def begin(self):
        for twin in (self.resident, self.joiner):
            twin.kill()
            twin.restore()
        await asyncio.gather(self.resident.start(), self.joiner.start())

    async def kill(self, twin, after):
        await asyncio.sleep(after)
        twin.kill()
        self.kills += 1
        await twin.start()
        # Who was away is left alone for a while; an operator can end that.
        await asyncio.gather(*[each.operate("retry", "--all")
                               for each in (self.resident, self.joiner)])

    async def kill_some(self, twins, times, within):
        for _ in range(times):
            await self.kill(random.choice(twins), random.uniform(0, within))

    async def join(self, guest, room):
        client = self.client(self.joiner, guest)
        status, body = await client.call(
            "POST", f"/join/{quote(room)}?server_name={quote(self.resident.name)}"
            f"&via={quote(self.resident.name)}", {})
        if status != 200:
            self.problems.add(f"a join ended with {status} {body}")
        client.close()

    async def await_whole(self):
        """Until no room of the joiner is half there."""
        deadline = time.monotonic() + WHOLE_SECONDS
        while time.monotonic() < deadline:
            code, output = await self.joiner.operate("--json", "rooms", "partial")
            if code == 0 and '"rooms":[]' in output.replace(" ", ""):
                return
            await asyncio.sleep(0.1)
        self.problems.add(f"a room is half there after {WHOLE_SECONDS} s: {output[-300:]}")

    def end(self):
        for client in self.clients:
            client.close()
        for twin in (self.resident, self.joiner):
            twin.kill()


# --- a large room ---

class Visit:
    """Users of the joiner in the large room, where people talk and clients sync all the while."""

    def __init__(self, turn):
        stage, self.turn, self.room = turn.stage, turn, turn.stage.large
        self.talkers = [
            Talker(turn.client(stage.resident, stage.people[1]), self.room, "home", turn.ledger),
            Talker(turn.client(stage.joiner, stage.guests[0]), self.room, "guest", turn.ledger)]
        self.followers = [
            Follower(turn.client(stage.joiner, stage.guests[0]), "full", self.room),
            Follower(turn.client(stage.joiner, stage.guests[1]), "lazy", self.room)]
        self.tasks = [asyncio.create_task(talker.run(0.03)) for talker in self.talkers]
        self.tasks += [asyncio.create_task(follower.run()) for follower in self.followers]

    async def enter(self):
        await asyncio.gather(*[self.turn.join(guest, self.room)
                               for guest in self.turn.stage.guests])

    async def leave(self):
        for guest in self.turn.stage.guests:
            client = self.turn.client(self.turn.joiner, guest)
            await client.call("POST", f"/rooms/{quote(self.room)}/leave", {})
            client.close()

    async def end(self):
        await self.turn.await_whole()
        for each in self.talkers + self.followers:
            each.stopped = True
        for task in self.tasks:
            await task

    async def check(self):
        await check_room(self.turn, self.room)
        await check_followers(self.turn, self.followers)
        await check_keys(self.turn)
        await check_search(self.turn)


async def visit(turn, twins, kills):
    """Joins with kills from the beginning to when all is there."""
    here = Visit(turn)
    killing = asyncio.create_task(turn.kill_some(twins, kills, turn.stage.whole_seconds))
    await here.enter()
    asked = turn.client(turn.resident, turn.stage.keeper)
    await add_device(turn.stage, turn.keys, asked.call)
    await killing
    await here.end()
    await here.check()


async def joiner_killed(turn):
    await visit(turn, [turn.joiner], 4)


async def resident_killed(turn):
    await visit(turn, [turn.resident], 3)


async def both_killed(turn):
    await visit(turn, [turn.joiner, turn.resident], 4)


async def left_and_joined_again(turn):
    here = Visit(turn)
    await here.enter()
    await turn.kill(turn.joiner, random.uniform(0, turn.stage.whole_seconds))
    leaving = asyncio.create_task(here.leave())
    await turn.kill(turn.joiner, random.uniform(0, 0.3))
    await leaving
    killing = asyncio.create_task(turn.kill_some([turn.joiner], 2, turn.stage.whole_seconds))
    await here.enter()
    await killing
    await here.end()
    await here.check()


# --- history ---

async def history_killed(turn):
    """A room is read back to its start, the joiner killed meanwhile."""
    room, guest = turn.stage.small, turn.stage.guests[0]
    await turn.join(guest, room)
    await turn.await_whole()
    killing = asyncio.create_task(turn.kill_some([turn.joiner, turn.joiner, turn.resident], 3, 0.4))
    await check_history(turn, room, guest, "while servers were killed")
    await killing
    await check_history(turn, room, guest, "afterwards")
    await check_room(turn, room)


async def gap_killed(turn):
    """The joiner was away, and is killed while it fetches what it missed."""
    room, guest = turn.stage.small, turn.stage.guests[0]
    await turn.join(guest, room)
    await turn.await_whole()
    turn.joiner.kill()
    talkers = [Talker(turn.client(turn.resident, turn.stage.people[i]), room, f"home{i}",
                      turn.ledger) for i in range(2)]
    tasks = [asyncio.create_task(talker.run(0.002)) for talker in talkers]
    await asyncio.sleep(0.7)
    await turn.joiner.start()
    killing = asyncio.create_task(turn.kill_some([turn.joiner], 3, 0.5))
    await turn.resident.operate("retry", "--all")
    await killing
    for talker in talkers:
        talker.stopped = True
    for task in tasks:
        await task
    await check_history(turn, room, guest, "after a gap")
    await check_room(turn, room)


# --- media ---

async def media_killed(turn):
    """A large file is fetched from the resident, either server killed meanwhile."""
    client = turn.client(turn.joiner, turn.stage.guests[0])
    killing = asyncio.create_task(
        turn.kill_some([turn.joiner, turn.joiner, turn.resident], 3, 0.15))
    for when in ("while servers were killed", "again"):
        status, body = await client.call(
            "GET", f"/_matrix/client/v1/media/download/{turn.stage.file}")
        if status != 200 or body != turn.stage.file_bytes:
            turn.problems.add(f"a file fetched {when} is another: {status}, {len(body)} bytes")
        await killing


TURNS = {
    "the joiner is killed": joiner_killed,
    "history": history_killed,
    "both are killed": both_killed,
    "a gap": gap_killed,
    "left, and joined again": left_and_joined_again,
    "media": media_killed,
    "the resident is killed": resident_killed,
}


async def measure(stage):
    """How long a join takes until all is there, with nobody killed."""
    turn = Turn(stage, "nobody is killed")
    await turn.begin()
    began = time.monotonic()
    await turn.join(stage.guests[0], stage.large)
    await turn.await_whole()
    stage.whole_seconds = time.monotonic() - began
    turn.end()
    print(f"{stage.member_count} members: whole after {stage.whole_seconds:.2f} s", flush=True)


async def take_turn(stage, what):
    turn = Turn(stage, what)
    began = time.monotonic()
    try:
        await turn.begin()
        await TURNS[what](turn)
    finally:
        turn.end()
    await check_stores(turn)
    print(f"{what}: {turn.kills} kills, {len(turn.ledger)} events meanwhile, "
          f"{turn.problems.checks} checks, {len(turn.problems.texts)} problems "
          f"({time.monotonic() - began:.1f} s)", flush=True)
    return turn
