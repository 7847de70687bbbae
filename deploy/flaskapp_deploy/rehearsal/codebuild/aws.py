"""`aws` for a build without AWS: it says what was recorded for a few calls, and fails loudly for every other.

    aws.py ANSWERS SERVICE OPERATION …

ANSWERS is a JSON file {"service operation": answer}. A text is printed; an object is printed as JSON, or by
`--query KEY --output text` one value of it. The answer to `eks update-kubeconfig` is a file, copied to KUBECONFIG.
"""

import json
import os
import shutil
import sys
from pathlib import Path

# The AWS CLI's own code for a command line that it can't run.
# https://docs.aws.amazon.com/cli/latest/userguide/cli-usage-returncodes.html
UNKNOWN = 252


def main(arguments: list[str]) -> int:
    answers = json.loads(Path(arguments[0]).read_text())
    words = arguments[1:]
    call = " ".join(words[:2])
    if call not in answers:
        print(f"aws: there is no recorded answer for `aws {' '.join(words)}`", file=sys.stderr)
        return UNKNOWN
    answer = answers[call]
    if call == "eks update-kubeconfig":
        target = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube/config")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(answer, target)
        print(f"Updated context {option(words, '--name')} in {target}")
    elif isinstance(answer, str):
        print(answer)
    elif (key := option(words, "--query")) and option(words, "--output") == "text":
        print(answer[key])
    else:
        print(json.dumps(answer, indent=4))
    return 0


def option(words: list[str], name: str) -> str:
    """The word after an option, or none."""
    return words[words.index(name) + 1] if name in words[:-1] else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
