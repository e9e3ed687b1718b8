"""A parallel-jaw gripper for the table: two long fingers on a rail, hung from a gantry.

The gantry moves along x, y and z and turns about the vertical; each of these axes and the jaw is a
position servo with a limit of force. The hand's own frame has its origin in the middle between the
finger tips, x along the closing axis and z up, against the approach.

Nothing but contact joins the hand to what it holds: there is no weld, no adhesion and no body that
is attached to another. One mechanical coupling makes both fingers move by the same amount.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from worlds.common.simulator import mujoco

OPENING_M: Final = 0.20
"""Between the pads at most; wide-stroke grippers of this size are sold."""
FINGER_WIDTH_M: Final = 0.02
FINGER_THICKNESS_M: Final = 0.01
PAD_LENGTH_M: Final = 0.05
FINGER_LENGTH_M: Final = 0.30
"""From the tip to the rail: what stands beside the object is not met by the rail."""
GRIP_N: Final = 40.0
"""Each finger presses with at most so much."""
FRICTION: Final = (1.0, 0.008, 0.0001)
"""Sliding, torsional [m] and rolling [m] coefficient of the rubber pads."""

GRASP_SETTINGS: Final = {
    "gripper_opening_m": OPENING_M,
    "finger_width_m": FINGER_WIDTH_M,
    "finger_thickness_m": FINGER_THICKNESS_M,
    "finger_length_m": 0.08,
    "grasp_clearance_m": 0.004,
}
"""What the node must know of this gripper, by the names of its parameters. The fingers are longer
than told: so a tall object is taken near its top, above what stands around it."""

AXES: Final = ("x", "y", "z", "yaw")
_CARRIAGE_KG, _FINGER_KG = 1.2, 0.12
_STIFFNESS: Final = {"x": 9000.0, "y": 9000.0, "z": 9000.0, "yaw": 90.0}
_LIMIT: Final = {"x": 150.0, "y": 150.0, "z": 120.0, "yaw": 12.0}
"""Forces of the gantry [N], torque of its turn [Nm]."""
_JAW_STIFFNESS: Final = 4000.0
_METAL, _RUBBER = (0.72, 0.73, 0.75, 1.0), (0.13, 0.14, 0.16, 1.0)
_BODY: Final = (0.93, 0.48, 0.12, 1.0)
_CONTACT: Final[dict[str, Any]] = {
    "condim": 4,
    "friction": FRICTION,
    "priority": 1,  # the pads' friction counts, whatever they touch
    "solref": [0.006, 1.0],
    "solimp": [0.95, 0.99, 0.001, 0.5, 2.0],
}


def add_hand(spec: mujoco.MjSpec, home_m: tuple[float, float, float]) -> None:
    """Hang the hand into a world, with its tips at `home_m` [m]."""
    hand = spec.worldbody.add_body(name="hand", pos=home_m, gravcomp=1.0)
    slide, hinge = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
    for name, kind, axis in (
        ("x", slide, (1, 0, 0)),
        ("y", slide, (0, 1, 0)),
        ("z", slide, (0, 0, 1)),
        ("yaw", hinge, (0, 0, 1)),
    ):
        hand.add_joint(name=f"hand_{name}", type=kind, axis=axis)
        inertia = 0.02 if name == "yaw" else _CARRIAGE_KG + 2 * _FINGER_KG
        damping = 2 * math.sqrt(_STIFFNESS[name] * inertia)
        _add_servo(spec, f"hand_{name}", _STIFFNESS[name], damping, _LIMIT[name])
    rail = FINGER_LENGTH_M + 0.015
    box = mujoco.mjtGeom.mjGEOM_BOX
    half = OPENING_M / 2 + FINGER_THICKNESS_M
    hand.add_geom(type=box, size=(half, 0.02, 0.015), pos=(0, 0, rail), rgba=_BODY, mass=0.7)
    hand.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=(0.022, 0.09, 0),
        pos=(0, 0, rail + 0.1),
        rgba=_METAL,
        mass=_CARRIAGE_KG - 0.7,
    )
    for name, side in (("right", 1.0), ("left", -1.0)):
        _add_finger(spec, hand, name, side)
    # Joint equality: one mechanism drives both fingers, as in real grippers.
    spec.add_equality(
        name="jaw",
        type=mujoco.mjtEq.mjEQ_JOINT,
        objtype=mujoco.mjtObj.mjOBJ_JOINT,
        name1="finger_right",
        name2="finger_left",
        data=[0.0, 1.0, *[0.0] * 10],
        solref=[0.004, 1.0],
    )


def _add_finger(spec: mujoco.MjSpec, hand: mujoco.MjsBody, name: str, side: float) -> None:
    finger = hand.add_body(
        name=f"finger_{name}", pos=(side * FINGER_THICKNESS_M / 2, 0, 0), gravcomp=1.0
    )
    finger.add_joint(
        name=f"finger_{name}",
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=(side, 0, 0),
        range=(0, OPENING_M / 2),
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
    )
    box = mujoco.mjtGeom.mjGEOM_BOX
    pad = (FINGER_THICKNESS_M / 2, FINGER_WIDTH_M / 2, PAD_LENGTH_M / 2)
    stem = (FINGER_THICKNESS_M / 2, FINGER_WIDTH_M / 2, (FINGER_LENGTH_M - PAD_LENGTH_M) / 2)
    for size, low, rgba in ((pad, 0.0, _RUBBER), (stem, PAD_LENGTH_M, _METAL)):
        finger.add_geom(
            type=box,
            size=size,
            pos=(0, 0, low + size[2]),
            rgba=rgba,
            mass=_FINGER_KG / 2,
            **_CONTACT,
        )
    damping = 2 * math.sqrt(_JAW_STIFFNESS * _FINGER_KG)
    _add_servo(spec, f"finger_{name}", _JAW_STIFFNESS, damping, GRIP_N)


def _add_servo(
    spec: mujoco.MjSpec, joint: str, stiffness: float, damping: float, limit: float
) -> None:
    """Add a position servo whose force has a limit."""
    servo = spec.add_actuator(
        name=joint,
        target=joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        forcelimited=mujoco.mjtLimited.mjLIMITED_TRUE,
        forcerange=(-limit, limit),
    )
    gain, bias = np.zeros(len(servo.gainprm)), np.zeros(len(servo.biasprm))
    gain[0], bias[1], bias[2] = stiffness, -stiffness, -damping
    servo.gainprm, servo.biasprm = gain, bias
