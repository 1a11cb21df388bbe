"""Which floating-point type is fast on a device."""

import torch

PRECISIONS = ("auto", "bf16", "fp32")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether ``device`` has bf16 instructions; CPUs without them emulate bf16 slowly."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
        return any(getattr(torch.cpu, name, bool)() for name in checks)
    return False


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """``torch.bfloat16`` or ``torch.float32`` for ``"auto"``, ``"bf16"`` or ``"fp32"`` on ``device``.

    Raises:
        ValueError: If ``precision`` is none of these.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32
