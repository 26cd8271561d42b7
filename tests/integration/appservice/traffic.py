"""Application services: who they may be, what they are sent, what survives.
usage: traffic.py path/to/myelin [name of a test ...]"""
import sys
import threading
import time
import traceback
import urllib.parse

from bridge import NAME, REGISTRATION, Refused, Server, Service, refused, wait_for

AS = "as-secret"


def registration(service, **changes):
    values = {"id": "fax", "url": f"http://127.0.0.1:{service.port}", "as_token": AS,
              "sender": "_fax_bot", "prefix": "_fax_", "rate_limited": "false", **changes}
    return REGISTRATION.format(**values)


def register_and_login(server, service):
    answer = server.call("POST", "/register", {"type": "m.login.application_service",
                                               "username": "_fax_one"}, AS)
    assert answer["user_id"] == f"@_fax_one:{NAME}" and answer["access_token"]
    quiet = server.call("POST", "/register", {"type": "m.login.application_service",
                                              "username": "_fax_two", "inhibit_login": True}, AS)
    assert "access_token" not in quiet and "device_id" not in quiet
    login = {"type": "m.login.application_service",
             "identifier": {"type": "m.id.user", "user": "_fax_two"}}
    assert server.call("POST", "/login", login, AS)["user_id"] == f"@_fax_two:{NAME}"
    refused(401, "M_MISSING_TOKEN", server.call, "POST", "/login", login)
    refused(401, "M_UNKNOWN_TOKEN", server.call, "POST", "/login", login, "wrong")
    for path in ("/register", "/login"):
        body = {"type": "m.login.application_service", "username": "outside",
                "identifier": {"type": "m.id.user", "user": "outside"}}
        refused(400, "M_EXCLUSIVE", server.call, "POST", path, body, AS)
    refused(400, "M_USER_IN_USE", server.call, "POST", "/register",
            {"type": "m.login.application_service", "username": "_fax_two"}, AS)
    refused(400, "M_EXCLUSIVE", server.user, "_fax_stolen")
    refused(400, "M_EXCLUSIVE", server.call, "GET", "/register/available", username="_fax_three")
    types = [flow["type"] for flow in server.call("GET", "/login")["flows"]]
    assert "m.login.application_service" in types


def masquerading(server, service):
    ghost = server.ghost("_fax_mask", AS)
    me = server.call("GET", "/account/whoami", token=AS)
    assert me["user_id"] == f"@_fax_bot:{NAME}" and "device_id" not in me
    assert ghost.call("GET", "/account/whoami")["user_id"] == ghost.id
    alice = server.user("masked")
    refused(403, "M_FORBIDDEN", server.call, "GET", "/account/whoami", None, AS, user_id=alice.id)
    refused(403, "M_FORBIDDEN", server.call, "GET", "/account/whoami", None, AS,
            user_id=f"@_fax_unknown:{NAME}")
    refused(400, "M_UNKNOWN_DEVICE", ghost.call, "GET", "/account/whoami", device_id="NONE")
    ghost.call("PUT", "/devices/PHONE", {"display_name": "made"})
    assert ghost.call("GET", "/account/whoami", device_id="PHONE")["device_id"] == "PHONE"
    assert ghost.call("GET", "/devices")["devices"][0]["device_id"] == "PHONE"
    ghost.call("DELETE", "/devices/PHONE", {})
    refused(400, "M_UNKNOWN_DEVICE", ghost.call, "GET", "/account/whoami", device_id="PHONE")
    refused(404, "M_NOT_FOUND", alice.call, "PUT", "/devices/NEW", {})


def events(server, service):
    alice, ghost = server.user("alice"), server.ghost("_fax_g", AS)
    room = alice.create_room(preset="public_chat", name="Office")
    alice.say(room, "unheard")
    ghost.join(room)
    event_id = alice.say(room, "heard")
    wait_for(lambda: service.texts(room) == ["heard"])
    event = service.events(room, "m.room.message")[0]
    assert event["event_id"] == event_id and event["sender"] == alice.id
    assert event["room_id"] == room and "age" in event["unsigned"] and "state_key" not in event
    join = service.events(room, "m.room.member")[0]
    assert join["state_key"] == ghost.id and join["content"]["membership"] == "join"
    alice.call("PUT", f"/rooms/{room}/state/m.room.name/", {"name": "Archive"})
    named = wait_for(lambda: service.events(room, "m.room.name"))[0]
    assert named["state_key"] == "" and named["unsigned"]["prev_content"] == {"name": "Office"}
    ghost.leave(room)
    wait_for(lambda: service.events(room, "m.room.member")[-1]["content"]["membership"] == "leave")
    alice.say(room, "unheard, too")
    other = alice.create_room(preset="private_chat", invite=[ghost.id], name="Cabin")
    invite = wait_for(lambda: service.events(other, "m.room.member"))[0]
    state = {event["type"] for event in invite["unsigned"]["invite_room_state"]}
    assert invite["state_key"] == ghost.id and {"m.room.create", "m.room.name"} <= state
    assert service.texts(room) == ["heard"]


def times(server, service):
    ghost = server.ghost("_fax_past", AS)
    room = ghost.create_room(preset="public_chat")
    event_id = ghost.say(room, "of old", ts=1234567890)
    event = ghost.call("GET", f"/rooms/{room}/event/{event_id}")
    assert event["origin_server_ts"] == 1234567890
    ghost.call("PUT", f"/rooms/{room}/state/org.test/key", {}, ts=1234567891)
    content = ghost.call("GET", f"/rooms/{room}/state/org.test/key", format="event")
    assert content["origin_server_ts"] == 1234567891
    refused(400, "M_INVALID_PARAM", ghost.say, room, "never", ts="soon")
    refused(400, "M_INVALID_PARAM", ghost.say, room, "never", ts=-1)
    alice = server.user("timely")
    alice.join(room)
    event_id = alice.say(room, "now", ts=1234567890)
    assert alice.call("GET", f"/rooms/{room}/event/{event_id}")["origin_server_ts"] > 1700000000000


def quoted(text):
    return urllib.parse.quote(text, safe="")


def aliases(server, service):
    alice, ghost = server.user("namer"), server.ghost("_fax_namer", AS)
    room = alice.create_room(preset="public_chat")
    path = "/directory/room/" + quoted(f"#_fax_hall:{NAME}")
    refused(400, "M_EXCLUSIVE", alice.call, "PUT", path, {"room_id": room})
    refused(400, "M_EXCLUSIVE", alice.create_room, room_alias_name="_fax_room")
    refused(400, "M_EXCLUSIVE", ghost.call, "PUT",
            "/directory/room/" + quoted(f"#other:{NAME}"), {"room_id": room})
    ghost.call("PUT", path, {"room_id": room})
    alice.say(room, "by alias")
    wait_for(lambda: service.texts(room) == ["by alias"])
    refused(400, "M_EXCLUSIVE", alice.call, "DELETE", path)
    ghost.call("DELETE", path)
    alice.say(room, "no more")
    ghost.join(room)
    alice.say(room, "by ghost")
    wait_for(lambda: service.texts(room)[-1] == "by ghost")
    assert service.texts(room) == ["by alias", "by ghost"]


def ephemeral(server, service):
    alice, ghost = server.user("typist"), server.ghost("_fax_typist", AS)
    room = alice.create_room(preset="public_chat")
    ghost.join(room)
    event_id = alice.say(room, "read me")
    alice.call("PUT", f"/rooms/{room}/typing/{alice.id}", {"typing": True, "timeout": 30000})
    typing = wait_for(lambda: [e for e in service.items("ephemeral")
                               if e["type"] == "m.typing" and e["room_id"] == room])[0]
    assert typing["content"] == {"user_ids": [alice.id]}
    alice.call("POST", f"/rooms/{room}/receipt/m.read/{event_id}", {})
    receipt = wait_for(lambda: [e for e in service.items("ephemeral")
                                if e["type"] == "m.receipt" and e["room_id"] == room])[0]
    assert alice.id in receipt["content"][event_id]["m.read"]
    alice.call("POST", f"/rooms/{room}/receipt/m.read.private/{event_id}", {})
    ghost.call("POST", f"/rooms/{room}/receipt/m.read.private/{event_id}", {})
    private = wait_for(lambda: [e for e in service.items("ephemeral") if e["type"] == "m.receipt"
                                and "m.read.private" in e["content"].get(event_id, {})])
    assert [list(e["content"][event_id]["m.read.private"]) for e in private] == [[ghost.id]]
    alice.call("PUT", f"/presence/{alice.id}/status", {"presence": "online", "status_msg": "in"})
    wait_for(lambda: [e for e in service.items("ephemeral") if e["type"] == "m.presence"
                      and e["sender"] == alice.id and e["content"].get("status_msg") == "in"])


def encryption(server, service):
    alice, ghost = server.user("crypt"), server.ghost("_fax_crypt", AS)
    ghost.call("PUT", "/devices/BRIDGE", {})
    keys = {"device_keys": {"user_id": ghost.id, "device_id": "BRIDGE",
                            "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
                            "keys": {"curve25519:BRIDGE": "C" * 43, "ed25519:BRIDGE": "E" * 43},
                            "signatures": {}},
            "one_time_keys": {"curve25519:AAAA": "k" * 43, "curve25519:BBBB": "l" * 43}}
    ghost.call("POST", "/keys/upload", keys, device_id="BRIDGE")

    def counts():
        found = [body["device_one_time_keys_count"][ghost.id]["BRIDGE"]["curve25519"]
                 for body in service.taken()
                 if "BRIDGE" in body.get("device_one_time_keys_count", {}).get(ghost.id, {})]
        return found[-1] if found else None
    wait_for(lambda: counts() == 2)
    alice.call("POST", "/keys/claim",
               {"one_time_keys": {ghost.id: {"BRIDGE": "curve25519"}}})
    wait_for(lambda: counts() == 1)
    for i in range(120):
        alice.call("PUT", f"/sendToDevice/org.test/{i}",
                   {"messages": {ghost.id: {"BRIDGE": {"n": i}}}})
    wait_for(lambda: len(service.items("to_device")) == 120)
    messages = service.items("to_device")
    assert [m["content"]["n"] for m in messages] == list(range(120))
    assert all(m["to_user_id"] == ghost.id and m["to_device_id"] == "BRIDGE"
               and m["sender"] == alice.id and m["type"] == "org.test" for m in messages)
    room = alice.create_room(preset="public_chat")
    ghost.join(room)

    def lists(kind):
        return [user for body in service.taken()
                for user in body.get("org.matrix.msc3202.device_lists", {}).get(kind, [])]
    wait_for(lambda: alice.id in lists("changed"))
    before = lists("changed").count(alice.id)
    own = {"device_keys": {"user_id": alice.id, "device_id": alice.device,
                           "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
                           "keys": {"ed25519:" + alice.device: "E" * 43}, "signatures": {}}}
    alice.call("POST", "/keys/upload", own)
    wait_for(lambda: lists("changed").count(alice.id) > before)
    alice.leave(room)
    wait_for(lambda: alice.id in lists("left"))
    cross = {"master_key": {"user_id": ghost.id, "usage": ["master"],
                            "keys": {"ed25519:" + "M" * 43: "M" * 43}}}
    ghost.call("POST", "/keys/device_signing/upload", cross)
    cross["master_key"]["keys"] = {"ed25519:" + "N" * 43: "N" * 43}
    ghost.call("POST", "/keys/device_signing/upload", cross)


def queries(server, service):
    alice = server.user("asker")
    made = []

    def user(_, path, __):
        name = urllib.parse.unquote(path.rsplit("/", 1)[1])
        if "nobody" in name:
            return 404, {}
        made.append(name)
        ghost = server.ghost(name[1:].split(":")[0], AS)
        ghost.call("PUT", f"/profile/{ghost.id}/displayname", {"displayname": "From afar"})
        return 200, {}

    def room(_, path, __):
        alias = urllib.parse.unquote(path.rsplit("/", 1)[1])
        if "nothing" in alias:
            return 404, {}
        server.call("POST", "/createRoom", {"preset": "public_chat",
                                            "room_alias_name": alias[1:].split(":")[0]}, AS)
        return 200, {}
    service.answers = {"/_matrix/app/v1/users/": user, "/_matrix/app/v1/rooms/": room}
    profile = alice.call("GET", "/profile/" + quoted(f"@_fax_called:{NAME}"))
    assert profile["displayname"] == "From afar" and made == [f"@_fax_called:{NAME}"]
    alice.call("GET", "/profile/" + quoted(f"@_fax_called:{NAME}"))
    assert len(made) == 1
    refused(404, "M_NOT_FOUND", alice.call, "GET", "/profile/" + quoted(f"@_fax_nobody:{NAME}"))
    refused(404, "M_NOT_FOUND", alice.call, "GET", "/profile/" + quoted(f"@stranger:{NAME}"))
    here = alice.create_room(preset="private_chat")
    alice.call("POST", f"/rooms/{here}/invite", {"user_id": f"@_fax_invited:{NAME}"})
    wait_for(lambda: f"@_fax_invited:{NAME}" in made)
    assert alice.join(f"#_fax_lobby:{NAME}")
    refused(404, "M_NOT_FOUND", alice.join, f"#_fax_nothing:{NAME}")
    assert not [path for _, path, _ in service.requests if "stranger" in path]
    service.answers = {}


def ping(server, service):
    path = "/_matrix/client/v1/appservice/fax/ping"
    service.answers = {"/_matrix/app/v1/ping": lambda *_: (200, {})}
    answer = server.call("POST", path, {"transaction_id": "meow"}, AS)
    assert isinstance(answer["duration_ms"], int)
    assert ("POST", "/_matrix/app/v1/ping", {"transaction_id": "meow"}) in service.requests
    service.answers = {"/_matrix/app/v1/ping": lambda *_: (403, {"errcode": "M_FORBIDDEN"})}
    bad = refused(502, "M_BAD_STATUS", server.call, "POST", path, {}, AS)
    assert bad["status"] == 403 and "M_FORBIDDEN" in bad["body"]
    service.close()
    refused(502, "M_CONNECTION_FAILED", server.call, "POST", path, {}, AS)
    service.reopen()
    refused(403, "M_FORBIDDEN", server.call, "POST", path.replace("/fax/", "/mute/"), {}, AS)
    refused(403, "M_FORBIDDEN", server.call, "POST", path, {}, server.user("pinger").token)
    refused(400, "M_URL_NOT_SET", server.call, "POST", path.replace("/fax/", "/mute/"), {},
            "mute-secret")
    service.answers = {}


def third_party(server, service):
    alice = server.user("tourist")
    protocol = {"user_fields": ["number"], "location_fields": ["area"], "icon": "mxc://a/b",
                "field_types": {}, "instances": [{"desc": "Fax", "network_id": "g3",
                                                  "fields": {}}]}
    found = [{"userid": f"@_fax_1:{NAME}", "protocol": "fax", "fields": {"number": "1"}}]
    place = [{"alias": f"#_fax_a:{NAME}", "protocol": "fax", "fields": {"area": "a"}}]
    base = "/_matrix/app/v1/thirdparty/"
    service.answers = {base + "protocol/fax": lambda *_: (200, protocol),
                       base + "user": lambda *_: (200, found),
                       base + "location": lambda *_: (200, place)}
    all_of_them = alice.call("GET", "/thirdparty/protocols")
    assert list(all_of_them) == ["fax"] and all_of_them["fax"]["user_fields"] == ["number"]
    instance = all_of_them["fax"]["instances"][0]["instance_id"]
    assert alice.call("GET", "/thirdparty/protocol/fax") == all_of_them["fax"]
    refused(404, "M_NOT_FOUND", alice.call, "GET", "/thirdparty/protocol/telex")
    assert alice.call("GET", "/thirdparty/user/fax", number="1 2") == found
    assert alice.call("GET", "/thirdparty/location/fax", area="a") == place
    assert alice.call("GET", "/thirdparty/user", userid=f"@_fax_1:{NAME}") == found
    assert alice.call("GET", "/thirdparty/location", alias=f"#_fax_a:{NAME}") == place
    assert not [path for _, path, _ in service.requests if "access_token" in path]
    assert [path for _, path, _ in service.requests if path.endswith("user/fax?number=1+2")]
    service.answers = {}
    room = server.call("POST", "/createRoom", {"preset": "private_chat", "name": "Listed"}, AS)
    path = "/directory/list/appservice/g3/" + quoted(room["room_id"])
    refused(403, "M_FORBIDDEN", alice.call, "PUT", path, {"visibility": "public"})
    server.call("PUT", path, {"visibility": "public"}, AS)

    def listed(**body):
        return [r["room_id"] for r in alice.call("POST", "/publicRooms", body)["chunk"]]
    assert room["room_id"] not in listed()
    assert listed(third_party_instance_id=instance) == [room["room_id"]]
    assert room["room_id"] in listed(include_all_networks=True)
    server.call("PUT", path, {"visibility": "private"}, AS)
    assert listed(third_party_instance_id=instance) == []


def down_and_up(server, service):
    alice, ghost = server.user("patient"), server.ghost("_fax_patient", AS)
    room = alice.create_room(preset="public_chat")
    ghost.join(room)
    wait_for(lambda: service.events(room, "m.room.member"))
    service.fail = True
    started = time.monotonic()
    for i in range(150):
        alice.say(room, f"m{i}")
    assert time.monotonic() - started < 10
    server.stop()
    server.start()
    service.fail = False
    ghost.call("GET", "/account/whoami")  # who calls is tried at once
    wait_for(lambda: len(service.texts(room)) == 150, 60)
    assert service.texts(room) == [f"m{i}" for i in range(150)]


def killed(server, service):
    """Nothing is lost, doubled or reordered by kill -9, with the service up and down."""
    alice, ghost = server.user("victim"), server.ghost("_fax_victim", AS)
    room = alice.create_room(preset="public_chat")
    ghost.join(room)
    sent = []
    for turn in range(6):
        service.fail = turn % 3 == 1
        stop = threading.Event()

        def talk():
            while not stop.is_set():
                text = f"{turn}.{len(sent)}"
                try:
                    alice.say(room, text)
                except (Refused, OSError):
                    return
                sent.append(text)
        thread = threading.Thread(target=talk)
        thread.start()
        time.sleep(0.7)
        server.kill()
        stop.set()
        thread.join()
        server.start()
    service.fail = False
    alice.say(room, "the end")
    server.call("GET", "/account/whoami", token=AS)
    wait_for(lambda: "the end" in service.texts(room), 60)
    texts = service.texts(room)
    assert len(texts) == len(set(texts)), "something came twice"
    known = alice.call("GET", f"/rooms/{room}/messages", dir="b", limit=1000)["chunk"]
    stored = [e["content"]["body"] for e in reversed(known) if e["type"] == "m.room.message"]
    assert texts[-len(stored):] == stored and set(sent) <= set(texts)
    print(f"    {len(texts)} messages over 6 kills")


def reload(server, service):
    with open(server.files[1], encoding="utf-8") as file:
        old = file.read()
    with open(server.files[1], "w", encoding="utf-8") as file:
        file.write(old.replace("_mute_", "_still_"))
    server.process.send_signal(1)
    wait_for(lambda: server.ghost_or_none("_still_a", "mute-secret"))
    refused(400, "M_EXCLUSIVE", server.user, "_still_b")
    server.user("_mute_b")
    with open(server.files[1], "w", encoding="utf-8") as file:
        file.write(old.replace("as_token", "as_tokem"))
    server.process.send_signal(1)
    wait_for(lambda: "as_token: this is required" in server.log())
    refused(400, "M_EXCLUSIVE", server.user, "_still_c")


def ghost_or_none(server, name, token):
    try:
        return server.ghost(name, token)
    except Refused:
        return None


Server.ghost_or_none = ghost_or_none
TESTS = [register_and_login, masquerading, events, times, aliases, ephemeral, encryption, queries,
         ping, third_party, down_and_up, killed, reload]


def main():
    service = Service()
    mute = registration(service, id="mute", url="null", as_token="mute-secret",
                        sender="_mute_bot", prefix="_mute_").replace("protocols: [fax]", "")
    server = Server(sys.argv[1], [registration(service), mute])
    failed = []
    try:
        for test in TESTS:
            if sys.argv[2:] and test.__name__ not in sys.argv[2:]:
                continue
            try:
                started = time.monotonic()
                test(server, service)
                print(f"ok   {test.__name__} {time.monotonic() - started:.1f} s", flush=True)
            except Exception:
                failed.append(test.__name__)
                print(f"FAIL {test.__name__}", flush=True)
                traceback.print_exc()
        if failed:
            print(server.log()[-4000:])
    finally:
        server.remove()
        service.close()
    sys.exit(1 if failed else 0)


main()
