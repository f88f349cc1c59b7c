"""The loop of one training run: resume, step, log, validate, save, finish."""

from __future__ import annotations

import logging
import time
from contextlib import closing, suppress
from pathlib import Path

from icmbench.errors import CannotWrite
from icmbench.jobs import TrainJob
from icmbench.train import distributed
from icmbench.train.checkpoint import (
    WeightsMeta,
    is_finished,
    keep_finished,
    restore_finished,
    save_checkpoint,
    save_weights,
)
from icmbench.train.lock import TakenOver, TrainingLock
from icmbench.train.outcome import warnings_of
from icmbench.train.progress import Progress
from icmbench.train.setup import Training, fingerprint_of, prepare, reach_rate
from icmbench.train.signals import Interrupted, StopSignal
from icmbench.train.step import log_step, optimise, refresh_task, validate
from icmbench.utils.device import uses_cuda
from icmbench.utils.files import sha256_file, writing

logger = logging.getLogger(__name__)


def train(job: TrainJob) -> Path:
    """Train one operating point and return the path of its weights.

    A finished run with the same fingerprint returns at once. An interrupted one resumes at its
    checkpoint and ends with the weights that it would have had. With several devices, this is one
    of as many processes, see :mod:`icmbench.train.distributed`.

    If another process takes this run over because this one stood still for too long, this one waits
    for the other's result: if it failed, Snakemake would delete that result.

    Raises:
        UserError: for impossible settings, missing data or weights, a loss that is not finite.
        Interrupted: after SIGTERM or SIGINT, with the checkpoint saved.
    """
    stop = StopSignal()
    while True:
        try:
            with writing(job.output):
                return _train(job, stop)
        except TakenOver as error:
            must_end = stop.received and not is_finished(Path(job.output), fingerprint_of(job))
            if must_end or job.schedule.devices > 1:
                raise
            logger.warning("%s; waiting for its result", error)


def _train(job: TrainJob, stop: StopSignal) -> Path:
    folder, fingerprint = Path(job.output), fingerprint_of(job)
    lock_file = folder / "training.lock" if distributed.is_rank_zero() else None
    with TrainingLock(lock_file) as lock:
        distributed.connect(job.schedule.devices, uses_cuda(job.runtime))
        finished = distributed.is_rank_zero() and restore_finished(folder, fingerprint)
        if not distributed.broadcast(finished):
            training = prepare(job, fingerprint)
            try:
                _run_steps(training, lock, stop)
                lock.check()
            except TakenOver:
                raise  # run.json is the other process's
            except Interrupted:
                training.run.end("interrupted")
                raise
            except BaseException as error:
                with suppress(CannotWrite):  # the first error is more informative
                    training.run.end("failed", error=str(error))
                raise
            finally:
                training.log.close()
            if distributed.is_rank_zero():
                _finish(training)
    return folder / "weights.pt"


def _run_steps(training: Training, lock: TrainingLock, stop: StopSignal) -> None:
    job, schedule, device = training.job, training.job.schedule, training.compute.device
    validation = schedule.validation
    shown = distributed.is_rank_zero()
    saved = time.monotonic()
    with stop, closing(Progress(job.key, training.first_step, schedule.steps, shown)) as progress:
        for step, batch in training.batches():
            refresh_task(training, step)
            values = optimise(training, step, batch)
            done, last = step + 1, step + 1 == schedule.steps
            stopping = distributed.any_rank(stop.received, device) and not last
            if distributed.is_rank_zero():
                lock.check()
                if done % job.runtime.log_every == 0 or last:
                    log_step(training, done, values)
                if validation is not None and done % validation.every == 0:
                    training.log.write(done, "val", validate(training, validation.images))
                progress.update(done, training.final)
                due = time.monotonic() - saved > job.runtime.checkpoint_s
                if stopping or (due and not last):
                    _save(training, done, lock)
                    saved = time.monotonic()
            if stopping:
                distributed.barrier()
                raise Interrupted(f"{job.key}: {stop} at step {done}; checkpoint saved")
    distributed.barrier()


def _save(training: Training, done: int, lock: TrainingLock) -> None:
    totals = training.clock.totals()
    save_checkpoint(
        training.folder / "checkpoint.pt",
        fingerprint=training.fingerprint,
        step=done,
        model=training.system.state_dict(),
        optimisers=training.optimisers,
        totals=totals,
        check_owner=lock.check,
    )
    lock.check()
    training.run.update(steps_done=done, **totals)


def _finish(training: Training) -> None:
    job, system = training.job, training.system.to("cpu")
    trained = {part.split(".")[0] for part in job.parts}
    codec = system.codec if "codec" in trained else None
    task = system.task if "task" in trained else None
    metrics, steps = training.folder / "metrics.jsonl", job.schedule.steps
    warnings = warnings_of(metrics, steps, system.steering)
    for line in warnings:
        logger.warning("%s: %s", job.key, line)
    if codec is not None:
        reach_rate(job, system, training.split)
        codec.prepare_coding()
    meta: WeightsMeta = {"key": job.key, "fingerprint": training.fingerprint}
    if system.steering:
        meta["steering"] = {name: float(s.weight) for name, s in system.steering.items()}
    weights = training.folder / "weights.pt"
    save_weights(weights, codec, task, meta)
    training.run.end(
        "finished",
        steps_done=steps,
        final=training.final,
        warnings=warnings,
        weights_sha256=sha256_file(weights),
        **training.clock.totals(),
    )
    keep_finished(training.folder)
