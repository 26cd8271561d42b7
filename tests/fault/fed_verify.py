"""What must be true of both servers after long work that was interrupted."""
import asyncio
import time

from client import quote
from fed_stage import HISTORY
from twins import Client

ARRIVE_SECONDS = 45
SEARCH_SECONDS = 30
NEEDLE = "needle"


class Problems:
    def __init__(self, what):
        self.what, self.texts, self.checks = what, [], 0

    def add(self, text):
        self.texts.append(text)
        print(f"LOST: {self.what}: {text}", flush=True)

    def hold(self, is_so, text):
        """One check."""
        self.checks += 1
        if not is_so:
            self.add(text)


def bare(event):
    """What both servers must show alike."""
    return {key: value for key, value in event.items() if key not in ("unsigned", "user_id", "age",
                                                                      "replaces_state")}


async def get(turn, client, path):
    status, body = await client.call("GET", path)
    turn.problems.hold(status == 200, f"GET {path} of the {client.twin.what}: {status} {body}")
    return body if status == 200 else None


async def await_arrival(turn, reader, room):
    """Until the server has the newest event of each sender."""
    newest, deadline = {}, time.monotonic() + ARRIVE_SECONDS
    for event_id, (by, number) in turn.ledger.items():
        newest[by] = max(newest.get(by, (0, "")), (number, event_id))
    for by, (number, event_id) in newest.items():
        status = 0
        while status != 200 and time.monotonic() < deadline:
            status, _ = await reader.call("GET", f"/rooms/{quote(room)}/event/{quote(event_id)}")
            await asyncio.sleep(0 if status == 200 else 0.05)
        turn.problems.hold(status == 200, f"the newest event of {by} ({number}, {event_id}) did "
                           f"not come to the {reader.twin.what}")


async def walk_back(turn, client, room, enough):
    """Events from the newest back to where enough(events so far), or the room's start."""
    events, token = [], ""
    while token is not None and not enough(events):
        body = await get(turn, client, f"/rooms/{quote(room)}/messages?dir=b&limit=100" +
                         (f"&from={quote(token)}" if token else ""))
        if body is None:
            break
        events += body["chunk"]
        token = body.get("end")
    return events


def check_once(turn, what, events):
    """Each of the turn's events once, and those of one sender in their order."""
    found, last, late = {}, {}, []
    for event in reversed(events):
        found[event["event_id"]] = found.get(event["event_id"], 0) + 1
        by, number = turn.ledger.get(event["event_id"], (None, 0))
        if by:
            late += [(by, number)] if number < last.get(by, 0) else []
            last[by] = number
    wrong = [event_id for event_id in turn.ledger if found.get(event_id, 0) != 1]
    twice = [event_id for event_id, count in found.items() if count > 1]
    turn.problems.hold(not wrong and not twice,
                       f"{what}: {len(wrong)} events do not stand there once, such as "
                       f"{[(turn.ledger[i], found.get(i, 0)) for i in wrong[:3]]}; "
                       f"{len(twice)} stand twice")
    turn.problems.hold(not late, f"{what}: {late[:3]} stand after later ones")


async def check_room(turn, room):
    """The room's state and members, and what was sent meanwhile, on both sides."""
    home = Client(turn.resident, turn.stage.people[0])
    away = Client(turn.joiner, turn.stage.guests[0])
    for client in (home, away):
        await await_arrival(turn, client, room)
    states = []
    for client in (home, away):
        body = await get(turn, client, f"/rooms/{quote(room)}/state")
        states.append({event["event_id"]: bare(event) for event in body or []})
    missing, strange = states[0].keys() - states[1].keys(), states[1].keys() - states[0].keys()
    turn.problems.hold(not missing and not strange,
                       f"the state lacks {len(missing)} events and has {len(strange)} others, "
                       f"such as {[states[0][i] for i in list(missing)[:2]]} and "
                       f"{[states[1][i] for i in list(strange)[:2]]}")
    differ = [i for i in states[0].keys() & states[1].keys() if states[0][i] != states[1][i]]
    turn.problems.hold(not differ, f"{len(differ)} events of the state differ, such as "
                       f"{[(states[0][i], states[1][i]) for i in differ[:1]]}")
    members = []
    for client in (home, away):
        body = await get(turn, client, f"/rooms/{quote(room)}/joined_members")
        members.append(set((body or {}).get("joined", {})))
    joined = {event["state_key"] for event in states[0].values()
              if event["type"] == "m.room.member" and event["content"]["membership"] == "join"}
    turn.problems.hold(members[0] == members[1] == joined,
                       f"joined members: {len(members[0])} and {len(members[1])}, "
                       f"by the state {len(joined)}")
    if turn.ledger:
        for client in (home, away):
            events = await walk_back(turn, client, room, lambda events: turn.ledger.keys() <= {
                event["event_id"] for event in events})
            check_once(turn, f"/messages of the {client.twin.what}", events)
    turn.joined, turn.state = joined, states[0]
    home.close()
    away.close()


async def check_followers(turn, followers):
    for follower in followers:
        await follower.finish()
        what = f"the {follower.kind} client"
        turn.problems.hold(follower.is_in, f"{what} does not see the room")
        turn.problems.hold(not follower.problems, f"{what}: {follower.problems[:3]}")
        turn.problems.hold(follower.count == len(turn.joined),
                           f"{what} counts {follower.count} of {len(turn.joined)} members")
        known = set(follower.state.values())
        if follower.kind == "full":
            turn.problems.hold(known == turn.state.keys(),
                               f"{what} lacks {len(turn.state.keys() - known)} events of the state "
                               f"and has {len(known - turn.state.keys())} others")
        else:
            turn.problems.hold(known <= turn.state.keys(),
                               f"{what} has {len(known - turn.state.keys())} events that are not "
                               "the state")


async def check_keys(turn):
    """Devices that came while servers were killed are known to who shares the room."""
    client = Client(turn.joiner, turn.stage.guests[0])
    keeper, deadline = turn.stage.keeper.user_id, time.monotonic() + ARRIVE_SECONDS
    found = {}
    while found.keys() != turn.keys.keys() and time.monotonic() < deadline:
        _, body = await client.call("POST", "/keys/query", {"device_keys": {keeper: []}})
        found = {device: keys["keys"]
                 for device, keys in body.get("device_keys", {}).get(keeper, {}).items()}
        await asyncio.sleep(0 if found.keys() == turn.keys.keys() else 0.1)
    turn.problems.hold(found == turn.keys,
                       f"{len(found)} of {len(turn.keys)} devices are known")
    client.close()


async def find_people(turn, client):
    """What the directory of the joiner's users says of a few names."""
    found = {}
    count = turn.stage.member_count
    for number in (count // 24, count // 3, count - 1):
        term = f"member{number}"
        status, body = await client.call("POST", "/user_directory/search",
                                         {"search_term": term, "limit": 100})
        found[term] = sorted(user["user_id"] for user in body.get("results", [])) \
            if status == 200 else status
    return found


async def find_texts(client, room):
    found, batch = set(), ""
    while batch is not None:
        status, body = await client.call(
            "POST", "/search" + (f"?next_batch={quote(batch)}" if batch else ""),
            {"search_categories": {"room_events": {"search_term": NEEDLE, "order_by": "recent",
                                                   "filter": {"rooms": [room], "limit": 100}}}})
        if status != 200:
            return {status}
        results = body["search_categories"]["room_events"]
        found |= {result["result"]["event_id"] for result in results["results"]}
        batch = results.get("next_batch")
    return found


async def await_index(turn):
    deadline = time.monotonic() + SEARCH_SECONDS
    while time.monotonic() < deadline:
        _, output = await turn.joiner.operate("--json", "search", "show")
        if '"whole":true' in output.replace(" ", ""):
            return
        await asyncio.sleep(0.05)
    turn.problems.add("the search index is not whole")


async def check_search(turn):
    """The joiner's index, which is then made anew and must say the same."""
    client, room = Client(turn.joiner, turn.stage.guests[0]), turn.stage.large
    await await_index(turn)
    people, texts = await find_people(turn, client), await find_texts(client, room)
    names = [user.split(":")[0][1:] for user in turn.joined]
    for term, users in people.items():
        expected = sum(name.startswith(term) for name in names)
        turn.problems.hold(users and len(users) == expected,
                           f"the directory finds {len(users)} of {expected} {term}*")
    turn.problems.hold(turn.ledger.keys() <= texts,
                       f"the search misses {len(turn.ledger.keys() - texts)} messages")
    turn.joiner.kill()
    await turn.joiner.operate("search", "rebuild")
    await turn.joiner.start()
    await await_index(turn)
    anew_people, anew = await find_people(turn, client), await find_texts(client, room)
    turn.problems.hold(people == anew_people and texts == anew,
                       f"the index made anew finds {len(anew)} messages, the old one {len(texts)}; "
                       f"people: {'the same' if people == anew_people else 'others'}")
    client.close()


async def check_history(turn, room, guest, when):
    """The small room, read back to its start: every message once, in order."""
    client = Client(turn.joiner, guest)
    events = await walk_back(turn, client, room, lambda events: False)
    numbers = [event["content"]["number"] for event in reversed(events)
               if event["content"].get("body", "").startswith("history")]
    wanted = list(range(HISTORY))
    turn.problems.hold(numbers == wanted, f"history read {when}: {len(numbers)} of {len(wanted)} "
                       f"messages, {len(set(numbers))} different, "
                       f"{'in order' if numbers == sorted(numbers) else 'out of order'}")
    first = events[-1]["type"] if events else None
    turn.problems.hold(first == "m.room.create", f"history read {when} ends with {first}")
    client.close()


async def check_stores(turn):
    for twin, (code, output) in zip(
            (turn.resident, turn.joiner),
            await asyncio.gather(*[twin.operate("check", "--deep")
                                   for twin in (turn.resident, turn.joiner)])):
        lines = [line for line in output.splitlines() if ": " in line]
        turn.problems.hold(code == 0, f"myelinctl check of the {twin.what}: {lines[:12]}")
