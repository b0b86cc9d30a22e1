"""What is not installed with the core: which extra has it, and the one sentence that says so where it is missing.

>>> with needs("detector"):
...     import torch
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from detmetrics.errors import InputError

#: What each extra of pyproject.toml has: the modules that Python imports, and the packages that they come from.
EXTRAS = {
    "parquet": {"pyarrow": "pyarrow"},
    "report": {"jinja2": "jinja2"},
    "client": {"grpc": "grpcio", "google.protobuf": "protobuf", "grpc_status": "grpcio-status"},
    "server": {
        "sqlalchemy": "sqlalchemy",
        "grpc_health": "grpcio-health-checking",
        "grpc_reflection": "grpcio-reflection",
        "prometheus_client": "prometheus-client",
    },
    "viz": {"open3d": "open3d", "PIL": "pillow", "imageio_ffmpeg": "imageio-ffmpeg"},
    "detector": {"torch": "torch", "safetensors": "safetensors", "matplotlib": "matplotlib", "jinja2": "jinja2"},
}
_OURS = ("detmetrics", "detmetrics_server", "detmetrics_viz")


class MissingExtraError(InputError, ImportError):
    """Something needs an extra that is not installed.

    Parameters
    ----------
    extra : str
        Its name in pyproject.toml.
    package : str
        What could not be imported, by its name for pip.
    what : str
        What needs it.
    """

    def __init__(self, extra: str, package: str, what: str = "this") -> None:
        super().__init__(f"{what} needs {package}, which is not installed: pip install 'detmetrics[{extra}]'")
        self.extra, self.package = extra, package


@contextmanager
def needs(extra: str, what: str = "this") -> Iterator[None]:
    """Turn an import that fails in the block into one clear error, however deep it fails.

    Parameters
    ----------
    extra : str
        One of :data:`EXTRAS`.
    what : str
        Begins the sentence.

    Raises
    ------
    MissingExtraError
        Where a package is missing.
    """
    try:
        yield
    except MissingExtraError as error:  # of a module that the block imports: what is wanted is known here
        raise MissingExtraError(extra, error.package, what) from None
    except ModuleNotFoundError as error:
        package = _package(error)
        if package is None:
            raise
        raise MissingExtraError(extra, package, what) from None


def require(extra: str, *packages: str, what: str = "this") -> None:
    """Say what is missing before work begins that would fail for it at its end; imports nothing large.

    Parameters
    ----------
    extra : str
        One of :data:`EXTRAS`.
    *packages : str
        Only these of it; default: all.
    what : str
        Begins the sentence.

    Raises
    ------
    MissingExtraError
        Where a package is missing.
    """
    for module, package in EXTRAS[extra].items():
        if packages and package not in packages:
            continue
        try:
            is_there = find_spec(module) is not None
        except ModuleNotFoundError:  # not even the package above it
            is_there = False
        if not is_there:
            raise MissingExtraError(extra, package, what)


def missing(error: ModuleNotFoundError) -> MissingExtraError | None:
    """Give the clear error for an import that failed, or None where no extra has that module."""
    package = _package(error)
    found = [extra for extra, packages in EXTRAS.items() if package in packages.values()]
    return MissingExtraError(found[0], str(package)) if found else None


def _package(error: ModuleNotFoundError) -> str | None:
    """Name the package that was not found, or None where it is a part of ours."""
    name = error.name or ""
    if not name or name.partition(".")[0] in _OURS:
        return None
    for packages in EXTRAS.values():
        for module, package in packages.items():
            if f"{name}.".startswith(f"{module}.") or f"{module}.".startswith(f"{name}."):
                return package
    return name.partition(".")[0]
