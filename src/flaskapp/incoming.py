"""Decide whether the bytes received so far are a complete request, so that no thread waits for the rest.

This decides only when a thread starts. Interpreting the bytes is left to gunicorn's parser.
"""

import re

MAX_HEAD = 64 * 1024  # bytes of request line and headers; load balancers send no more
MAX_CHUNK_LINE = 8190  # bytes, as gunicorn has it
FRAMING = 2  # a chunked body, sizes included, may be this many times the limit of the body
SIZE = re.compile(rb"([0-9a-fA-F]+)[ \t]*(?:;.*)?", re.DOTALL)


class TooLargeError(Exception):
    """The client sent more than may be buffered; `status` is the HTTP status to answer with."""

    def __init__(self, status: int):
        super().__init__(status)
        self.status = status


class Incoming:
    """A request being received. `data` may hold the start of the next one too; `max_body` is in bytes."""

    def __init__(self, max_body: int):
        self.data = bytearray()
        self.max_body = max_body
        self.oversized = False  # the body is too long: a thread starts without all of it, and refuses it
        self.continues = False  # the client waits for `100 Continue` before it sends the body
        self._searched = 0
        self._head = 0  # where the body begins
        self._length = 0
        self._chunk: int | None = None  # where the next chunk begins
        self._payload = 0  # bytes in the chunks before it

    def whole(self) -> bool:
        """Return whether a thread may start: the request is complete, or will be refused anyway.

        Raises:
            TooLargeError: The request line, the headers or the chunks are over their limit.
        """
        if not self._head and not self._find_head():
            return False
        if self._chunk is not None:
            return self._pass_chunks(self._chunk)
        return self.oversized or len(self.data) >= self._head + self._length

    def _find_head(self) -> bool:
        end = self.data.find(b"\r\n\r\n", max(0, self._searched - 3))
        self._searched = len(self.data)
        if end < 0:
            line = self.data.find(b"\n")
            if line >= 0 and self.data[line - 1 : line] != b"\r":  # gunicorn refuses a bare LF at once
                self._head = self._searched
                return True
            if self._searched > MAX_HEAD:
                raise TooLargeError(431 if b"\r\n" in self.data else 414)
            return False
        self._head = end + 4
        fields = bytes(self.data[: end + 2]).lower()
        self.continues = value(fields, b"expect") == b"100-continue" and b" http/1.1\r\n" in fields
        length = value(fields, b"content-length")
        if value(fields, b"transfer-encoding") is not None:
            self._chunk = self._head
        elif length and length.isdigit() and len(length) < 4000:  # gunicorn refuses anything else
            self._length = int(length)
            self.oversized = self._length > self.max_body
        return True

    def _pass_chunks(self, start: int) -> bool:
        while True:
            if len(self.data) > self._head + FRAMING * self.max_body + MAX_HEAD:
                raise TooLargeError(413)
            end = self.data.find(b"\r\n", start)
            if end < 0:
                return len(self.data) - start > MAX_CHUNK_LINE
            match = SIZE.fullmatch(self.data, start, end)
            if not match:
                return True
            size = int(match[1], 16)
            if size == 0:  # trailers may follow, ended by an empty line
                return self.data.find(b"\r\n\r\n", end) >= 0
            if self._payload + size > self.max_body:
                self.oversized = True
                return len(self.data) > end + 2 + self.max_body - self._payload
            if len(self.data) < end + 2 + size + 2:
                return False
            self._payload += size
            self._chunk = start = end + 2 + size + 2


def value(fields: bytes, name: bytes) -> bytes | None:
    """Return the value of the first header field of this name; both are lower case."""
    start = fields.find(b"\r\n" + name + b":")
    if start < 0:
        return None
    return fields[start + len(name) + 3 : fields.index(b"\r\n", start + 2)].strip(b" \t")
