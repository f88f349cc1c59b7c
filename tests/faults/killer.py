"""Kills a running workflow at random moments, and starts it again until it ends."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from checkout import Checkout

#: Rules by the verb of their jobs; ``data`` has two.
RULES = {
    "train": "train",
    "encode": "encode",
    "decode": "decode",
    "code": "code_classical",
    "evaluate": "evaluate",
    "analyse": "analyse",
    "report": "report",
    "track": "track",
}
ALL_RULES = ("generate_dataset", "fetch_dataset", *RULES.values())
WHOM = {"group": 0.35, "snakemake": 0.2, "job": 0.45}
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
_LOOK_S = 0.05
# A start of Snakemake that lasts longer hangs.
PATIENCE_S = 1500.0
# Snakemake's handler of SIGTERM needs a lock that the interrupted code may hold; it then hangs
# without jobs (seen with 9.27).
STUCK_S = 60.0


@dataclass
class Killer:
    """Runs a checkout's workflow to its end, lap after lap, and kills on the way.

    Attributes:
        checkout: with the workflow.
        seed: decides which jobs are aimed at, when, with which signal, and what is killed: the
            process group, Snakemake alone or the job. The machine decides which step that is.
        arguments: of Snakemake, the same for each start.
        most: kills after which it only runs.
        spans: seconds that a job of each rule lasts; a moment is drawn from them.
        kills: rule, target and signal of each kill.
    """

    checkout: Checkout
    seed: int
    arguments: tuple[str, ...]
    most: int = 0
    spans: dict[str, float] = field(default_factory=dict)
    kills: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def measure(self) -> dict[str, float]:
        """Run the workflow undisturbed; return how long jobs of each rule last."""
        process = self.checkout.start(*self.arguments, apart=True)
        seen: dict[int, tuple[str, float, float]] = {}
        while process.poll() is None:
            now = time.monotonic()
            for number, rule in running(process.pid).items():
                first = seen[number][1] if number in seen else now
                seen[number] = (rule, first, now)
            time.sleep(_LOOK_S)
        assert process.returncode == 0, self.checkout.said[-6000:]
        spans: dict[str, list[float]] = {}
        for rule, first, last in seen.values():
            spans.setdefault(rule, []).append(last - first)
        return {rule: sum(own) / len(own) for rule, own in spans.items()}

    def lap(self) -> None:
        """Run the workflow to its end, started again after each kill that ended it."""
        while True:
            if any((self.checkout.folder / ".snakemake/locks").glob("*")):
                self.checkout.run("--unlock")
            before = len(self.kills)
            process = self.checkout.start(*self.arguments, apart=True)
            if self._watch(process) == 0:
                break
            # Only a kill may end it, and no job may need anything from the user.
            assert len(self.kills) > before, self.checkout.said[-6000:]
        deadline = time.monotonic() + PATIENCE_S
        while left := at_work(self.checkout.folder):  # jobs whose Snakemake was killed
            assert time.monotonic() < deadline, f"still at work: {left}"
            time.sleep(0.2)

    def _watch(self, process: subprocess.Popen[str]) -> int:
        """Kill on the way; return the exit status of Snakemake."""
        began = busy = time.monotonic()
        met: set[int] = set()
        aim, moment, hit = None, 0.0, False
        while process.poll() is None:
            now = time.monotonic()
            assert now - began < PATIENCE_S, f"hangs:\n{self.checkout.said[-6000:]}"
            jobs = running(process.pid)
            for number in sorted(jobs.keys() - met):
                if aim is None and self._wants(jobs[number]):
                    aim = number
                    moment = now + self._random.uniform(0, self.spans[jobs[number]])
            met |= jobs.keys()
            if aim is not None and now >= moment:
                if aim in jobs:  # it may have ended
                    hit |= self._kill(process, aim, jobs[aim])
                aim = None
            busy = now if jobs or not hit else busy
            if now - busy > STUCK_S:
                process.kill()
            time.sleep(_LOOK_S)
        return process.returncode

    def _wants(self, rule: str) -> bool:
        hits = Counter(kill[0] for kill in self.kills)
        rarely = hits[rule] == min(hits[other] for other in self.spans)
        return len(self.kills) < self.most and self._random.random() < (0.8 if rarely else 0.3)

    def _kill(self, process: subprocess.Popen[str], job: int, rule: str) -> bool:
        """Send one signal; return whether it ends Snakemake."""
        whom = self._random.choices(list(WHOM), list(WHOM.values()))[0]
        number = self._random.choice(SIGNALS)
        with suppress(ProcessLookupError):
            if whom == "group":
                os.killpg(process.pid, number)
            else:
                os.kill(job if whom == "job" else process.pid, number)
        self.kills.append((rule, whom, number.name))
        return whom != "job"


def running(snakemake: int) -> dict[int, str]:
    """Return the rule of each job among the children of Snakemake, by process."""
    found: dict[int, str] = {}
    todo = _children(snakemake)
    while todo:
        number = todo.pop()
        rule = _rule(number)
        if rule is None:
            todo += _children(number)
        else:
            found[number] = rule
    return found


def at_work(folder: Path) -> list[int]:
    """Return the processes of all jobs that run in a folder."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and _rule(int(path.name)) is not None:
            with suppress(OSError):
                if (path / "cwd").readlink() == folder:
                    found.append(int(path.name))
    return found


def _children(number: int) -> list[int]:
    children: list[int] = []
    with suppress(OSError):  # it may end meanwhile
        # Snakemake starts jobs from threads.
        for thread in Path(f"/proc/{number}/task").iterdir():
            with suppress(OSError):
                children += map(int, (thread / "children").read_text().split())
    return children


def _rule(number: int) -> str | None:
    try:
        words = Path(f"/proc/{number}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return None
    if not re.search(r"python[\d.]*$", words[0]) or words[1:3] != ["-m", "icmbench"]:
        return None
    verb = next((word for word in words[3:] if word == "data" or word in RULES), None)
    if verb == "data":  # the photographs are fetched, other images are generated
        return "fetch_dataset" if "photographs" in " ".join(words) else "generate_dataset"
    return RULES[verb] if verb else None
