"""`task=surface`: optimizers by their names, tuned alike, with pictures, animation and everything in result.json."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from command_line import here
from PIL import Image

from optexp.config.compose import Composer
from optexp.errors import BadInput
from optexp.report.figures.surfaces import surface_figure, write_animation
from optexp.tasks import prepare

SHORT = ("task=surface", "hydra.run.dir=run", "task.steps=12", "task.rates=3", "task.frames=4", "task.realizations=2")


def test_paths_pictures_and_table(tmp_path: Path) -> None:
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    text = "# mine\n_target_: torch.optim.SGD\nlr: 1\nmomentum: 0.5\nweight_decay: 0.25\n"
    (tmp_path / "mine" / "optimizer" / "own.yaml").write_text(text)
    names = "task.optimizers=['own','sgd momentum=0 weight_decay=0']"
    surfaces = "task.surfaces=[noisy_quadratic,saddle]"
    grid = ["task.lowest_rate=0.01", "task.highest_rate=100"]
    ended = here(tmp_path, "--config-dir", "mine", *SHORT, names, surfaces, *grid)
    assert (ended.status, ended.err) == (0, "")
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["optimizers"]["own"] == {
        "constructor": "SGD",
        "arguments": {"lr": "tuned", "momentum": 0.5, "weight_decay": 0.25},
    }
    own, sgd = found["surfaces"]["saddle"]["optimizers"]
    assert [entry["lr"] for entry in own["tuning"]] == [0.01, 1.0, 100.0]
    assert own["tuning"][2]["mean_final_loss"] is None  # diverged
    assert own["effective_lr"] == pytest.approx(2 * own["lr"])
    assert sgd["effective_lr"] == sgd["lr"]
    # SGD on the saddle by hand, from the first start, in the digits that are written.
    place = torch.tensor(found["surfaces"]["saddle"]["starts"][0], dtype=torch.float64)
    for shown in sgd["drawn_paths"]["places"][0]:
        assert shown == pytest.approx(place.tolist(), rel=1e-5)
        x, y = place
        place = place - sgd["lr"] * torch.stack([x, y**3 - y])
    assert len(found["surfaces"]["noisy_quadratic"]["optimizers"][0]["final_losses"]) == 8
    assert len(sgd["drawn_paths"]["losses"][0]) == 13
    noisy = found["surfaces"]["noisy_quadratic"]["optimizers"][0]
    assert (sgd["paths"], noisy["paths"]) == (4, 8)  # all that were walked; drawn is one from each start
    assert len(noisy["drawn_paths"]["places"]) == 4
    assert sgd["mean_losses"][-1] == pytest.approx(sgd["final_loss"], rel=1e-5)
    figures = tmp_path / "run" / "figures"
    assert sorted(path.name for path in figures.iterdir()) == [
        "noisy_quadratic.png",
        "saddle.png",
        "surfaces.gif",
        "surfaces.png",
    ]
    with Image.open(figures / "surfaces.gif") as animation:
        assert animation.n_frames > 4  # type: ignore[attr-defined]
    for words in ("effective lr", "own 0.25", "sgd momentum=0", "steps to threshold"):
        assert words in ended.out


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["task.optimizers=[adm]"], "task.optimizers: adm: optimizer=adm: no such optimizer (did you mean 'adam'?)"),
        (["task.optimizers=['adam eps']"], "task.optimizers: adam eps: "),
        (["task.optimizers=['adam momentum=0.9']"], "adam takes no 'momentum'"),
        (["task.optimizers=['adam eps=-1']"], "optimizer.eps=-1: allowed is"),
        (["task.optimizers=['adam lr=5']"], "adam lr=5: lr=5: the learning rate is tuned (task.lowest_rate, task.high"),
        (["task.optimizers=['adam eps=1 +lr=5']"], "+lr=5: the learning rate is tuned"),
        (["task.optimizers=[adam,adam]"], "task.optimizers=[adam,adam]: adam stands there twice"),
        (["task.optimizers=[]"], "task.optimizers=[]: allowed is a list of names, one at least"),
        (["task.surfaces=[beal]"], "task.surfaces: no surface 'beal' (did you mean 'beale'?)"),
        (["task.lowest_rate=3", "task.highest_rate=2"], "task.lowest_rate=3: is above highest_rate=2"),
        (["task.steps=0"], "task.steps=0: allowed is"),
        (["optimizer.lr=0.1"], "optimizer.lr: task=surface does not use the group 'optimizer'"),
    ],
)
def test_mistakes_are_refused_in_one_line(composer: Composer, words: list[str], error: str) -> None:
    with pytest.raises(BadInput, match=re.escape(error)) as caught:
        prepare(composer.compose(["task=surface", *words]))
    assert "\n" not in str(caught.value)


def picture(steps: int) -> dict[str, object]:
    side = [-1.0, 0.0, 1.0]
    outward = [(0.1 * step, 0.0) for step in range(steps)]
    inward = [(0.5 / (1 + step), 0.0) for step in range(steps)]
    lost = [(10.0**step, 0.0) for step in range(steps)]
    paths = [
        {"optimizer": "a", "lr": 0.1, "places": [outward, inward], "mean_losses": [1.0] * steps},
        {"optimizer": "b", "lr": 0.1, "places": [lost, lost], "mean_losses": [1.0, *[float("inf")] * (steps - 1)]},
    ]
    heights = [[x * x + y * y for x in side] for y in side]
    return {"name": "n", "formula": "f", "minima": [(0, 0)], "x": side, "y": side, "heights": heights, "paths": paths}


def test_a_path_that_leaves_the_picture_is_cut_off_and_counted() -> None:
    figure = surface_figure(picture(30))
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts == ["1 of 2 leave the picture", "2 of 2 leave the picture"]
    longest = max(abs(x) for axes in figure.axes[:2] for line in axes.lines for x in line.get_xdata())
    assert longest <= 40  # twenty pictures
    assert figure.axes[0].get_xlim() == (-1, 1)


def test_an_animation_keeps_below_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    size = write_animation([picture(30)], path, frames=20)
    with Image.open(path) as animation:
        frames = animation.n_frames  # type: ignore[attr-defined]
    assert path.stat().st_size == size
    smaller = write_animation([picture(30)], path, frames=20, limit=size - 1)
    assert path.stat().st_size == smaller < size
    with Image.open(path) as animation:
        assert animation.n_frames < frames  # type: ignore[attr-defined]
