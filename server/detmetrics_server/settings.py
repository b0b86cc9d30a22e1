"""Settings of a server: from flags, the environment (``DETMETRICS_SERVER_…``) and a TOML file, in this order."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from detmetrics.errors import InputError
from detmetrics.files import near_key, read_toml

PREFIX = "DETMETRICS_SERVER_"
MIB = 1 << 20


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a server runs.

    Attributes
    ----------
    storage : str
        Folder of database and blobs.
    address : str
        ``host:port``, or ``unix:PATH``. Anything but loopback needs TLS and tokens, or ``insecure``.
    tls_cert, tls_key : str
        Files in PEM; both or none.
    insecure : bool
        Serve other machines without TLS and without tokens, all the same.
    tokens : bool or None
        Whether calls need a token. Default: where other machines are served, or any token exists.
    database_url : str
        Default: SQLite in the folder.
    durable : bool
        Whether what was acknowledged survives a power cut, too.
    workers : int
        Worker processes; 0: one a core.
    max_waiting : int
        Evaluations that may wait before more are refused.
    max_calls : int
        Calls at a time, of all kinds; at most a quarter of them may watch the health, which needs no token.
    max_receiving : int
        Calls at a time that may still be sending. gRPC holds a message whole before anybody can look at its size, so
        what the front can be made to hold is ``max_receiving * max_message_bytes + max_pending_bytes``, 4.5 GiB by
        default and only where every caller sends the largest message at once; nothing is read of a call whose token is
        not valid.
    max_message_bytes, max_pending_bytes : int
        Largest message, and all messages at work together. Larger inputs are uploads, of which two chunks at a time are
        in memory and the rest is on the disk.
    max_upload_bytes, max_unpacked_bytes, max_spool_bytes : int
        Largest upload as sent and after decompression, and all uploads together, each until it is checked and kept.
    idle_s, upload_s, timeout_s, drain_s : float
        Longest wait for the next part of an upload; longest time of one upload; longest time of one evaluation; time
        that work at hand has to finish after SIGTERM.
    cache_bytes, worker_memory_bytes : int
        Of each worker: truth that it keeps, and the most address space it may have (0: no limit).
    metrics_address : str
        ``host:port`` for Prometheus; empty: none. Whoever reaches it reads it: names of methods, and numbers.
    """

    storage: str
    address: str = "127.0.0.1:50051"
    tls_cert: str = ""
    tls_key: str = ""
    insecure: bool = False
    tokens: bool | None = None
    database_url: str = ""
    durable: bool = True
    workers: int = 0
    max_waiting: int = 256
    max_calls: int = 1000
    max_receiving: int = 128
    max_message_bytes: int = 32 * MIB
    max_pending_bytes: int = 512 * MIB
    max_upload_bytes: int = 2048 * MIB
    max_unpacked_bytes: int = 4096 * MIB
    max_spool_bytes: int = 8192 * MIB
    idle_s: float = 60.0
    upload_s: float = 3600.0
    timeout_s: float = 900.0
    drain_s: float = 30.0
    cache_bytes: int = 1024 * MIB
    worker_memory_bytes: int = 16384 * MIB
    metrics_address: str = ""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        if not self.address.startswith("unix:"):
            _check_port(self.address, "address")
        if self.metrics_address:
            _check_port(self.metrics_address, "metrics_address")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise InputError("tls_cert and tls_key", expected="both given or none")
        if not self.is_loopback and not self.insecure:
            if not self.tls_cert:
                raise InputError(
                    f"address {self.address}",
                    expected="loopback, or served with --tls-cert and --tls-key",
                    hint="--insecure serves it all the same, to anyone",
                )
            if self.tokens is False:
                raise InputError(f"address {self.address}", expected="loopback, or served with tokens")
        for name in ("max_waiting", "max_calls", "max_receiving", "max_upload_bytes", "max_unpacked_bytes"):
            if getattr(self, name) < 1:
                raise InputError(name, expected="at least 1", got=getattr(self, name))
        if self.max_message_bytes < 5 * MIB:
            raise InputError("max_message_bytes", expected=f"at least {5 * MIB}, for chunks of 4 MiB")
        for name in ("workers", "drain_s", "cache_bytes", "worker_memory_bytes"):
            if not getattr(self, name) >= 0:
                raise InputError(name, expected="at least 0", got=getattr(self, name))
        for name in ("idle_s", "upload_s", "timeout_s"):
            if not getattr(self, name) > 0:
                raise InputError(name, expected="positive", got=getattr(self, name))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine is served."""
        if self.address.startswith("unix:"):
            return True
        host = self.address.rpartition(":")[0].strip("[]")
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    @property
    def n_workers(self) -> int:
        """Worker processes."""
        return self.workers or os.cpu_count() or 1

    def needs_token(self, has_tokens: bool) -> bool:
        """Whether calls need a token."""
        if self.tokens is not None:
            return self.tokens
        return has_tokens or not (self.is_loopback or self.insecure)

    def to_text(self) -> str:
        """Give one setting a line, as TOML; who logs in to a database, and how, is left out of its URL."""
        values = msgspec.to_builtins(self)
        scheme, mark, rest = self.database_url.partition("://")
        if mark:
            front, has_more, more = rest.partition("?")
            place = front.rpartition("@")
            shown = f"{'…@' if place[1] else ''}{place[2]}{'?…' if has_more else ''}"
            values["database_url"] = f"{scheme}://{'…' if '@' in more else shown}"  # a password may have a ?
        return "\n".join(_to_toml(name, value) for name, value in values.items())


def _check_port(address: str, name: str) -> None:
    port = address.rpartition(":")[2]
    if not (":" in address and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise InputError(name, expected="host:port, the port from 0 to 65535", got=address)


def _to_toml(name: str, value: Any) -> str:
    if value is None:
        return f"# {name}: not set"
    if isinstance(value, str):
        return f"{name} = {json.dumps(value, ensure_ascii=False)}"
    if not isinstance(value, int) or isinstance(value, bool):
        return f"{name} = {value!r}".lower()
    size = f"  # {value / MIB:,.0f} MiB" if name.endswith("_bytes") and value >= MIB else ""
    return f"{name} = {value:_}{size}"


def load(
    flags: Mapping[str, object], *, file: Path | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Put settings together.

    Parameters
    ----------
    flags : mapping
        What the command line says; None where it does not.
    file : path, optional
        TOML.
    environment : mapping, optional
        Default: the process's.

    Raises
    ------
    InputError
        Naming the setting.
    """
    values: dict[str, Any] = {} if file is None else read_toml(file)
    for name, text in (os.environ if environment is None else environment).items():
        if name.startswith(PREFIX):
            values[name.removeprefix(PREFIX).lower()] = text
    values |= {name: value for name, value in flags.items() if value is not None}
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        cause = error.__cause__
        if isinstance(cause, InputError):
            raise cause from None
        if "storage" not in values:
            raise InputError("--storage DIR", expected="given: the folder of database and blobs") from None
        raise InputError(f"settings: {error}", hint=near_key(error, Settings)) from None
