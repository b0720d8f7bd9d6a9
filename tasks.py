"""Set up a virtual environment and run one of the project's jobs in it; the standard library is all this needs.

    python3 tasks.py example          train on Concrete, attribute, save concrete_influences.png
    python3 tasks.py examples         the two on text: questions and plays
    python3 tasks.py test             run the tests
    python3 tasks.py lint             ruff check and ruff format --check
    python3 tasks.py docs             build the documentation into docs/_build/html, warnings are errors
    python3 tasks.py oldest           run the tests with the oldest supported versions (Python 3.10 or 3.11)

Several jobs can be named at once. `--venv DIR` builds the environment elsewhere than in .venv.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
# job: (extras to install, constraints file, commands to run with the environment's Python)
JOBS = {
    "example": ("plot", "constraints.txt", ["examples/plot_concrete.py"]),
    "examples": ("plot", "constraints.txt", ["examples/plot_questions.py", "examples/plot_plays.py"]),
    # Two processes of one thread each: most tests are too small for more threads.
    "test": ("test,plot", "constraints.txt", ["-m pytest -n 2"]),
    "lint": ("test,plot", "constraints.txt", ["-m ruff check .", "-m ruff format --check ."]),
    "docs": ("docs", "constraints.txt", ["-m sphinx -W --keep-going -b html docs docs/_build/html"]),
    "oldest": ("test,plot", "constraints-oldest.txt", ["-m pytest -n 2"]),
}


def run(*command: str | Path) -> None:
    print("$", *command, flush=True)
    code = subprocess.run([str(part) for part in command], cwd=ROOT).returncode
    if code:
        sys.exit(code)


def environment(folder: Path, extras: str, constraints: str) -> Path:
    """The Python of a virtual environment with the package and `extras`; what is already installed is kept."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
    asked = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", constraints))
    # One empty file per request already met, so that a second run needs neither time nor network.
    met = folder / f".{extras.replace(',', '-')}-{hashlib.sha256(asked).hexdigest()[:12]}"
    if not met.exists():
        run(python, "-m", "pip", "install", "--quiet", "-c", constraints, "-e", f".[{extras}]")
        met.touch()
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", choices=JOBS, metavar="job")
    parser.add_argument("--venv", type=Path, default=None, metavar="DIR")
    arguments = parser.parse_args()
    for job in arguments.jobs:
        extras, constraints, commands = JOBS[job]
        # The oldest versions would undo the environment of the other jobs, and the other way round.
        folder = arguments.venv or ROOT / (".venv-oldest" if job == "oldest" else ".venv")
        if job == "oldest" and not (3, 10) <= sys.version_info[:2] <= (3, 11):
            sys.exit(
                "The oldest supported versions have builds for Python 3.10 and 3.11: start tasks.py with one of these."
            )
        python = environment(folder, extras, constraints)
        for command in commands:
            run(python, *command.split())


if __name__ == "__main__":
    main()
