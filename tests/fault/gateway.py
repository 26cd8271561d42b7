"""A push gateway that is away now and then, and remembers which events it was told of."""
import asyncio
import json
import random

AWAY = 0.03  # of the requests are refused


class Gateway:
    def __init__(self):
        self.told = {}  # event id -> how often it was taken
        self.server = self.port = None

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    def url(self):
        return f"http://127.0.0.1:{self.port}/_matrix/push/v1/notify"

    def take(self, body):
        event_id = json.loads(body)["notification"].get("event_id")
        if random.random() < AWAY:
            return 503
        if event_id:
            self.told[event_id] = self.told.get(event_id, 0) + 1
        return 200

    async def serve(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n")
                            if line.startswith(b"content-length:"))
                status = self.take(await reader.readexactly(size))
                answer = b'{"rejected": []}'
                writer.write(f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\n"
                             f"Content-Length: {len(answer)}\r\n\r\n".encode() + answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
