"""Which GitHub events start which project: the filters, evaluated as CodeBuild does, on hostile values.

A build starts when every filter of any one group matches; a pattern is searched in the value, not matched to all of it.
https://docs.aws.amazon.com/codebuild/latest/APIReference/API_WebhookFilter.html
"""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.infra import template as t

PARAMETERS = {"Branch": "main", "TrustedActors": "1234567|89"}
RELEASE_TAG = "refs/tags/v1.2.3"
PULL_REQUEST = {"EVENT": "PULL_REQUEST_UPDATED", "BASE_REF": "refs/heads/main", "HEAD_REF": "refs/heads/fix"}


def groups(project: str) -> list[list[dict[str, Any]]]:
    filter_groups: list[list[dict[str, Any]]] = t.load("codebuild")["Resources"][project]["Properties"]["Triggers"][
        "FilterGroups"
    ]
    return filter_groups


def starts(filters: list[list[dict[str, Any]]], **event: str) -> bool:
    return any(all(passes(each, event) for each in group) for group in filters)


def passes(each: dict[str, Any], event: dict[str, str]) -> bool:
    pattern = t.substituted(each["Pattern"], **PARAMETERS)
    if each["Type"] == "EVENT":
        matched = event["EVENT"] in [name.strip() for name in pattern.split(",")]
    else:
        matched = re.search(pattern, event.get(each["Type"], "")) is not None
    return matched is not bool(each.get("ExcludeMatchedPattern", False))


@pytest.mark.parametrize("actor", ["1234567", "89"])
def test_what_starts(actor: str) -> None:
    assert starts(groups("Release"), EVENT="PUSH", HEAD_REF="refs/heads/main", ACTOR_ACCOUNT_ID=actor)
    assert starts(groups("Release"), EVENT="PUSH", HEAD_REF=RELEASE_TAG, ACTOR_ACCOUNT_ID=actor)
    assert starts(groups("PullRequest"), ACTOR_ACCOUNT_ID=actor, **PULL_REQUEST)


# Ids that contain, begin or end with a trusted one: GitHub assigns ids in order, so an attacker can wait for one.
ACTORS = [
    "12345678",
    "01234567",
    "91234567",
    "123456",
    "890",
    "189",
    "8",
    "9",
    "1234567|89",
    "1234567 ",
    "x89",
    "",
    "-89",
]


@pytest.mark.parametrize("actor", ACTORS)
def test_strangers_start_nothing(actor: str) -> None:
    for ref in ("refs/heads/main", RELEASE_TAG):
        assert not starts(groups("Release"), EVENT="PUSH", HEAD_REF=ref, ACTOR_ACCOUNT_ID=actor)
    assert not starts(groups("PullRequest"), ACTOR_ACCOUNT_ID=actor, **PULL_REQUEST)


REFS = [
    "refs/heads/main2", "refs/heads/main/x", "refs/heads/x/main", "refs/heads/xmain", "refs/heads/domain", "main",
    "refs/heads/refs/heads/main", "refs/tags/refs/heads/main", "refs/heads/refs/tags/v1.2.3", "refs/heads/v1.2.3",
    "refs/tags/main", "refs/tags/v1.2.3-rc.1", "refs/tags/v1.2.3+x", "refs/tags/v1.2", "refs/tags/v1.2.3.4",
    "refs/tags/1.2.3",
    "refs/tags/v01.2.3", "refs/tags/v1x2x3", "refs/tags/xv1.2.3", "refs/tags/v1.2.3/x", "refs/tags/x/v1.2.3",
    "refs/pull/7/head", "refs/pull/7/merge", "refs/heads/MAIN", "",
]  # fmt: skip


@pytest.mark.parametrize("ref", REFS)
def test_other_branches_and_tags_release_nothing(ref: str) -> None:
    assert not starts(groups("Release"), EVENT="PUSH", HEAD_REF=ref, ACTOR_ACCOUNT_ID="89")


EVENTS = ["PULL_REQUEST_CREATED", "PULL_REQUEST_UPDATED", "PULL_REQUEST_REOPENED", "PULL_REQUEST_MERGED", "RELEASED",
          "PRERELEASED", "PULL_REQUEST_CLOSED", "WORKFLOW_JOB_QUEUED"]  # fmt: skip


@pytest.mark.parametrize("event", EVENTS)
def test_a_fork_releases_nothing(event: str) -> None:
    """Only pushes to this repository release, whatever a pull request's branch or author."""
    assert not starts(
        groups("Release"), EVENT=event, HEAD_REF="refs/heads/main", BASE_REF="refs/heads/main", ACTOR_ACCOUNT_ID="89"
    )


@pytest.mark.parametrize("head", ["refs/heads/main", "refs/heads/1234567", RELEASE_TAG, "refs/heads/refs/heads/main"])
def test_a_strangers_fork_tests_nothing(head: str) -> None:
    assert not starts(groups("PullRequest"), **{**PULL_REQUEST, "HEAD_REF": head, "ACTOR_ACCOUNT_ID": "12345678"})


def test_a_trusted_authors_fork_still_needs_a_comment() -> None:
    triggers = t.load("codebuild")["Resources"]["PullRequest"]["Properties"]["Triggers"]
    policy = triggers["PullRequestBuildPolicy"]
    assert policy["RequiresCommentApproval"] == "FORK_PULL_REQUESTS"
    assert set(policy["ApproverRoles"]) <= {"GITHUB_MAINTAIN", "GITHUB_ADMIN"}


@pytest.mark.parametrize("base", ["refs/heads/main2", "refs/heads/x/main", "refs/heads/other"])
def test_pull_requests_into_other_branches_test_nothing(base: str) -> None:
    assert not starts(groups("PullRequest"), **{**PULL_REQUEST, "BASE_REF": base, "ACTOR_ACCOUNT_ID": "89"})


# --- mutations ------------------------------------------------------------------------------------------------------


def without(old: str, new: str) -> Callable[[str], str]:
    return lambda pattern: pattern.replace(old, new)


@pytest.mark.parametrize(
    ("kind", "change", "event"),
    [
        ("ACTOR_ACCOUNT_ID", without("^(", "("), {"HEAD_REF": "refs/heads/main", "ACTOR_ACCOUNT_ID": "189"}),
        ("ACTOR_ACCOUNT_ID", without(")$", ")"), {"HEAD_REF": "refs/heads/main", "ACTOR_ACCOUNT_ID": "890"}),
        ("ACTOR_ACCOUNT_ID", lambda p: p.replace("(", "").replace(")", ""),
         {"HEAD_REF": "refs/heads/main", "ACTOR_ACCOUNT_ID": "12345678"}),
        ("HEAD_REF", without("^", ""), {"HEAD_REF": "refs/heads/refs/heads/main", "ACTOR_ACCOUNT_ID": "89"}),
        ("HEAD_REF", without("$", ""), {"HEAD_REF": "refs/heads/main2", "ACTOR_ACCOUNT_ID": "89"}),
        ("HEAD_REF", without("\\.", "."), {"HEAD_REF": "refs/tags/v1x2x3", "ACTOR_ACCOUNT_ID": "89"}),
    ],
    ids=["id begins", "id ends", "no brackets", "ref begins", "ref ends", "any character"],
)  # fmt: skip
def test_a_loose_pattern_would_let_it_in(kind: str, change: Callable[[str], str], event: dict[str, str]) -> None:
    """The hostile values above pass filters that are not anchored."""
    filters = copy.deepcopy(groups("Release"))
    for group in filters:
        for each in group:
            if each["Type"] == kind:
                each["Pattern"] = change(t.substituted(each["Pattern"], **PARAMETERS))
    assert starts(filters, EVENT="PUSH", **event)
    assert not starts(groups("Release"), EVENT="PUSH", **event)
