"""Steps an environment with plain Gymnasium and prints what it gives, a JSON line an observation; floats as they are.

    trajectory.py ID SEED ACTION...
"""

import json
import sys

import gymnasium

env = gymnasium.make(sys.argv[1])
obs, _ = env.reset(seed=int(sys.argv[2]))
print(json.dumps([obs.ravel().tolist(), 0.0, False, False]))
for action in sys.argv[3:]:
    if env.action_space.shape:
        import numpy as np

        action = np.full(env.action_space.shape, float(action), env.action_space.dtype)
    else:
        action = int(action)
    obs, reward, terminated, truncated, _ = env.step(action)
    print(json.dumps([obs.ravel().tolist(), float(reward), bool(terminated), bool(truncated)]))
    if terminated or truncated:
        break
