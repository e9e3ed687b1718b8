"""What the kinds of objects are good for when a scene is composed: carrying, holding, opening."""

from __future__ import annotations

FIXTURE_LIFT_M = {"wooden_cabinet": 0.005, "white_cabinet": 0.005, "yellow_cabinet": 0.005}
FIXTURE_LIFT_M |= {"flat_stove": 0.005, "yellow_stove": 0.005}
OTHER_LIFT_M = 0.02  # the benchmark puts its other fixtures so far above the surface
CABINETS = ("wooden_cabinet", "white_cabinet", "yellow_cabinet")
STOVES = ("flat_stove", "yellow_stove")
DRAWERS = ("top", "middle", "bottom")

BOWLS = ("akita_black_bowl", "bigger_akita_black_bowl", "black_bowl", "white_bowl")
PLATES = ("plate", "yellow_plate")
BASKETS = ("basket", "red_basket")
FLAT = ("cookies", "butter", "green_butter", "cream_cheese", "red_cream_cheese")
FLAT += ("chocolate_pudding", "green_chocolate_pudding")
RAMEKIN, PAN, TRAY = "glazed_rim_porcelain_ramekin", "chefmate_8_frypan", "wooden_tray"
TALL_FIXED = ("wine_rack", "brown_rack")
