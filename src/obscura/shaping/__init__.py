"""Sizes and times of what a link sends (specification, Message Padding, Traffic Pattern Obfuscation)."""
