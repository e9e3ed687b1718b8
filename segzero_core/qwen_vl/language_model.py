"""Qwen2.5-VL's language tower with a memory of fixed place, for one reply at a time.

The weights are those of transformers' modules; only the way through them differs. Projections
that read the same input are joined, keys and values are written in place, and one new token costs
a dozen operations a layer. `tests/core/qwen_vl/test_language_model.py` holds the result equal to
the modules' own forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from segzero_core.qwen_vl.rms_norm import rms_norm
from segzero_core.types import SizeWH

MEMORY_STEP: Final = 512
"""The memory grows by this many tokens."""

_Projection = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Place:
    """Where new tokens go in the memory, and how much of it they see.

    Attributes:
        slots: The columns they are written to; int64 [1] where a captured graph must read them.
        length: They see the columns below this one, as far as `bias` lets them.
        bias: Added to the attention's scores, [1, length] or [L, length]; None: all are seen.
        causal: The tokens begin the memory, and each sees those up to itself.
    """

    slots: slice | Tensor
    length: int
    bias: Tensor | None = None
    causal: bool = False

    def of_last(self, rows: int) -> Place:
        """Return how much the last tokens see; the very last sees everything."""
        bias = None if rows == 1 or self.bias is None else self.bias[-rows:]
        return replace(self, bias=bias, causal=False)


def multimodal_positions(ids: Sequence[int], image_token: int, grid_wh: SizeWH) -> Tensor:
    """Return the rotary positions of a prompt with at most one picture.

    Text counts on in all three rows. The picture's tokens stay at one time and count rows and
    columns; the text behind it goes on after the longer side.

    Args:
        ids: The prompt; the picture is one run of `image_token`, width times height long.
        image_token: See `ids`.
        grid_wh: How many tokens the picture is wide and high.

    Returns:
        int64 [3, L]: time, row, column.

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
    picture = start + torch.stack([torch.zeros_like(cells), cells // width, cells % width])
    after = start + max(width, height) + torch.arange(len(ids) - start - count)
    return torch.cat([torch.arange(start).expand(3, -1), picture, after.expand(3, -1)], dim=1)


class LanguageModel:
    """The language tower of one model, and what it remembers of one text.

    Not safe for use by two threads at once.

    Args:
        model: A `Qwen2_5_VLForConditionalGeneration` in evaluation mode, on its device. Its
            projections are re-laid in place; it stays usable.
    """

    def __init__(self, model: Any) -> None:
        tower = model.model.language_model
        self.device = model.device
        self.image_token = int(model.config.image_token_id)
        self._embed = tower.embed_tokens
        self.width = int(tower.embed_tokens.embedding_dim)
        self._rotary = tower.rotary_emb
        self._layers = [_Layer(layer) for layer in tower.layers]
        self._norm = rms_norm(tower.norm)
        self._head = model.lm_head
        self._dtype = tower.embed_tokens.weight.dtype
        self._capacity = 0
        self._memory: list[tuple[Tensor, Tensor]] = []
        self._cos = self._sin = torch.empty(0)

    @property
    def backend(self) -> str:
        """What reads text: torch, or what a class derived from this one has for it."""
        return "torch"

    @property
    def memory(self) -> Sequence[tuple[Tensor, Tensor]]:
        """Keys and values of each layer, [key_heads, capacity, head_dim]; growing moves them."""
        return self._memory

    @property
    def turns(self) -> tuple[Tensor, Tensor]:
        """Cosine and sine [capacity, head_dim] of positions; half of the sine is negative."""
        return self._cos, self._sin

    @property
    def capacity(self) -> int:
        """How many tokens the memory has room for."""
        return self._capacity

    def reserve(self, tokens: int) -> None:
        """Make room for so many tokens; what is remembered stays."""
        if tokens <= self._capacity:
            return
        room = -(-tokens // MEMORY_STEP) * MEMORY_STEP
        memory = []
        for index, layer in enumerate(self._layers):
            shape = (2, layer.key_heads, room, layer.head_dim)
            both = torch.zeros(shape, dtype=self._dtype, device=self.device)
            if self._memory:
                for new, old in zip(both, self._memory[index], strict=True):
                    new[:, : self._capacity] = old
            memory.append((both[0], both[1]))
        self._cos, self._sin = self._turns(torch.arange(room, device=self.device).expand(3, -1))
        self._memory, self._capacity = memory, room

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Return the embeddings [L, width] of tokens."""
        return torch.as_tensor(self._embed(torch.tensor(ids, device=self.device)))

    def read(self, x: Tensor, positions: Tensor, start: int) -> Tensor:
        """Read on, several tokens at once.

        Args:
            x: Embeddings [L, width].
            positions: int64 [3, L].
            start: How many tokens stand before them in the memory.

        Returns:
            float32 [V]: the scores of the token that follows.
        """
        place = self._place(start, len(x))
        return self._scores(x, self._turns(positions.to(self.device)), place)[0]

    def read_each(self, tokens: Sequence[int], position: int, start: int) -> Tensor:
        """Read several tokens of text, and return the scores float32 [L, V] after each.

        Args:
            tokens: Of text, so that all three rows of positions are the same.
            position: Of the first one.
            start: See `read`.
        """
        count = len(tokens)
        x = self.embed(tokens)
        return self._scores(
            x, self._text_turns(position, count), self._place(start, count), last=count
        )

    def _place(self, start: int, count: int) -> Place:
        """Return where tokens behind `start` others go; each sees those up to itself."""
        stop = start + count
        bias = None
        if start and count > 1:
            columns = torch.arange(stop, device=self.device)
            unseen = columns > columns[start:, None]
            bias = torch.zeros(unseen.shape, dtype=self._dtype, device=self.device)
            bias.masked_fill_(unseen, float("-inf"))
        return Place(slice(start, stop), stop, bias, causal=start == 0)

    def step(self, token: int, position: int, start: int) -> Tensor:
        """Read one token of text, at a position that all three rows share; see `read`."""
        return self.read_each([token], position, start)[0]

    def step_in_place(self, token: Tensor, position: Tensor, slot: Tensor, length: int) -> Tensor:
        """Read one token whose number, position and column are tensors, for a captured graph.

        Args:
            token: int64 [1].
            position: int64 [1].
            slot: int64 [1], below `length`.
            length: So much of the memory is looked at, whatever stands in it.

        Returns:
            float32 [V]: the scores of the token that follows.
        """
        x = self._embed(token)
        seen = torch.arange(length, device=self.device) <= slot
        bias = torch.zeros(length, dtype=x.dtype, device=self.device)
        bias = bias.masked_fill(~seen, float("-inf"))[None]
        turns = (self._cos.index_select(0, position), self._sin.index_select(0, position))
        return self._scores(x, turns, Place(slot, length, bias))[0]

    def _text_turns(self, position: int, count: int) -> tuple[Tensor, Tensor]:
        places = slice(position, position + count)
        return self._cos[places], self._sin[places]

    def _turns(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        like = torch.empty(0, dtype=self._dtype, device=self.device)
        cos, sin = self._rotary(like, positions[:, None])
        # The sign of the turned half, taken out of the loop.
        signs = torch.ones_like(sin)
        signs[..., : sin.shape[-1] // 2] = -1
        return cos[0], (sin * signs)[0]

    def _scores(
        self, x: Tensor, turns: tuple[Tensor, Tensor], place: Place, last: int = 1
    ) -> Tensor:
        cos, sin = (t[:, None] for t in turns)
        # Of the last layer nobody asks what it says about tokens without scores.
        wanted = last if last == 1 or not place.causal else len(x)
        for layer, (keys, values) in zip(self._layers, self._memory, strict=True):
            rows = wanted if layer is self._layers[-1] else len(x)
            x = layer(x, cos, sin, keys, values, place, rows)
        scores: Tensor = self._head(self._norm(x[-last:]))
        return scores.float()


class _Layer:
    """One layer, without the checks and the choices of a module that can do more."""

    def __init__(self, layer: Any) -> None:
        attention = layer.self_attn
        self.head_dim = int(attention.head_dim)
        self.key_heads = int(attention.num_key_value_heads)
        self._heads = int(attention.num_heads)
        self._scale = float(attention.scaling)
        self._norm_in = rms_norm(layer.input_layernorm)
        self._norm_mlp = rms_norm(layer.post_attention_layernorm)
        self._qkv = join([attention.q_proj, attention.k_proj, attention.v_proj])
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
        place: Place,
        rows: int,
    ) -> Tensor:
        """Remember tokens [L, width]; return the last `rows` for the next layer."""
        heads, key_heads = self._heads, self.key_heads
        every = self._qkv(self._norm_in(x)).view(len(x), heads + 2 * key_heads, self.head_dim)
        turned = every[:, : heads + key_heads]
        turned = (turned * cos).addcmul_(turned.roll(self.head_dim // 2, -1), sin)
        _write(keys, place.slots, turned[:, heads:])
        _write(values, place.slots, every[:, heads + key_heads :])
        seen = (keys[:, : place.length], values[:, : place.length])
        if rows < len(x):
            x, turned, place = x[-rows:], turned[-rows:], place.of_last(rows)
        x = x + self._out(self._attend(turned[:, :heads], *seen, place))
        gate, up = self._gate_up(self._norm_mlp(x)).chunk(2, -1)
        down: Tensor = self._down(self._activation(gate) * up)
        return x + down

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, place: Place) -> Tensor:
        count, groups = len(q), self._heads // self.key_heads
        if count == 1 and place.bias is not None:
            return self._attend_in_place(q, keys, values, place.bias)
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
            attn_mask=place.bias,
            is_causal=place.causal and count > 1,
            scale=self._scale,
        )
        return mixed.reshape(1, -1) if count == 1 else mixed[0].transpose(0, 1).flatten(1)

    def _attend_in_place(self, q: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """Attend by plain products: on a GPU they are spread over the keys.

        The fused kernels are spread over heads and queries, of which one token has too few.
        """
        q = q.view(self.key_heads, -1, self.head_dim)
        scores = torch.baddbmm(bias, q, keys.transpose(1, 2), alpha=self._scale)
        weights = scores.softmax(-1, dtype=torch.float32).to(values.dtype)
        return torch.bmm(weights, values).view(1, -1)


def _write(memory: Tensor, slots: slice | Tensor, new: Tensor) -> None:
    """Put [L, heads, head_dim] into the columns of [heads, capacity, head_dim]."""
    if isinstance(slots, slice):
        memory[:, slots] = new.transpose(0, 1)
    else:
        memory.index_copy_(1, slots, new.transpose(0, 1))


def join(modules: Sequence[Any]) -> _Projection:
    """Return one projection for several of the same input.

    The modules then share its weights, so that none is held twice. Quantised modules are called
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
