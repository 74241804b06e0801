# What CUPTI costs in each state, and what one training pays for it: about 40 s on one GPU.
set -eu
timeout "${LIMIT:-80}" ${PYTHON:-python3} "$(dirname "$0")/launch_cost.py" "$@"
