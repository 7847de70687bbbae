"""Measurements and calculations: every figure in the documents comes from a command here."""
