# SPDX-License-Identifier: Apache-2.0
"""Metric families in Prometheus' text exposition format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def exposition(families: list[dict[str, Any]]) -> str:
    """What ``metrics.snapshot`` made, as text; a family without samples keeps its help and type."""
    return "".join(f"{line}\n" for family in families for line in _lines(family))


def _lines(family: dict[str, Any]) -> Iterator[str]:
    name = family["name"]
    yield f"# HELP {name} {_escape(family['help'])}"
    yield f"# TYPE {name} {family['kind']}"
    for sample in family["samples"]:
        labels = sample["labels"]
        if family["kind"] != "histogram":
            yield f"{name}{_braces(labels)} {_number(sample['value'])}"
            continue
        for bound, up_to in sample["buckets"]:
            yield f"{name}_bucket{_braces({**labels, 'le': _number(bound)})} {up_to}"
        yield f"{name}_bucket{_braces({**labels, 'le': '+Inf'})} {sample['count']}"
        yield f"{name}_sum{_braces(labels)} {_number(sample['sum'])}"
        yield f"{name}_count{_braces(labels)} {sample['count']}"


def _braces(labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{name}="{_escape(value, quotes=True)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _escape(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    return repr(float(value)) if isinstance(value, float) else str(value)
