"""Which revisions of the schema this code knows and can serve on; free of Alembic, which only commands need."""

from pathlib import Path

# Revisions are numbered, and their files begin with the number.
KNOWN = tuple(sorted(path.name.split("_")[0] for path in Path(__file__).parent.glob("migrations/versions/[0-9]*.py")))
NEWEST = KNOWN[-1]


def serves(revision: str | None) -> bool:
    """Whether this code can serve on a schema at this revision: its own newest, or one newer than it knows.

    The previous release serves on the new schema, so an unknown revision is a newer one and well.
    """
    return revision is not None and (revision == NEWEST or revision not in KNOWN)
