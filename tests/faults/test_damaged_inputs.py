"""A thousand damaged inputs: each is refused by name, made again or counted, never believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from random import Random

import pytest
from damaged_cases import Outcome, Target, kinds_of, run_case
from damaged_targets import in_world, targets
from damaged_world import inside, make_world, wanted_codecs

SEED = 20261121
CASES = 1000
A_FEW = 45


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


def run_all(folder: Path, count: int, everything: bool) -> Iterator[Outcome]:
    """Damage ``count`` files, every group equally often, and yield what became of each."""
    world = folder / "world"
    codecs, anchors = wanted_codecs(everything)
    make_world(world, codecs, anchors)
    with inside(world):
        found = in_world(targets(codecs, anchors))
    rng = Random(SEED)
    rng.shuffle(found)
    groups: dict[str, list[Target]] = {}
    for target in found:
        groups.setdefault(target.group, []).append(target)
    # Kinds in turn, from a random one on: each target meets as many different ones as it can.
    kinds = {
        id(target): cycle(rng.sample(kinds_of(target), len(kinds_of(target)))) for target in found
    }
    turns = [cycle(own) for own in groups.values()]
    for _, turn in zip(range(count), cycle(turns), strict=False):
        target = next(turn)
        kind = next(kinds[id(target)])
        yield run_case(world, folder / "case", target, kind, rng.getrandbits(64))


def tally(outcomes: list[Outcome]) -> str:
    """Return a table: how many of each group ended how."""
    verdicts = sorted({outcome.verdict or "FAULT" for outcome in outcomes})
    groups = sorted({outcome.target.group for outcome in outcomes})
    counts = Counter((o.target.group, o.verdict or "FAULT") for o in outcomes)
    rows = [["", "cases", *verdicts]]
    for group in groups:
        own = [counts[group, verdict] for verdict in verdicts]
        rows.append([group, str(sum(own)), *map(str, own)])
    own = [sum(counts[group, verdict] for group in groups) for verdict in verdicts]
    rows.append(["all", str(sum(own)), *map(str, own)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _check(outcomes: list[Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    kinds = Counter(outcome.kind for outcome in outcomes)
    with capsys.disabled():
        print(f"\nseed {SEED}\n{tally(outcomes)}")
        print(", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())))
    faults = [str(outcome) for outcome in outcomes if outcome.verdict is None]
    assert not faults, f"{len(faults)} of {len(outcomes)}:\n" + "\n".join(faults)


@pytest.mark.timeout(300)
def test_a_few_damaged_inputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _check(list(run_all(folder / "few", A_FEW, everything=False)), capsys)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_a_thousand_damaged_inputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = list(run_all(folder / "all", CASES, everything=True))
    assert len(outcomes) == CASES
    _check(outcomes, capsys)
