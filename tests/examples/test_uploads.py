"""examples/uploads: a file on the volume outlives an upgrade, and the release itself."""

from collections.abc import Callable

from flaskapp_deploy.kubernetes import Cluster
from tests.examples.own import OwnExample
from tests.reliability.test_release import get


def test_a_file_survives(releaser: Callable[[str], Cluster], references: dict[str, str]) -> None:
    example = OwnExample("uploads", releaser("example-uploads"), references["uploads"])

    def claims() -> dict[str, str]:
        return {claim["metadata"]["name"]: claim["metadata"]["uid"] for claim in get(example.cluster, "pvc")}

    example.upgrade()
    assert example.ask("PUT", "/files/photo", data=1000 * b"\x00\xff").json() == {"bytes": 2000}
    before = claims()
    assert len(before) == 1
    example.change("config.STEP=1")
    assert example.ask("GET", "/files/photo").content == 1000 * b"\x00\xff"
    example.remove()
    assert claims() == before
    example.upgrade()
    assert claims() == before
    assert example.ask("GET", "/files/photo").content == 1000 * b"\x00\xff"
    example.remove()
