"""Memory that runs out."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the machine has no memory left."""
    if isinstance(error, MemoryError):
        return True
    # On the CPU torch raises a bare RuntimeError.
    if not isinstance(error, RuntimeError):
        return False
    # Commands that need no torch can fail, too.
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
