"""The paper's system: the last block of a ViT attends from a condition token (Eq. 2-7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccakit.models.base import ConditionalModel
from ccakit.models.each import SHARING
from ccakit.models.read_block import ReadBlock
from ccakit.models.trunks.block_parts import block_parts, row_norm
from ccakit.models.trunks.vit import Trunk, ViT

TOKEN_TYPES = ("type1", "type2")
QUERIES = ("fc", "fc-wq")


class ConditionToken(nn.Module):
    """q_c of Eq. 2 (`type1`, one-hot) or Eq. 3 (`type2`, a mask table through ReLU, as in CSN).

    forward(condition (B,)) -> (B, D); forward(None) -> (K, D), all conditions.
    """

    def __init__(self, kind: str, conditions: int, width: int, out: int) -> None:
        super().__init__()
        if kind not in TOKEN_TYPES:
            raise ValueError(f"condition token {kind!r}: one of {TOKEN_TYPES}")
        self.conditions = conditions
        self.mask = None
        if kind == "type2":  # begins as CSN's learned mask
            self.mask = nn.Parameter(torch.empty(conditions, width).normal_(0.9, 0.7))
        self.fc = nn.Linear(conditions if kind == "type1" else width, out)

    def forward(self, condition: Tensor | None = None) -> Tensor:
        if self.mask is None:
            if condition is None:
                condition = torch.arange(self.conditions, device=self.fc.weight.device)
            return self.fc(F.one_hot(condition, self.conditions).to(self.fc.weight.dtype))  # Eq. 2
        return self.fc(F.relu(self.mask if condition is None else self.mask[condition]))  # Eq. 3


class CCA(ConditionalModel):
    """Conditional Cross Attention: q from the condition, k and v from the image, [CLS] read (Fig. 3).

    token: `type1` or `type2`. query: "fc" (the FC of Eq. 2, 3 replaces the block's W_q) or "fc-wq" (it stands
    before W_q). residual: keep x_[CLS] beside the attention's output, as in Eq. 1; where a trunk's attention
    pool is read, nothing stands beside it. wv: the block's W_v is "shared" by all conditions, as in the
    paper, or "each" has its own. adapter: the width of an adapter of each condition beside the block's FFN;
    0 for none, as in the paper.
    """

    source = "the paper, Eq. 2-7"
    faithfulness = "after the paper; choices in docs/deviations.md"
    reads = "tokens"
    options = ("head", "query", "residual", "wv", "adapter")

    def __init__(
        self,
        vit: ViT,
        conditions: int,
        token: str,
        *,
        freeze: str | int = "none",
        query: str = "fc",
        residual: bool = True,
        wv: str = "shared",
        adapter: int = 0,
        **options,
    ) -> None:
        super().__init__(Trunk(vit, freeze), conditions, **options)
        if query not in QUERIES:
            raise ValueError(f"query {query!r}: one of {QUERIES}")
        if wv not in SHARING:
            raise ValueError(f"wv {wv!r}: one of {SHARING}")
        if adapter < 0:
            raise ValueError(f"adapter {adapter}: a width, or 0 for none")
        width, keep_query = self.trunk.embed_dim, query == "fc-wq"
        self.block = ReadBlock(block_parts(vit), keep_query, conditions, wv, adapter)
        self.token = ConditionToken(token, conditions, width, width if keep_query else self.block.width)
        self.norm = row_norm(vit)
        self.head = self.create_head()
        self.residual = residual

    def q_cond(self, condition: Tensor | None = None) -> Tensor:
        """Compute the attention query of each condition: (B,) -> (B, H*d), or of all for None: (K, H*d)."""
        q = self.token(condition)
        return q if self.block.q is None else self.block.q(q)

    def _read_queries(self, tokens: Tensor, q: Tensor, condition: Tensor) -> Tensor:
        """Read tokens (B, P+N, D) by the queries (B, R, H*d) of conditions (B, R) -> (B, R, E)."""
        k, v = self.block.keys_values(tokens)
        x_cls = self.block.residual(tokens) if self.residual else None
        return self.head(self.norm(self.block.rows(x_cls, q, k, v, condition)), condition)  # Eq. 6, 7

    def embed(self, tokens: Tensor, condition: Tensor) -> Tensor:
        q = self.q_cond(self.check_condition(condition, tokens))
        return self._read_queries(tokens, q[:, None], condition[:, None])[:, 0]

    def spaces(self, tokens: Tensor) -> Tensor:
        q = self.q_cond()[None].expand(tokens.shape[0], -1, -1)  # (K, H*d) -> (B, K, H*d)
        return self._read_queries(tokens, q, self.all_conditions(tokens))

    def attention_rows(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Compute the softmax of Eq. 6 that the embedding used: (B, H, P+N), rows summing to 1."""
        q = self.q_cond(condition)[:, None]
        return self.block.weights(q, self.block.keys_values(tokens)[0])[:, :, 0]

    def attention_spaces(self, tokens: Tensor) -> Tensor:
        q = self.q_cond()[None].expand(tokens.shape[0], -1, -1)  # one row a condition, on the same keys
        weights = self.block.weights(q, self.block.keys_values(tokens)[0])  # (B, H, K, P+N)
        return self.patch_map(weights.transpose(1, 2))
