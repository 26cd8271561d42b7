"""Random push rules and messages."""

WORDS = ["tea", "time", "foo_bar", "Alice", "u1", "x", "A+B", "one-two", "@room"]
PATTERNS = WORDS + ["t*", "*e*", "t?a", "ti?e", "*", "o*o", "alice", "", "b", "hello*"]
KEYS = ["content.body", "type", "state_key", "sender", "room_id", "content.msgtype",
        "content.m\\.mentions.user_ids", "content.m\\.relates_to.rel_type", "content.n",
        "content.deep.er", "content.a\\\\b", "content.list", "content", "nothing.here"]
VALUES = ["m.text", "x", 1, 2, True, False, None, "m.replace", "@u1:b"]
ACTIONS = [[], ["notify"], ["notify", {"set_tweak": "highlight"}],
           ["notify", {"set_tweak": "sound", "value": "ping"}], ["dont_notify"],
           ["notify", {"set_tweak": "highlight", "value": False}]]


def body(random):
    return random.choice([" ", " ", "-", ", "]).join(
        random.choice(WORDS) for _ in range(random.randint(0, 4)))


def content(random):
    value = {"msgtype": random.choice(["m.text", "m.notice"]), "body": body(random)}
    if random.random() < 0.3:
        value["m.mentions"] = random.choice([{"user_ids": ["@u1:b"]}, {"room": True}, {},
                                             {"user_ids": []}, {"room": "true"}])
    if random.random() < 0.3:
        value["m.relates_to"] = {"rel_type": random.choice(["m.replace", "m.thread"]),
                                 "event_id": "$x"}
    if random.random() < 0.5:
        value.update(n=random.choice(VALUES), deep={"er": random.choice(VALUES)})
        value["a\\b"] = random.choice(VALUES)
        value["list"] = random.sample(VALUES, 3)
    return value


def condition(random):
    kind = random.choice(["event_match"] * 3 + ["event_property_is", "event_property_contains",
                                                "contains_display_name", "room_member_count",
                                                "sender_notification_permission", "unknown.kind"])
    if kind == "event_match":
        return {"kind": kind, "key": random.choice(KEYS), "pattern": random.choice(PATTERNS)}
    if kind in ("event_property_is", "event_property_contains"):
        return {"kind": kind, "key": random.choice(KEYS), "value": random.choice(VALUES)}
    if kind == "room_member_count":
        return {"kind": kind, "is": random.choice(["", "==", "<", ">", "<=", ">="]) +
                random.choice(["1", "2", "3", "10"])}
    if kind == "sender_notification_permission":
        return {"kind": kind, "key": random.choice(["room", "other"])}
    return {"kind": kind}


def rules(random, users, room_id):
    value = {}
    for kind in ("override", "underride"):
        value[kind] = [{"rule_id": f"{kind}{i}", "actions": random.choice(ACTIONS),
                        "conditions": [condition(random) for _ in range(random.randint(1, 2))]}
                       for i in range(random.randint(0, 4))]
    value["content"] = [{"rule_id": f"c{i}", "actions": random.choice(ACTIONS),
                         "pattern": random.choice([p for p in PATTERNS if p])}
                        for i in range(random.randint(0, 2))]
    value["sender"] = [{"rule_id": u, "actions": random.choice(ACTIONS)}
                       for u in random.sample(users, random.randint(0, 1))]
    if random.random() < 0.1:
        value["room"] = [{"rule_id": room_id, "actions": random.choice(ACTIONS)}]
    return value
