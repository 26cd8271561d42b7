"""Every road into and out of a room between servers.
usage: membership.py path/to/myelin [name of a test ...]"""
import sys
import time
import traceback

from servers import Town, refused, wait_for

ROOM_VERSIONS = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"]


def in_join(room):
    return lambda answer: answer["rooms"].get("join", {}).get(room) if "rooms" in answer else None


def section(name, room):
    return lambda answer: answer.get("rooms", {}).get(name, {}).get(room)


def join_public(a, b, **_):
    alice, bob = a.user("alice1"), b.user("bob1")
    for version in ROOM_VERSIONS:
        room = alice.create_room(preset="public_chat", room_version=version, name="Hall")
        started = time.monotonic()
        assert bob.join(room, a.name) == room, version
        print(f"    version {version}: {1000 * (time.monotonic() - started):.1f} ms")
        assert bob.state(room, "m.room.name")["name"] == "Hall"
        assert bob.members(room) == {alice.id: "join", bob.id: "join"}, version
        assert alice.members(room) == {alice.id: "join", bob.id: "join"}, version
        wait_for(lambda: bob.call("GET", "/joined_rooms")["joined_rooms"].count(room))
    bob.sync_until(in_join(room))


def join_by_alias(a, b, **_):
    alice, bob = a.user("alice2"), b.user("bob2")
    room = alice.create_room(preset="public_chat", room_alias_name="hall")
    alias = f"#hall:{a.name}"
    found = bob.call("GET", "/directory/room/" + alias.replace("#", "%23"))
    assert found["room_id"] == room and a.name in found["servers"]
    assert bob.join(alias) == room
    refused(404, "M_NOT_FOUND", bob.join, f"#nothing:{a.name}")


def refusals(a, b, **_):
    alice, bob = a.user("alice3"), b.user("bob3")
    closed = alice.create_room(preset="private_chat")
    refused(403, "M_FORBIDDEN", bob.join, closed, a.name)
    refused(403, "M_FORBIDDEN", bob.knock, closed, a.name)
    public = alice.create_room(preset="public_chat")
    alice.ban(public, bob)
    refused(403, "M_FORBIDDEN", bob.join, public, a.name)
    refused(404, "M_NOT_FOUND", bob.join, "!nothing:" + a.name, a.name)
    acl = alice.create_room(preset="public_chat", initial_state=[
        {"type": "m.room.server_acl", "state_key": "",
         "content": {"allow": ["*"], "deny": [b.name.split(":")[0]], "allow_ip_literals": True}}])
    refused(403, "M_FORBIDDEN", bob.join, acl, a.name)


def invite_and_join(a, b, **_):
    alice, bob = a.user("alice4"), b.user("bob4")
    bob.sync()
    for version in ROOM_VERSIONS:
        room = alice.create_room(preset="private_chat", room_version=version, name="Cabin",
                                 invite=[bob.id], is_direct=True)
        invite = bob.sync_until(section("invite", room))["invite_state"]["events"]
        types = {event["type"] for event in invite}
        assert {"m.room.create", "m.room.member", "m.room.name"} <= types, types
        own = [e for e in invite if e.get("state_key") == bob.id][0]
        assert own["content"]["membership"] == "invite" and own["content"]["is_direct"]
        assert all(set(e) <= {"type", "state_key", "sender", "content"} for e in invite)
        assert alice.members(room)[bob.id] == "invite"
        assert bob.join(room) == room  # by the inviter's server alone
        assert alice.members(room)[bob.id] == "join"


def quick_join_after_invite(a, b, **_):
    alice, bob = a.user("alice5"), b.user("bob5")
    bob.sync()
    for _ in range(5):
        room = alice.create_room(preset="private_chat")
        import threading
        thread = threading.Thread(target=alice.invite, args=(room, bob))
        thread.start()
        bob.sync_until(section("invite", room))
        assert bob.join(room, a.name) == room
        thread.join()


def reject_invite(a, b, **_):
    alice, bob = a.user("alice6"), b.user("bob6")
    room = alice.create_room(preset="private_chat", invite=[bob.id])
    bob.sync_until(section("invite", room))
    bob.leave(room)
    bob.sync_until(section("leave", room))
    wait_for(lambda: alice.members(room)[bob.id] == "leave")
    refused(403, "M_FORBIDDEN", bob.join, room, a.name)


def reject_when_the_inviter_is_gone(a, b, town, **_):
    c = town.server()
    carol, bob = c.user("carol7"), b.user("bob7")
    room = carol.create_room(preset="private_chat", invite=[bob.id])
    bob.sync_until(section("invite", room))
    c.kill()
    bob.leave(room)
    bob.sync_until(section("leave", room))


def blocked_invites(a, b, **_):
    alice, bob = a.user("alice8"), b.user("bob8")
    room = alice.create_room(preset="private_chat")
    bob.call("PUT", f"/user/{bob.id}/account_data/m.invite_permission_config",
             {"default_action": "block"})
    refused(403, "M_INVITE_BLOCKED", alice.invite, room, bob)

    class Nobody:
        id = f"@nobody:{b.name}"
    refused(404, "M_NOT_FOUND", alice.invite, room, Nobody)


def knock(a, b, **_):
    alice, bob = a.user("alice9"), b.user("bob9")
    for version in ["7", "10", "12"]:
        room = alice.create_room(preset="private_chat", room_version=version, name="Door",
                                 initial_state=[{"type": "m.room.join_rules", "state_key": "",
                                                 "content": {"join_rule": "knock"}}])
        refused(403, "M_FORBIDDEN", bob.join, room, a.name)
        assert bob.knock(room, a.name, reason="Hello?") == room
        state = bob.sync_until(section("knock", room))["knock_state"]["events"]
        assert "m.room.create" in {event["type"] for event in state}
        event = wait_for(lambda: alice.state(room, "m.room.member", bob.id))
        assert event["membership"] == "knock" and event["reason"] == "Hello?"
        bob.leave(room)  # takes it back
        bob.sync_until(section("leave", room))
        wait_for(lambda: alice.members(room)[bob.id] == "leave")
        bob.knock(room, a.name)
        alice.invite(room, bob)
        bob.sync_until(section("invite", room))
        refused(403, "M_FORBIDDEN", bob.knock, room, a.name)
        bob.join(room, a.name)


def restricted(a, b, **_):
    alice, bob, eve = a.user("alice10"), b.user("bob10"), b.user("eve10")
    for version, rule in [("8", "restricted"), ("10", "knock_restricted"), ("12", "restricted")]:
        space = alice.create_room(preset="public_chat", room_version=version)
        rules = {"join_rule": rule, "allow": [{"type": "m.room_membership", "room_id": space}]}
        room = alice.create_room(
            preset="private_chat", room_version=version,
            initial_state=[{"type": "m.room.join_rules", "state_key": "", "content": rules}])
        refused(403, "M_FORBIDDEN", bob.join, room, a.name)
        bob.join(space, a.name)
        bob.join(room, a.name)
        member = alice.state(room, "m.room.member", bob.id)
        assert member["join_authorised_via_users_server"] == alice.id
        # B is in both rooms now, but nobody of it may invite: it has to ask A.
        power = alice.state(room, "m.room.power_levels")
        alice.set_state(room, "m.room.power_levels", {**power, "invite": 50})
        wait_for(lambda: bob.state(room, "m.room.power_levels").get("invite") == 50)
        eve.join(space, a.name)
        wait_for(lambda: alice.members(space).get(eve.id) == "join")
        eve.join(room, a.name)


def falls_over(a, b, town, **_):
    dead, c = town.server(), town.server()
    dead.kill()
    alice, bob = a.user("alice11"), b.user("bob11")
    room = alice.create_room(preset="public_chat")
    started = time.monotonic()
    assert bob.join(room, dead.name, c.name, a.name) == room
    assert time.monotonic() - started < 30
    carol = c.user("carol11")
    # A cannot vouch; B, which is in the space, sends the join on to who can.
    carol.join(room, dead.name, b.name)
    assert len(carol.members(room)) == 3


def second_user_joins_locally(a, b, **_):
    alice, bob, ben = a.user("alice12"), b.user("bob12"), b.user("ben12")
    room = alice.create_room(preset="public_chat")
    bob.join(room, a.name)
    ben.join(room)
    wait_for(lambda: alice.members(room).get(ben.id) == "join")
    bob.leave(room)
    ben.leave(room)
    wait_for(lambda: alice.members(room).get(ben.id) == "leave")
    # All of B have left: the next one joins through A again.
    alice.set_state(room, "m.room.topic", {"topic": "meanwhile"})
    bob.join(room, a.name)
    assert bob.state(room, "m.room.topic")["topic"] == "meanwhile"
    text = alice.say(room, "welcome back")
    bob.sync_until(lambda s: any(e["event_id"] == text for e in
                                 (in_join(room)(s) or {"timeline": {"events": []}})
                                 ["timeline"]["events"]))


def rescinded_invite(a, b, **_):
    alice, bob = a.user("alice13"), b.user("bob13")
    room = alice.create_room(preset="private_chat", invite=[bob.id])
    bob.sync_until(section("invite", room))
    alice.kick(room, bob)
    bob.sync_until(section("leave", room))


def invite_into_known_room(a, b, **_):
    alice, bob, ben = a.user("alice14"), b.user("bob14"), b.user("ben14")
    room = alice.create_room(preset="private_chat", invite=[bob.id])
    bob.join(room, a.name)
    alice.invite(room, ben)
    ben.sync_until(section("invite", room))
    assert bob.members(room)[ben.id] == "invite"
    ben.join(room)
    wait_for(lambda: alice.members(room).get(ben.id) == "join")


def partial_join(a, b, **_):
    alice, bob = a.user("alice15"), b.user("bob15")
    room = alice.create_room(preset="public_chat", name="Big")
    others = [a.user(f"m15x{i}") for i in range(12)]
    for other in others:
        other.join(room)
    bob.join(room, a.name)
    bob.say(room, "here already")
    lazy = {"room": {"state": {"lazy_load_members": True}}}
    bob.sync_until(in_join(room), filter_json=lazy)
    members = bob.members(room)
    assert len(members) == 14, members


TESTS = [join_public, join_by_alias, refusals, invite_and_join, quick_join_after_invite,
         reject_invite, reject_when_the_inviter_is_gone, blocked_invites, knock, restricted,
         falls_over, second_user_joins_locally, rescinded_invite, invite_into_known_room,
         partial_join]


def main():
    wanted = sys.argv[2:]
    town = Town(sys.argv[1])
    failed = 0
    try:
        a, b = town.server(), town.server()
        for test in TESTS:
            if wanted and test.__name__ not in wanted:
                continue
            try:
                test(a=a, b=b, town=town)
                print(f"ok   {test.__name__}", flush=True)
            except Exception:
                failed += 1
                print(f"FAIL {test.__name__}\n{traceback.format_exc()}", flush=True)
    finally:
        town.close(keep=failed > 0)
    if failed:
        print("logs are in", town.folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
