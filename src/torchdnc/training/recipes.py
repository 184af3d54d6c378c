"""Recipes: runs written down as TOML files."""

import tomllib
from pathlib import Path

from torchdnc.training.config import RunConfig

# Inside the package once it is installed; beside src/ in a checkout.
FOLDERS = (Path(__file__).parents[1] / "recipes", Path(__file__).parents[3] / "recipes")


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob("*.toml")})


def find_recipe(name: str) -> Path:
    """The file of a recipe, by its name or by its own path; raises ValueError if there is none."""
    own = name.endswith(".toml")
    for path in [Path(name)] if own else [folder / f"{name}.toml" for folder in FOLDERS]:
        if path.is_file():
            return path
    raise ValueError(f"there is no recipe {name}: give the path of a .toml file or one of {', '.join(recipe_names())}")


def load_recipe(path: Path) -> RunConfig:
    """The run that a recipe describes; raises ValueError for what it does not understand."""
    try:
        data = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    return RunConfig.from_dict(data, str(path))
