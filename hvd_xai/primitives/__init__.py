"""The pieces that attribution methods are made of."""
