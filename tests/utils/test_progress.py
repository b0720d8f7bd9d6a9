from __future__ import annotations

import subprocess
import sys
import textwrap


def test_no_warning_at_import_in_a_notebook_without_widgets():
    code = """
    import sys, types, warnings

    # What tqdm takes for a notebook's kernel, and no ipywidgets.
    kernel = types.ModuleType("IPython")
    kernel.get_ipython = lambda: types.SimpleNamespace(config={"IPKernelApp": {}})
    sys.modules.update({"IPython": kernel, "ipykernel.zmqshell": kernel, "ipywidgets": None, "IPython.html": None})

    def warned_at(statement):
        for name in [name for name in sys.modules if name.startswith("tqdm")]:
            del sys.modules[name]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            exec(statement, globals())
        return any("IProgress" in str(warning.message) for warning in caught)

    assert warned_at("import tqdm.auto")
    assert not warned_at("from sklearn_source.utils._progress import progress")
    assert list(progress(range(3), verbose=True)) == [0, 1, 2]
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0/3" in done.stderr  # drawn in text
