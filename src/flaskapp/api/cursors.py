"""Keyset cursors: a page starts after a row, not at an offset, so rows added in between repeat or hide none."""

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from uuid import UUID

from flaskapp.problems import BROKEN_RULE, ProblemError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Cursor:
    """The last row of a page; encoded, 8 bytes of microseconds since 1970 and the 16 of the id, in URL-safe base64."""

    time: datetime
    id: UUID

    # `encode` in SQL, for a row `r`.
    SQL: ClassVar[str] = """translate(encode(
        int8send((extract(epoch FROM r.started_at) * 1000000)::bigint) || uuid_send(r.id), 'base64'), '+/', '-_')"""

    def encode(self) -> str:
        """Return the cursor as 32 characters."""
        microseconds = (self.time - EPOCH) // timedelta(microseconds=1)
        return base64.urlsafe_b64encode(microseconds.to_bytes(8, signed=True) + self.id.bytes).decode()

    @classmethod
    def decode(cls, encoded: str) -> "Cursor":
        """Parse a cursor.

        Raises:
            ProblemError: 422, it is not a cursor of this API.
        """
        try:
            content = base64.b64decode(encoded, altchars=b"-_", validate=True)
            if len(content) != 24:
                raise ValueError
            time = EPOCH + timedelta(microseconds=int.from_bytes(content[:8], signed=True))
        except (ValueError, binascii.Error, OverflowError):
            raise ProblemError(422, BROKEN_RULE, [("query.cursor", "must be a `next` that was given here")]) from None
        return cls(time, UUID(bytes=content[8:]))
