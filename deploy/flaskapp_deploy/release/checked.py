"""Files read into dataclasses: an unknown, missing or wrong key is named in one line."""

import difflib
from collections.abc import Collection, Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from flaskapp_deploy.shell import DeployError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic_core import ErrorDetails

T = TypeVar("T", bound="DataclassInstance")
WRONG = {
    "string_type": "must be a string",
    "path_type": "must be a path",
    "tuple_type": "must be a list",
    "dataclass_type": "must be a table of keys",
}


class Part:
    """A dataclass that takes no other keys than its own."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


def read(kind: type[T], content: object, source: str) -> T:
    """Make a `kind`, a dataclass, of what a file holds.

    Raises:
        DeployError: keys are unknown, missing or wrong; it names them, and the file as `source`.
    """
    from pydantic import TypeAdapter, ValidationError  # only here: most of the command's words read no such file

    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        names = [field.name for field in fields(kind)]
        raise DeployError(f"{source}: {'; '.join(_problems(error.errors(), names))}") from None


def _problems(errors: Iterable["ErrorDetails"], names: Collection[str]) -> Iterable[str]:
    for error in errors:
        key = ".".join(map(str, error["loc"])) or "the file"
        if error["type"] == "missing":
            yield f"{key!r} is missing"
        elif error["type"] == "unexpected_keyword_argument":
            near = difflib.get_close_matches(key, names, 1)
            yield f"{key!r} is unknown" + (f", did you mean {near[0]!r}?" if near else "")
        else:
            yield f"{key!r} {WRONG.get(error['type'], error['msg'])}"
