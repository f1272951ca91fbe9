"""A page in headless Chromium: EventSource with a ticket, from another origin, across a restart of the node."""

import http.server
import json
import shutil
import socket
import subprocess
import threading
import time

import pytest
from node import Node
from test_alpaca_py_stream import trade, url, wait_for

PAGE = """<!doctype html><title>page</title><script>
const report = (what) => fetch("/report", {method: "POST", body: JSON.stringify(what)});
const source = new EventSource("%s");
source.onopen = () => report({open: true});
source.onerror = () => report({error: source.readyState});
source.addEventListener("gap", (event) => report({gap: event.data}));
source.onmessage = (event) => report({ticks: JSON.parse(event.data).map((tick) => tick.i)});
</script>"""


class Page:
    """Serves one page on an origin of its own, and keeps what it reports."""

    def __init__(self):
        page = self
        self.html, self.reports = "", []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(page.html.encode(), "text/html")

            def do_POST(self):
                page.reports.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.answer(b"", "text/plain")

            def answer(self, body, kind):
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.origin = "http://127.0.0.1:%d" % self.server.server_address[1]

    def ticks(self):
        return [number for report in list(self.reports) for number in report.get("ticks", [])]


@pytest.fixture
def browser(tmp_path):
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    assert binary, "chromium is missing: run `make test`, which installs it"
    started = []

    def visit(address):
        started.append(subprocess.Popen(
            [binary, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             f"--user-data-dir={tmp_path}/profile", address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    yield visit
    for process in started:
        process.kill()
        process.wait()


def ticket(node):
    status, _, answer = node.request("POST", "/v1/stream/ticket")
    assert status == 200, answer
    return answer["ticket"]


def test_a_browser_comes_back_by_itself_and_misses_nothing(tmp_path, browser):
    port = socket.socket()
    port.bind(("127.0.0.1", 0))
    address = "%s:%d" % port.getsockname()
    port.close()
    page = Page()
    node = Node(tmp_path, "--set", f"http.cors_origins={page.origin}", listen=address).start()
    page.html = PAGE % f"{node.http}/v1/stream?trades=WEB&ticket={ticket(node)}"
    browser(page.origin)
    wait_for(lambda: {"open": True} in page.reports, f"the stream to open: {page.reports}", 60)
    node.post([trade("WEB", 1), trade("WEB", 2)])
    wait_for(lambda: page.ticks() == [1, 2], "two ticks")
    time.sleep(0.5)
    node.kill()
    node.start()
    node.post([trade("WEB", 3)])
    wait_for(lambda: 3 in page.ticks(), f"the tick of the time it was away: {page.reports}", 60)
    node.post([trade("WEB", 4)])
    wait_for(lambda: page.ticks()[-1] == 4, "what is new")
    assert sorted(set(page.ticks())) == [1, 2, 3, 4]
    assert not [report for report in page.reports if "gap" in report]
    node.stop()


def test_a_ticket_opens_one_stream(node):
    import urllib.error
    import urllib.request

    used = ticket(node)
    first = urllib.request.urlopen(f"{node.http}/v1/stream?trades=A&ticket={used}", timeout=20)
    assert first.readline().startswith(b"retry: ")
    cursor = first.readline().decode().removeprefix("id: ").strip()
    for headers, status in [({}, 401), ({"Last-Event-ID": "c1.nonsense"}, 401), ({"Last-Event-ID": cursor}, 200)]:
        request = urllib.request.Request(f"{node.http}/v1/stream?trades=A&ticket={used}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                assert answer.status == status
        except urllib.error.HTTPError as error:
            assert error.code == status, (headers, error.read())
    assert node.request("GET", "/v1/stream?trades=A&ticket=k1.none", key=None)[0] == 401


def test_a_page_of_another_origin_opens_no_websocket(node):
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    with pytest.raises(InvalidStatus) as refused:
        connect(url(node), origin="https://elsewhere.example")
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["reason"] == "origin"
    connect(url(node), origin=node.http).close()
