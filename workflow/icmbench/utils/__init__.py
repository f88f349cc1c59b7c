"""Helpers that are not about image coding: files, processes, devices."""
