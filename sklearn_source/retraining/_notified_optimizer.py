"""An optimizer whose steps callbacks see."""

from __future__ import annotations

from skorch.history import History


class NotifiedOptimizer:
    """Takes the optimizer's steps and lets callbacks see them, as a fit would: schedulers, and a recorder.

    Parameters
    ----------
    net : skorch.NeuralNet
        Of all that is trained; its callbacks become those given.
    watching : list of Callback or None
    given : dict
        ``X``, ``y`` and ``dataset_train``, as far as they are known.
    """

    def __init__(self, net, watching, given):
        self.net, self.given = net, given
        self.callbacks = [callback.initialize() for callback in watching if callback is not None]
        vars(net)["callbacks_"] = [(type(callback).__name__, callback) for callback in self.callbacks]
        net.history = History()
        self._notify("on_train_begin", X=given.get("X"), y=given.get("y"))

    def _notify(self, event, **what):
        for callback in self.callbacks:
            getattr(callback, event)(self.net, **what)

    def begin_epoch(self):
        self.net.history.new_epoch()
        self.net.history.record("epoch", len(self.net.history))
        self.n_steps = 0
        self._notify("on_epoch_begin", dataset_train=self.given.get("dataset_train"))

    def begin_batch(self, batch):
        self.net.history.new_batch()
        self._notify("on_batch_begin", batch=batch, training=True)

    def step(self):
        self.net.optimizer_.step()
        self.n_steps += 1
        self._notify("on_batch_end", training=True)

    def end_epoch(self):
        self.net.history.record("train_batch_count", self.n_steps)
        self._notify("on_epoch_end")

    def end(self):
        self._notify("on_train_end")
