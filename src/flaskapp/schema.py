"""The schema revisions that this code can serve on, without importing Alembic, which only commands need."""

from pathlib import Path

# Revisions are numbered, and their files begin with the number.
KNOWN = tuple(sorted(path.name.split("_")[0] for path in Path(__file__).parent.glob("migrations/versions/[0-9]*.py")))
NEWEST = KNOWN[-1]


def serves(revision: str | None) -> bool:
    """Return whether this code can serve on a schema at this revision: its own newest, or a later one.

    An unknown revision counts as later: each migration keeps the schema compatible with the previous release.
    """
    return revision is not None and (revision == NEWEST or revision not in KNOWN)
