"""The ROS 2 node of segzero, and the interfaces `segzero_ros.msg`, `.srv` and `.action`.

The modules written by hand and those generated from `msg/`, `srv/` and `action/` have one package
name but may lie in two folders: a checkout holds the first, the prefix that the interfaces were
built into holds the second. Both are seen, whichever folder Python finds first. Nothing is
imported here, so that a message can be used without the node.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
