"""Bars as they close: real days replayed at many times their speed, held against the bars that other programs made.

    .venv/bin/python tests/real/live.py --binary target/release/tapeline --data FOLDER

Every bar must have been told, and what was told last of it must be the expected one: a minute by `b` and `u`, a day
by its last `d`. Among the days is one with a cancel nine hours after its trade. Exit status 1 if anything differs.
"""

import argparse
import asyncio
import decimal
import json
import pathlib
import subprocess
import sys
import tempfile

import websockets

import check
from check import nodes

# Each with its speed, so that all end together.
REPLAYS = {"taq_xxx": "2000", "taq_multi": "600", "taq_europe": "600", "itch": "400", "iex": "5"}
# Symbols of days that are not replayed.
OTHERS = {"QQQ", "NVDA"}
# After the last replay: longer than the silence that closes a minute, and the pause before an update.
SETTLE_S = 40


def of(bar):
    return tuple(bar.get(field) for field in ("o", "h", "l", "c", "v", "n", "vw"))


async def listen(node, told, ready):
    key = node.keys["read"]
    async with websockets.connect(node.http.replace("http", "ws", 1) + "/v2/sip", max_size=None) as stream:
        await stream.recv()
        await stream.send(json.dumps({"action": "auth", "key": key["id"], "secret": key["secret"]}))
        await stream.recv()
        await stream.send(json.dumps({"action": "subscribe", "bars": ["*"], "updatedBars": ["*"], "dailyBars": ["*"]}))
        await stream.recv()
        ready.set()
        async for message in stream:
            for bar in json.loads(message, parse_float=decimal.Decimal):
                told.append(bar)


async def replay(node, data):
    ready, told = asyncio.Event(), []
    listener = asyncio.create_task(listen(node, told, ready))
    await ready.wait()
    runs = []
    for name, speed in REPLAYS.items():
        command = [nodes.BINARY, "replay", str(data / f"ticks/{name}.ndjson.gz"), "--speed", speed]
        runs.append(await asyncio.create_subprocess_exec(
            *command, env=check.credentials(node), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    for name, run in zip(REPLAYS, runs):
        check.same(f"exit status of the replay of {name}", await run.wait(), 0)
    await asyncio.sleep(SETTLE_S)
    check.same("the stream ended early", listener.done(), False)
    listener.cancel()
    return told


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    args = parser.parse_args()
    nodes.BINARY, data = args.binary, args.data
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tapeline-live-"))
    node = nodes.Node(folder, "--set", "live.bars_quiet_ms=5000").start()
    try:
        told = asyncio.run(replay(node, data))
        node.stop()
    finally:
        if node.process.poll() is None:
            node.kill()
    last, firsts = {}, set()
    for bar in told:
        kind = "d" if bar["T"] == "d" else "b"
        last[bar["S"], kind, bar["t"]] = of(bar)
        if bar["T"] == "b":
            check.same(f"{bar['S']} {bar['t']} is told first once", (bar["S"], bar["t"]) in firsts, False)
            firsts.add((bar["S"], bar["t"]))
    expected = check.lines(data / "ticks/bars_1m.ndjson.gz") + check.lines(data / "ticks/bars_1d.ndjson.gz")
    for bar in expected:
        if bar["S"] not in OTHERS:
            key = bar["S"], bar["T"], check.short(bar["t"])
            check.same(" ".join(key), last.get(key), of(bar))
    print(f"{len(told)} bars told: {check.done - check.failed} passed, {check.failed} failed, folder {folder}")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
