"""What a detector is made of, and how it is trained: frozen values, no code; both go into every checkpoint as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from detmetrics.errors import InputError
from detmetrics.protocols import NUSCENES

#: Classes that share a regression: alike in size and in how they move.
GROUPS = (
    ("car",),
    ("truck", "construction_vehicle"),
    ("bus", "trailer"),
    ("barrier",),
    ("motorcycle", "bicycle"),
    ("pedestrian", "traffic_cone"),
)
CLASSES = NUSCENES.labels
#: Group of each class, in the protocol's order.
GROUP_OF = tuple(next(g for g, names in enumerate(GROUPS) if name in names) for name in CLASSES)
ATTRIBUTES = NUSCENES.attributes
#: What a result file says of itself.
META = {"use_camera": False, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": False}
#: What is regressed for each group, and how many numbers each takes.
PARTS = {"offset": 2, "height": 1, "size": 3, "heading": 2, "velocity": 2, "attribute": len(ATTRIBUTES)}
#: Of a point that comes into the encoder, see :func:`detmetrics.detector.pillars.pillars`.
POINT_FEATURES = 10


@dataclass(frozen=True)
class Config:
    """A detector.

    Attributes
    ----------
    name : str
    half_m : float
        The square seen reaches this far ahead, behind, left and right of the sensor. nuScenes counts vehicles up to 50
        m.
    pillar_m : float
        Side of a pillar; the heatmap's cells are twice as large.
    n_sweeps : int
        Clouds that are joined, the newest first.
    gap_s : float
        The least time between two of them: clouds in between are skipped, so that 2 and 20 clouds a second look alike.
    max_points : int
        Points that a pillar keeps, spread evenly over those that it has: near the car, thousands lie in one.
    point_width, pillar_width : int
        Features of a point and of a pillar.
    widths, depths : tuple of int
        Channels and residual blocks of the stages, each of half the resolution of the one before.
    head_width, regress_width : int
        Channels before the heatmaps, and hidden ones of the regressions.
    dropout : float
        Of channels before the heads.
    """

    name: str
    half_m: float = 51.2
    pillar_m: float = 0.4
    n_sweeps: int = 4
    gap_s: float = 0.12
    max_points: int = 12
    point_width: int = 32
    pillar_width: int = 12
    widths: tuple[int, ...] = (40, 72, 128)
    depths: tuple[int, ...] = (1, 2, 2)
    head_width: int = 64
    regress_width: int = 192
    dropout: float = 0.0

    @property
    def n_cells(self) -> int:
        """Cells of the heatmap along one side."""
        return round(self.half_m / self.pillar_m)

    @property
    def cell_m(self) -> float:
        """Side of a cell of the heatmap."""
        return 2 * self.pillar_m

    def check(self) -> None:
        """Refuse what makes no detector, as InputError."""
        coarsest = 2 ** (len(self.widths) - 1)
        if len(self.widths) != len(self.depths) or not self.widths:
            raise InputError("config.depths", expected=f"one for each of the widths {self.widths}", got=self.depths)
        if self.n_cells < 1 or self.n_cells % coarsest or abs(self.n_cells * self.pillar_m - self.half_m) > 1e-6:
            raise InputError(
                "config.half_m", expected=f"a multiple of {coarsest} pillars of {self.pillar_m} m", got=self.half_m
            )
        if len(self.widths) < 2:
            raise InputError("config.widths", expected="two or more stages", got=self.widths)
        if self.n_sweeps < 1 or self.max_points < 1 or not 0 <= self.dropout < 1:
            raise InputError("config", expected="n_sweeps and max_points of 1 or more, dropout in [0, 1)", got=self)


CONFIGS = {
    config.name: config
    for config in (
        Config("tiny", n_sweeps=2, gap_s=0.4, max_points=8, widths=(16, 32, 64), depths=(1, 1, 1), head_width=32),
        Config("small"),
        Config(
            "base", pillar_m=0.2, n_sweeps=10, gap_s=0.0, max_points=16, point_width=64, pillar_width=16,
            widths=(64, 128, 256, 256), depths=(2, 3, 3, 2), head_width=128,
        ),
    )
}  # fmt: skip


def config_named(name: str) -> Config:
    """Give a configuration by name.

    Raises
    ------
    InputError
        For an unknown name.
    """
    if name not in CONFIGS:
        raise InputError("config", expected=f"one of {', '.join(CONFIGS)}", got=name)
    return CONFIGS[name]


@dataclass(frozen=True)
class Augment:
    """How training samples are varied; each chance is of one sample.

    Attributes
    ----------
    flip : float
        Chance of a flip, for either axis.
    rotate_rad, scale : float
        Largest turn, and largest change of scale, either way.
    crop, crop_rad : float
        Chance that a sector of the cloud is cut out, and its largest width: a lidar that is partly blocked.
    drop : float
        Largest share of points left out at random.
    brightness, contrast : float
        Largest change of intensity, as a share of its range, and of its spread, either way.
    paste : tuple of int
        For each class, how many objects a sample is filled up to.
    """

    flip: float = 0.5
    rotate_rad: float = 0.4
    scale: float = 0.05
    crop: float = 0.1
    crop_rad: float = 0.5
    drop: float = 0.15
    brightness: float = 0.05
    contrast: float = 0.2
    paste: tuple[int, ...] = (4, 3, 3, 3, 3, 4, 4, 4, 3, 3)


NO_AUGMENT = Augment(0, 0, 0, 0, 0, 0, 0, 0, (0,) * len(CLASSES))


@dataclass(frozen=True)
class TrainPlan:
    """A training run.

    Attributes
    ----------
    epochs, batch : int
    samples : int
        Samples drawn in an epoch; 0: as many as there are.
    lr : float
        Highest learning rate of AdamW; a cosine takes it to zero after ``warmup`` (share of all steps).
    decay, clip : float
        Weight decay (never of norms and biases), and the largest norm of the gradient.
    ema : float
        Of the weights that are validated and kept, a step.
    balance : float
        Share of the draws that is class-balanced.
    lr_scale : dict of str to float
        Factor on the learning rate of a part of the model.
    freeze : tuple of str
        Parts that are not trained.
    fade : int
        Epochs at the end without pasted objects, which stand where none would.
    stop_on : str
        What early stopping and the best checkpoint go by: ``NDS`` or ``val_loss``.
    patience : int
        Epochs without a better one after which training stops; 0: never.
    validate : int
        Samples of the validation split looked at in each epoch, spread evenly; 0: all.
    seed : int
    """

    epochs: int = 8
    batch: int = 2
    samples: int = 0
    lr: float = 1.5e-3
    warmup: float = 0.08
    decay: float = 0.01
    clip: float = 10.0
    ema: float = 0.999
    balance: float = 0.5
    lr_scale: dict[str, float] = field(default_factory=dict)
    freeze: tuple[str, ...] = ()
    augment: Augment = Augment()
    fade: int = 2
    stop_on: str = "NDS"
    patience: int = 0
    validate: int = 0
    seed: int = 0

    def check(self) -> None:
        """Refuse what cannot be trained, as InputError."""
        for name, least in {
            "epochs": 1,
            "batch": 1,
            "samples": 0,
            "fade": 0,
            "patience": 0,
            "validate": 0,
            "seed": 0,
        }.items():
            if getattr(self, name) < least:
                raise InputError(f"--{name}", expected=f"at least {least}", got=getattr(self, name))
        if not 0 < self.lr < inf:
            raise InputError("--lr", expected="above 0", got=self.lr)
        if not 0 <= self.decay < inf:
            raise InputError("--decay", expected="zero or more", got=self.decay)
        if not self.clip > 0:
            raise InputError("clip", expected="above 0", got=self.clip)
        for name in ("warmup", "ema", "balance"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(name, expected="a share from 0 to 1", got=getattr(self, name))
        if self.stop_on not in ("NDS", "val_loss"):
            raise InputError("--stop-on", expected="NDS or val_loss", got=self.stop_on)
