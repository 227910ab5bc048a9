"""A server with real HTTP and server-sent events; each request gets the next step of a script.

A step is one of

- ``{"text": "…"}``: a complete answer (``usage``, ``stop_reason``, ``stop_details`` override);
- ``{"status": 529, "type": "overloaded_error", "headers": {…}}``: an error;
- ``{"fault": "…"}``: ``drop``, ``half``, ``truncated``, ``stall``, ``pings``, ``html``, ``schema``,
  ``garbage``, ``body``, ``slow``, ``sse_error``: what goes wrong on the wire (``usage`` is what a
  stream told before it did).

The last step repeats.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {
    "input_tokens": 1000,
    "cache_creation_input_tokens": 2000,
    "cache_read_input_tokens": 3000,
    "output_tokens": 400,
}


class Wire:
    """A server on a free port; `requests` holds the bodies that it received."""

    def __init__(
        self,
        script: list[dict[str, Any]],
        model: dict[str, Any] | None = None,
        speaks: type[Messages] | None = None,
    ) -> None:
        self.script = script
        self.model = model or {}
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.counted: list[dict[str, Any]] = []
        self.tokens_per_byte: float | None = 0.25
        """Answer to ``count_tokens``; None: an error."""
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        wire = self

        class Handler(speaks or Messages):
            pass

        Handler.wire = wire
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def step(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the next step of the script."""
        with self._lock:
            self.requests.append(body)
            return self.script[min(len(self.requests), len(self.script)) - 1]

    def close(self) -> None:
        """Stop serving."""
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()


class Messages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wire: Wire

    def log_message(self, *args: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1].split("?")[0]
        if self.wire.model.get("status"):
            self._error(self.wire.model)
            return
        found = {
            "id": name, "type": "model", "display_name": name, "lifecycle": "active",
            "created_at": "2026-01-01T00:00:00Z", "max_tokens": 8000, "max_input_tokens": 200000,
        }  # fmt: skip
        self._json(200, found | self.wire.model)

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        self.wire.headers.append({k.lower(): v for k, v in self.headers.items()})
        if self.path.split("?")[0].endswith("/count_tokens"):
            self.wire.counted.append(body)
            if self.wire.tokens_per_byte is None:
                self._error({"status": 400, "type": "invalid_request_error"})
            else:
                tokens = round(self.wire.tokens_per_byte * len(json.dumps(body)))
                self._json(200, {"input_tokens": tokens})
            return
        step = self.wire.step(body)
        if "status" in step:
            self._error(step)
        elif "fault" in step:
            getattr(self, "_" + step["fault"])(body, step)
        else:
            self._answer(body, step)

    # ------------------------------------------------------------------ answers

    def _json(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(body).encode(), "application/json", headers)

    def _send(
        self, status: int, data: bytes, kind: str, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _error(self, step: dict[str, Any]) -> None:
        error = {"type": step.get("type", "api_error"), "message": step.get("message", "no")}
        if step.get("details"):
            error["details"] = step["details"]
        self._json(step["status"], {"type": "error", "error": error}, step.get("headers"))

    def _open(self, body: dict[str, Any], usage: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._event(
            "message_start",
            message={
                "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"],
                "content": [], "stop_reason": None, "stop_sequence": None,
                "usage": {**usage, "output_tokens": 1},
            },
        )  # fmt: skip

    def _event(self, name: str, **data: Any) -> None:
        text = f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()
        self.wfile.write(b"%x\r\n" % len(text) + text + b"\r\n")
        self.wfile.flush()

    def _text(self, text: str) -> None:
        self._event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for start in range(0, len(text), 200):
            delta = {"type": "text_delta", "text": text[start : start + 200]}
            self._event("content_block_delta", index=0, delta=delta)
        self._event("content_block_stop", index=0)

    def _answer(self, body: dict[str, Any], step: dict[str, Any]) -> None:
        usage = {**USAGE, **step.get("usage", {})}
        self._open(body, usage)
        if step.get("text"):
            self._text(step["text"])
        delta = {"stop_reason": step.get("stop_reason", "end_turn"), "stop_sequence": None}
        if "stop_details" in step:
            delta["stop_details"] = step["stop_details"]
        self._event("message_delta", delta=delta, usage={"output_tokens": usage["output_tokens"]})
        self._event("message_stop")
        self.wfile.write(b"0\r\n\r\n")

    # ------------------------------------------------------------------ faults

    def _drop(self, body: dict[str, Any], step: dict[str, Any]) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _half(self, body: dict[str, Any], step: dict[str, Any]) -> None:
        """Close the connection in the middle of an event."""
        self._open(body, step.get("usage", USAGE))
        self._event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        self.wfile.write(b"40\r\nevent: content_bl")
        self.wfile.flush()
        self._drop(body, step)

    def _truncated(self, body: dict[str, Any], step: dict[str, Any]) -> None:
        """End the stream correctly, before the message is complete."""
        self._open(body, step.get("usage", USAGE))
        self._text(step.get("text", "Title: half an ans"))
        self.wfile.write(b"0\r\n\r\n")

    def _stall(self, body: dict[str, Any], step: dict[str, Any]) -> None:
        self._open(body, step.get("usage", USAGE))
        self.wire.stopping.wait(step.get("seconds", 30))

    def _pings(self, body: dict[str, Any], step: dict[str, Any]) -> None:
        """Send only pings."""
        self._open(body, step.get("usage", USAGE))
        ends = time.monotonic() + step.get("seconds", 30)
        while time.monotonic() < ends and not self.wire.stopping.wait(0.05):
            try:
                self._event("ping")
            except OSError:
                return

    def _html(self, body: dict[str, Any], step: dict[str, Any]) -> None:
        self._send(200, b"<html>sign in to the hotel's network</html>", "text/html")

    def _schema(self, body: dict[str, Any], step: dict[str, Any]) -> None:
        self._json(200, {"hello": "world"})

    def _body(self, body: dict[str, Any], step: dict[str, Any]) -> None:
        self._send(200, b'{"id": "msg_1", "content": [', "application/json")

    def _slow(self, body: dict[str, Any], step: dict[str, Any]) -> None:
        """Send no status line."""
        self.wire.stopping.wait(step.get("seconds", 30))
        self.close_connection = True

    def _garbage(self, body: dict[str, Any], step: dict[str, Any]) -> None:
        self._open(body, step.get("usage", USAGE))
        text = b"event: content_block_delta\ndata: {not json\n\n"
        self.wfile.write(b"%x\r\n" % len(text) + text + b"\r\n0\r\n\r\n")

    def _sse_error(self, body: dict[str, Any], step: dict[str, Any]) -> None:
        self._open(body, step.get("usage", USAGE))
        self._event("error", error={"type": "overloaded_error", "message": "Overloaded"})
        self.wfile.write(b"0\r\n\r\n")
