"""The cluster's fixtures, for every suite that asks for them."""

pytest_plugins = ["tests.kubernetes"]
