"""Generates replies: by transformers' `generate`, or by a loop of our own for the Qwen-VL models.

Both are greedy and give the same tokens; `tests/core/decoding/test_decoder.py` compares them.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segzero_core.cpu_threads import CpuThreads
from segzero_core.decoding.constrained import Constraint
from segzero_core.decoding.cuda_graph import CudaGraphStepper
from segzero_core.decoding.speculative import MAX_DRAFT_TOKENS, NgramProposer, SpeculativeStepper
from segzero_core.decoding.stepper import Prefill, Stepper
from segzero_core.decoding.token_stream import OnToken, decode
from segzero_core.qwen_vl.deepstack_vision import DeepStackVisionEncoder
from segzero_core.qwen_vl.language_model import LanguageModel, multimodal_positions
from segzero_core.qwen_vl.onnx_language_model import choose_language_model
from segzero_core.qwen_vl.vision_encoder import VisionEncoder
from segzero_core.types import SizeWH

# Settings of a model's generation_config that our loop does not know.
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
_NEUTRAL: Final[tuple[object, ...]] = (None, 0, 1, 1.0, [], ())
# Up to this width one thread reads a few tokens as fast as two, or faster: these would wait for
# each other at every small product.
_NARROW: Final = 256


class Decoder(Protocol):
    """Generates replies, one at a time."""

    def run(self, image: Image.Image, text: str, limit: int, on_token: OnToken) -> None:
        """Give the tokens of a reply to `on_token` until it says that the reply is over.

        The image is of the size that the model sees; the text is the whole conversation, with one
        placeholder for the image.
        """


class PlainDecoder:
    """`generate` of any transformers model that takes images, as its publisher meant it."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model
        self._processor = processor

    def run(self, image: Image.Image, text: str, limit: int, on_token: OnToken) -> None:
        """Run `generate`; see `Decoder`."""
        from transformers import StoppingCriteriaList

        # A streamer gets each token one step late; the stopping criterion sees it at once.
        def is_over(input_ids: Any, _scores: Any, **_: Any) -> Any:
            over = on_token(int(input_ids[0, -1]))
            return torch.full((1,), over, dtype=torch.bool, device=input_ids.device)

        batch = self._processor(text=[text], images=[image], return_tensors="pt")
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


class QwenDecoder:
    """A greedy loop for Qwen2.5-VL and Qwen3-VL with a prefix cache.

    The KV cache of the last question stays. The next prompt is read from where it differs: about
    the same image, that is where its words begin.

    Args:
        model: A model for which `is_supported` holds.
        processor: Its processor.
        grid_wh: How many tokens an image is wide and high.
        mode: One of `DECODE_MODES`, except `auto` and `plain`.
        constraint: Limits the replies; None: nothing does.
        cores: Shared with the image encoder; None: torch's threads stay as they are.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        grid_wh: SizeWH,
        mode: str,
        constraint: Constraint | None = None,
        cores: CpuThreads | None = None,
    ) -> None:
        self._processor = processor
        self._penalty = float(model.generation_config.repetition_penalty or 1.0)
        self._vocabulary = int(model.lm_head.out_features)
        self._grid_wh = grid_wh
        visual = model.model.visual
        deep = hasattr(visual, "deepstack_merger_list")
        self._vision: Callable[[Tensor], Tensor] = (
            DeepStackVisionEncoder(visual, grid_wh) if deep else VisionEncoder(visual, grid_wh)
        )
        self._vision_dtype: torch.dtype = visual.dtype
        self._language = choose_language_model(model) if mode == "drafts" else LanguageModel(model)
        self._constraint = constraint
        self._cores = cores or CpuThreads(1)
        self._most_threads = 1 if self._language.width <= _NARROW else None
        self._stepper: Stepper
        if mode in ("eager", "drafts"):
            draft = mode == "drafts"
            proposer = NgramProposer(number_test(processor.tokenizer)) if draft else None
            self._stepper = SpeculativeStepper(self._language, proposer)
        else:
            self._stepper = CudaGraphStepper(self._language, compiled=mode == "compiled")
        # The prompt that is in the KV cache, and the hash of its image.
        self._cached_ids: list[int] = []
        self._cached_image = b""

    @property
    def backend(self) -> str:
        """What reads the text of a reply: `torch` or `onnxruntime`."""
        return self._language.backend

    @torch.inference_mode()
    def run(self, image: Image.Image, text: str, limit: int, on_token: OnToken) -> None:
        """Read what is new of the prompt, then reply; see `Decoder`."""
        with self._cores.reasoning():
            # The reply ends up in the KV cache too; but no prompt goes on after a reply.
            for count, token in enumerate(self._tokens(image, text, limit), start=1):
                if on_token(token) or count == limit:
                    break
                self._cores.take_share(self._most_threads)

    def _tokens(self, image: Image.Image, text: str, limit: int) -> Iterator[int]:
        ids = self.tokenize(text)
        self._language.reserve(len(ids) + limit + 1 + MAX_DRAFT_TOKENS)
        prefill = self._prefill(ids, image)
        if self._constraint is None:
            return self._stepper.tokens(prefill)
        return self._constraint.tokens(self._stepper, prefill, limit)

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a conversation, the image's placeholders among them."""
        width, height = self._grid_wh
        placeholder = self._processor.image_token
        full = text.replace(placeholder, placeholder * (width * height))
        return [int(i) for i in self._processor.tokenizer(full)["input_ids"]]

    def _prefill(self, ids: list[int], image: Image.Image) -> Prefill:
        """Read the part of a prompt that is not in the KV cache yet."""
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        cached = self._cached_prefix(ids, digest)
        # Should it fail half-way, no more than this is cached.
        self._cached_ids, self._cached_image = ids[:cached], digest
        positions = multimodal_positions(ids, self._language.image_token, self._grid_wh)
        placeholders = torch.tensor(ids[cached:]) == self._language.image_token
        x = self._language.embed(ids[cached:])
        deep: list[Tensor] = []
        if placeholders.any():
            cells = placeholders[:, None].to(x.device)
            encoded = self._encode_image(image).to(x.dtype)
            embeddings, *features = torch.split(encoded, x.shape[1], dim=1)
            x = x.masked_scatter(cells, embeddings)
            deep = [torch.zeros_like(x).masked_scatter(cells, each) for each in features]
        scores = self._language.prefill(x, positions[:, cached:], cached, deep)
        self._cached_ids = ids
        seen = None
        if self._penalty != 1.0:
            seen = torch.zeros(self._vocabulary, dtype=torch.bool)
            seen[torch.tensor(ids)] = True
            seen = seen.to(self._language.device)
        return Prefill(scores, int(positions[0, -1]) + 1, len(ids), seen, self._penalty)

    def _cached_prefix(self, ids: list[int], image: bytes) -> int:
        """Return how many tokens of a prompt are cached, always without the last."""
        most = min(len(ids) - 1, len(self._cached_ids))
        if image != self._cached_image and self._language.image_token in ids:
            most = min(most, ids.index(self._language.image_token))
        return next((i for i in range(most) if ids[i] != self._cached_ids[i]), most)

    def _encode_image(self, image: Image.Image) -> Tensor:
        batch = self._processor.image_processor(images=[image], return_tensors="pt")
        return self._vision(batch["pixel_values"].to(self._language.device, self._vision_dtype))


def number_test(tokenizer: Any) -> Callable[[int], bool]:
    """Return a function that says of a token whether it is a number, and remembers it."""
    return functools.cache(lambda token: decode(tokenizer, [token]).strip().isdigit())


def is_supported(model: Any) -> bool:
    """Say whether `QwenDecoder` knows a model and everything its settings ask for."""
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration

    if not isinstance(model, Qwen2_5_VLForConditionalGeneration | Qwen3VLForConditionalGeneration):
        return False
    layers = set(getattr(model.config.text_config, "layer_types", None) or ["full_attention"])
    settings = model.generation_config
    return layers == {"full_attention"} and all(
        getattr(settings, name, None) in _NEUTRAL for name in _OTHER_SETTINGS
    )


def end_ids(model: Any, tokenizer: Any) -> set[int]:
    """Return the tokens that end a reply."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {int(i) for i in (*ids, tokenizer.eos_token_id) if i is not None}


def token_grid(processor: Any, image_wh: SizeWH) -> SizeWH:
    """Return how many tokens an image of this size is wide and high for a processor.

    Raises:
        Exception: The processor cannot take such an image; its errors have no common root.
    """
    blank = Image.fromarray(np.zeros((image_wh[1], image_wh[0], 3), np.uint8))
    images = processor.image_processor
    _, rows, columns = images(images=[blank], return_tensors="pt")["image_grid_thw"][0].tolist()
    return int(columns) // images.merge_size, int(rows) // images.merge_size
