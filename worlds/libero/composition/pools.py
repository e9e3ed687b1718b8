"""What a stage holds: an arena, a pool of objects to choose from, and how the room looks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worlds.common.scene import split_of_seed
from worlds.libero.simulation.arenas import ARENAS
from worlds.libero.simulation.stage import Style

BLOCK = 50  # training scenes that share a stage, by their seeds
TEST_BLOCK = 10  # fewer of validation and test: a few hundred scenes are to show many pools
POOL_SIZE = 20
_TWIN_CHANCE = 0.4  # of each object that fills the pool to be one more of a kind that is there

MOVABLE_CLASSES = (
    "akita_black_bowl",
    "alphabet_soup",
    "basket",
    "bbq_sauce",
    "bigger_akita_black_bowl",
    "bigger_alphabet_soup",
    "black_book",
    "black_bowl",
    "blue_ketchup",
    "butter",
    "chefmate_8_frypan",
    "chocolate_pudding",
    "cookies",
    "cream_cheese",
    "glazed_rim_porcelain_ramekin",
    "green_bbq_sauce",
    "green_butter",
    "green_chocolate_pudding",
    "ketchup",
    "milk",
    "moka_pot",
    "new_salad_dressing",
    "orange_juice",
    "plate",
    "porcelain_mug",
    "red_basket",
    "red_coffee_mug",
    "red_cream_cheese",
    "red_salad_dressing",
    "salad_dressing",
    "tomato_sauce",
    "white_bottle",
    "white_bowl",
    "white_yellow_mug",
    "wine_bottle",
    "wooden_tray",
    "yellow_book",
    "yellow_milk",
    "yellow_moka_pot",
    "yellow_plate",
    "yellow_tomato_sauce",
)
"""The movable kinds that occur in the benchmark's complete suites."""

_GROCERIES = (
    "alphabet_soup",
    "bbq_sauce",
    "butter",
    "chocolate_pudding",
    "cream_cheese",
    "ketchup",
    "milk",
    "orange_juice",
    "salad_dressing",
    "tomato_sauce",
)
_TABLEWARE = (
    "akita_black_bowl",
    "akita_black_bowl",
    "akita_black_bowl",
    "plate",
    "plate",
    "glazed_rim_porcelain_ramekin",
    "cookies",
)
_DINNER = ("akita_black_bowl", "akita_black_bowl", "plate", "cream_cheese", "wine_bottle")
_CORES = (_TABLEWARE, (*_GROCERIES, "basket"), _DINNER, ())
_CORE_CHANCES = (0.26, 0.24, 0.15, 0.35)
_ARENA_CHANCES = {
    _TABLEWARE: {"table": 0.7, "kitchen": 0.15, "floor": 0.05, "living_room": 0.05, "study": 0.05},
    _CORES[1]: {"floor": 0.6, "living_room": 0.25, "table": 0.1, "kitchen": 0.05},
    _DINNER: {"table": 0.7, "kitchen": 0.3},
    (): {"table": 0.25, "kitchen": 0.25, "living_room": 0.25, "study": 0.15, "floor": 0.1},
}
_FIXTURES = {
    "table": {
        "wooden_cabinet": 3,
        "flat_stove": 3,
        "wine_rack": 2,
        "yellow_cabinet": 1,
        "yellow_stove": 1,
        "brown_rack": 1,
        "white_cabinet": 1,
        "microwave": 0.5,
    },
    "kitchen": {
        "wooden_cabinet": 2,
        "white_cabinet": 2,
        "flat_stove": 2,
        "microwave": 2,
        "wine_rack": 2,
        "wooden_two_layer_shelf": 1,
        "yellow_stove": 0.5,
        "yellow_cabinet": 0.5,
    },
    "study": {"desk_caddy": 4, "wooden_two_layer_shelf": 3, "white_cabinet": 0.5},
    "living_room": {"wooden_two_layer_shelf": 1, "wooden_cabinet": 1, "flat_stove": 1},
    "floor": {"wooden_cabinet": 1, "flat_stove": 1, "wine_rack": 1},
}
_FIXTURES_OF_A_STAGE = 4

_OWN_LOOKS = 0.55  # how often a room keeps the benchmark's textures
_FLOORS = (
    "light-gray-floor-tile.png",
    "dark_floor_texture.png",
    "rustic_floor.png",
    "white_marble_floor.png",
    "seamless_wood_planks_floor.png",
    "brown_ceramic_tile.png",
    "gray_ceramic_tile.png",
    "tile_grigia_caldera_porcelain_floor.png",
    "grigia_caldera_porcelain_floor.png",
    "marble_floor.png",
    "light_floor.png",
    "dapper_gray_floor.png",
)
_WALLS = (
    "light_blue_wall.png",
    "dark_blue_wall.png",
    "dark_gray_plaster.png",
    "gray_plaster.png",
    "dark_green_plaster_wall.png",
    "light-gray-plaster.png",
    "white_wall.png",
    "yellow_linen_wall_texture.png",
    "stucco_wall.png",
    "cream-plaster.png",
)
_TABLES = (
    "cream-plaster.png",
    "ceramic.png",
    "gray_ceramic_tile.png",
    "brown_ceramic_tile.png",
    "kona_gotham.png",
    "meeka-beige-plaster.png",
    "white_marble_floor.png",
    "seamless_wood_planks_floor.png",
    "light_gray_plaster.png",
)


@dataclass(frozen=True)
class Pool:
    """What a stage is built from."""

    arena: str  # a key of `ARENAS`
    movables: tuple[str, ...]  # kinds, one for each object
    core: int  # how many of the first movables make the pool's theme; they are chosen more often
    fixtures: tuple[str, ...]  # Kinds
    style: Style  # textures of the room


def block_of_seed(seed: int) -> int:
    """Scenes of one block share a stage."""
    return seed // (BLOCK if split_of_seed(seed) == "train" else TEST_BLOCK)


def sample_pool(block: int) -> Pool:
    """The pool of a block of seeds; it depends on nothing else."""
    rng = np.random.default_rng((block, 18))
    core = _CORES[int(rng.choice(len(_CORES), p=_CORE_CHANCES))]
    chances = _ARENA_CHANCES[core]
    arena = str(rng.choice(list(chances), p=np.array(list(chances.values()))))
    movables = list(core)
    while len(movables) < POOL_SIZE:
        if movables and rng.random() < _TWIN_CHANCE:
            kind = movables[int(rng.integers(len(movables)))]
            if movables.count(kind) >= 3 or "basket" in kind:
                continue
        else:
            kind = str(rng.choice(MOVABLE_CLASSES))
        movables.append(kind)
    weights = np.array(list(_FIXTURES[arena].values()), dtype=float)
    count = min(_FIXTURES_OF_A_STAGE, len(weights))
    fixtures = rng.choice(
        list(_FIXTURES[arena]), size=count, replace=False, p=weights / weights.sum()
    )
    assert arena in ARENAS
    return Pool(arena, tuple(movables), len(core), tuple(map(str, fixtures)), _style(rng, arena))


def _style(rng: np.random.Generator, arena: str) -> Style:
    if rng.random() < _OWN_LOOKS:
        return Style()
    return Style(
        floor=str(rng.choice(_FLOORS)) if rng.random() < 0.8 else None,
        wall=str(rng.choice(_WALLS)) if rng.random() < 0.8 else None,
        table=str(rng.choice(_TABLES)) if arena != "floor" and rng.random() < 0.8 else None,
    )
