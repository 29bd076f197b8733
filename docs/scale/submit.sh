#!/usr/bin/env bash
# Runs a study that lies on the head node. Not run on a real cluster.
# No --working-dir: Ray would copy the study, and the results would be lost with the copy.
set -euo pipefail
study=${1:?the folder of the study on the head node}
ray job submit --address "${RAY_DASHBOARD:-http://head.example.org:8265}" --entrypoint-num-cpus 0 -- bash -c "
  cd '$study' &&
  python cli.py run-cells --model llama2-7b-chat --model qwen25-7b-instruct --ray auto --json"
