"""Setting single values in a composed configuration without OmegaConf, where the result is certain to be the same.

Copying a configuration with all its nodes takes milliseconds, and the members of a sweep differ in a few values. Where
nothing refers to anything else (`${…}`), a configuration is as good as its plain values, and `key=value` on an
existing untyped key only replaces one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import AnyNode, DictConfig, ListConfig, OmegaConf
from omegaconf.base import Container, Node


class Literal:
    """The plain values of a composed configuration, Hydra's own node left out."""

    def __init__(self, cfg: DictConfig) -> None:
        self.refers = False  # whether a value depends on others or on the environment
        self._missing: set[str] = set()
        self._values: set[str] = set()  # keys that take any value
        self._lists: set[str] = set()  # keys that hold a list
        for name in cfg:
            if name != "hydra":
                self._note(str(name), cfg._get_node(name))
        self._config: Any = {} if self.refers else OmegaConf.to_container(without_hydra(cfg))

    def _note(self, key: str, node: Any, settable: bool = True) -> None:
        """Note what is at `key` and below; `settable` is false where a key could also be read in another way."""
        assert isinstance(node, Node)
        if node._is_interpolation():
            self.refers = True
        elif node._is_missing():
            self._missing.add(key)
        if isinstance(node, Container) and not (node._is_interpolation() or node._is_none() or node._is_missing()):
            settable = settable and not _typed(node)
            if isinstance(node, ListConfig):
                if settable:
                    self._lists.add(key)
                for index in range(len(node)):
                    self._note(f"{key}.{index}", node._get_node(index), settable=False)
            elif isinstance(node, DictConfig):
                for name in node:
                    readable = isinstance(name, str) and not set(name) & set(".[]")
                    self._note(f"{key}.{name!s}", node._get_node(name), settable and readable)
        elif settable and type(node) is AnyNode:
            self._values.add(key)

    def takes(self, override: Override) -> bool:
        """Return whether a word is the plain replacement of one value: `key=1`, `key=text`, `key=[1,2]`."""
        key = override.key_or_group
        if override.type is not OverrideType.CHANGE or override.package is not None:
            return False
        value = override.value()
        return _is_literal(value) and (key in self._values or (key in self._lists and isinstance(value, list)))

    def config(self, overrides: Iterable[Override]) -> dict[str, Any] | None:
        """Return the plain configuration with words that it `takes` applied; None when a value would be missing."""
        assert not self.refers
        config = _copied(self._config)
        missing = set(self._missing)
        for override in overrides:
            *parents, leaf = override.key_or_group.split(".")
            node = config
            for name in parents:
                node = node[name]
            node[leaf] = _copied(override.value())
            missing.discard(override.key_or_group)
        return None if missing else config


def separate(literal: Literal, overrides: Iterable[Override]) -> tuple[list[Override], list[Override]]:
    """Separate the words that `literal` takes, and that may be applied after all others, from the others.

    The order of two words matters only where one concerns the key of the other, a part of it, or what it is a part of.
    """
    overrides = list(overrides)
    taken = [override for override in overrides if literal.takes(override)]
    others = [override.key_or_group for override in overrides if override not in taken]
    last = [word for word in taken if not any(_related(word.key_or_group, key) for key in others)]
    return last, [override for override in overrides if override not in last]


def without_hydra(cfg: DictConfig) -> DictConfig:
    """Return a copy of a composition without Hydra's own node."""
    return OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name != "hydra"])


def _related(first: str, second: str) -> bool:
    return f"{first}.".startswith(f"{second}.") or f"{second}.".startswith(f"{first}.")


def _typed(node: Container) -> bool:
    """Whether a container belongs to a structured config or fixes the type of its elements."""
    metadata: Any = node._metadata
    return not (metadata.ref_type is metadata.element_type is Any and metadata.object_type in (dict, list))


def _is_literal(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_literal(item) for item in value)
    if isinstance(value, str):
        return "${" not in value and value != "???"
    return value is None or isinstance(value, bool | int | float)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
