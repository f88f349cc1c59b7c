"""A thousand damaged inputs: each is refused by name, made again or counted, never believed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from random import Random

import pytest
from damaged_cases import Outcome, Target, kinds_of, run_case
from damaged_kinds import DIRECTORY, YAML, copy_world, damage
from damaged_targets import in_world, targets
from damaged_world import ROOT, inside, make_world, wanted_codecs

SEED = 20261121
CASES = 1000
A_FEW = 38  # two of each group


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a world of some codecs."""
    folder = tmp_path_factory.mktemp("damaged")
    make_world(folder / "world", *wanted_codecs(False))
    return folder


def run_all(folder: Path, count: int, everything: bool) -> Iterator[Outcome]:
    """Damage ``count`` files of the world in ``folder`` and yield what became of each.

    Every group of files gets equally many.
    """
    world = folder / "world"
    codecs, anchors = wanted_codecs(everything)
    with inside(world):
        found = in_world(targets(codecs, anchors))
    rng = Random(SEED)
    rng.shuffle(found)
    groups: dict[str, list[Target]] = {}
    for target in found:
        groups.setdefault(target.group, []).append(target)
    # Kinds in turn, from a random one on: each target meets as many different ones as it can.
    kinds = {}
    for target in found:
        own_kinds = kinds_of(target)
        kinds[id(target)] = cycle(rng.sample(own_kinds, len(own_kinds)))
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
def test_a_few_damaged_inputs(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _check(list(run_all(small, A_FEW, everything=False)), capsys)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_a_thousand_damaged_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_world(tmp_path / "world", *wanted_codecs(True))
    outcomes = list(run_all(tmp_path, CASES, everything=True))
    assert len(outcomes) == CASES
    _check(outcomes, capsys)


# --- the command line -------------------------------------------------------------------------

_POINT = f"{ROOT}/runs/toy/hyperprior/reconstruction/mse/rate0-seed0"
_CODED = f"{ROOT}/encoded/detection-test/toy/hyperprior/reconstruction/mse/rate0-seed0"
_CURVE = "toy/hyperprior/reconstruction/mse"
#: What is damaged, how, the verb with its arguments, and stamps that must not say all is done.
COMMANDS: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    "plan": ("config.yaml", "truncated", ("plan",), ()),
    "study": ("studies/toy.yaml", "a tag that runs code", ("plan",), ()),
    "aliases": ("studies/toy.yaml", "aliases that grow", ("plan",), ()),
    "data": (
        f"{ROOT}/plan/data/detection.json",
        "a wrong type",
        ("data", f"{ROOT}/plan/data/detection.json"),
        (),
    ),
    "train": (
        f"{ROOT}/data/detection/train.zip",
        "bytes flipped",
        ("train", f"{ROOT}/plan/train/{_CURVE}/rate0-seed0.json"),
        ("checkpoint.pt",),
    ),
    "encode": (
        f"{_POINT}/weights.pt",
        "a bit flipped",
        ("encode", f"{ROOT}/plan/code/detection-test/{_CURVE}.json"),
        ("encoded.stamp.json",),
    ),
    "decode": (
        f"{_CODED}/bitstreams.zip",
        "a block of zeros",
        ("decode", f"{ROOT}/plan/code/detection-test/{_CURVE}.json"),
        ("decoded.stamp.json",),
    ),
    "evaluate": (
        f"{_CODED}/decoded.zip",
        "garbage appended",
        ("evaluate", f"{ROOT}/plan/evaluate/{_CURVE}.json"),
        ("evaluated.stamp.json",),
    ),
    "analyse": (f"{_POINT}/records.parquet", "a bit flipped", ("analyse", str(ROOT)), ()),
    "report": (f"{ROOT}/tables/curves.csv", "NaN, infinite or huge", ("report", str(ROOT)), ()),
    "compare": (f"{ROOT}/plan.json", "deeply nested", ("compare", str(ROOT), str(ROOT)), ()),
    "track": (f"{ROOT}/plan.json", "random bytes", ("track", str(ROOT), "--strict"), ()),
    "datasets": ("data/catalogue.yaml", "no text", ("datasets",), ()),
    "a folder": (f"{ROOT}/tables/bd.csv", DIRECTORY, ("report", str(ROOT)), ()),
}
#: In the default run, which has little time; none of them imports torch.
BRIEF = ("plan", "study", "data", "datasets")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in BRIEF else pytest.mark.faults, id=name)
        for name in COMMANDS
    ],
)
def test_the_command_line(small: Path, tmp_path: Path, name: str) -> None:
    """One line that names the file, no traceback, and status 1."""
    path, kind, arguments, stamps = COMMANDS[name]
    copy_world(small / "world", tmp_path / "world")
    with inside(tmp_path / "world"):
        for pattern in stamps:
            for stamp in ROOT.rglob(pattern):
                stamp.unlink()
        if path.startswith("studies/"):  # `plan` of the command line takes the package's scales
            Path("config.yaml").write_text("{studies: [toy], study_folders: [studies]}\n")
        damage(Random(SEED), kind, YAML, Path(path), [])
        done = subprocess.run(
            [sys.executable, "-m", "icmbench", *arguments], capture_output=True, text=True
        )
        assert not Path("PAYLOAD").exists()
    told = done.stderr.splitlines()
    assert done.returncode == 1, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    errors = [line for line in told if line.startswith(("icmbench: error: ", "error: "))]
    assert len(errors) == 1, told
    assert Path(path).name in errors[0], told
    assert len(errors[0]) < 1000
