"""What is fuzzed: each target takes anything, and raises only what its code promises.

`tests/fuzz/test_targets.py` runs each for some seconds, `make fuzz` for as long as it is told.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from segzero_cli.bag.reader import open_topic
from segzero_core.completion.parser import StreamReader, parse_completion
from segzero_core.config import GraspConfig
from segzero_core.depth import CameraModel, depth_in_meters, measure_object
from segzero_core.errors import AnswerParseError, InputError, TruncatedReplyError
from segzero_core.events import AnswerDelta, PromptFound, ThinkingDelta
from segzero_core.images.encodings import ENCODINGS, rgb_from_compressed_msg, rgb_from_msg
from segzero_core.images.files import load_image
from segzero_core.prompt import TEMPLATES, build_prompt, clean_query
from tests.fuzz import strategies


@dataclass(frozen=True)
class Target:
    """A function, what it is fed with, and how many inputs take about ten seconds."""

    run: Callable[[Any], None]
    inputs: st.SearchStrategy[Any]
    examples: int


def _outcome(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (AnswerParseError, TruncatedReplyError) as error:
        return type(error), str(error)


def read_a_reply(case: tuple[str, bool]) -> None:
    """A reply has an answer or one of two errors; every number in it is finite."""
    text, native = case
    answer = _outcome(lambda: parse_completion(text, native=native))
    for prompt in getattr(answer, "prompts", ()):
        numbers = [*prompt.box.xyxy, *(v for point in prompt.points for v in point.xy)]
        assert np.isfinite(numbers).all()


def read_a_reply_in_chunks(case: tuple[str, list[int], bool]) -> None:
    """However a reply is cut, it means the same, at its end and while it grows."""
    text, lengths, native = case
    whole, chunked = StreamReader(native=native), StreamReader(native=native)
    at_once, pieces, place = whole.feed(text), [], 0
    while place < len(text):
        length = lengths[len(pieces) % len(lengths)]
        pieces.append(chunked.feed(text[place : place + length]))
        place += length
    events = [event for piece in pieces for event in piece]
    for kind in (ThinkingDelta, AnswerDelta):
        said = ["".join(e.text for e in part if isinstance(e, kind)) for part in (events, at_once)]
        assert said[0] == said[1]
    found = [[e for e in part if isinstance(e, PromptFound)] for part in (events, at_once)]
    assert found[0] == found[1]
    assert whole.answer_closed == chunked.answer_closed
    ends = [_outcome(reader.finish) for reader in (whole, chunked)]
    assert ends[0] == ends[1] == _outcome(lambda: parse_completion(text, native=native))


def read_an_image_file(content: bytes) -> None:
    """An image is uint8 [H, W, 3], or an InputError, as a file and as a message."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        message = SimpleNamespace(format="jpeg", data=content)
        for read in (lambda: load_image(file.name), lambda: rgb_from_compressed_msg(message)):
            _is_image(read)


def read_an_image_message(fields: dict[str, Any]) -> None:
    """A raw image of any size, encoding and data is an image, or an InputError."""
    _is_image(lambda: rgb_from_msg(SimpleNamespace(**fields)))


def _is_image(read: Callable[[], Any]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow and NumPy about what is odd but readable
            pixels = read()
    except InputError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


def read_a_bag(content: bytes) -> None:
    """A bag gives images, each with pixels or a reason, or an InputError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bag.mcap"
        path.write_bytes(content)
        try:
            with open_topic(path, strategies.TOPIC) as topic:
                for image in topic.images(limit=10):
                    assert (image.pixels is None) == bool(image.error)
        except InputError:
            return


def measure_depth(seed: int) -> None:
    """Any depth under a mask has a shape, or an InputError says why not."""
    rng = np.random.default_rng(seed)
    height, width = 120, 160
    focal = rng.uniform(25, 225)
    k = np.array([[focal, 0, 80], [0, focal * rng.uniform(0.9, 1.1), 60], [0, 0, 1]])
    distortion = tuple(rng.normal(0, 0.2, 5)) if rng.random() < 0.3 else ()
    base, mode = rng.uniform(0.2, 3), rng.integers(6)
    rows, columns = np.mgrid[:height, :width]
    slope = rng.normal(0, 0.01) * (rows - 60)
    depth = base + slope + rng.normal(0, 0.01) * (columns - 80)
    mask = np.zeros((height, width), np.bool_)
    left, top = rng.integers(4, 100), rng.integers(4, 80)
    wide, high = rng.integers(3, 56), rng.integers(3, 36)
    mask[top : top + high, left : left + wide] = True
    if mode == 1:
        depth[mask] -= rng.uniform(0, 0.2)
    if mode == 2:
        depth[mask] = rng.uniform(0.2, 3)
    if mode == 3:
        depth += rng.normal(0, 0.02, depth.shape)
    if mode == 4:
        odd = [np.nan, np.inf, 0, -1, 1e30, 1e-30, 1e5]
        depth[rng.random(depth.shape) < 0.3] = rng.choice(odd)
    if mode == 5:
        mask = ((columns - left) ** 2 + (rows - top) ** 2) < rng.integers(4, 600)
    depth = (depth if mode == 4 else np.abs(depth)).astype(np.float32)
    depth_m = depth_in_meters(depth, "32FC1")
    if rng.random() < 0.1:
        depth_m *= np.float32(10.0 ** rng.integers(-8, 20))
    up = None if rng.random() < 0.5 else rng.normal(size=3)
    gripper = GraspConfig(gripper_opening_m=float(rng.uniform(0.005, 1)))
    camera = CameraModel(k, distortion, (width, height))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            measured = measure_object(mask, depth_m, camera, up=up, grasping=gripper)
    except InputError:
        return
    assert np.isfinite(measured.box.size_m).all()


def clean_an_instruction(text: str) -> None:
    """A goal's words are cleaned once and for all, or an InputError says what is wrong."""
    try:
        cleaned = clean_query(text)
    except InputError:
        return
    assert clean_query(cleaned) == cleaned
    assert "\n" not in cleaned
    for template in TEMPLATES:
        assert build_prompt(template, cleaned)


_IMAGE_FIELDS = st.fixed_dictionaries(
    {
        "height": st.integers(0, 20),
        "width": st.integers(0, 20),
        "encoding": st.sampled_from([*ENCODINGS, "rgb16", ""]),
        "is_bigendian": st.integers(0, 255),
        "step": st.integers(0, 200),
        "data": st.binary(max_size=400),
    }
).map(lambda f: f | ({"data": bytes(f["step"] * f["height"])} if f["step"] % 2 else {}))

TARGETS = {
    "reply": Target(read_a_reply, st.tuples(strategies.texts(), st.booleans()), 1500),
    "chunks": Target(
        read_a_reply_in_chunks,
        st.tuples(strategies.texts(), strategies.cuts(), st.booleans()),
        1000,
    ),
    "image": Target(read_an_image_file, strategies.damaged(strategies.image_files()), 1000),
    "message": Target(read_an_image_message, _IMAGE_FIELDS, 1500),
    "bag": Target(read_a_bag, strategies.damaged(strategies.bags()), 600),
    "depth": Target(measure_depth, st.integers(0, 2**32 - 1), 150),
    "instruction": Target(clean_an_instruction, st.one_of(strategies.texts(), st.text()), 2000),
}
"""By name."""
