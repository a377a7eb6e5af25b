"""Published weights to convert, in a folder of safetensors or in a GGUF file, and the tokenizer that they bring."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from showwork import tokenizer as tokenizers
from showwork.errors import UserError
from showwork.models import gguf_tokenizer, hf_config, layout, tensors
from showwork.models.gguf_file import GgufFile
from showwork.models.gguf_gemma import GgufGemma
from showwork.models.specs import GemmaSpec
from showwork.models.weights import Source
from showwork.tokenizer import Tokenizer


class Published(NamedTuple):
    """A published model whose tensors are all there, in the shapes of its spec."""

    place: Path
    """For messages."""
    spec: GemmaSpec
    vocabulary: int
    """Rows of its embedding."""
    dtype: str
    """Of its tensors; float32 where they are turned into numbers from a quantisation."""
    read: layout.Read
    """Its tensors by their published names."""

    def require(self, spec: GemmaSpec) -> None:
        """Raises UserError where it is not the model that params.yaml names."""
        if self.spec != spec:
            wanted, found = hf_config.describe(spec), hf_config.describe(self.spec)
            raise UserError(f"params.yaml: model.name is {wanted}, but {self.place} holds {found}")


@contextmanager
def opened(source: Source) -> Generator[Published]:
    """Raises UserError that names the file where one is missing, cut short, of another model, or at odds with another.

    No tensor is read before.
    """
    if source.parts:
        gemma = GgufGemma(GgufFile(source.place, source.parts))
        yield Published(source.place, gemma.spec, gemma.vocabulary, "float32", gemma.__getitem__)
        return
    header = hf_config.read(source.place)
    placed = layout.places(header.spec, vocabulary=header.vocabulary)
    with tensors.Tensors(source.place, has_vision=header.has_vision) as found:
        found.check({name: place.shape for name, place in placed.items()}, dtype=header.dtype)
        yield Published(source.place, header.spec, header.vocabulary, header.dtype, found.__getitem__)


def write_tokenizer(source: Source, folder: Path) -> Tokenizer:
    """Writes the tokenizer's files, those for transformers included. Raises UserError if it is none of a Gemma."""
    if source.parts:
        tokenizers.save(gguf_tokenizer.rebuild(GgufFile(source.place, source.parts)), folder)
        return tokenizers.load_published(folder)
    found = tokenizers.load_published(source.place)
    tokenizers.adopt(source.place, folder)
    return found
