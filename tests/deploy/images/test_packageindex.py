"""pip's settings on this machine, as the build hands them to pip and to uv."""

import os
import subprocess
from pathlib import Path

import pytest

from flaskapp_deploy.images import packageindex


def variables(script: Path) -> dict[str, str]:
    """What a shell exports after reading the script."""
    result = subprocess.run(["env", "-i", "sh", "-c", f". {script}; env"], capture_output=True, text=True, check=True)
    lines = [line.partition("=") for line in result.stdout.splitlines()]
    return {name: value for name, _, value in lines if name not in ("PWD", "_", "SHLVL", "OLDPWD")}


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with no settings of pip."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "PIP_DEFAULT_TIMEOUT", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return monkeypatch


def test_pips_settings_are_uvs_too(pip: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pip.setenv("PIP_INDEX_URL", "https://user:p$ss@index.example.com/simple")
    pip.setenv("PIP_EXTRA_INDEX_URL", "https://one.example.com/simple https://two.example.com/simple")
    pip.setenv("PIP_TRUSTED_HOST", "index.example.com")
    pip.setenv("PIP_RETRIES", "2")
    pip.setenv("PIP_FIND_LINKS", "/a/directory/of/this/machine")
    files = packageindex.secrets(tmp_path, {})
    assert list(files) == ["index"]
    assert variables(files["index"]) == {
        "PIP_INDEX_URL": "https://user:p$ss@index.example.com/simple",
        "PIP_EXTRA_INDEX_URL": "https://one.example.com/simple https://two.example.com/simple",
        "PIP_TRUSTED_HOST": "index.example.com",
        "PIP_RETRIES": "2",
        "UV_DEFAULT_INDEX": "https://user:p$ss@index.example.com/simple",
        "UV_INDEX": "https://one.example.com/simple https://two.example.com/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": "index.example.com",
        "UV_HTTP_RETRIES": "2",
    }
    assert files["index"].stat().st_mode & 0o077 == 0


def test_uvs_own_settings_count_more(pip: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pip.setenv("PIP_INDEX_URL", "https://pip.example.com/simple")
    own = {
        "UV_DEFAULT_INDEX": "https://uv.example.com/simple",
        "UV_INDEX_SHOP_PASSWORD": "secret",
        "UV_CACHE_DIR": "/x",
    }
    exported = variables(packageindex.secrets(tmp_path, own)["index"])
    assert exported["UV_DEFAULT_INDEX"] == "https://uv.example.com/simple"
    assert exported["UV_INDEX_SHOP_PASSWORD"] == "secret"
    assert "UV_CACHE_DIR" not in exported


def test_certificates(pip: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificates = tmp_path / "ca.pem"
    certificates.touch()
    for environment in ({"PIP_CERT": str(certificates)}, {"SSL_CERT_FILE": str(certificates)}):
        for name in ("PIP_CERT", "SSL_CERT_FILE"):
            pip.delenv(name, raising=False)
        for name, value in environment.items():
            pip.setenv(name, value)
        files = packageindex.secrets(tmp_path, environment)
        assert files["ca"] == certificates
        assert variables(files["index"]) == {"PIP_CERT": "/run/secrets/ca", "SSL_CERT_FILE": "/run/secrets/ca"}


def test_no_settings(pip: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert variables(packageindex.secrets(tmp_path, {})["index"]) == {}
