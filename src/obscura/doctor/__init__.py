"""What `obscura doctor` makes of what it found: facts in, findings out, without I/O."""
