"""Makes learn/tests/golden/optim.safetensors: 50 steps of PyTorch 2.11's optimizers with two parameter groups.

Run through `make golden`, which brings torch==2.11.0 (tests/golden/requirements.txt). Everything is seeded; on one machine
the file comes out the same each time.
"""

import pathlib

import torch
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parents[2] / "learn/tests/golden/optim.safetensors"
STEPS = 50
SHAPES = [(4, 3), (7,), (2, 3, 2), (3,)]
# Which group each tensor is in, and what sets the groups apart. The numbers are exact in f32, in which learning rates are.
GROUP_OF = [0, 1, 0, 1]
FACTORS = [1.0, 0.25]
# Clipping, which happens on the way in these cases.
CLIP_NORM, CLIP_VALUE = 2.0, 0.75
out: dict[str, torch.Tensor] = {}


def put(name: str, tensor: torch.Tensor) -> None:
    out[name] = tensor.detach().clone().contiguous()


def rate(step: int) -> float:
    return 0.125 / (1 << step // 15)


def run(name: str, make, decays: list[float], start: list[torch.Tensor], gradients: list[torch.Tensor], clip: str = "") -> None:
    parameters = [tensor.clone().requires_grad_(True) for tensor in start]
    groups = [
        {"params": [p for p, g in zip(parameters, GROUP_OF) if g == group], "weight_decay": decays[group]}
        for group in range(2)
    ]
    optimizer = make(groups)
    for step in range(STEPS):
        for group, factor in zip(optimizer.param_groups, FACTORS):
            group["lr"] = rate(step) * factor
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient[step].clone()
        if clip == "norm":
            put(f"{name}.norm.{step}", torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM))
        elif clip == "value":
            torch.nn.utils.clip_grad_value_(parameters, CLIP_VALUE)
        optimizer.step()
        if step in (0, 14, STEPS - 1):
            for i, parameter in enumerate(parameters):
                put(f"{name}.{step}.{i}", parameter)


def ema(start: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
    """torch.optim.swa_utils' own average, over weights that wander along the gradients, with and without warm-up."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(start[0].clone())
            self.register_buffer("seen", torch.zeros(3, dtype=torch.float64))

    for name, decay_of in [("ema", lambda t: 0.9375), ("ema_warm_up", lambda t: min(0.9375, (1 + t) / (10 + t)))]:
        net, count = Net(), [0]

        def lerp(averages, currents, _):
            torch._foreach_lerp_(averages, currents, 1 - decay_of(count[0]))

        averaged = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=lerp)
        averaged.n_averaged += 1  # the first update averages too, and does not copy
        for step in range(STEPS):
            with torch.no_grad():
                net.weight -= 0.125 * gradients[0][step]
                net.seen += 1
            averaged.update_parameters(net)
            count[0] += 1
        put(f"{name}.weight", averaged.module.weight)
        put(f"{name}.seen", averaged.module.seen)


if __name__ == "__main__":
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(5)
    start = [torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES]
    gradients = [torch.randn(STEPS, *s, generator=generator, dtype=torch.float64) for s in SHAPES]
    for i in range(len(SHAPES)):
        put(f"start.{i}", start[i])
        put(f"gradients.{i}", gradients[i])
    optim = torch.optim
    cases = {
        "sgd": lambda g: optim.SGD(g, lr=0.1),
        "sgd_momentum": lambda g: optim.SGD(g, lr=0.1, momentum=0.9, dampening=0.3),
        "sgd_nesterov": lambda g: optim.SGD(g, lr=0.1, momentum=0.9, nesterov=True),
        "rmsprop": lambda g: optim.RMSprop(g, lr=0.1),
        "rmsprop_momentum": lambda g: optim.RMSprop(g, lr=0.1, alpha=0.9, momentum=0.5),
        "rmsprop_centered": lambda g: optim.RMSprop(g, lr=0.1, alpha=0.95, eps=1e-3, momentum=0.9, centered=True),
        "adam": lambda g: optim.Adam(g, lr=0.1),
        "adam_betas": lambda g: optim.Adam(g, lr=0.1, betas=(0.8, 0.95), eps=1e-4),
        "adamw": lambda g: optim.AdamW(g, lr=0.1),
    }
    for name, make in cases.items():
        run(name, make, [0.05, 0.0], start, gradients)
    run("both_decayed", cases["adamw"], [0.05, 0.2], start, gradients)
    run("clip_norm", cases["sgd_momentum"], [0.05, 0.0], start, gradients, "norm")
    run("clip_value", cases["sgd_momentum"], [0.05, 0.0], start, gradients, "value")
    # In f32, with libtorch's fused kernels, whose rounding is ours too.
    small = [[t.float() for t in start], [t.float() for t in gradients]]
    run("sgd_f32", lambda g: optim.SGD(g, lr=0.1, momentum=0.9, fused=True), [0.05, 0.0], *small)
    run("adam_f32", lambda g: optim.Adam(g, lr=0.1, fused=True), [0.05, 0.0], *small)
    run("adamw_f32", lambda g: optim.AdamW(g, lr=0.1, fused=True), [0.05, 0.0], *small)
    ema(start, gradients)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    save_file(out, OUT, metadata={"torch": torch.__version__})
    print(f"{OUT}: {len(out)} tensors, {OUT.stat().st_size:,} bytes")
