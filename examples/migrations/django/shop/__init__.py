"""A shop's items, with Django."""
