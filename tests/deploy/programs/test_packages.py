"""Packages of the distribution: no service is started, and nothing of that stays."""

from pathlib import Path

import pytest

from flaskapp_deploy.programs import packages


@pytest.mark.parametrize(
    ("before", "after"), [(None, None), (packages.NO, None), ("#!/bin/sh\nexit 0\n", "#!/bin/sh\nexit 0\n")]
)
def test_the_policy_of_services(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: str | None, after: str | None
) -> None:
    """What a killed command left goes as well; the machine's own stays."""
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(packages, "POLICY", policy)
    if before:
        policy.write_text(before)
    with packages._no_services():
        assert policy.read_text() == (after or packages.NO)
        assert after or policy.stat().st_mode & 0o111
    assert (policy.read_text() if policy.exists() else None) == after
