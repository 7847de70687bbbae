"""infra/README.md: its figures, and its commands as far as they can be checked without AWS."""

import re
import subprocess

import botocore.session  # type: ignore[import-untyped]
import pytest
import yaml
from botocore import xform_name

from benchmarks.cost.__main__ import BOOK
from tests.infra import template as t

README = (t.INFRA / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def bash(script: str, **environment: str) -> str:
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=t.INFRA.parent, env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_file_is_named() -> None:
    for path in t.INFRA.iterdir():
        if path.name != "README.md":
            assert f"`{path.name}`" in README, path.name


def test_filled_files_have_no_placeholder() -> None:
    function = next(line for block in BLOCKS for line in block.splitlines() if line.startswith("filled()"))
    used = set(re.findall(r"\bfilled ([a-z-]+)", README))
    others = set(t.INFRA.glob("*.yaml")) - set(t.paths())
    assert used == {path.stem for path in others if re.search(r"\b(ACCOUNT|REGION|VPC)", path.read_text())}
    for name in used:
        text = bash(f"{function}\nfilled {name}", ACCOUNT="123456789012", AWS_REGION="us-east-1", VPC="vpc-0123")
        assert list(yaml.safe_load_all(text))
        settings = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
        assert not re.search(r"ACCOUNT|REGION|VPC", settings), name


def test_every_template_is_deployed_with_what_it_needs() -> None:
    commands = dict(re.findall(r"^deploy ([a-z]+)(.*)$", README, re.MULTILINE))
    assert set(commands) == {path.stem for path in t.paths()}
    for name, rest in commands.items():
        needed = {key for key, parameter in t.load(name)["Parameters"].items() if "Default" not in parameter}
        assert set(re.findall(r"(\w+)=", rest)) == needed, name


def test_outputs_exist() -> None:
    used = re.findall(r"\$\(output ([a-z]+) (\w+)\)", README)
    assert used
    for template, output in used:
        assert output in t.load(template)["Outputs"], f"{template}: {output}"


def test_every_chart_has_a_version_and_values() -> None:
    installs = re.findall(r"^.*helm upgrade --install (?:.*\\\n)*.*$", README, re.MULTILINE)
    names = re.findall(r"helm upgrade --install ([a-z-]+)", README)
    assert len(names) == 4
    for command in installs:
        assert re.search(r"--version \d+\.\d+\.\d+\b", command), command
    for name in names:
        assert (t.INFRA / f"{name}.yaml").is_file()


# What the AWS CLI adds to the services' own operations: docs.aws.amazon.com/cli.
OF_THE_CLI = {"cloudformation deploy", "cloudformation wait", "logs tail", "s3 ls"}


def aws_commands() -> list[tuple[str, str, str]]:
    """Return service, operation and options of each command, including those within sentences."""
    text = "\n".join([*BLOCKS, *re.findall(r"`(aws [^`]+)`", README)]).replace("\\\n", " ")
    return re.findall(r"\baws ([a-z0-9-]+) ([a-z0-9-]+)([^|)\n#;]*)", text)


def unknown(service: str, operation: str, options: str) -> list[str]:
    """Return the parts of a command that AWS's model of the service does not have."""
    model = botocore.session.get_session().get_service_model(service)
    operations = {xform_name(name, "-"): name for name in model.operation_names}
    if operation not in operations:
        return [operation]
    shape = model.operation_model(operations[operation])
    parameters = {xform_name(name, "-") for name in shape.input_shape.members} | {"query", "output"}
    wrong = [
        name for name in re.findall(r"\s--([a-z0-9-]+)", options) if not {name, name.removeprefix("no-")} & parameters
    ]
    for query in re.findall(r"--query [\"']?([^\s\"']+)", options):
        inner = shape.output_shape
        for step in re.sub(r"\[[^\]]*\]?", "", query).split("."):
            inner = inner.member if inner.type_name == "list" else inner
            inner = inner.members.get(step)
            if inner is None:
                wrong.append(query)
                break
    return wrong


def test_aws_knows_every_command() -> None:
    commands = aws_commands()
    assert len(commands) >= 25
    for service, operation, options in commands:
        if f"{service} {operation}" not in OF_THE_CLI:
            assert unknown(service, operation, options) == [], f"aws {service} {operation}{options}"


@pytest.mark.parametrize(
    "command",
    [
        "eks describe-clusters --name x",
        "eks describe-cluster --cluster x",
        "eks describe-cluster --name x --query cluster.vpcId",
        "ec2 describe-subnets --query 'Subnets[].Id'",
    ],
)
def test_a_wrong_command_is_found(command: str) -> None:
    service, operation, options = command.split(" ", 2)
    assert unknown(service, operation, f" {options}") != []


def test_the_arithmetic_of_credits() -> None:
    month, node, surplus = BOOK["hours"], BOOK["prices"]["node"]["price"], BOOK["prices"]["surplus"]["price"]
    assert f"= ${(2 - 0.4) * surplus * month:.2f} a node, above the ${node * month:.2f}" in README
    assert f"as much as {node / surplus:.2f} vCPU of surplus" in README


def test_the_price_of_a_release() -> None:
    """A release costs at most its project's timeout in minutes."""
    text = " ".join(README.split())
    price = BOOK["prices"]["build"]["price"]
    minutes = t.load("codebuild")["Resources"]["Release"]["Properties"]["TimeoutInMinutes"]
    assert f"costs ${price} a minute" in text
    assert f"after {minutes} minutes, so by that price a release costs ${minutes * price:.2f} at most" in text
    assert f"twenty minutes of it ${20 * price:.2f}" in text
