"""Functions that PyTorch compiles into few kernels on a GPU and that run as they are elsewhere."""

import inspect
from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Free = tuple[int, ...]
"""Dimensions, counted from the end; those that a tensor lacks are passed over."""
MOST_COMPILATIONS = 1024  # of one function


class Fused(Generic[Arguments, Result]):
    """Compiled at its first call with a tensor on a GPU as first argument; see `fused`."""

    def __init__(self, function: Callable[Arguments, Result], free: dict[str, Free]) -> None:
        self._plain, self._free = function, free
        self._names = list(inspect.signature(function).parameters)
        if strange := free.keys() - set(self._names):
            raise ValueError(f"{function.__name__} takes no {', '.join(sorted(strange))}")
        update_wrapper(self, function)

    def __call__(self, *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        first: Any = arguments[0]
        function = self.compiled if first.device.type == "cuda" else self._plain
        return function(*arguments, **named)

    def compiled(self, *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        """The result of the compiled function, wherever the tensors are."""
        given = dict(zip(self._names, arguments, strict=False)) | named
        for name, dimensions in self._free.items():
            _let_vary(given.get(name), dimensions)
        made: Result = self._compiled(*arguments, **named)
        return made

    @cached_property
    def _compiled(self) -> Any:
        # Not earlier: asking for it imports the compiler, which takes seconds.
        give_up_none()
        return torch.compile(self._plain, dynamic=False)


def fused(
    **free: Free,
) -> Callable[[Callable[Arguments, Result]], Fused[Arguments, Result]]:
    """Have a function compiled once for every size of its arguments' `free` dimensions, a size of
    1 apart, and once for each of the others: another model gets kernels of its own, whichever came
    first. How a kernel adds up may still go by the sizes of its first call.

    free: by the name of an argument, a tensor or a tuple of them, as in hidden=(-3, -2).
    """
    return lambda function: Fused(function, free)


def give_up_none() -> None:
    """Let one function have as many compilations as a process has models and forms of them.

    Beyond its limits PyTorch's compiler would let the function run as it is, with other bytes.
    """
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, MOST_COMPILATIONS)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, MOST_COMPILATIONS)


def _let_vary(value: object, dimensions: Free) -> None:
    if isinstance(value, tuple):
        for part in value:
            _let_vary(part, dimensions)
    if not isinstance(value, Tensor):
        return
    for dimension in dimensions:
        place = value.dim() + dimension
        if place >= 0 and value.shape[place] > 1:
            torch._dynamo.maybe_mark_dynamic(value, place)
