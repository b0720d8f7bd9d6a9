"""A name for everything that decides the result of a retraining, the same in every process."""

from __future__ import annotations

from ..network import Network
from ..rows import row_hashes
from ..utils._digest import digest, identify

# What a net prints, and what it predicts with, changes no training.
_IRRELEVANT = ("verbose", "warm_start", "torch_load_kwargs", "use_caching", "predict_nonlinearity")


def fingerprint(template, X, y, rows, reader, plan, *, measurement, renormalize):
    """What the training, the rows, the queries and the measurement are known by.

    Parameters
    ----------
    template : skorch.NeuralNet
    X, y
        Training rows as ``net.fit`` takes them.
    rows : Rows
        The same, readable.
    reader : Reader
    plan : BatchPlan
    measurement : (name or callable, output)
    renormalize : bool

    Returns
    -------
    identity : Identity
    """
    params = {k: v for k, v in _relevant(template).items() if not k.startswith("iterator_valid")}
    dealt = [plan.batch_size, plan.shuffle, plan.drop_last, plan.n_epochs, plan.keep_places, renormalize]
    return identify(
        {
            "class": type(template),
            "net": params,
            "rows": _rows(X, y, rows),
            "queries": _rows(None, None, reader.rows),
            "targets": reader.targets,
            "measurement": measurement,
            "plan": [*dealt, "equal_steps"] if plan.equal_steps else dealt,
        }
    )


def training_fingerprint(net, start, X, y):
    """The same of a training as ``net.fit(X, y)`` does it: its loader for validation rows draws too.

    Parameters
    ----------
    net : skorch.NeuralNet
    start : skorch.NeuralNet
        The same, initialized.
    X, y
        Training rows, as they are trained on.

    Returns
    -------
    identity : Identity
    """
    rows = Network.from_net(start).prepare(X, y) if row_hashes(X, y) is None else None
    return identify({"fit": type(net), "net": _relevant(net), "rows": _rows(X, y, rows)})


def _relevant(net):
    """The parameters of a net that decide what it becomes."""
    params = net.get_params(deep=False)
    return {name: value for name, value in params.items() if name not in _IRRELEVANT and not name.startswith("_")}


def _rows(X, y, rows):
    """What stands for some rows in :func:`digest`."""
    hashes = None if X is None else row_hashes(X, y, exact=True)
    if hashes is not None:
        return hashes
    # Some other Dataset, or the queries, which are few: their tensors.
    return [digest(rows.batch(slice(start, start + 1024))) for start in range(0, len(rows), 1024)]
