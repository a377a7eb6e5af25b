"""GGUF files: what their reader finds, the model and the tokenizer in them, and errors that name the file."""

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from safetensors.numpy import load_file

from showwork import tokenizer as tokenizers
from showwork.errors import UserError
from showwork.models import gguf_file, gguf_gemma, gguf_tokenizer, hf_config, published, saving, tensors
from showwork.models.gguf_file import GgufFile
from showwork.models.gguf_gemma import GgufGemma
from showwork.models.specs import MODELS
from showwork.models.weights import Source
from tests.weights import made

ODD = ("  two  spaces ", "a\tb\n\nc", "é e\u0301 😀 \x00 \u202e", "<start_of_turn>user\n5?<end_of_turn>\n", "1080", "")


def source_of(path: Path) -> Source:
    return Source(path, None, (path,))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: made.folder(tmp_path_factory.mktemp("published") / name, name) for name in made.ARCHITECTURES}


@pytest.fixture(scope="module")
def whole(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 3 in float32."""
    return made.write(folders["gemma3_test"], tmp_path_factory.mktemp("gguf") / "model.gguf")


def convert(source: Source, folder: Path, name: str, *, vocabulary: int = made.VOCABULARY) -> None:
    with published.opened(source) as found:
        saving.convert(found, folder, spec=MODELS[name], vocabulary=vocabulary, stop_ids=(5, 1))


# ---------------------------------------------------------------------------------------------------- the container


def test_it_reads_what_the_library_reads(whole: Path) -> None:
    ours, theirs = GgufFile(whole), gguf.GGUFReader(whole)
    assert ours.metadata == {key: f.contents() for key, f in theirs.fields.items() if not key.startswith("GGUF.")}
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        np.testing.assert_array_equal(ours.read(tensor.name), tensor.data)


@pytest.mark.parametrize("cuts", [(1,), (3, 4, 5000), (20_001, 20_002, 90_000)])
def test_parts_are_one_file(whole: Path, tmp_path: Path, cuts: tuple[int, ...]) -> None:
    content = whole.read_bytes()
    parts = []
    for start, end in zip((0, *cuts), (*cuts, len(content)), strict=True):
        parts.append(tmp_path / f"part{len(parts)}")
        parts[-1].write_bytes(content[start:end])
    ours, one = GgufFile(Path("model.gguf"), parts), GgufFile(whole)
    assert ours.metadata == one.metadata
    for name in one.tensors:
        np.testing.assert_array_equal(ours.read(name), one.read(name))


def can_undo(kind: Kind) -> bool:
    try:
        gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


@pytest.mark.parametrize("kind", [kind for kind in Kind if can_undo(kind)], ids=lambda kind: kind.name)
def test_every_quantisation_that_the_library_undoes(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some rows at a time give what all at once do. Random bytes: half of them are no numbers, in both."""
    values, size = gguf.GGML_QUANT_SIZES[kind]
    width = 2 * max(values, 16)
    raw = np.random.default_rng(0).integers(0, 255, (70, width // values * size), np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "one.gguf", "gemma3")
    writer.add_tensor("x", raw, raw_dtype=kind)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    monkeypatch.setattr(gguf_file, "_BLOCK_BYTES", 7 * raw.shape[1])
    file = GgufFile(tmp_path / "one.gguf")
    assert file.tensors["x"].shape == (70, width)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(file.read("x"), gguf.quants.dequantize(raw, kind))


# -------------------------------------------------------------------------------------------------------- the model


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0], ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", made.ARCHITECTURES)
def test_a_gemma_becomes_a_folder_in_float32(name: str, kind: Kind, folders: dict[str, Path], tmp_path: Path) -> None:
    path = made.write(folders[name], tmp_path / "model.gguf", name, kind=kind)
    convert(source_of(path), tmp_path / "out", name)
    assert hf_config.read(tmp_path / "out") == hf_config.Header(MODELS[name], made.VOCABULARY, "float32", False)
    before, after = (load_file(folder / tensors.WEIGHTS) for folder in (folders[name], tmp_path / "out"))
    assert before.keys() == after.keys()
    for tensor, value in before.items():
        assert after[tensor].dtype == np.float32
        if value.ndim == 1:  # (1 + weight) - 1: up to half of float32's step at 1, to 2 below 4
            np.testing.assert_allclose(after[tensor], value, rtol=0, atol=2**-23)
            continue
        rounded = gguf.quants.dequantize(gguf.quants.quantize(value, kind), kind)
        np.testing.assert_array_equal(after[tensor], rounded)
        assert (kind == Kind.F32) == np.array_equal(rounded, value)


def test_what_llama_cpp_writes_of_the_published_gemma_3_270m_is_its_shape(tmp_path: Path) -> None:
    """The metadata of a published file, which leave out the pattern of layers and the local rotary base."""
    keys = {
        "context_length": 32768, "embedding_length": 640, "block_count": 18, "feed_forward_length": 2048,
        "attention.head_count": 4, "attention.layer_norm_rms_epsilon": 1e-6, "attention.key_length": 256,
        "attention.value_length": 256, "rope.freq_base": 1e6, "attention.sliding_window": 512,
        "attention.head_count_kv": 1,
    }  # fmt: skip
    assert spec_of(tmp_path, "gemma3", keys) == MODELS["gemma3_270m"]
    scaled = {
        "embedding_length": 2560, "block_count": 34, "feed_forward_length": 10240, "attention.head_count": 8,
        "attention.head_count_kv": 4, "attention.sliding_window": 1024, "rope.scaling.type": "linear",
        "rope.scaling.factor": 8.0,
    }  # fmt: skip
    assert spec_of(tmp_path, "gemma3", keys | scaled) == MODELS["gemma3_4b"]
    layers = [(i + 1) % 6 > 0 for i in range(34)]
    listed = {"attention.sliding_window_pattern": layers, "rope.freq_base_swa": 1e4}
    assert spec_of(tmp_path, "gemma3", keys | scaled | listed) == MODELS["gemma3_4b"]


def spec_of(folder: Path, architecture: str, keys: dict[str, Any]) -> Any:
    """The shape in metadata, by way of a file without tensors, which has everything but them."""
    writer = gguf.GGUFWriter(folder / "keys.gguf", architecture)
    for key, value in keys.items():
        made.add(writer, f"{architecture}.{key}", value)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return gguf_gemma._read_spec(GgufFile(folder / "keys.gguf"))


# ----------------------------------------------------------------------------------------------------- the tokenizer


def test_the_tokenizer_is_the_one_that_it_was_made_from(whole: Path, folders: dict[str, Path]) -> None:
    rebuilt = tokenizers.Tokenizer(gguf_tokenizer.rebuild(GgufFile(whole)))
    original = tokenizers.Tokenizer((folders["gemma3_test"] / "tokenizer.model").read_bytes())
    assert len(rebuilt) == len(original) == made.VOCABULARY
    for text in (*made.TEXTS, *ODD):
        assert rebuilt.encode(text) == original.encode(text)
        assert rebuilt.decode(rebuilt.encode(text)) == text
    assert len(rebuilt.encode("<start_of_turn>")) == 1
    assert rebuilt.encode("  ") == [made.VOCABULARY - 1]
    assert rebuilt.stop_ids() == original.stop_ids()


def test_equal_files_give_equal_bytes(whole: Path) -> None:
    assert gguf_tokenizer.rebuild(GgufFile(whole)) == gguf_tokenizer.rebuild(GgufFile(whole))


def test_rows_that_only_fill_up_the_embedding_get_no_token(folders: dict[str, Path], tmp_path: Path) -> None:
    def fill(keys: dict[str, Any], stored: dict[str, Any]) -> None:
        keys["tokenizer.ggml.tokens"] += ["[PAD320]", "[PAD321]"]
        keys["tokenizer.ggml.scores"] += [-1000.0, -1000.0]
        keys["tokenizer.ggml.token_type"] += [made.TYPES.UNUSED] * 2
        stored["token_embd.weight"] = np.concatenate([stored["token_embd.weight"], np.ones((2, 32), np.float32)])

    source = source_of(made.write(folders["gemma3_test"], tmp_path / "model.gguf", edit=fill))
    words = published.write_tokenizer(source, tmp_path / "out")
    assert len(words) == made.VOCABULARY
    convert(source, tmp_path / "out", "gemma3_test", vocabulary=len(words))
    assert load_file(tmp_path / "out" / tensors.WEIGHTS)[tensors.EMBEDDING].shape == (made.VOCABULARY, 32)
    assert len(tokenizers.load(tmp_path / "out")) == made.VOCABULARY


# ---------------------------------------------------------------------------------------------------------- mistakes


def test_a_file_cut_short_is_a_mistake_wherever_it_ends(whole: Path, tmp_path: Path) -> None:
    content = whole.read_bytes()
    data = len(content) - sum(stored.bytes for stored in GgufFile(whole).tensors.values())
    for end in (4, 10, 24, 100, 1000, data - 100, data + 10, len(content) - 40):
        (tmp_path / "cut.gguf").write_bytes(content[:end])
        with pytest.raises(UserError, match=r"cut\.gguf: cut short: [\d,]+ bytes belong to it, .* fetch it again"):
            GgufFile(tmp_path / "cut.gguf")


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04 and more", b"\x00" * 100])
def test_another_file_is_a_mistake(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.gguf: not a GGUF file"):
        GgufFile(tmp_path / "x.gguf")
    with pytest.raises(UserError, match=r"y\.gguf: can't be read: No such file"):
        GgufFile(tmp_path / "y.gguf")


def test_another_version_is_a_mistake(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + struct.pack("<I", 1) + whole.read_bytes()[8:])
    with pytest.raises(UserError, match="GGUF of version 1; this reads versions 2 and 3"):
        GgufFile(tmp_path / "x.gguf")


def renamed(before: str, after: str) -> Any:
    return lambda keys, stored: stored.update({after: stored.pop(before)})


def without(key: str) -> Any:
    return lambda keys, stored: keys.pop(key)


def changed(key: str, value: Any) -> Any:
    return lambda keys, stored: keys.update({key: value})


def narrowed(keys: dict[str, Any], stored: dict[str, Any]) -> None:
    stored["blk.0.attn_q.weight"] = np.zeros((31, 32), np.float32)


def integers(keys: dict[str, Any], stored: dict[str, Any]) -> None:
    stored["blk.0.attn_q.weight"] = np.zeros((32, 32), np.int32)


def fewer_tokens(keys: dict[str, Any], stored: dict[str, Any]) -> None:
    for key in ("tokens", "scores", "token_type"):
        del keys[f"tokenizer.ggml.{key}"][-1:]


FAULTS = {
    "llama": (changed("general.architecture", "llama"), r"general\.architecture is llama; this reads gemma, gemma2"),
    "no width": (without("gemma3.embedding_length"), r"lacks gemma3\.embedding_length"),
    "no window": (without("gemma3.attention.sliding_window"), r"lacks gemma3\.attention\.sliding_window"),
    "another epsilon": (
        changed("gemma3.attention.layer_norm_rms_epsilon", 1e-5), r"rms_epsilon is 9.99\d+e-06; Tunix's gemma3 computes"
    ),
    "values of another size": (changed("gemma3.attention.value_length", 32), r"value_length is 32; Tunix's gemma3"),
    "other rotary positions": (changed("gemma3.rope.scaling.type", "yarn"), r"rope\.scaling\.type is yarn"),
    "integers": (integers, r"blk\.0\.attn_q\.weight is stored as I32, which the library gguf does not turn"),
    "a tensor of another shape": (narrowed, r"blk\.0\.attn_q\.weight is \(31, 32\); by its metadata it is \(32, 32\)"),
    "a tensor less": (renamed("blk.1.ffn_up.weight", "x"), r"lacks blk\.1\.ffn_up\.weight, which its metadata say"),
    "no embedding": (renamed("token_embd.weight", "x"), r"lacks token_embd\.weight, the embedding"),
    "a tensor more": (
        lambda keys, stored: stored.update(x=np.zeros(4, np.float32)), r"has x, for which a gemma3 has no place"
    ),
    "a vocabulary of another model": (
        fewer_tokens, r"its vocabulary has 319 tokens, its embedding 320 rows: they are not of one model"
    ),
    "no vocabulary": (without("tokenizer.ggml.tokens"), r"its vocabulary has 0 tokens, its embedding 320 rows"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_of_another_kind_is_a_mistake_that_is_named(
    fault: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    edit, message = FAULTS[fault]
    path = made.write(folders["gemma3_test"], tmp_path / "bad.gguf", edit=edit)
    with pytest.raises(UserError, match=rf"bad\.gguf: .*{message}") as caught:
        GgufGemma(GgufFile(path))
    assert "\n" not in str(caught.value)


TOKENIZER_FAULTS = {
    "another kind": (changed("tokenizer.ggml.model", "gpt2"), r"tokenizer\.ggml\.model is gpt2; a Gemma's is llama"),
    "no scores": (without("tokenizer.ggml.scores"), r"320 tokens, 0 scores and 320 kinds"),
    "another BOS": (changed("tokenizer.ggml.bos_token_id", 1), r"the bos token is 1; a Gemma's is 2"),
}


@pytest.mark.parametrize("fault", TOKENIZER_FAULTS)
def test_another_tokenizer_is_a_mistake_that_is_named(fault: str, folders: dict[str, Path], tmp_path: Path) -> None:
    edit, message = TOKENIZER_FAULTS[fault]
    path = made.write(folders["gemma3_test"], tmp_path / "bad.gguf", edit=edit)
    with pytest.raises(UserError, match=rf"bad\.gguf: .*{message}"):
        published.write_tokenizer(source_of(path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_model_than_params_yaml_names_is_a_mistake(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.name is gemma2_test, but .*model\.gguf holds gemma3_test"):
        convert(source_of(whole), tmp_path / "out", "gemma2_test")
    assert not (tmp_path / "out").exists()


def test_the_library_knows_no_more_types_than_are_named_here(whole: Path, tmp_path: Path) -> None:
    content = bytearray(whole.read_bytes())
    at = content.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8  # after one dimension: its type
    content[at : at + 4] = struct.pack("<I", 999)
    (tmp_path / "new.gguf").write_bytes(content)
    with pytest.raises(UserError, match=r"output_norm\.weight is stored in type 999, which no GGUF has known so far"):
        GgufFile(tmp_path / "new.gguf")
