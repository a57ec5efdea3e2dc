"""The stages of weights/recipe, which makes the sample backbone."""
