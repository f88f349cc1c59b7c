"""Every command takes the same values in the same spellings; errors name where a key was set."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from icmbench.commands.parser import parser
from icmbench.config.load import from_command_line, load_given, load_run
from icmbench.config.run import RunConfig
from icmbench.errors import UserError

KINDS = [
    ("switch", "tracking={mlflow: false}", "tracking.mlflow", False),
    ("whole-number", "analysis={resamples: 200}", "analysis.resamples", 200),
    ("number", "cache={limit_gb: 5}", "cache.limit_gb", 5.0),
    ("null", "data={mirror: null}", "data.mirror", None),
    ("empty", "data={mirror: }", "data.mirror", None),
    ("deep", "cluster={max_minutes: 5, account: us}", "cluster.max_minutes", 5),
    ("mapping", "substitutes={vtm-444: x265-444}", "substitutes", {"vtm-444": "x265-444"}),
    ("one-name", "studies=chamain2021", "studies", ["chamain2021"]),
    ("one-codec", "classical_codecs=jpeg", "classical_codecs", ["jpeg"]),
    ("one-number", "seeds=3", "seeds", [3]),
    ("list", "seeds=[0, 1]", "seeds", [0, 1]),
    ("empty-list", "classical_codecs=[]", "classical_codecs", []),
    ("text", "variants=all", "variants", "all"),
    ("folder-number", "results=1e3", "results", "1e3"),
    ("folder-odd", "results=a 'b': #1", "results", "a 'b': #1"),
    ("folder-quoted", "results='a b'", "results", "a b"),
]


@pytest.mark.parametrize(
    ("entry", "key", "value"), [k[1:] for k in KINDS], ids=[k[0] for k in KINDS]
)
def test_value_on_the_command_line(entry: str, key: str, value: Any) -> None:
    found = reduce(getattr, key.split("."), load_given([entry]))
    assert found == value and type(found) is type(value)


REFUSED = [
    ("key", "trackng={mlflow: no}", ["'trackng'", "'tracking'"]),
    ("inner-key", "tracking={mlfow: no}", ["'tracking.mlfow'", "'mlflow'"]),
    ("no-space", "tracking={mlflow:no}", ["'mlflow:no'", "'mlflow'"]),
    ("dotted", "tracking.mlflow=false", ["'tracking={mlflow: false}'"]),
    ("dotted-deep", "a.b.c=[1]", ["'a={b: {c: [1]}}'"]),
    ("not-yaml", "tracking={mlflow: no", ["tracking={mlflow: no", "YAML"]),
    ("word-for-number", "analysis={resamples: many}", ["'analysis.resamples'", "'many'"]),
    ("word-for-switch", "tracking={mlflow: 3}", ["'tracking.mlflow'", "3"]),
    ("number-for-name", "studies=2021", ["'studies.0'", "2021"]),
    ("null-for-number", "cache={limit_gb: null}", ["'cache.limit_gb'", "None"]),
    ("folder-braces", "results=a{b}", ["'results'", "a{b}"]),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "words"), [k[1:] for k in REFUSED], ids=[k[0] for k in REFUSED])
def test_value_that_the_command_line_refuses(entry: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_given([entry])
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in ["--config", *words])


def test_one_name_stands_for_a_list_in_a_file_as_well(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("studies: tang2025\nseeds: 4\n")
    run = load_run(tmp_path / "config.yaml")
    assert (run.studies, run.seeds) == (["tang2025"], [4])


def test_later_layers_replace_and_errors_name_the_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("studies: [zhu2024]\ncache: {limit_gb: 1, directory: here}\n")
    Path("mine.yaml").write_text("cache: {limit_gb: 2}\nseeds: [x]\n")
    run = load_given(["seeds=0", "mine.yaml"])
    assert (run.studies, run.seeds) == (["zhu2024"], [0])
    assert (run.cache.limit_gb, run.cache.directory) == (2.0, "here")
    places = {key: run.where(key) for key in ("studies", "cache.limit_gb", "seeds", "zoo")}
    assert places == {
        "studies": "config.yaml: key 'studies'",
        "cache.limit_gb": "mine.yaml: key 'cache.limit_gb'",
        "seeds": "--config: key 'seeds'",
        "zoo": "config.yaml: key 'zoo'",
    }
    with pytest.raises(UserError, match=r"^mine\.yaml: key 'seeds\.0'"):
        load_given(["mine.yaml"])


def test_options_of_the_verbs_are_those_of_snakemake() -> None:
    given = ["plan", "--configfile", "a.yaml", "b.yaml", "--config", "seeds=1", "scale=mini"]
    assert parser().parse_args(given).config == ["a.yaml", "b.yaml", "seeds=1", "scale=mini"]


def test_without_any_config_yaml_the_checkout_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = RunConfig.model_validate(load_run(repository / "config.yaml").model_dump())
    assert load_given([]).model_dump() == shipped.model_dump()


def test_same_key_twice_takes_the_last() -> None:
    assert from_command_line(["seeds=1", "seeds=[2]"]).values == {"seeds": [2]}
