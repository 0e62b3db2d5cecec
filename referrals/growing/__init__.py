"""Forests of people who don't exist: to try detectors on, to fill a demo, to measure with."""
