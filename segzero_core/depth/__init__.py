"""From a mask and depth to a point cloud, an oriented box and grasps."""
