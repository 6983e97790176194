"""Prints the scalars of a run's folder as TensorBoard's own reader sees them: {tag: [[step, value], ...]} as JSON."""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

reader = EventAccumulator(sys.argv[1], size_guidance={SCALARS: 0})
reader.Reload()
json.dump({tag: [[s.step, s.value] for s in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}, sys.stdout)
