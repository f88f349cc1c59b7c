"""What an import leaves in a store, and that a repeat, a crash or a resume changes none of it."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from track_results import CFT, RUNS, START, STEPS, ResultsFolder
from track_store import Store

from icmbench.errors import UserError
from icmbench.track import push as push_module
from icmbench.track import sync
from icmbench.track.points import STALE_S
from icmbench.utils.files import write_text

POINT = f"{CFT}/rate0-seed0"
OTHER = f"{CFT}/rate1-seed0"


def test_every_operating_point_is_a_child_of_its_variant(
    results: ResultsFolder, store: Callable[[], Store]
) -> None:
    result = sync(results.fill().root)
    assert (result.runs, result.created, result.complete) == (RUNS, RUNS, True)
    runs = store().runs()
    assert len(runs) == RUNS
    for run in runs.values():
        variant = runs.get(f"toy2020/{run.data.tags.get('variant')}/curve")
        point = run.data.tags["kind"] == "operating point"
        parent = run.data.tags.get("mlflow.parentRunId")
        assert parent == (variant.info.run_id if point and variant else None)
        assert run.info.status == "FINISHED"
    assert runs[f"{CFT}/curve"].info.run_name == "c-ft"
    assert runs[f"{CFT}/curve"].info.start_time == START * 1000
    experiments = {e.name for e in store().client.search_experiments()}
    assert "icmbench/toy2020/smoke" in experiments


def test_a_point_holds_settings_results_curves_data_and_files(
    results: ResultsFolder, store: Callable[[], Store]
) -> None:
    sync(results.fill().root)
    run = store().runs()[POINT]
    assert run.info.run_name == "c-ft hyperprior rate0 seed0"
    assert (run.info.start_time, run.info.end_time) == (START * 1000, (START + 200) * 1000)
    params = run.data.params
    assert params["schedule.steps"] == "100"
    assert params["loss.bpp"] == params["rate_value"] == "0.01"
    assert params["parts"] == "codec"
    assert all(len(value) <= 500 for value in params.values())
    assert not any(str(results.root.parent) in value for value in params.values())
    expected = {
        "bpp": 0.25,
        "box_map": 0.4,
        "interval/box_map_low": 0.39,
        "psnr": 30.0,
        "n_images": 2,
        "cost/train_wall_seconds": 100,
        "cost/evaluate_wall_seconds": 3,
        "parameters/codec": 1000,
        "final/loss": 0.01,
    }
    assert {name: run.data.metrics[name] for name in expected} == pytest.approx(expected)
    assert store().history(POINT, "train/loss") == [(step, 1 / step) for step in STEPS]
    assert len(store().history(POINT, "val/bpp")) == len(STEPS)
    tags = run.data.tags
    assert tags["mlflow.source.git.commit"] == tags["git_commit"] == "c" * 40
    assert tags["version.torch"] == "2.13.0"
    assert tags["weights_sha256"] == "a" * 64
    assert (tags["rate_index"], tags["seed"], tags["stage"]) == ("0", "0", "evaluated")
    data = [(i.dataset.name, i.dataset.digest, i.tags[0].value) for i in run.inputs.dataset_inputs]
    assert sorted(data) == [
        ("embedded-scenes:test", "d" * 32, "evaluation"),
        ("embedded-scenes:train", "d" * 32, "training"),
    ]
    files = [f.path for f in store().client.list_artifacts(run.info.run_id)]
    assert files == ["evaluate.json", "model", "run.json"]
    assert "#/models/icmbench.toy2020.smoke.hyperprior" in tags["mlflow.note.content"]


def test_a_point_without_a_training_has_the_settings_of_its_evaluation(
    results: ResultsFolder, store: Callable[[], Store]
) -> None:
    sync(results.fill().root)
    params = store().runs()["toy2020/jpeg/faster-rcnn/baseline/rate0-seed0"].data.params
    assert params["task.name"] == "faster-rcnn" and params["task.weights"] == "pretrained"
    assert params["split"] == "test" and params["rate_value"] == "10.0"


def test_original_pixels_have_no_rate(results: ResultsFolder, store: Callable[[], Store]) -> None:
    sync(results.fill().root)
    metrics = store().runs()["toy2020/uncoded/faster-rcnn/pretrained/rate0-seed0"].data.metrics
    assert metrics["box_map"] == 0.6
    assert "bpp" not in metrics
    assert "psnr" not in metrics  # infinite


def test_study_and_curves(results: ResultsFolder, store: Callable[[], Store]) -> None:
    sync(results.fill().root)
    run = store().runs()["toy2020"]
    name = "bd_rate_pct/box_map.hyperprior.faster-rcnn.c-ft"
    assert run.data.metrics == {name: -20.5, name.replace("rate_pct", "accuracy_points"): 1.5}
    files = [f.path for f in store().client.list_artifacts(run.info.run_id)]
    assert files == ["bd.csv", "curves.csv", "index.html", "plan.json"]
    curve = f"{CFT}/curve"
    assert store().history(curve, "curve/box_map_vs_millibpp") == [(250, 0.4), (500, 0.5)]
    assert store().runs()[curve].data.metrics["bd_rate_pct/box_map"] == -20.5
    assert store().runs()[curve].data.metrics["interval/bd_rate_pct_low.box_map"] == -30
    assert store().runs()[curve].data.tags["bd.box_map.anchor"] == "jpeg/faster-rcnn/baseline"
    level = store().history(
        "toy2020/uncoded/faster-rcnn/pretrained/curve", "curve/box_map_vs_millibpp"
    )
    assert level == [(250, 0.6), (500, 0.6)]


def saved_view(tag: str) -> dict[str, Any]:
    """Read a view as MLflow's interface does."""
    saved = json.loads(tag)
    assert saved["name"]
    assert isinstance(saved["createdAt"], int)
    method, _, state = saved["state"].partition(";")
    assert method == "deflate"
    view: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(state)))
    return view


def test_views_are_filters_and_charts_over_metrics_that_exist(
    results: ResultsFolder, store: Callable[[], Store]
) -> None:
    sync(results.fill().root)
    experiment = store().client.get_experiment_by_name("icmbench/toy2020/smoke")
    metrics = {name for run in store().runs().values() for name in run.data.metrics}
    for name, runs in (("points", 5), ("curves", 3), ("training", 2)):
        assert f"viewStateShareKey=icmbench-{name}" in experiment.tags["mlflow.note.content"]
        view = saved_view(experiment.tags[f"mlflow.sharedViewState.icmbench-{name}"])
        found = store().client.search_runs([experiment.experiment_id], view["searchFilter"])
        assert len(found) == runs
        for chart in view["compareRunCharts"]:
            keys = [chart.get("metricKey")] + [
                chart.get(a, {}).get("key") for a in ("xaxis", "yaxis")
            ]
            assert {key for key in keys if key} <= metrics


def test_a_repeat_adds_nothing(results: ResultsFolder, store: Callable[[], Store]) -> None:
    sync(results.fill().root)
    before = store().content()
    again = sync(results.root)
    assert (again.created, again.replaced, again.updated, again.values) == (0, 0, 0, 0)
    assert store().content() == before


def test_a_rebuilt_store_is_the_same(
    results: ResultsFolder, store: Callable[[], Store], template: Path
) -> None:
    for key in (POINT, OTHER):
        for step in (10, 20):
            results.log(key, step)
        results.record(key, "running")
    sync(results.root)
    for key in (POINT, OTHER):
        (results.folder(key) / "metrics.jsonl").unlink()
    results.fill()
    sync(results.root)
    grown = store().content()
    (results.root.parent / "mlflow.db").write_bytes(template.read_bytes())
    sync(results.root)
    assert store().content() == grown


def test_tables_that_come_later_are_added(
    results: ResultsFolder, store: Callable[[], Store]
) -> None:
    results.train(POINT)
    first = sync(results.root)
    assert (first.runs, first.complete) == (3, False)
    assert store().runs()[POINT].data.tags["stage"] == "trained"
    assert store().runs()["toy2020"].info.status == "SCHEDULED"
    run_id = store().runs()[POINT].info.run_id
    results.evaluate(POINT)
    sync(results.root)
    results.analyse()
    sync(results.root)
    run = store().runs()[POINT]
    assert run.info.run_id == run_id
    assert run.data.metrics["box_map"] == pytest.approx(0.4)
    assert run.data.metrics["interval/box_map_low"] == pytest.approx(0.39)
    assert store().history(POINT, "box_map") == [(0, pytest.approx(0.4))]
    assert len(store().history(f"{CFT}/curve", "curve/box_map_vs_millibpp")) == 2
    assert not store().runs(deleted=True)


def test_new_rows_are_sent_alone_and_an_unfinished_row_waits(
    results: ResultsFolder, store: Callable[[], Store]
) -> None:
    results.log(POINT, 10)
    results.record(POINT, "running")
    sync(results.root)
    assert store().runs()[POINT].info.status == "RUNNING"
    results.log(POINT, 20)
    path = results.folder(POINT) / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"step": 30, "time": 1, "sp')
    second = sync(results.root)
    assert second.values == 2 * 3  # two splits, three names
    path.write_text(whole)
    results.log(POINT, 30)
    sync(results.root)
    assert [step for step, _ in store().history(POINT, "train/loss")] == [10, 20, 30]
    assert not store().runs(deleted=True)


def test_of_a_step_that_appears_twice_the_last_row_counts(
    results: ResultsFolder, store: Callable[[], Store]
) -> None:
    for step, loss in ((10, 1.0), (20, 2.0), (30, 3.0), (20, 2.5), (30, 3.5), (40, 4.0)):
        results.log(POINT, step, loss, time=START + loss)
    results.record(POINT, "finished")
    sync(results.root)
    assert store().history(POINT, "train/loss") == [(10, 1.0), (20, 2.5), (30, 3.5), (40, 4.0)]


@pytest.mark.parametrize("how", ["appends", "truncates"])
def test_a_resume_behind_what_was_imported_leaves_no_old_values(
    results: ResultsFolder, store: Callable[[], Store], how: str
) -> None:
    for step in (10, 20, 30):
        results.log(POINT, step, step * 1.0)
    results.record(POINT, "running")
    sync(results.root)
    if how == "truncates":
        path = results.folder(POINT) / "metrics.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    for step in (20, 30, 40):
        results.log(POINT, step, step + 0.5, time=START + 1000 + step)
    result = sync(results.root)
    assert result.replaced == 1
    assert store().history(POINT, "train/loss") == [(10, 10.0), (20, 20.5), (30, 30.5), (40, 40.5)]
    gone = store().runs(deleted=True)[POINT]
    assert gone.data.tags["superseded"] == "its training went back to an earlier step"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f.evaluate(POINT, metrics={"bpp": 0.3}), "its results changed"),
        (lambda f: f.train(POINT, job={"schedule": {"steps": 5}}), "its settings changed"),
        (
            lambda f: f.evaluate(POINT, dataset={"name": "embedded-scenes", "digest": "e" * 64}),
            "its data changed",
        ),
    ],
    ids=["results", "settings", "data"],
)
def test_what_is_no_longer_true_is_replaced(
    results: ResultsFolder,
    store: Callable[[], Store],
    change: Callable[[ResultsFolder], None],
    reason: str,
) -> None:
    sync(results.fill().root)
    (results.root / "tables" / "curves.csv").unlink()
    change(results)
    assert sync(results.root).replaced == 1
    assert store().runs(deleted=True)[POINT].data.tags["superseded"] == reason
    assert sync(results.root).replaced == 0


def test_a_new_analysis_replaces_values_and_keeps_children_under_their_variant(
    results: ResultsFolder, store: Callable[[], Store]
) -> None:
    sync(results.fill().root)
    bd = results.root / "tables" / "bd.csv"
    write_text(bd, bd.read_text().replace("-20.5", "-21"))
    assert sync(results.root).replaced == 2  # the study and the curve
    runs = store().runs()
    assert runs[POINT].data.tags["mlflow.parentRunId"] == runs[f"{CFT}/curve"].info.run_id


def test_how_a_training_ended(results: ResultsFolder, store: Callable[[], Store]) -> None:
    results.train(POINT, "failed", error="the loss is nan")
    results.train(OTHER, "interrupted")
    sync(results.root)
    runs = store().runs()
    assert (runs[POINT].info.status, runs[OTHER].info.status) == ("FAILED", "KILLED")
    assert runs[POINT].data.tags["error"] == "the loss is nan"
    assert runs["toy2020"].info.status == "FAILED"


def test_a_training_that_went_silent_counts_as_killed_until_it_speaks_again(
    results: ResultsFolder, store: Callable[[], Store]
) -> None:
    results.log(POINT, 10)
    results.record(POINT, "running")
    sync(results.root)
    for path in results.folder(POINT).iterdir():
        os.utime(path, (time.time() - STALE_S - 60,) * 2)
    sync(results.root)
    assert store().runs()[POINT].info.status == "KILLED"
    results.log(POINT, 20)
    sync(results.root)
    assert store().runs()[POINT].info.status == "RUNNING"
    assert [step for step, _ in store().history(POINT, "train/loss")] == [10, 20]


def test_a_loss_that_is_not_a_number_is_kept(
    results: ResultsFolder, store: Callable[[], Store]
) -> None:
    results.log(POINT, 10, float("nan"))
    results.record(POINT, "failed")
    sync(results.root)
    value = store().history(POINT, "train/loss")[0][1]
    assert value != value
    assert sync(results.root).values == 0


@pytest.mark.slow
def test_an_import_killed_in_the_middle_is_completed(
    results: ResultsFolder, store: Callable[[], Store]
) -> None:
    """Every call to the store is a place to die; nothing is lost or doubled afterwards."""
    results.fill()
    code = (
        "import os, sys, pathlib\n"
        "from icmbench.track import sync\n"
        "from mlflow import MlflowClient\n"
        "left = int(sys.argv[2])\n"
        "def dying(name):\n"
        "    real = getattr(MlflowClient, name)\n"
        "    def call(*args, **options):\n"
        "        global left\n"
        "        left -= 1\n"
        "        if left < 0: os._exit(9)\n"
        "        return real(*args, **options)\n"
        "    setattr(MlflowClient, name, call)\n"
        "for name in ('create_run', 'log_batch', 'log_artifact', 'log_inputs', 'set_terminated',\n"
        "             'delete_run'):\n"
        "    dying(name)\n"
        "sync(pathlib.Path(sys.argv[1]))\n"
    )
    for calls in (7, 19):
        done = subprocess.run([sys.executable, "-c", code, str(results.root), str(calls)])
        assert done.returncode == 9
    sync(results.root)
    content = store().content()
    assert len(content) == RUNS
    for key in (POINT, OTHER):
        assert content[key]["metrics"]["train/loss"] == [(step, 1 / step) for step in STEPS]
        assert content[key]["metrics"]["box_map"] == [
            (0, pytest.approx(0.4 + 0.1 * (key == OTHER)))
        ]
    assert sync(results.root).updated == 0


def test_thousands_of_values_go_in_several_calls(
    results: ResultsFolder, store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_module, "_METRICS", 7)
    results.train(POINT)
    sync(results.root)
    for split in ("train", "val"):
        for name in ("loss", "bpp", "lr.codec"):
            assert len(store().history(POINT, f"{split}/{name}")) == len(STEPS)


def _sync_alone(root: str, barrier: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    sync(Path(root))


@pytest.mark.slow
def test_two_processes_that_find_no_store(tmp_path: Path) -> None:
    results = ResultsFolder(tmp_path).fill()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    both = [context.Process(target=_sync_alone, args=(str(results.root), barrier)) for _ in "ab"]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    store = Store(results.root)
    assert len(store.runs()) == RUNS
    assert not store.runs(deleted=True)
    assert len(store.history(POINT, "train/loss")) == len(STEPS)


def test_watching_picks_up_rows_and_ends_when_all_is_there(
    results: ResultsFolder, store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    results.log(POINT, 10)
    results.record(POINT, "running")
    seen: list[list[int]] = []

    def wait(seconds: float) -> None:
        assert seconds == 0.5
        seen.append([step for step, _ in store().history(POINT, "train/loss")])
        if len(seen) == 1:
            results.log(POINT, 20)
        else:
            (results.folder(POINT) / "metrics.jsonl").unlink()
            results.fill()

    monkeypatch.setattr("icmbench.track.importer.time.sleep", wait)
    result = sync(results.root, watch=0.5)
    assert seen == [[10], [10, 20]]
    assert result.complete
    assert len(store().runs()) == RUNS


def test_watching_survives_a_store_that_fails_for_a_while_and_ends_by_ctrl_c(
    results: ResultsFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results.train(POINT)
    database = results.root.parent / "mlflow.db"
    passes = iter(["break", "mend", "stop"])

    def wait(_: float) -> None:
        match next(passes):
            case "break":
                database.rename(database.with_suffix(".away"))
                database.write_text("no database")
            case "mend":
                database.with_suffix(".away").replace(database)
            case "stop":
                raise KeyboardInterrupt

    monkeypatch.setattr("icmbench.track.importer.time.sleep", wait)
    result = sync(results.root, watch=1)
    assert (result.runs, result.created) == (3, 3)
    assert "not an SQLite database" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_costs_its_run_only(
    results: ResultsFolder, store: Callable[[], Store]
) -> None:
    results.fill()
    (results.folder(POINT) / "run.json").write_text("{")
    result = sync(results.root)
    assert len(result.problems) == 1
    assert "run.json: cannot be read" in result.problems[0]
    assert not result.complete
    assert POINT not in store().runs()
    assert len(store().runs()) == RUNS - 1


def test_two_runs_of_one_key_become_one(results: ResultsFolder, store: Callable[[], Store]) -> None:
    sync(results.fill().root)
    client = store().client
    experiment = client.get_experiment_by_name("icmbench/toy2020/smoke").experiment_id
    client.create_run(experiment, tags={"run_key": POINT})
    sync(results.root)
    assert len(store().runs()) == RUNS


def test_no_plan(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plan\.json: no such file"):
        sync(tmp_path)


def test_watch_must_be_positive(results: ResultsFolder) -> None:
    with pytest.raises(UserError, match="watch is 0"):
        sync(results.root, watch=0)
