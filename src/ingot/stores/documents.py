"""Records of the catalog read back from their plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from ingot.model.image import CheckResult, CheckRun, LayerRecord, Manifest, Package

T = TypeVar("T", CheckResult, CheckRun, LayerRecord, Manifest, Package)


def manifest(document: Mapping[str, Any]) -> Manifest:
    """The manifest that `plain` made this document of."""
    layers = tuple(
        _value(LayerRecord, layer, steps=tuple(layer.get("steps", ()))) for layer in document["layers"]
    )
    packages = tuple(_value(Package, package) for package in document["packages"])
    return _value(Manifest, document, layers=layers, packages=packages)


def check_run(document: Mapping[str, Any]) -> CheckRun:
    """The check run that `plain` made this document of."""
    return _value(CheckRun, document, results=tuple(_value(CheckResult, one) for one in document["results"]))


def _value(kind: type[T], document: Mapping[str, Any], **replaced: Any) -> T:
    """A value of the kind; what the document has beyond its fields (a later Ingot's) is left out."""
    known = {field.name for field in fields(kind)}
    return kind(**{**{name: document[name] for name in known if name in document}, **replaced})
