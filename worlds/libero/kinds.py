"""What people call LIBERO's models, what colour they say they are, and what they are for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One model of the package.

    Attributes:
        names: What a person may call it, the most usual first. A name that several kinds share
            means all of them.
        color: The colour that everybody would agree on; empty where there is none.
        maybe: Colours that somebody might say of it.
        uses: What it is for, keys of `USES`.
        groups: Groups that it belongs to, keys of `GROUPS`.
    """

    names: tuple[str, ...]
    color: str = ""
    maybe: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


_BOWL_USES = ("cereal",)
_BOWL_GROUPS = ("bowls", "tableware")
_SAUCE_GROUPS = ("bottles", "groceries", "sauces")
_CAN_GROUPS = ("cans", "groceries")
_BOX_GROUPS = ("boxes", "groceries")
_CARTON_GROUPS = ("cartons", "groceries", "drinks")
_MUG_GROUPS = ("mugs", "tableware")

KINDS: dict[str, Kind] = {
    "akita_black_bowl": Kind(
        ("black bowl", "bowl", "akita black bowl", "patterned bowl"),
        "black",
        ("gray", "white"),
        _BOWL_USES,
        _BOWL_GROUPS,
    ),
    "bigger_akita_black_bowl": Kind(
        ("black bowl", "bowl", "akita black bowl", "patterned bowl", "large black bowl"),
        "black",
        ("gray", "white"),
        _BOWL_USES,
        _BOWL_GROUPS,
    ),
    "black_bowl": Kind(
        ("black bowl", "bowl", "patterned bowl"),
        "black",
        ("gray", "white"),
        _BOWL_USES,
        _BOWL_GROUPS,
    ),
    "white_bowl": Kind(("white bowl", "bowl"), "white", ("gray",), _BOWL_USES, _BOWL_GROUPS),
    "glazed_rim_porcelain_ramekin": Kind(
        ("ramekin", "porcelain ramekin", "white ramekin", "small white dish"),
        "white",
        ("gray",),
        ("souffle",),
        ("tableware",),
    ),
    "plate": Kind(
        ("plate", "white plate", "plate with red stripes"),
        "white",
        ("red",),
        ("cake",),
        ("plates", "tableware"),
    ),
    "yellow_plate": Kind(
        ("plate", "yellow plate", "plate with yellow stripes"),
        "yellow",
        ("white",),
        ("cake",),
        ("plates", "tableware"),
    ),
    "porcelain_mug": Kind(
        ("white mug", "mug", "porcelain mug", "white cup", "cup"),
        "white",
        ("gray",),
        ("coffee",),
        _MUG_GROUPS,
    ),
    "red_coffee_mug": Kind(
        ("red mug", "mug", "red coffee mug", "coffee mug", "red cup", "cup"),
        "red",
        ("white",),
        ("coffee",),
        _MUG_GROUPS,
    ),
    "white_yellow_mug": Kind(
        (
            "yellow and white mug",
            "mug",
            "white and yellow mug",
            "yellow-white mug",
            "cup",
        ),
        "",
        ("yellow", "white"),
        ("coffee",),
        _MUG_GROUPS,
    ),
    "basket": Kind(("basket", "wicker basket", "woven basket"), "", ("white", "brown", "gray")),
    "red_basket": Kind(("basket", "red basket", "woven basket"), "red", ("pink",)),
    "wooden_tray": Kind(("tray", "wooden tray", "wooden crate"), "brown", ("yellow",), ("serve",)),
    "chefmate_8_frypan": Kind(
        ("frying pan", "pan", "frypan", "skillet"), "black", ("gray",), ("fry",)
    ),
    "moka_pot": Kind(
        ("moka pot", "silver moka pot", "coffee pot", "espresso pot"),
        "silver",
        ("white", "gray", "black"),
        ("brew",),
    ),
    "yellow_moka_pot": Kind(
        ("moka pot", "yellow moka pot", "coffee pot", "espresso pot"),
        "yellow",
        ("black", "orange"),
        ("brew",),
    ),
    "wine_bottle": Kind(
        ("wine bottle", "bottle", "bottle of wine", "wine"),
        "black",
        ("brown", "green"),
        ("wine",),
        ("bottles", "drinks"),
    ),
    "white_bottle": Kind(
        ("wine bottle", "bottle", "bottle of wine", "wine", "green bottle"),
        "green",
        ("white",),
        ("wine",),
        ("bottles", "drinks"),
    ),
    "black_book": Kind(("book", "black book"), "black", ("gray",), ("read",), ("books",)),
    "yellow_book": Kind(
        ("book", "yellow book"), "", ("yellow", "gray", "white", "brown"), ("read",), ("books",)
    ),
    "alphabet_soup": Kind(
        ("alphabet soup", "soup can", "can of alphabet soup", "alphabet soup can", "can"),
        "blue",
        ("black", "orange"),
        ("soup",),
        _CAN_GROUPS,
    ),
    "bigger_alphabet_soup": Kind(
        (
            "alphabet soup",
            "soup can",
            "can of alphabet soup",
            "alphabet soup can",
            "can",
            "large can of alphabet soup",
        ),
        "blue",
        ("black", "orange"),
        ("soup",),
        _CAN_GROUPS,
    ),
    "tomato_sauce": Kind(
        ("tomato sauce", "can of tomato sauce", "tomato sauce can", "can"),
        "",
        ("red", "green", "gray"),
        ("pasta",),
        (*_CAN_GROUPS, "sauces"),
    ),
    "yellow_tomato_sauce": Kind(
        ("tomato sauce", "can of tomato sauce", "tomato sauce can", "can"),
        "",
        ("yellow", "blue", "gray"),
        ("pasta",),
        (*_CAN_GROUPS, "sauces"),
    ),
    "bbq_sauce": Kind(
        ("bbq sauce", "barbecue sauce", "bottle of bbq sauce", "bottle"),
        "",
        ("brown", "red", "black"),
        ("grill",),
        _SAUCE_GROUPS,
    ),
    "green_bbq_sauce": Kind(
        ("bbq sauce", "barbecue sauce", "bottle of bbq sauce", "bottle"),
        "",
        ("green", "brown", "red", "black"),
        ("grill",),
        _SAUCE_GROUPS,
    ),
    "ketchup": Kind(
        ("ketchup", "bottle of ketchup", "ketchup bottle", "bottle"),
        "",
        ("red", "brown", "orange", "gray"),
        ("fries",),
        _SAUCE_GROUPS,
    ),
    "blue_ketchup": Kind(
        ("ketchup", "bottle of ketchup", "ketchup bottle", "bottle", "blue bottle"),
        "blue",
        (),
        ("fries",),
        _SAUCE_GROUPS,
    ),
    "salad_dressing": Kind(
        ("salad dressing", "bottle of salad dressing", "dressing", "bottle"),
        "",
        ("black", "green", "white", "gray"),
        ("salad",),
        _SAUCE_GROUPS,
    ),
    "new_salad_dressing": Kind(
        ("salad dressing", "bottle of salad dressing", "dressing", "bottle"),
        "",
        ("black", "green", "white", "gray"),
        ("salad",),
        _SAUCE_GROUPS,
    ),
    "red_salad_dressing": Kind(
        ("salad dressing", "bottle of salad dressing", "dressing", "bottle"),
        "",
        ("red", "black", "white", "gray"),
        ("salad",),
        _SAUCE_GROUPS,
    ),
    "butter": Kind(
        ("butter", "box of butter", "butter box", "pack of butter"),
        "",
        ("orange", "red", "white", "blue"),
        ("spread",),
        _BOX_GROUPS,
    ),
    "green_butter": Kind(
        ("butter", "box of butter", "butter box", "pack of butter"),
        "green",
        ("white", "yellow"),
        ("spread",),
        _BOX_GROUPS,
    ),
    "cream_cheese": Kind(
        ("cream cheese", "cream cheese box", "box of cream cheese", "pack of cream cheese"),
        "blue",
        ("gray", "white"),
        ("bagel",),
        _BOX_GROUPS,
    ),
    "red_cream_cheese": Kind(
        ("cream cheese", "cream cheese box", "box of cream cheese", "pack of cream cheese"),
        "",
        ("red", "white"),
        ("bagel",),
        _BOX_GROUPS,
    ),
    "chocolate_pudding": Kind(
        ("chocolate pudding", "pudding", "box of chocolate pudding", "chocolate pudding box"),
        "",
        ("brown", "red", "black"),
        ("dessert",),
        _BOX_GROUPS,
    ),
    "green_chocolate_pudding": Kind(
        ("chocolate pudding", "pudding", "box of chocolate pudding", "chocolate pudding box"),
        "green",
        ("brown",),
        ("dessert",),
        _BOX_GROUPS,
    ),
    "cookies": Kind(
        ("cookie box", "cookies", "box of cookies", "cookies box"),
        "",
        ("red", "yellow", "orange"),
        ("cookies",),
        _BOX_GROUPS,
    ),
    "milk": Kind(
        ("milk", "milk carton", "carton of milk"),
        "",
        ("red", "white", "blue"),
        ("calcium",),
        _CARTON_GROUPS,
    ),
    "yellow_milk": Kind(
        ("milk", "milk carton", "carton of milk"),
        "yellow",
        ("orange",),
        ("calcium",),
        _CARTON_GROUPS,
    ),
    "orange_juice": Kind(
        ("orange juice", "juice", "orange juice carton", "carton of orange juice"),
        "",
        ("orange", "yellow", "red", "green"),
        ("juice",),
        _CARTON_GROUPS,
    ),
    "wooden_cabinet": Kind(
        ("cabinet", "wooden cabinet", "drawers", "chest of drawers", "black cabinet"),
        "black",
        ("brown",),
        ("store",),
    ),
    "white_cabinet": Kind(
        ("cabinet", "white cabinet", "drawers", "chest of drawers"),
        "white",
        ("gray",),
        ("store",),
    ),
    "yellow_cabinet": Kind(
        ("cabinet", "yellow cabinet", "drawers", "chest of drawers", "wooden cabinet"),
        "yellow",
        ("brown", "orange"),
        ("store",),
    ),
    "flat_stove": Kind(
        ("stove", "hot plate", "burner", "cooktop"),
        "",
        ("white", "gray", "silver", "black", "red"),
        ("heat",),
    ),
    "yellow_stove": Kind(
        ("stove", "yellow stove", "hot plate", "burner", "cooktop"),
        "yellow",
        ("white", "black", "red", "orange"),
        ("heat",),
    ),
    "microwave": Kind(("microwave", "microwave oven"), "black", ("gray",), ("warm",)),
    "wine_rack": Kind(
        ("wine rack", "rack", "bottle rack"), "", ("brown", "yellow", "red", "orange"), ("rack",)
    ),
    "brown_rack": Kind(
        ("wine rack", "rack", "bottle rack", "brown rack"), "brown", ("red",), ("rack",)
    ),
    "desk_caddy": Kind(
        ("caddy", "desk caddy", "desk organizer"), "", ("black", "brown"), ("desk",)
    ),
    "wooden_two_layer_shelf": Kind(
        ("shelf", "wooden shelf", "two-layer shelf"), "", ("black", "brown"), ("shelve",)
    ),
}

FIXTURE_KINDS = (
    "wooden_cabinet",
    "white_cabinet",
    "yellow_cabinet",
    "flat_stove",
    "yellow_stove",
    "microwave",
    "wine_rack",
    "brown_rack",
    "desk_caddy",
    "wooden_two_layer_shelf",
)
