"""config.yaml: what to run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
)

from icmbench.codecs.classical.command_entry import CommandParameters, command_lines
from icmbench.data.specs import Dataset
from icmbench.utils.models import Strict
from icmbench.utils.secrets import has_credentials


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | int) else value


# One name or number stands for a list of one.
Names = Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=list[str] | str)]
Numbers = Annotated[list[int], BeforeValidator(_as_list, json_schema_input_type=list[int] | int)]

_Distance = Literal["lpips", "dists"]
Distances = Annotated[
    list[_Distance], BeforeValidator(_as_list, json_schema_input_type=list[_Distance] | _Distance)
]


def _no_braces(path: str) -> str:
    if "{" in path or "}" in path:
        raise ValueError("braces are Snakemake's wildcards; choose a folder without them")
    return path


# Part of the file names in rules.
Folder = Annotated[str, AfterValidator(_no_braces)]


class Layer(NamedTuple):
    """A part of the configuration.

    Attributes:
        where: the file that it is from, or ``--config``.
        values: keys that it sets.
    """

    where: str
    values: dict[str, Any]


def source(layers: Sequence[Layer], path: Sequence[str]) -> str:
    """Return where a key was set last, or the first layer where none sets it.

    Args:
        layers: of the configuration, each laid over those before it.
        path: of the key: its names from the outermost.
    """
    for layer in reversed(layers):
        value: Any = layer.values
        for name in path:
            if not isinstance(value, dict):
                return layer.where  # within a list or a text that it sets
            if name not in value:
                break
            value = value[name]
        else:
            return layer.where
    return layers[0].where if layers else "config.yaml"


class DataSettings(Strict):
    """Where real data sets are kept and taken from."""

    directory: Folder = Field(
        "data", description="Folder of the DVC pointers, the catalogue and the fetched data sets."
    )
    mirror: str | None = Field(
        None,
        description="Folder laid out like the data folder, tried before any download. "
        "The environment variable ICMBENCH_MIRROR has the same effect where this is null.",
    )


class TrackingSettings(Strict):
    """MLflow. A run succeeds with tracking off or the server unavailable."""

    mlflow: bool = Field(True, description="Import every run into MLflow at the end.")
    uri: str | None = Field(
        None,
        description="Tracking address, without user and password, which MLFLOW_TRACKING_USERNAME "
        "and MLFLOW_TRACKING_PASSWORD give; null takes MLFLOW_TRACKING_URI, else "
        "sqlite:///<results>/mlflow.db.",
    )
    experiment: str = Field(
        "icmbench", description="Prefix of the MLflow experiments, one per study and scale."
    )

    @field_validator("uri")
    @classmethod
    def _without_credentials(cls, uri: str | None) -> str | None:
        # The configuration is part of the plan, which the report and MLflow show.
        if uri is not None and has_credentials(uri):
            raise ValueError(
                "an address with user or password would be shown with the results; set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_URI"
            )
        return uri


class ProgramSettings(Strict):
    """Codec programs of the user: a path, or a command line that runs one.

    A command line may start a container or load a module first, e.g. ``apptainer exec vtm.sif
    EncoderAppStatic``; the program's own arguments follow it. null looks on PATH.
    ``python -m icmbench codecs`` lists what is found.
    """

    bpgenc: str | None = Field(None, description="BPG's encoder.")
    bpgdec: str | None = Field(None, description="BPG's decoder.")
    vtm_encoder: str | None = Field(None, description="VTM's EncoderApp.")
    vtm_decoder: str | None = Field(None, description="VTM's DecoderApp.")
    vtm_config: str | None = Field(
        None,
        description="VTM's encoder_intra_vtm.cfg; null looks in the folder of its source tree.",
    )
    hm_encoder: str | None = Field(None, description="HM's TAppEncoder, with range extensions.")
    hm_decoder: str | None = Field(None, description="HM's TAppDecoder.")
    hm_config: str | None = Field(
        None,
        description="HM's encoder_intra_main_rext.cfg; null looks in the folder of its source "
        "tree.",
    )
    vvencapp: str | None = Field(None, description="VVenC's encoder.")
    vvdecapp: str | None = Field(None, description="VVdeC's decoder.")


class CacheSettings(Strict):
    """Bitstreams and decoded images of classical codecs, shared by studies, tasks and scales."""

    directory: str | None = Field(None, description="Its folder; null is <results>/cache.")
    limit_gb: float = Field(
        50.0,
        ge=0,
        description="Size above which the least recently used entries are removed "
        "(results that use them keep their copies); 0 disables the cache.",
    )


class AnalysisSettings(Strict):
    """How curves are compared."""

    resamples: int = Field(
        1000, ge=1, description="Bootstrap resamples over images behind every 95 % interval."
    )
    bd_method: Literal["pchip", "akima", "cubic"] = Field(
        "pchip", description="Interpolation behind the BD metrics; it is part of their name."
    )


class ClusterSettings(Strict):
    """Settings of a cluster; local runs have no use for them.

    The SLURM profile sets them in workflow/profiles/slurm/cluster.yaml.
    """

    account: str | None = Field(None, description="Account to charge; null names none.")
    partition: str | None = Field(
        None, description="Partition of all jobs; null takes the cluster's default."
    )
    gpu_partition: str | None = Field(
        None, description="Partition of jobs that use a GPU; null takes ``partition``."
    )
    gpu_type: str | None = Field(
        None,
        description="Type of GPU or of MIG slice, as the cluster names it (a100, "
        "nvidia_a100-sxm4-80gb, 1g.10gb); null takes any.",
    )
    gres: str | None = Field(
        None,
        description="Where GPUs are requested with --gres: the resource without its number, as "
        "``gpu`` or ``gpu:a100``; takes the place of ``gpu_type``.",
    )
    constraint: str | None = Field(
        None, min_length=1, description="Features that the nodes of all jobs must have."
    )
    gpu_constraint: str | None = Field(
        None,
        min_length=1,
        description="Features of the nodes of jobs that use a GPU; null takes ``constraint``.",
    )
    max_minutes: int | None = Field(
        None, ge=1, description="Longest time limit that a job may request; retries grow up to it."
    )
    max_memory_mb: int | None = Field(
        None, ge=500, description="Most memory that a job may request, in MB."
    )
    max_cores: int | None = Field(
        None, ge=1, description="Most cores that a job may request: those of a node."
    )

    # What SLURM's executor plugin passes on. It refuses anything else only when it submits.
    @field_validator("gpu_type")
    @classmethod
    def _type_of_slurm(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name):
            raise ValueError(
                "not a type of GPU as `sinfo -o %G` lists it, which has letters, digits and _ . + -"
            )
        return name

    @field_validator("gres")
    @classmethod
    def _gres_of_the_executor(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is None:
            return None
        if not re.fullmatch(r"[A-Za-z0-9_]+(:[A-Za-z0-9_.]*[A-Za-z_.][A-Za-z0-9_.]*)?", name):
            raise ValueError(
                "must be a name, or name:type, of letters, digits, _ and . (the number of GPUs is "
                "added); name a type with other characters under gpu_type"
            )
        if info.data.get("gpu_type") is not None:
            raise ValueError("set gres or gpu_type, not both; gpu:TYPE names the type")
        return name


class RunConfig(Strict):
    """The top level configuration file."""

    _layers: tuple[Layer, ...] = PrivateAttr(())

    scale: str = Field(
        "mini", description="Name of a file in workflow/scales: smoke, mini, photos, paper, ..."
    )
    studies: Names = Field(
        ["chamain2021"],
        min_length=1,
        description="Names of files in workflow/studies, or in one of study_folders.",
    )
    study_folders: Names = Field([], description="Folders with the user's study files.")
    datasets: dict[str, Dataset] = Field(
        {},
        description="Data sets by role, which replace the scale's or add to them; images of one's "
        "own need no ``source``, e.g. {mine: {images: val, annotations: val.json}}.",
    )
    tasks: dict[str, dict[str, Any]] = Field(
        {}, description="Tasks by name, which replace the scale's or add to them; see there."
    )
    variants: Literal["leading", "all"] = Field(
        "leading",
        description="leading: those that a study names under ``leading``, where it names any.",
    )
    classical_codecs: Names = Field(
        ["jpeg"],
        description="Classical codecs to run; a study's variants on other codecs are left out.",
    )
    substitutes: dict[str, str] = Field(
        {},
        description="Codecs to use in place of others, e.g. {vtm-444: vvenc-ffmpeg-420} "
        "where a program is missing. Results are named after the substitute.",
    )
    programs: ProgramSettings = ProgramSettings()
    command_codecs: dict[str, CommandParameters] = Field(
        {},
        description="Classical codecs that are commands, by a name of your choice, which then "
        "stands for a classical codec everywhere; see docs/command-codecs.md.",
    )
    cache: CacheSettings = CacheSettings()
    seeds: Numbers = Field(
        [0], min_length=1, description="Every trained operating point is repeated for each seed."
    )
    modules: Names = Field(
        [], description="The user's Python modules that register codecs or tasks."
    )
    perceptual: Distances = Field(
        [],
        description="Perceptual distances of decoded images, beside PSNR and MS-SSIM. They need "
        "the weights of AlexNet (244 MB) and VGG16 (553 MB), see docs/methods.md.",
    )
    zoo: str = Field("workflow/zoo", description="Folder of the zoo, see docs/zoo.md.")
    results: Folder = Field("results", description="Folder of everything that is produced.")
    data: DataSettings = DataSettings()
    tracking: TrackingSettings = TrackingSettings()
    analysis: AnalysisSettings = AnalysisSettings()
    # Not a part of the plan: results do not depend on where a job runs.
    cluster: ClusterSettings = Field(ClusterSettings(), exclude=True)

    def program_lines(self) -> dict[str, str | None]:
        """Return the paths and command lines of programs by name, or by key of a command."""
        lines: dict[str, str | None] = self.programs.model_dump()
        for name, command in self.command_codecs.items():
            lines |= command_lines(name, command)
        return lines

    def read_from(self, layers: Sequence[Layer]) -> Self:
        """Return this configuration with the layers that it is made of, for errors."""
        self._layers = tuple(layers)
        return self

    def where(self, key: str) -> str:
        """Return how errors name a key: the file that sets it, and the key, with dots."""
        return f"{source(self._layers, key.split('.'))}: key {key!r}"
