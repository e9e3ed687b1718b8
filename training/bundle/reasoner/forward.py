"""The training forward pass of the small Qwen2.5-VL.

Modules and weights are those of `transformers`; only the order of the computation differs, so that
many questions about one image share its computation: the image is computed once, and each question
attends to the image and to itself. `tests/training/bundle/reasoner/test_forward.py` holds both
passes equal. `segzero_core.qwen_vl` is not used here: it decodes without gradients, one
conversation at a time, and has no pointer losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody reads
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from training.bundle.reasoner.model import DENSE_LAYER, PREFIX, TOKEN_PX
from training.bundle.reasoner.tokenizer import MERGE, PATCH

POINTER_LAYERS = 3
"""How many of the uppermost layers have attention heads that learn where to look."""
POINTER_HEADS = 4


@dataclass
class QuestionGroup:
    """Questions of about the same length, padded on the right."""

    ids: Tensor  # int64 [Q, L], the tokens after the image: question and completion
    image_index: Tensor  # int64 [Q], the image of each question
    pointer_rows: Tensor  # int64 [Q, M], positions in the row whose next token has such targets:
    # bool [Q, M, 2, cells + L], the tokens of image and text at which each half of the pointer
    # heads is to look. None set: padding.
    pointer_targets: Tensor


@dataclass
class Packed:
    """Images, and questions that are each about one of them."""

    pixels: Tensor  # float32 [B, cells * 4, 588], normalized patches in the processor's order
    prefix: Tensor  # int64 [P], the tokens up to the end of the image, the same for all
    # The questions in groups of similar length, so that little is padding.
    groups: list[QuestionGroup]


def patchify(images: Tensor) -> Tensor:
    """uint8 [B, S, S, 3] to normalised patches float32 [B, N, 3 * PATCH * PATCH]."""
    x = (images.float() / 255 - 0.5) / 0.25
    batch, side = x.shape[0], x.shape[1] // TOKEN_PX
    x = x.view(batch, side, MERGE, PATCH, side, MERGE, PATCH, 3)
    return x.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(batch, (side * MERGE) ** 2, -1)


def encode_images(model: Qwen2_5_VLForConditionalGeneration, pixels: Tensor) -> Tensor:
    """Run the vision encoder on a batch of images: [B, N, 588] to [B, cells, width]."""
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
        get_vision_position_ids,
        get_vision_window_index,
    )

    visual = model.model.visual
    config = visual.config
    batch, count, _ = pixels.shape
    side = isqrt(count)
    grid = torch.tensor([[1, side, side]])
    positions = get_vision_position_ids(grid, MERGE, kwargs={})
    window_index, _ = get_vision_window_index(
        grid, spatial_merge_size=MERGE, window_size=config.window_size, patch_size=PATCH, kwargs={}
    )
    window_index = window_index.to(pixels.device)
    inner = torch.arange(MERGE**2, device=pixels.device)
    order = (window_index[:, None] * MERGE**2 + inner).flatten()
    cos, sin = visual.rotary_pos_emb(pixels, positions.to(pixels.device))
    cos, sin = cos[order][:, None], sin[order][:, None]
    # Both frames of the temporal patch are the same image.
    weight = visual.patch_embed.proj.weight.sum(dim=2).flatten(1)
    x = F.linear(pixels[:, order], weight)
    per_window = (config.window_size // PATCH) ** 2
    for index, block in enumerate(visual.blocks):
        rows = count if index in config.fullatt_block_indexes else per_window
        x = x + _vision_attention(block.attn, block.norm1(x), cos, sin, rows)
        x = x + block.mlp(block.norm2(x))
    merged = visual.merger(x.reshape(-1, x.shape[-1])).view(batch, -1, config.out_hidden_size)
    return merged[:, torch.argsort(window_index)]


def _vision_attention(attn: nn.Module, x: Tensor, cos: Tensor, sin: Tensor, rows: int) -> Tensor:
    batch, count, width = x.shape
    qkv = attn.qkv(x).view(batch, count, 3, attn.num_heads, -1)
    q, k, v = qkv.unbind(2)
    q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)

    def windows(t: Tensor) -> Tensor:
        return t.reshape(-1, rows, attn.num_heads, t.shape[-1]).transpose(1, 2)

    mixed = _attend(windows(q), windows(k), windows(v))
    return attn.proj(mixed.transpose(1, 2).reshape(batch, count, width))


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Plain attention: on a CPU its backward pass is several times faster than the fused one's."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    # Softmax in the type of the product: under autocast it would be made float32 and twice as
    # slow.
    with torch.autocast(q.device.type, enabled=False):
        return scores.softmax(-1) @ v.to(scores.dtype)


def _rotate(t: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = t.shape[-1] // 2
    turned = torch.cat((-t[..., half:], t[..., :half]), dim=-1)
    return t * cos.to(t.dtype) + turned * sin.to(t.dtype)


@dataclass
class HiddenStates:
    """The results of one pass: hidden states, and how far the pointer heads looked aside."""

    dense: Tensor  # [B, cells, width] after DENSE_LAYER layers
    last: list[Tensor]  # [Q, L, width] after the final norm, for each group of questions
    pointer_losses: list[list[Tensor]]
    """By group and pointer layer [Q, M]: minus log of the attention on the right cells."""


def forward(
    model: Qwen2_5_VLForConditionalGeneration,
    packed: Packed,
    *,
    dense_only: bool = False,
    freeze_vision: bool = False,
) -> HiddenStates:
    """Run vision encoder and language model; an image is computed once for all its questions.

    `dense_only` stops at `DENSE_LAYER`, without the questions. With `freeze_vision` only the text
    after the image gets gradients.
    """
    language = model.model.language_model
    start = len(PREFIX)
    trains_vision = torch.is_grad_enabled() and not freeze_vision
    with torch.set_grad_enabled(trains_vision):
        stream = _image_stream(model, packed.pixels, packed.prefix)
    groups = [] if dense_only else packed.groups
    cells = stream.x.shape[1] - start
    streams = [_question_stream(model, group, isqrt(cells)) for group in groups]
    losses: list[list[Tensor]] = [[] for _ in groups]
    for index, layer in enumerate(language.layers):
        with torch.set_grad_enabled(trains_vision):
            k, v = _advance(layer, stream)
        for group, own, found in zip(groups, streams, losses, strict=True):
            q, keys = _advance_questions(layer, own, k[group.image_index], v[group.image_index])
            if index >= len(language.layers) - POINTER_LAYERS:
                found.append(_pointer_loss(q, keys, own.bias, group))
        if index + 1 == DENSE_LAYER:
            dense = stream.x[:, start : start + cells]
            if dense_only:
                break
    return HiddenStates(dense, [language.norm(own.x) for own in streams], losses)


def _image_stream(
    model: Qwen2_5_VLForConditionalGeneration, pixels: Tensor, prefix: Tensor
) -> _Stream:
    images = encode_images(model, pixels)
    head = model.get_input_embeddings()(prefix[: len(PREFIX)]).expand(len(images), -1, -1)
    x = torch.cat([head, images.to(head.dtype)], dim=1)
    turns = model.model.language_model.rotary_emb(
        x, _image_positions(isqrt(images.shape[1]), x.device)
    )
    return _Stream(x, *(t[:, None] for t in turns), _causal(x.shape[1], 0, x.device))


def _question_stream(
    model: Qwen2_5_VLForConditionalGeneration, group: QuestionGroup, side: int
) -> _Stream:
    start = len(PREFIX)
    y = model.get_input_embeddings()(group.ids)
    positions = start + side + torch.arange(y.shape[1], device=y.device)
    turns = model.model.language_model.rotary_emb(y, positions.expand(3, 1, -1))
    bias = _causal(y.shape[1], start + side**2, y.device)
    return _Stream(y, *(t[:, None] for t in turns), bias)


@dataclass
class KeysAndValues:
    """The KV cache of one layer: [N, heads, L, head_dim] each."""

    keys: Tensor
    values: Tensor

    def of_rows(self, rows: Tensor) -> KeysAndValues:
        """The cache of some rows, in their order."""
        return KeysAndValues(self.keys[rows], self.values[rows])


def image_cache(
    model: Qwen2_5_VLForConditionalGeneration, pixels: Tensor, prefix: Tensor
) -> list[KeysAndValues]:
    """Return the keys and values of images in every layer; see `Packed` for the arguments."""
    stream = _image_stream(model, pixels, prefix)
    return [KeysAndValues(*_advance(layer, stream)) for layer in model.model.language_model.layers]


def continue_text(
    model: Qwen2_5_VLForConditionalGeneration,
    images: Sequence[KeysAndValues],
    before: Sequence[KeysAndValues] | None,
    ids: Tensor,
    lengths: Tensor,
) -> tuple[list[KeysAndValues], Tensor]:
    """Run the language model on the next tokens of texts that each stand after an image.

    Returns the cache of the text, and the hidden states [N, L, width] after the final norm.

    Args:
        model: The reasoner.
        images: The cache of each row's image, by layer.
        before: The cache of the text so far, one column per token; None at the beginning.
        ids: int64 [N, L], the next tokens; rows may end in padding.
        lengths: int64 [N], true tokens of the text so far. A row's next token takes the column of
            that number, so that padding is overwritten.
    """
    language = model.model.language_model
    columns = lengths[:, None] + torch.arange(ids.shape[1], device=ids.device)
    x = model.get_input_embeddings()(ids)
    start = images[0].keys.shape[2]
    side = isqrt(start - len(PREFIX))
    turns = language.rotary_emb(x, (len(PREFIX) + side + columns).expand(3, -1, -1))
    seen = torch.arange(int(columns.max()) + 1, device=ids.device) <= columns[..., None]
    bias = _bias(F.pad(seen, (start, 0), value=True))
    stream = _Stream(x, *(t[:, None] for t in turns), bias[:, None])
    cache = []
    for index, layer in enumerate(language.layers):
        q, k, v = _project(layer, stream)
        own = KeysAndValues(k, v) if before is None else _written(before[index], columns, k, v)
        image = images[index]
        keys = torch.cat([image.keys, own.keys], dim=2)
        values = torch.cat([image.values, own.values], dim=2)
        _finish(layer, stream, _attend(q, keys, values, stream.bias))
        cache.append(own)
    return cache, language.norm(stream.x)


def _written(before: KeysAndValues, columns: Tensor, k: Tensor, v: Tensor) -> KeysAndValues:
    """Put new keys and values into their columns."""
    width = int(columns.max()) + 1
    where = columns[:, None, :, None].expand_as(k)

    def put(old: Tensor, new: Tensor) -> Tensor:
        room = F.pad(old, (0, 0, 0, max(0, width - old.shape[2])))[:, :, :width]
        return room.scatter(2, where, new)

    return KeysAndValues(put(before.keys, k), put(before.values, v))


@dataclass
class _Stream:
    """Hidden states between two layers, with their rotary embedding and attention bias."""

    x: Tensor
    cos: Tensor
    sin: Tensor
    bias: Tensor


def _image_positions(side: int, device: torch.device) -> Tensor:
    """Multimodal rotary positions [3, 1, P] of the prefix: time, row, column."""
    start = len(PREFIX)
    text = torch.arange(start).expand(3, -1)
    rows, columns = torch.arange(side**2) // side, torch.arange(side**2) % side
    grid = start + torch.stack([torch.zeros_like(rows), rows, columns])
    return torch.cat([text, grid], dim=1)[:, None].to(device)


def _causal(count: int, before: int, device: torch.device) -> Tensor:
    """Bias [count, before + count]: all columns before the stream, and the stream up to here."""
    shape = (count, before + count)
    return _bias(torch.ones(shape, dtype=torch.bool, device=device).tril(before))


def _bias(seen: Tensor) -> Tensor:
    """Attention bias, float32: 0 where a column is visible, -1e9 elsewhere."""
    return torch.zeros((), device=seen.device).masked_fill(~seen, -1e9)


def _advance(layer: nn.Module, stream: _Stream) -> tuple[Tensor, Tensor]:
    """Run one layer on the image's part; return its keys and values [B, heads, P, head_dim]."""
    q, k, v = _project(layer, stream)
    _finish(layer, stream, _attend(q, k, v, stream.bias))
    return k, v


def _advance_questions(
    layer: nn.Module, stream: _Stream, image_k: Tensor, image_v: Tensor
) -> tuple[Tensor, Tensor]:
    """Run one layer on questions, which attend to their image too; return queries and all keys."""
    q, k, v = _project(layer, stream)
    keys, values = torch.cat([image_k, k], dim=2), torch.cat([image_v, v], dim=2)
    _finish(layer, stream, _attend(q, keys, values, stream.bias))
    return q, keys


def _project(layer: nn.Module, stream: _Stream) -> tuple[Tensor, Tensor, Tensor]:
    attn = layer.self_attn
    normed = layer.input_layernorm(stream.x)

    def heads(t: Tensor) -> Tensor:
        return t.unflatten(-1, (-1, attn.head_dim)).transpose(1, 2)

    q = _rotate(heads(attn.q_proj(normed)), stream.cos, stream.sin)
    k = _rotate(heads(attn.k_proj(normed)), stream.cos, stream.sin)
    return q, k, heads(attn.v_proj(normed))


def _finish(layer: nn.Module, stream: _Stream, mixed: Tensor) -> None:
    x = stream.x + layer.self_attn.o_proj(mixed.transpose(1, 2).flatten(2))
    stream.x = x + layer.mlp(layer.post_attention_layernorm(x))


def _pointer_loss(q: Tensor, keys: Tensor, bias: Tensor, group: QuestionGroup) -> Tensor:
    """Minus log of the attention that falls on the right tokens, mean over heads."""
    q, keys = q[:, :POINTER_HEADS], keys[:, :POINTER_HEADS]
    rows = group.pointer_rows
    chosen = torch.gather(q, 2, rows[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[-1]))
    scores = (chosen @ keys.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    scores = scores + bias[rows][:, None]
    start = len(PREFIX)
    halves = group.pointer_targets.transpose(1, 2).repeat_interleave(POINTER_HEADS // 2, dim=1)
    on_targets = scores[..., start:].masked_fill(~halves, -1e9)
    return (scores.logsumexp(-1) - on_targets.logsumexp(-1)).mean(1)
