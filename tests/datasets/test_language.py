"""Text as tokens: nothing of a held-out split is in training, and the bigram baseline is what it says."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from optexp.datasets.base import Dataset
from optexp.datasets.language import (
    _dealt,
    _encoded,
    _without_repetitions,
    bigram_cross_entropy,
    pydocs,
    text,
)
from optexp.errors import BadInput


def decoded(dataset: Dataset, part: str) -> str:
    vocabulary = dataset.details["vocabulary"]
    assert isinstance(vocabulary, str)
    return "".join(vocabulary[token] for token in getattr(dataset, part).inputs.tolist())


@pytest.fixture(scope="module")
def docs() -> Dataset:
    return pydocs()


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A file in which every place is recognizable: numbered words, with two-byte characters among them."""
    path = tmp_path / "book.txt"
    path.write_text("".join(f"{number}ü " for number in range(2000)), encoding="utf-8")
    return path


def slow_bigram(train: str, evaluated: str, vocabulary: int) -> float:
    pairs, firsts = Counter(pairwise(train)), Counter(train[:-1])
    logs = [math.log((pairs[a, b] + 1) / (firsts[a] + vocabulary)) for a, b in pairwise(evaluated)]
    return -math.fsum(logs) / len(logs)


def test_bigram_equals_counting_by_hand() -> None:
    assert bigram_cross_entropy(torch.tensor([0, 1, 0]), torch.tensor([0, 1]), 2) == pytest.approx(-math.log(2 / 3))
    draw = random.Random(0)
    train, evaluated = ("".join(draw.choices("abcde fg", weights=range(1, 9), k=k)) for k in (700, 300))
    pieces, vocabulary = _encoded({"train": train, "evaluated": evaluated})
    tokens = {name: torch.from_numpy(piece) for name, piece in pieces.items()}
    fast = bigram_cross_entropy(tokens["train"], tokens["evaluated"], len(vocabulary))
    assert fast == pytest.approx(slow_bigram(train, evaluated, len(vocabulary)), rel=1e-12)


def test_bigram_of_pydocs_equals_counting_by_hand(docs: Dataset) -> None:
    expected = slow_bigram(decoded(docs, "train"), decoded(docs, "val"), docs.num_outputs)
    assert docs.baselines["bigram cross-entropy"] == pytest.approx(expected, rel=1e-9)
    assert 2.2 < expected < 2.8


def test_pydocs_deals_out_whole_topics(docs: Dataset) -> None:
    from pydoc_data.topics import topics

    pieces = _without_repetitions({name: topics[name] for name in sorted(topics)})
    held_out = docs.details["pieces"]
    assert isinstance(held_out, dict)
    val, test = held_out["val"], held_out["test"]
    assert not set(val) & set(test)
    train = [name for name in pieces if name not in {*val, *test}]
    for part, names in (("train", train), ("val", val), ("test", test)):
        assert decoded(docs, part) == "".join(pieces[name] for name in names)
        assert names
    assert "".join(sorted(set("".join(pieces.values())))) == docs.details["vocabulary"]
    assert docs.num_outputs == len(docs.details["vocabulary"])
    total = sum(map(len, pieces.values()))
    for part in ("val", "test"):
        assert 0.08 * total < len(getattr(docs, part).inputs) <= 0.1 * total


def test_no_paragraph_of_the_held_out_topics_is_in_training(docs: Dataset) -> None:
    known = {" ".join(paragraph.split()) for paragraph in decoded(docs, "train").split("\n\n")}
    for part in ("val", "test"):
        paragraphs = [" ".join(paragraph.split()) for paragraph in decoded(docs, part).split("\n\n")]
        long = [paragraph for paragraph in paragraphs if len(paragraph) >= 80]
        assert len(long) > 20
        assert not [paragraph for paragraph in long if paragraph in known]


def test_repeated_paragraphs_are_kept_where_they_come_first() -> None:
    long, short = "word " * 20, "See also:"
    pieces = {"a": f"A\n\n{long}\n\n{short}\n", "b": f"B\n  \n   {long.replace(' ', '  ')}\n\n{short}\n\n{long}"}
    assert _without_repetitions(pieces) == {"a": f"A\n\n{long}\n\n{short}\n\n\n", "b": f"B\n\n{short}\n\n"}


def test_pydocs_depends_on_split_seed_alone(docs: Dataset) -> None:
    torch.manual_seed(9)
    again, other = pydocs(), pydocs(split_seed=1, context_length=16)
    assert again.details == docs.details
    assert other.details["fingerprints"] != docs.details["fingerprints"]
    assert other.details["pieces"] != docs.details["pieces"]
    assert other.input_shape == (16,)
    assert other.num_outputs == docs.num_outputs


@pytest.mark.parametrize("seed", range(5))
def test_pieces_are_dealt_to_one_split_each_and_none_is_too_full(seed: int) -> None:
    draw = random.Random(seed)
    lengths = {f"piece {i}": draw.randint(1, 60) for i in range(80)}
    total = sum(lengths.values())
    train, val, test = _dealt(lengths, 0.2, 0.1, split_seed=seed)
    assert sorted(train + val + test) == sorted(lengths)
    assert [name for name in lengths if name in val] == val, "in the pieces' own order"
    for names, fraction in ((val, 0.2), (test, 0.1)):
        assert 0.9 * fraction * total < sum(lengths[name] for name in names) <= fraction * total


def test_text_is_cut_into_blocks_that_belong_to_one_split_each(book: Path) -> None:
    dataset = text(str(book), context_length=32)
    whole = book.read_text(encoding="utf-8")
    parts = {part: decoded(dataset, part) for part in ("train", "val", "test")}
    assert dataset.details["vocabulary"] == " 0123456789ü"
    assert sum(map(len, parts.values())) == len(whole)
    assert Counter("".join(parts.values())) == Counter(whole)
    sizes = [len(whole) // 100 + (1 if number < len(whole) % 100 else 0) for number in range(100)]
    starts = [sum(sizes[:number]) for number in range(101)]
    held_out = dataset.details["pieces"]
    assert isinstance(held_out, dict)
    dealt = {part: [int(name) for name in held_out[part]] for part in ("val", "test")}
    assert [len(numbers) for numbers in dealt.values()] == [pytest.approx(10, abs=1)] * 2
    dealt["train"] = [number for number in range(100) if number not in {*dealt["val"], *dealt["test"]}]
    for part, numbers in dealt.items():
        assert parts[part] == "".join(whole[starts[number] : starts[number + 1]] for number in numbers)


def test_bytes_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "anything.bin"
    content = bytes(range(256)) * 20
    path.write_bytes(content)
    dataset = text(str(path), level="byte", context_length=16)
    assert dataset.num_outputs == 256
    tokens = torch.cat([dataset.train.inputs, dataset.val.inputs, dataset.test.inputs])
    assert tokens.dtype == torch.int64
    assert Counter(tokens.tolist()) == Counter(content)
    with pytest.raises(BadInput, match=r"dataset\.path=.*: byte 128 is not UTF-8; .* dataset\.level=byte"):
        text(str(path))


def test_a_large_vocabulary_has_no_table_of_pairs(tmp_path: Path) -> None:
    path = tmp_path / "signs.txt"
    path.write_text("".join(chr(0x4E00 + i) for i in range(5000)) * 2, encoding="utf-8")
    dataset = text(str(path))
    assert dataset.num_outputs == 5000
    assert dataset.baselines == {}


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"dataset\.path=.*none\.txt: cannot be read \(No such file or directory\)"):
        text(str(tmp_path / "none.txt"))
    with pytest.raises(BadInput, match=r"dataset\.path=.*: cannot be read \(Is a directory\)"):
        text(str(tmp_path))
    short = tmp_path / "short.txt"
    for content in ("", "a" * 1000):
        short.write_text(content)
        with pytest.raises(BadInput, match=r"dataset\.context_length=200: the .* split .* has \d+ tokens and needs"):
            text(str(short), context_length=200)
    with pytest.raises(BadInput, match=r"dataset\.context_length=0: must be at least 1"):
        pydocs(context_length=0)
    with pytest.raises(BadInput, match=r"dataset\.val_fraction=1\.5"):
        pydocs(val_fraction=1.5)
