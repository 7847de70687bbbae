"""Tokens of Amazon RDS in place of a password (DB_AUTH=rds-iam): signed here, good for new connections for 15 minutes.

The extra `rds` brings botocore, which finds the credentials (of the pod's role) and renews them.
"""

from functools import cache
from importlib.util import find_spec
from typing import Any


class TokenError(Exception):
    """No token can be made just now; the message is one line."""


def installed() -> bool:
    return find_spec("botocore") is not None


def token(host: str, port: int, user: str, region: str) -> str:
    """A new token for one connection."""
    try:
        signed: str = client(region).generate_db_auth_token(DBHostname=host, Port=port, DBUsername=user, Region=region)
    # Botocore's own errors, an answer of STS (ClientError), and those of files and programs that give credentials.
    except Exception as error:
        raise TokenError(str(error).strip().split("\n")[0] or type(error).__name__) from None
    return signed


@cache
def client(region: str) -> Any:
    """Made at the first use: it reads files, and is meant to be shared by threads."""
    from botocore.session import Session  # type: ignore[import-untyped]

    return Session().create_client("rds", region_name=region)
