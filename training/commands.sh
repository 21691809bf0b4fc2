#!/usr/bin/env bash
# The exact commands of the published agents. Run from the repository's root after `make setup`.
# Each goes on where it was when it is run again.
set -euo pipefail

nhzoo data pack autoascend-monk-v1

nhzoo train bc --params 1000000 --flops 2e13 --batch 4 --lr 3e-3 --temperature 0.8 \
    --description "LSTM of 1,000,000 parameters, cloned from AutoAscend's human monks" \
    --run build/runs/bc-lstm-1m --out agents/bc-lstm-1m --ledger training/runs.jsonl

nhzoo train bc --params 100000 --flops 1.6e12 --batch 4 --lr 8e-3 --temperature 0.8 \
    --description "LSTM of 100,000 parameters, cloned from AutoAscend's human monks" \
    --run build/runs/bc-lstm-100k --out agents/bc-lstm-100k --ledger training/runs.jsonl

for agent in bc-lstm-1m bc-lstm-100k random scripted autoascend; do
    nhzoo evaluate "$agent" --protocol monk-lite-v1 --out "leaderboard/results/$agent/monk-lite-v1"
done
