"""A Myelin of the test's own, its users, and an application service that keeps what it is sent."""
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

NAME = "bridge.test"


class Refused(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status} {body}")
        self.status, self.body = status, body
        self.errcode = body.get("errcode") if isinstance(body, dict) else None


def refused(status, errcode, function, *args, **kwargs):
    try:
        answer = function(*args, **kwargs)
    except Refused as error:
        assert (error.status, error.errcode) == (status, errcode), error
        return error.body
    raise AssertionError(f"expected {status} {errcode}, got {answer}")


def wait_for(question, seconds=20):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        answer = question()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError("waited in vain")


class Listener(http.server.ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, *args):
        self.open = set()
        super().__init__(*args)

    def process_request(self, request, client_address):
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, *_):
        """A server that is killed resets its connections."""

    def hang_up(self):
        for request in list(self.open):
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Service:
    """`answers` maps a path's beginning to a function of (method, path, body) -> (status, body)."""

    def __init__(self, port=0, hs_token="hs-secret"):
        self.hs_token = hs_token
        self.lock = threading.Lock()
        self.transactions = []  # (id, body) in order of arrival, repeated ones included
        self.requests = []
        self.answers = {}
        self.fail = False
        self.listen(port)

    def listen(self, port):
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def take(self):
                length = int(self.headers.get("Content-Length") or 0)
                text = self.rfile.read(length)
                body = json.loads(text) if text else None
                status, answer = service.answer(self.command, self.path, body,
                                                self.headers.get("Authorization"), text)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = take

        self.server = Listener(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.socket.close()
        self.server.hang_up()

    def reopen(self):
        self.listen(self.port)

    def answer(self, method, path, body, authorization, text):
        with self.lock:
            self.requests.append((method, path, body))
        if authorization != "Bearer " + self.hs_token:
            return 403, {"errcode": "M_FORBIDDEN"}
        for start, function in self.answers.items():
            if path.startswith(start):
                return function(method, path, body)
        if method == "PUT" and path.startswith("/_matrix/app/v1/transactions/"):
            with self.lock:
                self.transactions.append((path.rsplit("/", 1)[1], body, text))
                return (500, {"errcode": "M_UNKNOWN"}) if self.fail else (200, {})
        return 404, {"errcode": "M_UNRECOGNIZED"}

    def taken(self):
        """Transactions without repetitions; what is repeated must be the same."""
        seen = {}
        with self.lock:
            for number, body, text in self.transactions:
                assert number not in seen or seen[number][1] == text, "a retry differs"
                seen.setdefault(number, (body, text))
        return [body for body, _ in seen.values()]

    def items(self, key):
        return [item for body in self.taken() for item in body.get(key, [])]

    def events(self, room=None, kind=None):
        return [event for event in self.items("events")
                if room in (None, event["room_id"]) and kind in (None, event["type"])]

    def texts(self, room):
        return [event["content"]["body"] for event in self.events(room, "m.room.message")]


REGISTRATION = """
id: {id}
url: {url}
as_token: {as_token}
hs_token: hs-secret
sender_localpart: {sender}
rate_limited: {rate_limited}
receive_ephemeral: true
org.matrix.msc3202: true
io.element.msc4190: true
protocols: [fax]
namespaces:
  users:
  - exclusive: true
    regex: '@{prefix}.*:bridge\\.test'
  aliases:
  - exclusive: true
    regex: '#{prefix}.*:bridge\\.test'
  rooms: []
"""


class Server:
    def __init__(self, binary, registrations, settings=None):
        self.binary = binary
        self.folder = tempfile.mkdtemp(prefix="myelin-appservice-")
        self.files = []
        for i, text in enumerate(registrations):
            path = os.path.join(self.folder, f"service{i}.yaml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            self.files.append(path)
        self.config = {"server_name": NAME, "data_dir": self.folder,
                       "listen": [{"host": "127.0.0.1", "port": 0, "tls": False}],
                       "registration": {"open": True}, "password_hash_cost": "lowest",
                       "federation": {"enabled": False},
                       "rate_limits": {"enabled": False},
                       "app_service_config_files": self.files, "log": {"level": "info"}}
        self.config.update(settings or {})
        self.port = None
        self.start()

    def start(self):
        if self.port:
            self.config["listen"][0]["port"] = self.port
        path = os.path.join(self.folder, "myelin.yaml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.config, file)
        log = open(os.path.join(self.folder, "log"), "ab")
        before = log.tell()
        self.process = subprocess.Popen([self.binary, "--config", path], stderr=log)
        log.close()
        wait_for(lambda: self.find_port(before) or self.process.poll() is not None)
        assert self.process.poll() is None, self.log()

    def find_port(self, since):
        with open(os.path.join(self.folder, "log"), "rb") as file:
            file.seek(since)
            for line in file.read().decode().split("\n"):
                if "event=listening" in line:
                    self.port = int(line.rsplit(":", 1)[1].strip('"\' '))
                    return True
        return False

    def log(self):
        with open(os.path.join(self.folder, "log"), encoding="utf-8") as file:
            return file.read()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait(30)

    def remove(self):
        if self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, method, path, body=None, token=None, **query):
        base = path if path.startswith("/_matrix") else "/_matrix/client/v3" + path
        url = f"http://127.0.0.1:{self.port}{base}"
        if query:
            url += "?" + urllib.parse.urlencode(query)
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(url, data=data, method=method)
        if token:
            request.add_header("Authorization", "Bearer " + token)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            text = error.read()
            raise Refused(error.code, json.loads(text) if text else {}) from None

    def user(self, name):
        answer = self.call("POST", "/register", {"username": name, "password": "secret-enough",
                                                 "auth": {"type": "m.login.dummy"}})
        return User(self, answer["user_id"], answer["access_token"], answer["device_id"])

    def ghost(self, name, token):
        self.call("POST", "/register", {"type": "m.login.application_service", "username": name,
                                        "inhibit_login": True}, token)
        return User(self, f"@{name}:{NAME}", token, None, {"user_id": f"@{name}:{NAME}"})


class User:
    def __init__(self, server, user_id, token, device, query=None):
        self.server, self.id, self.token, self.device = server, user_id, token, device
        self.query = query or {}
        self.sent = 0

    def call(self, method, path, body=None, **query):
        return self.server.call(method, path, body, self.token, **{**self.query, **query})

    def create_room(self, **body):
        return self.call("POST", "/createRoom", body)["room_id"]

    def join(self, room):
        return self.call("POST", "/join/" + urllib.parse.quote(room, safe=""), {})["room_id"]

    def leave(self, room):
        return self.call("POST", f"/rooms/{room}/leave", {})

    def say(self, room, text, **query):
        self.sent += 1
        path = f"/rooms/{room}/send/m.room.message/{time.time_ns()}.{self.sent}"
        return self.call("PUT", path, {"msgtype": "m.text", "body": text}, **query)["event_id"]
