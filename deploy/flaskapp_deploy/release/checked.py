"""Files read into dataclasses: an unknown, missing or wrong key is named in one line."""

import difflib
from collections.abc import Collection
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from flaskapp_deploy.shell import DeployError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
WRONG = {
    "missing": "is missing",
    "string_type": "must be a string",
    "path_type": "must be a path",
    "tuple_type": "must be a list",
    "dataclass_type": "must be a table of keys",
}


class Part:
    """A dataclass that takes no other keys than its own."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


def read(kind: type[T], content: object, source: str) -> T:
    """Make a `kind`, a dataclass, of what a file holds; the error names the file as `source`, and each wrong key."""
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        names = [field.name for field in fields(kind)]
        problems = [_problem(detail, names) for detail in error.errors()]
        raise DeployError(f"{source}: {'; '.join(problems)}") from None


def _problem(error: ErrorDetails, names: Collection[str]) -> str:
    key = ".".join(map(str, error["loc"])) or "the file"
    if error["type"] != "unexpected_keyword_argument":
        return f"{key!r} {WRONG.get(error['type'], error['msg'])}"
    near = difflib.get_close_matches(key, names, 1)
    return f"{key!r} is unknown" + (f", did you mean {near[0]!r}?" if near else "")
