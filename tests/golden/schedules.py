"""Makes learn/tests/golden/schedules.safetensors: the learning rates of PyTorch 2.11's schedulers, one a step, in f64; the momenta of
those that cycle them too; and parameters trained with both.

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

# The momentum's cycle, which these begin with the optimizer's own momentum set to what they say.
MOMENTA = {
    "momentum_one_cycle": (50, lambda o: lr.OneCycleLR(o, max_lr=BASE, total_steps=50)),
    "momentum_one_cycle_linear": (
        37,
        lambda o: lr.OneCycleLR(
            o, max_lr=BASE, total_steps=37, pct_start=0.45, anneal_strategy="linear", base_momentum=0.7, max_momentum=0.9
        ),
    ),
    "momentum_one_cycle_three_phase": (
        41, lambda o: lr.OneCycleLR(o, max_lr=BASE, total_steps=41, pct_start=0.35, three_phase=True)
    ),
    "momentum_triangular": (
        60, lambda o: lr.CyclicLR(o, base_lr=0.05, max_lr=BASE, step_size_up=8, step_size_down=5)
    ),
    "momentum_triangular2": (
        60,
        lambda o: lr.CyclicLR(
            o, base_lr=0.05, max_lr=BASE, step_size_up=7, mode="triangular2", base_momentum=0.7, max_momentum=0.95
        ),
    ),
    "momentum_exp_range": (
        60,
        lambda o: lr.CyclicLR(o, base_lr=0.05, max_lr=BASE, step_size_up=6, step_size_down=9, mode="exp_range", gamma=0.97),
    ),
}

# name: optimizer; both are trained through one cycle of 30 steps with rates up to 0.1, momenta from 0.85 to 0.95.
TRAINED = {
    "cycled_sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "cycled_adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.01),
    "cycled_rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9),
}


def trained(make):
    """The parameter after each of 30 steps along a gradient that depends on it and on the step."""
    parameter = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    optimizer = make([parameter])
    scheduler = lr.OneCycleLR(optimizer, max_lr=0.1, total_steps=30)
    out = []
    for step in range(30):
        place = torch.arange(4, dtype=torch.float64)
        parameter.grad = (0.5 * parameter + torch.sin(0.7 * step + place)).detach()
        optimizer.step()
        out.append(parameter.detach().clone())
        if step < 29:
            scheduler.step()
    return torch.stack(out)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    out = {}
    for name, (steps, make) in MOMENTA.items():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE, momentum=0.9)
        scheduler = make(optimizer)
        momenta = []
        for step in range(steps):
            momenta.append(optimizer.param_groups[0]["momentum"])
            optimizer.step()
            if step + 1 < steps:
                scheduler.step()
        out[name] = torch.tensor(momenta, dtype=torch.float64)
    for name, make in TRAINED.items():
        out[name] = trained(make)
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
    print(f"{OUT}: {len(out)} tensors")
