"""Retrieval: passages indexed by their words and by an encoder, found with questions, measured with known items."""
