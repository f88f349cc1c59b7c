"""One failing image is named, and the job continues with the others; then it stops."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from icmbench.errors import CannotWrite, UserError
from icmbench.utils.files import line_of

logger = logging.getLogger(__name__)

_SHOWN = 5


class Failures:
    """The images of a job that failed.

    Args:
        job: key of the job, for messages.
        total: number of images.
    """

    def __init__(self, job: str, total: int) -> None:
        self.job, self.total = job, total
        self._lines: list[str] = []

    @contextmanager
    def of(self, image: object) -> Iterator[None]:
        """Note an error of one image that a user can fix; other errors are raised.

        Raises:
            CannotWrite: the next image would fare no better.
        """
        try:
            yield
        except CannotWrite:
            raise
        except (UserError, OSError) as error:
            reason = str(error) if isinstance(error, UserError) else line_of(error)
            self._lines.append(f"{self.job}: image {image}: {reason}")
            logger.warning("%s", self._lines[-1])

    def stop(self) -> None:
        """Stop the job if an image failed.

        Raises:
            UserError: naming the first images, one in a line.
        """
        if not self._lines:
            return
        more = len(self._lines) - _SHOWN
        lines = [
            *self._lines[:_SHOWN],
            *([f"and {more} more images"] if more > 0 else []),
            f"{self.job}: {len(self._lines)} of {self.total} images failed",
        ]
        raise UserError("\n".join(lines))
