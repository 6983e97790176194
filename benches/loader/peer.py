#!/usr/bin/env python3
"""Loads the workloads of bench_loader.rs with another library: a window for each line "WORKLOAD VARIANT SECONDS" of
standard input, a line of JSON with the rows a second for each window.

    python peer.py torch.utils.data | tf.data

Variants of torch.utils.data are the number of workers over a TensorDataset, and `whole`: the sampler gives whole batches of row
numbers and the data set indexes its tensor once a batch, without workers. Those of tf.data are `rows`: rows shuffled and
batched, prefetched as AUTOTUNE will; and `whole`: row numbers shuffled and batched, and gathered once a batch.
"""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np

WORKLOADS = {"small": ((1_000_000, 64), np.float32, 256), "image": ((2_000, 3, 224, 224), np.uint8, 64)}


def data(workload):
    shape, dtype, batch = WORKLOADS[workload]
    return (np.arange(np.prod(shape)) % 251).astype(dtype).reshape(shape), batch


class Torch:
    def __init__(self):
        import torch

        # At its best: copies of a batch's size gain nothing from more threads, and lose much where cores are shared.
        torch.set_num_threads(1)
        self.torch, self.version, self.tensors = torch, torch.__version__, {}

    def batches(self, workload, variant):
        from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, TensorDataset

        if workload not in self.tensors:
            rows, batch = data(workload)
            self.tensors[workload] = self.torch.from_numpy(rows), batch
        rows, batch = self.tensors[workload]
        if variant != "whole":
            return DataLoader(TensorDataset(rows), batch_size=batch, shuffle=True, num_workers=int(variant), drop_last=True)

        class Whole(Dataset):
            def __len__(self):
                return len(rows)

            def __getitem__(self, numbers):
                return rows[numbers]

        sampler = BatchSampler(RandomSampler(range(len(rows))), batch, drop_last=True)
        return DataLoader(Whole(), batch_size=None, sampler=sampler)


class TensorFlow:
    def __init__(self):
        import tensorflow as tf

        self.tf, self.version, self.tensors = tf, tf.__version__, {}

    def batches(self, workload, variant):
        tf = self.tf
        if workload not in self.tensors:
            rows, batch = data(workload)
            self.tensors[workload] = tf.constant(rows), batch
        rows, batch = self.tensors[workload]
        if variant == "whole":
            numbers = tf.data.Dataset.range(len(rows)).shuffle(len(rows)).batch(batch, drop_remainder=True)
            return numbers.map(lambda i: tf.gather(rows, i)).prefetch(tf.data.AUTOTUNE)
        # A shuffle buffer holds rows, so one of images is to be small.
        found = tf.data.Dataset.from_tensor_slices(rows).shuffle(10_000 if workload == "small" else 512)
        return found.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def endless(batches):
    while True:
        yield from batches


def measure(batches, batch, seconds):
    """Rows a second, workers having started and a tenth of the time having passed."""
    stream = endless(batches)
    next(stream)
    for window in (seconds / 10, seconds):
        start, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < window:
            next(stream)
            count += batch
    del stream
    return count / elapsed


def main():
    library = {"torch.utils.data": Torch, "tf.data": TensorFlow}[sys.argv[1]]()
    print("ready", flush=True)
    for line in sys.stdin:
        workload, variant, seconds = line.split()
        batches = library.batches(workload, variant)
        rate = measure(batches, WORKLOADS[workload][2], float(seconds))
        name = {"library": sys.argv[1], "version": library.version, "workload": workload, "variant": variant}
        print(json.dumps({**name, "rows_per_s": rate}), flush=True)


if __name__ == "__main__":
    main()
