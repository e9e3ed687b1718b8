"""The bundled reasoner behind a real server (`transformers serve`) answers as it does locally."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from segzero_core import ConfigError, ModelLoadError, RgbImage, SegZero
from segzero_core.checkpoints.registry import bundled_folder

pytest.importorskip("openai")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

FOLDER = bundled_folder("tabletop") / "reasoner"
START_TIMEOUT_S = 120.0
QUERIES = ("the red mug", "something to drive a nail with", "all the fruit", "the largest object")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of the bundled reasoner, served in float32 as it is used on a CPU."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(FOLDER)]
    command += ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_ready(process, port)
        yield f"http://127.0.0.1:{port}/v1#{FOLDER}"
    finally:
        process.terminate()
        process.wait(30.0)


def wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at:
        assert process.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1.0).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"the server is not ready after {START_TIMEOUT_S} s")


def drawn_table() -> RgbImage:
    """A table with a few colored shapes."""
    image = Image.new("RGB", (640, 480), (150, 140, 130))
    draw = ImageDraw.Draw(image)
    draw.rectangle((100, 120, 180, 240), fill=(200, 30, 30))
    draw.ellipse((300, 200, 400, 300), fill=(30, 160, 40))
    draw.rectangle((450, 300, 600, 350), fill=(30, 60, 200))
    return np.asarray(image)


@pytest.mark.slow
def test_the_replies_are_those_of_the_local_model(server: str) -> None:
    local = SegZero.load("tabletop", device="cpu")
    remote = SegZero.load(server, device="cpu")
    image = drawn_table()

    for query in QUERIES:
        expected, got = local.segment(image, query), remote.segment(image, query)
        assert got.reasoning.completion == expected.reasoning.completion
        assert np.array_equal(got.segmentation.masks, expected.segmentation.masks)
    assert remote.identity.name == server


@pytest.mark.slow
def test_a_description_of_another_size_is_refused_at_the_start(
    server: str, tmp_path: Path
) -> None:
    folder = tmp_path / "reasoner"
    folder.mkdir()
    shutil.copytree(FOLDER.parent / "segmenter", tmp_path / "segmenter")
    text = (FOLDER / "segzero.json").read_text().replace("336", "840")
    processor = (FOLDER / "processor_config.json").read_text().replace("112896", "705600")
    (folder / "segzero.json").write_text(text)
    (folder / "processor_config.json").write_text(processor)

    with pytest.raises(ModelLoadError, match=r"differ by -?\d+ prompt tokens, .* counts -?\d+"):
        SegZero.load(f"{server}={folder}", device="cpu")


def test_a_model_without_a_description_is_refused_before_the_network() -> None:
    with pytest.raises(ConfigError, match="how 'somebody/else' is asked is not known"):
        SegZero.load("http://127.0.0.1:9/v1#somebody/else")


def test_options_of_a_local_reasoner_are_refused() -> None:
    with pytest.raises(ConfigError, match="precision"):
        SegZero.load("http://127.0.0.1:9/v1#tabletop", precision="int8")
