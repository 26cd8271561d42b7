"""Looks for everything that the ledger says was acknowledged."""
import asyncio

from client import Connection, quote
from load import DELAYED_TYPE, claim, read_to_device

SAMPLE = 60
DELAYED_SECONDS = 20
PUSH_SECONDS = 60
BRIDGE_SECONDS = 90


async def check_recent_sends(stage, connection, event_ids):
    """The last sends before the kill, one by one."""
    device = stage.devices[0]
    for event_id in list(event_ids)[-SAMPLE:]:
        room, number = stage.ledger.sends[event_id]
        status, body = await device.call(
            connection, "GET", f"/rooms/{quote(room)}/event/{quote(event_id)}")
        if status != 200 or body["content"].get("number") != number:
            stage.ledger.problem(f"event {event_id} (number {number}) is gone: {status}")


async def await_delayed(stage, connection):
    """Until nothing is scheduled any more."""
    for _ in range(DELAYED_SECONDS * 10):
        waiting = 0
        for device in stage.devices:
            _, body = await connection.request(
                "GET", "/_matrix/client/unstable/org.matrix.msc4140/delayed_events", device.token)
            waiting += len(body["delayed_events"])
        if waiting == 0:
            return
        await asyncio.sleep(0.1)
    stage.ledger.problem(f"{waiting} delayed events are not sent")


def check_delayed(stage, found):
    for number in stage.ledger.delayed:
        if found.get(number, 0) != 1:
            stage.ledger.problem(f"delayed event {number} was sent {found.get(number, 0)} times")
    for number, count in found.items():
        if count > 1 and number not in stage.ledger.delayed:
            stage.ledger.problem(f"delayed event {number} was sent {count} times")


async def check_all_sends(stage, connection):
    """Every event, by walking each room back to its start; none twice."""
    device, found, delayed = stage.devices[0], {}, {}
    for room in stage.rooms:
        token = ""
        while token is not None:
            status, body = await device.call(
                connection, "GET", f"/rooms/{quote(room)}/messages?dir=b&limit=500" +
                (f"&from={quote(token)}" if token else ""))
            if status != 200:
                stage.ledger.problem(f"/messages of {room}: {status} {body}")
                break
            for event in body["chunk"]:
                found[event["event_id"]] = found.get(event["event_id"], 0) + 1
                if event["type"] == DELAYED_TYPE:
                    number = event["content"]["number"]
                    delayed[number] = delayed.get(number, 0) + 1
            token = body.get("end") if body["chunk"] else None
    for event_id, (room, number) in stage.ledger.sends.items():
        if found.get(event_id, 0) != 1:
            stage.ledger.problem(f"event {event_id} (number {number}) stands "
                                 f"{found.get(event_id, 0)} times in {room}")
    check_delayed(stage, delayed)
    check_bridge_order(stage, list(found))


def check_bridge_order(stage, newest_first):
    """What the rooms hold since the ghost joined has come once, and in each room in its order."""
    if stage.bridge is None:
        return
    place = {event_id: i for i, event_id in enumerate(reversed(newest_first))}
    heard = [event_id for event_id in stage.bridge.order if event_id in place]
    missing = stage.ledger.sends.keys() - set(heard)
    if missing:
        stage.ledger.problem(f"{len(missing)} events did not come to the application service")
    if len(heard) != len(set(stage.bridge.order)) or len(stage.bridge.order) != len(heard):
        stage.ledger.problem("the application service heard events twice, or unknown ones")
    last = {}
    for event_id in heard:
        room = stage.ledger.sends.get(event_id, (None,))[0]
        if room and place[event_id] < last.get(room, -1):
            stage.ledger.problem(f"event {event_id} came late to the application service")
        last[room] = place[event_id]
    for problem in stage.bridge.problems:
        stage.ledger.problem(problem)


async def await_bridge(stage):
    """Until everything that was sent has come."""
    for _ in range(BRIDGE_SECONDS * 10):
        if (stage.ledger.sends.keys() <= set(stage.bridge.order) and
                stage.ledger.to_ghost <= set(stage.bridge.numbers)):
            break
        await asyncio.sleep(0.1)
    missing = stage.ledger.to_ghost - set(stage.bridge.numbers)
    if missing:
        stage.ledger.problem(f"{len(missing)} to-device messages did not come to the application "
                             "service")
    if len(stage.bridge.numbers) != len(set(stage.bridge.numbers)):
        stage.ledger.problem("the application service got to-device messages twice")


async def check_device_keys(stage, connection):
    users = {user for user, _ in stage.ledger.device_keys}
    status, body = await stage.devices[0].call(
        connection, "POST", "/keys/query", {"device_keys": {user: [] for user in users}})
    if status != 200:
        stage.ledger.problem(f"/keys/query: {status} {body}")
        return
    for (user, device), keys in stage.ledger.device_keys.items():
        stored = body["device_keys"].get(user, {}).get(device)
        if stored is None or stored["keys"] != keys["keys"]:
            stage.ledger.problem(f"device keys of {user} {device} are gone or changed")


async def check_account_data(stage, connection):
    devices = {device.user_id: device for device in stage.devices}
    for (user, kind), (acknowledged, asked) in stage.ledger.account_data.items():
        if acknowledged == 0:
            continue
        status, body = await devices[user].call(
            connection, "GET", f"/user/{quote(user)}/account_data/{kind}")
        if status != 200 or not acknowledged <= body.get("number", -1) <= asked:
            stage.ledger.problem(f"account data {kind} of {user}: {status} {body}, "
                                 f"acknowledged {acknowledged}, asked for up to {asked}")


async def check_to_device(stage, connection):
    await read_to_device(stage, connection, None)
    for number in stage.ledger.to_device:
        if number not in stage.ledger.received:
            stage.ledger.problem(f"to-device message {number} never arrived")


async def check_one_time_keys(stage, connection):
    """Hands out all that is left: each acknowledged key once, but for claims without an answer."""
    asking = stage.devices[0]
    for owner in stage.devices:
        while await claim(stage, connection, asking, owner) is not None:
            pass
    missing = [where for where in stage.ledger.one_time_keys if where not in stage.ledger.claims]
    if len(missing) > stage.ledger.claims_unknown:
        stage.ledger.problem(f"{len(missing)} one-time keys are gone, and only "
                             f"{stage.ledger.claims_unknown} claims lost their answer")


async def check_cycle(stage, recent):
    connection = Connection(stage.port)
    await check_recent_sends(stage, connection, recent)
    await check_account_data(stage, connection)
    await check_to_device(stage, connection)
    await check_device_keys(stage, connection)
    connection.close()


async def check_pushes(stage):
    """Every mention has reached the gateway, which may take a while to be back."""
    if stage.listener is None:
        return
    for _ in range(PUSH_SECONDS * 10):
        if stage.ledger.pushed <= stage.gateway.told.keys():
            return
        await asyncio.sleep(0.1)
    missing = stage.ledger.pushed - stage.gateway.told.keys()
    stage.ledger.problem(f"{len(missing)} events were not pushed, such as {min(missing)}")


async def check_end(stage):
    connection = Connection(stage.port)
    if stage.delays:
        await await_delayed(stage, connection)
    await check_pushes(stage)
    if stage.bridge:
        await await_bridge(stage)
    await check_all_sends(stage, connection)
    await check_one_time_keys(stage, connection)
    connection.close()
