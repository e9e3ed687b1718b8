"""TensorRT engines of the image encoder: builds them, and keeps them in the cache.

Written for the documented Python API that TensorRT 10.3 to 11 have in common. It has not yet run
with the real library, for lack of a GPU. `benchmarks/gpu.py --tensorrt` builds an engine, checks
its masks and times it.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from segzero_core.checkpoints.cache import cache_folder, only_one, write_cached
from segzero_core.encoders.onnx_export import onnx_path
from segzero_core.errors import (
    ConfigError,
    EngineMismatchError,
    ModelLoadError,
    OutOfMemoryError,
    is_out_of_memory,
)

OLDEST: Final = (10, 3)
NEWEST_MAJOR: Final = 11
_WORKSPACE_BYTES: Final = 4 << 30
_KEY_DIGITS: Final = 24

Progress = Callable[[str, int, int], None]
"""Called with the phase of a build, the step, and the number of steps."""


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Everything that an engine depends on.

    Attributes:
        weights_hash: Of the segmenter's weights.
        onnx_hash: SHA-256 of the graph.
        tensorrt: Its version.
        gpu: The GPU's name.
        compute_capability: Such as `9.0`.
        precision: Of the graph.
        shape: Of its input.
        machine: The CPU's architecture.
    """

    weights_hash: str
    onnx_hash: str
    tensorrt: str
    gpu: str
    compute_capability: str
    precision: str
    shape: str
    machine: str

    @property
    def path(self) -> Path:
        """Path of this engine in the cache; its notes are beside it."""
        text = json.dumps(asdict(self), sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]
        return cache_folder("engines") / f"{name}.engine"

    @property
    def timing_cache(self) -> Path:
        """Path of the builder's timing cache, which makes the next build faster."""
        name = f"{self.tensorrt}-{self.gpu}-{self.compute_capability}"
        safe = "".join(char if char.isalnum() else "_" for char in name)
        return cache_folder("engines") / f"{safe}.timing"


def import_tensorrt() -> Any:
    """Import TensorRT, but only if there is a GPU: without one it ends the process.

    Raises:
        ConfigError: There is no GPU, no TensorRT, or one of another generation.
    """
    if not torch.cuda.is_available():
        raise ConfigError("backend tensorrt: torch sees no GPU; use onnxruntime or torch")
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"backend tensorrt: it cannot be imported ({error}); pip install segzero[trt], or on a"
            " Jetson take the system's package"
        ) from error
    version = str(tensorrt.__version__)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if not OLDEST <= numbers < (NEWEST_MAJOR + 1,):
        raise ConfigError(
            f"backend tensorrt: version {version} is not between"
            f" {'.'.join(map(str, OLDEST))} and {NEWEST_MAJOR}; install one that is"
        )
    return tensorrt


def engine_key(
    tensorrt: Any, device: torch.device, weights_hash: str, precision: str, side: int
) -> EngineKey:
    """Return the key of the engine for an exported encoder on this machine.

    Args:
        tensorrt: The module.
        device: The GPU.
        weights_hash: Of the segmenter's weights.
        precision: Of the graph.
        side: Of the encoder's input [px].

    Raises:
        ModelLoadError: The encoder was not exported.
    """
    graph = onnx_path(weights_hash, side, precision)
    try:
        with graph.open("rb") as file:
            onnx_hash = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelLoadError(f"{graph} cannot be read: {error}; run segzero export") from error
    major, minor = torch.cuda.get_device_capability(device)
    return EngineKey(
        weights_hash=weights_hash,
        onnx_hash=onnx_hash,
        tensorrt=str(tensorrt.__version__),
        gpu=torch.cuda.get_device_name(device),
        compute_capability=f"{major}.{minor}",
        precision=precision,
        shape=f"1x3x{side}x{side}",
        machine=platform.machine(),
    )


def build_engine(tensorrt: Any, onnx: Path, key: EngineKey, progress: Progress) -> Path:
    """Build an engine into the cache unless it is there; a second builder waits for the first.

    Args:
        tensorrt: The module.
        onnx: The graph; its types are the engine's.
        key: What the engine is for.
        progress: Called after each step.

    Returns:
        The engine's path.

    Raises:
        ConfigError: The driver does not support this TensorRT.
        ModelLoadError: The graph cannot be built, or the cache has no room.
        OutOfMemoryError: The GPU has too little memory.
    """
    with only_one(key.path):
        with suppress(ModelLoadError):  # there is none, or a damaged one
            read_engine(key)
            return key.path
        engine = _build(tensorrt, onnx, key, progress)
        write_cached(key.path, engine)
        write_notes(key, {"sha256": hashlib.sha256(engine).hexdigest()})
    return key.path


def read_engine(key: EngineKey) -> bytes:
    """Read an engine from the cache.

    Raises:
        EngineMismatchError: It was built for something else, or is damaged.
        ModelLoadError: There is none.
    """
    if not key.path.is_file():
        others = len(list(key.path.parent.glob("*.engine"))) if key.path.parent.is_dir() else 0
        found = f" ({others} for other weights or machines)" if others else ""
        raise ModelLoadError(
            f"there is no engine for these weights on {key.gpu} with TensorRT"
            f" {key.tensorrt}{found}; run segzero build-engine"
        )
    notes = read_notes(key)
    stated = {name: notes.get(name) for name in asdict(key)}
    if stated != asdict(key):
        wrong = sorted(name for name, value in asdict(key).items() if stated[name] != value)
        raise EngineMismatchError(
            f"{key.path} was built for another {', '.join(wrong)}; delete it and run segzero"
            " build-engine"
        )
    engine = key.path.read_bytes()
    if hashlib.sha256(engine).hexdigest() != notes.get("sha256"):
        raise EngineMismatchError(
            f"{key.path} is damaged: {len(engine)} bytes with another SHA-256 than when it was"
            " built; delete it and run segzero build-engine"
        )
    return engine


def read_notes(key: EngineKey) -> dict[str, Any]:
    """Read the notes beside an engine; empty if they cannot be read."""
    try:
        notes = json.loads(key.path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def write_notes(key: EngineKey, notes: dict[str, Any]) -> None:
    """Write notes beside an engine, such as its checksum and the agreement of its masks."""
    write_cached(key.path.with_suffix(".json"), json.dumps(asdict(key) | notes, indent=1))


def _build(tensorrt: Any, onnx: Path, key: EngineKey, progress: Progress) -> bytes:
    try:
        return _serialized_engine(tensorrt, onnx, key, progress)
    except (ConfigError, ModelLoadError):
        raise
    except Exception as error:  # TensorRT and CUDA have no common root
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                f"not enough GPU memory to build the engine: {error}"
            ) from error
        raise ModelLoadError(f"TensorRT failed to build {onnx}: {error}") from error


def _serialized_engine(tensorrt: Any, onnx: Path, key: EngineKey, progress: Progress) -> bytes:
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    if builder is None:
        raise ConfigError(
            f"TensorRT {key.tensorrt} makes no builder on {key.gpu}: the driver may be too old"
            " for it; update the driver, or install an older TensorRT"
        )
    # Strongly typed: the engine keeps the graph's types. TensorRT 11 has no other mode.
    flag = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flag)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        faults = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ModelLoadError(f"TensorRT cannot read {onnx}: {faults}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    if key.precision == "fp32":
        config.clear_flag(tensorrt.BuilderFlag.TF32)
    known = key.timing_cache.read_bytes() if key.timing_cache.is_file() else b""
    config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
    config.progress_monitor = _monitor(tensorrt, progress)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ModelLoadError(
            f"TensorRT could not build {onnx} for {key.gpu}; its own lines above say why. If GPU"
            " memory ran out, stop what else uses it and try again"
        )
    write_cached(key.timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(engine)


def _monitor(tensorrt: Any, progress: Progress) -> Any:
    """Return a TensorRT progress monitor that calls `progress`."""

    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, name: str, _parent: str | None, steps: int) -> None:
            self._steps[name] = steps
            progress(name, 0, steps)

        def step_complete(self, name: str, step: int) -> bool:
            progress(name, step + 1, self._steps.get(name, 0))
            return True

        def phase_finish(self, name: str) -> None:
            steps = self._steps.pop(name, 0)
            progress(name, steps, steps)

    return Monitor()
