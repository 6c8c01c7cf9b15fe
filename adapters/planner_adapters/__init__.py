"""Thin shells around planner_core: they observe, call tick, and carry out what it says. They decide nothing."""
