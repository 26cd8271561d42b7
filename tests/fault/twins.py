"""Two servers that federate with each other on this machine, and what is done to them."""
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import time

from client import Connection, Lost

START_SECONDS = 30
CALL_SECONDS = 90
CLEAN = {502, 503, 504, 429}  # answers after which a client asks again


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def make_authority(folder):
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-days", "2", "-subj", "/CN=fault suite", "-keyout", os.path.join(folder, "ca.key"),
            "-out", os.path.join(folder, "ca.pem"))


def make_certificate(folder, at):
    def path(name):
        return os.path.join(at, name)
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
            "/CN=fault", "-keyout", path("tls.key"), "-out", path("tls.csr"))
    with open(path("tls.ext"), "w", encoding="utf-8") as file:
        file.write("subjectAltName=IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", path("tls.csr"), "-CA", os.path.join(folder, "ca.pem"),
            "-CAkey", os.path.join(folder, "ca.key"), "-CAcreateserial", "-days", "2",
            "-out", path("tls.pem"), "-extfile", path("tls.ext"))


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Twin:
    """One of the two. Its name is its federation port; clients come to `port` without TLS."""

    def __init__(self, build, folder, what):
        self.build, self.what, self.process = build, what, None
        self.folder = os.path.join(folder, what)
        os.mkdir(self.folder)
        make_certificate(folder, self.folder)
        federation, self.port, admin = free_ports(3)
        self.name = f"127.0.0.1:{federation}"
        self.config = os.path.join(self.folder, "myelin.yaml")
        self.data = os.path.join(self.folder, "data")
        self.log = open(os.path.join(self.folder, "log"), "ab")  # noqa: SIM115
        self.kills = 0
        with open(self.config, "w", encoding="utf-8") as file:
            json.dump({
                "server_name": self.name,
                "public_baseurl": f"http://127.0.0.1:{self.port}",
                "data_dir": self.data,
                "listen": [{"host": "127.0.0.1", "port": federation, "tls": True},
                           {"host": "127.0.0.1", "port": self.port}],
                "tls": {"certificate": os.path.join(self.folder, "tls.pem"),
                        "key": os.path.join(self.folder, "tls.key"),
                        "trusted_ca": [os.path.join(folder, "ca.pem")]},
                "admin": {"port": admin},
                "registration": {"open": True},
                "rate_limits": {"enabled": False},
                "network": {"allow_private_addresses": True},
                "password_hash_cost": "lowest",
                "trusted_key_servers": [],
                "log": {"level": os.environ.get("FAULT_LOG", "warn")},
            }, file)

    def launch(self):
        self.process = subprocess.Popen([os.path.join(self.build, "myelin"), "--config",
                                         self.config], stdout=self.log, stderr=self.log)

    async def start(self):
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                connection = Connection(self.port)
                status, _ = await connection.request("GET", "/_matrix/client/versions")
                connection.close()
                if status == 200:
                    return
            except Lost:
                await asyncio.sleep(0.01)
        self.show_log()
        raise SystemExit(f"the {self.what} did not start")

    def kill(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def keep(self):
        """Remembers the files of the killed server as they are."""
        shutil.copytree(self.data, self.data + ".kept")

    def restore(self):
        shutil.rmtree(self.data)
        shutil.copytree(self.data + ".kept", self.data)

    async def operate(self, *words):
        """myelinctl's exit code and what it printed."""
        process = await asyncio.create_subprocess_exec(
            os.path.join(self.build, "myelinctl"), "--config", self.config, *words,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        output, _ = await process.communicate()
        return process.returncode, output.decode(errors="replace")

    def show_log(self):
        with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as file:
            print(f"--- {self.what}\n" + "".join(file.readlines()[-30:]))


class Client:
    """A device of a user, who asks again while the server is away, with a connection of its own."""

    def __init__(self, twin, device):
        self.twin, self.device = twin, device
        self.connection = Connection(twin.port)

    async def once(self, method, path, body=None):
        if path.startswith("/_matrix/"):
            return await self.connection.request(method, path, self.device.token, body)
        return await self.device.call(self.connection, method, path, body)

    async def call(self, method, path, body=None):
        """Until there is an answer that is not for want of a server, or the time is over."""
        deadline = time.monotonic() + CALL_SECONDS
        status, answer = 0, {}
        while time.monotonic() < deadline:
            try:
                status, answer = await self.once(method, path, body)
                if status not in CLEAN:
                    break
                await asyncio.sleep(0.1)
            except Lost:
                await asyncio.sleep(0.02)
        return status, answer

    def close(self):
        self.connection.close()
