"""What each extra costs: ``python tests/bench/extras.py`` builds the wheel and installs it with each extra alone, from the
index that pip is set to, into an empty environment; prints a Markdown table.

Size is what the environment holds over that of an empty one, before anything is compiled to disk; import time is the median
of five fresh processes, after one that is not counted, of what the extra is for.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import environments
from detmetrics.extras import EXTRAS

#: What is imported first, with each extra.
FIRST = {
    environments.CORE: "detmetrics; detmetrics.evaluate",
    "parquet": "pyarrow.parquet, detmetrics.io.parquet",
    "report": "jinja2, detmetrics.reporting.page",
    "detector": "detmetrics.detector.predicting",
    "client": "detmetrics_server.client",
    "server": "detmetrics_server.main",
    "viz": "open3d, detmetrics_viz.pictures",
}


def megabytes(folder: Path) -> float:
    """Size of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


def seconds(made: environments.Environment, code: str) -> float:
    """Median time of a fresh process in which only this happens, the interpreter included."""
    taken = []
    for _ in range(6):
        start = time.perf_counter()
        made.run(code)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def main() -> None:
    """Measure and print."""
    print(
        "| extra | packages | MB | pip install, s | what is imported | its time, s | `import detmetrics`, s | `detmetrics --help`, s |"
    )
    print("| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (wheel,) = environments.build(environments.ROOT, folder / "dist", "--wheel")
        for extra in (environments.CORE, *EXTRAS):
            start = time.perf_counter()
            made = environments.installed(folder / extra, wheel, extra, [environments.ROOT / "constraints.txt"])
            took = time.perf_counter() - start
            packages = len(list(made.site.glob("*.dist-info"))) - 2  # pip and setuptools
            size = megabytes(made.site) - megabytes(made.site / "pip") - megabytes(made.site / "setuptools")
            plain, first = seconds(made, "import detmetrics"), seconds(made, f"import {FIRST[extra]}")
            shown = seconds(made, "import sys; sys.argv[1:] = ['--help']; from detmetrics.cli import main; main()")
            told = f"`{FIRST[extra]}`"
            print(
                f"| {extra} | {packages} | {size:.0f} | {took:.0f} | {told} | {first:.2f} | {plain:.2f} | {shown:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
