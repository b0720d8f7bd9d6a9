"""What the package knows of a skorch net, on a private copy of it."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.exceptions import NotFittedError
from skorch import NeuralNet

from ..loss import RowLoss, curvature_of, kind_of, uniforms_shape_of
from ..rows import prepare_rows
from ..utils._compat_skorch import module_names
from ..utils._fastpath import mha_fastpath_off
from ._module_state import load_values, signature_of
from ._private_net import NetShell


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
    predictive : str
        What the output parametrises, also where a custom loss flattens it (known after :meth:`calibrate`):
        ``"categorical"`` (cross-entropy on logits), ``"categorical_probs"`` (NLLLoss in a NeuralNetClassifier, which
        takes the logarithm itself), ``"categorical_logprobs"`` (NLLLoss on log-probabilities), ``"bernoulli"``
        (BCEWithLogitsLoss), ``"gaussian"`` (MSELoss), ``"laplace"`` (L1Loss), or ``"unknown"``.
    is_classification : bool
    class_axis : int
        The axis of the outputs' classes.
    is_sequence : bool
        Whether every row has classes at several positions (tokens, pixels).
    """

    def __init__(self, shell):
        self._shell = shell
        net = shell.net
        self.module = net.module_
        floating = [p for p in self.module.parameters() if p.is_floating_point()]
        if not floating:
            raise ValueError("expected a module with parameters, got one without: nothing in it was trained")
        if any(torch.nn.parameter.is_lazy(p) for p in self.module.parameters()):
            raise NotFittedError("the module has lazy parameters that were never given a shape: fit the net first")
        self.device, self.dtype = floating[0].device, floating[0].dtype
        self._loss = RowLoss(shell)
        self._loss.kind, self._loss.closed = kind_of(net, self._loss.overridden, self.dtype, self.device)
        self.class_axis, self.is_sequence = 1, False
        self.threshold = float(getattr(net, "threshold", 0.5))

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
        return cls(NetShell.from_net(net))

    def __getstate__(self):
        return {name: vars(self)[name] for name in ("_shell", "_loss", "class_axis", "is_sequence")}

    def __setstate__(self, state):
        self.__init__(state["_shell"])
        vars(self).update(state)

    @property
    def predictive(self):
        return self._loss.kind

    @property
    def is_classification(self):
        classifies = self.predictive.startswith("categorical") or self.predictive == "bernoulli"
        return classifies or isinstance(self._shell.net, ClassifierMixin)

    # --- parameters ---------------------------------------------------------------------------------------------

    @property
    def trainable_names(self):
        """list of str: parameters with ``requires_grad=True`` in ``named_parameters`` order, tied ones once."""
        return [name for name, p in self.module.named_parameters() if p.requires_grad]

    def parameters(self):
        """Current parameters by name, detached (they share memory with the private module)."""
        return {name: p.detach() for name, p in self.module.named_parameters()}

    def buffers(self):
        """Current buffers by name, detached (they share memory with the private module)."""
        return {name: b.detach() for name, b in self.module.named_buffers()}

    def load(self, parameters, buffers=None):
        """Point the private module at other values.

        Parameters
        ----------
        parameters : mapping of str to Tensor
            Every parameter by its name in ``module.named_parameters()``. Not copied where dtype and device agree.
        buffers : mapping of str to Tensor, optional
            Every buffer by its name in ``module.named_buffers()``; None keeps the current ones.

        Raises
        ------
        ValueError
            When a name is missing or foreign, or a shape differs; then nothing was changed.
        """
        load_values(self.module, parameters, buffers)

    # --- rows and outputs ---------------------------------------------------------------------------------------

    def prepare(self, X, y=None):
        """Validated access to rows, as the net itself would read them.

        Parameters
        ----------
        X : array-like, tensor, sparse matrix, DataFrame, dict or list of these, or torch Dataset
            What the net's ``fit`` takes. A Dataset brings its own targets; ``y`` is then ignored, as skorch does.
        y : array-like, optional
            Targets. None where there are none (queries) or where ``X`` is a Dataset.

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
        return prepare_rows(
            self._shell.net, X, y, device=self.device, dtype=self.dtype, integer_targets=self._integer_targets()
        )

    def _integer_targets(self):
        """What integer targets become: class labels int64, numbers the module's dtype, else as they are."""
        if self.predictive.startswith("categorical"):
            return torch.int64
        if self._loss.overridden:  # its targets are what it takes, whatever criterion stands beside it
            return None
        return self.dtype if self.predictive in ("bernoulli", "gaussian", "laplace") else None

    def forward(self, x):
        """Outputs of the private module for a batch from :class:`Rows`, by the net's own ``infer``.

        The grad mode is the caller's. Of several outputs (a tuple) the first is returned, which is what skorch's
        ``predict`` reads; the others then stand as None in what ``get_loss`` is handed.

        Returns
        -------
        Tensor of shape (B, ...)
        """
        with mha_fastpath_off():
            output = self._shell.net.infer(x)
        self._loss.n_extra = len(output) - 1 if isinstance(output, tuple) else None
        output = output[0] if isinstance(output, tuple) else output
        if not isinstance(output, torch.Tensor):
            raise TypeError(
                f"expected a module that returns a tensor (or a tuple that starts with one), got a "
                f"{type(output).__name__}"
            )
        return output

    # --- the loss of a row --------------------------------------------------------------------------------------

    def calibrate(self, rows, indices=None):
        """Fix what the loss of a row needs from the training rows, check the labels and the criterion. Call it once.

        The mean weight per row that a weighted or ``ignore_index`` criterion divides by, and the batch size for
        ``reduction="sum"``. Also makes sure, on a few rows, that the criterion does not couple rows. Costs one forward
        pass of up to four rows, and for cross-entropy and NLL one pass over the targets; for losses that are not
        torch's own (a custom criterion, an overridden ``get_loss``) one evaluation on made-up outputs for all rows,
        which shows whether rows weigh the same.

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
        output = self._loss.calibrate(rows, indices, self.forward)
        structure = self._loss.structures.get(output.ndim)
        if structure is not None and structure.kind.startswith("categorical"):
            self._loss.kind, self.class_axis = structure.kind, structure.axis
        self.is_sequence = self.predictive.startswith("categorical") and output.ndim > 2

    def row_losses(self, output, y, x=None):
        """Differentiable loss of every row, scaled so that the batch mean is what training minimised.

        A term of an overridden ``get_loss`` that reaches parameters directly (a penalty) is in the value but not in
        the gradient: it is no row's.

        Parameters
        ----------
        output : Tensor (B, ...)
            From :meth:`forward`.
        y : Tensor (B, ...)
        x : optional
            The batch, for a ``get_loss`` that reads ``X``.

        Returns
        -------
        Tensor (B,)

        Raises
        ------
        ValueError
            Targets missing or not fitting the outputs; class weights without :meth:`calibrate`; a criterion that
            couples rows (checked once for every kind of output and target).
        """
        return self._loss(output, y, x)

    def own_losses(self, output, y, x=None):
        """The criterion on every row alone, as it is called: a mean over the row's own tokens, or their sum.

        Unlike :meth:`row_losses` not scaled by what the training batches divided by. 0 where nothing counts.

        Parameters
        ----------
        output, y, x
            As in :meth:`row_losses`.

        Returns
        -------
        Tensor (B,)
        """
        return self._loss.alone(output, y, x)

    def asked_labels(self, output, y, x=None):
        """The class that the loss asks for at every position of a sequence, -1 where none counts.

        Returns
        -------
        Tensor (B, *positions) of int64
        """
        return self._loss.asked_labels(output, y, x)

    # --- curvature of the criterion -----------------------------------------------------------------------------

    def signature(self):
        """str: a digest of the module's code and structure and of the loss, without the parameters' values.

        Two networks with the same signature and parameters give the same gradients; caches use it.
        """
        return signature_of(self._shell.net, self._loss, self.dtype)

    def n_roots(self, output):
        """Number of tensors that :meth:`curvature_roots` yields: the elements of one row's output."""
        return output.shape[1:].numel()

    def curvature_roots(self, output, y, x=None):
        """Columns of a root of every row's output Hessian.

        ``sum_c b_c b_c^T`` is the Hessian of the row loss in that row's output; for NLLLoss the matrix whose pull-back
        to the logits is the logits' Hessian, for L1Loss the Fisher of the Laplace distribution. Other criteria go
        through their Hessian by automatic differentiation and ``eigh``, negative eigenvalues set to zero.

        Parameters
        ----------
        output, y, x
            As in :meth:`row_losses`.

        Yields
        ------
        Tensor like ``output``
            One column for all rows at once, detached; ``n_roots(output)`` of them.
        """
        return self.output_hessian(output, y, x).columns()

    def can_draw(self, n_roots):
        """bool: whether :meth:`sampled_root` is what the loss implies, at about the cost of its gradient."""
        small = self.predictive != "unknown" and n_roots <= 512
        return self._loss.closed or any(self._loss.structures.values()) or small

    def uniforms_shape(self, output):
        """Shape, per row, of the uniforms that one :meth:`sampled_root` needs."""
        return uniforms_shape_of(self._loss, output)

    def sampled_root(self, output, y, uniforms, x=None):
        """One random column ``b`` per row with ``E[b b^T]`` the matrix of :meth:`curvature_roots`.

        Categorical outputs draw a class from the predictive distribution; all others draw signs, which have the same
        expectation as draws from the distribution and less variance.

        Parameters
        ----------
        output, y, x
            As in :meth:`row_losses`.
        uniforms : Tensor (B, *uniforms_shape(output)) of float64
            In [0, 1): the only source of randomness.

        Returns
        -------
        Tensor like ``output``
        """
        expected = (len(output), *self.uniforms_shape(output))
        if tuple(uniforms.shape) != expected:
            raise ValueError(f"expected uniforms of shape {expected} for these outputs, got {tuple(uniforms.shape)}")
        return self.output_hessian(output, y, x).draw(uniforms.to(output.device))

    def output_hessian(self, output, y, x=None):
        """The matrices of :meth:`curvature_roots`, for several columns, draws or products of one batch.

        Returns
        -------
        An object with ``columns()``, ``draw(uniforms)``, and ``product(vector)`` for vectors like ``output``.
        """
        return curvature_of(self._loss, output.detach(), y, x)
