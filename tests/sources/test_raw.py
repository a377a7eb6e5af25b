"""The sources: bytes kept, provenance, and errors that name the file and the way out."""

import hashlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from showwork import files
from showwork.errors import UserError
from showwork.sources import raw


def test_files_are_joined_byte_for_byte(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_bytes(b'\xef\xbb\xbf{"question": "\xff"}\r\n{broken')
    second.write_bytes(b"{}\n")
    out = tmp_path / "raw" / "train.jsonl"
    provenance = raw.copy_jsonl([first, second], out)
    assert out.read_bytes() == b'\xef\xbb\xbf{"question": "\xff"}\r\n{broken\n{}\n'
    assert provenance == {
        "files": [
            {
                "path": first.as_posix(),
                "sha256": hashlib.sha256(first.read_bytes()).hexdigest(),
                "rows": 2,
                "bytes": len(first.read_bytes()),
            },
            {"path": second.as_posix(), "sha256": hashlib.sha256(b"{}\n").hexdigest(), "rows": 1, "bytes": 3},
        ]
    }


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.jsonl: no such file; correct data\.train_files"):
        raw.copy_jsonl([tmp_path / "no.jsonl"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a folder, not a file; name the files in it"):
        raw.copy_jsonl([tmp_path], tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_an_empty_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.jsonl: the file is empty; it needs one JSON object a line"):
        raw.copy_jsonl([tmp_path / "a.jsonl"], tmp_path / "out")


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"params\.yaml: data\.source is jsonl, but no file is named"):
        raw.copy_jsonl([], tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_read_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n")
    path.chmod(0)
    with pytest.raises(UserError, match=r"a\.jsonl: no permission to read it; run `chmod u\+r"):
        raw.copy_jsonl([path], tmp_path / "out")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), r"a\.jsonl: no permission to read it; run `chmod u\+r"),
        (OSError(5, "Input/output error"), r"a\.jsonl: can't be read \(Input/output error\)"),
    ],
)
def test_a_file_that_the_system_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
) -> None:
    def refuse(path: Path) -> bytes:
        raise error

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=message):
        raw.copy_jsonl([tmp_path / "a.jsonl"], tmp_path / "out")


def test_basic_maths_go_to_the_end_of_train(tmp_path: Path) -> None:
    header = "question,answer,reasoning,calc_expr\n"
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text(header + '"7 times 8,\nthat is?",56,I multiply.,7*8\nAnd 1+2?,3,,1+2\n')
    second.write_text(header + "2+2?,5,I add.,2+2\n")  # false, which is for cleaning to say
    train = tmp_path / "train.jsonl"
    train.write_text('{"question": "q"}\n')
    provenance = raw.append_basic_maths([first, second], train)
    assert list(files.read_jsonl(train)) == [
        {"question": "q"},
        {"question": "7 times 8,\nthat is?", "answer": "I multiply.\n7*8 = <<7*8=56>>56\n#### 56"},
        {"question": "And 1+2?", "answer": "1+2 = <<1+2=3>>3\n#### 3"},
        {"question": "2+2?", "answer": "I add.\n2+2 = <<2+2=5>>5\n#### 5"},
    ]
    assert [(file["path"], file["rows"]) for file in provenance["files"]] == [
        (first.as_posix(), 2),  # of four lines
        (second.as_posix(), 1),
    ]
    assert provenance["files"][0]["sha256"] == hashlib.sha256(first.read_bytes()).hexdigest()


def test_basic_maths_that_cannot_be_read_leave_train_alone(tmp_path: Path) -> None:
    train, good = tmp_path / "train.jsonl", tmp_path / "a.csv"
    train.write_text("{}\n")
    good.write_text("question,answer,reasoning,calc_expr\n1+2?,3,,1+2\n")
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "a"}\n{}\n')
    for name, message in (
        ("no.csv", r"no\.csv: no such file; correct data\.basic_maths_files in params\.yaml"),
        ("", r"a folder, not a file; name the files in it: correct data\.basic_maths_files"),
        ("rows.jsonl", r"rows\.jsonl: has no column question and answer and reasoning and calc_expr"),
    ):
        with pytest.raises(UserError, match=message):
            raw.append_basic_maths([good, tmp_path / name], train)
        assert train.read_text() == "{}\n"


def test_each_file_of_the_second_test_set_keeps_its_name(tmp_path: Path) -> None:
    first, second = tmp_path / "GSM8K-test (1).jsonl", tmp_path / "svamp.jsonl"
    first.write_bytes(b"{}\n{}")
    second.write_bytes(b"{}\n")
    found = raw.copy_second_test([first, second], tmp_path / "raw")
    assert list(found) == ["gsm8k_test_1", "svamp"]
    assert found["gsm8k_test_1"]["files"][0]["rows"] == 2
    assert (tmp_path / "raw/gsm8k_test_1.jsonl").read_bytes() == b"{}\n{}\n"
    assert raw.copy_second_test([], tmp_path / "raw") == {}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["test.jsonl"], r"test\.jsonl: .* under its own name, 'test', and it is taken; rename the file by what it"),
        (["Families.jsonl"], r"Families\.jsonl: .* 'families', and it is taken"),
        (["….jsonl"], r"….jsonl: .* '', and it says nothing"),
        (["a-b.jsonl", "A_b.jsonl"], r"A_b\.jsonl: .* 'a_b', and .*a-b\.jsonl has it too"),
        (["no.jsonl"], r"no\.jsonl: no such file; correct data\.second_test_files in params\.yaml"),
    ],
)
def test_a_second_test_set_that_cannot_be_named(tmp_path: Path, names: list[str], message: str) -> None:
    for name in {"test.jsonl", "Families.jsonl", "….jsonl", "a-b.jsonl", "A_b.jsonl"}:
        (tmp_path / name).write_text("{}\n")
    with pytest.raises(UserError, match=message):
        raw.copy_second_test([tmp_path / name for name in names], tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_generated_rows(tmp_path: Path) -> None:
    rows = [{"question": "½ of 8?", "answer": "4\n#### 4"}, {"question": "2+2?", "answer": "4\n#### 4"}]
    out = tmp_path / "raw" / "train.jsonl"
    provenance = raw.write_generated(rows, out)
    assert list(files.read_jsonl(out)) == rows
    (described,) = provenance["files"]
    assert described == {
        "path": "train.jsonl",
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "rows": 2,
        "bytes": out.stat().st_size,
    }


class Table(list):
    """As much of a datasets.Dataset as is used."""

    @property
    def column_names(self) -> list[str]:
        return list(self[0])


def fake_hub(monkeypatch: pytest.MonkeyPatch, answer: object) -> list[tuple[object, ...]]:
    calls: list[tuple[object, ...]] = []

    def load_dataset(repo: str, config: str, *, split: str, revision: str) -> object:
        calls.append((repo, config, split, revision))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return calls


def test_the_hub_is_asked_for_a_pinned_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_hub(monkeypatch, Table([{"question": "q", "answer": "a", "extra": 1}]))
    provenance = raw.download_hub("openai/gsm8k", "main", "e53f048", "train", tmp_path / "train.jsonl")
    assert calls == [("openai/gsm8k", "main", "train", "e53f048")]
    assert (tmp_path / "train.jsonl").read_text() == '{"question": "q", "answer": "a"}\n'
    assert provenance["revision"] == "e53f048"
    assert provenance["files"][0]["rows"] == 1


@pytest.mark.parametrize("error", [ConnectionError("Couldn't reach the Hub"), ValueError("no config"), Exception("x")])
def test_without_the_hub_the_error_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fake_hub(monkeypatch, error)
    with pytest.raises(UserError) as raised:
        raw.download_hub("openai/gsm8k", "main", "e53f048", "train", tmp_path / "train.jsonl")
    message = str(raised.value)
    assert "openai/gsm8k (main, train) at revision e53f048" in message
    assert str(error) in message
    assert "data.source to jsonl" in message
    assert "data.train_files and data.test_files" in message
    assert not (tmp_path / "train.jsonl").exists()


def test_a_hub_data_set_with_other_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, Table([{"problem": "q", "answer": "a"}]))
    with pytest.raises(UserError, match="no column question; it has problem, answer"):
        raw.download_hub("a/b", "main", "1", "train", tmp_path / "train.jsonl")
