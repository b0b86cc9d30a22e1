"""Footage: the frames of a data set to look at, one after another; clouds are read when a frame is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detmetrics import framing
from detmetrics.errors import InputError, Words, listing
from detmetrics.geometry import IDENTITY
from detmetrics_viz.outcomes import Outcomes
from detmetrics_viz.scene import Scene, build_scene, scene_name, unknown_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detmetrics.boxes import Boxes
    from detmetrics.geometry import Pose
    from detmetrics.io.clouds import Cloud
    from detmetrics.ledger import Ledger

    Placed = tuple[Cloud, Pose | None, Pose | None]

#: Middle of a car whose origin is the middle of its rear axle, as that of nuScenes and Argoverse 2 is, metres.
_CENTER_XY_M = (1.35, 0.0)


class Footage:
    """Frames to look at.

    Parameters
    ----------
    frames : sequence of str
        In the order of time.
    read : callable
        Gives for a frame its cloud, and the motions from the boxes' frame to the cloud's and from there to the view's;
        None as in :func:`~detmetrics_viz.build_scene`.
    truth, pred : Boxes, optional
    ledger : Ledger or Outcomes, optional
    ego_center_xy_m : tuple of float
        Middle of the own car in the view frame, metres.

    Attributes
    ----------
    frames : tuple of str
    scenes : tuple of str
        Which scene each frame is of; ``""`` where unknown.
    outcomes : Outcomes or None

    Raises
    ------
    InputError
        Without frames.
    """

    def __init__(
        self,
        frames: Sequence[str],
        read: Callable[[str], Placed],
        truth: Boxes | None = None,
        pred: Boxes | None = None,
        ledger: Ledger | Outcomes | None = None,
        *,
        ego_center_xy_m: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        if not frames:
            raise InputError("no frames to look at")
        self.frames = tuple(frames)
        self.outcomes = ledger if isinstance(ledger, Outcomes) or ledger is None else Outcomes.of(ledger)
        self._truth = self.outcomes.ledger.truth if self.outcomes else truth
        self._pred = self.outcomes.ledger.pred if self.outcomes else pred
        self._read = read
        self._ego = ego_center_xy_m
        self.scenes = tuple(scene_name(frame, self._truth, self._pred) for frame in self.frames)

    @classmethod
    def of_data(
        cls,
        data: str | Path,
        truth: Boxes,
        pred: Boxes | None = None,
        ledger: Ledger | Outcomes | None = None,
        *,
        version: str | None = None,
        channel: str = "LIDAR_TOP",
        n_sweeps: int = 1,
    ) -> Footage:
        """Look at a data set in the format of nuScenes or Argoverse 2, whichever the folder holds.

        Parameters
        ----------
        data : path
        truth : Boxes
            Of that data set: its frames are shown, as far as they have clouds.
        pred, ledger
            As in :func:`~detmetrics_viz.build_scene`.
        version, channel
            Of the tables, and the lidar; see :class:`detmetrics.io.clouds.NuscenesClouds`.
        n_sweeps : int
            Sweeps joined for each frame.

        Raises
        ------
        InputError
            Where the frames of truth have no clouds there.
        """
        from detmetrics.io.clouds import Argoverse2Clouds, NuscenesClouds

        root = Path(data)
        close = 1.0 if n_sweeps > 1 else 0.0  # without the own car, which joined sweeps smear
        is_logs = any(any(root.glob(f"{place}annotations.feather")) for place in ("", "*/"))
        if is_logs:
            logs = Argoverse2Clouds(root)
            samples = logs.samples

            def read(frame: str) -> Placed:
                return logs.read(frame, n_sweeps=n_sweeps), IDENTITY, None
        else:
            tables = NuscenesClouds(root, version, channel)
            samples = tables.samples

            def read(frame: str) -> Placed:
                return tables.read(frame, n_sweeps=n_sweeps, drop_close_m=close), None, tables.mounting(frame)

        there = set(samples)
        frames = [frame for frame in truth.frames if frame in there]
        if not frames:
            raise InputError(
                f"boxes without a cloud: none of the frames of {truth.source} has one in {root}",
                hint=f"frames: {listing(truth.frames)}",
            )
        return cls(frames, read, truth, pred, ledger, ego_center_xy_m=_CENTER_XY_M)

    @classmethod
    def of_cloud(
        cls, cloud: Cloud, truth: Boxes | None = None, pred: Boxes | None = None, *, frame: str | None = None
    ) -> Footage:
        """Look at one cloud and boxes in its frame.

        Parameters
        ----------
        cloud : Cloud
        truth, pred : Boxes, optional
        frame : str, optional
            Which of the boxes' frames; default: the only one.
        """
        known = list(dict.fromkeys(name for boxes in (truth, pred) if boxes is not None for name in boxes.frames))
        several = [name for boxes in (truth, pred) if boxes is not None and boxes.n_frames > 1 for name in boxes.frames]
        name = frame or (known[0] if known else Path(cloud.source).name)
        if frame is None and several:
            stem = Path(cloud.source).name.split(".")[0]
            own = [name for name in dict.fromkeys(several) if name == stem or name.endswith(f":{stem}")]
            if len(own) != 1:  # KITTI's frames are called like their clouds, Argoverse 2's end like them
                raise InputError("frame", expected="given where the boxes have several", hint=listing(known))
            name = own[0]
        if known and name not in known:
            raise unknown_frame(name, known)
        # boxes of one frame belong to the cloud, whatever their file is called
        truth, pred = (
            boxes.replace(frames=(name,)) if boxes is not None and boxes.n_frames == 1 else boxes
            for boxes in (truth, pred)
        )
        return cls([name], lambda _: (cloud, IDENTITY, None), truth, pred)

    @property
    def has_predictions(self) -> bool:
        """Whether there is more than truth."""
        return self._pred is not None

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.frames)

    def index(self, frame: str) -> int:
        """Give the place of a frame.

        Raises
        ------
        InputError
            For an unknown one; tells near names.
        """
        if frame not in self.frames:
            raise unknown_frame(frame, list(self.frames))
        return self.frames.index(frame)

    def __getitem__(self, at: int) -> Scene:
        """Read the cloud of a frame and build its scene."""
        frame = self.frames[at]
        cloud, boxes_to_cloud, cloud_to_view = self._read(frame)
        return build_scene(
            cloud,
            self._truth,
            self._pred,
            self.outcomes,
            frame=frame,
            boxes_to_cloud=boxes_to_cloud,
            cloud_to_view=cloud_to_view,
            ego_center_xy_m=self._ego,
        )

    def only(self, scenes: Sequence[str]) -> Footage:
        """Give the frames of some scenes.

        Raises
        ------
        InputError
            For a scene that is not there.
        """
        if missing := [name for name in scenes if name not in self.scenes]:
            raise InputError(f"no scenes {listing(missing)}", hint=f"known: {listing(dict.fromkeys(self.scenes))}")
        frames = [frame for frame, name in zip(self.frames, self.scenes, strict=True) if name in set(scenes)]
        return Footage(frames, self._read, self._truth, self._pred, self.outcomes, ego_center_xy_m=self._ego)

    def worst_of_classes(self) -> dict[str, int]:
        """Give for each class the place of the frame with most mistakes of it; classes without mistakes are left out.

        Raises
        ------
        InputError
            Where nothing was matched.
        """
        outcomes = self._matched("worst")
        mistakes = outcomes.mistakes()
        codes = np.array([outcomes.ledger.truth.frame_index[frame] for frame in self.frames])
        worst = np.argmax(mistakes[codes], axis=0).tolist()
        labels = outcomes.ledger.protocol.labels
        return {label: at for k, (label, at) in enumerate(zip(labels, worst, strict=True)) if mistakes[codes[at], k]}

    def worst(self, number: int) -> list[int]:
        """Give the places of the frames with most mistakes, the worst first.

        Raises
        ------
        InputError
            Where nothing was matched.
        """
        ledger = self._matched("worst").ledger
        return self._places(framing.frames(ledger, cost=False).worst(ledger.n_frames))[:number]

    def best(self, number: int) -> list[int]:
        """Give the places of the frames with fewest mistakes, the best first; see :meth:`detmetrics.Frames.best`.

        Raises
        ------
        InputError
            Where nothing was matched, or no frame has a truth that counts.
        """
        ledger = self._matched("best").ledger
        places = self._places(framing.frames(ledger, cost=False).best(ledger.n_frames))[:number]
        if not places:
            raise InputError("best frames", expected="among frames with a truth that counts", got=Words("none such"))
        return places

    def _matched(self, wanted: str) -> Outcomes:
        """What was matched; ``wanted`` frames need it."""
        if self.outcomes is None:
            raise InputError(f"{wanted} frames need predictions")
        return self.outcomes

    def _places(self, codes: NDArray[np.int64]) -> list[int]:
        """Places of those of the ledger's frames that are here."""
        assert self.outcomes is not None
        place = {frame: at for at, frame in enumerate(self.frames)}
        names = [self.outcomes.ledger.truth.frames[code] for code in codes.tolist()]
        return [place[name] for name in names if name in place]
