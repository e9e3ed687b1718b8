"""Two ways of making a reply: transformers' own `generate`, and a lean loop with a memory.

Both are greedy and give the same tokens; `tests/core/decoding/test_decoder.py` compares them.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segzero_core.cpu_threads import Cores
from segzero_core.decoding.cuda_graph import GraphStepper
from segzero_core.decoding.speculative import MOST_GUESSES, DraftingStepper, Drafts
from segzero_core.decoding.token_stream import Take, decoded
from segzero_core.qwen_vl.language_model import LanguageModel, multimodal_positions
from segzero_core.qwen_vl.onnx_language_model import choose_language_model
from segzero_core.qwen_vl.vision_encoder import VisionTower
from segzero_core.types import SizeWH

if TYPE_CHECKING:
    from segzero_core.decoding.constrained import Constraint

# Settings of a model's generation_config that the lean loop does not know.
_OTHER_SETTINGS: Final = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "encoder_repetition_penalty",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "guidance_scale",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "sequence_bias",
    "suppress_tokens",
    "watermarking_config",
)
# Up to this width one thread reads a few tokens as fast as two, or faster: these would wait for
# each other at every small product.
_NARROW: Final = 256
_NEUTRAL: Final[tuple[object, ...]] = (None, 0, 1, 1.0, [], ())


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked.

    Attributes:
        picture: Of the size that the model sees.
        text: The whole conversation, with one placeholder where the picture stands.
    """

    picture: Image.Image
    text: str


class Decoder(Protocol):
    """Makes replies, one at a time."""

    def run(self, question: Question, limit: int, take: Take) -> None:
        """Give the tokens of a reply to `take` until it says that the reply is over.

        Args:
            question: What is asked.
            limit: Most tokens.
            take: Receives each token.
        """


class PlainDecoder:
    """`generate` of any model, as its publisher meant it.

    Args:
        model: A model of transformers that takes pictures and generates text.
        processor: Its processor.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model
        self._processor = processor

    def run(self, question: Question, limit: int, take: Take) -> None:
        """Run `generate`; see `Decoder`."""
        from transformers import StoppingCriteriaList

        # A streamer gets each token one step late; the stop criterion sees it at once.
        def is_over(input_ids: Any, _scores: Any, **_: Any) -> Any:
            over = take(int(input_ids[0, -1]))
            return torch.full((1,), over, dtype=torch.bool, device=input_ids.device)

        batch = self._processor(
            text=[question.text], images=[question.picture], return_tensors="pt"
        )
        with torch.inference_mode():
            self._model.generate(
                **batch.to(self._model.device),
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                max_new_tokens=limit,
                stopping_criteria=StoppingCriteriaList([is_over]),
            )


class LeanDecoder:
    """A greedy loop for Qwen2.5-VL that reads nothing twice.

    The memory of the last question stays. The next one is read from where it differs: about the
    same picture, that is where its words begin.

    Args:
        model: A model for which `is_lean` holds.
        processor: Its processor.
        seen_wh: Size of the pictures [px].
        mode: `eager`; `drafts` (guessed tokens are read together, by ONNX Runtime where it can);
            on a GPU also `graph` (the step of a token is captured once and replayed) and
            `compiled` (it is compiled first).
        constraint: Limits what may be said; None: nothing is.
        cores: Shared with the image encoder; None: they are all its own.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        seen_wh: SizeWH,
        mode: str = "eager",
        constraint: Constraint | None = None,
        cores: Cores | None = None,
    ) -> None:
        self._processor = processor
        self._language = choose_language_model(model) if mode == "drafts" else LanguageModel(model)
        self._ends = end_ids(model, processor.tokenizer)
        self._penalty = float(model.generation_config.repetition_penalty or 1.0)
        self._vocabulary = int(model.lm_head.out_features)
        self._grid_wh = _token_grid(processor, seen_wh)
        self._vision = VisionTower(model.model.visual, self._grid_wh)
        self._constraint = constraint
        self._cores = cores or Cores(1)
        self._most_threads = 1 if self._language.width <= _NARROW else None
        self._stepper: Stepper
        if mode == "eager":
            self._stepper = EagerStepper(self._language)
        elif mode == "drafts":
            drafts = Drafts(number_test(processor.tokenizer))
            self._stepper = DraftingStepper(self._language, drafts)
        else:
            self._stepper = GraphStepper(self._language, compiled=mode == "compiled")
        # The prompt that the memory holds, and of which picture.
        self._ids: list[int] = []
        self._picture = b""

    @torch.inference_mode()
    def run(self, question: Question, limit: int, take: Take) -> None:
        """Read what is new of the question, then reply; see `Decoder`."""
        with self._cores.reasoning():
            self._run(question, limit, take)

    def _run(self, question: Question, limit: int, take: Take) -> None:
        ids = self.tokens_of(question.text)
        self._language.reserve(len(ids) + limit + 1 + MOST_GUESSES)
        scores, position = self._read(ids, question.picture)
        start = Start(scores, position, len(ids), self._seen(ids), self._penalty)
        tokens = (
            self._stepper.tokens(start)
            if self._constraint is None
            else self._constraint.tokens(self._language, self._stepper, start, limit)
        )
        # The memory holds some of the reply too; but no prompt goes on after a reply.
        for count, token in enumerate(tokens, start=1):
            if take(token) or token in self._ends or count == limit:
                break
            self._cores.take_share(self._most_threads)

    def tokens_of(self, text: str) -> list[int]:
        """Return the tokens of a conversation, the picture's place-holders among them."""
        width, height = self._grid_wh
        holder = self._processor.image_token
        full = text.replace(holder, holder * (width * height))
        return [int(i) for i in self._processor.tokenizer(full)["input_ids"]]

    def _read(self, ids: list[int], picture: Image.Image) -> tuple[Tensor, int]:
        """Read a prompt; return the scores after it, and the position of the next token."""
        digest = _digest(picture)
        known = self._known(ids, digest)
        # Should it fail half-way, no more than this is known.
        self._ids, self._picture = ids[:known], digest
        positions = multimodal_positions(ids, self._language.image_token, self._grid_wh)
        fresh = torch.tensor(ids[known:]) == self._language.image_token
        x = self._language.embed(ids[known:])
        if fresh.any():
            x = x.masked_scatter(fresh[:, None].to(x.device), self._see(picture).to(x.dtype))
        scores = self._language.read(x, positions[:, known:], known)
        self._ids = ids
        return scores, int(positions[0, -1]) + 1

    def _known(self, ids: list[int], picture: bytes) -> int:
        """Return how many tokens of a prompt the memory holds already, always without the last."""
        most = min(len(ids) - 1, len(self._ids))
        if picture != self._picture and self._language.image_token in ids:
            most = min(most, ids.index(self._language.image_token))
        return next((i for i in range(most) if ids[i] != self._ids[i]), most)

    def _see(self, picture: Image.Image) -> Tensor:
        batch = self._processor.image_processor(images=[picture], return_tensors="pt")
        return self._vision(batch["pixel_values"].to(self._language.device, self._vision.dtype))

    def _seen(self, ids: Sequence[int]) -> Tensor | None:
        if self._penalty == 1.0:
            return None
        seen = torch.zeros(self._vocabulary, dtype=torch.bool)
        seen[torch.tensor(ids)] = True
        return seen.to(self._language.device)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a reply begins.

    Attributes:
        scores: float32 [V], after the prompt.
        position: Rotary position of the first token.
        column: Its place in the memory.
        seen: bool [V], the tokens that were there before; None where that does not matter.
        penalty: Those become less likely by this factor.
    """

    scores: Tensor
    position: int
    column: int
    seen: Tensor | None
    penalty: float


class Stepper(Protocol):
    """Reads one token after the other."""

    def tokens(self, start: Start) -> Iterator[int]:
        """Yield the most likely tokens without end."""

    def scores_after(self, token: int, position: int, column: int) -> Tensor:
        """Read one token and return the scores float32 [V] of the next."""


class EagerStepper:
    """Runs the operations one by one."""

    def __init__(self, language: LanguageModel) -> None:
        self._language = language

    def tokens(self, start: Start) -> Iterator[int]:
        """Yield tokens; each is read when the one after it is wanted. See `Stepper`."""
        scores, position, column = start.scores, start.position, start.column
        while True:
            token = int(penalised(scores, start.seen, start.penalty).argmax())
            yield token
            if start.seen is not None:
                start.seen[token] = True
            scores = self.scores_after(token, position, column)
            position, column = position + 1, column + 1

    def scores_after(self, token: int, position: int, column: int) -> Tensor:
        """Read one token; see `Stepper`."""
        return self._language.step(token, position, column)


def penalised(scores: Tensor, seen: Tensor | None, penalty: float) -> Tensor:
    """Make the tokens that were there before less likely.

    Source: transformers' `RepetitionPenaltyLogitsProcessor`, which Qwen's settings ask for.
    """
    if seen is None:
        return scores
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def number_test(tokenizer: Any) -> Callable[[int], bool]:
    """Return what says of a token whether it is a number, and remembers it."""
    return functools.cache(lambda token: decoded(tokenizer, [token]).strip().isdigit())


def is_lean(model: Any) -> bool:
    """Say whether `LeanDecoder` knows a model and everything its settings ask for."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    if not isinstance(model, Qwen2_5_VLForConditionalGeneration):
        return False
    layers = set(model.config.text_config.layer_types)
    settings = model.generation_config
    return layers == {"full_attention"} and all(
        getattr(settings, name, None) in _NEUTRAL for name in _OTHER_SETTINGS
    )


def end_ids(model: Any, tokenizer: Any) -> set[int]:
    """Return the tokens that end a reply."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {int(i) for i in (*ids, tokenizer.eos_token_id) if i is not None}


def _token_grid(processor: Any, seen_wh: SizeWH) -> SizeWH:
    """Return how many tokens a picture of this size is wide and high."""
    blank = Image.fromarray(np.zeros((seen_wh[1], seen_wh[0], 3), np.uint8))
    images = processor.image_processor
    _, rows, columns = images(images=[blank], return_tensors="pt")["image_grid_thw"][0].tolist()
    return int(columns) // images.merge_size, int(rows) // images.merge_size


def _digest(picture: Image.Image) -> bytes:
    return hashlib.blake2b(picture.tobytes(), digest_size=16).digest()
