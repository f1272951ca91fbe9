"""The programs of the Go and JavaScript SDKs, as clients: one process each, told and heard by lines of JSON."""

import itertools
import json
import os
import pathlib
import queue
import subprocess
import threading
from datetime import datetime, timezone

from test_alpaca_py_stream import wait_for

HERE = pathlib.Path(__file__).parent
BUILT = HERE.parents[1] / "target" / "sdk"

# SDK: its command, and the digits of a second that its stream gives, rounded.
SDKS = {
    "go": ([str(BUILT / "go" / "stream")], 9),
    "js4": (["node", str(HERE / "js" / "stream4.js")], 9),
    "js3": (["node", str(HERE / "js" / "stream3.js")], 3),
}
MADE = [BUILT / "go" / "installed", BUILT / "js" / "installed"]
CHANNELS = ["trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds"]


def nanos(time):
    """Nanoseconds since 1970 of an RFC 3339 time in UTC."""
    whole, _, fraction = time.removesuffix("Z").partition(".")
    seconds = datetime.fromisoformat(whole).replace(tzinfo=timezone.utc).timestamp()
    return int(seconds) * 10**9 + int(fraction.ljust(9, "0") or 0)


def comparable(tick, digits):
    """A tick whose time is a number, rounded to so many digits of a second, and whose exchange numbers are numbers."""
    tick, unit = dict(tick), 10 ** (9 - digits)
    for number in ("i", "oi", "ci"):
        # LULD bands name their indicator `i`.
        if number in tick and tick["T"] != "l":
            tick[number] = int(tick[number])
    return {**tick, "t": (nanos(tick["t"]) + unit // 2) // unit}


class Sdk:
    """A program of an SDK, connected to a feed of a node unless there is none. Leaving the block ends it."""

    def __init__(self, name, node, feed="sip", key=None, **channels):
        for made in MADE:
            assert made.exists(), f"{made} is missing: run `make test`, which makes it"
        command, self.digits = SDKS[name]
        key = key or node.keys["read"]
        self.name, self.events, self.answers, self.log = name, [], queue.Queue(), ""
        environment = {
            **os.environ, "APCA_API_KEY_ID": key["id"], "APCA_API_SECRET_KEY": key["secret"],
            "NODE_PATH": str(BUILT / "js" / "node_modules"),
        }
        if node.ca:
            environment.update(SSL_CERT_FILE=str(node.ca), NODE_EXTRA_CA_CERTS=str(node.ca))
        self.process = subprocess.Popen(
            [*command, node.http, feed, json.dumps(channels)], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.readers = [threading.Thread(target=read, daemon=True) for read in (self.read, self.read_log)]
        for reader in self.readers:
            reader.start()

    def read(self):
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] == "answer":
                self.answers.put(event)
            else:
                self.events.append(event)

    def read_log(self):
        for line in self.process.stderr:
            self.log += line

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()

    def tell(self, do, **more):
        self.process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self.process.stdin.flush()

    def ask(self, do, **more):
        """What the SDK's REST client gives: {"answer": …} or {"error": …}."""
        self.tell(do, **more)
        return self.answers.get(timeout=30)

    def of(self, event):
        return [one for one in list(self.events) if one["event"] == event]

    def wait(self, condition, what):
        def met():
            assert self.process.poll() is None, f"{self.name} ended: {self.log[-2000:]}"
            return condition()

        try:
            wait_for(met, what)
        except AssertionError as error:
            raise AssertionError(f"{self.name}: {error}; it had {self.events[-20:]} {self.log[-2000:]}") from None

    def subscribed(self, seen=0, **channels):
        """Waits for a confirmation, after the first `seen` ones, of these channels and no others."""
        wanted = {channel: sorted(channels.get(channel, [])) for channel in CHANNELS}

        def confirmed():
            now = self.of("subscribed")[seen:]
            return now and {channel: sorted(now[-1]["channels"].get(channel) or []) for channel in CHANNELS} == wanted

        self.wait(confirmed, f"a confirmation of {channels}")
        return self

    def change(self, do, changed, **channels):
        """Changes subscriptions, and waits for the confirmation of all that there are now."""
        seen = len(self.of("subscribed"))
        self.tell(do, channels=changed)
        self.subscribed(seen, **channels)

    def ticks(self):
        return [comparable(event["tick"], self.digits) for event in self.of("tick")]

    def ids(self):
        return [tick["i"] for tick in self.ticks()]

    def gets(self, posted):
        """All that it ever gave is what was posted, and each series (symbol, kind) in the order of posting."""
        series = lambda tick: (tick["S"], tick["T"])
        wanted = sorted((comparable(tick, self.digits) for tick in posted), key=series)
        self.wait(lambda: len(self.of("tick")) >= len(wanted), f"{len(wanted)} ticks")
        got = sorted(self.ticks(), key=series)
        assert got == wanted, f"{self.name}: {[pair for pair in itertools.zip_longest(got, wanted) if pair[0] != pair[1]]}"

    def gets_ids(self, *ids):
        self.wait(lambda: len(self.of("tick")) >= len(ids), f"trades {ids}")
        assert self.ids() == list(ids), self.name
