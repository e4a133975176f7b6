"""Detection of out-of-memory errors."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device or the machine is out of memory."""
    if isinstance(error, MemoryError):
        return True
    # On the CPU, torch raises a plain RuntimeError.
    if not isinstance(error, RuntimeError):
        return False
    # Imported here because some commands do not need torch.
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
