"""The only module that composes with Hydra: from override words to plain configurations, with errors for people.

Hydra needs about 50 ms to compose one configuration, so it composes once per combination of *group choices*
(`model=mlp`); overrides of *values* (`optimizer.lr=0.1`) are applied to a copy, by the function with which Hydra
itself applies them. That takes another 10 ms, so of them, too, those that only replace a value (see `literal`) are
left to the end and applied to plain values. A sweep over values therefore composes once whatever its size.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from hydra.version import setbase
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from optexp.config import resolvers
from optexp.config.literal import Literal, separate, without_hydra
from optexp.errors import BadInput, listed, nearest
from optexp.help import shipped_folder


@dataclass(frozen=True)
class Composed:
    """One run's configuration as plain values, and what Hydra says about it."""

    config: dict[str, Any]
    choices: dict[str, str | None]
    overrides: list[str]
    hydra_node: DictConfig | Callable[[], DictConfig]

    @cached_property
    def hydra(self) -> DictConfig:
        """Hydra's own node, this run's alone. Of a sweep's members nobody asks for it, so it is made when asked for."""
        return self.hydra_node if isinstance(self.hydra_node, DictConfig) else self.hydra_node()

    @property
    def config_dir(self) -> str | None:
        """The folder of one's own configuration files, `--config-dir`."""
        sources = self.hydra.runtime.config_sources
        return next((source.path for source in sources if source.provider == "command-line"), None)


@dataclass(frozen=True)
class _Start:
    """A composition that runs start from: its nodes, never changed, and its plain values."""

    cfg: DictConfig
    choices: dict[str, str | None]
    literal: Literal

    @classmethod
    def of(cls, cfg: DictConfig) -> _Start:
        return cls(cfg, dict(cfg.hydra.runtime.choices), Literal(cfg))


_DIRECTORIES = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
_KEPT_STARTS = 16  # a megabyte each


class Composer:
    """Composes runs and sweep members from override words. Raises BadInput for whatever Hydra would refuse."""

    def __init__(self, config_dir: str | None = None, multirun: bool = False) -> None:
        """`config_dir` is the user's own folder of groups."""
        resolvers.register()
        self.multirun = multirun
        self.config_dir = config_dir
        self._bases: dict[tuple[str, ...], _Start] = {}
        self._starts: dict[tuple[str, ...], _Start] = {}
        self._parsed: dict[str, Override] = {}
        self._is_group_name: dict[str, bool] = {}  # asking Hydra takes milliseconds
        if config_dir is not None and not Path(config_dir).is_dir():
            raise BadInput(f"--config-dir {config_dir}: no such folder")
        search_path = create_config_search_path(str(shipped_folder()))
        if config_dir is not None:
            search_path.prepend("command-line", f"file://{Path(config_dir).resolve()}", anchor="schema")
        setbase("1.3")
        self.loader = ConfigLoaderImpl(search_path)
        self._hydra = Hydra("optexp", self.loader)
        self.parser = OverridesParser.create(config_loader=self.loader)

    def parse(self, words: Sequence[str]) -> list[Override]:
        """Parse override words with Hydra's grammar."""
        return [self._parsed.get(word) or self._parse_word(word) for word in words]

    def _parse_word(self, word: str) -> Override:
        try:
            self._parsed[word] = self.parser.parse_overrides([word])[0]
            return self._parsed[word]
        except HydraException as error:
            # What Hydra says of a function call is for people; what it says of characters is for its grammar's authors.
            reasons = [line for line in str(error).splitlines() if "while evaluating" in line]
            reason = reasons[0] if reasons else "values with special characters need quotes: 'key=\"value\"'"
            raise BadInput(f"{word}: cannot be read as key=value; {reason}") from None

    def is_sweep(self, words: Sequence[str]) -> bool:
        """Return whether the request is a sweep: by `-m`, or by `hydra.mode: MULTIRUN` in a chosen file.

        Raises BadInput when a key is given several values and neither asks for a sweep.
        """
        fixed = [override for override in self.parse(words) if not override.is_sweep_override()]
        swept = [override for override in self.parse(words) if override.is_sweep_override()]
        modes = [override.value() for override in fixed if override.key_or_group == "hydra.mode"]
        mode = modes[-1] if modes else self._base([o for o in fixed if self._is_group(o)]).cfg.hydra.mode
        if self.multirun or str(mode).rpartition(".")[2] == "MULTIRUN":
            return True
        if swept:
            raise BadInput(f"{swept[0].input_line}: several values make a sweep; add -m")
        return False

    def fixed(self, words: Sequence[str]) -> list[str]:
        """Return the words that give a key one value, the same for all members of a sweep."""
        return [str(override.input_line) for override in self.parse(words) if not override.is_sweep_override()]

    def members(self, words: Sequence[str]) -> tuple[list[list[str]], list[str]]:
        """Expand sweep words into the override words of each member; see `expand`."""
        try:
            members, swept = expand(self.parse(words))
        except HydraException as error:
            raise BadInput(_first_line(error)) from None
        if not members:
            raise BadInput(f"{' '.join(words)}: stands for no value at all, so the sweep has no members")
        return members, swept

    def compose(self, words: Sequence[str]) -> Composed:
        """Compose one run (no sweep words). Raises BadInput naming the key, its value and what is allowed."""
        groups, values = self._separated(self.parse(words))
        last, first = separate(self._base(groups).literal, values)
        start = self._start(groups, first)
        config = None if start.literal.refers else start.literal.config(last)
        if config is None:
            start = self._start(groups, values)
            config = plain(without_hydra(start.cfg))
        return Composed(config, dict(start.choices), list(words), lambda: self._applied(groups, values).hydra)

    def _separated(self, overrides: Sequence[Override]) -> tuple[list[Override], list[Override]]:
        """Separate choices from groups from settings of values."""
        chooses = [self._is_group(override) for override in overrides]
        groups = [override for override, is_group in zip(overrides, chooses, strict=True) if is_group]
        return groups, [override for override, is_group in zip(overrides, chooses, strict=True) if not is_group]

    def _start(self, groups: Sequence[Override], values: Sequence[Override]) -> _Start:
        """Return the composition of groups with values applied; the latest ones are kept."""
        if not values:
            return self._base(groups)
        words = tuple(str(override.input_line) for override in [*groups, *values])
        if words not in self._starts:
            if len(self._starts) >= _KEPT_STARTS:
                del self._starts[next(iter(self._starts))]
            self._starts[words] = _Start.of(self._applied(groups, values))
        return self._starts[words]

    def _applied(self, groups: Sequence[Override], values: Sequence[Override]) -> DictConfig:
        """Compose groups and apply values in the exact way, with Hydra's function, to nodes of their own."""
        cfg = copy.deepcopy(self._base(groups).cfg)
        if self.multirun:
            cfg.hydra.mode = RunMode.MULTIRUN
        for override in values:
            self._apply(override, cfg)
        return cfg

    def with_hydra(self, words: Sequence[str], mode: RunMode) -> DictConfig:
        """Return Hydra's own composition of a checked request, for Hydra's own use."""
        return self._hydra.compose_config("config", list(words), mode, from_shell=False, with_log_configuration=False)

    def for_hydra(self, words: Sequence[str]) -> DictConfig:
        """Return the configuration of one checked run for Hydra's own use, equal to what `with_hydra` composes."""
        overrides = self.parse(words)
        own = [override for override in overrides if override.is_hydra_override()]
        if any(override.key_or_group not in _DIRECTORIES for override in own):
            return self.with_hydra(words, RunMode.RUN)  # some of Hydra's settings decide about how it composes
        groups, values = self._separated(overrides)
        cfg = self._applied(groups, values)
        rest = [override for override in overrides if override not in own]
        cfg.hydra.mode = self._base(groups).cfg.hydra.mode
        cfg.hydra.overrides.hydra = [override.input_line for override in own]
        cfg.hydra.overrides.task = [override.input_line for override in rest]
        cfg.hydra.job.override_dirname = get_overrides_dirname(rest, **cfg.hydra.job.config.override_dirname)
        return cfg

    def _base(self, groups: Sequence[Override]) -> _Start:
        words = tuple(str(override.input_line) for override in groups)
        if words not in self._bases:
            for override in groups:
                self._check_choice(override)
            self._bases[words] = _Start.of(self._load(list(words)))
        return self._bases[words]

    def _load(self, words: list[str]) -> DictConfig:
        try:
            return self.with_hydra(words, RunMode.RUN)
        except yaml.YAMLError as error:  # a file of the user's; its name is in the text
            raise BadInput(f"--config-dir: {' '.join(str(error).split())}") from None
        except (HydraException, OmegaConfBaseException) as error:
            raise BadInput(_first_line(error)) from None

    def _is_group(self, override: Override) -> bool:
        """Return whether a word chooses from a group (`optimizer={lr: 0.1}` sets values in it)."""
        name = override.key_or_group
        if name not in self._is_group_name:
            self._is_group_name[name] = "." not in name and bool(self.loader.get_group_options(name))
        return self._is_group_name[name] and not isinstance(override.value(), dict)

    def groups(self) -> list[str]:
        """Return the names of the config groups a user may choose from."""
        return [name for name in self.loader.list_groups("") if name != "hydra"]

    def _check_choice(self, override: Override) -> None:
        group, value = override.key_or_group, override.value()
        choices = self.loader.get_group_options(group)
        if override.is_delete():
            return
        for choice in value if isinstance(value, list) else [value]:
            if choice is None:
                raise BadInput(f"{group}=null: choose one of {listed(choices)}; ~{group} drops the choice made so far")
            if str(choice) not in choices:
                raise BadInput(
                    f"{group}={choice}: no such {group}{nearest(str(choice), choices)}; choose one of {listed(choices)}"
                )

    def _apply(self, override: Override, cfg: DictConfig) -> None:
        """Apply one value override in place: `key=`, `+key=`, `++key=` or `~key`."""
        key = override.key_or_group
        if f"{key}.".startswith("hydra.sweeper.params."):  # of a sweep they have been taken away before
            raise BadInput(f"{override.input_line}: is a setting of a sweep; add -m")
        changes = not (override.is_add() or override.is_force_add() or override.is_delete())
        if changes and not _exists(cfg, key):
            raise BadInput(self._unknown_key(override, cfg))
        parent = key.rpartition(".")[0]
        if override.is_delete() and _exists(cfg, key) and parent and OmegaConf.is_list(OmegaConf.select(cfg, parent)):
            raise BadInput(f"{override.input_line}: an element of a list cannot be dropped; write {parent}=[…]")
        try:
            ConfigLoaderImpl._apply_overrides_to_config([override], cfg)
        except ConfigCompositionException as error:
            if error.__cause__ is not None:
                reason = _first_line(error.__cause__)
            elif override.is_add():
                reason = f"the key exists already; write {key}=… to change it"
            elif not _exists(cfg, key):
                reason = "there is no such key to drop"
            else:
                reason = f"cannot be dropped, because {key} is {OmegaConf.select(cfg, key)}"
            raise BadInput(f"{override.input_line}: {reason}") from None

    def _unknown_key(self, override: Override, cfg: DictConfig) -> str:
        """Say which keys there are where an unknown one was given."""
        key, value = override.key_or_group, override.get_value_element_as_str()
        parent, _, leaf = key.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if parent == "" and not _exists(cfg, leaf):
            names = [str(name) for name in cfg if name != "hydra"]
            holders = [name for name in names if _exists(cfg, f"{name}.{leaf}")]
            if holders:
                return f"{key}={value}: no such key or group (did you mean '{holders[0]}.{leaf}'?)"
            words = [*self.groups(), *names]
            return (
                f"{key}={value}: no such key or group{nearest(leaf, words)}; there are {listed(dict.fromkeys(words))}"
            )
        if not isinstance(node, DictConfig):
            top = key.split(".")[0]
            known = [str(name) for name in cfg if name != "hydra" and isinstance(cfg._get_node(name), DictConfig)]
            return f"{key}={value}: no such key{nearest(top, known)}; the groups with keys are {listed(known)}"
        keys = [str(name) for name in node if name != "_target_"]
        choice = cfg.hydra.runtime.choices.get(parent)
        taker = f"{parent}={choice}" if choice else parent
        adds = f"; +{key}={value} adds an argument" if str(node.get("_target_")).endswith(".by_name") else ""
        takes = f"it takes {listed(keys) or 'nothing'}{adds}"
        return f"{key}={value}: {taker} takes no '{leaf}'{nearest(leaf, keys)}; {takes}"


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return a configuration with everything resolved, as plain values; raises BadInput for what is not set."""
    try:
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "config"
        if isinstance(error, MissingMandatoryValue):
            raise BadInput(f"{key} must be set: add {key}=… to the command line") from None
        raise BadInput(f"{key}: {_first_line(error)}") from None
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def expand(overrides: Sequence[Override]) -> tuple[list[list[str]], list[str]]:
    """Expand sweep overrides (choices, ranges, globs) into (words of each member, swept keys), in Hydra's order."""
    swept = [override.key_or_group for override in overrides if override.is_sweep_override()]
    return BasicSweeper.split_arguments(list(overrides), max_batch_size=None)[0], list(dict.fromkeys(swept))


def quoted(text: str) -> str:
    """Quote a string for Hydra's override grammar."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def _exists(cfg: DictConfig, key: str) -> bool:
    node: Any = cfg
    for part in key.split("."):
        if isinstance(node, ListConfig) and part.isdigit() and int(part) < len(node):
            node = node._get_node(int(part))
        elif isinstance(node, DictConfig) and part in node._content:  # type: ignore[operator]
            node = node._get_node(part)
        else:
            return False
    return True


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
