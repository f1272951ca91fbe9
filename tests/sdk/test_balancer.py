"""Unmodified SDKs behind a load balancer: nginx before two nodes of a region, which are killed in turn."""

import itertools
import threading
import time
from datetime import datetime, timezone

import pytest
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.requests import StockLatestTradeRequest, StockTradesRequest
from programs import Sdk
from region import Region
from test_alpaca_py_stream import client, trade, wait_for
from test_go_js import START, minute

COUNT = 60
# Requests of each SDK, before a node is killed and after that.
BEFORE, AFTER = 5, 15


@pytest.fixture(scope="module")
def region(tmp_path_factory):
    with Region(tmp_path_factory.mktemp("region"), count=2, sets=["history.linger_ms=300"]) as region:
        region.balancer = region.balanced()
        yield region
        region.stop()


def test_requests_go_on_when_a_node_is_killed(region):
    """Each page is of whichever node the balancer chooses. At most the answer that was on its way is lost."""
    door = region.balancer
    trades = [trade("BAL", number, t=minute(number // 2, number + 1)) for number in range(COUNT)]
    position = door.post(trades)["position"]
    for node in region.nodes.values():
        path = f"/v2/stocks/BAL/trades?start=2024-01-03&limit={COUNT}&after={position}"
        wait_for(lambda: node.request("GET", path)[0] == 200, "what was posted")
    key = door.keys["read"]
    python = StockHistoricalDataClient(key["id"], key["secret"], url_override=door.http)
    start = datetime(2024, 1, 3, tzinfo=timezone.utc)

    def of_python():
        newest = python.get_stock_latest_trade(StockLatestTradeRequest(symbol_or_symbols="BAL"))["BAL"].id
        every = python.get_stock_trades(StockTradesRequest(symbol_or_symbols="BAL", start=start))["BAL"]
        return newest, [one.id for one in every]

    def of_go():
        newest = go.ask("latest_trade", symbol="BAL")
        every = go.ask("trades", symbol="BAL", start=START, page_limit=7)
        return newest["answer"]["i"], [one["i"] for one in every["answer"]]

    # All that each was given, and which requests were under way when a node was killed.
    given, lost, killed = {of_python: [], of_go: []}, [], threading.Event()

    def ask_often(ask):
        after = 0
        while after < AFTER:
            after += killed.is_set()
            try:
                given[ask].append(ask())
            except Exception as error:
                lost.append((after, error))

    with Sdk("go", door, "") as go:
        for name, node in region.nodes.items():
            askers = [threading.Thread(target=ask_often, args=(ask,), daemon=True) for ask in given]
            for answers in given.values():
                answers.clear()
            killed.clear()
            for asker in askers:
                asker.start()
            wait_for(lambda: all(len(answers) >= BEFORE for answers in given.values()), "answers of both")
            node.kill()
            killed.set()
            for asker in askers:
                asker.join(120)
            assert not any(asker.is_alive() for asker in askers), "a request that never ends"
            assert [one for one in lost if one[0]] == [], f"begun after {name} was killed, and lost"
            assert len(lost) <= len(askers), lost
            for ask, answers in given.items():
                assert len(answers) >= AFTER
                assert all(answer == (COUNT - 1, list(range(COUNT))) for answer in answers), (ask, answers)
            lost.clear()
            node.start()
            door.wait_for(node)


def test_streams_come_back_through_the_balancer(region):
    """An SDK comes back by itself, to the node that is left, with its subscriptions. It does not ask for what
    was sent meanwhile."""
    door, numbers = region.balancer, itertools.count(1)
    python = client(door)
    python.stream.subscribe_trades(python.take, "BALS")
    python.run()
    with Sdk("go", door, trades=["BALS"]) as go:
        go.subscribed(trades=["BALS"])
        ids = {"alpaca-py": lambda: [item.id for item in python.got], "go": go.ids}

        def post():
            """To a node itself: a balancer does not repeat what it has passed on."""
            number = next(numbers)
            next(node for node in region.nodes.values() if node.runs()).post([trade("BALS", number)])
            return number

        def all_get(number):
            return all(number in of() for of in ids.values())

        def again():
            """Posts until every stream has what was posted last, which says that all are back."""
            number, patience = post(), time.monotonic() + 5
            while not all_get(number) and time.monotonic() < patience:
                time.sleep(0.05)
            return all_get(number)

        for name, node in region.nodes.items():
            wait_for(again, f"streams before {name} is killed", 60)
            node.kill()
            wait_for(again, f"streams after {name} was killed", 60)
            more = [post() for _ in range(5)]
            wait_for(lambda: all_get(more[-1]), f"what was posted after that: {more}")
            for sdk, of in ids.items():
                got = of()
                assert got[-5:] == more, f"{sdk}: each of them, in order"
                assert set(got) <= set(range(1, more[-1] + 1)), f"{sdk}: nothing else"
            node.start()
            door.wait_for(node)
        # Whoever was not on the first node that was killed was on the second.
        assert len(go.of("connected")) > 1
    python.stop()
