"""Functions that PyTorch compiles into few kernels on a GPU and that run as they are elsewhere."""

from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class fused(Generic[Arguments, Result]):  # noqa: N801 - a decorator
    """Compiled at its first call with a tensor on a GPU as first argument.

    From the second shape on, the kernels are for any shape of that rank and type, except that a
    size of 1 has kernels of its own.
    """

    def __init__(self, function: Callable[Arguments, Result]) -> None:
        self._plain = function
        update_wrapper(self, function)

    def __call__(self, *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        first: Any = arguments[0]
        function = self._compiled if first.device.type == "cuda" else self._plain
        return function(*arguments, **named)

    @cached_property
    def _compiled(self) -> Callable[Arguments, Result]:
        # Not earlier: asking for it imports the compiler, which takes seconds.
        config: Any = torch._dynamo.config
        # Another family is other parts, and so another compilation: none may be given up.
        config.recompile_limit = max(config.recompile_limit, 64)
        compiled: Any = torch.compile(self._plain)
        return compiled  # type: ignore[no-any-return]
