"""Random rooms authorised and resolved by this server's room core and by Synapse's modules.

usage: room_diff.py driver rooms-per-version seed [versions]
Prints `N passed, N failed`; each failure with what is needed to see it again. Differences that the
specification's text decides in our favour are counted as passed, listed in explain().
"""
import json
import random as random_module
import subprocess
import sys

import pushes
from peer import Peer
from rooms import SERVERS, TYPES, USERS, Maker

EVENTS_PER_ROOM = 60
OTHER_LEVELS = "the rule on m.room.power_levels holds for every state key"


class Driver:
    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Tally:
    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.explained = {}
        self.kinds = {}

    def count(self, kind):
        self.kinds[kind] = self.kinds.get(kind, 0) + 1

    def check(self, what, ours, theirs, explain=None, detail=""):
        self.count(what.split()[0])
        if ours == theirs:
            self.passed += 1
            return True
        reason = explain and explain()
        if reason:
            self.explained[reason] = self.explained.get(reason, 0) + 1
            self.passed += 1
            return True
        self.failed += 1
        if self.failed <= 20:
            print(f"FAILED {what}\n  ours   {ours}\n  theirs {theirs}\n  {detail}")
        return False


class Room:
    """One random room: a graph of accepted events with the state after each."""

    def __init__(self, driver, tally, version, seed):
        self.random = random_module.Random(f"{version}/{seed}")
        self.driver, self.tally = driver, tally
        self.version, self.seed = version, seed
        self.peer = Peer(version)
        self.maker = Maker(self.random, version, self.peer)
        self.after = {}
        self.depth = {}
        self.heads = []
        self.create_id = None
        self.room_id = None
        self.count = 0
        driver.ask(op="room", version=version)

    def name(self):
        return f"version {self.version} seed {self.seed} event {self.count}"

    def pdu(self, sender, kind, prev, cited):
        event_type, state_key, content = kind
        old = int(self.version) < 3
        refs = (lambda ids: [[i, {"sha256": "x"}] for i in ids]) if old else list
        self.count += 1
        depth = 1 + max((self.depth[p] for p in prev), default=0)
        value = {"type": event_type, "sender": sender, "content": content, "depth": depth,
                 "origin_server_ts": 1000 + self.random.choice([self.count, 5, 7, 30]),
                 "prev_events": refs(prev), "auth_events": refs(cited)}
        if self.room_id:
            value["room_id"] = self.room_id
        if state_key is not None:
            value["state_key"] = state_key
        if old:
            value["event_id"] = f"${self.count}x{self.random.random()}:{sender.split(':')[1]}"
        if event_type == "m.room.redaction" and self.after:
            target = self.random.choice(list(self.after))
            (content if int(self.version) >= 11 else value)["redacts"] = target
        if self.random.random() < 0.2:
            value["origin"] = "a"
            value["membership"] = "join"
        return value

    def add(self, pdu):
        """Gives the event to both sides; None when ours refuses it."""
        event = self.peer.complete(pdu)
        answer = self.driver.ask(op="event", pdu=event.get_pdu_json())
        if "error" in answer:
            self.tally.check("format " + self.name(), answer["error"], None, detail=str(pdu),
                             explain=lambda: self.explain_format(answer["error"]))
            return None
        self.tally.check("event id " + self.name(), answer["id"], event.event_id)
        self.tally.check("redaction " + self.name(), answer["redacted"], self.peer.pruned(event))
        self.tally.check("content hash " + self.name(), answer["hash_ok"], True)
        self.peer.store.events[event.event_id] = event
        return event

    def explain_format(self, error):
        if int(self.version) >= 6 and "must be integers" in error:
            return "from version 6 on, events hold canonical JSON only (no floats)"
        return None

    def begin(self):
        creator = self.random.choice(USERS)
        if self.version != "12":
            domain = creator.split(":")[1] if self.random.random() > 0.01 else "elsewhere"
            self.room_id = f"!r{self.seed}:{domain}"
        event = self.add(self.pdu(creator, ("m.room.create", "", self.maker.create(creator)), [], []))
        ours = self.driver.ask(op="auth", event=event.event_id, state=[], create=event.event_id)
        theirs = self.peer.allowed_alone(event)
        self.tally.check("create " + self.name(), ours["allowed"], theirs, detail=str(ours))
        if not (ours["allowed"] and theirs):
            return False
        self.create_id, self.room_id = event.event_id, event.room_id
        self.accept(event, {("m.room.create", ""): event.event_id}, [])
        self.try_event(creator, self.maker.member_event(creator, "join"))
        if self.random.random() < 0.8:
            users = {} if self.version == "12" else {creator: 100}
            self.try_event(creator, ("m.room.power_levels", "", {"users": users}))
        if self.random.random() < 0.7:
            self.try_event(creator, ("m.room.join_rules", "", {"join_rule": "public"}))
            for user in USERS[:4]:
                self.try_event(user, self.maker.member_event(user, "join"))
        return True

    def accept(self, event, state, prev):
        if event.is_state():
            state = dict(state)
            state[(event.type, event.state_key)] = event.event_id
        self.after[event.event_id] = state
        self.depth[event.event_id] = event.depth
        self.heads = [h for h in self.heads if h not in prev] + [event.event_id]

    def pick_prev(self):
        """Mostly heads; sometimes an old event, so that the graph forks."""
        pick = self.random.random()
        if pick < 0.35:
            return [self.random.choice(list(self.after)[-12:])]
        if pick < 0.45:
            return [self.heads[-1]]
        return self.random.sample(self.heads, min(len(self.heads), self.random.randint(2, 4)))

    def state_before(self, prev):
        sets = [self.after[p] for p in prev]
        if len(sets) == 1:
            return sets[0]
        if any(s != sets[0] for s in sets):
            self.tally.count("of these between differing states")
        theirs = self.peer.resolve(self.room_id, sets)
        ours = self.driver.ask(op="resolve", sets=[list(s.values()) for s in sets],
                               create=self.create_id)
        same = self.tally.check("resolution " + self.name(), sorted(ours["state"]),
                                sorted(theirs.values()), detail=self.differing(ours, theirs),
                                explain=lambda: self.explain_resolution(ours, theirs))
        return theirs if same else None

    def pick_sender(self, state):
        """Mostly someone in the room, often the creator."""
        joined = [u for u in USERS if ("m.room.member", u) in state and
                  state[("m.room.member", u)].content.get("membership") == "join"]
        pick = self.random.random()
        if not joined or pick < 0.25:
            return self.random.choice(USERS)
        creator = state[("m.room.create", "")].sender
        return creator if creator in joined and pick < 0.55 else self.random.choice(joined)

    def differing(self, ours, theirs):
        events = self.peer.store.events
        ids = set(ours["state"]) ^ set(theirs.values())
        return "; ".join(f"{'ours' if i in ours['state'] else 'theirs'} {i[:8]} {events[i].type} "
                         f"{events[i].state_key} {dict(events[i].content)}" for i in ids)

    def try_event(self, sender, kind):
        prev = self.pick_prev()
        state_ids = self.state_before(prev)
        if state_ids is None:
            return
        events = self.peer.store.events
        state = {k: events[i] for k, i in state_ids.items()}
        if kind is None:
            sender = self.pick_sender(state)
            kind = self.maker.event(sender, state)
        draft = self.peer.complete(self.pdu(sender, kind, prev, []))
        keys = self.peer.selection(draft)
        cited = [state_ids[k] for k in sorted(keys) if k in state_ids]
        if self.random.random() < 0.03:
            cited = self.spoil(cited)
        event = self.add(self.pdu(sender, kind, prev, cited))
        if event is None:
            return
        chosen = self.driver.ask(op="select", event=event.event_id)["keys"]
        self.tally.check("selection " + self.name(), sorted(map(tuple, chosen)), sorted(keys))
        good = self.check_cited(event)
        if self.check_auth(event, state) and good:
            self.accept(event, state_ids, prev)

    def spoil(self, cited):
        """auth_events as a broken or hostile server might choose them."""
        ways = [cited[1:], cited + cited[:1], cited + [self.random.choice(list(self.after))]]
        return self.random.choice(ways)

    def check_cited(self, event):
        ours = self.driver.ask(op="auth_events", event=event.event_id)
        theirs = self.peer.allowed_alone(event)
        self.tally.check("auth_events " + self.name(), ours["allowed"], theirs,
                         explain=lambda: self.explain_cited(event, ours), detail=str(ours))
        return ours["allowed"] and theirs

    def explain_cited(self, event, ours):
        ids = event.auth_event_ids()
        if ours["rule"].endswith(".1") and len(set(ids)) < len(ids):
            return "one event cited twice is a duplicate entry (rule on auth_events, .1)"
        return None

    def check_auth(self, event, state):
        ours = self.driver.ask(op="auth", event=event.event_id, create=self.create_id,
                               state=[e.event_id for e in state.values()])
        theirs = self.peer.allowed(event, state.values())
        self.tally.count("of these allowed" if ours["allowed"] else "of these refused")
        self.tally.check("auth " + self.name(), ours["allowed"], theirs,
                         explain=lambda: self.explain_auth(event, state, ours),
                         detail=f"{ours} {event.get_pdu_json()} {self.brief(state)}")
        return ours["allowed"] and theirs

    def explain_auth(self, event, state, ours):
        create = state[("m.room.create", "")]
        closed = create.content.get("m.federate", True) is not True
        home = create.sender.split(":")[1]
        if closed and create.content["m.federate"] is not False:
            return "only m.federate false closes a room, not other values"
        if closed and event.type == "m.room.member" and ours["allowed"]:
            if event.state_key.split(":")[1] != home:
                return "m.federate speaks of the sender's server, not of the target's"
        if event.type == "m.room.power_levels" and event.state_key:
            # The rule compares with the room's levels; Synapse with the event of the same state key.
            return OTHER_LEVELS
        return None

    def explain_resolution(self, ours, theirs):
        """Power levels that only they let in, for their state key."""
        events = self.peer.store.events
        differing = [events[i] for i in set(ours["state"]) ^ set(theirs.values())]
        if all(e.type == "m.room.power_levels" and e.state_key for e in differing):
            return OTHER_LEVELS
        return None

    def brief(self, state):
        return {f"{k[0]}/{k[1]}": dict(e.content) for k, e in state.items()
                if k[0] in ("m.room.power_levels", "m.room.join_rules", "m.room.member")}

    def check_push(self):
        state = {k: self.peer.store.events[i] for k, i in self.after[self.heads[-1]].items()}
        sender, user = self.random.choice(USERS[2:]), "@u1:b"
        kind = ("m.room.message", None, pushes.content(self.random))
        if self.random.random() < 0.2:
            kind = (self.random.choice(TYPES), "", pushes.content(self.random))
        event = self.add(self.pdu(sender, kind, [self.heads[-1]], []))
        rules = pushes.rules(self.random, USERS, self.room_id)
        name = self.random.choice(["", "Alice", "A+B", "foo"])
        members = self.random.randint(1, 4)
        theirs = self.peer.push(rules, {}, event, user, name, members, state)
        levels = state.get(("m.room.power_levels", ""))
        ours = self.driver.ask(op="push", user=user, rules={"global": rules}, event=event.event_id,
                               display_name=name, member_count=members, create=self.create_id,
                               **({"levels": levels.event_id} if levels else {}))
        self.tally.check("push " + self.name(), self.push_verdict(ours), self.tweaks(theirs),
                         detail=f"{ours} {rules} {dict(event.content)} name={name}")

    def push_verdict(self, answer):
        return answer["notify"], answer["notify"] and answer["highlight"], \
            answer["sound"] if answer["notify"] else ""

    def tweaks(self, actions):
        notify = "notify" in actions
        tweaks = {a["set_tweak"]: a.get("value", True) for a in actions if isinstance(a, dict)}
        return (notify, notify and tweaks.get("highlight", False),
                tweaks.get("sound", "") if notify else "")

    def run(self):
        if not self.begin():
            return
        for _ in range(EVENTS_PER_ROOM):
            self.try_event(None, None)
        for _ in range(5):
            self.check_push()


def main():
    path, rooms, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    versions = sys.argv[4].split(",") if sys.argv[4:] and sys.argv[4] else map(str, range(1, 13))
    driver, tally = Driver(path), Tally()
    for version in versions:
        before = tally.passed + tally.failed
        for i in range(rooms):
            Room(driver, tally, version, f"{seed}.{i}").run()
        print(f"version {version}: {rooms} rooms, {tally.passed + tally.failed - before} comparisons")
    driver.close()
    print(", ".join(f"{kind}: {count}" for kind, count in tally.kinds.items()))
    for reason, count in sorted(tally.explained.items()):
        print(f"differs by the specification's text, {count} times: {reason}")
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


sys.exit(main())
