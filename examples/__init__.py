"""Specs on real data, and the demo that runs the whole loop on them."""
