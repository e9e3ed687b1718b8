"""The example for MoveIt: importable without it, and what its messages would say."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from examples import moveit_planning_scene as example


class Message(SimpleNamespace):
    """Stands for a generated message: any field may be set, nested ones exist."""

    ADD, REMOVE, BOX = 0, 1, 1

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.__dict__[name] = Message()
        return self.__dict__[name]


@pytest.fixture
def moveit(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "moveit_msgs": ("CollisionObject", "Grasp", "GripperTranslation", "PlanningScene"),
        "shape_msgs": ("SolidPrimitive",),
        "trajectory_msgs": ("JointTrajectory", "JointTrajectoryPoint"),
    }
    for package, classes in names.items():
        module = ModuleType(f"{package}.msg")
        for name in classes:
            setattr(module, name, Message)
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
        monkeypatch.setitem(sys.modules, f"{package}.msg", module)


def mug(number: int = 1, *, has_pose: bool = True) -> Any:
    down = SimpleNamespace(x=1.0, y=0.0, z=0.0, w=0.0)
    pose = SimpleNamespace(position=SimpleNamespace(x=0.5, y=0.0, z=0.05), orientation=down)
    grasp = SimpleNamespace(pose=pose, width_m=0.06, score=0.8)
    size = SimpleNamespace(x=0.11, y=0.08, z=0.09)
    return SimpleNamespace(
        id=number, has_pose=has_pose, pose=pose, size_m=size, grasps=[grasp] if has_pose else []
    )


def result_with(*instances: Any) -> Any:
    header = SimpleNamespace(frame_id="camera", stamp="the image's")
    pose_header = SimpleNamespace(frame_id="base", stamp="the image's")
    return SimpleNamespace(
        instances=list(instances), header=header, pose_header=pose_header, error_code=0
    )


def test_without_moveit_the_import_works_and_making_a_message_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "moveit_msgs", None)
    with pytest.raises(ImportError, match="moveit_msgs"):
        example.collision_object(mug(), "base", "now")


@pytest.mark.usefixtures("moveit")
def test_an_object_is_a_box_with_padding_at_its_pose_and_stamp() -> None:
    made = example.collision_object(mug(), "base", "the image's")
    assert (made.id, made.header.frame_id, made.header.stamp) == (
        "segzero_1",
        "base",
        "the image's",
    )
    assert made.primitives[0].dimensions == pytest.approx([0.12, 0.09, 0.10])
    assert made.primitive_poses == [mug().pose]
    with pytest.raises(ValueError, match="no pose"):
        example.collision_object(mug(has_pose=False), "base", "now")


@pytest.mark.usefixtures("moveit")
def test_objects_of_the_answer_before_are_taken_away() -> None:
    result = result_with(mug(1), mug(2, has_pose=False))
    objects = example.planning_scene(result, known=3).world.collision_objects
    assert {each.header.frame_id for each in objects} == {"base"}
    assert [(each.id, each.operation) for each in objects] == [
        ("segzero_1", Message.ADD),
        ("segzero_2", Message.REMOVE),
        ("segzero_3", Message.REMOVE),
    ]


@pytest.mark.usefixtures("moveit")
def test_a_grasp_comes_along_its_approach_and_goes_up() -> None:
    (grasp,) = example.moveit_grasps(mug(), "base", "now")
    approach = grasp.pre_grasp_approach.direction.vector
    assert (approach.x, approach.y, approach.z) == (0.0, 0.0, -1.0)
    assert grasp.post_grasp_retreat.direction.vector.z == 1.0
    assert grasp.pre_grasp_posture.points[0].positions == [0.03, 0.03]
    assert grasp.allowed_touch_objects == ["segzero_1"]
