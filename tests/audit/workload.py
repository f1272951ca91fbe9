"""Clients that post, read and stream while a region's processes are killed and stopped, and what they see.

    .venv/bin/python tests/audit/workload.py --seeds 1,2,3        # starts a region, and runs one audit a seed

Each client is a thread with a history of its own in a folder, which `checker` judges. A seed says what is
done, not when the machine gets to it, so that two runs of one seed are alike and not the same.
"""

import argparse
import base64
import collections
import http.client
import itertools
import json
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from datetime import datetime, timezone

import checker
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

SECONDS = 45
# An answer that has not come by then is not waited for.
POST_S, READ_S = 4, 8
# What is not there by then never comes.
NEVER_S = 120
PATHS = {"t": ("trades", "i", "p"), "q": ("quotes", "as", "ap")}
# How a region is configured so that everything happens often.
SETS = ["history.linger_ms=300", "live.heartbeat_ms=200", "ingest.answer_ms=2000", "redis.call_ms=200"]


def stamp(nanos):
    whole = datetime.fromtimestamp(nanos // 10**9, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{nanos % 10**9:09d}Z"


def nanos(text):
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = datetime.fromisoformat(whole).replace(tzinfo=timezone.utc).timestamp()
    return int(seconds) * 10**9 + int(fraction.ljust(9, "0") or 0)


def wire(tick):
    """A tick as it is posted."""
    kind, symbol, number, time_ns, price = tick
    if kind == "t":
        more = {"i": number, "x": "V", "p": price, "s": 100, "c": ["@"]}
    else:
        more = {"ax": "Q", "ap": price, "as": number, "bx": "Q", "bp": 1.5, "bs": 100, "c": ["R"]}
    return {"T": kind, "S": symbol, "t": stamp(time_ns), "z": "C", **more}


def read_tick(kind, symbol, told):
    """A tick as it is read."""
    _, number, price = PATHS[kind]
    return [kind, symbol, told[number], nanos(told["t"]), told[price]]


def reached(position):
    """Which seq of which tape a position names: docs/FORMATS.md, section 8."""
    body = base64.urlsafe_b64decode(position.partition(".")[2] + "==")[20:]
    assert body[0] == 1, position
    tapes, at = {}, 2
    for _ in range(body[1]):
        tape, seq, shift, at = body[at:at + 8].hex(), 0, 0, at + 8
        while True:
            byte = body[at]
            seq, shift, at = seq | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                break
        tapes[tape] = seq
    return tapes


class Run:
    """One audit: what its clients share."""

    def __init__(self, region, folder, seed):
        self.region, self.folder, self.seed = region, pathlib.Path(folder), seed
        self.symbols = [f"AUD{seed}.{letter}" for letter in "ABC"]
        self.sent = {}
        self.acked = set()
        self.kept = None
        self.positions = collections.deque(maxlen=8)
        self.failures = []
        self.is_over = threading.Event()
        self.folder.mkdir(parents=True)

    @property
    def series(self):
        return list(itertools.product(PATHS, self.symbols))


class Client(threading.Thread):
    """A thread that writes its history, and goes to any node of the region."""

    def __init__(self, run, name):
        super().__init__(name=name, daemon=True)
        self.shared, self.random = run, random.Random(f"{run.seed} {name}")
        self.nodes, self.node, self.connections = run.region.nodes, None, {}
        self.history = open(run.folder / f"{name}.jsonl", "w", buffering=1)
        self.move()

    def run(self):
        try:
            self.work()
        except Exception as error:
            self.shared.failures.append(f"{self.name}: {error!r}")
        finally:
            self.history.close()
            for connection in self.connections.values():
                connection.close()

    def tell(self, kind, op, **more):
        now = time.monotonic_ns()
        event = {"process": self.name, "time": now, "type": kind, "op": op, **more}
        self.history.write(json.dumps(event) + "\n")
        return now

    def move(self):
        """Goes to another node."""
        self.node = self.random.choice([name for name in self.nodes if name != self.node])

    def ask(self, name, method, path, body=None, headers=None, key="read", timeout=READ_S):
        """(status, JSON) of an answer; status 0: nothing was sent, none: nobody knows."""
        node = self.nodes[name]
        connection = self.connections.get(name)
        if connection is None:
            connection = http.client.HTTPConnection(node.http.removeprefix("http://"), timeout=READ_S)
            try:
                connection.connect()
            except OSError:
                return 0, {}
            self.connections[name] = connection
        key = node.keys[key]
        headers = {"APCA-API-KEY-ID": key["id"], "APCA-API-SECRET-KEY": key["secret"], **(headers or {})}
        try:
            connection.request(method, path, body, headers)
            connection.sock.settimeout(timeout)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            self.connections.pop(name).close()
            return None, {}

    def rest(self, low, high):
        time.sleep(self.random.uniform(low, high))


class Producer(Client):
    """Posts single ticks and batches, and repeats some of what may not have been kept."""

    def __init__(self, run, number):
        super().__init__(run, f"producer-{number}")
        self.number, self.next, self.time_ns, self.requests = number, 0, 0, 0

    def tick(self, again):
        """Of two trades of one time the exchange's number tells which is first."""
        kind = self.random.choice("tq")
        self.next += 1
        # No other producer has a time of this one.
        now = time.time_ns() // 100 * 100 + self.number
        if not (again and kind == "t"):
            self.time_ns = max(now, self.time_ns + 100)
        number = self.number * 10**6 + self.next
        price = -1.0 if self.random.random() < 0.05 else 10 + number % 1000 / 100
        return (kind, self.random.choice(self.shared.symbols), number, self.time_ns, price)

    def work(self):
        while not self.shared.is_over.is_set():
            size = 1 if self.random.random() < 0.5 else self.random.randint(2, 20)
            ticks = [self.tick(index > 0 and self.random.random() < 0.2) for index in range(size)]
            self.requests += 1
            name = f"{self.name}-{self.requests}"
            headers = {"Content-Type": "application/json"}
            if self.random.random() < 0.5:
                headers["Idempotency-Key"] = f"{self.shared.seed}-{name}"
            body = json.dumps([wire(tick) for tick in ticks])
            now = time.monotonic_ns()
            self.shared.sent.update((tick, now) for tick in ticks)
            for _ in range(6):
                end = self.post(name, ticks, body, headers)
                if self.random.random() < {"ok": 0.95, "fail": 0.3, "unknown": 0.3}[end]:
                    break
                if end != "ok":
                    self.move()
                    self.rest(0.05, 0.3)
            self.rest(0.01, 0.08)

    def post(self, name, ticks, body, headers):
        self.tell("invoke", "post", node=self.node, request=name, value=ticks)
        # Some go away while the answer is on its way.
        patience = POST_S if self.random.random() < 0.95 else self.random.uniform(0.001, 0.02)
        status, answer = self.ask(self.node, "POST", "/v1/ticks", body, headers, "write", patience)
        if status == 200:
            refused = [verdict["index"] for verdict in answer["verdicts"]]
            if (answer["accepted"], answer["refused"]) != (len(ticks) - len(refused), len(refused)):
                self.shared.failures.append(f"{name}: the counts are not those of the verdicts: {answer}")
            position = answer["position"]
            self.tell("ok", "post", refused=refused, position=reached(position) if position else None)
            self.shared.acked.update(tick for index, tick in enumerate(ticks) if index not in refused)
            if position:
                self.shared.positions.append(position)
            return "ok"
        is_unknown = status in (None, 504) or answer.get("outcome") == "unknown"
        if not is_unknown and status not in (0, 429, 503):
            self.shared.failures.append(f"{name}: {status} {answer}")
        end = "unknown" if is_unknown else "fail"
        self.tell(end, "post", status=status, reason=answer.get("reason"))
        return end


class Reader(Client):
    """Pages through histories, of one node or with each page from another one."""

    def work(self):
        while not self.shared.is_over.is_set():
            self.move()
            shown = self.random.choice([None, *self.shared.positions])
            start = time.time_ns() - 8 * 10**9 if self.random.random() < 0.7 else None
            node = self.node if self.random.random() < 0.7 else None
            self.read(node, self.random.choice(self.shared.series), start, shown)
            self.rest(0.1, 0.4)

    def read(self, node, series, start=None, shown=None, **more):
        """What it gives, and nothing where a page does not come."""
        after = reached(shown) if shown else None
        self.tell("invoke", "read", node=node, series=series, start=start, after=after, **more)
        kind, symbol = series
        query = f"symbols={symbol}&limit={self.random.randint(100, 2_000)}&start={stamp(start or 10**18)}"
        query += f"&after={shown}" if shown else ""
        ticks, page, tries = [], "", 0
        while True:
            status, answer = self.ask(node or self.node, "GET", f"/v2/stocks/{PATHS[kind][0]}?{query}{page}")
            if status == 200:
                given = (answer[PATHS[kind][0]] or {}).get(symbol) or []
                ticks += [read_tick(kind, symbol, told) for told in given]
                if not answer["next_page_token"]:
                    self.tell("ok", "read", value=ticks)
                    return ticks
                page = f"&page_token={answer['next_page_token']}"
            elif status in (0, None, 429, 503, 504):
                tries += 1
                if node or tries > 5:
                    self.tell("fail", "read", status=status, reason=answer.get("reason"))
                    return None
            else:
                self.shared.failures.append(f"{self.name}: {status} {answer}")
                self.tell("fail", "read", status=status)
                return None
            if not node:
                self.move()


class Streamer(Client):
    """Streams some symbols, is cut off at random, and comes back at another node with its last cursor."""

    def __init__(self, run, number, sessions):
        super().__init__(run, f"stream-{number}")
        self.wanted = run.symbols if number % 2 else run.symbols[:2]
        self.sessions, self.session, self.cursor = sessions, None, None
        self.confirmed, self.received = None, set()

    def work(self):
        until = None
        while until is None or time.monotonic() < until:
            lives_s = self.random.uniform(1, 6)
            try:
                self.stream(lives_s)
            except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError):
                self.rest(0.05, 0.2)
            self.move()
            if self.shared.kept is not None:
                if self.has_all():
                    break
                until = until or time.monotonic() + NEVER_S
        if self.confirmed:
            self.tell("ok", "end", session=self.session)
        else:
            self.shared.failures.append(f"{self.name}: its last stream was never confirmed")

    def has_all(self):
        """It has what is kept and was sent since it was confirmed."""
        if self.confirmed is None:
            return False
        sent = self.shared.sent
        wanted = (tick for tick in self.shared.kept if tick[1] in self.wanted)
        return all(tick in self.received for tick in wanted if sent.get(tick, 0) > self.confirmed)

    def stream(self, lives_s):
        # A cursor that is thrown away begins another stream.
        if not self.cursor or self.shared.kept is None and self.random.random() < 0.1:
            self.cursor = None
            self.session, self.confirmed, self.received = next(self.sessions), None, set()
        is_resumed = self.cursor is not None
        node = self.nodes[self.node]
        key = node.keys["read"]
        headers = {"APCA-API-KEY-ID": key["id"], "APCA-API-SECRET-KEY": key["secret"]}
        address = node.http.replace("http", "ws", 1) + "/v2/sip?ext=1"
        address += f"&cursor={self.cursor}" if is_resumed else ""
        how = {"additional_headers": headers, "open_timeout": 5, "close_timeout": 0.5, "max_size": None}
        facts = {"session": self.session, "node": self.node, "resumed": is_resumed}
        facts.update(symbols=self.wanted, kinds=list(PATHS))
        with connect(address, **how) as connection:
            self.tell("invoke", "subscribe", **facts)
            wanted = {"trades": self.wanted, "quotes": self.wanted}
            connection.send(json.dumps({"action": "subscribe", **wanted}))
            ends = time.monotonic() + lives_s
            while time.monotonic() < ends or self.shared.kept is not None:
                try:
                    messages = json.loads(connection.recv(timeout=0.25))
                except TimeoutError:
                    messages = []
                for message in messages:
                    self.hear(message, facts)
                if self.shared.kept is not None and (self.has_all() or time.monotonic() > ends + NEVER_S):
                    return
            if self.random.random() < 0.5:
                # Cut off, without a word.
                connection.close_socket()

    def hear(self, message, facts):
        kind = message["T"]
        if kind in PATHS:
            tick = read_tick(kind, message["S"], message)
            self.tell("ok", "tick", session=self.session, id=message["id"], value=tick)
            self.received.add((*tick,))
        elif kind == "hb":
            self.cursor = message.get("cursor") or self.cursor
        elif kind == "subscription":
            now = self.tell("ok", "subscribe", **facts)
            self.confirmed = self.confirmed or now
        elif kind == "gap":
            self.tell("ok", "gap", session=self.session, told=message)
        elif kind == "error" and message["code"] == 407:
            self.tell("ok", "slow", session=self.session)
        elif kind != "success":
            self.shared.failures.append(f"{self.name}: {message}")


class Faults(Client):
    """Kills and stops nodes and hangs Redis, one after the other, and heals each before the next."""

    def work(self):
        kinds = []
        while not self.shared.is_over.wait(self.random.uniform(1, 3)):
            kinds = kinds or self.random.sample(["kill", "kill", "pause", "redis"], 4)
            self.move()
            getattr(self, kinds.pop())(self.nodes[self.node])

    def fault(self, what, on):
        self.tell("ok", "fault", what=what, on=on)

    def kill(self, node):
        self.fault("kill a node", self.node)
        node.kill()
        self.rest(0.5, 3)
        deadline = time.monotonic() + NEVER_S
        while True:
            try:
                return node.start()
            except RuntimeError:
                # Without a quorum it may end, and is started again as who runs it would.
                self.fault("a start that failed", self.node)
                assert time.monotonic() < deadline, node.log()
                if node.runs():
                    node.kill()
                self.rest(0.5, 1)

    def pause(self, node):
        self.fault("stop a node", self.node)
        node.process.send_signal(signal.SIGSTOP)
        try:
            self.rest(1, 6)
        finally:
            node.process.send_signal(signal.SIGCONT)

    def redis(self, _):
        self.fault("stop Redis", "redis")
        self.shared.region.redis.hang()
        try:
            self.rest(1, 5)
        finally:
            self.shared.region.redis.go_on()


class ReplicaFaults(Client):
    """Stops a replica of the database; then two of them, which leaves no quorum; then kills one, which takes
    long to come back; and so on."""

    def work(self):
        cassandra = self.shared.region.cassandra
        faults = itertools.cycle([("stop", "cont", 1), ("stop", "cont", 2), ("kill", "start", 1)])
        while cassandra.replicas > 2 and not self.shared.is_over.wait(self.random.uniform(2, 5)):
            harm, heal, count = next(faults)
            numbers = self.random.sample(range(1, cassandra.replicas + 1), count)
            self.tell("ok", "fault", what=f"{harm} {count} of the replicas", on=numbers)
            for number in numbers:
                cassandra.ask(f"{harm} {number}")
            self.shared.is_over.wait(self.random.uniform(2, 6))
            for number in numbers:
                cassandra.ask(f"{heal} {number}")


def until(condition, what):
    deadline = time.monotonic() + NEVER_S
    while not condition():
        if time.monotonic() > deadline:
            return f"never: {what}"
        time.sleep(0.5)
    return None


def last_reads(run):
    """Reads everything from every node until all have the same, with all that was acknowledged. Answers
    that, and what never came to be."""
    reader = Reader(run, "last-reads")
    before = None

    def all_agree():
        nonlocal before
        found = {}
        for name, series in itertools.product(run.region.nodes, run.series):
            ticks = reader.read(name, series, final=True)
            found.setdefault(name, set()).update(map(tuple, ticks or []))
        first, *others = found.values()
        is_settled = first == before and all(other == first for other in others) and run.acked <= first
        before = first
        return is_settled

    never = until(all_agree, "all nodes have the same")
    reader.history.close()
    return before, never


def unproved(counts, events, replicas):
    """What there must have been for an audit to say anything, and was not."""
    had = {
        "a fault of a node": counts.get("fault kill a node") or counts.get("fault stop a node"),
        "a fault of a replica": replicas < 3 or any("of the replicas" in what for what in counts),
        "a stream that came back": counts["resumes"],
        "a tick on a stream": counts.get("tick ok"),
        "a stream that had all it needed": counts.get("end ok"),
        "a read after a position": any(event.get("after") for event in events if event["op"] == "read"),
    }
    return [f"there was never {what}" for what, count in had.items() if not count]


def counts_of(audit, events):
    """What happened, for people."""
    counts = {"ticks sent": len(audit.sent), "acknowledged": len(audit.acked), "kept": len(audit.kept)}
    ended = [event for event in events if event["type"] != "invoke"]
    happened = collections.Counter(f"{event['op']} {event.get('what') or event['type']}" for event in ended)
    happened["resumes"] = sum(event["op"] == "subscribe" and event["resumed"] for event in ended)
    happened["requests"] = len({event["request"] for event in events if "request" in event})
    return {**counts, **dict(sorted(happened.items()))}


def run(region, folder, seed, seconds=SECONDS):
    """Runs one audit; answers its counts and what is wrong, as text."""
    audit = Run(region, folder, seed)
    sessions = itertools.count(1)
    faults = [Faults(audit, "faults"), ReplicaFaults(audit, "replica-faults")]
    workers = [Producer(audit, number) for number in range(1, 5)]
    workers += [Reader(audit, f"reader-{number}") for number in (1, 2)]
    streams = [Streamer(audit, number, sessions) for number in range(1, 5)]
    for thread in [*streams, *workers, *faults]:
        thread.start()
    time.sleep(seconds)
    audit.is_over.set()
    for thread in [*workers, *faults]:
        thread.join(NEVER_S)
    unready = until(lambda: all(node.is_ready() for node in region.nodes.values()), "all nodes are ready")
    audit.kept, unlike = last_reads(audit)
    for thread in streams:
        thread.join(2 * NEVER_S)
    late = [thread.name for thread in [*workers, *faults, *streams] if thread.is_alive()]
    events = checker.load(folder)
    problems = checker.check(events)
    counts = counts_of(audit, events)
    wrong = [*audit.failures, *filter(None, (unready, unlike)), *(f"{name} does not end" for name in late)]
    wrong += unproved(counts, events, region.cassandra.replicas)
    return counts, "\n".join(wrong + ([checker.report(problems)] if problems else []))


def main():
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "servers"))
    from region import Region

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1", help="one audit a seed, one after the other (1)")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"how long clients work ({SECONDS})")
    parser.add_argument("--nodes", type=int, default=3, help="API nodes (3)")
    parser.add_argument("--replicas", type=int, default=3, help="of the database (3); of 1 or 2 none dies")
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tapeline-audit-"))
    is_bad = False
    with Region(folder, args.nodes, args.replicas, SETS) as region:
        for seed in args.seeds.split(","):
            counts, wrong = run(region, folder / f"seed-{seed}", seed, args.seconds)
            print(f"seed {seed}: {json.dumps(counts)}\n{wrong or 'good'}", flush=True)
            is_bad = is_bad or bool(wrong)
    if is_bad:
        sys.exit(f"the histories are in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
