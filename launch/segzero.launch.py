"""Start the segzero node, and RViz if asked.

    ros2 launch segzero_ros segzero.launch.py image_topic:=/camera/color/image_raw rviz:=true

No default of a parameter is repeated here: what is not given is left to the parameter file or
the node.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

SHARE = Path(get_package_share_directory("segzero_ros"))


def segzero_node(context: LaunchContext) -> list[Node]:
    """Describe the node with only those parameters that were given."""
    model = LaunchConfiguration("model").perform(context)
    parameters = [LaunchConfiguration("params_file").perform(context)]
    parameters += [{"model": model}] if model else []
    return [
        Node(
            package="segzero_ros",
            executable="segzero_node",
            name="segzero",
            parameters=parameters,
            remappings=[("image", LaunchConfiguration("image_topic"))],
            output="screen",
            emulate_tty=True,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and what they start."""
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(SHARE / "rviz" / "segzero.rviz")],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "model",
                default_value="",
                description="Named model, folder or Hub id; empty: as in the parameter file.",
            ),
            DeclareLaunchArgument(
                "image_topic", default_value="image", description="Topic of the camera's pictures."
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value=str(SHARE / "config" / "segzero.yaml"),
                description="Parameter file; `ros2 param describe /segzero NAME` explains each.",
            ),
            DeclareLaunchArgument(
                "rviz", default_value="false", description="Show overlay and mask in RViz."
            ),
            OpaqueFunction(function=segzero_node),
            rviz,
        ]
    )
