"""alpaca-py's StockDataStream against a node: unmodified, through its public interface."""

import json
import socket
import threading
import time
from datetime import datetime, timezone

import msgpack
import pytest
from alpaca.data.live import StockDataStream
from cut import Line
from node import Node


def wait_for(condition, what, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.01)


class Client:
    """A StockDataStream that runs in a thread, and what it has been given."""

    def __init__(self, url, key, secret):
        self.stream = StockDataStream(key, secret, url_override=url)
        self.got = []
        self.thread = None

    async def take(self, item):
        self.got.append(item)

    def run(self):
        self.thread = threading.Thread(target=self.stream.run, daemon=True)
        self.thread.start()
        wait_for(lambda: self.stream._running, "the stream to run")
        return self

    def stop(self):
        self.stream.stop()
        self.thread.join(15)
        assert not self.thread.is_alive()

    def of(self, name):
        return [item for item in self.got if type(item).__name__ == name]


def url(node, path="/v2/sip"):
    return node.http.replace("http://", "ws://") + path


def client(node, path="/v2/sip", key="read"):
    return Client(url(node, path), node.keys[key]["id"], node.keys[key]["secret"])


def now(offset_ns=0):
    ns = time.time_ns() + offset_ns
    return datetime.fromtimestamp(ns // 10**9, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ns % 10**9:09d}Z"


def trade(symbol, number, price=10.0, **more):
    return {"T": "t", "S": symbol, "i": number, "x": "V", "p": price, "s": 100, "c": ["@"], "z": "C", "t": now(), **more}


EVERY_KIND = [
    lambda: trade("AAPL", 1, 126.55),
    lambda: {"T": "q", "S": "AAPL", "bx": "U", "bp": 87.66, "bs": 1, "ax": "Q", "ap": 87.68, "as": 4, "c": ["R"], "z": "C", "t": now()},
    lambda: {"T": "b", "S": "AAPL", "o": 388.985, "h": 389.13, "l": 388.975, "c": 389.12, "v": 49378, "n": 461, "vw": 389.062639, "t": "2021-02-22T19:15:00Z"},
    lambda: {"T": "u", "S": "AAPL", "o": 388.985, "h": 389.14, "l": 388.975, "c": 389.12, "v": 49379, "n": 462, "vw": 389.062639, "t": "2021-02-22T19:15:00Z"},
    lambda: {"T": "d", "S": "AAPL", "o": 388.985, "h": 389.13, "l": 388.975, "c": 389.12, "v": 49378, "n": 461, "vw": 389.062639, "t": "2021-02-22T05:00:00Z"},
    lambda: {"T": "s", "S": "AAPL", "sc": "H", "sm": "Trading Halt", "rc": "T12", "rm": "Additional Information", "t": now(), "z": "C"},
    lambda: {"T": "x", "S": "AAPL", "i": 1, "x": "V", "p": 126.55, "s": 100, "a": "C", "z": "C", "t": now()},
    lambda: {"T": "c", "S": "AAPL", "x": "M", "oi": 7, "op": 39.1582, "os": 440000, "oc": [" ", "7"], "ci": 8, "cp": 39.1809, "cs": 440000, "cc": [" ", "7"], "z": "B", "t": now()},
]


def test_all_kinds_are_received(node):
    stream = client(node)
    s = stream.stream
    s.subscribe_trades(stream.take, "AAPL")
    s.subscribe_quotes(stream.take, "AAPL")
    s.subscribe_bars(stream.take, "*")
    s.subscribe_updated_bars(stream.take, "AAPL")
    s.subscribe_daily_bars(stream.take, "AAPL")
    s.subscribe_trading_statuses(stream.take, "*")
    s.register_trade_cancels(stream.take)
    s.register_trade_corrections(stream.take)
    stream.run()
    posted = node.post([make() for make in EVERY_KIND] + [trade("MSFT", 1)])
    assert posted["accepted"] == 9
    names = {"Trade": 1, "Quote": 1, "Bar": 3, "TradingStatus": 1, "TradeCancel": 1, "TradeCorrection": 1}
    wait_for(lambda: len(stream.got) >= 8, f"eight ticks, not {stream.got}")
    # A bar of the trades that were posted may come too, at the minute's mark.
    stream.got = [item for item in stream.got if type(item).__name__ != "Bar" or item.timestamp.year == 2021]
    assert {name: len(stream.of(name)) for name in names} == names
    [got] = stream.of("Trade")
    assert (got.symbol, got.price, got.size, got.id, got.exchange, got.conditions, got.tape) == ("AAPL", 126.55, 100, 1, "V", ["@"], "C")
    assert abs((got.timestamp - datetime.now(timezone.utc)).total_seconds()) < 60
    [quote] = stream.of("Quote")
    assert (quote.bid_price, quote.ask_price, quote.ask_size) == (87.66, 87.68, 4)
    stream.stop()


def test_subscriptions_change_while_it_runs(node):
    stream = client(node)
    stream.stream.subscribe_trades(stream.take, "ONE")
    stream.run()
    node.post([trade("ONE", 1), trade("TWO", 1)])
    wait_for(lambda: len(stream.got) == 1, "ONE")
    stream.stream.subscribe_trades(stream.take, "TWO")

    def both():
        node.post([trade("ONE", time.time_ns() // 1000), trade("TWO", time.time_ns() // 1000)])
        return {item.symbol for item in stream.got[-2:]} == {"ONE", "TWO"}

    wait_for(both, "TWO too")
    stream.stream.unsubscribe_trades("ONE")

    def only_two():
        before = len(stream.got)
        node.post([trade("ONE", time.time_ns() // 1000), trade("TWO", time.time_ns() // 1000)])
        time.sleep(0.1)
        return [item.symbol for item in stream.got[before:]] == ["TWO"]

    wait_for(only_two, "only TWO")
    stream.stop()


def test_nine_thousand_symbols_in_one_message(node):
    stream = client(node)
    symbols = [f"S{number}" for number in range(9_000)]
    stream.stream.subscribe_trades(stream.take, *symbols)
    stream.run()
    node.post([trade(symbol, 1) for symbol in symbols] + [trade("OTHER", 1)])
    wait_for(lambda: len(stream.got) >= 9_000, "all of them")
    assert {item.symbol for item in stream.got} == set(symbols)
    stream.stop()


def test_a_token_rides_in_the_key_of_every_sdk(node):
    token = f"{node.keys['read']['id']}.{node.keys['read']['secret']}"
    for name in ["oauth", "access_token"]:
        stream = Client(url(node), name, token)
        stream.stream.subscribe_trades(stream.take, "TOK")
        stream.run()
        node.post([trade("TOK", time.time_ns() // 1000)])
        wait_for(lambda: stream.got, "a trade")
        stream.stop()


def test_the_test_feed_streams_fakepaca(node):
    stream = client(node, "/v2/test")
    stream.stream.subscribe_trades(stream.take, "FAKEPACA")
    stream.stream.subscribe_quotes(stream.take, "FAKEPACA")
    stream.run()
    wait_for(lambda: stream.of("Trade") and stream.of("Quote"), "made-up ticks")
    stream.stop()
    status, _, answer = node.request("GET", "/v2/stocks/FAKEPACA/trades?start=2020-01-01")
    assert (status, answer["trades"]) == (200, []), "it is on no tape"


def test_it_survives_a_restart_of_the_node(tmp_path):
    port = socket.socket()
    port.bind(("127.0.0.1", 0))
    address = "%s:%d" % port.getsockname()
    port.close()
    node = Node(tmp_path, listen=address).start()
    stream = client(node)
    stream.stream.subscribe_trades(stream.take, "AAPL")
    stream.run()
    node.post([trade("AAPL", 1)])
    wait_for(lambda: len(stream.got) == 1, "a trade before the restart")
    node.stop()
    node.start()
    numbers = iter(range(2, 10_000))

    def again():
        node.post([trade("AAPL", next(numbers))])
        return len(stream.got) > 1

    wait_for(again, "a trade after it", 60)
    node.kill()
    node.start()
    before = len(stream.got)

    def once_more():
        node.post([trade("AAPL", next(numbers))])
        return len(stream.got) > before

    wait_for(once_more, "a trade after a kill", 60)
    ids = [item.id for item in stream.got]
    assert len(set(ids)) == len(ids)
    stream.stop()
    node.stop()


def test_it_survives_a_cut_connection(node):
    line, numbers = Line(node), iter(range(1, 10_000))
    stream = client(line)
    stream.stream.subscribe_trades(stream.take, "CUTPY")
    stream.run()
    for _ in range(2):
        before = len(stream.got)

        def once_more():
            node.post([trade("CUTPY", next(numbers))])
            return len(stream.got) > before

        wait_for(once_more, "a trade", 60)
        assert line.cut() > 0
    ids = [item.id for item in stream.got]
    assert len(set(ids)) == len(ids)
    stream.stop()
    line.end()


def test_a_wrong_key_is_told_for_as_long_as_it_is_shown(node, caplog):
    stream = Client(url(node), node.keys["read"]["id"], "wrong")
    stream.stream.subscribe_trades(stream.take, "AAPL")
    thread = threading.Thread(target=stream.stream.run, daemon=True)
    thread.start()
    wait_for(lambda: caplog.text.count("auth failed") >= 2, "two refusals, each a second later")
    stream.stream._should_run = False
    stream.stream.stop()
    thread.join(15)
    assert stream.got == []


def raw(node, path="/v2/sip", headers=None, codec="msgpack"):
    """A bare connection: (send, receive) of decoded messages."""
    from websockets.sync.client import connect

    headers = {"Content-Type": f"application/{codec}", **(headers or {})}
    connection = connect(url(node, path), additional_headers=headers)
    pack, unpack = (msgpack.packb, msgpack.unpackb) if codec == "msgpack" else (json.dumps, json.loads)
    return connection, lambda message: connection.send(pack(message)), lambda: unpack(connection.recv(20))


def subscribed(node, path, symbol):
    """A bare connection in JSON that has subscribed to a symbol's trades: (connection, receive)."""
    key = node.keys["read"]
    headers = {"APCA-API-KEY-ID": key["id"], "APCA-API-SECRET-KEY": key["secret"]}
    connection, send, receive = raw(node, path, headers, "json")
    receive(), receive()
    send({"action": "subscribe", "trades": [symbol]})
    assert receive()[0]["T"] == "subscription"
    return connection, receive


@pytest.mark.parametrize("codec", ["msgpack", "json"])
def test_wrong_keys_and_bad_messages_are_told(node, codec):
    key = node.keys["read"]
    good = {"action": "auth", "key": key["id"], "secret": key["secret"]}
    connection, send, receive = raw(node, codec=codec)
    assert receive() == [{"T": "success", "msg": "connected"}]
    send({"action": "subscribe", "trades": ["AAPL"]})
    assert receive() == [{"T": "error", "code": 401, "msg": "not authenticated"}]
    send({"action": "dance"})
    assert receive() == [{"T": "error", "code": 400, "msg": "invalid syntax"}]
    send(good)
    assert receive() == [{"T": "success", "msg": "authenticated"}]
    send(good)
    assert receive() == [{"T": "error", "code": 403, "msg": "already authenticated"}]
    send({"action": "subscribe", "trades": ["BAD SYMBOL"]})
    assert receive() == [{"T": "error", "code": 400, "msg": "invalid syntax"}]
    send({"action": "subscribe", "trades": ["AAPL"], "bars": ["*"], "quotes": None})
    everything = {"T": "subscription", "trades": ["AAPL"], "quotes": [], "bars": ["*"], "updatedBars": [], "dailyBars": [],
                  "statuses": [], "lulds": [], "corrections": ["AAPL"], "cancelErrors": ["AAPL"]}
    assert receive() == [everything]
    connection.close()
    connection, send, receive = raw(node, codec=codec)
    receive()
    send({**good, "secret": "wrong"})
    assert receive() == [{"T": "error", "code": 402, "msg": "auth failed"}]
    with pytest.raises(Exception) as closed:
        receive()
    assert closed.value.rcvd.code == 1008


def test_a_key_in_the_headers_is_enough_and_may_come_again(node):
    key = node.keys["read"]
    for headers in [
        {"APCA-API-KEY-ID": key["id"], "APCA-API-SECRET-KEY": key["secret"]},
        {"Authorization": f"Bearer {key['id']}.{key['secret']}"},
    ]:
        connection, send, receive = raw(node, headers=headers)
        assert receive() == [{"T": "success", "msg": "connected"}]
        assert receive() == [{"T": "success", "msg": "authenticated"}]
        send({"action": "auth", "key": key["id"], "secret": key["secret"]})
        assert receive() == [{"T": "success", "msg": "authenticated"}]
        connection.close()


def test_no_key_in_time_and_no_such_feed(tmp_path):
    node = Node(tmp_path, "--set", "live.auth_ms=300").start()
    connection, _, receive = raw(node)
    assert receive() == [{"T": "success", "msg": "connected"}]
    assert receive() == [{"T": "error", "code": 404, "msg": "auth timeout"}]
    connection, _, receive = raw(node, "/v2/nothing")
    receive()
    assert receive() == [{"T": "error", "code": 409, "msg": "insufficient subscription"}]
    node.stop()


def test_a_cursor_brings_back_what_was_missed(node):
    connection, receive = subscribed(node, "/v2/sip?ext=1", "CUR")
    node.post([trade("CUR", 1), trade("CUR", 2)])
    seen, cursor = [], None
    while cursor is None:
        for message in receive():
            if message["T"] == "t":
                assert message["id"] and message["r"], "an extended stream says where a tick is from"
                seen.append(message["i"])
            elif message["T"] == "hb" and len(seen) == 2:
                cursor = message["cursor"]
    connection.close()
    node.post([trade("CUR", 3), trade("NOT", 1)])
    node.post([trade("CUR", 4)], "?backfill=true")
    for path in [f"/v2/sip?ext=1&cursor={cursor}", f"/v2/sip/cursor/{cursor}"]:
        connection, receive = subscribed(node, path, "CUR")
        got = []
        while len(got) < 1:
            got += [message["i"] for message in receive() if message["T"] == "t"]
        assert got[:1] == [3], "what was missed, and no backfill"
        connection.close()
    connection, receive = subscribed(node, "/v2/sip/since/" + now(-60 * 10**9), "CUR")
    got = []
    while len(got) < 3:
        got += [message["i"] for message in receive() if message["T"] == "t"]
    assert got == [1, 2, 3]
    connection.close()
