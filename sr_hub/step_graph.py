"""A training step as one CUDA graph: its thousand kernels are started together, not one by one."""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 4
"""Steps taken as usual before the capture: there buffers are made, kernels compiled and chosen."""


class StepGraph:
    """Takes the first steps as usual, then records one and replays it with new inputs.

    Whatever the step reads that changes from step to step must lie in a tensor: its inputs, or one that the
    caller fills before the call. It must not wait for the GPU.

    Args:
        step: From tensors on one CUDA device, always of the same shapes, to losses by name.
    """

    def __init__(self, step: Callable[..., dict[str, Tensor]]) -> None:
        self.step = step
        self.taken = 0
        self.stream = torch.cuda.Stream()
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The losses of one step, in tensors of their own."""
        if self.taken < WARM_UP:
            self.taken += 1
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                losses = self.step(*inputs)
            torch.cuda.current_stream().wait_stream(self.stream)
            return losses
        if self.graph is None:
            self.inputs = [value.clone() for value in inputs]
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self.stream):
                self.losses = self.step(*self.inputs)
        for own, value in zip(self.inputs, inputs, strict=True):
            own.copy_(value)
        self.graph.replay()
        return {name: value.clone() for name, value in self.losses.items()}
