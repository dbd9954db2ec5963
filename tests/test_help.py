"""The help page: complete, true, and made from the configuration itself."""

from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from command_line import here

from optexp import cli
from optexp.help import EXAMPLES, FLAGS, groups, print_help, shipped_folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    ended = here(tmp_path_factory.mktemp("help"), "--help")
    assert (ended.status, ended.err) == (0, "")
    return ended.out


def test_every_choice_of_every_group_has_its_line_and_a_meaning(page: str) -> None:
    lines = page.splitlines()
    found = groups([shipped_folder()])
    assert {"model", "dataset", "optimizer", "schedule", "engine", "task", "experiment"} <= set(found)
    for group, choices in found.items():
        assert f"  {group}" in lines
        for choice, meaning in choices.items():
            assert meaning, f"conf/{group}/{choice}.yaml must begin with a comment that says what it is"
            assert any(line.split()[:1] == [choice] and line.endswith(meaning) for line in lines)


def test_choices_are_listed_as_they_are_on_disk() -> None:
    found = groups([shipped_folder()])
    on_disk = {(path.parent.name, path.stem) for path in shipped_folder().glob("[!h]*/*.yaml")}
    assert {(group, choice) for group, choices in found.items() for choice in choices} == on_disk


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_on_a_terminal_long_lines_are_wrapped_below_themselves(
    page: str, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout", Terminal())
    print_help(cli.VERBS)
    shown = sys.stdout.getvalue()  # type: ignore[attr-defined]
    assert shown.split() == page.split()
    groups_shown = shown[shown.index("Groups:") : shown.index("Tab completion")]
    assert max(len(line) for line in groups_shown.splitlines()) <= columns


def test_every_verb_and_every_flag_is_explained(page: str) -> None:
    for verb, meaning in cli.VERBS.items():
        assert any(line.split()[:1] == [verb] and line.endswith(meaning) for line in page.splitlines())
    for flag, _ in FLAGS:
        name = flag.split()[0].rstrip(",")
        cli.parse([name, *(["job"] if name == "--cfg" else ["mine"] if name == "--config-dir" else [])])


@pytest.mark.parametrize("command", [command for command, _ in EXAMPLES])
def test_the_examples_can_be_run(tmp_path: Path, page: str, command: str) -> None:
    assert command in page
    program, *words = shlex.split(command)
    ended = here(tmp_path, *words, "--dry-run")
    assert (program, ended.status, ended.err) == ("optexp", 0, "")
    assert list(tmp_path.iterdir()) == []


def test_the_command_said_to_list_the_keys_of_a_group_does(tmp_path: Path, page: str) -> None:
    assert "optexp --cfg job --package engine " in page
    assert "conf/engine/default.yaml" in page
    listed = here(tmp_path, "--cfg", "job", "--package", "engine")
    assert (listed.status, listed.err) == (0, "")
    assert set(yaml.safe_load(listed.out)) == set(
        yaml.safe_load((shipped_folder() / "engine" / "default.yaml").read_text())
    )


def test_the_users_own_folder_is_shown_too(tmp_path: Path) -> None:
    for name, text in {
        "optimizer/mine.yaml": "# my own\n_target_: mine.Optimizer\n",
        "callback/loud.yaml": "# @package _global_\n# a group of my own\n",
        "model/silent.yaml": "_target_: mine.Model\n",
    }.items():
        (tmp_path / "configs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "configs" / name).write_text(text)
    page = here(tmp_path, "--help", "--config-dir", "configs").out
    lines = [line.split(maxsplit=1) for line in page.splitlines()]
    assert ["mine", "my own"] in lines
    assert ["loud", "a group of my own"] in lines
    assert ["silent"] in lines
    assert page.index("\n  optimizer\n") < page.index("\n  callback\n")
