"""Draws questions about the table's world, and encodes them with their completions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from segzero_core.prompt import (
    MULTI_OBJECT,
    MULTI_OBJECT_DIRECT,
    SINGLE_OBJECT,
    SINGLE_OBJECT_DIRECT,
    SINGLE_OBJECT_NO_EXAMPLE,
)
from training.bundle.reasoner.encoding import (
    WORD,
    EncodedQuestion,
    encode_chunks,
    encode_question,
    until_choice,
)
from training.bundle.reasoner.tabletop.thoughts import think
from training.bundle.reasoner.tabletop.unknown_objects import ask_unknown, invented_word
from training.bundle.reasoner.tabletop.vqa import VQA_KINDS, VisualQuestion, ask_visual
from training.bundle.reasoner.text import Chunk, write_completion
from training.bundle.reasoner.world import SeenScene
from worlds.common.scene import Query, SceneObject
from worlds.tabletop.queries import ask, ask_absent
from worlds.tabletop.vocabulary import NAMES, PHRASINGS, QUERY_KINDS

_VISUAL_SHARE, _UNKNOWN_SHARE, _BARE_SHARE, _ABSENT_SHARE = 0.06, 0.09, 0.05, 0.16
"""How often a question of another sort takes the place of one of `QUERY_KINDS`."""
_ABSENT_WAYS = {"name": 0.24, "color": 0.4, "use": 0.2, "group": 0.16}
"""What is lacking in the `_ABSENT_SHARE`; a wrong color is the hardest: the object is there."""
_TEMPLATES = {
    MULTI_OBJECT: 0.58,
    SINGLE_OBJECT: 0.18,
    MULTI_OBJECT_DIRECT: 0.08,
    SINGLE_OBJECT_DIRECT: 0.1,
    SINGLE_OBJECT_NO_EXAMPLE: 0.06,
}
_TEMPLATES_OF_MANY = {MULTI_OBJECT: 0.88, MULTI_OBJECT_DIRECT: 0.12}
"""How often a question is asked with each prompt; several objects need the multi-object ones."""
_CHOICE_SHARES = {
    "name": 0.2, "attribute": 0.08, "function": 0.15, "relation": 0.05, "many": 0.12,
    "absent color": 0.14, "absent name": 0.06, "absent use": 0.1, "absent group": 0.08,
    "unknown": 0.02,
}  # fmt: skip
"""How often each is asked where only the choice is trained; about half ask for what is there."""
_FILLED_SHARE = 0.35
_FILLERS = (
    "hey robot,", "okay,", "now", "quickly,", "kindly", "please", "my friend wants", "I want",
    "let us see", "tell me,", "do you know", "look for", "get me", "grip", "touch", "go to",
    "reach for", "hold", "lift", "choose", "select", "highlight", "draw a line around", "pass me",
    "let me have", "I have to find", "help me find", "in this picture,", "try to find",
    "is there", "do we have", "we need", "she asked for", "move to", "detect", "identify",
    "outline",
)  # fmt: skip
_TAILS = (
    "now", "here", "please", "for me", "in this picture", "right away",
    "if you can",
    "is the one", "is needed", "would be good", "will do", "is my choice", "that is all",
    "today", "for my mother", "with the robot arm", "thank you", "you see",
    "there",
)  # fmt: skip


class QuestionSampler:
    """Draws encoded questions about a scene; each of `QUERY_KINDS` with its share.

    With `choices_only` completions end where the choice has fallen. `augment` surrounds some
    questions with words that do not matter.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        shares: Sequence[float],
        *,
        choices_only: bool,
        augment: bool,
    ) -> None:
        self._tokenizer = tokenizer
        self._shares = np.array(shares) / sum(shares)
        self._choices_only, self._augment = choices_only, augment

    def __call__(self, rng: np.random.Generator, seen: SeenScene) -> EncodedQuestion:
        """Draw one question."""
        objects = seen.objects
        if self._choices_only:
            query = ask_choice(rng, objects)
            text = filled(rng, query.text)
            chosen = until_choice(completion(query, seen, MULTI_OBJECT))
            return encode_question(self._tokenizer, text, chosen, MULTI_OBJECT, closed=False)
        sort = rng.random()
        if sort < _VISUAL_SHARE:
            visual = ask_visual(rng, objects, str(rng.choice(VQA_KINDS)))
            if visual is not None:
                return encode_visual(self._tokenizer, visual)
        query = self._query(rng, objects, sort - _VISUAL_SHARE)
        template = draw_template(rng, len(query.ids))
        text = filled(rng, query.text) if self._augment else query.text
        return encode_question(self._tokenizer, text, completion(query, seen, template), template)

    def _query(
        self, rng: np.random.Generator, objects: tuple[SceneObject, ...], sort: float
    ) -> Query:
        if 0 <= sort < _UNKNOWN_SHARE:
            return ask_unknown(rng)
        if 0 <= sort - _UNKNOWN_SHARE < _BARE_SHARE:
            return ask_bare(rng, objects)
        if 0 <= sort - _UNKNOWN_SHARE - _BARE_SHARE < _ABSENT_SHARE:
            way = str(rng.choice(list(_ABSENT_WAYS), p=list(_ABSENT_WAYS.values())))
            absent = ask_absent(rng, objects, way)
            if absent is not None:
                return absent
        query = None
        while query is None:
            query = ask(rng, objects, str(rng.choice(QUERY_KINDS, p=self._shares)))
        return query


def completion(query: Query, seen: SeenScene, template: str) -> list[Chunk]:
    """The whole completion for a question."""
    thoughts = think(seen.objects, query, seen.size_wh)
    meant = [item for item in seen.objects if item.id in query.ids]
    return write_completion(thoughts, meant, seen.prompts, template)


def draw_template(rng: np.random.Generator, count: int, *, thinks: bool = True) -> str:
    """Draw the prompt of a question that means `count` objects; some ask for thoughts."""
    choices = _TEMPLATES_OF_MANY if count > 1 else _TEMPLATES
    if not thinks:
        return MULTI_OBJECT_DIRECT if count > 1 or rng.random() < 0.5 else SINGLE_OBJECT_DIRECT
    return str(rng.choice(list(choices), p=list(choices.values())))


def encode_visual(tokenizer: PreTrainedTokenizerFast, question: VisualQuestion) -> EncodedQuestion:
    """Encode a question without a template, and its one-word answer."""
    chunks = [Chunk(question.answer, question.object_id), Chunk("<|im_end|>")]
    encoded = encode_chunks(tokenizer, question.text, chunks)
    return encoded._replace(roles=[WORD] * len(encoded.roles))  # a count is no coordinate


def ask_choice(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Query:
    """Draw a question of `_CHOICE_SHARES`."""
    query = None
    while query is None:
        sort = str(rng.choice(list(_CHOICE_SHARES), p=list(_CHOICE_SHARES.values())))
        if sort == "unknown":
            query = ask_unknown(rng)
        elif sort.startswith("absent "):
            query = ask_absent(rng, objects, sort.removeprefix("absent "))
        else:
            query = ask(rng, objects, sort)
    return query


def ask_bare(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Query:
    """Ask for a class without its color, such as "the mug"; all objects of it are meant."""
    kind = objects[int(rng.integers(len(objects)))].kind
    frames = PHRASINGS["name"].train
    article = ("the", "a", "my")[int(rng.integers(3))]
    name = f"{article} {NAMES[kind][int(rng.integers(len(NAMES[kind])))]}"
    text = frames[int(rng.integers(len(frames)))].format(x=name)
    ids = tuple(sorted(o.id for o in objects if o.kind == kind))
    return Query("name", text, ids, "train", ("name", kind, ""))


def filled(rng: np.random.Generator, text: str) -> str:
    """Surround some questions with words that do not matter, some of them invented."""
    if rng.random() > _FILLED_SHARE:
        return text
    if rng.random() < 0.6:
        text = f"{_FILLERS[rng.integers(len(_FILLERS))]} {text}"
    if rng.random() < 0.4:
        text = f"{invented_word(rng)} {text}"
    if rng.random() < 0.3:
        text = f"{text.rstrip('?')} {_TAILS[rng.integers(len(_TAILS))]}"
    return text
