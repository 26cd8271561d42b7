"""Random rooms: what users might send next, well-behaved or not."""

SERVERS = ["a", "b", "c"]
USERS = [f"@u{i}:{SERVERS[i % 3]}" for i in range(7)]
LEVELS = [-10, 0, 0, 10, 25, 50, 50, 75, 99, 100, 100, 101]
TYPES = ["m.room.topic", "m.room.name", "org.example.state", "m.room.canonical_alias"]


class Maker:
    """Makes types, state keys and contents; `peer` signs third-party invites."""

    def __init__(self, random, version, peer):
        self.random = random
        self.number = int(version)
        self.version = version
        self.peer = peer
        self.kinds = [self.join, self.join, self.join, self.member, self.member, self.invite,
                      self.kick, self.ban, self.power, self.power, self.rules, self.state,
                      self.message, self.third_party, self.third_party_invite, self.knock,
                      self.aliases, self.redaction, self.profile, self.restricted]

    def create(self, sender):
        content = {"room_version": self.version}
        if self.number < 11 and self.random.random() > 0.02:
            content["creator"] = sender
        if self.random.random() < 0.1:
            content["m.federate"] = self.random.choice([False, True, "false"])
        if self.random.random() < 0.4:
            content["additional_creators"] = self.random.sample(USERS, self.random.randint(0, 2))
        if self.random.random() < 0.03:
            content["additional_creators"] = self.random.choice(["x", [5], ["notauser"], {}])
        return content

    def event(self, sender, state):
        return self.random.choice(self.kinds)(sender, state)

    def member_event(self, user, membership, **more):
        return "m.room.member", user, dict(membership=membership, **more)

    def join(self, sender, state):
        user = sender if self.random.random() < 0.97 else self.random.choice(USERS)
        return self.member_event(user, "join")

    def profile(self, sender, state):
        return self.member_event(sender, "join", displayname=str(self.random.random()))

    def member(self, sender, state):
        words = ["join", "leave", "invite", "ban", "knock", "dance"]
        return self.member_event(self.random.choice(USERS), self.random.choice(words))

    def invite(self, sender, state):
        return self.member_event(self.random.choice(USERS), "invite")

    def kick(self, sender, state):
        return self.member_event(self.random.choice(USERS), "leave")

    def ban(self, sender, state):
        return self.member_event(self.random.choice(USERS), "ban")

    def knock(self, sender, state):
        user = sender if self.random.random() < 0.9 else self.random.choice(USERS)
        return self.member_event(user, "knock")

    def restricted(self, sender, state):
        return self.member_event(sender, self.random.choice(["join"] * 4 + ["leave"]),
                                 join_authorised_via_users_server=self.random.choice(USERS))

    def level(self):
        level = self.random.choice(LEVELS)
        shape = self.random.random()
        if self.number < 10 and shape < 0.15:
            return self.random.choice([f"{level}", f" {level} ", f"+{abs(level)}", f"00{abs(level)}",
                                       f"\t{level}\n"])
        if self.number < 6 and shape < 0.25:
            return self.random.choice([level + 0.57, 50.0, 5.11e1])
        if shape > 0.995:
            return self.random.choice(["10", 1.5, None, "ten", [1]] if self.number > 9 else [10])
        return level

    def power(self, sender, state):
        old = state.get(("m.room.power_levels", ""))
        content = {}
        if old is not None and self.random.random() < 0.8:
            content = {k: dict(v) if hasattr(v, "items") else v for k, v in old.content.items()}
        elif self.random.random() < 0.9:
            content = {"users": {sender: self.random.choice([50, 100, 100])}}
        for _ in range(self.random.randint(1, 2)):
            self.change_power(content)
        if self.number == 12 and self.random.random() < 0.9:
            create = state[("m.room.create", "")]
            creators = [create.sender] + list(create.content.get("additional_creators", []))
            content["users"] = {u: v for u, v in content.get("users", {}).items()
                                if u not in creators}
        key = "" if self.random.random() < 0.99 else "other"
        return "m.room.power_levels", key, content

    def change_power(self, content):
        pick = self.random.random()
        if pick < 0.55:
            users = content.setdefault("users", {})
            user = self.random.choice(USERS)
            if self.random.random() < 0.25:
                users.pop(user, None)
            else:
                users[user] = self.level()
        elif pick < 0.7:
            scalar = self.random.choice(["ban", "kick", "redact", "invite", "state_default",
                                         "events_default", "users_default"])
            content[scalar] = self.level()
        elif pick < 0.95:
            group = self.random.choice(["events", "events", "notifications"])
            content.setdefault(group, {})[self.random.choice(TYPES + ["room"])] = self.level()
        elif pick < 0.97:
            content.setdefault("users", {})["notauser"] = 1
        else:
            content.pop("users", None)

    def rules(self, sender, state):
        words = ["public", "public", "invite", "knock", "restricted", "knock_restricted", "private"]
        content = {"join_rule": self.random.choice(words)}
        if self.random.random() < 0.3:
            content["allow"] = [{"type": "m.room_membership", "room_id": "!other:a"}]
        return "m.room.join_rules", "", content

    def state(self, sender, state):
        key = self.random.choice(["", "", "k", sender, self.random.choice(USERS)])
        return self.random.choice(TYPES), key, {"x": self.random.randint(0, 9)}

    def message(self, sender, state):
        return "m.room.message", None, {"body": "hello", "msgtype": "m.text"}

    def aliases(self, sender, state):
        return "m.room.aliases", self.random.choice(SERVERS + [None, ""]), {"aliases": ["#x:a"]}

    def redaction(self, sender, state):
        return "m.room.redaction", None, {}

    def third_party(self, sender, state):
        content = {"display_name": "x", "key_validity_url": "u", "public_key": self.peer.public}
        if self.random.random() < 0.3:
            content["public_key"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
            content["public_keys"] = [{"public_key": self.peer.public}]
        return "m.room.third_party_invite", self.random.choice(["t1", "t2"]), content

    def third_party_invite(self, sender, state):
        target = self.random.choice(USERS)
        signed = {"mxid": target if self.random.random() < 0.9 else "@x:a",
                  "token": self.random.choice(["t1", "t2"])}
        if self.random.random() < 0.9:
            signed = self.peer.sign(signed, "id")
        if self.random.random() < 0.1:
            signed["sneaked"] = 1
        offers = [e for k, e in state.items() if k[0] == "m.room.third_party_invite"]
        invite = {"display_name": "x", "signed": signed}
        return self.member_event(target, "invite", third_party_invite=invite)
