"""A failing image is named, lets the others go on, and stops the job at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from icmbench.data.dataset import Split
from icmbench.errors import CannotWrite, UserError
from icmbench.evaluate.curve import decode_curve, encode_curve
from icmbench.evaluate.failures import Failures
from icmbench.jobs import EncodeJob
from icmbench.utils.images import RgbImage


def test_failures_go_on_and_name_every_image() -> None:
    failures, done = Failures("test/x", 9), []
    for n in range(9):
        with failures.of(n):
            if n % 4 == 0:
                raise UserError(f"{n}.png: cannot be read")
            done.append(n)
    assert done == [1, 2, 3, 5, 6, 7]
    with pytest.raises(UserError) as caught:
        failures.stop()
    lines = str(caught.value).splitlines()
    assert len(lines) == 4 and "image 4: 4.png" in lines[1] and "3 of 9 images" in lines[-1]
    Failures("test/x", 9).stop()


def test_failures_do_not_hide_a_full_disk_or_a_defect(tmp_path: Path) -> None:
    for error in (CannotWrite("full"), ZeroDivisionError()):
        with pytest.raises(type(error)), Failures("test/x", 1).of("a"):
            raise error


def test_encode_and_decode_name_every_failing_image(
    encode_jobs: list[EncodeJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Split.image

    def image(self: Split, index: int) -> RgbImage:
        if index in (1, 2):
            raise UserError(f"{self.ids[index]}.jpg: cannot be read")
        return read(self, index)

    ids = Split(encode_jobs[0].dataset, "test").ids
    with monkeypatch.context() as patch:
        patch.setattr(Split, "image", image)
        with pytest.raises(
            UserError, match=rf"{ids[1]}\.jpg.*\n.*{ids[2]}\.jpg.*\n.*2 of 4 images"
        ):
            encode_curve(encode_jobs[:1])
    assert not list(Path(encode_jobs[0].output).glob("*.json"))
    encode_curve(encode_jobs[:1])
    streams = Path(encode_jobs[0].output) / "bitstreams.zip"
    data = bytearray(streams.read_bytes())
    for identity in ids[:2]:  # each member follows its name
        data[data.index(f"{identity}.bin".encode()) + len(f"{identity}.bin") + 4] ^= 255
    streams.write_bytes(data)
    with pytest.raises(UserError, match=rf"{ids[0]}\.bin.*\n.*{ids[1]}\.bin.*\n.*2 of 4 images"):
        decode_curve(encode_jobs[:1])
