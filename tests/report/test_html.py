"""`report.html`: one file that needs nothing else, says the verdict first, drops no member, and escapes every text."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from report_directories import grid, write_run, write_study, write_sweep

from optexp.errors import BadInput, StorageError
from optexp.report import html

VOID = {"meta", "link", "br", "hr", "img", "input"}
EVIL = "<script>alert('1')</script> & \"quoted\" <img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """A page that was read back: its elements in order, its text, its ids, and every address in it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.source = file.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.texts: list[str] = []
        self.feed(self.source)
        assert not self.open, f"never closed: {self.open}"
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "action", "data", "srcset"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
            self.addresses += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    def section(self, name: str) -> int:
        """Return where the heading or block with an id stands."""
        return self.source.index(f'id="{name}"')


def check(page: Page) -> None:
    """Check what holds for every page."""
    assert page.source.startswith("<!DOCTYPE html>")
    assert len(page.ids) == len(set(page.ids))
    assert all(address.startswith(("#", "data:")) for address in page.addresses), page.addresses
    assert all(address[1:] in page.ids for address in page.addresses if address.startswith("#"))
    assert not page.handlers
    assert page.count["script"] == page.count["style"] == 1
    assert "@import" not in page.source
    assert "prefers-color-scheme: dark" in page.source
    assert '<meta name="viewport" content="width=device-width' in page.source


def test_a_run(tmp_path: Path) -> None:
    page = Page(html.write_run(write_run(tmp_path / "run")))
    check(page)
    order = [page.section(name) for name in ("verdict", "figures", "config", "table", "reproduce", "versions")]
    assert order == sorted(order)
    assert "completed 100 of 100 steps in 1.5 s" in page.text
    loss = json.loads((tmp_path / "run" / "run.json").read_text())["best"]["value"]
    assert f"best val/loss {loss:.4f} at step 100; bigram cross-entropy 0.5000; train/loss began at 2." in page.text
    assert page.count["figure"] == 5  # loss, accuracy, learning rate, update ratio, gradient norm
    assert "optexp model=mlp optimizer=sgd" in page.text
    assert "0123456789ab" in page.text
    assert "torch 2.12.1" in page.text


def test_a_run_that_diverged_says_so_first(tmp_path: Path) -> None:
    page = Page(html.write_run(write_run(tmp_path / "run", "diverged")))
    check(page)
    assert "diverged 59 of 100 steps" in page.text
    assert "train/loss is nan at step 60" in page.text
    assert "last finite val/loss" in page.text
    assert "best val/loss" not in page.text


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", "failed")
    (path / "metrics.jsonl").unlink()
    info = json.loads((path / "run.json").read_text())
    keep = {key: info[key] for key in ("status", "reason", "started")}
    (path / "run.json").write_text(json.dumps(keep))
    page = Page(html.write_run(path))
    check(page)
    assert "Nothing was logged." in page.text
    assert "none: it ran outside of a git checkout" in page.text


def test_a_sweep_over_two_numbers_and_seeds(tmp_path: Path) -> None:
    members = grid(seeds=3, lost={1.0: "diverged"})
    members[4]["status"] = "failed"
    members[1]["status"] = "not started"
    path = write_sweep(tmp_path / "sweep", members, ["optimizer.lr", "optimizer.weight_decay", "seed"])
    page = Page(html.write_sweep(path))
    check(page)
    order = ["verdict", "notes", "figures", "curves", "config", "settings", "table", "reproduce", "versions"]
    places = [page.section(name) for name in order]
    assert places == sorted(places)
    assert "Best: lr=0.1 weight_decay=0 " in page.text
    assert "18 members: 10 completed, 6 diverged, 1 not started, 1 failed" in page.text.replace(" ,", ",")
    assert "lr=0.01 weight_decay=0.0001: 1 of 3 seeds lost." in page.text
    assert page.count["figure"] == 2 + 3  # heat maps of loss and accuracy; curves of both and of the training loss
    assert page.text.count("3 of 3 diverged") == 2  # in the legend
    assert page.text.count("train/loss is nan at step 60") == 6  # in the table
    assert "The best value lies on the edge" not in page.text
    values = [json.loads(p.read_text())["best"]["value"] for p in path.glob("*-lr=0.1,weight_decay=0.0,*/run.json")]
    assert f"best val/loss {sum(values) / 3:.4f} (" in page.text
    assert "3 seeds" in page.text


def test_the_causes_of_members_that_did_not_train_stand_in_the_table_and_are_counted(tmp_path: Path) -> None:
    members = [{"optimizer.lr": lr} for lr in (0.1, 0.2, 0.3)]
    path = write_sweep(tmp_path / "sweep", members, ["optimizer.lr"])
    assert "did not train" not in Page(html.write_sweep(path)).text
    ends = [("trained", []), ("slow", ["step-too-small", "warmup-too-long"]), ("stalled", ["step-too-small"])]
    for directory, (outcome, causes) in zip(sorted(path.glob("*-lr=*")), ends, strict=True):
        info = json.loads((directory / "run.json").read_text())
        (directory / "run.json").write_text(json.dumps(info | {"outcome": outcome, "causes": causes}))
    page = Page(html.write_sweep(path))
    check(page)
    assert "2 did not train well: 2 step-too-small" in page.text
    assert "status outcome cause best val/loss" in page.text
    assert page.text.count("step-too-small") == 1 + 2
    assert "warmup-too-long" not in page.text


def test_a_best_value_on_the_edge_of_the_range_is_noted(tmp_path: Path) -> None:
    members = [{"optimizer.lr": lr, "quality": lr} for lr in (0.3, 1.0, 3.0)]
    page = Page(html.write_sweep(write_sweep(tmp_path / "sweep", members, ["optimizer.lr"])))
    check(page)
    assert "on the edge of the swept range: optimizer.lr=3 is the largest that was tried" in page.text
    assert "Settings, averaged" not in page.text


def test_a_tie_stands_in_the_headline(tmp_path: Path) -> None:
    members = [
        {"optimizer.lr": lr, "seed": seed, "quality": quality}
        for lr, quality in ((0.1, 1.0), (0.2, 1.0), (0.3, 1.0), (0.4, 1.0), (0.5, 1.0), (1.0, 0.1))
        for seed in range(3)
    ]
    for member in members[3:15]:
        member["seed"] = 2 - member["seed"]  # the same numbers in another order: ties, whatever the noise
    page = Page(html.write_sweep(write_sweep(tmp_path / "sweep", members, ["optimizer.lr", "seed"])))
    check(page)
    tie = "(tied with lr=0.2, lr=0.3, lr=0.4 and 1 more, within the interval of the seeds)"
    assert f"Best: lr=0.1 {tie}" in page.text
    assert "close ranks mean nothing" not in page.text


@pytest.mark.parametrize(("seeds", "word"), [(1, "one seed"), (2, "2 seeds")])
def test_ranks_without_an_interval_are_not_oversold(tmp_path: Path, seeds: int, word: str) -> None:
    members = [{"optimizer.lr": lr, "seed": seed, "quality": lr} for lr in (0.1, 0.2, 0.3) for seed in range(seeds)]
    page = Page(html.write_sweep(write_sweep(tmp_path / "sweep", members, ["optimizer.lr", "seed"])))
    assert f"With {word} for the best setting, close ranks mean nothing" in page.text
    assert "tied" not in page.text


@pytest.mark.parametrize(("decays", "is_counted"), [((0.0,), False), ((1e-4, 2e-4), True)])
def test_settings_that_do_not_fit_beside_each_other_are_counted(
    tmp_path: Path, decays: tuple[float, ...], is_counted: bool
) -> None:
    swept = ["optimizer.lr", "optimizer.weight_decay", "seed"]
    members = [dict(zip(swept, values, strict=True)) for values in product((0.1, 0.2, 0.3), decays, (0, 1))]
    page = Page(html.write_sweep(write_sweep(tmp_path / "sweep", members, swept)))
    assert (f"optimizer.lr 0.1 ({2 * len(decays)} runs), 0.2 (" in page.text) == is_counted
    assert ("optimizer.lr 0.1 0.2 0.3" in page.text) == (not is_counted)


def test_words_can_be_swept(tmp_path: Path) -> None:
    members = [{"optimizer": name, "seed": seed} for name in ("sgd", "adamw") for seed in (0, 1)]
    page = Page(html.write_sweep(write_sweep(tmp_path / "sweep", members, ["optimizer", "seed"])))
    check(page)
    assert "Mean over seeds, too few of them for an interval" in page.text


def test_a_sweep_in_which_everything_was_lost(tmp_path: Path) -> None:
    members = [{"optimizer.lr": lr, "status": "diverged"} for lr in (1.0, 2.0, 3.0)]
    page = Page(html.write_sweep(write_sweep(tmp_path / "sweep", members, ["optimizer.lr"])))
    check(page)
    assert "No member has a result" in page.text
    assert "3 diverged" in page.text


def test_a_sweep_that_has_not_begun(tmp_path: Path) -> None:
    members = [{"optimizer.lr": lr, "status": "not started"} for lr in (1.0, 2.0, 3.0)]
    page = Page(html.write_sweep(write_sweep(tmp_path / "sweep", members, ["optimizer.lr"])))
    check(page)
    assert "3 not started" in page.text


def test_a_folder_of_runs_from_another_launcher_tells_them_apart_by_their_configs(tmp_path: Path) -> None:
    path = write_sweep(tmp_path / "sweep", [], [])
    for number, lr in enumerate((0.1, 0.2, 0.3)):
        write_run(path / str(number), quality=lr, lr=lr)
    page = Page(html.write_sweep(path))
    check(page)
    assert "Best: lr=0.3" in page.text


@pytest.mark.parametrize("rows_each", [22, 2000])
def test_sixty_four_members_fit_into_a_small_file(tmp_path: Path, rows_each: int) -> None:
    members = [
        {"optimizer.lr": 10 ** (-4 + i / 2), "optimizer.weight_decay": 10.0 ** (-5 + j), "quality": 0.1 * i + 0.05 * j}
        for i in range(16)
        for j in range(4)
    ]
    path = write_sweep(tmp_path / "sweep", members, ["optimizer.lr", "optimizer.weight_decay"])
    if rows_each > 22:
        for file in path.glob("*/metrics.jsonl"):
            rows = [{"step": s, "time": s, "train/loss": 1 + s % 7, "val/loss": 1 + s % 5} for s in range(rows_each)]
            file.write_text("\n".join(map(json.dumps, rows)))
    file = html.write_sweep(path)
    check(Page(file))
    assert file.stat().st_size < 1_500_000


def test_a_study(tmp_path: Path) -> None:
    page = Page(html.write_study(write_study(tmp_path / "study")))
    check(page)
    order = ["verdict", "figures", "measures", "curves", "config", "table", "reproduce", "versions"]
    places = [page.section(name) for name in order]
    assert places == sorted(places)
    assert "Does Exp1 train where Exp2 does not?" in page.text
    assert "claim C1, C3" in page.text
    assert "Does Exp1 train where Exp2 does not? 2 of 4 answers supported, 1 refuted, 1 inconclusive." in page.text
    assert "supported : Exp1 trains and Exp2 does not" in page.text
    assert "gradient share: optimizer SGD momentum 0.9, betas [0.9,0.99]; supported if" in page.text
    assert "refuted : Adam is faster than the repaired SGD" in page.text
    assert "0.790 accuracy, 98.33 % interval 0.700 to 0.880 (t, 4 seeds)" in page.text
    assert "supported if the whole interval lies above 0.2000" in page.text
    assert "0.1000, exact: no seeds are needed" in page.text
    assert "Effect: none could be measured" in page.text  # of the inconclusive one, which is not left out
    assert "final 11 completed, 1 diverged" in page.text
    assert "arm=exp2 seed=1 diverged: train/loss is nan at step 60" in page.text
    assert "0.157 (0.056 to 0.257, 3 seeds), 1 without a value" in page.text
    assert page.count["figure"] == 3 + 2 + 3  # effects with an interval; measures; curves
    assert "optexp study=exp1_vs_exp2 model=mlp" in page.text
    assert "scipy 1.17.1" in page.text


def test_a_study_without_runs_and_one_that_was_interrupted(tmp_path: Path) -> None:
    path = write_study(tmp_path / "study")
    study = json.loads((path / "study.json").read_text())
    study["stages"], study["measured"] = {}, {}
    (path / "final").rename(path / "elsewhere")
    (path / "study.json").write_text(json.dumps(study))
    page = Page(html.write_study(path))
    check(page)
    assert page.count["figure"] == 3
    begun = {key: study[key] for key in ("study", "question", "claim", "command")}
    (path / "study.json").write_text(json.dumps({**begun, "status": "interrupted"}))
    page = Page(html.write_study(path))
    check(page)
    assert "The study is interrupted" in page.text


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        ([], ""),
        (["refuted"], "Refuted."),
        (["supported"] * 3, "All 3 answers supported."),
        (["inconclusive", "refuted", "inconclusive"], "1 of 3 answers refuted, 2 inconclusive."),
    ],
)
def test_a_study_has_one_sentence_for_all_its_answers(tmp_path: Path, verdicts: list[str], sentence: str) -> None:
    path = write_study(tmp_path / "study")
    study = json.loads((path / "study.json").read_text())
    answer = study["answers"]["trains"]
    study["answers"] = {str(number): answer | {"verdict": verdict} for number, verdict in enumerate(verdicts)}
    (path / "study.json").write_text(json.dumps(study))
    assert f"Exp2 does not? {sentence}".strip() in Page(html.write_study(path)).text


@pytest.mark.parametrize(("name", "is_turned"), [("a", False), ("a_name_of_some_length_", True)])
def test_arms_that_do_not_fit_beside_each_other_are_lines(tmp_path: Path, name: str, is_turned: bool) -> None:
    path = write_study(tmp_path / "study")
    shutil.rmtree(path / "final")
    arms = [{"arm": f"{name}{number}", "optimizer.lr": 0.1 * number, "seed": 0} for number in range(1, 7)]
    write_sweep(path / "final", arms, ["arm", "seed"])
    page = Page(html.write_study(path))
    assert (f"optimizer.lr {name}1 0.1 {name}2 0.2" in page.text) == is_turned
    assert ("optimizer.lr 0.1 0.2 0.3" in page.text) == (not is_turned)


def test_main_effects_and_interactions_are_a_picture_and_a_table(tmp_path: Path) -> None:
    path = write_study(tmp_path / "study")
    study = json.loads((path / "study.json").read_text())
    interval = {"estimate": 0.25, "low": 0.2, "high": 0.3, "level": 0.9833, "n": 4, "method": "t"}
    study["effects"] = {
        "accuracy": [
            {"factors": ["lr"], "interval": interval, "per_seed": [0.2, 0.25, 0.25, 0.3]},
            {"factors": ["lr", "dampening"], "interval": None, "per_seed": [None] * 4},
        ]
    }
    (path / "study.json").write_text(json.dumps(study))
    page = Page(html.write_study(path))
    check(page)
    assert "effect of accuracy interval lr 0.250 0.200 to 0.300 (98.33 %, 4 seeds) lr × dampening none" in page.text


def poison(value: Any) -> Any:
    """Return JSON with EVIL in place of every text that nothing is computed with."""
    kept = ("status", "started", "metric", "directory", "choices", "verdict", "supported_if", "method", "stages")
    if isinstance(value, dict):
        return {key: item if key in kept else poison(item) for key, item in value.items()}
    if isinstance(value, list):
        return [poison(item) for item in value]
    return EVIL if isinstance(value, str) else value


def test_every_text_is_escaped(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / "run"), write_study(tmp_path / "study")]
    paths.append(write_sweep(tmp_path / "sweep", [{"optimizer.lr": 1.0}, {"optimizer.lr": 2.0}], ["optimizer.lr"]))
    for file in [file for path in paths for name in ("run", "sweep", "study") for file in path.rglob(f"{name}.json")]:
        content = json.loads(file.read_text())
        content = poison(content)
        if "baselines" in content:
            content["baselines"] = {EVIL: 0.5}
        if "measured" in content:
            content["measured"] = {EVIL: {EVIL: [1.0, 2.0, 3.0]}}
        file.write_text(json.dumps(content))
    for path in paths:
        page = Page(html.write(path))
        check(page)
        assert EVIL in page.text
        assert "img" not in page.count


def test_write_finds_out_what_a_directory_holds(tmp_path: Path) -> None:
    write_study(tmp_path / "study")
    for path in (tmp_path / "study", tmp_path / "study" / "final", next((tmp_path / "study" / "final").glob("0-*"))):
        assert html.write(path) == path / "report.html"
    kinds = ["Study exp1_vs_exp2", "Sweep: ", "Run: "]
    files = sorted(tmp_path.rglob("report.html"), key=lambda file: len(file.parts))
    assert [kind in file.read_text() for kind, file in zip(kinds, files, strict=True)] == [True] * 3


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere: no such folder"):
        html.write(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"holds neither a run \(run.json\) nor a sweep"):
        html.write(tmp_path)
    for name in ("run.json", "sweep.json", "study.json"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("{")
        with pytest.raises(BadInput, match=rf"{name}: cannot be read"):
            html.write(folder)
    (tmp_path / "study" / "study.json").write_text("[]")
    with pytest.raises(BadInput, match="is not the record of a study"):
        html.write(tmp_path / "study")
    (tmp_path / "sweep" / "sweep.json").write_text('{"members": 3}')
    with pytest.raises(BadInput, match=r"sweep\.json: cannot be read"):
        html.write(tmp_path / "sweep")


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    (path / "report.html").mkdir()
    with pytest.raises(StorageError, match=r"report\.html: cannot be written"):
        html.write(path)
