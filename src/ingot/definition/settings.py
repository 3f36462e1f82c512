"""What the first file says of the whole project: freshness, and where layers are shared."""

from __future__ import annotations

from dataclasses import dataclass

from ingot.definition.include import Sources
from ingot.definition.interpolate import Interpolation
from ingot.definition.messages import validate
from ingot.definition.nodes import Table
from ingot.definition.schema import CacheModel, SettingsModel
from ingot.errors import Problem
from ingot.model.definition import SharedCache
from ingot.model.units import Seconds, parse_seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """As `Definition` has them."""

    freshness: Seconds | None = None
    cache: SharedCache | None = None


def read_settings(sources: Sources, filling: Interpolation, *, problems: list[Problem]) -> Settings:
    """The settings that are sound; what is not is told and left out."""
    if sources.settings is None or not sources.settings.entries:
        return Settings()
    filled = filling.apply(sources.settings, ())
    assert isinstance(filled, Table)
    made = validate(SettingsModel, filled, path=(), problems=problems, partial=True)
    if made is None:
        return Settings()
    freshness = None if made.freshness == "never" else parse_seconds(made.freshness)
    if not made.cache:
        return Settings(freshness=freshness)
    cache = made.cache if isinstance(made.cache, CacheModel) else CacheModel(url=made.cache)
    place = filled.entries["cache"].place
    shared = SharedCache(url=cache.url, signers=cache.signers, key=cache.key, place=place)
    return Settings(freshness=freshness, cache=shared)
