"""Play the demo's recorded camera to the node, and show both in RViz.

    ros2 launch segzero_ros demo.launch.py clip:=/path/to/segzero/demo/clip.mcap
    ros2 run segzero_ros ask "the red mug"

Needs ros2bag with mcap. `make demo` does the same without RViz and without a distribution.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

SHARE = Path(get_package_share_directory("segzero_ros"))


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and what they start."""
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / "launch" / "segzero.launch.py")),
        launch_arguments={
            "image_topic": "/camera/color/image_raw",
            "depth_topic": "/camera/depth/image_raw",
            "camera_info_topic": "/camera/color/camera_info",
            "model": LaunchConfiguration("model"),
            "rviz": LaunchConfiguration("rviz"),
        }.items(),
    )
    camera = ExecuteProcess(
        cmd=["ros2", "bag", "play", "--loop", LaunchConfiguration("clip")],
        additional_env={"RMW_FASTRTPS_PUBLICATION_MODE": "SYNCHRONOUS"},
        output="screen",
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "clip",
                default_value=str(SHARE / "demo" / "clip.mcap"),
                description="Recording with the topics /camera/color/image_raw, "
                "/camera/depth/image_raw and /camera/color/camera_info.",
            ),
            DeclareLaunchArgument("model", default_value="", description="As in segzero.launch."),
            DeclareLaunchArgument("rviz", default_value="true", description="Show RViz."),
            node,
            camera,
        ]
    )
