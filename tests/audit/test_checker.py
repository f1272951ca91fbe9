"""The checker finds each violation in a history made by hand, and none in a good one."""

import copy
import itertools
import json

import checker
import pytest

SYMBOL = "A"


def tick(number):
    return ["t", SYMBOL, number, 1_000 + number, 10.0]


class History:
    """Events in the order in which they are told, one nanosecond after the other."""

    def __init__(self):
        self.events, self.clock, self.requests = [], itertools.count(1), itertools.count(1)

    def tell(self, process, kind, op, **more):
        self.events.append({"process": process, "time": next(self.clock), "type": kind, "op": op, **more})

    def post(self, *numbers, end="ok", refused=(), request=None, seq=None, node="a"):
        request = request or f"r{next(self.requests)}"
        value = [tick(number) for number in numbers]
        self.tell("producer", "invoke", "post", node=node, request=request, value=value)
        self.ended(end, refused, seq or numbers[0])

    def ended(self, end, refused=(), seq=1):
        more = {"refused": list(refused), "position": {"tape": seq}} if end == "ok" else {}
        self.tell("producer", end, "post", **more)

    def read(self, node, numbers, **more):
        self.tell(f"reader {node}", "invoke", "read", node=node, series=["t", SYMBOL], **more)
        self.tell(f"reader {node}", "ok", "read", value=[tick(number) for number in numbers])

    def finals(self, *numbers, b=None):
        self.read("a", numbers, final=True)
        self.read("b", numbers if b is None else b, final=True)

    def subscribe(self, resumed=False, node="a"):
        more = {"session": 1, "node": node, "symbols": [SYMBOL], "kinds": ["t"], "resumed": resumed}
        self.tell("stream", "invoke", "subscribe", **more)
        self.tell("stream", "ok", "subscribe", **more)

    def stream(self, *numbers, prefix="id"):
        for number in numbers:
            self.tell("stream", "ok", "tick", session=1, id=f"{prefix}{number}", value=tick(number))

    def end(self):
        self.tell("stream", "ok", "end", session=1)

    def kinds(self):
        return {problem.kind for problem in checker.check(copy.deepcopy(self.events))}


@pytest.fixture
def history():
    return History()


def test_a_good_one_passes(history):
    history.post(1)
    history.subscribe()
    history.post(2, 3, 4, refused=[1])
    history.stream(2)
    history.post(5, end="unknown", request="again")
    history.read("a", [1, 2, 4], after={"tape": 2})
    history.subscribe(resumed=True, node="b")
    history.stream(2, 4)
    history.post(5, request="again", node="b")
    history.post(6, end="unknown")
    history.post(7, end="unknown")
    history.post(8, end="fail")
    history.post(9)
    history.stream(5, 9, 7)
    history.end()
    history.finals(1, 2, 4, 5, 7, 9)
    assert checker.report(checker.check(history.events)) == ""


def test_a_lost_acknowledgement(history):
    history.post(1)
    history.post(2)
    history.finals(1)
    assert history.kinds() == {"lost"}


def test_a_tick_that_one_node_has_lost(history):
    history.post(1)
    history.post(2)
    history.finals(1, 2, b=[2])
    assert history.kinds() == {"lost"}


def test_an_acknowledgement_after_an_unknown_one_counts(history):
    history.post(1)
    history.post(2, end="unknown", request="again")
    history.post(2, request="again")
    history.finals(1)
    assert history.kinds() == {"lost"}


def test_a_phantom_read(history):
    history.post(1)
    history.finals(1, 2)
    assert history.kinds() == {"phantom"}


def test_another_price_is_a_phantom(history):
    history.post(1)
    history.finals(1)
    history.events[-1]["value"][0][4] = 11.0
    assert history.kinds() == {"lost", "phantom"}


def test_a_phantom_in_a_stream(history):
    history.post(1)
    history.subscribe()
    history.stream(2)
    history.finals(1)
    assert history.kinds() == {"phantom"}


def test_a_tick_read_twice(history):
    history.post(1)
    history.finals(1, b=[1, 1])
    assert history.kinds() == {"twice"}


def test_history_out_of_order(history):
    history.post(1, 2)
    history.finals(1, 2, b=[2, 1])
    assert history.kinds() == {"history order"}


def test_a_refused_tick_read(history):
    history.post(1, 2, refused=[1])
    history.finals(1, 2)
    assert history.kinds() == {"refused"}


def test_a_failed_one_read(history):
    history.post(1)
    history.post(2, end="fail")
    history.finals(1, 2)
    assert history.kinds() == {"refused"}


def test_a_refused_tick_in_a_stream(history):
    history.subscribe()
    history.post(1, 2, refused=[1])
    history.stream(1, 2)
    history.finals(1)
    assert "refused" in history.kinds()


def test_other_verdicts_for_the_same_ticks(history):
    history.post(1, 2, request="again", refused=[1])
    history.post(1, 2, request="again", refused=[])
    history.finals(1)
    assert history.kinds() == {"verdicts"}


def test_an_unknown_tick_on_one_node_and_not_on_another(history):
    history.post(1)
    history.post(2, end="unknown")
    history.finals(1, 2, b=[1])
    assert history.kinds() == {"torn"}


def test_an_unknown_tick_that_a_stream_gave_and_nobody_has(history):
    history.post(1)
    history.subscribe()
    history.post(2, end="unknown")
    history.stream(2)
    history.finals(1)
    assert history.kinds() == {"torn"}


def test_a_post_that_never_ended_is_unknown(history):
    history.post(1)
    history.tell("another producer", "invoke", "post", node="a", request="open", value=[tick(2)])
    history.finals(1)
    assert history.kinds() == set()


def test_a_tick_that_a_node_gave_once(history):
    history.post(1)
    history.post(2)
    history.read("a", [1, 2])
    history.read("a", [1])
    history.finals(1, 2)
    assert history.kinds() == {"vanished"}


def test_a_read_that_begins_later_in_time_need_not_have_it(history):
    history.post(1)
    history.post(2)
    history.read("a", [1, 2])
    history.read("a", [2], start=1_002)
    history.finals(1, 2)
    assert history.kinds() == set()


def test_a_read_behind_the_position_that_it_was_shown(history):
    history.post(1, seq=1)
    history.post(2, seq=2)
    history.read("b", [1], after={"tape": 1})
    history.read("b", [1], after={"tape": 2})
    history.finals(1, 2)
    assert history.kinds() == {"behind"}


def test_a_hole_in_a_stream(history):
    history.subscribe()
    for number in (1, 2, 3):
        history.post(number)
    history.stream(1, 3)
    history.finals(1, 2, 3)
    assert history.kinds() == {"hole"}


def test_a_hole_over_a_resume(history):
    history.subscribe()
    for number in (1, 2, 3):
        history.post(number)
    history.stream(1)
    history.subscribe(resumed=True, node="b")
    history.stream(3)
    history.finals(1, 2, 3)
    assert history.kinds() == {"hole"}


def test_the_rest_of_a_stream_that_ended_well(history):
    history.post(1)
    history.subscribe()
    history.post(2)
    history.post(3)
    history.stream(2)
    history.end()
    history.finals(1, 2, 3)
    assert history.kinds() == {"hole"}


def test_an_unknown_tick_that_is_kept_belongs_to_a_stream(history):
    history.subscribe()
    history.post(1)
    history.post(2, end="unknown")
    history.stream(1)
    history.end()
    history.finals(1, 2)
    assert history.kinds() == {"hole"}


def test_a_stream_that_was_left_ends_anywhere(history):
    history.post(1)
    history.subscribe()
    history.post(2)
    history.post(3)
    history.stream(2)
    history.finals(1, 2, 3)
    assert history.kinds() == set()


def test_a_stream_out_of_order(history):
    history.subscribe()
    history.post(1)
    history.post(2)
    history.stream(2, 1)
    history.finals(1, 2)
    assert history.kinds() == {"order"}


def test_a_batch_out_of_its_order(history):
    history.subscribe()
    history.post(1, 2)
    history.stream(2, 1)
    history.finals(1, 2)
    assert history.kinds() == {"order"}


def test_two_tapes_are_in_any_order(history):
    history.subscribe()
    history.post(1)
    history.post(2)
    history.events[-1]["position"] = {"another tape": 1}
    history.stream(2, 1)
    history.finals(1, 2)
    assert history.kinds() == set()


def test_twice_on_one_connection(history):
    history.subscribe()
    history.post(1)
    history.stream(1, 1)
    history.finals(1)
    assert history.kinds() == {"twice"}


def test_again_over_a_resume_with_another_id(history):
    history.subscribe()
    history.post(1)
    history.stream(1)
    history.subscribe(resumed=True, node="b")
    history.stream(1, prefix="other")
    history.finals(1)
    assert history.kinds() == {"other id"}


def test_two_ticks_of_one_id(history):
    history.subscribe()
    history.post(1, 2)
    for number in (1, 2):
        history.tell("stream", "ok", "tick", session=1, id="same", value=tick(number))
    history.finals(1, 2)
    assert history.kinds() == {"other id"}


def test_a_gap(history):
    history.subscribe()
    history.post(1)
    history.tell("stream", "ok", "gap", session=1)
    history.finals(1)
    assert history.kinds() == {"gap"}


def test_a_history_that_proves_nothing(history):
    assert history.kinds() == {"nothing"}
    history.post(1)
    assert history.kinds() == {"nothing"}
    history.read("a", [1], final=True)
    assert history.kinds() == set()


def test_evidence_names_its_lines(history, tmp_path):
    history.post(1)
    history.finals()
    for event in history.events:
        with open(tmp_path / f"{event['process']}.jsonl", "a") as file:
            file.write(json.dumps(event) + "\n")
    text = checker.report(checker.check(checker.load(tmp_path)))
    assert "lost: 2" in text and "producer.jsonl:2" in text and "reader b.jsonl:2" in text
