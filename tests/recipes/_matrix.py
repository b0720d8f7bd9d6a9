"""All cells of the matrix: recipe and method."""

from __future__ import annotations

from . import (
    _recipes_gradients,
    _recipes_losses,
    _recipes_modules,
    _recipes_optimizers,
    _recipes_rows,
    _recipes_weights,
)

RECIPES = [
    *_recipes_optimizers.RECIPES,
    *_recipes_gradients.RECIPES,
    *_recipes_losses.RECIPES,
    *_recipes_modules.RECIPES,
    *_recipes_rows.RECIPES,
    *_recipes_weights.RECIPES,
]
CELLS = [(recipe, method) for recipe in RECIPES for method in recipe.methods]
