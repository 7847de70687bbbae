"""Settings: read once from the environment, checked at start, named in every complaint.

The parts of the database's address and the bootstrap token may be given as `…_FILE` instead, the path of a file that
holds the value. Such a file is read again for every new connection, so a rotated password needs no restart.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError

from flaskapp import rds

DATABASE = ("db_host", "db_port", "db_name", "db_username", "db_password")
FROM_FILE = (*DATABASE, "api_admin_token")


class SettingsError(Exception):
    """A setting is missing or wrong; the message is one line and begins with the variable's name."""


class Settings(BaseModel):
    """What can be set. Times are in seconds, sizes in bytes; the environment variable is the upper-case name."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    _files: dict[str, Path] = PrivateAttr(default_factory=dict)

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
    # Reverse proxies whose X-Forwarded-… headers are believed, counted from here; 0 believes none.
    proxy_hops: int = Field(default=0, ge=0, le=8)
    # Host names that are answered, separated by commas; empty answers all.
    trusted_hosts: str = ""

    # Faults for tests of releases; refused in production.
    app_mode: Literal["production", "development"] = "production"
    fault_delay: float = Field(default=0, ge=0, le=60)
    fault_error_rate: float = Field(default=0, ge=0, le=1)
    fault_unready: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read every setting; raise SettingsError with one line that names the variable."""
        values: dict[str, str] = {}
        files: dict[str, Path] = {}
        for name in cls.model_fields:
            variable = name.upper()
            value, path = environment.get(variable), environment.get(f"{variable}_FILE")
            if path and name in FROM_FILE:
                if value:
                    raise SettingsError(f"{variable}: set this or {variable}_FILE, not both")
                files[name] = Path(path)
                value = read_file(name, files[name])
            if value:
                values[name] = value
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(explain(error)) from None
        settings._files.update(files)
        if settings.db_auth == "rds-iam":
            settings._check_rds()
        elif "db_password" not in values:
            raise SettingsError("DB_PASSWORD: not set (nor DB_PASSWORD_FILE)")
        faults = settings.fault_delay or settings.fault_error_rate or settings.fault_unready
        if faults and settings.app_mode == "production":
            raise SettingsError("APP_MODE: faults (FAULT_…) are refused in production; set it to development")
        return settings

    def connection_parts(self) -> dict[str, Any]:
        """The parts of a connection, in libpq's words, so any character is safe; those given as files are read anew."""
        current = {name: getattr(self, name) for name in DATABASE}
        current["db_password"] = self.db_password.get_secret_value()
        current.update({name: read_file(name, path) for name, path in self._files.items() if name in DATABASE})
        if self.db_auth == "rds-iam":
            where = current["db_host"], int(current["db_port"]), current["db_username"]
            try:
                current["db_password"] = rds.token(*where, self.aws_region)
            except rds.TokenError as error:
                raise SettingsError(f"DB_AUTH: no token for the database: {error}") from None
        return {
            "host": current["db_host"],
            "port": int(current["db_port"]),
            "dbname": current["db_name"],
            "user": current["db_username"],
            "password": current["db_password"],
        }

    def _check_rds(self) -> None:
        if not rds.installed():
            raise SettingsError("DB_AUTH: rds-iam needs botocore, which is not installed: add flaskapp[rds]")
        if not self.aws_region:
            raise SettingsError("AWS_REGION: not set, and DB_AUTH=rds-iam needs it")
        if self.db_sslmode in {"disable", "allow", "prefer"}:
            raise SettingsError("DB_SSLMODE: set require, verify-ca or verify-full; DB_AUTH=rds-iam takes TLS")

    def admin_token(self) -> str | None:
        """The bootstrap token; read anew where it is a file."""
        if "api_admin_token" in self._files:
            return read_file("api_admin_token", self._files["api_admin_token"])
        return self.api_admin_token.get_secret_value() if self.api_admin_token else None


def read_file(name: str, path: Path) -> str:
    """The file's content without its line end."""
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise SettingsError(f"{name.upper()}_FILE: cannot read {path}: {reason}") from None


def explain(error: ValidationError) -> str:
    """The first complaint as one line, without the value: it may be a secret."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    name = str(first["loc"][0])
    if first["type"] == "missing":
        way = f" (nor {name.upper()}_FILE)" if name in FROM_FILE else ""
        return f"{name.upper()}: not set{way}"
    return f"{name.upper()}: {first['msg'][0].lower()}{first['msg'][1:]}"
