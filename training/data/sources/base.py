"""Common form of all data sets: samples, and bad samples with the reason.

Opening a `Source` reads the annotations only, so the number of samples is known at once. An image
and its masks are read when the sample's turn comes. Training data and evaluation read the same
sources.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple

from segzero_core.errors import InputError
from segzero_core.files import read_regular
from segzero_core.images.files import UNREADABLE_IMAGE, open_image
from segzero_core.limits import MAX_ANNOTATION_BYTES
from segzero_core.prompt import clean_query
from segzero_core.types import SizeWH
from training.arguments import option, positive
from training.data.errors import IMAGE_DAMAGED, IMAGE_MISSING, QUERY_UNUSABLE, SampleError
from training.data.sources.rle import Rle

FIRST: Final = "first"
ALL: Final = "all"
JOINED: Final = "joined"
SENTENCE_POLICIES: Final = (FIRST, ALL, JOINED)
"""The first sentence of an annotation | each one as a sample of its own | all in one query."""

# Most copies lack a few images. More of them means that a download broke off.
MAX_MISSING_IMAGES = 0.02
_ORIENTATION_TAG = 0x0112
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True)
class SourceOptions:
    """Which samples are read; the fields are options of `python -m training.data.prepare`."""

    source: str = option(MISSING, "the data set")
    root: Path = option(MISSING, "the folder it lies in", type=Path)
    split: str = option("train", "the data set's split")
    split_by: str | None = option(
        None, "unc, umd or google; the usual one of the data set by default"
    )
    sentences: str = option(FIRST, "of an annotation", choices=SENTENCE_POLICIES)
    kinds: tuple[str, ...] | None = option(None, "only these kinds of questions", nargs="+")
    limit: int | None = option(None, "only the first so many samples", type=positive)
    allow_partial: bool = option(default=False, help="accept a copy that is not whole")
    labels: Path | None = option(
        None, "COCO instances file over the images, for the source coco", type=Path
    )
    absent_share: float | None = option(
        None,
        "of coco: share of the images asked for what they lack",
        type=float,
        flag="--absent",
    )


@dataclass(frozen=True)
class Sample:
    """One question about one image, with its true answer."""

    source_id: str  # data set, split and the annotation's own numbers; unique in its source
    # The image's file, or its encoded bytes where the file cannot be used as it is.
    image: Path | bytes
    size_wh: SizeWH  # width and height of the upright image, and of all masks [px]
    query: str  # what is asked, as the model gets it
    kind: str  # the source's kind of question; `none` where nothing fits
    masks: tuple[Rle, ...]  # one for each object that is meant; none where nothing fits
    ignore: Rle | None  # pixels that count neither way; None where there are none
    split: str  # the source's split, such as `train` or `testA`


@dataclass(frozen=True)
class BadSample:
    """A sample that cannot be used; `reason` is one of the words of `training.data.errors`."""

    source_id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Record:
    """An annotation before its sample is made; `content` is for the source alone."""

    source_id: str
    kind: str
    content: Any = field(repr=False)


@dataclass(frozen=True)
class Source:
    """An open data set: its annotations were read, its images were not."""

    name: str  # data set and split, for messages
    # In a fixed order. A bad sample that is known already stands among them.
    records: Sequence[Record | BadSample] = field(repr=False)
    # Turns a record into a sample, or raises `SampleError`.
    make: Callable[[Record], Sample] = field(repr=False)
    fingerprint: str  # SHA-256 of the annotations. It shows when they change.

    def __len__(self) -> int:
        return len(self.records)

    def read(self, start: int = 0) -> Iterator[Sample | BadSample]:
        """Yield the samples from number `start` on, one for each record, in order."""
        for record in self.records[start:]:
            try:
                yield record if isinstance(record, BadSample) else self.make(record)
            except SampleError as error:
                yield BadSample(record.source_id, error.reason, str(error))


def join(sources: Sequence[Source]) -> Source:
    """Make one source of several, one after the other."""
    records: list[Record | BadSample] = []
    for number, source in enumerate(sources):
        records += (
            record if isinstance(record, BadSample) else replace(record, content=(number, record))
            for record in source.records
        )

    def make(record: Record) -> Sample:
        number, original = record.content
        return sources[number].make(original)

    name = " and ".join(source.name for source in sources)
    parts = (source.fingerprint.encode() for source in sources)
    return Source(name, tuple(records), make, fingerprint(parts))


def choose(
    records: Iterable[Record | BadSample],
    name: str,
    known_kinds: Sequence[str],
    options: SourceOptions,
) -> tuple[Record | BadSample, ...]:
    """Keep the records that the options name; bad samples stay, for their kind may be unknown.

    Raises:
        InputError: There is no such kind, or nothing is left.
    """
    kinds, limit = options.kinds, options.limit
    for kind in kinds or ():
        check_choice(f"{name}: no kind", kind, known_kinds)
    chosen: list[Record | BadSample] = []
    for record in records:
        if limit is not None and len(chosen) >= limit:
            break
        if isinstance(record, BadSample) or kinds is None or record.kind in kinds:
            chosen.append(record)
    if not chosen:
        raise InputError(f"{name}: no sample of kind {', '.join(kinds or known_kinds)} in it")
    return tuple(chosen)


def apply_sentences(sentences: Sequence[tuple[str, str]], policy: str) -> list[tuple[str, str]]:
    """Turn the sentences of one annotation into its queries, as one of `SENTENCE_POLICIES` says.

    Sentences and queries are pairs of number and text; there is at least one sentence.
    """
    if policy == ALL:
        return list(sentences)
    if policy == FIRST:
        return [sentences[0]]
    return [(JOINED, ", ".join(dict.fromkeys(text for _, text in sentences)))]


def check_choice(problem: str, value: str, known: Iterable[str]) -> None:
    """Refuse a value that does not exist, such as `refcoco: no split` 'testC'.

    Raises:
        InputError: It is not among the known ones, which the message lists.
    """
    if value not in (names := tuple(known)):
        raise InputError(f"{problem} {value!r}; there are {', '.join(names)}")


def usable_query(text: object) -> str:
    """Return the text as a query; see `clean_query`.

    Raises:
        SampleError: It cannot be asked.
    """
    try:
        return clean_query(text)  # type: ignore[arg-type]
    except InputError as error:
        raise SampleError(QUERY_UNUSABLE, str(error)) from error


def check_complete(find: Callable[[Any], Path], keys: Iterable[Any], name: str) -> None:
    """Refuse a data set of which too many images are missing.

    Args:
        find: Returns the image file of a key. Where it raises `SampleError`, the key does not
            count: its sample reports the error later.
        keys: One for each image, perhaps repeated.
        name: Begins the message.

    Raises:
        InputError: More than the share `MAX_MISSING_IMAGES` is missing.
    """
    files: dict[Path, None] = {}
    for key in keys:
        with suppress(SampleError):
            files[find(key)] = None
    missing = [path for path in files if not path.is_file()]
    if len(missing) > MAX_MISSING_IMAGES * len(files):
        raise InputError(
            f"{name}: {len(missing)} of {len(files)} images are missing, the first is"
            f" {missing[0]}; download the rest, or allow a partial copy (--allow-partial)"
        )


def check_count(found: int, published: int | None, where: Path, what: str) -> None:
    """Refuse annotations that are more or fewer than were published.

    Raises:
        InputError: The counts differ.
    """
    if published is not None and found != published:
        raise InputError(
            f"{where}: {found} {what}, the published version has {published}: another version or"
            " half a download; get it again, or allow it (--allow-partial)"
        )


def read_annotations(path: Path) -> bytes:
    """Read an annotation file.

    Raises:
        InputError: It is missing or cannot be read.
    """
    try:
        return read_regular(path, MAX_ANNOTATION_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; see docs/data.md") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def fingerprint(parts: Iterable[bytes]) -> str:
    """Return the SHA-256 over several byte strings and their lengths."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


class ImageHeader(NamedTuple):
    """Size of an image as stored and upright [px], and whether it is stored upright."""

    stored_wh: SizeWH
    upright_wh: SizeWH
    is_upright: bool


def read_header(path: Path) -> ImageHeader:
    """Read size and orientation of an image without its pixels.

    Raises:
        SampleError: The file is missing, or no image.
    """
    try:
        with open_image(path) as image:
            orientation = image.getexif().get(_ORIENTATION_TAG, 1)
            upright_wh = image.size[::-1] if orientation in _SIDEWAYS else image.size
            return ImageHeader(image.size, upright_wh, orientation == 1)
    except FileNotFoundError:
        raise SampleError(IMAGE_MISSING, f"{path}: there is no such image") from None
    except UNREADABLE_IMAGE as error:
        raise SampleError(IMAGE_DAMAGED, f"{path}: {error}") from error


def as_stored(path: Path) -> bytes:
    """Return an image as PNG with its pixels as stored, ignoring the orientation tag.

    Raises:
        SampleError: The file is no whole image.
    """
    try:
        with open_image(path) as image:
            stored = BytesIO()
            image.convert("RGB").save(stored, "PNG")
    except UNREADABLE_IMAGE as error:
        raise SampleError(IMAGE_DAMAGED, f"{path}: {error}") from error
    return stored.getvalue()
