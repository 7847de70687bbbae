"""Alembic's revisions. Each keeps the schema compatible with the previous release (expand, then contract later)."""
