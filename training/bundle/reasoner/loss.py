"""The loss of the reasoner's training."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody reads
from torch import Tensor

from training.bundle.reasoner.data import Batch
from training.bundle.reasoner.encoding import CHOICE, CHOOSING_NUMBER, NUMBER
from training.bundle.reasoner.model import DenseHeads

SMEAR_PX = 1.5
"""Coordinates are smoothed targets: one that is a pixel off is nearly right."""
POINTER_WEIGHT, DENSE_WEIGHT = 0.3, 0.5


class Losses:
    """The terms of the loss, by name; `total` is minimized."""

    def __init__(self, numbers: Tensor, embeddings: Tensor, deciding_weight: float) -> None:
        self._number_ids, self._deciding_weight = numbers, deciding_weight
        self._embeddings = embeddings
        grid = torch.arange(float(len(numbers)))
        near = torch.exp(-0.5 * ((grid[:, None] - grid) / SMEAR_PX) ** 2)
        self._smoothed = near / near.sum(1, keepdim=True)

    def dense(self, heads: DenseHeads, cells: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Object class, color and coordinates at every image token."""
        kind, color, places = heads(cells)
        nothing = kind.shape[-1] - 1
        on_object = batch.cell_kind < nothing
        wanted = batch.cell_numbers[on_object]
        logits = places[on_object] @ self._embeddings[self._number_ids].T
        logs = F.log_softmax(logits.float(), -1)
        weight = torch.ones(nothing + 1)
        weight[-1] = 0.3
        return {
            "kind": F.cross_entropy(kind.float().flatten(0, 1), batch.cell_kind.flatten(), weight),
            "color": F.cross_entropy(color.float()[on_object], batch.cell_color[on_object]),
            "place": -(self._smoothed[wanted] * logs).sum(-1).mean(),
            "kind_acc": (kind[on_object].argmax(-1) == batch.cell_kind[on_object]).float().mean(),
            "color_acc": (color[on_object].argmax(-1) == batch.cell_color[on_object])
            .float()
            .mean(),
            "place_px": (logits.argmax(-1) - wanted).abs().float().mean(),
        }

    def words(self, last: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """The words of the completion; the tokens where a choice falls weigh more.

        The position is weighted and not the word: a word that weighs more than its rival would be
        written too often.
        """
        states, targets, roles = _flat(last, batch)
        words = (targets >= 0) & (roles != NUMBER) & (roles != CHOOSING_NUMBER)
        logits = (states[words] @ self._embeddings.T).float()
        wanted, decides = targets[words], roles[words] == CHOICE
        right = logits.argmax(-1) == wanted
        weights = torch.where(decides, self._deciding_weight, 1.0)
        losses = F.cross_entropy(logits, wanted, reduction="none")
        return {
            "words": (weights * losses).sum() / weights.sum(),
            "word_acc": right.float().mean(),
            "deciding_acc": right[decides].float().mean(),
        }

    def numbers(self, last: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """The coordinates, with smoothed targets; those that choose weigh more."""
        states, targets, roles = _flat(last, batch)
        chooses = roles == CHOOSING_NUMBER
        numeric = (roles == NUMBER) | chooses
        logits = (states[numeric] @ self._embeddings.T).float()
        position = torch.full((len(self._embeddings),), -1)
        position[self._number_ids] = torch.arange(len(self._number_ids))
        wanted = position[targets[numeric]]
        logs = F.log_softmax(logits, -1)[:, self._number_ids]
        guess = logits[:, self._number_ids].argmax(-1)
        weights = torch.where(chooses[numeric], self._deciding_weight, 1.0)
        losses = -(self._smoothed[wanted] * logs).sum(-1)
        return {
            "numbers": (weights * losses).sum() / weights.sum(),
            "number_px": (guess - wanted).abs().float().mean(),
        }

    @staticmethod
    def pointer(losses: list[list[Tensor]], batch: Batch) -> dict[str, Tensor]:
        """How much the pointer heads look beside what the next token is about or follows from."""
        valid = [group.pointer_targets.any(-1).all(-1) for group in batch.packed.groups]
        by_layer = [
            torch.cat([row[own] for row, own in zip(rows, valid, strict=True)]).mean()
            for rows in zip(*losses, strict=True)
        ]
        return {"pointer": sum(by_layer) / len(by_layer), "pointer_last": by_layer[-1].detach()}


def _flat(last: list[Tensor], batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, next tokens and the roles of those, of all groups in a row."""
    return (
        torch.cat([group.flatten(0, 1) for group in last]),
        torch.cat([targets.flatten() for targets in batch.targets]),
        torch.cat([roles.flatten() for roles in batch.roles]),
    )


def total(terms: dict[str, Tensor], words_weight: float) -> Tensor:
    """The weighted sum of the terms that have gradients to give."""
    weights = {"words": words_weight, "numbers": 1.0, "pointer": POINTER_WEIGHT}
    dense = DENSE_WEIGHT if "words" in terms else 1.0
    weights |= dict.fromkeys(("kind", "color", "place"), dense)
    return sum(weight * terms[name] for name, weight in weights.items() if name in terms)
