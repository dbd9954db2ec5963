"""What README and CONTRIBUTING say is so: their commands can be run, their tables are complete."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command_line import here, only_run

from optexp.cli import VERBS
from optexp.errors import Exit
from optexp.help import groups, shipped_folder

REPO = Path(__file__).parents[2]
PAGES = {name: (REPO / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "conf/config.yaml")}
PLACEHOLDER = re.compile(r"…|<|\*|\bDIR|\bVERB\b|\bFILE\b|key=value|--help|\bmy\b")


def commands() -> list[str]:
    """Return the command lines on the pages that a reader could copy: on lines of their own, or in backticks."""
    found = []
    for text in PAGES.values():
        found += re.findall(r"^(?:\$ |#   )?(optexp [^#`\n]*?)(?:  .*)?$", text, re.MULTILINE)
        found += re.findall(r"`(optexp [^`]*)`", text)
    return list(dict.fromkeys(command.strip() for command in found))


def test_commands_are_found() -> None:
    assert {"optexp experiment=exp2_sgd_B32", "optexp -m seed='range(5)' optimizer=sgd,adamw"} <= set(commands())


REFUSED = "optexp optimizer=adam optimizer.dampening=0"  # shown as an example of what is refused


@pytest.mark.parametrize("command", [c for c in commands() if not PLACEHOLDER.search(c) and c != REFUSED])
def test_a_documented_command_can_be_run(tmp_path: Path, command: str) -> None:
    words = shlex.split(command)[1:]
    if words[0] in VERBS or words[0].startswith("--cfg"):
        assert here(tmp_path, *words).status == 0
    else:
        ended = here(tmp_path, *words, "--dry-run")
        assert (ended.status, ended.err) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_the_refused_command_is_refused_as_shown(tmp_path: Path) -> None:
    (shown,) = re.findall(rf"^\$ {re.escape(REFUSED)}\n(.*)$", PAGES["README.md"], re.MULTILINE)
    ended = here(tmp_path, *REFUSED.split()[1:])
    assert ended.status == 2
    assert ended.err.startswith(shown.partition("…")[0])


def test_every_verb_is_in_the_table() -> None:
    assert [verb for verb in VERBS if f"| `optexp {verb}" not in PAGES["README.md"]] == []


def test_the_table_of_exit_statuses_is_complete() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \|", PAGES["README.md"], re.MULTILINE)
    assert sorted(int(number) for row in rows for number in row.split(",")) == sorted(Exit)


def test_every_choice_is_in_the_table_of_groups() -> None:
    missing = []
    for group, choices in groups([shipped_folder()]).items():
        (row,) = re.findall(rf"^\| `{group}` \|(.*)\|$", PAGES["README.md"], re.MULTILINE) or [""]
        if group in ("model", "dataset", "optimizer", "schedule"):
            missing += [f"{group}={choice}" for choice in choices if f"`{choice}`" not in row]
    assert missing == []


@pytest.mark.parametrize(
    ("page", "choice", "name"), [("README.md", "ademamix", "AdEMAMix"), ("CONTRIBUTING.md", "ademamix", "AdEMAMix")]
)
def test_the_optimizer_file_shown_works_as_it_is(tmp_path: Path, page: str, choice: str, name: str) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGES[page], re.DOTALL)
    (block,) = (block for block in blocks if f".{name}\n" in block)
    (tmp_path / "my" / "optimizer").mkdir(parents=True)
    (tmp_path / "my" / "optimizer" / f"{choice}.yaml").write_text(block)
    words = ["--config-dir", "my", f"optimizer={choice}", "model=mlp", "engine.max_steps=2"]
    assert here(tmp_path, *words).status == 0
    assert only_run(tmp_path).config["optimizer"]["_target_"].endswith(f".{name}")
    assert re.search(rf"^    {choice} +\S", here(tmp_path, "--help", "--config-dir", "my").out, re.MULTILINE)
