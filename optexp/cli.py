"""The command line: `optexp <verb> …` reads or continues run directories, `optexp key=value …` starts something new.

A request to start something is composed and checked before anything is created, for all members of a sweep, and then
handed to Hydra, which makes the directory and runs it. Neither torch nor Hydra is imported for `--help`, for a verb,
or for an error that can be found without them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from optexp import __version__
from optexp.errors import BadInput, Exit, StorageError, nearest
from optexp.override_words import key_of

if TYPE_CHECKING:
    from optexp.config.compose import Composer

VERBS = {
    "runs": "list runs with their status and main numbers",
    "compare": "show what differs between runs, side by side, and draw their curves",
    "diagnose": "say why a run did not train, with evidence and the repair as a command",
    "ledger": "multiply out the step of a run, factor by factor, in decades; of two runs side by side",
    "report": "write report.html for a run, a sweep or a study: verdict, figures, table, in one file",
    "export": "write the metrics of a run to a CSV file",
    "resume": "go on with an interrupted run, sweep or study",
    "rerun": "repeat a run with the same configuration in a new directory",
    "studies": "list the studies with their questions",
}


INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status (see optexp.errors.Exit)."""
    words = sys.argv[1:] if argv is None else argv
    _make_output_safe()
    try:
        if words and words[0] in VERBS:
            status = int(import_module(f"optexp.commands.{words[0]}").main(words[1:]))
        else:
            status = _start(words)
        sys.stdout.flush()
        return status
    except (BadInput, StorageError) as error:
        print(f"optexp: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return Exit.BAD_INPUT if isinstance(error, BadInput) else Exit.STORAGE
    except KeyboardInterrupt:
        print("optexp: interrupted", file=sys.stderr)
        return Exit.SIGINT
    except SystemExit as stop:
        if words and words[0] in VERBS:  # which end so after --help
            raise
        print(f"optexp: unexpected error: something called sys.exit({stop.code!r})", file=sys.stderr)
        return Exit.UNEXPECTED
    except BrokenPipeError:  # the reader of our output (`| head`) has left: say nothing more, not even at exit
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except Exception as error:  # noqa: BLE001 - the last resort, so that a bug ends with a line and a status, too
        traceback.print_exc()
        print(f"optexp: unexpected error: {type(error).__name__}: {error}", file=sys.stderr)
        return Exit.UNEXPECTED


def _make_output_safe() -> None:
    """Let neither a closed standard output nor a terminal without Unicode end a run."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


@dataclass(frozen=True)
class Request:
    """A command line that starts something: Hydra's flags in front, override words behind, in any order as typed."""

    flags: argparse.Namespace
    words: list[str]

    def command(self) -> list[str]:
        """Return the command line as it is recorded: everything that decides about what is computed."""
        folder = self.flags.config_dir
        flags = [*(["-m"] if self.flags.multirun else []), *(["--config-dir", folder] if folder else [])]
        return ["optexp", *flags, *self.words]

    def hydra_argv(self) -> list[str]:
        """Return the arguments for Hydra, flags first: Hydra 1.3 rejects flags between override words."""
        flags = self.flags
        argv = [name for name, given in (("--multirun", flags.multirun), ("--resolve", flags.resolve)) if given]
        for name in ("cfg", "package", "config_dir", "info"):
            value = getattr(flags, name)
            if value is not None:
                argv += [f"--{name.replace('_', '-')}", value]
        argv += [f"--{name.replace('_', '-')}" for name in ("hydra_help", "shell_completion") if getattr(flags, name)]
        return [*argv, *self.words]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see optexp --help")


def parse(words: list[str]) -> Request:
    """Separate flags from overrides wherever they stand; raises BadInput for a word that is neither."""
    parser = _Parser(prog="optexp", add_help=False, allow_abbrev=False)
    for names in (("--help", "-h"), ("--version",), ("--multirun", "-m"), ("--dry-run",), ("--resolve",)):
        parser.add_argument(*names, action="store_true")
    for names in (("--hydra-help",), ("--shell-completion", "-sc")):
        parser.add_argument(*names, action="store_true")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    shown.add_argument("--info", "-i", nargs="?", const="all", choices=INFO)
    parser.add_argument("--package", "-p")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("overrides", nargs="*")
    flags = parser.parse_intermixed_args(words)
    if (flags.resolve or flags.package) and not flags.cfg:
        raise BadInput(f"{'--resolve' if flags.resolve else '--package'}: says how --cfg prints; add --cfg job")
    overrides = ["experiment=" + word[12:] if word.startswith("+experiment=") else word for word in flags.overrides]
    if not flags.shell_completion:
        for word in overrides:
            if word.startswith("=") or ("=" not in word and not word.startswith("~")):
                raise BadInput(
                    f"'{word}' is neither a verb ({', '.join(VERBS)}) nor an override key=value{nearest(word, VERBS)}"
                )
    return Request(flags, overrides)


def _start(words: list[str]) -> int:
    request = parse(words)
    flags = request.flags
    if flags.version:
        print(f"optexp {__version__}")
        return Exit.DONE
    if flags.help:
        from optexp.help import print_help

        print_help(VERBS, flags.config_dir)
        return Exit.DONE
    if flags.hydra_help or flags.shell_completion:
        from optexp.config.launch import show

        return show(request.hydra_argv())
    return _compose_and_run(request)


def _refuse_repeats(words: Sequence[str]) -> None:
    """Refuse a key that is given twice: of two values one would be ignored."""
    given: dict[str, str] = {}
    for word in words:
        key = key_of(word)
        if key in given and key != "study" and not key.startswith("hydra"):  # whose words build on each other
            raise BadInput(f"{given[key]} {word}: {key} is given twice; allowed is one value, or with -m {key}=A,B")
        given[key] = word


def _compose_and_run(request: Request) -> int:
    from optexp.config.compose import Composer
    from optexp.config.launch import show

    flags, words = request.flags, request.words
    _refuse_repeats(words)
    if any(word.startswith("study=") for word in words):
        from optexp.studies.requests import run_studies

        if flags.cfg or flags.info:
            raise BadInput("--cfg and --info show one run; the members of a study are in its final/sweep.json")
        return run_studies(Composer(flags.config_dir, multirun=True), words, request.command(), flags.dry_run)
    composer = Composer(flags.config_dir, multirun=flags.multirun)
    if flags.cfg or flags.info:
        if flags.multirun or composer.fixed(words) != words:
            raise BadInput("--cfg and --info show one run: leave out -m and give every key one value")
        composer.compose(words)
        return show(request.hydra_argv())
    if composer.is_sweep(words):
        from optexp.sweeps.multirun import run_sweep

        return run_sweep(composer, words, request.command(), request.hydra_argv(), flags.dry_run)
    return _run_one(composer, request)


def _run_one(composer: Composer, request: Request) -> int:
    from optexp.config.launch import claimed_directory, run_in_hydra
    from optexp.tasks import prepare

    words = request.words
    composed = composer.compose(words)
    task = prepare(composed)
    if request.flags.dry_run:
        print(f"ok: {shlex.join(request.command())}")
        return Exit.DONE
    directory = claimed_directory(composed, "hydra.run.dir")
    try:
        result = run_in_hydra(
            composer, [*words, directory.override], lambda: task.run(directory.path, request.command(), words)
        )
    finally:
        directory.remove_if_unused()
    return int(result.exit_status)
