#!/usr/bin/env bash
# The exact commands of the published agents. Run from the repository's root after `make setup`.
# Each goes on where it was when it is run again.
set -euo pipefail

nhzoo data pack autoascend-monk-v1

train() { # parameters, FLOPs, name, parameters in words
    nhzoo train bc --params "$1" --flops "$2" --temperature 0.8 --patience 64 \
        --description "A minimal LSTM of $4 parameters, cloned from AutoAscend's human monks" \
        --run "build/runs/$3" --out "agents/$3" --ledger training/runs.jsonl
}

train 100000 1.6e12 bc-lstm-100k 100,000
train 300000 1e13 bc-lstm-300k 300,000
train 1000000 6e13 bc-lstm-1m 1,000,000

for agent in bc-lstm-1m bc-lstm-300k bc-lstm-100k random scripted autoascend; do
    nhzoo evaluate "$agent" --protocol monk-lite-v1 --out "leaderboard/results/$agent/monk-lite-v1"
done
