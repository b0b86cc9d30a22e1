"""Checks of what requests say: names, tags, pages. Every refusal is an InputError that names the field."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from detmetrics.errors import InputError, listing, unknown_name
from detmetrics.protocol import Protocol
from detmetrics.protocols import PROTOCOLS, by_name
from detmetrics.scoring import metric_names
from detmetrics.slicing import parse, text_of
from detmetrics_server import convert
from detmetrics_server.jobs import Draws, asked
from detmetrics_server.messages import COLUMNS, GZIP, NUSCENES_JSON, PARQUET, PLAIN
from detmetrics_server.storage import Query

_DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_EVALUATION = re.compile(r"[0-9a-f]{32}")
_REQUEST = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ORDER = re.compile(r"([^\s,\x00-\x1f][^,\x00-\x1f]{0,199}?)( desc| asc)?")
MAX_PAGE, DEFAULT_PAGE = 1000, 50
MAX_TAGS, MAX_TAG, MAX_TEXT = 16, 63, 200
MAX_NS = 2**63 - 1
MAX_TOKEN = 400
MAX_BY = 8


def dataset_id(text: str, field: str) -> str:
    """Check the id of a data set to be."""
    if not _DATASET.fullmatch(text):
        raise InputError(field, expected="1 to 63 letters, digits, _, - and ., the first a letter or digit", got=text)
    return text


def dataset(name: str, field: str = "dataset") -> str:
    """Give the id in ``datasets/{id}``."""
    collection, _, text = name.partition("/")
    if collection != "datasets" or not _DATASET.fullmatch(text):
        raise InputError(field, expected="of the form datasets/{id}", got=name)
    return text


def evaluation(name: str, field: str = "name") -> str:
    """Give the id in ``evaluations/{id}``."""
    collection, _, text = name.partition("/")
    if collection != "evaluations" or not _EVALUATION.fullmatch(text):
        raise InputError(field, expected="of the form evaluations/{id}", got=name)
    return text


def request_id(text: str) -> str | None:
    """Check a request id; none is None."""
    if text and not _REQUEST.fullmatch(text):
        raise InputError("request_id", expected="1 to 64 letters, digits, - and _", got=text)
    return text or None


def text(value: str, field: str, longest: int = MAX_TEXT) -> str:
    """Check a text that people read."""
    if len(value) > longest:
        raise InputError(field, expected=f"at most {longest} characters", got=len(value))
    if any(ord(character) < 32 for character in value):
        raise InputError(field, expected="without control characters", got=value)
    return value


def tags(values: Any) -> list[str]:
    """Check tags; give them sorted and once each."""
    if len(values) > MAX_TAGS:
        raise InputError("tags", expected=f"at most {MAX_TAGS}", got=len(values))
    for i, value in enumerate(values):
        if not value:
            raise InputError(f"tags[{i}]", expected="1 to 63 characters", got=value)
        text(value, f"tags[{i}]", MAX_TAG)
    return sorted(set(values))


def protocol(rules: Protocol) -> Protocol:
    """Check the names of rules: they are kept, listed, and sorted by."""
    text(rules.name, "protocol.name")
    for name in metric_names(rules):
        text(name, "name of a metric of the protocol")
    return rules


def absent(value: int) -> int:
    """Check what a class without truth counts."""
    if value not in convert.ABSENT:
        raise InputError("absent", expected="ABSENT_OFFICIAL or ABSENT_OMIT", got=value)
    return value


def payload(format_: int, compression: int, *, is_truth: bool) -> None:
    """Check what an upload is."""
    known = (COLUMNS, PARQUET) if is_truth else (COLUMNS, PARQUET, NUSCENES_JSON)
    if format_ not in known:
        names = "PAYLOAD_FORMAT_COLUMNS or _PARQUET" if is_truth else "a PAYLOAD_FORMAT"
        raise InputError("header.format", expected=names, got=format_)
    if compression not in (PLAIN, GZIP):
        raise InputError("header.compression", expected="none or COMPRESSION_GZIP", got=compression)


def draws(request: Any) -> Draws | None:
    """Give the draws that a request asks intervals from, or None."""
    if not request.HasField("bootstrap"):
        return None
    text(request.bootstrap.unit, "bootstrap.unit")
    return Draws(**asked(request.bootstrap)).checked("bootstrap.")


def unit(name: str, columns: Any, source: str) -> None:
    """Check what is to be drawn as one, as far as the columns of the frames tell."""
    if name != "frame" and name not in columns:
        told = f"'frame' or a column of the frames of {source}, which has {listing(columns) or 'none'}"
        raise InputError(f"unit {name!r} to draw", expected=told)


def by(values: Any) -> tuple[str, ...]:
    """Check what to slice by; give it once each."""
    if len(values) > MAX_BY:
        raise InputError("by", expected=f"at most {MAX_BY}", got=len(values))
    return tuple(dict.fromkeys(text_of(parse(text(value, f"by[{i}]"))) for i, value in enumerate(values)))


def page_size(value: int) -> int:
    """Give the size of a page."""
    if value < 0:
        raise InputError("page_size", expected="zero or more", got=value)
    return min(value or DEFAULT_PAGE, MAX_PAGE)


def query(request: Any) -> Query:
    """Give what a ListEvaluationsRequest asks for."""
    metric, descending = "", True
    if request.order_by:
        match = _ORDER.fullmatch(request.order_by)
        if match is None:
            raise InputError("order_by", expected="create_time or a metric, and desc", got=request.order_by)
        metric, descending = match[1], match[2] == " desc"
    times: dict[str, int | None] = {}
    for field in ("create_time_from", "create_time_until"):
        times[field] = None
        if request.HasField(field):
            stamp = getattr(request, field)
            if not 0 <= stamp.nanos < 10**9:
                raise InputError(f"{field}.nanos", expected="from 0 to 999,999,999", got=stamp.nanos)
            times[field] = max(min(stamp.seconds * 10**9 + stamp.nanos, MAX_NS), -MAX_NS)
    protocol = text(request.protocol, "protocol")
    return Query(
        dataset=dataset(request.dataset) if request.dataset else "",
        protocol=by_name(protocol).name if protocol in PROTOCOLS else protocol,
        tag=text(request.tag, "tag", MAX_TAG),
        from_ns=times["create_time_from"],
        until_ns=times["create_time_until"],
        metric="" if metric == "create_time" else metric,
        descending=descending,
        display_name=text(request.display_name, "display_name"),
    )


def known_metric(name: str, found: Sequence[str]) -> None:
    """Refuse to order by what is neither a metric of bundled rules nor one that was found here."""
    bundled = (metric for rules in PROTOCOLS for metric in metric_names(by_name(rules)))
    known = sorted(dict.fromkeys([*bundled, *found]), key=lambda metric: "/" in metric)  # those of no class first
    if name not in known:
        near = unknown_name("metric", name, known).hint
        raise InputError("order_by", expected="create_time or a metric", got=name, hint=near)


def page_token(state: Any, about: object) -> str:
    """Give a token for the next page of the same question."""
    return base64.urlsafe_b64encode(json.dumps([state, _short(about)]).encode()).decode()


def page_state(token: str, about: object) -> Any:
    """Give the state of a token, or None without one."""
    if not token:
        return None
    if len(token) > MAX_TOKEN:
        raise InputError("page_token", expected="one that this server gave", got=token)
    try:
        state, short = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, TypeError):
        raise InputError("page_token", expected="one that this server gave", got=token) from None
    if short != _short(about):
        raise InputError("page_token", expected="used with all other fields the same")
    return state


def _short(about: object) -> str:
    return hashlib.sha256(repr(about).encode()).hexdigest()[:12]


def position(state: Any) -> tuple[float, int] | None:
    """Give the position in a list of evaluations that a page token holds."""
    if state is None:
        return None
    if isinstance(state, list) and len(state) == 2:
        key, seq = state
        is_key = isinstance(key, float) or (type(key) is int and abs(key) <= MAX_NS)
        if is_key and type(seq) is int and 0 <= seq < 2**31:
            return key, seq
    raise InputError("page_token", expected="one that this server gave")


def name_before(state: Any) -> str:
    """Give the name after which a page begins, from a page token."""
    if state is None:
        return ""
    if not (isinstance(state, str) and _DATASET.fullmatch(state)):
        raise InputError("page_token", expected="one that this server gave")
    return state
