"""Public fakes: a pipeline without weights, torch or a GPU."""

from segzero_core.testing.fakes import (
    BoxSegmenter,
    FakeEncoder,
    ScriptedReasoner,
    fake_description,
    fake_segzero,
)

__all__ = [
    "BoxSegmenter",
    "FakeEncoder",
    "ScriptedReasoner",
    "fake_description",
    "fake_segzero",
]
