"""Training runs: configuration, loop, checkpoints, evaluation."""

from torchdnc.training.config import Goal, RunConfig
from torchdnc.training.evaluate import evaluate, evaluate_run, load_run
from torchdnc.training.loop import resume, train
from torchdnc.training.models import MODELS, DNCModel, LSTMModel, Model
from torchdnc.training.optim import Optimizer
from torchdnc.training.recipes import find_recipe, load_recipe, recipe_names
from torchdnc.training.report import DiskError, NonFiniteError, Progress, Reporter, Result, RunError

__all__ = [
    "MODELS",
    "DNCModel",
    "DiskError",
    "Goal",
    "LSTMModel",
    "Model",
    "NonFiniteError",
    "Optimizer",
    "Progress",
    "Reporter",
    "Result",
    "RunConfig",
    "RunError",
    "evaluate",
    "evaluate_run",
    "find_recipe",
    "load_recipe",
    "load_run",
    "recipe_names",
    "resume",
    "train",
]
