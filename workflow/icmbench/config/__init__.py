"""Configuration: typed models, loading and merging, and the plan that follows from them."""
