"""The model itself: built or loaded, what is known of it without loading, its layers, and it as a plain folder."""
