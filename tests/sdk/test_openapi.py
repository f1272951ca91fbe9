"""Every documented operation against a real node: whatever is asked, what comes back is what the document says."""

import json

import pytest
import requests
import schemathesis
from node import Node
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from test_alpaca_py_stream import now, trade

# Those made at random; those made from each rule of the document, in their hundreds, come first.
EXAMPLES = 10
# Seconds until an answer counts as none: twice the longest wait that may be asked for.
ANSWER_S = 50
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
# Operations whose answers have no end, or are no HTTP any more. Each has tests of its own, with clients of its kind.
STREAMS = [
    "stream",  # server-sent events: test_streams.py
    "ingest",  # its body has no end: tests/it/producers.rs
    "feedStream",  # WebSocket: test_alpaca_py_stream.py, tests/it/streams.rs
    "feedStreamSince",
    "feedStreamAfter",
]
# Those that want the writing key.
WRITES = ["post_ticks", "receipt"]
RECEIPT = "the-first-ticks"
# The limits on requests are others' tests; here they would hide the answers.
LIMITS = ["access.requests_per_minute=1000000", "access.requests_burst=1000000", "http.source_requests_per_minute=10000000",
          "subs.per_account_max=10000", "subs.deleted_per_account_max=100000"]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    node = Node(tmp_path_factory.mktemp("node"), *(flag for limit in LIMITS for flag in ("--set", limit))).start()
    # Symbols and times of the document's examples, so that not all answers are empty.
    ticks = [trade(symbol, number) for symbol in ("AAPL", "MSFT") for number in range(1, 20)]
    then = [trade("AAPL", number, t=f"2024-01-03T14:30:{number}Z") for number in range(20, 40)]
    quotes = [{"T": "q", "S": symbol, "bx": "U", "bp": 87.66, "bs": 1, "ax": "Q", "ap": 87.68, "as": 4, "c": ["R"], "z": "C", "t": now()}
              for symbol in ("AAPL", "MSFT")]
    node.post(ticks + then + quotes, Idempotency_Key=RECEIPT)
    yield node
    node.stop()


def exists(node, operation):
    """Gives an operation's path a name that there is: a subscription of its own, which it may delete, or a request's key."""
    for parameter in operation.get("parameters", []):
        if parameter.get("in") == "path" and parameter["name"] == "id":
            body = json.dumps({"name": operation["operationId"], "symbols": ["AAPL"], "kinds": ["trades"]}).encode()
            status, _, made = node.request("POST", "/v1/subscriptions", body, {"Content-Type": "application/json"})
            assert status == 201, made
            parameter["example"] = made["id"]
        elif parameter.get("in") == "path" and parameter["name"] == "key":
            parameter["example"] = RECEIPT


@pytest.fixture(scope="module")
def document(node):
    status, _, document = node.request("GET", "/openapi.json", key=None)
    assert status == 200
    known = set()
    for path in document["paths"].values():
        for operation in path.values():
            known.add(operation["operationId"])
            exists(node, operation)
    assert set(STREAMS + WRITES) <= known, "no operation is left out that there is not"
    return schemathesis.openapi.from_dict(document)


@pytest.fixture(scope="module")
def session():
    with requests.Session() as session:
        yield session


operations = schemathesis.pytest.from_fixture("document").exclude(operation_id=STREAMS)
answered = {}


@operations.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
          suppress_health_check=list(HealthCheck))
def test_answers_are_as_documented(node, session, case):
    name = case.operation.definition.raw["operationId"]
    key = node.keys["write" if name in WRITES else "read"]
    answer = case.call_and_validate(
        base_url=node.http, checks=CHECKS, timeout=ANSWER_S, session=session,
        headers={"APCA-API-KEY-ID": key["id"], "APCA-API-SECRET-KEY": key["secret"]})
    answered.setdefault(name, set()).add(answer.status_code)


def test_each_operation_was_answered_well_and_badly():
    """Runs after the other: examples that are all refused would check errors alone."""
    assert answered and not set(answered) & set(STREAMS)
    assert [name for name, statuses in answered.items() if not statuses & {200, 201}] == []
    assert [name for name, statuses in answered.items() if not any(400 <= status < 500 for status in statuses)] == []
