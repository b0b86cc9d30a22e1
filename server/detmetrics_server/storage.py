"""Storage: what the server knows, in a database, and the blobs it points to.

A blob is written before the row that names it and deleted after the row has gone, so a row never lacks its blobs; what
a killed server leaves without a row is swept at the next start. Only SQL that SQLite and PostgreSQL share.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from detmetrics.errors import InputError
from detmetrics.extras import needs
from detmetrics_server.blobs import Blobs, Spooled
from detmetrics_server.errors import DrainingError, ExistsError, FullError, NotFoundError, StateError

with needs("server"):
    import sqlalchemy as sa

    from detmetrics_server.messages import RUNNING  # which alone would ask for the extra client

Role = Literal["reader", "submitter", "admin"]
ROLES: tuple[Role, ...] = ("reader", "submitter", "admin")

META = sa.MetaData()
DATASETS = sa.Table(
    "datasets",
    META,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False, index=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("n_frames", sa.BigInteger, nullable=False),
    sa.Column("n_boxes", sa.BigInteger, nullable=False),
    sa.Column("frame_columns", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
)
EVALUATIONS = sa.Table(
    "evaluations",
    META,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(32), nullable=False, unique=True),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("request_id", sa.String(64)),
    sa.Column("display_name", sa.String(200), nullable=False),
    sa.Column("dataset", sa.String(64), sa.ForeignKey("datasets.id"), nullable=False, index=True),
    sa.Column("protocol_name", sa.String(200), nullable=False, index=True),
    sa.Column("state", sa.Integer, nullable=False, index=True),
    sa.Column("created_ns", sa.BigInteger, nullable=False, index=True),
    sa.Column("ended_ns", sa.BigInteger),
    sa.Column("sha256", sa.String(64), nullable=False, index=True),
    sa.Column("report", sa.String(64), index=True),
    sa.Column("error", sa.Text, nullable=False, default=""),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("job", sa.Text, nullable=False),
    sa.UniqueConstraint("owner", "request_id"),
)
TAGS = sa.Table(
    "tags",
    META,
    sa.Column("seq", sa.Integer, sa.ForeignKey("evaluations.seq", ondelete="CASCADE"), primary_key=True),
    sa.Column("tag", sa.String(63), primary_key=True, index=True),
)
METRICS = sa.Table(
    "metrics",
    META,
    sa.Column("seq", sa.Integer, sa.ForeignKey("evaluations.seq", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("value", sa.Float(53), nullable=False),
    sa.Index("metrics_by_value", "name", "value"),
)
TOKENS = sa.Table(
    "tokens",
    META,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
    sa.Column("expires_ns", sa.BigInteger),
)
_REVOKED = -1
_IS_REVOKED = sa.func.coalesce(TOKENS.c.expires_ns, 0) == _REVOKED


class Query(NamedTuple):
    """What to list, and in which order."""

    dataset: str = ""
    protocol: str = ""
    tag: str = ""
    from_ns: int | None = None
    until_ns: int | None = None
    metric: str = ""
    descending: bool = True
    display_name: str = ""


class Page(NamedTuple):
    """A page of rows, and key and seq of its last one where more follow."""

    rows: list[dict[str, Any]]
    next: tuple[float, int] | None


class Storage:
    """Data sets, evaluations and tokens of one folder, which one process at a time may hold.

    Parameters
    ----------
    folder : path
        Made where missing.
    url : str, optional
        Of the database; default: SQLite in the folder.
    durable : bool
        Whether what was acknowledged survives a power cut, not only a killed process.
    exclusive : bool
        Whether to hold the folder; without, only tokens may be changed.

    Raises
    ------
    InputError
        Where another server holds the folder, or it cannot be made.
    """

    def __init__(self, folder: Path, *, url: str = "", durable: bool = True, exclusive: bool = True) -> None:
        self._lock, self._held, self._is_closed = threading.RLock(), -1, False
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # ground truth is for nobody else
            if exclusive:
                self._held = _hold(folder / "lock")
            self.blobs = Blobs(folder, durable=durable)
        except OSError as error:
            raise InputError(f"cannot use {folder} as storage: {error.strerror or error}") from None
        try:
            self._connect(url or sa.URL.create("sqlite", database=str(folder / "detmetrics.db")), durable)
        except BaseException:
            self._let_go()
            raise

    def _connect(self, url: str | sa.URL, durable: bool) -> None:
        self.engine = _engine(url)
        if self.engine.dialect.name == "sqlite":
            synchronous = "FULL" if durable else "NORMAL"
            sa.event.listen(self.engine, "connect", lambda connection, _: _prepare_sqlite(connection, synchronous))
        try:
            META.create_all(self.engine)
        except sa.exc.DBAPIError as error:
            raise InputError(f"cannot use the database: {str(error.orig).splitlines()[0]}") from None

    def close(self) -> None:
        """Let go of the folder, once nothing is being kept; what comes later is refused, since it may be another's."""
        with self._lock:
            self._is_closed = True
            self.engine.dispose()
            self._let_go()

    def _let_go(self) -> None:
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        """One transaction; the disk being full is FullError."""
        with self._lock:
            self._check_open()
            try:
                with self.engine.begin() as connection:
                    yield connection
            except sa.exc.OperationalError as error:
                if any(sign in str(error.orig) for sign in ("full", "disk I/O", "No space left")):
                    raise FullError("the server's disk is full: nothing was stored") from error
                raise

    def _check_open(self) -> None:
        if self._is_closed:
            raise DrainingError("the server stopped; try again later")

    def sweep(self) -> int:
        """Delete blobs and uploads that no row names; give their number. Only while nothing else runs."""
        with self._begin() as c:
            named = {row[0] for row in c.execute(sa.select(DATASETS.c.sha256))}
            for column in (EVALUATIONS.c.sha256, EVALUATIONS.c.report):
                named |= {row[0] for row in c.execute(sa.select(column))}
        orphans = [sha256 for sha256 in self.blobs.listed() if sha256 not in named]
        for sha256 in orphans:
            self.blobs.delete(sha256)
        return len(orphans) + self.blobs.clear_spool()

    # blobs

    @contextmanager
    def keeping(self) -> Iterator[Callable[[bytes | Spooled], str]]:
        """Hold off deletion of blobs from before one is kept until its row is there.

        Give what keeps bytes or an upload, and gives their SHA-256; where no row comes of it they go again.
        """
        kept: list[str] = []

        def keep(what: bytes | Spooled) -> str:
            kept.append(self.blobs.put(what) if isinstance(what, bytes) else self.blobs.keep(what))
            return kept[-1]

        with self._lock:
            self._check_open()
            try:
                yield keep
            except BaseException:
                with suppress(Exception):  # the first error is the one to tell
                    self._release(*kept)
                raise

    def _release(self, *hashes: str | None) -> None:
        """Delete blobs that no row names any more."""
        with self._begin() as c:
            for sha256 in {entry for entry in hashes if entry}:
                uses = [
                    sa.select(sa.literal(1)).select_from(table).where(column == sha256)
                    for table, column in (
                        (DATASETS, DATASETS.c.sha256),
                        (EVALUATIONS, EVALUATIONS.c.sha256),
                        (EVALUATIONS, EVALUATIONS.c.report),
                    )
                ]
                if c.execute(sa.union_all(*uses).limit(1)).first() is None:
                    self.blobs.delete(sha256)

    # data sets

    def add_dataset(self, row: dict[str, Any], *, same_is_fine: bool) -> dict[str, Any]:
        """Add a data set whose blob is kept already.

        Raises
        ------
        ExistsError
            Where the name is taken.
        """
        with self._begin() as c:
            found = c.execute(sa.select(DATASETS).where(DATASETS.c.id == row["id"])).mappings().first()
            if found is None:
                row = {"created_ns": time.time_ns(), **row, "frame_columns": json.dumps(row["frame_columns"])}
                c.execute(DATASETS.insert().values(row))
                return row
        if same_is_fine and found["sha256"] == row["sha256"]:
            return dict(found)
        self._release(row["sha256"])
        raise ExistsError(f"there is a data set {row['id']!r} already")

    def dataset(self, dataset_id: str) -> dict[str, Any]:
        """Give a data set.

        Raises
        ------
        NotFoundError
        """
        with self._begin() as c:
            found = c.execute(sa.select(DATASETS).where(DATASETS.c.id == dataset_id)).mappings().first()
        if found is None:
            raise NotFoundError(f"there is no data set {dataset_id!r}")
        return dict(found)

    def datasets(self, after: str, limit: int) -> list[dict[str, Any]]:
        """List data sets by name, from the first one after a name."""
        query = sa.select(DATASETS).where(DATASETS.c.id > after).order_by(DATASETS.c.id).limit(limit)
        with self._begin() as c:
            return [dict(row) for row in c.execute(query).mappings()]

    def delete_dataset(self, dataset_id: str) -> None:
        """Delete a data set and its blob.

        Raises
        ------
        NotFoundError
        StateError
            Where evaluations refer to it.
        """
        with self._lock:
            row = self.dataset(dataset_id)
            with self._begin() as c:
                query = sa.select(sa.func.count()).where(EVALUATIONS.c.dataset == dataset_id)
                n = c.execute(query).scalar_one()
                if n:
                    raise StateError(f"{n} evaluations refer to the data set {dataset_id!r}: delete them first")
                c.execute(DATASETS.delete().where(DATASETS.c.id == dataset_id))
            self._release(row["sha256"])

    # evaluations

    def add_evaluation(
        self, row: dict[str, Any], tags: Sequence[str], metrics: dict[str, float]
    ) -> tuple[dict[str, Any], bool]:
        """Add an evaluation whose blobs are kept; give it and whether it is new.

        The same owner and request_id a second time gives the first one back.

        Raises
        ------
        NotFoundError
            Where its data set has gone in the meantime.
        """
        with self._lock:
            found = self.by_request(row["owner"], row.get("request_id"))
            if found is not None:
                self._release(row["sha256"], row.get("report"))
                return found, False
            try:
                with self._begin() as c:
                    result = c.execute(EVALUATIONS.insert().values({"error": "", "attempts": 0, **row}))
                    seq = result.inserted_primary_key[0]  # type: ignore[index]
                    if tags:
                        c.execute(TAGS.insert(), [{"seq": seq, "tag": tag} for tag in tags])
                    _add_metrics(c, seq, metrics)
            except sa.exc.IntegrityError:
                self._release(row["sha256"], row.get("report"))
                raise NotFoundError(f"there is no data set {row['dataset']!r} any more") from None
            return self.evaluation(row["id"]), True

    def end(
        self, evaluation_id: str, state: int, *, report: str | None = None, error: str = "", metrics: dict[str, float]
    ) -> dict[str, Any]:
        """End a running evaluation; one that has ended otherwise in the meantime stays as it is."""
        with self._lock:
            with self._begin() as c:
                change = {"state": state, "ended_ns": time.time_ns(), "report": report, "error": error}
                is_running = (EVALUATIONS.c.id == evaluation_id) & (EVALUATIONS.c.state == RUNNING)
                seq = c.execute(sa.select(EVALUATIONS.c.seq).where(is_running)).scalar()
                if seq is not None:
                    c.execute(EVALUATIONS.update().where(is_running).values(change))
                    _add_metrics(c, seq, metrics)
            if seq is None:
                self._release(report)
            return self.evaluation(evaluation_id)

    def evaluation(self, evaluation_id: str) -> dict[str, Any]:
        """Give an evaluation with tags.

        Raises
        ------
        NotFoundError
        """
        with self._begin() as c:
            found = c.execute(sa.select(EVALUATIONS).where(EVALUATIONS.c.id == evaluation_id)).mappings().first()
            if found is None:
                raise NotFoundError(f"there is no evaluation {evaluation_id!r}")
            return _with_parts(c, [dict(found)])[0]

    def by_request(self, owner: str, request_id: str | None) -> dict[str, Any] | None:
        """Give the evaluation that a request made before, or None."""
        if not request_id:
            return None
        query = sa.select(EVALUATIONS).where((EVALUATIONS.c.owner == owner) & (EVALUATIONS.c.request_id == request_id))
        with self._begin() as c:
            found = c.execute(query).mappings().first()
            return None if found is None else _with_parts(c, [dict(found)])[0]

    def evaluations(self, query: Query, limit: int, after: tuple[float, int] | None) -> Page:
        """List evaluations; ``after`` is what the page before gave.

        What is deleted or added between two pages moves no other row to another page.
        """
        e = EVALUATIONS.c
        key: Any = METRICS.c.value if query.metric else e.created_ns
        select = sa.select(EVALUATIONS, key.label("key"))
        if query.metric:
            select = select.join(METRICS, (METRICS.c.seq == e.seq) & (METRICS.c.name == query.metric))
        if query.tag:
            select = select.join(TAGS, (TAGS.c.seq == e.seq) & (TAGS.c.tag == query.tag))
        wanted = ((e.dataset, query.dataset), (e.protocol_name, query.protocol), (e.display_name, query.display_name))
        for column, value in wanted:
            if value:
                select = select.where(column == value)
        if query.from_ns is not None:
            select = select.where(e.created_ns >= query.from_ns)
        if query.until_ns is not None:
            select = select.where(e.created_ns < query.until_ns)
        order = (key.desc(), e.seq.desc()) if query.descending else (key.asc(), e.seq.asc())
        if after is not None:
            further, on = (key < after[0], e.seq < after[1]) if query.descending else (key > after[0], e.seq > after[1])
            select = select.where(further | ((key == after[0]) & on))
        with self._begin() as c:
            rows = [dict(row) for row in c.execute(select.order_by(*order).limit(limit + 1)).mappings()]
            keys = [row.pop("key") for row in rows]
            is_last = len(rows) <= limit
            return Page(_with_parts(c, rows[:limit]), None if is_last else (keys[limit - 1], rows[limit - 1]["seq"]))

    def metrics(self) -> list[str]:
        """Name all metrics that any evaluation has."""
        with self._begin() as c:
            return list(c.execute(sa.select(METRICS.c.name).distinct().order_by(METRICS.c.name)).scalars())

    def left(self) -> list[dict[str, Any]]:
        """Give the evaluations that a stopped or killed server left running."""
        with self._begin() as c:
            select = sa.select(EVALUATIONS).where(EVALUATIONS.c.state == RUNNING)
            return [dict(row) for row in c.execute(select.order_by(EVALUATIONS.c.seq)).mappings()]

    def set_attempts(self, evaluation_id: str, attempts: int) -> None:
        """Write down the attempts at an evaluation, as long as it runs."""
        with self._begin() as c:
            is_running = (EVALUATIONS.c.id == evaluation_id) & (EVALUATIONS.c.state == RUNNING)
            c.execute(EVALUATIONS.update().where(is_running).values(attempts=attempts))

    def delete_evaluation(self, evaluation_id: str) -> None:
        """Delete an evaluation and its blobs.

        Raises
        ------
        NotFoundError
        StateError
            While it is running.
        """
        with self._lock:
            row = self.evaluation(evaluation_id)
            if row["state"] == RUNNING:
                raise StateError("the evaluation is running: cancel it first")
            with self._begin() as c:
                for table in (TAGS, METRICS, EVALUATIONS):
                    c.execute(table.delete().where(table.c.seq == row["seq"]))
            self._release(row["sha256"], row["report"])

    # tokens

    def add_token(self, name: str, role: Role, expires_ns: int | None = None) -> str:
        """Make a token and give it, once: only its hash is kept.

        Raises
        ------
        InputError
            On an unknown role or a name that is taken.
        """
        if role not in ROLES:
            raise InputError("role", expected=f"one of {ROLES}", got=role)
        if not name.isprintable() or not 0 < len(name) <= 200 or name == "anonymous":
            raise InputError("name of a token", expected="1 to 200 characters that print, not 'anonymous'", got=name)
        token = f"dm_{secrets.token_urlsafe(32)}"  # 256 random bits: nothing to guess, so one SHA-256 is enough
        row = {"name": name, "sha256": _hashed(token), "role": role, "created_ns": time.time_ns()}
        try:
            with self._begin() as c:
                c.execute(TOKENS.delete().where((TOKENS.c.name == name) & _IS_REVOKED))
                c.execute(TOKENS.insert().values(**row, expires_ns=expires_ns))
        except sa.exc.IntegrityError:
            raise InputError(f"there is a token {name!r} already") from None
        return token

    def token(self, token: str) -> tuple[str, Role] | None:
        """Name and role of a token that is valid now, or None."""
        query = sa.select(TOKENS).where(TOKENS.c.sha256 == _hashed(token))
        with self._begin() as c:
            row = c.execute(query).mappings().first()
        if row is None or (row["expires_ns"] is not None and row["expires_ns"] <= time.time_ns()):
            return None
        return row["name"], row["role"]

    def has_tokens(self) -> bool:
        """Whether any token was ever made: revoking the last one lets nobody in."""
        with self._begin() as c:
            return c.execute(sa.select(TOKENS.c.name).limit(1)).first() is not None

    def tokens(self) -> list[dict[str, Any]]:
        """List tokens, without what they are."""
        with self._begin() as c:
            query = sa.select(TOKENS).where(~_IS_REVOKED).order_by(TOKENS.c.name)
            return [dict(row) for row in c.execute(query).mappings()]

    def delete_token(self, name: str) -> None:
        """Revoke a token.

        Raises
        ------
        InputError
            Where there is none of the name.
        """
        with self._begin() as c:
            change = TOKENS.update().where((TOKENS.c.name == name) & ~_IS_REVOKED)
            if not c.execute(change.values(sha256=f"revoked {secrets.token_hex(16)}", expires_ns=_REVOKED)).rowcount:
                raise InputError(f"there is no token {name!r}")


def _engine(url: str | sa.URL) -> sa.Engine:
    try:
        return sa.create_engine(url, pool_pre_ping=True)  # a database may have ended and come back
    except sa.exc.ArgumentError:
        raise InputError("database_url", expected="a URL as SQLAlchemy reads it, e.g. postgresql+psycopg://…") from None
    except ModuleNotFoundError as error:
        raise InputError(f"database_url: this database needs {error.name}: pip install it") from None


def _add_metrics(c: sa.Connection, seq: int, metrics: dict[str, float]) -> None:
    rows = [{"seq": seq, "name": name, "value": value} for name, value in metrics.items() if value == value]
    if rows:
        c.execute(METRICS.insert(), rows)


def _with_parts(c: sa.Connection, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add tags and metrics to rows of evaluations."""
    by_seq = {row["seq"]: row for row in rows}
    for row in rows:
        row["tags"], row["metrics"] = [], {}
    if rows:
        for seq, tag in c.execute(sa.select(TAGS).where(TAGS.c.seq.in_(by_seq)).order_by(TAGS.c.tag)):
            by_seq[seq]["tags"].append(tag)
        for seq, name, value in c.execute(sa.select(METRICS).where(METRICS.c.seq.in_(by_seq))):
            by_seq[seq]["metrics"][name] = value
    return rows


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _prepare_sqlite(connection: Any, synchronous: str) -> None:
    for pragma in ("journal_mode=WAL", f"synchronous={synchronous}", "foreign_keys=ON", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _hold(path: Path) -> int:
    """Hold a lock that goes with the process."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(
            f"another server holds {path.parent}", hint="stop it, or name another folder: --storage DIR"
        ) from None
    return descriptor
