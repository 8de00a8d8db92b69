"""REINFORCE learns where to zoom in and to read what it sees, from pixels and rewards alone, in seconds on one core.

Simplified: the first turn is always a look and the second an answer, so whether to look is not learned.
"""

import gymnasium as gym
import numpy as np
import torch
from custom_tasks import SETTINGS, Signs
from torch import nn

PLACES = ((0.0, 0.6), (0.4, 1.0))
LOOKS = [f"crop_image([{x1}, {y1}, {x2}, {y2}])" for y1, y2 in PLACES for x1, x2 in PLACES]
TURNS = (LOOKS, [r"\boxed{A}", r"\boxed{B}"])
"""What can be said in the first turn, and in the second."""


def network(outputs: int) -> nn.Module:
    """Make a policy of one turn: pictures (B, 3, H, W) to logits (B, outputs)."""
    convolutions = (nn.Conv2d(3, 16, 5, 2), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(4 * 4 * 16, outputs))


def learn(seed: int, updates: int = 200, batch: int = 64) -> list[float]:
    """Play and learn; returns the share of right answers of every batch."""
    torch.manual_seed(seed)
    envs = [gym.make("PixelReason-Zoom-v0", tasks=Signs(), coordinates="fraction", **SETTINGS) for _ in range(batch)]
    for number, env in enumerate(envs):
        env.reset(seed=batch * seed + number)
    policies = nn.ModuleList(network(len(texts)) for texts in TURNS)
    optimizer = torch.optim.Adam(policies.parameters(), lr=0.003)
    scores = []
    for _ in range(updates):
        observations = [env.reset()[0] for env in envs]
        log_probs, entropy = torch.zeros(batch), torch.zeros(batch)
        for policy, texts in zip(policies, TURNS, strict=True):
            images = torch.tensor(np.stack([observation["images"][0] for observation in observations]))
            choice = torch.distributions.Categorical(logits=policy(images.permute(0, 3, 1, 2) / 127.5 - 0.5))
            actions = choice.sample()
            log_probs, entropy = log_probs + choice.log_prob(actions), entropy + choice.entropy()
            steps = [env.step(texts[action]) for env, action in zip(envs, actions.tolist(), strict=True)]
            observations = [step[0] for step in steps]
        rewards = torch.tensor([float(step[1]) for step in steps])
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        loss = -(advantages * log_probs + 0.1 * entropy).mean()  # with less entropy it settles for one place to look at
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scores.append(float(np.mean([step[4]["correct"] for step in steps])))
    return scores


if __name__ == "__main__":
    shares = np.reshape(learn(seed=0), (10, -1)).mean(axis=1)
    print("right answers, a tenth of the training each:", *(f"{share:.0%}" for share in shares))
