"""A small asynchronous HTTP/1.1 client with kept connections, and one Matrix account on top of it."""
import asyncio
import json
import urllib.parse


class Lost(Exception):
    """The connection broke before the answer was there: the request may or may not have counted."""


class Connection:
    def __init__(self, port):
        self.port = port
        self.reader = self.writer = None

    async def request(self, method, path, token=None, body=None):
        """(status, parsed body, or bytes when it is no JSON); Lost without a whole answer."""
        try:
            if self.writer is None:
                self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
            raw = isinstance(body, bytes)
            payload = body if raw else b"" if body is None else json.dumps(body).encode()
            head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
            if token:
                head += f"Authorization: Bearer {token}\r\n"
            if body is not None:
                head += f"Content-Type: application/{'octet-stream' if raw else 'json'}\r\n"
                head += f"Content-Length: {len(payload)}\r\n"
            self.writer.write(head.encode() + b"\r\n" + payload)
            return await self.read_answer()
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            self.close()
            raise Lost(str(error)) from error

    async def read_answer(self):
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        else:
            body = await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            self.close()
        is_json = headers.get("content-type", "application/json").startswith("application/json")
        return int(lines[0].split()[1]), json.loads(body) if is_json else body

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


def quote(text):
    return urllib.parse.quote(text, safe="")


class Device:
    """One logged-in device of a user."""

    def __init__(self, user_id, device_id, token):
        self.user_id, self.device_id, self.token = user_id, device_id, token

    async def call(self, connection, method, path, body=None):
        return await connection.request(method, "/_matrix/client/v3" + path, self.token, body)


async def register(connection, name, password):
    status, body = await connection.request(
        "POST", "/_matrix/client/v3/register", None,
        {"username": name, "password": password, "auth": {"type": "m.login.dummy"}})
    if status != 200:
        raise SystemExit(f"registration failed: {status} {body}")
    return Device(body["user_id"], body["device_id"], body["access_token"])


async def login(connection, name, password):
    """A new device, or None when the server refused."""
    status, body = await connection.request(
        "POST", "/_matrix/client/v3/login", None,
        {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": name},
         "password": password})
    if status != 200:
        return None
    return Device(body["user_id"], body["device_id"], body["access_token"])
