"""The Python half of the bridge: makes environments, says what their spaces are, and words what goes wrong.

What happens at every step is done in Rust, by env.rs and vector.rs beside this file.
"""

import importlib
import json
import signal
import sys
import traceback

# Python takes Ctrl-C for itself when `signal` is first imported. Here it belongs to the program around it.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode


class Refused(Exception):
    """Something the user can put right; the message is the whole of what is said."""


# ---- ids ------------------------------------------------------------------------------------------------------------


def split(name):
    """`ID?key=value&key=value` or `ID?{"key": value}` as the id and the keyword arguments. The module of `module:ID` is imported."""
    name, _, query = name.partition("?")
    module, _, name = name.rpartition(":")
    if module:
        importlib.import_module(module)
    if not name:
        raise Refused("which environment? Write it as in gym:CartPole-v1")
    if query.startswith("{"):
        try:
            return name, json.loads(query)
        except ValueError as e:
            raise Refused(f"what follows the question mark is no JSON object: {e}") from None
    kwargs = {}
    for pair in filter(None, query.split("&")):
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise Refused(f"'{pair}' is not KEY=VALUE; write it as in gym:CartPole-v1?sutton_barto_reward=true")
        try:
            kwargs[key] = json.loads(value)
        except ValueError:
            kwargs[key] = value  # A string needs no quotes.
    return name, kwargs


def need(module, package):
    """Imports `module`, which the pip package `package` brings."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name != module:
            raise
        raise Refused(f"{module} is not installed; {sys.executable} -m pip install '{package}'") from None


def is_atari(name):
    return name.startswith("ALE/")


def wrapper(entry):
    """A function that wraps an environment, from `Name`, `module:Name` or `[name, {keyword arguments}]`."""
    name, kwargs = entry if isinstance(entry, list) and len(entry) == 2 else (entry, {})
    if not isinstance(name, str) or not isinstance(kwargs, dict):
        raise Refused(f'{entry!r} is no wrapper; write wrappers=["Name",["module:Name",{{"key":value}}]]')
    module, _, name = name.rpartition(":")
    module = importlib.import_module(module or "gymnasium.wrappers")
    if not hasattr(module, name):
        raise Refused(f"there is no wrapper {name} in {module.__name__}")
    return lambda env: getattr(module, name)(env, **kwargs)


def wrappers_of(kwargs):
    entries = kwargs.pop("wrappers", [])
    return [wrapper(entry) for entry in (entries if isinstance(entries, list) else [entries])]


def make(name, draw):
    """One environment; able to draw itself if `draw` says so."""
    name, kwargs = split(name)
    wrap = wrappers_of(kwargs)
    if draw and "render_mode" not in kwargs:
        try:
            return make_one(name, {**kwargs, "render_mode": "rgb_array"}, wrap)
        except TypeError:
            pass  # It knows no render modes, or something else is wrong and comes again.
    return make_one(name, kwargs, wrap)


def make_one(name, kwargs, wrap):
    preprocessing = False
    if is_atari(name):
        need("ale_py", "gymnasium[atari]")
        preprocessing = kwargs.pop("preprocessing", True)
        if preprocessing is not False:
            kwargs.setdefault("frameskip", 1)
    env = gymnasium.make(name, **kwargs)
    if preprocessing is not False:
        settings = preprocessing if isinstance(preprocessing, dict) else {}
        env = gymnasium.wrappers.AtariPreprocessing(env, **settings)
    for around in wrap:
        env = around(env)
    return env


def make_many(scheme, name, count):
    """A vector environment of `count`."""
    name, kwargs = split(name)
    if scheme == "atari":
        return atari(name, kwargs, count)
    if is_atari(name):
        need("ale_py", "gymnasium[atari]")
    wrap = wrappers_of(kwargs)
    mode = kwargs.pop("vectorization_mode", None)
    settings = kwargs.pop("vector_kwargs", {})
    if mode is None:
        mode = "vector_entry_point" if not wrap and gymnasium.spec(name).vector_entry_point else "sync"
    if mode != "vector_entry_point":
        # In which no step is lost.
        settings.setdefault("autoreset_mode", "SameStep")
    # Processes that step environments begin with Ctrl-C held back: it ends the training, which then still needs them.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return gymnasium.make_vec(name, count, mode, settings, wrap, **kwargs)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def atari(name, kwargs, count):
    ale_py = need("ale_py", "gymnasium[atari]")
    from ale_py.vector_env import AtariVectorEnv

    known = ale_py.roms.get_all_rom_ids()
    plain = name.replace("_", "").lower()
    game = next((rom for rom in known if rom.replace("_", "") == plain), None)
    if game is None:
        raise Refused(f"ale_py has no game '{name}'; it has: {', '.join(sorted(known))}")
    if kwargs.get("batch_size", count) not in (0, count):
        raise Refused("batch_size must be left out: all environments are stepped together")
    # One frame an observation, for whoever trains on stacks stores each frame once; and the rewards of the game, which a trainer
    # clips and an evaluation does not.
    defaults = {"stack_num": 1, "reward_clipping": False, "autoreset_mode": "SameStep"}
    return AtariVectorEnv(game, count, **{**defaults, **kwargs})


# ---- what an environment is -----------------------------------------------------------------------------------------


def describe(space, role, single_frames):
    """A space as `(start, n)` or `(kind, low, high, shape)`; kind is the name of the element type."""
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.n)
    if isinstance(space, spaces.Box):
        kind = space.dtype
        if role == "action" and kind.kind != "f":
            raise Refused(
                f"its action space is {space}; actions of a Box must be floats: wrap it in a "
                'gymnasium.ActionWrapper, wrappers=["module:Name"]'
            )
        with np.errstate(over="ignore"):
            bounds = [np.ascontiguousarray(bound, np.float32).ravel() for bound in (space.low, space.high)]
        if role == "action":
            # Rounded to the inside, for actions at a bound lie in the space.
            low, high = bounds
            low = np.where(low < space.low.ravel(), np.nextafter(low, np.float32(np.inf)), low)
            high = np.where(high > space.high.ravel(), np.nextafter(high, np.float32(-np.inf)), high)
            bounds = [np.ascontiguousarray(bound, np.float32) for bound in (low, high)]
        shape = list(space.shape) or [1]
        if single_frames and len(shape) == 2:
            shape = [1, *shape]
        return kind.name, *bounds, shape
    if role == "observation":
        raise Refused(
            f"its observation space is {space}; Discrete and Box can be read: make it a Box with "
            'the wrapper FlattenObservation, wrappers=["FlattenObservation"]'
        )
    raise Refused(
        f"its action space is {space}; Discrete and Box can be given: wrap it in a gymnasium.ActionWrapper, "
        'wrappers=["module:Name"]'
    )


def limits(env):
    """The time limit and the reward threshold of its registration."""
    spec = env.spec
    return (spec.max_episode_steps, spec.reward_threshold) if spec is not None else (None, None)


def about(env):
    """Both spaces and the limits."""
    # A single frame of Atari is a stack of one.
    atari = env.spec is not None and env.spec.id.startswith("ALE/")
    pairs = (env.observation_space, "observation"), (env.action_space, "action")
    return *(describe(space, role, atari) for space, role in pairs), limits(env)


def about_many(env):
    """Both spaces of one environment, the limits, and how the next episode starts."""
    mode = env.metadata.get("autoreset_mode")
    try:
        mode = AutoresetMode(mode).name
    except ValueError:
        raise Refused(f"it does not say how it starts the next episode: metadata['autoreset_mode'] is {mode!r}") from None
    pairs = (env.single_observation_space, "observation"), (env.single_action_space, "action")
    return *(describe(space, role, False) for space, role in pairs), limits_of_many(env), mode


def limits_of_many(env):
    # One that was not made through a registration has no spec.
    return limits(env) if env.spec is not None else (None, None)


# ---- what happens seldom --------------------------------------------------------------------------------------------


def reset_many(env, seeds):
    """A reset from one seed an environment, as far as the vector environment takes them."""
    inside = env.unwrapped
    if isinstance(inside, (gymnasium.vector.SyncVectorEnv, gymnasium.vector.AsyncVectorEnv)):
        return env.reset(seed=seeds)[0]
    if type(inside).__name__ == "AtariVectorEnv":
        return env.reset(seed=np.array(seeds, np.int64))[0]
    return env.reset(seed=seeds[0])[0]


def reset_some(env, mask):
    """The observations after a reset of those that `mask` says."""
    return env.reset(options={"reset_mask": np.array(mask, np.bool_)})[0]


def final_obs(info):
    """The last observations of episodes that ended, by environment."""
    try:
        return info["final_obs"]
    except KeyError:
        raise Refused("it resets in the same step, but info has no 'final_obs'") from None


def floats(values):
    return np.ascontiguousarray(values, np.float32)


def doubles(values):
    return np.ascontiguousarray(values, np.float64)


def octets(values):
    return np.ascontiguousarray(values, np.uint8)


def flags(values):
    return np.ascontiguousarray(values, np.bool_)


def picture(env, seen, index):
    """A frame as (height, width, bytes): what it renders, or else an observation that is an image."""
    frame = None
    if getattr(env, "render_mode", None) == "rgb_array":
        frame = env.render()
        if isinstance(frame, (tuple, list)):
            frame = frame[index]
    if frame is None and seen is not None:
        seen = np.asarray(seen)
        if seen.dtype == np.uint8 and seen.ndim == 3 and seen.shape[0] in (1, 2, 3, 4):
            frame = np.repeat(seen[-1][:, :, None], 3, 2)
        elif seen.dtype == np.uint8 and seen.ndim == 2:
            frame = np.repeat(seen[:, :, None], 3, 2)
        elif seen.dtype == np.uint8 and seen.ndim == 3 and seen.shape[2] == 3:
            frame = seen
    if frame is None:
        raise Refused("it renders no picture: it has no render mode rgb_array")
    frame = np.ascontiguousarray(frame, np.uint8)
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise Refused(f"it renders an array of the shape {frame.shape}, and not height x width x 3")
    return frame.shape[0], frame.shape[1], frame.ravel()


def said(error, trace):
    """The last line of a traceback, and where in the code it happened."""
    if isinstance(error, Refused):
        return str(error)
    line = "".join(traceback.format_exception_only(error)).strip().splitlines()
    line = next((text for text in line if text and not text.startswith(" ")), type(error).__name__)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{line}; {sys.executable} -m pip install {error.name.partition('.')[0]}, or PYTHONPATH says where it is"
    frames = traceback.extract_tb(trace)
    if frames and not isinstance(error, gymnasium.error.Error):
        line += f" ({frames[-1].filename}, line {frames[-1].lineno})"
    return line
