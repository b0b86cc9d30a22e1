"""How the bundled checkpoint was made, from nothing: ``python -m detmetrics.detector.recipe WORK``.

Makes the world, trains, scores on scenes of another world that nothing before has read, and writes the model card. What
is done is kept in WORK, so an interrupted run goes on; ``--install`` puts checkpoint and card into the package.
``--ablation NAME`` trains one arm of the ablations instead, on a shorter schedule that is the same for all arms.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

import detmetrics
from detmetrics import io
from detmetrics.detector import card, checkpoint, latency, plain
from detmetrics.detector.config import NO_AUGMENT, Config, TrainPlan, config_named
from detmetrics.detector.predicting import device_named, predict
from detmetrics.detector.samples import Samples
from detmetrics.detector.training import train
from detmetrics.errors import DetmetricsError
from detmetrics.files import whole_file
from detmetrics.protocols import NUSCENES
from detmetrics.synth import WORLD_VERSION, write_world

#: The world that is trained on, early stopping included, and the one that only the final scores see.
SEED, HELD_OUT_SEED = 606, 60606
N_TRAIN, N_VAL, N_HELD_OUT, SWEEPS = 120, 10, 24, 2
CONFIG = config_named("small")
PLAN = TrainPlan(epochs=12, samples=2200, validate=160, seed=6)
#: Every arm of the ablations has a sixth of the steps.
SHORT = replace(PLAN, epochs=2, fade=0)
ARMS: dict[str, tuple[Config, TrainPlan]] = {
    "reference": (CONFIG, SHORT),
    "no-augmentation": (CONFIG, replace(SHORT, augment=NO_AUGMENT)),
    "one-sweep": (replace(CONFIG, n_sweeps=1), SHORT),
}
Say = Callable[[str], None]


def world(work: Path, say: Say) -> Path:
    """Make the world to train on."""
    out = work / "world"
    if not out.exists():
        say(f"world: {N_TRAIN} + {N_VAL} scenes, seed {SEED}")
        write_world(out, train_scenes=N_TRAIN, val_scenes=N_VAL, seed=SEED, sweeps=SWEEPS)
    return out


def held_out(work: Path, say: Say) -> Path:
    """Make the world to score on."""
    out = work / "held_out"
    if not out.exists():
        say(f"held-out world: {N_HELD_OUT} scenes, seed {HELD_OUT_SEED}")
        write_world(out, train_scenes=0, val_scenes=N_HELD_OUT, seed=HELD_OUT_SEED, sweeps=SWEEPS)
    return out


def trained(work: Path, config: Config, plan: TrainPlan, name: str, say: Say) -> Path:
    """Train, or go on; give the folder of the run."""
    out = work / name
    last = [0.0]

    def progress(title: str, done: int, total: int) -> None:
        if time.monotonic() - last[0] > 30:
            last[0] = time.monotonic()
            say(f"{name}: {title}: {done} of {total}")

    train(work / "world", out, config, plan, say=say, progress=progress)
    return out


def scored(run: Path, data: Path, say: Say) -> dict[str, Any]:
    """Score the best weights of a run on held-out scenes, with intervals over scenes."""
    out = run / "held_out.json"
    if out.exists():
        content: dict[str, Any] = msgspec.json.decode(out.read_bytes())
        return content
    model, note = checkpoint.load_model(run / "best.safetensors")
    samples = Samples(data, "synth_val", model.config)
    say(f"{run.name}: scoring on {len(samples)} held-out samples")
    start = time.perf_counter()
    boxes = predict(model, samples)
    seconds = time.perf_counter() - start
    io.nuscenes.write_results(boxes, run / "held_out_results.json")
    content = scores_of(boxes, samples.truth) | {"epoch": note["history"][-1]["epoch"], "seconds": seconds}
    with whole_file(out) as file:
        file.write(msgspec.json.format(msgspec.json.encode(content), indent=1))
    return content


def baseline(work: Path, data: Path, say: Say) -> dict[str, Any]:
    """Score the baseline without learning on the same scenes."""
    out = work / "plain.json"
    if out.exists():
        content: dict[str, Any] = msgspec.json.decode(out.read_bytes())
        return content
    say("scoring the plain baseline")
    start = time.perf_counter()
    boxes = plain.predict(data, "synth_val")
    content = {"seconds": time.perf_counter() - start}
    content |= scores_of(boxes, io.nuscenes.load_truth(data, split="synth_val"))
    with whole_file(out) as file:
        file.write(msgspec.json.format(msgspec.json.encode(content), indent=1))
    return content


def install(work: Path, say: Say) -> None:
    """Put checkpoint, note, curves and card into the package; arms of the ablations where they were run."""
    run, target = work / "small", checkpoint.BUNDLED
    model, note = checkpoint.load_model(run / "best.safetensors")
    history = [msgspec.json.decode(line) for line in (run / "history.jsonl").read_bytes().splitlines()]
    data = held_out(work, say)
    facts = card.Facts(
        world=f"version {WORLD_VERSION}, seed {SEED}, {N_TRAIN} + {N_VAL} scenes, {SWEEPS} sweeps between key frames",
        held_out=f"seed {HELD_OUT_SEED}, {N_HELD_OUT} scenes",
        config=config_named("small"),
        plan=PLAN,
        short=SHORT,
        history=history,
        device=latency.device_text(device_named("cpu")),
        cost=latency.measure(model.config, device_named("cpu")),
        scores=scored(run, data, say),
        plain=baseline(work, data, say),
        arms={
            name: msgspec.json.decode((work / f"ablation-{name}" / "held_out.json").read_bytes())
            for name in ARMS
            if (work / f"ablation-{name}" / "held_out.json").exists()
        },
    )
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(run / "best.safetensors", target)
    shutil.copyfile(run / "curves.png", target.parent / "curves.png")
    for name, content in {
        "small.json": msgspec.json.format(msgspec.json.encode(note), indent=1) + b"\n",
        "MODEL_CARD.md": card.text(facts).encode(),
    }.items():
        with whole_file(target.parent / name) as file:
            file.write(content)
    say(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


def scores_of(pred: detmetrics.Boxes, truth: detmetrics.Boxes) -> dict[str, Any]:
    """Scores and their intervals as plain values."""
    ledger = detmetrics.match(truth, pred, NUSCENES)
    scores = detmetrics.score(ledger)
    intervals = detmetrics.bootstrap(ledger, 1000)
    return {"scores": scores.to_summary(), "intervals": intervals.to_rows(), "signature": intervals.signature}


def main(arguments: list[str]) -> int:
    """Run the recipe; 0 where all went well."""
    parser = argparse.ArgumentParser(prog="python -m detmetrics.detector.recipe", description=__doc__)
    parser.add_argument("work", type=Path, help="folder for worlds and runs, about 12 GB")
    parser.add_argument("--ablation", choices=ARMS, help="train and score this arm instead")
    parser.add_argument("--install", action="store_true", help="put checkpoint and card into the package")
    given = parser.parse_args(arguments)
    work: Path = given.work
    work.mkdir(parents=True, exist_ok=True)

    def say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    try:
        world(work, say)
        name = f"ablation-{given.ablation}" if given.ablation else "small"
        config, plan = ARMS[given.ablation] if given.ablation else (CONFIG, PLAN)
        run = trained(work, config, plan, name, say)
        content = scored(run, held_out(work, say), say)
        if given.install:
            install(work, say)
        say(f"{name}: mAP {content['scores']['mean_ap']:.3f}, NDS {content['scores']['nd_score']:.3f}")
    except DetmetricsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
