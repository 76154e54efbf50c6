"""Deep Q-learning (DQN) on CartPole: a replay memory with priorities, a target network, and the environment.

    a      = random with probability epsilon, else argmax of Q(s)
    target = r + gamma·Q'(s', argmax of Q(s'))·[s' is no end]           Q': the target network
    delta  = Q(s, a) - target;   loss = mean of w_i·delta²              w_i: importance weights
    priorities <- (|delta| + 0.01)^alpha;   a new transition has the largest priority so far
    every `period` steps:  Q' <- Q

One environment step and one update a step. alpha = 0 is uniform replay. epsilon falls and beta rises in a
straight line over `ramp` steps. Nothing of this is an optimizer's state, and all of it is memory: what the
agent saw, which of it counts, where it writes next, and where the pole is now. What is observed is the
function state -> action values, on states where a known controller says what is right.
Mnih et al. 2015 (doi:10.1038/nature14236); van Hasselt, Guez & Silver 2016 (arXiv:1509.06461); Schaul et
al. 2016 (arXiv:1511.05952), algorithm 1.
Needs gymnasium (the extra `reinforcement`).
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from bygones.analysis.signature import Signature, all_of, effect_at, is_above, is_below
from bygones.core.values import Lifetime, Window
from bygones.study.design import Arm, Study
from bygones.training.interventions import Hold, Permute, Replace, Reset, Roll, Transplant
from bygones.training.orders import Sequential
from bygones.training.recipe import Batch, Memory, Parts
from bygones.training.treatment import Treatment
from bygones.zoo.environment import Environment
from bygones.zoo.prioritized_replay import SumTree, importance_weights, sample

BATCH_SIZE = 32
GAMMA = 0.99
NUM_PROBES = 256
# Typical size of each observation: m, m/s, rad, rad/s. The network sees observations in these units.
SCALE = np.array([0.5, 0.5, 0.1, 0.5], dtype=np.float32)


def recipe(
    seed: int,
    lr: float = 1e-3,
    capacity: int = 1000,
    alpha: float = 0.6,
    period: int = 50,
    ramp: int = 1000,
) -> Parts:
    """Build Q and Q' 4-64-2; Adam, batches of 32 from a replay memory of `capacity` transitions.

    `lr`: learning rate. `alpha`: exponent of the priorities, 0 for uniform replay. `period`: steps between
    copies to the target network. `ramp`: steps in which epsilon falls from 1 to 0.05 and beta rises from
    0.4 to 1. Needs gymnasium.
    """
    model = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))
    drawn = [int(one) for one in torch.randint(2**31, (3,))]
    environment = Environment("CartPole-v1", seed=drawn[0])
    states = probe_states()
    return Parts(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=lr),
        data=(torch.zeros(1),),  # the data are what the agent sees
        order=Sequential(num_examples=1, batch_size=1),
        train_step=_act_and_learn,
        others={
            "replay": Memory(_empty_replay(capacity), lifetime=Lifetime("exact", capacity)),
            "priorities": Memory(
                SumTree(capacity), lifetime=Lifetime("exact", capacity), fresh=_refreshed
            ),
            "max priority": {"value": 1.0},
            "cursor": {"at": 0, "count": 0},
            "exploration": {"step": 0, "epsilon": 1.0, "beta": 0.4},
            "target": Memory(
                copy.deepcopy(model).requires_grad_(False),
                origin="averaging",
                visibility="state_dict",
                lifetime=Lifetime("exact", period),
                fresh=lambda parts: parts.model,  # a new one is a copy of the network
            ),
            "environment": environment,
            "environment draws": environment.generator,
            "action draws": np.random.default_rng(drawn[1]),
            "replay draws": np.random.default_rng(drawn[2]),
            "settings": {"alpha": alpha, "period": period, "ramp": ramp},
        },
        probe_set=(torch.from_numpy(states), torch.from_numpy(controller(states))),
    )


def _empty_replay(capacity: int) -> dict[str, np.ndarray]:
    return {
        "states": np.zeros((capacity, 4), dtype=np.float32),
        "actions": np.zeros(capacity, dtype=np.int64),
        "rewards": np.zeros(capacity, dtype=np.float32),
        "next states": np.zeros((capacity, 4), dtype=np.float32),
        "ends": np.zeros(capacity, dtype=np.float32),
    }


def probe_states() -> np.ndarray:
    """Draw the states on which the function is observed: float32 [256, 4], the same for all seeds.

    Normal, in units of SCALE.
    """
    drawn = np.random.default_rng(17).standard_normal((NUM_PROBES, 4))
    return drawn.astype(np.float32)


def controller(states: np.ndarray) -> np.ndarray:
    """Return a linear controller's actions, which balance the pole, from states in units of SCALE: int64 [N].

    push right where 3·angle + angular velocity + 0.1·position + 0.3·velocity > 0
    """
    return (states * SCALE @ np.array([0.1, 0.3, 3.0, 1.0], dtype=np.float32) > 0).astype(np.int64)


def temporal_differences(parts: Parts, replay: Any, places: np.ndarray) -> Tensor:
    """Compute delta of the transitions at these places, float32 [B], with its gradient."""
    states, actions, rewards, following, ends = (
        torch.from_numpy(replay[name][places])
        for name in ("states", "actions", "rewards", "next states", "ends")
    )
    values = parts.model(states).gather(1, actions[:, None])[:, 0]
    with torch.no_grad():
        chosen = parts.model(following).argmax(dim=1, keepdim=True)
        best = parts.others["target"].value(following).gather(1, chosen)[:, 0]
        target = rewards + GAMMA * best * (1 - ends)
    return values - target


def _leaf(deltas: np.ndarray, alpha: float) -> np.ndarray:
    """Return p^alpha with p = |delta| + 0.01."""
    return (np.abs(deltas).astype(np.float64) + 0.01) ** alpha


def _refreshed(parts: Parts) -> SumTree:
    """Return the priorities that today's networks give to every transition."""
    replay, size = parts.others["replay"].value, len(parts.others["replay"].value["actions"])
    filled, tree = np.arange(min(parts.others["cursor"]["count"], size)), SumTree(size)
    if len(filled):
        with torch.no_grad():
            deltas = temporal_differences(parts, replay, filled).numpy()
        tree.update(filled, _leaf(deltas, parts.others["settings"]["alpha"]))
    return tree


def _act_and_learn(parts: Parts, batch: Batch) -> Tensor:
    """Act once, keep the transition, and learn from a batch of the replay memory; returns the loss."""
    _act(parts)
    others, settings = parts.others, parts.others["settings"]
    replay, tree, largest = (
        others["replay"].value,
        others["priorities"].value,
        others["max priority"],
    )
    places = sample(tree, BATCH_SIZE, others["replay draws"])
    weights = importance_weights(tree, places, others["exploration"]["beta"])
    deltas = temporal_differences(parts, replay, places)
    loss = (torch.from_numpy(weights.astype(np.float32)) * deltas.square()).mean()
    loss.backward()
    for optimizer in parts.optimizers.values():
        optimizer.step()
        optimizer.zero_grad()
    seen = deltas.detach().numpy()
    tree.update(places, _leaf(seen, settings["alpha"]))
    largest["value"] = max(largest["value"], float(np.abs(seen).max()) + 0.01)
    if others["exploration"]["step"] % settings["period"] == 0:
        others["target"].value.load_state_dict(parts.model.state_dict())
    return loss


def _act(parts: Parts) -> None:
    """Take one step of the environment, and write the transition over the oldest."""
    others, settings, pointer = parts.others, parts.others["settings"], parts.others["cursor"]
    environment, draws, explore = (
        others["environment"],
        others["action draws"],
        others["exploration"],
    )
    state = environment.observation / SCALE
    chance, random_action = draws.random(), int(draws.integers(2))
    if chance < explore["epsilon"]:
        action = random_action
    else:
        with torch.no_grad():
            action = int(parts.model(torch.from_numpy(state)).argmax())
    following, reward, ended, _ = environment.step(action)
    replay, at = others["replay"].value, pointer["at"]
    row = (state, action, reward, following / SCALE, float(ended))
    for name, value in zip(replay, row, strict=True):
        replay[name][at] = value
    newest = np.array([others["max priority"]["value"] ** settings["alpha"]])
    others["priorities"].value.update(np.array([at]), newest)
    pointer["at"] = (at + 1) % len(replay["actions"])
    pointer["count"] += 1
    explore["step"] += 1
    done = min(1.0, explore["step"] / settings["ramp"])
    explore["epsilon"], explore["beta"] = 1 - 0.95 * done, 0.4 + 0.6 * done


def study() -> Study:
    """Design a study of replay memory, priorities, target and environment: eleven arms, 16 seeds.

    Forked at step 1,225, when exploration has come to its end and the target network is halfway between two
    copies (at 1,200 and 1,250): at a copy, nothing would be left to reset. All arms act there once, but for
    frozen priorities (100 steps), a held target (to the copy after next, 75 steps) and uniform replay (to
    the end).
    """
    fork, at = 1225, Window(1225, 1226)
    return Study(
        name="replay",
        recipe=recipe,
        fork_at=fork,
        horizons=(0, 1, 10, 50, 100, 200, 500),
        seeds=range(16),
        margins={"accuracy": 0.05},
        arms=(
            Arm(
                "empty the replay",
                [Treatment(name, Reset(), at) for name in ("replay", "cursor")]
                + [Treatment("priorities", Reset(), at)],
            ),
            Arm("another seed's replay", Treatment("replay", Transplant(), at)),
            Arm("shift the replay by 100", Treatment("replay", Roll(100), at)),
            Arm("scramble priorities", Treatment("priorities", Permute(), at)),
            Arm("refresh priorities", Treatment("priorities", Reset(), at)),
            Arm("freeze priorities", Treatment("priorities", Hold(), Window(fork, fork + 100))),
            Arm(
                "uniform replay",
                Treatment("settings", Replace({"alpha": 0.0}), Window(fork, fork + 500)),
            ),
            Arm("reset target", Treatment("target", Reset(), at)),
            Arm("hold target", Treatment("target", Hold(), Window(fork, fork + 75))),
            Arm("another seed's environment", Treatment("environment", Transplant(), at)),
            Arm("reset moments", Treatment("moments", Reset(), at)),
        ),
    )


def signatures(outcomes: xr.Dataset) -> tuple[Signature, ...]:
    """Judge whether prioritized and uniform replay come to one agent on CartPole."""
    alike = Signature(
        "priorities bring nothing on CartPole",
        "uniform replay from the fork on changes the share of states in which the agent acts as the "
        "controller that balances the pole by less than 0.05 (returns are not observed)",
        "",
    )
    cliff = Signature(
        "prioritized replay needs fewer updates, the more so the rarer the reward",
        "on the Blind Cliffwalk, by a factor that grows with its length",
        "Schaul et al. 2016 (arXiv:1511.05952)",
    )
    return (
        alike.unless_followed(outcomes, 500) or _judge_uniform(outcomes, alike),
        cliff.seen("not in this study; trained by tests/zoo/test_cliffwalk.py", None),
    )


def _judge_uniform(outcomes: xr.Dataset, alike: Signature) -> Signature:
    change = effect_at(outcomes, "uniform replay", 500, "accuracy").estimate
    within = all_of(is_above(change, -0.05), is_below(change, 0.05))
    return alike.seen(f"a change of that share by {change}", within)
