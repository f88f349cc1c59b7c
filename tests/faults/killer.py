"""Kills a running workflow at random moments, again and again, and keeps count."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from checkout import Checkout

VERBS = {
    "train": "train",
    "encode": "encode",
    "decode": "decode",
    "code": "code_anchor",
    "evaluate": "evaluate",
    "analyse": "analyse",
    "report": "report",
    "track": "track",
}
# How likely a job is aimed at when it starts: higher where a rule has one job in a lap, which then
# is met more often.
AIMED = {
    "generate_dataset": 0.85,
    "fetch_dataset": 0.85,
    "code_anchor": 0.8,
    "train": 0.7,
    "encode": 0.75,
    "decode": 0.75,
    "evaluate": 0.65,
    "analyse": 0.85,
    "report": 0.8,
    "track": 0.85,
}
STARTING = "none"  # Snakemake reads and plans, or is between two jobs
AIMED_AT_STARTS = 0.06
STARTS_S = 4.0
WHOM = {"group": 0.35, "snakemake": 0.2, "job": 0.45}
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
_LOOK_S = 0.05
# A start of Snakemake that lasts longer hangs.
PATIENCE_S = 1500.0
# Snakemake's handler of SIGTERM wants a lock that the interrupted code may hold; then it stands
# still for ever, without jobs (seen with 9.27).
STUCK_S = 60.0


@dataclass(frozen=True)
class Kill:
    """One kill: when, whom, with what, and the rule whose job was running."""

    lap: int
    rule: str
    whom: str
    signal: str
    process: int
    job: str
    at_s: float


@dataclass
class Killer:
    """Runs a checkout's workflow to its end, lap after lap, and kills on the way.

    Attributes:
        checkout: whose workflow.
        seed: decides which jobs are aimed at, when, with which signal, and who gets it. How jobs
            meet these moments depends on the machine.
        arguments: of Snakemake, the same for each start.
        spans: seconds that a job of each rule lasts, by which its moment is drawn.
        most: kills after which it only runs.
        minutes: time after which it only runs.
    """

    checkout: Checkout
    seed: int
    arguments: tuple[str, ...]
    most: int
    minutes: float = float("inf")
    spans: dict[str, float] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)
    starts: int = 0
    unlocks: int = 0
    stuck: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._began = time.monotonic()
        self._lap = 0

    def lap(self) -> None:
        """Run the workflow to its end, started again after each kill that ended it."""
        self._lap += 1
        deadline = time.monotonic() + 4 * PATIENCE_S
        while True:
            assert time.monotonic() < deadline, "this lap gets nowhere"
            if any((self.checkout.folder / ".snakemake/locks").glob("*")):
                self.unlocks += 1
                self.checkout.run("--unlock")
            self.starts += 1
            said = self.checkout.folder / "said.log"
            size = said.stat().st_size if said.exists() else 0
            before = len(self.kills)
            process = self.checkout.start(*self.arguments, apart=True)
            code = self._watch(process)
            if code == 0:
                break
            # Without a kill nothing may end it, and no job may want anything from the user.
            assert len(self.kills) > before, said.read_text()[size:][-6000:]
        self._wait_for_orphans()

    def measure(self) -> None:
        """Run the workflow undisturbed, and note how long jobs of each rule last."""
        process = self.checkout.start(*self.arguments, apart=True)
        seen: dict[int, tuple[str, float, float]] = {}
        while process.poll() is None:
            now = time.monotonic()
            for number, (rule, _) in running(process.pid).items():
                first = seen[number][1] if number in seen else now
                seen[number] = (rule, first, now)
            time.sleep(_LOOK_S)
        assert process.returncode == 0, self.checkout.said[-6000:]
        for rule in {rule for rule, _, _ in seen.values()}:
            lasted = [last - first for name, first, last in seen.values() if name == rule]
            self.spans[rule] = sum(lasted) / len(lasted)

    def _watch(self, process: subprocess.Popen[str]) -> int:
        """Kill on the way; return the exit status of Snakemake."""
        ends = time.monotonic() + PATIENCE_S
        met: set[int] = set()
        moment, aim, aimed = None, None, STARTING
        if self._chance(AIMED_AT_STARTS):
            moment = time.monotonic() + self._random.uniform(0, STARTS_S)
        while process.poll() is None:
            now = time.monotonic()
            assert now < ends, f"hangs:\n{self.checkout.said[-6000:]}"
            jobs = running(process.pid)
            for number in sorted(set(jobs) - met):
                met.add(number)
                rule = jobs[number][0]
                # One that was met less often than what is aimed at goes first.
                free = moment is None or self._hits(rule) < self._hits(aimed)
                if free and self._chance(AIMED[rule]):
                    moment, aim = now + self._random.uniform(0, self.spans[rule]), number
                    aimed = rule
            if moment is not None and now >= moment:
                ended = self._kill(process, jobs, aim)
                moment, aim, aimed = None, None, STARTING
                if ended:
                    return self._wait(process)
            time.sleep(_LOOK_S)
        return process.wait()

    def _wait(self, process: subprocess.Popen[str]) -> int:
        """Return the exit status of a Snakemake that was hit; kill it where it stands still."""
        began = busy = time.monotonic()
        while process.poll() is None:
            now = time.monotonic()
            assert now - began < PATIENCE_S, f"hangs:\n{self.checkout.said[-6000:]}"
            if running(process.pid):
                busy = now
            elif now - busy > STUCK_S:
                process.kill()
                self.stuck += 1
                return process.wait()
            time.sleep(_LOOK_S)
        return process.returncode

    def _hits(self, rule: str) -> int:
        return sum(kill.rule == rule for kill in self.kills)

    def _chance(self, probability: float) -> bool:
        return not self.done and self._random.random() < probability

    @property
    def done(self) -> bool:
        """Whether it kills no more."""
        late = time.monotonic() - self._began > 60 * self.minutes
        return late or len(self.kills) >= self.most

    def _kill(
        self, process: subprocess.Popen[str], jobs: dict[int, tuple[str, str]], aim: int | None
    ) -> bool:
        """Send one signal; return whether it ends Snakemake."""
        whom = self._random.choices(list(WHOM), list(WHOM.values()))[0]
        number = self._random.choice(SIGNALS)
        # The one aimed at may have ended: then whichever runs, or what is between two jobs.
        job = aim if aim in jobs else (sorted(jobs)[0] if jobs else None)
        if job is None and whom == "job":
            whom = "snakemake"
        rule, name = jobs[job] if job is not None else (STARTING, "")
        target = job if whom == "job" and job is not None else process.pid
        with suppress(ProcessLookupError):
            if whom == "group":
                os.killpg(process.pid, number)
            else:
                os.kill(target, number)
        kill = Kill(
            self._lap, rule, whom, number.name, target, name, time.monotonic() - self._began
        )
        self.kills.append(kill)
        with (self.checkout.folder / "kills.jsonl").open("a") as log:
            log.write(json.dumps(asdict(kill)) + "\n")
        return whom != "job"

    def _wait_for_orphans(self) -> None:
        """Wait for jobs whose Snakemake was killed without them."""
        deadline = time.monotonic() + PATIENCE_S
        while left := at_work(self.checkout.folder):
            assert time.monotonic() < deadline, f"still at work: {left}"
            time.sleep(0.2)

    def tally(self) -> str:
        """Return the kills by rule, signal and whom they met."""
        columns = [(who, number.name) for who in WHOM for number in SIGNALS]
        counts = Counter((kill.rule, kill.whom, kill.signal) for kill in self.kills)
        heads = [f"{name.removeprefix('SIG')} {who}" for who, name in columns]
        lines = [f"{'rule':18}" + "".join(f"{head:>16}" for head in heads) + f"{'all':>6}"]
        for rule in (*AIMED, STARTING):
            row = [counts[rule, *column] for column in columns]
            lines.append(f"{rule:18}" + "".join(f"{n:16}" for n in row) + f"{sum(row):6}")
        row = [sum(counts[rule, *column] for rule in (*AIMED, STARTING)) for column in columns]
        lines.append(f"{'all':18}" + "".join(f"{n:16}" for n in row) + f"{sum(row):6}")
        lines.append(
            f"seed {self.seed}: {len(self.kills)} kills in {self._lap} laps, {self.starts} starts, "
            f"{self.unlocks} times --unlock, {self.stuck} times killed standing still, "
            f"{time.monotonic() - self._began:.0f} s"
        )
        return "\n".join(lines)


def running(snakemake: int) -> dict[int, tuple[str, str]]:
    """Return rule and settings file of each job among the children of Snakemake, by process."""
    found: dict[int, tuple[str, str]] = {}
    todo = _children(snakemake)
    while todo:
        number = todo.pop()
        job = _job(number)
        if job is None:
            todo += _children(number)
        else:
            found[number] = job
    return found


def at_work(folder: Path) -> list[int]:
    """Return all jobs that run in a folder, whoever started them."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and _job(int(path.name)) is not None:
            with suppress(OSError):
                if (path / "cwd").readlink() == folder:
                    found.append(int(path.name))
    return found


def _children(number: int) -> list[int]:
    children: list[int] = []
    with suppress(OSError):  # it may end while it is looked at
        # Snakemake starts jobs from threads.
        for thread in Path(f"/proc/{number}/task").iterdir():
            with suppress(OSError):
                text = (thread / "children").read_text()
                children += [int(word) for word in text.split()]
    return children


def _job(number: int) -> tuple[str, str] | None:
    try:
        words = Path(f"/proc/{number}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return None
    if not re.search(r"python[\d.]*$", words[0]) or words[1:3] != ["-m", "icmbench"]:
        return None
    verb, name = words[3], words[4]
    if verb == "data":
        # The study's one fetched set; the others are drawn.
        return ("fetch_dataset" if "photographs" in name else "generate_dataset"), name
    return VERBS[verb], name
