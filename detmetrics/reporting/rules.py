"""A protocol's rules in words, from its data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from detmetrics.protocol import Protocol


def overview(protocols: Mapping[str, Protocol]) -> RenderableType:
    """One line a protocol."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "protocol", "classes", "match", "at", "errors", "score"):
        table.add_column(column)
    for name, protocol in protocols.items():
        table.add_row(
            name,
            protocol.name,
            str(len(protocol.tasks)),
            protocol.affinity.kind,
            ", ".join(f"{threshold:g}" for threshold in protocol.affinity.thresholds),
            " ".join(protocol.error_names),
            protocol.composite.name,
        )
    return table


def as_renderable(protocol: Protocol) -> RenderableType:
    """Every rule, one a line, and the classes as a table."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    affinity, curve, composite = protocol.affinity, protocol.curve, protocol.composite
    parts = [] if composite.kind == "class_product" else [f"{composite.map_weight:g} × mAP"]
    scale = {error.name: "" if error.scale == 1 else f" / {error.scale:.4g}" for error in protocol.errors}
    parts += [f"{weight:g} × (1 - {name}{scale[name]})" for name, weight in composite.error_weights.items()]
    product = "over classes, AP × the mean " if composite.kind == "class_product" else ""
    rows = {
        "protocol": protocol.name,
        "match": f"{affinity.kind} nearer than {', '.join(f'{t:g}' for t in affinity.thresholds)} m (strictly)",
        "assignment": protocol.assignment,
        "curve": f"{curve.kind}, {curve.n_samples} recalls, "
        + ("all of them" if curve.min_recall is None else f"above recall {curve.min_recall:g}")
        + (f" and precision {curve.min_precision:g}" if curve.min_precision else ""),
        "errors at": f"{affinity.error_threshold:g} m, mean {curve.error_mean}",
        **{e.name: f"{e.kind} ({e.key}), {e.unit}, {e.worst:.4g} where nothing matched" for e in protocol.errors},
        composite.name: f"{composite.kind}: {product}of {', '.join(parts)}",
        "not counted": f"boxes out of range ({protocol.range_kind})"
        + (", boxes without points" if protocol.drop_empty else ""),
        **{f"inside {region}": f"{', '.join(labels)} not counted" for region, labels in protocol.regions.items()},
        "at most": f"{protocol.max_boxes_per_frame or 'any number of'} predictions a frame"
        + (f", the best {protocol.cap_per_task} in range count in each class" if protocol.cap_per_task else ""),
        **({"caveats": ", ".join(protocol.caveats)} if protocol.caveats else {}),
    }
    for name, value in rows.items():
        facts.add_row(name, value)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("class", "range", "yaw period", "undefined", "raw categories"):
        table.add_column(column)
    for task in protocol.tasks:
        table.add_row(
            task.label,
            "–" if task.range_m is None else f"{task.range_m:g} m",
            f"{math.degrees(task.yaw_period_rad):g}°",
            " ".join(task.undefined) or "–",
            ", ".join(raw for raw, label in protocol.mapping.items() if label == task.label) or "–",
        )
    return Group(facts, table)


def as_toml(protocol: Protocol) -> str:
    """Give the rules as TOML that ``--protocol FILE.toml`` takes."""
    lines: list[str] = []
    tables: list[str] = []
    for key, value in protocol.to_dict().items():
        if value is None:
            continue
        if isinstance(value, dict):
            tables += ["", f"[{key}]", *_entries(value)]
        elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            for entry in value:
                tables += ["", f"[[{key}]]", *_entries(entry)]
        else:
            lines.append(f"{key} = {_value(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _entries(table: dict[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in table.items() if value is not None]


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)


def _value(value: Any) -> str:
    """Strings, booleans and numbers are written alike in JSON and TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(_entries(value)) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    return json.dumps(value, ensure_ascii=False)
