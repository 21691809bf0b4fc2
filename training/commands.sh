#!/usr/bin/env bash
# The exact commands of the published agents. Run from the repository's root after `make setup`.
# Each goes on where it was when it is run again.
set -euo pipefail

nhzoo data pack autoascend-monk-v1

train() { # parameters, FLOPs, name, parameters in words
    nhzoo train bc --params "$1" --flops "$2" --streams 512 \
        --temperature 0.8 --patience 64 \
        --description "A minimal LSTM of $4 parameters, cloned from AutoAscend's human monks" \
        --run "build/runs/$3" --out "agents/$3" --ledger training/runs.jsonl
}

# The agent that a frozen forecast names.
next() { # forecast, name, parameters in words
    nhzoo train next "leaderboard/forecasts/$1/forecast.json" --streams 512 \
        --temperature 0.8 --patience 64 \
        --description "A minimal LSTM of $3 parameters, as the forecast $1 had it" \
        --run "build/runs/$2" --out "agents/$2" --ledger training/runs.jsonl
}

play() { # name, description, options: learn by playing; two actors
    nhzoo train impala "${@:3}" --description "$2" --actors 2 --checkpoints 5 --patience 64 \
        --run "build/runs/$1" --out "agents/$1" --ledger training/runs.jsonl
}

scratch() { # parameters, steps, name, parameters and steps in words, seed
    play "$3" "A minimal LSTM of $4 steps from scratch" \
        --params "$1" --seed "$5" --entropy-cost 0.005 --steps "$2"
}

kickstart() { # size of the clone, steps
    play "ks-lstm-$1" "bc-lstm-$1 gone on with by playing, held to what it was" \
        --start "agents/bc-lstm-$1" --teacher "agents/bc-lstm-$1" \
        --entropy-cost 0 --value-warmup 200 --steps "$2" --temperature 0.65
}

train 30000 1e12 bc-lstm-30k 30,000
train 100000 1.6e12 bc-lstm-100k 100,000
train 300000 1e13 bc-lstm-300k 300,000
train 1000000 6e13 bc-lstm-1m 1,000,000
train 3000000 1e14 bc-lstm-3m 3,000,000
next four-times-6e13 bc-lstm-483k 483,000
next once-5e13 bc-lstm-1410k 1,410,000

scratch 30000 5e6 impala-lstm-30k "30,000 parameters that learnt by playing, 5 million" 0
scratch 60000 5e6 impala-lstm-60k "60,000 parameters that learnt by playing, 5 million" 0
scratch 100000 5e6 impala-lstm-100k-1 "100,000 parameters that learnt by playing, 5 million" 1
scratch 300000 5e6 impala-lstm-300k "300,000 parameters that learnt by playing, 5 million" 0
scratch 100000 2e7 impala-lstm-100k "100,000 parameters that learnt by playing, 20 million" 0
kickstart 30k 5e6
kickstart 100k 5e6
kickstart 300k 2e7

for agent in agents/*/ random frequency scripted autoascend; do
    agent=$(basename "$agent")
    nhzoo evaluate "$agent" --protocol monk-lite-v1 --out "leaderboard/results/$agent/monk-lite-v1"
done
nhzoo evaluate bc-lstm-483k --protocol monk-v1 --out leaderboard/results/bc-lstm-483k/monk-v1

nhzoo sweep measure training/runs.jsonl --only 'bc-lstm-*[0-9][km]' --entries agents --games 32 \
    --data leaderboard/results/autoascend/monk-lite-v1 --results leaderboard/results \
    -o training/sweeps/agents.jsonl
