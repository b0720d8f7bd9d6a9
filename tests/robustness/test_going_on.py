"""After a training was killed: another one begins at its last checkpoint, and is recorded in a folder of its own."""

from __future__ import annotations

import numpy as np
import pytest

from sklearn_source import SourceAttribution, Trajectory, TrajectoryRecorder
from sklearn_source.utils._random import seeded
from tests._nets import make_net

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(20, 3)).astype(np.float32)
y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)


class Killed(BaseException):
    """The process ends here."""


class Dying(TrajectoryRecorder):
    """Its process is killed in the third epoch."""

    def on_epoch_begin(self, net, **kwargs):
        super().on_epoch_begin(net, **kwargs)
        if len(net.history) == 3:
            raise Killed

    def on_train_end(self, net, **kwargs):
        pass


def test_from_the_last_checkpoint_on(tmp_path):
    options = {"module__hidden": (4,), "module__n_features": 3}
    with seeded(0), pytest.raises(Killed):
        make_net(callbacks=[Dying(dirname=tmp_path / "0")], **options).fit(X, y)
    with pytest.warns(UserWarning, match="did not reach its end"):
        last = Trajectory.load(tmp_path / "0").checkpoints[-1]
    assert last.step > 0
    with pytest.raises(ValueError, match="overwrite=True"):
        make_net(callbacks=[TrajectoryRecorder(dirname=tmp_path / "0")], **options).fit(X, y)
    net = make_net(callbacks=[TrajectoryRecorder(dirname=str(tmp_path / "{run}"))], **options).initialize()
    net.module_.load_state_dict({**last.parameters, **last.buffers})
    net.partial_fit(X, y)
    first = Trajectory.from_net(net).checkpoints[0]
    assert first.path.parent != tmp_path / "0"
    assert first.digest == last.digest
    assert SourceAttribution(n_segments=1).fit(net, X, y).transform(X[:2]).any()
