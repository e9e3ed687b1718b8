"""Limits on what comes from outside: images, completions, goals, files.

Far above what honest input needs, and low enough that nothing below them takes all memory or a
minute. What is larger is refused where it comes in, with the limit in the message.
"""

from __future__ import annotations

from typing import Final

MAX_TIMEOUT_S: Final = 86_400.0
"""Of a query, a goal or a wait [s]; Python cannot wait longer than 292 years at all."""

MAX_WAITING_QUERIES: Final = 1000
"""Queries or goals that arrive at once and are still read one by one."""

MAX_IMAGE_PX: Final = 80_000_000
"""Pixels of any image; Pillow itself warns at 89 million."""

USUAL_IMAGE_PX: Final = 25_000_000
"""Pixels that the node takes unless it is told otherwise: masks take about 40 times the memory."""

MAX_COMPLETION_CHARS: Final = 200_000
"""Of a completion; reading it takes a second at most."""

MAX_OBJECTS: Final = 500
"""Of one answer; each has a mask of the image's size."""

MAX_DEPTH_M: Final = 1000.0
"""Depth farther away is unknown [m]; no depth camera reaches there."""

MAX_JSON_BYTES: Final = 10_000_000
"""Of a JSON file of a model folder, but for its tokenizer."""

MAX_TOKENIZER_BYTES: Final = 40_000_000
"""Of a tokenizer or vocabulary; those of published models have about 11 MB."""

MAX_IMAGE_TOKENS: Final = 32_768
"""That a reasoner's processor may make of an image; published ones make up to 16,384."""

MAX_TEMPLATE_CHARS: Final = 50_000
"""Of a chat template; those of published models have a few thousand."""

MAX_YAML_BYTES: Final = 100_000
"""Of a segmenter's configuration."""

MAX_WEIGHTS_BYTES: Final = 200_000_000_000
"""Of one weights file."""

MAX_IMAGE_FILE_BYTES: Final = 500_000_000
"""Of an encoded image."""

MAX_ANNOTATION_BYTES: Final = 2_000_000_000
"""Of an annotation file; COCO's largest has 0.5 GB."""
