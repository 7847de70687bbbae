"""A blueprint that validates input, with errors that say which field broke which rule; JSON requests and responses."""

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
    """A blueprint that flask-openapi3 documents, with its own parsing of requests.

    flask-openapi3's parsing answers bad JSON, a wrong content type and a broken rule all alike, and builds a JSON
    schema for every request with a query.
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
        """Wrap a view: parse each part of the request with its model, and answer 422 with all errors at once."""

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
    """Parse one part of the request into `inputs`, and add what is wrong to `errors`.

    Raises:
        ProblemError: 400, the body is not JSON.
    """
    try:
        inputs[part] = parse()
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        if details[0]["type"] == "json_invalid":
            reason = details[0]["msg"].removeprefix("Invalid JSON: ")
            raise ProblemError(400, f"The body is not JSON: {reason}.") from None
        errors += [(".".join(map(str, (part, *item["loc"]))), item["msg"]) for item in details]


def headers(model: type[BaseModel]) -> dict[str, str]:
    """Return the request's headers that the model has fields for."""
    names = [field.alias or name for name, field in model.model_fields.items()]
    return {name: request.headers[name] for name in names if name in request.headers}


def single_arguments(errors: Errors) -> dict[str, str]:
    """Return the query's parameters; one that is repeated is an error."""
    errors += [(f"query.{name}", "given more than once") for name, v in request.args.lists() if len(v) > 1]
    return request.args.to_dict()


def json_body() -> bytes:
    """Return the request's body.

    Raises:
        ProblemError: 415, the content type is not JSON; 400, the body is incomplete or its chunks are malformed.
    """
    if request.mimetype != "application/json":
        raise ProblemError(415, "The body must be JSON, sent with `Content-Type: application/json`.")
    try:
        return request.get_data()
    except HTTPException:
        raise
    except Exception:  # gunicorn's parser raises its own errors for malformed chunks
        raise ProblemError(400, "The body ended or broke before its end.", headers={"Connection": "close"}) from None


def json_response(content: str | None, status: int = 200, **headers: str) -> Response:
    """Build the response from PostgreSQL's JSON; reads get an ETag, and 304 if the client has that content already."""
    assert content is not None
    body = f"{content}\n".encode()
    if request.method not in {"GET", "HEAD"}:
        return Response(body, status, headers, content_type="application/json")
    headers |= {"ETag": f'"{blake2b(body, digest_size=12).hexdigest()}"', "Cache-Control": "private, no-cache"}
    response = Response(body, status, headers, content_type="application/json")
    if "If-None-Match" in request.headers:
        response.make_conditional(request)
    return response
