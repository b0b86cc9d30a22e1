"""The training loop, whole, in plain torch.

Plain torch rather than Accelerate: what that would do here are the device, bf16 on CUDA and the wrapping for several
GPUs, a dozen lines below, and a loop that one can read is the point of a baseline. Several GPUs: ``torchrun
--nproc-per-node 4 -m detmetrics detector train …``.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import detmetrics
from detmetrics.detector import checkpoint
from detmetrics.detector.augment import Bank, make_bank
from detmetrics.detector.config import Config, TrainPlan
from detmetrics.detector.leaks import check
from detmetrics.detector.loading import Batch, draw, loader
from detmetrics.detector.losses import losses
from detmetrics.detector.model import Detector
from detmetrics.detector.optim import Mean, optimizer, rate, set_training
from detmetrics.detector.page import write_page
from detmetrics.detector.predicting import device_named, mixed, predict
from detmetrics.detector.samples import Samples
from detmetrics.errors import InputError, listing
from detmetrics.extras import needs
from detmetrics.files import open_file, whole_file
from detmetrics.protocols import NUSCENES

with needs("detector"):
    import torch
    from torch import Tensor, nn

#: Called with a title, what is done and what is to do; and with a sentence.
Progress = Callable[[str, int, int], None]
Say = Callable[[str], None]
Row = dict[str, Any]


class Trainee(nn.Module):
    """A model together with its loss, so that one forward pass uses every weight (which several GPUs need)."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Give the loss and its parts."""
        heat, images = self.model(batch.features, batch.length, batch.place, batch.n)
        regressed = self.model.heads.regress(images, batch.targets["place"], batch.targets["group"])
        return losses(heat, regressed, batch.targets)


def train(
    dataroot: str | Path,
    out: Path,
    config: Config,
    plan: TrainPlan,
    *,
    splits: tuple[str, str] = ("synth_train", "synth_val"),
    version: str | None = None,
    device: str = "auto",
    workers: int = 1,
    init_from: Path | None = None,
    compile_it: bool = False,
    allow_leaks: bool = False,
    say: Say = lambda _: None,
    progress: Progress = lambda *_: None,
) -> list[Row]:
    """Train a detector, or go on where an earlier call with the same arguments stopped.

    Parameters
    ----------
    dataroot, version
        A data set in the nuScenes format.
    out : path
        Folder of the run: ``best.safetensors`` (the averaged weights), ``state.safetensors`` (to go on), the history
        ``history.jsonl``, ``config.json``, TensorBoard's files.
    config : Config
    plan : TrainPlan
    splits : tuple of str
        To train on, and to validate on.
    device : str
        ``auto``, ``cpu``, ``cuda``.
    workers : int
        Processes that read and vary samples.
    init_from : path, optional
        A checkpoint to start from, of this configuration.
    compile_it : bool
        ``torch.compile`` the convolutions.
    allow_leaks : bool
        Go on where the validation split shares data with the training split.
    say, progress : callable

    Returns
    -------
    list of dict
        The history, a row an epoch.

    Raises
    ------
    InputError
        Bad data, leaks (see :mod:`detmetrics.detector.leaks`), a run of another configuration or plan, of other truth
        or from another checkpoint in ``out``, a loss that is not finite, a full disk, CUDA out of memory.
    """
    rank, world = _join_others()
    target = device_named(device)
    run: dict[str, Any] = {
        "config": asdict(config),
        "plan": asdict(plan),
        "splits": list(splits),
        "detmetrics": detmetrics.__version__,
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: cannot make the folder {out}: {error.strerror}") from None
    samples = Samples(dataroot, splits[0], config, version=version)
    held_out = Samples(dataroot, splits[1], config, version=version)
    run |= {"data": [samples.truth.digest, held_out.truth.digest], "init_from": _hash(init_from)}
    is_new = not (out / "state.safetensors").exists()
    if not is_new:
        _check_run(out / "config.json", run)
    torch.manual_seed(plan.seed)
    model = Detector(config)
    if init_from is not None:
        model = checkpoint.load_model(init_from, expected=config)[0]
    model = model.on(target)
    optim = optimizer(model, plan)
    mean = Mean(model, plan.ema)
    rows = _resume(out / "state.safetensors", model, optim, mean)
    trainee: nn.Module = Trainee(model)
    if compile_it:
        model.backbone.compile()  # in place: the names of the weights stay
        model.neck.compile()
    if world > 1:
        if target.type == "cuda":  # elsewhere there is none, and each process keeps statistics of its own
            trainee = nn.SyncBatchNorm.convert_sync_batchnorm(trainee)  # type: ignore[no-untyped-call]
        trainee = nn.parallel.DistributedDataParallel(trainee)
    n_samples = plan.samples or len(samples)
    per_epoch = n_samples // (plan.batch * world)
    if per_epoch < 1:
        raise InputError("--batch", expected=f"at most the {n_samples} samples of an epoch", got=plan.batch * world)
    if rank == 0 and is_new:
        _refuse_leaks(dataroot, splits, version, allow_leaks, say, progress)
        with whole_file(out / "config.json") as file:
            file.write(msgspec.json.format(msgspec.json.encode(run), indent=1))
    bank = _bank(samples, plan, progress) if len(rows) < plan.epochs else None
    if rows:
        say(f"going on after epoch {rows[-1]['epoch']} of {plan.epochs}")
    try:
        for epoch in range(len(rows), plan.epochs):
            if _is_over(rows, plan):
                say(f"stopped early: no better {plan.stop_on} in {plan.patience} epochs")
                break
            start = time.perf_counter()
            numbers = draw(samples, n_samples, plan.balance, np.random.default_rng([plan.seed, epoch]))
            own = numbers[: per_epoch * plan.batch * world].reshape(-1, world, plan.batch)[:, rank].reshape(-1)
            torch.manual_seed(plan.seed * 100_003 + epoch)  # of dropout
            set_training(model, plan)
            total: dict[str, float] = {}
            varied = {
                "augment": plan.augment,
                "bank": bank if epoch < plan.epochs - plan.fade else None,
                "seed": [plan.seed, epoch, rank],
            }
            batches = loader(samples, own, plan.batch, workers=workers, pin=target.type == "cuda", **varied)  # type: ignore[arg-type]
            for number, batch in enumerate(batches):
                step = epoch * per_epoch + number
                lr = rate(plan, step, plan.epochs * per_epoch)
                parts = _step(trainee, optim, batch.to(target), lr, plan.clip)
                if not np.isfinite(sum(parts.values())):
                    raise InputError(f"the loss is not finite at step {step}", hint="try a smaller --lr")
                mean.update(model, step)
                for name, value in parts.items():
                    total[name] = total.get(name, 0.0) + value / per_epoch
                _tell(progress, epoch, plan, number + 1, per_epoch, start)
            seconds = time.perf_counter() - start
            row: Row = {"epoch": epoch + 1, "step": (epoch + 1) * per_epoch, "train_loss": sum(total.values())}
            row |= {"train": total, "lr": lr, "seconds": seconds}
            row["samples_per_s"] = per_epoch * plan.batch * world / seconds
            if rank == 0:
                row |= _validate(mean, config, held_out, plan, target, workers, progress)
                rows.append(row)
                _keep(out, rows, model, optim, mean, plan, run)
                say(_line(row))
                _draw(out, say if epoch + 1 == plan.epochs else lambda _: None)
            if world > 1:  # the others need the rows for early stopping
                shared = [rows]
                torch.distributed.broadcast_object_list(shared)
                rows = shared[0]
    except torch.cuda.OutOfMemoryError:
        smaller = max(plan.batch // 2, 1)
        raise InputError(
            f"CUDA is out of memory at batch {plan.batch}", hint=f"try --batch {smaller}, or a smaller --config"
        ) from None
    return rows


def _step(trainee: nn.Module, optim: torch.optim.Optimizer, batch: Batch, lr: float, clip: float) -> dict[str, float]:
    """One step: forward, backward, clip, move."""
    for group in optim.param_groups:
        group["lr"] = lr * group["scale"]
    with mixed(batch.features.device):
        loss, parts = trainee(batch)
    optim.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_([p for group in optim.param_groups for p in group["params"]], clip)
    if bool(torch.isfinite(norm)):
        optim.step()
    return parts  # type: ignore[no-any-return]


def _validate(
    mean: Mean,
    config: Config,
    samples: Samples,
    plan: TrainPlan,
    device: torch.device,
    workers: int,
    progress: Progress,
) -> Row:
    """Loss and scores of the averaged weights on (a part of) the validation split."""
    n = len(samples)
    numbers = np.arange(n) if not 0 < plan.validate < n else np.linspace(0, n - 1, plan.validate).round().astype(int)
    model = Detector(config)
    model.load_state_dict(mean.state)
    parts: list[dict[str, float]] = []
    pred = predict(
        model, samples, numbers, device=device, batch=plan.batch, workers=workers, losses_out=parts,
        progress=lambda done, total: progress("validating", done, total),
    )  # fmt: skip
    truth = samples.truth.take([samples.tokens[number] for number in numbers])
    summary = detmetrics.evaluate(truth, pred, NUSCENES).to_summary()
    val = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
    return {
        "val_loss": sum(val.values()),
        "val": val,
        "mAP": summary["mean_ap"],
        "NDS": summary["nd_score"],
        "scores": {"errors": summary["tp_errors"], "AP": summary["mean_dist_aps"]},
    }


def _keep(
    out: Path,
    rows: list[Row],
    model: Detector,
    optim: torch.optim.Optimizer,
    mean: Mean,
    plan: TrainPlan,
    run: dict[str, Any],
) -> None:
    """Write what is needed to go on, the best weights and the history; after each epoch."""
    if _best(rows, plan) == len(rows) - 1:
        checkpoint.save_model(out / "best.safetensors", model.config, mean.state, {"run": run, "history": rows[-1:]})
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"mean.{name}": value for name, value in mean.state.items()}
    for number, state in optim.state_dict()["state"].items():
        tensors |= {f"optim.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    checkpoint.save(out / "state.safetensors", tensors, {"format": checkpoint.FORMAT, "history": rows})
    with whole_file(out / "history.jsonl") as file:
        file.write(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    _tensorboard(out, rows[-1])


def _draw(out: Path, say: Say) -> None:
    """Curves and page of the run, where the libraries for them are there; the run goes on without."""
    try:
        told = write_page(out)
        say(f"{told.words}. {told.advice}")
    except InputError as error:
        say(f"no page of the run: {error}")


def _resume(path: Path, model: Detector, optim: torch.optim.Optimizer, mean: Mean) -> list[Row]:
    """Read back what :func:`_keep` wrote, and give the history; nothing where there is none."""
    if not path.exists():
        return []
    tensors, note = checkpoint.load(path)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "mean": {}, "optim": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    model.load_state_dict(parts["model"])
    for name, value in parts["mean"].items():
        mean.state[name].copy_(value)  # in its place: another layout in memory would round otherwise
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter.detach() for group in optim.param_groups for parameter in group["params"]]
    for name, value in parts["optim"].items():
        number, _, rest = name.partition(".")
        like = parameters[int(number)]
        layout = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(number), {})[rest] = layout
    optim.load_state_dict({"state": state, "param_groups": optim.state_dict()["param_groups"]})
    rows: list[Row] = note["history"]
    return rows


def _hash(path: Path | None) -> str | None:
    """SHA-256 of a file, hex."""
    if path is None:
        return None
    with open_file(path) as file:
        return hashlib.sha256(file.read()).hexdigest()


def _check_run(path: Path, run: dict[str, Any]) -> None:
    """Refuse to go on with a run that was started otherwise."""
    if path.exists():
        try:
            before = msgspec.json.decode(path.read_bytes())
        except msgspec.DecodeError as error:
            raise InputError(f"{path} is not JSON: {error}") from None
        now = msgspec.json.decode(msgspec.json.encode(run))
        told_by_all = {"config": "configuration", "plan": "plan", "splits": "pair of splits"}
        for part, what in (told_by_all | {"data": "data set", "init_from": "checkpoint to start from"}).items():
            old, new = before.get(part) if isinstance(before, dict) else None, now[part]
            is_untold = part not in told_by_all and part not in before  # runs of older versions
            if old == new or is_untold or (part == "init_from" and new is None):
                continue
            told = f": {old} before" if part == "splits" else ""
            if isinstance(old, dict) and isinstance(new, dict):
                told = f": {listing([name for name in new if old.get(name) != new[name]])}"
            raise InputError(
                f"{path.parent} holds a run of another {what}{told}",
                hint="choose another --out, or the same settings to go on",
            )


def _refuse_leaks(
    dataroot: str | Path, splits: tuple[str, str], version: str | None, allow: bool, say: Say, progress: Progress
) -> None:
    findings = check(dataroot, *splits, version, progress=lambda done, total: progress("leaks", done, total))
    say(findings.to_text())
    if findings.refusals and not allow:
        raise InputError(
            f"{splits[1]} is no validation of {splits[0]}: {findings.refusals[0]}",
            hint="choose other splits, or --allow-leaks",
        )


def _bank(samples: Samples, plan: TrainPlan, progress: Progress) -> Bank | None:
    if not any(plan.augment.paste):
        return None
    return make_bank(samples, plan.seed, lambda done, total: progress("cutting out objects to paste", done, total))


def _best(rows: list[Row], plan: TrainPlan) -> int:
    values = [row["NDS"] if plan.stop_on == "NDS" else -row["val_loss"] for row in rows]
    return int(np.argmax(values)) if values else -1


def _is_over(rows: list[Row], plan: TrainPlan) -> bool:
    return bool(plan.patience) and len(rows) - 1 - _best(rows, plan) >= plan.patience


def _tell(progress: Progress, epoch: int, plan: TrainPlan, done: int, n: int, start: float) -> None:
    a_step = (time.perf_counter() - start) / done
    left = a_step * (n - done + n * (plan.epochs - epoch - 1)) / 60
    title = f"epoch {epoch + 1}/{plan.epochs}, {plan.batch / a_step:.1f} samples/s, {left:.0f} min left"
    progress(title, done, n)


def _line(row: Row) -> str:
    return (
        f"epoch {row['epoch']}: loss {row['train_loss']:.3f}, validation {row['val_loss']:.3f}, "
        f"mAP {row['mAP']:.3f}, NDS {row['NDS']:.3f}, {row['samples_per_s']:.1f} samples/s"
    )


def _tensorboard(out: Path, row: Row) -> None:
    with suppress(ImportError):
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(out / "tensorboard")) as writer:
            flat = {k: v for k, v in row.items() if isinstance(v, int | float)}
            for split in ("train", "val"):
                flat |= {f"{split}/{name}": value for name, value in row.get(split, {}).items()}
            for name, value in flat.items():
                writer.add_scalar(name, value, row["step"])


def _join_others() -> tuple[int, int]:
    """Join the processes that torchrun started; give this one's rank and how many there are."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return 0, 1
    if not torch.distributed.is_initialized():
        on_gpu = torch.cuda.is_available()
        torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
        if on_gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return torch.distributed.get_rank(), world
