"""helm and kubectl against one cluster, context and namespace."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flaskapp_deploy import programs
from flaskapp_deploy.shell import DeployError, run


@dataclass(frozen=True)
class Cluster:
    """Where commands go: a kubeconfig and context (empty: the user's own) and a namespace."""

    kubeconfig: Path | None
    context: str
    namespace: str

    def program(self, name: str, group: str) -> Path:
        """Return the user's own program for their own cluster, where there is one; else the pinned one."""
        own = None if self.kubeconfig else shutil.which(name)
        return Path(own) if own else programs.program(group, name)

    @property
    def kubectl_line(self) -> str:
        """The beginning of a kubectl command to paste."""
        if self.kubeconfig:
            program = programs.program("kubernetes", "kubectl")
            return f"{program} --kubeconfig {self.kubeconfig} --namespace {self.namespace}"
        return f"kubectl --context {self.context} --namespace {self.namespace}"

    def helm(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run helm; with `check`, a failure is a DeployError with helm's own message."""
        selected = ["--namespace", self.namespace, *(["--kube-context", self.context] if self.context else [])]
        return self._run(self.program("helm", "chart"), [*arguments, *selected], check)

    def kubectl(self, *arguments: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run kubectl, with `stdin` as what `-f -` reads; with `check`, a failure is a DeployError."""
        selected = ["--namespace", self.namespace, *(["--context", self.context] if self.context else [])]
        return self._run(self.program("kubectl", "kubernetes"), [arguments[0], *selected, *arguments[1:]], check, stdin)

    def objects(self, kinds: str, selector: str = "") -> list[dict[str, Any]]:
        """The objects of these kinds in the namespace, with these labels."""
        result = self.kubectl("get", kinds, "--selector", selector, "--output", "json")
        return list(json.loads(result.stdout)["items"])

    def _run(
        self, program: Path, arguments: list[str], check: bool, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        environment = {"KUBECONFIG": str(self.kubeconfig)} if self.kubeconfig else {}
        result = run(program, *arguments, check=False, env=environment, stdin=stdin)
        if check and result.returncode:
            output = result.stderr.strip() or result.stdout.strip()
            raise DeployError(f"{program.name} {arguments[0]} failed: {output.removeprefix('Error: ')}")
        return result
