"""A connection of HTTP, with bounds on what is no body.

Else a stranger's headers fill the memory, and connections that ask nothing stay until there are no more to be had.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0  # for the headers of a request to come, from the connection or the last answer on
MOST_BESIDE = 1 << 16  # bytes of headers
FRAMING = 8  # and of a chunked body so many for each of its own, which is more than its chunks can need


class Connection(HttpToolsProtocol):
    """uvicorn's, closed when headers do not come or do not end."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._late: asyncio.TimerHandle | None = None
        self._beside = self._of_body = 0
        self._begun = False

    def connection_made(self, transport: Any) -> None:
        """Starts to wait."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no longer."""
        self._wait_no_longer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Counts what is no body; of the bytes in which a request begins nothing, since another may end in them."""
        self._begun = False
        before = self._of_body
        super().data_received(data)
        self._beside += 0 if self._begun else len(data) - (self._of_body - before)
        if self._beside > MOST_BESIDE + FRAMING * self._of_body and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.send_400_response(f"Headers of more than {MOST_BESIDE:,} bytes.")
            else:
                self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._begun, self._beside, self._of_body = True, 0, 0

    def on_headers_complete(self) -> None:
        """They have come."""
        self._wait_no_longer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of it."""
        self._of_body += len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Waits for the next request, unless it is here."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._wait()

    def _wait(self) -> None:
        self._wait_no_longer()
        self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _wait_no_longer(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
