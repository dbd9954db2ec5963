"""Language modelling on text that is at hand: named pieces of text in, three disjoint streams of tokens out."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from optexp import streams
from optexp.datasets.base import Dataset, Split
from optexp.datasets.cache import decoded, identity
from optexp.datasets.details import check_fractions, described
from optexp.errors import BadInput

_REPEATED = 80  # characters from which on a paragraph counts as a repetition and not as a common phrase
_BLOCKS = 100  # contiguous pieces into which a single file is cut
_LARGEST_TABLE = 4096  # vocabulary up to which a table of all pairs of tokens is small (128 MB)


def pydocs(
    context_length: int = 64, split_seed: int = 0, val_fraction: float = 0.1, test_fraction: float = 0.1
) -> Dataset:
    """Return the documentation that Python carries with it (`pydoc_data.topics`) as a stream of characters.

    Whole topics, drawn by `split_seed`, make up the splits. Topics quote each other at length, so a paragraph that
    repeats is kept only where it comes first: otherwise much of the validation text would be known from training. The
    vocabulary is the sorted characters of all splits together. The text differs between Python versions; the recorded
    fingerprints tell them apart. Raises BadInput when a split is shorter than one context.
    """
    source = find_spec("pydoc_data.topics")
    key = [sys.version, *(identity(Path(source.origin)) if source and source.origin else [])]
    kept = decoded("pydocs", key, _topics)
    names, vocabulary = kept["names"].tolist(), str(kept["vocabulary"])
    pieces = dict(zip(names, np.split(kept["tokens"], kept["lengths"].cumsum()[:-1]), strict=True))
    return _language(
        "pydocs",
        "pydoc_data.topics",
        pieces,
        len(vocabulary),
        context_length,
        split_seed,
        val_fraction,
        test_fraction,
        vocabulary=vocabulary,
    )


def _topics() -> dict[str, np.ndarray]:
    """Return Python's help topics, in alphabetical order, as one stream of tokens with the lengths of its pieces."""
    from pydoc_data.topics import topics

    pieces, vocabulary = _encoded(_without_repetitions({name: topics[name] for name in sorted(topics)}))
    return {
        "tokens": np.concatenate(list(pieces.values())),
        "lengths": np.array([len(tokens) for tokens in pieces.values()]),
        "names": np.array(list(pieces)),
        "vocabulary": np.array(vocabulary),
    }


def text(
    path: str,
    level: Literal["character", "byte"] = "character",
    context_length: int = 64,
    split_seed: int = 0,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
) -> Dataset:
    """Return the user's own file as a stream of characters (UTF-8) or of bytes (any file).

    The file is cut into 100 contiguous blocks of equal length, which `split_seed` deals out to the splits. The
    vocabulary is the sorted characters of the whole file, or the 256 bytes. Raises BadInput when the file cannot be
    read or decoded, or when a split is shorter than one context.
    """
    try:
        content = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise BadInput(f"dataset.path={path}: cannot be read ({error.strerror}); set it to a text file") from None
    if level == "byte":
        tokens, size, vocabulary = np.frombuffer(content, dtype=np.uint8).astype(np.int64), 256, "bytes"
    else:
        try:
            pieces, vocabulary = _encoded({"": content.decode("utf-8")})
        except UnicodeDecodeError as error:
            raise BadInput(
                f"dataset.path={path}: byte {error.start} is not UTF-8; convert the file or set dataset.level=byte"
            ) from None
        tokens, size = pieces[""], len(vocabulary)
    blocks = {str(number): block for number, block in enumerate(np.array_split(tokens, _BLOCKS))}
    return _language(
        "text", path, blocks, size, context_length, split_seed, val_fraction, test_fraction, vocabulary=vocabulary
    )


def bigram_cross_entropy(train: Tensor, evaluated: Tensor, vocabulary_size: int) -> float:
    """Return the mean -log p(next token | token) over `evaluated`, in nats per token.

    p is estimated by counting the pairs of `train` (both int64 streams), one added to each count.
    """
    pairs = torch.bincount(train[:-1] * vocabulary_size + train[1:], minlength=vocabulary_size**2)
    probabilities = pairs.view(vocabulary_size, vocabulary_size).to(torch.float64).add_(1)
    probabilities /= probabilities.sum(1, keepdim=True)
    return -float(probabilities[evaluated[:-1], evaluated[1:]].log().mean())


def _language(
    name: str,
    source: str,
    pieces: dict[str, np.ndarray],
    vocabulary_size: int,
    context_length: int,
    split_seed: int,
    val_fraction: float,
    test_fraction: float,
    **details: object,
) -> Dataset:
    check_fractions(val_fraction, test_fraction)
    if context_length < 1:
        raise BadInput(f"dataset.context_length={context_length}: must be at least 1 token")
    lengths = {piece: len(tokens) for piece, tokens in pieces.items()}
    dealt = _dealt(lengths, val_fraction, test_fraction, split_seed)
    nothing = np.empty(0, dtype=np.int64)
    train, val, test = (
        Split(torch.from_numpy(np.concatenate([nothing, *(pieces[piece] for piece in names)]))) for names in dealt
    )
    # Training windows are shifted by up to a context, so the training split must hold two of them.
    window = context_length + 1
    for part, split, needed in (
        ("training", train, 2 * context_length),
        ("validation", val, window),
        ("test", test, window),
    ):
        if len(split.inputs) < needed:
            raise BadInput(
                f"dataset.context_length={context_length}: the {part} split of {source} has {len(split.inputs)} tokens "
                f"and needs {needed}; shorten the context or give it more text"
            )
    baselines = {}
    if vocabulary_size <= _LARGEST_TABLE:
        baselines["bigram cross-entropy"] = bigram_cross_entropy(train.inputs, val.inputs, vocabulary_size)
    pieces_of = {"val": dealt[1], "test": dealt[2]}
    return Dataset(
        name=name,
        kind="tokens",
        objective="language",
        input_shape=(context_length,),
        num_outputs=vocabulary_size,
        train=train,
        val=val,
        test=test,
        baselines=baselines,
        details=described(source, train, val, test, split_seed=split_seed, pieces=pieces_of, **details),
    )


def _dealt(
    lengths: dict[str, int], val_fraction: float, test_fraction: float, split_seed: int
) -> tuple[list[str], list[str], list[str]]:
    """Deal named pieces out to training, validation and test at random; each part keeps the pieces' own order.

    A piece goes to validation if it still fits there, else to test if it fits there, else to training. So the sizes
    come close to the fractions although pieces differ in length, and neither held-out split is larger than asked for.
    """
    names = list(lengths)
    order = torch.randperm(len(names), generator=streams.generator(split_seed, "split"))
    total = sum(lengths.values())
    room = {"val": val_fraction * total, "test": test_fraction * total}
    part_of = {}
    for name in (names[i] for i in order):
        part = next((part for part in room if lengths[name] <= room[part]), "train")
        part_of[name] = part
        if part in room:
            room[part] -= lengths[name]
    train, val, test = ([name for name in names if part_of[name] == part] for part in ("train", "val", "test"))
    return train, val, test


def _encoded(pieces: dict[str, str]) -> tuple[dict[str, np.ndarray], str]:
    """Return the pieces as int64 tokens and the vocabulary: token i is its i-th character."""
    codes = {name: np.frombuffer(piece.encode("utf-32-le"), dtype=np.uint32) for name, piece in pieces.items()}
    used = np.zeros(0x110000, dtype=bool)
    for piece in codes.values():
        used[piece] = True
    token_of = used.cumsum() - 1
    vocabulary = "".join(map(chr, used.nonzero()[0]))
    return {name: token_of[piece] for name, piece in codes.items()}, vocabulary


def _without_repetitions(pieces: dict[str, str]) -> dict[str, str]:
    """Drop every long paragraph that occurred before, in the same piece or in an earlier one."""
    seen: set[str] = set()
    kept = {}
    for name, piece in pieces.items():
        paragraphs = [paragraph for paragraph in re.split(r"\n\s*?\n", piece) if paragraph.strip()]
        fresh = []
        for paragraph in paragraphs:
            essence = " ".join(paragraph.split())
            if len(essence) < _REPEATED or essence not in seen:
                fresh.append(paragraph)
                seen.add(essence)
        kept[name] = "\n\n".join(fresh) + "\n\n"
    return kept
