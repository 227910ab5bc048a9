"""A loopback server that answers like arXiv."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

FEED = """<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom">
  <title>ArXiv Query: search_query=all:muon</title>
  <entry>
    <id>http://arxiv.org/abs/2505.16932v1</id>
    <published>2025-05-22T17:23:14Z</published>
    <title>The Polar Express: {word}
      Optimal Matrix Sign Methods</title>
    <summary>  Computing the polar decomposition
      has &lt;many&gt; uses.</summary>
  </entry>
  <entry>
    <id>http://arxiv.org/abs/cs/0101001v2</id>
    <published>2001-01-01T00:00:00Z</published>
    <title>Old</title><summary>{long}</summary>
  </entry>
</feed>"""


def feed(word: str = "") -> bytes:
    return FEED.format(word=word, long="z" * 5000).encode()


class Server:
    """Answers with what it was given last; counts what it was asked."""

    def __init__(self) -> None:
        self.body, self.status = feed(), 200
        self.asked: list[dict[str, list[str]]] = []
        self.agents: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                server.asked.append(parse_qs(urlsplit(self.path).query))
                server.agents.append(self.headers["user-agent"])
                self.send_response(server.status)
                self.end_headers()
                self.wfile.write(server.body)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/api/query"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def nowhere() -> str:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"http://127.0.0.1:{closed.getsockname()[1]}/api/query"
