"""Which classical codecs a run uses: missing programs stop it, substitutes are never silent."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from icmbench.commands.cache import open_cache
from icmbench.commands.listing import list_classical_codecs
from icmbench.config.job_settings import (
    classical_curves,
    classical_jobs,
    coded_images,
    coded_states,
)
from icmbench.config.load import load_run
from icmbench.config.plan import Plan, load_plan
from icmbench.errors import UserError
from icmbench.plugins import load_modules
from icmbench.registry import CODECS
from icmbench.utils.programs import KNOWN_PROGRAMS, find_program

load_modules([])


@pytest.fixture(autouse=True)
def no_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("ICMBENCH_MIRROR", raising=False)


@pytest.fixture
def make(tmp_path: Path, repository: Path) -> Any:
    def plan(**overrides: Any) -> Plan:
        base = {
            "scale": "smoke",
            "variants": "all",
            "results": str(tmp_path / "results"),
            "studies": ["classical"],
        }
        return load_plan(repository / "config.yaml", {**base, **overrides})

    return plan


def executable(path: Path, text: str = "#!/bin/sh\nexit 0\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_missing_program_is_named_with_the_way_out(make: Any) -> None:
    with pytest.raises(UserError) as caught:
        make(classical_codecs=["jpeg", "vtm-444", "bpg-444-x265"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    bpg, vtm = lines
    for part in ("'classical_codecs'", "bpgenc, bpgdec", "bellard.org/bpg", "'programs.bpgenc'",
                 "substitutes={bpg-444-x265: x265-444}"):  # fmt: skip
        assert part in bpg
    assert "EncoderAppStatic" in vtm and "vvenc-ffmpeg-420" in vtm


def test_the_default_configuration_needs_no_program(make: Any, repository: Path) -> None:
    studies = ["chamain2021", "zhu2024", "classical"]
    for scale in ("smoke", "mini"):
        assert not make(scale=scale, studies=studies).programs


def test_a_stand_in_is_named_everywhere(make: Any) -> None:
    plan = make(classical_codecs=["vtm-444", "jpeg"], substitutes={"vtm-444": "vvenc-ffmpeg-420"})
    variant = plan.studies["classical"].variants["vtm-444/reconstruction/photographs"]
    assert variant.codec == "vvenc-ffmpeg-420"
    assert variant.label.endswith(" [vvenc-ffmpeg-420]")
    assert "vtm-444" in variant.note
    keys = list(classical_jobs(plan))
    assert any("classical/vvenc-ffmpeg-420/" in key for key in keys)
    assert not any("vtm" in key for key in keys)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"classical_codecs": ["jpg"]}, r"'classical_codecs'.*'jpg'.*avif-420, "),
        ({"substitutes": {"vtm": "jpeg"}}, r"'substitutes'.*'vtm'"),
        ({"substitutes": {"vtm-444": "jpeg"}}, r"'substitutes.vtm-444'.*'quality'.*'qp'"),
        ({"classical_codecs": []}, r"'classical_codecs'.*study 'classical'"),
        ({"programs": {"bpgenc": "/no/such"}, "classical_codecs": ["bpg-444-x265"]},
         r"'programs.bpgenc': '/no/such' "),
    ],
)  # fmt: skip
def test_faults_name_key_and_value(make: Any, overrides: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**overrides)


def test_programs_come_from_path_or_settings(make: Any, tmp_path: Path) -> None:
    encoder = executable(tmp_path / "bin" / "bpgenc")
    other = executable(tmp_path / "elsewhere" / "my-bpgdec", "#!/bin/sh\nexit 1\n")
    plan = make(classical_codecs=["bpg-444-x265"], programs={"bpgdec": str(other)})
    assert plan.programs["bpgenc"].command == (str(encoder),)
    assert plan.programs["bpgdec"].command == (str(other),)
    (job, *_) = classical_jobs(plan).values()
    assert set(job.codec.programs) == {"bpgenc", "bpgdec"}
    before = job.codec.programs["bpgdec"].digest
    executable(other, "#!/bin/sh\nexit 2\n")
    plan = make(classical_codecs=["bpg-444-x265"], programs={"bpgdec": str(other)})
    (job, *_) = classical_jobs(plan).values()
    assert job.codec.programs["bpgdec"].digest != before  # another binary, another job


def test_a_container_or_module_is_a_command_line(tmp_path: Path) -> None:
    wrapper = executable(tmp_path / "bin" / "apptainer")
    image = tmp_path / "vtm.sif"
    image.write_bytes(b"image")
    program = find_program("vtm_encoder", {"vtm_encoder": f"apptainer exec {image} Encoder"})
    assert program is not None
    assert program.command == (str(wrapper), "exec", str(image), "Encoder")
    assert program.digest.count("-") == 1  # of the wrapper and of the image


def test_a_configuration_file_is_found_beside_its_program(tmp_path: Path) -> None:
    executable(tmp_path / "VTM" / "bin" / "EncoderAppStatic")
    config = tmp_path / "VTM" / "cfg" / "encoder_intra_vtm.cfg"
    config.parent.mkdir()
    config.touch()
    settings = {"vtm_encoder": str(tmp_path / "VTM" / "bin" / "EncoderAppStatic")}
    program = find_program("vtm_config", settings)
    assert program is not None and Path(program.command[0]) == config
    with pytest.raises(UserError, match=r"'programs.vtm_config'.*'nowhere.cfg'"):
        find_program("vtm_config", {"vtm_config": "nowhere.cfg"})


def test_listing_says_what_is_missing(repository: Path) -> None:
    text = list_classical_codecs(load_run(repository / "config.yaml"))
    for name in ("jpeg", "x265-444", "avif-420"):
        assert f"\n  {name} " in text
    for known in KNOWN_PROGRAMS.values():
        assert known.home in text and f"'programs.{known.name}'" in text
    assert "substitutes: {vtm-444: vvenc-ffmpeg-420}" in text
    assert "cannot run" not in text


def test_codecs_that_no_variant_uses_are_named(make: Any) -> None:
    (line,) = make(studies=["zhang2022"], classical_codecs=["jpeg", "webp", "x265-444"]).unused
    assert "webp" in line and "jpeg" not in line and "x265" not in line
    assert not make(classical_codecs=["jpeg", "webp"]).unused


def test_every_stand_in_comes_from_packages() -> None:
    for name in CODECS.names():
        entry = CODECS[name]
        if entry.programs:
            assert entry.substitute is not None
            substitute = CODECS[entry.substitute]
            assert not substitute.programs and substitute.rate_parameter == entry.rate_parameter


@pytest.mark.parametrize(("chunks", "together"), [(1, True), (1, False), (3, True)])
def test_classical_jobs_code_a_curve_a_point_or_a_chunk(
    make: Any, monkeypatch: pytest.MonkeyPatch, chunks: int, together: bool
) -> None:
    plan = make(classical_codecs=["jpeg"])
    runtime = plan.scale.runtime.model_copy(update={"classical_curves": together})
    changes = {"chunks": {"photographs": {"jpeg": chunks}}, "runtime": runtime}
    scale = plan.scale.model_copy(update=changes)
    monkeypatch.setattr(plan, "scale", scale)
    point = plan.points[0]
    folders = coded_images(plan, point, "test").folders
    one_curve = together and chunks == 1
    curves = [str(Path(folders[0]).parent)] if one_curve else folders
    assert coded_states(plan, point, "test") == [f"{curve}/decoded.json" for curve in curves]
    jobs = [classical_jobs(plan)[key] for key in plan.share_keys(point, "test")]
    assert [job.output for job in jobs] == folders
    assert [(job.chunk, job.chunks) for job in jobs] == [(i, chunks) for i in range(chunks)]
    rates = [len(curve.jobs) for curve in classical_curves(plan).values()]
    assert rates == ([len(plan.points)] if one_curve else [1] * chunks * len(plan.points))


def test_the_cache_is_shared_by_scales(make: Any, tmp_path: Path) -> None:
    folders = {
        job.cache.directory
        for scale in ("smoke", "mini")
        for job in classical_jobs(make(scale=scale, classical_codecs=["jpeg"])).values()
    }
    assert folders == {str(tmp_path / "results" / "cache")}
    assert open_cache(load_run(Path(__file__).parents[2] / "config.yaml")).folder == Path(
        "results/cache"
    )
