"""What ``make test`` says at its end: how many tests were skipped and why, each reason once."""

from __future__ import annotations

from collections import Counter
from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the reasons, most frequent first; a module that is skipped whole counts as one file."""
    tests: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for report in terminalreporter.getreports("skipped"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        is_test = getattr(report, "when", "collect") != "collect"
        (tests if is_test else files)[reason.removeprefix("Skipped: ")] += 1
    if not tests and not files:
        return
    terminalreporter.section("skipped, and why")
    for counted, what in ((tests, "tests"), (files, "files")):
        for reason, n in counted.most_common():
            terminalreporter.write_line(f"{n:5} {what if n > 1 else what[:-1]}: {reason}")
