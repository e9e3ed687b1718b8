"""The small Qwen2.5-VL and its training forward pass.

The modules and weights are those of `transformers`; only the order of the computation differs, so
that many questions about one picture share the picture (one packed row: picture, then the
questions, which see the picture and themselves). `tests/training/test_reasoner_model.py` holds the
two passes equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody reads
from torch import Tensor, nn
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from training.bundle.reasoner.tokenizer import MERGE, PATCH, SEEN_SIZE

CELLS = SEEN_SIZE // (PATCH * MERGE)  # image tokens a side
DENSE_LAYER = (
    3  # the layers below make "what is here" and "where is it"; see platform notes in docs
)
POINTER_LAYERS = 3
"""How many of the uppermost layers have heads that are told where to look."""
LAYERS = 7
POINTER_HEADS = 4
PREFIX = ("<|im_start|>", "user\n", "<|vision_start|>")  # one token each, before the picture


def build_config(tokenizer: PreTrainedTokenizerFast, layers: int = LAYERS) -> Qwen2_5_VLConfig:
    """About 8 M parameters; every number chosen for two cores."""
    token = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 256,
            "intermediate_size": 704,
            "num_hidden_layers": layers,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            # A low base and balanced sections: rows and columns of 12 cells must be told apart.
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 50.0,
                "mrope_section": [4, 6, 6],
            },
            "bos_token_id": None,
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 5,
            "hidden_size": 160,
            "intermediate_size": 448,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "window_size": 4 * PATCH * MERGE,
            "fullatt_block_indexes": [2, 4],
            "out_hidden_size": 256,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def build_model(
    tokenizer: PreTrainedTokenizerFast, seed: int, layers: int = LAYERS
) -> Qwen2_5_VLForConditionalGeneration:
    """Fresh weights. Number tokens begin as waves of their value, near ones look alike."""
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer, layers)).float()
    weight = model.get_input_embeddings().weight
    ids = number_ids(tokenizer)
    with torch.no_grad():
        weight.normal_(0, 0.05)
        weight[ids] *= 0.3
        weight[ids, :32] = _waves(torch.arange(SEEN_SIZE + 1).float(), 16) * 0.3
        for block in model.model.visual.blocks:
            nn.init.zeros_(block.attn.proj.weight)
            nn.init.zeros_(block.mlp.down_proj.weight)
            _spread(block.attn.qkv)
            _spread(block.mlp.gate_proj)
            _spread(block.mlp.up_proj)
        for layer in model.model.language_model.layers:
            nn.init.zeros_(layer.self_attn.o_proj.weight)
            nn.init.zeros_(layer.mlp.down_proj.weight)
            for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                _spread(linear)
            _spread(layer.mlp.gate_proj)
            _spread(layer.mlp.up_proj)
        for linear in (model.model.visual.merger.mlp[0], model.model.visual.merger.mlp[2]):
            _spread(linear)
        nn.init.normal_(model.model.visual.patch_embed.proj.weight, std=1 / math.sqrt(1176))
    return model


def number_ids(tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Token of every coordinate 0..SEEN_SIZE."""
    return torch.tensor(tokenizer.convert_tokens_to_ids([str(n) for n in range(SEEN_SIZE + 1)]))


def _spread(linear: nn.Linear) -> None:
    nn.init.normal_(linear.weight, std=1 / math.sqrt(linear.in_features))


def _waves(values: Tensor, count: int) -> Tensor:
    lengths = torch.logspace(math.log10(2.0 * SEEN_SIZE), math.log10(14.0), count)
    angles = 2 * math.pi * values[:, None] / lengths
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class DenseHeads(nn.Module):
    """Read what and where an object is off the image tokens; used for training only."""

    def __init__(self, width: int, kinds: int, colors: int) -> None:
        super().__init__()
        self.kind = nn.Linear(width, kinds + 1)
        self.color = nn.Linear(width, colors + 1)
        # One linear map per coordinate into the space of the number tokens: an attention head can
        # do the same later, so that writing a number is a copy.
        self.coordinates = nn.Linear(width, 6 * width)

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From [..., width] to kind and colour logits, and [..., 6, width]."""
        cells = F.rms_norm(cells, cells.shape[-1:])
        return self.kind(cells), self.color(cells), self.coordinates(cells).unflatten(-1, (6, -1))


@dataclass
class Asked:
    """Questions of about the same length, padded at the right.

    Attributes:
        ids: int64 [Q, L], what follows the picture: question and completion.
        picture: int64 [Q], which picture each question is about.
        pointer_rows: int64 [Q, M], positions in the row whose next token speaks of an object.
        pointer_cells: bool [Q, M, cells], the image tokens that show it. None set: padding.
    """

    ids: Tensor
    picture: Tensor
    pointer_rows: Tensor
    pointer_cells: Tensor


@dataclass
class Packed:
    """Pictures, and questions that each look at one of them.

    Attributes:
        pixels: float32 [B, cells * 4, 588], normalised patches in the processor's order.
        prefix: int64 [P], the tokens up to the end of the picture, the same for all.
        asked: The questions in groups of similar length, so that little is padding.
    """

    pixels: Tensor
    prefix: Tensor
    asked: list[Asked]


def patchify(images: Tensor) -> Tensor:
    """uint8 [B, S, S, 3] to normalised patches float32 [B, N, 3 * PATCH * PATCH]."""
    x = (images.float() / 255 - 0.5) / 0.25
    batch = x.shape[0]
    x = x.view(batch, CELLS, MERGE, PATCH, CELLS, MERGE, PATCH, 3)
    return x.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(batch, CELLS**2 * MERGE**2, -1)


def see(model: Qwen2_5_VLForConditionalGeneration, pixels: Tensor) -> Tensor:
    """The vision tower over a batch of pictures of one size: [B, N, 588] to [B, cells, width]."""
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
        get_vision_position_ids,
        get_vision_window_index,
    )

    visual = model.model.visual
    config = visual.config
    batch, count, _ = pixels.shape
    side = CELLS * MERGE
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
    # Both frames of the temporal patch are the same picture.
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
class Thoughts:
    """What the training needs of one pass: hidden states and where the pointer heads looked."""

    dense: Tensor  # [B, cells, width] after DENSE_LAYER layers
    last: list[Tensor]  # [Q, L, width] after the final norm, for each group of questions
    pointer_losses: list[list[Tensor]]
    """By group and pointer layer [Q, M]: minus log of the attention on the right cells."""


def think(
    model: Qwen2_5_VLForConditionalGeneration,
    packed: Packed,
    *,
    dense_only: bool = False,
    fixed_pictures: bool = False,
) -> Thoughts:
    """Both towers. A picture is read once, however many questions look at it.

    Args:
        model: The reasoner.
        packed: Pictures and questions.
        dense_only: Stop at `DENSE_LAYER`, without the questions.
        fixed_pictures: What is seen gets no gradient, only what is thought about it.
    """
    language = model.model.language_model
    start, cells = len(PREFIX), CELLS**2
    seeing = torch.is_grad_enabled() and not fixed_pictures
    with torch.set_grad_enabled(seeing):
        stream = _picture_stream(model, packed.pixels, packed.prefix)
    groups = [] if dense_only else packed.asked
    streams = [_asked_stream(model, group) for group in groups]
    losses: list[list[Tensor]] = [[] for _ in groups]
    for index, layer in enumerate(language.layers):
        with torch.set_grad_enabled(seeing):
            k, v = _advance(layer, stream)
        for group, own, told in zip(groups, streams, losses, strict=True):
            q, keys = _advance_asked(layer, own, k[group.picture], v[group.picture])
            if index >= len(language.layers) - POINTER_LAYERS:
                told.append(_pointer_loss(q, keys, own.bias, group))
        if index + 1 == DENSE_LAYER:
            dense = stream.x[:, start : start + cells]
            if dense_only:
                break
    return Thoughts(dense, [language.norm(own.x) for own in streams], losses)


def _picture_stream(
    model: Qwen2_5_VLForConditionalGeneration, pixels: Tensor, prefix: Tensor
) -> _Stream:
    pictures = see(model, pixels)
    head = model.get_input_embeddings()(prefix[: len(PREFIX)]).expand(len(pictures), -1, -1)
    x = torch.cat([head, pictures.to(head.dtype)], dim=1)
    turns = model.model.language_model.rotary_emb(x, _picture_positions(x.device))
    return _Stream(x, *(t[:, None] for t in turns), _causal(x.shape[1], 0, x.device))


def _asked_stream(model: Qwen2_5_VLForConditionalGeneration, group: Asked) -> _Stream:
    start = len(PREFIX)
    y = model.get_input_embeddings()(group.ids)
    positions = start + CELLS + torch.arange(y.shape[1], device=y.device)
    turns = model.model.language_model.rotary_emb(y, positions.expand(3, 1, -1))
    bias = _causal(y.shape[1], start + CELLS**2, y.device)
    return _Stream(y, *(t[:, None] for t in turns), bias)


@dataclass
class KeysAndValues:
    """What one layer remembers: [N, heads, L, head_dim] each."""

    keys: Tensor
    values: Tensor

    def of_rows(self, rows: Tensor) -> KeysAndValues:
        """The memory of some rows, in their order."""
        return KeysAndValues(self.keys[rows], self.values[rows])


def picture_memory(
    model: Qwen2_5_VLForConditionalGeneration, pixels: Tensor, prefix: Tensor
) -> list[KeysAndValues]:
    """Read pictures and return what every layer remembers of them.

    Args:
        model: The reasoner.
        pixels: See `Packed`.
        prefix: See `Packed`.
    """
    stream = _picture_stream(model, pixels, prefix)
    return [KeysAndValues(*_advance(layer, stream)) for layer in model.model.language_model.layers]


def continue_text(
    model: Qwen2_5_VLForConditionalGeneration,
    pictures: Sequence[KeysAndValues],
    before: Sequence[KeysAndValues] | None,
    ids: Tensor,
    lengths: Tensor,
) -> tuple[list[KeysAndValues], Tensor]:
    """Go on with texts that each stand behind a picture.

    Args:
        model: The reasoner.
        pictures: What every layer remembers of each row's picture.
        before: What it remembers of the text so far, a column a token; None at the beginning.
        ids: int64 [N, L], the next tokens; rows may end in padding.
        lengths: int64 [N], true tokens of the text so far. A row's next token takes the column of
            that number, so that padding is written over.

    Returns:
        The memory of the text, and the hidden states [N, L, width] after the final norm.
    """
    language = model.model.language_model
    columns = lengths[:, None] + torch.arange(ids.shape[1], device=ids.device)
    x = model.get_input_embeddings()(ids)
    turns = language.rotary_emb(x, (len(PREFIX) + CELLS + columns).expand(3, -1, -1))
    seen = torch.arange(int(columns.max()) + 1, device=ids.device) <= columns[..., None]
    start = len(PREFIX) + CELLS**2
    bias = _bias(F.pad(seen, (start, 0), value=True))
    stream = _Stream(x, *(t[:, None] for t in turns), bias[:, None])
    memory = []
    for index, layer in enumerate(language.layers):
        q, k, v = _project(layer, stream)
        own = KeysAndValues(k, v) if before is None else _written(before[index], columns, k, v)
        picture = pictures[index]
        keys = torch.cat([picture.keys, own.keys], dim=2)
        _finish(
            layer,
            stream,
            _attend(q, keys, torch.cat([picture.values, own.values], 2), stream.bias),
        )
        memory.append(own)
    return memory, language.norm(stream.x)


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
    """Hidden states on their way through the layers, their rotary turns and attention bias."""

    x: Tensor
    cos: Tensor
    sin: Tensor
    bias: Tensor


def _picture_positions(device: torch.device) -> Tensor:
    """Multimodal rotary positions [3, 1, P] of the prefix: time, row, column."""
    start = len(PREFIX)
    text = torch.arange(start).expand(3, -1)
    rows, columns = torch.arange(CELLS**2) // CELLS, torch.arange(CELLS**2) % CELLS
    grid = start + torch.stack([torch.zeros_like(rows), rows, columns])
    return torch.cat([text, grid], dim=1)[:, None].to(device)


def _causal(count: int, before: int, device: torch.device) -> Tensor:
    """Bias [count, before + count]: everything before the stream, and the stream up to here."""
    shape = (count, before + count)
    return _bias(torch.ones(shape, dtype=torch.bool, device=device).tril(before))


def _bias(seen: Tensor) -> Tensor:
    """What is added to the attention's scores: float32, nothing where something is seen."""
    return torch.zeros((), device=seen.device).masked_fill(~seen, -1e9)


def _advance(layer: nn.Module, stream: _Stream) -> tuple[Tensor, Tensor]:
    """One layer over the picture's part; returns its keys and values [B, heads, P, head_dim]."""
    q, k, v = _project(layer, stream)
    _finish(layer, stream, _attend(q, k, v, stream.bias))
    return k, v


def _advance_asked(
    layer: nn.Module, stream: _Stream, picture_k: Tensor, picture_v: Tensor
) -> tuple[Tensor, Tensor]:
    """One layer over the questions, which also see their picture; returns queries and all keys."""
    q, k, v = _project(layer, stream)
    keys, values = torch.cat([picture_k, k], dim=2), torch.cat([picture_v, v], dim=2)
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


def _pointer_loss(q: Tensor, keys: Tensor, bias: Tensor, group: Asked) -> Tensor:
    """Minus log of the attention that falls on the object spoken of, mean over heads."""
    q, keys = q[:, :POINTER_HEADS], keys[:, :POINTER_HEADS]
    rows = group.pointer_rows
    chosen = torch.gather(q, 2, rows[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[-1]))
    scores = (chosen @ keys.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    scores = scores + bias[rows][:, None]
    start = len(PREFIX)
    on_object = scores[..., start : start + CELLS**2]
    on_object = on_object.masked_fill(~group.pointer_cells[:, None], -1e9)
    return (scores.logsumexp(-1) - on_object.logsumexp(-1)).mean(1)
