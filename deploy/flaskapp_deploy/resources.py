"""Where the files lie that come with the command: the chart, the Dockerfile, the values of environments."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
