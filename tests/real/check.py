"""Real market data through HTTP: imported with `tapeline import`, read back through Alpaca's API, held against known facts.

    .venv/bin/python tests/real/check.py --binary target/release/tapeline --data FOLDER

FOLDER holds `facts.json`, `ticks/*.ndjson.gz` with expected bars, `sp500_daily/` and `dbn/`. The facts were
computed from the raw sources by other programs. Exit status 1 if anything differs.
"""

import argparse
import collections
import csv
import datetime
import decimal
import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zoneinfo

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "servers"))
import node as nodes  # noqa: E402

NEW_YORK = zoneinfo.ZoneInfo("America/New_York")
# Facts about what the raw feeds hold beside trades and quotes.
OF_THE_RAW_FEED = {"executions_E", "hidden_P", "book_after_last_message", "sum_NUMTRADES"}
# Of these records ticks can be kept; the others are refused by name.
DBN_SCHEMAS = {"trades", "mbp-1", "tbbo", "bbo-1s", "bbo-1m", "ohlcv-1m", "ohlcv-1d"}
SOURCES = ["iex", "itch", "taq_xxx", "taq_multi", "taq_europe"]
done = failed = 0


def same(what, got, want):
    global done, failed
    done += 1
    if got != want:
        failed += 1
        print(f"{what}: {got} is not {want}", flush=True)


def lines(path):
    with gzip.open(path, "rt") as file:
        return [json.loads(line, parse_float=decimal.Decimal) for line in file]


def short(time):
    """As the wire shows it: trailing zeros of the fraction are trimmed."""
    return time.rstrip("Z").rstrip("0").rstrip(".") + "Z" if "." in time else time


class Reader:
    def __init__(self, node):
        self.node, self.pages = node, 0

    def all(self, kind, symbols, **params):
        """Every tick of the kind, a list a symbol; decimals exact."""
        found, token = collections.defaultdict(list), None
        while True:
            query = {"symbols": ",".join(symbols), "limit": 10000, "start": "1970-01-02", **params}
            if token:
                query["page_token"] = token
            path = f"/v2/stocks/{kind}?" + urllib.parse.urlencode(query)
            status, _, page = self.get(path)
            if status != 200:
                raise RuntimeError(f"{path}: {status} {page}")
            self.pages += 1
            for symbol, ticks in page[kind].items():
                found[symbol] += ticks
            token = page["next_page_token"]
            if token is None:
                return found

    def get(self, path):
        request = urllib.request.Request(self.node.http + path)
        request.add_header("APCA-API-KEY-ID", self.node.keys["read"]["id"])
        request.add_header("APCA-API-SECRET-KEY", self.node.keys["read"]["secret"])
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.headers, json.loads(answer.read(), parse_float=decimal.Decimal)
        except urllib.error.HTTPError as error:
            return error.code, error.headers, json.loads(error.read())


def credentials(node):
    """The environment of a client of the node: the first start made the keys."""
    key = node.keys["write"]
    return {**os.environ, "TAPELINE_URL": node.http, "TAPELINE_KEY_ID": key["id"], "TAPELINE_SECRET": key["secret"]}


def imported(node, file, expect=0):
    """Runs `tapeline import`; `expect` is its exit status (1 where lines are refused by name)."""
    run = subprocess.run([nodes.BINARY, "import", str(file)], capture_output=True, text=True, env=credentials(node))
    same(f"exit status of import {file.name}: {run.stderr[-600:]}", run.returncode, expect)
    return run.stdout + run.stderr


def check_trades(read, facts, sent):
    for symbol, fact in facts["trades"].items():
        trades = read.all("trades", [symbol])[symbol]
        shares = sum(t["s"] for t in trades)
        vwap = decimal.Decimal(sum(t["p"] * t["s"] for t in trades)) / shares
        edge = lambda t: {"i": t["i"], "p": t["p"], "s": t["s"], "t": t["t"]}
        got = {
            "trades": len(trades), "shares": shares, "vwap": float(vwap.quantize(decimal.Decimal("0.000001"), decimal.ROUND_HALF_UP)),
            "low": float(min(t["p"] for t in trades)), "high": float(max(t["p"] for t in trades)),
            "distinct_times": len({t["t"] for t in trades}),
            "cancels": sum(t.get("u") == "canceled" for t in trades), "odd_lots": sum("I" in t["c"] for t in trades),
            "by_exchange": dict(collections.Counter(t["x"] for t in trades)),
        }
        days = collections.defaultdict(lambda: {"trades": 0, "shares": 0})
        for trade in trades:
            day = datetime.datetime.fromisoformat(trade["t"][:19] + "+00:00").astimezone(NEW_YORK).date().isoformat()
            days[day]["trades"] += 1
            days[day]["shares"] += trade["s"]
        got["by_day_new_york"] = dict(days)
        got["quotes"] = len(read.all("quotes", [symbol])[symbol]) if "quotes" in fact else None
        for key in fact.keys() - {"first", "last", "quotes_detail"} - OF_THE_RAW_FEED:
            same(f"{symbol} {key}", got[key], fact[key])
        for key, trade in (("first", trades[0]), ("last", trades[-1])):
            want = {**fact[key], "t": short(fact[key]["t"])}
            same(f"{symbol} {key}", {k: float(v) if k == "p" else v for k, v in edge(trade).items()}, want)
        # Every field of every trade, in the order of the total order: by time, then by the exchange's number.
        want = sorted((t for t in sent[symbol] if t["T"] == "t"), key=lambda t: (t["t"], t["i"]))
        plain = [{k: v for k, v in t.items() if k != "u"} for t in trades]
        same(f"{symbol} trades field by field", plain, [{**{k: v for k, v in t.items() if k not in "TS"}, "t": short(t["t"])} for t in want])


def check_quotes(read, facts, sent):
    for symbol in ("XXX", "AAPL", "TQQQ", "FEMY"):
        quotes = read.all("quotes", [symbol])[symbol]
        want = [t for t in sent[symbol] if t["T"] == "q"]
        same(f"{symbol} quotes", len(quotes), len(want))
        order = lambda q: (q["t"], json.dumps(q, default=str, sort_keys=True))
        same(f"{symbol} quotes field by field", sorted(quotes, key=order),
             sorted(({**{k: v for k, v in t.items() if k not in "TS"}, "t": short(t["t"])} for t in want), key=order))
        same(f"{symbol} last quote", {k: quotes[-1][k] for k in ("ap", "bp")}, {k: want[-1][k] for k in ("ap", "bp")})
    detail = facts["trades"]["XXX"]["quotes_detail"]
    quotes = read.all("quotes", ["XXX"])["XXX"]
    same("XXX bid shares", sum(q["bs"] for q in quotes if q["bp"] > 0), detail["sum_bid_shares"])
    same("XXX ask shares", sum(q["as"] for q in quotes if q["ap"] > 0), detail["sum_ask_shares"])
    same("XXX quotes, first and last", (quotes[0]["t"], quotes[-1]["t"]), (short(detail["first"]), short(detail["last"])))
    same("XXX quotes of NYSE", sum(q["bx"] == "N" or q["ax"] == "N" for q in quotes), detail["nyse_quotes"])
    same("XXX quotes with a side missing", sum(q["bp"] == 0 or q["ap"] == 0 for q in quotes), detail["one_or_no_side"])
    for symbol, best in facts["iex"]["final_best"].items():
        last = read.all("quotes", [symbol])[symbol][-1]
        same(f"{symbol} final best", {k: float(last[k]) for k in best if k in last}, {k: float(best[k]) for k in best if k in last})
    total = read.all("quotes", sorted({s for s, ticks in sent.items() if any(t["T"] == "q" and t["t"].startswith("2023-10-02") for t in ticks)}), start="2023-10-02", end="2023-10-03")
    same("IEX quotes", sum(map(len, total.values())), facts["iex"]["quotes_of_own_best"])
    iex = sorted({s for s, ticks in sent.items() if any(t["T"] == "t" and t["t"].startswith("2023-10-02") for t in ticks)})
    trades = read.all("trades", iex, start="2023-10-02", end="2023-10-03")
    found = [trade for of in trades.values() for trade in of]
    same("IEX symbols with trades, trades, shares", (len(trades), len(found), sum(t["s"] for t in found)),
         (facts["iex"]["symbols_with_trades"], facts["iex"]["trades"], facts["iex"]["shares"]))
    same("IEX price by size", float(sum(t["p"] * t["s"] for t in found)), facts["iex"]["official_trade_sum_px_x_size"])


def check_windows(read, facts):
    for window in facts["windows"]:
        found = read.all(window["kind"], [window["symbol"]], start=window["start"], end=window["end"])[window["symbol"]]
        same(f"window {window['symbol']} {window['start']}", (len(found), found[0]["t"], found[-1]["t"]),
             (window["count"], short(window["first"]), short(window["last"])))
        if window["kind"] == "trades" and "shares" in window:
            same(f"shares in window {window['symbol']} {window['start']}", sum(t["s"] for t in found), window["shares"])


def check_bars(read, data, timeframe, name):
    want = collections.defaultdict(list)
    for bar in lines(data / f"ticks/{name}.ndjson.gz"):
        want[bar["S"]].append({k: v for k, v in bar.items() if k not in "TS"})
    for symbol, bars in want.items():
        same(f"{symbol} {timeframe} bars", read.all("bars", [symbol], timeframe=timeframe)[symbol], bars)
    return sum(map(len, want.values()))


def check_sp500(node, read, data, facts, folder):
    plain = folder / "sp500.csv"
    plain.write_bytes(gzip.decompress((data / "sp500_daily/sp500_daily_2013_2018.csv.gz").read_bytes()))
    refused = folder / "refused.ndjson"
    command = [nodes.BINARY, "import", str(plain), "--refused", str(refused)]
    run = subprocess.run(command, capture_output=True, text=True, env=credentials(node))
    fact = facts["sp500_daily"]
    same(f"exit status of the S&P 500 import: {run.stderr[-600:]}", run.returncode, 1)
    # Besides the rows with a blank, one real row (AOS, 2014-05-19) has a high below its low.
    rows = list(csv.DictReader(plain.read_text().splitlines()))
    bad = [row for row in rows if not all(row.values()) or decimal.Decimal(row["high"]) < decimal.Decimal(row["low"])]
    same("rows refused by name", len(refused.read_text().splitlines()), len(bad))
    same("rows with a blank", sum(not all(row.values()) for row in bad), fact["rows_with_a_blank"])
    bars = read.all("bars", ["AAPL"], timeframe="1Day", end="2018-12-31")["AAPL"]
    same("AAPL days", (len(bars), sum(b["v"] for b in bars)), (fact["AAPL"]["rows"], fact["AAPL"]["sum_of_volume"]))
    same("AAPL extremes", (float(max(b["h"] for b in bars)), float(min(b["l"] for b in bars))), (fact["AAPL"]["highest_high"], fact["AAPL"]["lowest_low"]))
    for sample in fact["samples"]:
        bar = read.all("bars", [sample["symbol"]], timeframe="1Day", start=sample["date"], end=sample["date"])[sample["symbol"]]
        got = [{"open": float(b["o"]), "high": float(b["h"]), "low": float(b["l"]), "close": float(b["c"]), "volume": b["v"]} for b in bar]
        same(f"{sample['symbol']} {sample['date']}", got, [{k: v for k, v in sample.items() if k not in ("symbol", "date")}])
    month = read.all("bars", ["AAPL"], timeframe="1Month", start="2018-01-01", end="2018-01-31")["AAPL"]
    january = fact["AAPL_january_2018"]
    same("AAPL January 2018", [(float(b["o"]), float(b["h"]), float(b["l"]), float(b["c"]), b["v"]) for b in month],
         [(january["open"], january["high"], january["low"], january["close"], january["volume"])])
    token, symbols = None, []
    while True:
        status, _, page = node.request("GET", "/v1/symbols?limit=100" + (f"&page_token={token}" if token else ""))
        same("status of /v1/symbols", status, 200)
        symbols += [row["symbol"] for row in page["symbols"]]
        token = page["next_page_token"]
        if token is None:
            break
    same("symbols are ascending and once each", symbols, sorted(set(symbols)))
    total, days, whole, of_the_set = 0, set(), 0, 0
    missing = collections.Counter(row["Name"] for row in bad)
    for at in range(0, len(symbols), 100):
        found = read.all("bars", symbols[at:at + 100], timeframe="1Day", start="2013-02-08", end="2018-02-08")
        # Symbols that other sets use as pseudonyms: their folded days are not of this set.
        found = {symbol: bars for symbol, bars in found.items() if symbol not in ("XXX", "AAA", "BBB", "ETF")}
        for symbol, bars in found.items():
            dates = {b["t"][:10] for b in bars} - ({"2013-06-08"} if symbol == "ABC" else set())
            days |= dates
            of_the_set += bool(dates)
            whole += len(dates) + missing[symbol] == fact["days"]
        total += sum(b["v"] for symbol, bars in found.items() for b in bars if (symbol, b["t"][:10]) != ("ABC", "2013-06-08"))
    same("S&P 500 symbols, days, first, last, symbols with all days", (of_the_set, len(days), min(days), max(days), whole),
         (fact["symbols"], fact["days"], fact["first_day"], fact["last_day"], fact["symbols_with_all_days"]))
    same("S&P 500 volume", total, fact["sum_of_volume"] - sum(int(row["volume"] or 0) for row in bad))


def check_dbn(data, facts, folder):
    """Every file of the vendor, on a node of its own: its records are taken, or its schema is refused by name."""
    folder.mkdir()
    node = nodes.Node(folder).start()
    try:
        read = Reader(node)
        for fact in facts["dbn"]:
            file = data / fact["file"]
            kept = fact.get("schema") in DBN_SCHEMAS
            said = imported(node, file, 0 if kept else 1)
            if kept:
                same(f"records of {fact['file']}", f"accepted {fact['records']}," in said, True)
            else:
                same(f"{fact['file']} is refused by name", fact.get("schema", "neither NDJSON") in said, True)
        for fact in facts["dbn"]:
            if fact.get("schema") != "trades" or not fact["file"].startswith("dbn/equities"):
                continue
            # The same trades came in other schemas too: they are one each.
            trades = read.all("trades", [fact["symbol"]])[fact["symbol"]]
            inside = [t for t in trades if short(fact["first"]) <= t["t"] <= short(fact["last"])]
            words = f"first price {float(inside[0]['p']):g}, sum of size {sum(t['s'] for t in inside)}"
            same(f"trades of {fact['file']}", (len(inside), inside[0]["t"], inside[-1]["t"], words),
                 (fact["records"], short(fact["first"]), short(fact["last"]), fact["fact"]))
        node.stop()
    finally:
        if node.process.poll() is None:
            node.kill()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    args = parser.parse_args()
    nodes.BINARY, data = args.binary, args.data
    if not (data / "facts.json").is_file():
        sys.exit(f"{data} holds no facts.json: name the folder of the data sets, make test-real DATA=folder")
    facts = json.loads((data / "facts.json").read_text())
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tapeline-real-"))
    node = nodes.Node(folder).start()
    try:
        read = Reader(node)
        sent = collections.defaultdict(list)
        for name in SOURCES:
            imported(node, data / f"ticks/{name}.ndjson.gz")
            for tick in lines(data / f"ticks/{name}.ndjson.gz"):
                sent[tick["S"]].append(tick)
        # The expected bars are folds of trades, so the trades of this file go first and its own bars last.
        mixed = lines(data / "ticks/dbn.ndjson.gz")
        trades_only = folder / "dbn_without_bars.ndjson"
        with gzip.open(data / "ticks/dbn.ndjson.gz", "rt") as file:
            trades_only.write_text("".join(line for line in file if '"T":"b"' not in line))
        imported(node, trades_only)
        for tick in mixed:
            sent[tick["S"]].append(tick)
        check_trades(read, facts, sent)
        check_quotes(read, facts, sent)
        check_windows(read, facts)
        same("minute bars", check_bars(read, data, "1Min", "bars_1m"), 2635)
        same("daily bars", check_bars(read, data, "1Day", "bars_1d"), 6)
        before = read.pages
        read.all("trades", ["XXX"])
        same("pages of XXX", read.pages - before, 8)
        print(f"imported once: {done - failed} passed, {failed} failed", flush=True)

        # The same files again, and another way: nothing twice. Then everything once more after kill -9.
        imported(node, data / "ticks/taq_xxx.ndjson.gz")
        imported(node, data / "ticks/itch.ndjson.gz")
        node.kill()
        node.start()
        check_trades(read, facts, sent)
        check_quotes(read, facts, sent)
        same("minute bars after kill -9", check_bars(read, data, "1Min", "bars_1m"), 2635)
        imported(node, data / "ticks/dbn.ndjson.gz")
        for symbol in ("QQQ", "NVDA"):
            want = [{"o": b["o"], "h": b["h"], "l": b["l"], "c": b["c"], "v": b["v"], "t": short(b["t"])} for b in mixed if b["T"] == "b" and b["S"] == symbol]
            got = [{k: b[k] for k in "ohlcvt"} for b in read.all("bars", [symbol], timeframe="1Min")[symbol]]
            same(f"{symbol} ingested bars win over folded ones", got, want)
        check_sp500(node, read, data, facts, folder)
        check_dbn(data, facts, folder / "dbn")
        node.stop()
        verify = subprocess.run([nodes.BINARY, "verify", "--data", str(folder / "data")], capture_output=True, text=True)
        same(f"verify: {verify.stdout[-500:]}{verify.stderr[-500:]}", verify.returncode, 0)
    finally:
        if node.process.poll() is None:
            node.kill()
    print(f"{done - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
