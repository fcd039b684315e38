"""What attribution methods are made of: gradients along paths, layers caught, coalitions of
features, rules of backward passes.
"""
