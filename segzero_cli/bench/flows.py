"""The two flows that are compared: transformers and SAM 2 as published, and this library."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from segzero_core.checkpoints.registry import find_model
from segzero_core.completion.parser import ANSWER_CLOSE, parse_completion
from segzero_core.events import Finished, MaskReady
from segzero_core.geometry import to_image_frame
from segzero_core.pipeline import SegZero
from segzero_core.prompt import build_messages, clean_query, is_native
from segzero_core.reasoner.base import squash
from segzero_core.types import RgbImage

STAGES: Final = ("first_token", "reasoner", "encoder", "decoder", "first_mask", "total")
# The closing tag is written in fewer tokens than this by any tokenizer.
_TAIL_TOKENS: Final = 10


@dataclass(frozen=True, eq=False)
class Run:
    """Answer and times of one query."""

    completion: str  # the reasoner's whole text
    masks: NDArray[np.bool_]  # bool [N, H, W]
    # Milliseconds by stage, counted from the query on; encoder and decoder: their own working
    # times.
    ms: dict[str, float]
    tokens: int  # number of tokens of the completion

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second after the first token."""
        seconds = (self.ms["reasoner"] - self.ms["first_token"]) / 1e3
        return (self.tokens - 1) / seconds if seconds > 0 and self.tokens > 1 else float("nan")


def generate(
    model: Any,
    inputs: Any,
    max_new_tokens: int,
    is_over: Callable[[torch.Tensor], bool] = lambda _tokens: False,
) -> tuple[list[int], list[float]]:
    """Run transformers' `generate` greedily; return the new tokens and the time of each [s].

    The inputs hold `input_ids` int64 [1, T]. `is_over` gets the new tokens after each one, and
    says whether to stop.
    """
    from transformers import StoppingCriteriaList

    prompt_tokens = inputs["input_ids"].shape[1]
    times: list[float] = []

    def note(input_ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
        int(input_ids[0, -1])  # waits for the GPU, as a reader of the token must
        times.append(time.perf_counter() - start)
        over = is_over(input_ids[0, prompt_tokens:])
        return torch.full((1,), over, dtype=torch.bool, device=input_ids.device)

    start = time.perf_counter()
    with torch.inference_mode():
        out = model.generate(
            **inputs,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=max_new_tokens,
            stopping_criteria=StoppingCriteriaList([note]),
        )
    return out[0, prompt_tokens:].tolist(), times


class PlainFlow:
    """The flow without this library: `generate`, then `set_image`, then `predict`.

    It also stops at the closing tag and has the same token limit.
    """

    def __init__(self, model: str, device: str, dtype: str) -> None:
        from sam2.sam2_image_predictor import SAM2ImagePredictor
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from segzero_core.segmenter.sam2 import load_segmenter

        files = find_model(model)
        self._description = files.description
        self._device = device
        folder = files.reasoner
        self._processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, local_files_only=True
        )
        self.model: Any = loaded.eval().to(device)  # the reasoner, a model of transformers
        sam: Any = load_segmenter(files.segmenter, device).model
        self.predictor: Any = SAM2ImagePredictor(sam)  # SAM 2's image predictor
        side = int(sam.image_size)
        # The predictor assumes a side of 1024.
        self.predictor._bb_feat_sizes = [(side // step, side // step) for step in (4, 8, 16)]

    @torch.inference_mode()
    def ask(self, image: RgbImage, query: str) -> Run:
        """Answer one query, one stage after the other."""
        clock = _Clock(self._device)
        completion, tokens, first_ms = self._generate(image, query, clock)
        ms = {"first_token": first_ms, "reasoner": clock.ms()}
        native = is_native(self._description.prompt_template)
        prompts = parse_completion(completion, native=native).prompts
        size_wh = (int(image.shape[1]), int(image.shape[0]))
        start = clock.ms()
        self.predictor.set_image(image)
        ms["encoder"] = clock.ms() - start
        masks = np.zeros((len(prompts), size_wh[1], size_wh[0]), np.bool_)
        start = clock.ms()
        for index, seen in enumerate(prompts):
            prompt = to_image_frame(seen, self._description.frame_wh, size_wh)
            points = np.array([point.xy for point in prompt.points])
            found, scores, _ = self.predictor.predict(
                point_coords=points if len(points) else None,
                point_labels=np.ones(len(points)) if len(points) else None,
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
        """Return the completion, its number of tokens, and the time of the first [ms]."""
        asked = self._description.asked(clean_query(query))
        text = self._processor.apply_chat_template(
            build_messages(self._description.prompt_template, asked),
            tokenize=False,
            add_generation_prompt=True,
        )
        resized = squash(image, self._description.seen_size_wh)
        batch = self._processor(text=[text], images=[resized], return_tensors="pt")
        tokenizer = self._processor.tokenizer

        def is_over(tokens: torch.Tensor) -> bool:
            return ANSWER_CLOSE in tokenizer.decode(tokens[-_TAIL_TOKENS:])

        prepared_ms = clock.ms()
        tokens, times = generate(
            self.model,
            dict(batch.to(self._device)),
            self._description.max_new_tokens,
            is_over,
        )
        completion = tokenizer.decode(tokens, skip_special_tokens=False)
        for end in (tokenizer.eos_token, tokenizer.pad_token):
            completion = completion.removesuffix(end or "")
        return completion, len(tokens), prepared_ms + times[0] * 1e3


class OurFlow:
    """This library: a loaded pipeline and the torch device that it runs on."""

    def __init__(self, model: SegZero, device: str) -> None:
        self._model = model
        self._device = device

    def ask(self, image: RgbImage, query: str) -> Run:
        """Answer one query; the first mask counts from when a caller has it."""
        clock = _Clock(self._device)
        first_mask: float | None = None
        for event in self._model.stream(image, query):
            if isinstance(event, MaskReady) and first_mask is None:
                first_mask = clock.ms()
            if isinstance(event, Finished):
                result = event.result
        total = clock.ms()
        times = result.timings
        ms = {name: getattr(times, f"{name}_ms") for name in STAGES[:4]}
        ms |= {"first_mask": total if first_mask is None else first_mask, "total": total}
        completion = result.reasoning.completion
        return Run(completion, result.segmentation.masks, ms, times.tokens)


class _Clock:
    """Milliseconds since its construction, the GPU's work included."""

    def __init__(self, device: str) -> None:
        self._on_gpu = device.startswith("cuda")
        self._start = 0.0
        self._start = self.ms() / 1e3

    def ms(self) -> float:
        if self._on_gpu:
            torch.cuda.synchronize()
        return (time.perf_counter() - self._start) * 1e3
