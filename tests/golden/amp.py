"""Makes learn/tests/golden/amp.safetensors: what PyTorch 2.11's gradient scaler does over 100 updates with overflows injected.

Run through `make golden`. Names: scale, growth_tracker and skipped after each update; gradients as they come from a scaled loss divided by
the scale (the tests multiply); the parameters at the end of every optimizer.
"""

import pathlib

import torch
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parents[2] / "learn/tests/golden/amp.safetensors"
UPDATES = 100
SHAPES = [(4, 3), (7,)]


class Opened(torch.amp.GradScaler):
    """Its own state, told."""

    def tracker(self) -> float:
        return self._growth_tracker.item()


if __name__ == "__main__":
    generator = torch.Generator().manual_seed(11)
    start = [torch.randn(s, generator=generator) for s in SHAPES]
    gradients = [torch.randn(UPDATES, *s, generator=generator) for s in SHAPES]
    # The first update, two in a row, one just before growth, NaN as well as both infinities; in one tensor or in the other.
    overflows = {0: (0, float("inf")), 9: (1, float("nan")), 10: (0, -float("inf")), 16: (1, float("inf"))}
    for update in torch.randperm(60, generator=generator)[:6].tolist():
        overflows[30 + update] = (update % 2, float("inf") if update % 3 else float("nan"))
    for update, (tensor, value) in overflows.items():
        gradients[tensor][update].view(-1)[update % 7] = value
    out = {f"start.{i}": t.clone() for i, t in enumerate(start)}
    out |= {f"gradients.{i}": t.clone() for i, t in enumerate(gradients)}
    cases = {
        "adam": lambda p: torch.optim.Adam(p, lr=0.0625),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.0625, weight_decay=0.05),
        "sgd": lambda p: torch.optim.SGD(p, lr=0.0625, momentum=0.9, weight_decay=0.05),
        "sgd_dampened": lambda p: torch.optim.SGD(p, lr=0.0625, momentum=0.9, dampening=0.3),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.0625, momentum=0.5, centered=True, weight_decay=0.05),
    }
    for name, make in cases.items():
        parameters = [t.clone().requires_grad_(True) for t in start]
        optimizer = make(parameters)
        scaler = Opened("cpu", init_scale=1024.0, growth_interval=5, growth_factor=2.0, backoff_factor=0.5)
        scales, trackers = [], []
        for update in range(UPDATES):
            scaler.scale(torch.zeros(1))  # makes its tensors
            for parameter, gradient in zip(parameters, gradients):
                parameter.grad = gradient[update] * scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            scales.append(scaler.get_scale())
            trackers.append(scaler.tracker())
        for i, parameter in enumerate(parameters):
            out[f"{name}.{i}"] = parameter.detach().clone()
        out[f"{name}.scale"] = torch.tensor(scales, dtype=torch.float64)
        out[f"{name}.growth_tracker"] = torch.tensor(trackers, dtype=torch.int64)
    assert len({tuple(out[f"{name}.scale"].tolist()) for name in cases}) == 1
    out["skipped"] = torch.tensor(len(overflows), dtype=torch.int64)
    save_file(out, OUT, metadata={"torch": torch.__version__})
    print(f"{OUT}: {len(overflows)} of {UPDATES} updates skipped, last scale {out['adam.scale'][-1]:g}")
