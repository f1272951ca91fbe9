// Runs the unmodified JavaScript SDK 4 against a node. What it gives is printed under the wire's
// own names, so that it can be compared with what was posted.
"use strict";

const { streaming, marketData } = require("alpaca4");
const { address, feed, channels, credentials, say, obey } = require("./program.js");

const tick = (letter, fields) => say("tick", { tick: { T: letter, ...fields } });

// The SDK gives a Date, of milliseconds, and the text of all nanoseconds.
function time(of) {
    if (Date.parse(of.timestampRaw) !== of.timestamp.getTime()) {
        say("error", { error: `${of.timestampRaw} is not ${of.timestamp.toISOString()}` });
    }
    return of.timestampRaw;
}

const bar = (b) => ({
    S: b.symbol, o: b.open, h: b.high, l: b.low, c: b.close, v: b.volume, n: b.tradeCount, vw: b.vwap, t: time(b),
});

function listen(stream) {
    stream.onTrade((t) =>
        tick("t", { S: t.symbol, i: t.idRaw, x: t.exchange, p: t.price, s: t.size, c: t.conditions, z: t.tape, t: time(t) }));
    stream.onQuote((q) =>
        tick("q", {
            S: q.symbol, bx: q.bidExchange, bp: q.bidPrice, bs: q.bidSize, ax: q.askExchange, ap: q.askPrice, as: q.askSize,
            c: q.conditions, z: q.tape, t: time(q),
        }));
    stream.onBar((b) => tick("b", bar(b)));
    stream.onUpdatedBar((b) => tick("u", bar(b)));
    stream.onDailyBar((b) => tick("d", bar(b)));
    stream.onStatus((s) =>
        tick("s", {
            S: s.symbol, sc: s.statusCode, sm: s.statusMessage, rc: s.reasonCode, rm: s.reasonMessage, z: s.tape, t: time(s),
        }));
    stream.onLuld((l) =>
        tick("l", { S: l.symbol, u: l.limitUpPrice, d: l.limitDownPrice, i: l.indicator, z: l.tape, t: time(l) }));
    stream.onCancelError((x) =>
        tick("x", { S: x.symbol, i: x.idRaw, x: x.exchange, p: x.price, s: x.size, a: x.action, z: x.tape, t: time(x) }));
    stream.onCorrection((c) =>
        tick("c", {
            S: c.symbol, x: c.exchange, oi: c.originalIdRaw, op: c.originalPrice, os: c.originalSize,
            oc: c.originalConditions, ci: c.correctedIdRaw, cp: c.correctedPrice, cs: c.correctedSize,
            cc: c.correctedConditions, z: c.tape, t: time(c),
        }));
}

const calls = (stream) => ({
    trades: [stream.subscribeForTrades, stream.unsubscribeFromTrades],
    quotes: [stream.subscribeForQuotes, stream.unsubscribeFromQuotes],
    bars: [stream.subscribeForBars, stream.unsubscribeFromBars],
    updatedBars: [stream.subscribeForUpdatedBars, stream.unsubscribeFromUpdatedBars],
    dailyBars: [stream.subscribeForDailyBars, stream.unsubscribeFromDailyBars],
    statuses: [stream.subscribeForStatuses, stream.unsubscribeFromStatuses],
    lulds: [stream.subscribeForLulds, stream.unsubscribeFromLulds],
});

let stream;

function change(which, changed) {
    for (const [channel, symbols] of Object.entries(changed)) calls(stream)[channel][which].call(stream, symbols);
}

if (feed) {
    stream = new streaming.StockDataStream({
        credentials,
        url: `${address.replace(/^http/, "ws")}/v2/${feed}`,
        pingIntervalMs: 100,
        initialReconnectMs: 100,
        maxReconnectMs: 500,
    });
    listen(stream);
    stream.onConnect(() => say("connected"));
    stream.onDisconnect(() => say("disconnected"));
    stream.onError((error) => say("error", { error }));
    stream.on(streaming.EVENT.SUBSCRIPTION, (channels) => say("subscribed", { channels }));
    stream.whenAuthenticated().then((result) => {
        if (!result.authenticated) say("refused", { error: result.message, code: result.code, status: result.status });
    });
    change(0, channels);
    stream.connect();
}

// The REST API, by the endpoints of one symbol.

const stocks = new marketData.StockApi(new marketData.Configuration({ basePath: address, ...credentials }));

async function pages(call, request, name) {
    const all = [];
    let pageToken;
    do {
        const page = await call.call(stocks, { ...request, pageToken });
        all.push(...page[name]);
        pageToken = page.nextPageToken;
    } while (pageToken);
    return all;
}

obey({
    subscribe: (asked) => change(0, asked.channels),
    unsubscribe: (asked) => change(1, asked.channels),
    latest_trade: async ({ symbol }) => (await stocks.stockLatestTradeSingle({ symbol })).trade,
    snapshot: ({ symbol }) => stocks.stockSnapshotSingle({ symbol }),
    trades: ({ symbol, start, page_limit }) =>
        pages(stocks.stockTradeSingle, { symbol, start: new Date(start), limit: page_limit }, "trades"),
    bars: ({ symbol, start }) =>
        pages(stocks.stockBarSingle, { symbol, start: new Date(start), timeframe: "1Min" }, "bars"),
});
