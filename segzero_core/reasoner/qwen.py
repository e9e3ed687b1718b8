"""A Qwen-VL reasoner, through transformers or by a decoding loop of our own."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from segzero_core.checkpoints.description import ABSOLUTE, ModelDescription
from segzero_core.checkpoints.model_folder import check_model_folder
from segzero_core.completion.parser import TAGS, THINK_OPEN
from segzero_core.config import REASONER_PRECISIONS
from segzero_core.cpu_threads import CpuThreads
from segzero_core.decoding.constrained import Constraint
from segzero_core.decoding.decoder import (
    Decoder,
    PlainDecoder,
    QwenDecoder,
    end_ids,
    is_supported,
    token_grid,
)
from segzero_core.decoding.grammar import grammar_of
from segzero_core.decoding.token_stream import TokenStream
from segzero_core.errors import (
    ConfigError,
    InputError,
    ModelLoadError,
    OutOfMemoryError,
    SegZeroError,
    is_out_of_memory,
    shown,
)
from segzero_core.limits import MAX_IMAGE_TOKENS
from segzero_core.prompt import build_prompt
from segzero_core.reasoner.base import reasoner_error, squash
from segzero_core.reasoner.chat_template import read_template
from segzero_core.types import RgbImage, SizeWH

DECODE_MODES: Final = ("auto", "plain", "eager", "drafts", "graph", "compiled")
"""How the tokens of a reply are generated.

`plain` is transformers' `generate`. The others are a loop of our own for Qwen2.5-VL and Qwen3-VL:
`eager` runs anywhere, and so does `drafts`, n-gram speculative decoding, on a CPU by ONNX Runtime
where that can be (see `choose_language_model`); on a GPU, `graph` captures the step of a token as
a CUDA graph, and `compiled` compiles it before.
`auto` is `graph` on a GPU, `drafts` on a CPU, and `plain` for a model that the loop does not know.
"""

_QUANTIZED: Final = ("int8", "int4")


class QwenReasoner:
    """A Qwen-VL model of any size; greedy.

    Safe to call from any thread. The replies of one instance are generated one after the other,
    because they share a KV cache.

    Args:
        model_dir: Folder in the format of the Hub: configuration, safetensors, processor.
        description: How the model is asked; may name another template or limit than the
            folder's `segzero.json`.
        device: A torch device.
        dtype: One of `REASONER_PRECISIONS`.
        max_new_tokens: Longest reply, in place of the description's.
        decode: How tokens are generated; see `DECODE_MODES`.
        grammar: Only generate well-formed replies, and fill in their fixed characters without
            asking the model.
        cores: Shared with the image encoder, where both work on the processor.

    Raises:
        ConfigError: The processor would resize the image that the description promises, or
            the model or the device cannot be decoded in that way.
        ModelLoadError: Weights or processor are missing, damaged or do not fit.
        OutOfMemoryError: The device has too little memory.
    """

    def __init__(
        self,
        model_dir: str | Path,
        description: ModelDescription,
        device: str = "cpu",
        dtype: str | None = None,
        max_new_tokens: int | None = None,
        *,
        decode: str = "auto",
        grammar: bool = False,
        cores: CpuThreads | None = None,
    ) -> None:
        if decode not in DECODE_MODES:
            raise ConfigError(f"decode: {shown(str(decode))} is none of {', '.join(DECODE_MODES)}")
        if max_new_tokens is not None:
            description = replace(description, max_new_tokens=max_new_tokens)
        self._description = description
        self._device = device
        self._precision = dtype or "auto"
        options = _weight_options(self._precision, device)
        self._model, self._processor = _load(Path(model_dir), device, options)
        self._template = read_template(self._processor)
        self._lock = threading.Lock()
        # The special tokens as text; in a query they would act as markup.
        special: list[str] = self._processor.tokenizer.all_special_tokens
        self._reserved = [text for text in special if text not in TAGS]
        self._decoder = self._choose_decoder(decode, cores, grammar=grammar)

    @property
    def description(self) -> ModelDescription:
        """How this model is asked."""
        return self._description

    def stream(
        self, image: RgbImage, query: str, *, cancel: threading.Event | None = None
    ) -> Iterator[str]:
        """Generate a reply token by token; see `Reasoner`."""
        image_seen = squash(image, self._description.seen_size_wh)
        asked = self._description.asked(query)
        prompt = build_prompt(self._description.prompt_template, asked)
        if taken := next((text for text in self._reserved if text in query), None):
            raise InputError(
                f"query: {shown(taken)} is a special token of the model; leave it out"
            )
        text = self._template.render(prompt)
        tokenizer, limit = self._processor.tokenizer, self._description.max_new_tokens
        reply = TokenStream(
            tokenizer,
            end_ids(self._model, tokenizer),
            lambda on_token: self._decoder.run(image_seen, text, limit, on_token),
            self._lock,
            THINK_OPEN if text.rstrip().endswith(THINK_OPEN) else "",
        )
        return _read(reply, cancel)

    def _choose_decoder(self, decode: str, cores: CpuThreads | None, *, grammar: bool) -> Decoder:
        grid_wh = self._checked_grid()
        on_gpu = not self._device.startswith("cpu")
        supported = is_supported(self._model)
        if decode == "auto" and supported:
            # The kernels of quantized weights are not made for being captured.
            graph = on_gpu and self._precision not in _QUANTIZED
            decode = "graph" if graph else "drafts"
        elif decode == "auto":
            decode = "plain"
        if decode != "plain" and not supported:
            raise ConfigError(
                f"decode: {decode} is made for Qwen2.5-VL and Qwen3-VL with greedy settings, and"
                f" this is {type(self._model).__name__}; use auto or plain"
            )
        if decode in ("graph", "compiled") and not on_gpu:
            raise ConfigError(f"decode: {decode} needs a GPU; on a CPU use auto, eager or drafts")
        if decode == "plain":
            if grammar:
                raise ConfigError("grammar: it does not go together with decode plain")
            return PlainDecoder(self._model, self._processor)
        constraint = None
        if grammar:
            accepted = grammar_of(self._description.prompt_template, self._description.frame_wh)
            constraint = Constraint(self._processor.tokenizer, accepted)
        return QwenDecoder(self._model, self._processor, grid_wh, decode, constraint, cores)

    def _checked_grid(self) -> SizeWH:
        """Return how many tokens an image is wide and high.

        Raises:
            ConfigError: The processor resizes again: the model would answer in another frame.
        """
        width, height = self._description.seen_size_wh
        try:
            grid_wh = token_grid(self._processor, (width, height))
        except Exception as error:  # the processor's own errors have no common root
            raise ConfigError(
                f"seen_size_wh: the processor cannot take {width}x{height}: {error}"
            ) from error
        if grid_wh[0] * grid_wh[1] > MAX_IMAGE_TOKENS:
            raise ConfigError(
                f"the processor makes {grid_wh[0]}x{grid_wh[1]} tokens of an image; at most"
                f" {MAX_IMAGE_TOKENS} are read"
            )
        images = self._processor.image_processor
        side = images.patch_size * images.merge_size
        seen = (grid_wh[0] * side, grid_wh[1] * side)
        if self._description.coordinates == ABSOLUTE and seen != (width, height):
            raise ConfigError(
                f"seen_size_wh: the description says {width}x{height}, but the model's processor"
                f" makes {seen[0]}x{seen[1]} of it; both must agree, in multiples of {side}"
            )
        return grid_wh


def _read(reply: TokenStream, cancel: threading.Event | None) -> Iterator[str]:
    """Yield a reply, then raise what went wrong in its thread."""
    yield from reply.chunks(cancel)
    if reply.error is not None:
        raise reasoner_error(reply.error, reply.text) from reply.error


def _weight_options(precision: str, device: str) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` for a precision.

    Raises:
        ConfigError: There is no such precision, or the device cannot have it.
    """
    if precision not in REASONER_PRECISIONS:
        known = ", ".join(REASONER_PRECISIONS)
        raise ConfigError(f"precision: {shown(precision)} is none of {known}")
    on_cpu = device.startswith("cpu")
    if precision not in _QUANTIZED:
        return {
            "dtype": ("float32" if on_cpu else "bfloat16") if precision == "auto" else precision
        }
    if on_cpu:
        raise ConfigError(f"precision: {precision} needs a GPU; on a CPU use auto")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(f"precision: {precision} needs bitsandbytes; pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_8bit=precision == "int8",
        load_in_4bit=precision == "int4",
        bnb_4bit_compute_dtype="bfloat16",
        llm_int8_skip_modules=["visual", "lm_head"],
    )
    return {"dtype": "bfloat16", "quantization_config": config, "device_map": {"": device}}


def _load(model_dir: Path, device: str, weights: dict[str, Any]) -> tuple[Any, Any]:
    """Load model and processor from a folder, as data: no code of the folder is run."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    options = {"trust_remote_code": False, "local_files_only": True}
    check_model_folder(model_dir)
    try:
        processor = AutoProcessor.from_pretrained(model_dir, **options)
        for part in ("tokenizer", "image_processor", "image_token", "chat_template"):
            if getattr(processor, part, None) is None:
                raise ModelLoadError(
                    f"{model_dir} holds no reasoner that can be loaded: no {part} in its processor"
                )
        model, report = AutoModelForImageTextToText.from_pretrained(
            model_dir,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, and refused by the next line
            **options,
            **weights,
        )
        _check_report(model_dir, report)
        if "device_map" not in weights:
            model.to(device)
        return model.eval().requires_grad_(requires_grad=False), processor
    except SegZeroError:
        raise
    except Exception as error:  # transformers, tokenizers and safetensors share no root
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"not enough memory on {device} for {model_dir}") from error
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelLoadError(
            f"{model_dir} holds no reasoner that can be loaded: {line[:300]}"
        ) from error


def _check_report(model_dir: Path, report: dict[str, Any]) -> None:
    """Refuse weights that do not fit; transformers would fill the gaps with random numbers."""
    for fault in ("missing_keys", "mismatched_keys", "unexpected_keys", "error_msgs"):
        if found := sorted(map(str, report.get(fault) or ())):
            raise ModelLoadError(
                f"{model_dir}: the weights do not fit the configuration: {len(found)}"
                f" {fault.replace('_', ' ')}, such as {found[0]}"
            )
