"""ICoT-KD (Deng et al. 2023): its parts as stages, what they learn, and the networks they learn it with."""
