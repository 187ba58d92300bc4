"""English prose about Python that every CPython carries: the sentences of `pydoc_data.topics`."""

import re
from typing import Literal

from pydantic import Field

from aigc_lab.data.shared.sentences import Sentences

# Prose is what stands at the margin, in paragraphs; what is indented, underlined or a signature is not.
_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"*])")
_LEAST = 5
# *name* and **name** stress a word in the source; a page shows neither star. Those of "10**2" and "*args" are code.
_STRESS = re.compile(r"(?<![\w\"*])(\*{1,2})(\w[^*\"]*)(?<!\s)\1(?![\w\"*])")


class PyDoc(Sentences):
    """Sentences of the documentation, at least 5 words long: paragraphs are joined to lines and cut after full stops.

    The text differs between versions of Python, so its digest is a part of every score. Whole passages stand under
    several topics, so repeated sentences are dropped by default.
    """

    source = "https://docs.python.org/3/reference/"

    class Config(Sentences.Config):
        repeated: Literal["keep", "drop"] = Field("drop", description="what is done with sentences that repeat another")
        reference: float = Field(0.15, gt=0, lt=0.5, description="share of the sentences")
        holdout: float = Field(0.15, gt=0, lt=0.5, description="share of the sentences")

    def lines(self) -> tuple[list[str], list[str]]:
        from pydoc_data.topics import topics

        sentences = []
        for name in sorted(topics):
            for paragraph in re.split(r"\n\s*\n", topics[name]):
                sentences += [each for each in _END.split(_prose(paragraph)) if _is_sentence(each)]
        return sentences, []


def _prose(paragraph: str) -> str:
    lines = paragraph.strip("\n").split("\n")
    if lines[0].startswith(("   ", "[", ">>>", "|", "+", "...")) or set(lines[-1].strip()) <= set("*=-^~+|"):
        return ""
    # A hyphen at the end of a line is the documentation's own, or one that a break has put there: "built-\nin".
    text = re.sub(r"-\s*\n\s*", "-", "\n".join(lines))
    return _STRESS.sub(r"\2", " ".join(text.split())).lstrip("*- ")


def _is_sentence(text: str) -> bool:
    return text[:1].isupper() and text.endswith((".", "!", "?")) and len(text.split()) >= _LEAST and "::=" not in text
