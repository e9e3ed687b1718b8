"""Qwen-VL's language model with a KV cache at a fixed place, for one reply at a time.

Of Qwen2.5-VL and Qwen3-VL, which differ in three places: Qwen3-VL norms the queries and keys of
each head, interleaves the rotary positions (its own module makes the tables), and adds features of
the image's vision layers to the first layers' output (DeepStack).

The weights are those of transformers' modules; only the forward pass differs. Projections of the
same input are joined, keys and values are written in place, and one new token costs a dozen
operations a layer. `tests/core/qwen_vl/test_language_model.py` holds the result equal to the
modules' own forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from segzero_core.qwen_vl.rms_norm import rms_norm, rms_norm_of
from segzero_core.types import SizeWH

KV_CACHE_STEP: Final = 512
"""The KV cache grows by this many tokens."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Where new tokens are written in the KV cache, and which columns they attend to."""

    # The columns they are written to; int64 [1] where a captured graph must read them.
    written: slice | Tensor
    length: int  # they attend to the columns below this one, as far as `bias` lets them
    # Added to the attention's scores, [1, length] or [L, length]; None: no column is masked.
    bias: Tensor | None = None
    causal: bool = False  # the tokens begin the cache, and each attends to those up to itself


def multimodal_positions(ids: Sequence[int], image_token: int, grid_wh: SizeWH) -> Tensor:
    """Return the rotary positions (time, row, column; int64 [3, L]) of a prompt with an image.

    Text counts on in all three rows. The image's tokens stay at one time and count rows and
    columns; the text behind it goes on after the longer side.

    Args:
        ids: The prompt; the image is one run of `image_token`, width times height long.
        image_token: See `ids`.
        grid_wh: How many tokens the image is wide and high.

    Raises:
        ValueError: The run has another length.

    Source: Qwen2.5-VL's `get_rope_index`.
    """
    count = sum(token == image_token for token in ids)
    if not count:
        return torch.arange(len(ids)).expand(3, -1)
    width, height = grid_wh
    start = list(ids).index(image_token)
    if count != width * height or any(t != image_token for t in ids[start : start + count]):
        raise ValueError(f"expected one run of {width}x{height} image tokens, got {count}")
    cells = torch.arange(count)
    image = start + torch.stack([torch.zeros_like(cells), cells // width, cells % width])
    after = start + max(width, height) + torch.arange(len(ids) - start - count)
    return torch.cat([torch.arange(start).expand(3, -1), image, after.expand(3, -1)], dim=1)


class LanguageModel:
    """The language model of one Qwen-VL, and the KV cache of one text.

    Not safe for use by two threads at once.

    Args:
        model: A `Qwen2_5_VLForConditionalGeneration` or `Qwen3VLForConditionalGeneration` in
            evaluation mode, on its device. Its projections are re-laid in place; it stays usable.
    """

    def __init__(self, model: Any) -> None:
        language = model.model.language_model
        self.device = model.device
        self.image_token = int(model.config.image_token_id)
        self.width = int(language.embed_tokens.embedding_dim)
        self.kv_cache: Sequence[tuple[Tensor, Tensor]] = []
        """Keys and values of each layer, [key_heads, capacity, head_dim]; growing moves them."""
        self.capacity = 0
        """How many tokens the KV cache has room for."""
        self.rotary = (torch.empty(0), torch.empty(0))
        """Cosine and sine [capacity, head_dim] of positions; half of the sine is negative."""
        self._embed = language.embed_tokens
        self._rotary_embedding = language.rotary_emb
        self._layers = [_Layer(layer) for layer in language.layers]
        self._norm = rms_norm(language.norm)
        self._head = model.lm_head
        self._dtype = language.embed_tokens.weight.dtype

    @property
    def backend(self) -> str:
        """What reads text: torch, or what a class derived from this one has for it."""
        return "torch"

    def reserve(self, tokens: int) -> None:
        """Make room for so many tokens; what is in the KV cache stays."""
        if tokens <= self.capacity:
            return
        room = -(-tokens // KV_CACHE_STEP) * KV_CACHE_STEP
        kv_cache = []
        for index, layer in enumerate(self._layers):
            shape = (2, layer.key_heads, room, layer.head_dim)
            both = torch.zeros(shape, dtype=self._dtype, device=self.device)
            if self.kv_cache:
                for new, old in zip(both, self.kv_cache[index], strict=True):
                    new[:, : self.capacity] = old
            kv_cache.append((both[0], both[1]))
        self.rotary = self._rotary_of(torch.arange(room, device=self.device).expand(3, -1))
        self.kv_cache, self.capacity = kv_cache, room

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Return the embeddings [L, width] of tokens."""
        return torch.as_tensor(self._embed(torch.tensor(ids, device=self.device)))

    def prefill(
        self, x: Tensor, positions: Tensor, start: int, deep: Sequence[Tensor] = ()
    ) -> Tensor:
        """Read a part of a prompt; return the logits of the token that follows, float32 [V].

        Args:
            x: Embeddings [L, width].
            positions: int64 [3, L].
            start: The column of the first one; so many tokens are in the KV cache before it.
            deep: Added to the output of the first layers, [L, width] each; 0 for text.
        """
        rotary = self._rotary_of(positions.to(self.device))
        columns = self._columns(start, len(x))
        return self._logits(x, rotary, columns, deep, last_only=True)[0]

    def forward(self, tokens: Sequence[int], position: int, start: int) -> Tensor:
        """Read tokens of text; return the logits after each token, float32 [L, V].

        Args:
            tokens: Of text, so that all three rows of positions are the same.
            position: Rotary position of the first one.
            start: See `prefill`.
        """
        count = len(tokens)
        cos, sin = (table[position : position + count] for table in self.rotary)
        return self._logits(self.embed(tokens), (cos, sin), self._columns(start, count))

    def graph_step(self, token: Tensor, position: Tensor, column: Tensor, length: int) -> Tensor:
        """Read one token whose number, position and column are tensors, for a captured graph.

        Args:
            token: int64 [1].
            position: int64 [1].
            column: int64 [1], below `length`.
            length: So much of the KV cache is read, whatever stands in it.

        Returns:
            float32 [V]: the logits of the token that follows.
        """
        x = self._embed(token)
        seen = torch.arange(length, device=self.device) <= column
        bias = torch.zeros(length, dtype=x.dtype, device=self.device)
        bias = bias.masked_fill(~seen, float("-inf"))[None]
        cos, sin = (table.index_select(0, position) for table in self.rotary)
        return self._logits(x, (cos, sin), Columns(column, length, bias))[0]

    def _columns(self, start: int, count: int) -> Columns:
        """Return the columns of tokens behind `start` others; each attends up to itself."""
        stop = start + count
        bias = None
        if start and count > 1:
            columns = torch.arange(stop, device=self.device)
            unseen = columns > columns[start:, None]
            bias = torch.zeros(unseen.shape, dtype=self._dtype, device=self.device)
            bias.masked_fill_(unseen, float("-inf"))
        return Columns(slice(start, stop), stop, bias, causal=start == 0)

    def _rotary_of(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        like = torch.empty(0, dtype=self._dtype, device=self.device)
        cos, sin = self._rotary_embedding(like, positions[:, None])
        # The sign of the rotated half, taken out of the loop.
        signs = torch.ones_like(sin)
        signs[..., : sin.shape[-1] // 2] = -1
        return cos[0], (sin * signs)[0]

    def _logits(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        columns: Columns,
        deep: Sequence[Tensor] = (),
        *,
        last_only: bool = False,
    ) -> Tensor:
        cos, sin = (t[:, None] for t in rotary)
        for index, (layer, (keys, values)) in enumerate(
            zip(self._layers, self.kv_cache, strict=True)
        ):
            # Of tokens whose logits are not wanted, the last layer computes keys and values only.
            last = last_only and layer is self._layers[-1]
            x = layer(x, cos, sin, keys, values, columns, last_only=last)
            if index < len(deep) and not last:
                x = x + deep[index]
        logits: Tensor = self._head(self._norm(x))
        return logits.float()


class _Layer:
    """One layer, without the checks and options of transformers' module."""

    def __init__(self, layer: Any) -> None:
        attention = layer.self_attn
        self.head_dim = int(attention.head_dim)
        self.key_heads = int(attention.k_proj.out_features) // self.head_dim
        self._heads = int(attention.q_proj.out_features) // self.head_dim
        self._scale = float(attention.scaling)
        self._norm_in = rms_norm(layer.input_layernorm)
        self._norm_mlp = rms_norm(layer.post_attention_layernorm)
        self._qkv = join([attention.q_proj, attention.k_proj, attention.v_proj])
        self._head_norm = _head_norm(attention, self._heads, self.key_heads)
        self._out = attention.o_proj
        self._gate_up = join([layer.mlp.gate_proj, layer.mlp.up_proj])
        self._activation = layer.mlp.act_fn
        self._down = layer.mlp.down_proj

    def __call__(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        keys: Tensor,
        values: Tensor,
        columns: Columns,
        *,
        last_only: bool,
    ) -> Tensor:
        """Write tokens [L, width] to the KV cache; return all or the last for the next layer."""
        heads, key_heads = self._heads, self.key_heads
        qkv = self._qkv(self._norm_in(x)).view(len(x), heads + 2 * key_heads, self.head_dim)
        rotated = self._head_norm(qkv[:, : heads + key_heads])
        rotated = (rotated * cos).addcmul_(rotated.roll(self.head_dim // 2, -1), sin)
        for cache, new in ((keys, rotated[:, heads:]), (values, qkv[:, heads + key_heads :])):
            if isinstance(columns.written, slice):
                cache[:, columns.written] = new.transpose(0, 1)
            else:
                cache.index_copy_(1, columns.written, new.transpose(0, 1))
        if last_only:
            x, rotated = x[-1:], rotated[-1:]
            columns = Columns(columns.written, columns.length)  # the last one attends to all
        cached = (keys[:, : columns.length], values[:, : columns.length])
        x = x + self._out(self._attend(rotated[:, :heads], *cached, columns))
        gate, up = self._gate_up(self._norm_mlp(x)).chunk(2, -1)
        down: Tensor = self._down(self._activation(gate) * up)
        return x + down

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, columns: Columns) -> Tensor:
        count, groups = len(q), self._heads // self.key_heads
        if count == 1 and columns.bias is not None:
            # The fused kernels are spread over heads and queries, of which one token has too few.
            # Plain products are spread over the keys.
            q = q.view(self.key_heads, -1, self.head_dim)
            scores = torch.baddbmm(columns.bias, q, keys.transpose(1, 2), alpha=self._scale)
            weights = scores.softmax(-1, dtype=torch.float32).to(values.dtype)
            return torch.bmm(weights, values).view(1, -1)
        if count == 1:
            # All heads of a group ask the same keys: they take the place of several tokens.
            q = q.view(1, self.key_heads, groups, self.head_dim)
        else:
            q = q.transpose(0, 1)[None]
            if groups > 1:
                keys, values = (t.repeat_interleave(groups, 0) for t in (keys, values))
        mixed = functional.scaled_dot_product_attention(
            q,
            keys[None],
            values[None],
            attn_mask=columns.bias,
            is_causal=columns.causal and count > 1,
            scale=self._scale,
        )
        return mixed.reshape(1, -1) if count == 1 else mixed[0].transpose(0, 1).flatten(1)


def _head_norm(attention: Any, heads: int, key_heads: int) -> Callable[[Tensor], Tensor]:
    """Return the norm of queries and keys [L, heads + key_heads, head_dim], where there is one."""
    if not hasattr(attention, "q_norm"):
        return lambda x: x
    queries, keys = attention.q_norm, attention.k_norm
    weight = torch.cat([queries.weight.expand(heads, -1), keys.weight.expand(key_heads, -1)])
    return rms_norm_of(weight, float(queries.variance_epsilon))


def join(modules: Sequence[Any]) -> Callable[[Tensor], Tensor]:
    """Return one projection for several of the same input.

    The modules then share its weights, so that none is held twice. Quantized modules are called
    one by one.
    """
    if any(type(module) is not nn.Linear for module in modules):
        return lambda x: torch.cat([module(x) for module in modules], dim=-1)
    with torch.no_grad():
        weight = torch.cat([module.weight for module in modules])
        if weight.device.type == "cpu":
            # One row times a wide matrix is faster on a CPU when the inputs lie one by one.
            weight = weight.t().contiguous().t()
        biases = [module.bias for module in modules]
        bias = None if any(b is None for b in biases) else torch.cat(biases)
        start = 0
        for module in modules:
            stop = start + module.out_features
            module.weight = nn.Parameter(weight[start:stop], requires_grad=False)
            if bias is not None:
                module.bias = nn.Parameter(bias[start:stop], requires_grad=False)
            start = stop
    return lambda x: functional.linear(x, weight, bias)
