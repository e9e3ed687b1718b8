"""How people ask, and how they tell a robot what to do.

A phrasing marked test-only appears in no training or validation scene.
"""

from __future__ import annotations

from worlds.common.wording import REQUESTS, REQUESTS_BY_USE, REQUESTS_OF_MANY, Phrasings

_REQUESTS = Phrasings(
    train=(
        *REQUESTS,
        "point at {x}",
        "detect {x}",
        "get {x}",
        "show {x} in this picture",
        "find {x} in the photo",
        "where in this view is {x}?",
        "outline {x} in the scene here",
        "select {x} in the picture",
        "I mean {x}",
        "{x}, that one I need",
        "move the gripper to {x}",
        "could you show me {x}?",
        "would you find {x}?",
    ),
    test=(
        "could you point out {x}?",
        "hand me {x}",
        "mark {x} in the image",
        "{x} is what I want",
        "would you fetch {x} for me?",
        "let the arm go to {x}",
        "highlight {x}",
    ),
)

PHRASINGS: dict[str, Phrasings] = {
    "name": _REQUESTS,
    "attribute": _REQUESTS,
    "relation": _REQUESTS,
    "function": Phrasings(
        train=(
            *REQUESTS_BY_USE,
            "which thing would I {x}?",
            "find me what I can {x}",
            "select what one can {x} in this picture",
            "could you give me something to {x}?",
            "I am about to {x}",
        ),
        test=(
            "what could one {x}?",
            "hand me something to {x}",
            "mark what you would {x}",
            "I would like to {x}",
            "which of these would you {x}?",
            "fetch me something to {x}",
        ),
    ),
    "many": Phrasings(
        train=(
            *REQUESTS_OF_MANY,
            "every one of the {x} here",
            "detect all {x}",
            "show all the {x} in this picture",
            "outline the {x} in the scene here",
            "I mean all the {x}",
            "could you show me the {x}?",
            "would you collect all the {x}?",
        ),
        test=(
            "could you point out all the {x}?",
            "hand me all the {x}",
            "mark the {x} in the image",
            "the {x} are what I want",
            "every one of the {x}",
            "gather up all the {x}",
        ),
    ),
    "instruction": Phrasings(
        train=(
            "{take} {x} and {put} it {p}",
            "{take} {x} and {put} it {p}",
            "{take} {x} and {put} it {p}",
            "{put} {x} {p}",
            "{put} {x} {p}",
            "{take} {x}, then {put} it {p}",
            "please {put} {x} {p}",
            "please {take} {x} and {put} it {p}",
            "I want {x} {p}",
            "can you {put} {x} {p}?",
            "could you {take} {x} and {put} it {p}?",
            "move {x} from where it is and {put} it {p}",
            "robot, {put} {x} {p}",
            "now {take} {x} and {put} it {p}",
            "{x} belongs {p}",
            "get {x} and {put} it {p}",
            "help me {put} {x} {p}",
            "first {take} {x}, then {put} it {p}",
            "the task is to {put} {x} {p}",
            "{take} {x}; it goes {p}",
            "the job is this: {take} {x} and {put} it {p}",
            "order: {take} {x} and {put} it {p}",
            "as soon as you have {x}, {put} it {p}",
            "when you {take} {x}, {put} it {p}",
            "with {x} in the hand, {put} it {p}",
            "see to it that {x} is {p} in the end",
            "{x} must go {p}",
            "{x} has its place {p}",
            "let {x} go {p}",
            "I want to have {x} {p}",
            "would you please {put} {x} {p}?",
        ),
        test=(
            "would you {take} {x} and {put} it {p}?",
            "I would like {x} to be {p}",
            "make sure that {x} ends up {p}",
            "after you {take} {x}, {put} it {p}",
            "your job: {take} {x} and {put} it {p}",
            "see that {x} gets put {p}",
            "{x} should be {p}",
        ),
    ),
    "place": Phrasings(
        train=(
            "where does it go: {order}",
            "where does it go: {order}",
            "the place where it goes: {order}",
            "to do this, where must it be put: {order}",
            "find the target of: {order}",
            "{order} - where to?",
            "{order}: segment the place, not the object that is moved",
            "where should the object end up: {order}",
            "destination of: {order}",
            "which thing receives it: {order}",
            "for the order '{order}', show where it is to be placed",
            "where to put it: {order}",
            "what does the robot place it on or in: {order}",
            "show me the destination: {order}",
            "the goal location of: {order}",
            "{order} - find the target",
            "locate where it will be put: {order}",
            "where is the thing to be set down: {order}",
            "mark the drop-off place: {order}",
            "target of the order: {order}",
            "what does it stand on or in later: {order}",
            "this order names a place; show it: {order}",
            "{order}; what is it put on or in?",
        ),
        test=(
            "where would it be at the end: {order}",
            "which thing will hold it after this: {order}",
            "{order} - which one is the destination?",
            "point out where this puts the object: {order}",
            "final location for: {order}",
            "on or in what does it land: {order}",
        ),
    ),
}
"""`none` asks in the frames of the other kinds for what is not there."""

OPENING_ORDERS = Phrasings(
    (
        "open {o} and {put} {x} inside",
        "open {o}, then {put} {x} in it",
        "please open {o} and {put} {x} into it",
        "first open {o}, then {put} {x} in there",
        "pull {o} open, {take} {x} and {put} it inside",
        "{put} {x} inside after you open {o}",
    ),
    ("once {o} is open, {put} {x} into it", "{take} {x} and, with {o} opened, {put} it in there"),
)
"""Orders to open `{o}` first: what is moved is meant, not what is opened."""

TAKE = ("pick up", "take", "grab", "lift", "pick", "fetch")
PUT = ("place", "put", "set", "move")

FIXTURE_ORDERS: dict[str, Phrasings] = {
    "cabinet": Phrasings(
        (
            "open the {d} drawer",
            "open the {d} drawer of {x}",
            "pull out the {d} drawer of {x}",
            "please open the {d} drawer of {x}",
            "pull the {d} drawer open",
            "shut the {d} drawer of {x}",
            "push the {d} drawer of {x} in",
        ),
        ("would you open the {d} drawer of {x}?", "see that the {d} drawer of {x} is open"),
    ),
    "stove": Phrasings(
        (
            "switch {x} on",
            "turn {x} on, please",
            "please turn on {x}",
            "switch {x} off",
            "turn the knob of {x}",
            "start {x} up",
        ),
        ("would you turn {x} on?", "make {x} hot"),
    ),
    "microwave": Phrasings(
        (
            "open the door of {x}",
            "please open {x}",
            "shut the door of {x}",
            "please close {x}",
            "pull {x} open",
        ),
        ("would you open {x}?", "see that {x} is shut"),
    ),
}
"""Orders that move nothing: the fixture itself is meant."""
