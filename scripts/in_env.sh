#!/usr/bin/env bash
# Run a command in the environment that setup.sh made: scripts/in_env.sh COMMAND [ARGUMENT ...]
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export VIRTUAL_ENV="$root/.venv"
if [ ! -x "$VIRTUAL_ENV/bin/python" ]; then
  echo "there is no $VIRTUAL_ENV yet: run make setup" >&2
  exit 1
fi
if [ -f "$VIRTUAL_ENV/ros_setup" ]; then
  set +u
  # shellcheck disable=SC1090
  source "$(cat "$VIRTUAL_ENV/ros_setup")"
  set -u
fi
export PATH="$VIRTUAL_ENV/bin:$PATH"
# The environment is a ROS prefix: it holds the compiled interfaces.
export AMENT_PREFIX_PATH="$VIRTUAL_ENV${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}"
export LD_LIBRARY_PATH="$VIRTUAL_ENV/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
# Set by the ROS wheels in the environment of their children; another environment's would stop ours from starting up.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE
exec "$@"
