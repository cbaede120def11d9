"""Stepwise: teaches language models to reason without writing their reasoning down."""
