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
from icmbench.registry import CODECS, TASKS, Registry, TaskEntry
from icmbench.tasks.entries import ResnetRcnnParameters
from icmbench.tasks.fixed.entries import PublishedParameters
from icmbench.utils.models import Strict

_BOXES = {"box_map", "mask_map"}  # what detectors are measured by


def codec_parameters(scale: Scale, name: str) -> Strict:
    """Return the typed parameters of codec ``name`` at a scale."""
    where = f"workflow/scales/{scale.name}.yaml, section 'codecs.{name}'"
    entry = CODECS[name]
    found = check(entry.parameters, {**entry.defaults, **scale.codecs.get(name, {})}, where)
    return entry.command or found


def task_entry(scale: Scale, name: str) -> TaskEntry:
    """Return the entry of a task, or of the network that a scale gives this name.

    Its metrics are those that follow from its parameters.
    """
    entry = TASKS[scale.tasks.get(name, {}).get("network", name)]
    if entry.metrics_for is None:
        return entry
    return replace(entry, metrics=entry.metrics_for(task_parameters(scale, name)))


def is_task(scale: Scale, name: str) -> bool:
    """Return whether a task of this name is registered, or given by the scale."""
    return scale.tasks.get(name, {}).get("network", name) in TASKS


def task_parameters(scale: Scale, name: str) -> Strict:
    """Return the typed parameters of task ``name`` at a scale."""
    where = f"workflow/scales/{scale.name}.yaml or config.yaml, section 'tasks.{name}'"
    given = {key: value for key, value in scale.tasks.get(name, {}).items() if key != "network"}
    entry = TASKS[scale.tasks.get(name, {}).get("network", name)]
    return check(entry.parameters, {**entry.defaults, **given}, where)


def task_files(scale: Scale, name: str) -> list[str]:
    """Return the files that a task's parameters name, which its evaluation depends on."""
    parameters = task_parameters(scale, name)
    values = [getattr(parameters, key) for key in task_entry(scale, name).files]
    return [str(path) for own in values for path in (own if isinstance(own, list) else [own])]


def takes_from_zoo(scale: Scale, variant: Variant, part: Part) -> bool:
    """Return whether ``pretrained`` of a variant's codec or task means weights of the zoo."""
    entry = CODECS[variant.codec] if part == "codec" else task_entry(scale, variant.task)
    return scale.pretrained == "zoo" and not entry.one_size


def check_all(
    run: RunConfig, scale: Scale, studies: dict[str, Study], zoo: Zoo | None = None
) -> None:
    """Raise one UserError that lists every inconsistency, or return."""
    faults = _Faults()
    _check_run(run, faults)
    _check_scale(scale, faults)
    for study in studies.values():
        for name, variant in study.variants.items():
            _Check(scale, studies, study, name, variant, zoo or Zoo(), faults).run()
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
    lists: list[tuple[str, list[Any]]] = [
        ("studies", run.studies),
        ("seeds", run.seeds),
        ("perceptual", list(run.perceptual)),
    ]
    for key, values in lists:
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
    tables: list[tuple[str, dict[str, Any], Registry[Any]]] = [
        ("codecs", scale.codecs, CODECS),
        ("tasks", scale.tasks, TASKS),
    ]
    for section, named, registry in tables:
        for name, given in named.items():
            network = given.get("network") if section == "tasks" else None
            if network is not None and name in registry:
                faults.add(where, f"tasks.{name}.network", network, "but this is the name of a "
                           "task of its own; choose another name")  # fmt: skip
            elif (network or name) not in registry:
                key = section if network is None else f"tasks.{name}.network"
                faults.unknown(where, key, network or name, registry.what, registry.names())
    codecs = [name for name in CODECS.names() if CODECS[name].kind != "none"]
    classical = [name for name in CODECS.names() if CODECS[name].kind == "classical"]
    for name in scale.classical_where_found:
        if name not in classical:
            faults.unknown(where, "classical_where_found", name, "classical codec", classical)
    for role, counts in scale.chunks.items():
        if role not in scale.datasets:
            faults.unknown(where, "chunks", role, "data set role", scale.datasets)
        for name, count in counts.items():
            if name not in codecs:
                faults.unknown(where, f"chunks.{role}", name, "codec", codecs)
            if count < 1:
                faults.add(where, f"chunks.{role}.{name}", count, "must be at least 1")


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
                key = f"images.{index}.variants"
                faults.unknown(where, key, name, "evaluated variant", evaluated)
    for index, cell in enumerate(study.published):
        if cell.variant is not None and cell.variant not in study.variants:
            key = f"published.{index}.variant"
            faults.unknown(where, key, cell.variant, "variant", study.variants)
        if cell.anchor is not None and cell.anchor not in study.variants:
            key = f"published.{index}.anchor"
            faults.unknown(where, key, cell.anchor, "variant", study.variants)
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
        variant: Variant,
        zoo: Zoo,
        faults: _Faults,
    ) -> None:
        self.scale, self.studies, self.study, self.zoo = scale, studies, study, zoo
        self.name, self.variant, self.faults = name, variant, faults
        self.where = _where(scale, study)

    def key(self, *parts: str) -> str:
        return ".".join(["variants", self.name, *parts])

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
        if variant.dataset not in self.scale.datasets:
            self._unknown("dataset", variant.dataset, "data set role", self.scale.datasets)
        elif self._cuts() and _BOXES & set(self.task.metrics):
            self._add("dataset", variant.dataset, "has a center_crop, which boxes and masks do "
                      "not follow; use short_side alone for detection")  # fmt: skip
        entry, reads = CODECS[variant.codec], self.task.input_kind
        if variant.evaluate and reads not in entry.outputs:
            self._add("task", variant.task, f"reads {reads}, but codec {entry.name!r} yields "
                      f"{' and '.join(entry.outputs)}")  # fmt: skip
        self._check_ladder()
        kind = CODECS[variant.codec].kind
        self._check_source("codec_from", variant.codec_from, kind == "learned", "codec")
        trainable = self.task.trainable
        self._check_source("task_from", variant.task_from, trainable, "task")
        if variant.train is not None:
            self._check_training(variant.train)
        elif kind == "learned" and variant.codec_from == "random":
            self._add(
                "codec_from", "random", "on a variant that trains nothing; name trained weights"
            )
        elif trainable and variant.task_from == "random" and not self._is_as_it_is():
            self._add(
                "task_from", "random", "on a variant that trains nothing; name trained weights"
            )

    def _check_files(self) -> None:
        """Check that the files that the task and its own images name are there."""
        for path in task_files(self.scale, self.variant.task):
            if not Path(path).is_file():
                where = f"section 'tasks.{self.variant.task}'"
                self.faults.add(where, "file", path, "does not exist; correct the path")
        dataset = self.scale.datasets.get(self.variant.dataset)
        for split, place in dataset.splits.items() if isinstance(dataset, FolderImages) else ():
            where = f"section 'datasets.{self.variant.dataset}', split {split!r}"
            for key in ("images", "annotations", "maps"):
                path = getattr(place, key)
                if path is not None and not Path(path).exists():
                    problem = "does not exist; write it absolute, or relative to the working folder"
                    self.faults.add(where, key, path, problem)

    def _is_as_it_is(self) -> bool:
        """Return whether the task is a network by name, which no variant could train."""
        return isinstance(task_parameters(self.scale, self.variant.task), PublishedParameters)

    def _cuts(self) -> bool:
        dataset = self.scale.datasets[self.variant.dataset]
        return getattr(dataset, "center_crop", None) is not None

    def _add(self, part: str, value: Any, problem: str) -> None:
        self.faults.add(self.where, self.key(*part.split("/")), value, problem)

    def _unknown(self, part: str, value: Any, what: str, allowed: Iterable[str]) -> None:
        self.faults.unknown(self.where, self.key(*part.split("/")), value, what, allowed)

    def _check_ladder(self) -> None:
        variant, entry = self.variant, CODECS[self.variant.codec]
        if variant.ladder is None:
            if entry.rate_parameter and (entry.kind == "classical" or variant.evaluate):
                self._add("ladder", None, f"but {entry.kind} codec {entry.name!r} needs one over "
                          f"{entry.rate_parameter!r}")  # fmt: skip
            return
        ladder = self.study.ladders.get(variant.ladder)
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
        if entry.kind == "learned" and self._trains("codec"):
            self._add("ladder", variant.ladder, f"on a variant that trains {entry.name!r}, whose "
                      "one set of weights has all rates; train it without a ladder, and evaluate "
                      "it in another variant")  # fmt: skip
        if entry.kind == "learned" and min(ladder.values) <= 0:
            self._add("ladder", variant.ladder, f"has {entry.rate_parameter} "
                      f"{min(ladder.values):g}, which must be above 0")  # fmt: skip

    def _check_source(self, part: str, source: Any, needed: bool, what: Part) -> None:
        if not needed:
            # A class or a file of the user's has weights of its own, which this means, too.
            own = what == "task" and self.task.one_size
            if source is not None and not (own and source == "pretrained"):
                self._add(part, source, f"but the {what} has no weights; set it to null")
            return
        if source is None and what == "task" and self.task.one_size:
            return  # its published weights
        if source is None:
            self._add(part, None, f"but the {what} needs weights: random, pretrained, a variant "
                      "or a file")  # fmt: skip
        elif source == "pretrained" and takes_from_zoo(self.scale, self.variant, what):
            self._check_zoo(part, what)
        elif source == "pretrained":
            if what == "codec":
                name = self.variant.codec
                known = CODECS[name].has_pretrained(codec_parameters(self.scale, name))
            else:
                name = self.variant.task
                known = self.task.has_pretrained(task_parameters(self.scale, name))
            if not known:
                problem = f"but no weights are published for {what} {name!r} with the parameters "
                problem += f"of scale {self.scale.name!r}; use random, a variant or a file"
                self._add(part, source, problem)
            elif what == "codec":
                self._check_published_rates(part)
        elif isinstance(source, Weights):
            self._check_weights(part, source, what)
        elif source != "random":
            self._check_own(part, source, what)

    def _check_published_rates(self, part: str) -> None:
        """Check that there are published weights for every value of the ladder."""
        entry = CODECS[self.variant.codec]
        if entry.published_rates is None:
            return
        rates = entry.published_rates(codec_parameters(self.scale, entry.name))
        ladder = self.study.ladders.get(self.variant.ladder or "")
        if ladder is None or ladder.parameter not in rates:
            found = None if ladder is None else ladder.parameter
            self._add("ladder", self.variant.ladder, f"varies {found!r}, but published weights of "
                      f"{entry.name!r} are chosen by {' or '.join(rates)}")  # fmt: skip
            return
        known = rates[ladder.parameter]
        for value in ladder.values:
            if value not in known:
                self._add(part, "pretrained", f"but no weights of {entry.name!r} are published for "
                          f"{ladder.parameter} {value:g} of ladder {self.variant.ladder!r}; choose "
                          f"from {', '.join(f'{rate:g}' for rate in known)}")  # fmt: skip
                return

    def _check_own(self, part: str, source: WeightsFile | list[WeightsFile], what: Part) -> None:
        ladder = self.study.ladders.get(self.variant.ladder or "")
        points = len(ladder.values) if ladder else 1
        name = getattr(self.variant, what)
        entry: Any = CODECS[name] if what == "codec" else self.task
        one_for_all = what == "task" or entry.rate_parameter is not None or self._trains(what)
        if isinstance(source, list) and len(source) != points:
            self._add(part, f"{len(source)} files", f"for {points} rates; list one file for each "
                      "value of the ladder")  # fmt: skip
        elif not isinstance(source, list) and points > 1 and not one_for_all:
            self._add(part, source.file or source.url, f"is one file for {points} rates, which "
                      "would be equal; list one file for each value of the ladder")  # fmt: skip
        allowed = [name, *getattr(entry, "shares_weights_with", ())]
        allowed += entry.starts_from if self._trains(what) else ()
        for own in source if isinstance(source, list) else [source]:
            if own.of is not None and own.of not in allowed:
                self._unknown(f"{part}/of", own.of, f"{what} to start from", allowed)

    def _trains(self, what: str) -> bool:
        training = self.variant.train
        return training is not None and any(p.split(".")[0] == what for p in training.parts)

    def _check_zoo(self, part: str, what: Part) -> None:
        name, study = getattr(self.variant, what), self.study
        settings = codec_parameters if what == "codec" else task_parameters
        own = settings(self.scale, name).model_dump()
        ladder = study.ladders.get(self.variant.ladder or "")
        for rate in range(len(ladder.values) if ladder else 1):
            entry = self.zoo.find(study.name, self.name, rate, what)
            if entry is None:
                problem = f"but the zoo has no {what} of this variant at rate index {rate}; train "
                self._add(part, "pretrained", f"{problem}it at scale zoo, see docs/zoo.md")
                return
            changed = [key for key, value in entry.parameters.items() if own.get(key) != value]
            if changed:
                self._add(part, "pretrained", f"but the zoo's {what} {name!r} was trained with "
                          f"{changed[0]}: {entry.parameters[changed[0]]!r}, not "
                          f"{own.get(changed[0])!r} as under {what}s of this scale")  # fmt: skip
                return

    def _check_weights(self, part: str, source: Weights, what: str) -> None:
        study_name = source.study or self.study.name
        study = self.studies.get(study_name)
        if study is None:
            self._unknown(f"{part}/study", study_name, "study of this run", self.studies)
            return
        other = study.variants.get(source.variant)
        if other is None:
            self._unknown(f"{part}/variant", source.variant, "variant", study.variants)
            return
        mine, theirs = (getattr(v, what) for v in (self.variant, other))
        entry: Any = CODECS[mine] if what == "codec" else self.task
        trains = self._trains(what)
        allowed = (mine, *(entry.starts_from if trains else ()))
        if what == "codec":
            allowed += entry.shares_weights_with
        if source.of not in (None, what):
            theirs = getattr(other, source.of)
            allowed = tuple(entry.starts_from_codec) if what == "task" and trains else ()
        if theirs not in allowed:
            self._add(f"{part}/variant", source.variant, f"has {what} {theirs!r}, not one of "
                      f"{', '.join(allowed)}")  # fmt: skip
        points = len(study.ladders[other.ladder].values) if other.ladder in study.ladders else 1
        wanted = source.rate
        if wanted == "same":
            own = self.study.ladders.get(self.variant.ladder or "")
            if own is not None and len(own.values) != points:
                self._add(f"{part}/rate", "same", f"needs {len(own.values)} rates, but "
                          f"{source.variant!r} has {points}")  # fmt: skip
        elif not 0 <= wanted < points:
            self._add(f"{part}/rate", wanted, f"is out of range; allowed: 0 to {points - 1}")

    def _check_training(self, training: Training) -> None:
        codec, task = CODECS[self.variant.codec], self.task
        self._check_sizes()
        allowed = [f"codec.{part}" for part in codec.parts]
        allowed += ["codec"] if codec.kind == "learned" else []
        allowed += ["task"] if task.parts else []
        allowed += [f"task.{part}" for part in task.parts]
        for part in training.parts:
            if part not in allowed:
                self._unknown("train/parts", part, "trainable part of this variant", allowed)
        terms = (*codec.loss_terms, *task.loss_terms)
        for term, weight in training.loss.items():
            if term not in terms:
                self._unknown("train/loss", term, "loss term of this codec and task", terms)
            if isinstance(weight, RateTarget):
                self._check_weight(term, weight.target)
                if weight.continues and not isinstance(self.variant.codec_from, Weights):
                    self._add(f"train/loss/{term}/continues", True, "but the codec was not "
                              "trained in a variant; name one under codec_from")  # fmt: skip
            else:
                self._check_weight(term, weight)
        schedules = [("train/schedule", training.schedule)]
        if training.chain is not None:
            schedules.append(("train/chain/schedule", training.chain.schedule))
            if self.variant.ladder is None:
                self._add("train/chain", training.chain.order, "needs a ladder to follow")
        for part, name in schedules:
            schedule = self.study.schedules.get(name)
            if schedule is None:
                self._unknown(part, name, "schedule", self.study.schedules)
                continue
            if schedule.short_sides and not _BOXES & set(self.task.metrics):
                self._add(part, name, "has short_sides, which are for detectors; use another")
            for group in optimiser_groups(training.parts):
                if group not in schedule.optimisers:
                    key = f"schedules.{name}.optimisers"
                    problem = f"lacks {group!r}, which variant {self.name!r} trains"
                    self.faults.add(self.where, key, sorted(schedule.optimisers), problem)

    def _check_sizes(self) -> None:
        """Check that the data set resizes images for a detector that does so at evaluation."""
        parameters = task_parameters(self.scale, self.variant.task)
        side = parameters.short_side if isinstance(parameters, ResnetRcnnParameters) else None
        given = getattr(self.scale.datasets.get(self.variant.dataset), "short_side", None)
        if side not in (None, given):
            self._add("dataset", self.variant.dataset, f"has short_side {given}, but the detector "
                      f"that is trained on it reads {side}; set both to the same")  # fmt: skip

    def _check_weight(self, term: str, weight: float | str) -> None:
        if not isinstance(weight, str):
            return
        ladder = self.study.ladders.get(self.variant.ladder or "")
        allowed = [f"${ladder.parameter}"] if ladder is not None else []
        if weight not in allowed:
            self._unknown(f"train/loss/{term}", weight, "number or ladder parameter", allowed)


def optimiser_groups(parts: list[str]) -> list[str]:
    """Return the optimiser groups that training ``parts`` needs."""
    groups = []
    if any(part.split(".")[0] == "codec" for part in parts):
        groups.append("codec")
    if any(part in ("codec", "codec.entropy") for part in parts):
        groups.append("auxiliary")
    if "codec.discriminator" in parts:
        groups.append("adversary")
    if any(part.split(".")[0] == "task" for part in parts):
        groups.append("task")
    return groups
