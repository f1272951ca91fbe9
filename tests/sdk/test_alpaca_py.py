"""Unmodified alpaca-py reads what was posted: types, paging, None, errors, retries."""

import datetime as dt
import http.server
import threading
import time
import urllib.request

import pytest
from alpaca.common.exceptions import APIError
from alpaca.data.enums import Exchange
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.historical.screener import ScreenerClient
from alpaca.data.requests import (
    MarketMoversRequest, MostActivesRequest, StockBarsRequest, StockLatestBarRequest, StockLatestQuoteRequest, StockLatestTradeRequest, StockQuotesRequest,
    StockSnapshotRequest, StockTradesRequest,
)
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit

UTC = dt.timezone.utc
OPEN = dt.datetime(2024, 1, 3, 14, 30, tzinfo=UTC)


def stamp(nanos_after_open):
    seconds, nanos = divmod(nanos_after_open, 1_000_000_000)
    return (OPEN + dt.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S") + f".{nanos:09d}Z"


def trade(symbol, i, **more):
    return {"T": "t", "S": symbol, "i": i, "x": "V", "p": round(100 + i / 100, 2), "s": 100 + i, "c": ["@", "F"], "z": "C",
            "t": stamp(i * 1_000_000_001), **more}


def quote(symbol, i):
    return {"T": "q", "S": symbol, "ax": "Q", "ap": 100.02, "as": 200 + i, "bx": " ", "bp": 0, "bs": 0, "c": ["R"], "z": "C", "t": stamp(i * 7)}


@pytest.fixture(scope="module")
def filled(node):
    ticks = [trade(symbol, i) for i in range(1, 301) for symbol in ("AAPL", "MSFT", "BRK.B")]
    ticks += [quote("AAPL", i) for i in range(50)]
    answer = node.post(ticks)
    assert (answer["accepted"], answer["refused"]) == (len(ticks), 0), answer
    status, _, _ = node.request("GET", "/v2/stocks/trades?symbols=AAPL&limit=1&start=2024-01-03&after=" + answer["position"])
    assert status == 200
    return node


def client(node, **how):
    if not how:
        how = {"api_key": node.keys["read"]["id"], "secret_key": node.keys["read"]["secret"]}
    return StockHistoricalDataClient(url_override=node.http, **how)


def test_trades_of_several_symbols_over_several_pages(filled):
    got = client(filled).get_stock_trades(StockTradesRequest(symbol_or_symbols=["MSFT", "AAPL"], start=OPEN, limit=450)).data
    assert list(got) == ["AAPL", "MSFT"] and len(got["AAPL"]) == 300 and len(got["MSFT"]) == 150
    everything = client(filled).get_stock_trades(StockTradesRequest(symbol_or_symbols=["AAPL", "BRK.B"], start=OPEN)).data
    assert [len(everything[symbol]) for symbol in ("AAPL", "BRK.B")] == [300, 300]
    first = everything["BRK.B"][0]
    assert (first.id, first.price, first.size, first.exchange, first.conditions, first.tape) == (1, 100.01, 101, Exchange.V, ["@", "F"], "C")
    assert first.timestamp == OPEN + dt.timedelta(seconds=1)
    assert [t.id for t in everything["AAPL"]] == list(range(1, 301))


def test_small_pages_are_one_sequence(filled):
    seen, token = [], ""
    while token is not None:
        status, headers, page = filled.request("GET", f"/v2/stocks/AAPL/trades?start=2024-01-03T14:30:00Z&limit=7&page_token={token}" if token
                                               else "/v2/stocks/AAPL/trades?start=2024-01-03T14:30:00Z&limit=7")
        assert status == 200 and page["symbol"] == "AAPL" and len(page["trades"]) <= 7
        assert int(headers["X-RateLimit-Limit"]) > 0 and headers["X-Request-ID"]
        seen += page["trades"]
        token = page["next_page_token"]
    assert [t["i"] for t in seen] == list(range(1, 301))
    assert seen[6]["t"] == "2024-01-03T14:30:07.000000007Z"


def test_start_and_end_are_inclusive(filled):
    span = {"start": OPEN + dt.timedelta(seconds=10), "end": OPEN + dt.timedelta(seconds=20, microseconds=1)}
    got = client(filled).get_stock_trades(StockTradesRequest(symbol_or_symbols="AAPL", **span)).data["AAPL"]
    assert [t.id for t in got] == list(range(10, 21))


def test_quotes_with_a_side_missing(filled):
    got = client(filled).get_stock_quotes(StockQuotesRequest(symbol_or_symbols="AAPL", start=OPEN)).data["AAPL"]
    assert [q.ask_size for q in got] == list(range(200, 250))
    assert (got[0].bid_price, got[0].bid_size, got[0].bid_exchange, got[0].conditions, got[0].tape) == (0, 0, " ", ["R"], "C")


def test_bars_of_minutes_hours_and_days(filled):
    minutes = client(filled).get_stock_bars(StockBarsRequest(symbol_or_symbols=["AAPL"], timeframe=TimeFrame.Minute, start=OPEN)).data["AAPL"]
    assert [b.trade_count for b in minutes] == [59, 60, 60, 60, 60, 1]
    assert (minutes[0].open, minutes[0].close, minutes[0].volume) == (100.01, 100.59, sum(100 + i for i in range(1, 60)))
    hour = client(filled).get_stock_bars(StockBarsRequest(symbol_or_symbols="AAPL", timeframe=TimeFrame(1, TimeFrameUnit.Hour), start=OPEN.replace(minute=0))).data["AAPL"]
    assert len(hour) == 1 and hour[0].trade_count == 300 and hour[0].timestamp == OPEN.replace(minute=0)
    day = client(filled).get_stock_bars(StockBarsRequest(symbol_or_symbols="AAPL", timeframe=TimeFrame.Day, start=OPEN.replace(hour=0))).data["AAPL"]
    assert len(day) == 1 and day[0].timestamp == dt.datetime(2024, 1, 3, 5, tzinfo=UTC) and day[0].high == 103


def test_a_bar_without_count_and_average_is_readable(filled):
    filled.post([{"T": "d", "S": "OLD", "o": 1, "h": 2, "l": 1, "c": 2, "v": 10, "t": "2013-02-08T05:00:00Z"}])
    got = client(filled).get_stock_bars(StockBarsRequest(symbol_or_symbols="OLD", timeframe=TimeFrame.Day, start=dt.datetime(2013, 2, 8, tzinfo=UTC))).data["OLD"]
    assert (got[0].volume, got[0].trade_count, got[0].vwap) == (10, 0, None)


def test_a_symbol_without_data_is_left_out(filled):
    got = client(filled).get_stock_trades(StockTradesRequest(symbol_or_symbols=["NONE", "AAPL"], start=OPEN, limit=1)).data
    assert list(got) == ["AAPL"]
    assert client(filled).get_stock_trades(StockTradesRequest(symbol_or_symbols="NONE", start=OPEN)).data == {}


def test_optional_fields_that_were_not_posted_are_none(filled):
    filled.post([{"T": "t", "S": "BARE", "p": 5, "s": 1, "t": stamp(0)}])
    got = client(filled).get_stock_trades(StockTradesRequest(symbol_or_symbols="BARE", start=OPEN)).data["BARE"][0]
    assert (got.id, got.tape, got.price) == (None, None, 5)


@pytest.mark.parametrize("how", ["basic", "bearer"])
def test_other_ways_to_authenticate(filled, how):
    key = filled.keys["read"]
    if how == "basic":
        sdk = client(filled, api_key=key["id"], secret_key=key["secret"], use_basic_auth=True)
    else:
        sdk = client(filled, oauth_token=f"{key['id']}.{key['secret']}")
    assert len(sdk.get_stock_trades(StockTradesRequest(symbol_or_symbols="AAPL", start=OPEN, limit=2)).data["AAPL"]) == 2


def test_errors_are_json_that_the_sdk_reads(filled):
    with pytest.raises(APIError) as refused:
        client(filled).get_stock_trades(StockTradesRequest(symbol_or_symbols="A$L", start=OPEN))
    assert refused.value.status_code == 400 and refused.value.message == "invalid symbol: A$L" and isinstance(refused.value.code, int)
    with pytest.raises(APIError) as refused:
        client(filled, api_key="nobody", secret_key="x").get_stock_trades(StockTradesRequest(symbol_or_symbols="AAPL", start=OPEN))
    assert refused.value.status_code == 403 and refused.value.message == "forbidden."


class Flaky(http.server.BaseHTTPRequestHandler):
    """Answers two requests with 504, passes the third on to the node."""

    def do_GET(self):
        self.server.seen += 1
        if self.server.seen <= 2:
            self.send_response(504)
            self.end_headers()
            return
        request = urllib.request.Request(self.server.node.http + self.path)
        for name in ("APCA-API-KEY-ID", "APCA-API-SECRET-KEY"):
            request.add_header(name, self.headers[name])
        body = urllib.request.urlopen(request).read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_the_sdk_retries_what_it_retries(filled, monkeypatch):
    server = http.server.HTTPServer(("127.0.0.1", 0), Flaky)
    server.node, server.seen = filled, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(time, "sleep", lambda _: None)
    key = filled.keys["read"]
    sdk = StockHistoricalDataClient(key["id"], key["secret"], url_override=f"http://127.0.0.1:{server.server_port}")
    got = sdk.get_stock_trades(StockTradesRequest(symbol_or_symbols="AAPL", start=OPEN, limit=3)).data["AAPL"]
    server.shutdown()
    assert len(got) == 3 and server.seen == 3


def test_latest_values_and_snapshots(filled):
    sdk = client(filled)
    trades = sdk.get_stock_latest_trade(StockLatestTradeRequest(symbol_or_symbols=["AAPL", "MSFT", "NONE"]))
    assert {symbol: trade.id for symbol, trade in trades.items()} == {"AAPL": 300, "MSFT": 300}
    quote = sdk.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols="AAPL"))["AAPL"]
    assert (quote.ask_size, quote.bid_price) == (249, 0)
    bar = sdk.get_stock_latest_bar(StockLatestBarRequest(symbol_or_symbols="MSFT"))["MSFT"]
    assert bar.timestamp == OPEN + dt.timedelta(minutes=5) and bar.close == 103
    snapshot = sdk.get_stock_snapshot(StockSnapshotRequest(symbol_or_symbols=["AAPL", "BRK.B"]))
    assert snapshot["AAPL"].latest_trade.id == 300 and snapshot["AAPL"].latest_quote == quote
    assert snapshot["BRK.B"].latest_quote is None and snapshot["BRK.B"].daily_bar.trade_count == 300
    assert snapshot["BRK.B"].previous_daily_bar is None


def test_the_screener_ranks_what_came_live(filled):
    day_before = (OPEN - dt.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    for ticks in ([trade("RISE", 1, p=100, t=day_before)], [trade("RISE", 2, p=125.5, s=4_000_000_000)]):
        answer = filled.post(ticks)
        assert answer["accepted"] == 1
        filled.request("GET", "/v2/stocks/trades?symbols=RISE&start=2024-01-01&after=" + answer["position"])
    sdk = ScreenerClient(filled.keys["read"]["id"], filled.keys["read"]["secret"], url_override=filled.http)
    deadline = time.monotonic() + 20
    while (most := sdk.get_most_actives(MostActivesRequest(top=2)).most_actives)[0].symbol != "RISE":
        assert time.monotonic() < deadline, "it is counted a moment after it is durable"
        time.sleep(0.01)
    assert (most[0].symbol, most[0].volume, most[0].trade_count) == ("RISE", 4_000_000_000, 1) and len(most) == 2
    by_trades = sdk.get_most_actives(MostActivesRequest(by="trades", top=3)).most_actives
    assert [(stock.symbol, stock.trade_count) for stock in by_trades] == [("AAPL", 300), ("BRK.B", 300), ("MSFT", 300)]
    movers = sdk.get_market_movers(MarketMoversRequest(top=5))
    assert [(mover.symbol, mover.percent_change, mover.change) for mover in movers.gainers] == [("RISE", 25.5, 25.5)]
    assert movers.losers == []


def test_history_is_the_same_after_a_restart(filled):
    request = StockTradesRequest(symbol_or_symbols=["AAPL", "MSFT", "BRK.B", "BARE"], start=OPEN)
    before = client(filled).get_stock_trades(request)
    filled.stop()
    filled.start()
    assert client(filled).get_stock_trades(request) == before
