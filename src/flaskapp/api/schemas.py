"""The API's input and output as pydantic models, which validate the input and describe it in the OpenAPI document."""

from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Annotated, Literal
from uuid import UUID
from zoneinfo import available_timezones

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
CLOCK_SKEW = timedelta(minutes=5)
PAGE = 20  # deployments on a page, by default


def plausible(moment: datetime) -> datetime:
    """Check that a time is not before the year 2000 nor in the future, and convert it to UTC."""
    if moment < EARLIEST:
        raise ValueError("must not be before the year 2000")
    if moment > datetime.now(UTC) + CLOCK_SKEW:
        raise ValueError("must not be in the future")
    return moment.astimezone(UTC)


def in_utc(moment: datetime) -> datetime:
    """Convert a time to UTC: PostgreSQL takes offsets below 16 hours only, and the API up to 24."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie in the years 1 to 9999 in UTC too") from None


def printable(text: str) -> str:
    """Check that a text has no control characters."""
    if not text.isprintable():
        raise ValueError("must not hold control characters")
    return text


@cache
def zones() -> set[str]:
    """Return the names of all time zones, read once."""
    return available_timezones()


def known_zone(name: str) -> str:
    """Check that this is the name of a time zone."""
    if name not in zones():
        raise ValueError("must be a name of the IANA time zone database, as Europe/Berlin")
    return name


Moment = Annotated[AwareDatetime, AfterValidator(plausible), Field(description="RFC 3339, with its offset from UTC.")]
Bound = Annotated[AwareDatetime, AfterValidator(in_utc)]
Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?$",
        description="Lower-case letters, digits, and `.`, `_`, `-` between them; 100 at most.",
    ),
]
Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(printable)]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{7,64}$", description="The commit's hash, lower case.")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", description="The image's digest in the registry.")]
Link = Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=2000), AfterValidator(printable)]
Day = Annotated[date, Field(ge=date(2000, 1, 1), le=date(2200, 1, 1))]
Status = Literal["started", "succeeded", "failed", "rolled_back"]
Zone = Annotated[str, Field(description="IANA name, as Europe/Berlin."), AfterValidator(known_zone)]
Outcome = Literal["succeeded", "failed", "rolled_back"]


class Input(BaseModel):
    """Strict input: no unknown fields, no numbers as text."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NewDeployment(Input):
    """An attempt to deploy a version of a service to an environment; new names are added."""

    service: Name
    environment: Name
    version: Line
    commit: Commit | None = None
    committed_at: Moment | None = None
    digest: Digest | None = None
    chart_version: Line | None = None
    status: Status = "started"
    rollback_of: UUID | None = Field(default=None, description="The deployment that this one undoes.")
    actor: Line | None = Field(default=None, description="Who or what deployed.")
    link: Link | None = Field(default=None, description="Where to read more: the build, the pull request.")
    started_at: Moment | None = Field(default=None, description="If not given: finished_at, or now.")
    finished_at: Moment | None = Field(default=None, description="Now, if not given and the status is an outcome.")

    @model_validator(mode="after")
    def consistent(self) -> "NewDeployment":
        """Check that the times agree with the status and with each other."""
        if self.status == "started" and self.finished_at:
            raise ValueError("finished_at needs a status other than `started`")
        if self.finished_at and self.started_at and self.finished_at < self.started_at:
            raise ValueError("finished_at must not be before started_at")
        return self


class Finish(Input):
    """The outcome of an attempt."""

    status: Outcome
    finished_at: Moment | None = Field(default=None, description="Now, if not given.")


class NewFailure(Input):
    """A report that a deployment broke after it had succeeded."""

    failed_at: Moment | None = Field(default=None, description="Now, if not given.")
    restored_at: Moment | None = Field(default=None, description="When service was restored, if it was.")
    summary: Line | None = None
    link: Link | None = None

    @model_validator(mode="after")
    def consistent(self) -> "NewFailure":
        """Check that service was not restored before it failed."""
        if self.restored_at and not self.failed_at:
            raise ValueError("restored_at needs failed_at")
        if self.restored_at and self.failed_at and self.restored_at < self.failed_at:
            raise ValueError("restored_at must not be before failed_at")
        return self


class Restore(Input):
    """Service was restored."""

    restored_at: Moment | None = Field(default=None, description="Now, if not given.")


class EnvironmentOrder(Input):
    """Every environment once, in the order in which a release passes through them."""

    items: list[Name] = Field(min_length=1, max_length=100)


class IdempotencyHeader(Input):
    """The header that makes repeating a request safe."""

    idempotency_key: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(printable)] | None = Field(
        default=None, alias="Idempotency-Key", description="Any text of the caller's, the same on a repeated request."
    )


class DeploymentPath(Input):
    """A deployment, by its id."""

    id: UUID


class FailurePath(Input):
    """A failure report, by its id."""

    id: UUID


class ServicePath(Input):
    """A service, by its name."""

    name: Name


class DeploymentQuery(Input):
    """Filters and paging of the deployments."""

    service: Name | None = None
    environment: Name | None = None
    status: Status | None = None
    since: Bound | None = Field(default=None, description="Started at or after this moment.")
    until: Bound | None = Field(default=None, description="Started before this moment.")
    cursor: str | None = Field(default=None, max_length=64, description="`next` of the page before.")
    limit: int = Field(default=PAGE, ge=1, le=100)


class DiffQuery(Input):
    """Two environments to compare."""

    from_: Name = Field(alias="from", description="An environment.")
    to: Name = Field(description="Another one.")


class DoraQuery(Input):
    """An environment, and a range of days in a time zone."""

    environment: Name
    service: Name | None = Field(default=None, description="All services, if not given.")
    from_: Day | None = Field(default=None, alias="from", description="First day; if not given, 30 days in all.")
    to: Day | None = Field(default=None, description="Last day; today if not given.")
    tz: Zone = "UTC"

    @model_validator(mode="after")
    def consistent(self) -> "DoraQuery":
        """Check that the range is neither reversed nor longer than 366 days."""
        if self.from_ and self.to and not 0 <= (self.to - self.from_).days < 366:
            raise ValueError("from must not be after to, nor more than 366 days before it")
        if self.from_ and not self.to and (datetime.now(UTC).date() - self.from_).days not in range(-1, 366):
            raise ValueError("from must not be in the future, nor more than 366 days ago unless `to` is given")
        return self


class Deployment(BaseModel):
    """A deployment as recorded."""

    id: UUID
    service: str
    environment: str
    version: str
    status: Status
    commit: str | None
    committed_at: datetime | None
    digest: str | None
    chart_version: str | None
    rollback_of: UUID | None
    actor: str | None
    link: str | None
    started_at: datetime
    finished_at: datetime | None


class DeploymentPage(BaseModel):
    """A page of deployments, the newest first."""

    items: list[Deployment]
    next: str | None = Field(description="The cursor of the page after this one; null on the last.")


class Failure(BaseModel):
    """A failure report as recorded."""

    id: UUID
    deployment: UUID
    failed_at: datetime
    restored_at: datetime | None
    summary: str | None
    link: str | None


class FailureList(BaseModel):
    """The failure reports of a deployment, the oldest first."""

    items: list[Failure]


class EnvironmentState(BaseModel):
    """What runs in an environment: the newest success, and the newest attempt whatever its outcome."""

    environment: str
    current: Deployment | None
    latest: Deployment


class ServiceState(BaseModel):
    """A service in every environment that it was ever deployed to, in the environments' order."""

    service: str
    environments: list[EnvironmentState]


class ServiceList(BaseModel):
    """The names of all services."""

    items: list[str]


class EnvironmentList(BaseModel):
    """The names of all environments, in their order."""

    items: list[str]


class Overview(BaseModel):
    """Every service in every environment."""

    environments: list[str]
    services: list[ServiceState]


class Difference(BaseModel):
    """What runs of a service in two environments; `same` compares version and image digest."""

    service: str
    from_: Deployment | None = Field(alias="from")
    to: Deployment | None
    same: bool


class Diff(BaseModel):
    """The differences between two environments, a service each."""

    items: list[Difference]


class Quantiles(BaseModel):
    """The median and the 90th percentile in seconds; null if there is nothing to count."""

    count: int
    median: float | None
    p90: float | None


class FailureRate(BaseModel):
    """Failed changes as a share of all; null if there is none."""

    changes: int
    failed: int
    rate: float | None


class DoraDay(BaseModel):
    """The number of attempts that ended on a day, by outcome."""

    day: date
    succeeded: int
    failed: int


class Dora(BaseModel):
    """The four metrics of a range of days."""

    environment: str
    service: str | None
    from_: date = Field(alias="from")
    to: date
    time_zone: str
    deployments: int
    deployments_per_day: float
    lead_time: Quantiles
    change_failure_rate: FailureRate
    recovery_time: Quantiles
    unrecovered: int = Field(description="Failed changes that nothing has followed yet.")
    daily: list[DoraDay]
