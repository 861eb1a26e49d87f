"""Recipes: settings in YAML files; `yaml_files` reads them."""

from maporl_agents.recipes.yaml_files import about, names, path_of, recipe

__all__ = ["about", "names", "path_of", "recipe"]
