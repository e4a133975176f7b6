"""Extension of griffe for mkdocstrings: what it cannot read in our docstrings, in a form that it can."""

import re
from typing import Any

from griffe import Extension, Object
from latex2mathml.converter import convert

_BLOCK = re.compile(r"^( *)\.\. math:: *(.*(?:\n(?:\1 +\S.*|\s*(?=\n\1 +\S)))*)", re.MULTILINE)
_INLINE = re.compile(r":math:`([^`]+)`")
_SHARED = re.compile(r"^(\w+(?:, \w+)+)( : .*)?\n((?: {4}.*(?:\n|$)|\n(?= {4}))+)", re.MULTILINE)
"""Several parameters with one description. griffe would give all of them the default of the first."""
_ROLE = re.compile(r":(?:class|func|mod|meth):`~?([^`]+)`")


class Docstrings(Extension):
    """Formulas become MathML, which browsers draw without scripts and fonts of other hosts."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(text: str) -> str:
    """Give each parameter an entry of its own, and replace formulas by MathML and roles by code."""
    text = _SHARED.sub(
        lambda found: "".join(f"{name}{found[2] or ''}\n{found[3]}" for name in found[1].split(", ")), text
    )
    text = _BLOCK.sub(lambda found: f"{found[1]}<p>{_mathml(found[2], 'block')}</p>\n", text)
    text = _INLINE.sub(lambda found: f"<span>{_mathml(found[1], 'inline')}</span>", text)
    return _ROLE.sub(r"`\1`", text)


def _mathml(latex: str, display: str) -> str:
    # latex2mathml does not know \argmax.
    return convert(" ".join(latex.split()).replace(r"\arg\max", r"\operatorname{arg\,max}"), display=display)
