"""Pages in the system's Chromium, for the tests that open them: a browser, and a tab that notes what it should not do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@cache
def why_no_page_can_be_opened() -> str:
    """Say what to install before the tests that open pages can run, or nothing where they can."""
    if find_spec("playwright") is None:
        return "playwright is not installed"
    if CHROMIUM is None:
        return "no chromium here: sudo apt-get install chromium"
    driver = [sys.executable, "-m", "playwright", "--version"]
    if subprocess.run(driver, capture_output=True, check=False).returncode:
        return "what drives the browser lacks a library of the system: see make browser"
    return ""


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """Debian's browser, never one that playwright would fetch; its ``browser_type`` starts others beside it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *arguments])
        yield browser
        browser.close()


class Tab:
    """An open page; what it says on the console, asks of the user or the network, or throws, is a fault."""

    def __init__(self, browser: Any, path: Path, *, ready: str, after: str = "", **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("console", lambda message: self.faults.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", self._asked)
        self.address = path.as_uri()
        self.page.goto(self.address + after)
        self.page.wait_for_selector(ready, timeout=30_000)

    def _asked(self, request: Any) -> None:
        if request.url.partition("#")[0] != self.address and not request.url.startswith(("data:", "blob:")):
            self.faults.append(f"request: {request.url}")

    def close(self) -> None:
        """Close it; it must be without fault."""
        self.context.close()
        assert self.faults == []
