"""Tests of what every trainer shares."""
