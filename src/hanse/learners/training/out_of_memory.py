"""Errors of too little memory for training, and advice to the user."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hanse.errors import UserError
from hanse.observability.memory import available_memory

# Messages of torch and the libraries below it, where they do not raise torch's own error.
MESSAGES = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_shortage(error: Exception) -> bool:
    """True if an error means that the memory of the machine or the GPU did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in MESSAGES)


def refusal(error: Exception) -> UserError:
    """The error for the user when not even one client fits into memory."""
    reason = str(error).strip().partition("\n")[0][:200] or "out of memory"
    return UserError(
        f"memory does not suffice to train one client by itself ({reason}); lower "
        "train.per_device_train_batch_size or model.max_length, or set "
        "model.gradient_checkpointing: true."
    )


@contextmanager
def shortage_as_user_error() -> Iterator[None]:
    """Within this context, a shortage of memory raises UserError with advice."""
    try:
        yield
    except Exception as error:
        if is_shortage(error):
            raise refusal(error) from None
        raise


def free_memory(device: torch.device) -> int:
    """The bytes that are free on a device, what torch keeps for later there included."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return available_memory()


def release_memory(device: torch.device) -> None:
    """Free memory that is not referenced any more; call it after the error's frames are gone."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
