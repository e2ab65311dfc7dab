"""Measurements that the README quotes, each a command of its own."""
