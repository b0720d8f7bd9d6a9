"""Set up a virtual environment and run some of the project's jobs in it; the standard library is all this needs.

    python3 tasks.py example          train on Concrete, attribute, save concrete_influences.png
    python3 tasks.py examples         the two on text: questions and plays
    python3 tasks.py test             run the tests
    python3 tasks.py lint             ruff check and ruff format --check
    python3 tasks.py types            check the annotations with mypy
    python3 tasks.py docstrings       run the examples in docstrings
    python3 tasks.py doctest          the same, and the examples in README.md and the pages of docs, which are tests too
    python3 tasks.py docs             build the documentation into docs/_build/html, warnings are errors
    python3 tasks.py docs-fast        the same into docs/_build/fast, without executing the examples
    python3 tasks.py build            build a wheel and a source distribution into dist, install and import each
    python3 tasks.py release          the same, dependencies installed as the distributions declare them
    python3 tasks.py oldest           run the tests with the oldest supported versions (Python 3.10 or 3.11)

Several jobs can be named at once: those that keep one processor busy run two at a time, then the others in turn.
`--venv DIR` builds the environment elsewhere than in .venv.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import threading
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent
SPHINX = "-m sphinx -W --keep-going -q -b html"
# job: (extras to install, constraints file, commands to run with the environment's Python)
JOBS = {
    "example": ("plot", "constraints.txt", ["examples/plot_concrete.py"]),
    "examples": ("plot", "constraints.txt", ["examples/plot_questions.py", "examples/plot_plays.py"]),
    # Two processes of one thread each: most tests are too small for more threads. Neighbours stay together: they share
    # trained networks.
    "test": ("test,plot", "constraints.txt", ["-m pytest -n 2 --dist worksteal"]),
    "lint": ("test,plot", "constraints.txt", ["-m ruff check .", "-m ruff format --check ."]),
    "types": ("test,types,plot", "constraints.txt", ["-m mypy"]),
    "docstrings": ("test,docs", "constraints.txt", ["-m pytest -q --doctest-modules sklearn_source"]),
    "doctest": (
        "test,docs",
        "constraints.txt",
        ["-m pytest -q --doctest-modules sklearn_source tests/docs/test_snippets.py"],
    ),
    "docs": ("docs", "constraints.txt", [f"{SPHINX} docs docs/_build/html"]),
    "docs-fast": ("docs", "constraints.txt", [f"{SPHINX} -D plot_gallery=0 docs docs/_build/fast"]),
    "build": ("plot,release", "constraints.txt", [".ci/build_distributions.py"]),
    "release": ("plot,release", "constraints.txt", [".ci/build_distributions.py --install"]),
    "oldest": ("test,plot", "constraints-oldest.txt", ["-m pytest -n 2 --dist worksteal"]),
}
# Each takes one process and leaves alone what the others read and write.
APART = ("lint", "types", "docstrings", "docs-fast", "build")
STOP = threading.Event()


def run(*command: str | Path, held_back: bool = False) -> None:
    """Run a command; `held_back`: what it prints is told when it is done. After one that failed none is started."""
    if STOP.is_set():
        sys.exit(1)
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} if held_back else {}
    start = time.perf_counter()
    if not held_back:
        print("$", *command, flush=True)
    done = subprocess.run([str(part) for part in command], cwd=ROOT, **told)
    took = f"took {time.perf_counter() - start:.0f} s"
    print(f"$ {' '.join(map(str, command))}\n{done.stdout}{took}" if held_back else took, flush=True)
    if done.returncode:
        STOP.set()
        sys.exit(done.returncode)


def environment(folder: Path, extras: set[str], constraints: str) -> Path:
    """The Python of a virtual environment with the package and `extras`; what is already installed is kept."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
    stated = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", constraints))
    # One empty file per extra that is installed, so that a second run needs neither time nor network.
    stamps = {extra: folder / f".{extra}-{hashlib.sha256(stated).hexdigest()[:12]}" for extra in extras}
    lacking = sorted(extra for extra, stamp in stamps.items() if not stamp.exists())
    if lacking:
        run(python, "-m", "pip", "install", "--quiet", "-c", constraints, "-e", f".[{','.join(lacking)}]")
        for extra in lacking:
            stamps[extra].touch()
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", choices=JOBS, metavar="job")
    parser.add_argument("--venv", type=Path, default=None, metavar="DIR")
    arguments = parser.parse_args()
    if "oldest" in arguments.jobs and not (3, 10) <= sys.version_info[:2] <= (3, 11):
        sys.exit(
            "The oldest supported versions have builds for Python 3.10 and 3.11: start tasks.py with one of these."
        )
    pythons = {}
    for job in arguments.jobs:
        constraints = JOBS[job][1]
        # The oldest versions would undo the environment of the other jobs, and the other way round.
        folder = arguments.venv or ROOT / (".venv-oldest" if job == "oldest" else ".venv")
        # Everything that jobs of this environment need is installed at once, before the first of them.
        alike = [JOBS[other][0] for other in arguments.jobs if JOBS[other][1] == constraints]
        pythons[job] = environment(folder, set(",".join(alike).split(",")), constraints)

    def work(job: str, held_back: bool = False) -> None:
        for command in JOBS[job][2]:
            run(pythons[job], *command.split(), held_back=held_back)

    apart = [job for job in arguments.jobs if job in APART]
    if len(apart) > 1:
        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(work, job, held_back=True) for job in apart]:
                future.result()
    for job in arguments.jobs:
        if len(apart) < 2 or job not in apart:
            work(job)


if __name__ == "__main__":
    main()
