"""What the package knows of a skorch net, on a private copy of it."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.exceptions import NotFittedError
from skorch import NeuralNet

from ..loss import Categorical, RowLoss, TargetError, find_penalty
from ..rows import prepare_rows
from ..stochastic import DrawnRows, fresh_draws, join_draws, split_draws
from ..utils._compat_skorch import criterion_names, module_names
from ..utils._compat_torch import checkpointing_off
from ..utils._fastpath import mha_fastpath_off
from ._full_precision import FullPrecision
from ._input_validation import OutputError, outputs_of
from ._module_state import load_values, signature_of
from ._module_variant import renew_parameters
from ._outside_state import outside_state, same_values, set_outside_state
from ._private_net import PrivateNet
from ._training_mode import training_flags, trains_otherwise


class Network:
    """A private, eval-mode deep copy of a skorch net's module, with its rows and its loss per row.

    Make one with :meth:`from_net`. The user's net is never touched: not its mode, hooks, parameters, gradients,
    attributes, nor any random state. A network can be pickled, also by loky when its module class lives in
    ``__main__``.

    Attributes
    ----------
    module : torch.nn.Module
        The private copy. Hooks of the user are left out (forward hooks with a warning).
    device : torch.device
    dtype : torch.dtype
        Of the first floating-point parameter.
    row_loss : RowLoss
        The loss of every row, its Hessian in the outputs, its labels.
    predictive : Predictive
        What the output parametrises, also where a custom loss flattens it (known after :meth:`calibrate`). Its name is
        ``"categorical"`` (cross-entropy on logits), ``"categorical_probs"`` (NLLLoss in a NeuralNetClassifier, which
        takes the logarithm itself), ``"categorical_logprobs"`` (NLLLoss on log-probabilities), ``"bernoulli"``
        (BCEWithLogitsLoss), ``"gaussian"`` (MSELoss), ``"laplace"`` (L1Loss), or ``"unknown"``.
    is_classification : bool
    is_sequence : bool
        Whether every row has classes at several positions (tokens, pixels).
    threshold : float
        Above which probability a binary classifier says yes.
    """

    def __init__(self, private_net):
        self._private_net = private_net
        net = private_net.net
        self.module = net.module_
        floating = [p for p in self.module.parameters() if p.is_floating_point()]
        if not floating:
            raise ValueError("expected a module with parameters, got one without: nothing in it was trained")
        if any(torch.nn.parameter.is_lazy(p) for p in self.module.parameters()):
            raise NotFittedError("the module has lazy parameters that were never given a shape: fit the net first")
        self.device, self.dtype = floating[0].device, floating[0].dtype
        self.trains_otherwise = False
        self.row_loss = RowLoss(private_net, self.dtype, self.device)
        # Where half precision was, the network itself may cast to it, which then has to meet float32 weights.
        self._cast = self.device.type if getattr(net, "computes_in_float32", False) else None
        self.threshold = float(getattr(net, "threshold", 0.5))
        self._history = net.history
        self._outside = self._loaded_outside = outside_state(net)
        self._signature = None

    @classmethod
    def from_net(cls, net):
        """Copy an initialized skorch net.

        Parameters
        ----------
        net : skorch.NeuralNet
            With one module (``module_``).

        Returns
        -------
        Network

        Raises
        ------
        TypeError
            When ``net`` is not a skorch net, or its module cannot be copied.
        sklearn.exceptions.NotFittedError
            When ``net`` is not initialized.
        ValueError
            When it has several modules, or none of its parameters is floating-point.
        """
        if isinstance(net, type) or not isinstance(net, NeuralNet):
            came = f"the class {net.__name__}" if isinstance(net, type) else f"a {type(net).__name__}"
            raise TypeError(f"expected a fitted skorch net (NeuralNet, NeuralNetClassifier, ...), got {came}")
        if not getattr(net, "initialized_", False) or not hasattr(net, "module_"):
            raise NotFittedError(f"this {type(net).__name__} is not initialized: call its fit first")
        names = module_names(net)
        if names != ["module"]:
            raise ValueError(
                f"expected a net with the single module 'module_', got {[f'{m}_' for m in names]}: put them "
                "into one torch.nn.Module"
            )
        return cls(PrivateNet.from_net(net))

    def __getstate__(self):
        kept = ("_private_net", "row_loss", "trains_otherwise")
        return {name: vars(self)[name] for name in kept}

    def __setstate__(self, state):
        self.__init__(state["_private_net"])
        vars(self).update(state)

    @property
    def predictive(self):
        return self.row_loss.predictive

    @property
    def is_classification(self):
        return self.predictive.is_classification or isinstance(self._private_net.net, ClassifierMixin)

    @property
    def is_sequence(self):
        return self.row_loss.is_sequence

    # --- parameters ---------------------------------------------------------------------------------------------

    def parameters(self):
        """Current parameters by name, detached (they share memory with the private module)."""
        return {name: p.detach() for name, p in self.module.named_parameters()}

    def buffers(self):
        """Current buffers by name, detached (they share memory with the private module)."""
        return {name: b.detach() for name, b in self.module.named_buffers()}

    def load(self, parameters, buffers=None, outside=None):
        """Point the private module at other values.

        Parameters
        ----------
        parameters : mapping of str to Tensor
            Every parameter by its name in ``module.named_parameters()``. Not copied where dtype and device agree.
        buffers : mapping of str to Tensor, optional
            Every buffer by its name in ``module.named_buffers()``; None keeps the current ones.
        outside : mapping, optional
            What the loss depended on besides, as :func:`outside_state` read it; None: as it is in the trained net.

        Raises
        ------
        ValueError
            When a name is missing or foreign, or a shape differs; then nothing was changed.
        """
        load_values(self.module, parameters, buffers)
        self._load_outside(outside)

    def reload(self, parameters, buffers, outside=None):
        """:meth:`load`, also where asking the net has moved counters on since."""
        self._loaded_outside = None
        self.load(parameters, buffers, outside)

    def renew_parameters(self):
        """:func:`renew_parameters` of the module and the criterion."""
        nets = self.row_loss.batch_loss.nets
        parts = [getattr(net, f"{name}_") for net in nets for name in (*module_names(net), *criterion_names(net))]
        renew_parameters([part for part in parts if isinstance(part, torch.nn.Module)])

    def _load_outside(self, outside):
        outside = self._outside if outside is None else outside
        if outside is not self._loaded_outside:
            for net in self.row_loss.batch_loss.nets:
                set_outside_state(net, outside, self._history)
            self._loaded_outside = outside

    @property
    def present_outside(self):
        """What the loss of the trained net depends on besides weights and buffers, see :func:`outside_state`."""
        return self._outside

    def relevant(self, outside):
        """What of a recorded state outside the ``state_dict`` can matter: None where nothing can.

        Parameters
        ----------
        outside : mapping or None
            As :func:`outside_state` read it.
        """
        net = self._private_net.net
        reads_history = self.row_loss.batch_loss.overridden or type(net).infer is not NeuralNet.infer
        return None if outside is None or (not reads_history and same_values(outside, self._outside)) else outside

    # --- rows and outputs ---------------------------------------------------------------------------------------

    @property
    def draws_examples(self):
        """Whether the loss draws: rows are examples, (B, n_draws, ...)."""
        return self.row_loss.batch_loss.draws_examples

    @property
    def draws_axis(self):
        """Of the outputs: behind that of the rows, or where torch's losses want positions, behind the classes."""
        batch_loss = self.row_loss.batch_loss
        return -1 if batch_loss.is_torchs and batch_loss.takes_labels else 1

    def measured_draws(self, measure=None):
        """The draws that a measurement is a mean over: its own, or the net's; None where nothing is drawn.

        Parameters
        ----------
        measure : Measurement, optional
        """
        if not self.draws_examples:
            return None
        net = self._private_net.net
        return net.measured_draws() if measure is None or measure.draws is None else measure.draws(net)

    def training_draw(self, outside):
        """What all rows drew in the epoch of a checkpoint, whose state outside the ``state_dict`` is ``outside``."""
        self._load_outside(outside)
        return self._private_net.net.training_draw(outside["epochs"])

    def prepare_queries(self, X, y=None, draws=None):
        """:meth:`prepare` for queries, which are read as ``net.predict`` reads them: by the validation's iterator."""
        return self._prepare(X, y, "iterator_valid", draws)

    def prepare(self, X, y=None, draws=None):
        """Validated access to rows, as the net's training reads them.

        Parameters
        ----------
        X : array-like, tensor, sparse matrix, DataFrame, dict or list of these, or torch Dataset
            What the net's ``fit`` takes. A Dataset brings its own targets; ``y`` is then ignored, as skorch does.
        y : array-like, optional
            Targets. None where there are none (queries) or where ``X`` is a Dataset.
        draws : sequence of Draw, optional
            Where the loss draws: the examples that every row stands for; None: one, fresh.

        Returns
        -------
        Rows

        Raises
        ------
        ValueError
            NaN or infinity, text, different lengths, no rows.
        TypeError
            A dataset without length or item access.
        """
        return self._prepare(X, y, "iterator_train", draws)

    def _prepare(self, X, y, iterator, draws):
        net, integers = self._private_net.net, self._integer_targets()
        rows = prepare_rows(net, X, y, iterator, device=self.device, dtype=self.dtype, integer_targets=integers)
        return DrawnRows(rows, net.example, draws or fresh_draws(0, 1)) if self.draws_examples else rows

    def _integer_targets(self):
        """What integer targets become: class labels int64, numbers the module's dtype, else as they are."""
        if isinstance(self.predictive, Categorical):
            return torch.int64
        if self.row_loss.batch_loss.overridden:  # its targets are what it takes, whatever criterion stands beside it
            return None
        return self.dtype if self.predictive.takes_numbers else None

    def forward(self, x):
        """Outputs of the private module for a batch from :class:`Rows`, by the net's own ``infer``.

        The grad mode is the caller's. Of several outputs (a tuple) the first is returned, which is what skorch's
        ``predict`` reads; once :meth:`calibrate` saw that the loss reads others too, these stand beside it, and
        :meth:`first` takes it out.

        Returns
        -------
        Tensor of shape (B, ...)
        """
        return self.row_loss.batch_loss.outputs.join(self.infer(x))

    def forward_as_trained(self, x):
        """The same for training rows: in training mode where that differs for more than chance and statistics.

        Dropout, and norms that take statistics over the batch, are in evaluation mode all the same.
        """
        return self.row_loss.batch_loss.outputs.join(self._infer_as_trained(x))

    def compare_modes(self, x):
        """Find out on some training rows whether ``infer`` or the module treats rows otherwise in training."""
        self.trains_otherwise = trains_otherwise(self.module, self.forward, x)

    def first(self, output):
        """The module's first output, of what :meth:`forward` returned."""
        return self.row_loss.batch_loss.outputs.first(output)

    def infer(self, x):
        """All that the module returns for a batch of rows: a tensor, or a tuple that starts with one."""
        if not self.draws_examples:
            return self.infer_batch(x)
        return split_draws(self.infer_batch(join_draws(x)), x, self.draws_axis)

    def infer_batch(self, x):
        """The same for a batch as training has it, of the examples themselves where the loss draws."""
        with mha_fastpath_off(), checkpointing_off(), FullPrecision(self._cast):
            returned = self._private_net.net.infer(x)
        if not isinstance(returned[0] if isinstance(returned, tuple) and returned else returned, torch.Tensor):
            raise OutputError(returned)
        return returned

    def _infer_as_trained(self, x):
        if not self.trains_otherwise:
            return self.infer(x)
        with training_flags(self.module):
            return self.infer(x)

    def reads_targets(self, rows):
        """Whether the loss needs targets; where not, rows without are taken from then on.

        Parameters
        ----------
        rows : Rows
            Training rows that have none.
        """
        x, _ = rows.batch(slice(0, 4))
        batch_loss = self.row_loss.batch_loss
        with torch.no_grad():
            batch_loss.takes_no_targets = not batch_loss.reads_targets(outputs_of(self._infer_as_trained, x), x)
        return not batch_loss.takes_no_targets

    def penalty(self, rows, indices):
        """The part of the loss that reads parameters alone, at the current weights.

        Parameters
        ----------
        rows : Rows
        indices : ndarray of int
            The training rows.

        Returns
        -------
        penalty : Penalty or None
            None where there is none.
        share : float
            Of the rows' gradient, what a part of the loss that reads parameters and rows gives.
        """
        return find_penalty(self.row_loss.batch_loss, self._infer_as_trained, rows, indices)

    def calibrate(self, rows, indices=None):
        """Fix what the loss of a row needs from the training rows, check the labels and the criterion. Call it once.

        The mean weight per row that a weighted or ``ignore_index`` criterion divides by, the batch size for
        ``reduction="sum"``, and which outputs of the module the loss reads. Also makes sure, on a few rows, that the
        criterion does not couple rows. Costs two forward passes of up to four rows, and for cross-entropy and NLL one
        pass over the targets; for losses that are not torch's own (a custom criterion, an overridden ``get_loss``) one
        evaluation on made-up outputs for all rows, which shows whether rows weigh the same.

        Parameters
        ----------
        rows : Rows
        indices : array-like of int, optional
            Those trained on; by default all.

        Raises
        ------
        ValueError
            Missing targets, labels that do not fit the outputs, a criterion that couples rows.
        """
        indices = np.arange(len(rows)) if indices is None else np.asarray(indices)
        if not len(indices):
            raise ValueError("expected at least one training row, got none")
        try:
            self.row_loss.calibrate(rows, indices, self._infer_as_trained)
        except (ValueError, OutputError, torch.cuda.OutOfMemoryError):
            raise
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
            raise TargetError(
                f"the net's loss fails on these rows and targets ({error}): pass X and y as given to net.fit"
            ) from error

    def signature(self):
        """What the network and its loss are known by, whatever values the parameters have.

        Two networks with the same signature and parameters give the same gradients, as far as these can be described;
        caches use it.

        Returns
        -------
        identity : Identity
        """
        calibration = self.row_loss.calibration
        if self._signature is None or self._signature[0] != calibration:
            self._signature = calibration, signature_of(self._private_net.net, calibration, self.dtype)
        return self._signature[1]
