"""Command lines whose expected errors are one line on standard error and exit code 1."""

from typing import Any

import click

import tools
from localcluster import ClusterError


class Commands(click.Group):
    """A group of commands; `expected` are the errors whose message says it all."""

    expected: tuple[type[Exception], ...] = (ClusterError, tools.ToolError)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except self.expected as error:
            raise click.ClickException(str(error)) from error
