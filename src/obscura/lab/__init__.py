"""Measurements of what an observer of a link learns. Needs the extra ``lab`` (numpy, scikit-learn, matplotlib)."""
