"""Trimming methods, one file each. Importing this package registers all of them."""

from vistrim.methods.base.composition import Composed, compose
from vistrim.methods.base.method import Method
from vistrim.methods.base.registry import MethodInfo, get_method, list_methods
from vistrim.methods.dyvte import DyVTE
from vistrim.methods.fastervlm import FasterVLM
from vistrim.methods.fastv import FastV
from vistrim.methods.gsearch import GSearch
from vistrim.methods.hybrid import Hybrid
from vistrim.methods.pool import Pool
from vistrim.methods.psigmoid import PSigmoid
from vistrim.methods.pvtp import PVTP
from vistrim.methods.pyramiddrop import PyramidDrop
from vistrim.methods.quecc import QueCC
from vistrim.methods.random import Random
from vistrim.methods.sgl import SGL
from vistrim.methods.sparsevlm import SparseVLM
from vistrim.methods.st3 import ST3
from vistrim.methods.uniform import Uniform
from vistrim.methods.vispruner import VisPruner
from vistrim.methods.vta import VTA
from vistrim.methods.vtc_cls import VTCCLS
from vistrim.methods.vtw import VTW
from vistrim.methods.yopo import YOPO

__all__ = [
    "PVTP",
    "SGL",
    "ST3",
    "VTA",
    "VTCCLS",
    "VTW",
    "YOPO",
    "Composed",
    "DyVTE",
    "FastV",
    "FasterVLM",
    "GSearch",
    "Hybrid",
    "Method",
    "MethodInfo",
    "PSigmoid",
    "Pool",
    "PyramidDrop",
    "QueCC",
    "Random",
    "SparseVLM",
    "Uniform",
    "VisPruner",
    "compose",
    "get_method",
    "list_methods",
]
