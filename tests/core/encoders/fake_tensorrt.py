"""A small stand-in for the module tensorrt: what we use of it, as documented for 10.3 to 11.

It shares the real one's manners: `None` in place of an object that cannot be made, errors from a
parser asked for one by one, bytes-like plans, a listener that must call its base's `__init__`.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any


class Fake:
    """The module. Attributes decide how it behaves, and tell what was done."""

    def __init__(self, version: str = "10.3.0") -> None:
        self.__version__ = version
        self.builds = 0
        self.plan: bytes | None = b"plan of an engine"
        self.parser_errors: list[str] = []
        self.builder_is_none = False
        self.raised: Exception | None = None
        self.flags_cleared: list[str] = []
        self.timing_read: list[bytes] = []
        self.network_flags: list[int] = []
        self.engine: Any = None
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.BuilderFlag = SimpleNamespace(TF32="tf32")
        self.float32, self.float16 = "float32", "float16"
        self.Logger = _Logger
        self.IProgressMonitor = _Monitor
        self.OnnxParser = lambda network, _logger: _Parser(self, network)
        self.Builder = lambda _logger: None if self.builder_is_none else _Builder(self)
        self.Runtime = lambda _logger: SimpleNamespace(
            deserialize_cuda_engine=lambda _plan: self.engine
        )


class _Logger:
    ERROR = 1

    def __init__(self, severity: int) -> None:
        self.severity = severity


class _Monitor:
    def __init__(self) -> None:
        self.made = True


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
        assert monitor.made, "the base's __init__ was not called"
        monitor.phase_start("Building", None, 2)
        assert monitor.step_complete("Building", 0)
        assert monitor.step_complete("Building", 1)
        monitor.phase_finish("Building")
        self._tensorrt.builds += 1
        if self._tensorrt.raised is not None:
            raise self._tensorrt.raised
        return None if self._tensorrt.plan is None else memoryview(self._tensorrt.plan)


class _Config:
    progress_monitor: Any = None

    def __init__(self, tensorrt: Fake) -> None:
        self._tensorrt = tensorrt

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        assert (pool, size > 0) == ("workspace", True)

    def clear_flag(self, flag: str) -> None:
        self._tensorrt.flags_cleared.append(flag)

    def create_timing_cache(self, known: bytes) -> bytes:
        self._tensorrt.timing_read.append(known)
        return known

    def set_timing_cache(self, _cache: bytes, *, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: memoryview(b"times"))
