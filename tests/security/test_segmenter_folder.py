"""One malicious segmenter folder for each row of docs/security.md."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from segzero_core import ConfigError, ModelLoadError
from segzero_core.checkpoints.pickle_check import nesting
from segzero_core.checkpoints.sam2_checkpoint import (
    TrackingFacts,
    find_sam2,
    read_state,
    segmenter_hash,
)
from segzero_core.checkpoints.weights import file_digest, reasoner_hash
from segzero_core.segmenter.sam2 import load_segmenter


@pytest.fixture
def segmenter(model: Path) -> Path:
    return model / "segmenter"


def pt(pickled: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive as torch writes it, around a pickle."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        archive.writestr("model/data.pkl", pickled)
        archive.writestr("model/version", "3\n")
        archive.writestr("model/byteorder", "little")
    return content.getvalue()


def nested_key(depth: int) -> bytes:
    """A dict whose key is a tuple in a tuple …; hashing it needs the stack of the interpreter."""
    return b"\x80\x02}(" + b"K\x01" + b"\x85" * depth + b"K\x02u."


def test_a_code_field_of_the_configuration_runs_nothing(
    segmenter: Path, payload: Any, witness: Path
) -> None:
    evil = segmenter / "weights.data"
    evil.write_bytes(pickle.dumps(payload))
    config = next(segmenter.glob("*.yaml"))
    call = f"{{_target_: torch.load, f: {evil}, weights_only: false}}"
    for value in (f"'${{oc.create:{call}}}'", f"'\\${{oc.create:{call}}}'", call):
        config.write_text(f"model:\n  _target_: {value}\n")
        with pytest.raises(ConfigError):
            load_segmenter(str(segmenter))
    config.write_text(
        f"model:\n  _target_: sam2.modeling.sam2_base.SAM2Base\n  weights_path: {evil}\n"
    )
    with pytest.raises(ConfigError, match="unknown argument 'weights_path'"):
        load_segmenter(str(segmenter))
    assert not witness.exists()


def test_a_yaml_bomb_is_refused(segmenter: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    next(segmenter.glob("*.yaml")).write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="aliases"):
        load_segmenter(str(segmenter))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", ["*.yaml", "*.safetensors"])
def test_a_pipe_is_not_waited_for(segmenter: Path, pattern: str) -> None:
    file = next(segmenter.glob(pattern))
    file.unlink()
    os.mkfifo(file)
    with pytest.raises((ConfigError, ModelLoadError), match="no regular file"):
        load_segmenter(str(segmenter))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param("payload", "missing or damaged", id="bare pickle"),
        pytest.param("payload in archive", "missing or damaged", id="pickle in an archive"),
        pytest.param(pt(nested_key(100_000)), "nested more than", id="nested key"),
        pytest.param(pt(b"\x80\x02" + b"]" * 50 + b"a" * 49 + b"."), "nested", id="nested list"),
        pytest.param(
            pt(b"\x80\x02K\x01r\x00\x00\x00\x20."), "holds no state dict", id="memo 2^29"
        ),
        pytest.param(pt(bytes(10**6), zipfile.ZIP_DEFLATED), "packed", id="packed"),
        pytest.param(pt(b"\x80\x02(((((u."), "missing or damaged", id="broken"),
        pytest.param(pt(b"\x80\x02h\x05."), "missing or damaged", id="memo of nothing"),
        pytest.param(pt(bytes(21_000_000)), "list of weights has", id="long"),
    ],
)
def test_a_pt_file_crashes_nothing_and_runs_nothing(
    tmp_path: Path, payload: Any, witness: Path, content: Any, complaint: str
) -> None:
    file = tmp_path / "sam2.pt"
    if isinstance(content, str):
        content = pickle.dumps(payload) if content == "payload" else pt(pickle.dumps(payload))
    file.write_bytes(content)
    with pytest.raises(ModelLoadError, match=complaint):
        read_state(file)
    assert not witness.exists()


def test_a_pt_file_of_tensors_is_read(tmp_path: Path) -> None:
    state = {"model": {f"layer.{n}": torch.full((2, 3), float(n)) for n in range(20)}}
    torch.save(state, tmp_path / "sam2.pt")
    assert torch.equal(read_state(tmp_path / "sam2.pt")["layer.7"], torch.full((2, 3), 7.0))


def test_nesting_is_counted_as_pickle_builds_it() -> None:
    shared = [1]
    for value, depth in ((1, 1), ([[]], 3), ({"a": (1, [2])}, 4), ([shared, shared], 3)):
        for protocol in range(2, 5):
            assert nesting(pickle.dumps(value, protocol)) >= depth - 1
    assert nesting(pickle.dumps({"a": 1})) < 10


def test_a_link_does_not_choose_the_hash(segmenter: Path, tmp_path: Path) -> None:
    """The Hub's cache names files by their hash; a folder `blobs` is easily made."""
    weights = next(segmenter.glob("*.safetensors"))
    wished = "ab" * 32
    (tmp_path / "blobs").mkdir()
    blob = weights.rename(tmp_path / "blobs" / wished)
    weights.symlink_to(blob)
    assert file_digest(weights) == hashlib.sha256(blob.read_bytes()).hexdigest() != wished


def test_another_configuration_is_another_model(model: Path, segmenter: Path) -> None:
    """Exported encoders and engines are kept under this hash."""
    before, reasoner = segmenter_hash(find_sam2(str(segmenter))), reasoner_hash(model / "reasoner")
    config = next(segmenter.glob("*.yaml"))
    config.write_text(config.read_text() + "# changed\n")
    assert segmenter_hash(find_sam2(str(segmenter))) != before
    for name in ("tokenizer.json", "config.json", "chat_template.jinja", "segzero.json"):
        file = model / "reasoner" / name
        file.write_text(file.read_text() + "\n")
        changed = reasoner_hash(model / "reasoner")
        assert changed != reasoner
        reasoner = changed
    (model / "reasoner" / "README.md").write_text("hello")
    assert reasoner_hash(model / "reasoner") == reasoner


@pytest.mark.parametrize("side", [51_200, -1, 63, 1.5, True, "64"])
def test_a_tracking_side_has_a_range(side: Any) -> None:
    with pytest.raises(ConfigError, match="expected 64 to 4096 px, or 0"):
        TrackingFacts(side=side)
