"""Makes minibatch/tests/golden/collate.safetensors: sequences padded, packed and unpacked by PyTorch 2.11.

Run through `make golden`, which brings torch==2.11.0 (tests/golden/requirements.txt). Everything is seeded; on one machine
the file comes out the same each time.
"""

import pathlib

import torch
from safetensors.torch import save_file
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

OUT = pathlib.Path(__file__).resolve().parents[2] / "minibatch/tests/golden/collate.safetensors"
out: dict[str, torch.Tensor] = {}


def case(name: str, lengths: list[int], seed: int) -> None:
    """A batch of sequences with two columns, f32 of shape [3] and i64 scalars."""
    generator = torch.Generator().manual_seed(seed)
    xs = [torch.randn(n, 3, generator=generator) for n in lengths]
    tokens = [torch.randint(1, 1000, (n,), generator=generator) for n in lengths]
    out[f"{name}.lengths"] = torch.tensor(lengths)
    out[f"{name}.x"] = torch.cat(xs)
    out[f"{name}.tokens"] = torch.cat(tokens)
    for layout, batch_first in [("bt", True), ("tb", False)]:
        padded = pad_sequence(xs, batch_first=batch_first, padding_value=-2.5)
        out[f"{name}.{layout}.x"] = padded
        out[f"{name}.{layout}.tokens"] = pad_sequence(tokens, batch_first=batch_first, padding_value=7)
        packed = pack_padded_sequence(padded, torch.tensor(lengths), batch_first=batch_first, enforce_sorted=False)
        # torch.sort leaves the order of equal lengths open, and beyond 16 of them it is not stable. Sorted stably beforehand, as
        # rl-minibatch does it, the same function has nothing left open.
        order = torch.sort(torch.tensor(lengths), descending=True, stable=True)[1]
        if len(lengths) <= 16 or len(set(lengths)) == len(lengths):
            assert torch.equal(packed.sorted_indices, order), name
            inverse = packed.unsorted_indices
        else:
            by_batch = padded if batch_first else padded.transpose(0, 1)
            ordered = by_batch[order] if batch_first else by_batch[order].transpose(0, 1)
            packed = pack_padded_sequence(ordered, torch.tensor(lengths)[order], batch_first=batch_first)
            inverse = torch.argsort(order)
        put(f"{name}.sorted_indices", order)
        put(f"{name}.unsorted_indices", inverse)
        put(f"{name}.batch_sizes", packed.batch_sizes)
        put(f"{name}.packed.x", packed.data)
        # Its inverse, to more steps than the longest has.
        longer, _ = pad_packed_sequence(packed, batch_first=batch_first, padding_value=0.5, total_length=max(lengths) + 3)
        if packed.unsorted_indices is None:
            longer = longer[inverse] if batch_first else longer[:, inverse]
        out[f"{name}.{layout}.longer"] = longer
    tokens_padded = pad_sequence(tokens, batch_first=True)
    packed = pack_padded_sequence(tokens_padded[order], torch.tensor(lengths)[order], batch_first=True)
    out[f"{name}.packed.tokens"] = packed.data


def put(name: str, tensor: torch.Tensor) -> None:
    """Both layouts have to come to the same."""
    assert name not in out or torch.equal(out[name], tensor), name
    out[name] = tensor


case("distinct", [4, 7, 1, 3, 9, 2], 1)
case("ties", [3, 5, 3, 1, 5, 5, 2, 3], 2)
case("one", [6], 3)
case("equal", [4, 4, 4], 4)
case("many", [1 + (i * 37) % 41 for i in range(40)], 5)
case("many_ties", [1 + (i * i * 7) % 11 for i in range(40)], 6)

OUT.parent.mkdir(parents=True, exist_ok=True)
save_file({name: tensor.contiguous() for name, tensor in out.items()}, OUT)
print(f"{OUT}: {len(out)} tensors, {OUT.stat().st_size} bytes")
