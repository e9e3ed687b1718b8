"""`segzero doctor`: checks the installation and the running ROS graph."""
