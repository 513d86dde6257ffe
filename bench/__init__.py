"""Every figure that the project promises, measured beside a calibration in the same run (docs/performance.md)."""
