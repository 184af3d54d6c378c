"""Training runs: configuration, loop, checkpoints, evaluation."""

from torchdnc.training.config import Goal, RunConfig
from torchdnc.training.curriculum import Curriculum
from torchdnc.training.evaluate import evaluate, evaluate_run, load_run
from torchdnc.training.launch import follows, joined
from torchdnc.training.loop import follow, resume, train
from torchdnc.training.models import MODELS, DNCModel, LSTMModel, Model
from torchdnc.training.optim import Optimizer
from torchdnc.training.parallel import Group
from torchdnc.training.recipes import find_recipe, load_recipe, recipe_names
from torchdnc.training.report import DiskError, LostError, NonFiniteError, Progress, Reporter, Result, RunError

__all__ = [
    "MODELS",
    "Curriculum",
    "DNCModel",
    "DiskError",
    "Goal",
    "Group",
    "LSTMModel",
    "LostError",
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
    "follow",
    "follows",
    "joined",
    "load_recipe",
    "load_run",
    "recipe_names",
    "resume",
    "train",
]
