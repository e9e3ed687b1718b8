"""Finds a model's folder by name, path or Hub id.

A name is `tabletop` or `libero` (both come with the package), a local folder, or a Hub id. Folders
hold the formats in which the models are published, so a download and a folder go through the same
code.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segzero_core.checkpoints.description import BUILT_IN, FILE_NAME, ModelDescription
from segzero_core.checkpoints.model_folder import check_model_folder
from segzero_core.errors import ConfigError, ModelLoadError, shown
from segzero_core.files import read_regular
from segzero_core.limits import MAX_JSON_BYTES

BUNDLED: Final = ("tabletop", "libero")
"""Models that come with the package."""

REASONER_FILES: Final = ("*.json", "*.safetensors", "*.txt", "*.jinja")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Seconds until the Hub must have answered.
_HUB_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model lies and how it is asked."""

    name: str  # what the model was called by
    reasoner: Path  # folder with the reasoner's weights, configuration and processor
    description: ModelDescription  # how the reasoner is asked
    segmenter: str  # folder or Hub id of the segmenter that goes with it


def find_model(model: str) -> ModelFiles:
    """Find a model by name, fetching it from the Hub where it must come from there.

    Raises:
        ConfigError: Its `segzero.json` is missing or wrong.
        ModelLoadError: It is nowhere.
    """
    if model in BUNDLED:
        return _from_folder(model, bundled_folder(model))
    if (folder := local_folder(model)) is not None:
        return _from_folder(model, folder)
    if not is_hub_id(model):
        raise ModelLoadError(
            f"model {shown(model)}: there is no such folder, and it is neither a bundled model"
            f" ({', '.join(BUNDLED)}) nor a Hub id such as Ricky06662/VisionReasoner-7B"
        )
    reasoner = fetch_from_hub(model, REASONER_FILES)
    check_model_folder(reasoner)
    if (reasoner / FILE_NAME).is_file() or model not in BUILT_IN:
        description = ModelDescription.from_file(reasoner / FILE_NAME)
    else:
        description = BUILT_IN[model]
    return ModelFiles(model, reasoner, description, _segmenter_of(reasoner, description))


def describe_model(name: str) -> ModelFiles | None:
    """Find how a bundled model, a folder or a Hub id is asked, without its weights or the network.

    The folder of a Hub id does not exist; None stands for an unknown name.

    Raises:
        ConfigError: Its `segzero.json` is missing or wrong.
    """
    if name in BUNDLED or local_folder(name) is not None:
        return find_model(name)
    if name not in BUILT_IN:
        return None
    description = BUILT_IN[name]
    return ModelFiles(name, Path(name), description, description.segmenter)


def local_folder(name: str) -> Path | None:
    """Return the folder of this name, or None; no text is too odd to be asked about."""
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, no such user, a NUL
        return None


def bundled_folder(name: str) -> Path:
    """Return the folder of a model that comes with the package.

    Raises:
        ModelLoadError: The package was installed without it.
    """
    places = list(_bundled_places(name))
    for place in places:
        if (place / "reasoner").is_dir():
            return place
    listed = ", ".join(str(place) for place in places)
    raise ModelLoadError(
        f"model {name!r} comes with the package but is not there; looked in {listed}."
        " Install the package again, or name a folder or a Hub id"
    )


def _bundled_places(name: str) -> Iterator[Path]:
    package = Path(__file__).resolve().parents[1]
    yield package.parent / "models" / name  # the source tree
    yield package / "_bundled" / name  # installed by pip
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    for prefix in filter(None, prefixes):  # installed by CMake
        yield Path(prefix) / "share" / "segzero_ros" / "models" / name


def _from_folder(name: str, folder: Path) -> ModelFiles:
    reasoner = folder / "reasoner" if (folder / "reasoner").is_dir() else folder
    check_model_folder(reasoner)
    description = ModelDescription.from_file(reasoner / FILE_NAME)
    return ModelFiles(name, reasoner, description, _segmenter_of(reasoner, description))


def _segmenter_of(reasoner: Path, description: ModelDescription) -> str:
    """Read the description's segmenter as a folder beside the reasoner, else as a Hub id."""
    beside = local_folder(str(reasoner / description.segmenter))
    if beside is not None and not _leads_out(reasoner, description.segmenter):
        return str(beside.resolve())
    if is_hub_id(description.segmenter):
        return description.segmenter
    raise ConfigError(
        f"{reasoner / FILE_NAME}: segmenter {shown(description.segmenter)} is neither a folder"
        " relative to it nor a Hub id such as facebook/sam2-hiera-large"
    )


def _leads_out(reasoner: Path, segmenter: str) -> bool:
    """Say whether a relative path leaves the model's folder, which holds the reasoner's."""
    if Path(segmenter).is_absolute():  # as training writes it beside a checkpoint
        return False
    whole = reasoner.resolve().parent
    return not (reasoner / segmenter).resolve().is_relative_to(whole)


def is_hub_id(name: str) -> bool:
    """Say whether a name has the form owner/name."""
    return _HUB_ID.fullmatch(name) is not None


def fetch_from_hub(repo_id: str, patterns: Sequence[str]) -> Path:
    """Return the local folder of a Hub repository `owner/name` with the files of these patterns.

    The network is asked only if it must be.

    Raises:
        ModelLoadError: It is not in the cache and cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    wanted = list(patterns)
    try:
        cached = Path(snapshot_download(repo_id, allow_patterns=wanted, local_files_only=True))
        if _is_complete(cached, wanted):
            return cached
    except (OSError, ValueError):
        pass  # not in the cache
    reason = "The download is incomplete."
    try:
        # Without network this may return what the cache has.
        fetched = Path(
            snapshot_download(repo_id, allow_patterns=wanted, etag_timeout=_HUB_TIMEOUT_S)
        )
        if _is_complete(fetched, wanted):
            return fetched
    except Exception as error:  # the Hub's client raises those of its HTTP library as well
        reason = _first_line(error)
    raise ModelLoadError(
        f"{repo_id} is neither a folder here nor whole in the Hub's cache, and cannot be fetched:"
        f" {reason} Download it on a machine with network, and name its folder"
    )


def _is_complete(folder: Path, patterns: Sequence[str]) -> bool:
    """Say whether a cached snapshot has all files; an interrupted download lacks some."""
    if not all(any(folder.glob(pattern)) for pattern in patterns if "*" not in pattern):
        return False
    if "*.safetensors" not in patterns:
        return True
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return any(folder.glob("*.safetensors"))
    text = read_regular(index, MAX_JSON_BYTES).decode("utf-8", "replace")
    names = set(re.findall(r'"([^"/]+\.safetensors)"', text))
    return all((folder / name).is_file() for name in names)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".") + "."
