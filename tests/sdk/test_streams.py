"""The platform's own streams, through plain HTTP: events, long polls, bars as they close."""

import json
import threading
import time
import urllib.request
from datetime import datetime, timedelta, timezone

import pytest
from node import Node
from test_alpaca_py_stream import client, now, raw, subscribed, trade, wait_for
from test_go_js import channels, every_kind
from websockets.exceptions import ConnectionClosed, InvalidStatus


class Events:
    """A client of server-sent events, as browsers are: the last id, and events as (name, data)."""

    def __init__(self, node, query, last=None):
        request = urllib.request.Request(f"{node.http}/v1/stream?{query}")
        request.add_header("APCA-API-KEY-ID", node.keys["read"]["id"])
        request.add_header("APCA-API-SECRET-KEY", node.keys["read"]["secret"])
        if last:
            request.add_header("Last-Event-ID", last)
        self.answer = urllib.request.urlopen(request, timeout=60)
        assert self.answer.headers["Content-Type"] == "text/event-stream"
        self.events, self.id, self.ended = [], last, False
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            self.parse()
        except (AttributeError, ValueError, OSError):
            pass  # the test has closed it

    def parse(self):
        name, data = "message", None
        for line in self.answer:
            line = line.decode().rstrip("\n")
            field, _, value = line.partition(": ")
            if field == "id":
                self.id = value
            elif field == "event":
                name = value
            elif field == "data":
                data = json.loads(value)
            elif line == "" and data is not None:
                self.events.append((name, data))
                name, data = "message", None
        self.ended = True

    def ids(self):
        return [tick["i"] for name, data in list(self.events) if name == "message" for tick in data if tick["T"] == "t"]


def test_events_go_on_where_they_broke_off(node):
    first = Events(node, "trades=SSE")
    wait_for(lambda: first.id and first.events, "the first event, with an id")
    assert first.events[0] == ("connected", {})
    node.post([trade("SSE", 1), trade("SSE", 2), trade("OTHER", 9)])
    wait_for(lambda: first.ids() == [1, 2], "two trades")
    cursor = first.id
    first.answer.close()
    node.post([trade("SSE", 3)])
    again = Events(node, "trades=SSE", cursor)
    wait_for(lambda: again.ids()[-1:] == [3], "what was missed")
    node.post([trade("SSE", 4)])
    wait_for(lambda: again.ids()[-1:] == [4], "what is new")
    assert again.ids() in ([3, 4], [1, 2, 3, 4]), "a cursor is at most 250 ms old"


def test_a_stream_needs_something_to_stream(node):
    for query, field in [("", None), ("trades=A%20B", "trades"), ("trades=A&cursor=x", "cursor"), ("trades=A&since=x", "since")]:
        status, _, answer = node.request("GET", f"/v1/stream?{query}")
        assert status == 400 and answer.get("field") == field, (query, answer)
    assert node.request("GET", "/v1/stream?trades=A", key=None)[0] == 401


def test_the_long_poll_gives_each_tick_once(node):
    body = json.dumps({"symbols": ["POLL"], "kinds": ["trades"], "filter": {"min_size": 50}}).encode()
    status, _, made = node.request("POST", "/v1/subscriptions", body, {"Content-Type": "application/json"})
    assert status == 201, made
    events = f"/v1/subscriptions/{made['id']}/events"
    node.post([trade("POLL", 1), trade("POLL", 2), trade("POLL", 3, s=10)])
    cursor, seen = None, []

    def poll(wait=0):
        nonlocal cursor
        query = f"?wait={wait}" if cursor is None and wait else "" if cursor is None else f"?cursor={cursor}" + (f"&wait={wait}" if wait else "")
        status, _, answer = node.request("GET", events + query)
        assert status == 200 and answer["gaps"] == [], answer
        cursor = answer["cursor"]
        seen.extend(tick["i"] for tick in answer["events"])

    status, _, answer = node.request("GET", f"{events}?wait=25001")
    assert (status, answer["field"]) == (400, "wait"), "an answer comes before clients give up"
    wait_for(lambda: poll(1000) or len(seen) >= 2, "what came since it was made")
    assert seen == [1, 2], "the filter holds"
    waiting = threading.Thread(target=poll, args=(20_000,))
    waiting.start()
    time.sleep(0.3)
    node.post([trade("POLL", 4)])
    waiting.join(15)
    assert seen == [1, 2, 4], "it waits for the next"
    poll()
    assert seen == [1, 2, 4]
    assert node.request("GET", events + "?cursor=nonsense")[0] == 400
    assert node.request("GET", "/v1/subscriptions/none/events")[0] == 404


def test_a_connection_attaches_to_a_subscription(node):
    body = json.dumps({"symbols": ["ATT"], "kinds": ["trades"], "filter": {"min_size": 50}}).encode()
    status, _, made = node.request("POST", "/v1/subscriptions", body, {"Content-Type": "application/json"})
    assert status == 201, made
    key = node.keys["read"]
    headers = {"APCA-API-KEY-ID": key["id"], "APCA-API-SECRET-KEY": key["secret"]}
    connection, _, receive = raw(node, f"/v2/sip?subscription={made['id']}", headers, "json")
    assert [receive()[0]["msg"], receive()[0]["msg"]] == ["connected", "authenticated"]
    ack = receive()[0]
    assert (ack["T"], ack["trades"], ack["quotes"]) == ("subscription", ["ATT"], [])
    node.post([trade("ATT", 1, s=10), trade("ATT", 2), trade("NOT", 3)])
    assert [tick["i"] for tick in receive()] == [2], "its filter holds"
    connection.close()
    events = Events(node, f"subscription={made['id']}")
    wait_for(lambda: events.events, "the first event")
    node.post([trade("ATT", 4, s=10), trade("ATT", 5)])
    wait_for(lambda: events.ids() == [5], "what its filter lets through")
    status, _, answer = node.request("GET", f"/v1/stream?subscription={made['id']}&trades=A")
    assert (status, answer["field"]) == (400, "trades"), answer
    connection, _, receive = raw(node, "/v2/sip?subscription=none", headers, "json")
    assert [receive()[0].get("msg"), receive()[0].get("code")] == ["connected", 409]
    with pytest.raises(ConnectionClosed, match="there is no subscription none"):
        receive()


def test_a_subscription_from_a_time_too_long_ago_begins_as_far_back_as_the_node_goes(node):
    body = json.dumps({"symbols": ["AGO"], "kinds": ["trades"]}).encode()
    made = node.request("POST", "/v1/subscriptions", body, {"Content-Type": "application/json"})[2]
    node.post([trade("AGO", 1)])
    key, old = node.keys["read"], "2020-01-01T00:00:00Z"
    headers = {"APCA-API-KEY-ID": key["id"], "APCA-API-SECRET-KEY": key["secret"]}
    of = f"subscription={made['id']}"
    for path in [f"/v2/sip?{of}&since={old}", f"/v2/sip/since/{old}?{of}"]:
        connection, _, receive = raw(node, path, headers, "json")
        assert [receive()[0]["T"] for _ in range(3)] == ["success", "success", "subscription"]
        assert [tick["i"] for tick in receive()] == [1]
        connection.close()


def test_a_stream_from_a_time_says_where_it_is_at_once(tmp_path):
    """A browser that is cut before the first tick comes back by what it was told."""
    node = Node(tmp_path, "--set", "live.heartbeat_ms=60000").start()
    ticket = node.request("POST", "/v1/stream/ticket")[2]["ticket"]
    query = f"trades=QUIET&since={now(-60 * 10**9)}&ticket={ticket}"
    first = urllib.request.urlopen(f"{node.http}/v1/stream?{query}", timeout=20)
    cursor = next(line for line in first if line.startswith(b"id: ")).decode().removeprefix("id: ").strip()
    first.close()
    node.post([trade("QUIET", 1)])
    again = urllib.request.Request(f"{node.http}/v1/stream?{query}", headers={"Last-Event-ID": cursor})
    with urllib.request.urlopen(again, timeout=20) as answer:
        ticks = next(line for line in answer if line.startswith(b"data: ["))
        assert [tick["i"] for tick in json.loads(ticks.removeprefix(b"data: "))] == [1]
    node.stop()


def test_what_alpaca_has_not_is_asked_for_in_the_message(node):
    key = node.keys["read"]
    headers = {"APCA-API-KEY-ID": key["id"], "APCA-API-SECRET-KEY": key["secret"]}
    connection, send, receive = raw(node, "/v2/sip", headers, "json")
    assert [receive()[0]["msg"], receive()[0]["msg"]] == ["connected", "authenticated"]
    send({"action": "subscribe", "trades": ["MSG"], "ext": 1, "session": "desk"})
    assert receive()[0]["T"] == "subscription"
    node.post([trade("MSG", 1)])
    tick = receive()[0]
    assert tick["i"] == 1 and tick["r"] and len(tick["id"]) == 32, tick
    newer, send, take = raw(node, "/v2/sip", headers, "json")
    take(), take()
    send({"action": "subscribe", "trades": ["MSG"], "session": "desk"})
    assert take()[0]["T"] == "subscription"
    assert receive()[0]["T"] == "hb", "the last cursor of who was taken over"
    with pytest.raises(ConnectionClosed, match="taken over"):
        receive()
    node.post([trade("MSG", 2)])
    assert "r" not in take()[0]
    newer.close()


def test_streams_hear_that_their_subscription_changed(node):
    def ask(method, change=None):
        body = json.dumps(change).encode() if change else None
        status, _, answer = node.request(method, path, body, {"Content-Type": "application/json"})
        assert status == 200, answer

    def last(events):
        wait_for(lambda: events.ended, "the end of its stream")
        return events.events[-1]

    def ended(code, why):
        try:
            while receive():
                pass
        except ConnectionClosed as closed:
            assert closed.rcvd.code == code and why in closed.rcvd.reason, closed

    body = json.dumps({"symbols": ["CHA"], "kinds": ["trades"]}).encode()
    made = node.request("POST", "/v1/subscriptions", body, {"Content-Type": "application/json"})[2]
    path, of = f"/v1/subscriptions/{made['id']}", f"subscription={made['id']}"
    other = node.request("POST", "/v1/subscriptions", body, {"Content-Type": "application/json"})[2]
    untouched = Events(node, f"subscription={other['id']}")
    events = Events(node, of)
    key = node.keys["read"]
    headers = {"APCA-API-KEY-ID": key["id"], "APCA-API-SECRET-KEY": key["secret"]}
    connection, _, receive = raw(node, f"/v2/sip?{of}", headers, "json")
    assert [receive()[0]["T"] for _ in range(3)] == ["success", "success", "subscription"]
    wait_for(lambda: events.events and untouched.events, "the first events")
    node.post([trade("CHA", 1)])
    wait_for(lambda: events.ids() == [1], "the first trade")

    ask("PUT", {"symbols": ["CHB"]})
    assert last(events) == ("end", {"reason": "changed"})
    ended(1012, "changed")
    node.post([trade("CHA", 2), trade("CHB", 3)])
    events = Events(node, of, events.id)
    wait_for(lambda: events.ids() == [3], "what it says now, from where it was")

    ask("PUT", {"paused": True})
    assert last(events) == ("end", {"reason": "changed"})
    before = events.id
    events = Events(node, of, before)
    wait_for(lambda: events.events, "the first event")
    assert events.id == before, "a paused stream holds its place"
    node.post([trade("CHB", 4)])
    status, _, held = node.request("GET", f"{path}/events?cursor={before}")
    assert (status, held["events"], held["cursor"]) == (200, [], before), "nothing while it is paused"
    assert node.request("GET", f"{path}/events")[2]["cursor"] is None

    ask("PUT", {"paused": False})
    assert last(events) == ("end", {"reason": "changed"})
    assert events.ids() == [] and events.id == before
    events = Events(node, of, before)
    node.post([trade("CHB", 5)])
    wait_for(lambda: events.ids() == [4, 5], "what was held back, and what comes after")

    cursor, answers = node.request("GET", f"{path}/events")[2]["cursor"], []
    waiting = f"{path}/events?wait=20000&cursor={cursor}"
    poll = threading.Thread(target=lambda: answers.append(node.request("GET", waiting)))
    poll.start()
    connection, _, receive = raw(node, f"/v2/sip?{of}", headers, "json")
    assert [receive()[0]["T"] for _ in range(3)] == ["success", "success", "subscription"]
    ask("DELETE")
    assert last(events) == ("end", {"reason": "deleted"})
    ended(1008, "deleted")
    poll.join(10)
    assert answers and answers[0][0] == 404, answers
    assert node.request("GET", f"{path}/events")[0] == 404
    wait_for(lambda: untouched.ids() == [1, 2], "another subscription's stream goes on")
    assert not untouched.ended


def test_messagepack_has_the_types_that_sdks_in_csharp_need(node):
    """The name of a message first, whole numbers as integers, prices as floats, times as extension -1."""
    import msgpack

    key = node.keys["read"]
    headers = {"APCA-API-KEY-ID": key["id"], "APCA-API-SECRET-KEY": key["secret"]}
    connection, send, receive = raw(node, "/v2/sip", headers)
    receive(), receive()
    send({"action": "subscribe", **channels("PACKT", "PACKB")})
    assert receive()[0]["T"] == "subscription"
    posted = every_kind()
    for tick in posted:
        tick["S"] = {"AAPL": "PACKT", "SPY": "PACKB"}[tick["S"]]
    assert node.post(posted)["refused"] == 0
    got = []
    while len(got) < len(posted):
        got += msgpack.unpackb(connection.recv(20), object_pairs_hook=list)
    whole = {"i", "s", "bs", "as", "v", "n", "oi", "os", "ci", "cs"}
    prices = {"p", "bp", "ap", "o", "h", "l", "c", "vw", "u", "d", "op", "cp"}
    kinds = set()
    for pairs in got:
        assert pairs[0][0] == "T", pairs
        kinds.add(pairs[0][1])
        for name, value in pairs[1:]:
            if name == "t":
                assert isinstance(value, msgpack.Timestamp), pairs
            elif name in whole and not isinstance(value, str):
                assert type(value) is int, (name, pairs)
            elif name in prices and not isinstance(value, list):
                assert type(value) is float, (name, pairs)
    assert kinds == set("tqbudslxc")
    connection.close()


def test_a_misspelt_parameter_is_told(node):
    import websockets.sync.client as websockets

    url = node.http.replace("http", "ws", 1)
    for query, field in [("ext=1&curser=x", "curser"), ("ext=yes", "ext"), ("cursor=nonsense", "cursor"), ("since=today", "since")]:
        try:
            websockets.connect(f"{url}/v2/sip?{query}").close()
            raise AssertionError(query)
        except InvalidStatus as refused:
            answer = json.loads(refused.response.body)
            assert (refused.response.status_code, answer["reason"], answer.get("field")) == (400, "address", field), answer
    # What others send to others is let go.
    websockets.connect(f"{url}/v2/sip?utm_source=x").close()
    status, _, answer = node.request("GET", "/v2/sip")
    assert status == 426 and "GET /v1/stream" in answer["message"], answer


def test_bars_close_by_the_time_of_the_ticks(node):
    stream = client(node)
    stream.stream.subscribe_bars(stream.take, "BAR")
    stream.stream.subscribe_updated_bars(stream.take, "BAR")
    stream.run()
    day = datetime.now(timezone.utc) - timedelta(days=5)
    at = lambda minute, second: day.strftime("%Y-%m-%dT") + f"15:{minute:02d}:{second:02d}Z"
    wait_for(lambda: node.post([trade("BAR", 1, 10.0, t=at(0, 1))]) and stream.stream._running, "the stream")
    time.sleep(0.5)
    node.post([trade("BAR", 2, 12.0, t=at(0, 59)), trade("BAR", 3, 11.0, t=at(1, 1))])
    node.post([trade("BAR", 4, 9.0, t=at(1, 30)), trade("BAR", 5, 9.5, t=at(1, 31))])
    wait_for(lambda: stream.got, "the first bar", 20)
    bar = stream.got[0]
    assert (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.trade_count) == (10.0, 12.0, 10.0, 12.0, 200, 2)
    assert bar.timestamp.strftime("%H:%M:%S") == "15:00:00"
    _, _, history = node.request("GET", f"/v2/stocks/BAR/bars?timeframe=1Min&start={at(0, 0)}&end={at(0, 0)}")
    told = history["bars"][0]
    assert (told["o"], told["h"], told["l"], told["c"], told["v"], told["n"]) == (10.0, 12.0, 10.0, 12.0, 200, 2)
    stream.stop()


def test_a_stop_tells_streams_to_move(tmp_path):
    node = Node(tmp_path, "--set", "live.move_ms=200").start()
    events = Events(node, "trades=*")
    wait_for(lambda: events.events, "the first event")
    node.stop()
    wait_for(lambda: events.ended, "the end")
    name, data = events.events[-1]
    assert name == "end" and data["reason"] == "move" and 0 <= data["retry_ms"] <= 200


def test_a_stop_closes_connections_with_a_cursor_that_goes_on(tmp_path):
    node = Node(tmp_path, "--set", "live.move_ms=200").start()
    _, receive = subscribed(node, "/v2/sip?ext=1", "MOVE")
    node.post([trade("MOVE", 1)])
    seen, last = [], None
    stopping = threading.Thread(target=node.stop)
    try:
        while True:
            for message in receive():
                last = message
                if message["T"] == "t":
                    seen.append(message["i"])
                    stopping.start()
    except Exception as closed:
        assert closed.rcvd.code == 1012, closed
    stopping.join()
    assert seen == [1] and last["T"] == "hb", "the cursor is the last message"
    node.start()
    node.post([trade("MOVE", 2)])
    _, receive = subscribed(node, f"/v2/sip?ext=1&cursor={last['cursor']}", "MOVE")
    got = []
    while not got:
        got = [message["i"] for message in receive() if message["T"] == "t"]
    assert got == [2], "what it had is not given again"
    node.stop()
