"""Counting what a selection runs, with torch.profiler."""

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

WAITING = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2"}
NO_KERNELS = {
    *("view", "as_strided", "select", "slice", "transpose", "t", "numpy_T", "expand", "unbind", "split", "detach"),
    *("alias", "permute", "unsqueeze", "squeeze", "narrow", "reshape", "diagonal", "to", "contiguous", "resize_"),
    *("empty", "empty_like", "empty_strided", "resolve_conj", "resolve_neg", "result_type", "lift_fresh"),
    *("_unsafe_view", "expand_as", "flatten", "unflatten"),
}
"""Operations that only describe tensors, or allocate them."""
WHOLE = {
    *(
        "sort",
        "sum",
        "cumsum",
        "amax",
        "amin",
        "argmax",
        "topk",
        "aminmax",
        "addmv",
        "linalg_vector_norm",
        "masked_fill",
    ),
    *("where", "lerp", "mean", "_embedding_bag_forward_only", "_cdist_forward"),
}
"""Operations whose CPU versions call others."""


def kernels(events):
    """Names of the operations that run something, once each: what an operation calls itself does not count."""
    ours = [event for event in events if event.device_type == DeviceType.CPU and event.name.startswith("aten::")]
    names = {event.id: event.name.removeprefix("aten::") for event in ours}

    def runs(event):
        return names[event.id] not in NO_KERNELS

    def inside(event):
        parent = event.cpu_parent
        while parent is not None and names.get(parent.id) not in WHOLE:
            parent = parent.cpu_parent
        return parent is not None

    def calls(event):
        return any(child.id in names and runs(child) for child in event.cpu_children)

    return [names[e.id] for e in ours if runs(e) and not inside(e) and (names[e.id] in WHOLE or not calls(e))]


def profiled(function):
    """Call a function; return its result, the operations that it ran, and those that wait for a device."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        result = function()
    events = profiler.events()
    return result, kernels(events), WAITING & {event.name for event in events}
