"""What all verbs have in common: help with examples that run, JSON with the keys that it tells, exit codes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from example_folder import words, write_example_folder
from terminal import ENVIRONMENT

import compositeh5.cli as cli
from compositeh5.cli import main

README = Path(__file__).parents[1] / "README.md"
Capture = pytest.CaptureFixture[str]
Run = Callable[..., tuple[int, str]]

BUTLER_VERBS = {"demo"}
"""They need the extra `butler`, and are tried in tests of their own."""

VERBS = sorted(cli.VERBS.keys() - BUTLER_VERBS)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example_folder(tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the examples, where commands run."""
    shutil.copytree(original, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    return tmp_path / "w"


@pytest.fixture
def run(capsys: Capture) -> Run:
    """Run a verb here, and return its exit code and what it printed; what else it prints must be an error."""

    def run(*args: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main([*map(str, args)])
        said = capsys.readouterr()
        assert (said.err != "") == (code == 2 and not said.out), said.err
        return code, said.out

    return run


def examples(verb: str) -> list[str]:
    return [line.strip() for line in cli.VERBS[verb].examples.strip().splitlines()]


def here(args: list[str]) -> list[str]:
    """Return arguments with one process in place of several, which would take their time to start."""
    return ["1" if before == "-j" else word for before, word in zip(["", *args], args, strict=False)]


# ---- Help ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_help_has_purpose_arguments_exit_codes_keys_and_examples(verb: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as exit:
        main([verb, "--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    parts = [
        "usage: ",
        "options:",
        "  --json ",
        "  -q, --quiet ",
        "exit code:\n  0  fine\n",
        "\nJSON:\n  ",
        "\nexamples:\n",
    ]
    assert [text.find(part) for part in parts] == sorted(text.find(part) for part in parts)
    assert all(part in text for part in parts)
    assert ("\n  1  " in text) == bool(cli.VERBS[verb].found)
    assert 1 <= len(examples(verb)) <= 4
    assert all(line.startswith("compositeh5 ") for line in examples(verb))
    assert any(line.startswith(f"compositeh5 {verb} ") or line == f"compositeh5 {verb}" for line in examples(verb))
    # Each argument is explained, and nothing is wider than the terminal.
    assert not re.search(r"^  (-\S+|[A-Za-z]\S*)( [A-Z,]+)?$(?!\n {10})", text.partition("exit code")[0], re.MULTILINE)
    assert max(map(len, text.partition("examples:")[0].splitlines())) <= 80


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_run(verb: str, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fine = {0, 1} if cli.VERBS[verb].found else {0}
    for line in examples(verb):
        args = here(words(line, folder))
        if args == ["preview", "calexp.h5"]:
            continue  # It needs a terminal, which it has in `test_display.py`.
        code, out = run(*args)
        assert code in fine, line
        pipe = line.partition(" | ")[2]
        if pipe and shutil.which(pipe.split()[0]):
            subprocess.run(["sh", "-c", pipe], input=out, text=True, check=True)


def test_the_examples_of_the_demonstration_run(folder: Path, run: Run) -> None:
    pytest.importorskip("lsst.daf.butler", reason="the extra `butler` isn't installed")
    # The first is larger; the last needs files of LSST, which `test_demo.py` has.
    code, out = run(*words(examples("demo")[1], folder), "--json")
    document = json.loads(out)
    assert (code, list(document)) == (0, cli.VERBS["demo"].json.split(", "))
    assert len(document["files"]) == 5


def test_the_table_of_the_readme_has_all_verbs() -> None:
    rows = "\n".join(f"| `{name}` | {verb.help} | {verb.found} |" for name, verb in cli.VERBS.items())
    found = re.search(
        r"^\| verb \| does \| exit code 1 \|\n\|---\|---\|---\|\n((\|.*\n)+)", README.read_text(), re.MULTILINE
    )
    assert found is not None
    assert found[1].strip() == rows, "the table should be:\n" + rows


# ---- JSON ---------------------------------------------------------------------------------------------------

REPORTS: dict[str, tuple[str, Callable[[Any], list[object]]]] = {
    "ls": ("calexp.h5", lambda d: [i[key] for i in d for key in ("name", "kind", "state", "dtype", "units", "stage")]),
    "info": ("calexp.h5", lambda d: [d["id"], d["digest"], *d["data_id"].values(), *d["links"], *d["components"]]),
    "get": ("calexp.h5 image", lambda d: [d["dtype"], d["unit"], d["minimum"], d["median"]]),
    "preview": ("calexp.h5 -o a.png", lambda d: [d["file"], *d["shape"], f"{d['low']:.4g}", *d["planes"].values()]),
    "convert": ("night out", lambda d: [f"{len(d)} converted"]),
    "flatten": ("calexp_jointcal.h5 a.h5", lambda d: [d["file"]]),
    "split": ("received/calexp_903334_0.h5 out", lambda d: d["files"]),
    "subset": ("repo out --definition source_catalog", lambda d: [len(d["composites"]), len(d["linked"])]),
    "promote": ("calexp.h5 psf a.h5 --users .", lambda d: [d["link"]["id"], f"{len(d['users'])} files"]),
    "index": ("calexp", lambda d: [d["path"], f"{d['composites']} composites", f"{d['read']} files read"]),
    "visit": ("calexp", lambda d: [row[key] for row in d for key in ("detector", "file")]),
    "diff": (
        "calexp.h5 calexp_jointcal.h5",
        lambda d: [d["a"], *(difference["path"] for difference in d["differences"])],
    ),
    "refs": ("src.h5 calexp_jointcal.h5", lambda d: [r[key] for r in d for key in ("path", "component", "detail")]),
    "prune": ("repo --file repo/visit/visit_903334.h5", lambda d: [u["path"] for f in d["files"] for u in f["users"]]),
    "relink": ("repo", lambda d: [f"{len(d['files'])} files", f"{len(d['left'])} links"]),
    "rescue": ("calexp.h5 a.h5", lambda d: [d["target"], f"{len(d['saved'])} components saved", *d["saved"]]),
    "verify": ("repo", lambda d: [f"{d['composites']} composites", f"{d['links']} links", d["visited"]["files"]]),
}
"""Arguments of each verb, and facts of its document that its text must have."""


@pytest.mark.parametrize("verb", VERBS)
def test_json_says_the_same_as_the_text(verb: str, original: Path, tmp_path: Path, run: Run) -> None:
    arguments, facts = REPORTS[verb]
    outputs = []
    with pytest.MonkeyPatch.context() as patch:
        for more in ([], ["--json"]):
            # In the same place, as it was, for paths are among the facts, and some verbs change files.
            shutil.copytree(original, tmp_path / "w")
            patch.chdir(tmp_path / "w")
            outputs.append(run(verb, *arguments.split(), *more))
            shutil.rmtree(tmp_path / "w")
            patch.chdir(tmp_path)
    (code, text), (code_of_json, document) = outputs
    assert code == code_of_json
    content = json.loads(document)
    found = [str(fact) for fact in facts(content)]
    assert found
    assert not [fact for fact in found if fact not in text]
    if verb != "get":
        told = cli.VERBS[verb].json.partition(";")[0]
        assert isinstance(content, list) == told.startswith("a list of ")
        objects = content if isinstance(content, list) else [content]
        keys = told.removeprefix("a list of ").split(", ")
        assert objects
        assert all(list(item) == keys for item in objects), list(objects[0])


@pytest.mark.parametrize(
    ("component", "expected"),
    [
        ("visit_info", {"exposure_time": {"value": 30.0, "unit": "s"}, "dithers": [1, 2, 3]}),
        ("photo_calib", {"mean": 0.75, "error": 0.01}),
        ("mask", {"shape": [30, 40], "planes": {"SAT": 100, "CR": 0}}),
        ("image", {"shape": [30, 40], "dtype": "float32", "unit": "nJy", "not_finite": 0}),
    ],
)
def test_json_of_a_component(component: str, expected: dict[str, Any], folder: Path, run: Run) -> None:
    code, out = run("get", "calexp.h5", component, "--json")
    assert code == 0
    document = json.loads(out)
    assert {key: document[key] for key in expected} == expected


def test_json_of_tables_is_by_column(folder: Path, run: Run) -> None:
    _, out = run("get", "src.h5", "table", "--json")
    table = json.loads(out)
    assert table["flux"]["unit"] == "nJy"
    assert table["flux"]["values"][-1] == 1.0
    assert table["band"] == {"unit": "", "values": ["g", "r", "i"] * 3}
    _, out = run("visit", "calexp", "--table", "summary_stats", "--json")
    assert json.loads(out)["zero_point"] == {"unit": "mag", "values": [31.4, 31.4]}


# ---- Exit codes ---------------------------------------------------------------------------------------------

CODES: dict[str, dict[int, str]] = {
    "ls": {0: "calexp.h5", 2: "none.h5"},
    "info": {0: "calexp.h5", 2: "none.h5"},
    "get": {0: "calexp.h5 image", 2: "calexp.h5 imag"},
    "preview": {0: "calexp.h5 -o a.png", 2: "calexp.h5 -o a.gif"},
    "convert": {0: "exposure.fits a.h5", 2: "src.h5 a.fits"},
    "flatten": {0: "calexp.h5 a.h5", 2: "calexp.h5 src.h5"},
    "split": {0: "received/calexp_903334_0.h5 out", 2: "none.h5 out"},
    "subset": {0: "repo out", 2: "repo out --definition none"},
    "promote": {0: "calexp.h5 psf a.h5", 2: "calexp.h5 none a.h5"},
    "index": {0: "calexp", 1: "damaged", 2: "none"},
    "visit": {0: "calexp", 2: "none"},
    "diff": {0: "calexp.h5 calexp.h5", 1: "calexp.h5 calexp_jointcal.h5", 2: "calexp.h5 none.h5"},
    "refs": {0: "calexp.h5", 1: "--to visit/visit_903334.h5 calexp", 2: "none.h5"},
    "prune": {0: "repo", 1: "repo --file repo/visit/visit_903334.h5", 2: "none"},
    "relink": {0: "repo", 1: "alone", 2: "damaged"},
    "rescue": {0: "calexp.h5 a.h5", 2: "none.h5 a.h5"},
    "verify": {0: "repo", 1: "damaged", 2: "none"},
}
ELSEWHERE = {("rescue", 1)}
"""Tried in `test_rescue.py`, which makes such files."""


@pytest.mark.parametrize("verb", VERBS)
def test_exit_codes(verb: str, folder: Path, run: Run, capsys: Capture) -> None:
    expected = {0, 2} | ({1} if cli.VERBS[verb].found else set())
    assert CODES[verb].keys() | {code for name, code in ELSEWHERE if name == verb} == expected
    (folder / "damaged").mkdir()
    (folder / "damaged" / "a.h5").write_bytes((folder / "calexp.h5").read_bytes()[:-100])
    (folder / "alone").mkdir()
    shutil.copyfile("src.h5", "alone/src.h5")
    shutil.rmtree("calexp" if verb == "relink" else "archive")
    for code, arguments in sorted(CODES[verb].items(), reverse=True):
        # Quiet first: nothing but errors, and the same code.
        assert main([verb, *arguments.split(), "--quiet"]) == code
        said = capsys.readouterr()
        assert said.out == ""
        assert code == 2 or said.err == ""
        if code or verb in ("ls", "info", "get", "refs", "verify"):
            assert run(verb, *arguments.split())[0] == code
        # Wrong arguments are argparse's.
        with pytest.raises(SystemExit) as exit:
            main([verb, "--nonsense"])
        assert exit.value.code == 2
        assert capsys.readouterr().err.startswith("usage: compositeh5 ")


def test_every_verb_is_tried() -> None:
    assert REPORTS.keys() == CODES.keys() == set(VERBS)


# ---- Start-up -----------------------------------------------------------------------------------------------


def test_quick_verbs_load_little(original: Path) -> None:
    code = "import sys\nfrom compositeh5.cli import main\n"
    for arguments in (["--version"], ["--help"], ["ls", "calexp.h5"], ["info", "calexp.h5", "--json"]):
        code += f"try:\n    main({arguments!r})\nexcept SystemExit as exit:\n    assert exit.code == 0\n"
    run = subprocess.run(
        [sys.executable, "-c", f"{code}print(*sys.modules)"],
        capture_output=True, text=True, check=True, env=ENVIRONMENT, cwd=original,
    )  # fmt: skip
    loaded = set(run.stdout.splitlines()[-1].split())
    assert "compositeh5.cli.reading" in loaded
    slow = {"astropy", "lsst", "rich", "argcomplete", "yaml", "multiprocessing", "concurrent.futures.process"}
    assert not loaded & slow
