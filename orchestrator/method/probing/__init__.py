"""What a linear probe reads off hidden states, and the values it looks for."""
