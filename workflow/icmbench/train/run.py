"""Train one operating point: read its settings, loop, leave weights.

Reading order: ``train`` -> ``_prepare`` -> ``_loop`` -> ``_step``.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from icmbench.data.dataset import Split, data_digest
from icmbench.errors import CannotWrite, UserError
from icmbench.evaluate.coded import coded_fingerprint, decoded_archives
from icmbench.jobs import Schedule, TrainJob
from icmbench.networks.batchnorm import frozen_statistics
from icmbench.networks.build import build_codec, build_task
from icmbench.networks.weights import check_weights_file
from icmbench.registry import CODECS, TASKS
from icmbench.train import TRAINING_VERSION
from icmbench.train.batches import Batch, batches, validation_batches
from icmbench.train.checkpoint import load_checkpoint, save_checkpoint, save_weights
from icmbench.train.distributed import Team, find_team, step_seed
from icmbench.train.lock import TakenOver, TrainingLock
from icmbench.train.progress import MetricsLog, RunFile, report_progress
from icmbench.train.rate_control import first_loss_weights
from icmbench.train.schedule import learning_rate_factor, make_optimiser
from icmbench.train.system import System, part_parameters, set_modes
from icmbench.train.targets import Targets
from icmbench.utils.device import Compute, choose_compute, resolve_precision, uses_cuda
from icmbench.utils.environment import describe_environment, version
from icmbench.utils.files import digest_json, link, sha256_file, writing

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_PROGRESS_EVERY_S = 10.0


class Interrupted(Exception):
    """The training was told to stop and has saved its checkpoint."""


def train(job: TrainJob) -> Path:
    """Train one operating point and return the path of its weights.

    Args:
        job: resolved settings, see ``Plan.train_job``.

    A finished training with the same fingerprint returns at once; an interrupted one goes on where
    it stopped and ends with the weights it would have had. Where the schedule asks for several
    devices, this is one of as many processes (see ``train.launch``); rank 0 writes all files.

    One that another process took over, since this one stood still for too long, waits for the
    other's result: were it to fail, Snakemake would delete that.

    Raises:
        UserError: impossible settings, missing data or weights, a loss that is not finite.
        Interrupted: after SIGTERM or SIGINT, with the checkpoint saved.
    """
    while True:
        try:
            with writing(job.output):
                return _train(job)
        except TakenOver as error:
            # Of several processes the others have already gone on; Snakemake starts all anew.
            if error.final or job.schedule.devices > 1:
                raise
            print(error, file=sys.stderr)


def _train(job: TrainJob) -> Path:
    folder = Path(job.output)
    team = find_team(job.schedule.devices)
    fingerprint = fingerprint_of(job)
    with TrainingLock(folder / "training.lock") if team.leads else nullcontext() as lock:
        team.meet(uses_cuda(job.runtime))
        kept = _kept(folder, fingerprint)
        weights = folder / "weights.pt"
        if team.told(team.leads and _intact(kept)):
            if team.leads:
                link(kept, weights)
            return weights
        state = _prepare(job, fingerprint, team)
        try:
            _loop(state, lock)
            if lock is not None:
                lock.check()
        except TakenOver:
            raise
        except Interrupted:
            state.run.update(status="interrupted", finished=time.time())
            raise
        except BaseException as error:
            with suppress(CannotWrite):  # the first error says more
                state.run.update(status="failed", finished=time.time(), error=str(error))
            raise
        finally:
            state.log.close()
        if team.leads:
            _finish(state, kept, weights)
    return weights


def fingerprint_of(job: TrainJob) -> str:
    """Return a digest of all that decides how a training ends: settings, data, weights, code."""
    settings = job.model_dump(include={"codec", "task", "parts", "loss", "schedule", "seed"})
    dataset = job.dataset.model_dump(exclude={"folder", "manifest"})
    runtime = job.runtime
    return digest_json(
        {
            "settings": settings,
            "dataset": dataset,
            "data": data_digest(job.dataset),
            "files": [part.weights.digest() for part in (job.codec, job.task)],
            "coded": coded_fingerprint(job.coded),
            "precision": resolve_precision(runtime.precision, uses_cuda(runtime)),
            "code": [TRAINING_VERSION, *map(version, ("torch", "torchvision", "compressai"))],
        }
    )


def _kept(folder: Path, fingerprint: str) -> Path:
    """Return where a finished training's weights are kept."""
    return folder / f"finished-{fingerprint[:16]}.pt"


def _intact(kept: Path) -> bool:
    """Return whether a finished training's weights are there and can be read."""
    try:
        check_weights_file(kept)
    except FileNotFoundError:
        return False
    except UserError as error:
        print(f"icmbench: {error}: this training is done anew", file=sys.stderr)
        return False
    return True


@dataclass
class _State:
    """Everything a running training holds."""

    job: TrainJob
    folder: Path
    fingerprint: str
    compute: Compute
    team: Team
    fabric: Fabric
    system: System
    model: Any  # the system as Fabric wraps it
    groups: dict[str, list[Any]]
    optimisers: dict[str, Any]
    split: Split
    log: MetricsLog
    run: RunFile
    first_step: int
    totals: dict[str, float]
    final: dict[str, float] = field(default_factory=dict)
    val: Split | None = None  # read at the first validation

    @property
    def schedule(self) -> Schedule:
        return self.job.schedule

    @property
    def targets(self) -> Targets:
        task = self.system.task
        return "none" if task is None else task.targets


def _prepare(job: TrainJob, fingerprint: str, team: Team) -> _State:
    folder = Path(job.output)
    compute = choose_compute(job.runtime, says=team.leads)
    fabric = team.fabric(compute)
    torch.manual_seed(job.seed)
    learned = CODECS[job.codec.name].kind == "learned"
    codec = build_codec(job.codec) if learned else None
    task = build_task(job.task) if TASKS[job.task.name].trainable else None
    codec_trains = any(part.split(".")[0] == "codec" for part in job.parts)
    system = System(codec, task, codec_trains, first_loss_weights(job))
    set_modes(system, job.parts)
    groups = part_parameters(codec, task, job.parts)
    optimisers = {
        name: make_optimiser(job.schedule.optimiser(name), groups[name]) for name in groups
    }

    resumed = load_checkpoint(folder / "checkpoint.pt", fingerprint)
    if resumed is not None:
        system.load_state_dict(resumed["model"])
    first_step = resumed["step"] if resumed else 0
    totals = resumed["totals"] if resumed else {"wall_seconds": 0.0, "cpu_seconds": 0.0}

    apart = [p for name in ("auxiliary", "adversary") for p in groups.get(name, [])]
    wrapped = fabric.setup(team.shared(system, apart), *optimisers.values())
    model, wrapped_optimisers = wrapped[0], dict(zip(optimisers, wrapped[1:], strict=True))
    if resumed is not None:
        # Fabric moves parameters to their device, but not what an optimiser remembers of them.
        for name, optimiser in wrapped_optimisers.items():
            optimiser.load_state_dict(resumed["optimisers"][name])
    run = RunFile(
        folder / "run.json" if team.leads else None,
        {
            "key": job.key,
            "fingerprint": fingerprint,
            "steps": job.schedule.steps,
            "steps_done": first_step,
            "parameters": {
                name: sum(p.numel() for p in part.parameters())
                for name, part in (("codec", codec), ("task", task))
                if part is not None
            },
            "job": job.model_dump(mode="json"),
            "dataset": {
                "role": job.dataset.role,
                "name": job.dataset.name,
                "digest": data_digest(job.dataset),
            },
            "environment": {**describe_environment(), "device": _device_name(compute, team)},
            **totals,
        },
    )
    run.update()
    return _State(
        job=job,
        folder=folder,
        fingerprint=fingerprint,
        compute=compute,
        team=team,
        fabric=fabric,
        system=system,
        model=model,
        groups=groups,
        optimisers=wrapped_optimisers,
        split=Split(job.dataset, "train", decoded_archives(job.coded)),
        log=MetricsLog(folder / "metrics.jsonl" if team.leads else None, first_step),
        run=run,
        first_step=first_step,
        totals=totals,
    )


def _device_name(compute: Compute, team: Team) -> str:
    return compute.name if team.size == 1 else f"{team.size} x {compute.name}"


class _Signals:
    """Remembers that SIGTERM or SIGINT came, so that the loop can stop between two steps."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number


def _loop(state: _State, lock: TrainingLock | None) -> None:
    """Run the steps that are left, with checkpoints in between.

    Whether to stop is agreed on in every step, together with the terms of the loss: all processes
    stop after the same one.
    """
    runtime, schedule, team = state.job.runtime, state.schedule, state.team
    steps = range(state.first_step, schedule.steps)
    source = batches(
        state.split,
        state.job.seed,
        schedule,
        steps,
        state.targets,
        workers=runtime.workers,
        share=team.share(schedule.batch_size),
        pinned=state.fabric.device.type == "cuda",
    )
    clock = _Clock(state)
    saved = told = time.monotonic()
    with _Signals() as signals:
        for step, batch in zip(steps, source, strict=True):
            if hasattr(state.system.task, "refresh"):
                _refresh(state, step)
            own = {"stop": float(signals.received is not None), "cpu_seconds": clock.own_cpu()}
            values, shared = _step(state, step, batch.to(state.fabric.device), own)
            clock.cpu = shared["cpu_seconds"] * team.size
            # Alone, a signal that came during the step counts, too.
            stops = shared["stop"] > 0 or (team.size == 1 and signals.received is not None)
            done = step + 1
            if stops:
                team.settle()
            if lock is not None:
                if done % runtime.log_every == 0 or done == schedule.steps:
                    state.final = _floats(values, state, step)
                    rate = clock.rate() * schedule.batch_size
                    state.log.write(done, "train", {**state.final, "images_per_second": rate})
                validation = schedule.validation
                if validation is not None and done % validation.every == 0:
                    state.log.write(done, "val", validate(state, validation.images))
                now = time.monotonic()
                _check_owner(state, lock, signals)
                if now - told > _PROGRESS_EVERY_S and state.final:
                    report_progress(state.job.key, done, schedule.steps, clock.rate(), state.final)
                    told = now
                if stops or now - saved > runtime.checkpoint_s:
                    _save(state, done, clock, partial(_check_owner, state, lock, signals))
                    saved = time.monotonic()
            if stops:
                name = signal.Signals(signals.received or signal.SIGTERM).name
                raise Interrupted(f"{state.job.key}: {name} at step {done}; checkpoint saved")
            clock.tick()
    team.settle()
    state.totals = clock.totals()


def _check_owner(state: _State, lock: TrainingLock, signals: _Signals) -> None:
    """Stop before anything is written where another process has taken the training over."""
    try:
        lock.check()
    except TakenOver as error:
        there = _kept(state.folder, state.fingerprint).is_file()
        error.final = signals.received is not None and not there
        raise


def _refresh(state: _State, step: int) -> None:
    """Let a task renew what it knows of the whole split; it says itself at which steps."""
    steps_per_epoch = max(1, len(state.split) // state.schedule.batch_size)
    torch.manual_seed(step_seed(state.job.seed, step))
    state.system.task.refresh(  # type: ignore[union-attr]
        state.system.codec,
        state.split,
        step,
        steps_per_epoch,
        state.fabric.device,
        state.job.runtime.workers,
    )


def _step(
    state: _State, step: int, batch: Batch, numbers: dict[str, float]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """One optimisation step of every group, over the batches of all processes.

    Returns:
        Terms and gradient norms as tensors, and the mean of ``numbers`` over all processes.
    """
    # All randomness of a step (noise of quantisation, sampled proposals) follows from its number.
    torch.manual_seed(state.team.step_seed(state.job.seed, step))
    with state.compute.autocast():
        terms = state.team.terms(state.model, batch)
    means, numbers = state.team.average(terms, numbers)
    _check_finite(means, step, state.job.key)
    loss = state.system.loss(terms)
    factor = learning_rate_factor(step, state.schedule)
    whole = loss if state.team.size == 1 else state.system.loss(means)
    values: dict[str, Tensor] = {"loss": whole.detach(), **means}
    main = [name for name in state.optimisers if name not in ("auxiliary", "adversary")]
    for name in main:
        state.optimisers[name].zero_grad()
    state.fabric.backward(loss)
    for name in main:
        values[f"grad_norm.{name}"] = _update(state, name, step, factor)
    for name, steering in state.system.steering.items():
        values[f"weight.{name}"] = steering.weight
        # A rate is steered by what is sent, not by the noisy estimate that has the gradient.
        steering.update(means.get(f"{name}_coded", means[name]))
    if "adversary" in state.optimisers and "discriminator" in terms:
        state.optimisers["adversary"].zero_grad()
        state.fabric.backward(terms["discriminator"])
        state.team.average_gradients(state.groups["adversary"])
        values["grad_norm.adversary"] = _update(state, "adversary", step, factor)
    if "auxiliary" in state.optimisers:
        auxiliary = state.system.codec.auxiliary_loss()  # type: ignore[union-attr]
        state.optimisers["auxiliary"].zero_grad()
        state.fabric.backward(auxiliary)
        state.optimisers["auxiliary"].step()  # of weights alone: the same in all processes
        values["auxiliary"] = auxiliary.detach()
    state.team.average_statistics(state.system)
    return values, numbers


def _update(state: _State, name: str, step: int, factor: float) -> Tensor:
    """Step one optimiser at ``factor`` times its rate; return the norm of its gradient."""
    limit = state.schedule.clip_norm
    norm = torch.nn.utils.clip_grad_norm_(state.groups[name], math.inf if limit is None else limit)
    if not torch.isfinite(norm):
        raise UserError(
            f"{state.job.key}: gradient of {name} is not finite at step {step}; lower its "
            "learning rate or set clip_norm"
        )
    for group in state.optimisers[name].param_groups:
        group["lr"] = state.schedule.optimiser(name).lr * factor
    state.optimisers[name].step()
    return norm.detach()


def _check_finite(terms: dict[str, Tensor], step: int, key: str) -> None:
    """Stop at the first step whose loss is not finite, and say which term it was."""
    if bool(torch.isfinite(torch.stack([t.detach() for t in terms.values()])).all()):
        return
    values = {name: float(value.detach()) for name, value in terms.items()}
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    listing = ", ".join(f"{name} = {value}" for name, value in bad.items())
    raise UserError(
        f"{key}: loss is not finite at step {step}: {listing}; lower the learning rate, set "
        "clip_norm, or look at the data"
    )


@torch.no_grad()
def validate(state: _State, images: int) -> dict[str, float]:
    """Return the mean loss terms on the first ``images`` of the val split."""
    if state.val is None:
        state.val = Split(state.job.dataset, "val")
    schedule, count = state.schedule, 0
    sums: dict[str, float] = {}
    torch.manual_seed(state.job.seed)
    # Losses need networks in training mode, but what is only looked at must not move statistics.
    with frozen_statistics(state.system):
        for batch in validation_batches(
            state.val, images, schedule.batch_size, schedule.crop, state.targets
        ):
            with state.compute.autocast():
                terms = state.system(batch.to(state.fabric.device))
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(batch.images)
            count += len(batch.images)
    return {name: total / count for name, total in sums.items()}


def _floats(values: dict[str, Tensor], state: _State, step: int) -> dict[str, float]:
    row = {name: float(value) for name, value in values.items()}
    factor = learning_rate_factor(step, state.schedule)
    for name in state.optimisers:
        settings = state.schedule.optimiser(name)
        row[f"lr.{name}"] = settings.lr * (1.0 if name == "auxiliary" else factor)
    return row


class _Clock:
    """Wall and CPU seconds of a training, over all its resumptions and processes."""

    def __init__(self, state: _State) -> None:
        self._before = dict(state.totals)
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._steps = 0
        self._alone = state.team.size == 1
        self.cpu = 0.0  # of all processes, at the beginning of the last step

    def own_cpu(self) -> float:
        return time.process_time() - self._cpu

    def tick(self) -> None:
        self._steps += 1

    def rate(self) -> float:
        return (self._steps + 1) / max(time.monotonic() - self._wall, 1e-9)

    def totals(self) -> dict[str, float]:
        return {
            "wall_seconds": self._before["wall_seconds"] + time.monotonic() - self._wall,
            "cpu_seconds": self._before["cpu_seconds"]
            + (self.own_cpu() if self._alone else self.cpu),
        }


def _save(state: _State, done: int, clock: _Clock, check_owner: Callable[[], None]) -> None:
    totals = clock.totals()
    save_checkpoint(
        state.folder / "checkpoint.pt",
        fingerprint=state.fingerprint,
        step=done,
        model=state.system.state_dict(),
        optimisers=state.optimisers,
        totals=totals,
    )
    check_owner()  # writing takes a while on some file systems
    state.run.update(steps_done=done, **totals)


def _finish(state: _State, kept: Path, weights: Path) -> None:
    owners = {part.split(".")[0] for part in state.job.parts}
    system = state.system.to("cpu")
    if system.codec is not None and "codec" in owners:
        system.codec.prepare_coding()
    meta: dict[str, Any] = {"key": state.job.key, "fingerprint": state.fingerprint}
    if system.steering:
        meta["steering"] = {name: float(s.weight) for name, s in system.steering.items()}
    for old in state.folder.glob("finished-*.pt"):
        old.unlink()
    save_weights(
        kept,
        system.codec if "codec" in owners else None,
        system.task if "task" in owners else None,
        meta,
    )
    # Snakemake deletes a rule's outputs before it runs it; the other name keeps what is finished.
    link(kept, weights)
    state.run.update(
        status="finished",
        finished=time.time(),
        steps_done=state.schedule.steps,
        final=state.final,
        weights_sha256=sha256_file(weights),
        **state.totals,
    )
    (state.folder / "checkpoint.pt").unlink(missing_ok=True)
