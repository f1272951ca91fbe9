"""Go and JavaScript SDKs, unmodified, against a node: alpaca-trade-api-go 3, alpaca-trade-api-js 4 and 3."""

import socket
import threading

import pytest
from cut import Line
from node import Node
from programs import CHANNELS, SDKS, Sdk, comparable
from test_alpaca_py_stream import now, trade

EVERY = pytest.mark.parametrize("sdk", SDKS)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """A node of plain HTTP, and one of TLS: the streams of JavaScript's SDK 3 are always encrypted."""
    nodes = {tls: Node(tmp_path_factory.mktemp("node"), tls=tls).start() for tls in (False, True)}
    yield nodes
    for node in nodes.values():
        node.stop()


@pytest.fixture
def node(nodes, sdk):
    return nodes[sdk == "js3"]


# The largest number that every SDK can hold: JavaScript's SDK 3 has 53 bits for it.
WHOLE = 2**53 - 1


def every_kind(number=WHOLE):
    """Ticks of trades have another symbol than bars, for a node makes bars of trades."""
    at = lambda nanos: f"2024-01-03T14:30:00.{nanos:09d}Z"
    return [
        {"T": "t", "S": "AAPL", "i": number, "x": "V", "p": 126.55, "s": 2**32 - 1, "c": ["@", "I"], "z": "C", "t": at(123456789)},
        {"T": "t", "S": "AAPL", "i": 0, "x": "D", "p": 0.000000001, "s": 0, "c": [], "z": "A", "t": at(1)},
        {"T": "q", "S": "AAPL", "bx": " ", "bp": 0, "bs": 0, "ax": "Q", "ap": 87.68, "as": 4, "c": ["R"], "z": "C", "t": at(10**9 - 1)},
        {"T": "b", "S": "SPY", "o": 388.985, "h": 389.13, "l": 388, "c": 389.12, "v": WHOLE, "n": 461, "vw": 389.062639, "t": "2021-02-22T19:15:00Z"},
        {"T": "u", "S": "SPY", "o": 388.985, "h": 389.14, "l": 388, "c": 389.12, "v": 49379, "n": 462, "vw": 389.062639, "t": "2021-02-22T19:15:00Z"},
        {"T": "d", "S": "SPY", "o": 388.985, "h": 389.13, "l": 388, "c": 389.12, "v": 49378, "n": 461, "vw": 389.062639, "t": "2021-02-22T05:00:00Z"},
        {"T": "s", "S": "AAPL", "sc": "H", "sm": "Trading Halt", "rc": "T12", "rm": "Additional Information", "z": "C", "t": at(100)},
        {"T": "l", "S": "AAPL", "u": 3.24, "d": 2.65, "i": "B", "z": "C", "t": at(70000)},
        {"T": "x", "S": "AAPL", "i": number, "x": "V", "p": 126.55, "s": 100, "a": "C", "z": "C", "t": at(0)},
        {"T": "c", "S": "AAPL", "x": "M", "oi": number, "op": 39.1582, "os": 440000, "oc": [" ", "7"], "ci": 52983525034326, "cp": 39.1809,
         "cs": 2**32 - 1, "cc": [" ", "7"], "z": "B", "t": at(500)},
    ]


def channels(trades="AAPL", bars="SPY"):
    return {channel: [bars if channel.lower().endswith("bars") else trades] for channel in CHANNELS}


@pytest.mark.parametrize("sdk, tls", [("go", False), ("js4", False), ("go", True), ("js4", True), ("js3", True)])
def test_every_kind_is_received_as_it_was_posted(nodes, sdk, tls):
    node = nodes[tls]
    # Each SDK has its own symbols: the same tick posted again is no new one.
    trades, bars = f"K{sdk.upper()}", f"B{sdk.upper()}"
    posted = every_kind(WHOLE if sdk == "js3" else 2**63 - 1)
    for tick in posted:
        tick["S"] = {"AAPL": trades, "SPY": bars}[tick["S"]]
    with Sdk(sdk, node, **channels(trades, bars)) as client:
        client.subscribed(**channels(trades, bars))
        if sdk == "js3":
            told = client.of("subscribed")[-1]["channels"]
            assert (told["corrections"], told["cancelErrors"]) == ([trades], [trades])
        assert node.post([trade("OTHER", 1), *posted, trade("OTHER", 2)])["refused"] == 0
        last = trade(trades, 3)
        node.post([last])
        client.gets([*posted, last])
        assert client.of("error") == []


@EVERY
def test_subscriptions_change_while_it_runs(node, sdk):
    one, two = f"ONE{sdk.upper()}", f"TWO{sdk.upper()}"
    expected = []

    def post(number, *wanted):
        ticks = [trade(symbol, number) for symbol in (one, two)]
        ticks += [{"T": "q", "S": one, "bx": "U", "bp": 87.66, "bs": number, "ax": "Q", "ap": 87.68, "as": 4, "c": ["R"], "z": "C", "t": now()}]
        node.post(ticks)
        expected.extend(tick for tick in ticks if (tick["T"], tick["S"]) in wanted)
        client.gets(expected)

    with Sdk(sdk, node, trades=[one]) as client:
        client.subscribed(trades=[one])
        post(1, ("t", one))
        client.change("subscribe", {"trades": [two]}, trades=[one, two])
        post(2, ("t", one), ("t", two))
        client.change("subscribe", {"quotes": [one]}, trades=[one, two], quotes=[one])
        post(3, ("t", one), ("t", two), ("q", one))
        client.change("unsubscribe", {"trades": [one]}, trades=[two], quotes=[one])
        post(4, ("t", two), ("q", one))
        client.change("unsubscribe", {"quotes": [one]}, trades=[two])
        post(5, ("t", two))
        assert client.of("error") == []


@EVERY
def test_a_connection_is_set_up_amid_ticks(node, sdk):
    """The first message after a subscription is its confirmation, whatever else there is to say."""
    symbol, stop, number = f"AMID{sdk.upper()}", threading.Event(), 0

    def post():
        nonlocal number
        while not stop.is_set():
            node.post([trade(symbol, number + more) for more in range(20)])
            number += 20

    posting = threading.Thread(target=post)
    posting.start()
    try:
        for _ in range(3):
            with Sdk(sdk, node, trades=["*"], quotes=["*"]) as client:
                client.subscribed(trades=["*"], quotes=["*"])
                client.wait(lambda: len(client.of("tick")) >= 100, "a hundred ticks")
                ids = [tick["i"] for tick in client.ticks() if tick["S"] == symbol]
                assert ids == list(range(ids[0], ids[0] + len(ids))), "none is left out"
                assert client.of("error") == []
    finally:
        stop.set()
        posting.join()


def free_address():
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        return "%s:%d" % port.getsockname()


def restarts(node):
    """Ends the node gently, then by force, and starts it again each time."""
    yield node.stop
    yield node.kill


@EVERY
def test_it_survives_a_restart_and_a_kill_of_the_node(tmp_path, sdk):
    node = Node(tmp_path, "--set", "live.move_ms=200", listen=free_address(), tls=sdk == "js3").start()
    wanted = {"trades": ["AAPL", "MSFT"], "statuses": ["*"]}
    with Sdk(sdk, node, trades=["AAPL"], statuses=["*"]) as client:
        client.subscribed(trades=["AAPL"], statuses=["*"])
        client.change("subscribe", {"trades": ["MSFT"]}, **wanted)
        node.post([trade("AAPL", 1)])
        client.gets_ids(1)
        number = 1
        for end in restarts(node):
            seen, connected = len(client.of("subscribed")), len(client.of("connected"))
            end()
            node.start()
            client.wait(lambda: len(client.of("connected")) > connected, "a new connection")
            client.subscribed(seen, **wanted)
            number += 1
            node.post([trade("MSFT", number)])
            client.gets_ids(*range(1, number + 1))
    node.stop()


@EVERY
def test_it_survives_a_cut_connection(node, sdk):
    line, symbol = Line(node), f"CUT{sdk.upper()}"
    with Sdk(sdk, line, trades=[symbol]) as client:
        client.subscribed(trades=[symbol])
        node.post([trade(symbol, 1)])
        client.gets_ids(1)
        for number in (2, 3):
            seen, connected = len(client.of("subscribed")), len(client.of("connected"))
            assert line.cut() > 0
            client.wait(lambda: len(client.of("connected")) > connected, "a new connection")
            client.subscribed(seen, trades=[symbol])
            node.post([trade(symbol, number)])
            client.gets_ids(*range(1, number + 1))
    line.end()


# What an SDK keeps of its address: Go and JavaScript's SDK 3 its path, JavaScript's SDK 4 all of it.
SINCE = {"go": "sip/since/{}", "js4": "sip?since={}", "js3": "sip/since/{}"}


@EVERY
def test_a_time_in_the_feed_brings_back_what_was_missed(tmp_path, sdk):
    node = Node(tmp_path, listen=free_address(), tls=sdk == "js3").start()
    node.post([trade("AAPL", 1), trade("MSFT", 1), trade("AAPL", 2)])
    with Sdk(sdk, node, SINCE[sdk].format(now(-60 * 10**9)), trades=["AAPL"]) as client:
        client.gets_ids(1, 2)
        node.post([trade("AAPL", 3)])
        client.gets_ids(1, 2, 3)
        node.kill()
        node.start()
        node.post([trade("AAPL", 4)])
        # The SDK comes back to the same address, and so to the same time.
        client.gets_ids(1, 2, 3, 1, 2, 3, 4)
        node.post([trade("AAPL", 5)])
        client.gets_ids(1, 2, 3, 1, 2, 3, 4, 5)
    node.stop()


@EVERY
def test_a_time_too_long_ago_begins_as_far_back_as_the_node_goes(node, sdk):
    """An SDK keeps its address for as long as it runs, and must be able to come back to it."""
    symbol = f"AGO{sdk.upper()}"
    node.post([trade(symbol, 1)])
    with Sdk(sdk, node, SINCE[sdk].format(now(-60 * 60 * 10**9)), trades=[symbol]) as client:
        client.subscribed(trades=[symbol])
        node.post([trade(symbol, 2)])
        client.wait(lambda: len(client.of("tick")) >= 2 or len(client.of("connected")) > 1, "two trades")
        assert len(client.of("connected")) == 1, f"{sdk} is closed each time it comes: {client.events[:6]}"
        client.gets_ids(1, 2)


@EVERY
def test_a_feed_that_is_not_there_is_told(node, sdk):
    with Sdk(sdk, node, "nothing", trades=["AAPL"]) as client:
        told = lambda: client.of("refused") + client.of("error")
        client.wait(told, "a refusal")
        assert "insufficient subscription" in told()[0]["error"]
        assert client.of("tick") == []


REFUSED = {
    "go": {"error": "irrecoverable error: invalid credentials", "credentials": True},
    "js4": {"error": "auth failed", "code": 402, "status": "server_rejected"},
    "js3": {"error": "auth failed"},
}


@EVERY
def test_a_wrong_key_is_told(node, sdk):
    with Sdk(sdk, node, key={**node.keys["read"], "secret": "wrong"}, trades=["AAPL"]) as client:
        client.wait(lambda: client.of("refused"), "a refusal")
        assert client.of("refused") == [{"event": "refused", **REFUSED[sdk]}]
        assert client.of("connected") == client.of("tick") == []


@EVERY
def test_a_token_rides_in_the_key(node, sdk):
    symbol, read = f"TOK{sdk.upper()}", node.keys["read"]
    for number, name in enumerate(["oauth", "access_token"]):
        with Sdk(sdk, node, key={"id": name, "secret": f"{read['id']}.{read['secret']}"}, trades=[symbol]) as client:
            client.subscribed(trades=[symbol])
            node.post([trade(symbol, number)])
            client.gets_ids(number)


# REST.

START = "2024-01-03T14:30:00Z"


def minute(number, nanos=0):
    return f"2024-01-03T14:{30 + number}:00.{nanos:09d}Z"


@EVERY
def test_history_and_what_is_newest_are_read(node, sdk):
    symbol = f"R{sdk.upper()}"
    trades = [trade(symbol, WHOLE - 5 + i, 100.5 + i, s=100 + i, t=minute(i, 123456789)) for i in range(5)]
    quote = {"T": "q", "S": symbol, "bx": "U", "bp": 87.66, "bs": 1, "ax": "Q", "ap": 87.68, "as": 4, "c": ["R"], "z": "C", "t": minute(3, 1)}
    answer = node.post([*trades, quote])
    assert node.request("GET", f"/v2/stocks/{symbol}/trades?start=2024-01-03&after={answer['position']}")[0] == 200
    # REST of JavaScript's SDK 4 gives dates of milliseconds; the others give every digit.
    digits = 3 if sdk == "js4" else 9

    def alike(given, posted):
        wanted = {name: value for name, value in comparable(posted, digits).items() if name not in "TS"}
        given = {name: value for name, value in comparable({"T": "", **given}, digits).items() if name in wanted}
        return given == wanted

    with Sdk(sdk, node, "") as client:
        every = client.ask("trades", symbol=symbol, start=START, page_limit=2)["answer"]
        assert len(every) == 5 and all(map(alike, every, trades)), every
        newest = client.ask("latest_trade", symbol=symbol)["answer"]
        assert alike(newest, trades[-1]), newest
        bars = client.ask("bars", symbol=symbol, start=START)["answer"]
        expected = [
            {"T": "b", "S": symbol, "o": 100.5 + i, "h": 100.5 + i, "l": 100.5 + i, "c": 100.5 + i, "v": 100 + i, "n": 1, "vw": 100.5 + i, "t": minute(i)}
            for i in range(5)]
        assert len(bars) == 5 and all(map(alike, bars, expected)), bars
        snapshot = client.ask("snapshot", symbol=symbol)["answer"]
        assert alike(snapshot["latestTrade"], trades[-1]) and alike(snapshot["latestQuote"], quote), snapshot
        assert alike(snapshot["minuteBar"], expected[-1]), snapshot


FORBIDDEN = {
    "go": {"error": "forbidden. (HTTP 403, Code 40300000)"},
    "js4": {"error": "PermissionError: forbidden.", "status": 403},
    "js3": {"error": "Error: code: 403, message: forbidden."},
}


@EVERY
def test_a_wrong_key_of_rest_is_told(node, sdk):
    with Sdk(sdk, node, "", key={**node.keys["read"], "secret": "wrong"}) as client:
        assert client.ask("latest_trade", symbol="AAPL") == {"event": "answer", **FORBIDDEN[sdk]}
