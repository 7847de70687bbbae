"""What the API takes and gives, as pydantic models: they check the input and describe it in the OpenAPI document."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
CLOCK_SKEW = timedelta(minutes=5)


def plausible(moment: datetime) -> datetime:
    """Neither before the year 2000 nor in the future, and in UTC from here on."""
    if moment < EARLIEST:
        raise ValueError("must not be before the year 2000")
    if moment > datetime.now(UTC) + CLOCK_SKEW:
        raise ValueError("must not be in the future")
    return moment.astimezone(UTC)


def printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not hold control characters")
    return text


Moment = Annotated[AwareDatetime, AfterValidator(plausible), Field(description="RFC 3339, with its offset from UTC.")]
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
Status = Literal["started", "succeeded", "failed", "rolled_back"]
Outcome = Literal["succeeded", "failed", "rolled_back"]


class Input(BaseModel):
    """Strict: no unknown field, no number for a text."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NewDeployment(Input):
    """An attempt to put a version of a service into an environment; names not seen before are added."""

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
        if self.status == "started" and self.finished_at:
            raise ValueError("finished_at needs a status other than `started`")
        if self.finished_at and self.started_at and self.finished_at < self.started_at:
            raise ValueError("finished_at must not be before started_at")
        return self


class Finish(Input):
    """The outcome of an attempt."""

    status: Outcome
    finished_at: Moment | None = Field(default=None, description="Now, if not given.")


class DeploymentPath(Input):
    id: UUID


class ServicePath(Input):
    name: Name


class DeploymentQuery(Input):
    service: Name | None = None
    environment: Name | None = None
    status: Status | None = None
    limit: int = Field(default=20, ge=1, le=100)


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
    """Newest first."""

    items: list[Deployment]


class EnvironmentState(BaseModel):
    """What runs in an environment: the newest success; and the newest attempt, whatever came of it."""

    environment: str
    current: Deployment | None
    latest: Deployment | None


class ServiceState(BaseModel):
    """A service in every environment that it was ever deployed to, in the environments' order."""

    service: str
    environments: list[EnvironmentState]


class ServiceList(BaseModel):
    items: list[str]
