"""Registers two codecs, a task and its metric. Imports no network library.

``modules: [own_codec]`` in the configuration imports this before it is checked, so that the study
file may use the names. The classes are imported by the jobs that run them.
"""

from pydantic import Field

from icmbench.codecs import LearnedParameters
from icmbench.metrics.catalogue import METRICS, Metric
from icmbench.registry import CODECS, TASKS, CodecEntry, TaskEntry
from icmbench.utils.models import Strict


class BlockDctParameters(Strict):
    """What a scale may set under ``codecs.block-dct``."""

    chroma: float = Field(2.0, gt=0, description="Step of Cb and Cr over that of Y.")


class EdgesParameters(Strict):
    """What a scale may set under ``tasks.edges``."""

    threshold: float = Field(0.15, gt=0, description="Least gradient of an edge, white is 1.")


CODECS.register(
    CodecEntry(
        name="block-dct",
        kind="classical",  # classical: no weights, one number sets the rate
        parameters=BlockDctParameters,
        implementation="block_dct:BlockDct",
        rate_parameter="step",
    )
)
CODECS.register(
    CodecEntry(
        name="tiny-autoencoder",
        kind="learned",
        parameters=LearnedParameters,
        defaults={"n": 16, "m": 24},
        implementation="tiny_autoencoder:TinyAutoencoder",
        parts=("analysis", "synthesis", "entropy"),
        loss_terms=("bpp", "mse"),
    )
)
TASKS.register(
    TaskEntry(
        name="edges",
        parameters=EdgesParameters,
        implementation="edges:Edges",
        trainable=False,
        loss_terms=(),
        metrics=("edge_f1",),
    )
)
# Title, unit and the page of the report, task-edges.html. The tables have values in [0, 1].
METRICS.register(Metric("edge_f1", "Edge F1", "%", factor=100, digits=1, family="edges"))
