"""The words of this world: uses, groups, relations, states, places.

A phrasing marked test-only appears in no training or validation scene.
"""

from __future__ import annotations

from worlds.common.wording import Phrasings
from worlds.tabletop.vocabulary import UNKNOWN as TABLETOP_UNKNOWN

QUERY_KINDS = (
    "name",
    "attribute",
    "relation",
    "function",
    "many",
    "none",
    "instruction",
    "place",
)

THINGS = ("thing", "object", "item")

USES: dict[str, tuple[str, ...]] = {
    "cereal": ("eat cereal from", "mix a salad in", "serve rice in"),
    "souffle": ("bake a small souffle in", "serve a dip in"),
    "cake": ("serve a slice of cake on", "put a sandwich on", "serve dinner on"),
    "coffee": ("drink coffee from", "drink hot tea from", "have my cocoa from"),
    "serve": ("carry several things at once on", "serve breakfast in bed on"),
    "fry": ("fry an egg in", "make pancakes in", "roast vegetables on the stove in"),
    "brew": ("brew an espresso with", "make fresh coffee with"),
    "wine": ("drink with a fine dinner", "pour a glass of wine from"),
    "read": ("read in bed", "read a story from"),
    "soup": ("warm up as a soup with letters", "make a quick soup from"),
    "pasta": ("put on spaghetti as a sauce", "make a pizza base with"),
    "grill": ("brush on grilled ribs", "season smoky meat with"),
    "fries": ("dip fries in", "put on a hot dog"),
    "salad": ("pour over lettuce", "dress fresh greens with"),
    "spread": ("melt in a pan for baking", "spread on toast and bake with"),
    "bagel": ("spread on a bagel", "make a cheesecake with"),
    "dessert": ("eat as a chocolate dessert", "stir into a sweet chocolate dessert"),
    "cookies": ("eat as a crunchy sweet snack", "dunk into milk"),
    "calcium": ("pour over cereal", "drink for strong bones"),
    "juice": ("drink for vitamins at breakfast", "drink as a fruit drink"),
    "store": ("put things away in drawers of", "store small things in drawers of"),
    "heat": ("heat a pot on", "cook a meal on"),
    "warm": ("warm up leftovers in", "defrost food in"),
    "rack": ("keep wine bottles on", "store bottles lying down on"),
    "desk": ("keep pens and papers tidy in", "sort letters on a desk in"),
    "shelve": ("set things on two levels on", "stand things on boards of"),
}
"""Ways to say what an object is for."""

GROUPS: dict[str, tuple[str, ...]] = {
    "bowls": ("bowls",),
    "plates": ("plates",),
    "mugs": ("mugs", "cups"),
    "bottles": ("bottles",),
    "cans": ("cans",),
    "cartons": ("cartons",),
    "books": ("books",),
    "tableware": ("dishes", "tableware", "pieces of tableware"),
    "groceries": ("groceries", "food items", "pieces of food"),
    "drinks": ("drinks", "things to drink"),
    "sauces": ("sauces",),
}
"""Ways to name a group."""

RELATIONS: dict[str, Phrasings] = {
    "next": Phrasings(
        (
            "{x} next to {a}",
            "{x} beside {a}",
            "{x} that is next to {a}",
            "{x} by {a}",
            "{x} near {a}",
        ),
        ("{x} right beside {a}", "{x} that stands close to {a}"),
    ),
    "nearest": Phrasings(
        ("{x} nearest to {a}", "{x} closest to {a}", "{x} that is closest to {a}"),
        ("{x} with the least distance to {a}",),
    ),
    "between": Phrasings(
        (
            "{x} between {a} and {b}",
            "{x} that is between {a} and {b}",
            "{x} in between {a} and {b}",
        ),
        ("{x} in the middle of {a} and {b}", "{x} that stands between {a} and {b}"),
    ),
    "on": Phrasings(
        (
            "{x} on {a}",
            "{x} on top of {a}",
            "{x} that is on {a}",
            "{x} from {a}",
        ),
        ("{x} resting on {a}", "{x} that stands on {a}"),
    ),
    "in": Phrasings(
        ("{x} in {a}", "{x} inside {a}", "{x} that is in {a}", "{x} from inside {a}"),
        ("{x} lying in {a}", "{x} that sits inside {a}"),
    ),
    "left": Phrasings(
        ("{x} left of {a}", "{x} to the left of {a}"), ("{x} on the left side of {a}",)
    ),
    "right": Phrasings(
        ("{x} right of {a}", "{x} to the right of {a}"), ("{x} on the right side of {a}",)
    ),
    "front": Phrasings(
        ("{x} in front of {a}", "{x} that is in front of {a}"), ("{x} standing before {a}",)
    ),
    "behind": Phrasings(
        ("{x} behind {a}", "{x} that is behind {a}"), ("{x} standing behind {a}",)
    ),
    "center": Phrasings(
        (
            "{x} in the center of the {s}",
            "{x} in the centre of the {s}",
            "{x} at the {s} center",
            "{x} in the middle of the {s}",
            "{x} from the {s} center",
            "{x} from the middle of the {s}",
        ),
        ("{x} that is right in the middle of the {s}", "{x} at the centre of the {s}"),
    ),
}
"""`{x}` is told apart by where it is to `{a}` (and `{b}`)."""

NOT_RELATIONS: dict[str, Phrasings] = {
    "next": Phrasings(
        ("{x} not next to {a}", "{x} that is not next to {a}"), ("{x} away from {a}",)
    ),
    "between": Phrasings(
        ("{x} not between {a} and {b}", "{x} that is not between {a} and {b}"),
        ("{x} outside of {a} and {b}",),
    ),
    "on": Phrasings(("{x} not on {a}", "{x} that is not on {a}"), ("{x} off {a}",)),
    "in": Phrasings(("{x} not in {a}", "{x} that is not in {a}"), ("{x} outside of {a}",)),
    "center": Phrasings(
        ("{x} not in the center of the {s}", "{x} that is not in the middle of the {s}"),
        ("{x} away from the middle of the {s}",),
    ),
}

ENDS: dict[str, Phrasings] = {
    "leftmost": Phrasings(("the leftmost {k}", "the {k} on the far left"), ()),
    "rightmost": Phrasings(("the rightmost {k}", "the {k} on the far right"), ()),
    "frontmost": Phrasings(("the {k} at the front", "the frontmost {k}"), ("the foremost {k}",)),
    "backmost": Phrasings(("the {k} at the back", "the {k} furthest back"), ("the hindmost {k}",)),
}
ENDS_OF_TWO = {
    "leftmost": "the left {k}",
    "rightmost": "the right {k}",
    "frontmost": "the front {k}",
    "backmost": "the back {k}",
}
"""Said where there are two."""

DRAWER_NAMES = {
    "top": ("top drawer", "upper drawer", "top layer", "top drawer"),
    "middle": ("middle drawer", "middle layer", "middle drawer"),
    "bottom": ("bottom drawer", "lower drawer", "bottom layer", "lowest drawer", "bottom drawer"),
}
DRAWERS = Phrasings(
    ("the {d} of {a}", "the {d}", "{a}'s {d}", "the open {d} of {a}"), ("the {d} in {a}",)
)
COMPARTMENTS = Phrasings(
    ("the {d} compartment of {a}", "the {d} part of {a}"), ("the {d} section of {a}",)
)
SIZE_WORDS: dict[str, Phrasings] = {
    "largest": Phrasings(
        ("the largest {k}", "the biggest {k}", "the big {k}", "the bigger {k}"),
        ("the larger {k}",),
    ),
    "smallest": Phrasings(
        ("the smallest {k}", "the small {k}", "the little {k}"), ("the smaller {k}",)
    ),
}

STATES: dict[tuple[str, str], Phrasings] = {
    ("stove", "on"): Phrasings(
        ("the stove that is on", "the hot stove", "the stove that is switched on"),
        ("the glowing stove",),
    ),
    ("stove", "off"): Phrasings(
        ("the stove that is off", "the cold stove", "the stove that is not on"),
        ("the stove that does not glow",),
    ),
    ("cabinet", "on"): Phrasings(
        ("the open cabinet", "the cabinet with an open drawer", "the cabinet that is open"),
        ("the cabinet with its drawer pulled out",),
    ),
    ("cabinet", "off"): Phrasings(
        ("the closed cabinet", "the cabinet that is closed", "the shut cabinet"),
        ("the cabinet with all drawers shut",),
    ),
}
"""Fixtures by what they do: in use ("on") or not."""

ON_PLACES = Phrasings(("on {a}", "on top of {a}", "onto {a}", "on {a}"), ("down on {a}",))
IN_PLACES = Phrasings(("in {a}", "into {a}", "inside {a}", "in {a}"), ("inside of {a}",))
SIDE_PLACES = Phrasings(
    (
        "next to {a}",
        "beside {a}",
        "to the left of {a}",
        "to the right of {a}",
        "in front of {a}",
        "to the front of {a}",
        "behind {a}",
    ),
    ("right beside {a}", "close to {a}"),
)
PLACES_ALONE = Phrasings(
    ("put it {p}", "place it {p}", "it goes {p}", "set it down {p}", "drop it {p}"),
    ("leave it {p}", "it belongs {p}"),
)
"""Where to put what is in the hand already."""

_KNOWN_HERE = {
    "pan", "pot", "jar", "basket", "cheese", "cookie", "tomato", "robot", "bread", "kettle",
    "table", "door", "window", "hand", "vase", "bucket", "television", "train",
}  # fmt: skip
"""Of the other world's unknown objects, those that stand here, or that somebody might see here."""

_HOUSEHOLD = (
    "banana", "apple", "lemon", "spoon", "scissors", "hammer", "screwdriver", "phone", "ball",
    "teddy bear", "toy car", "wooden spoon", "corkscrew", "chopping board", "rolling pin",
    "salt shaker", "pepper mill", "egg carton", "baguette", "napkin", "toothpaste", "marker",
)  # fmt: skip
_HOUSEHOLD_TEST = (
    "whisk", "ladle", "tea towel", "cheese grater", "honey pot", "measuring cup",
)  # fmt: skip

UNKNOWN = Phrasings(
    (*(noun for noun in TABLETOP_UNKNOWN.train if noun not in _KNOWN_HERE), *_HOUSEHOLD),
    (*(noun for noun in TABLETOP_UNKNOWN.test if noun not in _KNOWN_HERE), *_HOUSEHOLD_TEST),
)
"""Nouns that no scene has; the model is to say that it does not know them."""
