"""Makes replay/tests/golden/data/: offline data as NumPy, PyArrow and Minari write it, for the importers of rl-replay; and
reads with NumPy and PyArrow what rl-replay exports (`RL_REPLAY_WRITE_EXPORTED=1 cargo test --test data_golden` writes that anew).

Run through `make golden`, which brings the packages (tests/golden/requirements.txt). Every number comes from a formula that
replay/tests/offline/mod.rs computes as well, and is exact in the type it is stored in.
"""

import json
import pathlib
import shutil

import gymnasium as gym
import h5py
import numpy as np
import pyarrow as pa
from minari.data_collector.episode_buffer import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

OUT = pathlib.Path(__file__).resolve().parents[2] / "replay/tests/golden/data"


def element(seed: int, row: int, shape: tuple[int, ...]) -> np.ndarray:
    """What row `row` of the column `seed` holds: 16·row + place + seed, in eighths, so that halves can hold it too."""
    count = int(np.prod(shape, dtype=np.int64))
    return ((16 * row + np.arange(count) + seed) % 256 / 8.0).reshape(shape)


def column(seed: int, rows: int, shape: tuple[int, ...], dtype) -> np.ndarray:
    floats = np.stack([element(seed, row, shape) for row in range(rows)])
    if np.issubdtype(dtype, np.floating):
        return floats.astype(dtype)
    if dtype == np.bool_:
        return (floats * 8).astype(np.int64) % 3 == 0
    return (floats * 8).astype(dtype)


# Name, shape of a row, dtype; the position is the seed. One column of each type that a buffer holds and NumPy knows.
COLUMNS = [
    ("obs", (2, 3), np.float32),
    ("half", (5,), np.float16),
    ("double", (), np.float64),
    ("frame", (4, 2, 1), np.uint8),
    ("index", (), np.int32),
    ("action", (), np.int64),
    ("flag", (3,), np.bool_),
]
ROWS = 7


def rows() -> None:
    arrays = {name: column(seed, ROWS, shape, dtype) for seed, (name, shape, dtype) in enumerate(COLUMNS)}
    np.savez(OUT / "rows.npz", **arrays)
    np.savez_compressed(OUT / "rows_compressed.npz", **arrays)
    # What a buffer does not hold as it is: other types, big-endian numbers, Fortran's order, an object.
    np.savez(
        OUT / "odd.npz",
        obs=arrays["obs"].astype(">f8"),
        reward=arrays["double"].reshape(ROWS, 1),
        small=arrays["index"].astype(np.int16),
        unsigned=arrays["action"].astype(np.uint64),
        fortran=np.asfortranarray(arrays["obs"].reshape(ROWS, 6)),
        objects=np.array([None] * ROWS, dtype=object),
        words=np.array(["word"] * ROWS),
        short=np.zeros(ROWS - 1, np.float32),
    )

    # PyArrow has tensors for shaped rows; lists of one length, nested or not, are read as well.
    def tensor(array: np.ndarray) -> pa.Array:
        if array.ndim == 1:
            return pa.array(array)
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array))

    bits = arrays["flag"]
    table = pa.table(
        {name: tensor(array) for name, array in arrays.items() if name != "flag"}
        | {"flag": pa.FixedSizeListArray.from_arrays(pa.array(bits.reshape(-1)), 3)}
        | {"listed": pa.array(arrays["half"].astype(np.float32).tolist(), pa.list_(pa.float32()))}
        | {"nested": pa.array(arrays["obs"].tolist(), pa.list_(pa.list_(pa.float32(), 3), 2))}
        | {"holes": pa.array([1.0, None] * 3 + [1.0])}
        | {"ragged": pa.array([[0.5] * (row + 1) for row in range(ROWS)])}
        | {"words": pa.array(["word"] * ROWS)}
    )
    with pa.ipc.new_file(OUT / "rows.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    with pa.ipc.new_stream(OUT / "rows.arrows", table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    with pa.ipc.new_file(OUT / "packed.arrow", table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table)


def d4rl() -> None:
    """Three episodes in the layout of D4RL: 4 steps and terminal, 3 and cut by a time limit, 2 and the end of the data."""
    steps = 9
    obs = column(0, steps, (3,), np.float32)
    next_obs = column(3, steps, (3,), np.float32)
    arrays = {
        "observations": obs,
        "actions": column(1, steps, (2,), np.float32),
        "rewards": column(2, steps, (), np.float32),
        "terminals": np.arange(steps) == 3,
        "timeouts": np.arange(steps) == 6,
    }
    np.savez(OUT / "d4rl.npz", **arrays)
    np.savez(OUT / "d4rl_next.npz", next_observations=next_obs, **arrays)


def episodes(observation, action) -> list[EpisodeBuffer]:
    """Two episodes: 4 steps, terminated, and 3 steps, truncated. `observation` and `action` make a row of them."""
    made = []
    for episode, length in enumerate([4, 3]):
        first = 10 * episode
        made.append(
            EpisodeBuffer(
                id=episode,
                seed=episode,
                observations=observation(first, length + 1),
                actions=action(first, length),
                rewards=[float(element(2, first + t, ())) for t in range(length)],
                terminations=[episode == 0 and t == length - 1 for t in range(length)],
                truncations=[episode == 1 and t == length - 1 for t in range(length)],
                infos={},
            )
        )
    return made


def listed(seed: int, first: int, count: int, shape: tuple[int, ...], dtype) -> list[np.ndarray]:
    return list(column(seed, first + count, shape, dtype)[first:])


BOX = (
    gym.spaces.Box(-100.0, 100.0, (3,), np.float64),
    gym.spaces.Discrete(300),
    lambda first, count: listed(0, first, count, (3,), np.float64),
    lambda first, count: [np.int64(8 * element(1, first + t, ())) for t in range(count)],
)
DICT = (
    gym.spaces.Dict(
        {
            "achieved_goal": gym.spaces.Box(-100.0, 100.0, (2,), np.float64),
            "desired_goal": gym.spaces.Box(-100.0, 100.0, (2,), np.float64),
            "observation": gym.spaces.Box(-100.0, 100.0, (2, 2), np.float32),
        }
    ),
    gym.spaces.Box(-100.0, 100.0, (2,), np.float32),
    lambda first, count: {
        "achieved_goal": listed(3, first, count, (2,), np.float64),
        "desired_goal": listed(4, first, count, (2,), np.float64),
        "observation": listed(0, first, count, (2, 2), np.float32),
    },
    lambda first, count: listed(1, first, count, (2,), np.float32),
)


def minari(name: str, spaces, data_format: str) -> pathlib.Path:
    """A data set as Minari's collector leaves it, without an environment."""
    path = OUT / name / "data"
    path.parent.mkdir()
    observation_space, action_space, observation, action = spaces
    storage = MinariStorage.new(path, observation_space, action_space, data_format=data_format)
    storage.update_episodes(episodes(observation, action))
    storage.update_metadata({"dataset_id": f"golden/{name}-v0", "minari_version": "0.5.4"})
    return path


def repacked() -> None:
    """minari-box with its arrays stored otherwise: compressed, shuffled and in several chunks, contiguous, big-endian."""
    shutil.copytree(OUT / "minari-box", OUT / "minari-repacked")
    main = OUT / "minari-repacked/data/main_data.hdf5"
    main.unlink()
    with h5py.File(OUT / "minari-box/data/main_data.hdf5") as old, h5py.File(main, "w", libver="latest") as new:
        for name, source in old.items():
            group = new.create_group(name)
            group.attrs.update(source.attrs)
            for key, data in source.items():
                if isinstance(data, h5py.Group):
                    continue
                if name == "episode_0":
                    chunks = (2, *data.shape[1:])
                    group.create_dataset(
                        key, data=data[()], chunks=chunks, compression="gzip", shuffle=True, fletcher32=True
                    )
                else:
                    dtype = data.dtype if data.dtype == np.bool_ else data.dtype.newbyteorder(">")
                    group.create_dataset(key, data=data[()], dtype=dtype)


def image() -> None:
    """Frames, which Minari stores as JPEG unless told otherwise."""
    space = gym.spaces.Box(0, 255, (32, 33), np.uint8)
    frames = lambda first, count: listed(0, first, count, (32, 33), np.uint8)  # noqa: E731
    for name, raw in [("minari-jpeg", False), ("minari-frames", True)]:
        path = OUT / name / "data"
        path.parent.mkdir()
        storage = MinariStorage.new(path, space, BOX[1], data_format="arrow", jpeg_encoding=not raw)
        storage.update_episodes(episodes(frames, BOX[3])[:1])


def check_exported() -> None:
    """The files that replay/tests/data_golden.rs compares its exports with are what NumPy and PyArrow expect."""
    exported = OUT.parent / "exported.npz"
    with np.load(exported) as arrays:
        assert sorted(arrays.files) == sorted([name for name, *_ in COLUMNS] + ["brain.bf16"]), arrays.files
        for seed, (name, shape, dtype) in enumerate(COLUMNS):
            expected = column(seed, ROWS, shape, dtype)
            assert arrays[name].dtype == dtype, (name, arrays[name].dtype)
            np.testing.assert_array_equal(arrays[name], expected, strict=True)
        brain = (arrays["brain.bf16"].astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_array_equal(brain, column(len(COLUMNS), ROWS, (2,), np.float32))
    table = pa.ipc.open_file(OUT.parent / "exported.arrow").read_all()
    streamed = pa.ipc.open_stream(OUT.parent / "exported.arrows").read_all()
    assert table.equals(streamed)
    for seed, (name, shape, dtype) in enumerate(COLUMNS):
        array = table[name].combine_chunks()
        if name == "flag":
            found = np.array(array.to_pylist())
        elif len(shape) > 1:
            assert tuple(array.type.shape) == shape, (name, array.type)
            found = array.to_numpy_ndarray()
        elif len(shape) == 1:
            found = array.flatten().to_numpy().reshape(-1, *shape)
        else:
            found = array.to_numpy()
        np.testing.assert_array_equal(found, column(seed, ROWS, shape, dtype), strict=True)
    brain = table["brain"].combine_chunks().flatten().to_numpy().reshape(-1, 2)
    assert brain.dtype == np.uint16
    found = (brain.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(found, column(len(COLUMNS), ROWS, (2,), np.float32))


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    rows()
    d4rl()
    minari("minari-box", BOX, "hdf5")
    minari("minari-dict", DICT, "hdf5")
    minari("minari-box-arrow", BOX, "arrow")
    minari("minari-dict-arrow", DICT, "arrow")
    repacked()
    image()
    for path in sorted(OUT.rglob("metadata.json")):
        json.loads(path.read_text())
    check_exported()
    print(f"{sum(path.stat().st_size for path in OUT.rglob('*') if path.is_file()):,} bytes in {OUT}")
