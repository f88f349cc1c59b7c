"""Snakemake's terminal output in a few lines: a progress bar, what needs attention, the result.

Snakemake finds logger plugins by the name of their package; workflow/profiles/default selects this
one. The full log of a run is in .snakemake/log, that of each job in <results>/<scale>/logs.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from tqdm import tqdm

# Jobs that start and end, and facts about the machine: details for the log file.
_DETAILS = {
    LogEvent.JOB_INFO,
    LogEvent.JOB_STARTED,
    LogEvent.JOB_FINISHED,
    LogEvent.GROUP_INFO,
    LogEvent.RESOURCES_INFO,
    LogEvent.WORKFLOW_STARTED,
    LogEvent.RULEGRAPH,
}
# Messages without an event that nobody needs; any other message is shown.
_ROUTINE = (
    "Activating conda",
    "Assuming unrestricted",
    "Building DAG",
    "Conda environments: ignored",
    "Group jobs: inactive",
    "Select jobs",
    "Using shell",
)
_DRY_RUN = "This was a dry-run"
# Of tracebacks where Snakemake itself cannot start.
_CACHE = "in __init__\n    os.makedirs(self.cache_path"
_NO_IDENTIFIER = "Config entry must start with a valid identifier"
_END = ("Complete log", "Elapsed time")
_LINES = 20  # of progress where there is no terminal
_SHOWN_S = 60  # less time left than this is not shown


def _advice(arguments: Sequence[str]) -> str:
    """Return what to write in place of the dotted keys that Snakemake's --config refuses."""
    from icmbench.config.load import nested_spelling  # slow, and this module is always imported

    found = [text for text in map(nested_spelling, arguments) if text is not None]
    return f"--config takes no dotted keys; write {' '.join(found) or 'name=value'}"


class LogHandler(LogHandlerBase):
    """Writes to standard error; ``--verbose`` shows all that Snakemake logs.

    So does a dry run with ``--printshellcmds``; without it, a dry run counts the jobs.
    """

    writes_to_stream = True
    writes_to_file = False
    has_filter = False  # Snakemake's own filter (--quiet) and formatter apply
    has_formatter = False
    needs_rulegraph = False

    def __post_init__(self) -> None:
        """Prepare for the first record."""
        settings = self.common_settings
        listing = settings.dryrun and settings.printshellcmds
        self._everything = listing or settings.verbose or settings.debug_dag
        self._stream = sys.stdout if settings.stdout else sys.stderr
        self._bar: tqdm | None = None
        self._failed = False
        self._started = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record of Snakemake."""
        event = getattr(record, "event", None)
        self._failed |= record.levelno >= logging.ERROR
        if event == LogEvent.PROGRESS and not self._everything:
            self._show_progress(record.__dict__["done"], record.__dict__["total"])
            return
        if event == LogEvent.JOB_INFO and self._bar is not None:
            self._bar.set_postfix_str(record.__dict__["rule_name"])
        if self._everything or self._is_shown(record, event):
            text = self.format(record)
            if _NO_IDENTIFIER in text:
                text = _advice(sys.argv)
            elif _CACHE in text and "Error: [Errno" in text:
                reason = text.strip().splitlines()[-1]
                text = f"{reason}; set XDG_CACHE_HOME to a folder that can be written"
            elif text.startswith(_DRY_RUN) and not self._everything:
                text += "\n--dry-run --printshellcmds lists each job."
            if text and text != "None":
                tqdm.write(text, file=self._stream)

    def _is_shown(self, record: logging.LogRecord, event: LogEvent | None) -> bool:
        if event is not None or record.levelno > logging.INFO:
            return event not in _DETAILS
        if record.getMessage().startswith(_END):
            return self._failed  # the last line of a successful run is its report
        return not record.getMessage().startswith(_ROUTINE)

    def _show_progress(self, done: int, total: int) -> None:
        if not self._stream.isatty():
            if done * _LINES // total > (done - 1) * _LINES // total:
                left = (time.monotonic() - self._started) * (total - done) / done
                text = f", about {left / 60:.0f} min left" if left > _SHOWN_S else ""
                print(f"{done} of {total} jobs done{text}", file=self._stream, flush=True)
            return
        if self._bar is None:
            self._bar = tqdm(total=total, unit="job", file=self._stream, dynamic_ncols=True)
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        if done == total:  # nothing is drawn below the last message
            self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def close(self) -> None:
        """End the progress bar."""
        self._close_bar()
        super().close()
