"""The other implementation: Synapse's event, authorisation, resolution and push modules."""
import hashlib
import json

from signedjson.key import decode_signing_key_base64, get_verify_key
from signedjson.sign import sign_json
from synapse import event_auth
from synapse.api.errors import SynapseError
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.crypto.event_signing import compute_content_hash
from synapse.events import make_event_from_dict
from synapse.events.utils import prune_event
from synapse.push.bulk_push_rule_evaluator import _flatten_dict
from synapse.state import v1, v2
from synapse.storage.databases.main.event_federation import StateDifference
from synapse.synapse_rust.push import FilteredPushRules, PushRule, PushRuleEvaluator, PushRules
from unpaddedbase64 import encode_base64

PRIORITY = {"override": 5, "content": 4, "room": 3, "sender": 2, "underride": 1}


def wait(coroutine):
    """Runs a coroutine that never really waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise RuntimeError("the coroutine waits for something")


class Clock:
    async def sleep(self, duration):
        return None


class Store:
    """Events by id, and the graph questions of state resolution."""

    def __init__(self):
        self.events = {}

    async def get_events(self, event_ids, allow_rejected=False, redact_behaviour=None):
        return {i: self.events[i] for i in event_ids if i in self.events}

    def chain(self, starts):
        seen, todo = set(), list(starts)
        while todo:
            event_id = todo.pop()
            if event_id not in seen:
                seen.add(event_id)
                todo.extend(self.events[event_id].auth_event_ids())
        return seen

    async def get_auth_chain_difference(self, room_id, state_sets, conflicted, additional):
        chains = [self.chain(s) for s in state_sets]
        difference = set.union(*chains) - set.intersection(*chains)
        subgraph = None
        if conflicted is not None:
            below = self.chain(conflicted)
            subgraph = {e for e in below if self.chain([e]) & conflicted}
        return StateDifference(auth_difference=difference, conflicted_subgraph=subgraph)


class Peer:
    def __init__(self, version):
        self.version = KNOWN_ROOM_VERSIONS[version]
        self.store = Store()
        self.key = decode_signing_key_base64("ed25519", "x", encode_base64(bytes(range(32))))
        self.public = encode_base64(get_verify_key(self.key).encode())

    def sign(self, value, server):
        return sign_json(value, server, self.key)

    def complete(self, pdu):
        """Adds the content hash and gives the event."""
        pdu = dict(pdu, hashes={}, signatures={})
        algorithm, digest = compute_content_hash(pdu, hashlib.sha256)
        pdu["hashes"] = {algorithm: encode_base64(digest)}
        return make_event_from_dict(pdu, self.version)

    def pruned(self, event):
        pruned = json.loads(json.dumps(prune_event(event).get_pdu_json()))
        pruned.pop("unsigned", None)
        return pruned

    def selection(self, event):
        keys = event_auth.auth_types_for_event(self.version, event)
        return keys - {("m.room.create", "")} if self.version.identifier == "12" else keys

    def allowed(self, event, state):
        if event.type == "m.room.create":
            return self.allowed_alone(event)
        try:
            event_auth.check_state_dependent_auth_rules(event, state)
            return True
        except (SynapseError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def allowed_alone(self, event):
        try:
            wait(event_auth.check_state_independent_auth_rules(self.store, event))
            return True
        # Other errors: cited events without state_key; a cited create event in version 12.
        except (SynapseError, AttributeError, RuntimeError):
            return False

    def resolve(self, room_id, sets):
        if self.version.identifier == "1":
            return wait(v1.resolve_events_with_store(room_id, self.version, sets, None,
                                                     self.store.get_events))
        return dict(wait(v2.resolve_events_with_store(Clock(), room_id, self.version, sets, None,
                                                      self.store)))

    def push(self, rules, enabled, event, user, display_name, members, state):
        rows = [PushRule.from_db(rule["rule_id"] if rule["rule_id"].startswith(".")
                                 else f"global/{kind}/{rule['rule_id']}", PRIORITY[kind],
                                 json.dumps(conditions_of(kind, rule)), json.dumps(rule["actions"]))
                for kind in PRIORITY for rule in rules.get(kind, [])]
        filtered = FilteredPushRules(PushRules(rows), enabled, False, False, False, False, False,
                                     False, False)
        levels = state.get(("m.room.power_levels", ""))
        notification = dict(levels.content.get("notifications", {})) if levels else {}
        power = event_auth.get_user_power_level(event.sender, state)
        evaluator = PushRuleEvaluator(_flatten_dict(event), "m.mentions" in event.content, members,
                                      power, {k: int(v) for k, v in notification.items()}, {},
                                      False, [], False, False, False)
        return evaluator.run(filtered, user, display_name or None, None)


def conditions_of(kind, rule):
    """Content, room and sender rules as conditions."""
    if kind == "content":
        return [{"kind": "event_match", "key": "content.body", "pattern": rule["pattern"]}]
    if kind == "room":
        return [{"kind": "event_match", "key": "room_id", "pattern": rule["rule_id"]}]
    if kind == "sender":
        return [{"kind": "event_match", "key": "sender", "pattern": rule["rule_id"]}]
    return rule.get("conditions", [])
