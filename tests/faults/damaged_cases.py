"""Run a function on a damaged world in a process of its own, and judge what became of it."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal

from damaged_kinds import DIRECTORY, OTHER, Damage, copy_world, damage
from damaged_world import inside

from icmbench.cli import in_one_line

TIME_LIMIT_S = 60
MEMORY_MB = 1500  # more than at the start
_PREFIX = "icmbench: error: "

Verdict = Literal[
    "refused",
    "made again",
    "no effect",
    "counted",
    "told by its checksum",
    "another valid configuration",
]


@dataclass(frozen=True)
class Target:
    """A file to damage, and what reads it.

    Attributes:
        group: what the tally calls it.
        path: of the file, in the world.
        kinds: what is done to it.
        read: reads it by the functions that the verbs call, and returns what it gave, to compare
            with what the undamaged world gave.
        others: files of the same kind.
        named: what an error must name in the place of the file, where the file is part of another.
        heals: whether a damaged file is made again, with the same result.
        free: whether a file that is still valid is another configuration, which nobody can tell.
    """

    group: str
    path: str
    kinds: dict[str, Damage]
    read: Callable[[], Any]
    others: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    heals: bool = False
    free: bool = False


class Counted(Exception):
    """The result differs, and says so where the documentation says it does."""


class Caught(Exception):
    """The format has no checksum, and the one that is kept beside it tells the damage."""


@dataclass
class Outcome:
    """What became of one case."""

    target: Target
    kind: str
    verdict: Verdict | None = None
    fault: str = ""
    lines: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.target.path}, {self.kind}: {self.fault or self.verdict}"


def in_child(work: Callable[[], Any]) -> tuple[str, Any]:
    """Run ``work`` in a forked process with limits; return how it ended and what it gave.

    The first is ``done``, ``error`` (with the lines of the error), ``counted``, ``caught`` or a
    fault: a traceback, a signal, a hang.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        answer: tuple[str, Any] = ("fault", "nothing was returned")
        try:
            answer = _limited(work)
        except BaseException:
            answer = ("fault", traceback.format_exc())
        finally:
            with os.fdopen(writer, "wb") as stream:
                stream.write(pickle.dumps(answer))
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        late = f", after {TIME_LIMIT_S} s" if number == signal.SIGALRM else ""
        return "fault", f"ended by {signal.Signals(number).name}{late}"
    how, given = pickle.loads(data)
    return how, given


def _limited(work: Callable[[], Any]) -> tuple[str, Any]:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_MB * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(TIME_LIMIT_S)
    errors, given = io.StringIO(), []

    def run() -> int:
        given.append(work())
        return 0

    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            status = in_one_line(run)
    except Counted as told:
        return "counted", str(told)
    except Caught as told:
        return "caught", str(told)
    if status:
        found = [line for line in errors.getvalue().splitlines() if line.startswith(_PREFIX)]
        return "error", [line.removeprefix(_PREFIX) for line in found]
    return "done", given[0]


def run_case(world: Path, scratch: Path, target: Target, kind: str, seed: int) -> Outcome:
    """Damage a file of a copy of the world, and read it."""
    outcome = Outcome(target, kind)
    expected = expect(world, target)
    copy_world(world, scratch)
    try:
        with inside(scratch):
            others = [Path(name) for name in target.others]
            kinds = {**target.kinds, **OTHER}
            damage(Random(seed), kind, kinds, Path(target.path), others)
            how, given = in_child(target.read)
            if Path("PAYLOAD").exists():
                outcome.fault = "the file ran code"
                return outcome
    finally:
        shutil.rmtree(scratch)
    _judge(outcome, how, given, expected)
    return outcome


_expected: dict[tuple[Path, int], Any] = {}


def expect(world: Path, target: Target) -> Any:
    """Return what reading the undamaged world gives, which must be no error."""
    key = (world, id(target.read))
    if key not in _expected:
        scratch = world.with_name("expected")
        copy_world(world, scratch)
        try:
            with inside(scratch):
                how, given = in_child(target.read)
        finally:
            shutil.rmtree(scratch)
        assert how == "done", (target.path, how, given)
        _expected[key] = given
    return _expected[key]


def _judge(outcome: Outcome, how: str, given: Any, expected: Any) -> None:
    target = outcome.target
    if how == "fault":
        outcome.fault = str(given)
    elif how == "error":
        outcome.lines = given
        names = target.named or (Path(target.path).name,)
        if not given:
            outcome.fault = "an error without a line"
        elif not any(name in line for line in given for name in names):
            outcome.fault = f"the error names none of {names}: {given[0]}"
        elif any(len(line) > 1000 for line in given) or len(given) > 40:
            outcome.fault = f"a long error of {len(given)} lines: {given[0][:300]}"
        else:
            outcome.verdict = "refused"
    elif how in ("counted", "caught"):
        outcome.verdict = "counted" if how == "counted" else "told by its checksum"
    elif given == expected:
        outcome.verdict = "made again" if target.heals else "no effect"
    elif target.free:
        outcome.verdict = "another valid configuration"
    else:
        outcome.fault = f"a wrong result was taken: {str(given)[:200]} for {str(expected)[:200]}"


def kinds_of(target: Target) -> list[str]:
    """Return the kinds of damage that a target can suffer."""
    return [*target.kinds, DIRECTORY, *(OTHER if target.others else ())]
