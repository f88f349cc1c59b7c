"""Checks across sections and files, which the type of one key cannot make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from icmbench.config.claim_checks import claim_faults
from icmbench.config.classical import check_choice, rate_problems
from icmbench.config.load import check
from icmbench.config.published import published_points
from icmbench.config.run import RunConfig
from icmbench.config.scale import Scale
from icmbench.config.study import (
    Study,
    Training,
    Variant,
    Weights,
    WeightsFile,
    published_path,
)
from icmbench.config.zoo import Zoo
from icmbench.data.specs import FolderImages
from icmbench.errors import UserError, unknown
from icmbench.jobs import Part, RateTarget
from icmbench.metrics.catalogue import quality_metrics
from icmbench.registry import CODECS, TASKS, CodecEntry, TaskEntry
from icmbench.tasks.entries import ResnetRcnnParameters
from icmbench.tasks.fixed.entries import PublishedParameters
from icmbench.utils.models import Strict

_BOXES = {"box_map", "mask_map"}  # what detectors are measured by


def codec_parameters(scale: Scale, name: str) -> Strict:
    """Return the typed parameters of a codec at a scale, or the settings of a command."""
    where = f"workflow/scales/{scale.name}.yaml, section 'codecs.{name}'"
    entry = CODECS[name]
    found = check(entry.parameters, {**entry.defaults, **scale.codecs.get(name, {})}, where)
    return entry.command or found


def task_network(scale: Scale, name: str) -> str:
    """Return the name in the registry of a task, or of the network that a scale names so."""
    return str(scale.tasks.get(name, {}).get("network", name))


def task_entry(scale: Scale, name: str) -> TaskEntry:
    """Return the entry of a task; its metrics are those that follow from its parameters."""
    entry = TASKS[task_network(scale, name)]
    if entry.metrics_for is None:
        return entry
    return replace(entry, metrics=entry.metrics_for(task_parameters(scale, name)))


def is_task(scale: Scale, name: str) -> bool:
    """Return whether a task of this name is registered, or given by the scale."""
    return task_network(scale, name) in TASKS


def task_parameters(scale: Scale, name: str) -> Strict:
    """Return the typed parameters of task ``name`` at a scale."""
    where = f"workflow/scales/{scale.name}.yaml or config.yaml, section 'tasks.{name}'"
    given = {key: value for key, value in scale.tasks.get(name, {}).items() if key != "network"}
    entry = TASKS[task_network(scale, name)]
    return check(entry.parameters, {**entry.defaults, **given}, where)


def task_files(scale: Scale, name: str) -> list[str]:
    """Return the files that a task's parameters name, which its evaluation depends on."""
    parameters = task_parameters(scale, name)
    values = [getattr(parameters, key) for key in task_entry(scale, name).files]
    return [str(path) for own in values for path in (own if isinstance(own, list) else [own])]


def part_entry(scale: Scale, variant: Variant, part: Part) -> CodecEntry | TaskEntry:
    """Return the entry of a variant's codec or task."""
    return CODECS[variant.codec] if part == "codec" else task_entry(scale, variant.task)


def part_parameters(scale: Scale, variant: Variant, part: Part) -> Strict:
    """Return the typed parameters of a variant's codec or task at a scale."""
    if part == "codec":
        return codec_parameters(scale, variant.codec)
    return task_parameters(scale, variant.task)


def takes_from_zoo(scale: Scale, variant: Variant, part: Part) -> bool:
    """Return whether ``pretrained`` of a variant's codec or task means weights of the zoo."""
    return scale.pretrained == "zoo" and not part_entry(scale, variant, part).one_size


def check_all(
    run: RunConfig, scale: Scale, studies: dict[str, Study], zoo: Zoo | None = None
) -> None:
    """Raise one UserError that lists every inconsistency, or return."""
    faults = _Faults()
    _check_run(run, faults)
    _check_scale(scale, faults)
    for study in studies.values():
        for name in study.variants:
            _Check(scale, studies, study, name, zoo or Zoo(), faults).run()
        _check_references(run, scale, study, faults)
        # Studies that only provide initial weights have lost their other variants.
        if study.name in run.studies:
            faults.lines += claim_faults(_where(scale, study), study, partial(_metrics, run, scale))
    faults.raise_any()


class _Faults:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, where: str, key: str, value: Any, problem: str) -> None:
        self.lines.append(f"{where}: key {key!r}: {value!r} {problem}")

    def unknown(self, where: str, key: str, value: Any, what: str, allowed: Iterable[str]) -> None:
        self.lines.append(f"{where}: key {key!r}: {unknown(what, value, allowed)}")

    def raise_any(self) -> None:
        if self.lines:
            raise UserError("\n".join(dict.fromkeys(self.lines)))


def _check_run(run: RunConfig, faults: _Faults) -> None:
    faults.lines += check_choice(run)
    for key in ("studies", "seeds", "perceptual"):
        values = getattr(run, key)
        if len(set(values)) != len(values):
            faults.lines.append(f"{run.where(key)}: {values!r} contains duplicates")


def check_overrides(scale: Scale, known: Iterable[str]) -> None:
    """Raise one UserError for what a scale lays over studies that do not exist, or return."""
    faults = _Faults()
    for name in scale.studies:
        if name not in known:
            faults.unknown(f"workflow/scales/{scale.name}.yaml", "studies", name, "study", known)
    faults.raise_any()


def _check_scale(scale: Scale, faults: _Faults) -> None:
    where = f"workflow/scales/{scale.name}.yaml"
    for name in scale.codecs:
        if name not in CODECS:
            faults.unknown(where, "codecs", name, "codec", CODECS.names())
    for name, given in scale.tasks.items():
        network = given.get("network")
        if network is not None and name in TASKS:
            faults.add(where, f"tasks.{name}.network", network, "but this is the name of a task of "
                       "its own; choose another name")  # fmt: skip
        elif not is_task(scale, name):
            key = "tasks" if network is None else f"tasks.{name}.network"
            faults.unknown(where, key, network or name, "task", TASKS.names())
    codecs = [entry.name for entry in CODECS if entry.kind != "none"]
    classical = [entry.name for entry in CODECS if entry.kind == "classical"]
    for name in scale.classical_where_found:
        if name not in classical:
            faults.unknown(where, "classical_where_found", name, "classical codec", classical)
    for role, counts in scale.chunks.items():
        if role not in scale.datasets:
            faults.unknown(where, "chunks", role, "data set role", scale.datasets)
        for name in counts:
            if name not in codecs:
                faults.unknown(where, f"chunks.{role}", name, "codec", codecs)


def _where(scale: Scale, study: Study) -> str:
    return f"{study.file} at scale {scale.name!r}"


def _check_references(run: RunConfig, scale: Scale, study: Study, faults: _Faults) -> None:
    where = _where(scale, study)
    evaluated = {name for name, variant in study.variants.items() if variant.evaluate}
    for name in study.leading or []:
        if name not in evaluated:
            faults.unknown(where, "leading", name, "evaluated variant", evaluated)
    for index, comparison in enumerate(study.comparisons):
        for name in [comparison.anchor, *comparison.variants]:
            if name not in evaluated:
                key = f"comparisons.{index}"
                faults.unknown(where, key, name, "evaluated variant", evaluated)
                continue
            known = _metrics(run, scale, study.variants[name])
            for metric in comparison.metrics:
                if metric not in known:
                    key = f"comparisons.{index}.metrics"
                    faults.unknown(where, key, metric, f"metric of variant {name!r}", known)
    for index, image in enumerate(study.visual_comparisons):
        for name in image.variants:
            if name not in evaluated:
                key = f"visual_comparisons.{index}.variants"
                faults.unknown(where, key, name, "evaluated variant", evaluated)
    _check_published(where, study, evaluated, faults)


def _check_published(where: str, study: Study, evaluated: set[str], faults: _Faults) -> None:
    for index, cell in enumerate(study.published):
        for key, name in (("variant", cell.variant), ("anchor", cell.anchor)):
            if name is not None and name not in study.variants:
                faults.unknown(where, f"published.{index}.{key}", name, "variant", study.variants)
        if (cell.anchor is None) == cell.metric.startswith("bd_"):
            key = f"published.{index}.anchor"
            faults.add(where, key, cell.anchor, f"with metric {cell.metric!r}: BD metrics need an "
                       "anchor, others have none")  # fmt: skip
    cells = [(c.group, c.label, c.variant, c.metric, c.anchor) for c in study.published]
    for index, quoted in enumerate(cells):
        if quoted in cells[:index]:
            group, label, _, metric, _ = quoted
            faults.add(where, f"published.{index}", metric, f"of {label!r} in {group!r} is a "
                       "duplicate; state each number once")  # fmt: skip
    protocols = published_points().protocols
    for key in ("published_protocol", "protocol"):
        if (name := getattr(study, key)) is not None and name not in protocols:
            faults.unknown(where, key, name, "protocol", protocols)
    labels = [curve.label for curve in study.published_curves]
    for index, curve in enumerate(study.published_curves):
        key = f"published_curves.{index}"
        if curve.variant is not None and curve.variant not in evaluated:
            faults.unknown(where, f"{key}.variant", curve.variant, "evaluated variant", evaluated)
        if labels.count(curve.label) > 1:
            faults.add(where, f"{key}.label", curve.label, "names two curves; rename one")
        if curve.protocol is not None and curve.protocol not in protocols:
            faults.unknown(where, f"{key}.protocol", curve.protocol, "protocol", protocols)
        path = published_path(curve.file)
        if not path.is_file():
            faults.add(where, f"{key}.file", curve.file, f"does not exist; put it at {path}")


def _metrics(run: RunConfig, scale: Scale, variant: Variant) -> tuple[str, ...]:
    own = task_entry(scale, variant.task).metrics if is_task(scale, variant.task) else ()
    return (*own, *quality_metrics(run.perceptual))


class _Check:
    """The checks of one variant."""

    def __init__(
        self,
        scale: Scale,
        studies: dict[str, Study],
        study: Study,
        name: str,
        zoo: Zoo,
        faults: _Faults,
    ) -> None:
        self.scale, self.studies, self.study, self.zoo = scale, studies, study, zoo
        self.name, self.variant, self.faults = name, study.variants[name], faults
        self.ladder = study.ladder(self.variant)
        self.dataset = scale.datasets.get(self.variant.dataset)
        self.where = _where(scale, study)

    def run(self) -> None:
        variant = self.variant
        if variant.codec not in CODECS:
            self._unknown("codec", variant.codec, "codec", CODECS.names())
            return
        if not is_task(self.scale, variant.task):
            self._unknown("task", variant.task, "task", {*TASKS.names(), *self.scale.tasks})
            return
        self.task = task_entry(self.scale, variant.task)
        codec_parameters(self.scale, variant.codec)
        task_parameters(self.scale, variant.task)
        self._check_files()
        if self.dataset is None:
            self._unknown("dataset", variant.dataset, "data set role", self.scale.datasets)
        elif _BOXES & set(self.task.metrics) and getattr(self.dataset, "center_crop", None):
            self._add("dataset", variant.dataset, "has a center_crop, which boxes and masks do "
                      "not follow; use short_side alone for detection")  # fmt: skip
        entry, reads = CODECS[variant.codec], self.task.input_kind
        if variant.evaluate and reads not in entry.outputs:
            self._add("task", variant.task, f"reads {reads}, but codec {entry.name!r} yields "
                      f"{' and '.join(entry.outputs)}")  # fmt: skip
        self._check_ladder()
        self._check_source("codec", needed=entry.kind == "learned")
        self._check_source("task", needed=self.task.trainable)
        if variant.train is not None:
            self._check_training(variant.train)
            self._check_schedules(variant.train)

    def _check_files(self) -> None:
        """Check that the files that the task and its own images name are there."""
        for path in task_files(self.scale, self.variant.task):
            if not Path(path).is_file():
                where = f"section 'tasks.{self.variant.task}'"
                self.faults.add(where, "file", path, "does not exist; correct the path")
        dataset = self.dataset
        for split, place in dataset.splits.items() if isinstance(dataset, FolderImages) else ():
            where = f"section 'datasets.{self.variant.dataset}', split {split!r}"
            for key in ("images", "annotations", "maps"):
                path = getattr(place, key)
                if path is not None and not Path(path).exists():
                    problem = "does not exist; write it absolute, or relative to the working folder"
                    self.faults.add(where, key, path, problem)

    def _add(self, key: str, value: Any, problem: str) -> None:
        self.faults.add(self.where, f"variants.{self.name}.{key}", value, problem)

    def _unknown(self, key: str, value: Any, what: str, allowed: Iterable[str]) -> None:
        self.faults.unknown(self.where, f"variants.{self.name}.{key}", value, what, allowed)

    def _check_ladder(self) -> None:
        variant, entry, ladder = self.variant, CODECS[self.variant.codec], self.ladder
        if variant.ladder is None:
            if entry.rate_parameter and (entry.kind == "classical" or variant.evaluate):
                self._add("ladder", None, f"but {entry.kind} codec {entry.name!r} needs one over "
                          f"{entry.rate_parameter!r}")  # fmt: skip
            return
        if ladder is None:
            self._unknown("ladder", variant.ladder, "ladder", self.study.ladders)
            return
        if entry.kind == "none":
            self._add("ladder", variant.ladder, "but codec 'uncoded' has one rate; set it to null")
        if ladder.pilot is not None and len(ladder.pilot.bpp) != len(ladder.values):
            self.faults.add(self.where, f"ladders.{variant.ladder}.pilot.bpp", ladder.pilot.bpp,
                            f"needs one rate for each of {ladder.values}")  # fmt: skip
        if entry.rate_parameter is None:
            return
        for problem in rate_problems(entry, ladder):
            self._add("ladder", variant.ladder, problem)
        if entry.kind == "learned" and variant.trains("codec"):
            self._add("ladder", variant.ladder, f"on a variant that trains {entry.name!r}, whose "
                      "one set of weights has all rates; train it without a ladder, and evaluate "
                      "it in another variant")  # fmt: skip
        if entry.kind == "learned" and min(ladder.values) <= 0:
            self._add("ladder", variant.ladder, f"has {entry.rate_parameter} "
                      f"{min(ladder.values):g}, which must be above 0")  # fmt: skip

    def _check_source(self, what: Part, needed: bool) -> None:
        key, source = f"{what}_from", self.variant.source(what)
        own = what == "task" and self.task.one_size
        if not needed:
            # A class or a file of the user's has weights of its own, which this means, too.
            if source is not None and not (own and source == "pretrained"):
                self._add(key, source, f"but the {what} has no weights; set it to null")
        elif source is None and not own:  # else its published weights
            self._add(key, None, f"but the {what} needs weights: random, pretrained, a variant "
                      "or a file")  # fmt: skip
        elif source == "pretrained" and takes_from_zoo(self.scale, self.variant, what):
            self._check_zoo(key, what)
        elif source == "pretrained":
            self._check_pretrained(key, what)
        elif isinstance(source, Weights):
            self._check_weights(key, source, what)
        elif isinstance(source, WeightsFile | list):
            self._check_own(key, source, what)
        elif source == "random" and self.variant.train is None:
            # A network by name could be trained by no variant.
            parameters = part_parameters(self.scale, self.variant, what)
            if not isinstance(parameters, PublishedParameters):
                problem = "on a variant that trains nothing; name trained weights"
                self._add(key, "random", problem)

    def _check_pretrained(self, key: str, what: Part) -> None:
        """Check that there are published weights, for every value of the ladder."""
        scale, ladder = self.scale, self.ladder
        entry = part_entry(scale, self.variant, what)
        parameters = part_parameters(scale, self.variant, what)
        if not entry.has_pretrained(parameters):
            name = getattr(self.variant, what)
            self._add(key, "pretrained", f"but no weights are published for {what} {name!r} with "
                      f"the parameters of scale {scale.name!r}; use random, a variant or a "
                      "file")  # fmt: skip
            return
        if not isinstance(entry, CodecEntry) or entry.published_rates is None:
            return
        rates = entry.published_rates(parameters)
        if ladder is None or ladder.parameter not in rates:
            found = None if ladder is None else ladder.parameter
            self._add("ladder", self.variant.ladder, f"varies {found!r}, but published weights of "
                      f"{entry.name!r} are chosen by {' or '.join(rates)}")  # fmt: skip
            return
        known = rates[ladder.parameter]
        for value in ladder.values:
            if value not in known:
                self._add(key, "pretrained", f"but no weights of {entry.name!r} are published for "
                          f"{ladder.parameter} {value:g} of ladder {self.variant.ladder!r}; choose "
                          f"from {', '.join(f'{rate:g}' for rate in known)}")  # fmt: skip
                return

    def _check_own(self, key: str, source: WeightsFile | list[WeightsFile], what: Part) -> None:
        points, entry = self.study.rates(self.variant), CODECS[self.variant.codec]
        trains = self.variant.trains(what)
        one_for_all = what == "task" or entry.rate_parameter is not None or trains
        if isinstance(source, list) and len(source) != points:
            self._add(key, f"{len(source)} files", f"for {points} rates; list one file for each "
                      "value of the ladder")  # fmt: skip
        elif not isinstance(source, list) and points > 1 and not one_for_all:
            self._add(key, source.file or source.url, f"is one file for {points} rates, which "
                      "would be equal; list one file for each value of the ladder")  # fmt: skip
        allowed = self._givers(what)
        for own in source if isinstance(source, list) else [source]:
            if own.of is not None and own.of not in allowed:
                self._unknown(f"{key}.of", own.of, f"{what} to start from", allowed)

    def _givers(self, what: Part) -> list[str]:
        """Return the codecs or tasks whose weights the variant's one takes as they are named."""
        entry = part_entry(self.scale, self.variant, what)
        names = [getattr(self.variant, what), *getattr(entry, "shares_weights_with", ())]
        return [*names, *entry.starts_from] if self.variant.trains(what) else names

    def _check_zoo(self, key: str, what: Part) -> None:
        network = getattr(self.variant, what)
        own = part_parameters(self.scale, self.variant, what).model_dump()
        for rate in range(self.study.rates(self.variant)):
            entry = self.zoo.find(self.study.name, self.name, rate, what)
            if entry is None:
                problem = f"but the zoo has no {what} of this variant at rate index {rate}; train "
                self._add(key, "pretrained", f"{problem}it at scale zoo, see docs/zoo.md")
                return
            for name, value in entry.parameters.items():
                if own.get(name) != value:
                    self._add(key, "pretrained", f"but the zoo's {what} {network!r} was trained "
                              f"with {name}: {value!r}, not {own.get(name)!r} as under {what}s "
                              "of this scale")  # fmt: skip
                    return

    def _check_weights(self, key: str, source: Weights, what: Part) -> None:
        study_name = source.study or self.study.name
        study = self.studies.get(study_name)
        if study is None:
            self._unknown(f"{key}.study", study_name, "study of this run", self.studies)
            return
        other = study.variants.get(source.variant)
        if other is None:
            self._unknown(f"{key}.variant", source.variant, "variant", study.variants)
            return
        theirs, allowed = getattr(other, source.of or what), self._givers(what)
        if source.of not in (None, what):
            starts = what == "task" and self.variant.trains("task")
            allowed = list(self.task.starts_from_codec) if starts else []
        if theirs not in allowed:
            self._add(f"{key}.variant", source.variant, f"has {what} {theirs!r}, not one of "
                      f"{', '.join(allowed)}")  # fmt: skip
        points, own = study.rates(other), self.study.rates(self.variant)
        if source.rate == "same":
            if self.ladder is not None and own != points:
                self._add(f"{key}.rate", "same", f"needs {own} rates, but {source.variant!r} has "
                          f"{points}")  # fmt: skip
        elif not 0 <= source.rate < points:
            self._add(f"{key}.rate", source.rate, f"is out of range; allowed: 0 to {points - 1}")

    def _check_training(self, training: Training) -> None:
        codec, task = CODECS[self.variant.codec], self.task
        self._check_sizes()
        allowed = [f"codec.{part}" for part in codec.parts]
        allowed += ["codec"] if codec.kind == "learned" else []
        allowed += ["task"] if task.parts else []
        allowed += [f"task.{part}" for part in task.parts]
        for part in training.parts:
            if part not in allowed:
                self._unknown("train.parts", part, "trainable part of this variant", allowed)
        terms = (*codec.loss_terms, *task.loss_terms)
        names = [f"${self.ladder.parameter}"] if self.ladder is not None else []
        for term, weight in training.loss.items():
            if term not in terms:
                self._unknown("train.loss", term, "loss term of this codec and task", terms)
            number = weight.target if isinstance(weight, RateTarget) else weight
            if isinstance(number, str) and number not in names:
                self._unknown(f"train.loss.{term}", number, "number or ladder parameter", names)
            continues = isinstance(weight, RateTarget) and weight.continues
            if continues and not isinstance(self.variant.codec_from, Weights):
                self._add(f"train.loss.{term}.continues", True, "but the codec was not trained in "
                          "a variant; name one under codec_from")  # fmt: skip

    def _check_schedules(self, training: Training) -> None:
        groups = {
            "codec": self.variant.trains("codec"),
            "auxiliary": not {"codec", "codec.entropy"}.isdisjoint(training.parts),
            "adversary": "codec.discriminator" in training.parts,
            "task": self.variant.trains("task"),
        }
        schedules = [("train.schedule", training.schedule)]
        if training.chain is not None:
            schedules.append(("train.chain.schedule", training.chain.schedule))
            if self.variant.ladder is None:
                self._add("train.chain", training.chain.order, "needs a ladder to follow")
        for key, name in schedules:
            schedule = self.study.schedules.get(name)
            if schedule is None:
                self._unknown(key, name, "schedule", self.study.schedules)
                continue
            if schedule.short_sides and not _BOXES & set(self.task.metrics):
                self._add(key, name, "has short_sides, which are for detectors; use another")
            for group, needed in groups.items():
                if needed and group not in schedule.optimisers:
                    problem = f"lacks {group!r}, which variant {self.name!r} trains"
                    where = f"schedules.{name}.optimisers"
                    self.faults.add(self.where, where, sorted(schedule.optimisers), problem)

    def _check_sizes(self) -> None:
        """Check that the data set resizes images for a detector that does so at evaluation."""
        parameters = task_parameters(self.scale, self.variant.task)
        side = parameters.short_side if isinstance(parameters, ResnetRcnnParameters) else None
        given = getattr(self.dataset, "short_side", None)
        if side not in (None, given):
            self._add("dataset", self.variant.dataset, f"has short_side {given}, but the detector "
                      f"that is trained on it reads {side}; set both to the same")  # fmt: skip
