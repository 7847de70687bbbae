"""Suites side by side: each in its turn, none beside one that it disturbs, and all ended by one interrupt."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Condition
from typing import Any


class Lanes:
    """Runs `run(name)` for names, up to `width` at a time; `apart` has, by name, those that may not run beside it.

    A name for which `run` returns False is the last to be begun, unless `keep_going`.
    """

    def __init__(self, width: int, apart: Mapping[str, set[str]], keep_going: bool) -> None:
        self.width, self.apart, self.keep_going = width, apart, keep_going
        self.failed = self.interrupted = False
        self._waiting: list[str] = []
        self._running: set[str] = set()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._change = Condition()  # guards all of these

    def run(self, names: Sequence[str], run: Callable[[str], bool]) -> None:
        """Run what may be run of these names, and wait for its end; an interrupt is passed on to what runs."""
        self._waiting = list(names)
        with ThreadPoolExecutor(self.width) as pool:
            lanes = [pool.submit(self._work, run) for _ in range(self.width)]
            try:
                for lane in lanes:
                    lane.result()
            except KeyboardInterrupt:
                self._interrupt()
                raise

    def call(self, command: Sequence[str], **options: Any) -> int:
        """Run a program that `_interrupt` reaches, with Popen's options; return its exit code."""
        with self._change:
            if self.interrupted:
                return 128 + signal.SIGINT
            # A group of its own: a terminal's Ctrl-C would come a second time, amid the cleaning up.
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, **options)
            self._processes.add(process)
        try:
            return process.wait()
        finally:
            with self._change:
                self._processes.remove(process)

    def _work(self, run: Callable[[str], bool]) -> None:
        while name := self._take():
            passed = False
            try:
                passed = run(name)
            finally:
                with self._change:
                    self.failed |= not passed
                    self._running.remove(name)
                    self._change.notify_all()

    def _take(self) -> str:
        """Return the first name that may run now, once there is one; empty if none is left."""
        with self._change:
            while self._waiting and not self.interrupted and (self.keep_going or not self.failed):
                name = next((name for name in self._waiting if not self._disturbs(name)), "")
                if name:
                    self._waiting.remove(name)
                    self._running.add(name)
                    return name
                self._change.wait()
            return ""

    def _disturbs(self, name: str) -> bool:
        return any(other in self.apart.get(name, ()) or name in self.apart.get(other, ()) for other in self._running)

    def _interrupt(self) -> None:
        with self._change:
            self.interrupted = True
            for process in self._processes:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGINT)
            self._change.notify_all()
