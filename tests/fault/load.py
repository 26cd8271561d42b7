"""The mixed load: each task asks and asks until the connection breaks, and notes every answer."""
import asyncio
import random

from client import Connection, Lost, login, quote

CLAIM_ALGORITHM = "signed_curve25519"
DELAYED_TYPE = "io.example.fault.delayed"
ENOUGH_KEYS = 100  # servers limit how many a device may have


class Stage:
    """Users, rooms and devices of one run."""

    def __init__(self, port, ledger, password, delays):
        self.port, self.ledger, self.password = port, ledger, password
        self.delays = delays    # whether events can be delayed
        self.devices, self.rooms = [], []
        self.reader = None      # the device that receives to-device messages
        self.reader_since = None
        self.listener = None    # whose pusher is told of mentions; None: pushes are not looked at
        self.gateway = None
        self.bridge = self.ghost = None  # an application service and its user
        self.unexpected = {}    # answers that were neither 200 nor a lost connection: how often

    def wonder(self, what, status, body):
        code = f"{what}: {status} {body.get('errcode')} {body.get('error')}"
        self.unexpected[code] = self.unexpected.get(code, 0) + 1


async def send_messages(stage, connection, index):
    device = stage.devices[index % len(stage.devices)]
    room = stage.rooms[index % len(stage.rooms)]
    while True:
        number = stage.ledger.next()
        status, body = await device.call(
            connection, "PUT", f"/rooms/{quote(room)}/send/m.room.message/t{number}",
            {"msgtype": "m.text", "body": f"message {number}", "number": number})
        if status == 200:
            stage.ledger.sends[body["event_id"]] = (room, number)
        else:
            stage.wonder("send", status, body)


async def mention(stage, connection, index):
    """Messages that notify the listener."""
    device = stage.devices[index % len(stage.devices)]
    room = stage.rooms[index % len(stage.rooms)]
    while stage.listener:
        number = stage.ledger.next()
        status, body = await device.call(
            connection, "PUT", f"/rooms/{quote(room)}/send/m.room.message/p{number}",
            {"msgtype": "m.text", "body": f"message {number}", "number": number,
             "m.mentions": {"user_ids": [stage.listener.user_id]}})
        if status == 200:
            stage.ledger.sends[body["event_id"]] = (room, number)
            stage.ledger.pushed.add(body["event_id"])
        else:
            stage.wonder("mention", status, body)
        await asyncio.sleep(0.02)


async def schedule_events(stage, connection, index):
    """Events that are due before, around and after the kill."""
    device = stage.devices[index % len(stage.devices)]
    room = stage.rooms[index % len(stage.rooms)]
    while stage.delays:
        number = stage.ledger.next()
        status, body = await device.call(
            connection, "PUT", f"/rooms/{quote(room)}/send/{DELAYED_TYPE}/d{number}"
            f"?org.matrix.msc4140.delay={random.randint(1, 1500)}", {"number": number})
        if status == 200:
            stage.ledger.delayed.add(number)
        else:
            stage.wonder("delayed event", status, body)
        await asyncio.sleep(0.02)


def one_time_keys(device, numbers):
    return {f"{CLAIM_ALGORITHM}:K{number}": {
        "key": f"key{number:040d}",
        "signatures": {device.user_id: {f"ed25519:{device.device_id}": "A" * 86}},
    } for number in numbers}


async def upload_one_time_keys(stage, connection, index):
    device = stage.devices[index % len(stage.devices)]
    while True:
        keys = one_time_keys(device, [stage.ledger.next() for _ in range(5)])
        status, body = await device.call(connection, "POST", "/keys/upload", {"one_time_keys": keys})
        if status == 200:
            for key_id, key in keys.items():
                stage.ledger.one_time_keys[(device.user_id, device.device_id, key_id)] = key
            if body["one_time_key_counts"][CLAIM_ALGORITHM] > ENOUGH_KEYS:
                await asyncio.sleep(0.1)
        else:
            stage.wonder("one-time keys", status, body)
        await asyncio.sleep(0.005)


async def claim(stage, connection, asking, owner):
    """Claims one key of the owner; its id, or None when there was none."""
    try:
        status, body = await asking.call(
            connection, "POST", "/keys/claim",
            {"one_time_keys": {owner.user_id: {owner.device_id: CLAIM_ALGORITHM}}})
    except Lost:
        stage.ledger.claims_unknown += 1
        raise
    if status != 200:
        stage.wonder("claim", status, body)
        return None
    keys = body.get("one_time_keys", {}).get(owner.user_id, {}).get(owner.device_id, {})
    for key_id in keys:
        stage.ledger.claimed(owner.user_id, owner.device_id, key_id)
        return key_id
    return None


async def claim_keys(stage, connection, index):
    asking = stage.devices[index % len(stage.devices)]
    while True:
        if await claim(stage, connection, asking, random.choice(stage.devices)) is None:
            await asyncio.sleep(0.02)


def device_keys(device, number):
    return {"user_id": device.user_id, "device_id": device.device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {f"curve25519:{device.device_id}": f"c{number:042d}",
                     f"ed25519:{device.device_id}": f"e{number:042d}"},
            "signatures": {device.user_id: {f"ed25519:{device.device_id}": "A" * 86}}}


async def add_devices(stage, connection, index):
    """A new device with keys now and then."""
    owner = stage.devices[index % len(stage.devices)]
    while True:
        fresh = await login(connection, owner.user_id, stage.password)
        if fresh is None:
            stage.wonder("login", 0, {})
            return
        keys = device_keys(fresh, stage.ledger.next())
        status, body = await fresh.call(connection, "POST", "/keys/upload", {"device_keys": keys})
        if status == 200:
            stage.ledger.device_keys[(fresh.user_id, fresh.device_id)] = keys
        else:
            stage.wonder("device", status, body)
        await asyncio.sleep(0.2)


async def send_to_device(stage, connection, index):
    device = stage.devices[index % len(stage.devices)]
    target = stage.reader
    while True:
        number = stage.ledger.next()
        status, body = await device.call(
            connection, "PUT", f"/sendToDevice/io.example.fault/d{number}",
            {"messages": {target.user_id: {target.device_id: {"number": number}}}})
        if status == 200:
            stage.ledger.to_device.add(number)
        else:
            stage.wonder("to-device", status, body)


async def read_to_device(stage, connection, _index):
    """Syncs the reader; a token is used only when its answer is noted."""
    while True:
        path = "/sync?timeout=100" + (f"&since={quote(stage.reader_since)}"
                                      if stage.reader_since else "")
        status, body = await stage.reader.call(connection, "GET", path)
        if status != 200:
            stage.wonder("sync", status, body)
            return
        for event in body.get("to_device", {}).get("events", []):
            number = event.get("content", {}).get("number")
            stage.ledger.received[number] = stage.ledger.received.get(number, 0) + 1
        done = body["next_batch"] == stage.reader_since
        stage.reader_since = body["next_batch"]
        if done and _index is None:
            return


async def set_account_data(stage, connection, index):
    device = stage.devices[index % len(stage.devices)]
    kind = f"io.example.fault{index}"
    where = (device.user_id, kind)
    while True:
        number = stage.ledger.next()
        acknowledged = stage.ledger.account_data.get(where, (0, 0))[0]
        stage.ledger.account_data[where] = (acknowledged, number)
        status, body = await device.call(
            connection, "PUT", f"/user/{quote(device.user_id)}/account_data/{kind}",
            {"number": number})
        if status == 200:
            stage.ledger.account_data[where] = (number, number)
        else:
            stage.wonder("account data", status, body)


async def send_to_ghost(stage, connection, index):
    device = stage.devices[index % len(stage.devices)]
    while stage.ghost:
        number = stage.ledger.next()
        status, body = await device.call(
            connection, "PUT", f"/sendToDevice/io.example.fault/g{number}",
            {"messages": {stage.ghost.user_id: {stage.ghost.device_id: {"number": number}}}})
        if status == 200:
            stage.ledger.to_ghost.add(number)
        else:
            stage.wonder("to-device", status, body)
        await asyncio.sleep(0.01)


TASKS = ([(send_messages, i) for i in range(12)] + [(upload_one_time_keys, i) for i in range(3)] +
         [(claim_keys, i) for i in range(4)] + [(send_to_device, i) for i in range(4)] +
         [(set_account_data, i) for i in range(4)] + [(schedule_events, i) for i in range(3)] +
         [(mention, i) for i in range(2)] +
         [(send_to_ghost, i) for i in range(2)] + [(add_devices, 0), (read_to_device, 0)])


async def run_task(stage, task, index):
    connection = Connection(stage.port)
    try:
        await task(stage, connection, index)
    except Lost:
        pass
    finally:
        connection.close()


async def run_load(stage, kill_after, kill):
    """All tasks at once; kill() in the middle, then the tasks end as their connections do."""
    tasks = [asyncio.create_task(run_task(stage, task, index)) for task, index in TASKS]
    await asyncio.sleep(kill_after)
    kill()
    _, pending = await asyncio.wait(tasks, timeout=10)
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending)
    for task in tasks:
        if not task.cancelled() and task.exception():
            raise task.exception()
