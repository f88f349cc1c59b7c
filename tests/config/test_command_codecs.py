"""Codecs of the configuration's commands: in plans, jobs of other processes, `rd` and `codecs`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from icmbench.cli import main
from icmbench.config.job_settings import classical_curves, classical_jobs, write_files
from icmbench.config.plan import Plan, load_plan
from icmbench.data.prepare import prepare
from icmbench.errors import UserError
from icmbench.plugins import load_modules
from icmbench.registry import CODECS

# Writes a file of which the rate decides the size, and a line to a log.
ENCODER = """
import sys
source, target, rate, log = sys.argv[1:]
open(target, "wb").write(open(source, "rb").read() + bytes(int(rate)))
open(log, "a").write(rate + "\\n")
"""
STUDY: dict[str, Any] = {
    "name": "own",
    "title": "Own",
    "reference": {"authors": "we", "venue": "none", "year": 2026},
    "summary": "A codec from the command line.",
    "ladders": {"size": {"parameter": "qp", "values": [10, 500], "origin": "ours"}},
    "variants": {
        "mine/reconstruction/photographs": {
            "label": "Mine",
            "codec": "mine",
            "task": "reconstruction",
            "mode": "classical",
            "dataset": "photographs",
            "ladder": "size",
        },
    },
    "comparisons": [],
}


@pytest.fixture
def mine(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "enc.py").write_text(ENCODER)
    python = f"{sys.executable} -I -S {tmp_path}/enc.py"
    return {
        "encode": f"{python} {{input}} {{output}} {{rate}} {tmp_path}/log",
        "decode": "cp {input} {output}",
        "version": "echo 3.1",
        "format": "ppm",
        "rate": "qp",
        "lower_rate": "smaller",
    }


@pytest.fixture
def make(tmp_path: Path, repository: Path, mine: dict[str, Any]) -> Any:
    (tmp_path / "studies").mkdir()

    def plan(study: dict[str, Any] | None = None, **overrides: Any) -> Plan:
        (tmp_path / "studies" / "own.yaml").write_text(yaml.safe_dump(study or STUDY))
        base = {
            "scale": "smoke",
            "results": str(tmp_path / "results"),
            "studies": ["own"],
            "study_folders": [str(tmp_path / "studies")],
            "classical_codecs": ["mine"],
            "command_codecs": {"mine": mine},
            "tracking": {"mlflow": False},
        }
        return load_plan(repository / "config.yaml", {**base, **overrides})

    yield plan
    load_modules([], {})  # other tests list all codecs


def changed(**ladder: Any) -> dict[str, Any]:
    size = {**STUDY["ladders"]["size"], **ladder}
    return {**STUDY, "ladders": {"size": size}}


def test_a_job_needs_no_configuration(make: Any, tmp_path: Path) -> None:
    plan = make()
    write_files(plan)
    prepare(plan.dataset("photographs"), None, 1)
    load_modules([], {})
    assert "mine" not in CODECS  # as in the process of a job
    for repetition in (1, 2):
        for curve in classical_curves(plan):
            assert main(["code", str(plan.job_path("code", curve))]) == 0
        log = (tmp_path / "log").read_text().split()
        images = len(log) // 2
        assert log == ["10"] * images + ["500"] * images, repetition  # the second is all cached
    low, high = (
        json.loads(Path(job.output, "decode.json").read_text())["fingerprint"]
        for job in classical_jobs(plan).values()
    )
    assert low != high


def test_shares_and_programs_are_those_of_any_codec(make: Any, tmp_path: Path) -> None:
    plan = make()
    job = next(iter(classical_jobs(plan).values()))
    assert job.codec.command and set(job.codec.programs) == {
        f"command_codecs.mine.{part}" for part in ("encode", "decode", "version")
    }
    before = job.codec.programs["command_codecs.mine.encode"].digest
    (tmp_path / "enc.py").write_text(f"{ENCODER}# other bits\n")
    job = next(iter(classical_jobs(make()).values()))
    assert job.codec.programs["command_codecs.mine.encode"].digest != before
    scale = plan.scale.model_copy(update={"chunks": {"photographs": {"mine": 3}}})
    chunked = Plan(plan.run, scale, plan.studies)
    keys = chunked.share_keys(chunked.points[0], "test")
    assert [key.rpartition("/")[2] for key in keys] == [f"chunk{i}of3" for i in range(3)]


@pytest.mark.parametrize(
    ("study", "change", "words"),
    [
        (None, {"encode": "no-such-encoder {input} {output} {rate}"},
         ["'own'", "'mine'", "'no-such-encoder'", "'command_codecs.mine.encode'"]),
        (None, {"version": "no-such-tool --version"}, ["'command_codecs.mine.version'"]),
        (None, {"encode": "enc {input} {output}"}, ["'command_codecs.mine.encode'", "{rate}"]),
        (None, {"speed": 3}, ["'command_codecs.mine.speed'", "unknown key"]),
        (None, {"lower_rate": "larger"}, ["'size'", "'mine'", "larger 'qp'", "[500.0, 10.0]"]),
        (changed(values=[10, 10]), {}, ["[10.0, 10.0]"]),
        (None, {"rate_range": [0, 100]}, ["qp 500", "0 to 100"]),
        (None, {"rate": "quality"}, ["varies 'qp'", "takes 'quality'"]),
    ],
)  # fmt: skip
def test_faults_stop_the_plan(
    make: Any, mine: dict[str, Any], study: Any, change: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        make(study, command_codecs={"mine": {**mine, **change}})
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text


@pytest.mark.parametrize("name", ["jpeg", "bmshj2018-hyperprior", "my codec", "../x", "a.b"])
def test_names_are_new_and_fit_paths(make: Any, mine: dict[str, Any], name: str) -> None:
    with pytest.raises(UserError, match="'command_codecs"):
        make(command_codecs={name: mine, "mine": mine})


def test_a_ladder_of_a_built_in_codec_begins_with_its_lowest_rate(make: Any) -> None:
    variants = {"jpeg": {**STUDY["variants"]["mine/reconstruction/photographs"], "codec": "jpeg"}}
    ladder = {"parameter": "quality", "values": [80, 20], "origin": "ours"}
    study = {**STUDY, "variants": variants, "ladders": {"size": ladder}}
    with pytest.raises(UserError, match=r"'size'.*smaller 'quality'"):
        make(study, classical_codecs=["jpeg"])


def test_a_command_takes_the_place_of_another_codec(make: Any, mine: dict[str, Any]) -> None:
    mine = {**mine, "lower_rate": "larger"}
    overrides = {
        "studies": ["classical"],
        "classical_codecs": ["vtm-444"],
        "command_codecs": {"mine": mine},
        "substitutes": {"vtm-444": "mine"},
    }
    plan = make(**overrides)
    variant = plan.studies["classical"].variants["vtm-444/reconstruction/photographs"]
    assert variant.codec == "mine" and variant.label.endswith("[mine]")
    assert all("/classical/mine/qp-" in key for key in classical_jobs(plan))
    for change in ({"lower_rate": "smaller"}, {"rate": "quality"}):
        with pytest.raises(UserError, match=r"'substitutes.vtm-444'"):
            make(**overrides | {"command_codecs": {"mine": {**mine, **change}}})


def test_commands_are_set_in_the_configuration_only(make: Any, mine: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="command_codecs"):
        make({**STUDY, "command_codecs": {"mine": mine}})
    plan = make()
    scale = plan.scale.model_copy(update={"codecs": {"mine": {"encode": "rm {input}"}}})
    with pytest.raises(UserError, match=r"'codecs.mine'.*'encode'"):
        Plan(plan.run, scale, plan.studies)


def test_codecs_and_rd_know_a_command(
    mine: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    from PIL import Image

    missing = {**mine, "decode": "no-such-decoder {input} {output}"}
    configuration = {"command_codecs": {"mine": mine, "gone": missing}}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(configuration))
    (tmp_path / "images").mkdir()
    for number in range(2):
        Image.new("RGB", (10, 6), (number, 3, 7)).save(tmp_path / "images" / f"{number}.png")
    assert main(["codecs", "--config", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "  mine " in shown and " 3.1, " in shown and "'no-such-decoder'" in shown
    rates = ["5", "500", "50"]
    folder = str(tmp_path / "images")
    assert main(["rd", "mine", folder, *rates, "--config", str(config)]) == 0
    curve = json.loads(capsys.readouterr().out)
    # A PPM file of 10 x 6 has a header of 12 bytes.
    sizes = [len(b"P6\n10 6\n255\n") + 180 + rate for rate in (5, 50, 500)]
    assert curve["results"]["bpp"] == pytest.approx([8 * size / 60 for size in sizes])
    assert curve["results"]["rate"] == [5, 50, 500] and not caplog.records
    assert curve["description"].startswith("mine 3.1")
    mine["lower_rate"] = "larger"
    config.write_text(yaml.safe_dump(configuration))
    assert main(["rd", "mine", folder, *rates, "--config", str(config)]) == 0
    (record,) = caplog.records
    assert "mine" in record.getMessage() and "5, 50, 500" in record.getMessage()
    mine["version"] = "true"
    config.write_text(yaml.safe_dump(configuration))
    (tmp_path / "log").unlink()
    assert main(["rd", "mine", folder, *rates, "--config", str(config)]) == 1
    assert "command_codecs.mine.version" in capsys.readouterr().err
    assert not (tmp_path / "log").exists()  # nothing was coded
    load_modules([], {})
