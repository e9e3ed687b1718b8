"""Counters of the node, and the /diagnostics message made of them.

diagnostic_updater is not used: the ROS wheels that `make demo` installs lack it, and its timer
follows the ROS clock, which stands still when simulated time does.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from segzero_core.reasoner.circuit_breaker import BreakerState, ReasonerHealth
from segzero_ros.camera.image_buffer import CameraFrame
from segzero_ros.diagnostics.memory import loaded_cuda
from segzero_ros.msg import SegmentationResult, Status
from segzero_ros.spatial.scene import ObjectPoses

Part: TypeAlias = tuple[bytes, str, dict[str, Any]]
LATENCIES_KEPT: Final = 200
RATE_WINDOW: Final = 60
CODES, STATES = (
    {value: name for name in dir(kind) if isinstance(value := getattr(kind, name), int)}
    for kind in (SegmentationResult, Status)
)
"""The names of the constants of each."""
LEVELS: Final = {
    Status.ERROR: DiagnosticStatus.ERROR,
    Status.UNCONFIGURED: DiagnosticStatus.WARN,
    Status.INACTIVE: DiagnosticStatus.WARN,
}


def resident_mb() -> float:
    """Return the process's resident memory [MB]."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def gpu_mb() -> float:
    """Return the memory that torch holds on GPUs [MB]; 0 where torch is not loaded."""
    cuda = loaded_cuda()
    if cuda is None:
        return 0.0
    return float(sum(cuda.memory_reserved(i) for i in range(cuda.device_count()))) / 1e6


class Health:
    """Counters of one node; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrivals: deque[float] = deque(maxlen=RATE_WINDOW)
        self._images = 0
        self._latencies_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._results: Counter[str] = Counter()
        self._mismatches: dict[str, str] = {}
        self._last_error = ""
        self._without_stamp = 0
        self._poses: Counter[str] = Counter()
        self._pose_reason = ""
        self._counts: Counter[str] = Counter()
        self._last_defect = self._last_unreadable = ""

    def frame_arrived(self, frame: CameraFrame) -> None:
        """Count an image."""
        with self._lock:
            self._arrivals.append(frame.arrived_s)
            self._images += 1
            self._without_stamp += frame.stamp_ns == 0

    def result_published(self, msg: SegmentationResult) -> None:
        """Count a result."""
        with self._lock:
            self._results[CODES.get(msg.error_code, str(msg.error_code))] += 1
            if msg.error_code == SegmentationResult.OK:
                self._latencies_ms.append(msg.total_ms)
            else:
                self._last_error = f"query {msg.query_id}: {msg.error_msg}"

    def measured(self, poses: ObjectPoses | None, reason: str) -> None:
        """Count the objects of an answer that have a pose, and keep why others have none."""
        with self._lock:
            objects = poses.objects if poses is not None else ()
            self._poses["poses"] += sum(each is not None for each in objects)
            self._poses["answers_with_trouble"] += bool(reason)
            self._pose_reason = reason

    def failed(self, what: str) -> None:
        """Keep the last error."""
        with self._lock:
            self._last_error = what

    def defect(self, what: str) -> None:
        """Count an exception that a guard has kept from ending a thread."""
        with self._lock:
            self._counts["defects"] += 1
            self._last_defect = what

    def unreadable(self, what: str) -> None:
        """Count a message of the camera that was dropped."""
        with self._lock:
            self._counts["unreadable"] += 1
            self._last_unreadable = what

    def fits(self, topic: str) -> None:
        """Forget what was wrong with a topic."""
        with self._lock:
            self._mismatches.pop(topic, None)

    def mismatched(self, topic: str, advice: str) -> None:
        """Keep what is wrong with the quality of service of a topic."""
        with self._lock:
            self._mismatches[topic] = advice

    def to_msg(
        self,
        name: str,
        stamp: Time,
        status: Status,
        max_age_s: float,
        extra: dict[str, Any],
        reasoners: Sequence[ReasonerHealth] = (),
    ) -> DiagnosticArray:
        """Build the message of the node of this full name.

        Images older than `max_age_s` are stale, with 0 never. `extra` has more values of the
        model, and `clock_jumps` and `image_topic` of the camera. The reasoners are the model and
        its fallbacks.
        """
        jumps, topic = extra.pop("clock_jumps"), extra.pop("image_topic")
        with self._lock:
            parts = {
                "camera": self._camera(status, max_age_s, jumps, topic),
                "model": self._model(status, extra),
                "depth": self._depth(),
                "connections": self._connections(),
            }
        parts |= {
            f"reasoner {number}": _reasoner(each) for number, each in enumerate(reasoners, 1)
        }
        return DiagnosticArray(
            header=Header(stamp=stamp),
            status=[
                DiagnosticStatus(
                    level=level,
                    name=f"{name}: {part}".lstrip("/"),
                    message=text,
                    hardware_id="segzero",
                    values=[KeyValue(key=key, value=str(each)) for key, each in values.items()],
                )
                for part, (level, text, values) in parts.items()
            ],
        )

    # Each part as level, text and values; the lock is held.

    def _camera(self, status: Status, max_age_s: float, jumps: int, topic: str) -> Part:
        times, now_s = self._arrivals, time.monotonic()
        age_s = now_s - times[-1] if times else None
        # Until now, so that a camera that stops is seen to slow down.
        rate_hz = (len(times) - 1) / max(now_s - times[0], 1e-9) if times else 0.0
        level, text = DiagnosticStatus.OK, f"{rate_hz:.1f} Hz"
        if status.state not in (Status.READY, Status.BUSY):
            text = "images are not taken while the node is not active"
        elif age_s is None:
            level, text = DiagnosticStatus.WARN, "no image has arrived yet"
        elif max_age_s and age_s > max_age_s:
            level, text = DiagnosticStatus.ERROR, f"the last image came {age_s:.1f} s ago"
        elif self._last_unreadable:
            level, text = DiagnosticStatus.WARN, f"dropped: {self._last_unreadable}"
        elif self._without_stamp:
            level, text = DiagnosticStatus.WARN, "images have no stamp: depth is not paired"
        values = {
            "topic": topic,
            "images": self._images,
            "rate_hz": f"{rate_hz:.2f}",
            "age_s": "" if age_s is None else f"{age_s:.3f}",
            "without_stamp": self._without_stamp,
            "unreadable": self._counts["unreadable"],
            "clock_jumps_back": jumps,
        }
        return level, text, values

    def _model(self, status: Status, extra: dict[str, Any]) -> Part:
        latencies = self._latencies_ms
        p50, p95 = np.percentile(latencies, [50, 95]) if latencies else (0.0, 0.0)
        defects = self._counts["defects"]
        healthy = DiagnosticStatus.WARN if defects else DiagnosticStatus.OK
        level = LEVELS.get(status.state, healthy)
        values = {
            "state": STATES[status.state],
            "model": status.model,
            "encoder_backend": status.encoder_backend,
            "latency_p50_ms": f"{p50:.1f}",
            "latency_p95_ms": f"{p95:.1f}",
            "memory_mb": f"{resident_mb():.0f}",
            "gpu_memory_mb": f"{gpu_mb():.0f}",
            "last_error": self._last_error,
            "defects": defects,
            "last_defect": self._last_defect,
            **{f"results_{key.lower()}": count for key, count in sorted(self._results.items())},
            **extra,
        }
        return level, status.detail, values

    def _depth(self) -> Part:
        poses, reason = self._poses, self._pose_reason
        counts = {name: poses[name] for name in ("poses", "answers_with_trouble")}
        level = DiagnosticStatus.WARN if reason else DiagnosticStatus.OK
        text = f"no pose: {reason}" if reason else f"{poses['poses']} poses published"
        return level, text, counts | {"last_trouble": reason}

    def _connections(self) -> Part:
        mismatches = self._mismatches
        level = DiagnosticStatus.WARN if mismatches else DiagnosticStatus.OK
        text = f"{len(mismatches)} connections need care" if mismatches else "QoS fits"
        return level, text, mismatches


def _reasoner(health: ReasonerHealth) -> Part:
    is_fine = health.state is BreakerState.CLOSED
    values = {
        "model": health.name,
        "state": health.state.value,
        "answered": health.answered,
        "failed": health.failed,
        "latency_median_ms": f"{health.median_s * 1e3:.1f}",
        "last_error": health.last_error,
    }
    level = DiagnosticStatus.OK if is_fine else DiagnosticStatus.WARN
    text = health.name if is_fine else f"{health.name} is left alone: {health.last_error}"
    return level, text, values
