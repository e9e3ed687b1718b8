"""What people call LIBERO's models, what colour they say they are, and what they are for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ObjectClass:
    """One model of the package."""

    # What a person may call it, the most usual first. A name that several kinds share means all of
    # them.
    names: tuple[str, ...]
    color: str = ""  # the colour that everybody would agree on; empty where there is none
    maybe: tuple[str, ...] = ()  # colours that somebody might say of it
    uses: tuple[str, ...] = ()  # what it is for, keys of `USES`
    groups: tuple[str, ...] = ()  # groups that it belongs to, keys of `GROUPS`


_BOWL_USES = ("cereal",)
_BOWL_GROUPS = ("bowls", "tableware")
_SAUCE_GROUPS = ("bottles", "groceries", "sauces")
_CAN_GROUPS = ("cans", "groceries")
_BOX_GROUPS = ("groceries",)
_CARTON_GROUPS = ("cartons", "groceries", "drinks")
_MUG_GROUPS = ("mugs", "tableware")

OBJECT_CLASSES: dict[str, ObjectClass] = {
    "akita_black_bowl": ObjectClass(
        ("black bowl", "bowl", "akita black bowl", "patterned bowl"),
        "black",
        ("gray", "white"),
        _BOWL_USES,
        _BOWL_GROUPS,
    ),
    "bigger_akita_black_bowl": ObjectClass(
        ("black bowl", "bowl", "akita black bowl", "patterned bowl", "large black bowl"),
        "black",
        ("gray", "white"),
        _BOWL_USES,
        _BOWL_GROUPS,
    ),
    "black_bowl": ObjectClass(
        ("black bowl", "bowl", "patterned bowl"),
        "black",
        ("gray", "white"),
        _BOWL_USES,
        _BOWL_GROUPS,
    ),
    "white_bowl": ObjectClass(
        ("white bowl", "bowl"), "white", ("gray",), _BOWL_USES, _BOWL_GROUPS
    ),
    "glazed_rim_porcelain_ramekin": ObjectClass(
        ("ramekin", "porcelain ramekin", "white ramekin", "small white dish"),
        "white",
        ("gray",),
        ("souffle",),
        ("tableware",),
    ),
    "plate": ObjectClass(
        ("plate", "white plate", "plate with red stripes"),
        "white",
        ("red",),
        ("cake",),
        ("plates", "tableware"),
    ),
    "yellow_plate": ObjectClass(
        ("plate", "yellow plate", "plate with yellow stripes"),
        "yellow",
        ("white",),
        ("cake",),
        ("plates", "tableware"),
    ),
    "porcelain_mug": ObjectClass(
        ("white mug", "mug", "porcelain mug", "white cup", "cup"),
        "white",
        ("gray",),
        ("coffee",),
        _MUG_GROUPS,
    ),
    "red_coffee_mug": ObjectClass(
        ("red mug", "mug", "red coffee mug", "coffee mug", "red cup", "cup"),
        "red",
        ("white",),
        ("coffee",),
        _MUG_GROUPS,
    ),
    "white_yellow_mug": ObjectClass(
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
    "basket": ObjectClass(
        ("basket", "wicker basket", "woven basket"), "", ("white", "brown", "gray")
    ),
    "red_basket": ObjectClass(("basket", "red basket", "woven basket"), "red", ("pink",)),
    "wooden_tray": ObjectClass(
        ("tray", "wooden tray", "wooden crate"), "brown", ("yellow",), ("serve",)
    ),
    "chefmate_8_frypan": ObjectClass(
        ("frying pan", "pan", "frypan", "skillet"), "black", ("gray",), ("fry",)
    ),
    "moka_pot": ObjectClass(
        ("moka pot", "silver moka pot", "coffee pot", "espresso pot"),
        "silver",
        ("white", "gray", "black"),
        ("brew",),
    ),
    "yellow_moka_pot": ObjectClass(
        ("moka pot", "yellow moka pot", "coffee pot", "espresso pot"),
        "yellow",
        ("black", "orange"),
        ("brew",),
    ),
    "wine_bottle": ObjectClass(
        ("wine bottle", "bottle", "bottle of wine", "wine"),
        "black",
        ("brown", "green"),
        ("wine",),
        ("bottles", "drinks"),
    ),
    "white_bottle": ObjectClass(
        ("wine bottle", "bottle", "bottle of wine", "wine", "green bottle"),
        "green",
        ("white",),
        ("wine",),
        ("bottles", "drinks"),
    ),
    "black_book": ObjectClass(("book", "black book"), "black", ("gray",), ("read",), ("books",)),
    "yellow_book": ObjectClass(
        ("book", "yellow book"), "", ("yellow", "gray", "white", "brown"), ("read",), ("books",)
    ),
    "alphabet_soup": ObjectClass(
        ("alphabet soup", "soup can", "can of alphabet soup", "alphabet soup can", "can"),
        "blue",
        ("black", "orange"),
        ("soup",),
        _CAN_GROUPS,
    ),
    "bigger_alphabet_soup": ObjectClass(
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
    "tomato_sauce": ObjectClass(
        ("tomato sauce", "can of tomato sauce", "tomato sauce can", "can"),
        "",
        ("red", "green", "gray"),
        ("pasta",),
        (*_CAN_GROUPS, "sauces"),
    ),
    "yellow_tomato_sauce": ObjectClass(
        ("tomato sauce", "can of tomato sauce", "tomato sauce can", "can"),
        "",
        ("yellow", "blue", "gray"),
        ("pasta",),
        (*_CAN_GROUPS, "sauces"),
    ),
    "bbq_sauce": ObjectClass(
        ("bbq sauce", "barbecue sauce", "bottle of bbq sauce", "bottle"),
        "",
        ("brown", "red", "black"),
        ("grill",),
        _SAUCE_GROUPS,
    ),
    "green_bbq_sauce": ObjectClass(
        ("bbq sauce", "barbecue sauce", "bottle of bbq sauce", "bottle"),
        "",
        ("green", "brown", "red", "black"),
        ("grill",),
        _SAUCE_GROUPS,
    ),
    "ketchup": ObjectClass(
        ("ketchup", "bottle of ketchup", "ketchup bottle", "bottle"),
        "",
        ("red", "brown", "orange", "gray"),
        ("fries",),
        _SAUCE_GROUPS,
    ),
    "blue_ketchup": ObjectClass(
        ("ketchup", "bottle of ketchup", "ketchup bottle", "bottle", "blue bottle"),
        "blue",
        (),
        ("fries",),
        _SAUCE_GROUPS,
    ),
    "salad_dressing": ObjectClass(
        ("salad dressing", "bottle of salad dressing", "dressing", "bottle"),
        "",
        ("black", "green", "white", "gray"),
        ("salad",),
        _SAUCE_GROUPS,
    ),
    "new_salad_dressing": ObjectClass(
        ("salad dressing", "bottle of salad dressing", "dressing", "bottle"),
        "",
        ("black", "green", "white", "gray"),
        ("salad",),
        _SAUCE_GROUPS,
    ),
    "red_salad_dressing": ObjectClass(
        ("salad dressing", "bottle of salad dressing", "dressing", "bottle"),
        "",
        ("red", "black", "white", "gray"),
        ("salad",),
        _SAUCE_GROUPS,
    ),
    "butter": ObjectClass(
        ("butter", "box of butter", "butter box", "pack of butter"),
        "",
        ("orange", "red", "white", "blue"),
        ("spread",),
        _BOX_GROUPS,
    ),
    "green_butter": ObjectClass(
        ("butter", "box of butter", "butter box", "pack of butter"),
        "green",
        ("white", "yellow"),
        ("spread",),
        _BOX_GROUPS,
    ),
    "cream_cheese": ObjectClass(
        ("cream cheese", "cream cheese box", "box of cream cheese", "pack of cream cheese"),
        "blue",
        ("gray", "white"),
        ("bagel",),
        _BOX_GROUPS,
    ),
    "red_cream_cheese": ObjectClass(
        ("cream cheese", "cream cheese box", "box of cream cheese", "pack of cream cheese"),
        "",
        ("red", "white"),
        ("bagel",),
        _BOX_GROUPS,
    ),
    "chocolate_pudding": ObjectClass(
        ("chocolate pudding", "pudding", "box of chocolate pudding", "chocolate pudding box"),
        "",
        ("brown", "red", "black"),
        ("dessert",),
        _BOX_GROUPS,
    ),
    "green_chocolate_pudding": ObjectClass(
        ("chocolate pudding", "pudding", "box of chocolate pudding", "chocolate pudding box"),
        "green",
        ("brown",),
        ("dessert",),
        _BOX_GROUPS,
    ),
    "cookies": ObjectClass(
        ("cookie box", "cookies", "box of cookies", "cookies box"),
        "",
        ("red", "yellow", "orange"),
        ("cookies",),
        _BOX_GROUPS,
    ),
    "milk": ObjectClass(
        ("milk", "milk carton", "carton of milk"),
        "",
        ("red", "white", "blue"),
        ("calcium",),
        _CARTON_GROUPS,
    ),
    "yellow_milk": ObjectClass(
        ("milk", "milk carton", "carton of milk"),
        "yellow",
        ("orange",),
        ("calcium",),
        _CARTON_GROUPS,
    ),
    "orange_juice": ObjectClass(
        ("orange juice", "juice", "orange juice carton", "carton of orange juice"),
        "",
        ("orange", "yellow", "red", "green"),
        ("juice",),
        _CARTON_GROUPS,
    ),
    "wooden_cabinet": ObjectClass(
        ("cabinet", "wooden cabinet", "drawers", "chest of drawers", "drawer", "black cabinet"),
        "black",
        ("brown",),
        ("store",),
    ),
    "white_cabinet": ObjectClass(
        ("cabinet", "white cabinet", "drawers", "chest of drawers", "drawer"),
        "white",
        ("gray",),
        ("store",),
    ),
    "yellow_cabinet": ObjectClass(
        ("cabinet", "yellow cabinet", "drawers", "chest of drawers", "drawer", "wooden cabinet"),
        "yellow",
        ("brown", "orange"),
        ("store",),
    ),
    "flat_stove": ObjectClass(
        ("stove", "hot plate", "burner", "cooktop"),
        "",
        ("white", "gray", "silver", "black", "red"),
        ("heat",),
    ),
    "yellow_stove": ObjectClass(
        ("stove", "yellow stove", "hot plate", "burner", "cooktop"),
        "yellow",
        ("white", "black", "red", "orange"),
        ("heat",),
    ),
    "microwave": ObjectClass(("microwave", "microwave oven"), "black", ("gray",), ("warm",)),
    "wine_rack": ObjectClass(
        ("wine rack", "rack", "bottle rack"), "", ("brown", "yellow", "red", "orange"), ("rack",)
    ),
    "brown_rack": ObjectClass(
        ("wine rack", "rack", "bottle rack", "brown rack"), "brown", ("red",), ("rack",)
    ),
    "desk_caddy": ObjectClass(
        ("caddy", "desk caddy", "desk organizer"), "", ("black", "brown"), ("desk",)
    ),
    "wooden_two_layer_shelf": ObjectClass(
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
