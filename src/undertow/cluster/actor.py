"""What Ray starts on a place of a cluster: it gets ready before it is told of a study."""

from typing import TYPE_CHECKING, Any

from undertow.cluster.answers import Here, Spent
from undertow.cluster.parcels import Parcel

if TYPE_CHECKING:
    from undertow.cluster.worker import Worker


class Actor:
    """A worker's process. Its first seconds, which go to imports and to the GPU's context, need
    nothing of the driver, which meanwhile looks at what is due.

    threads: of torch. gpus: that are its own.
    """

    def __init__(self, threads: int, gpus: int) -> None:
        import torch

        from undertow.cluster import worker

        self._make: type[Worker] = worker.Worker
        self._threads = threads
        self._worker: Worker | None = None
        if gpus and torch.cuda.is_available():
            torch.zeros(1, device="cuda")

    def hello(self, shared: Parcel) -> Here:
        """Where it is, once it has a study; shared: params.yaml, dvc.yaml and data/."""
        import ray  # which has started this process

        self._worker = self._make(shared, self._threads)
        context = ray.get_runtime_context()
        given = context.get_accelerator_ids().get("GPU", [])
        return Here(context.get_node_id(), ",".join(map(str, given)))

    def together(self, *asked: Any) -> Spent:
        return self._standing().together(*asked)

    def stage(self, *asked: Any) -> Spent:
        return self._standing().stage(*asked)

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()

    def _standing(self) -> "Worker":
        if self._worker is None:
            raise RuntimeError("asked for work before hello")
        return self._worker
