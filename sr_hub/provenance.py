"""What made a picture: written into it and read back."""

import hashlib

import torch


def hash_weights(generator: torch.nn.Module) -> str:
    """SHA-256 of a network's weights, in hexadecimal, whatever device they are on."""
    digest = hashlib.sha256()
    for name, value in sorted(generator.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
