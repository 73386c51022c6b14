"""Run the tests of lsst-daf-butler twice: as they are, and with our formatter for the objects that they store.

    python tests/conformance/daf_butler.py --data PATH [--tests test_datastore.py test_butler.py::NAME] [--cache FOLDER]

The tests are those of the source distribution of the installed version, which pip downloads. Their configuration and
data aren't part of it: PATH is a clone of https://github.com/lsst/daf_butler, or its folder ``tests``; by default the
value of the environment variable COMPOSITEH5_DAF_BUTLER_TESTS. In a copy of that configuration `MetricFormatter` takes
the place of the formatters that write YAML, JSON and pickle files. The exit code is 1 if a test that passes as it is
doesn't pass with our formatter, other than those that only the formatters of the Butler can pass; 2 if the tests can't
be run.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

TESTS_VARIABLE = "COMPOSITEH5_DAF_BUTLER_TESTS"

FORMATTER = "conformance.metric_formatter.MetricFormatter"
REPLACED = re.compile(
    r"lsst\.daf\.butler\."
    r"(formatters\.(yaml\.Yaml|json\.Json|pickle\.Pickle)|tests\.testFormatters\.MetricsExample(Data)?)Formatter\b"
)
# For repositories that are made without the configuration of the tests.
DEFAULTS = f"datastore:\n  formatters:\n    StructuredDataDict: {FORMATTER}\n    int: {FORMATTER}\n"

TESTS = (
    "test_butler.py",
    "test_cliCmdIngestFiles.py",
    "test_cliCmdPruneDatasets.py",
    "test_cliCmdRemoveCollections.py",
    "test_cliCmdRemoveRuns.py",
    "test_cliCmdRetrieveArtifacts.py",
    "test_datastore.py",
    "test_formatter.py",
    "test_quantumBackedButler.py",
    "test_remote_butler.py",
    "test_server.py",
    "test_simpleButler.py",
    "test_testRepo.py",
)

EXPECTED = {
    "testAtomicWrite": "wants a message of lsst.resources, which doesn't move files that are written in their place",
    "testCleanup": "wants a file name that ends with .yaml",
    "testPutTemplates": "wants file names that end with .pickle",
    "testRegistryConfig": "wants formatters named JsonFormatter, PickleFormatter and YamlFormatter",
    "testTrustGetRequest": "wants two storage classes to have files of different extensions",
    "test_temporary_for_ingest": "writes YAML itself into the file that it then ingests",
}
"""Tests that only the formatters of the Butler can pass, by name, and why."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    try:
        return compare(options.data, options.tests, options.cache)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 2


def compare(data: Path, tests: Sequence[str], cache: Path | None) -> int:
    with tempfile.TemporaryDirectory() as folder:
        stock, ours = Path(folder, "stock"), Path(folder, "ours")
        source = download(cache or Path(folder))
        for root in (stock, ours):
            extract(source, root)
            for name in ("config", "data"):
                shutil.copytree(data / name, root / "tests" / name, dirs_exist_ok=True)
        count = replace_formatters(ours)
        print(f"{source.name}: our formatter in {count} places of the configuration of its tests", flush=True)
        with ThreadPoolExecutor() as pool:
            return report(*pool.map(lambda root: run_tests(root, tests), (stock, ours)))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get(TESTS_VARIABLE)
    parser.add_argument("--data", type=Path, default=default, help="a clone of daf_butler, or its folder `tests`")
    parser.add_argument(
        "--tests", nargs="+", default=TESTS, metavar="TEST", help="files, or tests as pytest names them"
    )
    parser.add_argument("--cache", type=Path, help="folder in which to keep the source distribution")
    options = parser.parse_args(arguments)
    if options.data is None:
        release = re.fullmatch(r"\d+\.(\d{4})\.(\d\d)00", version("lsst-daf-butler"))
        tag = f"-b w.{release[1]}.{release[2]} " if release else ""
        parser.error(
            "--data is needed, as the source distribution has no tests/config and tests/data: "
            f"git clone --depth 1 {tag}https://github.com/lsst/daf_butler"
        )
    if (options.data / "tests").is_dir():
        options.data /= "tests"
    if missing := [name for name in ("config", "data") if not (options.data / name).is_dir()]:
        parser.error(f"--data should be a clone of daf_butler; {options.data} has no folder {' and '.join(missing)}")
    return options


def download(folder: Path) -> Path:
    """Return the source distribution of the Butler that is installed.

    Raises
    ------
    subprocess.CalledProcessError
        If pip can't download it.
    """
    installed = version("lsst-daf-butler")
    path = folder / f"lsst_daf_butler-{installed}.tar.gz"
    if not path.exists():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "lsst-daf-butler"]
        subprocess.run([*command, "-d", str(folder), f"lsst-daf-butler=={installed}"], check=True)
    return path


def extract(source: Path, root: Path) -> None:
    """Unpack a source distribution; ``root`` is what its one folder becomes."""
    with tempfile.TemporaryDirectory(dir=root.parent) as folder, tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
        next(Path(folder).iterdir()).rename(root)


def replace_formatters(root: Path) -> int:
    """Put our formatter into the configuration of the tests, and return into how many places."""
    total = 0
    for path in (root / "tests" / "config").rglob("*.yaml"):
        text, count = REPLACED.subn(FORMATTER, path.read_text())
        path.write_text(text)
        total += count
    defaults = root / "defaults" / "datastores" / "fileDatastore.yaml"
    defaults.parent.mkdir(parents=True)
    defaults.write_text(DEFAULTS)
    return total


def run_tests(root: Path, tests: Sequence[str]) -> dict[str, str]:
    """Run tests in a process of their own, and return by name "passed", "skipped" or "failed: " and why.

    Raises
    ------
    RuntimeError
        If they can't be run.
    """
    here = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(here), str(here.parent), os.environ.get("PYTHONPATH")])),
        # Only one of the two has that folder; what the user may have set would count for both.
        "DAF_BUTLER_CONFIG_PATH": str(root / "defaults"),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=outcomes.xml"]
    command += [f"tests/{test}" for test in tests]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    cases = ElementTree.parse(root / "outcomes.xml").iter("testcase")
    return {f"{case.get('classname')}.{case.get('name')}".removeprefix("tests."): outcome(case) for case in cases}


def outcome(case: ElementTree.Element) -> str:
    for tag in ("failure", "error"):
        if (found := case.find(tag)) is not None:
            return f"failed: {found.get('message', '').partition(chr(10))[0]}"
    return "passed" if case.find("skipped") is None else "skipped"


def report(stock: Mapping[str, str], ours: Mapping[str, str]) -> int:
    """Print what differs, and return the exit code."""
    counts = [Counter(outcome.partition(":")[0] for outcome in run.values()) for run in (stock, ours)]
    print(f"\n{'':8}{'as they are':>14}{'with our formatter':>22}")
    for row in ("passed", "failed", "skipped"):
        print(f"{row:8}{counts[0][row]:14}{counts[1][row]:22}")
    lost = [name for name, outcome in stock.items() if outcome == "passed" and ours.get(name) != "passed"]
    wrong = [name for name in lost if last(name) not in EXPECTED]
    expected = Counter(last(name) for name in lost if last(name) in EXPECTED)
    odd = {last(name) for name, outcome in stock.items() if outcome == "passed"} & EXPECTED.keys() - expected.keys()
    for name, count in sorted(expected.items()):
        print(f"expected not to pass ({count}): {name}, which {EXPECTED[name]}")
    for name in wrong:
        print(f"DOES NOT PASS: {name}: {ours.get(name, 'not run')}")
    for name in sorted(odd):
        print(f"SHOULD NOT PASS: {name}: is our formatter in use?")
    return 1 if wrong or odd else 0


def last(name: str) -> str:
    return name.rpartition(".")[2]


if __name__ == "__main__":
    sys.exit(main())
