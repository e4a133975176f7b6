"""Trimming methods: one file each. Importing this package registers them all."""

from vistrim.methods.base import Method
from vistrim.methods.pool import Pool
from vistrim.methods.pvtp import PVTP
from vistrim.methods.random import Random
from vistrim.methods.registry import MethodInfo, get_method, list_methods
from vistrim.methods.st3 import ST3
from vistrim.methods.uniform import Uniform
from vistrim.methods.vta import VTA

__all__ = [
    "PVTP",
    "ST3",
    "VTA",
    "Method",
    "MethodInfo",
    "Pool",
    "Random",
    "Uniform",
    "get_method",
    "list_methods",
]
