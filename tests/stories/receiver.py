#!/usr/bin/env python3
"""An endpoint that webhooks call, for tests/stories: what a receiver would be that was written by somebody else.

It verifies each call with the library of the scheme (`standardwebhooks`), shares nothing with fleetlog but its documents, and
keeps a list of the calls. Its secret stands in RECEIVER_SECRET. It prints `listening on HOST:PORT`, and ends with its stdin.

    POST /fleet            a call: 204; 401 where the signature is not valid; 503 while it is down, and for what it stumbles over
    GET /control/down      from now on every call is answered with 503
    GET /control/up        and no more
    GET /control/mended    it stumbles no more
    GET /control/calls     every call so far, one JSON object a line, in the order in which they were answered

It stumbles over one event in five thousand: those whose id, as a number, can be divided by 5000.
"""

import asyncio
import json
import os
import sys
import threading
import time
import uuid

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

REASONS = {200: "OK", 204: "No Content", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 503: "Service Unavailable"}
STUMBLES_EACH = 5000
BACKLOG = 4096


class Endpoint:
    """What is kept between calls."""

    def __init__(self, secret):
        self.webhook = Webhook(secret)
        self.is_down = False
        self.is_mended = False
        self.calls = []

    def answer(self, method, path, headers, body):
        """Status and body."""
        if (method, path) == ("POST", "/fleet"):
            return self.called(headers, body), b""
        if method == "GET" and path.startswith("/control/"):
            return self.told(path.removeprefix("/control/"))
        return 404, b""

    def called(self, headers, body):
        event_id = headers.get("webhook-id", "")
        is_valid = self.is_valid(event_id, headers, body)
        status = self.status(event_id, is_valid)
        call = {
            "at": time.time(),
            "id": event_id,
            "attempt": int(headers.get("fleetlog-attempt", 0)),
            "redrive": headers.get("fleetlog-redrive") == "true",
            "valid": is_valid,
            "status": status,
        }
        self.calls.append(call)
        return status

    def is_valid(self, event_id, headers, body):
        """Whether the library takes the signature, and the CloudEvent is the one that the headers name."""
        try:
            return self.webhook.verify(body, headers)["id"] == event_id
        except (WebhookVerificationError, ValueError, KeyError):
            return False

    def status(self, event_id, is_valid):
        if self.is_down:
            return 503
        if not is_valid:
            return 401
        stumbles = not self.is_mended and uuid.UUID(event_id).int % STUMBLES_EACH == 0
        return 503 if stumbles else 204

    def told(self, what):
        if what in ("down", "up"):
            self.is_down = what == "down"
        elif what == "mended":
            self.is_mended = True
        elif what == "calls":
            return 200, "".join(json.dumps(call) + "\n" for call in self.calls).encode()
        else:
            return 404, b""
        return 204, b""


class Connection(asyncio.Protocol):
    """One connection: requests one after the other, as HTTP/1.1 has them with `content-length`."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.read = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.read += data
        while self.request():
            pass

    def request(self):
        """Answers the first request of what was read; whether there was a whole one."""
        head, found, rest = self.read.partition(b"\r\n\r\n")
        if not found:
            return False
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return False
        body, self.read = rest[:length], rest[length:]
        method, path, _ = line.split(" ")
        status, answer = self.endpoint.answer(method, path, headers, body)
        self.write(status, answer, headers.get("connection", "").lower() == "close")
        return True

    def write(self, status, body, is_last):
        head = f"HTTP/1.1 {status} {REASONS[status]}\r\n"
        head += f"connection: {'close' if is_last else 'keep-alive'}\r\n"
        if status != 204:
            head += f"content-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"\r\n" + body)
        if is_last:
            self.transport.close()


def end_with_stdin():
    """Who started it is gone: so is it."""
    sys.stdin.buffer.read()
    os._exit(0)


async def main():
    endpoint = Endpoint(os.environ["RECEIVER_SECRET"])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(endpoint), "127.0.0.1", 0, backlog=BACKLOG)
    host, port = server.sockets[0].getsockname()
    print(f"listening on {host}:{port}", flush=True)
    threading.Thread(target=end_with_stdin, daemon=True).start()
    await server.serve_forever()


asyncio.run(main())
