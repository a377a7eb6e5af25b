"""The tokenizer of a GGUF file, put together again as the SentencePiece model that it was made from."""

from itertools import takewhile
from typing import Any

from sentencepiece import sentencepiece_model_pb2

from showwork.errors import UserError
from showwork.models.gguf_file import GgufFile
from showwork.tokenizer import BOS, EOS, PAD, SPACE_MARK, UNK

_KEYS = ("tokens", "scores", "token_type")
_IDS = {"padding": PAD, "eos": EOS, "bos": BOS, "unknown": UNK}
_PROTOCOL: Any = sentencepiece_model_pb2  # its classes are made when it is imported
# GGUF numbers the kinds of pieces as SentencePiece does.
_KIND = _PROTOCOL.ModelProto.SentencePiece


def rebuild(file: GgufFile) -> bytes:
    """The bytes of tokenizer.model.

    Raises UserError where the file's vocabulary is not SentencePiece's, or has other ids than Gemma's.

    The marks of turns and the unused tokens are found in texts, as by the published tokenizers: here they are symbols
    of the user, and in the file control tokens, which SentencePiece would read as ordinary text. Rows that only fill
    up the embedding get no token.
    """
    tokens, scores, kinds = _read(file)
    filling = len(list(takewhile(lambda kind: kind == _KIND.UNUSED, reversed(kinds))))
    model = _PROTOCOL.ModelProto()
    for i in range(len(tokens) - filling):
        kind = kinds[i]
        if i == UNK:
            kind = _KIND.UNKNOWN
        elif kind == _KIND.CONTROL and i not in (PAD, EOS, BOS):
            kind = _KIND.USER_DEFINED
        # The file has symbols of the user as they are read, and all others as SentencePiece has them.
        text = tokens[i].replace(" ", SPACE_MARK) if kind == _KIND.USER_DEFINED else tokens[i]
        model.pieces.add(piece=text, score=scores[i], type=kind)
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type = _PROTOCOL.TrainerSpec.BPE
    trainer.vocab_size = len(model.pieces)
    trainer.pad_id, trainer.eos_id, trainer.bos_id, trainer.unk_id = PAD, EOS, BOS, UNK
    trainer.pad_piece, trainer.eos_piece, trainer.bos_piece, trainer.unk_piece = tokens[:4]
    trainer.byte_fallback = trainer.split_digits = trainer.allow_whitespace_only_pieces = True
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = normalizer.remove_extra_whitespaces = False
    return model.SerializeToString(deterministic=True)


def _read(file: GgufFile) -> tuple[list[str], list[float], list[int]]:
    kind = file.metadata.get("tokenizer.ggml.model")
    if kind != "llama":  # llama.cpp's name of SentencePiece
        raise UserError(f"{file.path}: tokenizer.ggml.model is {kind}; a Gemma's is llama, from SentencePiece")
    tokens, scores, kinds = (file.metadata.get(f"tokenizer.ggml.{key}", []) for key in _KEYS)
    if not len(tokens) == len(scores) == len(kinds) > UNK:
        raise UserError(
            f"{file.path}: its vocabulary has {len(tokens)} tokens, {len(scores)} scores and {len(kinds)} kinds"
        )
    for name, number in _IDS.items():
        if (found := file.metadata.get(f"tokenizer.ggml.{name}_token_id", number)) != number:
            raise UserError(f"{file.path}: the {name} token is {found}; a Gemma's is {number}")
    return tokens, scores, kinds
