"""`make demo`: every part of the node shown with real processes. Each act is a module ``act_*.py`` with ``play(stage)``."""
