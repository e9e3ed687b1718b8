"""Where the tracker's training begins: a memory that already compares looks, and says "here".

Learned from nothing, that a place looks like a remembered one takes more steps than a processor
has time for. It can be written down instead: the memory holds the main components of the frozen
features beside the mask; the attention compares them; what it finds is added to the features as a
mark along one direction. Which mark makes the frozen decoder draw the marked object is learned
first, alone, from true masks. The training proper then starts from all that and is free to
change it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody reads)
from torch import nn

from training.bundle.tracker.data import Sequences
from training.bundle.tracker.loss import Prediction, compute_loss

MARKER_STEPS: Final = 160
_MARKER_RATE: Final = 0.4
_NORM_RATE: Final = 0.01
_STRIDE: Final = 16  # of the coarsest features [px]
_MASK_CHANNELS: Final = 4  # of a memory; the others hold how the place looks
_LOOK_SCALE: Final = 3.0  # of a memory's look, against its place's code, which is about 1
_FADE: Final = 0.3  # how large features enter the memory's blocks
_GAIN: Final = 10.0  # how large they leave the first block, which norms them
_MASK_SHARE: Final = 0.3  # of the mask, against those features
_MATCH: Final = 16.0  # logit of a place that looks the same
_NEAR: Final = 2.5  # logit of a place that is the same
_NEAR_PAIRS: Final = (4, 6, 8)  # rotary pairs whose turns tell how near two places are, …
_NEAR_WIDTH: Final = 128  # … of an attention with so many channels


def norm_to_usual(model: Any, sequences: Sequences) -> None:
    """Fit the last norm: without any mark, features come out as the decoder is used to them."""
    features = _tokens(sequences)
    usual = features + model.no_mem_embed.view(1, -1)
    normed = F.layer_norm(features, features.shape[-1:])
    centered = normed - normed.mean(0)
    scale = (centered * usual).mean(0) / centered.square().mean(0).clamp(min=1e-6)
    norm = model.memory_attention.norm
    with torch.no_grad():
        norm.weight.copy_(scale)
        norm.bias.copy_(usual.mean(0) - scale * normed.mean(0))


def learn_mark(
    model: Any, source: Iterator[Sequences], steps: int = MARKER_STEPS
) -> tuple[torch.Tensor, torch.Tensor, list[float]]:
    """Learn what to add to the features of an object, so that the decoder draws it.

    Returns the mark and what is added everywhere, float [C] each, and the IoU of every step.
    """
    norm = model.memory_attention.norm
    mark = nn.Parameter(0.1 * torch.randn(model.hidden_dim))
    everywhere = nn.Parameter(torch.zeros(model.hidden_dim))
    optimizer = torch.optim.Adam([{"params": [mark, everywhere]}, {"params": norm.parameters()}])
    ious = []
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, (_MARKER_RATE, _NORM_RATE), strict=True):
            group["lr"] = rate * (1 - step / (steps + 10))
        sequences = next(source)
        loss, metrics = _marked_loss(model, sequences, mark, everywhere)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ious.append(metrics.get("iou", 0.0))
    return mark.detach(), everywhere.detach(), ious


def _marked_loss(
    model: Any, sequences: Sequences, mark: torch.Tensor, everywhere: torch.Tensor
) -> tuple[torch.Tensor, dict[str, float]]:
    fine, middle, coarse = (maps[0][sequences.clip] for maps in sequences.features)
    share = F.avg_pool2d(sequences.truth[0][:, None].float(), _STRIDE).permute(0, 2, 3, 1)
    marked = model.memory_attention.norm(coarse.permute(0, 2, 3, 1) + share * mark + everywhere)
    count = len(sequences.clip)
    nothing = (torch.zeros(count, 1, 2), -torch.ones(count, 1, dtype=torch.int32))
    sparse, dense = model.sam_prompt_encoder(points=nothing, boxes=None, masks=None)
    masks, ious, _, logits = model.sam_mask_decoder(
        image_embeddings=marked.permute(0, 3, 1, 2),
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
        repeat_image=False,
        high_res_features=[fine, middle],
    )
    truth = sequences.truth[:1].expand(2, -1, -1, -1)
    same = Sequences(sequences.features, sequences.clip, truth)
    return compute_loss([Prediction(masks, ious, logits[:, 0])], same)


@torch.no_grad()
def compare_looks(
    model: Any, sequences: Sequences, mark: torch.Tensor, everywhere: torch.Tensor
) -> None:
    """Write weights into memory encoder and attention that find what looks as remembered."""
    looks = F.layer_norm(_tokens(sequences), (model.hidden_dim,))
    mean = looks.mean(0)
    count = model.mem_dim - _MASK_CHANNELS
    _, spread, axes = torch.linalg.svd(looks - mean, full_matrices=True)
    # Half whitened: the first components are mostly brightness and the table's color.
    spread = spread[:count] / len(looks) ** 0.5
    components = axes[:count] * (spread.mean() / spread).sqrt()[:, None]
    typical = ((looks - mean) @ components.T).square().mean().sqrt()
    components = components * (_LOOK_SCALE / typical)
    free = axes[-1]  # the direction that features use least carries the mask
    _write_encoder(model, sequences, components, mean, free)
    _write_attention(model, components, mean, mark, everywhere)


def _write_encoder(
    model: Any,
    sequences: Sequences,
    components: torch.Tensor,
    mean: torch.Tensor,
    free: torch.Tensor,
) -> None:
    encoder, width = model.memory_encoder, model.hidden_dim
    size = _tokens(sequences).norm(dim=1).mean()
    identity = torch.eye(width) - torch.outer(free, free)
    encoder.pix_feat_proj.weight.copy_((_FADE * identity)[:, :, None, None])
    encoder.pix_feat_proj.bias.zero_()
    share_scale = _MASK_SHARE * _FADE * size
    _fit_downsampler(encoder.mask_downsampler.encoder, sequences, share_scale * free)
    first, *others = encoder.fuser.layers
    for block in others:
        block.gamma.fill_(1e-3)
    # A norm and hardly anything else: GELU(x) - GELU(-x) is x.
    first.dwconv.weight.zero_()
    first.dwconv.weight[:, 0, 3, 3] = 1
    first.dwconv.bias.zero_()
    first.gamma.fill_(_GAIN)
    first.norm.weight.fill_(1)
    first.norm.bias.zero_()
    for part in (first.pwconv1, first.pwconv2):
        part.weight.mul_(0.05)
        part.bias.zero_()
    first.pwconv1.weight[: 2 * width].copy_(torch.cat((identity, -identity)))
    first.pwconv2.weight[:, : 2 * width].copy_(torch.cat((identity, -identity), dim=1))
    rows = torch.cat((components / _GAIN, (free / share_scale).expand(_MASK_CHANNELS, -1)))
    encoder.out_proj.weight.copy_(rows[:, :, None, None])
    usual = mean + _FADE / _GAIN * _tokens(sequences).mean(0)
    encoder.out_proj.bias.copy_(torch.cat((-components @ usual, torch.zeros(_MASK_CHANNELS))))


def _fit_downsampler(layers: nn.Sequential, sequences: Sequences, target: torch.Tensor) -> None:
    """Let the last layer tell which share of a place the mask covers, by least squares."""
    masks = sequences.truth.flatten(0, 1)[:, None].float()
    inputs = (20 * masks - 10)[: 4 * _STRIDE]
    channels = layers[:-1](inputs).permute(0, 2, 3, 1).flatten(0, 2).double()
    wanted = F.avg_pool2d(masks[: 4 * _STRIDE], _STRIDE).flatten().double()
    weight = torch.where(wanted > 0, 10.0, 1.0).sqrt()  # most of an image is background
    design = torch.cat((channels, torch.ones(len(channels), 1, dtype=torch.double)), dim=1)
    design, wanted = design * weight[:, None], wanted * weight
    ridge = 1e-3 * design.square().sum(0).mean() * torch.eye(design.shape[1], dtype=torch.double)
    solved = torch.linalg.solve(design.T @ design + ridge, design.T @ wanted).float()
    layers[-1].weight.copy_(torch.outer(target, solved[:-1])[:, :, None, None])
    layers[-1].bias.copy_(target * solved[-1])


def _write_attention(
    model: Any,
    components: torch.Tensor,
    mean: torch.Tensor,
    mark: torch.Tensor,
    everywhere: torch.Tensor,
) -> None:
    layers = model.memory_attention.layers
    count, width = components.shape
    # Pairs that hardly turn over a whole image compare looks; a quarter of them are along x.
    looks = torch.arange(width // 2 - count, width // 2)
    pairs = {pair * width // _NEAR_WIDTH for pair in _NEAR_PAIRS}
    pairs = {pair for pair in pairs if 2 * pair < width // 2 - count}
    near = torch.tensor([axis + 2 * pair for pair in pairs for axis in (0, width // 2)])
    same = (components.shape[0] * _LOOK_SCALE**2) / width**0.5  # logit of equal looks, unscaled
    for layer in layers:
        cross = layer.cross_attn_image
        layer.self_attn.out_proj.weight.mul_(0.05)
        layer.self_attn.out_proj.bias.zero_()
        layer.linear2.weight.mul_(0.05)
        layer.linear2.bias.zero_()
        for part in (cross.q_proj, cross.k_proj, cross.v_proj, cross.out_proj):
            part.weight.mul_(0.05)
            part.bias.zero_()
        cross.q_proj.weight[looks] = components * (_MATCH / same)
        cross.q_proj.bias[looks] = -components @ mean * (_MATCH / same)
        cross.k_proj.weight[looks, :count] = torch.eye(count)
        strength = (_NEAR * width**0.5 / len(near)) ** 0.5
        cross.q_proj.bias[near] = strength
        cross.k_proj.bias[near] = strength
        cross.v_proj.weight[0] = 0
        cross.v_proj.weight[0, count:] = 1 / _MASK_CHANNELS
        cross.out_proj.weight[:, 0] = mark / len(layers)
        cross.out_proj.bias.copy_(everywhere / len(layers))


def _tokens(sequences: Sequences) -> torch.Tensor:
    """The coarsest features as rows: float [M, C]."""
    return sequences.features[2].flatten(0, 1).permute(0, 2, 3, 1).flatten(0, 2)
