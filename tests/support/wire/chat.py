"""The same server with the chat completions API."""

from __future__ import annotations

import json
from typing import Any

from .server import Messages

CHAT_USAGE = {
    "prompt_tokens": 4000,
    "completion_tokens": 400,
    "total_tokens": 4400,
    "prompt_tokens_details": {"cached_tokens": 3000},
}


class Chat(Messages):
    """Steps are those of `Messages`; its own keys are

    - ``finish_reason`` and ``refusal``;
    - ``deltas``: what comes before the text;
    - ``refuse``: fields of a request that it does not know, with ``code``, its status;
    - ``said``: the whole body of an error.

    ``props`` of the model is llama.cpp's description of itself.
    """

    def do_GET(self) -> None:
        if self.wire.model.get("status"):
            self._error(self.wire.model)
            return
        if self.path == "/props":
            self._json(200, self.wire.model.get("props", {}))
            return
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": "me"}
            for name in self.wire.model.get("names", ["gpt-5.5", "local"])
        ]
        self._json(200, self.wire.model.get("body", {"object": "list", "data": models}))

    def _error(self, step: dict[str, Any]) -> None:
        error = {"message": step.get("message", "no"), "type": "error", "code": step.get("code")}
        self._json(step["status"], step.get("said", {"error": error}), step.get("headers"))

    def _open(self, body: dict[str, Any], usage: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._delta(role="assistant", content="")

    def _write(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n" % len(data) + data + b"\r\n")
        self.wfile.flush()

    def _event(self, name: str, **data: Any) -> None:
        self._write(": ping\n\n" if name == "ping" else f"data: {json.dumps(data)}\n\n")

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> None:
        head = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m"}
        self._event("chunk", **head, choices=choices, **more)

    def _delta(self, finish: str | None = None, **delta: Any) -> None:
        self._chunk([{"index": 0, "delta": delta, "finish_reason": finish}])

    def _text(self, text: str) -> None:
        for start in range(0, len(text), 200):
            self._delta(content=text[start : start + 200])

    def _answer(self, body: dict[str, Any], step: dict[str, Any]) -> None:
        if bad := [name for name in step.get("refuse", ()) if name in body]:
            detail = [
                {"type": "extra_forbidden", "loc": ["body", name], "input": body[name]}
                for name in bad
            ]
            said = {"object": "error", "message": {"detail": detail}, "code": None}
            self._error({"status": step.get("code", 422), "said": said})
            return
        self._open(body, {})
        for delta in step.get("deltas", ()):
            self._delta(**delta)
        if step.get("refusal"):
            self._delta(refusal=step["refusal"])
        self._text(step.get("text", ""))
        self._delta(step.get("finish_reason", "stop"))
        usage = step.get("usage", CHAT_USAGE)
        if usage and body.get("stream_options", {}).get("include_usage"):
            self._chunk([], usage=usage)
        self._write("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    # ------------------------------------------------------------------ faults

    def _half(self, body: dict[str, Any], step: dict[str, Any]) -> None:
        self._open(body, {})
        self.wfile.write(b'40\r\ndata: {"id"')
        self.wfile.flush()
        self._drop(body, step)

    def _garbage(self, body: dict[str, Any], step: dict[str, Any]) -> None:
        self._open(body, {})
        self._write("data: {not json\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _sse_error(self, body: dict[str, Any], step: dict[str, Any]) -> None:
        self._open(body, {})
        self._event("error", error={"message": "Overloaded", "type": "server_error"})
        self.wfile.write(b"0\r\n\r\n")
