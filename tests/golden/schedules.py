"""Makes learn/tests/golden/schedules.safetensors: the learning rates of PyTorch 2.11's schedulers, one a step, in f64.

Run through `make golden`. A name is the case that learn/tests/schedules.rs builds; value t is the rate of step t.
"""

import pathlib
import warnings

import torch
from safetensors.torch import save_file
from torch.optim import lr_scheduler as lr

OUT = pathlib.Path(__file__).resolve().parents[2] / "learn/tests/golden/schedules.safetensors"
BASE = 0.4

CASES = {
    # name: (steps recorded, scheduler of an optimizer)
    "step": (40, lambda o: lr.StepLR(o, step_size=7, gamma=0.3)),
    "multi_step": (40, lambda o: lr.MultiStepLR(o, milestones=[3, 10, 31], gamma=0.2)),
    "exponential": (30, lambda o: lr.ExponentialLR(o, gamma=0.9)),
    "linear": (30, lambda o: lr.LinearLR(o, start_factor=0.25, end_factor=0.75, total_iters=20)),
    "constant_factor": (20, lambda o: lr.ConstantLR(o, factor=0.5, total_iters=8)),
    "polynomial": (30, lambda o: lr.PolynomialLR(o, total_iters=20, power=1.7)),
    "cosine": (26, lambda o: lr.CosineAnnealingLR(o, T_max=25, eta_min=0.05)),
    "cosine_restarts": (60, lambda o: lr.CosineAnnealingWarmRestarts(o, T_0=9, T_mult=1, eta_min=0.05)),
    "cosine_restarts_growing": (80, lambda o: lr.CosineAnnealingWarmRestarts(o, T_0=5, T_mult=3, eta_min=0.05)),
    "one_cycle": (50, lambda o: lr.OneCycleLR(o, max_lr=BASE, total_steps=50, cycle_momentum=False)),
    "one_cycle_linear": (
        37,
        lambda o: lr.OneCycleLR(
            o, max_lr=BASE, total_steps=37, pct_start=0.45, anneal_strategy="linear", div_factor=10,
            final_div_factor=50, cycle_momentum=False,
        ),
    ),
    "one_cycle_three_phase": (
        41,
        lambda o: lr.OneCycleLR(
            o, max_lr=BASE, total_steps=41, pct_start=0.35, div_factor=20, final_div_factor=100, three_phase=True,
            cycle_momentum=False,
        ),
    ),
    "triangular": (
        60, lambda o: lr.CyclicLR(o, base_lr=0.05, max_lr=BASE, step_size_up=8, step_size_down=5, cycle_momentum=False)
    ),
    "triangular2": (
        60, lambda o: lr.CyclicLR(o, base_lr=0.05, max_lr=BASE, step_size_up=7, mode="triangular2", cycle_momentum=False)
    ),
    "exp_range": (
        60,
        lambda o: lr.CyclicLR(
            o, base_lr=0.05, max_lr=BASE, step_size_up=6, step_size_down=9, mode="exp_range", gamma=0.97,
            cycle_momentum=False,
        ),
    ),
    "warmup_then_cosine": (
        36,
        lambda o: lr.SequentialLR(
            o, [lr.LinearLR(o, start_factor=0.1, total_iters=5), lr.CosineAnnealingLR(o, T_max=30)], milestones=[5]
        ),
    ),
    "sequence_of_three": (
        50,
        lambda o: lr.SequentialLR(
            o,
            [
                lr.LinearLR(o, start_factor=0.01, total_iters=4),
                lr.StepLR(o, step_size=6, gamma=0.5),
                lr.ExponentialLR(o, gamma=0.8),
            ],
            milestones=[4, 30],
        ),
    ),
    "chained": (
        40,
        lambda o: lr.ChainedScheduler([lr.ConstantLR(o, factor=0.5, total_iters=8), lr.StepLR(o, step_size=10, gamma=0.5)]),
    ),
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    out = {}
    for name, (steps, make) in CASES.items():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE)
        scheduler = make(optimizer)
        rates = []
        for step in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if step + 1 < steps:
                scheduler.step()
        out[name] = torch.tensor(rates, dtype=torch.float64)
    save_file(out, OUT, metadata={"torch": torch.__version__})
    print(f"{OUT}: {len(out)} schedules")
