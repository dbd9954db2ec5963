"""Words, flags and exit statuses of the command line."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from command_line import here

import optexp
from optexp import cli
from optexp.errors import BadInput, Exit, StorageError


@pytest.mark.parametrize(
    ("words", "argv"),
    [
        ([], []),
        (["a=1", "b=2"], ["a=1", "b=2"]),
        (["a=1", "-m", "b=2"], ["--multirun", "a=1", "b=2"]),
        (["a=1", "--multirun", "b=2"], ["--multirun", "a=1", "b=2"]),
        (["a=1", "--config-dir", "mine", "~b"], ["--config-dir", "mine", "a=1", "~b"]),
        (["a=1", "-cd", "mine", "b=2", "-c", "job"], ["--cfg", "job", "--config-dir", "mine", "a=1", "b=2"]),
        (["--config-dir=mine", "a=1"], ["--config-dir", "mine", "a=1"]),
        (["--cfg", "job", "--resolve", "-p", "model"], ["--resolve", "--cfg", "job", "--package", "model"]),
        (["a=1", "--info"], ["--info", "all", "a=1"]),
        (["--info", "defaults-tree", "a=1"], ["--info", "defaults-tree", "a=1"]),
        (["a=1", "--hydra-help"], ["--hydra-help", "a=1"]),
        (["-sc", "query=bash"], ["--shell-completion", "query=bash"]),
        (["+experiment=x", "+a=1"], ["experiment=x", "+a=1"]),
        (["a=-1", "b=--c"], ["a=-1", "b=--c"]),
    ],
)
def test_flags_may_stand_anywhere(words: list[str], argv: list[str]) -> None:
    assert cli.parse(words).hydra_argv() == argv


def test_the_recorded_command_says_all_that_decides_about_the_result() -> None:
    request = cli.parse(["a=1", "-m", "--config-dir", "my configs", "+experiment=x"])
    assert request.command() == ["optexp", "-m", "--config-dir", "my configs", "a=1", "experiment=x"]
    assert cli.parse(["a=1", "--dry-run"]).command() == ["optexp", "a=1"]


@pytest.mark.parametrize("words", [["train"], ["a=1", "train"], ["=1"], ["--no"], ["-x"], ["--cfg", "job", "--info"]])
def test_a_word_that_is_neither_flag_nor_override_is_refused(words: list[str]) -> None:
    with pytest.raises(BadInput):
        cli.parse(words)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (BadInput("seed=x: allowed is\nan integer"), 2, "optexp: seed=x: allowed is an integer\n"),
        (StorageError("run.json: No space left on device"), 5, "optexp: run.json: No space left on device\n"),
        (KeyboardInterrupt(), 130, "optexp: interrupted\n"),
        (BrokenPipeError(), 0, ""),
        (RuntimeError("a bug"), 1, "optexp: unexpected error: RuntimeError: a bug\n"),
    ],
)
def test_every_way_to_end_has_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, message: str
) -> None:
    def fail(words: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_start", fail)
    ended = here(tmp_path, "seed=1")
    assert (ended.status, ended.out) == (status, "")
    assert ended.err.endswith(message)
    assert ("Traceback" in ended.err) == (status == Exit.UNEXPECTED)


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    assert here(tmp_path, "--version").out == f"optexp {optexp.__version__}\n"


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_its_file_and_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        import_module(f"optexp.commands.{verb}").main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: optexp {verb} ")
    assert f"optexp {verb}" in shown.partition("examples:")[2]


def test_every_file_of_the_commands_is_a_verb() -> None:
    files = {path.stem for path in Path(cli.__file__).parent.glob("commands/*.py")}
    assert files - {"__init__"} == set(cli.VERBS)


@pytest.mark.parametrize("words", [["seed=1", "seed=2"], ["optimizer=sgd", "optimizer=adam"], ["+a.b=1", "++a.b=1"]])
def test_of_two_values_for_a_key_none_is_ignored(tmp_path: Path, words: list[str]) -> None:
    ended = here(tmp_path, *words, "--dry-run")
    key = words[0].lstrip("+").partition("=")[0]
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == f"optexp: {' '.join(words)}: {key} is given twice; allowed is one value, or with -m {key}=A,B\n"
