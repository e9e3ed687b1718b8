"""Films tables: `python -m worlds.tabletop.clips --seed S --count N --frames 60 --out DIR`.

Clip `i` has the seed S + i and depends on nothing else; seeds are split as those of
`worlds.tabletop.render` are. The camera moves all the time. One object, the target, is in the
middle of what happens, two seconds for each event: it is pushed, an arm passes between it and the
camera, or the camera turns away from it and back.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segzero_core.terminal.progress_bar import ProgressBar
from worlds.common.camera_pose import CameraPose, direction
from worlds.common.scene import split_of_seed
from worlds.common.simulator import mujoco
from worlds.tabletop.camera import Camera, RenderedImage, look_at, sample_camera
from worlds.tabletop.world import (
    MAX_WORLDS,
    MIN_OBJECTS,
    World,
    build_world,
    sample_objects,
    settled_tables,
)

FORMAT: Final = 1
FILE_NAME: Final = "clip.json"
EVENTS: Final = ("push", "occlude", "leave")
RATE_HZ: Final = 10.0
EVENT_S: Final = 2.0
MIN_TARGET_PX: Final = 600
_PNG_LEVEL = 1
_PARKED_M = (0.0, 0.0, -3.0)  # below the floor
_ARM_RGB = ((0.85, 0.62, 0.50), (0.45, 0.30, 0.22), (0.35, 0.36, 0.40), (0.15, 0.25, 0.55))
_ARM_REACH_M = 0.32  # how far to the side of the line of sight the arm begins
_PUSH_SPEED_M_S = (0.06, 0.16)
_PUSH_RESPONSE_PER_S = 60.0  # how fast the pushing force corrects the speed
_LIFT = 0.6  # share of the weight that a push carries, so that objects slide and do not tip
_LEAVE_RAD = (0.75, 1.05)
_GRAVITY_M_S2 = 9.81


@dataclass(frozen=True)
class ClipEvent:
    """What happens to the target between two frames, the second one not included."""

    kind: str
    start: int
    stop: int


@dataclass(frozen=True)
class ClipObject:
    """An object on the table; `id` is the value of its pixels in the instances images."""

    id: int
    kind: str
    color: str


@dataclass(frozen=True)
class Clip:
    """Everything about a clip but its pixels."""

    seed: int  # the seed that makes it again, together with frames and rate
    frames: int  # number of images
    rate_hz: float  # images a second
    target: int  # id of the object that the events happen to; well visible in the first image
    objects: tuple[ClipObject, ...]  # in order of their ids
    events: tuple[ClipEvent, ...]  # in order of time

    def to_json(self) -> str:
        """The text of `clip.json`."""
        record = {"format": FORMAT, "split": split_of_seed(self.seed), **asdict(self)}
        return json.dumps(record, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Clip:
        """Read `clip.json`.

        Raises:
            ValueError: The text is not a clip of this format.
        """
        try:
            record: dict[str, Any] = json.loads(text)
            if record["format"] != FORMAT:
                raise ValueError(f"clip format {record['format']!r}, expected {FORMAT}")
            return cls(
                seed=int(record["seed"]),
                frames=int(record["frames"]),
                rate_hz=float(record["rate_hz"]),
                target=int(record["target"]),
                objects=tuple(ClipObject(**item) for item in record["objects"]),
                events=tuple(ClipEvent(**item) for item in record["events"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a {FILE_NAME} of format {FORMAT}: {error!r}") from error


@dataclass(frozen=True)
class _Path:
    """How the camera moves: around the objects, with a hand's unsteadiness."""

    start: CameraPose
    center_m: NDArray[np.float64]
    turn_rad_s: float
    approach_m_s: float
    sway_rad: NDArray[np.float64]  # amplitude of azimuth, elevation and roll
    phase: NDArray[np.float64]

    def pose(self, time_s: float, turned_away_rad: float) -> CameraPose:
        """Where the camera is at a moment, looking to the side by an angle."""
        offset = self.start.position_m - self.center_m
        distance = float(np.linalg.norm(offset))
        sway = self.sway_rad * (np.sin(1.7 * time_s + self.phase) - np.sin(self.phase))
        azimuth = math.atan2(offset[1], offset[0]) + self.turn_rad_s * time_s + sway[0]
        elevation = math.asin(offset[2] / distance) + sway[1]
        elevation = float(np.clip(elevation, math.radians(22), math.radians(70)))
        distance = float(np.clip(distance + self.approach_m_s * time_s, 0.5, 0.85))
        away = direction(azimuth, elevation)
        cos, sin = math.cos(turned_away_rad), math.sin(turned_away_rad)
        forward = -np.array(
            [away[0] * cos - away[1] * sin, away[0] * sin + away[1] * cos, away[2]]
        )
        return CameraPose(
            self.center_m + distance * away, look_at(forward, float(sway[2])), self.start.fov_y_rad
        )


def film(
    camera: Camera, seed: int, frames: int, rate_hz: float
) -> tuple[Clip, Iterator[RenderedImage]]:
    """Make the clip of a seed, and its images, which are taken one by one at a rate [Hz].

    Raises:
        RuntimeError: No table of this seed has an object that can be seen well.
    """
    test = split_of_seed(seed) == "test"

    def build(rng: np.random.Generator) -> World | None:
        return build_world(rng, sample_objects(rng, with_test_only=test), _add_arm(rng))

    for rng, world, center in settled_tables((seed, 7), build, MIN_OBJECTS):
        path = _sample_path(rng, center)
        targets = _clear_objects(camera.shoot(world, path.pose(0.0, 0.0)).instances)
        if targets:
            clip = _describe(rng, seed, world, int(rng.choice(targets)), frames, rate_hz)
            return clip, _shoot(camera, world, path, clip, rng)
    raise RuntimeError(f"seed {seed}: nothing is seen well on {MAX_WORLDS} tables")


def _sample_path(rng: np.random.Generator, center_m: NDArray[np.float64]) -> _Path:
    start = sample_camera(rng, center_m)
    return _Path(
        start,
        center_m + rng.uniform(-0.03, 0.03, 3) * [1, 1, 0.3],
        turn_rad_s=rng.uniform(-0.16, 0.16),
        approach_m_s=rng.uniform(-0.02, 0.02),
        sway_rad=rng.uniform(0.0, 0.05, 3),
        phase=rng.uniform(0, 2 * math.pi, 3),
    )


def _clear_objects(instances: NDArray[np.uint16]) -> list[int]:
    """Ids of the objects that are large enough and wholly inside the image."""
    inner = instances[1:-1, 1:-1]
    areas = np.bincount(instances.ravel(), minlength=2)
    found = np.flatnonzero(areas[1:] >= MIN_TARGET_PX) + 1
    return [int(i) for i in found if np.count_nonzero(inner == i) == areas[i]]


def _describe(
    rng: np.random.Generator,
    seed: int,
    world: World,
    target: int,
    frames: int,
    rate_hz: float,
) -> Clip:
    length = max(2, round(EVENT_S * rate_hz))
    count = max(1, frames // length)
    kinds = [str(EVENTS[i % 3]) for i in (rng.integers(3) + rng.permutation(max(3, count)))]
    events = [
        ClipEvent(kind, i * length, min(frames, (i + 1) * length))
        for i, kind in enumerate(kinds[:count])
    ]
    objects = [ClipObject(i + 1, item.kind, item.color) for i, item in enumerate(world.objects)]
    return Clip(seed, frames, rate_hz, target, tuple(objects), tuple(events))


def _shoot(
    camera: Camera, world: World, path: _Path, clip: Clip, rng: np.random.Generator
) -> Iterator[RenderedImage]:
    body = world.bodies[clip.target - 1]
    steps = max(1, round(1 / clip.rate_hz / world.model.opt.timestep))
    side = float(rng.choice((-1.0, 1.0)))
    away_rad = side * rng.uniform(*_LEAVE_RAD)
    slant = rng.uniform(-0.6, 0.6)
    nearness = rng.uniform(0.5, 0.7)
    push = _push_velocity(rng, np.array(world.data.xpos[body]))
    for frame in range(clip.frames):
        kind, share = _event_at(clip, frame)
        turned = away_rad * math.sin(math.pi * share) ** 2 if kind == "leave" else 0.0
        pose = path.pose(frame / clip.rate_hz, turned)
        offset = side * _ARM_REACH_M * (2 * share - 1) ** 3 if kind == "occlude" else None
        _place_arm(world, pose, body, offset, slant, nearness)
        mujoco.mj_forward(world.model, world.data)
        yield camera.shoot(world, pose)
        for _ in range(steps):
            _push(world, body, push if kind == "push" and 0.1 < share < 0.8 else None)
            mujoco.mj_step(world.model, world.data)
        world.data.xfrc_applied[body] = 0


def _event_at(clip: Clip, frame: int) -> tuple[str, float]:
    """The event of a frame, and which share of it is over."""
    for event in clip.events:
        if event.start <= frame < event.stop:
            return event.kind, (frame - event.start) / (event.stop - event.start)
    return "", 0.0


def _push_velocity(rng: np.random.Generator, place_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Roughly towards the middle, so that nothing is pushed off the table."""
    angle = math.atan2(-place_m[1], -place_m[0]) + rng.uniform(-1.2, 1.2)
    speed = rng.uniform(*_PUSH_SPEED_M_S)
    return np.array([speed * math.cos(angle), speed * math.sin(angle), 0.0])


def _push(world: World, body: int, velocity: NDArray[np.float64] | None) -> None:
    """Put the force of a hand that moves at a velocity onto a body, through its center."""
    force = world.data.xfrc_applied[body]
    force[:] = 0
    if velocity is None:
        return
    mass = world.model.body_mass[body]
    joint = world.model.body_dofadr[body]
    force[:3] = mass * _PUSH_RESPONSE_PER_S * (velocity - world.data.qvel[joint : joint + 3])
    force[2] = mass * _GRAVITY_M_S2 * _LIFT
    force[3:] = -mass * 1e-3 * world.data.qvel[joint + 3 : joint + 6]


def _add_arm(rng: np.random.Generator) -> Any:
    """Return what adds an arm that touches nothing, parked out of sight."""
    rgb = np.array(_ARM_RGB[int(rng.integers(len(_ARM_RGB)))]) + rng.uniform(-0.08, 0.08, 3)
    radius = rng.uniform(0.028, 0.045)

    def furnish(spec: mujoco.MjSpec) -> None:
        body = spec.worldbody.add_body(name="arm", mocap=True, pos=_PARKED_M)
        common = {"rgba": [*np.clip(rgb, 0.02, 1), 1], "contype": 0, "conaffinity": 0, "group": 1}
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[radius, 0.3, 0], pos=[0, 0, 0.3], **common
        )
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_ELLIPSOID, size=[1.6 * radius, radius, 0.07], **common
        )

    return furnish


def _place_arm(
    world: World,
    pose: CameraPose,
    body: int,
    offset_m: float | None,
    slant: float,
    nearness: float,
) -> None:
    """Put the arm beside the line of sight to a body; None parks it."""
    if offset_m is None:
        world.data.mocap_pos[0] = _PARKED_M
        return
    right, down, _ = pose.rotation.T
    sight = world.data.xpos[body] - pose.position_m
    along = -down + slant * right
    turn, axis = np.zeros(4), along / np.linalg.norm(along)
    mujoco.mju_quatZ2Vec(turn, axis)
    world.data.mocap_quat[0] = turn
    place = pose.position_m + nearness * sight + offset_m * right - 0.05 * axis
    world.data.mocap_pos[0] = place


def save_clip(folder: Path, clip: Clip, images: Iterator[RenderedImage]) -> None:
    """Write one clip; `clip.json` comes last, so that its presence means complete."""
    for name in ("color", "instances"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for frame, image in enumerate(images):
        for name, pixels in (("color", image.color), ("instances", image.instances)):
            path = folder / name / f"{frame:04d}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path, compress_level=_PNG_LEVEL)
    (folder / FILE_NAME).write_text(clip.to_json() + "\n", encoding="utf-8")


def load_clip(folder: Path) -> Clip:
    """Read a clip's description.

    Raises:
        OSError: The file is missing.
        ValueError: It is not a clip.
    """
    return Clip.from_json((folder / FILE_NAME).read_text(encoding="utf-8"))


def load_frame(folder: Path, frame: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read one image of a clip.

    Returns:
        Color uint8 [H, W, 3] RGB, and instances uint8 [H, W] (0 = none, else the object's id).

    Raises:
        OSError: A file is missing or is no image.
    """
    color = np.array(Image.open(folder / "color" / f"{frame:04d}.png").convert("RGB"))
    return color, np.array(Image.open(folder / "instances" / f"{frame:04d}.png"))


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m worlds.tabletop.clips", description=__doc__)
    parser.add_argument("--seed", type=int, required=True, help="seed of the first clip (>= 0)")
    parser.add_argument("--count", type=int, required=True, help="number of clips (>= 1)")
    parser.add_argument("--frames", type=int, default=60, help="images in each (>= 2)")
    parser.add_argument("--rate", type=float, default=RATE_HZ, help="images a second")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_args(argv)
    if args.seed < 0 or args.count < 1 or args.frames < 2 or not args.rate > 0:
        parser.error("--seed must be >= 0, --count >= 1, --frames >= 2 and --rate > 0")
    try:
        with Camera() as camera:
            for index in ProgressBar(range(args.count), desc="filming", unit="clip"):
                folder = args.out / f"{index:06d}"
                if not _is_done(folder, args, args.seed + index):
                    save_clip(folder, *film(camera, args.seed + index, args.frames, args.rate))
    except (RuntimeError, OSError) as error:
        print(f"worlds.tabletop.clips: error: {error}", file=sys.stderr)
        return 2
    return 0


def _is_done(folder: Path, args: argparse.Namespace, seed: int) -> bool:
    try:
        clip = load_clip(folder)
    except (OSError, ValueError):
        return False
    return (clip.seed, clip.frames, clip.rate_hz) == (seed, args.frames, args.rate)


if __name__ == "__main__":
    sys.exit(main())
