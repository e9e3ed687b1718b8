"""Forward pass and loss of the segmenter's training, close to SAM's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody reads)

from training.bundle.segmenter.data import Batch

# The mask is compared on a grid of this many points a side, laid over the object's box: small
# objects are looked at as closely as large ones, and far closer than the 4-pixel cells of the
# mask.
GRID = 56
GRID_MARGIN = 0.15  # of the box, on every side
GRID_MARGIN_CELLS = 3.0  # and this many mask cells more
OTHER_MASKS_WEIGHT = 0.5  # a box is rarely ambiguous: all three must become good
FULL_WEIGHT = 4.0
IOU_WEIGHT = 0.5
OBJECT_WEIGHT = 0.1


@dataclass(frozen=True)
class Prediction:
    """Logits of masks [N, 4, L, L], a cell being 4 pixels; ious [N, 4], object_logits [N, 1]."""

    masks: torch.Tensor
    ious: torch.Tensor
    object_logits: torch.Tensor


def set_resolution(model: Any, side: int) -> None:
    """Make a SAM2Base take images of another size; no parameter depends on it."""
    grid = side // model.backbone_stride
    model.image_size = side
    model.sam_image_embedding_size = grid
    model.sam_prompt_encoder.image_embedding_size = (grid, grid)
    model.sam_prompt_encoder.input_image_size = (side, side)
    model.sam_prompt_encoder.mask_input_size = (4 * grid, 4 * grid)


def encode(model: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute what the decoder needs of images: the embedding and the two finer feature maps."""
    fine, middle, coarse = model.image_encoder(images)["backbone_fpn"]
    decoder = model.sam_mask_decoder
    embedding = coarse + model.no_mem_embed.view(1, -1, 1, 1)
    return embedding, decoder.conv_s0(fine), decoder.conv_s1(middle)


def decode(
    model: Any,
    features: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    image_index: torch.Tensor,
    points: torch.Tensor,
    labels: torch.Tensor,
) -> Prediction:
    """Predict all four masks of each prompt: the single one, then the three to choose from."""
    embedding, fine, middle = features
    sparse, dense = model.sam_prompt_encoder(points=(points, labels), boxes=None, masks=None)
    masks, ious, _, object_logits = model.sam_mask_decoder.predict_masks(
        image_embeddings=embedding[image_index],
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=[fine[image_index], middle[image_index]],
    )
    return Prediction(masks.float(), ious.float(), object_logits.float())


def sample_points(box_xyxy: torch.Tensor, side: int) -> torch.Tensor:
    """Lay randomly shifted points over each enlarged box: float [N, GRID, GRID, 2] [px]."""
    count = len(box_xyxy)
    size = box_xyxy[:, 2:] - box_xyxy[:, :2]
    margin = GRID_MARGIN * size + 4 * GRID_MARGIN_CELLS
    low = (box_xyxy[:, :2] - margin).clamp(min=0)
    high = (box_xyxy[:, 2:] + margin).clamp(max=side)
    steps = torch.arange(GRID).float()
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    unit = (torch.stack((columns, rows), -1)[None] + torch.rand(count, GRID, GRID, 2)) / GRID
    return low[:, None, None] + unit * (high - low)[:, None, None]


def compute_loss(
    prediction: Prediction, batch: Batch, instances: torch.Tensor
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return loss and metrics of predictions; `instances` are the maps, uint8 [B, S, S]."""
    object_id = torch.from_numpy(batch.object_id)
    present = object_id > 0
    side = instances.shape[-1]
    object_loss = F.binary_cross_entropy_with_logits(
        prediction.object_logits[:, 0], present.float()
    )
    image_index, object_id = torch.from_numpy(batch.image_index)[present], object_id[present]
    logits, ious = prediction.masks[present], prediction.ious[present]

    places = sample_points(torch.from_numpy(batch.box_xyxy)[present], side)
    pixels = places.long().clamp(0, side - 1)
    truth = (
        instances[image_index[:, None, None], pixels[..., 1], pixels[..., 0]]
        == object_id[:, None, None]
    )
    close = F.grid_sample(
        logits, places / side * 2 - 1, align_corners=False, padding_mode="border"
    )
    truth = truth[:, None].float()
    cells = instances[:, 2::4, 2::4][image_index] == object_id[:, None, None]
    losses = mask_losses(close, truth) + FULL_WEIGHT * entropies(logits, cells[:, None].float())

    single, three = losses[:, 0], losses[:, 1:]
    best = three.min(dim=1).values
    mask_loss = (single + best + OTHER_MASKS_WEIGHT * three.mean(dim=1)).mean()
    with torch.no_grad():
        found = (close > 0).float()
        both = (found * truth).sum((2, 3))
        true_ious = both / (found.sum((2, 3)) + truth.sum((2, 3)) - both).clamp(min=1)
    iou_loss = (ious - true_ious).abs().mean()
    chosen = true_ious[:, 1:].gather(1, ious[:, 1:].argmax(1, keepdim=True)).mean()
    metrics = {
        "mask_loss": float(mask_loss.detach()),
        "iou_loss": float(iou_loss.detach()),
        "iou": float(chosen),
        "iou_single": float(true_ious[:, 0].mean()),
        "iou_best": float(true_ious[:, 1:].max(1).values.mean()),
        "object_loss": float(object_loss.detach()),
    }
    return mask_loss + IOU_WEIGHT * iou_loss + OBJECT_WEIGHT * object_loss, metrics


def mask_losses(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus dice on the sampled points: [N, 4]."""
    chance = logits.sigmoid()
    overlap = (chance * truth).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (chance.sum((2, 3)) + truth.sum((2, 3)) + 1)
    return entropies(logits, truth) + dice


def entropies(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each mask [N, K, h, w] with the truth [N, 1, h, w]: [N, K].

    Taken over every cell, it keeps the model from painting far from the object.
    """
    each = F.binary_cross_entropy_with_logits(logits, truth.expand_as(logits), reduction="none")
    return each.mean((2, 3))
