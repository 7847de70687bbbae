"""Amazon RDS tokens in place of a password (DB_AUTH=rds-iam), signed locally and valid for 15 minutes.

The extra `rds` installs botocore, which finds and renews the credentials of the pod's role.
"""

from functools import cache
from importlib.util import find_spec
from typing import Any


class TokenError(Exception):
    """No token can be made at the moment; the message is one line."""


def installed() -> bool:
    """Return whether botocore is installed."""
    return find_spec("botocore") is not None


def token(host: str, port: int, user: str, region: str) -> str:
    """Return a new token, for one connection.

    Raises:
        TokenError: There are no valid credentials.
    """
    try:
        signed: str = client(region).generate_db_auth_token(DBHostname=host, Port=port, DBUsername=user, Region=region)
    # botocore's own errors, an answer of STS (ClientError), and those of files and programs that provide credentials.
    except Exception as error:
        raise TokenError(str(error).strip().split("\n")[0] or type(error).__name__) from None
    return signed


@cache
def client(region: str) -> Any:
    """Return the region's client, created at the first use (it reads files) and shared by all threads."""
    from botocore.session import Session  # type: ignore[import-untyped]

    return Session().create_client("rds", region_name=region)
