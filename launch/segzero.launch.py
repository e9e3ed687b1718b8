"""Start the segzero node, and RViz if asked.

    ros2 launch segzero_ros segzero.launch.py image_topic:=/camera/color/image_raw rviz:=true
    ros2 launch segzero_ros segzero.launch.py namespace:=left image_topic:=/left/image_raw

No default of a parameter is repeated here: what is not given is left to the parameter file or
the node.
"""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

SHARE = Path(get_package_share_directory("segzero_ros"))

# Launch argument -> the node's name of the topic, relative so that a namespace applies.
TOPICS = {
    "image_topic": "image",
    "depth_topic": "depth/image",
    "camera_info_topic": "camera_info",
}

RESPAWN_DELAY_S = 2.0
DDS_PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"

# Parameters that are also launch arguments, and whether they are switches.
PARAMETERS = {
    "model": False,
    "fallback_model": False,
    "backend": False,
    "grammar": True,
    "autostart": True,
}


def segzero_node(context: LaunchContext) -> list[Node]:
    """Describe the node with only those parameters that were given."""
    parameters = [LaunchConfiguration("params_file").perform(context)]
    for name, is_switch in PARAMETERS.items():
        if given := LaunchConfiguration(name).perform(context):
            value = given.lower() in ("true", "1") if is_switch else given
            parameters.append({name: value})
    respawn = LaunchConfiguration("respawn").perform(context).lower() in ("true", "1")
    if respawn:
        parameters.append({"exit_on_hang": True})
    return [
        Node(
            package="segzero_ros",
            executable="segzero_node",
            namespace=LaunchConfiguration("namespace"),
            name=LaunchConfiguration("name"),
            parameters=parameters,
            remappings=[(topic, LaunchConfiguration(name)) for name, topic in TOPICS.items()],
            respawn=respawn,
            respawn_delay=RESPAWN_DELAY_S,
            output="screen",
            emulate_tty=True,
        )
    ]


def dds_profile() -> list[SetEnvironmentVariable]:
    """Let images fit into Fast DDS' shared memory, unless a profile was chosen already.

    It counts for whatever is started after it, a camera in the same launch included.
    """
    if os.environ.get(DDS_PROFILE):
        return []
    return [SetEnvironmentVariable(DDS_PROFILE, str(SHARE / "config" / "fastdds.xml"))]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and what they start."""
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(SHARE / "rviz" / "segzero.rviz")],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    arguments = [
        ("model", "", "Named model, folder or Hub id; empty: as in the parameter file."),
        ("fallback_model", "", "Answers when the model is down; empty: as in the file."),
        ("backend", "", "What runs the image encoder; empty: as in the parameter file."),
        (
            "grammar",
            "",
            "true: the model generates well-formed answers only; empty: as in the file.",
        ),
        ("autostart", "", "false leaves it to a lifecycle manager; empty: as in the file."),
        (
            "respawn",
            "false",
            "Start the node again when it ends, also when its model hangs.",
        ),
        ("namespace", "", "Namespace of the node, before all its relative names."),
        ("name", "segzero", "Name of the node; another one for a second node."),
        ("image_topic", "image", "Topic of the camera's images."),
        ("depth_topic", "depth/image", "Topic of depth that is registered to the images."),
        ("camera_info_topic", "camera_info", "Topic of the images' calibration."),
        ("params_file", str(SHARE / "config" / "segzero.yaml"), "Parameter file."),
        ("rviz", "false", "Show camera, overlay, markers and reasoning in RViz."),
    ]
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in arguments
    ]
    return LaunchDescription(
        [*declared, *dds_profile(), OpaqueFunction(function=segzero_node), rviz]
    )
