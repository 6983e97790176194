"""Makes learn/tests/golden/norm.safetensors: what PyTorch 2.11 computes for normalization, convolutions and recurrent networks.

Run through `make golden`, which brings torch==2.11.0 (tests/golden/requirements.txt). Everything is seeded and in f64; on one
machine the file comes out the same each time.
"""

import pathlib

import torch
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parents[2] / "learn/tests/golden/norm.safetensors"
STEPS = 5
out: dict[str, torch.Tensor] = {}


def put(name: str, tensor: torch.Tensor) -> None:
    out[name] = tensor.detach().clone().contiguous()


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def batch_norms() -> None:
    """STEPS batches through each layer: output and gradients of the first and last, the statistics after all, the evaluation then."""
    torch.manual_seed(1)
    cases = {
        "bn1d": (torch.nn.BatchNorm1d(6), (8, 6)),
        "bn1d_positions": (torch.nn.BatchNorm1d(6, eps=1e-3, momentum=0.3), (4, 6, 5)),
        "bn1d_cumulative": (torch.nn.BatchNorm1d(6, momentum=None), (8, 6)),
        "bn2d": (torch.nn.BatchNorm2d(3), (4, 3, 5, 2)),
        "bn2d_cumulative": (torch.nn.BatchNorm2d(3, momentum=None), (4, 3, 5, 2)),
        "bn2d_plain": (torch.nn.BatchNorm2d(3, affine=False), (4, 3, 5, 2)),
    }
    for name, (norm, shape) in cases.items():
        norm.double()
        x = normal(STEPS, *shape) * 2 + 1
        out_weight = normal(*shape)
        put(f"{name}.x", x)
        put(f"{name}.out_weight", out_weight)
        if norm.affine:
            with torch.no_grad():
                norm.weight.copy_(normal(shape[1]))
                norm.bias.copy_(normal(shape[1]))
        for parameter, value in norm.named_parameters():
            put(f"{name}.{parameter}", value)
        for step in range(STEPS):
            inputs = x[step].clone().requires_grad_(True)
            y = norm(inputs)
            norm.zero_grad()
            (y.tanh() * out_weight).sum().backward()
            if step in (0, STEPS - 1):
                put(f"{name}.y.{step}", y)
                put(f"{name}.grad.x.{step}", inputs.grad)
                for parameter, value in norm.named_parameters():
                    put(f"{name}.grad.{parameter}.{step}", value.grad)
        for buffer, value in norm.named_buffers():
            put(f"{name}.{buffer}", value)
        norm.eval()
        put(f"{name}.eval", norm(x[0]))


def layer_norms() -> None:
    torch.manual_seed(2)
    for name, norm in {
        "ln": torch.nn.LayerNorm([4, 3]),
        "ln_eps": torch.nn.LayerNorm([3], eps=0.1),
        "ln_plain": torch.nn.LayerNorm([3], elementwise_affine=False),
    }.items():
        norm.double()
        with torch.no_grad():
            for _, value in norm.named_parameters():
                value.copy_(normal(*value.shape))
        inputs, out_weight = (normal(5, 4, 3) * 3 - 1).requires_grad_(True), normal(5, 4, 3)
        y = norm(inputs)
        (y.tanh() * out_weight).sum().backward()
        put(f"{name}.x", inputs)
        put(f"{name}.out_weight", out_weight)
        put(f"{name}.y", y)
        put(f"{name}.grad.x", inputs.grad)
        for parameter, value in norm.named_parameters():
            put(f"{name}.{parameter}", value)
            put(f"{name}.grad.{parameter}", value.grad)


def convolutions() -> None:
    torch.manual_seed(3)
    for name, conv in {
        "conv": torch.nn.Conv2d(2, 6, (5, 3)),
        "conv_strided": torch.nn.Conv2d(2, 4, 3, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2, bias=False),
    }.items():
        conv.double()
        x = normal(3, 2, 9, 8)
        put(f"{name}.x", x)
        put(f"{name}.y", conv(x))
        for parameter, value in conv.named_parameters():
            put(f"{name}.{parameter}", value)


def recurrent() -> None:
    """Padded and packed sequences through one and two layers, one and both directions, from zeros and from a given state."""
    torch.manual_seed(4)
    lengths = torch.tensor([3, 6, 1, 4])
    put("rnn.lengths", lengths)
    x = normal(6, 4, 5)
    put("rnn.x", x)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    put("rnn.data", packed.data)
    put("rnn.batch_sizes", packed.batch_sizes)
    for cell in ["LSTM", "GRU"]:
        for layers, both in [(1, False), (2, True)]:
            name = f"{cell.lower()}{layers}"
            net = getattr(torch.nn, cell)(5, 7, num_layers=layers, bidirectional=both).double()
            for parameter, value in net.named_parameters():
                put(f"{name}.{parameter}", value)
            shape = (layers * (2 if both else 1), 4, 7)
            hidden, memory = normal(*shape), normal(*shape)
            put(f"{name}.h0", hidden)
            put(f"{name}.c0", memory)
            for case, inputs, state in [
                ("full", x, None),
                ("packed", packed, None),
                ("state", packed, (hidden, memory) if cell == "LSTM" else hidden),
            ]:
                y, last = net(inputs, state)
                if case != "full":
                    put(f"{name}.{case}.data", y.data)
                    y, _ = torch.nn.utils.rnn.pad_packed_sequence(y)
                net.zero_grad()
                y.square().sum().backward()
                put(f"{name}.{case}.y", y)
                for parameter, value in net.named_parameters():
                    put(f"{name}.{case}.grad.{parameter}", value.grad)
                if cell == "LSTM":
                    put(f"{name}.{case}.c", last[1])
                    last = last[0]
                put(f"{name}.{case}.h", last)


if __name__ == "__main__":
    torch.set_num_threads(1)
    batch_norms()
    layer_norms()
    convolutions()
    recurrent()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    save_file(out, OUT, metadata={"torch": torch.__version__})
    print(f"{OUT}: {len(out)} tensors")
