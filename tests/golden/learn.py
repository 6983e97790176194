"""Makes learn/tests/golden/learn.safetensors: what PyTorch 2.11 computes for the pieces of the crate rl-learn.

Run through `make golden`, which brings torch==2.11.0 (tests/golden/requirements.txt). Everything is seeded; on one machine
the file comes out the same each time.
"""

import pathlib

import torch
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parents[2] / "learn/tests/golden/learn.safetensors"
STEPS = 20
out: dict[str, torch.Tensor] = {}


def put(name: str, tensor: torch.Tensor) -> None:
    out[name] = tensor.detach().clone().contiguous()


def perceptron() -> None:
    """Forward and backward of a perceptron with two hidden layers, and a whole training of it with each loss."""
    torch.manual_seed(1)
    net = torch.nn.Sequential(
        torch.nn.Linear(5, 16), torch.nn.ReLU(), torch.nn.Linear(16, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3)
    )
    linears = [m for m in net if isinstance(m, torch.nn.Linear)]
    for i, layer in enumerate(linears):
        put(f"mlp.layers.{i}.weight", layer.weight)
        put(f"mlp.layers.{i}.bias", layer.bias)
    x, target = torch.randn(32, 5), torch.randn(32, 3)
    put("mlp.x", x)
    put("mlp.target", target)
    put("mlp.y", net(x))
    for loss_name, loss_fn in [("mse", torch.nn.MSELoss()), ("huber", torch.nn.HuberLoss(delta=1.0))]:
        net.zero_grad()
        loss = loss_fn(3 * net(x), target)
        loss.backward()
        put(f"mlp.{loss_name}", loss)
        for i, layer in enumerate(linears):
            put(f"mlp.{loss_name}.grad.layers.{i}.weight", layer.weight.grad)
            put(f"mlp.{loss_name}.grad.layers.{i}.bias", layer.bias.grad)
    put("mlp.clip.norm", torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5))
    for i, layer in enumerate(linears):
        put(f"mlp.clip.grad.layers.{i}.weight", layer.weight.grad)
        put(f"mlp.clip.grad.layers.{i}.bias", layer.bias.grad)
    # 20 steps of Adam on the real gradients, in f32; the fused kernel, whose rounding is ours too.
    adam = torch.optim.Adam(net.parameters(), lr=0.0078125, fused=True)
    for _ in range(STEPS):
        adam.zero_grad()
        torch.nn.functional.mse_loss(net(x), target).backward()
        adam.step()
    for i, layer in enumerate(linears):
        put(f"mlp.trained.layers.{i}.weight", layer.weight)
        put(f"mlp.trained.layers.{i}.bias", layer.bias)


def optimizers() -> None:
    """20 steps of each optimizer in f64 from given parameters along given gradients, the learning rate changing on the way."""
    generator = torch.Generator().manual_seed(2)
    shapes = [(4, 3), (7,)]
    start = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    gradients = [[torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes] for _ in range(STEPS)]
    for i, tensor in enumerate(start):
        put(f"optim.start.{i}", tensor)
        put(f"optim.gradients.{i}", torch.stack([g[i] for g in gradients]))
    cases = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
        "sgd_momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.05),
        "sgd_nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1),
        "rmsprop_centered": lambda p: torch.optim.RMSprop(
            p, lr=0.1, alpha=0.95, eps=1e-3, momentum=0.9, centered=True, weight_decay=0.05
        ),
        "adam": lambda p: torch.optim.Adam(p, lr=0.1),
        "adam_decay": lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.05),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.05),
    }
    for name, make in cases.items():
        parameters = [tensor.clone().requires_grad_(True) for tensor in start]
        optimizer = make(parameters)
        for step in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = 0.125 if step < 10 else 0.0625  # exact in f32 too
            for parameter, gradient in zip(parameters, gradients[step]):
                parameter.grad = gradient.clone()
            optimizer.step()
        for i, parameter in enumerate(parameters):
            put(f"optim.{name}.{i}", parameter)


def batch_norm() -> None:
    """20 SGD steps through BatchNorm1d: output, gradients, running statistics, and the evaluation afterwards, in f64."""
    torch.manual_seed(3)
    norm = torch.nn.BatchNorm1d(6).double()
    x = torch.randn(STEPS, 10, 6, dtype=torch.float64) * 2 + 1
    out_weight = torch.randn(10, 6, dtype=torch.float64)
    put("bn.x", x)
    put("bn.out_weight", out_weight)
    sgd = torch.optim.SGD(norm.parameters(), lr=0.125, momentum=0.5)
    for step in range(STEPS):
        inputs = x[step].clone().requires_grad_(True)
        y = norm(inputs)
        sgd.zero_grad()
        (y.tanh() * out_weight).sum().backward()
        if step in (0, STEPS - 1):
            put(f"bn.y.{step}", y)
            put(f"bn.grad_x.{step}", inputs.grad)
        sgd.step()
    for name in ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]:
        put(f"bn.{name}", getattr(norm, name))
    norm.eval()
    put("bn.eval", norm(x[0]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    perceptron()
    optimizers()
    batch_norm()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    save_file(out, OUT, metadata={"torch": torch.__version__})
    print(f"{OUT}: {len(out)} tensors")
