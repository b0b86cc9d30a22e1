"""Checkpoints: safetensors whose header holds a JSON of the configuration; nothing is unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from detmetrics.detector.config import CLASSES, Config
from detmetrics.detector.model import Detector
from detmetrics.errors import InputError, Words, listing
from detmetrics.extras import needs
from detmetrics.files import open_file, whole_file

with needs("detector"):
    import safetensors
    import safetensors.torch
    import torch
    from torch import Tensor, nn

#: Of the layout of a checkpoint and of what its numbers mean.
FORMAT = 1
_KEY = "detmetrics_detector"
BUNDLED = Path(__file__).parent / "weights" / "small.safetensors"


def save(path: Path, tensors: Mapping[str, Tensor], note: dict[str, Any]) -> None:
    """Write tensors and a JSON note in one file, whole or not at all.

    Raises
    ------
    InputError
        Where the file cannot be written, e.g. on a full disk.
    """
    cpu = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    text = msgspec.json.encode(note).decode()
    content = safetensors.torch.save(cpu, {_KEY: text})
    with whole_file(path) as file:
        file.write(content)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save` wrote.

    Raises
    ------
    InputError
        Where the file is missing, truncated, no safetensors file or not ours.
    """
    with open_file(path):
        pass
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except safetensors.SafetensorError as error:
        raise InputError(f"{path}", expected="a whole safetensors file", got=Words(error)) from None
    if text is None:
        raise InputError(f"{path} is a safetensors file, but no checkpoint of this detector")
    try:
        note = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: the note in the header is not JSON: {error}") from None
    if note.get("format") != FORMAT:
        raise InputError(f"{path}: format of the checkpoint", expected=str(FORMAT), got=note.get("format"))
    return tensors, note


def save_model(path: Path, config: Config, state: Mapping[str, Tensor], note: dict[str, Any]) -> None:
    """Write a model, half of its bytes saved where nothing is lost: counters are left out."""
    tensors = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    save(path, tensors, {"format": FORMAT, "config": asdict(config), "classes": CLASSES, **note})


def load_model(path: Path | None = None, *, expected: Config | None = None) -> tuple[Detector, dict[str, Any]]:
    """Read a model and its note; without a path the bundled one.

    Raises
    ------
    InputError
        See :func:`load`; or a checkpoint of another configuration than expected, of other classes, or whose tensors
        are not those of its configuration.
    """
    if path is None and not BUNDLED.exists():
        raise InputError(f"no bundled checkpoint at {BUNDLED}", hint="name one with --checkpoint")
    path = path or BUNDLED
    tensors, note = load(path)
    if "config" not in note:
        raise InputError(
            f"{path} is the state of a training run, not a model", hint="best.safetensors in its folder is one"
        )
    try:
        config = msgspec.convert(note["config"], Config)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: configuration: {error}") from None
    config.check()
    if tuple(note.get("classes", ())) != CLASSES:
        raise InputError(f"{path}: classes", expected=", ".join(CLASSES), got=note.get("classes"))
    if expected is not None and config != expected:
        names = [name for name, value in asdict(expected).items() if value != getattr(config, name)]
        raise InputError(
            f"{path}", expected=f"a checkpoint of configuration {expected.name!r}", got=config.name,
            hint=f"they differ in {listing(names)}",
        )  # fmt: skip
    model = Detector(config)
    fill(model, tensors, path)
    return model.eval(), note


def fill(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put tensors into a model.

    Raises
    ------
    InputError
        Where a tensor is missing, of another shape, or not finite.
    """
    state = model.state_dict()
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name not in tensors:
            raise InputError(f"{path} lacks the tensor {name!r}: it is of another configuration")
        if tensors[name].shape != value.shape:
            got = tuple(tensors[name].shape)
            raise InputError(f"{path}: shape of {name!r}", expected=str(tuple(value.shape)), got=got)
        if not bool(torch.isfinite(tensors[name]).all()):
            raise InputError(f"{path}: tensor {name!r}", expected="finite")
        value.copy_(tensors[name])
