"""Fine-tune an agent of the zoo by PPO (Schulman et al., arXiv 1707.06347), in one file.

The agent's network is an ordinary torch module with a recurrent state; the games are one vector
environment. Rewards are the score's increases, on a logarithmic scale.

    python ppo_finetune.py --agent bc-lstm-100k --updates 50 --num-envs 16
"""

import argparse

import gymnasium
import numpy as np
import torch
from torch import nn
from torch.nn.functional import log_softmax, smooth_l1_loss

import nhzoo
from nhzoo.policy import ScreenReader

DISCOUNT, LAMBDA, CLIP, ENTROPY = 0.999, 0.95, 0.1, 1e-3


def advantages(rewards, values, after, ended):
    """Generalized advantage estimates [T, B]; `after` [B] is the value after the last step."""
    found, gain = torch.zeros_like(rewards), torch.zeros_like(after)
    for t in reversed(range(len(rewards))):
        goes_on = 1.0 - ended[t]
        error = rewards[t] + DISCOUNT * after * goes_on - values[t]
        gain = error + DISCOUNT * LAMBDA * goes_on * gain
        found[t], after = gain, values[t]
    return found


def main(options):
    """Play `time` steps in each game, learn from them for some epochs, and so on."""
    torch.manual_seed(options.seed)
    policy = nhzoo.load(options.agent).module.train()
    value = nn.Linear(policy.config.hidden, 1)
    nn.init.zeros_(value.weight)
    parameters = [*policy.parameters(), *value.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=options.lr)
    envs = gymnasium.make_vec("nhzoo/Monk-v1", num_envs=options.num_envs, autoreset_mode="SameStep")
    observation, _ = envs.reset(seed=options.seed)
    reader, state = ScreenReader(options.num_envs), policy.initial_state(options.num_envs)
    inputs = reader.read(observation)  # every screen once
    first = torch.ones(options.num_envs)  # 1 where the screen read next begins a game
    scores: list[float] = []

    def evaluate(inputs, state, not_first):
        x, directions, state = policy.encode_sequence(inputs, state, not_first)
        return log_softmax(policy.logits(inputs, x, directions), -1), value(x)[..., 0], state

    for update in range(options.updates):
        begin, steps = state, []
        for _ in range(options.time):
            with torch.no_grad():
                chances, worth, state = evaluate(inputs, state, 1 - first[None])
            action = torch.distributions.Categorical(logits=chances[0]).sample()
            reader.press(action.numpy())
            observation, reward, died, cut, info = envs.step(action.numpy())
            over = died | cut
            scores += info["final_info"]["score"][over].tolist() if over.any() else []
            reader.restart(over)
            reward = torch.from_numpy(np.sign(reward) * np.log1p(np.abs(reward))).float()
            ended = torch.from_numpy(over).float()
            log_prob = chances[0].gather(-1, action[:, None])[:, 0]
            steps.append((inputs, 1 - first, action, log_prob, reward, worth[0], ended))
            first = ended
            inputs = reader.read(observation)
        read = {name: torch.cat([step[0][name] for step in steps]) for name in steps[0][0]}
        not_first, action, before, reward, worth, ended = (
            torch.stack([step[part] for step in steps]) for part in range(1, 7)
        )
        with torch.no_grad():
            after = evaluate(inputs, state, 1 - first[None])[1][0]
        gain = advantages(reward, worth, after, ended)
        scaled = (gain - gain.mean()) / (gain.std() + 1e-6)
        for _ in range(options.epochs):  # of whole sequences, as the network is recurrent
            chances, now, _ = evaluate(read, begin, not_first)
            ratio = (chances.gather(-1, action[..., None])[..., 0] - before).exp()
            gained = torch.min(ratio * scaled, ratio.clamp(1 - CLIP, 1 + CLIP) * scaled).mean()
            entropy = -(chances.exp() * chances).sum(-1).mean()
            loss = smooth_l1_loss(now, worth + gain) - gained - ENTROPY * entropy
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 0.5)
            optimizer.step()
        shown = f"{np.mean(scores[-100:]):.1f}" if scores else "-"
        print(f"update {update + 1}: loss {loss:.4f}, entropy {entropy:.3f}, score {shown}")
    envs.close()
    return policy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", default="bc-lstm-100k")
    parser.add_argument("--updates", type=int, default=50)
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--time", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
