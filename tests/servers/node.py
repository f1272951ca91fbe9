"""A real node: the binary named by TAPELINE_BINARY, in a folder, on ports of its own choice unless told."""

import json
import os
import pathlib
import ssl
import subprocess
import time
import urllib.error
import urllib.request

BUILT = pathlib.Path(__file__).parents[2] / "target" / "debug" / "tapeline"
BINARY = os.environ.get("TAPELINE_BINARY", str(BUILT))
START_SECONDS = 60


class Door:
    """Where requests go: `http`, the `keys` that it knows, and the `ca` to trust where it speaks TLS."""

    http, keys, ca, trust = None, None, None, None

    def request(self, method, path, body=None, headers=None, key="read"):
        """(status, headers, decoded JSON)"""
        request = urllib.request.Request(self.http + path, data=body, method=method)
        if key:
            request.add_header("APCA-API-KEY-ID", self.keys[key]["id"])
            request.add_header("APCA-API-SECRET-KEY", self.keys[key]["secret"])
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=60, context=self.trust) as answer:
                return answer.status, answer.headers, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, error.headers, json.loads(error.read())

    def post(self, ticks, query="", **headers):
        body = "\n".join(json.dumps(tick) for tick in ticks).encode()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers = {"Content-Type": "application/x-ndjson", **headers}
        status, _, answer = self.request("POST", "/v1/ticks" + query, body, headers, "write")
        assert status == 200, answer
        return answer


class Node(Door):
    """`tapeline serve` in a folder. `start` waits until it is ready; `stop` drains it. `tls` makes it speak
    TLS alone, by `ca`. `environment` is what it is told beside its flags, such as where it stores."""

    def __init__(self, folder, *flags, listen="127.0.0.1:0", tls=False, environment=None):
        self.folder, self.flags, self.listen = pathlib.Path(folder), flags, listen
        self.environment = environment or {}
        if tls:
            certs = self.folder / "certs"
            subprocess.run([BINARY, "cert", "--out", str(certs)], check=True, stdout=subprocess.DEVNULL)
            for file in ("cert", "key"):
                self.flags += ("--set", f"http.tls_{file}={certs / file}.pem")
            self.ca = certs / "ca.pem"
            self.trust = ssl.create_default_context(cafile=self.ca)
        self.process = None

    def start(self):
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        log = open(self.folder / "node.log", "ab")
        doors = ["--listen", self.listen, "--admin-listen", "127.0.0.1:0", "--ready-file", str(ready)]
        self.process = subprocess.Popen(
            [BINARY, "serve", "--data", str(self.folder / "data"), *doors, *self.flags],
            env={**os.environ, **self.environment}, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the node did not start: {self.log()}")
            time.sleep(0.02)
        facts = json.loads(ready.read_text())
        self.http, self.admin = facts["http"], facts["admin"]
        self.keys = facts.get("keys") or self.keys
        return self

    def stop(self):
        self.process.terminate()
        assert self.process.wait(40) == 0, self.log()

    def log(self):
        return (self.folder / "node.log").read_text()[-4000:]

    def runs(self):
        return self.process is not None and self.process.poll() is None

    def is_ready(self):
        try:
            with urllib.request.urlopen(self.admin + "/readyz", timeout=10) as answer:
                return answer.status == 200
        except OSError:
            return False

    def metric(self, name):
        """The sum of a metric over all of its labels; or over those labels that its name is given with."""
        with urllib.request.urlopen(self.admin + "/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def kill(self):
        self.process.kill()
        self.process.wait()
