"""The rules of the house, as tests: files that must agree are compared, limits are counted."""
