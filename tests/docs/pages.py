"""The repository's Markdown pages, read by a CommonMark parser: their code, links, headings and prose."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Block:
    """A block of code; `kind` is the fence's info string, empty for code that is only indented."""

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Page:
    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.path.read_text())

    @cached_property
    def inline(self) -> list[Token]:
        return [child for token in self.tokens for child in token.children or []]

    @property
    def blocks(self) -> list[Block]:
        return [
            Block(str(self), token.map[0] + 1 if token.map else 0, token.info.strip(), token.content)
            for token in self.tokens
            if token.type in ("fence", "code_block")
        ]

    @property
    def links(self) -> list[str]:
        """Targets of the links and images."""
        targets = [token.attrGet("href") or token.attrGet("src") for token in self.inline]
        return [str(link) for link in targets if link]

    @property
    def code(self) -> list[str]:
        """Inline code."""
        return [token.content for token in self.inline if token.type == "code_inline"]

    @cached_property
    def anchors(self) -> set[str]:
        """The headings' anchors, as GitHub generates them."""
        texts = [self.tokens[n + 1].content for n, token in enumerate(self.tokens) if token.type == "heading_open"]
        anchors: set[str] = set()
        for text in texts:
            anchor = re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "]", text).lower()).replace(" ", "-")
            number = next(n for n in range(len(texts)) if (f"{anchor}-{n}" if n else anchor) not in anchors)
            anchors.add(f"{anchor}-{number}" if number else anchor)
        return anchors


def tracked() -> Iterator[Path]:
    """Yield the repository's files, including new ones that are not added yet."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            yield ROOT / name


FILES = sorted(set(tracked()))
PAGES = [Page(path) for path in FILES if path.suffix == ".md"]
BLOCKS = [block for page in PAGES for block in page.blocks]
