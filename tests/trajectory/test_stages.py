from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from skorch import NeuralNetRegressor
from skorch.callbacks import Callback, Checkpoint, EarlyStopping
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import predefined_split
from torch.utils.data import Subset, TensorDataset

from sklearn_source.rows import row_hashes
from sklearn_source.trajectory import Trajectory, TrajectoryRecorder, split_segments


def assert_ends_at_the_net(trajectory, net):
    last = trajectory.checkpoints[-1]
    assert last.step == trajectory.n_steps
    for name, value in net.module_.named_parameters():
        assert torch.equal(last.parameters[name], value)
    for name, value in net.module_.named_buffers():
        assert torch.equal(last.buffers[name], value)


class Spy(Callback):
    """Keeps the weights at each epoch's end, apart from the recorder."""

    def initialize(self):
        self.weights_ = []
        return self

    def on_epoch_end(self, net, **kwargs):
        self.weights_.append(net.module_.last.weight.detach().clone())


class Scripted(Callback):
    """A validation loss that is best in epoch `best`."""

    def __init__(self, best=2):
        self.best = best

    def on_epoch_end(self, net, **kwargs):
        epoch = len(net.history)
        net.history.record("score", abs(epoch - self.best))
        net.history.record("score_best", epoch <= self.best)


# Fresh fits and further stages ------------------------------------------------------------------------------


def test_fit_starts_afresh_and_partial_fit_goes_on(make_net, data):
    net = make_net(TrajectoryRecorder(2)).fit(*data)
    net.fit(*data)
    assert Trajectory.from_net(net).n_steps == 12
    net.partial_fit(data[0][:10], data[1][:10])
    trajectory = Trajectory.from_net(net)
    assert [(stage.start, stage.end, stage.n_rows) for stage in trajectory.stages] == [(0, 12, 20), (12, 18, 10)]
    assert [(point.stage, point.step) for point in trajectory.checkpoints] == [
        (0, 0),
        (0, 4),
        (0, 12),
        (1, 14),
        (1, 18),
    ]
    shared = trajectory.stage_checkpoints(1)
    assert [point.step for point in shared] == [12, 14, 18]
    assert shared[0] is trajectory.checkpoints[2]
    assert_ends_at_the_net(trajectory, net)


def test_warm_start_adds_a_stage(make_net, data):
    net = make_net(warm_start=True).fit(*data).fit(*data)
    assert [stage.end for stage in Trajectory.from_net(net).stages] == [12, 24]


def test_new_optimizer_in_a_new_stage(make_net, data):
    net = make_net().fit(*data)
    net.optimizer, net.lr = torch.optim.Adam, 0.01
    net.initialize_optimizer()
    net.partial_fit(*data)
    trajectory = Trajectory.from_net(net)
    assert [stage.optimizer for stage in trajectory.stages] == ["SGD", "Adam"]
    assert trajectory.checkpoints[-1].optimizer_state is not None
    rates = trajectory.integrated_learning_rate(10, 15)
    assert rates["last.bias"] == pytest.approx(2 * 0.05 + 3 * 0.01)


def test_surgery_between_stages_keeps_both_weights(make_net, data):
    net = make_net(TrajectoryRecorder(2)).fit(*data)
    trained = net.module_.last.weight.detach().clone()
    with torch.no_grad():
        net.module_.last.weight.mul_(2)
    net.partial_fit(*data)
    trajectory = Trajectory.from_net(net)
    assert [(point.stage, point.step) for point in trajectory.checkpoints if point.step == 12] == [(0, 12), (1, 12)]
    assert torch.equal(trajectory.stage_checkpoints(0)[-1].parameters["last.weight"], trained)
    assert torch.equal(trajectory.stage_checkpoints(1)[0].parameters["last.weight"], 2 * trained)
    assert len(trajectory.stage_checkpoints(1)) == 3


def test_stage_without_a_step_is_dropped(make_net, data):
    net = make_net(max_epochs=0).fit(*data)
    net.partial_fit(*data, epochs=1)
    net.partial_fit(*data, epochs=0)
    net.partial_fit(*data, epochs=2)
    trajectory = Trajectory.from_net(net)
    assert [(stage.index, stage.start, stage.end) for stage in trajectory.stages] == [(0, 0, 4), (1, 4, 12)]


def test_interrupted_within_an_epoch(make_net, data, spy_sgd):
    class Interrupt(Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            if len(net.history) == 2 and len(net.history[-1, "batches"]) == 3:
                raise KeyboardInterrupt

    net = make_net(TrajectoryRecorder(4), [Interrupt()], optimizer=spy_sgd).fit(*data)
    trajectory = Trajectory.from_net(net)
    assert trajectory.n_steps == len(net.optimizer_.weights) == 6  # the interrupted step was not taken
    assert_ends_at_the_net(trajectory, net)


def test_buffers_estimated_again_after_training(make_net, data):
    net = make_net().fit(*data)
    before = Trajectory.from_net(net).checkpoints[-1]
    net.module_.norm.running_mean.zero_()
    after = Trajectory.from_net(net).checkpoints[-1]
    assert before.buffers["norm.running_mean"].any()
    assert not after.buffers["norm.running_mean"].any()
    assert after.digest == before.digest


def test_exception_within_an_epoch_and_going_on(make_net, data):
    class Fail(Callback):
        def on_batch_begin(self, net, training=None, **kwargs):
            if len(net.history) == 2 and len(net.history[-1, "batches"]) == 3:
                raise RuntimeError("out of luck")

    net = make_net(TrajectoryRecorder(1), [Fail()])
    with pytest.raises(RuntimeError, match="out of luck"):
        net.fit(*data)
    with pytest.raises(ValueError, match="an exception ended the training"):
        Trajectory.from_net(net)
    net.partial_fit(*data)
    trajectory = Trajectory.from_net(net)
    assert [stage.end for stage in trajectory.stages] == [6, 18]
    assert [checkpoint.step for checkpoint in trajectory.checkpoints] == [0, 6, 18]


# Early stopping and restored weights ------------------------------------------------------------------------


@pytest.mark.parametrize("recorder_first", [True, False])
def test_early_stopping(make_net, data, recorder_first):
    callbacks = [Scripted(), EarlyStopping("score", patience=2, sink=lambda text: None), TrajectoryRecorder()]
    if recorder_first:
        callbacks.insert(0, callbacks.pop())
    net = make_net(callbacks=callbacks, max_epochs=10).fit(*data)
    trajectory = Trajectory.from_net(net)
    assert trajectory.n_steps == 4 * len(net.history) == 16
    assert_ends_at_the_net(trajectory, net)


def restoring(kind, tmp_path):
    if kind == "EarlyStopping":
        return EarlyStopping("score", patience=3, load_best=True, sink=lambda text: None)
    return Checkpoint("score_best", dirname=str(tmp_path / "best"), load_best=True)


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("kind", ["EarlyStopping", "Checkpoint"])
def test_best_weights_restored(make_net, data, tmp_path, kind, position, on_disk):
    recorder = TrajectoryRecorder(3, dirname=tmp_path / "trajectory" if on_disk else None)
    callbacks = [Spy(), Scripted(3), restoring(kind, tmp_path)]
    callbacks.insert(position + 1, recorder)
    # 5 batches an epoch: no epoch ends at the recorder's stride.
    net = make_net(callbacks=callbacks, max_epochs=6, batch_size=4).fit(*data)
    trajectory = Trajectory.from_net(net)
    assert torch.equal(net.module_.last.weight, callbacks[0].weights_[2])
    assert trajectory.n_steps == trajectory.stages[0].end == len(trajectory.stages[0].hyper["lr"]) == 15
    assert_ends_at_the_net(trajectory, net)
    assert trajectory.checkpoints[-1].optimizer_state is None
    split_segments(trajectory, 2)


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("kind", ["EarlyStopping", "Checkpoint"])
def test_training_goes_on_from_restored_weights(make_net, data, tmp_path, kind, position):
    callbacks = [Spy(), Scripted(3), restoring(kind, tmp_path)]
    callbacks.insert(position + 1, TrajectoryRecorder(3))
    net = make_net(callbacks=callbacks, max_epochs=6, batch_size=4).fit(*data)
    restored = net.module_.last.weight.detach().clone()
    callbacks[1 if position else 2].best = 8
    next(callback for callback in callbacks if isinstance(callback, Scripted)).best = 8
    net.set_params(lr=0.02)
    net.partial_fit(*data, epochs=2)
    trajectory = Trajectory.from_net(net)
    first, second = trajectory.stages
    assert (first.start, first.end, second.start) == (0, 15, 15)
    assert (first.hyper["lr"] == 0.05).all()
    assert (second.hyper["lr"] == 0.02).all()
    start = trajectory.stage_checkpoints(1)[0]
    assert (start.step, start.stage) == (15, 0)  # the weights that training went on from are the first stage's last
    assert torch.equal(start.parameters["last.weight"], restored)
    assert_ends_at_the_net(trajectory, net)


def test_restored_weights_before_the_first_checkpoint(make_net, data):
    best = EarlyStopping("score", patience=9, load_best=True, sink=lambda text: None)
    recorder = TrajectoryRecorder(2)
    net = make_net(callbacks=[recorder, Scripted(1), best], max_epochs=10, batch_size=7).fit(*data)
    assert recorder.stages_[0].held[0].step > 3
    trajectory = Trajectory.from_net(net)
    assert [checkpoint.step for checkpoint in trajectory.checkpoints] == [0, 3]
    assert_ends_at_the_net(trajectory, net)
    net.partial_fit(*data, epochs=2)
    trajectory = Trajectory.from_net(net)
    assert [stage.start for stage in trajectory.stages] == [0, 3]
    assert [checkpoint.step for checkpoint in trajectory.checkpoints][:2] == [0, 3]


@pytest.mark.parametrize("stopping", [True, False])
def test_weights_of_an_earlier_stage_restored(make_net, data, tmp_path, stopping):
    class Stop(Callback):
        def on_epoch_end(self, net, **kwargs):
            if stopping and len(net.history) == 5:
                raise KeyboardInterrupt  # so that the recorder does not see the end of this epoch

    best = Checkpoint("score_best", dirname=str(tmp_path), load_best=True)
    net = make_net(callbacks=[Scripted(2), best, Stop(), TrajectoryRecorder(3)], batch_size=7).fit(*data)
    restored = net.module_.last.weight.detach().clone()
    net.partial_fit(*data, epochs=2)
    trajectory = Trajectory.from_net(net)
    assert torch.equal(net.module_.last.weight, restored)
    assert [stage.end for stage in trajectory.stages] == [6]
    assert_ends_at_the_net(trajectory, net)


# What from_net refuses --------------------------------------------------------------------------------------


def test_net_without_training(make_net, data):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        Trajectory.from_net(make_net())
    with pytest.raises(ValueError, match="saw no training step"):
        Trajectory.from_net(make_net().initialize())
    with pytest.raises(TypeError, match="skorch NeuralNet"):
        Trajectory.from_net(torch.nn.Linear(2, 1))


def test_net_without_recorder(make_net, data):
    with pytest.raises(ValueError, match=r"callbacks=\[TrajectoryRecorder\(\)\]"):
        Trajectory.from_net(make_net(False).fit(*data))


def test_weights_changed_after_training(make_net, data):
    net = make_net().fit(*data)
    with torch.no_grad():
        net.module_.last.bias.add_(1)
    with pytest.raises(ValueError, match="changed after training"):
        Trajectory.from_net(net)


def test_weights_changed_at_train_end(make_net, data):
    class Average(Callback):
        def on_train_end(self, net, **kwargs):
            with torch.no_grad():
                net.module_.last.bias.add_(1)

    for callbacks in ([Average(), TrajectoryRecorder(2)], [TrajectoryRecorder(2), Average()]):
        net = make_net(callbacks=callbacks).fit(*data)
        with pytest.raises(ValueError, match="changed after training"):
            Trajectory.from_net(net)
        callbacks[callbacks[0].__class__ is TrajectoryRecorder].on_train_end = lambda *args, **kwargs: None
        net.partial_fit(*data)
        trajectory = Trajectory.from_net(net)
        assert [(point.stage, point.step) for point in trajectory.checkpoints if point.step == 12] == [(0, 12), (1, 12)]


def test_recorder_shared_by_two_nets(make_net, data):
    recorder = TrajectoryRecorder()
    first = make_net(recorder).fit(*data)
    second = make_net(recorder, lr=0.01).fit(*data)
    assert Trajectory.from_net(second).n_steps == 12
    with pytest.raises(ValueError, match="shared with another net"):
        Trajectory.from_net(first)


# Rows -------------------------------------------------------------------------------------------------------


def test_default_split_trains_on_a_part(make_net, data):
    net = make_net(train_split=ValidSplit(5), batch_size=4).fit(*data)
    (stage,) = Trajectory.from_net(net).stages
    dataset_train, _ = net.get_split_datasets(*data)
    assert stage.n_rows == 20
    assert stage.rows.dtype == np.int64
    np.testing.assert_array_equal(stage.rows, dataset_train.indices)
    assert len(stage.rows) == 16
    np.testing.assert_array_equal(stage.row_hashes, row_hashes(*data))


def test_predefined_split_trains_on_all(make_net, data):
    net = make_net(train_split=predefined_split(Dataset(*data))).fit(*data)
    np.testing.assert_array_equal(Trajectory.from_net(net).stages[0].rows, np.arange(20))


def test_subset_handed_to_fit_is_what_rows_count(make_net, data):
    inner = Subset(TensorDataset(*map(torch.from_numpy, data)), [3, 1, 4, 15, 9, 2, 6, 5, 13, 8])
    handed = Subset(inner, [0, 2, 4, 6, 8, 9])  # rows 3, 4, 9, 6, 13, 8
    (stage,) = Trajectory.from_net(make_net(batch_size=3).fit(handed, None)).stages
    np.testing.assert_array_equal(stage.rows, np.arange(6))
    chosen = [3, 4, 9, 6, 13, 8]
    np.testing.assert_array_equal(stage.row_hashes, row_hashes(data[0][chosen], data[1][chosen]))
    net = make_net(train_split=ValidSplit(3), batch_size=4).fit(handed, y=None)
    (stage,) = Trajectory.from_net(net).stages
    assert stage.n_rows == 6
    np.testing.assert_array_equal(stage.rows, [2, 3, 4, 5])


def test_nested_subsets_of_a_split(make_net, data):
    def split(dataset, y=None, **kwargs):
        return Subset(Subset(dataset, range(1, 20, 2)), [4, 0, 7]), None

    (stage,) = Trajectory.from_net(make_net(train_split=split, batch_size=3).fit(*data)).stages
    np.testing.assert_array_equal(stage.rows, [9, 1, 15])
    assert stage.n_rows == 20


def test_split_whose_rows_cannot_be_told(make_net, data):
    def split(dataset, y=None, **kwargs):
        return Dataset(data[0][:7], data[1][:7]), None

    with pytest.raises(ValueError, match="Subset objects of the 20 rows handed to fit"):
        make_net(train_split=split).fit(*data)


def test_net_that_makes_its_own_rows(make_net, data):
    class Windows(NeuralNetRegressor):
        def get_dataset(self, X, y=None):
            return TensorDataset(*(torch.from_numpy(part[:-5]) for part in (X, y)))

    def split(dataset, y=None, **kwargs):
        return Subset(dataset, range(10)), None

    for train_split, n_trained in ((None, 15), (split, 10)):
        net = make_net(cls=Windows, train_split=train_split, batch_size=5)
        (stage,) = Trajectory.from_net(net.fit(data[0], data[1])).stages
        assert (stage.n_rows, len(stage.rows), stage.row_hashes) == (15, n_trained, None)


def test_stream_that_is_not_what_fit_was_given_is_refused(make_net, data):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(zip(*data))

    net = make_net(iterator_train__shuffle=False, dataset=lambda X, y, **options: Stream())
    with pytest.raises(ValueError, match="known length.*Pass an IterableDataset to fit itself"):
        net.fit(*data)


def test_step_without_forward_of_the_module(make_net, data):
    class Bypass(NeuralNetRegressor):
        def infer(self, x, **fit_params):
            return self.module_.forward(x)

    class Lazy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = torch.nn.LazyLinear(1)

        def forward(self, x):
            return self.last(x)

    net = make_net(cls=Bypass, module=Lazy).fit(*data)
    trajectory = Trajectory.from_net(net)
    assert trajectory.checkpoints[0].step > 0  # hooks on module_ never ran: the initial weights are not made up
    with pytest.raises(ValueError, match="initial weights"):
        split_segments(trajectory, 2)
    split_segments(trajectory, 2, "right")
