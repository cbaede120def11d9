"""What the stored stages mean: frontier, cost, groups, ranking. Pure, without torch."""
