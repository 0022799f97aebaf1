"""Memory that does not suffice for training: how it shows, and what the user can do."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hanse.errors import UserError

# What torch and the libraries below it say where they do not raise torch's own error.
SAID = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_shortage(error: Exception) -> bool:
    """Whether an error means that memory, the machine's or the GPU's, did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SAID)


def refusal(error: Exception) -> UserError:
    """What to tell the user when not even one client fits."""
    told = str(error).strip().partition("\n")[0][:200] or "out of memory"
    return UserError(
        f"memory does not suffice to train one client by itself ({told}); lower "
        "train.per_device_train_batch_size or model.max_length, or set "
        "model.gradient_checkpointing: true."
    )


@contextmanager
def refused() -> Iterator[None]:
    """Within, a shortage is the user's to mend."""
    try:
        yield
    except Exception as error:
        if is_shortage(error):
            raise refusal(error) from None
        raise


def clear(device: torch.device) -> None:
    """Give back what nobody holds any more, after the error itself is gone with all its frames."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
