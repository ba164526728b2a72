"""Evaluation that can be repeated: items, extraction, scores and their intervals."""
