"""A real region on loopback: Cassandra by `scripts/cassandra`, Redis, nodes over them, nginx before them."""

import json
import os
import pathlib
import random
import runpy
import shutil
import signal
import socket
import subprocess
import threading
import time

from node import BINARY, Door, Node

ROOT = pathlib.Path(__file__).parents[2]
# Longer than anything here takes to start.
START_SECONDS = 60
SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def free_port():
    """One that no connection is given by itself, so that it is free again when its server is started again."""
    while True:
        with socket.socket() as port:
            number = random.randint(20_000, 32_000)
            try:
                port.bind(("127.0.0.1", number))
                return number
            except OSError:
                pass


def program(name):
    """Where a program is; `make test` installs those that the tests need."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    assert found, f"there is no {name} here: run `make test`, which installs it"
    return found


def wait_until(condition, process, what):
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, f"{what} does not start"
        time.sleep(0.05)


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


class Cassandra:
    """A cluster of so many replicas. It ends with the pipe to its launcher, however this process ends."""

    def __init__(self, replicas=1, heap="512m"):
        words = ["--datacenters", f"dc1={replicas}", "--heap", heap]
        self.replicas, self.one_at_a_time = replicas, threading.Lock()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([str(ROOT / "scripts" / "cassandra"), *words], **pipes)
        line = self.process.stdout.readline()
        assert line, "Cassandra does not start; `make test` fetches it by scripts/cassandra-env"
        self.facts = json.loads(line)
        self.nodes = self.facts["nodes"]

    def ask(self, line):
        """Has the launcher do something, such as `kill 1`."""
        with self.one_at_a_time:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
        assert "error" not in answer, f"{line}: {answer}"

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class Redis:
    """`redis-server` with nothing on the disk."""

    def __init__(self):
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "/"]
        self.process = subprocess.Popen([program("redis-server"), *words], **SILENT)
        wait_until(lambda: listens(port), self.process, "redis-server")

    def hang(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def end(self):
        self.process.kill()
        self.process.wait()


class Balancer(Door):
    """nginx before nodes, configured as `scripts/cluster` configures it."""

    def __init__(self, folder, nodes):
        cluster = runpy.run_path(str(ROOT / "scripts" / "cluster"))
        self.folder, port = pathlib.Path(folder), free_port()
        self.folder.mkdir()
        configuration = self.folder / "nginx.conf"
        configuration.write_text(cluster["nginx"](self.folder, [node.listen for node in nodes], port))
        self.http, self.keys = f"http://127.0.0.1:{port}", nodes[0].keys
        words = ["-p", str(self.folder), "-c", str(configuration)]
        self.process = subprocess.Popen([program("nginx"), *words], **SILENT)
        wait_until(lambda: listens(port), self.process, "nginx")

    def wait_for(self, node):
        """Waits until a node is given requests again."""
        route = 'tapeline_http_requests_total{method="GET",route="/v1/symbols"'
        before = node.metric(route)
        given = lambda: self.request("GET", "/v1/symbols") and node.metric(route) > before
        wait_until(given, node.process, "a node behind nginx")

    def end(self):
        self.process.terminate()
        self.process.wait()


class Region:
    """Nodes `a`, `b`, … over one Cassandra and one Redis. Leaving the block ends them all."""

    def __init__(self, folder, count=2, replicas=1, sets=()):
        assert pathlib.Path(BINARY).exists(), f"there is no {BINARY}: build it, or set TAPELINE_BINARY"
        self.folder, self.nodes, self.started = pathlib.Path(folder), {}, []
        try:
            self.cassandra = self.begun(Cassandra(replicas))
            self.redis = self.begun(Redis())
            for name in "abcdefgh"[:count]:
                self.nodes[name] = self.make(name, sets)
            first = self.nodes["a"]
            environment = {**os.environ, **first.environment}
            words = ["migrate", "apply"]
            subprocess.run([BINARY, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
            for node in self.nodes.values():
                node.start()
                node.keys = node.keys or first.keys
        except BaseException:
            self.end()
            raise

    def begun(self, server):
        self.started.append(server)
        return server

    def make(self, name, sets):
        environment = {
            "STORE__BACKEND": "cassandra",
            "STORE__SEAL_KEY": "A" * 43,
            "CASSANDRA__NODES": ",".join(self.cassandra.nodes),
            "CASSANDRA__REGIONS": f"local=dc1:{self.cassandra.replicas}",
            "REDIS__URL": self.redis.url,
            "NODE__NAME": name,
        }
        folder = self.folder / name
        folder.mkdir(parents=True)
        flags = [word for one in sets for word in ("--set", one)]
        environment = {f"TAPELINE__{key}": value for key, value in environment.items()}
        return Node(folder, *flags, listen=f"127.0.0.1:{free_port()}", environment=environment)

    def balanced(self):
        """A load balancer before all nodes."""
        return self.begun(Balancer(self.folder / "balancer", list(self.nodes.values())))

    def stop(self):
        """Stops all nodes as who runs them does, and asserts that they end well."""
        for node in self.nodes.values():
            node.stop()

    def end(self):
        for node in self.nodes.values():
            if node.runs():
                node.kill()
        for server in reversed(self.started):
            server.end()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
