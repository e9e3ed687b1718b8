"""Reasons why a sample cannot be used: a word for counting, and a sentence for people."""

from __future__ import annotations

from typing import Any, Final

from segzero_core.errors import InputError

# These words stand in rejects.jsonl and manifest.json.
ANNOTATION_MISSING: Final = "annotation_missing"
ANNOTATION_DAMAGED: Final = "annotation_damaged"
IMAGE_MISSING: Final = "image_missing"
IMAGE_DAMAGED: Final = "image_damaged"
IMAGE_SIZE: Final = "image_size"
PATH_OUTSIDE: Final = "path_outside"
QUERY_UNUSABLE: Final = "query_unusable"
BAD_MASK: Final = "bad_mask"
EMPTY_MASK: Final = "empty_mask"
OUTSIDE_IMAGE: Final = "outside_picture"
CROWD: Final = "crowd"
SAM_DISAGREES: Final = "sam_disagrees"


class SampleError(InputError):
    """One sample cannot be used; samples are counted by their reason."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.reason, str(self)))
