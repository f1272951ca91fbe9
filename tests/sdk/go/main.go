// Runs the unmodified Go SDK against a node, for pytest.
//
//	stream ADDRESS FEED CHANNELS
//
// ADDRESS is the node's, such as http://127.0.0.1:8080. CHANNELS is the first subscription, such
// as {"trades":["AAPL"]}. Without a FEED there is no stream. The key is in APCA_API_KEY_ID and
// APCA_API_SECRET_KEY. Each line of standard input is a command, each line of
// standard output an event; both are JSON objects. What the SDK gives is printed under the wire's
// own names, so that it can be compared with what was posted. The end of the input is the end.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/alpacahq/alpaca-trade-api-go/v3/marketdata"
	"github.com/alpacahq/alpaca-trade-api-go/v3/marketdata/stream"
)

type object = map[string]any

type channels = map[string][]string

// command is a line of the input: a change of subscriptions, or a question to the REST API.
type command struct {
	Do        string   `json:"do"`
	Channels  channels `json:"channels"`
	Symbol    string   `json:"symbol"`
	Start     string   `json:"start"`
	PageLimit int      `json:"page_limit"`
}

var output sync.Mutex

func say(event string, more object) {
	line := object{"event": event}
	for name, value := range more {
		line[name] = value
	}
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	output.Lock()
	defer output.Unlock()
	os.Stdout.Write(append(text, '\n'))
}

func fail(err error) { say("error", object{"error": err.Error()}) }

func when(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// The SDK's types, by the wire's names.

func tick(fields object) { say("tick", object{"tick": fields}) }

func onTrade(t stream.Trade) {
	if received := t.Internal().ReceivedAt; !received.IsZero() {
		fail(errors.New("a field that nobody asked for: r " + when(received)))
	}
	tick(object{"T": "t", "S": t.Symbol, "i": t.ID, "x": t.Exchange, "p": t.Price, "s": t.Size, "c": t.Conditions,
		"z": t.Tape, "t": when(t.Timestamp)})
}

func onQuote(q stream.Quote) {
	tick(object{"T": "q", "S": q.Symbol, "bx": q.BidExchange, "bp": q.BidPrice, "bs": q.BidSize, "ax": q.AskExchange,
		"ap": q.AskPrice, "as": q.AskSize, "c": q.Conditions, "z": q.Tape, "t": when(q.Timestamp)})
}

func onBar(letter string) func(stream.Bar) {
	return func(b stream.Bar) {
		tick(object{"T": letter, "S": b.Symbol, "o": b.Open, "h": b.High, "l": b.Low, "c": b.Close, "v": b.Volume,
			"n": b.TradeCount, "vw": b.VWAP, "t": when(b.Timestamp)})
	}
}

func onStatus(s stream.TradingStatus) {
	tick(object{"T": "s", "S": s.Symbol, "sc": s.StatusCode, "sm": s.StatusMsg, "rc": s.ReasonCode, "rm": s.ReasonMsg,
		"z": s.Tape, "t": when(s.Timestamp)})
}

func onLULD(l stream.LULD) {
	tick(object{"T": "l", "S": l.Symbol, "u": l.LimitUpPrice, "d": l.LimitDownPrice, "i": l.Indicator, "z": l.Tape,
		"t": when(l.Timestamp)})
}

func onCancelError(x stream.TradeCancelError) {
	tick(object{"T": "x", "S": x.Symbol, "i": x.ID, "x": x.Exchange, "p": x.Price, "s": x.Size, "a": x.CancelErrorAction,
		"z": x.Tape, "t": when(x.Timestamp)})
}

func onCorrection(c stream.TradeCorrection) {
	tick(object{"T": "c", "S": c.Symbol, "x": c.Exchange, "oi": c.OriginalID, "op": c.OriginalPrice, "os": c.OriginalSize,
		"oc": c.OriginalConditions, "ci": c.CorrectedID, "cp": c.CorrectedPrice, "cs": c.CorrectedSize,
		"cc": c.CorrectedConditions, "z": c.Tape, "t": when(c.Timestamp)})
}

// The stream.

// subscriber is a stream, and what it is subscribed to.
type subscriber struct {
	client *stream.StocksClient
	mu     sync.Mutex
	now    map[string]map[string]bool
}

func (s *subscriber) note(subscribe bool, changed channels) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for channel, symbols := range changed {
		if s.now[channel] == nil {
			s.now[channel] = map[string]bool{}
		}
		for _, symbol := range symbols {
			if subscribe {
				s.now[channel][symbol] = true
			} else {
				delete(s.now[channel], symbol)
			}
		}
	}
}

func (s *subscriber) subscribed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := channels{}
	for channel, symbols := range s.now {
		for symbol := range symbols {
			all[channel] = append(all[channel], symbol)
		}
	}
	say("subscribed", object{"channels": all})
}

// change asks for a change, channel by channel; each call waits until the node has confirmed it.
func (s *subscriber) change(subscribe bool, changed channels) error {
	calls := map[string][2]func(...string) error{
		"trades": {
			func(symbols ...string) error { return s.client.SubscribeToTrades(onTrade, symbols...) }, s.client.UnsubscribeFromTrades},
		"quotes": {
			func(symbols ...string) error { return s.client.SubscribeToQuotes(onQuote, symbols...) }, s.client.UnsubscribeFromQuotes},
		"bars": {
			func(symbols ...string) error { return s.client.SubscribeToBars(onBar("b"), symbols...) }, s.client.UnsubscribeFromBars},
		"updatedBars": {
			func(symbols ...string) error { return s.client.SubscribeToUpdatedBars(onBar("u"), symbols...) }, s.client.UnsubscribeFromUpdatedBars},
		"dailyBars": {
			func(symbols ...string) error { return s.client.SubscribeToDailyBars(onBar("d"), symbols...) }, s.client.UnsubscribeFromDailyBars},
		"statuses": {
			func(symbols ...string) error { return s.client.SubscribeToStatuses(onStatus, symbols...) }, s.client.UnsubscribeFromStatuses},
		"lulds": {
			func(symbols ...string) error { return s.client.SubscribeToLULDs(onLULD, symbols...) }, s.client.UnsubscribeFromLULDs},
	}
	for channel, symbols := range changed {
		call := calls[channel][1]
		if subscribe {
			call = calls[channel][0]
		}
		if err := call(symbols...); err != nil {
			return err
		}
		s.note(subscribe, channels{channel: symbols})
	}
	s.subscribed()
	return nil
}

func connect(ctx context.Context, address, feed string, first channels) (*subscriber, error) {
	s := &subscriber{now: map[string]map[string]bool{}}
	s.note(true, first)
	s.client = stream.NewStocksClient(feed,
		stream.WithBaseURL(address+"/v2"),
		stream.WithTrades(onTrade, first["trades"]...),
		stream.WithQuotes(onQuote, first["quotes"]...),
		stream.WithBars(onBar("b"), first["bars"]...),
		stream.WithUpdatedBars(onBar("u"), first["updatedBars"]...),
		stream.WithDailyBars(onBar("d"), first["dailyBars"]...),
		stream.WithStatuses(onStatus, first["statuses"]...),
		stream.WithLULDs(onLULD, first["lulds"]...),
		stream.WithCancelErrors(onCancelError),
		stream.WithCorrections(onCorrection),
		// The SDK reports what it could not read through its log alone.
		stream.WithLogger(logger{}),
		// A connection is set up only once the node has confirmed what is subscribed to.
		stream.WithConnectCallback(func() { say("connected", nil); s.subscribed() }),
		stream.WithDisconnectCallback(func() { say("disconnected", nil) }),
	)
	if err := s.client.Connect(ctx); err != nil {
		return nil, err
	}
	go func() {
		if err := <-s.client.Terminated(); err != nil {
			say("ended", object{"error": err.Error()})
		}
	}()
	return s, nil
}

// logger makes an event of each error of the SDK.
type logger struct{}

func (logger) Infof(string, ...interface{}) {}
func (logger) Warnf(string, ...interface{}) {}
func (logger) Errorf(format string, more ...interface{}) {
	text := format
	for _, one := range more {
		if err, ok := one.(error); ok {
			text += ": " + err.Error()
		}
	}
	say("error", object{"error": text})
}

// The REST API. Its types carry the wire's names.

func ask(client *marketdata.Client, asked command) (any, error) {
	start, err := time.Parse(time.RFC3339, asked.Start)
	if asked.Start != "" && err != nil {
		return nil, err
	}
	switch asked.Do {
	case "latest_trade":
		return client.GetLatestTrade(asked.Symbol, marketdata.GetLatestTradeRequest{})
	case "snapshot":
		return client.GetSnapshot(asked.Symbol, marketdata.GetSnapshotRequest{})
	case "trades":
		return client.GetTrades(asked.Symbol, marketdata.GetTradesRequest{Start: start, PageLimit: asked.PageLimit})
	case "bars":
		return client.GetBars(asked.Symbol, marketdata.GetBarsRequest{Start: start, TimeFrame: marketdata.OneMin})
	}
	return nil, errors.New("no such command: " + asked.Do)
}

func main() {
	address, feed := os.Args[1], os.Args[2]
	var first channels
	if err := json.Unmarshal([]byte(os.Args[3]), &first); err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var s *subscriber
	if feed != "" {
		var err error
		if s, err = connect(ctx, address, feed, first); err != nil {
			say("refused", object{"error": err.Error(), "credentials": errors.Is(err, stream.ErrInvalidCredentials)})
		}
	}
	rest := marketdata.NewClient(marketdata.ClientOpts{BaseURL: address})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var asked command
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			panic(err)
		}
		if asked.Do == "subscribe" || asked.Do == "unsubscribe" {
			if err := s.change(asked.Do == "subscribe", asked.Channels); err != nil {
				fail(err)
			}
			continue
		}
		if answer, err := ask(rest, asked); err != nil {
			say("answer", object{"error": err.Error()})
		} else {
			say("answer", object{"answer": answer})
		}
	}
}
