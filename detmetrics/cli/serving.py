"""The commands of the service: serve, submit, upload-dataset, token."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from detmetrics.cli.options import (
    Cache,
    Data,
    Draws,
    Insecure,
    Rules,
    Scene,
    Split,
    Tls,
    TlsCa,
    Token,
    Truth,
    Unit,
    Version,
)
from detmetrics.cli.reading import Source, absent_of, check_draws, protocol_of
from detmetrics.cli.terminal import Step, show, steps
from detmetrics.cli.writing import print_scores, summary, writable, write_json
from detmetrics.errors import InputError

Server = Annotated[str, typer.Option("--server", metavar="HOST:PORT", help="Where the server is.")]
Store = Annotated[Path | None, typer.Option("--storage", metavar="DIR", help="The server's folder.")]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings in TOML; flags win.")]


def serve(
    storage: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of database and blobs; made.")] = None,
    address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Default: 127.0.0.1:50051.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its key, PEM.")] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Serve other machines without TLS and tokens, all the same.")
    ] = None,
    tokens: Annotated[
        bool | None, typer.Option("--tokens/--no-tokens", help="Whether calls need one; default: where any exists.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; default one a core.")] = None,
    metrics: Annotated[str | None, typer.Option("--metrics", metavar="HOST:PORT", help="Serve Prometheus.")] = None,
    config: Config = None,
    more: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting; may be repeated.")
    ] = None,
) -> None:
    """Serve evaluations over gRPC: truth stays here, people submit predictions.

    The settings are printed at the start, as TOML for --config; DETMETRICS_SERVER_… in the environment sets one, too.
    """
    _quiet_grpc()
    from detmetrics_server import main, settings

    flags: dict[str, Any] = {
        "storage": storage,
        "address": address,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "insecure": insecure,
    }
    flags |= {"tokens": tokens, "workers": workers, "metrics_address": metrics}
    texts = {name: str(value) if isinstance(value, Path) else value for name, value in flags.items()}
    for entry in more or ():
        name, mark, text = entry.partition("=")
        if not mark:
            raise InputError("--set", expected="NAME=VALUE", got=entry)
        texts[name] = text
    main.run(settings.load(texts, file=config))


def submit(
    results: Annotated[Path, typer.Argument(help="Predictions: nuScenes result JSON, gzipped or not, or Parquet.")],
    dataset: Annotated[str, typer.Option(help="Name of the data set on the server.")],
    server: Server = "localhost:50051",
    name: Annotated[str, typer.Option(help="What to call it.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="To find it by; may be repeated.")] = None,
    protocol: Rules = None,
    absent: Annotated[str, typer.Option(help="A class without truth: 'official' or 'omit'.")] = "official",
    n: Draws = 0,
    unit: Unit = "scene",
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    json_out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers.")] = None,
    token: Token = None,
    tls: Tls = False,
    tls_ca: TlsCa = None,
    insecure: Insecure = False,
) -> None:
    """Send predictions to a server and print the table."""
    outputs = writable(**{"--json": json_out})
    rule = absent_of(absent)
    check_draws(n)
    with connect(server, token, tls, tls_ca, insecure) as client, steps() as step, _stages(step) as progress:
        chosen = protocol_of(protocol) if protocol and protocol.endswith(".toml") else protocol or "nuscenes"
        run = client.evaluate(
            results, dataset=dataset, name=name, tags=tag or [], protocol=chosen, absent=rule, bootstrap=n, unit=unit,
            seed=seed, progress=progress,
        )  # fmt: skip
    if "--json" in outputs:
        write_json(outputs["--json"], {**summary(run.scores, run.intervals), "evaluation": run.name})
    print_scores(run.scores, run.intervals)
    show(run.name)


def upload_dataset(
    name: Annotated[str, typer.Argument(help="What the data set is to be called.")],
    data: Data = None,
    version: Version = None,
    split: Split = None,
    scene: Scene = None,
    truth: Truth = None,
    server: Server = "localhost:50051",
    token: Token = None,
    tls: Tls = False,
    tls_ca: TlsCa = None,
    insecure: Insecure = False,
    cache: Cache = True,
) -> None:
    """Store ground truth on a server; it never comes back."""
    with connect(server, token, tls, tls_ca, insecure) as client, steps() as step:
        boxes = Source(data, version, split, scene, truth, cache).read(step)
        with _stages(step) as progress:
            stored = client.upload_dataset(name, boxes, progress=progress)
    show(f"{stored.name}: {stored.n_boxes:,} boxes in {stored.n_frames:,} frames")


token = typer.Typer(name="token", help="Who may call a server.", no_args_is_help=True)


@token.command("add")
def token_add(
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    storage: Store = None,
    role: Annotated[str, typer.Option(help="reader, submitter or admin.")] = "submitter",
    days: Annotated[float | None, typer.Option(min=0, help="How long it is valid; default: for ever.")] = None,
    config: Config = None,
) -> None:
    """Make a token and print it, once: only its hash is kept."""
    expires_ns = None if days is None else time.time_ns() + int(days * 86_400e9)
    kind: Any = role
    typer.echo(_storage(storage, config, must_exist=False).add_token(name, kind, expires_ns))


@token.command("list")
def token_list(storage: Store = None, config: Config = None) -> None:
    """List the tokens, without what they are."""
    for row in _storage(storage, config).tokens():
        until = (
            "" if row["expires_ns"] is None else time.strftime(" until %F %T", time.localtime(row["expires_ns"] / 1e9))
        )
        typer.echo(f"{row['name']}  {row['role']}{until}")


@token.command("revoke")
def token_revoke(
    name: Annotated[str, typer.Argument(help="Whose it is.")], storage: Store = None, config: Config = None
) -> None:
    """Make a token invalid."""
    _storage(storage, config).delete_token(name)


def _quiet_grpc() -> None:
    """Keep gRPC's own log lines away: what went wrong is said once, by us."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def connect(server: str, token: str | None, tls: bool, tls_ca: Path | None, insecure: bool) -> Any:
    """Give a client of a server."""
    _quiet_grpc()
    from detmetrics_server.client import Client

    return Client(server, token=token, tls=tls_ca or tls, insecure=insecure, patience_s=10.0)


def _storage(folder: Path | None, config: Path | None, *, must_exist: bool = True) -> Any:
    from detmetrics_server import settings
    from detmetrics_server.storage import Storage

    told = settings.load({"storage": None if folder is None else str(folder)}, file=config)
    if must_exist and not Path(told.storage).is_dir():
        raise InputError(f"there is no folder {told.storage}")
    return Storage(Path(told.storage), url=told.database_url, exclusive=False)


@contextmanager
def _stages(step: Step) -> Iterator[Callable[[str, int, int], None]]:
    """Show the stages that a server tells of."""
    with ExitStack() as stack:
        shown: dict[str, Callable[[int, int], None]] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in shown:
                stack.close()
                shown[stage] = stack.enter_context(step(stage))
            shown[stage](done, total or 1)

        yield tell
