"""Import a scale's results into MLflow, once or again and again while they grow."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from icmbench.config.summary import read_plan
from icmbench.errors import UserError
from icmbench.track.content import Content
from icmbench.track.points import read_point
from icmbench.track.push import RUN_KEY, discard, push
from icmbench.track.store import Address, open_store, resolve_address
from icmbench.track.study import study_content
from icmbench.track.tables import Tables
from icmbench.track.variant import variant_content
from icmbench.track.views import experiment_tags

_PAGE = 1000


@dataclass(frozen=True)
class SyncResult:
    """What an import did.

    Attributes:
        uri: the store, without credentials.
        runs: runs that the results make in the store.
        created: runs that were new.
        replaced: runs that were made anew because what they held was no longer true.
        updated: runs that grew or changed in tags or status.
        values: metric values sent.
        complete: whether every planned operating point is finished and evaluated.
        problems: files that could not be understood; their runs were passed over.
    """

    uri: str
    runs: int = 0
    created: int = 0
    replaced: int = 0
    updated: int = 0
    values: int = 0
    complete: bool = False
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Study:
    """What a study's experiment holds: its own run, and each variant's with its points below."""

    experiment: str
    own: Content
    variants: list[tuple[Content, list[Content]]]

    @property
    def contents(self) -> list[Content]:
        """All runs."""
        below = [run for variant, points in self.variants for run in (variant, *points)]
        return [self.own, *below]


def sync(
    root: Path, *, uri: str | None = None, watch: float | None = None, patient: bool = False
) -> SyncResult:
    """Import the results of a scale into MLflow; a repeat adds nothing.

    The experiment of a study is ``<tracking.experiment>/<study>/<scale>``. Its runs are found again
    by the tag ``run_key``, so the import may stop anywhere and be repeated. Runs of points that
    have left the plan stay.

    Args:
        root: ``results/<scale>``, with ``plan.json``.
        uri: tracking address; None takes MLFLOW_TRACKING_URI, else ``tracking.uri`` of the
            configuration, else ``sqlite:///<results>/mlflow.db``.
        watch: seconds between two imports; they go on until every planned operating point is
            complete or Ctrl-C. None imports once.
        patient: give a slow server time, see :func:`icmbench.track.store.open_store`.

    Returns:
        Sums over all imports; ``runs``, ``complete`` and ``problems`` are those of the last one.

    Raises:
        UserError: for a missing plan or table, or a store that does not answer, within about five
            seconds. While watching, only the first import raises; later ones warn and are repeated.
    """
    if watch is not None and watch <= 0:
        raise UserError(f"watch is {watch}; allowed: seconds above 0, or leave it out")
    total = _import(root, uri, patient)
    try:
        while watch is not None and not total.complete:
            time.sleep(watch)
            try:
                total = _add(total, _import(root, uri, patient))
            except UserError as error:
                print(f"warning: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("watching ended", file=sys.stderr)
    return total


def _add(total: SyncResult, new: SyncResult) -> SyncResult:
    names = ("created", "replaced", "updated", "values")
    return replace(new, **{name: getattr(total, name) + getattr(new, name) for name in names})


def _import(root: Path, uri: str | None, patient: bool) -> SyncResult:
    plan = read_plan(root)
    tracking = plan["run"]["tracking"]
    address = resolve_address(root, uri, tracking.get("uri"))
    # Everything is read before the store is opened: an import holds it as briefly as it can.
    studies, complete, problems = _read_studies(root, plan, tracking["experiment"])
    result = SyncResult(address.shown, complete=complete, problems=tuple(problems))
    if not studies:
        return result
    with open_store(address, patient) as client:
        counts: Counter[str] = Counter()
        for study in studies:
            counts += _push_study(client, address, study)
    return replace(
        result,
        runs=sum(len(study.contents) for study in studies),
        created=counts["created"],
        replaced=counts["replaced"],
        updated=counts["updated"],
        values=counts["values"],
    )


def _read_studies(
    root: Path, plan: dict[str, Any], prefix: str
) -> tuple[list[_Study], bool, list[str]]:
    tables = Tables(root)
    studies: list[_Study] = []
    problems: list[str] = []
    all_complete = True
    for name in plan["studies"]:
        planned = [point for point in plan["points"] if point["study"] == name]
        points: list[Content] = []
        variants = []
        complete = True
        for variant in dict.fromkeys(point["variant"] for point in planned):
            own_points = [point for point in planned if point["variant"] == variant]
            contents, all_there = _read_points(root, plan, own_points, tables, problems)
            complete &= all_there
            points += contents
            if contents:
                own = variant_content(plan, name, variant, tables, contents, all_there)
                variants.append((own, contents))
        all_complete &= complete
        if points:
            experiment = f"{prefix}/{name}/{plan['scale']['name']}"
            own = study_content(root, plan, name, tables, points, complete)
            studies.append(_Study(experiment, own, variants))
    return studies, all_complete, problems


def _read_points(
    root: Path,
    plan: dict[str, Any],
    points: list[dict[str, Any]],
    tables: Tables,
    problems: list[str],
) -> tuple[list[Content], bool]:
    """Return the runs of a variant's points and whether all are complete; add to ``problems``."""
    contents, complete = [], True
    for point in points:
        try:
            state = read_point(root, plan, point, tables)
        except UserError as error:
            problems.append(str(error))
            complete = False
            continue
        complete &= state.complete
        if state.content is not None:
            contents.append(state.content)
    return contents, complete


def _push_study(client: Any, address: Address, study: _Study) -> Counter[str]:
    experiment = _experiment(client, address, study)
    known: dict[str, Any] = {}
    for run in _runs(client, experiment):
        key = run.data.tags.get(RUN_KEY)
        if key in known:  # two machines imported into one server at once
            discard(client, run.info.run_id, "imported twice")
        elif key is not None:
            known[key] = run
    _tag_experiment(client, experiment, study)
    counts: Counter[str] = Counter()

    def send(content: Content, parent: str | None) -> str:
        pushed = push(client, experiment, known.get(content.key), content, parent)
        counts[pushed.action] += 1
        counts["values"] += pushed.values
        return pushed.run_id

    send(study.own, None)
    for variant, points in study.variants:
        parent = send(variant, None)
        for point in points:
            send(point, parent)
    return counts


def _experiment(client: Any, address: Address, study: _Study) -> str:
    found = client.get_experiment_by_name(study.experiment)
    if found is None:
        location = address.artifact_root
        if location is not None:
            location = f"{location}/{study.experiment}"
        created = client.create_experiment(study.experiment, location)
        return str(created)
    if found.lifecycle_stage == "deleted":
        raise UserError(
            f"MLflow experiment {study.experiment!r} was deleted at {address.shown}; restore it in "
            "MLflow's interface or set another tracking.experiment in config.yaml"
        )
    return str(found.experiment_id)


def _tag_experiment(client: Any, experiment: str, study: _Study) -> None:
    held = client.get_experiment(experiment).tags
    for name, value in experiment_tags(experiment, study.own, study.contents[1:]).items():
        if held.get(name) != value:
            client.set_experiment_tag(experiment, name, value)


def _runs(client: Any, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
