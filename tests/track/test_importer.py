"""What an import leaves in a store, and that a repeat, a kill or a resume does not damage it."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from results_folder import CFT, RUNS, START, STEPS, ResultsFolder
from stored import Stored

from icmbench.config.job_settings import train_job
from icmbench.errors import UserError
from icmbench.track import importer, sync, track
from icmbench.utils.files import read_json, write_text

POINT, OTHER = f"{CFT}/rate0-seed0", f"{CFT}/rate1-seed0"
Get = Callable[[], Stored]
Finished = tuple[ResultsFolder, Stored]


def test_sync_makes_points_children_of_their_variant(finished: Finished) -> None:
    runs = finished[1].runs()
    assert len(runs) == RUNS
    for run in runs.values():
        variant = runs.get(f"toy2020/{run.data.tags.get('variant')}/curve")
        point = run.data.tags["kind"] == "operating point"
        parent = run.data.tags.get("mlflow.parentRunId")
        assert parent == (variant.info.run_id if point and variant else None)
    assert runs[f"{CFT}/curve"].info.run_name == "c-ft"
    assert finished[1].client.get_experiment_by_name("icmbench/toy2020/smoke") is not None


def test_charts_begin_with_the_leading_variants_and_original_images(finished: Finished) -> None:
    variants = [r.data.tags for r in finished[1].runs().values() if "order" in r.data.tags]
    found = [tags["codec"] for tags in sorted(variants, key=lambda tags: tags["order"])]
    assert found == ["bmshj2018-hyperprior", "uncoded", "jpeg"]


def test_sync_of_a_finished_run_is_complete(finished: Finished) -> None:
    """An operating point that is neither trained nor evaluated has no files to wait for."""
    results, stored = finished
    planned = {point.key for point in results.plan.points}
    assert "toy2020/hyperprior/reconstruction/frozen/rate0-seed0" in planned
    marker = read_json(results.root / "tracking.json")
    assert (marker["status"], marker["runs"], marker["complete"]) == ("done", RUNS, True)
    assert marker["problems"] == []
    runs = stored.runs()
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs[f"{CFT}/curve"].data.tags["points"] == "2/2"
    assert runs[f"{CFT}/curve"].info.end_time is not None


def test_track_watch_ends_when_the_run_is_finished(
    results: ResultsFolder, stored: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    results.log(POINT, 10)
    results.record(POINT, "running")
    seen: list[list[int]] = []

    def wait(_: float) -> None:
        seen.append([step for step, _ in stored().history(POINT, "train/loss")])
        if len(seen) == 1:
            results.log(POINT, 20)
        else:
            (results.folder(POINT) / "metrics.jsonl").unlink()
            results.fill()

    monkeypatch.setattr("icmbench.track.importer.time.sleep", wait)
    assert track(results.root, watch=0.5) == 0
    assert seen == [[10], [10, 20]]
    assert len(stored().runs()) == RUNS
    assert not (results.root / "tracking.json").exists()  # the output of the workflow's rule


def test_sync_stores_settings_results_curves_data_and_files(finished: Finished) -> None:
    run = finished[1].runs()[POINT]
    assert run.info.run_name == "c-ft, rate 0, seed 0"
    assert (run.info.start_time, run.info.end_time) == (START * 1000, (START + 200) * 1000)
    params = run.data.params
    assert params["schedule.steps"] == "100"
    assert params["loss.bpp"] == params["rate_value"] == "0.01"
    assert params["parts"] == "codec"
    # MLflow's scatter plot of compared runs begins with these two.
    assert min(params) == "Bits per pixel" and params["Bits per pixel"] == "0.25"
    assert min(run.data.metrics) == "Box mAP in percent"
    expected = {
        "bpp": 0.25,
        "box_map": 0.4,
        "Box mAP in percent": 40,
        "interval/box_map_low": 0.39,
        "psnr": 30.0,
        "n_images": 2,
        "cost/train_wall_seconds": 100,
        "cost/evaluate_wall_seconds": 3,
        "parameters/codec": 1000,
        "final/loss": 0.01,
    }
    assert {name: run.data.metrics[name] for name in expected} == pytest.approx(expected)
    assert finished[1].history(POINT, "train/loss") == [(step, 1 / step) for step in STEPS]
    assert len(finished[1].history(POINT, "val/bpp")) == len(STEPS)
    tags = run.data.tags
    assert tags["mlflow.source.git.commit"] == "c" * 40
    assert tags["version.torch"] == "2.13.0"
    assert tags["weights_sha256"] == "a" * 64
    assert (tags["rate_index"], tags["seed"]) == ("0", "0")
    data = [(i.dataset.name, i.dataset.digest, i.tags[0].value) for i in run.inputs.dataset_inputs]
    assert sorted(data) == [
        ("embedded-scenes:test", "d" * 32, "evaluation"),
        ("embedded-scenes:train", "d" * 32, "training"),
    ]
    files = [file.path for file in finished[1].client.list_artifacts(run.info.run_id)]
    assert files == ["evaluate.json", "model", "run.json"]
    variant = finished[1].runs()[f"{CFT}/curve"].info.run_id
    files = [file.path for file in finished[1].client.list_artifacts(variant)]
    assert files == ["c.txt"] and tags["environment.sources"] == "provenance/c.txt"


def test_sync_of_an_untrained_point_stores_the_settings_of_its_evaluation(
    finished: Finished,
) -> None:
    params = finished[1].runs()["toy2020/jpeg/faster-rcnn/baseline/rate0-seed0"].data.params
    assert params["task.name"] == "faster-rcnn"
    assert params["split"] == "test" and params["rate_value"] == "10.0"


def test_sync_of_original_images_stores_no_rate(finished: Finished) -> None:
    metrics = finished[1].runs()["toy2020/uncoded/faster-rcnn/pretrained/rate0-seed0"].data.metrics
    assert metrics["box_map"] == 0.6
    assert "bpp" not in metrics
    assert "psnr" not in metrics  # infinite


def test_sync_stores_curves_and_bd_metrics(finished: Finished) -> None:
    curve = f"{CFT}/curve"
    assert finished[1].history(curve, "at_millibpp/box_map") == [(250, 0.4), (500, 0.5)]
    run = finished[1].runs()[curve]
    against = "box_map.vs.jpeg.faster-rcnn.baseline"
    assert run.data.metrics[f"bd_rate_pct/{against}"] == -20.5
    assert run.data.metrics[f"bd_accuracy_points/{against}"] == 1.5
    assert run.data.metrics[f"interval/bd_rate_pct_low.{against}"] == -30
    original = "toy2020/uncoded/faster-rcnn/pretrained/curve"  # a level line, at no rate of its own
    level = finished[1].history(original, "at_millibpp/box_map")
    assert level == [(250, 0.6), (500, 0.6)]


def test_sync_repeated_changes_nothing(results: ResultsFolder, stored: Get) -> None:
    sync(results.fill().root)
    ids = {key: run.info.run_id for key, run in stored().runs().items()}
    assert sync(results.root).changed == 0
    assert {key: run.info.run_id for key, run in stored().runs().items()} == ids


def test_sync_extends_a_training_run_in_progress(results: ResultsFolder, stored: Get) -> None:
    results.log(POINT, 10)
    results.record(POINT, "running")
    sync(results.root)
    run_id = stored().runs()[POINT].info.run_id
    assert stored().runs()[POINT].info.status == "RUNNING"
    results.log(POINT, 20)
    path = results.folder(POINT) / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"step": 30, "time": 1, "sp')  # being written
    assert sync(results.root).changed == 1
    path.write_text(whole)
    results.log(POINT, 30)
    sync(results.root)
    assert [step for step, _ in stored().history(POINT, "train/loss")] == [10, 20, 30]
    assert stored().runs()[POINT].info.run_id == run_id


def test_sync_after_a_resume_keeps_no_values_of_lost_steps(
    results: ResultsFolder, stored: Get
) -> None:
    for step in (10, 20, 30):
        results.log(POINT, step, step * 1.0)
    results.record(POINT, "running")
    sync(results.root)
    path = results.folder(POINT) / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    results.log(POINT, 20, 20.5, time=START + 1000)
    assert sync(results.root).changed == 1
    assert stored().history(POINT, "train/loss") == [(10, 10.0), (20, 20.5)]


def test_sync_replaces_what_changed(results: ResultsFolder, stored: Get) -> None:
    sync(results.fill().root)
    before = {key: run.info.run_id for key, run in stored().runs().items()}
    results.evaluate(POINT, metrics={"bpp": 0.3})
    assert sync(results.root).changed == 1
    job = train_job(results.plan, results.point(POINT))
    job = job.model_copy(update={"schedule": job.schedule.model_copy(update={"steps": 5})})
    (results.folder(POINT) / "metrics.jsonl").unlink()
    results.train(POINT, job=job.model_dump(mode="json"))
    assert sync(results.root).changed == 1
    other = {"name": "x", "role": "detection", "digest": "e" * 64, "split": "test"}
    results.evaluate(POINT, dataset=other)
    assert sync(results.root).changed == 1
    after = {key: run.info.run_id for key, run in stored().runs().items()}
    assert {key for key in before if before[key] != after[key]} == {POINT}
    run = stored().runs()[POINT]
    assert run.data.params["schedule.steps"] == "5"
    assert "x:test" in {item.dataset.name for item in run.inputs.dataset_inputs}


def test_sync_of_another_analysis_keeps_points_under_their_variant(
    results: ResultsFolder, stored: Get
) -> None:
    sync(results.fill().root)
    bd = results.root / "tables" / "bd.csv"
    write_text(bd, bd.read_text().replace("-20.5", "-21"))
    sync(results.root)
    runs = stored().runs()
    assert -21 in runs[f"{CFT}/curve"].data.metrics.values()
    assert runs[POINT].data.tags["mlflow.parentRunId"] == runs[f"{CFT}/curve"].info.run_id


def test_sync_stores_how_a_training_run_ended(results: ResultsFolder, stored: Get) -> None:
    results.train(POINT, "failed", error="the loss is nan")
    results.train(OTHER, "interrupted")
    results.log(OTHER, 110, float("nan"))
    sync(results.root)
    runs = stored().runs()
    assert (runs[POINT].info.status, runs[OTHER].info.status) == ("FAILED", "KILLED")
    assert runs[POINT].data.tags["error"] == "the loss is nan"
    assert runs[f"{CFT}/curve"].info.status == "RUNNING"
    assert sync(results.root).changed == 0


def test_sync_sends_many_values(
    results: ResultsFolder, stored: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "_BATCH", 7)
    monkeypatch.setattr(importer, "_PARAMETERS", 7)
    results.train(POINT)
    sync(results.root)
    for name in ("train/loss", "val/loss", "train/lr.codec"):
        assert len(stored().history(POINT, name)) == len(STEPS)
    assert len(stored().runs()[POINT].data.params) > 20


def test_sync_leaves_out_a_file_that_cannot_be_read(results: ResultsFolder, stored: Get) -> None:
    results.fill()
    (results.folder(POINT) / "run.json").write_text("{")
    result = sync(results.root)
    assert "run.json" in "".join(result.problems)
    assert not result.complete
    assert len(stored().runs()) == RUNS - 1
    assert track(results.root, strict=True) == 1


def test_sync_without_a_plan_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plan\.json"):
        sync(tmp_path)


def test_track_with_a_defect_does_not_fail_the_workflow(
    results: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(importer, "sync", defect)
    assert track(results.root) == 0
    marker = read_json(results.root / "tracking.json")
    assert marker["status"] == "failed" and "surprise" in marker["problems"][0]
    assert track(results.root, strict=True) == 1


def test_track_without_mlflow_says_how_to_install_it(
    results: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert track(results.root) == 0
    written = read_json(results.root / "tracking.json")
    assert written["status"] == "failed" and "pip install mlflow" in written["problems"][0]


def test_track_watch_must_be_positive(results: ResultsFolder) -> None:
    with pytest.raises(UserError, match="0"):
        track(results.root, watch=0)


@pytest.mark.slow
def test_sync_killed_in_the_middle_is_completed_by_the_next(
    results: ResultsFolder, stored: Get
) -> None:
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
        "             'set_tag', 'create_model_version', 'delete_run'):\n"
        "    dying(name)\n"
        "sync(pathlib.Path(sys.argv[1]))\n"
    )
    for calls in (7, 19):
        done = subprocess.run([sys.executable, "-c", code, str(results.root), str(calls)])
        assert done.returncode == 9
    sync(results.root)
    content = stored().content()
    assert len(content) == RUNS
    for key in (POINT, OTHER):
        assert content[key]["metrics"]["train/loss"] == [(step, 1 / step) for step in STEPS]
        assert len(content[key]["versions"]) == 1


def _sync_at_once(root: str, barrier: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    sync(Path(root))


@pytest.mark.slow
def test_sync_by_two_processes_without_a_store(tmp_path: Path) -> None:
    results = ResultsFolder(tmp_path).fill()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    both = [context.Process(target=_sync_at_once, args=(str(results.root), barrier)) for _ in "ab"]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(Stored(results.root).runs()) == RUNS
    assert len(Stored(results.root).history(POINT, "train/loss")) == len(STEPS)


def test_leading_plot_of_a_study_is_a_run(results: ResultsFolder, stored: Get) -> None:
    results.fill()
    write_text(results.root / "report/figures/toy2020-leading.svg", "<svg/>")
    assert sync(results.root).runs == RUNS + 1
    assert sync(results.root).changed == 0
    run = stored().runs()["toy2020/leading"]
    assert (run.info.status, run.data.tags["kind"]) == ("FINISHED", "study")
    client = stored().client
    (file,) = client.list_artifacts(run.info.run_id)
    image = f"get-artifact?path={file.path}&run_uuid={run.info.run_id}"
    experiment = client.get_experiment(run.info.experiment_id)
    for tags in (run.data.tags, experiment.tags):
        assert image in tags["mlflow.note.content"]
