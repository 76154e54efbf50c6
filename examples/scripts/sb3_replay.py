"""Trains stable-baselines3's DQN on CartPole, and tests it by the return of the greedy policy.

Its habit: what it learns from lies in a replay buffer of numpy arrays, which `model.save` leaves out;
the target network, the place in the buffer and the rate of exploration are attributes of one object,
and the environment carries a state and a generator of its own.
Needs stable-baselines3 and gymnasium.
"""

import argparse
import hashlib

from stable_baselines3 import DQN


def weights_digest(model):
    digest = hashlib.sha256()
    for tensor in model.policy.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def mean_return(model, episodes=5):
    env, total = model.get_env(), 0.0
    env.seed(1000)
    for _ in range(episodes):
        observation, done = env.reset(), False
        while not done:
            action, _ = model.predict(observation, deterministic=True)
            observation, reward, dones, _ = env.step(action)
            total, done = total + float(reward[0]), bool(dones[0])
    return total / episodes


def main():
    parser = argparse.ArgumentParser(description="DQN on CartPole.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3000)
    args = parser.parse_args()

    model = DQN(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=1e-3,
        buffer_size=1000,
        learning_starts=100,
        train_freq=1,
        target_update_interval=100,
        seed=args.seed,
        device="cpu",
    )
    model.learn(args.steps)
    print(f"return {mean_return(model):.1f}")
    print("weights", weights_digest(model))


if __name__ == "__main__":
    main()
