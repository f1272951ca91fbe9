// Runs the unmodified JavaScript SDK 3 against a node. What it gives is printed under the wire's
// own names, so that it can be compared with what was posted. Its streams are always encrypted.
"use strict";

const Alpaca = require("alpaca3");
const { address, feed, channels, credentials, say, obey } = require("./program.js");

const NAMES = {
    Symbol: "S", Exchange: "x", Price: "p", Size: "s", Timestamp: "t", Tape: "z", Conditions: "c", ID: "i",
    BidExchange: "bx", BidPrice: "bp", BidSize: "bs", AskExchange: "ax", AskPrice: "ap", AskSize: "as",
    OpenPrice: "o", HighPrice: "h", LowPrice: "l", ClosePrice: "c", Volume: "v", TradeCount: "n", VWAP: "vw",
    StatusCode: "sc", StatusMessage: "sm", ReasonCode: "rc", ReasonMessage: "rm",
    LimitUpPrice: "u", LimitDownPrice: "d", Indicator: "i", CancelErrorAction: "a",
    OriginalID: "oi", OriginalPrice: "op", OriginalSize: "os", OriginalConditions: "oc",
    CorrectedID: "ci", CorrectedPrice: "cp", CorrectedSize: "cs", CorrectedConditions: "cc",
    LatestTrade: "latestTrade", LatestQuote: "latestQuote", MinuteBar: "minuteBar", DailyBar: "dailyBar",
    PrevDailyBar: "prevDailyBar",
};

// A field that the SDK has no name for keeps the wire's: comparing shows it.
function wire(value) {
    if (value === null || typeof value !== "object" || Array.isArray(value) || value instanceof Date) return value;
    return Object.fromEntries(Object.entries(value).map(([name, held]) => [NAMES[name] ?? name, wire(held)]));
}

const alpaca = new Alpaca({
    keyId: credentials.keyId, secretKey: credentials.secret, feed: feed || "sip", dataBaseUrl: address, dataStreamUrl: address,
});
const stream = alpaca.data_stream_v2;

const tick = (item) => say("tick", { tick: wire(item) });
for (const on of [
    "onStockTrade", "onStockQuote", "onStockBar", "onStockUpdatedBar", "onStockDailyBar", "onStatuses", "onLulds",
    "onCancelErrors", "onCorrections",
]) {
    stream[on](tick);
}

const CALLS = {
    trades: ["subscribeForTrades", "unsubscribeFromTrades"],
    quotes: ["subscribeForQuotes", "unsubscribeFromQuotes"],
    bars: ["subscribeForBars", "unsubscribeFromBars"],
    updatedBars: ["subscribeForUpdatedBars", "unsubscribeFromUpdatedBars"],
    dailyBars: ["subscribeForDailyBars", "unsubscribeFromDailyBars"],
    statuses: ["subscribeForStatuses", "unsubscribeFromStatuses"],
    lulds: ["subscribeForLulds", "unsubscribeFromLulds"],
};

function change(which, changed) {
    for (const [channel, symbols] of Object.entries(changed)) stream[CALLS[channel][which]](symbols);
}

// The SDK has no event for a confirmed change: its list is then another object.
function watch(known) {
    const now = stream.getSubscriptions();
    if (now !== known) say("subscribed", { channels: now });
    setTimeout(watch, 5, now);
}

if (feed) {
    // This is called once; later connections subscribe to the same again by themselves.
    stream.onConnect(() => change(0, channels));
    stream.onStateChange((state) => {
        if (state === "authenticated") say("connected");
    });
    // A connection that was lost is made again by the SDK, once and at once. It gives up where that
    // is refused, and tells the program, which may connect again.
    stream.onDisconnect(() => {
        say("disconnected");
        setTimeout(() => stream.connect(), 100);
    });
    stream.onError((error) => {
        say("error", { error });
        if (error === "auth failed") {
            say("refused", { error });
            stream.removeAllListeners("disconnected");
            stream.disconnect();
        }
    });
    watch(stream.getSubscriptions());
    stream.connect();
}

// The REST API, by the endpoints of one symbol.

async function all(items) {
    const found = [];
    for await (const item of items) found.push(wire(item));
    return found;
}

obey({
    subscribe: (asked) => change(0, asked.channels),
    unsubscribe: (asked) => change(1, asked.channels),
    latest_trade: async ({ symbol }) => wire(await alpaca.getLatestTrade(symbol)),
    snapshot: async ({ symbol }) => wire(await alpaca.getSnapshot(symbol)),
    trades: ({ symbol, start, page_limit }) => all(alpaca.getTradesV2(symbol, { start, limit: 1000, pageLimit: page_limit })),
    bars: ({ symbol, start }) =>
        all(alpaca.getBarsV2(symbol, { start, timeframe: alpaca.newTimeframe(1, alpaca.timeframeUnit.MIN) })),
});
