"""The network: point pillars, a small pyramid of convolutions, centre heatmaps and regressions. Pure torch.

After A. H. Lang et al., *PointPillars*, 2019, and T. Yin et al., *Center-based 3D Object Detection and Tracking*, 2021.
"""

from __future__ import annotations

import math

from detmetrics.detector.config import CLASSES, GROUPS, PARTS, POINT_FEATURES, Config
from detmetrics.detector.pillars import SLOTS
from detmetrics.extras import needs

with needs("detector"):
    import torch
    from torch import Tensor, nn

#: Parts that can be frozen or given a learning rate of their own.
MODEL_PARTS = ("encoder", "backbone", "neck", "heads")
#: What every cell says at first: so rare are centres, about (the focal prior; T.-Y. Lin et al., *Focal Loss*, 2017).
PRIOR = 0.01


class Detector(nn.Module):
    """A detector of a configuration.

    Initialisation. Convolutions and linear layers before a ReLU: He's normal scheme over the fan out, which keeps the
    gradient's size through many layers. The last normalisation of each residual block starts at zero, so that a block
    starts as the identity. The heatmap's bias is the logit of :data:`PRIOR` and its weights are small: else the first
    steps would do nothing but push 16,000 empty cells down, through all layers. Regressions start at zero weights of
    standard deviation 0.01 with the bias of a mean object, where losses are finite and of one size.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.encoder = Encoder(config)
        self.backbone = Backbone(config)
        self.neck = Neck(config)
        self.heads = Heads(config)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for block in self.modules():
            if isinstance(block, Block):
                nn.init.zeros_(block.norm2.weight)
        nn.init.normal_(self.heads.heat.weight, std=0.01)
        assert self.heads.heat.bias is not None
        nn.init.constant_(self.heads.heat.bias, math.log(PRIOR / (1 - PRIOR)))
        nn.init.normal_(self.heads.last.weight, std=0.01)

    def on(self, device: torch.device) -> Detector:
        """Move to a device, convolutions with the channels last in memory: 1.3 times as fast on CPUs (measured)."""
        return self.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def forward(self, features: Tensor, length: Tensor, place: Tensor, batch: int) -> tuple[Tensor, list[Tensor]]:
        """Go from pillars to heatmaps.

        Parameters
        ----------
        features, length, place
            See :class:`detmetrics.detector.pillars.Pillars`, of all samples.
        batch : int
            How many samples.

        Returns
        -------
        heat : (B, C, n, n)
            Logits.
        images : list of (B, W, n, n)
            What :meth:`Heads.regress` reads at some cells, the finest first.
        """
        images = self.neck(self.backbone(self.encoder(features, length, place, batch)))
        return self.heads.heat(images[0]), images


class Encoder(nn.Module):
    """Pillars to an image: a linear layer on points, the highest value in each pillar, a linear layer on pillars."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.n = config.n_cells
        self.point = nn.Linear(POINT_FEATURES, config.point_width, bias=False)
        self.norm = nn.BatchNorm1d(config.point_width)
        self.pillar = nn.Linear(config.point_width, config.pillar_width, bias=False)
        self.norm2 = nn.BatchNorm1d(config.pillar_width)

    def forward(self, features: Tensor, length: Tensor, place: Tensor, batch: int) -> Tensor:
        """Give (B, 8·pillar_width, n, n); the four pillars of a cell, now and before, become channels."""
        width = self.pillar.out_features
        image = features.new_zeros(batch * self.n**2 * SLOTS, width)
        if len(length) > 1 or (len(length) and not self.training):  # the mean of one pillar has no spread
            highest = torch.segment_reduce(self.point(features), "max", lengths=length, axis=0, unsafe=True)
            pillar = torch.relu(self.norm2(self.pillar(torch.relu(self.norm(highest)))))
            image = image.to(pillar.dtype).index_copy(0, place, pillar)
        # the channels lie last in memory, as convolutions on CPUs and tensor cores like it
        return image.view(batch, self.n, self.n, SLOTS * width).permute(0, 3, 1, 2)


def _conv(width_in: int, width: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(width_in, width, kernel, stride, padding=kernel // 2, bias=False)


class Block(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(width, width), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = _conv(width, width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Give an image of the same shape."""
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(y)))


class Backbone(nn.Module):
    """Stages of residual blocks, each at half the resolution of the one before."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        stages = []
        before = SLOTS * config.pillar_width
        for number, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            down = [_conv(before, width, stride=2 if number else 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            stages.append(nn.Sequential(*down, *(Block(width) for _ in range(depth))))
            before = width
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Give the images of all stages, the finest first."""
        images = []
        for stage in self.stages:
            x = stage(x)
            images.append(x)
        return images


class Neck(nn.Module):
    """From the coarsest image to the finest: what is known of the surroundings comes to each cell."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = config.widths
        self.across = nn.ModuleList(_conv(a, b, kernel=1) for a, b in zip(widths[1:], widths[:-1], strict=True))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[:-1])
        self.mix = nn.ModuleList(
            nn.Sequential(_conv(width, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True)) for width in widths[1:-1]
        )
        self.last = nn.Sequential(
            _conv(widths[0], config.head_width),
            nn.BatchNorm2d(config.head_width),
            nn.ReLU(inplace=True),
            nn.Dropout2d(config.dropout),
        )

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        """Give the image for the heads (B, head_width, n, n), and the one of half its resolution that led to it."""
        x = coarse = images[-1]
        for level in range(len(images) - 2, -1, -1):
            up = nn.functional.interpolate(self.norms[level](self.across[level](x)), scale_factor=2, mode="nearest")
            x = torch.relu(images[level] + up)
            if level:
                x = coarse = self.mix[level - 1](x)
        return [self.last(x), coarse]


class Heads(nn.Module):
    """A heatmap for each class; and for each group of classes what is regressed, asked for only where it is wanted.

    Where there is no object there is nothing to learn, and where there is no maximum nothing to read: so regressions
    are computed at some cells instead of all, in training and in use, and can afford to look at the 3 × 3 cells around
    in two resolutions.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.n_values = sum(PARTS.values())
        self.heat = nn.Conv2d(config.head_width, len(CLASSES), 1)
        self.first = nn.Linear(9 * (config.head_width + config.widths[1]), config.regress_width)
        self.last = nn.Linear(config.regress_width, len(GROUPS) * self.n_values)

    def regress(self, images: list[Tensor], place: Tensor, group: Tensor) -> dict[str, Tensor]:
        """Give the parts of :data:`PARTS` at cells.

        Parameters
        ----------
        images : list of (B, W, n, n)
            See :meth:`Detector.forward`.
        place, group : int64 (K,)
            Cells, row by row and sample by sample, and the group of classes that is meant.

        Returns
        -------
        dict of str to (K, size)
            Size, offset, velocity as in :class:`detmetrics.detector.targets.Targets`; attributes as logits.
        """
        n = images[0].shape[-1]
        sample, y, x = place // n**2, place // n % n, place % n
        around = torch.cat([_around(images[0], sample, y, x), _around(images[1], sample, y // 2, x // 2)], dim=1)
        values = self.last(torch.relu(self.first(around))).view(len(place), len(GROUPS), self.n_values)
        values = values.gather(1, group[:, None, None].expand(-1, 1, self.n_values))[:, 0].float()
        return dict(zip(PARTS, values.split(list(PARTS.values()), dim=1), strict=True))


def _around(image: Tensor, sample: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Give the 3 × 3 cells around cells of an image (B, W, n, n), those beyond the edge as zeros: (K, 9·W).

    By ``index_select``: the gradient of plain indexing is added up in any order, so that no two runs are alike.
    """
    width, n = image.shape[1], image.shape[-1]
    rows = image.permute(0, 2, 3, 1).reshape(-1, width)
    step = torch.tensor([-1, 0, 1], device=image.device)
    ys, xs = (y[:, None] + step)[:, :, None], (x[:, None] + step)[:, None]
    is_inside = ((ys >= 0) & (ys < n) & (xs >= 0) & (xs < n)).view(len(x), 9, 1)
    at = (sample[:, None, None] * n + ys.clamp(0, n - 1)) * n + xs.clamp(0, n - 1)
    return (rows.index_select(0, at.view(-1)).view(len(x), 9, width) * is_inside).view(len(x), 9 * width)
