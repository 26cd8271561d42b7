"""An application service that is away now and then, and remembers what its transactions held."""
import asyncio
import json
import random

AWAY = 0.03  # of the transactions are refused after they were read
TOKEN = "fault-bridge-token"
USER = "fault_bridge_ghost"

REGISTRATION = """
id: fault
url: http://127.0.0.1:{port}
as_token: fault-bridge-token
hs_token: fault-server-token
sender_localpart: fault_bridge
rate_limited: false
receive_ephemeral: true
namespaces:
  users: [{{exclusive: true, regex: '@fault_bridge.*'}}]
"""


class Bridge:
    def __init__(self):
        self.bodies = {}      # transaction id -> body, of those that were read
        self.taken = set()    # and those that were answered with 200
        self.order = []       # event ids as transactions first brought them
        self.numbers = []     # of to-device messages, in the same way
        self.problems = []
        self.server = self.port = None

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=64 << 20)
        self.port = self.server.sockets[0].getsockname()[1]

    def registration(self):
        return REGISTRATION.format(port=self.port)

    def take(self, transaction, body):
        known = self.bodies.get(transaction)
        if known is None:
            content = json.loads(body)
            self.bodies[transaction] = body
            self.order += [event["event_id"] for event in content["events"]]
            self.numbers += [message["content"]["number"]
                             for message in content.get("to_device", [])]
        elif known != body:
            self.problems.append(f"transaction {transaction} came again with other content")
        if random.random() < AWAY:
            return 503
        self.taken.add(transaction)
        return 200

    async def serve(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.split(b"\r\n")
                path = lines[0].split(b" ")[1].decode()
                size = next((int(line.split(b":")[1]) for line in lines
                             if line.lower().startswith(b"content-length:")), 0)
                body = await reader.readexactly(size)
                status = self.take(path, body) if "/transactions/" in path else 404
                writer.write(f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\n"
                             f"Content-Length: 2\r\n\r\n{{}}".encode())
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
