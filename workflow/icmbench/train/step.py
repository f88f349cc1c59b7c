"""One optimisation step, and the validation between two steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from icmbench.errors import UserError
from icmbench.networks.batchnorm import frozen_statistics, updated_statistics
from icmbench.train import distributed
from icmbench.train.batches import Batch, validation_batches
from icmbench.train.schedule import learning_rate_factor
from icmbench.train.setup import Training

# Optimiser groups with a loss of their own; the others share the weighted sum of the loss terms.
_SEPARATE = ("auxiliary", "adversary")


def optimise(training: Training, step: int, batch: Batch) -> dict[str, Tensor]:
    """Run one step of every optimiser.

    Returns:
        Scalars by name: the loss, its terms, the weights of steered terms and gradient norms.

    Raises:
        UserError: if a loss term or a gradient is not finite.
    """
    job, system, optimisers = training.job, training.system, training.optimisers
    # All randomness of a step (noise of quantisation, sampled proposals) follows from its number.
    torch.manual_seed(distributed.step_seed(job.seed, step, distributed.rank()))
    with training.compute.autocast():
        terms = training.model(batch)
    means = distributed.all_reduce_mean(terms)
    _check_finite(means, step, job.key)
    values = {"loss": system.loss(means).detach(), **means}

    factor = learning_rate_factor(step, job.schedule)
    main = [name for name in optimisers if name not in _SEPARATE]
    for name in main:
        optimisers[name].zero_grad()
    system.loss(terms).backward()
    for name in main:
        values[f"grad_norm.{name}"] = _update(training, name, step, factor)

    for name, steering in system.steering.items():
        values[f"weight.{name}"] = steering.weight
        # A rate is steered by what is coded, not by the noisy estimate that has the gradient.
        steering.update(means.get(f"{name}_coded", means[name]))

    if "adversary" in optimisers and "discriminator" in terms:
        optimisers["adversary"].zero_grad()
        terms["discriminator"].backward()
        gradients = (parameter.grad for parameter in training.parameters["adversary"])
        distributed.all_reduce_mean_(g for g in gradients if g is not None)
        values["grad_norm.adversary"] = _update(training, "adversary", step, factor)

    if "auxiliary" in optimisers:
        assert system.codec is not None
        auxiliary = system.codec.auxiliary_loss()  # of parameters alone: equal on all ranks
        optimisers["auxiliary"].zero_grad()
        auxiliary.backward()
        optimisers["auxiliary"].step()
        values["auxiliary"] = auxiliary.detach()

    distributed.all_reduce_mean_(updated_statistics(system))
    return values


def _update(training: Training, name: str, step: int, factor: float) -> Tensor:
    """Step one optimiser at ``factor`` times its learning rate; return its gradient norm."""
    schedule, optimiser = training.job.schedule, training.optimisers[name]
    limit = math.inf if schedule.clip_norm is None else schedule.clip_norm
    norm = torch.nn.utils.clip_grad_norm_(training.parameters[name], limit)
    if not torch.isfinite(norm):
        raise UserError(
            f"{training.job.key}: gradient of {name} is not finite at step {step}; lower its "
            "learning rate or set clip_norm"
        )
    for group in optimiser.param_groups:
        group["lr"] = schedule.optimiser(name).lr * factor
    optimiser.step()
    return norm.detach()


def _check_finite(terms: dict[str, Tensor], step: int, key: str) -> None:
    if bool(torch.isfinite(torch.stack(list(terms.values()))).all()):
        return
    values = {name: float(value) for name, value in terms.items()}
    listing = ", ".join(f"{name} = {v}" for name, v in values.items() if not math.isfinite(v))
    raise UserError(
        f"{key}: loss is not finite at step {step}: {listing}; lower the learning rate, set "
        "clip_norm, or check the data"
    )


def refresh_task(training: Training, step: int) -> None:
    """Let a task recompute what it keeps about the whole split; the task knows at which steps."""
    task = training.system.task
    if task is None or not hasattr(task, "refresh"):
        return
    job, split = training.job, training.split
    torch.manual_seed(distributed.step_seed(job.seed, step))
    task.refresh(
        training.system.codec,
        split,
        step,
        max(1, len(split) // job.schedule.batch_size),  # steps of an epoch
        training.compute.device,
        job.runtime.workers,
    )


@torch.no_grad()
def validate(training: Training, images: int) -> dict[str, float]:
    """Return the mean loss terms on the first ``images`` of the val split."""
    schedule, system = training.job.schedule, training.system
    torch.manual_seed(training.job.seed)
    sums: dict[str, float] = {}
    count = 0
    source = validation_batches(training.validation_split, images, schedule, training.targets)
    # Losses need networks in training mode, but validation must not change running averages.
    with frozen_statistics(system):
        for batch in source:
            with training.compute.autocast():
                terms = system(batch.to(training.compute.device))
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(batch.images)
            count += len(batch.images)
    return {name: total / count for name, total in sums.items()}


def log_step(training: Training, done: int, values: dict[str, Tensor]) -> None:
    """Write what step ``done`` computed, its learning rates and the speed to metrics.jsonl."""
    schedule = training.job.schedule
    row = {name: float(value) for name, value in values.items()}
    factor = learning_rate_factor(done - 1, schedule)
    for name in training.optimisers:
        lr = schedule.optimiser(name).lr
        row[f"lr.{name}"] = lr * (1.0 if name == "auxiliary" else factor)
    training.final = row
    images = (done - training.first_step) * schedule.batch_size
    speed = images / training.clock.seconds()
    training.log.write(done, "train", {**row, "images_per_second": speed})
