"""Trimming methods, one file each, and what methods are written with. Importing this package registers them all.

A method is a frozen dataclass that derives from the base class that asks least of it (`PerImage`, `ClassAttention`,
`OneCut`, `AttentionSchedule` or `Method`). With `register` it is found by its name; another distribution's methods are
found if their module stands in the entry-point group ``vistrim.methods``.
"""

from vistrim.core.model_facts import ModelFacts
from vistrim.core.schedules import budget, check_keep
from vistrim.core.scores import AttentionRows
from vistrim.core.selection import Selection, keep_top
from vistrim.core.structure import LayerStructure
from vistrim.methods.base.attention_schedule import AttentionSchedule
from vistrim.methods.base.checks import check_positions
from vistrim.methods.base.class_attention import ClassAttention, ranking
from vistrim.methods.base.composition import Composed, Composition
from vistrim.methods.base.guidance import Guidance
from vistrim.methods.base.method import Method, Positions
from vistrim.methods.base.named_model import ModelLoader, NamedModel
from vistrim.methods.base.notation import compose, load_method
from vistrim.methods.base.one_cut import OneCut
from vistrim.methods.base.per_image import ImageChoice, ImageTokens, PerImage
from vistrim.methods.base.registry import MethodInfo, get_method, list_methods, register
from vistrim.methods.base.stage_inputs import InputTokens, LayerTokens, VisionTokens
from vistrim.methods.blind import Blind
from vistrim.methods.cdpruner import CDPruner
from vistrim.methods.dart import DART
from vistrim.methods.divprune import DivPrune
from vistrim.methods.downsample import Downsample
from vistrim.methods.dyvte import DyVTE
from vistrim.methods.fastervlm import FasterVLM
from vistrim.methods.fastv import FastV
from vistrim.methods.gsearch import GSearch
from vistrim.methods.holov import HoloV
from vistrim.methods.hybrid import Hybrid
from vistrim.methods.pool import Pool
from vistrim.methods.psigmoid import PSigmoid
from vistrim.methods.pvtp import PVTP
from vistrim.methods.pyramiddrop import PyramidDrop
from vistrim.methods.quecc import QueCC
from vistrim.methods.random import Random
from vistrim.methods.scope import SCOPE
from vistrim.methods.sgl import SGL
from vistrim.methods.sparsevlm import SparseVLM
from vistrim.methods.st3 import ST3
from vistrim.methods.uniform import Uniform
from vistrim.methods.visionzip import VisionZip
from vistrim.methods.vispruner import VisPruner
from vistrim.methods.vscan import VScan
from vistrim.methods.vta import VTA
from vistrim.methods.vtc_cls import VTCCLS
from vistrim.methods.vtw import VTW
from vistrim.methods.yopo import YOPO

__all__ = [
    "DART",
    "PVTP",
    "SCOPE",
    "SGL",
    "ST3",
    "VTA",
    "VTCCLS",
    "VTW",
    "YOPO",
    "AttentionRows",
    "AttentionSchedule",
    "Blind",
    "CDPruner",
    "ClassAttention",
    "Composed",
    "Composition",
    "DivPrune",
    "Downsample",
    "DyVTE",
    "FastV",
    "FasterVLM",
    "GSearch",
    "Guidance",
    "HoloV",
    "Hybrid",
    "ImageChoice",
    "ImageTokens",
    "InputTokens",
    "LayerStructure",
    "LayerTokens",
    "Method",
    "MethodInfo",
    "ModelFacts",
    "ModelLoader",
    "NamedModel",
    "OneCut",
    "PSigmoid",
    "PerImage",
    "Pool",
    "Positions",
    "PyramidDrop",
    "QueCC",
    "Random",
    "Selection",
    "SparseVLM",
    "Uniform",
    "VScan",
    "VisPruner",
    "VisionTokens",
    "VisionZip",
    "budget",
    "check_keep",
    "check_positions",
    "compose",
    "get_method",
    "keep_top",
    "list_methods",
    "load_method",
    "ranking",
    "register",
]
