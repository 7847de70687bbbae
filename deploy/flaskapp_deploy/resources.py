"""Where the files are: those that come with the command (the chart, the Dockerfile, values), and the user's project."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
INSTALLED = PACKAGE / "repository"  # the wheel holds them there (deploy/pyproject.toml)
ROOT = INSTALLED if INSTALLED.is_dir() else PACKAGE.parents[1]
CHART = ROOT / "charts/flaskapp"
PROJECT = Path.cwd()  # holds release.toml, and takes build/release
