"""HTML pages, from the same statements as the API. They are read-only, so there is no session and no CSRF token."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

from flask import Blueprint, render_template, request
from pydantic import ValidationError

from flaskapp import plots
from flaskapp.api import deployments, dora, failures, services
from flaskapp.api.schemas import DeploymentPath, DeploymentQuery, DiffQuery, DoraQuery, ServicePath
from flaskapp.headers import protect
from flaskapp.problems import BROKEN_RULE, ProblemError

pages = Blueprint("pages", __name__, static_folder="static")
pages.after_request(protect)

SHOWN = 50  # deployments on a service's page
STEPS = ((86400 * 365, "year"), (86400 * 30, "month"), (86400, "day"), (3600, "hour"), (60, "minute"))


@pages.get("/")
def overview() -> str:
    """Show what runs where, and since when."""
    return render_template("overview.html", **json.loads(services.OVERVIEW.run() or "{}"))


@pages.get("/services/<name>")
def service(name: str) -> str:
    """Show a service: its state in each environment, and its latest deployments."""
    state = json.loads(services.state(checked(ServicePath, name=name).name))
    items = json.loads(deployments.page(DeploymentQuery(service=name, limit=SHOWN)))["items"]
    names = [row["environment"] for row in state["environments"]]
    return render_template("service.html", state=state, items=items, plot=plots.timeline(items, names))


@pages.get("/deployments/<id>")
def deployment(id: str) -> str:
    """Show a deployment and its failure reports."""
    path = checked(DeploymentPath, id=id)
    document = json.loads(deployments.existing(path.id))
    reports = json.loads(failures.LIST.run({"id": path.id}) or "{}")["items"]
    return render_template("deployment.html", deployment=document, reports=reports)


@pages.get("/diff")
def diff() -> str:
    """Show which services differ between two environments, by default the last two."""
    names = environments()
    if len(names) < 2 and not request.args:
        return render_template("diff.html", names=names, items=None, query=None)
    arguments = {"from": names[-2], "to": names[-1]} if not request.args else request.args.to_dict()
    query = checked(DiffQuery, **arguments)
    items = json.loads(services.difference(query))["items"]
    return render_template("diff.html", names=names, items=items, query=query)


@pages.get("/dora")
def figures() -> str:
    """Show the DORA metrics of an environment, by default the last one."""
    names = environments()
    document = json.loads(services.LIST.run() or "{}")["items"]
    arguments = {name: value for name, value in request.args.items() if value}
    if not names and not arguments:
        return render_template("dora.html", names=names, services=document, figures=None)
    query = checked(DoraQuery, **{"environment": names[-1] if names else "", **arguments})
    answer = json.loads(dora.figures(query))
    return render_template(
        "dora.html", names=names, services=document, figures=answer, plot=plots.days(answer["daily"])
    )


def environments() -> list[str]:
    """Return the names of all environments, in their order."""
    names: list[str] = json.loads(services.ENVIRONMENTS.run() or "{}")["items"]
    return names


def checked(model: Any, **values: str) -> Any:
    """Validate a query or path as the API does.

    Raises:
        ProblemError: 422, with each rule that is broken.
    """
    try:
        return model.model_validate_strings(values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        raise ProblemError(422, BROKEN_RULE, [(".".join(map(str, e["loc"])), e["msg"]) for e in details]) from None


@pages.app_template_filter("moment")
def moment(text: str) -> datetime:
    """Parse a time of the API."""
    return datetime.fromisoformat(text)


@pages.app_template_filter("ago")
def ago(then: datetime) -> str:
    """Return how long ago a time was, such as `3 hours ago` or `just now`."""
    seconds = (datetime.now(UTC) - then).total_seconds()
    for size, unit in STEPS:
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


@pages.app_template_filter("lasting")
def lasting(seconds: float | None) -> str:
    """Return a duration in two units at most, such as `2 d 3 h` or `4 min`; `n/a` for None."""
    if seconds is None:
        return "n/a"
    length = timedelta(seconds=round(seconds))
    hours, rest = divmod(length.seconds, 3600)
    parts = ((length.days, "d"), (hours, "h"), (rest // 60, "min"), (rest % 60, "s"))
    shown = [f"{count} {unit}" for count, unit in parts if count]
    return " ".join(shown[:2]) or "0 s"


@pages.app_template_filter("day")
def day(text: str) -> str:
    """Return an ISO date as, for example, `3 Feb`."""
    return date.fromisoformat(text).strftime("%-d %b")
