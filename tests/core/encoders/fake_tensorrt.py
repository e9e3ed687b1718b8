"""A small stand-in for the modules tensorrt and tensorrt_rtx: what we use of them.

It shares the real one's manners: `None` in place of an object that cannot be made, errors from a
parser asked for one by one, bytes-like plans, a listener that must call its base's `__init__`.
"""

from __future__ import annotations

from enum import IntFlag
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class Fake:
    """The module. What `CONTROLS` names decides how it behaves, and tells what was done."""

    CONTROLS = (
        "builds plan parser_errors builder_is_none raised flags timing_read network_flags engine"
        " invalid CONTROLS"
    )

    def __init__(self, version: str = "10.3.0", *, rtx: bool = False) -> None:
        self.__version__ = version
        self.builds = 0
        self.plan: bytes | None = b"plan of an engine"
        self.parser_errors: list[str] = []
        self.builder_is_none = False
        self.raised: Exception | None = None
        self.flags: list[str] = []
        self.timing_read: list[bytes] = []
        self.network_flags: list[int] = []
        self.engine: Any = None
        self.invalid = 0
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.BuilderFlag = SimpleNamespace(TF32="tf32")
        self.float32, self.float16 = "float32", "float16"
        self.Logger = _Logger
        self.IProgressMonitor = _Monitor
        self.OnnxParser = lambda network, _logger: _Parser(self, network)
        self.Builder = lambda _logger: None if self.builder_is_none else _Builder(self)
        self.Runtime = lambda _logger: _Runtime(self)
        if rtx:
            self.ComputeCapability = SimpleNamespace(SM75="7.5")
            self.BuilderFlag.REQUIRE_USER_ALLOCATION = "user allocation"
            self.EngineInvalidityDiagnostics = IntFlag(
                "EngineInvalidityDiagnostics", {"UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4}
            )


class _Logger:
    ERROR = 1

    def __init__(self, severity: int) -> None:
        self._severity = severity


class _Monitor:
    def __init__(self) -> None:
        self._made = True

    def phase_start(self, name: str, parent: str | None, steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, name: str) -> None:
        raise NotImplementedError


class _Runtime:
    def __init__(self, tensorrt: Fake) -> None:
        self._tensorrt = tensorrt

    def deserialize_cuda_engine(self, _plan: bytes) -> Any:
        return self._tensorrt.engine

    def get_engine_validity(self, _plan: bytes) -> tuple[int, int]:
        return (2, self._tensorrt.invalid)


class Engine:
    """An engine of RTX: what makes a context, with a runtime cache or without."""

    def __init__(self, context: Any = None) -> None:
        self._context, self._options = context, {}

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    def create_execution_context(self, **options: Any) -> Any:
        self._options = options
        return self._context


class RuntimeConfig:
    """How an engine is run."""

    def __init__(self) -> None:
        self._cache: RuntimeCache | None = None

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self._cache = cache
        return True

    def get_runtime_cache(self) -> RuntimeCache | None:
        return self._cache


class RuntimeCache:
    """Takes only bytes that begin as its own."""

    def __init__(self) -> None:
        self._data = b"compiled"

    def deserialize(self, blob: bytes) -> bool:
        if fits := blob.startswith(b"compiled"):
            self._data = blob
        return fits

    def serialize(self) -> memoryview:
        return memoryview(self._data)


class _Parser:
    def __init__(self, tensorrt: Fake, _network: Any) -> None:
        self._tensorrt = tensorrt

    @property
    def num_errors(self) -> int:
        return len(self._tensorrt.parser_errors)

    def get_error(self, index: int) -> str:
        return self._tensorrt.parser_errors[index]

    def parse_from_file(self, path: str) -> bool:
        assert isinstance(path, str)
        assert Path(path).is_file()
        return not self._tensorrt.parser_errors


class _Builder:
    def __init__(self, tensorrt: Fake) -> None:
        self._tensorrt = tensorrt

    def create_network(self, flags: int) -> object:
        self._tensorrt.network_flags.append(flags)
        return object()

    def create_builder_config(self) -> Any:
        return _Config(self._tensorrt)

    def build_serialized_network(self, _network: object, config: Any) -> Any:
        monitor = config.progress_monitor
        assert monitor._made, "the base's __init__ was not called"
        monitor.phase_start("Building", None, 2)
        if not all(monitor.step_complete("Building", step) for step in range(2)):
            return None  # cancelled
        monitor.phase_finish("Building")
        self._tensorrt.builds += 1
        if self._tensorrt.raised is not None:
            raise self._tensorrt.raised
        return None if self._tensorrt.plan is None else memoryview(self._tensorrt.plan)


class _Config:
    progress_monitor: Any = None
    num_compute_capabilities = 0

    def __init__(self, tensorrt: Fake) -> None:
        self._tensorrt = tensorrt

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        assert (pool, size > 0) == ("workspace", True)

    def clear_flag(self, flag: str) -> None:
        self._tensorrt.flags.append(f"no {flag}")

    def set_flag(self, flag: str) -> None:
        self._tensorrt.flags.append(flag)

    def set_compute_capability(self, capability: str, index: int) -> bool:
        assert (self.num_compute_capabilities, index) == (1, 0)
        self._tensorrt.flags.append(capability)
        return True

    def create_timing_cache(self, known: bytes) -> bytes:
        self._tensorrt.timing_read.append(known)
        return known

    def set_timing_cache(self, _cache: bytes, *, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: memoryview(b"times"))
