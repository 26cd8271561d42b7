"""Servers of this build on loopback ports, each with its own name, data folder and certificate."""
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Refused(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status} {body}")
        self.status, self.body = status, body
        self.errcode = body.get("errcode") if isinstance(body, dict) else None


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


class Town:
    """The folder, the certificate authority and the servers of one test."""

    def __init__(self, binary):
        self.binary = binary
        self.folder = tempfile.mkdtemp(prefix="myelin-town-")
        self.servers = []
        self.ca = os.path.join(self.folder, "ca.pem")
        self.ca_key = os.path.join(self.folder, "ca.key")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", self.ca_key, "-out", self.ca, "-days", "2", "-subj", "/CN=town")

    def certificate(self, name):
        path = os.path.join(self.folder, name)
        with open(path + ".ext", "w") as f:
            f.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                path + ".key", "-out", path + ".csr", "-subj", "/CN=localhost")
        openssl("x509", "-req", "-in", path + ".csr", "-CA", self.ca, "-CAkey", self.ca_key,
                "-CAcreateserial", "-out", path + ".crt", "-days", "2", "-extfile", path + ".ext")
        return path + ".crt", path + ".key"

    def server(self, **settings):
        server = Server(self, f"s{len(self.servers) + 1}", settings)
        self.servers.append(server)
        server.start()
        return server

    def close(self, keep=False):
        for server in self.servers:
            server.kill()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)


class Server:
    def __init__(self, town, label, settings):
        self.town, self.label = town, label
        self.client_port, self.port = free_port(), free_port()
        self.name = f"localhost:{self.port}"
        self.folder = os.path.join(town.folder, label)
        os.mkdir(self.folder)
        certificate, key = town.certificate(label)
        self.config = os.path.join(self.folder, "myelin.yaml")
        values = {
            "server_name": self.name,
            "data_dir": self.folder,
            "listen": [{"host": "127.0.0.1", "port": self.client_port, "tls": False},
                       {"host": "127.0.0.1", "port": self.port, "tls": True}],
            "tls": {"certificate": certificate, "key": key, "trusted_ca": [town.ca]},
            "registration": {"open": True},
            "network": {"allow_private_addresses": True},
            "rate_limits": {"enabled": False},
            "password_hash_cost": "lowest",
            "trusted_key_servers": [],
            "log": {"level": "debug"},
        }
        values.update(settings)
        with open(self.config, "w") as f:
            json.dump(values, f)
        self.process = None

    def start(self):
        log = open(os.path.join(self.folder, "log"), "a")
        self.process = subprocess.Popen([self.town.binary, "--config", self.config], stdout=log,
                                        stderr=log)
        for _ in range(200):
            try:
                self.call("GET", "/_matrix/client/versions")
                return
            except (OSError, Refused):
                time.sleep(0.05)
        raise RuntimeError(f"{self.label} does not start")

    def kill(self):
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def restart(self):
        self.kill()
        self.start()

    def call(self, method, path, body=None, token=None, timeout=90):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"http://127.0.0.1:{self.client_port}{path}", data=data,
                                         method=method)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", "Bearer " + token)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as e:
            text = e.read()
            try:
                raise Refused(e.code, json.loads(text)) from None
            except ValueError:
                raise Refused(e.code, text.decode(errors="replace")) from None

    def user(self, name):
        answer = self.call("POST", "/_matrix/client/v3/register",
                           {"username": name, "password": "secret secret",
                            "auth": {"type": "m.login.dummy"}})
        return User(self, answer["user_id"], answer["access_token"])


def quote(text):
    return urllib.parse.quote(text, safe="")


class User:
    def __init__(self, server, user_id, token):
        self.server, self.id, self.token = server, user_id, token
        self.since = None

    def call(self, method, path, body=None, timeout=90):
        return self.server.call(method, "/_matrix/client/v3" + path, body, self.token, timeout)

    def create_room(self, **body):
        return self.call("POST", "/createRoom", body)["room_id"]

    def join(self, room, *via, body=None):
        query = "?" + "&".join("via=" + quote(v) for v in via) if via else ""
        return self.call("POST", f"/join/{quote(room)}{query}", body or {})["room_id"]

    def knock(self, room, *via, reason=None):
        query = "?" + "&".join("via=" + quote(v) for v in via) if via else ""
        body = {"reason": reason} if reason else {}
        return self.call("POST", f"/knock/{quote(room)}{query}", body)["room_id"]

    def invite(self, room, user, **body):
        return self.call("POST", f"/rooms/{quote(room)}/invite", {"user_id": user.id, **body})

    def leave(self, room):
        return self.call("POST", f"/rooms/{quote(room)}/leave", {})

    def kick(self, room, user):
        return self.call("POST", f"/rooms/{quote(room)}/kick", {"user_id": user.id})

    def ban(self, room, user):
        return self.call("POST", f"/rooms/{quote(room)}/ban", {"user_id": user.id})

    def say(self, room, text):
        User.txn = getattr(User, "txn", 0) + 1
        return self.call("PUT", f"/rooms/{quote(room)}/send/m.room.message/t{User.txn}",
                         {"msgtype": "m.text", "body": text})["event_id"]

    def set_state(self, room, kind, content, key=""):
        return self.call("PUT", f"/rooms/{quote(room)}/state/{quote(kind)}/{quote(key)}",
                         content)["event_id"]

    def state(self, room, kind, key=""):
        return self.call("GET", f"/rooms/{quote(room)}/state/{quote(kind)}/{quote(key)}")

    def members(self, room, membership=None):
        query = f"?membership={membership}" if membership else ""
        chunk = self.call("GET", f"/rooms/{quote(room)}/members{query}")["chunk"]
        return {event["state_key"]: event["content"]["membership"] for event in chunk}

    def sync(self, timeout_ms=0, filter_json=None, since=None):
        query = {"timeout": timeout_ms}
        if filter_json is not None:
            query["filter"] = json.dumps(filter_json)
        since = since or self.since
        if since:
            query["since"] = since
        answer = self.call("GET", "/sync?" + urllib.parse.urlencode(query))
        self.since = answer["next_batch"]
        return answer

    def sync_until(self, check, seconds=10, filter_json=None):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answer = self.sync(500, filter_json)
            found = check(answer)
            if found:
                return found
        raise AssertionError(f"{self.id} did not see what it waited for")


def wait_for(check, seconds=10, what="it"):
    end = time.monotonic() + seconds
    last = None
    while time.monotonic() < end:
        try:
            found = check()
            if found:
                return found
        except (Refused, KeyError) as e:
            last = e
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}: {last}")


def refused(status, errcode, call, *args, **kw):
    try:
        answer = call(*args, **kw)
    except Refused as e:
        assert (e.status, e.errcode) == (status, errcode), f"{e} instead of {status} {errcode}"
        return e
    raise AssertionError(f"{answer} instead of {status} {errcode}")
