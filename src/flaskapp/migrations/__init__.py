"""Alembic's revisions. Expand first, contract a release later: the previous release serves on the new schema."""
