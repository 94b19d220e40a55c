"""A mixture of families of functions: linear, sparse linear, leaky ReLU and quadratic regression.

Han et al. (2024), arXiv 2412.12276, figures 16 and 17. Their appendix names other families than
the figures; the figures are followed here. The paper states no scales. Here the input of the link,
u = phi(x).W, has the same distribution for every family: N(0, 1) over x and W. So the families
differ in their form and not in the size of y.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.errors import InputError, choose
from icl_mech.synthetic.data import at_least, check_noise

#: y = u, and link(u) for leaky ReLU. u is x.W / sqrt(D) (linear, leaky ReLU); x.W / sqrt(n_active)
#: with W on `n_active` coordinates drawn for each sequence (sparse); or (x^2 - 1).W / sqrt(2 D)
#: (quadratic).
FUNCTIONS = ("linear", "sparse", "leaky_relu", "quadratic")


@dataclass(frozen=True)
class FunctionMixture:
    """The distribution that sequences are drawn from; checked when it is made.

    Each sequence has a family, a W ~ N(0, I) and xs ~ N(0, I) of its own; the family is the task,
    and is never named.

    Attributes:
        dim: D, the number of coordinates of x.
        functions: the families, some of `FUNCTIONS`.
        n_active: the number of coordinates on which the W of a sparse function is not 0.
        slope: of leaky ReLU for negative u; above 0 and below 1.
        noise_variance: of the noise on every y.
        n_examples: demonstrations (x, y) in a sequence. One more x follows as the query.

    Raises:
        InputError: where a family is unknown or comes twice, or a number is out of range.

    Example:
        >>> FunctionMixture(8).names
        ['linear', 'sparse', 'leaky_relu', 'quadratic']
    """

    dim: int
    functions: tuple[str, ...] = FUNCTIONS
    n_active: int = 2
    slope: float = 0.1
    noise_variance: float = 0.01
    n_examples: int = 20

    def __post_init__(self) -> None:
        at_least(1, dim=self.dim, n_active=self.n_active, n_examples=self.n_examples)
        check_noise(self.noise_variance)
        for name in self.functions:
            choose(name, FUNCTIONS, "family of functions")
        if not self.functions or len(set(self.functions)) < len(self.functions):
            raise InputError(f"functions {list(self.functions)}; expected some, each once")
        if self.n_active > self.dim:
            raise InputError(f"n_active is {self.n_active}; expected at most dim ({self.dim})")
        if not 0 < self.slope < 1:
            raise InputError(f"slope is {self.slope}; expected from above 0 to below 1")

    @property
    def n_bases(self) -> int:
        """The number of families: each is a task, as a basis is in `Mixture`."""
        return len(self.functions)

    @property
    def names(self) -> list[str]:
        """Of the tasks."""
        return list(self.functions)

    def weights(
        self,
        free: Float[Tensor, "seq dim"],
        task: Int[Tensor, "seq"],
        generator: torch.Generator,
    ) -> Float[Tensor, "seq dim"]:
        """W of every sequence: `free`, and 0 outside the coordinates drawn for sparse ones."""
        order = torch.rand(free.shape, generator=generator).argsort(dim=1)
        active = (order < self.n_active).to(free)
        return torch.where(self._is(task, "sparse")[:, None], free * active, free)

    def respond(
        self,
        xs: Float[Tensor, "seq pair dim"],
        weights: Float[Tensor, "seq dim"],
        task: Int[Tensor, "seq"],
    ) -> Float[Tensor, "seq pair"]:
        """y without noise."""
        found = torch.zeros(xs.shape[:2], dtype=xs.dtype)
        for k, name in enumerate(self.functions):
            rows = task == k
            u = torch.einsum("spd,sd->sp", self.features(xs[rows], name), weights[rows])
            found[rows] = self.link(u) if name == "leaky_relu" else u
        return found

    def features(
        self, xs: Float[Tensor, "seq pair dim"], name: str
    ) -> Float[Tensor, "seq pair dim"]:
        """phi(x), the features in which a family is linear (before its link)."""
        if name == "quadratic":
            return (xs**2 - 1) / (2 * self.dim) ** 0.5
        return xs / (self.n_active if name == "sparse" else self.dim) ** 0.5

    def link(self, u: Tensor) -> Tensor:
        """Leaky ReLU."""
        return torch.where(u > 0, u, self.slope * u)

    def _is(self, task: Int[Tensor, "seq"], name: str) -> Tensor:
        known = self.functions.index(name) if name in self.functions else -1
        return task == known
