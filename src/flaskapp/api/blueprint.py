"""A blueprint whose views take checked input and whose refusals say which field broke which rule."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from pydantic import BaseModel, ValidationError

from flaskapp.database import watch
from flaskapp.problems import BROKEN_RULE, ProblemError

Errors = list[tuple[str, str]]


class ApiBlueprint(APIBlueprint):
    """flask-openapi3 describes the views; reading the request is done here.

    Its own reading answers bad JSON, a wrong type of content and a broken rule all alike, and builds a JSON schema anew
    for every request that has a query.
    """

    def __init__(self, name: str):
        super().__init__(name, name, url_prefix="/api/v1")
        self.before_request(lambda: watch().require())

    @staticmethod
    def create_view_func(  # type: ignore[no-untyped-def, override]
        func, header, cookie, path, query, form, body, raw, view_class=None, view_kwargs=None, **options
    ) -> Callable[..., Response]:
        @wraps(func)
        def view(**values: Any) -> Response:
            given: dict[str, BaseModel] = {}
            errors: Errors = []
            if path:
                read(path, "path", lambda: path.model_validate_strings(values), given, errors)
            if query:
                read(query, "query", lambda: query.model_validate_strings(single_arguments(errors)), given, errors)
            elif request.args:
                errors += [(f"query.{name}", "unknown parameter") for name in request.args]
            if body:
                content = json_body()
                read(body, "body", lambda: body.model_validate_json(content), given, errors)
            if errors:
                raise ProblemError(422, BROKEN_RULE, errors)
            answer: Response = func(**given)
            return answer

        return view


def read(
    model: type[BaseModel], part: str, parse: Callable[[], BaseModel], given: dict[str, BaseModel], errors: Errors
) -> None:
    try:
        given[part] = parse()
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        if found[0]["type"] == "json_invalid":
            reason = found[0]["msg"].removeprefix("Invalid JSON: ")
            raise ProblemError(400, f"The body is not JSON: {reason}.") from None
        errors += [(".".join(map(str, (part, *item["loc"]))), item["msg"]) for item in found]


def single_arguments(errors: Errors) -> dict[str, str]:
    """The query's parameters; one that comes twice is an error, as is one that is not UTF-8."""
    errors += [(f"query.{name}", "given more than once") for name, v in request.args.lists() if len(v) > 1]
    return request.args.to_dict()


def json_body() -> bytes:
    if request.mimetype != "application/json":
        raise ProblemError(415, "The body must be JSON, sent with `Content-Type: application/json`.")
    return request.get_data(cache=False)


def json_response(content: str, status: int = 200, **headers: str) -> Response:
    """An answer from JSON that PostgreSQL built."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(content + "\n", status, named, content_type="application/json")
