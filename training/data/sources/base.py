"""What every data set is read into: samples, and bad samples with the reason why.

A `Source` knows at once how many samples it has and which annotation files it stands on; images
and masks are touched only when a sample's turn comes. Training data and evaluation read the same
sources.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from PIL import Image

from segzero_core.errors import InputError
from segzero_core.prompt import clean_query
from segzero_core.types import SizeWH
from training.data.errors import IMAGE_DAMAGED, IMAGE_MISSING, QUERY_UNUSABLE, SampleError
from training.data.sources.rle import Rle

FIRST: Final = "first"
ALL: Final = "all"
JOINED: Final = "joined"
SENTENCE_POLICIES: Final = (FIRST, ALL, JOINED)
"""The first sentence of an annotation | each one as a sample of its own | all in one query."""

# A few images are missing here and there in anybody's copy; more is a download that broke off.
MAX_MISSING_IMAGES = 0.02
_ORIENTATION_TAG = 0x0112
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True)
class Sample:
    """One question about one image, with its true answer.

    Attributes:
        source_id: Data set, split and the annotation's own numbers; unique in its source.
        image: The image's file, or its encoded bytes where the file cannot be used as it is.
        size_wh: Width and height of the upright image, and of all masks [px].
        query: What is asked, as the model gets it.
        kind: The source's kind of question; `none` where nothing fits.
        masks: One per object that is meant; none where nothing fits.
        ignore: Where neither answer is wrong; None where there is no such place.
        split: The source's split, such as `train` or `testA`.
    """

    source_id: str
    image: Path | bytes
    size_wh: SizeWH
    query: str
    kind: str
    masks: tuple[Rle, ...]
    ignore: Rle | None
    split: str


@dataclass(frozen=True)
class BadSample:
    """A sample that cannot be used.

    Attributes:
        source_id: As `Sample.source_id`, as far as it is known.
        reason: One of the words of this module.
        detail: What was wrong and where.
    """

    source_id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Record:
    """An annotation that is not read out yet.

    Attributes:
        source_id: See `Sample`.
        kind: See `Sample`.
        content: Whatever the source needs to make the sample.
    """

    source_id: str
    kind: str
    content: Any = field(repr=False)


@dataclass(frozen=True)
class Source:
    """A data set that was opened: its annotations are known, its images still unread.

    Attributes:
        name: Data set and split, for messages.
        records: In a fixed order; one that is known to be bad already stands among them.
        make: Turns a record into a sample, or raises `SampleError`.
        fingerprint: SHA-256 of the annotations, to notice that they changed.
    """

    name: str
    records: Sequence[Record | BadSample] = field(repr=False)
    make: Callable[[Record], Sample] = field(repr=False)
    fingerprint: str

    def __len__(self) -> int:
        return len(self.records)

    def read(self, start: int = 0) -> Iterator[Sample | BadSample]:
        """Give every sample from number `start` on, one for each record, in order."""
        for record in self.records[start:]:
            yield record if isinstance(record, BadSample) else self._read(record)

    def _read(self, record: Record) -> Sample | BadSample:
        try:
            return self.make(record)
        except SampleError as error:
            return BadSample(record.source_id, error.reason, str(error))


def join(sources: Sequence[Source]) -> Source:
    """Make one source of several, one behind the other."""
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
    kinds: Sequence[str] | None,
    limit: int | None,
) -> tuple[Record | BadSample, ...]:
    """Keep the records of some kinds, and the first so many of them.

    Bad samples stay: their kind may not be known.

    Raises:
        InputError: There is no such kind, or nothing is left.
    """
    if unknown := [kind for kind in kinds or () if kind not in known_kinds]:
        raise InputError(f"{name}: no kind {unknown[0]!r}; there are {', '.join(known_kinds)}")
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
    """Turn the sentences of one annotation into its queries, as the policy says.

    Args:
        sentences: Number and text of each, at least one.
        policy: One of `SENTENCE_POLICIES`.

    Returns:
        Number and text of each query.
    """
    if policy == ALL:
        return list(sentences)
    if policy == FIRST:
        return [sentences[0]]
    return [(JOINED, ", ".join(dict.fromkeys(text for _, text in sentences)))]


def check_policy(policy: str) -> None:
    """Refuse a sentence policy that does not exist.

    Raises:
        InputError: It is none of `SENTENCE_POLICIES`.
    """
    if policy not in SENTENCE_POLICIES:
        raise InputError(f"sentences: no {policy!r}; there are {', '.join(SENTENCE_POLICIES)}")


def check_split(name: str, split: str, splits: Sequence[str]) -> None:
    """Refuse a split that the data set does not have.

    Raises:
        InputError: It is none of `splits`.
    """
    if split not in splits:
        raise InputError(f"{name}: no split {split!r}; there are {', '.join(splits)}")


def usable_query(text: object) -> str:
    """Return the text as the model is asked it; see `clean_query`.

    Raises:
        SampleError: It cannot be asked.
    """
    try:
        return clean_query(text)  # type: ignore[arg-type]
    except InputError as error:
        raise SampleError(QUERY_UNUSABLE, str(error)) from error


def check_complete(images: Iterable[Path], name: str) -> None:
    """Refuse a folder in which too many images are missing.

    Raises:
        InputError: More than `MAX_MISSING_IMAGE_ENCODINGS` of them are.
    """
    files = list(dict.fromkeys(images))
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
        return path.read_bytes()
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


@dataclass(frozen=True)
class ImageHeader:
    """What the head of an image file says.

    Attributes:
        stored_wh: Width and height of the pixels as they lie in the file [px].
        orientation: EXIF's number; 1 is upright.
    """

    stored_wh: SizeWH
    orientation: int

    @property
    def upright_wh(self) -> SizeWH:
        """Width and height once the image was turned as its tag says [px]."""
        width, height = self.stored_wh
        return (height, width) if self.orientation in _SIDEWAYS else (width, height)


def read_header(path: Path) -> ImageHeader:
    """Read size and orientation of an image without its pixels.

    Raises:
        SampleError: The file is missing, or no image.
    """
    try:
        with Image.open(path) as image:
            return ImageHeader(image.size, int(image.getexif().get(_ORIENTATION_TAG, 1)))
    except FileNotFoundError:
        raise SampleError(IMAGE_MISSING, f"{path}: there is no such image") from None
    except UNREADABLE_IMAGE as error:
        raise SampleError(IMAGE_DAMAGED, f"{path}: {error}") from error


def as_stored(path: Path) -> bytes:
    """Return an image as PNG, its pixels as they lie in the file, whatever its tag says.

    Raises:
        SampleError: The file is no whole image.
    """
    try:
        with Image.open(path) as image:
            stored = BytesIO()
            image.convert("RGB").save(stored, "PNG")
    except UNREADABLE_IMAGE as error:
        raise SampleError(IMAGE_DAMAGED, f"{path}: {error}") from error
    return stored.getvalue()


UNREADABLE_IMAGE: Final = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises about a damaged image."""
