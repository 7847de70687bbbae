"""One shell for a whole build: what a command exports, and where it changes to, holds for the next."""

import os
import queue
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4


class Shell:
    """Runs commands one after another in `folder`; their output goes, line by line, to `show`.

    `program` is `bash` or `/bin/sh`; `state` a file of this shell's own.
    """

    def __init__(
        self, program: str, folder: Path, environment: Mapping[str, str], state: Path, show: Callable[[str], None]
    ) -> None:
        self.program, self.folder, self.state, self.show = program, folder, state, show
        self.variables = dict(environment)
        self.mark = f"end-{uuid4()}"
        self.codes: queue.Queue[int] = queue.Queue()
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, command: str) -> int:
        """Run a command, with nothing on its input, and return its exit code.

        One that ends the shell (`exit 3`) gets a new one after it, with what was exported before.
        """
        process = self._running()
        assert process.stdin is not None
        keep = f"{{ pwd; env -0; }} > {shlex.quote(str(self.state))}"
        # The code comes back in a line of its own, after everything that the command has printed.
        text = f"eval {shlex.quote(command)} < /dev/null\n__code=$?; {keep}; printf '%s %s\\n' {self.mark} $__code\n"
        with suppress(BrokenPipeError):
            process.stdin.write(text.encode())
            process.stdin.flush()
        while True:
            try:
                code = self.codes.get(timeout=0.2)
            except queue.Empty:
                if process.poll() is None:
                    continue
                self.reader.join(1)  # what it started may hold its output open for longer
                return process.returncode if process.returncode > 0 else 128 - process.returncode
            self._remember()
            return code

    def interrupt(self) -> None:
        """End what is running, with everything that it started."""
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)

    def close(self) -> None:
        """End the shell, and what it left running."""
        process = self.process
        if process is None:
            return
        self.interrupt()
        process.wait()
        self.reader.join(5)
        for pipe in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]
        self.process = None

    def _running(self) -> "subprocess.Popen[bytes]":
        if self.process is None or self.process.poll() is not None:
            self.close()
            self.process = subprocess.Popen(
                [self.program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self.variables,
                start_new_session=True,
            )
            self.reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
            self.reader.start()
        return self.process

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip("\r\n")
            before, found, code = line.partition(f"{self.mark} ")
            if before or not found:
                self.show(before)
            if found:
                self.codes.put(int(code))

    def _remember(self) -> None:
        folder, _, rest = self.state.read_bytes().partition(b"\n")
        self.folder = Path(os.fsdecode(folder))
        pairs = (item.partition(b"=") for item in rest.split(b"\0") if item)
        self.variables = {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
