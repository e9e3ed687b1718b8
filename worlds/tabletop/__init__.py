"""A synthetic table with everyday objects: images, depth, true masks, and questions about them.

Stands alone (MuJoCo, numpy, Pillow); training, tests and the demo use it. Importing it loads no
renderer.
"""

from worlds.common.scene import Query, Scene, SceneObject, load_scene

__all__ = ["Query", "Scene", "SceneObject", "load_scene"]
