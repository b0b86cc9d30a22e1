"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Results = Annotated[Path, typer.Argument(help="Predictions, or a ledger saved by evaluate --ledger.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DATAROOT", help="Folder of a data set: nuScenes, TruckScenes, Argoverse 2."),
]
Version = Annotated[
    str | None, typer.Option("--version", metavar="V", help="Version of the tables; default: the only v1.*-* there.")
]
Split = Annotated[
    str | None, typer.Option("--split", metavar="S", help="Predefined split, or one of the data set's splits.json.")
]
Scene = Annotated[list[str] | None, typer.Option("--scene", metavar="NAME", help="Only this scene; may be repeated.")]
Truth = Annotated[
    Path | None, typer.Option("--truth", metavar="FILE", help="Truth in Parquet or feather instead of --data.")
]
Rules = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        metavar="NAME|FILE",
        help="A bundled protocol, or your own as a TOML file; default nuscenes, or the ledger's own.",
        show_default=False,
    ),
]
Slicings = Annotated[
    list[str] | None,
    typer.Option(
        "--by", metavar="ATTRIBUTE", help="Also slice: range=0,20,40, weather, scene+class, …; may be repeated."
    ),
]
Draws = Annotated[
    int, typer.Option("--bootstrap", metavar="N", help="Intervals from N draws of scenes, e.g. 1000; 0: none.")
]
Unit = Annotated[str, typer.Option(help="What is drawn as one: scene, frame, or another column of the frames.")]
Token = Annotated[
    str | None, typer.Option("--token", envvar="DETMETRICS_TOKEN", help="What the server's admin gave you.")
]
Tls = Annotated[bool, typer.Option("--tls", help="Speak TLS to the server.")]
TlsCa = Annotated[
    Path | None, typer.Option("--tls-ca", metavar="FILE", help="Certificates to trust, PEM; means --tls.")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Another machine without TLS, all the same.")]
Cache = Annotated[bool, typer.Option("--cache/--no-cache", help="Keep truth read from tables in the cache folder.")]
