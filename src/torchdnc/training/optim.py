"""Optimisers by their settings: RMSProp as in the paper, or Adam."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from torchdnc.checks import check_bound, check_choice, check_number, check_share

RMSPROP_DEFAULTS = {"momentum": 0.9, "decay": 0.95, "epsilon": 1e-4}
ADAM_DEFAULTS = {"epsilon": 1e-8}


@dataclass(frozen=True)
class Optimizer:
    """How weights are updated; a setting left at None takes the optimiser's own default."""

    name: Literal["rmsprop", "adam"] = "rmsprop"
    """RMSProp in the form of Graves (2013), as the papers use, or Adam."""
    learning_rate: float = 1e-4
    """Size of an update."""
    momentum: float | None = None
    """RMSProp only: share of the last update that is kept, in [0, 1) (None: 0.9)."""
    decay: float | None = None
    """RMSProp only: memory of the running averages, in [0, 1) (None: 0.95)."""
    epsilon: float | None = None
    """Damping of the division: under the root in RMSProp (None: 1e-4), beside it in Adam (None: 1e-8)."""
    anneal_from: float | None = None
    """Share of `steps` from which on the learning rate falls, in a line, to 0 behind the last (None: it stays)."""
    clip_norm: float | None = None
    """Largest norm of all gradients together (None: no limit)."""
    clip_value: float | None = None
    """Largest absolute value of a gradient's element (None: no limit)."""

    def __post_init__(self) -> None:
        check_choice("optimizer.name", self.name, ("rmsprop", "adam"))
        check_number("optimizer.learning_rate", self.learning_rate, above=0)
        for name in ("epsilon", "clip_norm", "clip_value"):
            check_bound(f"optimizer.{name}", getattr(self, name))
        for name in ("momentum", "decay"):
            self._check_share(name, getattr(self, name))
        if self.anneal_from is not None:
            check_share("optimizer.anneal_from", self.anneal_from)
        if self.clip_norm is not None and self.clip_value is not None:
            raise ValueError(
                "optimizer.clip_norm and optimizer.clip_value exclude each other, "
                f"got {self.clip_norm} and {self.clip_value}"
            )

    def _check_share(self, name: str, value: float | None) -> None:
        if value is None:
            return
        if self.name == "adam":
            raise ValueError(f'optimizer.{name} belongs to "rmsprop", got {value} with "adam"')
        if not 0 <= value < 1:
            raise ValueError(f"optimizer.{name} must be in [0, 1), got {value}")

    def setting(self, name: str) -> float:
        """The value of a setting, or the optimiser's own default where it is None."""
        value = getattr(self, name)
        defaults = RMSPROP_DEFAULTS if self.name == "rmsprop" else ADAM_DEFAULTS
        return cast(float, defaults[name] if value is None else value)

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser for these parameters."""
        if self.name == "adam":
            return torch.optim.Adam(parameters, lr=self.learning_rate, eps=self.setting("epsilon"))
        settings = {name: self.setting(name) for name in RMSPROP_DEFAULTS}
        return RMSProp(parameters, learning_rate=self.learning_rate, **settings)

    def set_rate(self, optimizer: torch.optim.Optimizer, done: float) -> None:
        """Sets the learning rate of the next update; done: the share of the run's steps before it, less than 1."""
        left = 1.0 if self.anneal_from is None else min(1.0, (1 - done) / (1 - self.anneal_from))
        for group in optimizer.param_groups:
            group["lr"] = left * self.learning_rate

    def clip(self, parameters: list[nn.Parameter]) -> Tensor:
        """Clip the gradients in place; returns their norm before."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        if self.clip_value is not None:
            nn.utils.clip_grad_value_(parameters, self.clip_value)
        return norm


class RMSProp(torch.optim.Optimizer):
    """RMSProp with centred variance and momentum, the damping under the root.

    n = d n + (1-d) g^2;  m = d m + (1-d) g;  v = momentum v - learning_rate g / sqrt(n - m^2 + epsilon);
    w = w + v. `torch.optim.RMSprop` damps outside the root, where n - m^2 rounded below zero is NaN.

    Args:
        parameters: what to update.
        learning_rate: above 0.
        momentum, decay (d): in [0, 1).
        epsilon: above 0.

    Source: Graves 2013, "Generating sequences with recurrent neural networks", equations 38 to 45.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        learning_rate: float,
        momentum: float,
        decay: float,
        epsilon: float,
    ) -> None:
        defaults = {"lr": learning_rate, "momentum": momentum, "decay": decay, "epsilon": epsilon}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        if closure is not None:
            raise TypeError("closure must be None: RMSProp evaluates the loss once, before the step")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update({name: torch.zeros_like(parameter) for name in ("square", "mean", "velocity")})
        square, mean, velocity = state["square"], state["mean"], state["velocity"]
        square.mul_(group["decay"]).addcmul_(gradient, gradient, value=1 - group["decay"])
        mean.lerp_(gradient, 1 - group["decay"])
        # A variance cannot be negative, but its rounded value can be.
        variance = square.addcmul(mean, mean, value=-1).clamp_(min=0)
        root = variance.add_(group["epsilon"]).sqrt_()
        velocity.mul_(group["momentum"]).addcdiv_(gradient, root, value=-group["lr"])
        parameter.add_(velocity)
