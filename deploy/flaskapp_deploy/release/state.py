"""release.json: what each step of a release leaves for the next ones, and for people who ask later."""

import json
import shlex
import shutil
from dataclasses import asdict, dataclass
from typing import Literal, TypeVar

from flaskapp_deploy.release import checked
from flaskapp_deploy.resources import PROJECT
from flaskapp_deploy.shell import DeployError, write_atomic

FOLDER = PROJECT / "build/release"
FILE = "release.json"
T = TypeVar("T")
Status = Literal["started", "succeeded", "rolled_back", "failed"]
Scanned = Literal["passed", "not checked"]  # scan.json has the details


@dataclass(frozen=True)
class Base(checked.Part):
    """The base of one platform's image; `stand_in` where no registry served it."""

    reference: str
    digest: str
    platform: str
    stand_in: bool = False


@dataclass(frozen=True)
class Artifact(checked.Part):
    """What a registry keeps under a digest, such as the chart; `repository` begins with its host."""

    repository: str
    digest: str

    @property
    def reference(self) -> str:
        """HOST/REPOSITORY@sha256:…."""
        return f"{self.repository}@{self.digest}"


@dataclass(frozen=True)
class Image(Artifact):
    """The index of an image; `platforms` has the digest of each platform's, by `linux/arm64` etc."""

    platforms: dict[str, str]
    bases: tuple[Base, ...]


@dataclass(frozen=True)
class Outcome(checked.Part):
    """What came of `helm upgrade`; `started` until it ends."""

    status: Status
    environment: str
    started_at: str
    finished_at: str | None = None


@dataclass(frozen=True)
class ReleaseState(checked.Part):
    """All of release.json: the commit and its versions, then what each step added."""

    version: str
    chart_version: str
    commit: str
    committed_at: str
    tag: str
    source: str
    build: Image | None = None
    scan: Scanned | None = None
    image: Image | None = None
    chart: Artifact | None = None
    outcome: Outcome | None = None
    pending_records: tuple[str, ...] = ()


def begin(release: ReleaseState) -> None:
    """Begin anew: what an earlier release left is not this one's."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    save(release)


def find() -> ReleaseState | None:
    """Read release.json, if there is one; refuse it where it is broken, or of another version of this command."""
    path = FOLDER / FILE
    if not path.exists():
        return None
    try:
        return checked.read(ReleaseState, json.loads(path.read_text()), FILE)
    except (ValueError, DeployError) as error:
        problem = f"{FILE} is no JSON: {error}" if isinstance(error, ValueError) else error
        raise DeployError(f"{problem}; `deploy/flaskapp-deploy version` begins a new one") from None


def load() -> ReleaseState:
    """Read release.json, which `version` must have begun."""
    return require("version", find())


def require(step: str, part: T | None) -> T:
    """Return what a step left in release.json; fail where the step was left out."""
    if part is None:
        raise DeployError(f"{FILE} has nothing of the step {step!r}: run `deploy/flaskapp-deploy {step}` first")
    return part


def save(release: ReleaseState) -> None:
    """Write release.json, without what no step has added yet."""
    content = asdict(release, dict_factory=lambda items: {key: value for key, value in items if value is not None})
    write_atomic(FOLDER / FILE, json.dumps(content, indent=2, sort_keys=True) + "\n")


def exports() -> list[str]:
    """Return lines for the shell: export VERSION, CHART_VERSION, IMAGE_DIGEST and CHART_DIGEST, as far as known."""
    release = find()
    values = {
        "VERSION": release and release.version,
        "CHART_VERSION": release and release.chart_version,
        "IMAGE_DIGEST": release and release.image and release.image.digest,
        "CHART_DIGEST": release and release.chart and release.chart.digest,
    }
    return [f"export {name}={shlex.quote(value or '')}" for name, value in values.items()]
