"""What a job imports, and that nothing is missing afterwards."""

import subprocess
import sys

import pytest
import scipy.stats

from icmbench.codecs.learned.fast_entropy import CompactGaussian
from icmbench.utils.imports import left_out

_CODEC = """
import sys
from icmbench.plugins import load_modules
from icmbench.registry import CODECS, implementation
load_modules([])
implementation(CODECS[{codec!r}])
print(*sorted({packages} & set(sys.modules)))
"""
_AFTERWARDS = """
import compressai.datasets.pointcloud, compressai.transforms.point, scipy.stats, torch_geometric
assert compressai.transforms.point.RandomSample and compressai.datasets.pointcloud.ModelNetDataset
assert scipy.stats.norm and torch_geometric.transforms.Center
"""


def _run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("codec", ["bmshj2018-hyperprior", "layered"])
def test_a_codec_does_not_pay_for_point_clouds(codec: str) -> None:
    program = _CODEC.format(codec=codec, packages={"compressai", "torch_geometric", "scipy.stats"})
    assert _run(program + _AFTERWARDS).split() == ["compressai"]


def test_fabric_does_not_pay_for_torchmetrics() -> None:
    program = """
import sys
from icmbench.utils.device import choose_compute
from icmbench.train.distributed import find_team
runtime = {"threads": 1, "gpu": 0, "precision": "float32"}
find_team(1).fabric(choose_compute(runtime))
print("lightning_fabric" in sys.modules, "torchmetrics" in sys.modules)
import torchmetrics.image
"""
    assert _run(program).split() == ["True", "False"]


def test_a_stand_in_is_empty_and_goes() -> None:
    with left_out("snakefmt", "snakefmt.parser"):
        import snakefmt.parser

        assert snakefmt.__version__ and not snakefmt.__all__
        assert snakefmt.parser is sys.modules["snakefmt.parser"]
    assert not {"snakefmt", "snakefmt.parser"} & set(sys.modules)


def test_what_is_imported_already_or_not_installed_has_no_stand_in() -> None:
    before = sys.modules["scipy.stats"]
    with left_out("scipy.stats", "no_such_package"):
        assert sys.modules["scipy.stats"] is before
        with pytest.raises(ModuleNotFoundError):
            import no_such_package  # noqa: F401
    assert sys.modules["scipy.stats"] is before


def test_quantile_of_a_gaussian_is_scipys() -> None:
    tail = 1e-9 / 2  # CompressAI's: the same table, bit for bit
    assert CompactGaussian._standardized_quantile(tail) == scipy.stats.norm.ppf(tail)
    assert CompactGaussian._standardized_quantile(0.02) == pytest.approx(
        scipy.stats.norm.ppf(0.02), rel=1e-14
    )
