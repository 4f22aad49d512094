"""A monitor that speaks just enough QMP (QEMU's docs/interop/qmp-spec.rst), on a unix socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}, "package": ""}, "capabilities": []}}

Answer = Callable[[str, Mapping[str, Any]], Mapping[str, Any] | None]
"""From a command and its arguments to a reply without its id; None: no reply, hang up."""


def _requests(stream: socket.socket) -> Iterator[dict[str, Any]]:
    """JSON objects as they come: nothing separates them."""
    text = ""
    while chunk := stream.recv(65536):
        text += chunk.decode()
        while text := text.lstrip():
            try:
                request, end = json.JSONDecoder().raw_decode(text)
            except ValueError:
                break
            text = text[end:]
            yield request


def _serve(listener: socket.socket, answer: Answer, events: list[Mapping[str, Any]]) -> None:
    with suppress(OSError):
        stream, _ = listener.accept()
        with stream:

            def say(message: Mapping[str, Any]) -> None:
                stream.sendall(json.dumps(message).encode() + b"\r\n")

            say(GREETING)
            for request in _requests(stream):
                command = request["execute"]
                known = {"id": request["id"]} if "id" in request else {}
                if command == "qmp_capabilities":
                    say({"return": {}, **known})
                    for event in events:
                        say(event)
                    continue
                reply = answer(command, request.get("arguments", {}))
                if reply is None:
                    return
                say({**reply, **known})


@contextmanager
def serving(path: Path, answer: Answer, events: list[Mapping[str, Any]] | None = None) -> Iterator[None]:
    """A monitor at `path` that takes one connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=_serve, args=(listener, answer, events or []), daemon=True)
        thread.start()
        yield
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        path.unlink()
