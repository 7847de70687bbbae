"""Settings, read once from the environment and validated at start; every error names its variable.

The parts of the database's address and the bootstrap token can be set by `…_FILE` instead, the path of a file with the
value. The file is read again for each new connection, so rotating a password needs no restart. It is validated again
too: while it is missing or invalid, the last good value stays in use and the log says so.
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError

from flaskapp import rds

DATABASE = ("db_host", "db_port", "db_name", "db_username", "db_password")
FROM_FILE = (*DATABASE, "api_admin_token")
MAX_FILE = 16 * 1024  # bytes; a token used as a password has a few thousand

logger = logging.getLogger(__name__)


class SettingsError(Exception):
    """A setting is missing or wrong; the message is one line and begins with the variable's name."""


class Settings(BaseModel):
    """All settings. Times are in seconds, sizes in bytes; the environment variable is the name in upper case."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    _files: dict[str, "SettingFile"] = PrivateAttr(default_factory=dict)

    db_host: str
    db_port: int = Field(default=5432, ge=1, le=65535)
    db_name: str
    db_username: str
    db_password: SecretStr = SecretStr("")
    db_auth: Literal["password", "rds-iam"] = "password"
    aws_region: str = ""
    db_sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    db_sslrootcert: Path | None = None
    db_connection_lifetime: int = Field(default=1800, ge=1, le=86400)

    port: int = Field(default=8000, ge=1, le=65535)
    metrics_port: int = Field(default=9090, ge=0, le=65535)  # 0: no metrics
    web_concurrency: int = Field(default=1, ge=1, le=64)
    web_threads: int = Field(default=4, ge=1, le=64)
    graceful_timeout: int = Field(default=20, ge=1, le=600)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    max_body: int = Field(default=64 * 1024, ge=1024)

    api_reads: Literal["public", "private"] = "public"
    api_admin_token: SecretStr | None = Field(default=None, min_length=32)
    # The number of reverse proxies whose X-Forwarded-… headers are trusted; 0 trusts none.
    proxy_hops: int = Field(default=0, ge=0, le=8)
    # Host names to answer, separated by commas; empty answers all.
    trusted_hosts: str = ""

    # Fault injection, for tests of releases; refused in production.
    app_mode: Literal["production", "development"] = "production"
    fault_delay: float = Field(default=0, ge=0, le=60)
    fault_error_rate: float = Field(default=0, ge=0, le=1)
    fault_unready: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read and validate every setting.

        Raises:
            SettingsError: A setting is missing or wrong.
        """
        values: dict[str, str] = {}
        files: dict[str, tuple[Path, str]] = {}
        for name in cls.model_fields:
            variable = name.upper()
            value, path = environment.get(variable), environment.get(f"{variable}_FILE")
            if path and name in FROM_FILE:
                if value:
                    raise SettingsError(f"{variable}: set this or {variable}_FILE, not both")
                value = read_file(name, Path(path))
                files[name] = Path(path), value
            if value:
                values[name] = value
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(explain(error)) from None
        for name, (file, content) in files.items():
            # A new value is validated together with the other values of the start.
            check = partial(cls._checked, name, values)
            settings._files[name] = SettingFile(name, file, content, getattr(settings, name), check)
        if settings.db_auth == "rds-iam":
            settings._check_rds()
        elif "db_password" not in values:
            raise SettingsError("DB_PASSWORD: not set (nor DB_PASSWORD_FILE)")
        faults = settings.fault_delay or settings.fault_error_rate or settings.fault_unready
        if faults and settings.app_mode == "production":
            raise SettingsError("APP_MODE: faults (FAULT_…) are refused in production; set it to development")
        return settings

    def connection_parts(self) -> dict[str, Any]:
        """Return the connection's parameters by libpq's names, so that nothing needs escaping; files are read again.

        Raises:
            SettingsError: No token for the database could be made.
        """
        host, port, database, user, password = (self._current(name) for name in DATABASE)
        if self.db_auth == "rds-iam":
            try:
                password = SecretStr(rds.token(host, port, user, self.aws_region))
            except rds.TokenError as error:
                raise SettingsError(f"DB_AUTH: no token for the database: {error}") from None
        return {"host": host, "port": port, "dbname": database, "user": user, "password": password.get_secret_value()}

    def _current(self, name: str) -> Any:
        """Return the current value, of the field's type."""
        return self._files[name].current() if name in self._files else getattr(self, name)

    @classmethod
    def _checked(cls, name: str, values: Mapping[str, str], content: str) -> Any:
        """Return the value of a file's new content; raise SettingsError if it is invalid."""
        try:
            return getattr(cls.model_validate({**values, name: content}), name)
        except ValidationError as error:
            raise SettingsError(explain(error)) from None

    def _check_rds(self) -> None:
        if not rds.installed():
            raise SettingsError("DB_AUTH: rds-iam needs botocore, which is not installed: add flaskapp[rds]")
        if not self.aws_region:
            raise SettingsError("AWS_REGION: not set, and DB_AUTH=rds-iam needs it")
        if self.db_sslmode in {"disable", "allow", "prefer"}:
            raise SettingsError("DB_SSLMODE: set require, verify-ca or verify-full; DB_AUTH=rds-iam takes TLS")

    def admin_token(self) -> str | None:
        """Return the bootstrap token, if there is one; its file is read again."""
        token: SecretStr | None = self._current("api_admin_token")
        return token.get_secret_value() if token else None


class SettingFile:
    """A setting whose value is in a file; an invalid file leaves the last good value in use."""

    def __init__(self, name: str, path: Path, content: str, value: Any, check: Callable[[str], Any]):
        self.name, self.path, self.check = name, path, check
        self.content, self.value = content, value
        self.complaint: object = None
        self.lock = threading.Lock()

    def current(self) -> Any:
        """Read the file again and return the value; log each error once, without the value, which may be a secret."""
        with self.lock:
            try:
                content = read_file(self.name, self.path)
            except SettingsError as error:
                self._keep(error, error.args)
                return self.value
            if content == self.content:
                self.complaint = None
                return self.value
            try:
                self.value = self.check(content)
            except SettingsError as error:
                self._keep(error, content)
            else:
                self.content, self.complaint = content, None
            return self.value

    def _keep(self, error: SettingsError, complaint: object) -> None:
        if complaint != self.complaint:
            self.complaint = complaint
            logger.error("the last good value of a setting stays in use", extra={"reason": str(error)})


def read_file(name: str, path: Path) -> str:
    """Return the file's content without its line end.

    Raises:
        SettingsError: It is no readable text file, is empty, or has more than MAX_FILE bytes.
    """
    where = f"{name.upper()}_FILE"
    try:
        # Opening a named pipe would block.
        if not path.is_file() and path.exists():
            raise SettingsError(f"{where}: {path} is not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        content = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise SettingsError(f"{where}: cannot read {path}: not UTF-8 text") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{where}: cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_FILE:
        raise SettingsError(f"{where}: {path} is larger than {MAX_FILE} bytes")
    if not content:
        raise SettingsError(f"{where}: {path} is empty")
    if "\0" in content:
        raise SettingsError(f"{where}: {path} has a NUL byte")
    return content


def explain(error: ValidationError) -> str:
    """Return the first error as one line, without the value, which may be a secret."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    name = str(first["loc"][0])
    if first["type"] == "missing":
        way = f" (nor {name.upper()}_FILE)" if name in FROM_FILE else ""
        return f"{name.upper()}: not set{way}"
    return f"{name.upper()}: {first['msg'][0].lower()}{first['msg'][1:]}"
