"""What commands are given: truth, predictions, saved ledgers, rules."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from detmetrics.cli.terminal import Step
from detmetrics.errors import InputError

if TYPE_CHECKING:
    from detmetrics.boxes import Boxes
    from detmetrics.ledger import Ledger
    from detmetrics.protocol import Protocol


def absent_of(word: str) -> Any:
    """Give the word for what a class without truth counts, if it is one."""
    if word not in ("official", "omit"):
        raise InputError("--absent", expected="official or omit", got=word)
    return word


class Source(NamedTuple):
    """Where truth comes from and by which rules, as given on the command line."""

    data: Path | None
    version: str | None
    split: str | None
    scenes: list[str] | None
    truth: Path | None
    cache: bool
    protocol: str | None = None

    def read(self, step: Step) -> Boxes:
        """Read the truth, from the data set or from the file, whichever is given."""
        if (self.data is None) == (self.truth is None):
            raise InputError("give either --data DATAROOT or --truth FILE" + (", not both" if self.data else ""))
        from detmetrics import io

        if self.truth is not None:
            given = {"--version": self.version, "--split": self.split, "--scene": self.scenes}
            if stray := [option for option, value in given.items() if value]:
                raise InputError(f"{stray[0]} goes with --data, not with --truth")
            with step(f"reading {self.truth.name}") as advance:
                return io.load_truth(self.truth, progress=advance)
        assert self.data is not None
        with step("reading truth") as advance:
            return io.load_truth(
                self.data, version=self.version, split=self.split, scenes=self.scenes or None, cache=self.cache,
                progress=advance, notice=step.say,
            )  # fmt: skip

    def refuse(self, why: str = "not with a ledger: a ledger holds its truth", protocol: str | None = None) -> None:
        """Refuse what would be ignored."""
        given = {"--data": self.data, "--version": self.version, "--split": self.split, "--truth": self.truth}
        stray = [name for name, value in {**given, "--scene": self.scenes, "--protocol": protocol}.items() if value]
        if stray:
            raise InputError(f"{stray[0]} goes with results, {why}")


def ledger_of(path: Path, source: Source, step: Step) -> tuple[Ledger, float]:
    """Load a ledger where the file is one, else read and match; and the seconds that matching took."""
    (ledger,), seconds = ledgers_of([path], source, step)
    return ledger, seconds


def ledgers_of(paths: list[Path], source: Source, step: Step) -> tuple[list[Ledger], float]:
    """Load the files that are ledgers, match the others to one truth; and the seconds that matching took."""
    from detmetrics.io import ledgers

    saved = {
        path: saved_ledger(path, source.protocol, step) for path in dict.fromkeys(paths) if ledgers.is_ledger(path)
    }
    if len(saved) == len(set(paths)):
        source.refuse()
        return [saved[path] for path in paths], 0.0
    if source.protocol is None and saved:
        rules = next(iter(saved.values())).protocol
    else:
        rules = protocol_of(source.protocol or "nuscenes")
    truth = source.read(step)
    found, seconds = [], 0.0
    for path in paths:
        if path in saved:
            found.append(saved[path])
            continue
        pred = read_predictions(path, step)
        with step("matching"):
            from detmetrics.matching import match

            start = time.perf_counter()
            found.append(match(truth, pred, rules))
            seconds += time.perf_counter() - start
    return found, seconds


def saved_ledger(path: Path, protocol: str | None, step: Step) -> Ledger:
    """Load a ledger; refuse other rules than its own."""
    from detmetrics.io import ledgers

    rules = None if protocol is None else protocol_of(protocol)
    with step(f"reading {path.name}"):
        ledger = ledgers.load(path)
    if rules is not None and rules.digest != ledger.protocol.digest:
        raise InputError("--protocol", expected=f"that of the ledger {path} ({ledger.protocol.name})", got=protocol)
    return ledger


def read_predictions(path: Path, step: Step) -> Boxes:
    """Read predictions from a file of any kind."""
    from detmetrics import io

    with step(f"reading {path.name}") as advance:
        return io.load(path, progress=advance)


def protocol_of(name: str) -> Protocol:
    """Give the bundled protocol of a name, or the one in a TOML file."""
    from detmetrics.protocol import Protocol
    from detmetrics.protocols import PROTOCOLS, by_name

    if name.endswith(".toml"):
        return Protocol.load(name)
    if name not in PROTOCOLS and (Path(name).suffix or Path(name).exists()):
        raise InputError("--protocol", expected="a bundled protocol or a file that ends in .toml", got=name)
    return by_name(name)


def check_draws(n: int) -> None:
    """Refuse numbers of draws that give no interval."""
    if n < 0 or n == 1:
        raise InputError("--bootstrap", expected="0, or at least 2", got=n)
