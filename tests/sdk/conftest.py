"""A real node for each test module: the binary named by TAPELINE_BINARY, on ports of its own choice, in a fresh folder."""

import json
import os
import pathlib
import ssl
import subprocess
import time
import urllib.error
import urllib.request

import pytest

BINARY = os.environ.get("TAPELINE_BINARY", str(pathlib.Path(__file__).parents[2] / "target" / "debug" / "tapeline"))


class Node:
    """`tapeline serve` in a folder. `start` waits until it is ready; `stop` drains it. `tls` makes it speak TLS alone, by `ca`."""

    def __init__(self, folder, *flags, listen="127.0.0.1:0", tls=False):
        self.folder, self.flags, self.listen = pathlib.Path(folder), flags, listen
        self.ca, self.trust = None, None
        if tls:
            certs = self.folder / "certs"
            subprocess.run([BINARY, "cert", "--out", str(certs)], check=True, stdout=subprocess.DEVNULL)
            self.flags += ("--set", f"http.tls_cert={certs / 'cert.pem'}", "--set", f"http.tls_key={certs / 'key.pem'}")
            self.ca = certs / "ca.pem"
            self.trust = ssl.create_default_context(cafile=self.ca)
        self.process, self.keys = None, None

    def start(self):
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        log = open(self.folder / "node.log", "ab")
        self.process = subprocess.Popen(
            [BINARY, "serve", "--data", str(self.folder / "data"), "--listen", self.listen, "--admin-listen", "127.0.0.1:0",
             "--ready-file", str(ready), *self.flags], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "node.log").read_text()[-4000:])
            time.sleep(0.02)
        facts = json.loads(ready.read_text())
        self.http, self.admin = facts["http"], facts["admin"]
        self.keys = facts.get("keys") or self.keys
        return self

    def stop(self):
        self.process.terminate()
        assert self.process.wait(40) == 0, (self.folder / "node.log").read_text()[-4000:]

    def kill(self):
        self.process.kill()
        self.process.wait()

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
        status, _, answer = self.request("POST", "/v1/ticks" + query, body, {"Content-Type": "application/x-ndjson", **headers}, "write")
        assert status == 200, answer
        return answer


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    node = Node(tmp_path_factory.mktemp("node")).start()
    yield node
    node.stop()
