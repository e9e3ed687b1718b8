"""The two ways from a question to masks that are compared: the plain one, and ours."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from segzero_core.checkpoints.description import ModelDescription
from segzero_core.checkpoints.registry import ModelFiles, find_model
from segzero_core.completion.parser import ANSWER_CLOSE, parse_completion
from segzero_core.events import Finished, MaskReady
from segzero_core.geometry import to_image_frame
from segzero_core.pipeline import SegZero
from segzero_core.prompt import build_messages, clean_query
from segzero_core.reasoner.base import squash
from segzero_core.types import RgbImage

STAGES: Final = ("first_token", "reasoner", "encoder", "decoder", "first_mask", "total")
# The closing tag is written in fewer tokens than this by any tokenizer.
_TAIL_TOKENS: Final = 10


@dataclass(frozen=True, eq=False)
class Run:
    """One question answered.

    Attributes:
        completion: The reply.
        masks: bool [N, H, W].
        ms: Milliseconds by stage; from the question on, but for encoder and decoder, which are
            their own working times.
        tokens: How many the reply has.
    """

    completion: str
    masks: NDArray[np.bool_]
    ms: dict[str, float]
    tokens: int

    @property
    def tokens_per_s(self) -> float:
        """Rate at which the reply came, after its first token."""
        seconds = (self.ms["reasoner"] - self.ms["first_token"]) / 1e3
        return (self.tokens - 1) / seconds if seconds > 0 and self.tokens > 1 else float("nan")


class Flow(Protocol):
    """Answers questions, and says how long each stage took."""

    def ask(self, image: RgbImage, query: str) -> Run:
        """Answer one question."""


class PlainFlow:
    """What a user would write without us: `generate`, then `set_image`, then `predict`.

    It stops at the closing tag as well, and asks for no more tokens.

    Args:
        model: Name of the model.
        device: A torch device.
        dtype: Of the reasoner's weights, as torch names it.
    """

    def __init__(self, model: str, device: str, dtype: str) -> None:
        from sam2.sam2_image_predictor import SAM2ImagePredictor
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from segzero_core.segmenter.sam2 import load_segmenter

        files: ModelFiles = find_model(model)
        self._description: ModelDescription = files.description
        self._device = device
        folder = Path(files.reasoner)
        self._processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, local_files_only=True
        )
        self._model = loaded.eval().to(device)
        sam: Any = load_segmenter(files.segmenter, device).model
        self._predictor: Any = SAM2ImagePredictor(sam)
        side = int(sam.image_size)
        # The predictor assumes a side of 1024.
        self._predictor._bb_feat_sizes = [(side // step, side // step) for step in (4, 8, 16)]

    @torch.inference_mode()
    def ask(self, image: RgbImage, query: str) -> Run:
        """Answer one question, one stage after the other."""
        clock = _Clock(self._device)
        completion, tokens, first_ms = self._generate(image, query, clock)
        ms = {"first_token": first_ms, "reasoner": clock.ms()}
        prompts = parse_completion(completion).prompts
        size_wh = (int(image.shape[1]), int(image.shape[0]))
        start = clock.ms()
        self._predictor.set_image(image)
        ms["encoder"] = clock.ms() - start
        masks = np.zeros((len(prompts), size_wh[1], size_wh[0]), np.bool_)
        start = clock.ms()
        for index, seen in enumerate(prompts):
            prompt = to_image_frame(seen, self._description.frame_wh, size_wh)
            found, scores, _ = self._predictor.predict(
                point_coords=np.array([point.xy for point in prompt.points]),
                point_labels=np.ones(len(prompt.points)),
                box=np.array(prompt.box.xyxy),
                multimask_output=True,
            )
            masks[index] = found[int(scores.argmax())].astype(bool)
            ms.setdefault("first_mask", clock.ms())
        ms["decoder"] = clock.ms() - start
        ms["total"] = clock.ms()
        ms.setdefault("first_mask", ms["total"])
        return Run(completion, masks, ms, tokens)

    def _generate(self, image: RgbImage, query: str, clock: _Clock) -> tuple[str, int, float]:
        from transformers import StoppingCriteriaList

        asked = clean_query(query)
        asked = asked.lower() if self._description.lowercase_query else asked
        text = self._processor.apply_chat_template(
            build_messages(self._description.prompt_template, asked),
            tokenize=False,
            add_generation_prompt=True,
        )
        picture = squash(image, self._description.seen_size_wh)
        batch = self._processor(text=[text], images=[picture], return_tensors="pt")
        batch = batch.to(self._device)
        tokenizer, prompt_tokens = self._processor.tokenizer, batch["input_ids"].shape[1]
        first: list[float] = []

        def is_over(input_ids: Any, _scores: Any, **_: Any) -> Any:
            if not first:
                first.append(clock.ms())
            new = input_ids[0, prompt_tokens:]
            over = ANSWER_CLOSE in tokenizer.decode(new[-_TAIL_TOKENS:])
            return torch.full((1,), over, dtype=torch.bool, device=input_ids.device)

        out = self._model.generate(
            **batch,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=self._description.max_new_tokens,
            stopping_criteria=StoppingCriteriaList([is_over]),
        )
        new = out[0, prompt_tokens:]
        completion = tokenizer.decode(new, skip_special_tokens=False)
        for end in (tokenizer.eos_token, tokenizer.pad_token):
            completion = completion.removesuffix(end or "")
        return completion, len(new), first[0]


class OurFlow:
    """This library.

    Args:
        model: The loaded pipeline.
        device: A torch device.
    """

    def __init__(self, model: SegZero, device: str) -> None:
        self.model = model
        self._device = device

    def ask(self, image: RgbImage, query: str) -> Run:
        """Answer one question; the first mask counts when a caller has it."""
        clock = _Clock(self._device)
        first_mask: float | None = None
        for event in self.model.stream(image, query):
            if isinstance(event, MaskReady) and first_mask is None:
                first_mask = clock.ms()
            if isinstance(event, Finished):
                result = event.result
        total = clock.ms()
        times = result.timings
        ms = {
            "first_token": times.first_token_ms,
            "reasoner": times.reasoner_ms,
            "encoder": times.encoder_ms,
            "decoder": times.decoder_ms,
            "first_mask": total if first_mask is None else first_mask,
            "total": total,
        }
        completion = result.reasoning.completion
        return Run(completion, result.segmentation.masks, ms, times.tokens)


class _Clock:
    """Milliseconds since its construction, with the GPU's work done."""

    def __init__(self, device: str) -> None:
        self._on_gpu = device.startswith("cuda")
        self._start = 0.0
        self._start = self.ms() / 1e3

    def ms(self) -> float:
        if self._on_gpu:
            torch.cuda.synchronize()
        return (time.perf_counter() - self._start) * 1e3
