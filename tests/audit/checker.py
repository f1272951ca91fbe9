"""Decides whether what clients saw can be what a service saw through that keeps its promises.

A history is the events of many clients, each an object:

    {"process": "producer-1", "time": 17, "type": "invoke", "op": "post", "node": "a", "request": "r1",
     "value": [TICK, …]}
    {"process": "producer-1", "time": 19, "type": "ok", "op": "post", "refused": [1],
     "position": {"591dd355f65f35ac": 5}}

A process does one thing at a time: it invokes an operation, and its next event is how that ended: `ok`,
`fail` (it did not happen) or `unknown`. Times are nanoseconds of one clock. TICK is [kind, symbol, number,
nanoseconds, price]; the number names it in its series, which is its kind and symbol. `position` is how far on
which tapes the acknowledgement reaches.

| op | more of it |
|---|---|
| post | `request`: what repeats have in common; `refused`: the places of those; `position` of the others |
| read | `node` (none: pages of several), `series`, `start` as nanoseconds, `after`: a position, `final` |
| subscribe | `session`, `node`, `symbols`, `kinds`, `resumed`: by a cursor; ok where it is confirmed |
| tick | `session`, `id`, `value`: one tick of the stream |
| gap | `session`: the stream said that it cannot give something |
| end | `session`: the stream had all the time that it needed after the last fault |

`check` knows nothing of the server but what it promises.
"""

import collections
import json
import pathlib

ALIKE_MAX = 5
VALUES_MAX = 3

Problem = collections.namedtuple("Problem", "kind text evidence")


class Request:
    """Ticks that were sent together, and how each attempt to send them ended: (invoke, end)."""

    def __init__(self, ticks):
        self.ticks, self.attempts = ticks, []

    def ends(self, kind):
        return [end for _, end in self.attempts if (end or {"type": "unknown"})["type"] == kind]

    def fate(self, index):
        """acked, refused, failed or unknown"""
        verdicts = {index in end.get("refused", []) for end in self.ends("ok")}
        if verdicts:
            return "refused" if True in verdicts else "acked"
        return "unknown" if self.ends("unknown") else "failed"

    def place(self):
        """(tape, seq) where it was sent once and is on one tape."""
        if len(self.attempts) != 1 or not self.ends("ok"):
            return None
        position = self.ends("ok")[0].get("position") or {}
        return next(iter(position.items())) if len(position) == 1 else None

    @property
    def begun(self):
        return self.attempts[0][0]["time"]

    @property
    def acked(self):
        return self.ends("ok")[0]["time"]


def series_of(tick):
    return tick[:2]


def load(folder):
    """All events of the files of a folder, each with where it stands."""
    events = []
    for path in sorted(pathlib.Path(folder).glob("*.jsonl")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            events.append({**json.loads(line), "at": f"{path.name}:{number}"})
    return events


class Audit:
    """The events by what they are, and the problems found in them."""

    def __init__(self, events):
        self.problems = []
        self.requests, self.sent, self.reads = {}, {}, []
        self.sessions = collections.defaultdict(list)
        under_way = {}
        for event in sorted(events, key=lambda event: event["time"]):
            op, kind, process = event["op"], event["type"], event["process"]
            if op == "post" and kind == "invoke":
                under_way[process] = self.invoked(event)
            elif op == "post":
                under_way.pop(process)[1] = event
            elif op == "read" and kind == "invoke":
                under_way[process] = event
            elif op == "read":
                begun = under_way.pop(process)
                if kind == "ok":
                    ticks = [(*tick,) for tick in event["value"]]
                    self.reads.append({**begun, **event, "begun": begun["time"], "ticks": ticks})
            elif op in ("subscribe", "tick", "gap", "end") and kind == "ok":
                self.sessions[event["session"]].append(event)
        self.finals = [read for read in self.reads if read.get("final")]
        # The last read of each node counts: the ones before it were still waiting.
        self.finals = list({(read["node"], *read["series"]): read for read in self.finals}.values())

    def invoked(self, event):
        ticks = [(*tick,) for tick in event["value"]]
        if event["request"] not in self.requests:
            request = self.requests[event["request"]] = Request(ticks)
            for index, tick in enumerate(ticks):
                self.sent[tick] = (request, index)
        attempt = [event, None]
        self.requests[event["request"]].attempts.append(attempt)
        return attempt

    def found(self, kind, text, *evidence):
        self.problems.append(Problem(kind, text, [event for event in evidence if event]))

    def fate(self, tick):
        request, index = self.sent[tick]
        return request.fate(index)

    def story(self, tick):
        """The events of its request."""
        return [event for attempt in self.sent[tick][0].attempts for event in attempt if event]

    def check(self):
        self.check_proof()
        self.check_verdicts()
        for read in self.reads:
            self.check_given(read["ticks"], read)
            self.check_read(read)
        self.check_reads_of_a_node()
        self.check_finals()
        for session, events in self.sessions.items():
            self.check_session(session, events)
        return self.problems

    def check_proof(self):
        """A history in which nothing was acknowledged, or that was not read to its end, proves nothing."""
        if not any(self.fate(tick) == "acked" for tick in self.sent):
            self.found("nothing", "no tick was acknowledged")
        read = {(final["node"], *final["series"]) for final in self.finals}
        series = {series_of(tick) for tick in self.sent}
        for node in {final["node"] for final in self.finals} or {"any node"}:
            for one in sorted(series):
                if (node, *one) not in read:
                    self.found("nothing", f"there is no last read of {one} from {node}")

    def check_verdicts(self):
        for name, request in self.requests.items():
            told = request.ends("ok")
            if any(end.get("refused", []) != told[0].get("refused", []) for end in told):
                self.found("verdicts", f"{name}: the same ticks were given other verdicts", *told)

    def check_given(self, ticks, event):
        """What a read or a stream gives was sent, and not refused."""
        for tick in ticks:
            if tick not in self.sent:
                near = [other for other in self.sent if other[:3] == tick[:3]]
                text = f"{tick} was never sent; {near[0] if near else 'nothing like it'} was"
                self.found("phantom", text, event)
            elif self.fate(tick) in ("refused", "failed"):
                self.found("refused", f"{tick} was {self.fate(tick)}, and is there", *self.story(tick), event)

    def check_read(self, read):
        """Each tick once, in the order of history, and all that the shown position reaches."""
        ticks = read["ticks"]
        for tick, count in collections.Counter(ticks).items():
            if count > 1:
                self.found("twice", f"{tick} was read {count} times at once", *self.story_of(tick), read)
        for one, next_one in zip(ticks, ticks[1:]):
            if (one[3], one[2]) > (next_one[3], next_one[2]):
                self.found("history order", f"{one} was read before {next_one}", read)
        shown, given = read.get("after") or {}, set(ticks)
        for request in self.requests.values() if shown else []:
            place = request.place()
            if place and place[1] <= shown.get(place[0], 0):
                for index, tick in enumerate(request.ticks):
                    if self.is_asked(tick, read) and request.fate(index) == "acked" and tick not in given:
                        text = f"{tick} is at {place}, and a read after {shown} does not have it"
                        self.found("behind", text, *self.story(tick), read)

    def story_of(self, tick):
        return self.story(tick) if tick in self.sent else []

    @staticmethod
    def is_asked(tick, read):
        return series_of(tick) == (*read["series"],) and tick[3] >= (read.get("start") or 0)

    def check_reads_of_a_node(self):
        """What a node gave once it gives in every read that begins after that."""
        groups = collections.defaultdict(list)
        for read in self.reads:
            if read["node"]:
                groups[read["node"], *read["series"]].append(read)
        for reads in groups.values():
            ended, first = sorted(reads, key=lambda read: read["time"]), {}
            for read in sorted(reads, key=lambda read: read["begun"]):
                while ended and ended[0]["time"] < read["begun"]:
                    earlier = ended.pop(0)
                    for tick in earlier["ticks"]:
                        first.setdefault(tick, earlier)
                given = set(read["ticks"])
                for tick, earlier in first.items():
                    if tick not in given and self.is_asked(tick, read):
                        text = f"{tick} was read from {read['node']}, and later not any more"
                        self.found("vanished", text, *self.story_of(tick), earlier, read)

    def check_finals(self):
        """What was acknowledged, and what anybody was ever given, is read from every node."""
        seen = {}
        for read in self.reads:
            for tick in read["ticks"]:
                seen.setdefault(tick, read)
        for events in self.sessions.values():
            for event in events:
                if event["op"] == "tick":
                    seen.setdefault((*event["value"],), event)
        acked = {tick for tick in self.sent if self.fate(tick) == "acked"}
        known = acked | (set(seen) & set(self.sent))
        for final in self.finals:
            given = set(final["ticks"])
            for tick in sorted(tick for tick in known if self.is_asked(tick, final) and tick not in given):
                kind, what = ("lost", "acknowledged") if tick in acked else ("torn", "given to somebody")
                text = f"{tick} was {what}, and {final['node']} does not have it"
                self.found(kind, text, *self.story_of(tick), seen.get(tick), final)

    def check_session(self, session, events):
        """A stream and its resumes: a slice of each tape, each tick once but over a resume, in order."""
        begin = next((event for event in events if event["op"] == "subscribe"), None)
        if begin is None:
            self.found("nothing", f"stream {session} was never confirmed", *events[:1])
            return
        received, ids, connection, is_resumed = {}, {}, {}, False
        for event in events:
            if event["op"] == "subscribe":
                self.check_order(session, connection)
                connection, is_resumed = {}, event["resumed"]
            elif event["op"] == "gap":
                text = f"stream {session} was told of a gap, and nothing here is too long ago"
                self.found("gap", text, event)
            elif event["op"] == "tick":
                tick = (*event["value"],)
                self.check_given([tick], event)
                earlier = received.get(tick)
                if earlier and earlier["id"] != event["id"]:
                    text = f"{tick} came again with another id on stream {session}"
                    self.found("other id", text, earlier, event)
                if (other := ids.setdefault(event["id"], tick)) != tick:
                    self.found("other id", f"{tick} and {other} have one id on stream {session}", event)
                if not is_resumed and tick in connection:
                    text = f"{tick} came twice on a connection of stream {session} that is no resume"
                    self.found("twice", text, *self.story_of(tick), earlier, event)
                received.setdefault(tick, event)
                connection.setdefault(tick, event)
        self.check_order(session, connection)
        self.check_holes(session, events, begin, received)

    def check_order(self, session, connection):
        """Of one tape and series: what was acknowledged before another was sent comes before that one; and
        a batch comes in its own order."""
        last, batches = {}, {}
        for tick, event in connection.items():
            if tick not in self.sent:
                continue
            request, index = self.sent[tick]
            before = batches.get((request, series_of(tick)))
            if before and before[0] > index:
                text = f"{tick} came after a later one of its batch on stream {session}"
                self.found("order", text, before[1], event)
            batches[request, series_of(tick)] = (index, event)
            if place := request.place():
                earlier = last.get((place[0], series_of(tick)))
                if earlier and request.acked < earlier[0].begun:
                    other = earlier[1]["value"]
                    text = f"{tick} was acknowledged before {other} was sent, and came later, on {session}"
                    self.found("order", text, *self.story(tick), *earlier[0].attempts[0], earlier[1], event)
                if not earlier or request.begun > earlier[0].begun:
                    last[place[0], series_of(tick)] = (request, event)

    def check_holes(self, session, events, begin, received):
        """All between the first and the last tick that it had of a tape; where it ended well, all that was
        sent since it was confirmed."""
        spans = {}
        for tick in received:
            place = self.sent[tick][0].place() if tick in self.sent else None
            if place:
                request = self.sent[tick][0]
                first, last = spans.get(place[0], (request.acked, request.begun))
                spans[place[0]] = (min(first, request.acked), max(last, request.begun))
        ended = any(event["op"] == "end" for event in events)
        kept = {tick for final in self.finals for tick in final["ticks"]}
        for tick, (request, index) in self.sent.items():
            if tick in received or tick[0] not in begin["kinds"] or tick[1] not in begin["symbols"]:
                continue
            place, is_acked = request.place(), request.fate(index) == "acked"
            first, last = spans.get(place[0], (0, 0)) if place else (0, 0)
            is_within = place and first < request.begun and request.acked < last
            is_since = ended and request.begun > begin["time"]
            if is_acked and is_within or is_since and (is_acked or tick in kept):
                what = "between others of its tape" if is_acked and is_within else "after it was confirmed"
                text = f"{tick} was sent {what}, and stream {session} never had it"
                self.found("hole", text, *self.story(tick), begin)


def check(events):
    """The problems of a history; none where it is a good one."""
    return Audit(events).check()


def report(problems):
    """The problems as text: of each kind how many there are, and some with the lines of evidence."""
    lines = []
    for kind, count in collections.Counter(problem.kind for problem in problems).items():
        lines.append(f"{kind}: {count}")
        for problem in [problem for problem in problems if problem.kind == kind][:ALIKE_MAX]:
            lines.append(f"  {problem.text}")
            for event in problem.evidence:
                event = {name: value for name, value in event.items() if name not in ("ticks", "begun")}
                if event["op"] in ("post", "read") and len(event.get("value") or []) > VALUES_MAX:
                    event["value"] = f"{len(event['value'])} ticks"
                lines.append(f"    {event.pop('at', '')} {json.dumps(event)}")
    return "\n".join(lines)
