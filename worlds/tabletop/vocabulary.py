"""The words of the table's world: names, colors, uses, groups, and how people phrase a question.

A phrasing marked test-only appears in no training or validation scene.
"""

from __future__ import annotations

from worlds.common.wording import REQUESTS, REQUESTS_BY_USE, REQUESTS_OF_MANY, Phrasings
from worlds.tabletop.object_classes import MODELS

QUERY_KINDS = ("name", "attribute", "relation", "function", "many", "none")

_OTHER_NAMES = {
    "mug": ("cup", "coffee mug"),
    "bottle": ("water bottle",),
    "plate": ("dish",),
    "can": ("tin",),
    "box": ("carton",),
    "phone": ("smartphone",),
    "scissors": ("pair of scissors",),
}
NAMES: dict[str, tuple[str, ...]] = {kind: (kind, *_OTHER_NAMES.get(kind, ())) for kind in MODELS}
"""What people call a kind; the first name is the one that the model uses."""

PLURALS = {kind: f"{kind}s" for kind in MODELS} | {"box": "boxes", "scissors": "scissors"}

USES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # use: (kinds that serve it, ways to say it)
    "hammer": (
        ("hammer",),
        ("drive a nail with", "hit a nail with", "pound a nail into the wall with"),
    ),
    "screwdriver": (
        ("screwdriver",),
        ("turn a screw with", "tighten a screw with", "drive a screw with"),
    ),
    "cut": (("scissors",), ("cut paper with", "cut a string with", "trim a thread with")),
    "stir": (("spoon",), ("stir my tea with", "eat soup with", "stir a sauce with")),
    "coffee": (("mug",), ("drink coffee from", "drink hot tea from", "have my coffee from")),
    "water": (("bottle",), ("carry water in", "take water on a hike in", "pour water from")),
    "cereal": (("bowl",), ("eat cereal from", "mix a salad in", "serve soup in")),
    "cake": (("plate",), ("serve a slice of cake on", "put a sandwich on", "serve dinner on")),
    "soda": (("can",), ("open for a cold soda", "get a fizzy drink from")),
    "pack": (("box",), ("pack a gift in", "ship a parcel in", "store small things in")),
    "read": (("book",), ("read in bed", "read a story from", "learn a poem from")),
    "call": (("phone",), ("call a friend with", "send a message with", "take a photo with")),
    "play": (("ball",), ("play catch with", "throw for the dog", "bounce on the floor")),
    "pie": (("apple",), ("bake a pie with", "give to a horse", "keep the doctor away with")),
    "peel": (("banana",), ("peel and eat", "feed a monkey with", "blend into a milkshake")),
    "sour": (("lemon",), ("squeeze for sour juice", "make lemonade with", "put in a sour drink")),
    "snack": (("apple", "banana"), ("eat as a healthy snack", "eat as a sweet fruit")),
}

GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # group: (kinds in it, ways to name it)
    "fruit": (("apple", "banana", "lemon"), ("fruit", "pieces of fruit")),
    "tools": (("hammer", "screwdriver", "scissors"), ("tools",)),
    "tableware": (("mug", "bowl", "plate", "spoon"), ("tableware", "kitchen things")),
    "drinks": (("mug", "bottle", "can"), ("things that hold a drink", "drink containers")),
}

SINGULAR_OF_GROUP: dict[str, str] = {
    "fruit": "fruit",
    "tools": "tool",
    "tableware": "piece of tableware",
    "drinks": "drink container",
}

THINGS = ("thing", "object", "item")


_REQUESTS = Phrasings(
    train=REQUESTS,
    test=(
        "could you point out {x}?",
        "hand me {x}",
        "mark {x} in the picture",
        "{x} is what I want",
        "would you fetch {x} for me?",
    ),
)

PHRASINGS: dict[str, Phrasings] = {
    "name": _REQUESTS,
    "attribute": _REQUESTS,
    "relation": _REQUESTS,
    "function": Phrasings(
        train=REQUESTS_BY_USE,
        test=(
            "what could one {x}?",
            "hand me something to {x}",
            "mark what you would {x}",
            "I would like to {x}",
            "which of these would you {x}?",
        ),
    ),
    "many": Phrasings(
        train=REQUESTS_OF_MANY,
        test=(
            "could you point out all the {x}?",
            "hand me all the {x}",
            "mark the {x} in the picture",
            "the {x} are what I want",
            "every one of the {x}",
        ),
    ),
}
"""`none` asks in the frames of the other kinds for what is not there."""

NAME_FORMS = Phrasings(
    train=("the {c} {k}", "the {k} that is {c}", "a {c} {k}", "my {c} {k}"),
    test=("the {k} in {c}",),
)
SIZE_WORDS: dict[str, Phrasings] = {
    "largest": Phrasings(
        ("the largest {k}", "the biggest {k}", "the big {k}"), ("the larger {k}",)
    ),
    "smallest": Phrasings(("the smallest {k}", "the small {k}"), ("the smaller {k}",)),
}
SIDES: dict[str, Phrasings] = {
    "left": Phrasings(
        ("the {k} left of {a}", "the {k} to the left of {a}"), ("the {k} on the left side of {a}",)
    ),
    "right": Phrasings(
        ("the {k} right of {a}", "the {k} to the right of {a}"),
        ("the {k} on the right side of {a}",),
    ),
    "front": Phrasings(("the {k} in front of {a}",), ("the {k} standing in front of {a}",)),
    "behind": Phrasings(("the {k} behind {a}",), ("the {k} lying behind {a}",)),
    "near": Phrasings(
        ("the {k} next to {a}", "the {k} closest to {a}", "the {k} nearest to {a}"),
        ("the {k} right beside {a}",),
    ),
}
ENDS: dict[str, Phrasings] = {
    "leftmost": Phrasings(("the leftmost {k}", "the {k} on the far left"), ()),
    "rightmost": Phrasings(("the rightmost {k}", "the {k} on the far right"), ()),
    "closest": Phrasings(("the {k} closest to the camera", "the {k} nearest to the camera"), ()),
    "farthest": Phrasings(("the {k} farthest from the camera", "the {k} furthest away"), ()),
}

UNKNOWN = Phrasings(
    train=(
        "elephant", "car", "guitar", "shoe", "hat", "chair", "lamp", "clock", "key", "wallet",
        "candle", "umbrella", "towel", "pillow", "sock", "glove", "camera", "laptop", "mouse",
        "keyboard", "battery", "rope", "bucket", "broom", "ladder", "saw", "drill", "wrench",
        "pliers", "tape", "glue", "pencil", "brush", "ring", "necklace", "watch", "coin", "stamp",
        "envelope", "newspaper", "flower", "tree", "leaf", "stone", "brick", "wheel", "bicycle",
        "train", "boat", "airplane", "dog", "cat", "horse", "bird", "fish", "snake", "spider",
        "person", "child", "hand", "tomato", "potato", "carrot", "onion", "cheese", "bread",
        "cookie", "egg", "pizza", "burger", "grape", "cherry", "melon", "peach", "robot",
        "television", "radio", "speaker", "window", "door", "bed", "sofa", "mirror", "comb",
        "toothbrush", "soap", "sponge", "kettle", "toaster", "pan", "pot", "fork", "knife",
        "jar", "vase", "basket", "bag", "backpack", "helmet", "mask", "doll", "puzzle", "kite",
    ),
    test=(
        "giraffe", "piano", "violin", "stapler", "calculator", "magnet", "thermometer", "compass",
        "lantern", "trumpet", "penguin", "tractor", "carpet", "blanket", "bracelet", "zebra",
        "cactus", "pumpkin", "microscope", "anchor", "whistle", "balloon", "feather", "saddle",
    ),
)  # fmt: skip
"""Nouns that no table has; the model is to say that it does not know them."""

UNKNOWN_USES = Phrasings(
    train=(
        "brush my teeth with", "ride to work on", "play a song on", "sit on", "sleep on",
        "dig a hole with", "paint a wall with", "catch a fish with", "unlock the door with",
        "comb my hair with", "wash the car with", "light the room with", "fly a kite with",
        "weigh flour with", "measure the temperature with", "sharpen a pencil with",
        "wrap around my neck", "put on my head", "row a boat with", "mow the lawn with",
    ),
    test=(
        "tell the time with", "climb a mountain with", "dry the dishes with", "iron a shirt with",
        "shave with", "plant a tree with", "warm my feet with", "staple a report with",
    ),
)  # fmt: skip
"""Uses that nothing on any table serves."""
