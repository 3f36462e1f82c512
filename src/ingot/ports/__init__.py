"""Every Protocol that the core calls. Backends, provisioners and stores implement them; they import nothing back.

Members that are not methods are read-only properties, so that an implementation's narrower type fits.
A backend that lacks an ability lacks the port: the planner can say so before anything is made.
"""

from __future__ import annotations

from ingot.ports.backend import Backend, BackendSettings, OpenBackend, Shape, ShapeOf
from ingot.ports.basics import Cancel, Clock, Holder, Resource, Token, Tree
from ingot.ports.doctor import Doctor, Wanted
from ingot.ports.machines import Finding, HostKind, Machine, MachineHost, MachineSpec, Needle, SshAccess
from ingot.ports.steps import Inventory, Provisioner
from ingot.ports.stores import (
    BaseFinder,
    Exporter,
    FoundBase,
    ImageStore,
    Importer,
    LayerStore,
    Publisher,
    StoredLayer,
)
from ingot.ports.travel import LayerCache, LayerCarrier, Parcel

__all__ = [
    "Backend",
    "BackendSettings",
    "BaseFinder",
    "Cancel",
    "Clock",
    "Doctor",
    "Exporter",
    "Finding",
    "FoundBase",
    "Holder",
    "HostKind",
    "ImageStore",
    "Importer",
    "Inventory",
    "LayerCache",
    "LayerCarrier",
    "LayerStore",
    "Machine",
    "MachineHost",
    "MachineSpec",
    "Needle",
    "OpenBackend",
    "Parcel",
    "Provisioner",
    "Publisher",
    "Resource",
    "Shape",
    "ShapeOf",
    "SshAccess",
    "StoredLayer",
    "Token",
    "Tree",
    "Wanted",
]
