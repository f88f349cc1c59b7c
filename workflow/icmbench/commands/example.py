"""``icmbench example``: a folder to try ``icmbench eval`` on, without any download."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

from icmbench.config.load import load_scale
from icmbench.data.specs import EmbeddedScenes
from icmbench.data.synthetic.scenes import generate
from icmbench.errors import UserError
from icmbench.utils.files import write_text
from icmbench.utils.places import workflow_folder

_ZOO = "zoo/chamain2021"
_CODEC = "hyperprior/reconstruction/mse/rate{}-codec.safetensors"
_DETECTOR = "uncoded/faster-rcnn/pretrained/rate0-task.safetensors"
_QUALITIES = 4
_CONFIG = """\
# A task of one's own: the detector that the zoo has for generated scenes.
tasks:
  drawn:
    network: faster-rcnn
"""


def write_example(folder: Path, images: int) -> str:
    """Write drawn scenes, their COCO JSON, and weights that the zoo has for them.

    Returns:
        The names of what was written, a line each.

    Raises:
        UserError: where the folder exists and is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty; name another folder")
    workflow = workflow_folder()
    scenes = EmbeddedScenes(source="embedded-scenes", size=256, train=0, val=0, test=images, seed=7)
    with tempfile.TemporaryDirectory() as temporary:
        generate(scenes, Path(temporary))
        with zipfile.ZipFile(Path(temporary, "test.zip")) as archive:
            archive.extractall(folder / "images")
        shutil.copy(Path(temporary, "instances_test.json"), folder / "annotations.json")
    for place in range(_QUALITIES):
        source = workflow / _ZOO / _CODEC.format(place)
        shutil.copy(source, folder / f"codec-q{place + 1}.safetensors")
    shutil.copy(workflow / _ZOO / _DETECTOR, folder / "detector.safetensors")
    detector = load_scale(workflow / "scales", "mini").tasks["faster-rcnn"]
    settings = "".join(f"    {key}: {value}\n" for key, value in detector.items())
    write_text(folder / "config.yaml", _CONFIG + settings)
    return "\n".join(sorted(str(path) for path in folder.iterdir()))
