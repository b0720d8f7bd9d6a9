"""Networks that send tokens to experts, in the ways that are in use."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

WIDTH, N_EXPERTS = 3, 4


class ListOfExperts(nn.Module):
    """One module per expert, asked whatever came to it; ``skip`` asks only those that something came to."""

    def __init__(self, skip=False):
        super().__init__()
        self.skip = skip
        self.router = nn.Linear(WIDTH, N_EXPERTS)
        self.make()
        self.head = nn.Linear(WIDTH, 2)

    def make(self):
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, WIDTH, bias=False))
            for _ in range(N_EXPERTS)
        )

    def expert(self, number, tokens):
        return self.experts[number](tokens)

    def mix(self, tokens):
        """(N, d) -> (N, d): the two best experts of every token."""
        weights, chosen = self.router(tokens).softmax(-1).topk(2, dim=-1)
        mixed = torch.zeros_like(tokens)
        for number in range(N_EXPERTS):
            token, place = torch.where(chosen == number)
            if self.skip and not len(token):
                continue
            mixed = mixed.index_add(0, token, self.expert(number, tokens[token]) * weights[token, place, None])
        return mixed

    def forward(self, x):
        return self.head(x + self.mix(x.flatten(0, 1)).view_as(x)).mean(1)


class StackOfExperts(ListOfExperts):
    """All experts' weights in one parameter, of which a matrix at a time is used: (E, out, in)."""

    def make(self):
        self.up = nn.Parameter(torch.randn(N_EXPERTS, 5, WIDTH))
        self.up_bias = nn.Parameter(torch.randn(N_EXPERTS, 5))
        self.down = nn.Parameter(torch.randn(N_EXPERTS, 5, WIDTH))

    def expert(self, number, tokens):
        return torch.tanh(F.linear(tokens, self.up[number], self.up_bias[number])) @ self.down[number]


class BatchedExperts(StackOfExperts):
    """Every token goes through every expert, in one product of stacks; ``product`` says by which function."""

    def __init__(self, product="bmm"):
        super().__init__()
        self.product = product

    def mix(self, tokens):
        weights = self.router(tokens).softmax(-1)
        stacked = tokens.expand(N_EXPERTS, *tokens.shape)
        up = self.up.transpose(1, 2)
        if self.product == "bmm":
            inner = torch.bmm(stacked, up) + self.up_bias.unsqueeze(1)
            out = torch.bmm(torch.tanh(inner), self.down)
        elif self.product == "baddbmm":
            out = torch.bmm(torch.tanh(torch.baddbmm(self.up_bias.unsqueeze(1), stacked, up)), self.down)
        elif self.product == "matmul":
            out = torch.tanh(tokens @ up + self.up_bias.unsqueeze(1)) @ self.down
        else:
            inner = torch.einsum("nd,efd->enf", tokens, self.up) + self.up_bias.unsqueeze(1)
            out = torch.einsum("enf,efd->end", torch.tanh(inner), self.down)
        return torch.einsum("end,ne->nd", out, weights)


class ExpertsOfFixedCapacity(StackOfExperts):
    """Every expert takes the tokens that want it most, as many for each, of whatever row: rows are mixed up in it."""

    def mix(self, tokens):
        weights = self.router(tokens).softmax(-1)
        best, token = weights.topk(len(tokens) // 2, dim=0)  # (C, E)
        inner = torch.einsum("ecd,efd->ecf", tokens[token.T], self.up) + self.up_bias[:, None]
        out = torch.bmm(torch.tanh(inner), self.down) * best.T.unsqueeze(-1)
        return torch.zeros_like(tokens).index_add(0, token.T.flatten(), out.flatten(0, 1))


class Projections(nn.Module):
    """Attention whose heads are axes of the weights, by einsum."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Parameter(torch.randn(WIDTH, 2, 3)) for _ in range(3))
        self.out = nn.Parameter(torch.randn(2, 3, WIDTH))
        self.head = nn.Parameter(torch.randn(2, WIDTH))

    def forward(self, x):
        q, k, v = (torch.einsum("btd,dhk->bhtk", x, w) for w in (self.query, self.key, self.value))
        heads = torch.softmax(q @ k.transpose(2, 3), -1) @ v
        return torch.einsum("bd,od->bo", torch.einsum("bhtk,hkd->btd", heads, self.out).mean(1), self.head)


EXPERTS = {
    "list": ListOfExperts,
    "list-skipping": lambda: ListOfExperts(skip=True),
    "stack": StackOfExperts,
    "stack-skipping": lambda: StackOfExperts(skip=True),
    "bmm": BatchedExperts,
    "baddbmm": lambda: BatchedExperts("baddbmm"),
    "matmul": lambda: BatchedExperts("matmul"),
    "einsum": lambda: BatchedExperts("einsum"),
    "projections": Projections,
}


def make_experts(name, n_rows=6, n_tokens=4):
    """(module, x) in float64."""
    torch.manual_seed(0)
    module = EXPERTS[name]().double().eval()
    return module, torch.randn(n_rows, n_tokens, WIDTH).double()


class GroupedExperts(nn.Module):
    """Stacks of matrices that meet the tokens, sorted by expert, in one product, as fused experts do.

    Widths are multiples of four: the product asks for lines of sixteen bytes.
    """

    width = 4

    def __init__(self):
        super().__init__()
        self.router, self.head = nn.Linear(4, N_EXPERTS), nn.Linear(4, 2)
        self.up, self.down = nn.Parameter(torch.randn(N_EXPERTS, 8, 4)), nn.Parameter(torch.randn(N_EXPERTS, 8, 4))

    def forward(self, x):
        tokens = x.flatten(0, 1)
        weights, chosen = self.router(tokens).softmax(-1).topk(2, dim=-1)
        order = chosen.flatten().argsort()
        ends = chosen.flatten().bincount(minlength=N_EXPERTS).cumsum(0).to(torch.int32)
        hidden = F.grouped_mm(tokens[order // 2], self.up.transpose(-2, -1), offs=ends).tanh()
        out = F.grouped_mm(hidden, self.down, offs=ends) * weights.flatten()[order, None]
        return self.head(x + torch.zeros_like(tokens).index_add(0, order // 2, out).view_as(x)).mean(1)
