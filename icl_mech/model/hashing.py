"""The same weights, the same hash."""

import hashlib

import torch


def hash_weights(model: torch.nn.Module) -> str:
    """sha256 over the names, shapes, types and bytes of all parameters."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().contiguous().cpu().view(-1).view(torch.uint8)
        digest.update(flat.numpy().data)
    return digest.hexdigest()
