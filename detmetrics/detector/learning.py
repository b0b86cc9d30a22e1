"""What a run's curves say of how it learns, in words, and what to try next.

The rule. Losses are taken as logarithms, so that differences are shares. A *level* is the mean of w neighbouring
epochs, w a sixth of the run, 2 to 8. The noise of one epoch is estimated from second differences, which know no trend.
A difference of two levels counts where it is larger than z noise √(2/w); z (3 to 5) allows for the best level being the
lowest of many, and for short runs. In this order, the first that holds:

* diverged: a loss is not finite, or training rose over its best by a tenth, by a third of its fall, and beyond noise;
* overfitting: validation rose over its best by 3 % and beyond noise, while training did not do so (above);
* underfitting: training fell less than 25 % since the first epochs, and stands still;
* too noisy: a change of 15 %, or of half of the fall so far, could not be told from noise;
* still learning: the line through the last third goes down, and a quarter more epochs would take 2 % off;
* plateau: the last third is no better than the stretch before the middle of the run; healthy: it is.

The level of training is compared with itself only, never with validation: with dropout and augmentation it lies above.

How often it is right, in percent, on the made-up curves of ``tests/curves.py`` (seeds 1000 to 1199, which served no
tuning; a third with training above validation; ``python tests/curves.py``). Noise is that of validation from epoch to
epoch; short runs have 5, 6, 8 or 10 epochs, long ones 20, 40 or 100:

==============  =============  =============  =============  =====================================================
made as         0.5 %          2 %            5 %            what else was said (5 %)
                short / long   short / long   short / long   short; long
==============  =============  =============  =============  =====================================================
diverged        100 / 100      100 / 100      100 / 100
overfitting     80 / 100       63 / 98        35 / 86        plateau 37, too noisy 25; plateau 13
underfitting    100 / 100      100 / 99       88 / 98        too noisy 5, overfitting 4; too noisy 1
still learning  100 / 100      92 / 99        49 / 76        too noisy 42, healthy 9; healthy 20, too noisy 4
plateau         100 / 98       85 / 95        63 / 79        too noisy 22, healthy 10; healthy 14, too noisy 4
healthy         94 / 87        84 / 83        55 / 80        too noisy 23, plateau 16; plateau 16, still learning 3
too noisy       93 / 96        90 / 96        92 / 96        (noise of 35 to 60 %, more in long runs)
==============  =============  =============  =============  =====================================================

Overfitting is told wrongly in 0 to 4 % of the runs of any other kind; what is missed of it is mostly called a plateau
or too noisy, and a short run needs more of it. Real curves are not exponentials: the rates are of a clean world.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detmetrics.detector.history import History

Floats = NDArray[np.float64]
Kind = Literal[
    "too early", "diverged", "overfitting", "too noisy", "still learning", "underfitting", "plateau", "healthy"
]

#: Validation must rise by this share over its best to be called overfitting, whatever the noise.
RISE = 0.03
#: A loss that fell less than this since the first epoch, and stands still, has not fitted the data.
FITTED = 0.25
#: The pace that makes more epochs worth while: a quarter more of them would lower the loss by this share.
PACE = 0.02
#: Where a change of this share could not be told from noise, nothing is said.
BLUR = 0.15
#: A training loss that has doubled has, whatever the noise.
DOUBLED = float(np.log(2))

ADVICE: dict[Kind, str] = {
    "too early": "Let it run: four epochs with a validation loss are the least.",
    "diverged": "Lower the learning rate (to a third), lengthen the warm-up, clip gradients harder; where it ends in "
    "NaN, try without mixed precision. Go on from the last checkpoint before it.",
    "overfitting": "Keep the checkpoint of the best validation. Then, in this order: more scenes, stronger "
    "augmentation, dropout or more weight decay, a smaller model, fewer epochs.",
    "too noisy": "Validate on more scenes, or with the average of the weights (EMA); a lower learning rate or a larger "
    "batch calms the curve. Only then judge it.",
    "still learning": "Train longer with the same settings (the schedule stretched over the new length), or raise the "
    "learning rate a little.",
    "underfitting": "First make sure that it can overfit a single batch. Then a higher learning rate, more epochs, "
    "less augmentation, dropout and weight decay, a larger model.",
    "plateau": "The later epochs bought nothing: fewer of them, or a lower learning rate from there on; for better "
    "scores more data or a larger model.",
    "healthy": "Nothing is wrong with the curves. For better scores: more scenes, then a larger model.",
}


class Diagnosis(NamedTuple):
    """What the curves say.

    Attributes
    ----------
    kind : str
    words : str
        A sentence with the figures.
    advice : str
        What to try next.
    epoch : int
        The epoch of the best validation loss, or from which on it is so.
    """

    kind: Kind
    words: str
    advice: str
    epoch: int


class _Series(NamedTuple):
    """A loss in logarithms, so that differences are shares.

    ``level`` (E - w + 1,) are means over w neighbours, ``noise`` is the standard deviation of one value around its
    trend, ``blur`` the smallest difference of two levels that is not noise.
    """

    value: Floats
    level: Floats
    noise: float
    blur: float


def _series(loss: Floats) -> _Series:
    n = len(loss)
    value = np.log(np.maximum(loss, 1e-12))
    w = int(np.clip(round(n / 6), 2, 8))
    level = np.convolve(value, np.full(w, 1 / w), "valid")
    # second differences know no trend; the first epochs bend most, so they stand aside, and a median does the rest
    bend = np.diff(value, 2)[max(1, n // 3) :] if n > 4 else np.diff(value, 2)
    noise = float(np.median(np.abs(bend))) / 0.6745 / np.sqrt(6)
    # the best of many levels is low by chance; few second differences know the noise badly
    z = 1.5 + np.sqrt(2 * np.log(n / w)) + 6 / n
    return _Series(value, level, noise, float(z * noise * np.sqrt(2 / w)))


def diagnose(history: History) -> Diagnosis:
    """Say how a run learns.

    Parameters
    ----------
    history : History
        See :func:`detmetrics.detector.history.read`.

    Returns
    -------
    Diagnosis
        By the rule and with the error rates in this module's docstring.
    """
    broken = ~np.isfinite(history.train_loss) | np.isinf(history.val_loss)
    if broken.any():
        since = int(history.epoch[int(np.argmax(broken))])
        return _told("diverged", since, f"the loss is not finite in epoch {since}")
    known = np.isfinite(history.val_loss)
    epoch = history.epoch[known]
    if len(epoch) < 4:
        counted = "1 epoch has" if len(epoch) == 1 else f"{len(epoch)} epochs have"
        return _told("too early", int(history.epoch[-1]), f"only {counted} a validation loss")
    train, val = _series(history.train_loss[known]), _series(history.val_loss[known])
    return _judge(epoch, train, val, history.NDS[known])


def _judge(epoch: NDArray[np.int64], train: _Series, val: _Series, nds: Floats) -> Diagnosis:
    n, w = len(epoch), len(epoch) - len(val.level) + 1
    best = int(np.argmin(val.level))
    best_epoch = int(epoch[best + int(np.argmin(val.value[best : best + w]))])
    rise = float(val.level[-1] - val.level[best])
    fall = float(val.level[0] - val.level[best])

    low = int(np.argmin(train.level))
    train_rise = float(train.level[-1] - train.level[low])
    train_fall = float(train.level[0] - train.level[low])
    if train_rise > max(min(train.blur, DOUBLED), 0.1, 0.3 * train_fall):
        since = int(epoch[low + w - 1])
        return _told("diverged", since, f"training itself rose {_share(train_rise)} over its best, since epoch {since}")

    since_best = float(train.level[best] - train.level[-1])
    if rise > max(val.blur, RISE):
        did = f"fell {_share(since_best, falls=True)}" if since_best > 0 else f"rose {_share(-since_best)} itself"
        words = f"since epoch {best_epoch}: validation rose {_share(rise)} over its best while training {did}"
        if _still_rises(nds, best):
            words += "; NDS rose on, so the loss alone is no reason to stop"
        return _told("overfitting", best_epoch, words)

    is_fitted = train_fall >= -np.log(1 - FITTED)
    if not is_fitted and train.blur < BLUR and _pace(train)[0] < PACE:
        return _told(
            "underfitting",
            int(epoch[-1]),
            f"training fell only {_share(train_fall, falls=True)} since the first epochs and stands still, validation "
            f"{_share(fall, falls=True)}",
        )

    if val.blur > max(BLUR, 0.5 * fall):
        return _told(
            "too noisy",
            best_epoch,
            f"the validation loss jumps by {_share(val.noise)} from epoch to epoch; a change of less than "
            f"{_share(val.blur)} cannot be told from noise",
        )

    pace, slope = _pace(val)
    k = _tail(n)
    if pace > PACE:
        return _told(
            "still learning",
            int(epoch[-1]),
            f"validation fell {_share(-slope * (k - 1), falls=True)} in the last {k} epochs; at this pace "
            f"{max(n // 4, 1)} more would take off about {_share(pace, falls=True)}",
        )

    flat = int(np.argmax(val.level - val.level[-1] < max(0.5 * val.blur, PACE)))
    settled = int(epoch[flat])
    middle, end = val.value[int(0.35 * n) : max(int(0.55 * n), int(0.35 * n) + 2)], val.value[-k:]
    error = val.noise * np.sqrt(1 / len(middle) + 1 / k)
    if np.mean(middle) - np.mean(end) < max(PACE, error):
        words = f"since epoch {settled}: validation is no better than then"
        if since_best > max(train.blur, 0.1):
            words += f", while training fell {_share(since_best, falls=True)} more: what it learns does not carry over"
        return _told("plateau", settled, words)
    gap = float(val.level[-1] - train.level[-1])
    return _told(
        "healthy",
        best_epoch,
        f"validation fell {_share(fall, falls=True)} and came to rest at its best (epoch {best_epoch}), "
        f"{_share(gap) if gap > 0 else _share(-gap, falls=True)} {'above' if gap > 0 else 'below'} training",
    )


def _tail(n: int) -> int:
    """How many epochs are the end of a curve: the last third."""
    return max(3 if n < 8 else 4, -(-n // 3))


def _pace(series: _Series) -> tuple[float, float]:
    """How far the line through the end of a curve goes down in a quarter more epochs (noise: 0), and its slope."""
    n = len(series.value)
    k = _tail(n)
    time = np.arange(k) - (k - 1) / 2
    slope = float(time @ series.value[-k:] / (time @ time))
    error = series.noise / np.sqrt(float(time @ time))
    return (-slope * n / 4 if -slope > 2.5 * error else 0.0), slope


def _still_rises(nds: Floats, best: int) -> bool:
    """Whether NDS after the best validation loss is still better than before, beyond its jumps."""
    before, after = (part[np.isfinite(part)] for part in (nds[: best + 1], nds[best + 1 :]))
    if len(before) < 2 or len(after) < 2:
        return False
    jump = float(np.median(np.abs(np.diff(np.concatenate([before, after]), 2)))) / 0.6745 / np.sqrt(6)
    return bool(np.mean(after[-2:]) - before.max() > max(2 * jump, 0.005))


def _share(difference: float, *, falls: bool = False) -> str:
    """A difference of logarithms in percent, large ones as a factor."""
    if not falls and difference > np.log(3):
        return f"{np.exp(difference):.1f}-fold"
    share = 100 * (1 - np.exp(-difference) if falls else np.exp(difference) - 1)
    return f"{share:.1f} %" if share < 2 else f"{share:.0f} %"


def _told(kind: Kind, epoch: int, words: str) -> Diagnosis:
    return Diagnosis(kind, words, ADVICE[kind], epoch)
