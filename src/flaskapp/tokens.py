"""Create, list and revoke API tokens, for the command line."""

import hashlib
import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from flaskapp.models import Service, Token

PREFIX = "flaskapp_"  # lets secret scanners recognize a token
UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class TokenError(Exception):
    """The command failed; the message is one line."""


def create(engine: Engine, name: str, scope: str, service: str | None, lifetime: timedelta | None) -> str:
    """Create a token and return it; only its hash is stored, so it can't be shown again."""
    token = PREFIX + secrets.token_urlsafe(32)
    with Session(engine) as session, session.begin():
        if session.scalar(select(Token.id).where(Token.name == name)):
            raise TokenError(f"there is a token called {name} already; revoke it and choose another name")
        row = Token(name=name, scope=scope, hash=hashlib.sha256(token.encode()).digest())
        row.expires_at = datetime.now(UTC) + lifetime if lifetime else None
        if service:
            row.service_id = session.scalar(select(Service.id).where(Service.name == service))
            if row.service_id is None:
                raise TokenError(f"there is no service called {service} yet")
        session.add(row)
    return token


def listing(engine: Engine) -> Iterator[str]:
    """Yield a heading, then a line for each token, the newest last."""
    yield f"{'NAME':<24}{'SCOPE':<8}{'SERVICE':<20}{'STATE':<10}{'EXPIRES':<18}LAST USED"
    statement = select(Token, Service.name).outerjoin(Service, Service.id == Token.service_id).order_by(Token.id)
    with Session(engine) as session:
        for token, service in session.execute(statement):
            state = "revoked" if token.revoked_at else "valid"
            if token.expires_at and token.expires_at < datetime.now(UTC):
                state = "expired"
            columns = f"{token.name:<24}{token.scope:<8}{service or 'all':<20}{state:<10}"
            yield f"{columns}{minute(token.expires_at):<18}{minute(token.last_used_at)}"


def revoke(engine: Engine, name: str) -> None:
    """Revoke the token; requests with it are refused from now on."""
    with engine.begin() as connection:
        rows = connection.execute(update(Token).where(Token.name == name).values(revoked_at=datetime.now(UTC)))
    if not rows.rowcount:
        raise TokenError(f"there is no token called {name}")


def minute(moment: datetime | None) -> str:
    """Return a time in UTC to the minute, or `never`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ") if moment else "never"


def duration(text: str) -> timedelta:
    """Parse a duration such as `12h`, `90d` or `4w`."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})([hdw])", text)
    if not match:
        raise TokenError(f"{text} is no duration: write 12h, 90d or 4w")
    return int(match[1]) * UNITS[match[2]]
