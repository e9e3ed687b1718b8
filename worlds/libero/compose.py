"""Composes a scene on a stage: fixtures, things beside, between, on and in one another.

Places are tried until the footprints leave room; then physics settles everything, and what fell
off or still rolls is taken away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tabletop.simulator import mujoco
from worlds.libero.footprint import Footprint, gap_m, placed
from worlds.libero.pools import Pool
from worlds.libero.stage import Box, Floats, Piece, Stage, product_wxyz, yaw_wxyz

MIN_THINGS, MAX_THINGS = 3, 9

FIXTURE_LIFT_M = {"wooden_cabinet": 0.005, "white_cabinet": 0.005, "yellow_cabinet": 0.005}
FIXTURE_LIFT_M |= {"flat_stove": 0.005, "yellow_stove": 0.005}
_LIFT_M = 0.02  # the benchmark puts its other fixtures so far above the surface
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

_FIXTURE_COUNT_CHANCES = (0.12, 0.33, 0.4, 0.15)
_OPEN_CHANCE = 0.45  # of a cabinet to have a drawer open, of a microwave to be open
_ON_CHANCE = 0.25  # of a stove to be on
_MARGIN_M = 0.006
_TRIES = 40
_SETTLE_S, _SETTLE_MORE_S = 0.9, 1.2
_CHECK_STEPS = 50
_AT_REST = 0.03  # fastest speed that counts as at rest [m/s, rad/s mixed]
_ROLLING = 0.25  # what is faster in the end is taken away
_DEEPEST_M = 0.006  # how far two things may be in one another


@dataclass
class Layout:
    """What stands on the stage.

    Attributes:
        pieces: What is shown, fixtures first.
        drawers: Of each cabinet, how far each drawer is open [m].
        open_doors: Names of microwaves with the door open.
        lit: Names of stoves that are on.
    """

    pieces: list[Piece]
    drawers: dict[str, dict[str, float]]
    open_doors: set[str]
    lit: set[str]


class _Composer:
    """One scene in the making."""

    def __init__(self, rng: np.random.Generator, stage: Stage) -> None:
        self.rng = rng
        self.stage = stage
        self.layout = Layout([], {}, set(), set())
        self.taken: dict[str, Footprint] = {}  # what stands on the surface itself
        self.blocked: list[Footprint] = []  # where drawers and doors open
        self.full: set[tuple[str, str]] = set()  # (piece, region) that has something in it
        self.load: set[str] = set()  # movables that carry something

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def surface_xy(self, *, wide: bool) -> tuple[float, float]:
        x, y, _ = self.stage.arena.center_xyz_m
        half_x, half_y = self.stage.arena.work_xy_m
        grow = 1.2 if wide else 1.0
        return (
            x + self.rng.uniform(-half_x, half_x) * grow,
            y + self.rng.uniform(-half_y, half_y) * grow,
        )

    def free(self, footprint: Footprint, margin_m: float = _MARGIN_M) -> bool:
        others = [*self.taken.values(), *self.blocked]
        return all(gap_m(footprint, other) >= margin_m for other in others)

    def on_surface(self, footprint: Footprint) -> bool:
        """Whether it stands well inside of what the benchmark uses of the surface."""
        x, y, _ = self.stage.arena.center_xyz_m
        half_x, half_y = self.stage.arena.work_xy_m
        return abs(footprint.x_m - x) <= half_x + 0.08 and abs(footprint.y_m - y) <= half_y + 0.04

    def turn(self) -> float:
        """A yaw: often the benchmark's own."""
        return float(self.rng.normal(0, 0.08) if self.chance(0.5) else self.rng.uniform(0, 6.283))

    def stand(self, piece: Piece, footprint: Footprint, x: float, y: float, yaw: float) -> None:
        """Put a movable upright on the surface."""
        self.taken[piece.name] = footprint
        self.drop(piece, x, y, self.stage.arena.center_xyz_m[2] + 0.004, yaw)

    def drop(self, piece: Piece, x: float, y: float, bottom_z: float, yaw: float) -> None:
        """Show a movable with its lowest point at a height."""
        turn = product_wxyz(yaw_wxyz(yaw), piece.upright_wxyz)
        self.stage.show(piece)
        self.stage.put(piece, np.array([x, y, bottom_z - piece.low_m[2]]), turn)
        self.layout.pieces.append(piece)


def compose(rng: np.random.Generator, stage: Stage, pool: Pool) -> Layout | None:
    """Make a scene on the stage, settled; None where too little of it held.

    Args:
        rng: Where chance comes from.
        stage: Is reset first.
        pool: What the stage was built from.
    """
    stage.reset()
    work = _Composer(rng, stage)
    for piece in _choose_fixtures(rng, stage):
        _place_fixture(work, piece)
    mujoco.mj_forward(stage.model, stage.data)
    for piece in _choose_movables(rng, stage, pool):
        _place_movable(work, piece)
    if len(_movables(work.layout)) < MIN_THINGS:
        return None
    _settle(stage)
    _take_away_what_failed(stage, work.layout)
    if len(_movables(work.layout)) < MIN_THINGS:
        return None
    return work.layout


def _movables(layout: Layout) -> list[Piece]:
    return [piece for piece in layout.pieces if not piece.fixed]


def _choose_fixtures(rng: np.random.Generator, stage: Stage) -> list[Piece]:
    fixtures = [piece for piece in stage.pieces if piece.fixed]
    chances = np.array(_FIXTURE_COUNT_CHANCES)
    if stage.arena.surface == "floor":
        chances = np.array([0.75, 0.2, 0.05, 0.0])
    elif stage.arena.surface == "living_room_table":
        chances = np.array([0.6, 0.3, 0.1, 0.0])
    count = min(len(fixtures), int(rng.choice(len(chances), p=chances)))
    order = rng.permutation(len(fixtures))[:count]
    chosen = [fixtures[int(i)] for i in order]
    return sorted(chosen, key=lambda piece: -float(np.prod(piece.size_m)))


def _choose_movables(rng: np.random.Generator, stage: Stage, pool: Pool) -> list[Piece]:
    """Three to nine of the pool, often two of a kind; large ones first."""
    movables = [piece for piece in stage.pieces if not piece.fixed]
    count = int(rng.integers(MIN_THINGS, MAX_THINGS + 1))
    weights = np.array([3.0] * pool.core + [1.0] * (len(movables) - pool.core))
    order = rng.choice(len(movables), size=count, replace=False, p=weights / weights.sum())
    chosen = [movables[int(i)] for i in order]
    kinds = [piece.kind for piece in movables]
    if rng.random() < 0.5:
        first = [p for p in chosen if kinds.count(p.kind) > 1]
        twins = [p for p in movables if first and p.kind == first[0].kind and p not in chosen]
        if twins:
            others = [p for p in chosen if p.kind != first[0].kind]
            if others and len(chosen) > MIN_THINGS:
                chosen.remove(others[-1])
            chosen.append(twins[0])
    return sorted(chosen, key=_placing_order)


def _placing_order(piece: Piece) -> tuple[int, float]:
    """What can carry something comes before what can be carried."""
    carriers = (*BASKETS, TRAY, PAN, *PLATES, RAMEKIN, "cookies")
    first = 0 if piece.kind in carriers else 1
    return first, -float(piece.size_m[0] * piece.size_m[1])


# --- fixtures


def _place_fixture(work: _Composer, piece: Piece) -> None:
    rng, stage = work.rng, work.stage
    _, _, surface_z = stage.arena.center_xyz_m
    states = _sample_states(work, piece)
    for _ in range(_TRIES):
        x, y, yaw = _fixture_pose(work, piece)
        footprint = placed(piece.low_m, piece.high_m, x, y, yaw)
        opening = _opening(piece, states, x, y, yaw)
        if not work.free(footprint, 0.02) or not all(work.free(o, 0.0) for o in opening):
            continue
        lift = FIXTURE_LIFT_M.get(piece.kind, _LIFT_M)
        stage.show(piece)
        stage.put(piece, np.array([x, y, surface_z + lift]), yaw_wxyz(yaw))
        for joint, value in states.items():
            address, _, _ = piece.joints[joint]
            stage.data.qpos[address] = value
        work.taken[piece.name] = footprint
        work.blocked.extend(opening)
        work.layout.pieces.append(piece)
        _note_states(work, piece, states)
        return
    _ = rng


def _fixture_pose(work: _Composer, piece: Piece) -> tuple[float, float, float]:
    """At the sides and behind, facing the middle, as in the benchmark; now and then anywhere."""
    rng = work.rng
    cx, cy, _ = work.stage.arena.center_xyz_m
    half_x, half_y = work.stage.arena.work_xy_m
    side = 1 if rng.random() < 0.5 else -1
    if piece.kind in STOVES:
        x = cx + rng.uniform(-1.5 * half_x, 0.4 * half_x)
        y = cy + rng.uniform(-0.9, 0.9) * half_y
        return x, y, float(rng.normal(0, 0.1) + (math.pi if work.chance(0.1) else 0.0))
    if piece.kind == "desk_caddy":
        x = cx - half_x + rng.uniform(-0.08, 0.08)
        return x, cy + rng.uniform(-0.6, 0.6) * half_y, math.pi + float(rng.normal(0, 0.1))
    x = cx + rng.uniform(-1.2, 0.5) * half_x
    y = cy + side * rng.uniform(0.62, 0.95) * half_y
    yaw = (0.0 if side > 0 else math.pi) + float(rng.normal(0, 0.1))
    if work.chance(0.35):
        yaw += float(rng.uniform(-0.7, 0.7))
    return x, y, yaw


def _sample_states(work: _Composer, piece: Piece) -> dict[str, float]:
    """Where its drawers, its door or its button are."""
    rng = work.rng
    states = {}
    for joint, (_, least, _) in piece.joints.items():
        states[joint] = 0.0
        if piece.kind == "microwave" and work.chance(_OPEN_CHANCE):
            states[joint] = float(rng.uniform(least, 0.6 * least))
        if piece.kind in STOVES and work.chance(_ON_CHANCE):
            states[joint] = float(rng.uniform(0.6, 1.6))
    if piece.kind in CABINETS and work.chance(_OPEN_CHANCE):
        joint = f"{DRAWERS[int(rng.integers(3))]}_level"
        states[joint] = -float(rng.uniform(0.1, 0.16))
    return states


def _note_states(work: _Composer, piece: Piece, states: dict[str, float]) -> None:
    if piece.kind in CABINETS:
        work.layout.drawers[piece.name] = {
            drawer: round(-states[f"{drawer}_level"], 3) + 0.0 for drawer in DRAWERS
        }
    if piece.kind == "microwave" and any(value < -0.5 for value in states.values()):
        work.layout.open_doors.add(piece.name)
    if piece.kind in STOVES and any(value > 0.5 for value in states.values()):
        work.layout.lit.add(piece.name)
        burner = work.stage.model.site(f"{piece.name}_burner").id
        work.stage.model.site_rgba[burner, 3] = 1


def _opening(
    piece: Piece, states: dict[str, float], x: float, y: float, yaw: float
) -> list[Footprint]:
    """Where an open drawer or door reaches."""
    reach = -min([0.0, *(v for v in states.values() if v < 0)])
    if reach == 0.0:
        return []
    if piece.kind == "microwave":
        reach = float(piece.size_m[0])
    low, high = piece.low_m.copy(), piece.high_m.copy()
    high[1] = low[1]
    low[1] -= reach
    return [placed(low, high, x, y, yaw)]


# --- movables


def _place_movable(work: _Composer, piece: Piece) -> None:
    ways = [_inside, _on_top, _between, _beside, _anywhere]
    chances = np.array([0.2, 0.22, 0.12, 0.16, 0.3])
    if piece.kind in (*BASKETS, TRAY, PAN):
        chances = np.array([0.0, 0.0, 0.05, 0.05, 0.9])
    first = int(work.rng.choice(len(ways), p=chances))
    for way in (ways[first], _anywhere):
        if way(work, piece):
            return


def _anywhere(work: _Composer, piece: Piece) -> bool:
    for _ in range(_TRIES):
        x, y = work.surface_xy(wide=False)
        if _try_to_stand(work, piece, x, y):
            return True
    return False


def _try_to_stand(work: _Composer, piece: Piece, x: float, y: float) -> bool:
    yaw = work.turn()
    footprint = placed(piece.low_m, piece.high_m, x, y, yaw)
    if not work.on_surface(footprint) or not work.free(footprint):
        return False
    work.stand(piece, footprint, x, y, yaw)
    return True


def _beside(work: _Composer, piece: Piece) -> bool:
    """Next to something, with a small gap."""
    if not work.taken:
        return False
    anchors = list(work.taken.values())
    for _ in range(_TRIES):
        anchor = anchors[int(work.rng.integers(len(anchors)))]
        angle = work.rng.uniform(0, 2 * math.pi)
        own = float(piece.size_m[:2].mean()) / 2
        distance = anchor.radius_m() + own + work.rng.uniform(0.005, 0.05)
        x = anchor.x_m + distance * math.cos(angle)
        y = anchor.y_m + distance * math.sin(angle)
        if _try_to_stand(work, piece, x, y):
            return True
    return False


def _between(work: _Composer, piece: Piece) -> bool:
    """About half way between two things."""
    anchors = list(work.taken.values())
    if len(anchors) < 2:
        return False
    for _ in range(_TRIES):
        one, other = (anchors[int(i)] for i in work.rng.choice(len(anchors), 2, replace=False))
        apart = math.hypot(one.x_m - other.x_m, one.y_m - other.y_m)
        if not 0.14 <= apart <= 0.45:
            continue
        share = work.rng.uniform(0.42, 0.58)
        x = one.x_m + share * (other.x_m - one.x_m) + work.rng.normal(0, 0.008)
        y = one.y_m + share * (other.y_m - one.y_m) + work.rng.normal(0, 0.008)
        if _try_to_stand(work, piece, x, y):
            return True
    return False


def _on_top(work: _Composer, piece: Piece) -> bool:
    """On a plate, a box, a ramekin, a stove, a cabinet."""
    supports = [p for p in work.layout.pieces if _can_carry(p, piece) and p.name not in work.load]
    if not supports:
        return False
    support = supports[int(work.rng.integers(len(supports)))]
    if support.fixed:
        return _on_fixture(work, piece, support)
    position = work.stage.data.qpos[support.qpos : support.qpos + 3]
    jitter = work.rng.normal(0, 0.006, 2)
    top = position[2] + support.high_m[2]
    if support.kind in PLATES:
        top = position[2] + 0.012
    work.load.add(support.name)
    work.drop(piece, position[0] + jitter[0], position[1] + jitter[1], top + 0.003, work.turn())
    return True


def _can_carry(support: Piece, piece: Piece) -> bool:
    """Whether a thing may be put on a support so that it stays there."""
    if piece.kind in (*BASKETS, TRAY):
        return False
    own = float(piece.size_m[:2].max())
    if support.fixed:
        if support.kind in TALL_FIXED or support.kind == "desk_caddy":
            return False
        return own <= 0.2 or support.kind in STOVES
    if support.kind in PLATES:
        return own <= 0.15
    if support.kind == RAMEKIN:
        return piece.kind in (*BOWLS, *PLATES)
    if support.kind in FLAT:
        return piece.kind in (*BOWLS, *PLATES, RAMEKIN, *FLAT)
    return False


def _on_fixture(work: _Composer, piece: Piece, support: Piece) -> bool:
    names = [n for n in ("top_side", "cook_region") if n in support.boxes]
    if not names:
        return False
    key = (support.name, names[0])
    if key in work.full and not work.chance(0.3):
        return False
    box = support.boxes[names[0]]
    center, _, half = _box_in_world(work.stage, box)
    spare = np.maximum(half[:2] - piece.size_m[:2].max() / 2, 0.012)
    offset = work.rng.uniform(-1, 1, 2) * spare * (0.4 if key in work.full else 0.9)
    if key in work.full:
        return False
    work.full.add(key)
    x, y = center[:2] + offset
    work.drop(piece, x, y, center[2] + half[2] + 0.004, work.turn())
    return True


def _inside(work: _Composer, piece: Piece) -> bool:
    """In an open drawer, a basket, a tray, a caddy, an open microwave, a shelf, a bowl."""
    holes = [
        (holder, box)
        for holder in work.layout.pieces
        for box in _holes(work, holder)
        if (holder.name, box.name) not in work.full
    ]
    work.rng.shuffle(holes)
    for holder, box in holes:
        center, _, half = _box_in_world(work.stage, box)
        if not _fits(piece, half):
            continue
        work.full.add((holder.name, box.name))
        spare = np.maximum(half[:2] - piece.size_m[:2].max() / 2, 0.0) * 0.8
        x, y = center[:2] + work.rng.uniform(-1, 1, 2) * spare
        bottom = center[2] - half[2] + 0.012
        if holder.kind in BASKETS:
            bottom = center[2] - half[2] + 0.02
        work.drop(piece, x, y, bottom, work.turn())
        return True
    return _in_bowl(work, piece)


def _in_bowl(work: _Composer, piece: Piece) -> bool:
    """Small things go into bowls and pans, small bowls into large ones."""
    bowls = [
        p
        for p in work.layout.pieces
        if p.kind in (*BOWLS, PAN)
        and p.name not in work.load
        and p.name in work.taken
        and float(piece.size_m[:2].max()) < 0.78 * float(p.size_m[:2].min())
        and float(piece.size_m[2]) < 0.16
    ]
    if not bowls:
        return False
    bowl = bowls[int(work.rng.integers(len(bowls)))]
    position = work.stage.data.qpos[bowl.qpos : bowl.qpos + 3]
    work.load.add(bowl.name)
    footprint = work.taken[bowl.name]
    x, y = (position[0], position[1]) if bowl.kind == PAN else (footprint.x_m, footprint.y_m)
    work.drop(piece, x, y, position[2] + 0.02, work.turn())
    return True


def _holes(work: _Composer, holder: Piece) -> list[Box]:
    """Regions of a holder that are open now."""
    boxes = holder.boxes
    if holder.kind in CABINETS:
        drawers = work.layout.drawers[holder.name]
        return [boxes[f"{drawer}_region"] for drawer, gap in drawers.items() if gap > 0.09]
    if holder.kind == "microwave":
        return [boxes["heating_region"]] if holder.name in work.layout.open_doors else []
    if holder.kind in TALL_FIXED or holder.kind in STOVES:
        return []
    return [box for name, box in boxes.items() if name.endswith("_region")]


def _fits(piece: Piece, half_m: Floats) -> bool:
    wide = float(np.hypot(*piece.size_m[:2])) if piece.size_m[:2].max() > 0.09 else 0.0
    own = max(float(piece.size_m[:2].max()), 0.85 * wide)
    return own <= 2 * float(half_m[:2].min()) * 0.95 and float(piece.size_m[2]) <= 0.17


def _box_in_world(stage: Stage, box: Box) -> tuple[Floats, Floats, Floats]:
    """Middle, axes and half extents along the world's axes of a region."""
    axes = stage.data.xmat[box.body].reshape(3, 3)
    position = stage.data.xpos[box.body]
    for piece in stage.pieces:
        if piece.qpos is not None and piece.body == box.body:  # moved since the last forward pass
            turn = np.zeros(9)
            mujoco.mju_quat2Mat(turn, stage.data.qpos[piece.qpos + 3 : piece.qpos + 7])
            axes = turn.reshape(3, 3)
            position = stage.data.qpos[piece.qpos : piece.qpos + 3]
    rotation = axes @ box.rotation
    return position + axes @ box.position_m, rotation, np.abs(rotation) @ box.half_m


# --- physics


def _settle(stage: Stage) -> None:
    limit = int((_SETTLE_S + _SETTLE_MORE_S) / stage.model.opt.timestep)
    least = int(_SETTLE_S / stage.model.opt.timestep / 3)
    shown = _shown_dofs(stage)
    for step in range(limit):
        mujoco.mj_step(stage.model, stage.data)
        if (
            step >= least
            and step % _CHECK_STEPS == 0
            and np.abs(stage.data.qvel[shown]).max(initial=0.0) < _AT_REST
        ):
            break
    mujoco.mj_forward(stage.model, stage.data)


def _shown_dofs(stage: Stage) -> list[int]:
    dofs: list[int] = []
    for piece in stage.pieces:
        if not piece.fixed and stage.model.geom_rgba[piece.geoms, 3].any():
            first = int(stage.model.body_dofadr[piece.body])
            dofs.extend(range(first, first + 6))
    return dofs


def _take_away_what_failed(stage: Stage, layout: Layout) -> None:
    """Hide what fell off the surface, still rolls, or is stuck in something."""
    stuck = deep_contacts(stage, layout.pieces)
    x, y, z = stage.arena.center_xyz_m
    half_x, half_y = stage.arena.work_xy_m
    gone = []
    for piece in layout.pieces:
        if piece.fixed:
            continue
        px, py, pz = stage.data.xpos[piece.body]
        dof = stage.model.body_dofadr[piece.body]
        fast = np.abs(stage.data.qvel[dof : dof + 6]).max() > _ROLLING
        off = abs(px - x) > half_x + 0.2 or abs(py - y) > half_y + 0.15 or pz < z - 0.02
        if fast or off or piece.name in stuck:
            gone.append(piece)
    for piece in gone:
        stage.hide(piece)
        layout.pieces.remove(piece)
    if gone:
        _settle(stage)


def deep_contacts(stage: Stage, pieces: Sequence[Piece]) -> set[str]:
    """Names of movables that are further in another thing than they may be."""
    owner = {geom: piece for piece in pieces for geom in piece.geoms}
    names = set()
    for contact in stage.data.contact[: stage.data.ncon]:
        if contact.dist > -_DEEPEST_M:
            continue
        for geom in contact.geom:
            piece = owner.get(int(geom))
            if piece is not None and not piece.fixed:
                names.add(piece.name)
    return names
