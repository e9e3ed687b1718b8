"""TensorRT engines of the image encoder: builds them, and keeps them in the cache.

For the Python API that TensorRT 10.3 to 11 and TensorRT-RTX 1.7 have in common. The tests build
with TensorRT-RTX itself. No engine has run on a GPU yet; `segzero check-encoder` runs one.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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

GENERATIONS: Final = {"tensorrt": ((10, 3), 11, "trt"), "tensorrt-rtx": ((1, 7), 1, "rtx")}
"""For each backend the oldest version, the newest major version, and the extra that brings it."""
RTX_CAPABILITIES: Final = ((7, 5), (8, 6), (8, 9), (12, 0), (12, 1))
"""Compute capabilities that TensorRT-RTX supports. Engines for 7.5 are for no other."""
_WORKSPACE_BYTES: Final = 4 << 30
_KEY_DIGITS: Final = 24

Progress = Callable[[str, int, int], None]
"""Called with the phase of a build, the step, and the number of steps."""


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Everything that an engine depends on."""

    weights_hash: str  # of the segmenter's weights
    onnx_hash: str  # SHA-256 of the graph
    tensorrt: str  # its version
    gpu: str  # the GPU's name, or the kind of GPUs that one engine of TensorRT-RTX serves
    compute_capability: str  # such as `9.0`, or `8.6+`
    precision: str  # of the graph
    shape: str  # of its input
    machine: str  # the CPU's architecture

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
        return cache_folder("engines") / f"{_safe(name)}.timing"

    def compiled(self, gpu: str) -> Path:
        """Path of what TensorRT-RTX has compiled of this engine for a GPU of that name."""
        return self.path.with_suffix(f".{_safe(gpu)}.compiled")


def _safe(name: str) -> str:
    return "".join(char if char.isalnum() else "_" for char in name)


def import_tensorrt(backend: str = "tensorrt") -> Any:
    """Import TensorRT or TensorRT-RTX; the former only beside a GPU, else it ends the process.

    Raises:
        ConfigError: There is no GPU, no such package, or one of another generation.
    """
    oldest, newest_major, extra = GENERATIONS[backend]
    if backend == "tensorrt" and not torch.cuda.is_available():
        raise ConfigError(
            "backend tensorrt: torch sees no GPU; use onnxruntime or torch (only TensorRT-RTX"
            " builds without one: segzero build-engine --rtx)"
        )
    try:
        tensorrt = importlib.import_module(backend.replace("-", "_"))
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"backend {backend}: it cannot be imported ({error}); pip install segzero[{extra}]"
            + (", or on a Jetson take the system's package" if extra == "trt" else "")
        ) from error
    version = str(tensorrt.__version__)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if not oldest <= numbers < (newest_major + 1,):
        raise ConfigError(
            f"backend {backend}: version {version} is not between"
            f" {'.'.join(map(str, oldest))} and {newest_major}; install one that is"
        )
    return tensorrt


def is_rtx(tensorrt: Any) -> bool:
    """Whether a module is TensorRT-RTX."""
    return hasattr(tensorrt, "ComputeCapability")


def check_gpu(tensorrt: Any, device: torch.device) -> None:
    """Refuse a machine on which the module's engines cannot run.

    Raises:
        ConfigError: There is no GPU, or none that TensorRT-RTX supports.
    """
    if not torch.cuda.is_available():
        raise ConfigError("torch sees no GPU, and an engine needs one; use onnxruntime or torch")
    capability = torch.cuda.get_device_capability(device)
    if is_rtx(tensorrt) and capability not in RTX_CAPABILITIES:
        *most, last = (f"{major}.{minor}" for major, minor in RTX_CAPABILITIES)
        raise ConfigError(
            f"backend tensorrt-rtx: {torch.cuda.get_device_name(device)} has compute capability"
            f" {capability[0]}.{capability[1]}, TensorRT-RTX runs on {', '.join(most)} and {last};"
            " use backend tensorrt"
        )


def engine_key(
    tensorrt: Any, device: torch.device, weights_hash: str, precision: str, side: int
) -> EngineKey:
    """Return the key of the engine for an exported encoder with an input of `side` [px].

    For TensorRT-RTX the device may be the CPU.

    Raises:
        ModelLoadError: The encoder was not exported.
    """
    graph = onnx_path(weights_hash, side, precision)
    try:
        with graph.open("rb") as file:
            onnx_hash = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelLoadError(f"{graph} cannot be read: {error}; run segzero export") from error
    on_gpu, rtx = device.type == "cuda", is_rtx(tensorrt)
    major, minor = torch.cuda.get_device_capability(device) if on_gpu else (8, 6)
    turing = (major, minor) == (7, 5)
    return EngineKey(
        weights_hash=weights_hash,
        onnx_hash=onnx_hash,
        tensorrt=f"RTX {tensorrt.__version__}" if rtx else str(tensorrt.__version__),
        gpu="RTX GPUs" if rtx else torch.cuda.get_device_name(device),
        compute_capability="8.6+" if rtx and not turing else f"{major}.{minor}",
        precision=precision,
        shape=f"1x3x{side}x{side}",
        machine=platform.machine(),
    )


def build_engine(
    tensorrt: Any, onnx: Path, key: EngineKey, progress: Progress, gpu: int = 0
) -> Path:
    """Build an engine into the cache unless it is there, and return its path.

    A second builder waits for the first. `progress` is called after each step, in a thread of the
    build; `gpu` is the index of the GPU to build on, where there is one.

    Raises:
        ConfigError: The driver does not support this TensorRT.
        ModelLoadError: The graph cannot be built, or the cache has no room.
        OutOfMemoryError: The GPU has too little memory.
        KeyboardInterrupt: The build was stopped; what `progress` raises passes through too.
    """
    with only_one(key.path):
        with suppress(ModelLoadError):  # there is none, or a damaged one
            read_engine(key)
            return key.path
        engine = _build(tensorrt, onnx, key, progress, gpu)
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


def _build(tensorrt: Any, onnx: Path, key: EngineKey, progress: Progress, gpu: int) -> bytes:
    monitor = _monitor(tensorrt, progress)

    def work() -> bytes:
        with torch.cuda.device(gpu or -1):  # a thread is on GPU 0 already
            return _serialized_engine(tensorrt, onnx, key, monitor)

    # In a thread of its own, because TensorRT swallows what is raised while it calls a monitor,
    # and Python raises KeyboardInterrupt in the main thread.
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(work)
        try:
            return building.result()
        except (ConfigError, ModelLoadError):
            if monitor.failure is not None:
                raise monitor.failure from None
            raise
        except Exception as error:  # TensorRT and CUDA have no common root
            if is_out_of_memory(error):
                raise OutOfMemoryError(
                    f"not enough GPU memory to build the engine: {error}"
                ) from error
            raise ModelLoadError(f"TensorRT failed to build {onnx}: {error}") from error
        except BaseException as error:
            monitor.failure = error  # ends the build at its next step
            raise


def _serialized_engine(tensorrt: Any, onnx: Path, key: EngineKey, monitor: Any) -> bytes:
    builder = tensorrt.Builder(logger := tensorrt.Logger(tensorrt.Logger.ERROR))
    if builder is None:
        raise ConfigError(
            f"TensorRT {key.tensorrt} makes no builder on {key.gpu}: the driver may be too old"
            " for it; update the driver, or install an older TensorRT"
        )
    # Strongly typed: the engine keeps the graph's types. TensorRT 11 and RTX have no other mode.
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
    config.progress_monitor = monitor
    if rtx := is_rtx(tensorrt):
        config.set_flag(tensorrt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # for stream capture
        if key.compute_capability == "7.5":
            config.num_compute_capabilities = 1
            config.set_compute_capability(tensorrt.ComputeCapability.SM75, 0)
    else:  # RTX compiles on the GPU that runs the engine, and times nothing here
        known = key.timing_cache.read_bytes() if key.timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ModelLoadError(
            f"TensorRT could not build {onnx} for {key.gpu}; its own lines above say why. If GPU"
            " memory ran out, stop what else uses it and try again"
        )
    if not rtx:
        write_cached(key.timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(engine)


def _monitor(tensorrt: Any, progress: Progress) -> Any:
    """Return a TensorRT progress monitor that calls `progress`, until that raises `failure`."""

    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)
            self.failure: BaseException | None = None
            self._steps: dict[str, int] = {}

        def phase_start(self, name: str, _parent: str | None, steps: int) -> None:
            self._steps[name] = steps
            self.step_complete(name, -1)

        def step_complete(self, name: str, step: int) -> bool:
            try:
                if self.failure is None:
                    progress(name, step + 1, self._steps.get(name, 0))
            except Exception as error:
                self.failure = error
            return self.failure is None

        def phase_finish(self, name: str) -> None:
            self.step_complete(name, self._steps.get(name, 0) - 1)

    return Monitor()
