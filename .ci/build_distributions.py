"""Build a wheel and a source distribution into dist, and try each in an environment of its own.

    python .ci/build_distributions.py             dependencies are lent by the environment that runs this
    python .ci/build_distributions.py --install   dependencies are installed as the distribution declares them

Lent dependencies need neither time nor network. The package itself is not lent: what is imported must come from the
file that was built. Run with an environment that has the extra `release`, by ``python3 tasks.py build``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
# Runs in the environment of a distribution: every module can be imported, from there, and brings its data.
CHECK = """
import importlib, importlib.metadata, pkgutil, sys, sklearn_source
place = sklearn_source.__file__
assert place.startswith(sys.prefix), f"expected sklearn_source from {sys.prefix}, got {place}"
versions = {sklearn_source.__version__, importlib.metadata.version("sklearn-source")}
assert versions == {sys.argv[1]}, versions
modules = [m.name for m in pkgutil.walk_packages(sklearn_source.__path__, "sklearn_source.")]
for name in modules:
    importlib.import_module(name)
from importlib.resources import files
assert files("sklearn_source").joinpath("py.typed").is_file()
templates = files("sklearn_source.inspection._report").joinpath("templates")
assert {path.name for path in templates.iterdir()} >= {"report.html", "macros.html", "report.css", "report.js"}
from sklearn_source.datasets import load_concrete, load_plays, load_questions
assert load_concrete().data.shape == (1030, 8)
assert len(load_plays().data) and len(load_questions().data)
print(f"{sys.argv[2]}: {len(modules)} modules, version {sys.argv[1]}")
"""


def run(*command, **settings):
    subprocess.run([str(part) for part in command], check=True, **settings)


def environment(folder, install):
    """The Python of a fresh environment; other packages of this one within reach, unless they are to be installed."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not install:
        site = subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
        # A plain path: what makes the project itself importable here (an editable install) does not come along.
        lent = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (Path(site) / "lent.pth").write_text("\n".join(sorted(lent)))
    return python


def try_distribution(distribution, version, install):
    """Install one file into an environment of its own, and import all of it there."""
    with tempfile.TemporaryDirectory() as folder:
        python = environment(Path(folder) / "venv", install)
        how = ["-c", ROOT / "constraints.txt"] if install else ["--no-deps"]
        # Whatever is lent counts as installed: the file has to replace it.
        run(python, "-m", "pip", "install", "--quiet", "--ignore-installed", *how, distribution)
        # Elsewhere than in the checkout, whose files would be imported first.
        run(python, "-c", CHECK, version, distribution.name, cwd=folder)
        if install:  # lent, the environment's own setuptools would stand before the one that torch asks for
            run(python, "-m", "pip", "check", cwd=folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true")
    install = parser.parse_args().install
    shutil.rmtree(DIST, ignore_errors=True)
    # The wheel is made from the source distribution, so that a file missing there is missing in both.
    building = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if building.returncode:
        sys.exit(building.stdout)  # hundreds of lines, of interest only then
    built = sorted(DIST.iterdir())
    if [path.name.endswith((".whl", ".tar.gz")) for path in built] != [True, True]:
        sys.exit(f"expected a wheel and a source distribution in {DIST}, got {[path.name for path in built]}")
    wheel = next(path for path in built if path.suffix == ".whl")
    for path in built:
        try_distribution(path, wheel.name.split("-")[1], install)


if __name__ == "__main__":
    main()
