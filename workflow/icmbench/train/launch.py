"""Start a training run: in this process, or by torchrun in one process per device.

The processes of a run on one host are started by torchrun's own launcher, in this process. On
several hosts, start the verb ``train`` with the command torchrun.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

from icmbench.errors import UserError
from icmbench.jobs import TrainJob
from icmbench.plugins import load_modules
from icmbench.train import distributed
from icmbench.train.loop import train
from icmbench.train.signals import Interrupted
from icmbench.utils.files import read_object, write_json
from icmbench.utils.gpus import take_gpus
from icmbench.utils.logs import setup_logging

logger = logging.getLogger(__name__)

INTERRUPTED = 143  # what a shell reports of a process that SIGTERM ended
_SHUTDOWN_S = 3600  # for the checkpoint after SIGTERM; then SIGKILL
_SETTLE_S = 1.0


def run(job: TrainJob) -> int:
    """Train an operating point and return the exit status: 0, or 143 after SIGTERM or SIGINT.

    Raises:
        UserError: for errors that the user can fix; with several processes for every failure.
    """
    if distributed.is_launched():
        _rank(job)
        return 0
    take_gpus(job.runtime.gpu * job.schedule.devices)
    return _train(job) if job.schedule.devices == 1 else _launch(job)


def _train(job: TrainJob) -> int:
    try:
        weights = train(job)
    except Interrupted as stop:
        if distributed.is_rank_zero():
            logger.warning("%s", stop)
        return INTERRUPTED
    if distributed.is_rank_zero():
        print(weights)
    return 0


def _launch(job: TrainJob) -> int:
    """Train in as many processes as the schedule asks for."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed.elastic", "torch.multiprocessing"):
        library = logging.getLogger(name)  # would log tracebacks of a failure that is one line here
        library.addHandler(logging.NullHandler())
        library.propagate = False
    with tempfile.TemporaryDirectory(prefix="icmbench-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=job.schedule.devices,
            run_id=uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            shutdown_timeout=_SHUTDOWN_S,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, _rank)(job)
        except SignalException:
            return INTERRUPTED
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode == INTERRUPTED:
                return INTERRUPTED
            reason = f"rank {rank} of {job.schedule.devices}: {failure.message}"
    _record_failure(Path(job.output) / "run.json", reason)
    raise UserError(f"{job.key}: {reason}")


def _rank(job: TrainJob) -> None:
    """Train as one rank. A rank that does not finish ends here, without cleaning up.

    The destructors of DDP and gloo wait for the other ranks, or for Python's lock, which the thread
    that they wait for needs (seen with PyTorch 2.13).
    """
    atexit.register(_end, 0)
    setup_logging()
    try:
        load_modules(job.modules)
        if (status := _train(job)) != 0:
            _end(status)
    except UserError as error:
        _fail(str(error))
    except Exception as error:
        # If this rank has only lost the connection to one that failed, it is terminated meanwhile.
        time.sleep(_SETTLE_S)
        traceback.print_exc()
        _fail(f"{type(error).__name__}: {' '.join(str(error).split())}")


def _fail(message: str) -> NoReturn:
    """End with an error that torchrun reports, or this process where torchrun did not start it."""
    if error_file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        write_json(error_file, {"message": message, "timestamp": int(time.time())})
    else:
        logger.error("%s", message)
    _end(1)


def _end(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _record_failure(path: Path, reason: str) -> None:
    """Write to run.json what failed first: rank 0 may only know that it lost a connection."""
    if path.is_file():
        run = read_object(path)
        if run.get("status") in ("running", "failed"):
            write_json(path, {**run, "status": "failed", "finished": time.time(), "error": reason})
