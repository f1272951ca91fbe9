"""A line to a node that can be cut while both ends live."""

import socket
import threading

from node import Door


class Line(Door):
    """Passes bytes on to a node. `cut` ends all connections in both directions; those that come later pass."""

    def __init__(self, node):
        self.keys, self.ca, self.trust = node.keys, node.ca, node.trust
        scheme, _, self.target = node.http.partition("://")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.http = "%s://127.0.0.1:%d" % (scheme, self.listener.getsockname()[1])
        self.open, self.lock = [], threading.Lock()
        threading.Thread(target=self.take, daemon=True).start()

    def take(self):
        host, _, port = self.target.partition(":")
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                ends = (client, socket.create_connection((host, int(port))))
            except OSError:
                client.close()
                continue
            with self.lock:
                self.open.append(ends)
            for source, sink in (ends, ends[::-1]):
                threading.Thread(target=self.copy, args=(source, sink), daemon=True).start()

    def copy(self, source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self):
        """How many connections there were."""
        with self.lock:
            cut, self.open = self.open, []
        for ends in cut:
            for end in ends:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                end.close()
        return len(cut)

    def end(self):
        self.listener.close()
        self.cut()
