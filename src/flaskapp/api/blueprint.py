"""A blueprint whose views take checked input and whose refusals say which field broke which rule."""

from collections.abc import Callable
from functools import wraps
from hashlib import blake2b
from typing import Any

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import HTTPException

from flaskapp.problems import BROKEN_RULE, ProblemError, described

Errors = list[tuple[str, str]]


class ApiBlueprint(APIBlueprint):
    """flask-openapi3 describes the views; reading the request is done here.

    Its own reading answers bad JSON, a wrong type of content and a broken rule all alike, and builds a JSON schema anew
    for every request that has a query.
    """

    def __init__(self, name: str, tags: list[Tag]):
        super().__init__(
            name,
            name,
            url_prefix="/api/v1",
            abp_tags=tags,
            abp_responses=described(400, 401, 403, 422, 503),
            abp_security=[{"token": []}, {}],
            operation_id_callback=lambda *, bp_name, name, path, method: f"{bp_name}.{name}",
        )

    @staticmethod
    def create_view_func(  # type: ignore[no-untyped-def, override]
        func, header, cookie, path, query, form, body, raw, view_class=None, view_kwargs=None, **options
    ) -> Callable[..., Response]:
        @wraps(func)
        def view(**values: Any) -> Response:
            inputs: dict[str, BaseModel] = {}
            errors: Errors = []
            if path:
                read(path, "path", lambda: path.model_validate_strings(values), inputs, errors)
            if header:
                read(header, "header", lambda: header.model_validate_strings(headers(header)), inputs, errors)
            if query:
                read(query, "query", lambda: query.model_validate_strings(single_arguments(errors)), inputs, errors)
            elif request.query_string:
                errors += [(f"query.{name}", "unknown parameter") for name in request.args]
            if body:
                content = json_body()
                read(body, "body", lambda: body.model_validate_json(content), inputs, errors)
            if errors:
                raise ProblemError(422, BROKEN_RULE, errors)
            answer: Response = func(**inputs)
            return answer

        return view


def read(
    model: type[BaseModel], part: str, parse: Callable[[], BaseModel], inputs: dict[str, BaseModel], errors: Errors
) -> None:
    try:
        inputs[part] = parse()
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        if details[0]["type"] == "json_invalid":
            reason = details[0]["msg"].removeprefix("Invalid JSON: ")
            raise ProblemError(400, f"The body is not JSON: {reason}.") from None
        errors += [(".".join(map(str, (part, *item["loc"]))), item["msg"]) for item in details]


def headers(model: type[BaseModel]) -> dict[str, str]:
    names = [field.alias or name for name, field in model.model_fields.items()]
    return {name: request.headers[name] for name in names if name in request.headers}


def single_arguments(errors: Errors) -> dict[str, str]:
    """The query's parameters; one that comes twice is an error."""
    errors += [(f"query.{name}", "given more than once") for name, v in request.args.lists() if len(v) > 1]
    return request.args.to_dict()


def json_body() -> bytes:
    if request.mimetype != "application/json":
        raise ProblemError(415, "The body must be JSON, sent with `Content-Type: application/json`.")
    try:
        return request.get_data()
    except HTTPException:
        raise
    except Exception:  # the server's own parser stumbles over broken chunks, in words of its own
        raise ProblemError(400, "The body ended or broke before its end.", headers={"Connection": "close"}) from None


def json_response(content: str | None, status: int = 200, **headers: str) -> Response:
    """An answer from JSON that PostgreSQL built; what was read has an ETag: who has it already gets 304 and no body."""
    assert content is not None
    body = f"{content}\n".encode()
    if request.method not in {"GET", "HEAD"}:
        return Response(body, status, headers, content_type="application/json")
    headers |= {"ETag": f'"{blake2b(body, digest_size=12).hexdigest()}"', "Cache-Control": "private, no-cache"}
    response = Response(body, status, headers, content_type="application/json")
    if "If-None-Match" in request.headers:
        response.make_conditional(request)
    return response
