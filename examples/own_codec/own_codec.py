"""Registers two codecs, a task and its metric. Imports no network library.

``modules: [own_codec]`` in the configuration imports this file before checks, so that study files
may use the names. The classes are imported by the jobs that run them.
"""

from pydantic import Field

from icmbench.codecs.learned.entries import LearnedParameters
from icmbench.metrics.catalogue import METRICS, Metric
from icmbench.registry import CODECS, TASKS, CodecEntry, TaskEntry
from icmbench.utils.models import Strict


class BlockDctParameters(Strict):
    """Settings under ``codecs.block-dct`` of a scale."""

    chroma: float = Field(2.0, gt=0, description="Step of Cb and Cr over that of Y.")


class EdgesParameters(Strict):
    """Settings under ``tasks.edges`` of a scale."""

    threshold: float = Field(0.15, gt=0, description="Smallest gradient of an edge; white is 1.")


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
        metrics=("edge_f1",),
    )
)
# Title, unit and the page of the report, task-edges.html. The tables have values in [0, 1].
METRICS.register(Metric("edge_f1", "Edge F1", "%", factor=100, digits=1, family="edges"))
