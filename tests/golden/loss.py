"""Makes learn/tests/golden/loss.safetensors: PyTorch 2.11's cross-entropy with label smoothing, and its mean by row weights, in f64.

Run through `make golden`; learn/tests/loss_golden.rs reads it.
"""

import pathlib

import torch
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parents[2] / "learn/tests/golden/loss.safetensors"

if __name__ == "__main__":
    torch.manual_seed(11)
    logits = 3 * torch.randn(9, 5, dtype=torch.float64)
    classes = torch.randint(0, 5, (9,))
    classes[4] = -100
    weight = torch.rand(9, dtype=torch.float64)
    weight[7] = 0
    out = {"logits": logits, "classes": classes, "weight": weight}
    for smoothing in (0.0, 0.1, 1.0):
        leaf = logits.clone().requires_grad_(True)
        each = torch.nn.functional.cross_entropy(leaf, classes, reduction="none", label_smoothing=smoothing)
        mean = (weight * each).sum() / weight.sum()
        mean.backward()
        out |= {f"each_{smoothing}": each.detach(), f"mean_{smoothing}": mean.detach(), f"grad_{smoothing}": leaf.grad}
    # A class's weight given to its rows is PyTorch's own weight by class.
    by_class = torch.tensor([1.0, 2.0, 0.5, 3.0, 0.25], dtype=torch.float64)
    out["by_class"] = by_class
    out["mean_by_class"] = torch.nn.functional.cross_entropy(logits, classes, weight=by_class)
    save_file(out, OUT, metadata={"torch": torch.__version__})
    print(f"{OUT}: {len(out)} tensors")
